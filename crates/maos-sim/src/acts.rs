//! What may happen in one step, and how often.

use std::sync::Arc;

use maos_core::command::{Command, Expect, Report};
use maos_core::event::{AgentEnd, Failure, FailureKind};
use maos_core::ids::{AgentId, Attempt, TaskId};
use maos_core::node::{Input, Query, RequestId};
use maos_core::payload::Payload;
use maos_core::spec::{Amounts, Name, Plan};

use crate::plans::{
    AGENTS, huge_plan, some_agent, some_artifact, some_expansion, some_key, some_patch, some_plan,
    some_setting,
};
use crate::rng::Rng;
use crate::world::{Job, World};

/// What is peculiar to one world: some things happen more often there, some never.
#[derive(Debug)]
pub(crate) struct Mood {
    crash_every: u64,
    never: Vec<u64>,
    hang_every: u64,
    /// A plan comes that makes more happen than fits into one step.
    pub(crate) huge: bool,
}

impl Mood {
    pub(crate) fn new(rng: &mut Rng) -> Mood {
        let crash_every = [25, 100, 200, 200, 400][rng.index(5)];
        let never = (0..20).filter(|_| rng.once_in(10)).collect();
        Mood { crash_every, never, hang_every: 3 + rng.below(20), huge: rng.once_in(HUGE_EVERY) }
    }

    /// From now on every attempt says something.
    pub(crate) fn mend(&mut self) {
        self.hang_every = u64::MAX;
    }

    /// Whether an attempt will never say anything.
    pub(crate) fn hangs(&self, rng: &mut Rng) -> bool {
        rng.once_in(self.hang_every)
    }
}

/// One world in so many sees a huge plan; they are slow.
const HUGE_EVERY: u64 = 50;
/// Ticks after which all that is due has been done.
const TICKS_MAX: usize = 8;
const YEAR_US: u64 = 365 * 24 * 3_600 * 1_000_000;

impl World {
    /// Does one thing, whatever comes to mind.
    pub(crate) fn act(&mut self) -> Result<(), String> {
        if self.rng.once_in(self.mood.crash_every) {
            return self.crash();
        }
        let kind = self.rng.below(100);
        if self.mood.never.contains(&(kind / 5)) && !(70..=86).contains(&kind) {
            return Ok(());
        }
        match kind {
            0..=13 => self.submit(),
            14..=15 => self.cancel(),
            16..=17 => self.retry(),
            18 => self.amend(),
            19..=24 => self.look(),
            25 => self.forget(),
            26..=43 => self.answer_job(),
            44..=46 => self.repeat_report(),
            47..=50 => self.release(),
            51..=56 => self.change_agents(),
            57 => self.set_capacity(),
            58 if self.rng.once_in(2) => self.set_key(),
            58 => self.hold_or_keep(),
            59..=62 => self.sign_of_life(),
            63..=69 => self.pass_time(),
            70..=86 => self.confirm_some(),
            87 => self.fail_append(),
            88..=94 => self.move_rows(),
            _ => self.poll(),
        }
    }

    fn submit(&mut self) -> Result<(), String> {
        let now = self.now();
        let plan = match self.rng.pick(&self.sent).cloned() {
            Some(_) if std::mem::take(&mut self.mood.huge) => {
                huge_plan(&mut self.rng, now, &mut self.next_id)
            }
            Some(sent) if sent.idempotency.is_some() && self.rng.once_in(3) => self.again(&sent),
            Some(_) | None => some_plan(&mut self.rng, now, &mut self.next_id),
        };
        let plan = Arc::new(plan);
        self.sent.push(plan.clone());
        self.tasks.extend(plan.tasks.iter().map(|task| task.id));
        self.ask(Command::Submit { plan })
    }

    /// The same submission once more: only the ids are new.
    fn again(&mut self, sent: &Plan) -> Plan {
        let mut plan = sent.clone();
        for task in &mut plan.tasks {
            self.next_id += 1;
            task.id = TaskId((u128::from(self.next_id) << 64) | u128::from(self.rng.next()));
        }
        plan.id.0 = plan.tasks[0].id.0;
        plan
    }

    /// A task that somebody once named; a late one more often than not.
    fn some_task(&mut self) -> TaskId {
        let count = self.tasks.len();
        let late = count.saturating_sub(20);
        let from = if self.rng.once_in(3) { 0 } else { late };
        let index = from + self.rng.index(count - from);
        self.tasks.get(index).copied().unwrap_or(TaskId(0))
    }

