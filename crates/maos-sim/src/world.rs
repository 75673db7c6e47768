//! The world around one node: journal, store, clocks and agents, and how the node's actions are
//! carried out in it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;

use maos_core::command::Command;
use maos_core::engine::{Effect, State};
use maos_core::event::Step;
use maos_core::ids::{AgentId, Attempt, Epoch, Sequence, TaskId};
use maos_core::laws;
use maos_core::node::{Action, Answer, Echo, Input, Node, Query, RequestId};
use maos_core::record::{Stage, TaskRecord};
use maos_core::rejection::Rejection;
use maos_core::spec::{Plan, Runtime, Work};
use maos_core::time::{Clock, Moment, Timestamp, WallTime};

use crate::Report;
use crate::acts::Mood;
use crate::ledger::Ledger;
use crate::plans::NODE;
use crate::promises::{Asked, Promises};
use crate::rng::Rng;
use crate::store::Store;
use crate::trace::{Entry, Trace};

/// The wall clock at the beginning.
const WALL_FIRST_US: u64 = 50 * 365 * 24 * 3_600 * 1_000_000;

/// An attempt in the hands of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) task: TaskId,
    pub(crate) attempt: Attempt,
    pub(crate) agent: AgentId,
    pub(crate) runtime: Runtime,
    /// It was told to stop.
    pub(crate) stopping: bool,
    /// It will never say anything.
    pub(crate) hangs: bool,
}

/// Hashes whatever is written to it (FNV-1a).
#[derive(Debug)]
struct Hash(u64);

impl Write for Hash {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

/// Everything.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) mood: Mood,
    pub(crate) node: Node,
    clock: Clock,
    monotonic_us: u64,
    wall_us: u64,
    pub(crate) ledger: Ledger,
    /// Steps on their way into the journal.
    inflight: VecDeque<(Sequence, Vec<u8>)>,
    pub(crate) store: Store,
    pub(crate) jobs: Vec<Job>,
    /// Attempts that ended; an agent may report them again.
    pub(crate) past: Vec<Job>,
    pub(crate) promises: Promises,
    /// What was submitted, and the ids of all tasks in it.
    pub(crate) sent: Vec<Arc<Plan>>,
    pub(crate) tasks: Vec<TaskId>,
    pub(crate) next_id: u64,
    pub(crate) next_request: u64,
    report: Report,
    hash: Hash,
    /// Kept if somebody compares.
    trace: Option<Trace>,
}

impl World {
    pub(crate) fn new(seed: u64, trace: Option<Trace>) -> Result<World, String> {
        let wall = WallTime(WALL_FIRST_US);
        let mut rng = Rng::new(seed);
        let mut world = World {
            mood: Mood::new(&mut rng),
            rng,
            node: Node::new(State::default()),
            clock: Clock::resume(Timestamp::default(), 0, wall),
            monotonic_us: 0,
            wall_us: WALL_FIRST_US,
            ledger: Ledger::default(),
            inflight: VecDeque::new(),
            store: Store::default(),
            jobs: Vec::new(),
            past: Vec::new(),
            promises: Promises::default(),
            sent: Vec::new(),
            tasks: Vec::new(),
            next_id: 0,
            next_request: 0,
            report: Report::default(),
            hash: Hash(0xcbf2_9ce4_8422_2325),
            trace,
        };
        world.begin_epoch()?;
        Ok(world)
    }

    pub(crate) fn report(&self) -> Report {
        let mut report = self.report;
        report.submissions = self.ledger.submissions;
        report.completions = self.ledger.completions;
        report.hash = self.hash.0;
        report
    }

    /// All that the node had done, if that was kept.
    pub(crate) fn into_trace(self) -> Trace {
        self.trace.unwrap_or_default()
    }

    pub(crate) fn now(&self) -> Timestamp {
        let mut clock = self.clock;
        clock.read(self.monotonic_us, WallTime(self.wall_us))
    }

