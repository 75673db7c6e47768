//! The message bus, asked by a client.

use hyper::Method;

use super::url::Query;
use super::wire::Exchange;
use super::{Answer, Client, ClientError};
use crate::messages::{AckAnswer, MessagePage, MessageQuery, Receipt};
use crate::paths;

impl Client {
    /// Sends a message. With the key it is as in [`Client::submit`].
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn send_message(
        &self,
        body: Vec<u8>,
        idempotency_key: Option<&str>,
    ) -> Result<Answer<Receipt>, ClientError> {
        self.submit_to(paths::MESSAGES, body, idempotency_key).await
    }

    /// A page of a mailbox; with a wait, as soon as there is a message.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn messages(&self, query: &MessageQuery) -> Result<Answer<MessagePage>, ClientError> {
        let path = Query::default()
            .with("mailbox", Some(&query.mailbox.to_string()))
            .with("reader", Some(&query.reader))
            .with("offset", query.offset.map(|offset| offset.to_string()).as_deref())
            .with("limit", Some(&query.limit.to_string()))
            .with("wait_seconds", Some(&query.wait_seconds.to_string()))
            .after(paths::MESSAGES);
        let server_wait = std::time::Duration::from_secs(query.wait_seconds);
        self.call(Exchange { server_wait, ..Exchange::new(Method::GET, path) }).await
    }

    /// Says that a reader has handled everything up to a message. `body` has `mailbox`, `offset`
    /// and `reader`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn acknowledge(&self, body: Vec<u8>) -> Result<Answer<AckAnswer>, ClientError> {
        self.send(Method::POST, paths::MESSAGES_ACK.to_owned(), body).await
    }
}
