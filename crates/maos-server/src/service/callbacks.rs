//! Callbacks: who submitted a task is told of its end, signed, tried again and given up aloud.
//!
//! Its law: a callback is a document that the engine keeps (`REGISTER`) from before its task is
//! accepted until it was taken or lies in `dead:callbacks`. So none is lost over a crash, and one
//! may come twice: the `webhook-id` is the same then.

use std::time::Duration;

use axum::body::Bytes;
use maos_api::claude::{self, ClaudeTaskStatus};
use maos_api::error::{ApiError, ErrorCode};
use maos_api::messages::{Mailbox, Message};
use maos_core::command::{Command, Expect};
use maos_core::ids::TaskId;
use maos_core::node::{Answer, Echo, Query};
use maos_core::payload::Payload;
use maos_core::record::EntryRecord;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tracing::{debug, warn};
use uuid::Uuid;

use super::tasks::null;
use super::{Service, faults, now};
use crate::webhooks::{Secret, Target, Undelivered};

const REGISTER: &str = "callback";
/// Where callbacks go that nobody took.
const DEAD: &str = "callbacks";
/// How long they stay there.
const DEAD_SECONDS: u64 = 30 * 24 * 3_600;
/// Before something that does not answer is asked again.
const PAUSE: Duration = Duration::from_secs(5);

/// Who is told, as it is kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Callback {
    url: String,
    secret: String,
    /// Why nobody is to be told any more: it goes to the dead ones, also after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given_up: Option<String>,
}

impl Callback {
    /// One with a secret that nobody knows yet.
    pub(super) fn new(url: String) -> Callback {
        Callback { url, secret: Secret::generate().text(), given_up: None }
    }

    pub(super) fn secret(self) -> String {
        self.secret
    }

    fn of(entry: &EntryRecord) -> Option<Callback> {
        let Some(Payload::Inline(document)) = &entry.value else { return None };
        serde_json::from_slice(document).ok()
    }

    /// Keeps it for this task.
    pub(super) fn keep(&self, task: TaskId) -> Result<Command, ApiError> {
        let document = serde_json::to_vec(self).map_err(|why| faults::internal(&why))?;
        Ok(entry(task, Some(Payload::inline(&document))))
    }
}

fn entry(task: TaskId, value: Option<Payload>) -> Command {
    let key = task.to_string().into();
    Command::SetEntry { register: REGISTER.into(), key, value, expect: Expect::Anything }
}

impl Service {
    /// Refuses a URL that could never be told.
    pub(super) fn check_callback(&self, url: &str) -> Result<(), ApiError> {
        self.inner.webhooks.check(url).map_err(|why| {
            let what = format!("cannot be called: {why}");
            let fields = json!({ "callback_url": what });
            let message = format!("`callback_url` {what}");
            ApiError::new(ErrorCode::ValidationFailed, message).with("fields", fields)
        })
    }

    /// The callback that is kept for a task.
    pub(super) async fn callback(&self, task: TaskId) -> Option<Callback> {
        let query = Query::Entry(REGISTER.into(), task.to_string().into());
        let Ok(Answer::Entries(found)) = self.inner.driver.ask(query).await else { return None };
        found.first().and_then(Callback::of)
    }

    /// Nobody is to be told of this task's end, any more.
    pub(super) async fn forget_callback(&self, task: TaskId) {
        // A server that stops has it still, and tells again.
        drop(self.inner.driver.run(entry(task, None), Echo::Id).await);
    }

    /// Goes on with what an earlier server had not told.
    pub(super) async fn resume_callbacks(&self) -> Result<(), ApiError> {
        for kept in self.entries(REGISTER).await? {
            if let (Ok(task), Some(callback)) = (Uuid::parse_str(&kept.key), Callback::of(&kept)) {
                self.begin_callback(TaskId(task.as_u128()), callback);
            }
        }
        Ok(())
    }

    /// Waits for a task's end and tells of it, beside everything else.
    pub(super) fn begin_callback(&self, task: TaskId, callback: Callback) {
        let service = self.clone();
        let closing = self.inner.ending.streams.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = closing.cancelled() => {}
                () = service.call_back(task, callback) => {}
            }
        });
    }

    async fn call_back(&self, task: TaskId, callback: Callback) {
        let Some(ended) = self.ended_for_callback(task).await else {
            debug!(task.id = %task, "a callback's task is gone");
            return self.forget_callback(task).await;
        };
        let kind = format!("task.{}", ended.task.status.name());
        let body = json!({"type": kind, "timestamp": now(), "data": ended});
        let body = Bytes::from(body.to_string());
        let why = match &callback.given_up {
            Some(why) => Some(why.clone()),
            None => self.try_callback(task, &callback, &ended, &body).await,
        };
        if let Some(why) = why {
            self.bury(&ended, &kind, &body, &callback.url, &why).await;
        }
        self.forget_callback(task).await;
    }

    /// Tells of the end; why it was given up, if it was, is kept when this returns.
    async fn try_callback(
        &self,
        task: TaskId,
        callback: &Callback,
        ended: &ClaudeTaskStatus,
        body: &Bytes,
    ) -> Option<String> {
        let Ok(secret) = Secret::parse(&callback.secret) else {
            return Some("it was kept without a secret that can be read".to_owned());
        };
        let target = Target { url: callback.url.clone(), secret };
        let id = ended.task.id.to_string();
        let tried = |number: u32, why: &Undelivered, pause: Duration| {
            debug!(task.id = %task, "callback try {number} failed, again in {pause:?}: {why}");
        };
        let why = self.inner.webhooks.send(&target, &id, body, &tried).await.err()?.to_string();
        warn!(task.id = %task, url = callback.url, "a callback was given up: {why}");
        let given_up = Callback { given_up: Some(why.clone()), ..callback.clone() };
        if let Ok(command) = given_up.keep(task) {
            // A server that stops has it as it was, and tries again.
            drop(self.inner.driver.run(command, Echo::Id).await);
        }
        Some(why)
    }

    /// A task in the form of those who are told, once it has ended; `None` if it is gone.
    async fn ended_for_callback(&self, task: TaskId) -> Option<ClaudeTaskStatus> {
        let id = claude::other_id(Uuid::from_u128(task.0));
        loop {
            // Its end, or that the engine no longer has it.
            drop(self.inner.driver.wait_for_end(task).await);
            match self.claude_task(id, Duration::ZERO).await {
                Ok(shown) if shown.task.completed_at.is_some() => return Some(shown),
                Err(why) if why.code == ErrorCode::TaskNotFound => return None,
                Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Puts a callback that nobody took where it can be read.
    async fn bury(
        &self,
        ended: &ClaudeTaskStatus,
        kind: &str,
        body: &Bytes,
        url: &str,
        error: &str,
    ) {
        let dead = Mailbox::Dead(DEAD.to_owned());
        let created_at = now();
        let text = String::from_utf8_lossy(body).into_owned();
        let message = Message {
            message_id: ended.task.id,
            mailbox: Mailbox::Task(ended.maos_task_id),
            offset: 0,
            sender: None,
            kind: Some(kind.to_owned()),
            body: RawValue::from_string(text).unwrap_or_else(|_| null()),
            reply_to: None,
            metadata: null(),
            created_at,
            expires_at: created_at,
        };
        let expires = created_at.0 + DEAD_SECONDS * 1_000_000;
        let metadata = json!({"url": url, "error": error}).to_string();
        while let Err(why) = self.inner.bus.copy(&message, &dead, expires, metadata.clone()).await {
            warn!("a callback that was given up cannot be kept: {}", why.message);
            tokio::time::sleep(PAUSE).await;
        }
    }
}
