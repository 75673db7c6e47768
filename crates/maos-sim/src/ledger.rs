//! What is durable, and the laws that the journal itself must keep.
//!
//! The ledger follows the journal step by step with a state of its own, which lets go of nothing:
//! what the node promises is held against it.

use std::collections::{BTreeMap, BTreeSet};

use maos_core::Pool;
use maos_core::engine::State;
use maos_core::event::{Event, Step};
use maos_core::ids::{Attempt, Sequence, TaskId};
use maos_core::record::{Stage, TaskRecord};
use maos_core::spec::PlanTask;

/// What the journal says of one task.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) root: TaskId,
    timeout_ms: u64,
    last_attempt: Attempt,
    /// How often it was re-opened.
    pub(crate) openings: u32,
    /// The opening in which it completed last.
    completed_in: Option<u32>,
}

/// The journal, each step in its stored form, and what follows from it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    steps: Vec<Vec<u8>>,
    state: State,
    pub(crate) facts: BTreeMap<TaskId, Fact>,
    started: BTreeSet<(TaskId, Attempt)>,
    pub(crate) submissions: u64,
    pub(crate) completions: u64,
}

impl Ledger {
    pub(crate) fn last(&self) -> Sequence {
        Sequence(self.steps.len() as u64)
    }

    /// Steps behind `position`, read back from their stored form.
    pub(crate) fn steps_behind(&self, position: Sequence) -> Result<Vec<Step>, String> {
        let from = usize::try_from(position.0).map_err(|why| why.to_string())?;
        let behind = self.steps.get(from..).ok_or("the store is ahead of the journal")?;
        let decode = |bytes: &Vec<u8>| minicbor::decode(bytes).map_err(|why| why.to_string());
        behind.iter().map(decode).collect()
    }

    /// A step became durable.
    pub(crate) fn ingest(&mut self, sequence: Sequence, bytes: Vec<u8>) -> Result<(), String> {
        if sequence != self.last().next() {
            return Err(format!("step {sequence} was journaled behind step {}", self.last()));
        }
        let step: Step = minicbor::decode(&bytes).map_err(|why| why.to_string())?;
        self.steps.push(bytes);
        self.state.begin_step(sequence, step.moment);
        for event in &step.events {
            self.check(&step, event)?;
            self.apply(event)?;
        }
        self.state.take_effects();
        Ok(())
    }

    fn check(&mut self, step: &Step, event: &Event) -> Result<(), String> {
        match event {
            Event::Submitted { plan } => {
                self.submissions += 1;
                self.accept(plan.root().id, &plan.tasks);
            }
            Event::Started { task, attempt, timeout, .. } => {
                let fact = self.facts.get_mut(task).ok_or("a task started that nobody sent")?;
                if *attempt <= fact.last_attempt {
                    return Err(format!("attempt {attempt} of {task} started twice"));
                }
                if *timeout != step.moment.at.plus_ms(fact.timeout_ms) {
                    return Err(format!("attempt {attempt} of {task} has a wrong timeout"));
                }
                fact.last_attempt = *attempt;
                self.started.insert((*task, *attempt));
            }
            Event::Completed { task, attempt, .. } => {
                let fact = self.facts.get_mut(task).ok_or("a task completed that nobody sent")?;
                if fact.completed_in == Some(fact.openings) || *attempt != fact.last_attempt {
                    return Err(format!("{task} completed twice, or by attempt {attempt}"));
                }
                fact.completed_in = Some(fact.openings);
                self.completions += 1;
            }
            Event::Expanded { task, attempt, expansion } => {
                let fact = self.facts.get(task).ok_or("a task was expanded that nobody sent")?;
                if *attempt != fact.last_attempt {
                    return Err(format!("{task} was expanded by attempt {attempt}"));
                }
                let root = fact.root;
                self.accept(root, &expansion.tasks);
            }
            Event::Amended { task, spec } => {
                let fact = self.facts.get_mut(task).ok_or("a task changed that nobody sent")?;
                fact.timeout_ms = spec.timeout_ms;
            }
            Event::AttemptFailed { .. }
            | Event::Failed { .. }
            | Event::Collected { .. }
            | Event::Cancelled { .. }
            | Event::BackoffEnded { .. }
            | Event::Released { .. }
            | Event::Reopened { .. }
            | Event::Revived { .. }
            | Event::AgentRegistered { .. }
            | Event::AgentArrived { .. }
            | Event::AgentEnded { .. }
            | Event::CapacitySet { .. }
            | Event::KeySet { .. }
            | Event::ArtifactKept { .. }
            | Event::EntrySet { .. }
            | Event::Reserved { .. }
            | Event::Unreserved { .. }
            | Event::EpochBegan { .. } => {}
        }
        Ok(())
    }

    fn accept(&mut self, root: TaskId, tasks: &[PlanTask]) {
        for task in tasks {
            let fact = Fact {
                root,
                timeout_ms: task.spec.timeout_ms,
                last_attempt: Attempt(0),
                openings: 0,
                completed_in: None,
            };
            self.facts.insert(task.id, fact);
        }
    }

