//! The way to the driver: requests that may be refused or wait, reports of agents that always get
//! in.
//!
//! Requests are bounded by the channel: whoever asks waits while the driver has enough to do.
//! Reports are bounded by the slots of the agents, so that no report ever waits behind a request.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maos_core::command::Command;
use maos_core::ids::{AgentId, Attempt, Position, TaskId};
use maos_core::node::{Answer, Echo, Query};
use maos_core::rejection::Rejection;
use maos_core::time::{Timestamp, WallTime};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// How long who waits for an answer looks out for it before it sleeps.
const LOOK_OUT: Duration = Duration::from_micros(600);

pub(super) type Reply = oneshot::Sender<Result<Answer, Rejection>>;
type BatchSender = oneshot::Sender<Vec<Result<Answer, Rejection>>>;

pub(super) enum Message {
    Command { command: Command, echo: Echo, reply: Option<Reply> },
    Batch { commands: Vec<Command>, echo: Echo, reply: BatchSender },
    Reports(Vec<Command>),
    Read { query: Query, reply: Reply },
    RunToEnd { command: Command, id: u64, reply: Reply },
    Wait { query: Query, id: u64, reply: Reply },
    Watch { reply: oneshot::Sender<Position> },
    Forget { id: u64 },
    Progressed { task: TaskId, attempt: Attempt },
    Seen { agent: AgentId },
}

impl Message {
    /// How many commands there are in it; everything else counts as one.
    pub(super) fn commands_count(&self) -> usize {
        match self {
            Message::Batch { commands, .. } | Message::Reports(commands) => commands.len().max(1),
            Message::Command { .. }
            | Message::RunToEnd { .. }
            | Message::Read { .. }
            | Message::Wait { .. }
            | Message::Watch { .. }
            | Message::Forget { .. }
            | Message::Progressed { .. }
            | Message::Seen { .. } => 1,
        }
    }
}

/// Who waits for what under one number.
pub(super) enum ReplyTo {
    One(Reply),
    Batch(BatchReply),
}

/// Collects the answers of a batch; sent when the last one is there.
pub(super) struct BatchReply {
    answers: Vec<Option<Result<Answer, Rejection>>>,
    missing: usize,
    reply: BatchSender,
}

impl BatchReply {
    pub(super) fn new(count: usize, reply: BatchSender) -> BatchReply {
        let mut answers = Vec::new();
        answers.resize_with(count, || None);
        BatchReply { answers, missing: count, reply }
    }

    /// Notes one answer; whether it was the last.
    pub(super) fn set(&mut self, index: usize, answer: Result<Answer, Rejection>) -> bool {
        self.answers[index] = Some(answer);
        self.missing -= 1;
        self.missing == 0
    }

    pub(super) fn send(self) {
        // Whoever asked may have gone away; what it asked for stands anyway.
        drop(self.reply.send(self.answers.into_iter().flatten().collect()));
    }
}

pub(super) struct Mailbox {
    pub(super) requests: mpsc::Receiver<Message>,
    pub(super) reports: mpsc::UnboundedReceiver<Message>,
}

impl Mailbox {
    pub(super) fn is_empty(&self) -> bool {
        self.reports.is_empty() && self.requests.is_empty()
    }

    /// Takes what is there already, reports first.
    pub(super) fn take(&mut self, requests: bool) -> Option<Message> {
        let report = self.reports.try_recv().ok();
        report.or_else(|| requests.then(|| self.requests.try_recv().ok()).flatten())
    }
}

/// Reaches the driver from anywhere. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Message>,
    reports: mpsc::UnboundedSender<Message>,
    next_wait: Arc<AtomicU64>,
    pub(super) shared: Shared,
}

/// What the loop and those who reach it tell each other beside messages.
#[derive(Clone, Default)]
pub(super) struct Shared {
    /// How far the engine's time is ahead of the wall clock, in microseconds, when it was read
    /// last.
    pub(super) ahead_us: Arc<AtomicI64>,
    /// Microseconds of the longest turn of the loop since that was taken last.
    pub(super) turn_us_max: Arc<AtomicU64>,
    pub(super) lookout: Lookout,
    /// Somebody waits for the store to have what is durable.
    pub(super) rows_wanted: Arc<AtomicBool>,
    /// How many are keeping the disk busy.
    pub(super) disk_users: Arc<AtomicU64>,
    /// Why the journal takes nothing at the moment.
    journal_fault: Arc<Mutex<Option<Box<str>>>>,
}

impl Shared {
    pub(super) fn set_journal_fault(&self, cause: Option<&str>) {
        let mut held = self.journal_fault.lock().expect("nothing panics while it holds this lock");
        *held = cause.map(Into::into);
    }

    fn journal_fault(&self) -> Option<Box<str>> {
        self.journal_fault.lock().expect("nothing panics while it holds this lock").clone()
    }

    /// A refusal for want of the journal, with its cause.
    fn explained(&self, refused: Refused, told: fn(Box<str>) -> Refused) -> Refused {
        match refused {
            Refused::Rejection(Rejection::StorageUnavailable) => {
                told(self.journal_fault().unwrap_or_else(|| "it failed a moment ago".into()))
            }
            other => other,
        }
    }
}

