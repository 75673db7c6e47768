//! Server-sent events: what happens, and what tasks say, as it comes.
//!
//! Law: a connection that breaks is taken up again behind the last event that was seen; nothing is
//! told twice. To wait for the next event may be given up at any moment and begun again.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use uuid::Uuid;

use super::retry::{asked_for, passes, spread};
use super::url::Query;
use super::wire::{Exchange, Opened};
use super::{Client, ClientError, path_of};
use crate::events::{Event, EventFilter, EventId};
use crate::logs::{LogEnd, LogItem, LogQuery};
use crate::paths;

/// Pause before the server is asked again; doubled each time, and spread by chance.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The server says something every 15 s; a connection that is silent for longer is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// What happens, as it happens; see [`Client::events`].
#[derive(Debug)]
pub struct Events<'c> {
    stream: Stream<'c>,
}

/// What the attempts of a task say; see [`Client::follow_logs`].
#[derive(Debug)]
pub struct LogLines<'c> {
    stream: Stream<'c>,
    level: &'static str,
    task: Uuid,
    end: Option<LogEnd>,
}

/// A part of a task's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A line.
    Line(LogItem),
    /// Lines before the next one are gone, and why.
    Gap(String),
}

#[derive(Debug)]
struct Stream<'c> {
    client: &'c Client,
    path: String,
    last: Option<String>,
    open: Option<Opened>,
    /// What has come and does not make an event yet.
    text: Vec<u8>,
    pause: Duration,
}

/// One event as it was sent.
#[derive(Debug, Default)]
struct Sent {
    id: Option<String>,
    name: String,
    data: String,
}

impl Client {
    /// Follows what happens, from now on or behind the event with the id `after`. Nothing is asked
    /// before the first [`Events::next`].
    ///
    /// ```no_run
    /// use maos_api::client::{Client, ClientError};
    /// use maos_api::events::{Event, EventFilter};
    ///
    /// async fn watch(client: &Client) -> Result<(), ClientError> {
    ///     let mut events = client.events(&EventFilter::default(), None);
    ///     loop {
    ///         let (place, event) = events.next().await?;
    ///         match event {
    ///             Event::Task(task) => println!("{}: {}", task.name, task.status.name()),
    ///             Event::Gap { error } => println!("before {place:?}: {error}"),
    ///             Event::Agent(_) | Event::Pool(_) => {}
    ///         }
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn events(&self, filter: &EventFilter, after: Option<EventId>) -> Events<'_> {
        let statuses: Vec<&str> = filter.statuses.iter().map(|status| status.name()).collect();
        let statuses = (!statuses.is_empty()).then(|| statuses.join(","));
        let path = Query::default()
            .with("type", filter.kind.map(|kind| kind.name()))
            .with("task_id", filter.task.map(|id| id.to_string()).as_deref())
            .with("agent_id", filter.agent.map(|id| id.to_string()).as_deref())
            .with("status", statuses.as_deref())
            .after(paths::EVENTS);
        Events { stream: Stream::new(self, path, after.map(|id| id.to_string())) }
    }

    /// Follows what a task's attempts say, from `query.offset` on, until the task has ended.
    ///
    /// ```no_run
    /// use maos_api::client::{Client, ClientError, Said};
    /// use maos_api::logs::LogQuery;
    ///
    /// async fn print_log(client: &Client, task: uuid::Uuid) -> Result<(), ClientError> {
    ///     let mut lines = client.follow_logs(task, &LogQuery::default());
    ///     while let Some(said) = lines.next().await? {
    ///         match said {
    ///             Said::Line(line) => println!("{}", line.line),
    ///             Said::Gap(why) => println!("lines are missing: {why}"),
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub fn follow_logs(&self, task: Uuid, query: &LogQuery) -> LogLines<'_> {
        let level = query.level.name();
        let stream = Stream::new(self, log_path(task, query.offset, level), None);
        LogLines { stream, level, task, end: None }
    }
}

impl Events<'_> {
    /// The next event, with its place in the stream if it has one; [`Event::Gap`] says that some
    /// are lost. It comes back by itself when the connection breaks.
    ///
    /// # Errors
    /// What will not pass by itself.
    pub async fn next(&mut self) -> Result<(Option<EventId>, Event), ClientError> {
        loop {
            let sent = self.stream.next().await?;
            let read = serde_json::from_str(&sent.data);
            match read {
                Ok(event) => {
                    let id = sent.id.and_then(|id| id.parse().ok());
                    return Ok((id, event));
                }
                // A kind that a newer server has.
                Err(_) if !["task", "agent", "pool", "gap"].contains(&sent.name.as_str()) => {}
                Err(source) => return Err(self.stream.not_ours(source)),
            }
        }
    }
}

