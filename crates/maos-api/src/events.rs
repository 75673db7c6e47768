//! The stream of events: what tasks and agents come to, as it happens.
//!
//! Server-sent events. The id of each is its position, `epoch-sequence-index`; a reader that comes
//! back with the last one it has (`Last-Event-ID`) goes on behind it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{ApiError, ErrorCode};
use crate::task::{TaskStatus, wire_names};
use crate::time::UtcTime;

/// A place in the stream. Later ones are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId {
    /// The reign.
    pub epoch: u64,
    /// The step.
    pub sequence: u64,
    /// Which of the step's events.
    pub index: u32,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.epoch, self.sequence, self.index)
    }
}

impl FromStr for EventId {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<EventId, ApiError> {
        let mut parts = text.split('-');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let id = (|| {
            let (epoch, sequence) = (number()?, number()?);
            Some(EventId { epoch, sequence, index: u32::try_from(number()?).ok()? })
        })();
        id.filter(|_| parts.next().is_none()).ok_or_else(|| {
            let message = "`Last-Event-ID` must be the id of an event, like `1-52-0`";
            ApiError::new(ErrorCode::MalformedQuery, message).with("parameter", "Last-Event-ID")
        })
    }
}

/// What an event is about; also its `event:` line.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A task came to another state.
    Task(TaskEvent),
    /// An agent did.
    Agent(AgentEvent),
    /// A pool of agents grew or shrank, and why.
    Pool(PoolEvent),
    /// Events between the last one that was sent and the next one are lost to this reader: the
    /// lists tell how things are.
    Gap {
        /// What happened and what to do.
        error: String,
    },
}

impl Event {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Event::Task(_) => "task",
            Event::Agent(_) => "agent",
            Event::Pool(_) => "pool",
            Event::Gap { .. } => "gap",
        }
    }
}

/// A task came to another state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskEvent {
    /// The task.
    pub task_id: Uuid,
    /// The root of its plan; itself if it is one.
    pub root_task_id: Uuid,
    /// Its name.
    pub name: String,
    /// The state.
    pub status: TaskStatus,
    /// The last attempt that started; 0 before the first.
    pub attempt: u32,
    /// Who runs it, or ran it until now.
    pub agent_id: Option<Uuid>,
    /// Why it failed, or its attempt did, for programs.
    pub error_kind: Option<String>,
    /// When.
    pub at: UtcTime,
}

/// A pool of agents grew or shrank, or could not: then it has as many agents as before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolEvent {
    /// The pool.
    pub pool: String,
    /// Agents before.
    pub from: u32,
    /// Agents from now on.
    pub to: u32,
    /// Why, in words.
    pub reason: String,
    /// When.
    pub at: UtcTime,
}

/// An agent came or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentEvent {
    /// The agent.
    pub agent_id: Uuid,
    /// Its name.
    pub name: String,
    /// The caller's word for its kind.
    pub agent_type: String,
    /// What it came to.
    pub state: AgentState,
    /// When.
    pub at: UtcTime,
}

wire_names! {
    /// What an agent came to.
    AgentState: 8 {
        /// It serves, or serves as another than it was.
        Registered "registered"
        /// A worker was heard of for the first time: from now on it gets tasks.
        Online "online"
        /// It holds nothing any more.
        Idle "idle"
        /// It holds something and has room for more.
        Busy "busy"
        /// It holds as much as it has slots.
        Overloaded "overloaded"
        /// Somebody ended it.
        Terminated "terminated"
        /// It was not heard of for too long.
        Lost "lost"
        /// Its pool or the configuration no longer has it.
        Retired "retired"
    }
}

/// Which events a reader wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of one kind; `None`: of all.
    pub kind: Option<EventKind>,
    /// Of this task and, if it is a root, of all below it.
    pub task: Option<Uuid>,
    /// Of this agent and of what it runs.
    pub agent: Option<Uuid>,
    /// Tasks that come to one of these; empty: any.
    pub statuses: Vec<TaskStatus>,
}

wire_names! {
    /// What events are about.
    EventKind: 3 {
        /// Tasks.
        Task "task"
        /// Agents.
        Agent "agent"
        /// Pools of agents.
        Pool "pool"
    }
}

impl EventFilter {
    /// Whether a reader with this filter wants to see `event`.
    #[must_use]
    pub fn admits(&self, event: &Event) -> bool {
        match event {
            Event::Gap { .. } => true,
            Event::Task(event) => {
                self.kind.is_none_or(|kind| kind == EventKind::Task)
                    && self.task.is_none_or(|id| id == event.task_id || id == event.root_task_id)
                    && (self.agent.is_none() || self.agent == event.agent_id)
                    && (self.statuses.is_empty() || self.statuses.contains(&event.status))
            }
            Event::Agent(event) => {
                self.kind.is_none_or(|kind| kind == EventKind::Agent)
                    && self.task.is_none()
                    && self.statuses.is_empty()
                    && self.agent.is_none_or(|id| id == event.agent_id)
            }
            Event::Pool(_) => {
                self.kind.is_none_or(|kind| kind == EventKind::Pool)
                    && self.task.is_none()
                    && self.agent.is_none()
                    && self.statuses.is_empty()
            }
        }
    }
}

/// The query of `GET /api/v1/events`, unread.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RawEventQuery {
    #[serde(rename = "type")]
    kind: Option<String>,
    task_id: Option<String>,
    agent_id: Option<String>,
    status: Option<String>,
    last_event_id: Option<String>,
}

impl RawEventQuery {
    /// The filter, and where to go on, if the query says so.
    ///
    /// # Errors
    /// The parameter that cannot be read.
    pub fn read(&self) -> Result<(EventFilter, Option<EventId>), ApiError> {
        let kinds = EventKind::ALL.map(EventKind::name);
        let kind = match &self.kind {
            None => None,
            Some(word) => Some(one_of("type", word, &kinds).map(|at| EventKind::ALL[at])?),
        };
        let names = TaskStatus::ALL.map(TaskStatus::name);
        let words = self.status.iter().flat_map(|words| words.split(','));
        let statuses: Result<Vec<TaskStatus>, ApiError> =
            words.map(|word| Ok(TaskStatus::ALL[one_of("status", word, &names)?])).collect();
        let filter = EventFilter {
            kind,
            task: id("task_id", self.task_id.as_deref())?,
            agent: id("agent_id", self.agent_id.as_deref())?,
            statuses: statuses?,
        };
        let wrong = |_| bad("last_event_id", "must be the id of an event, like `1-52-0`");
        let last = self.last_event_id.as_deref().map(|text| text.parse().map_err(wrong));
        Ok((filter, last.transpose()?))
    }
}

fn bad(name: &str, what: &str) -> ApiError {
    let message = format!("query parameter `{name}` {what}");
    ApiError::new(ErrorCode::MalformedQuery, message).with("parameter", name)
}

fn one_of(name: &str, word: &str, known: &[&str]) -> Result<usize, ApiError> {
    let found = known.iter().position(|known| *known == word.trim());
    found.ok_or_else(|| bad(name, &format!("must be one of {}", known.join(", "))))
}

fn id(name: &str, text: Option<&str>) -> Result<Option<Uuid>, ApiError> {
    let wrong = |error: ApiError| ApiError { code: ErrorCode::MalformedId, ..error };
    let parse = |text: &str| Uuid::parse_str(text).map_err(|_| wrong(bad(name, "must be a UUID")));
    text.map(parse).transpose()
}
