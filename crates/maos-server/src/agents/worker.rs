//! Desks of workers: what each has been given and has not answered for, and who waits there.
//!
//! A worker is somewhere else and asks; until it does, its attempts lie on its desk. A desk is a
//! copy of what the engine holds for the worker: it can be dropped at any time and filled again.
//! It must not know how a poll is written, nor who answers for a task.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use maos_api::messages::{Mailbox, Message};
use maos_core::command::Command;
use maos_core::ids::{AgentId, Attempt, TaskId};
use maos_core::limits::STOP_GRACE_MS;
use maos_core::outcome::Outcome;
use maos_core::spec::TaskSpec;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Order, Start};

/// One run of a task.
pub type Key = (TaskId, Attempt);

/// An order is on its way to a desk for no longer than this.
const ORDERS_LATE: Duration = Duration::from_secs(10);
/// Attempts whose end is remembered for that; as many as a desk may have orders on their way.
const OVER_EARLY_MAX: usize = 10_000;

/// Documents of the tasks in one answer, in bytes; a single task may have more.
const HANDED_BYTES_MAX: u64 = 16 << 20;
/// Mailboxes of which a desk remembers what it has handed over.
const MAILBOXES_MAX: usize = 2_000;
/// Desks that are kept before those that nobody uses are looked for.
const DESKS_MIN: usize = 1_024;

/// An attempt that a worker is to run.
#[derive(Debug)]
pub struct Run {
    /// The task.
    pub task: TaskId,
    /// Which run of it.
    pub attempt: Attempt,
    /// What was asked for.
    pub spec: Arc<TaskSpec>,
    /// Outcomes of the tasks that `spec.rare().inputs` names, in that order.
    pub inputs: Vec<Outcome>,
    /// When the engine ends it.
    pub until: Instant,
}

/// The desks of all workers that this server has heard of.
#[derive(Debug)]
pub struct Workers {
    desks: RwLock<HashMap<AgentId, Arc<Desk>>>,
    /// At so many desks those that nobody uses are looked for.
    sweep_at: AtomicUsize,
    closing: Arc<AtomicBool>,
    silence: Duration,
}

/// What one worker has been given.
#[derive(Debug)]
pub struct Desk {
    papers: Mutex<Papers>,
    changed: Notify,
    /// Held by who fills the desk.
    filling: tokio::sync::Mutex<()>,
    closing: Arc<AtomicBool>,
    made: Instant,
    handed_messages: Mutex<Option<Box<HandedMessages>>>,
}

/// Messages that a process of the worker has been given.
#[derive(Clone, Debug)]
pub struct HandedMessages {
    incarnation: u64,
    /// When it was given the last.
    pub at: Instant,
    /// The last of each mailbox.
    pub last: HashMap<Mailbox, u64>,
}

#[derive(Debug, Default)]
struct Papers {
    /// By arrival.
    runs: BTreeMap<u64, Arc<Run>>,
    by_key: HashMap<Key, u64>,
    arrivals: u64,
    stops: BTreeMap<Key, Stop>,
    /// Whether this is all that the engine holds for the worker.
    filled: bool,
    /// Attempts that ended soon after the desk was filled: the order to start one may have been on
    /// its way when it was, and comes too late.
    over_early: HashSet<Key>,
    filled_at: Option<Instant>,
    ended: bool,
    incarnation: u64,
    polls: u64,
    seen: Option<Instant>,
    /// The worker's own bound on its silence.
    silence: Option<Duration>,
}

/// An attempt that must not go on.
#[derive(Clone, Copy, Debug)]
struct Stop {
    told: bool,
    /// Whether the engine waits to hear of its end.
    awaited: bool,
}

/// Which poll somebody waits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    incarnation: u64,
    poll: u64,
}

/// Why a poll is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// A newer process of the worker polls.
    Fenced {
        /// Its number.
        by: u64,
    },
    /// The worker's service has ended.
    Ended,
}

