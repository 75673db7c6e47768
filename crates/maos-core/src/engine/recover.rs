//! Rows out of the state and the state out of rows.
//!
//! What is derived (lanes, timers, counts of open subtasks) is never stored: it is worked out here
//! again, and so is what was about to follow when the rows were written.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Consequence, Gone, State};
use crate::agent::{Agent, Held};
use crate::ids::AgentId;
use crate::record::{AgentRecord, EngineRecord, EntryRecord, Links, PlanRecord, Stage, TaskRecord};
use crate::slab::Slot;
use crate::task::{Edges, Task, Timer};
use crate::time::{Moment, WallTime};

/// Everything that the store keeps for the engine at one position.
#[derive(Debug, Default)]
pub struct Rows<Tasks> {
    /// The engine's own figures.
    pub engine: EngineRecord,
    /// Agents that serve or still hold something, ended ones included.
    pub agents: Vec<AgentRecord>,
    /// Whole plans with something live in them, in any order.
    pub tasks: Tasks,
    /// Roots of ended plans whose idempotency keys have not expired.
    pub remembered: Vec<PlanRecord>,
    /// Documents of the shell.
    pub entries: Vec<EntryRecord>,
}

impl State {
    /// The state that wrote these rows.
    pub fn recover<Tasks: IntoIterator<Item = TaskRecord>>(rows: Rows<Tasks>) -> State {
        let mut state = State {
            sequence: rows.engine.position.sequence,
            moment: Moment { at: rows.engine.at, wall: WallTime::default(), entropy: 0 },
            reign: rows.engine.reign,
            counters: rows.engine.counters,
            ..State::default()
        };
        state.dispatch.set_capacity(&rows.engine.capacity);
        for (key, setting) in &rows.engine.settings {
            state.set_key(key, setting);
        }
        for agent in rows.agents {
            state.restore_agent(agent);
        }
        for plan in rows.remembered {
            state.remember_key(&plan);
        }
        for reservation in rows.engine.reservations {
            state.hold_reservation(reservation);
        }
        let entry = |entry: EntryRecord| ((entry.register.clone(), entry.key.clone()), entry);
        state.entries = rows.entries.into_iter().map(entry).collect();
        state.restore_tasks(rows.tasks);
        state.forget_changes();
        state
    }

    /// What was restored has not changed. A plan of one at rest stays on the list: it leaves with
    /// the next rows.
    fn forget_changes(&mut self) {
        let State { tasks, changed_tasks, .. } = self;
        changed_tasks.retain(|slot| {
            let task = &mut tasks[*slot];
            task.listed = task.edges.is_none() && task.at_rest();
            task.listed
        });
        self.take_changed_agents();
    }

    pub(super) fn restore_agent(&mut self, record: AgentRecord) {
        let profile = self.dispatch.add_agent(&record.spec);
        let id = record.spec.id;
        let slot = self.agents.insert(Agent {
            spec: record.spec,
            end: record.end,
            expected: record.expected,
            created: record.created,
            tally: record.tally,
            held: Held::default(),
            profile,
            told: None,
            listed: false,
        });
        self.agents_by_id.insert(id, slot);
        self.tell_fitness(slot);
    }

    /// Puts whole plans back, each task where its row has it.
    pub(super) fn restore_tasks(&mut self, records: impl IntoIterator<Item = TaskRecord>) {
        let mut placed: Vec<(Slot, Option<Box<Links>>)> = Vec::new();
        for record in records {
            let (slot, links) = self.place(record);
            placed.push((slot, links));
        }
        for (slot, links) in &placed {
            self.relink(*slot, links.as_deref());
        }
        for (slot, _) in &placed {
            self.recount(*slot);
        }
        for (slot, _) in &placed {
            self.reindex(*slot);
        }
    }

    fn place(&mut self, record: TaskRecord) -> (Slot, Option<Box<Links>>) {
        let links = record.links;
        let edges = links
            .as_ref()
            .map(|links| Box::new(Edges { collect: links.collect, ..Edges::default() }));
        let id = record.id;
        if record.index == 0 {
            self.remember_key(&record.plan);
        }
        let slot = self.tasks.insert(Task {
            id,
            spec: record.spec,
            plan: record.plan,
            index: record.index,
            attempt: record.attempt,
            retries_used: record.retries_used,
            losses: record.losses,
            root: Slot::default(),
            parent: None,
            lane: None,
            missing: 0,
            stage: record.stage,
            ran_by: record.ran_by,
            trail: record.trail,
            times: record.times,
            stopping: record.stopping.into_vec(),
            changed: self.sequence,
            listed: true,
            edges,
        });
        self.changed_tasks.push(slot);
        self.tasks_by_id.insert(&self.tasks, slot);
        (slot, links)
    }

