//! Why a command was refused. A refusal is the caller's mistake and changes nothing.

use alloc::boxed::Box;

use thiserror::Error;

use crate::ids::{AgentId, Attempt, TaskId};

/// What is wrong, and what was wanted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// The engine does not hold it; the store may.
    #[error("task `{0}` is not known")]
    TaskNotFound(TaskId),
    /// An id that was just made is already taken.
    #[error("task `{0}` already exists")]
    TaskExists(TaskId),
    /// Only what has not ended can be cancelled.
    #[error("task `{task}` has already ended: it is {state}")]
    AlreadyEnded {
        /// The task.
        task: TaskId,
        /// Its state's wire name.
        state: &'static str,
    },
    /// Only what failed or was cancelled can be retried.
    #[error("task `{task}` is {state}: only a failed or cancelled task can be retried")]
    NotRetryable {
        /// The task.
        task: TaskId,
        /// Its state's wire name.
        state: &'static str,
    },
    /// A subtask cannot run again under a parent that has ended.
    #[error("task `{task}` is a subtask of `{parent}`, which has ended: retry that one")]
    ParentEnded {
        /// The task.
        task: TaskId,
        /// Its parent.
        parent: TaskId,
    },
    /// The report is about an attempt that is not the running one.
    #[error("attempt {attempt} of task `{task}` is not the running one")]
    StaleAttempt {
        /// The task.
        task: TaskId,
        /// The attempt that was reported.
        attempt: Attempt,
    },
    /// No agent has this id.
    #[error("agent `{0}` is not known")]
    AgentNotFound(AgentId),
    /// The agent has ended its service.
    #[error("agent `{0}` has already ended")]
    AgentEnded(AgentId),
    /// The same idempotency key came with another body before.
    #[error("idempotency key `{key}` was used with another body, for task `{task}`")]
    IdempotencyConflict {
        /// The key.
        key: Box<str>,
        /// What the first submission became.
        task: TaskId,
    },
    /// A requirement that could never be met.
    #[error("`{kind}` of {wanted_milli} thousandths is more than the capacity of {capacity_milli}")]
    OverCapacity {
        /// The kind of resource.
        kind: Box<str>,
        /// What was asked for, in thousandths.
        wanted_milli: u64,
        /// What there is, in thousandths.
        capacity_milli: u64,
    },
    /// There is not enough left at the moment.
    #[error("`{kind}`: {wanted_milli} thousandths are wanted, {free_milli} are free")]
    NotEnoughLeft {
        /// The kind of resource.
        kind: Box<str>,
        /// What was asked for, in thousandths.
        wanted_milli: u64,
        /// What is free, in thousandths.
        free_milli: u64,
    },
    /// Nobody of this name holds resources.
    #[error("`{requester}` holds no resources")]
    NothingReserved {
        /// Who was named.
        requester: Box<str>,
    },
    /// What is fixed once a task has started, or was made for a plan.
    #[error("`{what}` of task `{task}` can no longer be changed: it is {state}")]
    Fixed {
        /// The task.
        task: TaskId,
        /// What was to change.
        what: &'static str,
        /// Its state's wire name, or what it is.
        state: &'static str,
    },
    /// A document of the shell's is not there.
    #[error("no {register} has the name `{key}`")]
    EntryNotFound {
        /// What kind of document it is.
        register: Box<str>,
        /// Its name among those of its kind.
        key: Box<str>,
    },
    /// A document of the shell's is there already.
    #[error("a {register} with the name `{key}` is there already")]
    EntryExists {
        /// What kind of document it is.
        register: Box<str>,
        /// Its name among those of its kind.
        key: Box<str>,
    },
    /// A bound was reached; later it may fit.
    #[error("{what} are at their bound of {bound}")]
    Full {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        bound: u64,
    },
    /// The journal does not take appends at the moment; nothing was changed.
    #[error("the journal cannot be written at the moment")]
    StorageUnavailable,
    /// A newer reign owns the journal.
    #[error("this server no longer leads")]
    NotLeader,
}