/// What is under an outcome's number.
#[derive(Debug)]
pub enum Settled {
    /// An attempt that goes on as far as this desk knows.
    Run(Arc<Run>),
    /// An attempt that was told to stop.
    Stopping,
    /// Nothing.
    Unknown,
}

/// What a poll is answered with.
#[derive(Debug, Default)]
pub struct Handed {
    /// To be run.
    pub runs: Vec<Arc<Run>>,
    /// To be stopped.
    pub stops: Vec<Key>,
}

/// Empties the desk unless what was taken from it has been settled.
pub struct Unsettled<'d>(Option<&'d Desk>);

impl Unsettled<'_> {
    /// Everything that was taken has been settled.
    pub fn settled(mut self) {
        self.0 = None;
    }
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        if let Some(desk) = self.0 {
            desk.renew();
        }
    }
}

impl Workers {
    /// No desks yet. Workers that are silent for `silence` are lost.
    #[must_use]
    pub fn new(silence: Duration) -> Workers {
        let sweep_at = AtomicUsize::new(DESKS_MIN);
        Workers { desks: RwLock::default(), sweep_at, closing: Arc::default(), silence }
    }

    /// The desk of a worker; there may be none before its first poll.
    #[must_use]
    pub fn desk(&self, agent: AgentId) -> Option<Arc<Desk>> {
        let desks = self.desks.read().expect("nothing panics while it holds this lock");
        desks.get(&agent).cloned()
    }

    /// The desk of a worker, if need be an empty one that is to be filled.
    #[must_use]
    pub fn desk_or_new(&self, agent: AgentId) -> Arc<Desk> {
        if let Some(desk) = self.desk(agent) {
            return desk;
        }
        let mut desks = self.desks.write().expect("nothing panics while it holds this lock");
        if desks.len() >= self.sweep_at.load(Ordering::Relaxed) {
            // Whoever was silent for so long is lost by now, or finds a new desk.
            desks.retain(|_, desk| {
                let keep = desk.silence().unwrap_or(self.silence) * 2;
                desk.seen_within(keep) || desk.made.elapsed() < keep
            });
            let next = (desks.len() * 2).max(DESKS_MIN);
            self.sweep_at.store(next, Ordering::Relaxed);
        }
        let new = || Arc::new(Desk::new(self.closing.clone()));
        desks.entry(agent).or_insert_with(new).clone()
    }

    /// Takes a desk away, because its worker is not one or is gone.
    pub fn clear_away(&self, agent: AgentId) {
        let mut desks = self.desks.write().expect("nothing panics while it holds this lock");
        if let Some(desk) = desks.remove(&agent) {
            desk.end();
        }
    }

    /// A worker's service has ended: whoever waits at its desk is told.
    pub fn end(&self, agent: AgentId) {
        if let Some(desk) = self.desk(agent) {
            desk.end();
        }
    }

    /// Whether the engine may have lost a worker that was heard of last as long ago as this one.
    #[must_use]
    pub fn needs_filling(&self, desk: &Desk) -> bool {
        let silence = desk.silence().unwrap_or(self.silence);
        !desk.papers().filled || !desk.seen_within(silence / 2)
    }

    /// The server is about to end: nobody waits here any more.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        let desks = self.desks.read().expect("nothing panics while it holds this lock");
        for desk in desks.values() {
            desk.changed.notify_waiters();
        }
    }

    /// Puts orders on the desks, all of workers. Of workers without a desk nothing is kept: it is
    /// filled from the engine when there is one. Returns what needs no worker.
    pub(super) fn deliver(&self, orders: Vec<Order>) -> Vec<Command> {
        let mut at_once = Vec::new();
        let mut orders = orders.into_iter().peekable();
        while let Some(first) = orders.peek() {
            let agent = first.agent().id;
            let batch = std::iter::from_fn(|| orders.next_if(|next| next.agent().id == agent));
            match self.desk(agent) {
                Some(desk) => desk.take(batch, &mut at_once),
                None => batch.for_each(drop),
            }
        }
        at_once
    }
}

