//! What changes in a task that was accepted: what is asked for, and the files that are kept with
//! it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::State;
use crate::event::Event;
use crate::ids::{Attempt, TaskId};
use crate::limits::ARTIFACTS_MAX;
use crate::record::Stage;
use crate::rejection::Rejection;
use crate::slab::Slot;
use crate::spec::{Artifact, Bound, Demand, Limits, Patience, TaskPatch, TaskSpec};
use crate::task::{Task, Timer};
use crate::time::Moment;

impl State {
    pub(super) fn decide_amend(
        &self,
        id: TaskId,
        patch: &TaskPatch,
    ) -> Result<Vec<Event>, Rejection> {
        let slot = self.slot(id).ok_or(Rejection::TaskNotFound(id))?;
        let task = &self.tasks[slot];
        let mut spec = (*task.spec).clone();
        if let Some(priority) = patch.priority {
            if task.stage.ended() {
                let state = task.stage.wire_name();
                return Err(Rejection::Fixed { task: id, what: "priority", state });
            }
            spec.priority = priority;
        }
        if let Some(tags) = &patch.tags {
            spec.tags = tags.clone();
        }
        if let Some(metadata) = &patch.metadata {
            spec.metadata = Some(Box::new(metadata.clone()));
        }
        if let Some(limits) = &patch.limits {
            self.amend_limits(task, limits, &mut spec)?;
        }
        if patch.patience != Patience::default() {
            amend_patience(task, &patch.patience, &mut spec)?;
        }
        let mut events = self.come_back(slot);
        let unchanged = events.len();
        if spec != *task.spec {
            events.push(Event::Amended { task: id, spec: Arc::new(spec) });
        }
        if let Some(priority) = patch.priority {
            self.below(slot).filter(|task| task.spec.priority != priority).for_each(|task| {
                let spec = Arc::new(TaskSpec { priority, ..(*task.spec).clone() });
                events.push(Event::Amended { task: task.id, spec });
            });
        }
        if events.len() == unchanged { Ok(vec![]) } else { Ok(events) }
    }

    /// A server that starts reads back only what is not at rest: a fact about the rest needs them.
    pub(super) fn come_back(&self, slot: Slot) -> Vec<Event> {
        let root = self.tasks[slot].root;
        if !self.plan_at_rest(root) {
            return Vec::new();
        }
        let tasks = self.plan(self.tasks[root].id).unwrap_or_default();
        vec![Event::Revived { tasks }]
    }

    /// Everything below a task that has not ended.
    fn below(&self, top: Slot) -> impl Iterator<Item = &Task> {
        let mut found = self.tasks[top].subtasks().to_vec();
        let mut next = 0;
        while next < found.len() {
            found.extend_from_slice(self.tasks[found[next]].subtasks());
            next += 1;
        }
        found.into_iter().map(|slot| &self.tasks[slot]).filter(|task| !task.stage.ended())
    }

    fn amend_limits(
        &self,
        task: &Task,
        limits: &Limits,
        spec: &mut TaskSpec,
    ) -> Result<(), Rejection> {
        let fixed =
            |state| Rejection::Fixed { task: task.id, what: "parameters and limits", state };
        if task.is_parent() {
            return Err(fixed("planned, and its subtasks have their own"));
        }
        if task.stage.ended() || task.attempt > Attempt(0) {
            return Err(fixed(task.stage.wire_name()));
        }
        if let Some(parameters) = &limits.parameters {
            spec.parameters = parameters.clone();
        }
        spec.timeout_ms = limits.timeout_ms.unwrap_or(spec.timeout_ms);
        spec.retries_max = limits.retries_max.unwrap_or(spec.retries_max);
        if let Some(resources) = &limits.resources {
            let resources = resources.clone();
            spec.demand = Arc::new(Demand { resources, ..(*spec.demand).clone() });
            self.check_demand(&task.plan.namespace, spec)?;
        }
        Ok(())
    }

