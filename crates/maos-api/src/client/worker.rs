//! A worker: a function that does tasks, wherever this program runs.
//!
//! It polls the server, runs what it is given side by side, and tells each outcome until the
//! server has it. It reconnects by itself; what is lost meanwhile is made good by the protocol. It
//! must not know what the function does. `examples/worker.rs` is a whole program.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use maos_api::client::worker::{Given, Verdict, Worker};
//! use maos_api::client::{Client, ClientError};
//! use maos_api::logs::LogLevel;
//!
//! /// Does the tasks that ask for the capability `echo`, four at a time, until `stop` is there.
//! async fn serve(stop: impl Future<Output = ()>) -> Result<(), ClientError> {
//!     let client = Client::new("http://127.0.0.1:8000")?;
//!     let worker = Worker::new(client, "echo", vec!["echo".to_owned()], 4);
//!     let echo = |given: Given| async move {
//!         given.log(LogLevel::Info, format!("`{}` says itself", given.task.name));
//!         given.progress.tell(Some(0.5), None);
//!         Verdict::Completed(given.task.parameters)
//!     };
//!     worker.run(echo, stop, Duration::from_secs(30)).await
//! }
//! ```

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::body::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::content::Content;
use super::retry::{Reconnecting, Retries, passes};
use super::untold::{Sign, Told, Untold, bytes_as_json, fitting};
use super::{Client, ClientError};
use crate::agent::{AgentCreate, AgentRuntime};
use crate::artifacts::Artifact;
use crate::logs::LogLevel;
use crate::time::UtcTime;
use crate::worker::{
    AttemptRef, Log, OUTCOMES_MAX, Outcome, OutcomeStatus, Poll, PollAnswer, Progress, TASKS_MAX,
    Task,
};

/// How long a poll waits when there is nothing to tell.
const WAIT_MS: u64 = 30_000;
/// Longest pause before the server is asked again.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Part of the lease that a pause may take: a server that comes back counts it anew, and the worker
/// is heard within it although one more poll may fail.
const PAUSES_IN_LEASE: u32 = 3;
/// Part of the lease that a poll may go unanswered beyond its wait, and the least time for it: a
/// connection that died in silence costs no attempts.
const SILENCES_IN_LEASE: u32 = 3;
const SILENCE_MIN: Duration = Duration::from_secs(5);
/// For each so many bytes of a poll there is a second more.
const SECOND_BYTES: usize = 1 << 20;
/// What is left after the grace time for telling the server what was stopped.
const TELL_MAX: Duration = Duration::from_secs(2);
/// For the server to take lines of log when nothing else is left.
const LINES_TELL_MAX: Duration = Duration::from_secs(5);
/// For taking leave of the server, which finds out by itself if need be.
const LEAVE_MAX: Duration = Duration::from_secs(5);
/// Lines of log that wait for the server at the most.
const LINES_MAX: usize = 10_000;
/// Bytes of one line and of what a sign of progress says: more than a log keeps of it, and enough
/// for the server to see that it is cut.
const LINE_BYTES_MAX: usize = 20 << 10;
/// Bytes of what a failure says: more than a task keeps of it.
const ERROR_BYTES_MAX: usize = 128 << 10;
/// Bytes of the outcomes of one poll, and of one of them. With those of its signs and lines a poll
/// stays below the 64 MiB that a server reads.
const OUTCOMES_BYTES_MAX: usize = 32 << 20;

/// One attempt of a task, as a function gets it.
#[derive(Debug)]
pub struct Given {
    /// The task.
    pub task: Task,
    /// Tells when the attempt is to stop.
    pub stop: Stop,
    /// Takes signs of progress and lines of log.
    pub progress: Signs,
    /// Takes files.
    pub files: Files,
}

impl Given {
    /// The parameters as what they should be.
    ///
    /// # Errors
    /// That they are not, as a failure for good.
    pub fn parameters<T: DeserializeOwned>(&self) -> Result<T, Verdict> {
        serde_json::from_str(self.task.parameters.get()).map_err(|why| {
            let message = format!("its parameters are not what this worker takes: {why}");
            Verdict::Failed { message, permanent: true }
        })
    }

    /// Adds a line to the task's log.
    pub fn log(&self, level: LogLevel, line: impl Into<String>) {
        self.progress.log(level, line);
    }