impl Desk {
    fn new(closing: Arc<AtomicBool>) -> Desk {
        let (papers, changed, filling, handed_messages) = Default::default();
        Desk { papers, changed, filling, closing, made: Instant::now(), handed_messages }
    }

    fn papers(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().expect("nothing panics while it holds this lock")
    }

    /// What this process of the worker has been given so far.
    #[must_use]
    pub fn handed_messages(&self, incarnation: u64) -> HandedMessages {
        let handed = self.handed_messages.lock().expect("nothing panics while it holds this lock");
        match &*handed {
            Some(handed) if handed.incarnation == incarnation => (**handed).clone(),
            Some(_) | None => {
                HandedMessages { incarnation, at: Instant::now(), last: HashMap::new() }
            }
        }
    }

    /// Notes what this process of the worker is given now. What it was given earlier, and is still
    /// in some mailbox, need not be remembered: it comes again with the next.
    pub fn note_messages(&self, incarnation: u64, messages: &[Message]) {
        let mut last = self.handed_messages(incarnation).last;
        if last.len() > MAILBOXES_MAX {
            last.clear();
        }
        for message in messages {
            let known = last.entry(message.mailbox.clone()).or_insert(message.offset);
            *known = message.offset.max(*known);
        }
        let handed = HandedMessages { incarnation, at: Instant::now(), last };
        let mut held =
            self.handed_messages.lock().expect("nothing panics while it holds this lock");
        *held = Some(Box::new(handed));
    }

    /// When the worker was heard of last, since this server started.
    #[must_use]
    pub fn seen(&self) -> Option<Instant> {
        self.papers().seen
    }

    fn seen_within(&self, time: Duration) -> bool {
        self.seen().is_some_and(|seen| seen.elapsed() < time)
    }

    /// Lets one after another fill the desk.
    pub async fn alone(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.filling.lock().await
    }

    /// Has the desk filled anew by the next poll; the worker may have ended and come back.
    pub fn renew(&self) {
        let mut papers = self.papers();
        papers.filled = false;
        papers.ended = false;
    }

    /// Takes everything off the desk. What is delivered from now on stays.
    pub fn empty(&self) {
        let mut papers = self.papers();
        papers.runs.clear();
        papers.by_key.clear();
        papers.stops.clear();
    }