    fn relink(&mut self, slot: Slot, links: Option<&Links>) {
        self.tasks[slot].root = self.known(self.tasks[slot].plan.root);
        let Some(links) = links else { return };
        self.tasks[slot].parent = links.parent.map(|parent| self.known(parent));
        let depends_on: Box<[Slot]> = links.depends_on.iter().map(|id| self.known(*id)).collect();
        for needed in &depends_on {
            self.edges_mut(*needed).dependents.push(slot);
        }
        let subtasks: Vec<Slot> = links.subtasks.iter().map(|id| self.known(*id)).collect();
        let edges = self.edges_mut(slot);
        edges.depends_on = depends_on;
        edges.subtasks = subtasks;
        let root = self.tasks[slot].root;
        self.edges_mut(root).members.push(slot);
        if !self.tasks[slot].at_rest() {
            self.edges_mut(root).restless += 1;
        }
    }

    /// Lanes, timers and holds of one restored task, and what is to follow from where it stands.
    fn reindex(&mut self, slot: Slot) {
        for held in self.tasks[slot].stopping.clone() {
            self.hold_again(slot, held.agent, held.attempt);
        }
        if let Stage::Running { agent, .. } = self.tasks[slot].stage {
            self.hold_again(slot, agent, self.tasks[slot].attempt);
        }
        if self.tasks[slot].stage.ended() {
            self.follow_restored_end(slot);
            return;
        }
        self.live_count += 1;
        let spec = self.tasks[slot].spec.clone();
        let namespace = self.tasks[slot].plan.namespace.clone();
        let lane = self.dispatch.enter_lane(&namespace, &spec);
        self.tasks[slot].lane = Some(lane);
        drop(spec);
        let shared = self.dispatch.demand_of(lane);
        let spec = &mut self.tasks[slot].spec;
        if let Some(spec) = Arc::get_mut(spec) {
            spec.demand = shared;
        }
        let spec = spec.clone();
        if let Some(deadline) = spec.rare().deadline {
            self.timers.insert((deadline, Timer::Deadline, slot));
        }
        self.index_stage(slot);
        if self.tasks[slot].is_parent() {
            let id = self.tasks[slot].id;
            self.consequences.push_back(Consequence::Review { parent: slot, id });
        }
    }

    fn follow_restored_end(&mut self, slot: Slot) {
        let task = &self.tasks[slot];
        if task.root == slot && task.edges.is_some() && self.plan_at_rest(slot) {
            self.resting.push(task.id);
        }
        if self.satisfied(slot) {
            return;
        }
        let because = task.id;
        for dependent in task.dependents() {
            let task = &self.tasks[*dependent];
            if !task.stage.ended() && !task.is_parent() {
                let skip = Consequence::Skip { task: *dependent, id: task.id, because };
                self.consequences.push_back(skip);
            }
        }
    }

    fn hold_again(&mut self, task: Slot, agent: AgentId, attempt: crate::ids::Attempt) {
        let holder = *self.agents_by_id.get(&agent).expect("who holds an attempt has a row");
        self.agents[holder].held.insert(task, attempt, self.moment.at);
        self.held_count += 1;
        self.dispatch.own_held += u64::from(self.agents[holder].spec.runtime.ends_with_server());
        let spec = self.tasks[task].spec.clone();
        self.dispatch.reserve(&spec.demand.resources);
        if let Some(key) = &spec.rare().concurrency_key {
            self.dispatch.gates.resume_attempt(key);
        }
        self.tell_fitness(holder);
        let id = self.tasks[task].id;
        if let Some(end) = self.agents[holder].end {
            let because = match end {
                crate::event::AgentEnd::Lost => Gone::Agent,
                crate::event::AgentEnd::Terminated | crate::event::AgentEnd::Retired => {
                    Gone::Dismissed
                }
            };
            self.consequences.push_back(Consequence::Lose { task, id, attempt, because });
        }
    }

    pub(super) fn task_record(&self, slot: Slot) -> TaskRecord {
        let task = &self.tasks[slot];
        TaskRecord {
            id: task.id,
            spec: task.spec.clone(),
            plan: task.plan.clone(),
            index: task.index,
            attempt: task.attempt,
            retries_used: task.retries_used,
            losses: task.losses,
            stage: task.stage.clone(),
            times: task.times,
            ran_by: task.ran_by,
            stopping: task.stopping.clone().into_boxed_slice(),
            links: task.edges().and_then(|edges| self.links(task.parent, edges)),
            trail: task.trail.clone(),
        }
    }

    fn links(&self, parent: Option<Slot>, edges: &Edges) -> Option<Box<Links>> {
        let ids = |slots: &[Slot]| slots.iter().map(|slot| self.tasks[*slot].id).collect();
        let links = Links {
            parent: parent.map(|parent| self.tasks[parent].id),
            depends_on: ids(&edges.depends_on),
            subtasks: ids(&edges.subtasks),
            collect: edges.collect,
        };
        links.boxed()
    }
}
