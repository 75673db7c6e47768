//! Changes as somebody who watches sees them: one for each state that a task or an agent comes to.
//!
//! Gathered only while somebody watches, told only when they are durable, and never stored: what
//! was missed is in the rows.

use alloc::sync::Arc;

use crate::event::{AgentEnd, FailureKind};
use crate::ids::{AgentId, Attempt, TaskId};
use crate::payload::Payload;
use crate::record::Stage;
use crate::spec::{AgentSpec, Name, TaskSpec};
use crate::time::WallTime;

/// Something came to another state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A task.
    Task(TaskChange),
    /// An agent.
    Agent {
        /// The agent.
        agent: Arc<AgentSpec>,
        /// What it came to.
        turn: AgentTurn,
        /// When.
        at: WallTime,
    },
    /// A document of the shell's.
    Entry(EntryChange),
}

/// What an agent came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentTurn {
    /// It is there, or serves as another than it was.
    Registered,
    /// It was heard of for the first time.
    Arrived,
    /// It holds more or less than before.
    Load(Load),
    /// It takes no more work.
    Ended(AgentEnd),
}

/// How many of its slots an agent that serves has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// None.
    Idle,
    /// Some.
    Busy,
    /// All: it takes nothing more.
    Overloaded,
}

impl Load {
    /// That of an agent which holds so many attempts.
    #[must_use]
    pub fn of(held: usize, slots: u32) -> Load {
        match u32::try_from(held).unwrap_or(u32::MAX) {
            0 => Load::Idle,
            held if held < slots => Load::Busy,
            _ => Load::Overloaded,
        }
    }
}

/// A document of the shell's changed, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryChange {
    /// What kind of document it is.
    pub register: Name,
    /// Its name among those of its kind.
    pub key: Name,
    /// What it says; `None`: it is gone.
    pub value: Option<Payload>,
    /// When.
    pub at: WallTime,
}

/// A task came to another state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskChange {
    /// The task.
    pub task: TaskId,
    /// The root of its plan.
    pub root: TaskId,
    /// What was asked for.
    pub spec: Arc<TaskSpec>,
    /// The state's name on the wire.
    pub status: &'static str,
    /// The last attempt that started; 0 before the first.
    pub attempt: Attempt,
    /// Who runs it, or ran it until now.
    pub agent: Option<AgentId>,
    /// Why it failed, or its attempt did.
    pub failure: Option<FailureKind>,
    /// When.
    pub at: WallTime,
}

/// Who holds a task in this stage.
pub(crate) fn holder(stage: &Stage) -> Option<AgentId> {
    if let Stage::Running { agent, .. } = stage { Some(*agent) } else { None }
}
