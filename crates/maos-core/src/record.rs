//! Rows: a task, an agent and the engine's own figures as the store keeps them, each complete.
//!
//! A live task's row is enough to put it back into the engine; an ended task's, to show it and to
//! retry it. Rows evolve as events do: optional fields are added, nothing else changes.

mod task_row;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};

use crate::event::{AgentEnd, Failure};
use crate::ids::{AgentId, Attempt, Epoch, NodeId, PlanId, Position, TaskId};
use crate::limits::{ATTEMPTS_KEPT, ENDS_KEPT};
use crate::payload::{Payload, shared};
use crate::spec::{AgentSpec, Amounts, Artifact, IdempotencyKey, Name, Setting, TaskSpec};
use crate::time::{Timestamp, WallTime};

/// One task, complete. Many of them may wait for the store: what few tasks have is in boxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// Its id.
    pub id: TaskId,
    /// What was asked for.
    pub spec: Arc<TaskSpec>,
    /// The plan it belongs to.
    pub plan: Arc<PlanRecord>,
    /// Its place in the plan's list; 0 for the root.
    pub index: u32,
    /// The last attempt that started; 0 before the first.
    pub attempt: Attempt,
    /// Retries that failures used up, since it was last re-opened.
    pub retries_used: u32,
    /// Attempts lost with agents or servers, since it was last re-opened.
    pub losses: u32,
    /// Where it stands.
    pub stage: Stage,
    /// When it was accepted, started first, ended, and last changed.
    pub times: Times,
    /// Who ran the last attempt that started.
    pub ran_by: Option<AgentId>,
    /// Attempts that were told to stop and may not have ended.
    pub stopping: Box<[HeldAttempt]>,
    /// Its place in the graph; `None` for a task that is a plan of its own.
    pub links: Option<Box<Links>>,
    /// What attempts and callers left behind; `None` while that is nothing.
    pub trail: Option<Box<Trail>>,
}

/// What a task of a larger plan knows of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Its parent.
    pub parent: Option<TaskId>,
    /// What it waits or waited for.
    pub depends_on: Box<[TaskId]>,
    /// Its direct subtasks, in order.
    pub subtasks: Box<[TaskId]>,
    /// For a parent: where its result comes from; `None` for a leaf.
    pub collect: Option<CollectRecord>,
}

/// What attempts and callers left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// Why the last unsuccessful attempt was so.
    pub last_failure: Option<Failure>,
    /// Unsuccessful attempts, at most the last `limits::ATTEMPTS_KEPT`.
    pub past: Vec<PastAttempt>,
    /// Ends that somebody had it begin anew after, at most the last `limits::ENDS_KEPT`.
    pub ends: Vec<PastEnd>,
    /// Files that its agents made beside its result.
    pub artifacts: Vec<Artifact>,
    /// Whether what was asked for has changed since it was accepted.
    pub amended: bool,
}

impl TaskRecord {
    /// Its parent.
    #[must_use]
    pub fn parent(&self) -> Option<TaskId> {
        self.links.as_ref()?.parent
    }

    /// What it waits or waited for.
    #[must_use]
    pub fn depends_on(&self) -> &[TaskId] {
        self.links.as_ref().map_or(&[], |links| &links.depends_on)
    }

    /// Its direct subtasks, in order.
    #[must_use]
    pub fn subtasks(&self) -> &[TaskId] {
        self.links.as_ref().map_or(&[], |links| &links.subtasks)
    }

    /// For a parent: where its result comes from; `None` for a leaf.
    #[must_use]
    pub fn collect(&self) -> Option<CollectRecord> {
        self.links.as_ref()?.collect
    }

    /// Why the last unsuccessful attempt was so.
    #[must_use]
    pub fn last_failure(&self) -> Option<&Failure> {
        self.trail.as_ref()?.last_failure.as_ref()
    }

    /// Unsuccessful attempts, at most the last `limits::ATTEMPTS_KEPT`.
    #[must_use]
    pub fn past(&self) -> &[PastAttempt] {
        self.trail.as_ref().map_or(&[], |trail| &trail.past)
    }

    /// Ends that somebody had it begin anew after, at most the last `limits::ENDS_KEPT`.
    #[must_use]
    pub fn ends(&self) -> &[PastEnd] {
        self.trail.as_ref().map_or(&[], |trail| &trail.ends)
    }

    /// Files that its agents made beside its result.
    #[must_use]
    pub fn artifacts(&self) -> &[Artifact] {
        self.trail.as_ref().map_or(&[], |trail| &trail.artifacts)
    }

