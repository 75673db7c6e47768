//! The driver: the one loop that owns the node, and the only place where it meets clocks and
//! threads.
//!
//! The loop waits in one place, feeds the node one input at a time and carries out what it says.
//! While one group commit is on its way to disk, the next one gathers here. It must not know HTTP.

mod clock;
mod mailbox;
#[cfg(test)]
mod tests;
mod writer;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use maos_core::change::Change;
use maos_core::command::Command;
use maos_core::engine::Effect;
use maos_core::event::Step;
use maos_core::ids::{Epoch, Position, Sequence};
use maos_core::node::{Action, Answer, Echo, Input, Node, RequestId};
use maos_core::rejection::Rejection;
use maos_core::time::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::agents::{Order, Start};
use crate::journal::Journal;
use crate::store::Changes;
use clock::Clocks;
pub use mailbox::{BusyDisk, HandedIn, Handle, Refused, Wait};
use mailbox::{Message, Reply, ReplyTo, Shared};
use writer::{Ack, Group, Writer};

/// Commands that are decided before the loop looks at anything else: a few milliseconds' work. With
/// fewer the journal gets its next group sooner, and writes more and smaller ones, which costs more
/// than it brings when the processor is what there is too little of. What came as one message is
/// decided in one go, however much it is.
const TAKE_MAX: usize = 2_000;
/// How long the loop stays awake behind the last message.
const LINGER: Duration = Duration::from_micros(200);
/// Groups of so few steps are appended by the loop itself, if it has nothing else to do.
const STEPS_HERE_MAX: usize = 2;
/// Groups that are appended so before the loop looks at its mailbox again.
const ROUNDS_MAX: u32 = 8;
/// While groups follow one another, rows are taken this seldom, unless somebody wants them or there
/// are so many that taking them would hold up the loop: a task that is over by then has one row,
/// not one for each group that changed it.
const ROWS_EVERY_US: u64 = 100_000;
const ROWS_MAX: usize = 8_192;
/// Bits of a request's id that tell the commands of one batch apart.
const INDEX_BITS: u32 = 20;
/// The journal is trimmed when the store is this many steps ahead of the last trim.
const TRIM_STEPS: u64 = 20_000;

/// What the driver hands on and hears back from: the store, the agents.
pub struct Ports {
    /// Where attempts go. Never more than the agents' slots.
    pub orders: mpsc::UnboundedSender<Vec<Order>>,
    /// The report of an attempt that needs no agent's time: asked before orders are sent.
    pub at_once: fn(&Order) -> Option<Command>,
    /// Takes what came to another state, durable, once somebody watches.
    pub tell: Box<dyn FnMut(Epoch, Sequence, Vec<Change>) + Send>,
    /// Takes rows that are durable in the journal; must not block.
    pub keep: Box<dyn FnMut(Changes) + Send>,
    /// The last position that the store has synced.
    pub kept: tokio::sync::watch::Receiver<Position>,
    /// Told when tasks wait for an agent, once somebody wants to know.
    pub waiting: Arc<Waiting>,
}

/// Tells somebody that something happened while tasks wait for an agent, without their asking again
/// and again.
#[derive(Debug, Default)]
pub struct Waiting {
    wanted: AtomicBool,
    stirred: tokio::sync::Notify,
}

impl Waiting {
    /// From now on counts for [`Waiting::next`]. To be called before a look, so that what happens
    /// behind it is not missed.
    pub fn arm(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    /// Returns once there was a step while tasks wait for an agent, or a [`Waiting::stir`], since
    /// this was armed.
    pub async fn next(&self) {
        self.stirred.notified().await;
    }

    /// Has whoever waits look.
    pub fn stir(&self) {
        self.stirred.notify_one();
    }

    fn tell(&self) {
        if self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::AcqRel) {
            self.stir();
        }
    }
}

/// How the driver came to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop; everything decided is durable.
    Stopped,
    /// A newer reign owns the journal.
    Fenced,
}