    pub(super) fn apply_amended(&mut self, id: TaskId, spec: &Arc<TaskSpec>) {
        let slot = self.known(id);
        self.unset_timers(slot);
        let waiting = self.waiting_in(slot);
        if let Some((lane, key)) = waiting {
            self.dispatch.withdraw(lane, key, slot);
        }
        if let Some(lane) = self.tasks[slot].lane {
            let namespace = self.tasks[slot].plan.namespace.clone();
            let next = self.dispatch.enter_lane(&namespace, spec);
            self.tasks[slot].lane = Some(next);
            self.dispatch.leave_lane(lane);
        }
        self.tasks[slot].spec = spec.clone();
        self.tasks[slot].trail_mut().amended = true;
        if let Some(deadline) = spec.rare().deadline.filter(|_| !self.tasks[slot].stage.ended()) {
            self.timers.insert((deadline, Timer::Deadline, slot));
        }
        self.index_stage(slot);
        self.touch(slot);
    }

    /// Before another spec comes in the place of the one that set them.
    fn unset_timers(&mut self, slot: Slot) {
        let task = &self.tasks[slot];
        if let Some((at, timer)) = task.stage_timer() {
            self.timers.remove(&(at, timer, slot));
        }
        if let Some(deadline) = task.spec.rare().deadline.filter(|_| !task.stage.ended()) {
            self.timers.remove(&(deadline, Timer::Deadline, slot));
        }
    }

    pub(super) fn decide_artifact(
        &self,
        moment: &Moment,
        id: TaskId,
        attempt: Option<Attempt>,
        artifact: &Artifact,
    ) -> Result<Vec<Event>, Rejection> {
        let slot = self.slot(id).ok_or(Rejection::TaskNotFound(id))?;
        let task = &self.tasks[slot];
        if task.stage.ended() {
            return Err(Rejection::AlreadyEnded { task: id, state: task.stage.wire_name() });
        }
        if let Some(attempt) = attempt {
            let current = matches!(task.stage, Stage::Running { .. }) && task.attempt == attempt;
            if !current {
                return Err(Rejection::StaleAttempt { task: id, attempt });
            }
        }
        let others = task.artifacts().iter().filter(|kept| kept.name != artifact.name).count();
        if others >= usize::try_from(ARTIFACTS_MAX).unwrap_or(usize::MAX) {
            return Err(Rejection::Full { what: "files of a task", bound: ARTIFACTS_MAX.into() });
        }
        let artifact = Artifact { kept: moment.wall, ..artifact.clone() };
        Ok(vec![Event::ArtifactKept { task: id, artifact }])
    }

    pub(super) fn apply_artifact(&mut self, id: TaskId, artifact: &Artifact) {
        let slot = self.known(id);
        let artifacts = &mut self.tasks[slot].trail_mut().artifacts;
        artifacts.retain(|kept| kept.name != artifact.name);
        artifacts.push(artifact.clone());
        self.touch(slot);
    }
}

fn amend_patience(task: &Task, patience: &Patience, spec: &mut TaskSpec) -> Result<(), Rejection> {
    let fixed = |what, state| Err(Rejection::Fixed { task: task.id, what, state });
    if task.stage.ended() {
        return fixed("deadline and patience", task.stage.wire_name());
    }
    let Patience { deadline, queue_timeout_ms, no_progress_ms } = *patience;
    if task.is_parent() && (queue_timeout_ms.is_some() || no_progress_ms.is_some()) {
        return fixed("patience", "planned, and its subtasks have their own");
    }
    let mut rare = spec.rare().clone();
    if let Some(deadline) = deadline.map(Bound::set) {
        rare.deadline = deadline.map(|deadline| deadline.at);
        rare.ends_by = deadline.map(|deadline| deadline.shown);
    }
    if let Some(bound) = queue_timeout_ms {
        rare.queue_timeout_ms = bound.set();
    }
    if let Some(bound) = no_progress_ms {
        rare.no_progress_ms = bound.set();
    }
    spec.rare = rare.boxed();
    Ok(())
}