/// Says for as long as it lives that the disk is busy.
#[derive(Debug)]
pub struct BusyDisk(Arc<AtomicU64>);

impl Drop for BusyDisk {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Why a request got no answer of the engine's, or a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The engine refused.
    #[error(transparent)]
    Rejection(#[from] Rejection),
    /// The journal takes nothing, for this cause: whether it was done will show.
    #[error("the journal cannot be written at the moment: {0}")]
    NotWritten(Box<str>),
    /// The journal takes nothing, for this cause, and what was asked for waits for it.
    #[error("the journal cannot be written at the moment: {0}")]
    NotRead(Box<str>),
    /// The driver has stopped.
    #[error("the server is shutting down")]
    Stopped,
}

pub(super) fn open(capacity: usize) -> (Handle, Mailbox) {
    let (requests, requests_rx) = mpsc::channel(capacity);
    let (reports, reports_rx) = mpsc::unbounded_channel();
    let next_wait = Arc::new(AtomicU64::new(1));
    let handle = Handle { requests, reports, next_wait, shared: Shared::default() };
    (handle, Mailbox { requests: requests_rx, reports: reports_rx })
}

impl Handle {
    /// Why the journal takes nothing at the moment; `None` while it does.
    #[must_use]
    pub fn journal_fault(&self) -> Option<Box<str>> {
        self.shared.journal_fault()
    }

    /// What a rejection of a command says, with the cause where it is for want of the journal.
    #[must_use]
    pub fn refused(&self, rejection: Rejection) -> Refused {
        self.shared.explained(Refused::Rejection(rejection), Refused::NotWritten)
    }

    /// The longest turn of the loop since this was asked last: for so long nobody else got an
    /// answer.
    #[must_use]
    pub fn take_longest_turn(&self) -> Duration {
        Duration::from_micros(self.shared.turn_us_max.swap(0, Ordering::Relaxed))
    }

    /// Somebody waits for the store to have what is durable: the next group brings it its rows.
    pub fn want_rows(&self) {
        self.shared.rows_wanted.store(true, Ordering::Relaxed);
    }

    /// Much is about to be written to the disk: until the value is dropped, the loop waits for no
    /// commit itself, which may take long now. Answers of what is durable come as always.
    #[must_use]
    pub fn busy_disk(&self) -> BusyDisk {
        self.shared.disk_users.fetch_add(1, Ordering::Release);
        BusyDisk(self.shared.disk_users.clone())
    }

    /// Has a command decided; returns when the decision is durable. Dropped before that, the
    /// command may still be carried out.
    ///
    /// # Errors
    /// The engine's refusal, or that the driver has stopped.
    pub async fn run(&self, command: Command, echo: Echo) -> Result<Answer, Refused> {
        let (reply, mut answer) = oneshot::channel();
        let message = Message::Command { command, echo, reply: Some(reply) };
        self.requests.send(message).await.map_err(|_| Refused::Stopped)?;
        let answer = self.shared.lookout.answer(&mut answer).await;
        answer.map_err(|refused| self.shared.explained(refused, Refused::NotWritten))
    }