/// A running driver.
pub struct Running {
    /// How to reach it.
    pub handle: Handle,
    thread: std::thread::JoinHandle<Ended>,
    stop: CancellationToken,
}

impl Running {
    /// Decides nothing more, waits until all that was decided is durable, and ends the loop.
    pub async fn stop(self) -> Ended {
        self.stop.cancel();
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        match joined {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) | Err(_) => panic!("the engine's loop panicked"),
        }
    }
}

/// Starts the loop on a thread of its own.
///
/// # Errors
/// When a thread cannot be started.
pub fn start(
    node: Node,
    journal: Box<dyn Journal>,
    ports: Ports,
    capacity: usize,
) -> std::io::Result<Running> {
    let (handle, mailbox) = mailbox::open(capacity);
    let shared = handle.shared.clone();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let writer = Writer::start(journal)?;
    let thread = std::thread::Builder::new().name("maos-engine".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime without I/O needs nothing that could be missing");
        runtime.block_on(Driver::new(node, writer, ports, shared).run(mailbox, stopped))
    })?;
    Ok(Running { handle, thread, stop })
}

/// Everything that can wake the loop.
enum Wake {
    Stop,
    Ack(Ack),
    Message(Message),
    Deadline,
    Kept,
}

struct Driver {
    node: Node,
    clocks: Clocks,
    writer: Writer,
    ports: Ports,
    /// By number; what is asked under one number is told apart by an index.
    waiting: HashMap<u64, ReplyTo>,
    next_number: u64,
    actions: Vec<Action>,
    /// Steps that wait for the journal to take them.
    gathering: Vec<Step>,
    gathering_first: Sequence,
    /// Rows as of the last step that is on its way to disk.
    in_flight: Option<Changes>,
    rows_taken: Timestamp,
    /// When a message was taken last.
    busy_at: Instant,
    orders: Vec<Order>,
    trimmed: Sequence,
    /// The last step that found tasks waiting for an agent.
    told_at: Sequence,
    shared: Shared,
    /// Reset by the journal's fault, so that it is logged once.
    healthy: bool,
    /// Asked to stop: nothing is started any more.
    stopping: bool,
}

impl Driver {
    fn new(node: Node, writer: Writer, ports: Ports, shared: Shared) -> Driver {
        let clocks = Clocks::resume(node.state().at(), shared.ahead_us.clone());
        let first = node.durable().next();
        Driver {
            node,
            clocks,
            writer,
            ports,
            waiting: HashMap::new(),
            next_number: 0,
            actions: Vec::new(),
            gathering: Vec::new(),
            gathering_first: first,
            in_flight: None,
            rows_taken: Timestamp(0),
            busy_at: Instant::now(),
            orders: Vec::new(),
            trimmed: Sequence(0),
            told_at: Sequence(0),
            shared,
            healthy: true,
            stopping: false,
        }
    }

    async fn run(mut self, mut mailbox: mailbox::Mailbox, stop: CancellationToken) -> Ended {
        loop {
            self.linger(&mailbox);
            let deadline = self.until_deadline();
            let kept = &mut self.ports.kept;
            let wake = tokio::select! {
                biased; // Durability before new work; the same order in every run.
                Some(ack) = self.writer.acks.recv() => Wake::Ack(ack),
                () = stop.cancelled(), if !self.writer.busy || !self.healthy => Wake::Stop,
                Some(message) = mailbox.reports.recv() => Wake::Message(message),
                Some(message) = mailbox.requests.recv(), if self.node.takes_requests() => {
                    Wake::Message(message)
                }
                () = sleep(deadline) => Wake::Deadline,
                Ok(()) = kept.changed() => Wake::Kept,
            };
            let began = Instant::now();
            self.stopping = stop.is_cancelled();
            match wake {
                // What a failing journal does not take was never acknowledged.
                Wake::Stop if self.gathering.is_empty() || !self.healthy => return Ended::Stopped,
                Wake::Stop => {}
                Wake::Ack(ack) => {
                    if self.acknowledge(ack) == Some(Ended::Fenced) {
                        return Ended::Fenced;
                    }
                }
                Wake::Message(first) => {
                    self.busy_at = began;
                    self.receive_all(first, &mut mailbox);
                }
                Wake::Deadline => {}
                Wake::Kept => self.let_go(),
            }
            self.catch_up();
            // A look is a turn as well, but no step: it does not call for another one.
            let stepped_to = self.node.state().sequence();
            if stepped_to > self.told_at && self.node.state().ready_count() > 0 {
                self.told_at = stepped_to;
                self.ports.waiting.tell();
            }
            let mut rounds = 0;
            while rounds < ROUNDS_MAX && mailbox.is_empty() && self.commit_here() {
                rounds += 1;
            }
            self.commit();
            self.note_turn(began.elapsed());
        }
    }

