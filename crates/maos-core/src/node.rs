//! Who may decide, and when a decision may be seen.
//!
//! The law of this room: nothing leaves the node (reply, refusal, read or effect) before every
//! event it rests on is durable. The node is pure: the shell feeds it inputs and carries out its
//! actions.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::change::Change;
use crate::command::Command;
use crate::engine::{Effect, State};
use crate::event::Step;
use crate::ids::{AgentId, Attempt, Epoch, Sequence, TaskId};
use crate::limits::{INFLIGHT_STEPS_MAX, STEP_EVENTS_MAX};
use crate::outcome::Outcome;
use crate::presence::Presence;
use crate::record::{AgentRecord, Counters, EntryRecord, Reservation, TaskRecord};
use crate::rejection::Rejection;
use crate::spec::{AgentSpec, IdempotencyKey, Name, Runtime};
use crate::time::{Moment, Timestamp};
use crate::view::{Blocker, Hold, Keys, PoolView};

/// Names a request between the shell and the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What reaches the node.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody wants something done.
    Request {
        /// Under which name the reply comes; `None`: nobody waits for it.
        id: Option<RequestId>,
        /// What.
        command: Command,
        /// What the reply is to hold.
        echo: Echo,
    },
    /// Somebody wants to know something.
    Read {
        /// Under which name the reply comes.
        id: RequestId,
        /// What.
        query: Query,
    },
    /// Nobody waits for this reply any more.
    Forget {
        /// The request.
        id: RequestId,
    },
    /// An agent was heard of.
    Seen {
        /// The agent.
        agent: AgentId,
    },
    /// An attempt gave a sign of progress.
    Progressed {
        /// The task.
        task: TaskId,
        /// The attempt.
        attempt: Attempt,
    },
    /// The journal holds everything up to and including this step.
    Durable {
        /// The step.
        through: Sequence,
    },
    /// The journal failed to take what it was given; the shell goes on trying.
    AppendFailed,
    /// Somebody newer owns the journal.
    Fenced,
    /// Time passed.
    Tick,
}

/// What the reply to a command holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// That it was done.
    Id,
    /// The task as it is now.
    Task,
    /// For a submission: the task once it has ended, and no earlier. For all else as `Task`.
    End,
}

/// What somebody wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// A task.
    Task(TaskId),
    /// A task, once it has ended.
    Ended(TaskId),
    /// Why a task waits.
    Explain(TaskId),
    /// What came out of a task.
    Outcome(TaskId),
    /// All tasks of the plan with this root.
    Plan(TaskId),
    /// What bodies became that came under idempotency keys before; refused if one of the keys came
    /// with another body.
    Remembered {
        /// Whose.
        namespace: Name,
        /// Whose of them.
        submitter: Name,
        /// The keys, each with the hash of its body.
        keys: Vec<IdempotencyKey>,
    },
    /// All agents.
    Agents,
    /// One agent.
    Agent(AgentId),
    /// One agent with all that is needed to hand it again what it holds.
    Holds(AgentId),
    /// How the pools are that agents like these belong to.
    Pools(Vec<Arc<AgentSpec>>),
    /// What holds for the keys that tasks share.
    Keys,
    /// The documents of one kind that are kept for the shell.
    Entries(Name),
    /// One of them.
    Entry(Name, Name),
    /// Resources that are held outside of any attempt.
    Reservations,
    /// Figures.
    Figures,
}

/// What the node wants done. In order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Journal this step, behind all earlier ones.
    Append {
        /// Its number.
        sequence: Sequence,
        /// What happened.
        step: Step,
    },
    /// Answer a request.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer.
        answer: Result<Answer, Rejection>,
    },
    /// Have an agent start or stop an attempt.
    Perform(Effect),
    /// Tell those who watch.
    Tell {
        /// The step that brought the changes about.
        sequence: Sequence,
        /// What came to another state, in order.
        changes: Vec<Change>,
    },
    /// Drop this node: a newer one owns the journal.
    StepDown,
}