    fn cancel(&mut self) -> Result<(), String> {
        let task = self.some_task();
        self.ask(Command::Cancel { task, reason: "no longer wanted".into() })
    }

    fn retry(&mut self) -> Result<(), String> {
        let ended = |world: &World, id: &TaskId| {
            let shown = world.shown(*id);
            shown.is_some_and(|task| task.stage.ended() && !task.stage.completed())
        };
        let unsuccessful: Vec<TaskId> =
            self.tasks.iter().filter(|id| ended(self, id)).copied().collect();
        let Some(task) = self.rng.pick(&unsuccessful).copied() else { return Ok(()) };
        self.revive(task)?;
        self.ask(Command::Retry { task })
    }

    /// Somebody changes a task, or keeps a file with it, at whatever time.
    fn amend(&mut self) -> Result<(), String> {
        let task = self.some_task();
        if self.rng.once_in(3) {
            let artifact = Box::new(some_artifact(&mut self.rng));
            let attempt = self.node.state().task(task).map(|task| task.attempt);
            return self.ask(Command::KeepArtifact { task, attempt, artifact });
        }
        self.revive(task)?;
        let now = self.now();
        let patch = Box::new(some_patch(&mut self.rng, now));
        self.ask(Command::Amend { task, patch })
    }

    /// Brings a plan back that has left the engine.
    fn revive(&mut self, task: TaskId) -> Result<(), String> {
        if self.node.state().task(task).is_none()
            && let Some(root) = self.shown(task).map(|task| task.plan.root)
            && let Some(tasks) = self.store.newest_plan(root, self.ledger.last())
        {
            self.revived();
            self.tell(Command::Revive { tasks: tasks.into() })?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), String> {
        let task = self.some_task();
        let query = match self.rng.below(8) {
            0 => Query::Explain(task),
            1..=3 => Query::Ended(task),
            4 => Query::Outcome(task),
            5 => Query::Plan(task),
            6 if self.rng.once_in(2) => Query::Keys,
            6 => Query::Figures,
            _ => Query::Task(task),
        };
        self.read(query)
    }

    fn forget(&mut self) -> Result<(), String> {
        let open = self.promises.asked.iter().filter(|(_, asked)| asked.awaited().is_some());
        let open: Vec<RequestId> = open.map(|(id, _)| *id).collect();
        let Some(id) = self.rng.pick(&open).copied() else { return Ok(()) };
        self.feed(Input::Forget { id })?;
        self.promises.forget(id);
        Ok(())
    }

    fn answer_job(&mut self) -> Result<(), String> {
        if self.jobs.is_empty() {
            return Ok(());
        }
        let index = self.rng.index(self.jobs.len());
        let job = self.jobs[index];
        if job.hangs && !job.stopping {
            return Ok(());
        }
        self.jobs.swap_remove(index);
        self.past.push(job);
        if job.stopping {
            return self.tell(Command::Release { task: job.task, attempt: job.attempt });
        }
        let report = self.some_report();
        self.report_on(job, report)
    }

    pub(crate) fn report_on(&mut self, job: Job, report: Report) -> Result<(), String> {
        let Job { task, attempt, .. } = job;
        self.ask(Command::Report { task, attempt, report })
    }

    fn some_report(&mut self) -> Report {
        let failed = |permanent| {
            let message = "it went wrong".into();
            Report::Failed(Failure { kind: FailureKind::Reported, message, permanent })
        };
        match self.rng.below(10) {
            0..=1 => failed(false),
            2 => failed(true),
            3 => Report::Lost("its program was ended".into()),
            4 if self.rng.once_in(3) => {
                let now = self.now();
                let expansion = some_expansion(&mut self.rng, now, &mut self.next_id);
                self.tasks.extend(expansion.tasks.iter().map(|task| task.id));
                Report::Expanded(Arc::new(expansion))
            }
            _ => Report::Completed(Payload::inline(b"1")),
        }
    }

    /// An agent says once more what it said before, or means an attempt that is long over.
    fn repeat_report(&mut self) -> Result<(), String> {
        let Some(mut job) = self.rng.pick(&self.past).copied() else { return Ok(()) };
        if self.rng.once_in(3) {
            job.attempt = Attempt(u32::try_from(self.rng.below(5)).unwrap_or_default());
        }
        let report = self.some_report();
        self.report_on(job, report)
    }

    /// The end of a stopped attempt becomes known, or is claimed to be.
    fn release(&mut self) -> Result<(), String> {
        let held = self.held();
        let held: Vec<(TaskId, Attempt)> = held.into_values().flatten().collect();
        let Some((task, attempt)) = self.rng.pick(&held).copied() else { return Ok(()) };
        self.tell(Command::Release { task, attempt })
    }

    fn change_agents(&mut self) -> Result<(), String> {
        let number = 1 + self.rng.below(AGENTS);
        if self.rng.once_in(4) {
            let ends = [AgentEnd::Terminated, AgentEnd::Lost, AgentEnd::Retired];
            let end = ends[self.rng.index(ends.len())];
            return self.ask(Command::EndAgent { agent: AgentId(u128::from(number)), end });
        }
        let agent = Arc::new(some_agent(&mut self.rng, number));
        self.ask(Command::RegisterAgent { agent })
    }

    fn set_capacity(&mut self) -> Result<(), String> {
        let cpu = ("cpu_cores".into(), 1_000 * self.rng.below(5));
        let memory = ("memory".into(), 1_000 * self.rng.below(5));
        self.ask(Command::SetCapacity { capacity: Amounts::new([cpu, memory]) })
    }

    fn set_key(&mut self) -> Result<(), String> {
        let (key, setting) = (some_key(&mut self.rng), some_setting(&mut self.rng));
        self.ask(Command::SetKey { key, setting })
    }

    /// Resources are held outside of attempts, and small documents are kept.
    fn hold_or_keep(&mut self) -> Result<(), String> {
        let name: Name = ["a", "b", "c"][self.rng.index(3)].into();
        let command = match self.rng.below(5) {
            0 => Command::Unreserve { requester: name },
            1..=2 => Command::Reserve {
                requester: name,
                amounts: Amounts::new([("cpu_cores".into(), 1_000 * (1 + self.rng.below(3)))]),
                lease_ms: (!self.rng.once_in(3)).then(|| 1_000 * (1 + self.rng.below(60))),
            },
            _ => Command::SetEntry {
                register: "schedule".into(),
                key: name,
                value: (!self.rng.once_in(3)).then(|| Payload::inline(self.some_word())),
                expect: [Expect::Anything, Expect::Absent, Expect::Present][self.rng.index(3)],
            },
        };
        self.ask(command)
    }

    fn some_word(&mut self) -> &'static [u8] {
        [&b"daily"[..], b"hourly"][self.rng.index(2)]
    }