    fn note_turn(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if took > self.shared.turn_us_max.load(Ordering::Relaxed) {
            self.shared.turn_us_max.fetch_max(took, Ordering::Relaxed);
        }
    }

    /// Looks out for a moment before the thread goes to sleep: who has just been answered often
    /// asks again at once, and waking a thread takes longer than answering.
    fn linger(&mut self, mailbox: &mailbox::Mailbox) {
        let until = self.busy_at + LINGER;
        while mailbox.is_empty() && self.writer.acks.is_empty() && Instant::now() < until {
            std::thread::yield_now();
        }
    }

    /// What is due whatever woke the loop: under load, the arms further down may never be reached.
    fn catch_up(&mut self) {
        if self.until_deadline() == Some(Duration::ZERO) {
            self.feed(Input::Tick);
        }
        if self.ports.kept.has_changed().unwrap_or(false) {
            self.let_go();
        }
    }

    /// Takes in this message and what is there behind it, reports first.
    fn receive_all(&mut self, first: Message, mailbox: &mut mailbox::Mailbox) {
        let (mut next, mut taken) = (Some(first), 0);
        while let Some(message) = next {
            taken += message.commands_count();
            // Once for all that came in it: it is the same moment.
            self.clocks.read();
            self.receive(message);
            let more = taken < TAKE_MAX;
            next = more.then(|| mailbox.take(self.node.takes_requests())).flatten();
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Command { command, echo, reply } => {
                let id = reply.map(|reply| self.expect_reply(ReplyTo::One(reply)));
                self.feed(Input::Request { id, command, echo });
            }
            Message::Reports(commands) => {
                for command in commands {
                    self.feed(Input::Request { id: None, command, echo: Echo::Id });
                }
            }
            Message::Batch { commands, echo, reply } => {
                let batch = mailbox::BatchReply::new(commands.len(), reply);
                let first = self.expect_reply(ReplyTo::Batch(batch));
                for (index, command) in (0..).zip(commands) {
                    let id = Some(RequestId(first.0 + index));
                    self.feed(Input::Request { id, command, echo });
                }
            }
            Message::Read { query, reply } => {
                let id = self.expect_reply(ReplyTo::One(reply));
                self.feed(Input::Read { id, query });
            }
            Message::RunToEnd { command, id, reply } => {
                let id = self.expect_wait(id, reply);
                self.feed(Input::Request { id, command, echo: Echo::End });
            }
            Message::Wait { query, id, reply } => {
                if let Some(id) = self.expect_wait(id, reply) {
                    self.feed(Input::Read { id, query });
                }
            }
            Message::Watch { reply } => {
                let state = self.node.state_mut();
                state.watch(true);
                let (epoch, sequence) = (state.epoch(), state.sequence());
                // Whoever asked may have gone away.
                let _ = reply.send(Position { epoch, sequence });
            }
            Message::Forget { id } => {
                self.waiting.remove(&id);
                self.feed(Input::Forget { id: RequestId(id << INDEX_BITS) });
            }
            Message::Progressed { task, attempt } => self.feed(Input::Progressed { task, attempt }),
            Message::Seen { agent } => self.feed(Input::Seen { agent }),
        }
    }

