//! The engine: what tasks and agents may do. Commands in, events out.
//!
//! `decide` says what a command would change and changes nothing; `follow_up` says what must come
//! next by itself (ended children, due timers, free agents); `apply` records a fact and cannot
//! fail. Who may decide, and when a decision may be seen, is not for this room.

mod agents;
mod amend;
mod apply;
mod decide;
mod follow;
mod index;
mod recover;
mod register;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::agent::Agent;
use crate::change::Change;
use crate::dispatch::{Dispatch, Pool};
use crate::ids::{AgentId, Attempt, Epoch, NodeId, Sequence, TaskId};
use crate::record::{AgentRecord, Counters, EngineRecord, EntryRecord, Reservation, TaskRecord};
use crate::slab::{Slab, Slot};
use crate::sorted::Runs;
use crate::spec::{AgentSpec, Amounts, Name, Policy, Setting, TaskSpec};
use crate::task::{Task, Timer};
use crate::time::{Moment, Timestamp};

use index::TaskIndex;

pub use recover::Rows;

/// Everything the engine knows: live tasks, ended ones that the store has not taken over yet,
/// agents, reservations. A value like any other: no handle in it, no clock, no lock.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The last step and its moment.
    pub(crate) sequence: Sequence,
    pub(crate) moment: Moment,
    pub(crate) reign: Option<(Epoch, NodeId)>,
    pub(crate) counters: Counters,
    pub(crate) tasks: Slab<Task>,
    pub(crate) tasks_by_id: TaskIndex,
    pub(crate) agents: Slab<Agent>,
    pub(crate) agents_by_id: BTreeMap<AgentId, Slot>,
    pub(crate) dispatch: Dispatch,
    pub(crate) timers: Runs<(Timestamp, Timer, Slot)>,
    pub(crate) idempotency: BTreeMap<IdempotencyScope, Remembered>,
    pub(crate) idempotency_order: VecDeque<(Timestamp, IdempotencyScope)>,
    /// Small documents of the shell, by kind and name.
    pub(crate) entries: BTreeMap<(Name, Name), EntryRecord>,
    pub(crate) changed_entries: BTreeSet<(Name, Name)>,
    /// What is held outside of any attempt, by who holds it.
    pub(crate) reservations: BTreeMap<Name, Reservation>,
    pub(crate) leases: BTreeSet<(Timestamp, Name)>,
    /// Tasks that have not ended.
    pub(crate) live_count: u64,
    /// Attempts that hold a slot.
    pub(crate) held_count: u64,
    /// What the last facts make necessary; checked again before it is acted on.
    pub(crate) consequences: VecDeque<Consequence>,
    /// What the shell must do about the facts of this step.
    pub(crate) effects: Vec<Effect>,
    /// Whether somebody watches, and what they have not been told.
    pub(crate) watched: bool,
    pub(crate) changes: Vec<Change>,
    /// Rows that changed since they were taken last.
    pub(crate) changed_tasks: Vec<Slot>,
    pub(crate) changed_agents: Vec<Slot>,
    /// Roots of larger plans that came to rest.
    pub(crate) resting: Vec<TaskId>,
    /// The step as of which plans left last.
    pub(crate) departed: Sequence,
}

/// Something the shell must do once the step that says so is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Have an agent run an attempt.
    Start {
        /// The task.
        task: TaskId,
        /// Which run of it.
        attempt: Attempt,
        /// Who runs it.
        agent: Arc<AgentSpec>,
        /// What was asked for.
        spec: Arc<TaskSpec>,
        /// When the attempt counts as failed.
        timeout: Timestamp,
    },
    /// Tell a running attempt to stop, then release it.
    Stop {
        /// The task.
        task: TaskId,
        /// The attempt.
        attempt: Attempt,
        /// Who runs it.
        agent: Arc<AgentSpec>,
    },
    /// A task has ended: whoever waits for it may be told.
    Ended {
        /// The task.
        task: TaskId,
    },
}

/// Namespace, submitter, key, and the part of the body that came with it.
pub(crate) type IdempotencyScope = (Name, Name, Name, Option<u32>);

/// What a submission under an idempotency key became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) root: TaskId,
    pub(crate) body_hash: [u8; 32],
    pub(crate) until: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) enum Consequence {
    /// A subtask of this parent has ended.
    Review { parent: Slot, id: TaskId },
    /// What this task waits for will not complete.
    Skip { task: Slot, id: TaskId, because: TaskId },
    /// Who held this attempt is gone.
    Lose { task: Slot, id: TaskId, attempt: Attempt, because: Gone },
}

/// Who went away during an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The server that ran it: nothing of it is left.
    Server,
    /// The agent, by itself: nobody will say more about it.
    Agent,
    /// The agent, by our order: what it ran is still being stopped.
    Dismissed,
}