    /// How long the worker may be silent, if it has said so itself.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        self.papers().silence
    }

    /// The worker has said how long it may be silent.
    pub fn keep_silence(&self, silence: Duration) {
        self.papers().silence = Some(silence);
    }

    /// Puts on the desk what the engine holds for the worker: attempts that go on, and those that
    /// are to stop; and the worker's own bound on its silence.
    pub fn fill(&self, runs: Vec<Run>, stops: Vec<Key>, silence: Option<Duration>) {
        let mut papers = self.papers();
        papers.silence = silence;
        for key in stops {
            papers.stop(key);
        }
        for run in runs {
            papers.add(run);
        }
        papers.filled = true;
        papers.filled_at = Some(Instant::now());
        papers.seen = papers.filled_at;
    }

    /// A poll arrives; one that waits is answered at once.
    ///
    /// # Errors
    /// That it comes from a process that has been replaced, or after the worker's end.
    pub fn arrive(&self, incarnation: u64) -> Result<Ticket, Away> {
        let ticket = {
            let mut papers = self.papers();
            if papers.ended {
                return Err(Away::Ended);
            }
            if incarnation < papers.incarnation {
                return Err(Away::Fenced { by: papers.incarnation });
            }
            papers.incarnation = incarnation;
            papers.polls += 1;
            papers.seen = Some(Instant::now());
            Ticket { incarnation, poll: papers.polls }
        };
        self.changed.notify_waiters();
        Ok(ticket)
    }

    /// Takes attempts off the desk that have ended. What the guard is given back for must be
    /// settled with the engine.
    pub fn settle(&self, keys: impl Iterator<Item = Key>) -> (Vec<Settled>, Unsettled<'_>) {
        let mut papers = self.papers();
        papers.remember_no_longer();
        let settled = keys.map(|key| {
            papers.note_over(key);
            match papers.remove(key) {
                Some(run) => Settled::Run(run),
                None if papers.stops.remove(&key).is_some_and(|stop| stop.awaited) => {
                    Settled::Stopping
                }
                None => Settled::Unknown,
            }
        });
        (settled.collect(), Unsettled(Some(self)))
    }

    /// The attempts among these that go on.
    #[must_use]
    pub fn going_on(&self, keys: impl Iterator<Item = Key>) -> HashSet<Key> {
        let papers = self.papers();
        keys.filter(|key| papers.by_key.contains_key(key)).collect()
    }

    /// The attempts among these that the worker may still speak of: those that go on, and those
    /// that are to stop and have not ended yet.
    #[must_use]
    pub fn not_ended(&self, keys: impl Iterator<Item = Key>) -> HashSet<Key> {
        let papers = self.papers();
        let stopping = |key: &Key| papers.stops.get(key).is_some_and(|stop| stop.awaited);
        keys.filter(|key| papers.by_key.contains_key(key) || stopping(key)).collect()
    }

    /// Notes what the worker holds: what it no longer stops is released, and what is none of its
    /// business is to be stopped.
    #[must_use]
    pub fn compare(&self, held: &HashSet<Key>) -> Vec<Command> {
        let mut papers = self.papers();
        let mut released = Vec::new();
        papers.stops.retain(|key, stop| {
            let keep = held.contains(key);
            if !keep && stop.awaited {
                released.push(Command::Release { task: key.0, attempt: key.1 });
            }
            keep
        });
        for key in held {
            if !papers.by_key.contains_key(key) {
                papers.stops.entry(*key).or_insert(Stop { told: false, awaited: false });
            }
        }
        released
    }

    /// Waits until there is something for the worker, at most until `until`: runs that are not
    /// `held`, at most `most`, or something to stop that it has not been told of.
    ///
    /// # Errors
    /// Why there will be nothing for it.
    pub async fn next(
        &self,
        ticket: Ticket,
        held: &HashSet<Key>,
        most: usize,
        until: Instant,
    ) -> Result<Handed, Away> {
        let mut until = until;
        loop {
            let changed = self.changed.notified();
            {
                let mut papers = self.papers();
                if papers.ended {
                    return Err(Away::Ended);
                }
                if ticket.incarnation < papers.incarnation {
                    return Err(Away::Fenced { by: papers.incarnation });
                }
                if ticket.poll != papers.polls {
                    return Ok(Handed::default());
                }
                if !papers.stops.is_empty() {
                    // An answer may be lost: it is told again, but not in a hurry.
                    until = until.min(Instant::now() + Duration::from_millis(STOP_GRACE_MS));
                }
                let closing = self.closing.load(Ordering::Acquire);
                let runs = if closing { Vec::new() } else { papers.pick(held, most) };
                let news = !runs.is_empty() || papers.stops.values().any(|stop| !stop.told);
                if news || closing || Instant::now() >= until {
                    papers.seen = Some(Instant::now());
                    papers.stops.values_mut().for_each(|stop| stop.told = true);
                    let stops = papers.stops.keys().copied().collect();
                    return Ok(Handed { runs, stops });
                }
            }
            drop(tokio::time::timeout_at(until, changed).await);
        }
    }

    /// The worker's service has ended.
    fn end(&self) {
        self.papers().ended = true;
        self.changed.notify_waiters();
    }

    fn take(&self, orders: impl Iterator<Item = Order>, at_once: &mut Vec<Command>) {
        {
            let mut papers = self.papers();
            for order in orders {
                match order {
                    Order::Start(start) => {
                        let key = (start.task, start.attempt);
                        if !papers.over_early.contains(&key) {
                            papers.add(run(*start));
                        }
                    }
                    Order::Stop(task, attempt, _) => {
                        let key = (task, attempt);
                        // It may have said already how it went.
                        if papers.remove(key).is_some() || !papers.filled {
                            papers.stop(key);
                        } else if !papers.stops.contains_key(&key) {
                            at_once.push(Command::Release { task, attempt });
                        }
                    }
                }
            }
        }
        self.changed.notify_waiters();
    }
}

