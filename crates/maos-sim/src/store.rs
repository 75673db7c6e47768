//! The store as the engine sees it: rows at a position that lags behind the journal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use maos_core::engine::{Rows, State};
use maos_core::ids::{AgentId, Sequence, TaskId};
use maos_core::record::{AgentRecord, EngineRecord, EntryRecord, PlanRecord, Stage, TaskRecord};
use maos_core::spec::Name;

/// Rows that changed up to one step.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) engine: EngineRecord,
    tasks: Vec<TaskRecord>,
    agents: Vec<AgentRecord>,
    entries: Vec<EntryRecord>,
}

/// All rows, and the batches that wait to become rows.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) engine: EngineRecord,
    pub(crate) tasks: BTreeMap<TaskId, TaskRecord>,
    agents: BTreeMap<AgentId, AgentRecord>,
    entries: BTreeMap<(Name, Name), EntryRecord>,
    waiting: VecDeque<Batch>,
}

/// Whether something of this task may still move by itself.
pub(crate) fn restless(task: &TaskRecord) -> bool {
    !task.stage.ended() || !task.stopping.is_empty()
}

impl Store {
    /// Notes what changed since this was called last.
    pub(crate) fn collect(&mut self, state: &mut State) {
        let last = self.waiting.back().map_or(self.engine.position, |batch| batch.engine.position);
        let engine = state.engine_record();
        if engine.position == last {
            return;
        }
        let mut tasks = Vec::new();
        state.take_changed_tasks(|task| tasks.push(task));
        let agents = state.take_changed_agents();
        let entries = state.take_changed_entries();
        self.waiting.push_back(Batch { engine, tasks, agents, entries });
    }

    /// Takes over the next batch, if the journal has it; says whether it did.
    pub(crate) fn advance(&mut self, durable: Sequence) -> bool {
        let due = |batch: &Batch| batch.engine.position.sequence <= durable;
        if !self.waiting.front().is_some_and(due) {
            return false;
        }
        let Some(batch) = self.waiting.pop_front() else { return false };
        self.tasks.extend(batch.tasks.into_iter().map(|task| (task.id, task)));
        self.agents.extend(batch.agents.into_iter().map(|agent| (agent.spec.id, agent)));
        for entry in batch.entries {
            let name = (entry.register.clone(), entry.key.clone());
            match entry.value {
                Some(_) => self.entries.insert(name, entry),
                None => self.entries.remove(&name),
            };
        }
        self.engine = batch.engine;
        true
    }

    /// What was in memory only is gone.
    pub(crate) fn crash(&mut self) {
        self.waiting.clear();
    }

    /// Whether a row of this task is durable, written or not.
    pub(crate) fn has(&self, id: TaskId, durable: Sequence) -> bool {
        let batches = self.waiting.iter().filter(|batch| batch.engine.position.sequence <= durable);
        self.tasks.contains_key(&id)
            || batches.flat_map(|batch| &batch.tasks).any(|task| task.id == id)
    }

    /// The newest row of a task, written or not, if it is durable: one that is not is on its way,
    /// and nobody may see an older one meanwhile.
    pub(crate) fn newest(&self, id: TaskId, durable: Sequence) -> Option<TaskRecord> {
        for batch in self.waiting.iter().rev() {
            if let Some(task) = batch.tasks.iter().find(|task| task.id == id) {
                return (batch.engine.position.sequence <= durable).then(|| task.clone());
            }
        }
        self.tasks.get(&id).cloned()
    }

    /// The same for all tasks of the plan with this root, if that is so for each of them.
    pub(crate) fn newest_plan(&self, root: TaskId, durable: Sequence) -> Option<Vec<TaskRecord>> {
        let waiting = self.waiting.iter().flat_map(|batch| &batch.tasks);
        let ids: BTreeSet<TaskId> = waiting
            .chain(self.tasks.values())
            .filter(|task| task.plan.root == root)
            .map(|task| task.id)
            .collect();
        let plan: Option<Vec<_>> = ids.iter().map(|id| self.newest(*id, durable)).collect();
        let mut plan = plan?;
        plan.sort_by_key(|task| task.index);
        Some(plan)
    }

    /// All tasks of the plan with this root that are written.
    pub(crate) fn plan(&self, root: TaskId) -> Vec<TaskRecord> {
        let mut plan: Vec<_> =
            self.tasks.values().filter(|task| task.plan.root == root).cloned().collect();
        plan.sort_by_key(|task| task.index);
        plan
    }

    /// What a server finds when it starts.
    pub(crate) fn rows(&self) -> Rows<Vec<TaskRecord>> {
        let moving: BTreeSet<TaskId> =
            self.tasks.values().filter(|task| restless(task)).map(|task| task.plan.root).collect();
        let tasks: Vec<TaskRecord> =
            self.tasks.values().filter(|task| moving.contains(&task.plan.root)).cloned().collect();
        let mut holding = BTreeSet::new();
        for task in &tasks {
            if let Stage::Running { agent, .. } = task.stage {
                holding.insert(agent);
            }
            holding.extend(task.stopping.iter().map(|held| held.agent));
        }
        let needed = |agent: &&AgentRecord| agent.end.is_none() || holding.contains(&agent.spec.id);
        let agents = self.agents.values().filter(needed).cloned().collect();
        let (engine, remembered) = (self.engine.clone(), self.remembered());
        let entries = self.entries.values().cloned().collect();
        Rows { engine, agents, tasks, remembered, entries }
    }

    fn remembered(&self) -> Vec<PlanRecord> {
        let roots = self.tasks.values().filter(|task| task.index == 0);
        let keys = roots.filter(|task| task.plan.idempotency.is_some());
        let mut plans: Vec<PlanRecord> = keys
            .filter(|task| task.plan.idempotency_until > self.engine.at)
            .map(|task| (*task.plan).clone())
            .collect();
        plans.sort_by_key(|plan| (plan.idempotency_until, plan.root));
        plans
    }
}