/// What a request is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done, or was so already.
    Done,
    /// A submission was accepted, now or before under the same key.
    Accepted {
        /// The root of what it became.
        root: TaskId,
        /// Whether this very submission was accepted.
        fresh: bool,
        /// The root as it is, if the echo asked for it.
        task: Option<Box<TaskRecord>>,
    },
    /// A task.
    Task(Box<TaskRecord>),
    /// Why a task waits, and the task.
    Explained(Box<TaskRecord>, Vec<Blocker>),
    /// What came out of a task.
    Outcome(Outcome),
    /// All tasks of a plan, the root first.
    Plan(Vec<TaskRecord>),
    /// The root that each body became, in order; `None`: it did not come before.
    Remembered(Vec<Option<TaskId>>),
    /// Agents.
    Agents(Vec<AgentState>),
    /// An agent and what it holds, in full.
    Holds(Box<AgentRecord>, Vec<Hold>),
    /// Pools, in the order in which they were asked for.
    Pools(Vec<PoolView>),
    /// What holds for the keys that tasks share.
    Keys(Box<Keys>),
    /// Documents of one kind, by name.
    Entries(Vec<EntryRecord>),
    /// What is held outside of any attempt.
    Reservations(Vec<Reservation>),
    /// Figures.
    Figures(Box<Figures>),
}

/// An agent and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentState {
    /// The agent.
    pub record: AgentRecord,
    /// Task and attempt of what occupies its slots.
    pub held: Vec<(TaskId, Attempt)>,
}

/// The engine's figures at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Since the data directory was made.
    pub counters: Counters,
    /// Tasks that have not ended.
    pub live: u64,
    /// Tasks that wait for an agent.
    pub ready: u64,
    /// Attempts that hold a slot.
    pub held: u64,
    /// Tasks in memory.
    pub in_memory: u64,
    /// Agents that serve, and how many of them hold something.
    pub agents: (u64, u64),
    /// Resources: kind, capacity, allocated, in thousandths.
    pub pools: Vec<(Box<str>, Option<u64>, u64)>,
    /// The last step that is durable.
    pub durable: Sequence,
}

/// The engine and what is between it and the world.
pub struct Node {
    state: State,
    presence: Presence,
    decided: Sequence,
    durable: Sequence,
    /// Replies and effects, each with the step it rests on; in order.
    held: VecDeque<(Sequence, Action)>,
    waiting: BTreeMap<TaskId, Vec<RequestId>>,
    waiting_for: BTreeMap<RequestId, TaskId>,
    /// The journal failed and has not caught up since.
    failing: bool,
    fenced: bool,
    /// The last step was cut at its bound: more follows at once.
    cut: bool,
}

impl Node {
    /// A node that goes on from a recovered state. It decides nothing before its first command,
    /// which must be `Command::BeginEpoch`.
    #[must_use]
    pub fn new(mut state: State) -> Node {
        // What these facts made necessary was done, or was lost, with the server that saw them
        // first.
        state.take_effects();
        let decided = state.sequence();
        Node {
            state,
            presence: Presence::default(),
            decided,
            durable: decided,
            held: VecDeque::new(),
            waiting: BTreeMap::new(),
            waiting_for: BTreeMap::new(),
            failing: false,
            fenced: false,
            cut: false,
        }
    }

    /// Takes an agent for lost that is silent for so long, unless it has a bound of its own;
    /// `limits::HEARTBEAT_TIMEOUT_MS` unless this is called. For agents that are heard of from
    /// then on.
    pub fn lose_agents_after(&mut self, silence_ms: u64) {
        self.presence.lose_agents_after(silence_ms);
    }

    /// Takes one input and says, in `actions`, what is to be done about it.
    pub fn step(&mut self, moment: &Moment, input: Input, actions: &mut Vec<Action>) {
        if self.fenced {
            return;
        }
        match input {
            Input::Request { id, command, echo } => {
                self.request(moment, id, &command, echo, actions);
            }
            Input::Read { id, query } => self.read(id, query, actions),
            Input::Forget { id } => self.forget(id),
            Input::Seen { agent } => {
                let own_ms = self.state.agent(agent).and_then(|agent| agent.spec.silence_ms);
                self.presence.agent_seen(moment.at, (agent, own_ms));
                if let Some(arrived) = self.state.arrival(agent) {
                    self.run(moment, Vec::from([arrived]), actions);
                }
            }
            Input::Progressed { task, attempt } => {
                self.presence.attempt_progressed(moment.at, task, attempt);
            }
            Input::Durable { through } => self.confirm(through),
            Input::AppendFailed => self.fail(actions),
            Input::Fenced => {
                self.fenced = true;
                self.held.clear();
                actions.push(Action::StepDown);
                return;
            }
            Input::Tick => self.tick(moment, actions),
        }
        self.release(actions);
        assert!(self.durable <= self.decided, "the journal is ahead of its only writer");
    }