impl Papers {
    fn add(&mut self, run: Run) {
        let key = (run.task, run.attempt);
        if self.by_key.contains_key(&key) || self.stops.contains_key(&key) {
            return;
        }
        self.by_key.insert(key, self.arrivals);
        self.runs.insert(self.arrivals, Arc::new(run));
        self.arrivals += 1;
    }

    fn note_over(&mut self, key: Key) {
        let early = self.filled_at.is_some() && self.over_early.len() < OVER_EARLY_MAX;
        if early {
            self.over_early.insert(key);
        }
    }

    fn remember_no_longer(&mut self) {
        if self.filled_at.is_some_and(|at| at.elapsed() > ORDERS_LATE) {
            self.filled_at = None;
            self.over_early = HashSet::new();
        }
    }

    fn remove(&mut self, key: Key) -> Option<Arc<Run>> {
        let arrival = self.by_key.remove(&key)?;
        self.runs.remove(&arrival)
    }

    fn stop(&mut self, key: Key) {
        self.remove(key);
        let stop = self.stops.entry(key).or_insert(Stop { told: false, awaited: true });
        stop.awaited = true;
    }

    fn pick(&self, held: &HashSet<Key>, most: usize) -> Vec<Arc<Run>> {
        let mut bytes = 0;
        let free = self.runs.values().filter(|run| !held.contains(&(run.task, run.attempt)));
        let mut picked = Vec::with_capacity(most.min(self.runs.len()));
        for run in free.take(most) {
            bytes += run.bytes();
            if bytes > HANDED_BYTES_MAX && !picked.is_empty() {
                break;
            }
            picked.push(run.clone());
        }
        picked
    }
}

impl Run {
    fn bytes(&self) -> u64 {
        fn of(outcome: &Outcome) -> u64 {
            match outcome {
                Outcome::Nothing => 0,
                Outcome::Payload(payload) => payload.bytes(),
                Outcome::List(parts) => parts.iter().map(of).sum(),
            }
        }
        let metadata = self.spec.metadata.as_ref().map_or(0, |metadata| metadata.bytes());
        self.spec.parameters.bytes() + metadata + self.inputs.iter().map(of).sum::<u64>()
    }
}

fn run(start: Start) -> Run {
    let Start { task, attempt, spec, inputs, timeout, .. } = start;
    Run { task, attempt, spec, inputs, until: Instant::now() + timeout }
}

#[cfg(test)]
mod tests {
    use maos_core::ids::NodeId;
    use maos_core::payload::Payload;
    use maos_core::spec::{AgentSpec, Amounts, Names, Runtime};

    use super::*;

    const AGENT: AgentId = AgentId(1);

    fn spec() -> Arc<AgentSpec> {
        Arc::new(AgentSpec {
            id: AGENT,
            namespace: "default".into(),
            submitter: "".into(),
            name: "w".into(),
            agent_type: "w".into(),
            capabilities: Names::default(),
            runtime: Runtime::Worker,
            node: NodeId(1),
            slots: 9,
            pool: None,
            configuration: None,
            resource_limits: Amounts::default(),
            tags: Names::default(),
            silence_ms: None,
        })
    }

    fn start(task: u128, bytes: u64) -> Order {
        let parameters = Payload::stored([0; 32], bytes);
        let spec_of_task = TaskSpec { parameters, ..TaskSpec::new("a") };
        Order::Start(Box::new(Start {
            task: TaskId(task),
            attempt: Attempt(1),
            agent: spec(),
            spec: Arc::new(spec_of_task),
            timeout: Duration::from_secs(1),
            inputs: Vec::new(),
        }))
    }

    fn stop(task: u128) -> Order {
        Order::Stop(TaskId(task), Attempt(1), spec())
    }

    fn key(task: u128) -> Key {
        (TaskId(task), Attempt(1))
    }