    fn apply(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Revived { tasks } => self.revive(tasks),
            Event::Reopened { task } => self.reopen(*task),
            Event::Submitted { .. }
            | Event::Started { .. }
            | Event::Completed { .. }
            | Event::Expanded { .. }
            | Event::AttemptFailed { .. }
            | Event::Failed { .. }
            | Event::Collected { .. }
            | Event::Cancelled { .. }
            | Event::BackoffEnded { .. }
            | Event::Released { .. }
            | Event::AgentRegistered { .. }
            | Event::AgentArrived { .. }
            | Event::AgentEnded { .. }
            | Event::CapacitySet { .. }
            | Event::KeySet { .. }
            | Event::Amended { .. }
            | Event::ArtifactKept { .. }
            | Event::EntrySet { .. }
            | Event::Reserved { .. }
            | Event::Unreserved { .. }
            | Event::EpochBegan { .. } => {
                self.state.apply(event);
                Ok(())
            }
        }
    }

    /// What comes back from the store must be what the journal made of it.
    fn revive(&mut self, tasks: &[TaskRecord]) -> Result<(), String> {
        for task in tasks {
            if self.task(task.id).as_ref() != Some(task) {
                return Err(format!("{} came back as another than it was", task.id));
            }
        }
        Ok(())
    }

    fn reopen(&mut self, task: TaskId) -> Result<(), String> {
        let root = self.facts.get(&task).ok_or("a task re-opened that nobody sent")?.root;
        let ended = |plan: Vec<TaskRecord>| -> BTreeSet<TaskId> {
            plan.iter().filter(|task| task.stage.ended()).map(|task| task.id).collect()
        };
        let before = ended(self.plan(root));
        self.state.apply(&Event::Reopened { task });
        let after = ended(self.plan(root));
        for id in before.difference(&after) {
            if let Some(fact) = self.facts.get_mut(id) {
                fact.openings += 1;
            }
        }
        Ok(())
    }

    /// The plan with this root as the journal has it.
    pub(crate) fn plan(&self, root: TaskId) -> Vec<TaskRecord> {
        self.state.plan(root).unwrap_or_default()
    }

    /// The task as the journal has it.
    pub(crate) fn task(&self, id: TaskId) -> Option<TaskRecord> {
        self.state.task(id)
    }

    /// Holds what a start came to against the journal: figures, timers, reservations and agents.
    pub(crate) fn compare(&self, recovered: &State) -> Result<(), String> {
        let figures = |state: &State| {
            let pools = state.pools().filter(|(_, pool)| *pool != Pool::default());
            let pools: Vec<_> = pools.map(|(kind, pool)| (kind.to_owned(), pool)).collect();
            let counts = (state.live_count(), state.ready_count(), state.held_count());
            let kept: Vec<_> = state.entries("schedule").cloned().collect();
            let reserved: Vec<_> = state.reservations().cloned().collect();
            let settings = (state.settings(), kept, reserved);
            (state.counters(), counts, state.next_timer(), pools, settings)
        };
        let (was, is) = (figures(&self.state), figures(recovered));
        if was != is {
            return Err(format!("recovered as another: {was:?} became {is:?}"));
        }
        let agents = |state: &State| -> Vec<_> {
            let serving = state.agents().filter(|agent| agent.end.is_none());
            serving
                .map(|agent| {
                    let (tally, held) = (agent.tally, state.held_by(agent.spec.id));
                    let held: BTreeSet<_> = held.into_iter().collect();
                    (agent.spec, agent.created, tally.completed, tally.failed, held)
                })
                .collect()
        };
        let (was, is) = (agents(&self.state), agents(recovered));
        match was.iter().zip(&is).find(|(was, is)| was != is) {
            Some((was, is)) => Err(format!("an agent was {was:?} and is {is:?}")),
            None if was.len() != is.len() => Err(format!("{was:?} became {is:?}")),
            None => Ok(()),
        }
    }

    pub(crate) fn has_started(&self, task: TaskId, attempt: Attempt) -> bool {
        self.started.contains(&(task, attempt))
    }

    /// Whether the journal knows that this attempt is over, or is to be.
    pub(crate) fn is_over(&self, id: TaskId, attempt: Attempt) -> bool {
        self.task(id).is_some_and(|task| {
            task.attempt > attempt
                || task.attempt == attempt && !matches!(task.stage, Stage::Running { .. })
        })
    }

    /// Roots of all plans that the journal has accepted.
    pub(crate) fn roots(&self) -> BTreeSet<TaskId> {
        self.facts.values().map(|fact| fact.root).collect()
    }

    /// How often the journal has re-opened a task.
    pub(crate) fn openings(&self, id: TaskId) -> u32 {
        self.facts.get(&id).map_or(0, |fact| fact.openings)
    }
}
