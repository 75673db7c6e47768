//! The message bus, asked by a client. Bodies are JSON as the server's description says.

use hyper::Method;
use serde::Serialize;

use super::url::Query;
use super::wire::Exchange;
use super::{Answer, Client, ClientError, named};
use crate::messages::{AckAnswer, MailboxPage, MailboxQuery, MessagePage, MessageQuery, Receipt};
use crate::paths;
use crate::subscriptions::{Subscription, SubscriptionAnswer, SubscriptionList};

impl Client {
    /// Sends a message. With the key it is as in [`Client::submit`].
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn send_message(
        &self,
        body: &(impl Serialize + ?Sized),
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
    pub async fn acknowledge(
        &self,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<AckAnswer>, ClientError> {
        self.send(Method::POST, paths::MESSAGES_ACK.to_owned(), body).await
    }
    /// Where there are messages, by name.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn mailboxes(
        &self,
        query: &MailboxQuery,
    ) -> Result<Answer<MailboxPage>, ClientError> {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let path = Query::default()
            .with("prefix", text(&query.prefix).as_deref())
            .with("after", text(&query.after).as_deref())
            .with("limit", Some(&query.limit.to_string()))
            .after(paths::MAILBOXES);
        self.read(path).await
    }

    /// The mailboxes whose messages are posted somewhere.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn subscriptions(&self) -> Result<Answer<SubscriptionList>, ClientError> {
        self.read(paths::SUBSCRIPTIONS.to_owned()).await
    }

    /// One of them: how far it is, and what is tried again.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn subscription(&self, name: &str) -> Result<Answer<Subscription>, ClientError> {
        self.read(named(paths::SUBSCRIPTION, name)).await
    }

    /// Has the messages of a mailbox posted to a URL, or has those of a subscription posted
    /// elsewhere. `body` has `mailbox` and `url`, and may have `secret` and `from_offset`. A secret
    /// that the server makes up is in this answer and never again.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn set_subscription(
        &self,
        name: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<Subscription>, ClientError> {
        self.send(Method::PUT, named(paths::SUBSCRIPTION, name), body).await
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn end_subscription(
        &self,
        name: &str,
    ) -> Result<Answer<SubscriptionAnswer>, ClientError> {
        self.call(Exchange::new(Method::DELETE, named(paths::SUBSCRIPTION, name))).await
    }

    /// Delivers again what was given up.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn replay_subscription(
        &self,
        name: &str,
    ) -> Result<Answer<SubscriptionAnswer>, ClientError> {
        self.call(Exchange::new(Method::POST, named(paths::SUBSCRIPTION_REPLAY, name))).await
    }
}
