//! The client: every endpoint as a typed method, over HTTP/1.1; with the feature `tls` also https.
//!
//! Law: an answer is handed on both read and as the bytes it was, so that a newer server's fields
//! are not lost; what may have been done is sent again only if that is harmless. It must not know
//! who uses it, and prints nothing.
//!
//! ```no_run
//! # async fn example() -> Result<(), maos_api::client::ClientError> {
//! use maos_api::client::Client;
//! use maos_api::task::TaskSubmission;
//!
//! let client = Client::new("http://127.0.0.1:8000")?;
//! let task = TaskSubmission { name: "hello".into(), ..TaskSubmission::action("noop") };
//! let ended = client.submit_task(&task).await?.wait().await?;
//! println!("{}: {:?}", ended.task.status.name(), ended.task.result);
//! # Ok(())
//! # }
//! ```

mod artifacts;
mod checkpoints;
mod content;
mod messages;
mod retry;
mod shared;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod untold;
mod url;
mod wider;
mod wire;
pub mod worker;

use std::io;
use std::ops::Deref;
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use uuid::Uuid;

use crate::agent::{AgentEnvelope, AgentPage, TerminateAnswer};
use crate::claude::{ClaudeAccepted, ClaudeTaskStatus};
use crate::error::ErrorBody;
use crate::explain::Explanation;
use crate::listing::{AgentQuery, TaskQuery};
use crate::logs::{LogPage, LogQuery};
use crate::paths;
use crate::system::{DetailedHealth, Health, SystemMetrics, SystemStatus};
use crate::task::{CancelAnswer, TaskEnvelope, TaskPage, TaskResults, TaskSubmission};
use crate::worker::{Poll, PollAnswer};

use url::{Address, Query, escaped};
use wire::{Exchange, Heard, Opened, Wire};

pub use artifacts::Download;
pub use content::Content;
pub use retry::Retries;
pub use stream::{Events, LogLines, Said};

/// Where a server listens unless it is told otherwise.
pub const URL_DEFAULT: &str = "http://127.0.0.1:8000";
/// Longest wait that one request may ask of a server.
pub const WAIT_SECONDS_MAX: u64 = 60;

/// Why a call has no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The URL of the server cannot be used.
    #[error("`{url}` is no address of a server: {why}")]
    BadUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// What was to be trusted is no certificate, or would not be used.
    #[error("no certificate of an authority can be trusted: {why}")]
    BadCertificate {
        /// What is wrong.
        why: String,
    },
    /// The server does not show that it is the one in its URL, or speaks no TLS.
    #[error("no secure connection to `{url}` can be made")]
    Insecure {
        /// The server.
        url: String,
        /// The fault.
        #[source]
        source: io::Error,
    },
    /// Nobody listens there, or not for us.
    #[error("no server answers at `{url}`")]
    Unreachable {
        /// The server.
        url: String,
        /// The fault.
        #[source]
        source: io::Error,
    },
    /// The connection ended before the answer did. Whether the request was carried out is unknown.
    #[error("the connection to `{url}` broke before the answer was there")]
    Broken {
        /// The server.
        url: String,
        /// The fault.
        #[source]
        source: hyper::Error,
    },
    /// What was to be sent cannot be written as JSON, such as a map whose keys are no text.
    #[error("the request cannot be written as JSON")]
    NoJson {
        /// The fault.
        #[source]
        source: serde_json::Error,
    },
    /// A file that was to be sent cannot be read.
    #[error("the file cannot be read")]
    Unreadable {
        /// The fault.
        #[source]
        source: io::Error,
    },
    /// There was no answer in time. Whether the request was carried out is not known.
    #[error("`{url}` did not answer within {seconds} s")]
    TimedOut {
        /// The server.
        url: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The answer is longer than any that a server gives.
    #[error("the answer of `{url}` is longer than {bytes_max} bytes")]
    AnswerTooLarge {
        /// The server.
        url: String,
        /// The bound.
        bytes_max: usize,
    },
    /// Somebody answers there, but not in this contract.
    #[error("`{url}` answers {status}, but not as a maos server")]
    NotTheContract {
        /// The server.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What is wrong with the answer.
        #[source]
        source: serde_json::Error,
    },
    /// A worker was stopped, and the server could not be told of all that it ran.
    #[error("stopped before `{url}` was told of {attempts} attempts")]
    Untold {
        /// The server.
        url: String,
        /// How many.
        attempts: usize,
    },
    /// The server refused, or failed.
    #[error("{}", body.error)]
    Api {
        /// The HTTP status.
        status: u16,
        /// What it said.
        body: Box<ErrorBody>,
        /// When to ask again, if it says so.
        retry_after: Option<Duration>,
    },
}