    fn release(task: u128) -> Command {
        Command::Release { task: TaskId(task), attempt: Attempt(1) }
    }

    /// What a worker that holds `held` is told at once.
    async fn told(desk: &Desk, held: &HashSet<Key>) -> (Vec<TaskId>, Vec<Key>) {
        let ticket = desk.arrive(1).unwrap();
        let handed = desk.next(ticket, held, 10, Instant::now()).await.unwrap();
        (handed.runs.iter().map(|run| run.task).collect(), handed.stops)
    }

    #[tokio::test]
    async fn an_order_that_comes_behind_the_end_of_its_attempt_is_not_handed_out() {
        let desk = Desk::new(Arc::default());
        let Order::Start(order) = start(1, 10) else { unreachable!("it is made so") };
        // The engine told of it before its order came.
        desk.fill(vec![run(*order)], vec![], None);
        assert_eq!(told(&desk, &HashSet::new()).await.0, [TaskId(1)]);
        let (settled, guard) = desk.settle([key(1)].into_iter());
        assert!(matches!(settled[..], [Settled::Run(_)]));
        guard.settled();
        let mut at_once = Vec::new();
        desk.take([start(1, 10), start(2, 10)].into_iter(), &mut at_once);
        assert_eq!(told(&desk, &HashSet::new()).await.0, [TaskId(2)]);
    }

    #[tokio::test]
    async fn a_stop_waits_for_whoever_may_still_run_it_and_for_nobody_else() {
        let workers = Workers::new(Duration::from_secs(90));
        assert!(workers.deliver(vec![start(1, 1), stop(1)]).is_empty(), "there is no desk");
        let desk = workers.desk_or_new(AGENT);
        // Not filled yet: the worker may run it since before this server started.
        assert!(workers.deliver(vec![start(1, 1), stop(2), start(3, 1)]).is_empty());
        let run = |task| Run {
            task: TaskId(task),
            attempt: Attempt(1),
            spec: Arc::new(TaskSpec::new("a")),
            inputs: Vec::new(),
            until: Instant::now(),
        };
        desk.fill(vec![run(1), run(2)], Vec::new(), None);
        let held = HashSet::from([key(1), key(2), key(9)]);
        assert!(desk.compare(&held).is_empty());
        assert_eq!(told(&desk, &held).await, (vec![TaskId(3)], vec![key(2), key(9)]));
        // The engine waits for the end of the second, and has never heard of the ninth.
        assert_eq!(desk.compare(&HashSet::from([key(1)])), [release(2)]);
        let (settled, unsettled) = desk.settle([key(1), key(1)].into_iter());
        assert!(matches!(settled[..], [Settled::Run(_), Settled::Unknown]));
        unsettled.settled();
        assert_eq!(workers.deliver(vec![stop(1)]), [release(1)], "it has said how it went");
        assert!(!workers.needs_filling(&desk));
        drop(desk.settle([key(3)].into_iter()));
        assert!(workers.needs_filling(&desk), "nobody knows what became of the third");
    }

    #[tokio::test]
    async fn an_answer_holds_no_more_than_its_bound_but_always_one() {
        let workers = Workers::new(Duration::from_secs(90));
        let desk = workers.desk_or_new(AGENT);
        let half = HANDED_BYTES_MAX / 2;
        workers.deliver(vec![start(1, HANDED_BYTES_MAX * 2), start(2, half), start(3, half)]);
        assert_eq!(told(&desk, &HashSet::new()).await.0, [TaskId(1)]);
        assert_eq!(told(&desk, &HashSet::from([key(1)])).await.0, [TaskId(2), TaskId(3)]);
    }

    #[tokio::test]
    async fn desks_that_nobody_uses_are_cleared_away() {
        let workers = Workers::new(Duration::ZERO);
        for number in 0..=DESKS_MIN as u128 {
            drop(workers.desk_or_new(AgentId(number)));
        }
        assert_eq!(workers.desks.read().unwrap().len(), 1);
    }
}