    /// `None` when nobody waits any more: that may be heard of first.
    fn expect_wait(&mut self, id: u64, reply: Reply) -> Option<RequestId> {
        if reply.is_closed() {
            return None;
        }
        self.waiting.insert(id, ReplyTo::One(reply));
        Some(RequestId(id << INDEX_BITS))
    }

    fn expect_reply(&mut self, reply: ReplyTo) -> RequestId {
        // Even: those of waits are odd and made by who waits.
        self.next_number += 2;
        self.waiting.insert(self.next_number, reply);
        RequestId(self.next_number << INDEX_BITS)
    }

    fn feed(&mut self, input: Input) {
        let moment = self.clocks.moment();
        let mut actions = std::mem::take(&mut self.actions);
        self.node.step(&moment, input, &mut actions);
        for action in actions.drain(..) {
            self.perform(action);
        }
        self.actions = actions;
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Append { sequence, step } => {
                let expected = self.gathering_first.0 + self.gathering.len() as u64;
                assert!(sequence.0 == expected, "steps are journaled in order");
                self.gathering.push(step);
            }
            Action::Reply { id, answer } => self.reply(id, answer),
            Action::Perform(effect) => {
                if let Some(order) = self.order(effect) {
                    self.orders.push(order);
                }
            }
            Action::Tell { sequence, changes } => {
                (self.ports.tell)(self.node.epoch(), sequence, changes);
            }
            Action::StepDown => error!("a newer server owns the journal: this one steps down"),
        }
    }

    fn reply(&mut self, id: RequestId, answer: Result<Answer, Rejection>) {
        let (number, index) = (id.0 >> INDEX_BITS, id.0 & ((1 << INDEX_BITS) - 1));
        let index = usize::try_from(index).expect("a batch's index is small");
        let Entry::Occupied(mut waiting) = self.waiting.entry(number) else { return };
        match waiting.get_mut() {
            ReplyTo::Batch(batch) => {
                if batch.set(index, answer)
                    && let ReplyTo::Batch(batch) = waiting.remove()
                {
                    batch.send();
                }
            }
            ReplyTo::One(_) => {
                if let ReplyTo::One(reply) = waiting.remove() {
                    // Whoever asked may have gone away; what it asked for stands anyway.
                    drop(reply.send(answer));
                }
            }
        }
    }

    fn order(&mut self, effect: Effect) -> Option<Order> {
        match effect {
            Effect::Start { task, attempt, agent, spec, timeout } => {
                let state = self.node.state();
                let inputs =
                    spec.rare().inputs.iter().map(|input| state.outcome(input.task)).collect();
                let timeout = Duration::from_micros(timeout.0.saturating_sub(self.clocks.last().0));
                let start = Start { task, attempt, agent, spec, timeout, inputs };
                Some(Order::Start(Box::new(start)))
            }
            Effect::Stop { task, attempt, agent } => Some(Order::Stop(task, attempt, agent)),
            Effect::Ended { .. } => None,
        }
    }

    /// Sends what has gathered on its way, if nothing else is.
    fn commit(&mut self) {
        self.send_orders();
        if let Some(group) = self.take_group() {
            self.writer.append(group);
        }
    }

    /// The same on this thread, for the little that there is on an idle server; `true` if that is
    /// done, so that something new may have come of it.
    fn commit_here(&mut self) -> bool {
        if self.gathering.len() > STEPS_HERE_MAX || self.orders.len() > STEPS_HERE_MAX {
            return false;
        }
        // A commit beside a large copy may take a hundred times as long: nobody but who asked for
        // it is to wait for that.
        if self.shared.disk_users.load(Ordering::Acquire) > 0 {
            return false;
        }
        self.send_orders();
        let Some(group) = self.take_group() else { return false };
        let Some(ack) = self.writer.append_here(group) else { return false };
        // Only the journal's thread says that there is a newer reign.
        self.acknowledge(ack).is_none()
    }

    /// Sends orders to the agents; what needs nobody's time is reported in their place, which takes
    /// less than handing it to another thread would.
    fn send_orders(&mut self) {
        if self.stopping {
            // There would be no end while tasks wait. What was decided to start and is not known of
            // is lost as in a crash, or a worker's, who is sent it by the next server.
            return self.orders.clear();
        }
        for order in std::mem::take(&mut self.orders) {
            match (self.ports.at_once)(&order) {
                Some(command) => self.feed(Input::Request { id: None, command, echo: Echo::Id }),
                None => self.orders.push(order),
            }
        }
        if !self.orders.is_empty() {
            // The agents are gone only when the whole server stops.
            drop(self.ports.orders.send(std::mem::take(&mut self.orders)));
        }
    }

    /// What has gathered, if nothing else is on its way to disk.
    fn take_group(&mut self) -> Option<Group> {
        if self.writer.busy || self.gathering.is_empty() {
            return None;
        }
        // The next group is likely to be as large as this one.
        let next = Vec::with_capacity(self.gathering.len());
        let steps = std::mem::replace(&mut self.gathering, next);
        let first = self.gathering_first;
        let last = Sequence(first.0 + steps.len() as u64 - 1);
        self.gathering_first = last.next();
        let now = self.clocks.last();
        if now.0 >= self.rows_taken.0 + ROWS_EVERY_US
            || self.node.state().changed_count() >= ROWS_MAX
            || self.shared.rows_wanted.swap(false, Ordering::Relaxed)
        {
            let changes = self.take_rows();
            assert!(changes.engine.position.sequence == last, "rows are as of the last step");
            self.in_flight = Some(changes);
        }
        Some(Group { epoch: self.node.epoch(), first, last, steps })
    }

    /// Everything that changed since this was done last, as of the last step. What is at rest
    /// leaves the engine with it.
    fn take_rows(&mut self) -> Changes {
        self.rows_taken = self.clocks.last();
        let state = self.node.state_mut();
        let mut changes = Changes { engine: state.engine_record(), ..Changes::default() };
        changes.tasks.reserve(state.changed_count());
        state.take_changed_tasks(|row| changes.tasks.push(row));
        changes.agents = state.take_changed_agents();
        changes.entries = state.take_changed_entries();
        changes
    }

    fn acknowledge(&mut self, ack: Ack) -> Option<Ended> {
        match ack {
            Ack::Durable { through } => {
                if !std::mem::replace(&mut self.healthy, true) {
                    info!("the journal takes appends again");
                    self.shared.set_journal_fault(None);
                }
                self.writer.busy = false;
                // Handed on first: the store finds rows from then on, written or not, and whoever
                // is told below that a task is no longer here asks there.
                if let Some(changes) = self.in_flight.take() {
                    (self.ports.keep)(changes);
                }
                self.feed(Input::Durable { through });
                if self.node.inflight() == 0 {
                    // Nothing more is on its way: the store need not wait for the rest.
                    let changes = self.take_rows();
                    (self.ports.keep)(changes);
                }
            }
            Ack::Failed(fault) => {
                if std::mem::replace(&mut self.healthy, false) {
                    error!("{fault}; requests are refused until it works again");
                }
                self.shared.set_journal_fault(Some(fault.cause()));
                self.feed(Input::AppendFailed);
            }
            Ack::Fenced => {
                self.feed(Input::Fenced);
                return Some(Ended::Fenced);
            }
            Ack::TrimFailed(fault) => warn!("the journal could not be trimmed: {fault}"),
        }
        None
    }

    /// The store has more on disk: the journal lets go of what it need not keep.
    fn let_go(&mut self) {
        let kept = self.ports.kept.borrow_and_update().sequence;
        if kept.0 >= self.trimmed.0 + TRIM_STEPS {
            self.trimmed = kept;
            self.writer.trim(kept);
        }
    }

    fn until_deadline(&mut self) -> Option<Duration> {
        let deadline = self.node.next_deadline()?;
        let now = self.clocks.read();
        Some(Duration::from_micros(deadline.0.saturating_sub(now.0)))
    }
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// The first command of every node.
#[must_use]
pub fn begin(epoch: Epoch, node: maos_core::ids::NodeId) -> Command {
    Command::BeginEpoch { epoch, node }
}
