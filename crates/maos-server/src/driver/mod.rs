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
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use maos_core::command::Command;
use maos_core::engine::Effect;
use maos_core::event::Step;
use maos_core::ids::{Epoch, Position, Sequence};
use maos_core::node::{Action, Answer, Echo, Input, Node, RequestId};
use maos_core::rejection::Rejection;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::agents::{Order, Start};
use crate::journal::Journal;
use crate::store::Changes;
use clock::Clocks;
pub use mailbox::{Handle, Refused};
use mailbox::{Message, ReplyTo};
use writer::{Ack, Group, Writer};

/// Requests that are taken from the mailbox before the loop looks at anything else.
const TAKE_MAX: usize = 512;
/// Plans that leave memory in one turn of the loop.
const EVICT_MAX: usize = 4_096;
/// The journal is trimmed when the store is this many steps ahead of the last trim.
const TRIM_STEPS: u64 = 20_000;

/// What the driver hands on and hears back from: the store, the agents.
pub struct Ports {
    /// Where attempts go. Never more than the agents' slots.
    pub orders: mpsc::UnboundedSender<Vec<Order>>,
    /// Takes rows that are durable in the journal; must not block.
    pub keep: Box<dyn FnMut(Changes) + Send>,
    /// The last position that the store has synced.
    pub kept: tokio::sync::watch::Receiver<Position>,
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
    let ahead_us = handle.ahead_us.clone();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let writer = Writer::start(journal)?;
    let thread = std::thread::Builder::new().name("maos-engine".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime without I/O needs nothing that could be missing");
        runtime.block_on(Driver::new(node, writer, ports, ahead_us).run(mailbox, stopped))
    })?;
    Ok(Running { handle, thread, stop })
}

/// Everything that can wake the loop.
enum Wake {
    Stop,
    Ack(Ack),
    Messages,
    Deadline,
    Kept,
}

struct Driver {
    node: Node,
    clocks: Clocks,
    writer: Writer,
    ports: Ports,
    waiting: HashMap<u64, ReplyTo>,
    next_request: u64,
    actions: Vec<Action>,
    /// Steps that wait for the journal to take them.
    gathering: Vec<Step>,
    gathering_first: Sequence,
    /// Rows as of the last step that is on its way to disk.
    in_flight: Option<Changes>,
    orders: Vec<Order>,
    trimmed: Sequence,
    /// Reset by the journal's fault, so that it is logged once.
    healthy: bool,
}

impl Driver {
    fn new(node: Node, writer: Writer, ports: Ports, ahead_us: Arc<AtomicI64>) -> Driver {
        let clocks = Clocks::resume(node.state().at(), ahead_us);
        let first = node.durable().next();
        Driver {
            node,
            clocks,
            writer,
            ports,
            waiting: HashMap::new(),
            next_request: 1,
            actions: Vec::new(),
            gathering: Vec::new(),
            gathering_first: first,
            in_flight: None,
            orders: Vec::new(),
            trimmed: Sequence(0),
            healthy: true,
        }
    }

