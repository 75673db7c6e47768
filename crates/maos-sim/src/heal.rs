//! Once nothing goes wrong any more: what can be done gets done, and what cannot says why.

use std::collections::BTreeSet;
use std::sync::Arc;

use maos_core::command::{Command, Report};
use maos_core::ids::TaskId;
use maos_core::laws;
use maos_core::node::Input;
use maos_core::payload::Payload;
use maos_core::record::Stage;
use maos_core::spec::{Amounts, Collect, PlanTask};

use crate::plans::{AGENTS, able_agent, impossible, plan_of, runtime};
use crate::world::World;

/// Rounds after which it must be quiet.
const ROUNDS_MAX: usize = 10_000;
/// Tasks that a finding names.
const TOLD_MAX: usize = 5;

impl World {
    /// Mends everything and goes on until nothing moves.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        self.mood.mend();
        self.settle_journal()?;
        self.tell(Command::SetCapacity { capacity: Amounts::default() })?;
        for number in 1..=AGENTS {
            let agent = Arc::new(able_agent(u128::from(number), runtime(number)));
            self.tell(Command::RegisterAgent { agent })?;
        }
        let waits = self.submit_impossible()?;
        for round in 0..ROUNDS_MAX {
            if self.quiet() {
                return self.rested(waits);
            }
            self.round().map_err(|why| format!("round {round}: {why}"))?;
        }
        let stuck = self.live().into_iter().filter(|id| !self.hopeless(*id));
        let state = self.node.state();
        let told: Vec<String> = stuck
            .take(TOLD_MAX)
            .filter_map(|id| Some(format!("{:?}, {:?}", state.task(id)?.stage, state.explain(id)?)))
            .collect();
        let (held, due) = (state.held_count(), state.next_deadline());
        Err(format!("it never gets quiet: {held} held, next at {due:?}, {told:?}"))
    }

    fn submit_impossible(&mut self) -> Result<TaskId, String> {
        self.next_id += 1;
        let id = TaskId(u128::from(self.next_id) << 64);
        let (spec, depends_on) = (Arc::new(impossible()), Box::default());
        let task = PlanTask { id, spec, parent: None, depends_on, collect: Collect::All };
        self.tasks.push(id);
        self.ask(Command::Submit { plan: Arc::new(plan_of(vec![task], None)) })?;
        Ok(id)
    }

    fn settle_journal(&mut self) -> Result<(), String> {
        while self.inflight_count() > 0 {
            self.collect_rows();
            let all = self.inflight_count();
            self.confirm(all)?;
        }
        self.store_rows();
        Ok(())
    }

    /// Every agent says something, what was stopped ends, and time goes on to the next deadline.
    fn round(&mut self) -> Result<(), String> {
        self.settle_journal()?;
        for number in 1..=AGENTS {
            self.feed(Input::Seen { agent: maos_core::ids::AgentId(u128::from(number)) })?;
        }
        self.poll()?;
        for job in std::mem::take(&mut self.jobs) {
            if job.hangs && !job.stopping {
                self.jobs.push(job);
                continue;
            }
            self.past.push(job);
            let Some(task) = self.node.state().task(job.task) else { continue };
            let running = matches!(task.stage, Stage::Running { .. });
            if running && task.attempt == job.attempt {
                self.report_on(job, Report::Completed(Payload::inline(b"1")))?;
            }
        }
        self.settle_journal()?;
        self.release_stopped()?;
        let now = self.now();
        let due = self.node.next_deadline().map_or(0, |due| due.ms_since(now));
        self.pass_ms((due + due / 8 + 1).min(20_000));
        self.tick()?;
        self.settle_journal()
    }

    /// The grace of stopped attempts is over: whoever runs them has ended them.
    fn release_stopped(&mut self) -> Result<(), String> {
        let held = self.held().into_values().flatten();
        let stopping: Vec<_> = held
            .filter(|(task, attempt)| {
                let task = self.node.state().task(*task);
                task.is_some_and(|task| task.stopping.iter().any(|held| held.attempt == *attempt))
            })
            .collect();
        for (task, attempt) in stopping {
            self.jobs.retain(|job| job.task != task || job.attempt != attempt);
            self.tell(Command::Release { task, attempt })?;
        }
        Ok(())
    }

    /// Tasks that have not ended.
    fn live(&self) -> BTreeSet<TaskId> {
        let state = self.node.state();
        self.tasks.iter().filter(|id| state.ended(**id) == Some(false)).copied().collect()
    }

    /// Whether a task waits for what will never be, by itself or through what it waits for.
    fn hopeless(&self, id: TaskId) -> bool {
        let Some(task) = self.node.state().task(id) else { return false };
        if matches!(task.stage, Stage::Ready { .. }) {
            return task.spec.demand.capabilities.contains(crate::plans::NEVER);
        }
        let live = |id: &&TaskId| self.node.state().ended(**id) == Some(false);
        match task.stage {
            Stage::Waiting | Stage::Active => {
                let awaited = task.subtasks().iter().chain(task.depends_on().iter());
                awaited.filter(live).any(|id| self.hopeless(*id))
            }
            Stage::Parked { .. }
            | Stage::Ready { .. }
            | Stage::Backoff { .. }
            | Stage::Running { .. }
            | Stage::Completed(_)
            | Stage::Collected
            | Stage::Failed(_)
            | Stage::Cancelled { .. } => false,
        }
    }

    /// Nothing will happen any more.
    fn quiet(&self) -> bool {
        let state = self.node.state();
        self.inflight_count() == 0
            && state.next_deadline().is_none()
            && state.held_count() == 0
            && self.live().into_iter().all(|id| self.hopeless(id))
    }

    fn rested(&mut self, waits: TaskId) -> Result<(), String> {
        let state = self.node.state();
        laws::check_settled(state)?;
        let blockers = state.explain(waits).unwrap_or_default();
        if state.ended(waits) != Some(false) || blockers.is_empty() {
            return Err("the impossible task does not wait, or does not say why".into());
        }
        for id in self.live() {
            if state.explain(id).is_none_or(|blockers| blockers.is_empty()) {
                return Err(format!("{id} waits and does not say why"));
            }
        }
        let open = self.promises.asked.values();
        let unanswered = open
            .filter(|asked| asked.awaited().is_none_or(|id| state.ended(id) != Some(false)))
            .count();
        if unanswered > 0 {
            return Err(format!("{unanswered} requests were never answered"));
        }
        self.promises.kept(&self.ledger)
    }
}
