//! Facts become state. Nothing here can refuse: what cannot be is a bug, and stops the node.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Consequence, Effect, IdempotencyScope, Remembered, State};
use crate::change::{self, Change, TaskChange};
use crate::dispatch::OrderKey;
use crate::event::{Event, Failure, FailureKind, Holding, Next};
use crate::ids::{AgentId, Attempt, TaskId};
use crate::limits::IDEMPOTENCY_MS;
use crate::record::{
    CollectRecord, HeldAttempt, ParkReason, PastAttempt, PlanRecord, Stage, Times,
};
use crate::slab::Slot;
use crate::spec::{Collect, Expansion, FailurePolicy, Name, Plan, PlanTask, Setting};
use crate::task::{Edges, Task, Timer};
use crate::time::Timestamp;

/// The slot of a plan's task.
fn at(slots: &[Slot], index: u32) -> Slot {
    slots[usize::try_from(index).expect("a u32 fits an address")]
}

/// What an attempt's end says about its agent.
#[derive(Clone, Copy)]
enum Credit {
    Completed,
    Failed,
    Nothing,
}

impl State {
    /// Records a fact of the step that was begun last.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Submitted { plan } => self.apply_submitted(plan),
            Event::Started { task, attempt, agent, timeout } => {
                self.apply_started(*task, *attempt, *agent, *timeout);
            }
            Event::Completed { task, attempt, result } => {
                let slot = self.known(*task);
                self.end_attempt(slot, *attempt, Holding::Nothing, Credit::Completed);
                self.end_task(slot, Stage::Completed(result.clone()));
            }
            Event::Expanded { task, attempt, expansion } => {
                self.apply_expanded(*task, *attempt, expansion);
            }
            Event::AttemptFailed { task, attempt, failure, holding, next } => {
                self.apply_attempt_failed(*task, *attempt, failure, *holding, *next);
            }
            Event::Failed { task, failure } => {
                self.end_subtree(self.known(*task), Stage::Failed(failure.clone()));
            }
            Event::Collected { task } => self.end_task(self.known(*task), Stage::Collected),
            Event::Cancelled { task, reason } => {
                let stage = Stage::Cancelled { reason: reason.clone() };
                self.end_subtree(self.known(*task), stage);
            }
            Event::BackoffEnded { task } => self.make_ready(self.known(*task)),
            Event::Released { task, attempt } => self.apply_released(*task, *attempt),
            Event::Reopened { task } => self.apply_reopened(*task),
            Event::Revived { tasks } => {
                // A plan that has not left yet is as its rows say.
                if !tasks.iter().any(|task| self.slot(task.id).is_some()) {
                    self.restore_tasks(tasks.iter().cloned());
                }
            }
            Event::AgentRegistered { agent } => self.apply_registered(agent),
            Event::AgentEnded { agent, end } => self.apply_agent_ended(*agent, *end),
            Event::AgentArrived { agent } => self.apply_arrived(*agent),
            Event::CapacitySet { capacity } => self.dispatch.set_capacity(capacity),
            Event::KeySet { key, setting } => self.set_key(key, setting),
            Event::Amended { task, spec } => self.apply_amended(*task, spec),
            Event::ArtifactKept { task, artifact } => self.apply_artifact(*task, artifact),
            Event::EntrySet { register, key, value } => {
                self.apply_entry(register, key, value.as_ref());
            }
            Event::Reserved { requester, amounts, until } => {
                self.apply_reserved(requester, amounts, *until);
            }
            Event::Unreserved { requester } => {
                self.free_reservation(requester);
            }
            Event::EpochBegan { epoch, node } => {
                self.reign = Some((*epoch, *node));
                self.lose_local_attempts(*node);
            }
        }
    }

    pub(super) fn set_key(&mut self, key: &Name, setting: &Setting) {
        match setting {
            Setting::Limit(limit) => self.dispatch.set_limit(key, *limit),
            Setting::Weight(weight) => self.dispatch.set_weight(key, *weight),
        }
    }

    fn apply_submitted(&mut self, plan: &Arc<Plan>) {
        let now = self.moment;
        let root_id = plan.root().id;
        let until = now.at.plus_ms(IDEMPOTENCY_MS);
        let record = Arc::new(PlanRecord {
            id: plan.id,
            root: root_id,
            namespace: plan.namespace.clone(),
            submitter: plan.submitter.clone(),
            strategy: plan.strategy.clone(),
            idempotency: plan.idempotency.clone(),
            idempotency_until: until,
        });
        self.remember_key(&record);
        self.counters.plans_created += 1;
        self.counters.tasks_submitted += plan.tasks.len() as u64;
        let mut slots: Vec<Slot> = Vec::with_capacity(plan.tasks.len());
        for (task, index) in plan.tasks.iter().zip(0u32..) {
            let root = slots.first().copied();
            slots.push(self.insert_planned(task, index, &record, root));
        }
        if let Some((root, _)) = slots.split_first().filter(|(_, others)| !others.is_empty()) {
            self.link(&plan.tasks, &slots, None);
            let root = self.edges_mut(*root);
            root.members = slots.clone();
            root.restless = u32::try_from(slots.len()).expect("bounded by PLAN_TASKS_MAX");
        }
        self.make_unhindered_ready(slots);
    }

    fn make_unhindered_ready(&mut self, slots: Vec<Slot>) {
        for slot in slots {
            let task = &self.tasks[slot];
            if task.missing == 0 && !task.is_parent() {
                self.make_ready(slot);
            }
        }
    }

    fn apply_expanded(&mut self, id: TaskId, attempt: Attempt, expansion: &Expansion) {
        let top = self.known(id);
        self.end_attempt(top, attempt, Holding::Nothing, Credit::Completed);
        self.set_stage(top, Stage::Active);
        let root = self.tasks[top].root;
        if self.tasks[root].edges.is_none() {
            let edges = self.edges_mut(root);
            (edges.members, edges.restless) = (Vec::from([root]), 1);
        }
        let before = self.tasks[root].edges().map_or(0, |edges| edges.members.len());
        let first = u32::try_from(before).expect("bounded by PLAN_TASKS_MAX");
        let plan = self.tasks[top].plan.clone();
        self.counters.tasks_submitted += expansion.tasks.len() as u64;
        let mut slots: Vec<Slot> = Vec::with_capacity(expansion.tasks.len());
        for (task, index) in expansion.tasks.iter().zip(first..) {
            slots.push(self.insert_planned(task, index, &plan, Some(root)));
        }
        self.link(&expansion.tasks, &slots, Some(top));
        let one = |index: u32| self.tasks[at(&slots, index)].id;
        let collect = match expansion.collect {
            Collect::All => CollectRecord::All,
            Collect::One(index) => CollectRecord::One(one(index)),
        };
        self.edges_mut(top).collect = Some(collect);
        let root = self.edges_mut(root);
        root.members.extend_from_slice(&slots);
        root.restless += u32::try_from(slots.len()).expect("bounded by PLAN_TASKS_MAX");
        self.make_unhindered_ready(slots);
    }

    fn insert_planned(
        &mut self,
        planned: &PlanTask,
        index: u32,
        plan: &Arc<PlanRecord>,
        root: Option<Slot>,
    ) -> Slot {
        let wall = self.moment.wall;
        let lane = self.dispatch.enter_lane(&plan.namespace, &planned.spec);
        let slot = self.tasks.insert(Task {
            id: planned.id,
            spec: planned.spec.clone(),
            plan: plan.clone(),
            index,
            attempt: Attempt(0),
            retries_used: 0,
            losses: 0,
            root: root.unwrap_or_default(),
            parent: None,
            lane: Some(lane),
            missing: 0,
            stage: Stage::Waiting,
            ran_by: None,
            trail: None,
            times: Times { created: wall, updated: wall, ..Times::default() },
            stopping: Vec::new(),
            changed: self.sequence,
            listed: false,
            edges: None,
        });
        if root.is_none() {
            self.tasks[slot].root = slot;
        }
        self.tasks_by_id.insert(&self.tasks, slot);
        self.live_count += 1;
        if self.watched {
            self.note_change(slot, &Stage::Waiting);
        }
        if let Some(deadline) = planned.spec.rare().deadline {
            self.timers.insert((deadline, Timer::Deadline, slot));
        }
        self.touch(slot);
        slot
    }

    /// Draws the edges between new tasks; those without a parent among them are below `top`.
    fn link(&mut self, tasks: &[PlanTask], slots: &[Slot], top: Option<Slot>) {
        for (planned, slot) in tasks.iter().zip(slots) {
            let depends_on: Box<[Slot]> =
                planned.depends_on.iter().map(|index| at(slots, *index)).collect();
            for needed in &depends_on {
                self.edges_mut(*needed).dependents.push(*slot);
            }
            self.tasks[*slot].missing =
                u32::try_from(depends_on.len()).expect("bounded by PLAN_TASKS_MAX");
            self.edges_mut(*slot).depends_on = depends_on;
            if let Some(parent) = planned.parent.map(|index| at(slots, index)).or(top) {
                assert!(self.tasks[parent].index < self.tasks[*slot].index, "parents come first");
                self.tasks[*slot].parent = Some(parent);
                let edges = self.edges_mut(parent);
                edges.subtasks.push(*slot);
                edges.open += 1;
            }
        }
        for (planned, slot) in tasks.iter().zip(slots) {
            if self.tasks[*slot].subtasks().is_empty() {
                continue;
            }
            self.edges_mut(*slot).collect = Some(match planned.collect {
                Collect::All => CollectRecord::All,
                Collect::One(index) => CollectRecord::One(self.tasks[at(slots, index)].id),
            });
        }
    }

    fn apply_started(&mut self, id: TaskId, attempt: Attempt, agent: AgentId, timeout: Timestamp) {
        let slot = self.known(id);
        let holder = self.known_agent(agent);
        assert!(
            matches!(self.tasks[slot].stage, Stage::Ready { .. }),
            "only a ready task is started"
        );
        assert!(attempt > self.tasks[slot].attempt, "an attempt's number is never used twice");
        self.set_stage(slot, Stage::Running { agent, timeout });
        let task = &mut self.tasks[slot];
        task.attempt = attempt;
        task.ran_by = Some(agent);
        task.times.started = Some(self.moment.wall);
        let spec = task.spec.clone();
        self.dispatch.reserve(&task.spec.demand.resources);
        let lane = self.tasks[slot].lane.expect("a live task has a lane");
        self.dispatch.start(lane, self.moment.at);
        self.counters.attempts_started += 1;
        self.held_count += 1;
        self.dispatch.own_held += u64::from(self.agents[holder].spec.runtime.ends_with_server());
        let held = &mut self.agents[holder].held;
        assert!(held.insert(slot, attempt, self.moment.at), "a slot is taken once");
        let before = held.len() - 1;
        self.note_load(holder, before);
        self.tell_fitness(holder);
        self.activate_parents(slot);
        let agent = self.agents[holder].spec.clone();
        self.effects.push(Effect::Start { task: id, attempt, agent, spec, timeout });
    }

    fn apply_attempt_failed(
        &mut self,
        id: TaskId,
        attempt: Attempt,
        failure: &Failure,
        holding: Holding,
        next: Next,
    ) {
        let slot = self.known(id);
        let credit = match failure.kind {
            FailureKind::Lost | FailureKind::AttemptsLost => Credit::Nothing,
            FailureKind::Reported
            | FailureKind::TimedOut
            | FailureKind::NoProgress
            | FailureKind::QueueTimedOut
            | FailureKind::DeadlineExceeded
            | FailureKind::SubtaskFailed => Credit::Failed,
        };
        self.note_past(slot, attempt, failure);
        self.end_attempt(slot, attempt, holding, credit);
        match next {
            Next::End => self.end_task(slot, Stage::Failed(failure.clone())),
            Next::Backoff { until } => {
                if cfg!(feature = "fault-lose-retry") {
                    self.set_stage(slot, Stage::Waiting);
                    return;
                }
                self.tasks[slot].retries_used += 1;
                self.counters.tasks_retried += 1;
                self.set_stage(slot, Stage::Backoff { until });
            }
            Next::Requeue => {
                self.tasks[slot].losses += 1;
                self.counters.attempts_lost += 1;
                self.make_ready(slot);
            }
        }
    }

    fn note_past(&mut self, slot: Slot, attempt: Attempt, failure: &Failure) {
        let task = &self.tasks[slot];
        let Stage::Running { agent, .. } = task.stage else { return };
        let (started, ended) = (task.times.started.unwrap_or_default(), self.moment.wall);
        let past = PastAttempt { attempt, agent, started, ended, failure: failure.clone() };
        self.tasks[slot].trail_mut().note(past);
    }

    fn apply_released(&mut self, id: TaskId, attempt: Attempt) {
        let slot = self.known(id);
        let stopping = &mut self.tasks[slot].stopping;
        let index = stopping.iter().position(|held| held.attempt == attempt);
        let held = stopping.swap_remove(index.expect("what is released was stopping"));
        self.free_slot(slot, held);
        self.touch(slot);
        if self.tasks[slot].at_rest() {
            self.come_to_rest(slot);
        }
    }

    fn apply_reopened(&mut self, id: TaskId) {
        let top = self.known(id);
        let mut reopened = Vec::from([top]);
        let mut index = 0;
        while index < reopened.len() {
            let subtasks = self.tasks[reopened[index]].subtasks();
            reopened.extend(subtasks.iter().filter(|slot| !self.tasks[**slot].stage.completed()));
            index += 1;
        }
        for slot in &reopened {
            self.reopen(*slot);
        }
        if let Some(parent) = self.tasks[top].parent {
            self.recount(parent);
        }
        self.counters.tasks_retried += 1;
        for slot in &reopened {
            // Who counted its failure as done, and has not begun, waits for it again.
            for dependent in self.tasks[*slot].dependents().to_vec() {
                self.recount(dependent);
            }
        }
        for slot in reopened {
            self.recount(slot);
            let task = &self.tasks[slot];
            if task.is_parent() {
                self.consequences.push_back(Consequence::Review { parent: slot, id: task.id });
            } else if task.missing == 0 {
                self.make_ready(slot);
            } else if let Some(because) = self.failed_need(slot) {
                let skip = Consequence::Skip { task: slot, id: task.id, because };
                self.consequences.push_back(skip);
            }
        }
    }

    /// What this task depends on that has ended and does not count as done.
    fn failed_need(&self, slot: Slot) -> Option<TaskId> {
        let in_vain =
            |needed: &&Slot| self.tasks[**needed].stage.ended() && !self.satisfied(**needed);
        let needed = self.tasks[slot].depends_on().iter().find(in_vain)?;
        Some(self.tasks[*needed].id)
    }

    fn reopen(&mut self, slot: Slot) {
        let was_at_rest = self.tasks[slot].at_rest();
        let (plan, spec) = (self.tasks[slot].plan.clone(), self.tasks[slot].spec.clone());
        let lane = self.dispatch.enter_lane(&plan.namespace, &spec);
        let root = self.tasks[slot].root;
        let reopened = self.moment.wall;
        let task = &mut self.tasks[slot];
        assert!(task.lane.is_none(), "an ended task has no lane");
        let end = task.past_end(reopened);
        task.trail_mut().note_end(end);
        task.lane = Some(lane);
        task.retries_used = 0;
        task.losses = 0;
        task.times.ended = None;
        if let Some(deadline) = task.spec.rare().deadline {
            self.timers.insert((deadline, Timer::Deadline, slot));
        }
        if was_at_rest && let Some(edges) = self.tasks[root].edges.as_mut() {
            edges.restless += 1;
        }
        self.live_count += 1;
        self.set_stage(slot, Stage::Waiting);
    }

    /// Counts anew what a task waits for: dependencies, and for a parent its subtasks.
    pub(super) fn recount(&mut self, slot: Slot) {
        let task = &self.tasks[slot];
        let missing = task.depends_on().iter().filter(|needed| !self.satisfied(**needed)).count();
        let open =
            task.subtasks().iter().filter(|child| !self.tasks[**child].stage.ended()).count();
        let spoiled_by = if task.on_failure() == FailurePolicy::Ignore {
            None
        } else {
            let ended = |child: &&Slot| {
                let stage = &self.tasks[**child].stage;
                stage.ended() && !stage.completed()
            };
            task.subtasks().iter().find(ended).copied()
        };
        let task = &mut self.tasks[slot];
        task.missing = u32::try_from(missing).expect("bounded by PLAN_TASKS_MAX");
        if let Some(edges) = task.edges.as_mut() {
            edges.open = u32::try_from(open).expect("bounded by PLAN_TASKS_MAX");
            edges.spoiled_by = spoiled_by;
        }
    }

    /// Whether a dependency on this task holds nothing back any more.
    pub(super) fn satisfied(&self, slot: Slot) -> bool {
        let task = &self.tasks[slot];
        task.stage.completed() || (task.stage.ended() && self.is_ignored(slot))
    }

    fn is_ignored(&self, slot: Slot) -> bool {
        let parent = self.tasks[slot].parent;
        parent.is_some_and(|parent| self.tasks[parent].on_failure() == FailurePolicy::Ignore)
    }

    /// Ends a task and cancels everything below it that has not ended.
    fn end_subtree(&mut self, top: Slot, stage: Stage) {
        let reason: Box<str> = match &stage {
            Stage::Cancelled { reason } => reason.clone(),
            Stage::Failed(failure) => failure.message.clone(),
            Stage::Waiting
            | Stage::Parked { .. }
            | Stage::Ready { .. }
            | Stage::Backoff { .. }
            | Stage::Running { .. }
            | Stage::Active
            | Stage::Completed(_)
            | Stage::Collected => unreachable!("a subtree ends unsuccessfully"),
        };
        let mut below: Vec<Slot> = self.tasks[top].subtasks().to_vec();
        if cfg!(feature = "fault-cancel-keeps-children") {
            below.clear();
        }
        self.stop_and_end(top, stage);
        while let Some(slot) = below.pop() {
            below.extend_from_slice(self.tasks[slot].subtasks());
            if !self.tasks[slot].stage.ended() {
                self.stop_and_end(slot, Stage::Cancelled { reason: reason.clone() });
            }
        }
    }

    fn stop_and_end(&mut self, slot: Slot, stage: Stage) {
        if matches!(self.tasks[slot].stage, Stage::Running { .. }) {
            let attempt = self.tasks[slot].attempt;
            self.end_attempt(slot, attempt, Holding::Everything, Credit::Nothing);
        }
        self.end_task(slot, stage);
    }

    /// The running attempt is over, or is told to stop and keeps its slot until it is.
    fn end_attempt(&mut self, slot: Slot, attempt: Attempt, holding: Holding, credit: Credit) {
        let Stage::Running { agent, .. } = self.tasks[slot].stage else {
            panic!("only a running attempt ends: task {}", self.tasks[slot].id)
        };
        let held = HeldAttempt { attempt, agent };
        let holder = self.known_agent(agent);
        let tally = &mut self.agents[holder].tally;
        match credit {
            Credit::Completed => tally.completed += 1,
            Credit::Failed => tally.failed += 1,
            Credit::Nothing => {}
        }
        match holding {
            Holding::Nothing => self.free_slot(slot, held),
            Holding::Everything => {
                self.tasks[slot].stopping.push(held);
                let (task, agent) = (self.tasks[slot].id, self.agents[holder].spec.clone());
                self.effects.push(Effect::Stop { task, attempt, agent });
                self.tell_fitness(holder);
            }
        }
    }

    fn free_slot(&mut self, slot: Slot, held: HeldAttempt) {
        let holder = self.known_agent(held.agent);
        let agent = &mut self.agents[holder];
        let since = agent.held.remove(slot, held.attempt).expect("an attempt holds a slot");
        agent.tally.run_us += self.moment.at.0.saturating_sub(since.0);
        let before = agent.held.len() + 1;
        self.note_load(holder, before);
        self.held_count -= 1;
        self.dispatch.own_held -= u64::from(self.agents[holder].spec.runtime.ends_with_server());
        let spec = &self.tasks[slot].spec;
        self.dispatch.release(&spec.demand.resources);
        if let Some(key) = &spec.rare().concurrency_key {
            self.dispatch.end(key);
        }
        self.tell_fitness(holder);
    }

    /// A task has come to its end; whoever depends on it is told.
    fn end_task(&mut self, slot: Slot, stage: Stage) {
        assert!(!self.tasks[slot].stage.ended(), "a task ends once");
        let completed = stage.completed();
        match &stage {
            Stage::Completed(_) | Stage::Collected => self.counters.tasks_completed += 1,
            Stage::Failed(_) => self.counters.tasks_failed += 1,
            Stage::Cancelled { .. } => self.counters.tasks_cancelled += 1,
            Stage::Waiting
            | Stage::Parked { .. }
            | Stage::Ready { .. }
            | Stage::Backoff { .. }
            | Stage::Running { .. }
            | Stage::Active => unreachable!("a task ends in an end"),
        }
        self.set_stage(slot, stage);
        self.live_count -= 1;
        let task = &mut self.tasks[slot];
        task.times.ended = Some(self.moment.wall);
        let lane = task.lane.take().expect("a live task has a lane");
        if let Some(deadline) = task.spec.rare().deadline {
            self.timers.remove(&(deadline, Timer::Deadline, slot));
        }
        let task = &self.tasks[slot];
        self.effects.push(Effect::Ended { task: task.id });
        self.dispatch.leave_lane(lane);
        if task.edges.is_some() {
            self.tell_neighbours(slot, completed);
        }
        if self.tasks[slot].at_rest() {
            self.come_to_rest(slot);
        }
    }

    fn tell_neighbours(&mut self, slot: Slot, completed: bool) {
        let id = self.tasks[slot].id;
        let ignored = self.is_ignored(slot);
        if let Some(parent) = self.tasks[slot].parent {
            let parent_id = self.tasks[parent].id;
            let edges = self.edges_mut(parent);
            edges.open -= 1;
            if !completed && !ignored && edges.spoiled_by.is_none() {
                edges.spoiled_by = Some(slot);
            }
            if edges.open == 0 || (!completed && !ignored) {
                self.consequences.push_back(Consequence::Review { parent, id: parent_id });
            }
        }
        for index in 0..self.tasks[slot].dependents().len() {
            let dependent = self.tasks[slot].dependents()[index];
            let task = &mut self.tasks[dependent];
            if task.stage.ended() {
                continue;
            }
            if completed || ignored {
                task.missing -= 1;
                let waits = matches!(task.stage, Stage::Waiting) && !task.is_parent();
                if task.missing == 0 && waits {
                    self.make_ready(dependent);
                }
            } else if !task.is_parent() {
                let skip = Consequence::Skip { task: dependent, id: task.id, because: id };
                self.consequences.push_back(skip);
            }
        }
    }

    fn come_to_rest(&mut self, slot: Slot) {
        let root = self.tasks[slot].root;
        let id = self.tasks[root].id;
        // One that is a plan of its own is found among what changed.
        if let Some(edges) = self.tasks[root].edges.as_mut() {
            edges.restless -= 1;
            if edges.restless == 0 {
                self.resting.push(id);
            }
        }
    }

    /// Parents run from their first subtask's start.
    fn activate_parents(&mut self, slot: Slot) {
        let mut next = self.tasks[slot].parent;
        while let Some(parent) = next {
            if self.tasks[parent].stage == Stage::Active {
                return;
            }
            self.set_stage(parent, Stage::Active);
            let started = &mut self.tasks[parent].times.started;
            *started = started.or(Some(self.moment.wall));
            next = self.tasks[parent].parent;
        }
    }

    fn make_ready(&mut self, slot: Slot) {
        let start_at = self.tasks[slot].spec.rare().start_at;
        if let Some(until) = start_at.filter(|until| *until > self.moment.at) {
            let reason = ParkReason::StartTime;
            return self.set_stage(slot, Stage::Parked { reason, until: Some(until) });
        }
        self.tasks[slot].times.ready = Some(self.moment.wall);
        self.set_stage(slot, Stage::Ready { since: self.moment.at });
    }

    /// The one place where a stage changes: timers and lanes follow.
    fn set_stage(&mut self, slot: Slot, stage: Stage) {
        if let Some((at, timer)) = self.tasks[slot].stage_timer() {
            self.timers.remove(&(at, timer, slot));
        }
        if let Some((lane, key)) = self.waiting_in(slot) {
            self.dispatch.withdraw(lane, key, slot);
        }
        if self.watched {
            self.note_change(slot, &stage);
        }
        self.tasks[slot].stage = stage;
        self.index_stage(slot);
        self.touch(slot);
    }

    fn note_change(&mut self, slot: Slot, next: &Stage) {
        let task = &self.tasks[slot];
        let starts = matches!(next, Stage::Running { .. });
        let failure = match next {
            Stage::Failed(failure) => Some(failure.kind),
            Stage::Backoff { .. } => task.last_failure().map(|failure| failure.kind),
            Stage::Waiting
            | Stage::Parked { .. }
            | Stage::Ready { .. }
            | Stage::Running { .. }
            | Stage::Active
            | Stage::Completed(_)
            | Stage::Collected
            | Stage::Cancelled { .. } => None,
        };
        self.changes.push(Change::Task(TaskChange {
            task: task.id,
            root: task.plan.root,
            spec: task.spec.clone(),
            status: next.wire_name(),
            attempt: if starts { task.attempt.next() } else { task.attempt },
            agent: change::holder(next).or(change::holder(&task.stage)),
            failure,
            at: self.moment.wall,
        }));
    }

    pub(super) fn index_stage(&mut self, slot: Slot) {
        if let Some((at, timer)) = self.tasks[slot].stage_timer() {
            self.timers.insert((at, timer, slot));
        }
        if let Some((lane, key)) = self.waiting_in(slot) {
            self.dispatch.push(lane, key, slot);
        }
    }

    pub(crate) fn waiting_in(&self, slot: Slot) -> Option<(crate::dispatch::LaneId, OrderKey)> {
        let task = &self.tasks[slot];
        let Stage::Ready { since } = task.stage else { return None };
        let lane = task.lane.expect("a ready task has a lane");
        Some((lane, OrderKey::new(since, task.spec.priority, task.id)))
    }

    pub(super) fn tell_fitness(&mut self, slot: Slot) {
        let agent = &mut self.agents[slot];
        let fitness = agent.fitness();
        let before = core::mem::replace(&mut agent.told, fitness);
        let profile = agent.profile;
        if !agent.listed {
            agent.listed = true;
            self.changed_agents.push(slot);
        }
        self.dispatch.set_free(profile, slot, before, fitness);
    }

    pub(super) fn remember_key(&mut self, plan: &PlanRecord) {
        let now = self.moment.at;
        while self.idempotency_order.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((until, scope)) = self.idempotency_order.pop_front()
                && self.idempotency.get(&scope).is_some_and(|held| held.until == until)
            {
                self.idempotency.remove(&scope);
            }
        }
        let Some(key) = &plan.idempotency else { return };
        let scope: IdempotencyScope =
            (plan.namespace.clone(), plan.submitter.clone(), key.key.clone(), key.part);
        let until = plan.idempotency_until;
        let remembered = Remembered { root: plan.root, body_hash: key.body_hash, until };
        self.idempotency.insert(scope.clone(), remembered);
        self.idempotency_order.push_back((until, scope));
    }

    pub(super) fn touch(&mut self, slot: Slot) {
        let task = &mut self.tasks[slot];
        task.changed = self.sequence;
        task.times.updated = self.moment.wall;
        if !task.listed {
            task.listed = true;
            self.changed_tasks.push(slot);
        }
    }

    pub(super) fn known(&self, id: TaskId) -> Slot {
        self.slot(id).expect("a fact is about a task that the engine holds")
    }

    pub(super) fn known_agent(&self, id: AgentId) -> Slot {
        *self.agents_by_id.get(&id).expect("a fact is about an agent that the engine holds")
    }

    pub(super) fn edges_mut(&mut self, slot: Slot) -> &mut Edges {
        self.tasks[slot].edges.get_or_insert_default()
    }
}