/// An answer: as a value, and as the bytes it was.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// What it says.
    pub value: T,
    /// One JSON document, with what this release does not know too.
    pub raw: Bytes,
}

impl<T> Deref for Answer<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// How long the client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For somebody to listen there, where a request only reads: a server that was just started
    /// does not yet.
    pub refused: Duration,
    /// For an answer, on top of the wait that a request asks of the server.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        let (connect, answer) = (Duration::from_secs(5), Duration::from_secs(30));
        Patience { connect, refused: Duration::ZERO, answer }
    }
}

/// A server to talk to. Connections are kept and used again; calls may run side by side.
///
/// Dropping a call's future drops its connection; whether the server carried it out is unknown.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
    patience: Patience,
    retries: Retries,
}

/// A submission that was accepted; durable from then on.
#[derive(Debug)]
pub struct Submitted<'c> {
    client: &'c Client,
    /// What the server said.
    pub answer: Answer<TaskEnvelope>,
}

impl Deref for Submitted<'_> {
    type Target = Answer<TaskEnvelope>;

    fn deref(&self) -> &Answer<TaskEnvelope> {
        &self.answer
    }
}

impl Submitted<'_> {
    /// Waits until the task has ended: the server answers at that moment.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn wait(self) -> Result<Answer<TaskEnvelope>, ClientError> {
        self.client.wait_for(self.answer.task.id).await
    }
}

impl Client {
    /// A client of the server at `url`, as `http://127.0.0.1:8000`, or `https://maos.example.org`
    /// with the feature `tls` of this crate. Nothing is sent yet.
    ///
    /// Over https a server must show a certificate for the host in the URL from an authority that
    /// browsers trust, as this release knows them, whatever the system has; see
    /// `with_root_certificate` for others.
    ///
    /// # Errors
    /// [`ClientError::BadUrl`].
    pub fn new(url: &str) -> Result<Client, ClientError> {
        let wire = Wire::new(Address::parse(url)?)?;
        Ok(Client { wire, patience: Patience::default(), retries: Retries::default() })
    }

    /// The same, trusting an authority of one's own beside those of [`Client::new`]: `pem` holds
    /// its certificate, or several. A server's own certificate does as well, if it is signed by
    /// itself and not marked as an authority's.
    ///
    /// # Errors
    /// [`ClientError::BadCertificate`], also for a server without https, which nobody proves to be.
    #[cfg(feature = "tls")]
    pub fn with_root_certificate(mut self, pem: &[u8]) -> Result<Client, ClientError> {
        self.wire.trust(pem)?;
        Ok(self)
    }