    /// Keeps a file with the task; it is durable when this returns.
    ///
    /// # Errors
    /// That this attempt no longer runs, or another refusal or fault.
    pub async fn artifact(
        &self,
        name: &str,
        media_type: Option<&str>,
        content: impl Into<Content>,
    ) -> Result<Artifact, ClientError> {
        self.files.keep(name, media_type, content).await
    }
}

/// Keeps files with the task of one attempt.
#[derive(Clone, Debug)]
pub struct Files {
    client: Arc<Client>,
    attempt: AttemptRef,
}

impl Files {
    /// Keeps a file with the task; it is durable when this returns.
    ///
    /// # Errors
    /// That this attempt no longer runs, or another refusal or fault.
    pub async fn keep(
        &self,
        name: &str,
        media_type: Option<&str>,
        content: impl Into<Content>,
    ) -> Result<Artifact, ClientError> {
        let AttemptRef { task_id, attempt } = self.attempt;
        let client = &self.client;
        let kept = client.put_artifact(task_id, name, media_type, Some(attempt), content).await?;
        Ok(kept.value.artifact)
    }
}

/// How a worker stands with its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contact {
    /// The server has taken it: it can be given tasks from now on.
    Serving,
    /// Not any more, or not yet, and why; it goes on trying.
    Away(String),
    /// Again.
    Back,
    /// The server had missed it for too long and gave what it held to others, so it was given up
    /// here too; it serves again.
    Lost,
}

