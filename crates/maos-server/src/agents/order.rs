//! What the driver tells agents to do.

use std::sync::Arc;
use std::time::Duration;

use maos_core::ids::{Attempt, TaskId};
use maos_core::outcome::Outcome;
use maos_core::spec::{AgentSpec, TaskSpec};

/// One attempt that is to start, with what it needs to know of other tasks.
#[derive(Debug)]
pub struct Start {
    /// The task.
    pub task: TaskId,
    /// Which run of it.
    pub attempt: Attempt,
    /// Who runs it.
    pub agent: Arc<AgentSpec>,
    /// What was asked for.
    pub spec: Arc<TaskSpec>,
    /// What is left of its time.
    pub timeout: Duration,
    /// Outcomes of the tasks that `spec.rare().inputs` names, in that order.
    pub inputs: Vec<Outcome>,
}

impl Order {
    /// Who is told.
    #[must_use]
    pub fn agent(&self) -> &AgentSpec {
        match self {
            Order::Start(start) => &start.agent,
            Order::Stop(_, _, agent) => agent,
        }
    }
}

/// What agents are told.
#[derive(Debug)]
pub enum Order {
    /// Run an attempt.
    Start(Box<Start>),
    /// Have whoever runs it stop an attempt, and release it.
    Stop(TaskId, Attempt, Arc<AgentSpec>),
}