    /// The same, waiting longer or shorter.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Client {
        self.patience = patience;
        self
    }

    /// The same, trying again more or less often.
    #[must_use]
    pub fn with_retries(mut self, retries: Retries) -> Client {
        self.retries = retries;
        self
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        self.wire.url()
    }

    /// Submits a task. `body` serializes as a [`TaskSubmission`] does; a text that is JSON already
    /// is sent as it is in a [`serde_json::value::RawValue`]. The same `idempotency_key` with the
    /// same body is answered as the first time. Without one it gets one of its own, so that it can
    /// be sent again and is still one task.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn submit(
        &self,
        body: &(impl Serialize + ?Sized),
        idempotency_key: Option<&str>,
    ) -> Result<Submitted<'_>, ClientError> {
        let answer = self.submit_to(paths::TASKS, body, idempotency_key).await?;
        Ok(Submitted { client: self, answer })
    }

    /// Submits a task, with a key of its own.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn submit_task(&self, task: &TaskSubmission) -> Result<Submitted<'_>, ClientError> {
        self.submit(task, None).await
    }

    /// Submits a task as Claude Code's clients do; else as [`Client::submit`].
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn submit_claude(
        &self,
        body: &(impl Serialize + ?Sized),
        idempotency_key: Option<&str>,
    ) -> Result<Answer<ClaudeAccepted>, ClientError> {
        self.submit_to(paths::CLAUDE_TASKS, body, idempotency_key).await
    }

    /// Such a task, by the id that it was answered with; with a wait as [`Client::task`].
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn claude_task(
        &self,
        id: Uuid,
        wait_seconds: u64,
    ) -> Result<Answer<ClaudeTaskStatus>, ClientError> {
        self.read_at_its_end(paths::CLAUDE_TASK, id, wait_seconds).await
    }

    /// A task once it has ended.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn wait_for(&self, id: Uuid) -> Result<Answer<TaskEnvelope>, ClientError> {
        loop {
            let answer = self.task(id, WAIT_SECONDS_MAX).await?;
            if answer.task.status.is_terminal() {
                return Ok(answer);
            }
        }
    }

    /// A task; with a wait (at most [`WAIT_SECONDS_MAX`]) at its end, or as it is after the wait.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn task(
        &self,
        id: Uuid,
        wait_seconds: u64,
    ) -> Result<Answer<TaskEnvelope>, ClientError> {
        self.read_at_its_end(paths::TASK, id, wait_seconds).await
    }

    /// Cancels a task and all below it.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn cancel(
        &self,
        id: Uuid,
        reason: Option<&str>,
    ) -> Result<Answer<CancelAnswer>, ClientError> {
        let query = Query::default().with("reason", reason);
        let path = query.after(&path_of(paths::TASK, id));
        self.call(Exchange::new(Method::DELETE, path)).await
    }

    /// Opens a failed or cancelled task again.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn retry(&self, id: Uuid) -> Result<Answer<TaskEnvelope>, ClientError> {
        self.call(Exchange::new(Method::PUT, path_of(paths::TASK_RETRY, id))).await
    }

    /// A page of the tasks that `query` asks for.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn tasks(&self, query: &TaskQuery) -> Result<Answer<TaskPage>, ClientError> {
        self.read(Query::of(query.parameters()).after(paths::TASKS)).await
    }

    /// What a completed task made.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn results(&self, id: Uuid) -> Result<Answer<TaskResults>, ClientError> {
        self.read(path_of(paths::TASK_RESULTS, id)).await
    }

    /// What a task waits for.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn explain(&self, id: Uuid) -> Result<Answer<Explanation>, ClientError> {
        self.read(path_of(paths::TASK_EXPLAIN, id)).await
    }

    /// A part of a task's log; with a wait, as soon as there is a line of it or the task has
    /// ended.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn task_logs(
        &self,
        id: Uuid,
        query: &LogQuery,
    ) -> Result<Answer<LogPage>, ClientError> {
        let text = |number: u64| (number > 0).then(|| number.to_string());
        let path = Query::default()
            .with("offset", text(query.offset).as_deref())
            .with("limit", Some(&query.limit.to_string()))
            .with("level", Some(query.level.name()))
            .with("wait_seconds", text(query.wait_seconds).as_deref())
            .after(&path_of(paths::TASK_LOGS, id));
        let server_wait = Duration::from_secs(query.wait_seconds);
        self.call(Exchange { server_wait, ..Exchange::new(Method::GET, path) }).await
    }

    /// A page of the agents that `query` asks for.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn agents(&self, query: &AgentQuery) -> Result<Answer<AgentPage>, ClientError> {
        self.read(Query::of(query.parameters()).after(paths::AGENTS)).await
    }

    /// An agent.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn agent(&self, id: Uuid) -> Result<Answer<AgentEnvelope>, ClientError> {
        self.read(path_of(paths::AGENT, id)).await
    }

    /// Registers an agent. `body` serializes as a [`crate::agent::AgentCreate`] does.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn create_agent(
        &self,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<AgentEnvelope>, ClientError> {
        let exchange = Exchange::new(Method::POST, paths::AGENTS.to_owned());
        self.call(Exchange { body: Content::json(body)?, ..exchange }).await
    }

    /// Polls for a worker.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn poll(
        &self,
        agent: Uuid,
        poll: &Poll<'_>,
    ) -> Result<Answer<PollAnswer>, ClientError> {
        let body = serde_json::to_vec(poll).unwrap_or_default().into();
        self.poll_with(agent, body, Duration::from_millis(poll.wait_ms)).await
    }

    async fn poll_with(
        &self,
        agent: Uuid,
        body: Bytes,
        server_wait: Duration,
    ) -> Result<Answer<PollAnswer>, ClientError> {
        let exchange = Exchange::new(Method::POST, path_of(paths::AGENT_POLL, agent));
        // Outcomes are told once however often they are sent.
        self.call(Exchange { body: body.into(), server_wait, harmless: true, ..exchange }).await
    }

    /// Ends an agent's service.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn terminate_agent(&self, id: Uuid) -> Result<Answer<TerminateAnswer>, ClientError> {
        self.call(Exchange::new(Method::DELETE, path_of(paths::AGENT, id))).await
    }

    /// Whether the server lives.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn health(&self) -> Result<Answer<Health>, ClientError> {
        self.read(paths::HEALTH.to_owned()).await
    }

    /// How each component is. An unhealthy server's answer is an answer, too, and no error.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn detailed_health(&self) -> Result<Answer<DetailedHealth>, ClientError> {
        let exchange = Exchange::new(Method::GET, paths::HEALTH_DETAILED.to_owned());
        let heard = self.wire.exchange(&exchange, self.patience).await?;
        // Status 503 with the body of 200 is how this endpoint says that a component is down.
        match serde_json::from_slice(&heard.raw) {
            Ok(value) if matches!(heard.status, 200 | 503) => Ok(Answer { value, raw: heard.raw }),
            Ok(_) | Err(_) => self.read_answer(heard),
        }
    }

    /// How the system is.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn status(&self) -> Result<Answer<SystemStatus>, ClientError> {
        self.read(paths::SYSTEM_STATUS.to_owned()).await
    }

    /// Its figures.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn metrics(&self) -> Result<Answer<SystemMetrics>, ClientError> {
        self.read(paths::SYSTEM_METRICS.to_owned()).await
    }

    async fn read<T: DeserializeOwned>(&self, path: String) -> Result<Answer<T>, ClientError> {
        self.call(Exchange::new(Method::GET, path)).await
    }

    async fn read_at_its_end<T: DeserializeOwned>(
        &self,
        path: &str,
        id: Uuid,
        wait_seconds: u64,
    ) -> Result<Answer<T>, ClientError> {
        let wait = (wait_seconds > 0).then(|| wait_seconds.to_string());
        let query = Query::default().with("wait_seconds", wait.as_deref());
        let exchange = Exchange::new(Method::GET, query.after(&path_of(path, id)));
        self.call(Exchange { server_wait: Duration::from_secs(wait_seconds), ..exchange }).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<T>, ClientError> {
        self.call(Exchange { body: Content::json(body)?, ..Exchange::new(method, path) }).await
    }

    async fn submit_to<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + ?Sized),
        idempotency_key: Option<&str>,
    ) -> Result<Answer<T>, ClientError> {
        let own = Uuid::now_v7().simple().to_string();
        let idempotency_key = Some(idempotency_key.unwrap_or(&own));
        let exchange = Exchange::new(Method::POST, path.to_owned());
        self.call(Exchange {
            body: Content::json(body)?,
            idempotency_key,
            harmless: true,
            ..exchange
        })
        .await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        exchange: Exchange<'_>,
    ) -> Result<Answer<T>, ClientError> {
        let mut pauses = self.retries.pauses();
        loop {
            let answered = self.wire.exchange(&exchange, self.patience).await;
            let fault = match answered.and_then(|heard| self.read_answer(heard)) {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            match pauses.next() {
                Some(pause) if retry::worth_it(&fault, exchange.harmless) => {
                    let pause = pause.max(retry::asked_for(&fault));
                    tokio::time::sleep(retry::spread(pause)).await;
                }
                Some(_) | None => return Err(fault),
            }
        }
    }

    /// An answer that is read by whoever asked; what is no success is an error.
    async fn opened(&self, exchange: &Exchange<'_>) -> Result<Opened, ClientError> {
        let opened = self.wire.open(exchange, self.patience).await?;
        let status = opened.status;
        if status == 200 {
            return Ok(opened);
        }
        let heard = self.wire.rest(opened).await?;
        Err(self.read_answer::<serde_json::Value>(heard).err().unwrap_or_else(|| {
            let source = serde::de::Error::custom("another status than 200");
            ClientError::NotTheContract { url: self.url().to_owned(), status, source }
        }))
    }

    fn read_answer<T: DeserializeOwned>(&self, heard: Heard) -> Result<Answer<T>, ClientError> {
        let Heard { status, retry_after, raw } = heard;
        let not_ours = |source| {
            let url = self.url().to_owned();
            ClientError::NotTheContract { url, status, source }
        };
        if (200..300).contains(&status) {
            let value = serde_json::from_slice(&raw).map_err(not_ours)?;
            return Ok(Answer { value, raw });
        }
        let body = Box::new(serde_json::from_slice(&raw).map_err(not_ours)?);
        Err(ClientError::Api { status, body, retry_after })
    }
}

fn path_of(path: &str, id: Uuid) -> String {
    paths::with_id(path, &id.to_string())
}

fn named(path: &str, name: &str) -> String {
    paths::with_id(path, &escaped(name))
}