/// Tells when an attempt is to stop.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Returns when the attempt is to stop; never, if it may go on to its end.
    pub async fn stopped(&mut self) {
        while !*self.0.borrow_and_update() {
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Takes signs of progress and lines of log of one attempt.
#[derive(Clone, Debug)]
pub struct Signs {
    attempt: AttemptRef,
    sink: mpsc::UnboundedSender<Sign>,
    waiting: Arc<AtomicUsize>,
}

/// How an attempt went.
#[derive(Debug)]
pub enum Verdict {
    /// It has a result.
    Completed(Box<RawValue>),
    /// What is left to do are these subtasks: a list of entries as in a submission. The task's
    /// result is made of theirs.
    HandedOver(Box<RawValue>),
    /// It has none.
    Failed {
        /// Why, for the person who must act.
        message: String,
        /// Whether trying again is known to be useless.
        permanent: bool,
    },
    /// It never came to one, by no fault of the task.
    Lost,
}

impl Verdict {
    /// It has this result; what cannot be written as JSON is a failure for good.
    #[must_use]
    pub fn completed(result: &(impl Serialize + ?Sized)) -> Verdict {
        match serde_json::value::to_raw_value(result) {
            Ok(document) => Verdict::Completed(document),
            Err(why) => {
                let message = format!("its result cannot be written as JSON: {why}");
                Verdict::Failed { message, permanent: true }
            }
        }
    }
}

impl Signs {
    /// Tells how far it has come: a part of 1, and words. What is below 0 or above 1 counts as
    /// that: one bad sign would have the whole poll refused. While the server is away the newest
    /// signs wait for it.
    pub fn tell(&self, fraction: Option<f64>, message: Option<String>) {
        let AttemptRef { task_id, attempt } = self.attempt;
        let fraction = fraction.filter(|part| !part.is_nan()).map(|part| part.clamp(0.0, 1.0));
        let message = message.map(|message| Cow::Owned(cut(message, LINE_BYTES_MAX)));
        // A worker that has ended tells nobody.
        drop(self.sink.send(Sign::Progress(Progress { task_id, attempt, fraction, message })));
    }

    /// Adds a line to the task's log. At most [`LINES_MAX`] lines wait for the server; what comes
    /// then is left out, which the log says.
    pub fn log(&self, level: LogLevel, line: impl Into<String>) {
        let AttemptRef { task_id, attempt } = self.attempt;
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let line = match waiting {
            LINES_MAX => format!("more lines are left out here: {LINES_MAX} wait for the server"),
            _ => cut(line.into(), LINE_BYTES_MAX),
        };
        if waiting > LINES_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = Some(UtcTime(u64::try_from(since.as_micros()).unwrap_or(u64::MAX)));
        let (level, line, lines) = (Some(level), Some(Cow::Owned(line)), Vec::new());
        drop(self.sink.send(Sign::Line(Log { task_id, attempt, time, level, line, lines })));
    }
}

/// What a worker is to the server.
#[derive(Debug)]
pub struct Worker {
    client: Arc<Client>,
    agent: AgentCreate,
    id: Uuid,
    slots: usize,
    /// Whether the agent stays when the worker ends.
    stays: bool,
    /// Who is told how it stands with the server.
    told: Option<mpsc::UnboundedSender<Contact>>,
    /// Whether the server was not reached the last time.
    away: AtomicBool,
}

/// How far a worker is with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It goes on.
    No,
    /// What runs has time until then.
    Draining(Instant),
    /// What ran was stopped; the server can be told until then.
    Telling(Instant),
}

impl Ending {
    /// Returns when the time is over: soon, if nothing is held and no poll is answered.
    async fn due(self, is_held: bool) {
        let until = match self {
            Ending::No => return std::future::pending().await,
            Ending::Draining(until) | Ending::Telling(until) if is_held => until,
            Ending::Draining(until) | Ending::Telling(until) => {
                until.min(Instant::now() + LINES_TELL_MAX)
            }
        };
        tokio::time::sleep_until(until).await;
    }
}

/// A poll as it is sent, and what it brings.
struct Sent {
    body: Bytes,
    wait: Duration,
    outcomes: HashSet<AttemptRef>,
    told: Told,
    pause_max: Duration,
    /// When it is given up, with its wait.
    answer_max: Duration,
}

/// What came while a poll was out.
enum Heard {
    /// Its answer.
    Answer(PollAnswer),
    /// That all that was held is lost.
    Lost,
    /// Something to tell, while it only waited.
    News,
}

/// Attempts that run, and outcomes that the server does not have yet.
#[derive(Default)]
struct Desk {
    running: JoinSet<(AttemptRef, Verdict)>,
    names: HashMap<tokio::task::Id, AttemptRef>,
    stops: HashMap<AttemptRef, watch::Sender<bool>>,
    ended: Vec<(AttemptRef, Verdict, bool)>,
    /// How long the worker may be silent, once that is known.
    lease: Option<Duration>,
}

impl Worker {
    /// A worker with these capabilities, for up to `slots` tasks at once.
    #[must_use]
    pub fn new(client: Client, agent_type: &str, capabilities: Vec<String>, slots: u32) -> Worker {
        let id = Uuid::now_v7();
        let agent = AgentCreate {
            agent_type: agent_type.to_owned(),
            capabilities,
            configuration: serde_json::Map::new(),
            max_concurrent_tasks: Some(slots),
            resource_limits: std::collections::BTreeMap::new(),
            tags: Vec::new(),
            name: None,
            runtime: Some(AgentRuntime::Worker),
            id: Some(id),
            heartbeat_timeout: None,
        };
        let slots = usize::try_from(slots).unwrap_or(usize::MAX);
        // It tries again by itself, for as long as it takes.
        let client = Arc::new(client.with_retries(Retries::NONE));
        let away = AtomicBool::new(false);
        Worker { client, agent, id, slots, stays: false, told: None, away }
    }

    /// Tells when it serves, when the server cannot be reached, once each time, and when it can be
    /// again.
    pub fn contacts(&mut self) -> mpsc::UnboundedReceiver<Contact> {
        let (told, contacts) = mpsc::unbounded_channel();
        self.told = Some(told);
        contacts
    }

    /// The same under an id that outlives this process: it stays the same agent.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> Worker {
        self.agent.id = Some(id);
        Worker { id, stays: true, ..self }
    }

    /// The same, lost only after so many seconds of silence, 1 to [`HEARTBEAT_TIMEOUT_MAX`]; it is
    /// the server's `[api] worker_timeout` otherwise.
    #[must_use]
    pub fn with_heartbeat_timeout(mut self, seconds: u64) -> Worker {
        self.agent.heartbeat_timeout = Some(seconds);
        self
    }

    /// Does tasks until `stop` is there, then finishes what runs, for at most `grace`; also if the
    /// server is away. Dropping the future gives up everything at once.
    ///
    /// # Errors
    /// That the agent was ended or has a newer process, that the server refuses it for good, or
    /// that it could not be told of everything in time.
    pub async fn run<F, Fut>(
        self,
        work: F,
        stop: impl Future<Output = ()>,
        grace: Duration,
    ) -> Result<(), ClientError>
    where
        F: Fn(Given) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Verdict> + Send + 'static,
    {
        let work = Arc::new(work);
        let incarnation = incarnation();
        let (sink, mut signs) = mpsc::unbounded_channel();
        let lease = self.agent.heartbeat_timeout.map(Duration::from_secs);
        let mut desk = Desk { lease, ..Desk::default() };
        let mut untold = Untold::default();
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut ending = Ending::No;
        tokio::pin!(stop);
        tokio::select! {
            registered = self.register(desk.pause_max()) => registered?,
            () = &mut stop => return Ok(()),
        }
        self.tell(Contact::Serving);
        while ending == Ending::No || !desk.is_empty() || !untold.is_empty() {
            let poll = self.poll(incarnation, &desk, &untold, ending != Ending::No);
            let due = ending.due(!desk.is_empty());
            tokio::select! {
                heard = self.ask_and_listen(&poll, &mut signs, &mut untold) => match heard? {
                    Heard::Answer(answer) => {
                        desk.ended.retain(|(attempt, _, _)| !poll.outcomes.contains(attempt));
                        untold.forget(poll.told);
                        waiting.fetch_sub(poll.told.lines, Ordering::Relaxed);
                        desk.take(answer, &work, &sink, (&waiting, &self.client));
                    }
                    Heard::Lost => desk.clear(),
                    Heard::News => {}
                },
                // A poll that only waits is given up for news: what it might have brought is sent
                // again.
                Some(joined) = desk.running.join_next_with_id(), if !poll.wait.is_zero() => {
                    let joined = joined.map_err(|failed| (failed.id(), failed.is_panic()));
                    desk.note(joined);
                }
                () = &mut stop, if ending == Ending::No => {
                    ending = Ending::Draining(Instant::now() + grace);
                }
                () = due => {
                    // Lines that nobody takes hold up nobody.
                    if desk.is_empty() {
                        break;
                    }
                    if matches!(ending, Ending::Telling(_)) {
                        return Err(self.untold(&desk));
                    }
                    desk.stop_all();
                    ending = Ending::Telling(Instant::now() + TELL_MAX);
                }
            }
            desk.gather();
            while let Ok(sign) = signs.try_recv() {
                untold.add(sign);
            }
        }
        if !self.stays {
            // Whoever cannot be told finds out by itself.
            drop(tokio::time::timeout(LEAVE_MAX, self.client.terminate_agent(self.id)).await);
        }
        Ok(())
    }

    fn untold(&self, desk: &Desk) -> ClientError {
        let attempts = desk.stops.len() + desk.ended.len();
        ClientError::Untold { url: self.client.url().to_owned(), attempts }
    }

    fn poll(&self, incarnation: u64, desk: &Desk, untold: &Untold, draining: bool) -> Sent {
        let said = untold.next();
        // The server drops what an attempt says after its outcome.
        let ready = desk.ended.iter().filter(|(attempt, _, _)| !said.more_of.contains(attempt));
        let count = fitting(ready.clone().map(bytes_of), OUTCOMES_MAX, OUTCOMES_BYTES_MAX);
        let told: HashSet<AttemptRef> = ready.clone().take(count).map(|ended| ended.0).collect();
        let outcomes: Vec<Outcome<'_>> = ready.take(count).map(outcome).collect();
        let room = self.slots.saturating_sub(desk.stops.len() + desk.ended.len() - outcomes.len());
        let quiet = outcomes.is_empty() && untold.is_empty();
        let room = if draining { 0 } else { room };
        // What has ended and does not go with this poll is held until it is told.
        let held = desk.ended.iter().map(|ended| ended.0).filter(|held| !told.contains(held));
        let poll = Poll {
            incarnation,
            max_tasks: u32::try_from(room).unwrap_or(TASKS_MAX).min(TASKS_MAX),
            wait_ms: if quiet { desk.wait_ms() } else { 0 },
            holding: desk.stops.keys().copied().chain(held).collect(),
            outcomes,
            progress: said.progress,
            logs: said.lines,
            ..Poll::default()
        };
        let body: Bytes = serde_json::to_vec(&poll).unwrap_or_default().into();
        let wait = Duration::from_millis(poll.wait_ms);
        Sent {
            answer_max: wait.saturating_add(desk.silence_max(body.len())),
            body,
            wait,
            outcomes: told,
            told: said.told,
            pause_max: desk.pause_max(),
        }
    }

    /// Polls, and takes what is said meanwhile, so that it stays within its bounds.
    async fn ask_and_listen(
        &self,
        poll: &Sent,
        signs: &mut mpsc::UnboundedReceiver<Sign>,
        untold: &mut Untold,
    ) -> Result<Heard, ClientError> {
        let heard = self.ask(poll);
        tokio::pin!(heard);
        loop {
            tokio::select! {
                biased;
                heard = &mut heard => return heard,
                Some(sign) = signs.recv() => untold.add(sign),
            }
            if !poll.wait.is_zero() {
                return Ok(Heard::News);
            }
        }
    }

    /// Polls until there is an answer.
    async fn ask(&self, poll: &Sent) -> Result<Heard, ClientError> {
        let mut pauses = Reconnecting::within(poll.pause_max);
        loop {
            let answer = self.client.poll_with(self.id, poll.body.clone(), poll.wait);
            let answer = tokio::time::timeout(poll.answer_max, answer).await;
            let error = match answer.unwrap_or_else(|_| Err(self.timed_out(poll.answer_max))) {
                Ok(answer) => {
                    self.tell_back();
                    return Ok(Heard::Answer(answer.value));
                }
                Err(error) => error,
            };
            if passes(&error) {
                self.tell_away(&error);
                tokio::time::sleep(pauses.after(&error)).await;
                continue;
            }
            if !matches!(code_of(&error), Some("AGENT_LOST" | "AGENT_NOT_FOUND")) {
                return Err(error);
            }
            self.tell_back();
            self.register(poll.pause_max).await?;
            self.tell(Contact::Lost);
            return Ok(Heard::Lost);
        }
    }

    fn timed_out(&self, after: Duration) -> ClientError {
        ClientError::TimedOut { url: self.client.url().to_owned(), seconds: after.as_secs() }
    }

    async fn register(&self, pause_max: Duration) -> Result<(), ClientError> {
        let mut pauses = Reconnecting::within(pause_max);
        loop {
            match self.client.create_agent(&self.agent).await {
                Ok(_) => {
                    self.tell_back();
                    return Ok(());
                }
                Err(error) if passes(&error) => {
                    self.tell_away(&error);
                    tokio::time::sleep(pauses.after(&error)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn tell_away(&self, error: &ClientError) {
        if !self.away.swap(true, Ordering::Relaxed) {
            self.tell(Contact::Away(error.to_string()));
        }
    }

    fn tell_back(&self) {
        if self.away.swap(false, Ordering::Relaxed) {
            self.tell(Contact::Back);
        }
    }

    fn tell(&self, contact: Contact) {
        if let Some(told) = &self.told {
            // Nobody may want to know any more.
            drop(told.send(contact));
        }
    }
}

/// A number that grows with every start of a process.
fn incarnation() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Desk {
    fn is_empty(&self) -> bool {
        self.stops.is_empty() && self.ended.is_empty()
    }

    /// The longest pause that does not cost the attempts.
    fn pause_max(&self) -> Duration {
        self.lease.map_or(PAUSE_MAX, |lease| PAUSE_MAX.min(lease / PAUSES_IN_LEASE))
    }

    /// How long a poll waits: no longer than a server lets it.
    fn wait_ms(&self) -> u64 {
        let lease_ms = self.lease.map(|lease| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX));
        lease_ms.map_or(WAIT_MS, |lease_ms| WAIT_MS.min(lease_ms / 3 * 2))
    }

    /// How long the server may be silent to a poll of so many bytes.
    fn silence_max(&self, bytes: usize) -> Duration {
        let on_its_way = Duration::from_secs(u64::try_from(bytes / SECOND_BYTES).unwrap_or(0));
        self.lease.map_or(Duration::MAX, |lease| {
            SILENCE_MIN.max(lease / SILENCES_IN_LEASE).saturating_add(on_its_way)
        })
    }

    fn take<F, Fut>(
        &mut self,
        answer: PollAnswer,
        work: &Arc<F>,
        sink: &mpsc::UnboundedSender<Sign>,
        (waiting, client): (&Arc<AtomicUsize>, &Arc<Client>),
    ) where
        F: Fn(Given) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Verdict> + Send + 'static,
    {
        self.lease = Some(Duration::from_secs(answer.lease_seconds.max(1)));
        for task in answer.tasks {
            let attempt = AttemptRef { task_id: task.task_id, attempt: task.attempt };
            let ended = self.ended.iter().any(|(held, _, _)| *held == attempt);
            if ended || self.stops.contains_key(&attempt) {
                continue;
            }
            let (stop, stopped) = watch::channel(false);
            let progress = Signs { attempt, sink: sink.clone(), waiting: waiting.clone() };
            let files = Files { client: client.clone(), attempt };
            let given = Given { task, stop: Stop(stopped), progress, files };
            let work = work.clone();
            let run = self.running.spawn(async move { (attempt, work(given).await) });
            self.names.insert(run.id(), attempt);
            self.stops.insert(attempt, stop);
        }
        for attempt in answer.cancel {
            if let Some(stop) = self.stops.get(&attempt) {
                stop.send_replace(true);
            }
        }
    }

    /// Takes what has ended by now.
    fn gather(&mut self) {
        while let Some(joined) = self.running.try_join_next_with_id() {
            self.note(joined.map_err(|failed| (failed.id(), failed.is_panic())));
        }
    }

    fn note(
        &mut self,
        joined: Result<(tokio::task::Id, (AttemptRef, Verdict)), (tokio::task::Id, bool)>,
    ) {
        let (id, verdict) = match joined {
            Ok((id, (_, verdict))) => (id, verdict),
            Err((id, true)) => {
                let message = "its worker panicked".to_owned();
                (id, Verdict::Failed { message, permanent: false })
            }
            Err((id, false)) => (id, Verdict::Lost),
        };
        let Some(attempt) = self.names.remove(&id) else { return };
        if let Some(stop) = self.stops.remove(&attempt) {
            let stopped = *stop.borrow();
            self.ended.push((attempt, bounded(verdict), stopped));
        }
    }

    fn stop_all(&mut self) {
        for stop in self.stops.values() {
            stop.send_replace(true);
        }
        self.running.abort_all();
    }

    /// What it held is lost: nobody wants to hear of it any more.
    fn clear(&mut self) {
        self.stop_all();
        self.names.clear();
        self.stops.clear();
        self.ended.clear();
    }
}

fn outcome((attempt, verdict, stopped): &(AttemptRef, Verdict, bool)) -> Outcome<'_> {
    let (mut status, mut result, mut subtasks) = (OutcomeStatus::Lost, None, None);
    let (mut error, mut permanent) = (None, false);
    match verdict {
        _ if *stopped => status = OutcomeStatus::Cancelled,
        Verdict::Completed(document) => {
            (status, result) = (OutcomeStatus::Completed, Some(&**document));
        }
        Verdict::HandedOver(entries) => {
            (status, subtasks) = (OutcomeStatus::Completed, Some(&**entries));
        }
        Verdict::Failed { message, permanent: useless } => {
            (status, error) = (OutcomeStatus::Failed, Some(Cow::Borrowed(message.as_str())));
            permanent = *useless;
        }
        Verdict::Lost => {}
    }
    let AttemptRef { task_id, attempt } = *attempt;
    Outcome { task_id, attempt, status, result, subtasks, error, permanent }
}

/// The verdict, if one poll can hold it; else why it cannot be told.
fn bounded(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Completed(document) | Verdict::HandedOver(document)
            if document.get().len() > OUTCOMES_BYTES_MAX =>
        {
            let bytes = document.get().len();
            let message = format!("its result has {bytes} bytes, more than any server takes");
            Verdict::Failed { message, permanent: true }
        }
        Verdict::Failed { message, permanent } => {
            Verdict::Failed { message: cut(message, ERROR_BYTES_MAX), permanent }
        }
        Verdict::Completed(_) | Verdict::HandedOver(_) | Verdict::Lost => verdict,
    }
}

fn bytes_of((_, verdict, _): &(AttemptRef, Verdict, bool)) -> usize {
    match verdict {
        Verdict::Completed(document) | Verdict::HandedOver(document) => document.get().len(),
        Verdict::Failed { message, .. } => bytes_as_json(message),
        Verdict::Lost => 0,
    }
}

/// The text up to so many bytes.
fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

fn code_of(error: &ClientError) -> Option<&str> {
    match error {
        ClientError::Api { body, .. } => Some(&body.error_code),
        _ => None,
    }
}