    /// Lets time pass.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.monotonic_us += ms * 1_000;
        self.wall_us += ms * 1_000;
    }

    /// Sets the wall clock.
    pub(crate) fn jump_wall(&mut self, forward: bool, by_us: u64) {
        self.wall_us =
            if forward { self.wall_us + by_us } else { self.wall_us.saturating_sub(by_us) };
    }

    fn moment(&mut self) -> Moment {
        let wall = WallTime(self.wall_us);
        let at = self.clock.read(self.monotonic_us, wall);
        let entropy = u32::try_from(self.rng.next() >> 32).unwrap_or_default();
        Moment { at, wall, entropy }
    }

    /// Sends a command that somebody waits for.
    pub(crate) fn ask(&mut self, command: Command) -> Result<(), String> {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let echo = match self.rng.below(3) {
            0 => Echo::Task,
            // Under a key, it would wait for the end of whatever was accepted first.
            1 if !is_keyed(&command) => Echo::End,
            _ => Echo::Id,
        };
        let asked = Asked::of_command(&command, echo, self.node.state());
        let input = Input::Request { id: Some(id), command, echo };
        self.feed_asked(input, id, asked)
    }

    /// Sends a command that nobody waits for.
    pub(crate) fn tell(&mut self, command: Command) -> Result<(), String> {
        self.feed(Input::Request { id: None, command, echo: Echo::Id })
    }

    pub(crate) fn read(&mut self, query: Query) -> Result<(), String> {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let asked = Asked::of_query(&query, self.node.state());
        self.feed_asked(Input::Read { id, query }, id, asked)
    }

    fn feed_asked(&mut self, input: Input, id: RequestId, mut asked: Asked) -> Result<(), String> {
        let moment = self.moment();
        let mut actions = Vec::new();
        self.report.steps += 1;
        self.node.step(&moment, input, &mut actions);
        asked.settle(Sequence(self.node.durable().0 + self.node.inflight()));
        self.promises.asked.insert(id, asked);
        self.carry_out(actions)
    }

    /// Gives the node one input and does what it wants done.
    pub(crate) fn feed(&mut self, input: Input) -> Result<(), String> {
        let moment = self.moment();
        let mut actions = Vec::new();
        self.report.steps += 1;
        self.node.step(&moment, input, &mut actions);
        self.carry_out(actions)
    }

    fn carry_out(&mut self, actions: Vec<Action>) -> Result<(), String> {
        for action in actions {
            write!(self.hash, "{action:?}").map_err(|why| why.to_string())?;
            self.keep(&action)?;
            match action {
                Action::Append { sequence, step } => {
                    let bytes = stored(&step)?;
                    self.inflight.push_back((sequence, bytes));
                }
                Action::Reply { id, answer } => {
                    self.promises.answered(id, &answer, &self.ledger)?;
                    if let Err(Rejection::TaskNotFound(task)) = &answer {
                        self.check_departed(*task)?;
                    }
                    if let Ok(Answer::Agents(agents)) = answer {
                        self.polled(&agents)?;
                    }
                }
                Action::Perform(effect) => self.perform(effect)?,
                Action::Tell { .. } => {}
                Action::StepDown => return Err("the only node stepped down".into()),
            }
        }
        Ok(())
    }

    fn keep(&mut self, action: &Action) -> Result<(), String> {
        let Some(trace) = &mut self.trace else { return Ok(()) };
        let (kind, bytes) = match action {
            Action::Append { step, .. } => ("append", stored(step)?),
            Action::Reply { .. } => ("reply", format!("{action:?}").into_bytes()),
            Action::Perform(_) => ("effect", format!("{action:?}").into_bytes()),
            Action::Tell { .. } => ("word", format!("{action:?}").into_bytes()),
            Action::StepDown => ("end", Vec::new()),
        };
        trace.entries.push(Entry { input: self.report.steps, kind, bytes });
        Ok(())
    }

    fn perform(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Start { task, attempt, agent, .. } => {
                self.take_job(task, attempt, agent.id, agent.runtime)
            }
            Effect::Stop { task, attempt, .. } => {
                if !self.ledger.is_over(task, attempt) {
                    return Err(format!("attempt {attempt} of {task} was stopped too early"));
                }
                for job in &mut self.jobs {
                    job.stopping |= job.task == task && job.attempt == attempt;
                }
                Ok(())
            }
            Effect::Ended { task } => Err(format!("the end of {task} left the node")),
        }
    }

    fn take_job(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        agent: AgentId,
        runtime: Runtime,
    ) -> Result<(), String> {
        if !self.ledger.has_started(task, attempt) {
            return Err(format!("attempt {attempt} of {task} started before that was durable"));
        }
        let known = |job: &Job| job.task == task && job.attempt == attempt;
        if !self.jobs.iter().chain(&self.past).any(known) {
            self.check_able(task, runtime)?;
            let hangs = self.mood.hangs(&mut self.rng);
            let job = Job { task, attempt, agent, runtime, stopping: false, hangs };
            self.jobs.push(job);
        }
        Ok(())
    }

    /// A worker learns what it holds when it asks.
    fn polled(&mut self, agents: &[maos_core::node::AgentState]) -> Result<(), String> {
        for agent in agents.iter().filter(|agent| agent.record.spec.runtime == Runtime::Worker) {
            for (task, attempt) in &agent.held {
                self.take_job(*task, *attempt, agent.record.spec.id, Runtime::Worker)?;
            }
        }
        Ok(())
    }

    pub(crate) fn inflight_count(&self) -> usize {
        self.inflight.len()
    }

    /// The journal confirms its next `count` steps.
    pub(crate) fn confirm(&mut self, count: usize) -> Result<(), String> {
        if count == 0 {
            return Ok(());
        }
        self.land(count)?;
        let through = self.ledger.last();
        self.feed(Input::Durable { through })
    }

    fn land(&mut self, count: usize) -> Result<(), String> {
        for (sequence, bytes) in self.inflight.drain(..count) {
            self.ledger.ingest(sequence, bytes)?;
        }
        Ok(())
    }

    /// The store takes rows over.
    pub(crate) fn store_rows(&mut self) {
        self.store.advance(self.ledger.last());
    }

    /// A task as whoever asks for it finds it: in the engine, or with the rows that it left with,
    /// once these are durable.
    pub(crate) fn shown(&self, task: TaskId) -> Option<TaskRecord> {
        let durable = self.ledger.last();
        self.node.state().task(task).or_else(|| self.store.newest(task, durable))
    }

    /// Rows are taken from the node for the store, as they are with every group of appends.
    pub(crate) fn collect_rows(&mut self) {
        self.store.collect(self.node.state_mut());
    }

    /// The server goes away with everything that is not durable, and another takes its place.
    pub(crate) fn crash(&mut self) -> Result<(), String> {
        self.report.crashes += 1;
        let kept = self.rng.index(self.inflight.len() + 1);
        self.land(kept)?;
        self.inflight.clear();
        self.store.crash();
        self.promises.crash();
        let (local, still): (Vec<Job>, Vec<Job>) =
            self.jobs.drain(..).partition(|job| job.runtime.ends_with_server());
        self.past.extend(local);
        self.jobs = still;
        let state = self.recover()?;
        self.pass_ms(100);
        self.monotonic_us = self.rng.below(1_000_000_000);
        let wall = WallTime(self.wall_us);
        self.clock = Clock::resume(state.at(), self.monotonic_us, wall);
        self.node = Node::new(state);
        self.begin_epoch()
    }

    /// The state that the store and the journal give, held against what is known of it.
    fn recover(&mut self) -> Result<State, String> {
        let mut state = State::recover(self.store.rows());
        for step in self.ledger.steps_behind(self.store.engine.position.sequence)? {
            state.begin_step(state.sequence().next(), step.moment);
            for event in &step.events {
                state.apply(event);
            }
        }
        laws::check(&state).map_err(|why| format!("recovered: {why}"))?;
        self.ledger.compare(&state)?;
        for root in self.ledger.roots() {
            let journaled = self.ledger.plan(root);
            let recovered = match state.plan(root) {
                Some(plan) => plan,
                None => self.store.plan(root),
            };
            if let Some((was, is)) = journaled.iter().zip(&recovered).find(|(was, is)| was != is) {
                return Err(format!("recovered as another: {was:?} became {is:?}"));
            }
            if journaled.len() != recovered.len() {
                return Err(format!("{} tasks of plan {root} are lost", journaled.len()));
            }
        }
        self.promises.kept(&self.ledger)?;
        Ok(state)
    }

    fn begin_epoch(&mut self) -> Result<(), String> {
        let epoch = Epoch(self.node.epoch().0 + 1);
        self.tell(Command::BeginEpoch { epoch, node: NODE })
    }

    pub(crate) fn revived(&mut self) {
        self.report.revivals += 1;
    }

    /// All laws of the state, and those between the state and this world.
    pub(crate) fn check(&self) -> Result<(), String> {
        let state = self.node.state();
        laws::check(state)?;
        let agents: BTreeMap<AgentId, Runtime> = state
            .agents()
            .filter(|agent| agent.end.is_none())
            .map(|agent| (agent.spec.id, agent.spec.runtime))
            .collect();
        for (agent, held) in self.held() {
            for (id, attempt) in held {
                let Some(task) = state.task(id) else {
                    return Err(format!("agent {agent} holds {id}, which is not there"));
                };
                let running = task.attempt == attempt && !task.stage.ended();
                if !running || !matches!(task.stage, Stage::Running { .. }) {
                    continue;
                }
                let Some(runtime) = agents.get(&agent) else {
                    return Err(format!("{id} runs on agent {agent}, which has ended"));
                };
                self.check_told(id, attempt, *runtime)?;
            }
        }
        Ok(())
    }

    /// Whoever is told that a task is not here finds it with the rows that it left with.
    fn check_departed(&self, task: TaskId) -> Result<(), String> {
        let durable = self.ledger.last();
        let known = self.ledger.task(task).is_some();
        let found = || self.node.state().task(task).is_some() || self.store.has(task, durable);
        if known && !found() {
            return Err(format!("{task} left the engine before its rows were durable"));
        }
        Ok(())
    }

    /// Whoever runs an attempt on this server knows of it as soon as its start is durable.
    fn check_told(&self, task: TaskId, attempt: Attempt, runtime: Runtime) -> Result<(), String> {
        let known = |job: &Job| job.task == task && job.attempt == attempt;
        let told = self.jobs.iter().chain(&self.past).any(known);
        let due = runtime.ends_with_server() && self.ledger.has_started(task, attempt);
        if due && !told {
            return Err(format!("nobody was told to run attempt {attempt} of {task}"));
        }
        Ok(())
    }

    /// Others do not know a built-in action, whatever they are called, and would do something else.
    fn check_able(&mut self, task: TaskId, runtime: Runtime) -> Result<(), String> {
        let task = self.node.state().task(task);
        let Some(task) = task.filter(|task| matches!(task.spec.demand.work, Work::BuiltIn(_)))
        else {
            return Ok(());
        };
        if runtime != Runtime::Builtin {
            return Err(format!("{} was given to an agent that is not built in", task.id));
        }
        self.report.built_in += 1;
        Ok(())
    }

    /// Attempts that hold a slot, by agent.
    pub(crate) fn held(&self) -> BTreeMap<AgentId, Vec<(TaskId, Attempt)>> {
        let state = self.node.state();
        state.agents().map(|agent| (agent.spec.id, state.held_by(agent.spec.id))).collect()
    }
}

/// As the journal holds it.
fn stored(step: &Step) -> Result<Vec<u8>, String> {
    minicbor::to_vec(step).map_err(|why| why.to_string())
}

fn is_keyed(command: &Command) -> bool {
    matches!(command, Command::Submit { plan } if plan.idempotency.is_some())
}
