//! Events: what tasks and agents come to, for who watches.

use maos_api::error::{ApiError, ErrorCode};
use maos_api::events::{AgentEvent, AgentState, Event, EventFilter, EventId, TaskEvent};
use maos_api::task::TaskStatus;
use maos_core::change::{AgentTurn, Change, Load};
use maos_core::event::AgentEnd;
use uuid::Uuid;

use super::{Service, faults, pools, present};
use crate::feed::{Portion, Reader, Told};

/// Most readers at once.
const READERS_MAX: usize = 1_000;

/// One reader of events.
pub struct Events {
    reader: Reader,
    filter: EventFilter,
}

impl Service {
    /// Events from now on, or all behind `after`.
    ///
    /// # Errors
    /// That there are too many readers, or that the server is stopping.
    pub async fn events(
        &self,
        filter: EventFilter,
        after: Option<EventId>,
    ) -> Result<Events, ApiError> {
        let feed = &self.inner.feed;
        if self.stopping() {
            let message = "the server is shutting down: nothing more will happen";
            return Err(ApiError::new(ErrorCode::ShuttingDown, message));
        }
        if feed.readers_count() >= READERS_MAX {
            let message = format!("{READERS_MAX} readers of events are connected already");
            return Err(ApiError::new(ErrorCode::QueueFull, message).with("bound", READERS_MAX));
        }
        if !feed.has_begun() {
            feed.begin(self.inner.driver.watch().await.map_err(faults::refused)?);
        }
        Ok(Events { reader: feed.read(after), filter })
    }
}

impl Events {
    /// The next events, as soon as there are some, each with its id; `None` when nothing more will
    /// come.
    pub async fn next(&mut self) -> Option<Vec<(Option<EventId>, Event)>> {
        loop {
            let events = match self.reader.next().await? {
                Portion::Gap => vec![(None, gap())],
                Portion::Changes(told) => told
                    .iter()
                    .filter_map(|told| Some((Some(told.id), event(told)?)))
                    .filter(|(_, event)| self.filter.admits(event))
                    .collect(),
            };
            if !events.is_empty() {
                return Some(events);
            }
        }
    }
}

fn gap() -> Event {
    let error = "events before the next one are lost: they happened before this server watched, \
                 longer ago than it remembers, or under another journal; ask the lists how things \
                 are";
    Event::Gap { error: error.to_owned() }
}

/// A change as those who watch see it; documents of the shell are shown only where they say
/// something to them.
fn event(told: &Told) -> Option<Event> {
    Some(match &told.change {
        Change::Entry(change) if *change.register == *pools::DECISIONS => {
            Event::Pool(pools::told(change.value.as_ref())?)
        }
        Change::Entry(_) => return None,
        Change::Task(change) => Event::Task(TaskEvent {
            task_id: Uuid::from_u128(change.task.0),
            root_task_id: Uuid::from_u128(change.root.0),
            name: change.spec.name.to_string(),
            status: status(change.status),
            attempt: change.attempt.0,
            agent_id: change.agent.map(|agent| Uuid::from_u128(agent.0)),
            error_kind: change.failure.map(|kind| kind.name().to_owned()),
            at: present::time(change.at),
        }),
        Change::Agent { agent, turn, at } => Event::Agent(AgentEvent {
            agent_id: Uuid::from_u128(agent.id.0),
            name: agent.name.to_string(),
            agent_type: agent.agent_type.to_string(),
            state: match turn {
                AgentTurn::Registered => AgentState::Registered,
                AgentTurn::Arrived => AgentState::Online,
                AgentTurn::Load(Load::Idle) => AgentState::Idle,
                AgentTurn::Load(Load::Busy) => AgentState::Busy,
                AgentTurn::Load(Load::Overloaded) => AgentState::Overloaded,
                AgentTurn::Ended(AgentEnd::Terminated) => AgentState::Terminated,
                AgentTurn::Ended(AgentEnd::Lost) => AgentState::Lost,
                AgentTurn::Ended(AgentEnd::Retired) => AgentState::Retired,
            },
            at: present::time(*at),
        }),
    })
}

fn status(name: &str) -> TaskStatus {
    let known = TaskStatus::ALL.into_iter().find(|status| status.name() == name);
    known.expect("the core's states are the contract's")
}
