//! Signs of life: when agents were heard of last, and when attempts last made progress.
//!
//! Volatile: neither journaled nor stored. It starts anew, with full grace, at every epoch; only
//! its consequences are events.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::command::Command;
use crate::event::AgentEnd;
use crate::ids::{AgentId, Attempt, TaskId};
use crate::limits::HEARTBEAT_TIMEOUT_MS;
use crate::time::Timestamp;

/// What is watched for silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Watched {
    Agent(AgentId),
    Attempt(TaskId, Attempt),
}

/// Who is watched, since when they are silent, and when that is too long.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    due: BTreeMap<Watched, Watch>,
    order: BTreeSet<(Timestamp, Watched)>,
    agent_silence_ms: u64,
}

impl Default for Presence {
    fn default() -> Presence {
        Presence {
            due: BTreeMap::new(),
            order: BTreeSet::new(),
            agent_silence_ms: HEARTBEAT_TIMEOUT_MS,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    due: Timestamp,
    silence_ms: u64,
}

impl Presence {
    /// How long an agent without a bound of its own may be silent, from when it is heard of next.
    pub(crate) fn lose_agents_after(&mut self, silence_ms: u64) {
        self.agent_silence_ms = silence_ms;
    }

    /// Watches an agent from now on, or notes that it was heard of. Second comes its own bound on
    /// its silence, if it has one.
    pub(crate) fn agent_seen(&mut self, now: Timestamp, (agent, own_ms): (AgentId, Option<u64>)) {
        self.watch(now, Watched::Agent(agent), own_ms.unwrap_or(self.agent_silence_ms));
    }

    /// Watches an attempt for progress from now on.
    pub(crate) fn attempt_started(
        &mut self,
        now: Timestamp,
        task: TaskId,
        attempt: Attempt,
        silence_ms: u64,
    ) {
        self.watch(now, Watched::Attempt(task, attempt), silence_ms);
    }

    /// Notes that an attempt made progress; one that is not watched is none of our business.
    pub(crate) fn attempt_progressed(&mut self, now: Timestamp, task: TaskId, attempt: Attempt) {
        let watched = Watched::Attempt(task, attempt);
        if let Some(silence_ms) = self.due.get(&watched).map(|watch| watch.silence_ms) {
            self.watch(now, watched, silence_ms);
        }
    }

    /// How long an attempt may be silent has changed, or not: then its time goes on.
    pub(crate) fn bound_silence(
        &mut self,
        now: Timestamp,
        (task, attempt): (TaskId, Attempt),
        silence_ms: Option<u64>,
    ) {
        let watched = Watched::Attempt(task, attempt);
        let before = self.due.get(&watched).copied();
        if before.map(|watch| watch.silence_ms) == silence_ms {
            return;
        }
        if let Some(silence_ms) = silence_ms {
            return self.watch(now, watched, silence_ms);
        }
        if let Some(before) = self.due.remove(&watched) {
            self.order.remove(&(before.due, watched));
        }
    }

    /// When somebody may have been silent for too long.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.order.first().map(|(due, _)| *due)
    }

    /// The next one that has been silent for too long; no longer watched from then on.
    pub(crate) fn pop_silent(&mut self, now: Timestamp) -> Option<Command> {
        let (due, watched) = *self.order.first().filter(|(due, _)| *due <= now)?;
        self.order.remove(&(due, watched));
        self.due.remove(&watched);
        Some(match watched {
            Watched::Agent(agent) => Command::EndAgent { agent, end: AgentEnd::Lost },
            Watched::Attempt(task, attempt) => Command::Stall { task, attempt },
        })
    }

    fn watch(&mut self, now: Timestamp, watched: Watched, silence_ms: u64) {
        let due = now.plus_ms(silence_ms);
        if let Some(before) = self.due.insert(watched, Watch { due, silence_ms }) {
            self.order.remove(&(before.due, watched));
        }
        self.order.insert((due, watched));
    }
}