    /// The engine's state; for reading.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The engine's state, to take changed rows from.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// When `Input::Tick` next has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.cut {
            return Some(self.state.at());
        }
        match (self.state.next_deadline(), self.presence.next_deadline()) {
            (Some(state), Some(presence)) => Some(state.min(presence)),
            (state, presence) => state.or(presence),
        }
    }

    /// Whether the node takes requests at all; if not, they stay in the mailbox.
    #[must_use]
    pub fn takes_requests(&self) -> bool {
        self.inflight() < u64::from(INFLIGHT_STEPS_MAX)
    }

    /// Steps that were decided here and are not durable yet.
    #[must_use]
    pub fn inflight(&self) -> u64 {
        self.decided.0 - self.durable.0
    }

    /// The last durable step.
    #[must_use]
    pub fn durable(&self) -> Sequence {
        self.durable
    }

    /// The reign.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.state.epoch()
    }

    fn request(
        &mut self,
        moment: &Moment,
        id: Option<RequestId>,
        command: &Command,
        echo: Echo,
        actions: &mut Vec<Action>,
    ) {
        if self.failing && id.is_some() {
            return self.answer_now(id, Err(Rejection::StorageUnavailable), actions);
        }
        let answer = match self.state.decide(moment, command) {
            Ok(events) => {
                let fresh = !events.is_empty();
                self.run(moment, events, actions);
                self.watch(moment.at, command);
                let Some(id) = id else { return };
                let answer = self.answer(moment, command, echo, fresh);
                if let (Echo::End, Answer::Accepted { root, .. }) = (echo, &answer) {
                    return self.read(id, Query::Ended(*root), actions);
                }
                Some(Ok(answer))
            }
            // A refusal waits too: what it rests on may not be durable yet.
            Err(refusal) => Some(Err(refusal)),
        };
        if let (Some(id), Some(answer)) = (id, answer) {
            if cfg!(feature = "fault-reply-before-durable") {
                return actions.push(Action::Reply { id, answer });
            }
            self.held.push_back((self.decided, Action::Reply { id, answer }));
        }
    }

    fn answer(&self, moment: &Moment, command: &Command, echo: Echo, fresh: bool) -> Answer {
        let told = |task: TaskId| self.state.task(task).map(Box::new);
        match command {
            Command::Submit { plan } => {
                let own = plan.root().id;
                let before = self.state.accepted_before(moment, plan);
                let root = if fresh { own } else { before.unwrap_or(own) };
                let task = (echo == Echo::Task).then(|| told(root)).flatten();
                Answer::Accepted { root, fresh, task }
            }
            Command::Cancel { task, .. }
            | Command::Retry { task }
            | Command::Amend { task, .. } => match echo {
                Echo::Id => Answer::Done,
                Echo::Task | Echo::End => told(*task).map_or(Answer::Done, Answer::Task),
            },
            Command::Revive { .. }
            | Command::Report { .. }
            | Command::Release { .. }
            | Command::Stall { .. }
            | Command::RegisterAgent { .. }
            | Command::EndAgent { .. }
            | Command::SetCapacity { .. }
            | Command::SetKey { .. }
            | Command::KeepArtifact { .. }
            | Command::SetEntry { .. }
            | Command::Reserve { .. }
            | Command::Unreserve { .. }
            | Command::BeginEpoch { .. }
            | Command::Tick => Answer::Done,
        }
    }

    fn tick(&mut self, moment: &Moment, actions: &mut Vec<Action>) {
        while let Some(command) = self.presence.pop_silent(moment.at) {
            // Refused when it has ended in the meantime: then there is nothing to do.
            if let Ok(events) = self.state.decide(moment, &command) {
                self.run(moment, events, actions);
            }
        }
        self.run(moment, Vec::new(), actions);
    }

    /// Makes one step of `events` and all that follows from them.
    fn run(
        &mut self,
        moment: &Moment,
        mut events: Vec<crate::event::Event>,
        actions: &mut Vec<Action>,
    ) {
        let sequence = self.decided.next();
        if !events.is_empty() {
            self.state.begin_step(sequence, *moment);
            for event in &events {
                self.state.apply(event);
                self.watch_amended(moment.at, event);
            }
        }
        self.cut = loop {
            if events.len() as u64 >= u64::from(STEP_EVENTS_MAX) {
                break true;
            }
            let Some(event) = self.state.follow_up(moment) else { break false };
            if events.is_empty() {
                self.state.begin_step(sequence, *moment);
            }
            self.state.apply(&event);
            events.push(event);
        };
        if events.is_empty() {
            return;
        }
        self.decided = sequence;
        actions.push(Action::Append { sequence, step: Step { moment: *moment, events } });
        if !self.state.changes.is_empty() {
            let changes = core::mem::take(&mut self.state.changes);
            self.held.push_back((sequence, Action::Tell { sequence, changes }));
        }
        self.state.drain_effects(|effect| {
            if let Effect::Start { task, attempt, spec, .. } = &effect
                && let Some(silence_ms) = spec.rare().no_progress_ms
            {
                self.presence.attempt_started(moment.at, *task, *attempt, silence_ms);
            }
            if cfg!(feature = "fault-start-before-durable") {
                actions.push(Action::Perform(effect));
            } else {
                self.held.push_back((sequence, Action::Perform(effect)));
            }
        });
    }

    fn read(&mut self, id: RequestId, query: Query, actions: &mut Vec<Action>) {
        let (answer, rests_on) = match query {
            Query::Task(task) => self.read_task(task),
            Query::Ended(task) => {
                if self.state.ended(task) == Some(false) {
                    self.waiting.entry(task).or_default().push(id);
                    self.waiting_for.insert(id, task);
                    return;
                }
                self.read_task(task)
            }
            Query::Explain(task) => match (self.state.task(task), self.state.explain(task)) {
                (Some(record), Some(blockers)) => {
                    (Ok(Answer::Explained(Box::new(record), blockers)), self.decided)
                }
                _ => self.absent(task),
            },
            Query::Outcome(task) => match self.state.ended(task) {
                Some(_) => (Ok(Answer::Outcome(self.state.outcome(task))), self.decided),
                None => self.absent(task),
            },
            Query::Plan(root) => match self.state.plan(root) {
                Some(tasks) => (Ok(Answer::Plan(tasks)), self.decided),
                None => self.absent(root),
            },
            Query::Remembered { namespace, submitter, keys } => {
                let root = |key| self.state.remembered(&namespace, &submitter, key);
                let roots: Result<Vec<_>, Rejection> = keys.iter().map(root).collect();
                (roots.map(Answer::Remembered), self.decided)
            }
            Query::Agents => {
                let agents = self.state.agents().map(|record| self.agent_state(record)).collect();
                (Ok(Answer::Agents(agents)), self.decided)
            }
            Query::Agent(agent) => {
                let answer = self
                    .state
                    .agent(agent)
                    .map(|record| Answer::Agents(Vec::from([self.agent_state(record)])))
                    .ok_or(Rejection::AgentNotFound(agent));
                (answer, self.decided)
            }
            Query::Holds(agent) => {
                let found = self.state.agent(agent).map(Box::new);
                let answer = found
                    .map(|record| Answer::Holds(record, self.state.holds(agent)))
                    .ok_or(Rejection::AgentNotFound(agent));
                (answer, self.decided)
            }
            Query::Keys => (Ok(Answer::Keys(Box::new(self.state.keys()))), self.decided),
            Query::Pools(models) => (Ok(self.pools(&models)), self.decided),
            Query::Entries(register) => (Ok(self.entries(&register)), self.decided),
            Query::Entry(register, key) => (self.entry(register, key), self.decided),
            Query::Reservations => (Ok(self.reservations()), self.decided),
            Query::Figures => (Ok(Answer::Figures(Box::new(self.figures()))), self.decided),
        };
        if rests_on <= self.durable {
            actions.push(Action::Reply { id, answer });
        } else if self.failing {
            self.answer_now(Some(id), Err(Rejection::StorageUnavailable), actions);
        } else {
            self.held.push_back((self.decided, Action::Reply { id, answer }));
        }
    }

    fn pools(&self, models: &[Arc<AgentSpec>]) -> Answer {
        Answer::Pools(models.iter().map(|model| self.state.pool(model)).collect())
    }

    fn entries(&self, register: &str) -> Answer {
        Answer::Entries(self.state.entries(register).cloned().collect())
    }

    fn entry(&self, register: Name, key: Name) -> Result<Answer, Rejection> {
        match self.state.entry(&register, &key) {
            Some(entry) => Ok(Answer::Entries(Vec::from([entry.clone()]))),
            None => Err(Rejection::EntryNotFound { register, key }),
        }
    }

    fn reservations(&self) -> Answer {
        Answer::Reservations(self.state.reservations().cloned().collect())
    }

    /// A task, and the step that this knowledge rests on.
    fn read_task(&self, task: TaskId) -> (Result<Answer, Rejection>, Sequence) {
        match (self.state.task(task), self.state.changed(task)) {
            (Some(record), Some(changed)) => (Ok(Answer::Task(Box::new(record))), changed),
            _ => self.absent(task),
        }
    }

    /// That a task is not here. It may have left with rows that are not durable yet: whoever is
    /// told so goes and asks for them.
    fn absent(&self, task: TaskId) -> (Result<Answer, Rejection>, Sequence) {
        (Err(Rejection::TaskNotFound(task)), self.state.departed())
    }

    fn agent_state(&self, record: AgentRecord) -> AgentState {
        let held = self.state.held_by(record.spec.id);
        AgentState { record, held }
    }

    fn figures(&self) -> Figures {
        let serving = || self.state.agents().filter(|agent| agent.end.is_none());
        let busy = serving().filter(|agent| !self.state.held_by(agent.spec.id).is_empty()).count();
        Figures {
            counters: self.state.counters(),
            live: self.state.live_count(),
            ready: self.state.ready_count(),
            held: self.state.held_count(),
            in_memory: self.state.tasks_count(),
            agents: (serving().count() as u64, busy as u64),
            pools: self
                .state
                .pools()
                .map(|(kind, pool)| (kind.into(), pool.capacity_milli, pool.allocated_milli))
                .collect(),
            durable: self.durable,
        }
    }

    fn forget(&mut self, id: RequestId) {
        if let Some(task) = self.waiting_for.remove(&id)
            && let Some(requests) = self.waiting.get_mut(&task)
        {
            requests.retain(|held| *held != id);
            if requests.is_empty() {
                self.waiting.remove(&task);
            }
        }
    }

    fn confirm(&mut self, through: Sequence) {
        assert!(self.durable <= through, "durability never goes backwards");
        self.durable = through;
        self.failing = false;
    }

    /// The journal failed: whoever waits is told that it is not known whether it was done. Effects
    /// stay back until the journal has caught up.
    fn fail(&mut self, actions: &mut Vec<Action>) {
        self.failing = true;
        let held = core::mem::take(&mut self.held);
        for (rests_on, action) in held {
            match action {
                Action::Reply { id, .. } => {
                    let answer = Err(Rejection::StorageUnavailable);
                    actions.push(Action::Reply { id, answer });
                }
                Action::Append { .. }
                | Action::Perform(_)
                | Action::Tell { .. }
                | Action::StepDown => {
                    self.held.push_back((rests_on, action));
                }
            }
        }
    }

    fn release(&mut self, actions: &mut Vec<Action>) {
        while self.held.front().is_some_and(|(rests_on, _)| *rests_on <= self.durable) {
            let Some((_, action)) = self.held.pop_front() else { return };
            match action {
                Action::Perform(Effect::Ended { task }) => self.tell_waiting(task, actions),
                action @ (Action::Append { .. }
                | Action::Reply { .. }
                | Action::Perform(Effect::Start { .. } | Effect::Stop { .. })
                | Action::Tell { .. }
                | Action::StepDown) => actions.push(action),
            }
        }
    }

    fn tell_waiting(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        let Some(requests) = self.waiting.remove(&task) else { return };
        for id in requests {
            self.waiting_for.remove(&id);
            // It may have changed since, and that may not be durable: then this waits as any read.
            self.read(id, Query::Ended(task), actions);
        }
    }

    fn answer_now(
        &self,
        id: Option<RequestId>,
        answer: Result<Answer, Rejection>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(id) = id {
            actions.push(Action::Reply { id, answer });
        }
    }

    /// What runs has another time for its next sign of progress, from now on.
    fn watch_amended(&mut self, now: Timestamp, event: &crate::event::Event) {
        let crate::event::Event::Amended { task, spec } = event else { return };
        if let Some(attempt) = self.state.running_attempt(*task) {
            self.presence.bound_silence(now, (*task, attempt), spec.rare().no_progress_ms);
        }
    }

    /// A new worker, and every worker under a new reign, has the full time to be heard of.
    fn watch(&mut self, now: Timestamp, command: &Command) {
        match command {
            Command::RegisterAgent { agent } if agent.runtime == Runtime::Worker => {
                return self.presence.agent_seen(now, (agent.id, agent.silence_ms));
            }
            Command::BeginEpoch { .. } => {}
            Command::Submit { .. }
            | Command::Cancel { .. }
            | Command::Retry { .. }
            | Command::Revive { .. }
            | Command::Report { .. }
            | Command::Release { .. }
            | Command::Stall { .. }
            | Command::RegisterAgent { .. }
            | Command::EndAgent { .. }
            | Command::SetCapacity { .. }
            | Command::SetKey { .. }
            | Command::Amend { .. }
            | Command::KeepArtifact { .. }
            | Command::SetEntry { .. }
            | Command::Reserve { .. }
            | Command::Unreserve { .. }
            | Command::Tick => return,
        }
        let workers = self
            .state
            .agents()
            .filter(|agent| agent.end.is_none() && agent.spec.runtime == Runtime::Worker);
        for agent in workers.map(|agent| (agent.spec.id, agent.spec.silence_ms)) {
            self.presence.agent_seen(now, agent);
        }
    }
}