    /// Has many commands decided, each by itself, in one go; answers in their order.
    ///
    /// # Errors
    /// That the driver has stopped.
    pub async fn run_all(
        &self,
        commands: Vec<Command>,
        echo: Echo,
    ) -> Result<Vec<Result<Answer, Rejection>>, Refused> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, answers) = oneshot::channel();
        let message = Message::Batch { commands, echo, reply };
        self.requests.send(message).await.map_err(|_| Refused::Stopped)?;
        answers.await.map_err(|_| Refused::Stopped)
    }

    /// Asks; the answer rests on durable facts only.
    ///
    /// # Errors
    /// The engine's refusal, or that the driver has stopped.
    pub async fn ask(&self, query: Query) -> Result<Answer, Refused> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Read { query, reply };
        self.requests.send(message).await.map_err(|_| Refused::Stopped)?;
        let answer = answer.await.map_err(|_| Refused::Stopped)?;
        let explained =
            |rejection| self.shared.explained(Refused::from(rejection), Refused::NotRead);
        answer.map_err(explained)
    }

    /// Waits until a task has ended. May be dropped at any time: the engine then forgets the wait.
    ///
    /// # Errors
    /// The engine's refusal, or that the driver has stopped.
    pub async fn wait_for_end(&self, task: TaskId) -> Result<Answer, Refused> {
        let (mut wait, reply) = self.wait();
        let message = Message::Wait { query: Query::Ended(task), id: wait.forget.id, reply };
        self.requests.send(message).await.map_err(|_| Refused::Stopped)?;
        wait.answer().await
    }

    /// Hands in a submission whose answer comes when its root has ended: `run` and `wait_for_end`
    /// would wake whoever asks twice. It is decided whatever becomes of the wait.
    ///
    /// # Errors
    /// That the driver has stopped.
    pub async fn run_to_end(&self, submit: Command) -> Result<Wait, Refused> {
        let (wait, reply) = self.wait();
        let message = Message::RunToEnd { command: submit, id: wait.forget.id, reply };
        self.requests.send(message).await.map_err(|_| Refused::Stopped)?;
        Ok(wait)
    }

    fn wait(&self) -> (Wait, Reply) {
        let id = self.next_wait.fetch_add(2, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let forget = ForgetOnDrop { id, reports: self.reports.clone() };
        (Wait { answer, forget, shared: self.shared.clone() }, reply)
    }

    /// Has changes told from now on; says behind which step.
    ///
    /// # Errors
    /// That the driver has stopped.
    pub async fn watch(&self) -> Result<Position, Refused> {
        let (reply, position) = oneshot::channel();
        self.requests.send(Message::Watch { reply }).await.map_err(|_| Refused::Stopped)?;
        position.await.map_err(|_| Refused::Stopped)
    }

    /// The engine's time at this time of the calendar, as far as the clocks' last reading tells.
    #[must_use]
    pub fn engine_time(&self, wall: WallTime) -> Timestamp {
        Timestamp(wall.0.saturating_add_signed(self.shared.ahead_us.load(Ordering::Relaxed)))
    }

    /// The time of the calendar at this time of the engine's.
    #[must_use]
    pub fn wall_time(&self, at: Timestamp, now: WallTime) -> WallTime {
        let engine_now = self.engine_time(now);
        WallTime((now.0 + at.0).saturating_sub(engine_now.0))
    }

    /// Hands in what agents report. Never waits: there are never more reports than slots.
    pub fn report(&self, commands: Vec<Command>) {
        if commands.is_empty() {
            return;
        }
        // A driver that has stopped loses them as a crash would: the attempts run again.
        drop(self.reports.send(Message::Reports(commands)));
    }

    /// Hands in what an agent reports, in this very call; the answers, in order, come when all of
    /// it is durable, and may be left unread.
    #[must_use]
    pub fn hand_in(&self, commands: Vec<Command>) -> HandedIn {
        if commands.is_empty() {
            return HandedIn(None);
        }
        let (reply, answers) = oneshot::channel();
        drop(self.reports.send(Message::Batch { commands, echo: Echo::Id, reply }));
        HandedIn(Some(answers))
    }

    /// Notes that an attempt made progress.
    pub fn progressed(&self, task: TaskId, attempt: Attempt) {
        drop(self.reports.send(Message::Progressed { task, attempt }));
    }

    /// Notes that an agent was heard of.
    pub fn seen(&self, agent: AgentId) {
        drop(self.reports.send(Message::Seen { agent }));
    }
}

/// What becomes of reports that were handed in.
pub struct HandedIn(Option<oneshot::Receiver<Vec<Result<Answer, Rejection>>>>);

impl HandedIn {
    /// The answers, in order.
    ///
    /// # Errors
    /// That the driver has stopped.
    pub async fn answers(self) -> Result<Vec<Result<Answer, Rejection>>, Refused> {
        match self.0 {
            Some(answers) => answers.await.map_err(|_| Refused::Stopped),
            None => Ok(Vec::new()),
        }
    }
}

/// Waits for the end of a task. Dropped before that, the engine forgets the wait.
pub struct Wait {
    // Closed before the engine is told: it may hear of that before it hears of the wait.
    answer: oneshot::Receiver<Result<Answer, Rejection>>,
    forget: ForgetOnDrop,
    shared: Shared,
}

impl Wait {
    /// The task once it has ended. Nothing is lost when this is dropped and called again.
    ///
    /// # Errors
    /// The engine's refusal, or that the driver has stopped.
    pub async fn answer(&mut self) -> Result<Answer, Refused> {
        let answer = self.shared.lookout.answer(&mut self.answer).await;
        answer.map_err(|refused| self.shared.explained(refused, Refused::NotWritten))
    }
}

/// Lets who waits alone look out for its answer for a moment instead of sleeping: on an idle server
/// that answer is two commits away at most, and waking a thread takes a third as long as one. Where
/// others wait too the processor is better used. Counts who waits.
#[derive(Clone, Default)]
pub(super) struct Lookout(Arc<AtomicUsize>);

/// Somebody waits for as long as this lives.
struct Waits<'l>(&'l AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lookout {
    async fn answer(
        &self,
        answer: &mut oneshot::Receiver<Result<Answer, Rejection>>,
    ) -> Result<Answer, Refused> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let waits = Waits(&self.0);
        let alone = || self.0.load(Ordering::Relaxed) == 1;
        let until = Instant::now() + LOOK_OUT;
        while alone() && answer.is_empty() && Instant::now() < until {
            // To other requests, then to other programs: the worker that it waits for may need this
            // very processor.
            tokio::task::yield_now().await;
            std::thread::yield_now();
        }
        // Who waits longer is no sign of load.
        drop(waits);
        Ok(answer.await.map_err(|_| Refused::Stopped)??)
    }
}

struct ForgetOnDrop {
    id: u64,
    reports: mpsc::UnboundedSender<Message>,
}

impl Drop for ForgetOnDrop {
    fn drop(&mut self) {
        drop(self.reports.send(Message::Forget { id: self.id }));
    }
}
