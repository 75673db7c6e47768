//! What has happened. Events are what the journal keeps: an old one must be readable, and mean the
//! same, for ever.
//!
//! A released event may gain an optional field and nothing else; a new meaning is a new variant.
//! The numbers are the stored names: never reused, never changed.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use minicbor::{Decode, Encode};

use crate::ids::{AgentId, Attempt, Epoch, NodeId, TaskId};
use crate::payload::{Payload, shared};
use crate::record::TaskRecord;
use crate::spec::{AgentSpec, Amounts, Artifact, Expansion, Name, Plan, Setting, TaskSpec};
use crate::time::{Moment, Timestamp};

/// Everything that one input brought about, at one moment. Durable as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Step {
    /// When.
    #[n(0)]
    pub moment: Moment,
    /// What, in order.
    #[n(1)]
    pub events: Vec<Event>,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// A plan was accepted. Tasks without dependencies are ready from now on.
    #[n(0)]
    Submitted {
        /// The graph.
        #[cbor(n(0), with = "shared")]
        plan: Arc<Plan>,
    },
    /// A task was given to an agent; what it needs is reserved.
    #[n(1)]
    Started {
        /// The task.
        #[n(0)]
        task: TaskId,
        /// The number of this run.
        #[n(1)]
        attempt: Attempt,
        /// Who runs it.
        #[n(2)]
        agent: AgentId,
        /// When it counts as failed if nothing was reported.
        #[n(3)]
        timeout: Timestamp,
    },
    /// An attempt ended with a result, and so did its task.
    #[n(2)]
    Completed {
        /// The task.
        #[n(0)]
        task: TaskId,
        /// The attempt.
        #[n(1)]
        attempt: Attempt,
        /// What it made.
        #[n(2)]
        result: Payload,
    },
    /// An attempt ended without a result.
    #[n(3)]
    AttemptFailed {
        /// The task.
        #[n(0)]
        task: TaskId,
        /// The attempt.
        #[n(1)]
        attempt: Attempt,
        /// Why.
        #[n(2)]
        failure: Failure,
        /// Whether it has really ended, or must be told to stop and still holds its slot.
        #[n(3)]
        holding: Holding,
        /// What becomes of the task.
        #[n(4)]
        next: Next,
    },
    /// A task ended unsuccessfully without an attempt of its own to blame: it waited too long, or
    /// its subtasks failed. What is below it and has not ended is cancelled.
    #[n(4)]
    Failed {
        /// The task.
        #[n(0)]
        task: TaskId,
        /// Why.
        #[n(1)]
        failure: Failure,
    },
    /// All subtasks of a task have ended, and so has the task, with success.
    #[n(5)]
    Collected {
        /// The task.
        #[n(0)]
        task: TaskId,
    },
    /// A task was cancelled, with all below it that had not ended. Running attempts are to stop.
    #[n(6)]
    Cancelled {
        /// The task.
        #[n(0)]
        task: TaskId,
        /// Why, in words.
        #[n(1)]
        reason: Box<str>,
    },
    /// The wait after a failure is over.
    #[n(7)]
    BackoffEnded {
        /// The task.
        #[n(0)]
        task: TaskId,
    },
    /// An attempt that was told to stop has ended: its slot and reservations are free.
    #[n(8)]
    Released {
        /// The task.
        #[n(0)]
        task: TaskId,
        /// The attempt.
        #[n(1)]
        attempt: Attempt,
    },
    /// An ended task is to run again, and its subtasks that did not complete.
    #[n(9)]
    Reopened {
        /// The task.
        #[n(0)]
        task: TaskId,
    },
    /// Tasks of an ended plan are to be in the engine: they come back from the store, or are there.
    #[n(10)]
    Revived {
        /// Every task of the plan, as it was.
        #[n(0)]
        tasks: Vec<TaskRecord>,
    },
    /// An agent is there, or is another than it was.
    #[n(11)]
    AgentRegistered {
        /// The agent.
        #[cbor(n(0), with = "shared")]
        agent: Arc<AgentSpec>,
    },
    /// An agent takes no more work. What it held is lost.
    #[n(12)]
    AgentEnded {
        /// The agent.
        #[n(0)]
        agent: AgentId,
        /// Why.
        #[n(1)]
        end: AgentEnd,
    },
    /// How much there is of each resource.
    #[n(13)]
    CapacitySet {
        /// Amounts by kind.
        #[n(0)]
        capacity: Amounts,
    },
    /// An attempt ended by making subtasks of its task, which goes on as their parent.
    #[n(15)]
    Expanded {
        /// The task.
        #[n(0)]
        task: TaskId,
        /// The attempt.
        #[n(1)]
        attempt: Attempt,
        /// What it made.
        #[cbor(n(2), with = "shared")]
        expansion: Arc<Expansion>,
    },
    /// What holds for a key that tasks share.
    #[n(16)]
    KeySet {
        /// The key.
        #[n(0)]
        key: Name,
        /// What.
        #[n(1)]
        setting: Setting,
    },
    /// A task is from now on as this says.
    #[n(17)]
    Amended {
        /// The task.
        #[n(0)]
        task: TaskId,
        /// All that is asked for.
        #[cbor(n(1), with = "shared")]
        spec: Arc<TaskSpec>,
    },
    /// An agent made a file beside its task's result; one of the same name gives way.
    #[n(18)]
    ArtifactKept {
        /// The task.
        #[n(0)]
        task: TaskId,
        /// The file.
        #[n(1)]
        artifact: Artifact,
    },
    /// A document of the shell's is there, is another, or is gone.
    #[n(19)]
    EntrySet {
        /// What kind of document it is.
        #[n(0)]
        register: Name,
        /// Its name among those of its kind.
        #[n(1)]
        key: Name,
        /// What it says; `None`: it is gone.
        #[n(2)]
        value: Option<Payload>,
    },
    /// Somebody holds resources outside of any attempt, instead of what they held so.
    #[n(20)]
    Reserved {
        /// Who.
        #[n(0)]
        requester: Name,
        /// What.
        #[n(1)]
        amounts: Amounts,
        /// Until when; `None`: until they are given back.
        #[n(2)]
        until: Option<Timestamp>,
    },
    /// What somebody held outside of any attempt is free.
    #[n(21)]
    Unreserved {
        /// Who.
        #[n(0)]
        requester: Name,
    },
    /// An agent that does its work elsewhere was heard of for the first time.
    #[n(22)]
    AgentArrived {
        /// The agent.
        #[n(0)]
        agent: AgentId,
    },
    /// A server took over the journal.
    #[n(14)]
    EpochBegan {
        /// Its reign.
        #[n(0)]
        epoch: Epoch,
        /// The server.
        #[n(1)]
        node: NodeId,
    },
}