    fn sign_of_life(&mut self) -> Result<(), String> {
        if self.rng.once_in(2) {
            let agent = AgentId(u128::from(1 + self.rng.below(AGENTS)));
            return self.feed(Input::Seen { agent });
        }
        let Some(Job { task, attempt, .. }) = self.rng.pick(&self.jobs).copied() else {
            return Ok(());
        };
        self.feed(Input::Progressed { task, attempt })
    }

    fn pass_time(&mut self) -> Result<(), String> {
        if self.rng.once_in(12) {
            let forward = self.rng.once_in(2);
            self.jump_wall(forward, YEAR_US);
        }
        let most = if self.rng.once_in(6) { 120_000 } else { 3_000 };
        let ms = self.rng.below(most);
        self.pass_ms(ms);
        self.tick()
    }

    pub(crate) fn tick(&mut self) -> Result<(), String> {
        for _ in 0..TICKS_MAX {
            self.feed(Input::Tick)?;
            let now = self.node.state().at();
            let due = self.node.state().next_deadline();
            // A step may have been cut at its bound: then more follows, or something else before.
            if due.is_none_or(|due| due >= now) || self.rng.once_in(3) {
                return Ok(());
            }
        }
        let due = self.node.state().next_deadline();
        Err(format!("what was due at {due:?} is not done"))
    }

    fn confirm_some(&mut self) -> Result<(), String> {
        self.collect_rows();
        let most = self.inflight_count();
        let count = if self.rng.once_in(2) { most } else { self.rng.index(most + 1) };
        self.confirm(count)
    }

    fn fail_append(&mut self) -> Result<(), String> {
        if self.inflight_count() == 0 { Ok(()) } else { self.feed(Input::AppendFailed) }
    }

    fn move_rows(&mut self) -> Result<(), String> {
        self.store_rows();
        Ok(())
    }

    pub(crate) fn poll(&mut self) -> Result<(), String> {
        self.read(Query::Agents)
    }
}