impl LogLines<'_> {
    /// The next line; `None` once the task has ended and all was told. It comes back by itself
    /// when the connection breaks.
    ///
    /// # Errors
    /// That there is no such task, or another fault that will not pass by itself.
    pub async fn next(&mut self) -> Result<Option<Said>, ClientError> {
        while self.end.is_none() {
            let sent = self.stream.next().await?;
            let wrong = |source| self.stream.not_ours(source);
            match sent.name.as_str() {
                "log" => {
                    let item: LogItem = serde_json::from_str(&sent.data).map_err(wrong)?;
                    // Whoever comes back asks for the line behind this one.
                    self.stream.path = log_path(self.task, item.offset + 1, self.level);
                    self.stream.last = None;
                    return Ok(Some(Said::Line(item)));
                }
                "gap" => {
                    let told: serde_json::Value =
                        serde_json::from_str(&sent.data).map_err(wrong)?;
                    let why = told["error"].as_str().unwrap_or_default().to_owned();
                    return Ok(Some(Said::Gap(why)));
                }
                "end" => self.end = Some(serde_json::from_str(&sent.data).map_err(wrong)?),
                _ => {}
            }
        }
        Ok(None)
    }

    /// How the task ended, once everything was told.
    #[must_use]
    pub fn end(&self) -> Option<&LogEnd> {
        self.end.as_ref()
    }
}

fn log_path(task: Uuid, offset: u64, level: &str) -> String {
    Query::default()
        .with("follow", Some("true"))
        .with("offset", Some(&offset.to_string()))
        .with("level", Some(level))
        .after(&path_of(paths::TASK_LOGS, task))
}

impl<'c> Stream<'c> {
    fn new(client: &'c Client, path: String, last: Option<String>) -> Stream<'c> {
        let (open, text) = (None, Vec::new());
        Stream { client, path, last, open, text, pause: PAUSE_FIRST }
    }

    async fn next(&mut self) -> Result<Sent, ClientError> {
        loop {
            if let Some(sent) = self.take() {
                self.pause = PAUSE_FIRST;
                if let Some(id) = &sent.id {
                    self.last = Some(id.clone());
                }
                return Ok(sent);
            }
            let Some(open) = &mut self.open else {
                self.open().await?;
                continue;
            };
            match tokio::time::timeout(SILENCE_MAX, open.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(piece) = frame.into_data() {
                        self.text.extend_from_slice(&piece);
                    }
                }
                // It ended, broke, or is dead: what came of an event is sent again.
                Ok(Some(Err(_)) | None) | Err(_) => {
                    self.text.clear();
                    self.open = None;
                    self.rest().await;
                }
            }
        }
    }

    async fn open(&mut self) -> Result<(), ClientError> {
        let exchange = Exchange::new(Method::GET, self.path.clone());
        let exchange = Exchange { last_event_id: self.last.as_deref(), ..exchange };
        match self.client.opened(&exchange).await {
            Ok(opened) => self.open = Some(opened),
            Err(fault) if passes(&fault) => {
                self.pause = self.pause.max(asked_for(&fault));
                self.rest().await;
            }
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    async fn rest(&mut self) {
        let pause = spread(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        tokio::time::sleep(pause).await;
    }

    /// The first event of what has come, if it is whole.
    fn take(&mut self) -> Option<Sent> {
        loop {
            let end = self.text.windows(2).position(|pair| pair == b"\n\n")?;
            let block: Vec<u8> = self.text.drain(..end + 2).collect();
            let mut sent = Sent::default();
            for line in String::from_utf8_lossy(&block).lines() {
                match line.split_once(": ") {
                    Some(("id", id)) => sent.id = Some(id.to_owned()),
                    Some(("event", name)) => name.clone_into(&mut sent.name),
                    Some(("data", data)) => data.clone_into(&mut sent.data),
                    Some(_) | None => {}
                }
            }
            if !sent.data.is_empty() {
                return Some(sent);
            }
        }
    }

    fn not_ours(&self, source: serde_json::Error) -> ClientError {
        let url = self.client.url().to_owned();
        ClientError::NotTheContract { url, status: 200, source }
    }
}