    async fn run(mut self, mut mailbox: mailbox::Mailbox, stop: CancellationToken) -> Ended {
        let mut taken: Vec<Message> = Vec::with_capacity(TAKE_MAX);
        loop {
            let deadline = self.until_deadline();
            let kept = &mut self.ports.kept;
            let wake = tokio::select! {
                biased; // Durability before new work; the same order in every run.
                Some(ack) = self.writer.acks.recv() => Wake::Ack(ack),
                () = stop.cancelled(), if !self.writer.busy || !self.healthy => Wake::Stop,
                Some(message) = mailbox.reports.recv() => { taken.push(message); Wake::Messages }
                Some(message) = mailbox.requests.recv(), if self.node.takes_requests() => {
                    taken.push(message);
                    Wake::Messages
                }
                () = sleep(deadline) => Wake::Deadline,
                Ok(()) = kept.changed() => Wake::Kept,
            };
            match wake {
                // What a failing journal does not take was never acknowledged.
                Wake::Stop if self.gathering.is_empty() || !self.healthy => return Ended::Stopped,
                Wake::Stop => {}
                Wake::Ack(ack) => {
                    if self.acknowledge(ack) == Some(Ended::Fenced) {
                        return Ended::Fenced;
                    }
                }
                Wake::Messages => {
                    mailbox.take_more(&mut taken, TAKE_MAX, self.node.takes_requests());
                    for message in taken.drain(..) {
                        self.receive(message);
                    }
                }
                Wake::Deadline => {}
                Wake::Kept => self.let_go(),
            }
            self.catch_up();
            self.commit();
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
                for (index, command) in commands.into_iter().enumerate() {
                    let id = self.expect_reply(ReplyTo::Batch(batch.clone(), index));
                    self.feed(Input::Request { id: Some(id), command, echo });
                }
            }
            Message::Read { query, reply } => {
                let id = self.expect_reply(ReplyTo::One(reply));
                self.feed(Input::Read { id, query });
            }
            Message::Wait { query, id, reply } => {
                self.waiting.insert(id, ReplyTo::One(reply));
                self.feed(Input::Read { id: RequestId(id), query });
            }
            Message::Forget { id } => {
                self.waiting.remove(&id);
                self.feed(Input::Forget { id: RequestId(id) });
            }
            Message::Progressed { task, attempt } => self.feed(Input::Progressed { task, attempt }),
            Message::Seen { agent } => self.feed(Input::Seen { agent }),
        }
    }

    fn expect_reply(&mut self, reply: ReplyTo) -> RequestId {
        // Even: those of waits are odd and made by who waits.
        self.next_request += 2;
        self.waiting.insert(self.next_request & !1, reply);
        RequestId(self.next_request & !1)
    }

    fn feed(&mut self, input: Input) {
        let moment = self.clocks.read();
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
            Action::StepDown => error!("a newer server owns the journal: this one steps down"),
        }
    }

    fn reply(&mut self, id: RequestId, answer: Result<Answer, Rejection>) {
        match self.waiting.remove(&id.0) {
            // Whoever asked may have gone away; what it asked for stands anyway.
            Some(ReplyTo::One(reply)) => drop(reply.send(answer)),
            Some(ReplyTo::Batch(batch, index)) => batch.set(index, answer),
            None => {}
        }
    }

    fn order(&mut self, effect: Effect) -> Option<Order> {
        match effect {
            Effect::Start { task, attempt, agent, spec, timeout } => {
                let state = self.node.state();
                let inputs = spec.inputs.iter().map(|input| state.outcome(input.task)).collect();
                let timeout = Duration::from_micros(timeout.0.saturating_sub(self.clocks.last().0));
                let start = Start { task, attempt, agent, spec, timeout, inputs };
                Some(Order::Start(Box::new(start)))
            }
            Effect::Stop { task, attempt, .. } => Some(Order::Stop(task, attempt)),
            Effect::Ended { .. } => None,
        }
    }

    /// Sends what has gathered on its way, if nothing else is.
    fn commit(&mut self) {
        if !self.orders.is_empty() {
            // The agents are gone only when the whole server stops.
            drop(self.ports.orders.send(std::mem::take(&mut self.orders)));
        }
        if self.writer.busy || self.gathering.is_empty() {
            return;
        }
        // The next group is likely to be as large as this one.
        let next = Vec::with_capacity(self.gathering.len());
        let steps = std::mem::replace(&mut self.gathering, next);
        let first = self.gathering_first;
        let last = Sequence(first.0 + steps.len() as u64 - 1);
        self.gathering_first = last.next();
        let state = self.node.state_mut();
        let mut changes = Changes { engine: state.engine_record(), ..Changes::default() };
        assert!(changes.engine.position.sequence == last, "rows are as of the last step");
        changes.tasks.reserve(state.changed_count());
        state.take_changed_tasks(|row| changes.tasks.push(row));
        changes.agents = state.take_changed_agents();
        self.in_flight = Some(changes);
        self.writer.append(Group { epoch: self.node.epoch(), first, last, steps });
    }

    fn acknowledge(&mut self, ack: Ack) -> Option<Ended> {
        match ack {
            Ack::Durable { through } => {
                if !std::mem::replace(&mut self.healthy, true) {
                    info!("the journal takes appends again");
                }
                self.writer.busy = false;
                if let Some(changes) = self.in_flight.take() {
                    (self.ports.keep)(changes);
                }
                self.feed(Input::Durable { through });
            }
            Ack::Failed(fault) => {
                if std::mem::replace(&mut self.healthy, false) {
                    error!("{fault}; requests are refused until it works again");
                }
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

    /// The store has more: ended plans leave memory, and the journal lets go of what it need not
    /// keep.
    fn let_go(&mut self) {
        let kept = self.ports.kept.borrow_and_update().sequence;
        self.node.state_mut().evict(kept, EVICT_MAX);
        if kept.0 >= self.trimmed.0 + TRIM_STEPS {
            self.trimmed = kept;
            self.writer.trim(kept);
        }
    }

    fn until_deadline(&mut self) -> Option<Duration> {
        let deadline = self.node.next_deadline()?;
        let now = self.clocks.read().at;
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
