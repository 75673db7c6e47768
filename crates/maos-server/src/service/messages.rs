//! Messages: who can be sent one, and the bus behind it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use maos_api::error::{ApiError, ErrorCode};
use maos_api::messages::{
    self, AckAnswer, Mailbox, MailboxPage, MessagePage, MessageQuery, Receipt,
};
use maos_core::ids::{AgentId, TaskId};
use uuid::Uuid;

use super::{Inner, Service, SubmitOptions, present};
use crate::messages::{LookUp, SendOnce};

impl Service {
    /// Sends a message: on disk when this returns.
    ///
    /// # Errors
    /// What is wrong with it, or why it is not taken.
    pub async fn send_message(
        &self,
        body: &[u8],
        options: SubmitOptions,
    ) -> Result<Receipt, ApiError> {
        if self.stopping() {
            let message = "the server is shutting down and takes nothing new";
            return Err(ApiError::new(ErrorCode::ShuttingDown, message));
        }
        let draft = messages::parse(body, self.bounds())?;
        let once = options.idempotency_key.map(|key| SendOnce {
            key: format!("http/{key}"),
            hash: *blake3::hash(body).as_bytes(),
        });
        self.inner.bus.send(draft, once).await
    }

    /// Messages of a mailbox.
    ///
    /// # Errors
    /// Why they cannot be told.
    pub async fn messages(&self, query: &MessageQuery) -> Result<MessagePage, ApiError> {
        self.inner.bus.read(query).await
    }

    /// Notes that a reader has handled messages.
    ///
    /// # Errors
    /// What is wrong with the request, or why it cannot be noted.
    pub async fn acknowledge_messages(&self, body: &[u8]) -> Result<AckAnswer, ApiError> {
        let ack = messages::parse_ack(body, self.bounds())?;
        self.inner.bus.acknowledge(&ack).await
    }

    /// Where there are messages.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn mailboxes(
        &self,
        prefix: String,
        after: String,
        limit: u32,
    ) -> Result<MailboxPage, ApiError> {
        self.inner.bus.mailboxes(prefix, after, limit).await
    }

    /// Whether messages can be sent there.
    async fn check_mailbox(&self, mailbox: Mailbox) -> Result<(), ApiError> {
        match mailbox {
            Mailbox::Agent(id) => self.check_agent(id).await,
            Mailbox::Task(id) => {
                let record = self.record(TaskId(id.as_u128()), Duration::ZERO).await?;
                if !record.stage.ended() {
                    return Ok(());
                }
                let status = present::status(&record.stage).name();
                let message = format!("task `{id}` is {status}: nobody reads its messages");
                Err(ApiError::new(ErrorCode::AlreadyEnded, message).with("status", status))
            }
            Mailbox::Topic(_) | Mailbox::All | Mailbox::Dead(_) => Ok(()),
        }
    }

    async fn check_agent(&self, id: Uuid) -> Result<(), ApiError> {
        if self.agent_state(AgentId(id.as_u128())).await?.record.end.is_none() {
            return Ok(());
        }
        let message = format!("agent `{id}` has ended its service: nobody reads its messages");
        Err(ApiError::new(ErrorCode::AgentEnded, message).with("agent_id", id.to_string()))
    }
}

/// How the bus asks a server whether somebody is there, without keeping it alive.
pub(super) fn look_up(inner: &Arc<Inner>) -> LookUp {
    let inner: Weak<Inner> = Arc::downgrade(inner);
    Box::new(move |mailbox| {
        let service = inner.upgrade().map(|inner| Service { inner });
        Box::pin(async move {
            match service {
                Some(service) => service.check_mailbox(mailbox).await,
                None => {
                    let message = "the server is shutting down and takes nothing new";
                    Err(ApiError::new(ErrorCode::ShuttingDown, message))
                }
            }
        })
    })
}
