//! What comes next by itself: the ends of parents, due timers, free agents.

use alloc::format;
use alloc::string::String;

use super::decide::lost;
use super::{Consequence, Gone, State};
use crate::dispatch::Match;
use crate::event::{Event, Failure, FailureKind, Holding};
use crate::ids::{Attempt, TaskId};
use crate::record::Stage;
use crate::retry;
use crate::slab::Slot;
use crate::spec::FailurePolicy;
use crate::task::Timer;
use crate::time::Moment;

impl State {
    /// The next fact that follows from the ones before it and from the time, if there is one. Apply
    /// it before asking again.
    pub fn follow_up(&mut self, moment: &Moment) -> Option<Event> {
        while let Some(consequence) = self.consequences.pop_front() {
            if let Some(event) = self.follow_consequence(consequence) {
                return Some(event);
            }
        }
        self.dispatch.advance(moment.at);
        if let Some((at, timer, slot)) = self.timers.first()
            && at <= moment.at
        {
            return Some(self.follow_timer(moment, timer, slot));
        }
        self.follow_lease(moment.at).or_else(|| self.follow_dispatch(moment))
    }

    /// Whether facts wait to be followed up whatever the time is.
    #[must_use]
    pub fn has_consequences(&self) -> bool {
        !self.consequences.is_empty()
    }

    fn follow_consequence(&self, consequence: Consequence) -> Option<Event> {
        match consequence {
            Consequence::Review { parent, id } => self.follow_review(parent, id),
            Consequence::Skip { task, id, because } => {
                if !self.still(task, id) || self.tasks[task].stage.ended() {
                    return None;
                }
                let reason = match self.slot(because) {
                    Some(slot) => format!("`{}` did not complete", self.tasks[slot].spec.name),
                    None => format!("`{because}` did not complete"),
                };
                Some(Event::Cancelled { task: id, reason: reason.into() })
            }
            Consequence::Lose { task, id, attempt, because } => {
                self.follow_loss(task, id, attempt, because)
            }
        }
    }

    fn follow_review(&self, parent: Slot, id: TaskId) -> Option<Event> {
        if !self.still(parent, id) || self.tasks[parent].stage.ended() {
            return None;
        }
        let task = &self.tasks[parent];
        let edges = task.edges()?;
        if let Some(spoiler) = edges.spoiled_by
            && (edges.open == 0 || task.on_failure() == FailurePolicy::FailFast)
        {
            let message = self.spoiled_message(spoiler);
            let failure = Failure {
                kind: FailureKind::SubtaskFailed,
                message: message.into(),
                permanent: false,
            };
            return Some(Event::Failed { task: id, failure });
        }
        (edges.open == 0).then_some(Event::Collected { task: id })
    }

    fn spoiled_message(&self, spoiler: Slot) -> String {
        let task = &self.tasks[spoiler];
        let name = &task.spec.name;
        match &task.stage {
            Stage::Failed(failure) => format!("subtask `{name}` failed: {}", failure.message),
            Stage::Cancelled { reason } => format!("subtask `{name}` was cancelled: {reason}"),
            Stage::Waiting
            | Stage::Parked { .. }
            | Stage::Ready { .. }
            | Stage::Backoff { .. }
            | Stage::Running { .. }
            | Stage::Active
            | Stage::Completed(_)
            | Stage::Collected => format!("subtask `{name}` did not complete"),
        }
    }

    fn follow_loss(
        &self,
        slot: Slot,
        id: TaskId,
        attempt: Attempt,
        because: Gone,
    ) -> Option<Event> {
        if !self.still(slot, id) {
            return None;
        }
        let task = &self.tasks[slot];
        let stopping = task.stopping.iter().any(|held| held.attempt == attempt);
        if stopping {
            // A dismissed agent is still stopping it; anyone else will not be heard of again.
            return (because != Gone::Dismissed).then_some(Event::Released { task: id, attempt });
        }
        if !matches!(task.stage, Stage::Running { .. }) || task.attempt != attempt {
            return None;
        }
        let (message, holding) = match because {
            Gone::Server => ("its server went away during the attempt", Holding::Nothing),
            Gone::Agent => ("its agent went away during the attempt", Holding::Nothing),
            Gone::Dismissed => ("its agent was dismissed during the attempt", Holding::Everything),
        };
        Some(lost(task, attempt, message, holding))
    }

    fn follow_timer(&self, moment: &Moment, timer: Timer, slot: Slot) -> Event {
        let task = &self.tasks[slot];
        let id = task.id;
        match timer {
            Timer::Attempt => {
                let failure = Failure {
                    kind: FailureKind::TimedOut,
                    message: format!("ran longer than {} ms", task.spec.timeout_ms).into(),
                    permanent: false,
                };
                let next = retry::after_failure(task, &failure, moment);
                let (attempt, holding) = (task.attempt, Holding::Everything);
                Event::AttemptFailed { task: id, attempt, failure, holding, next }
            }
            Timer::Backoff | Timer::Parked => Event::BackoffEnded { task: id },
            Timer::Queue => {
                let waited_ms = task.spec.rare().queue_timeout_ms.unwrap_or_default();
                let reason = self.why_ready_waits(slot);
                let message = format!("no agent took it within {waited_ms} ms: {reason}");
                let kind = FailureKind::QueueTimedOut;
                let failure = Failure { kind, message: message.into(), permanent: false };
                Event::Failed { task: id, failure }
            }
            Timer::Deadline => {
                let kind = FailureKind::DeadlineExceeded;
                let message = format!(
                    "its deadline passed while it was {}; submit it again with a later one",
                    task.stage.wire_name()
                );
                let failure = Failure { kind, message: message.into(), permanent: false };
                Event::Failed { task: id, failure }
            }
        }
    }

    fn follow_dispatch(&self, moment: &Moment) -> Option<Event> {
        let Match { task, agent } = self.dispatch.next_match(
            moment.at,
            |slot| match self.tasks[slot].stage {
                Stage::Ready { since } => since,
                Stage::Waiting
                | Stage::Parked { .. }
                | Stage::Backoff { .. }
                | Stage::Running { .. }
                | Stage::Active
                | Stage::Completed(_)
                | Stage::Collected
                | Stage::Failed(_)
                | Stage::Cancelled { .. } => moment.at,
            },
            |slot, demand| demand.agent == Some(self.agents[slot].spec.id),
        )?;
        let task = &self.tasks[task];
        let timeout = if cfg!(feature = "fault-forget-timeout") {
            crate::time::Timestamp(u64::MAX)
        } else {
            moment.at.plus_ms(task.spec.timeout_ms)
        };
        let (id, attempt) = (task.id, task.attempt.next());
        Some(Event::Started { task: id, attempt, agent: self.agents[agent].spec.id, timeout })
    }

    /// Whether the slot still holds the task that it held when it was written down.
    fn still(&self, slot: Slot, id: TaskId) -> bool {
        self.slot(id) == Some(slot)
    }
}
