//! What may be asked of the engine. Everything in a command is checked for form at the edge;
//! whether it may happen is for `State::decide`.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::event::{AgentEnd, Failure};
use crate::ids::{AgentId, Attempt, Epoch, NodeId, TaskId};
use crate::payload::Payload;
use crate::record::TaskRecord;
use crate::spec::{AgentSpec, Amounts, Artifact, Expansion, Name, Plan, Setting, TaskPatch};

/// A request to change the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Accept a plan. With an idempotency key that is known and the same body, nothing happens and
    /// the first answer is given again.
    Submit {
        /// The graph.
        plan: Arc<Plan>,
    },
    /// End a task and everything below it that has not ended.
    Cancel {
        /// The task.
        task: TaskId,
        /// The caller's words.
        reason: Box<str>,
    },
    /// Run a failed or cancelled task again; for a parent, its subtasks that did not complete.
    Retry {
        /// The task.
        task: TaskId,
    },
    /// Take tasks of an ended plan back from the store, so that they can be retried.
    Revive {
        /// Every task of the plan.
        tasks: Arc<[TaskRecord]>,
    },
    /// An agent says how an attempt went.
    Report {
        /// The task.
        task: TaskId,
        /// The attempt that the agent held.
        attempt: Attempt,
        /// How it went.
        report: Report,
    },
    /// An attempt that was told to stop has really ended; its slot and reservations are free.
    Release {
        /// The task.
        task: TaskId,
        /// The attempt.
        attempt: Attempt,
    },
    /// A running attempt has been silent for too long: it counts as failed.
    Stall {
        /// The task.
        task: TaskId,
        /// The attempt.
        attempt: Attempt,
    },
    /// Add an agent, or change one that is known by its id.
    RegisterAgent {
        /// The agent.
        agent: Arc<AgentSpec>,
    },
    /// Take an agent away, or say that it is gone. What it held is lost and goes to others.
    EndAgent {
        /// The agent.
        agent: AgentId,
        /// Why.
        end: AgentEnd,
    },
    /// Say how much there is of each resource.
    SetCapacity {
        /// Amounts by kind; a kind that is not named has no bound.
        capacity: Amounts,
    },
    /// Set what holds for a key that tasks share.
    SetKey {
        /// The key.
        key: Name,
        /// What.
        setting: Setting,
    },
    /// Change a task that was accepted.
    Amend {
        /// The task.
        task: TaskId,
        /// What is to be another.
        patch: Box<TaskPatch>,
    },
    /// Keep a file with a task that has not ended.
    KeepArtifact {
        /// The task.
        task: TaskId,
        /// The attempt that made it; `None`: somebody else did.
        attempt: Option<Attempt>,
        /// The file.
        artifact: Box<Artifact>,
    },
    /// Set or take away a document of the shell's.
    SetEntry {
        /// What kind of document it is.
        register: Name,
        /// Its name among those of its kind.
        key: Name,
        /// What it is to say; `None`: it is to go.
        value: Option<Payload>,
        /// What must be so.
        expect: Expect,
    },
    /// Hold resources outside of any attempt, instead of what the requester holds so.
    Reserve {
        /// Who.
        requester: Name,
        /// What.
        amounts: Amounts,
        /// How long; `None`: until they are given back.
        lease_ms: Option<u64>,
    },
    /// Give back what a requester holds outside of any attempt.
    Unreserve {
        /// Who.
        requester: Name,
    },
    /// A server takes over: attempts that ended with the one before it are lost.
    BeginEpoch {
        /// The new reign; above every earlier one.
        epoch: Epoch,
        /// The server.
        node: NodeId,
    },
    /// Time passed. What is due follows by itself.
    Tick,
}

/// What must be so before a document of the shell's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Whatever there is.
    Anything,
    /// It is not there.
    Absent,
    /// It is there.
    Present,
}

/// How an attempt went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It has a result.
    Completed(Payload),
    /// It made subtasks, whose results become the task's.
    Expanded(Arc<Expansion>),
    /// It has none.
    Failed(Failure),
    /// It never came to a verdict: its program was ended or could not be started by our doing.
    Lost(Box<str>),
}