impl State {
    /// Opens a step: the facts that are applied next belong to it.
    pub fn begin_step(&mut self, sequence: Sequence, moment: Moment) {
        assert!(sequence > self.sequence, "steps are applied once and in order");
        assert!(moment.at >= self.moment.at, "the engine's time never goes back");
        self.sequence = sequence;
        self.moment = moment;
    }

    /// The last step that was applied.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The time of the last step.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.moment.at
    }

    /// The reign that goes on.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.reign.map_or(Epoch(0), |(epoch, _)| epoch)
    }

    /// When `Command::Tick` next has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.next_timer().into_iter().chain(self.dispatch.gates.next_deadline()).min()
    }

    /// The same without what is forgotten with the engine: pauses between two starts.
    #[must_use]
    pub fn next_timer(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(at, _, _)| at);
        timer.into_iter().chain(self.leases.first().map(|(at, _)| *at)).min()
    }

    /// Takes what the shell must do about the facts since this was called last.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        core::mem::take(&mut self.effects)
    }

    /// Gathers changes from now on, or no longer.
    pub fn watch(&mut self, watched: bool) {
        self.watched = watched;
    }

    /// The same, one by one; the list's memory is used again.
    pub(crate) fn drain_effects(&mut self, take: impl FnMut(Effect)) {
        self.effects.drain(..).for_each(take);
    }

    /// One task, complete; `None` if the engine does not hold it.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<TaskRecord> {
        self.slot(id).map(|slot| self.task_record(slot))
    }

    /// All tasks of the plan with this root, in the plan's order; `None` if the engine does not
    /// hold it.
    #[must_use]
    pub fn plan(&self, root: TaskId) -> Option<Vec<TaskRecord>> {
        let slot = self.slot(root)?;
        let members = self.tasks[slot].edges().map_or(&[][..], |edges| &edges.members);
        if members.is_empty() {
            return Some(Vec::from([self.task_record(slot)]));
        }
        let mut tasks: Vec<_> = members.iter().map(|member| self.task_record(*member)).collect();
        tasks.sort_by_key(|task| task.index);
        Some(tasks)
    }

    /// The step that changed a task last.
    #[must_use]
    pub fn changed(&self, id: TaskId) -> Option<Sequence> {
        self.slot(id).map(|slot| self.tasks[slot].changed)
    }

    /// Whether the engine holds this task and it has ended.
    #[must_use]
    pub fn ended(&self, id: TaskId) -> Option<bool> {
        self.slot(id).map(|slot| self.tasks[slot].stage.ended())
    }

    /// The attempt of a task that runs, if one does.
    pub(crate) fn running_attempt(&self, id: TaskId) -> Option<Attempt> {
        let task = &self.tasks[self.slot(id)?];
        matches!(task.stage, crate::record::Stage::Running { .. }).then_some(task.attempt)
    }

    /// Every agent that the engine knows, in the order of their ids.
    pub fn agents(&self) -> impl Iterator<Item = AgentRecord> {
        self.agents_by_id.values().map(|slot| self.agents[*slot].record())
    }

    /// One agent.
    #[must_use]
    pub fn agent(&self, id: AgentId) -> Option<AgentRecord> {
        self.agents_by_id.get(&id).map(|slot| self.agents[*slot].record())
    }

    /// What an agent holds: task and attempt.
    #[must_use]
    pub fn held_by(&self, id: AgentId) -> Vec<(TaskId, Attempt)> {
        let Some(slot) = self.agents_by_id.get(&id) else { return Vec::new() };
        let held = self.agents[*slot].held.iter();
        held.map(|(task, attempt)| (self.tasks[task].id, attempt)).collect()
    }

    /// Figures since the data directory was made.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn live_count(&self) -> u64 {
        self.live_count
    }

    /// Tasks that wait for an agent.
    #[must_use]
    pub fn ready_count(&self) -> u64 {
        self.dispatch.ready_count()
    }

    /// Tasks that the engine holds, ended ones included.
    #[must_use]
    pub fn tasks_count(&self) -> u64 {
        self.tasks.count() as u64
    }

    /// Attempts that hold a slot, running or stopping.
    #[must_use]
    pub fn held_count(&self) -> u64 {
        self.held_count
    }

    /// Resources by kind.
    pub fn pools(&self) -> impl Iterator<Item = (&str, Pool)> {
        self.dispatch.pools.iter().map(|(kind, pool)| (&**kind, *pool))
    }

    /// How many rows of tasks changed since they were taken last.
    #[must_use]
    pub fn changed_count(&self) -> usize {
        self.changed_tasks.len()
    }

    /// Takes the rows that changed since this was called last, each in its latest version. Plans at
    /// rest leave the engine with their last rows: from then on whoever has these answers for them,
    /// and that they are not here rests on the step [`State::departed`].
    pub fn take_changed_tasks(&mut self, mut take: impl FnMut(TaskRecord)) {
        for id in core::mem::take(&mut self.resting) {
            if let Some(root) = self.slot(id) {
                self.dismiss_plan(root, &mut take);
            }
        }
        let changed = core::mem::take(&mut self.changed_tasks);
        for slot in &changed {
            // It may have left with its plan just now.
            let Some(task) = self.tasks.get(*slot) else { continue };
            if task.edges.is_none() && task.at_rest() {
                self.forget_task(*slot);
                take(self.tasks.remove(*slot).into_record());
            } else {
                take(self.task_record(*slot));
                self.tasks[*slot].listed = false;
            }
        }
        // The list's memory is used again.
        self.changed_tasks = changed;
        self.changed_tasks.clear();
    }

    /// The same for agents; one that has ended and holds nothing leaves the engine here.
    pub fn take_changed_agents(&mut self) -> Vec<AgentRecord> {
        let changed = core::mem::take(&mut self.changed_agents);
        changed
            .into_iter()
            .map(|slot| {
                self.agents[slot].listed = false;
                let record = self.agents[slot].record();
                if record.end.is_some() && self.agents[slot].held.is_empty() {
                    self.forget_agent(slot);
                }
                record
            })
            .collect()
    }

    /// The engine's own figures, as the store keeps them.
    #[must_use]
    pub fn engine_record(&self) -> EngineRecord {
        EngineRecord {
            position: crate::ids::Position { epoch: self.epoch(), sequence: self.sequence },
            at: self.moment.at,
            reign: self.reign,
            capacity: self.capacity(),
            counters: self.counters,
            settings: self.settings(),
            reservations: self.reservations.values().cloned().collect(),
        }
    }

    /// What was set for keys that tasks share.
    #[must_use]
    pub fn settings(&self) -> Vec<(Name, Setting)> {
        let limits = self
            .dispatch
            .gates
            .iter()
            .filter_map(|gate| Some((gate.key.clone(), Setting::Limit(Some(gate.limit?)))));
        let weights = self.dispatch.weights.iter();
        limits
            .chain(weights.map(|(key, weight)| (key.clone(), Setting::Weight(Some(*weight)))))
            .collect()
    }

    /// Has tasks chosen by another policy from now on. Not a fact: each server has its own.
    pub fn set_policy(&mut self, policy: Policy) {
        self.dispatch.set_policy(policy);
    }

    /// Has this server itself run at most so many attempts at once. Not a fact: each server has its
    /// own.
    pub fn set_own_max(&mut self, most: u64) {
        self.dispatch.own_max = Some(most);
    }

    /// The step as of which plans left the engine last; the rows that they left with are of it.
    #[must_use]
    pub fn departed(&self) -> Sequence {
        self.departed
    }

    pub(crate) fn slot(&self, id: TaskId) -> Option<Slot> {
        self.tasks_by_id.get(&self.tasks, id)
    }

    pub(crate) fn capacity(&self) -> Amounts {
        let bounded = self.dispatch.pools.iter();
        Amounts::new(bounded.filter_map(|(kind, pool)| Some((kind.clone(), pool.capacity_milli?))))
    }

    /// Whether nothing of this plan moves any more unless it is re-opened.
    pub(crate) fn plan_at_rest(&self, root: Slot) -> bool {
        let task = &self.tasks[root];
        task.edges().map_or(task.at_rest(), |edges| edges.restless == 0)
    }

    /// Has a larger plan leave, unless it was re-opened since it came to rest. Rows that have been
    /// taken already are as they were.
    fn dismiss_plan(&mut self, root: Slot, take: &mut impl FnMut(TaskRecord)) {
        if !self.plan_at_rest(root) {
            return;
        }
        let Some(edges) = self.tasks[root].edges.as_mut() else { return };
        let members = core::mem::take(&mut edges.members);
        // All rows while everybody is there to be named in them.
        for member in members.iter().filter(|member| self.tasks[**member].listed) {
            take(self.task_record(*member));
        }
        for member in members {
            self.forget_task(member);
            self.tasks.discard(member);
        }
    }

    fn forget_task(&mut self, slot: Slot) {
        self.departed = self.sequence;
        self.tasks_by_id.remove(&self.tasks, slot);
    }

    fn forget_agent(&mut self, slot: Slot) {
        let agent = self.agents.remove(slot);
        self.agents_by_id.remove(&agent.spec.id);
        self.dispatch.remove_agent(agent.profile);
    }
}