    /// Whether what was asked for has changed since it was accepted.
    #[must_use]
    pub fn amended(&self) -> bool {
        self.trail.as_ref().is_some_and(|trail| trail.amended)
    }
}

impl Links {
    /// Boxed, unless there is nothing.
    #[must_use]
    pub fn boxed(self) -> Option<Box<Links>> {
        (self != Links::default()).then(|| Box::new(self))
    }
}

impl Trail {
    /// Boxed, unless there is nothing.
    #[must_use]
    pub fn boxed(self) -> Option<Box<Trail>> {
        (self != Trail::default()).then(|| Box::new(self))
    }

    /// One more attempt without a result; the oldest gives way.
    pub(crate) fn note(&mut self, attempt: PastAttempt) {
        if self.past.len() >= usize::try_from(ATTEMPTS_KEPT).unwrap_or(usize::MAX) {
            self.past.remove(0);
        }
        self.last_failure = Some(attempt.failure.clone());
        self.past.push(attempt);
    }

    /// One more end that was not the last; the oldest gives way.
    pub(crate) fn note_end(&mut self, end: PastEnd) {
        if self.ends.len() >= ENDS_KEPT {
            self.ends.remove(0);
        }
        self.ends.push(end);
    }
}

/// An end without a result, after which a task began anew.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PastEnd {
    /// How it ended: failed or cancelled.
    #[n(0)]
    pub stage: Stage,
    /// When it ended.
    #[n(1)]
    pub ended: WallTime,
    /// When it began anew.
    #[n(2)]
    pub reopened: WallTime,
    /// The last attempt that had started; 0 if none had.
    #[n(3)]
    pub attempt: Attempt,
    /// Who ran that.
    #[n(4)]
    pub agent: Option<AgentId>,
    /// When it started.
    #[n(5)]
    pub started: Option<WallTime>,
}

/// An attempt that ended without a result.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PastAttempt {
    /// Its number.
    #[n(0)]
    pub attempt: Attempt,
    /// Who ran it.
    #[n(1)]
    pub agent: AgentId,
    /// When it started.
    #[n(2)]
    pub started: WallTime,
    /// When it counted as over.
    #[n(3)]
    pub ended: WallTime,
    /// Why it has no result.
    #[n(4)]
    pub failure: Failure,
}

/// A small document that the engine keeps for the shell and never reads, such as a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EntryRecord {
    /// What kind of document it is.
    #[n(0)]
    pub register: Name,
    /// Its name among those of its kind.
    #[n(1)]
    pub key: Name,
    /// What it says; `None`: it is no longer there.
    #[n(2)]
    pub value: Option<Payload>,
    /// When it was entered first.
    #[n(3)]
    pub created: WallTime,
    /// When it changed last.
    #[n(4)]
    pub updated: WallTime,
}

/// Resources that somebody holds outside of any attempt.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reservation {
    /// Who.
    #[n(0)]
    pub requester: Name,
    /// What.
    #[n(1)]
    pub amounts: Amounts,
    /// Until when; `None`: until it is given back.
    #[n(2)]
    pub until: Option<Timestamp>,
    /// Since when.
    #[n(3)]
    pub since: WallTime,
}

/// What all tasks of a plan share.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PlanRecord {
    /// Its id.
    #[n(0)]
    pub id: PlanId,
    /// Its root task.
    #[n(1)]
    pub root: TaskId,
    /// Whose room it lives in.
    #[n(2)]
    pub namespace: Name,
    /// Who sent it.
    #[n(3)]
    pub submitter: Name,
    /// The strategy that made it.
    #[n(4)]
    pub strategy: Option<Name>,
    /// Under which key it may be sent again.
    #[n(5)]
    pub idempotency: Option<IdempotencyKey>,
    /// When that key is forgotten.
    #[n(6)]
    pub idempotency_until: Timestamp,
}

/// Where a parent's result comes from, by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum CollectRecord {
    /// The list of its direct subtasks' results, in order.
    #[n(0)]
    All,
    /// The result of this one.
    #[n(1)]
    One(#[n(0)] TaskId),
}

/// An attempt and who holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeldAttempt {
    /// The attempt.
    #[n(0)]
    pub attempt: Attempt,
    /// Who holds it.
    #[n(1)]
    pub agent: AgentId,
}

