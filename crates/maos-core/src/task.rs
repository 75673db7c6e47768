//! A task as the engine holds it: its record, with the edges of the graph as slots.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::dispatch::LaneId;
use crate::event::Failure;
use crate::ids::{AgentId, Attempt, Sequence, TaskId};
use crate::record::{
    CollectRecord, HeldAttempt, PastEnd, PlanRecord, Stage, TaskRecord, Times, Trail,
};
use crate::slab::Slot;
use crate::spec::{Artifact, FailurePolicy, TaskSpec};
use crate::time::{Timestamp, WallTime};

#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) plan: Arc<PlanRecord>,
    pub(crate) index: u32,
    pub(crate) attempt: Attempt,
    pub(crate) retries_used: u32,
    pub(crate) losses: u32,
    pub(crate) root: Slot,
    pub(crate) parent: Option<Slot>,
    pub(crate) lane: Option<LaneId>,
    /// Dependencies that have not ended well enough.
    pub(crate) missing: u32,
    pub(crate) stage: Stage,
    /// Who ran the last attempt that started.
    pub(crate) ran_by: Option<AgentId>,
    /// What it leaves behind; `None` while that is nothing.
    pub(crate) trail: Option<Box<Trail>>,
    pub(crate) times: Times,
    pub(crate) stopping: Vec<HeldAttempt>,
    /// The step that changed it last.
    pub(crate) changed: Sequence,
    /// Whether it is in the list of changed tasks already.
    pub(crate) listed: bool,
    /// Its place in the graph; `None` for a task that is a plan of its own.
    pub(crate) edges: Option<Box<Edges>>,
}

/// What a task of a larger plan knows of the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edges {
    pub(crate) depends_on: Box<[Slot]>,
    pub(crate) dependents: Vec<Slot>,
    pub(crate) subtasks: Vec<Slot>,
    pub(crate) collect: Option<CollectRecord>,
    /// Subtasks that have not ended.
    pub(crate) open: u32,
    /// The first subtask whose end its parent cannot overlook.
    pub(crate) spoiled_by: Option<Slot>,
    /// Root only: all tasks of the plan in its order.
    pub(crate) members: Vec<Slot>,
    /// Root only: tasks that have not come to rest.
    pub(crate) restless: u32,
}

/// What is due when a stage's time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Attempt,
    Backoff,
    Deadline,
    Queue,
    Parked,
}

impl Stage {
    /// Whether nothing changes any more but by re-opening.
    #[must_use]
    pub fn ended(&self) -> bool {
        match self {
            Stage::Completed(_) | Stage::Collected | Stage::Failed(_) | Stage::Cancelled { .. } => {
                true
            }
            Stage::Waiting
            | Stage::Parked { .. }
            | Stage::Ready { .. }
            | Stage::Backoff { .. }
            | Stage::Running { .. }
            | Stage::Active => false,
        }
    }

    /// Whether it ended with success.
    #[must_use]
    pub fn completed(&self) -> bool {
        matches!(self, Stage::Completed(_) | Stage::Collected)
    }

    /// The state's name on the wire.
    #[must_use]
    pub fn wire_name(&self) -> &'static str {
        match self {
            Stage::Waiting | Stage::Parked { .. } => "pending",
            Stage::Ready { .. } => "ready",
            Stage::Backoff { .. } => "retrying",
            Stage::Running { .. } | Stage::Active => "running",
            Stage::Completed(_) | Stage::Collected => "completed",
            Stage::Failed(_) => "failed",
            Stage::Cancelled { .. } => "cancelled",
        }
    }
}

impl Task {
    /// The row of a task that is a plan of its own.
    pub(crate) fn into_record(self) -> TaskRecord {
        TaskRecord {
            id: self.id,
            spec: self.spec,
            plan: self.plan,
            index: self.index,
            attempt: self.attempt,
            retries_used: self.retries_used,
            losses: self.losses,
            stage: self.stage,
            times: self.times,
            ran_by: self.ran_by,
            stopping: self.stopping.into_boxed_slice(),
            links: None,
            trail: self.trail,
        }
    }

    pub(crate) fn trail_mut(&mut self) -> &mut Trail {
        self.trail.get_or_insert_default()
    }

    /// How it ended, before it begins anew.
    pub(crate) fn past_end(&self, reopened: WallTime) -> PastEnd {
        PastEnd {
            stage: self.stage.clone(),
            ended: self.times.ended.expect("only an ended task begins anew"),
            reopened,
            attempt: self.attempt,
            agent: self.ran_by,
            started: self.times.started,
        }
    }

    pub(crate) fn last_failure(&self) -> Option<&Failure> {
        self.trail.as_ref()?.last_failure.as_ref()
    }

    pub(crate) fn artifacts(&self) -> &[Artifact] {
        self.trail.as_ref().map_or(&[], |trail| &trail.artifacts)
    }

    pub(crate) fn edges(&self) -> Option<&Edges> {
        self.edges.as_deref()
    }

    pub(crate) fn subtasks(&self) -> &[Slot] {
        self.edges().map_or(&[], |edges| &edges.subtasks)
    }

    pub(crate) fn depends_on(&self) -> &[Slot] {
        self.edges().map_or(&[], |edges| &edges.depends_on)
    }

    pub(crate) fn dependents(&self) -> &[Slot] {
        self.edges().map_or(&[], |edges| &edges.dependents)
    }

    pub(crate) fn is_parent(&self) -> bool {
        self.edges().is_some_and(|edges| edges.collect.is_some())
    }

    pub(crate) fn on_failure(&self) -> FailurePolicy {
        self.spec.on_failure
    }

    /// Ended, and no attempt of it occupies anything.
    pub(crate) fn at_rest(&self) -> bool {
        self.stage.ended() && self.stopping.is_empty()
    }

    /// When the present stage is over by itself, and what that means.
    pub(crate) fn stage_timer(&self) -> Option<(Timestamp, Timer)> {
        match &self.stage {
            Stage::Ready { since } => {
                Some((since.plus_ms(self.spec.rare().queue_timeout_ms?), Timer::Queue))
            }
            Stage::Backoff { until } => Some((*until, Timer::Backoff)),
            Stage::Running { timeout, .. } => Some((*timeout, Timer::Attempt)),
            Stage::Parked { until, .. } => Some(((*until)?, Timer::Parked)),
            Stage::Waiting
            | Stage::Active
            | Stage::Completed(_)
            | Stage::Collected
            | Stage::Failed(_)
            | Stage::Cancelled { .. } => None,
        }
    }
}