/// What an unsuccessful attempt still occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Holding {
    /// Nothing: it is over.
    #[n(0)]
    Nothing,
    /// Its slot and reservations, until it is released.
    #[n(1)]
    Everything,
}

/// What becomes of a task after an attempt without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Next {
    /// It failed for good.
    #[n(0)]
    End,
    /// Another attempt after a wait; this one used up a retry.
    #[n(1)]
    Backoff {
        /// Until when it waits.
        #[n(0)]
        until: Timestamp,
    },
    /// Another attempt at once; no retry was used up.
    #[n(2)]
    Requeue,
}

/// Why something did not work out.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Failure {
    /// What went wrong, for programs.
    #[n(0)]
    pub kind: FailureKind,
    /// What went wrong, for people.
    #[n(1)]
    pub message: Box<str>,
    /// Whether trying again is known to be useless.
    #[n(2)]
    pub permanent: bool,
}

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum FailureKind {
    /// The agent said so.
    #[n(0)]
    Reported,
    /// The attempt ran longer than it may.
    #[n(1)]
    TimedOut,
    /// The attempt gave no sign of progress for longer than it may.
    #[n(2)]
    NoProgress,
    /// The agent or its server went away during the attempt.
    #[n(3)]
    Lost,
    /// That happened too often.
    #[n(4)]
    AttemptsLost,
    /// No agent took it in time.
    #[n(5)]
    QueueTimedOut,
    /// The time for everything is over.
    #[n(6)]
    DeadlineExceeded,
    /// A subtask did not complete.
    #[n(7)]
    SubtaskFailed,
}

impl FailureKind {
    /// Its permanent name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::Reported => "REPORTED",
            FailureKind::TimedOut => "TIMED_OUT",
            FailureKind::NoProgress => "NO_PROGRESS",
            FailureKind::Lost => "ATTEMPT_LOST",
            FailureKind::AttemptsLost => "ATTEMPTS_LOST",
            FailureKind::QueueTimedOut => "QUEUE_TIMED_OUT",
            FailureKind::DeadlineExceeded => "DEADLINE_EXCEEDED",
            FailureKind::SubtaskFailed => "SUBTASK_FAILED",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How an agent's service came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum AgentEnd {
    /// Somebody asked for it.
    #[n(0)]
    Terminated,
    /// It was not heard of for too long. It may register again.
    #[n(1)]
    Lost,
    /// Its pool or the configuration no longer has it.
    #[n(2)]
    Retired,
}