/// Where a task stands, with what belongs to that.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Stage {
    /// Waits for its dependencies; a parent, for its first subtask to start.
    #[n(0)]
    Waiting,
    /// Waits for something outside the plan.
    #[n(1)]
    Parked {
        /// What.
        #[n(0)]
        reason: ParkReason,
        /// Until when at the most.
        #[n(1)]
        until: Option<Timestamp>,
    },
    /// Waits for an agent and resources.
    #[n(2)]
    Ready {
        /// Since when; fixes its place among the others.
        #[n(0)]
        since: Timestamp,
    },
    /// Waits out the pause after a failure.
    #[n(3)]
    Backoff {
        /// Until when.
        #[n(0)]
        until: Timestamp,
    },
    /// An agent has it.
    #[n(4)]
    Running {
        /// Who.
        #[n(0)]
        agent: AgentId,
        /// When the attempt counts as failed.
        #[n(1)]
        timeout: Timestamp,
    },
    /// A parent between its first subtask's start and its own end.
    #[n(5)]
    Active,
    /// Ended with a result of its own.
    #[n(6)]
    Completed(#[n(0)] Payload),
    /// A parent that ended well; `TaskRecord::collect` says where its result is.
    #[n(7)]
    Collected,
    /// Ended without a result.
    #[n(8)]
    Failed(#[n(0)] Failure),
    /// Ended by somebody's wish.
    #[n(9)]
    Cancelled {
        /// In words.
        #[n(0)]
        reason: Box<str>,
    },
}

/// Why a task is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ParkReason {
    /// Its start time has not come.
    #[n(0)]
    StartTime,
    /// Somebody must approve it.
    #[n(1)]
    Approval,
    /// Its agent's usage limit resets later.
    #[n(2)]
    UsageLimit,
    /// Somebody paused it.
    #[n(3)]
    Paused,
}

/// When things happened to a task, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Times {
    /// Accepted.
    #[n(0)]
    pub created: WallTime,
    /// Became ready last.
    #[n(1)]
    pub ready: Option<WallTime>,
    /// The last attempt started; a parent: its first subtask.
    #[n(2)]
    pub started: Option<WallTime>,
    /// Ended.
    #[n(3)]
    pub ended: Option<WallTime>,
    /// Changed last.
    #[n(4)]
    pub updated: WallTime,
}

/// One agent, complete.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AgentRecord {
    /// What was asked for.
    #[cbor(n(0), with = "shared")]
    pub spec: Arc<AgentSpec>,
    /// How it ended; `None` while it serves.
    #[n(1)]
    pub end: Option<AgentEnd>,
    /// When it was registered first.
    #[n(2)]
    pub created: WallTime,
    /// What it has done.
    #[n(3)]
    pub tally: Tally,
    /// It does its work elsewhere and was not heard of yet: it gets none before.
    #[cbor(n(4), default)]
    pub expected: bool,
}

/// What an agent has done since it was registered first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Tally {
    /// Attempts with a result.
    #[n(0)]
    pub completed: u64,
    /// Attempts without one, losses not counted.
    #[n(1)]
    pub failed: u64,
    /// Time of all attempts that ended, in microseconds of the engine's clock.
    #[n(2)]
    pub run_us: u64,
}

/// The engine's own figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct EngineRecord {
    /// The last step that these rows hold.
    #[n(0)]
    pub position: Position,
    /// That step's time.
    #[n(1)]
    pub at: Timestamp,
    /// The reign that goes on, and its server.
    #[n(2)]
    pub reign: Option<(Epoch, NodeId)>,
    /// How much there is of each resource; a kind that is not named has no bound.
    #[n(3)]
    pub capacity: Amounts,
    /// Everything since the data directory was made.
    #[n(4)]
    pub counters: Counters,
    /// What was set for keys that tasks share.
    #[n(5)]
    pub settings: Vec<(Name, Setting)>,
    /// Resources that are held outside of any attempt.
    #[cbor(n(6), default)]
    pub reservations: Vec<Reservation>,
}

/// Figures since the data directory was made, subtasks included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Counters {
    /// Tasks accepted.
    #[n(0)]
    pub tasks_submitted: u64,
    /// Tasks that ended well; re-opened ones count each time.
    #[n(1)]
    pub tasks_completed: u64,
    /// Tasks that failed.
    #[n(2)]
    pub tasks_failed: u64,
    /// Tasks that were cancelled.
    #[n(3)]
    pub tasks_cancelled: u64,
    /// Attempts that followed a failure, and re-openings.
    #[n(4)]
    pub tasks_retried: u64,
    /// Agents registered.
    #[n(5)]
    pub agents_created: u64,
    /// Plans accepted.
    #[n(6)]
    pub plans_created: u64,
    /// Attempts started.
    #[n(7)]
    pub attempts_started: u64,
    /// Attempts lost with agents or servers.
    #[n(8)]
    pub attempts_lost: u64,
}
