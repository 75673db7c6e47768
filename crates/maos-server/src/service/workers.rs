//! The worker protocol: registration, and polls that bring outcomes and fetch work.
//!
//! Outcomes of a poll go to the engine in one go, and the poll is answered when all of them are
//! durable. What a worker holds is the engine's word; its desk is a copy that is filled anew
//! whenever the two may have drifted apart.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use maos_api::error::{ApiError, ErrorCode};
use maos_api::logs::{LogLevel, LogSource};
use maos_api::submission::Bounds;
use maos_api::worker::{self, AttemptRef, Outcome, OutcomeStatus, Poll, PollAnswer, Refused};
use maos_core::command::{Command, Report};
use maos_core::event::{AgentEnd, FailureKind};
use maos_core::ids::{AgentId, Attempt, TaskId};
use maos_core::limits::{BATCH_BYTES_MAX, INLINE_PAYLOAD_BYTES_MAX};
use maos_core::node::{Answer, Query};
use maos_core::payload::Payload;
use maos_core::record::{Stage, TaskRecord};
use maos_core::rejection::Rejection;
use maos_core::spec::{AgentSpec, Runtime, TaskSpec};
use maos_core::time::WallTime;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Instant;
use uuid::Uuid;

use super::tasks::blocking;
use super::{Service, faults, present};
use crate::agents::worker::{Away, Desk, Key, Run, Settled};
use crate::agents::{self, Progress};
use crate::driver;
use crate::logs::{Line, Noted};

/// Warnings of one poll about lines that are not kept.
const WARNINGS_MAX: usize = 10;
/// Longest progress message that is kept.
const LINE_CHARS_MAX: usize = 4_096;

/// Reports on their way to the engine, with the attempts that they are about.
#[derive(Default)]
struct Taken {
    commands: Vec<Command>,
    /// Documents that must be durable first.
    documents: Vec<([u8; 32], Vec<u8>)>,
    refused: Vec<Refused>,
    /// Attempts that this server does not know of this worker: they may have been reported before.
    unknown: Vec<Key>,
}

impl Service {
    /// Answers a poll of a worker: its outcomes are durable when this returns. May be dropped at
    /// any time; what it brought stands, or is to be brought again.
    ///
    /// # Errors
    /// What is wrong with the poll, or why there will be nothing for this worker.
    pub async fn poll(&self, id: Uuid, body: &[u8]) -> Result<PollAnswer, ApiError> {
        let received = Instant::now();
        let bounds = Bounds { body_bytes_max: BATCH_BYTES_MAX, ..self.bounds().clone() };
        let poll = worker::parse(body, &bounds)?;
        let agent = AgentId(id.as_u128());
        let desk = self.filled_desk(agent).await?;
        let away = |away| self.away(agent, away);
        let ticket = desk.arrive(poll.incarnation).map_err(away)?;
        let silence = self.lease(&desk, agent, poll.lease_seconds).await?;
        self.inner.driver.seen(agent);
        let (noted, mut warnings) = self.note_signs(&desk, &poll);
        let mut held: HashSet<Key> = poll.holding.iter().map(|held| key(*held)).collect();
        for outcome in &poll.outcomes {
            held.remove(&outcome_key(outcome));
        }
        let refused = self.take_outcomes(&desk, &poll.outcomes).await?;
        warnings.extend(poll.warnings.iter().cloned());
        if !written(noted).await {
            warnings.push("log lines could not be written: the server's log says more".to_owned());
        }
        let mut post = self.post(&desk, agent, &poll).await;
        self.inner.driver.report(desk.compare(&held));
        if self.stopping() && poll.outcomes.is_empty() {
            return Err(faults::refused(driver::Refused::Stopped));
        }
        let wait = Duration::from_millis(poll.wait_ms).min(silence * 2 / 3);
        let quiet = refused.is_empty() && post.messages.is_empty();
        let until = if quiet { received + wait } else { received };
        let most = usize::try_from(poll.max_tasks).unwrap_or(usize::MAX);
        let handed = tokio::select! {
            biased;
            handed = desk.next(ticket, &held, most, until) => handed,
            () = post.arrives(), if quiet => {
                desk.next(ticket, &held, most, received).await
            }
        };
        let handed = handed.map_err(away)?;
        warnings.append(&mut post.warnings);
        self.inner.driver.seen(agent);
        let silence = silence.as_secs();
        Ok(PollAnswer {
            tasks: self.tasks_of(&desk, handed.runs).await,
            messages: post.hand_over(),
            cancel: handed.stops.into_iter().map(reference).collect(),
            refused,
            drain: self.stopping(),
            lease_seconds: silence,
            heartbeat_seconds: (silence / 3).max(1),
            warnings,
        })
    }

    /// How long a worker may be silent; if it asks for another time, that is durable first.
    async fn lease(
        &self,
        desk: &Desk,
        agent: AgentId,
        wanted_seconds: Option<u64>,
    ) -> Result<Duration, ApiError> {
        let usual = Duration::from_secs(self.inner.config.api.worker_timeout);
        let now = desk.silence().unwrap_or(usual);
        let Some(wanted) = wanted_seconds.map(Duration::from_secs).filter(|time| *time != now)
        else {
            return Ok(now);
        };
        let state = self.agent_state(agent).await?;
        if let Some(end) = state.record.end {
            return Err(ended(agent, end));
        }
        let silence_ms = u64::try_from(wanted.as_millis()).ok();
        self.register(Arc::new(AgentSpec { silence_ms, ..(*state.record.spec).clone() })).await?;
        desk.keep_silence(wanted);
        Ok(wanted)
    }

    /// The worker's desk, with everything on it that the engine holds for it.
    async fn filled_desk(&self, agent: AgentId) -> Result<Arc<Desk>, ApiError> {
        let workers = &self.inner.workers;
        let desk = workers.desk_or_new(agent);
        if !workers.needs_filling(&desk) {
            return Ok(desk);
        }
        let alone = desk.alone().await;
        if !workers.needs_filling(&desk) {
            drop(alone);
            return Ok(desk);
        }
        desk.empty();
        let (record, holds) = match self.inner.driver.ask(Query::Holds(agent)).await {
            Ok(Answer::Holds(record, holds)) => (record, holds),
            Ok(_) => return Err(faults::internal(&"what an agent holds was something else")),
            Err(driver::Refused::Rejection(Rejection::AgentNotFound(_))) => {
                self.inner.planning.forget_agent(agent);
                workers.clear_away(agent);
                return Err(self.gone(agent).await);
            }
            Err(refused) => return Err(faults::refused(refused)),
        };
        if record.spec.runtime != Runtime::Worker {
            workers.clear_away(agent);
            return Err(not_a_worker(agent));
        }
        if let Some(end) = record.end {
            self.inner.planning.forget_agent(agent);
            workers.clear_away(agent);
            return Err(ended(agent, end));
        }
        let engine_now = self.inner.driver.engine_time(WallTime(super::now().0));
        let (mut runs, mut stops) = (Vec::new(), Vec::new());
        for hold in holds {
            let Some(timeout) = hold.timeout else {
                stops.push((hold.task, hold.attempt));
                continue;
            };
            let left = Duration::from_micros(timeout.0.saturating_sub(engine_now.0));
            let until = Instant::now() + left;
            let (task, attempt, spec, inputs) = (hold.task, hold.attempt, hold.spec, hold.inputs);
            runs.push(Run { task, attempt, spec, inputs, until });
        }
        desk.fill(runs, stops, record.spec.silence_ms.map(Duration::from_millis));
        drop(alone);
        Ok(desk)
    }

    fn away(&self, agent: AgentId, away: Away) -> ApiError {
        match away {
            Away::Ended => ended(agent, AgentEnd::Terminated),
            Away::Fenced { by } => {
                let message = format!(
                    "incarnation `{by}` of worker `{agent}` polls: this older one has been \
                     replaced\nhint: stop what it runs and end it"
                );
                ApiError::new(ErrorCode::StaleIncarnation, message).with("incarnation", by)
            }
        }
    }

    /// Why the engine does not know a worker.
    async fn gone(&self, agent: AgentId) -> ApiError {
        let store = self.inner.store.clone();
        match blocking(move || store.agent(agent)).await {
            Err(why) => self.storage(&why),
            Ok(Some(record)) if record.spec.runtime != Runtime::Worker => not_a_worker(agent),
            Ok(Some(record)) => ended(agent, record.end.unwrap_or(AgentEnd::Lost)),
            Ok(None) => {
                let message = format!(
                    "no agent has the id `{agent}`\nhint: register it with POST /api/v1/agents, \
                     `runtime` `worker` and this `id`"
                );
                ApiError::new(ErrorCode::AgentNotFound, message).with("agent_id", agent.to_string())
            }
        }
    }

    /// Hands on what attempts say meanwhile; the lines are on their way then. Second comes what
    /// the worker's author should know.
    fn note_signs(&self, desk: &Desk, poll: &Poll<'_>) -> (Vec<Noted>, Vec<String>) {
        let (mut noted, mut warnings) = (Vec::new(), Vec::new());
        if poll.progress.is_empty() && poll.logs.is_empty() {
            return (noted, warnings);
        }
        let signs = poll.progress.iter().map(|sign| numbered(sign.task_id, sign.attempt));
        let going_on = desk.going_on(signs);
        for sign in &poll.progress {
            let (task, attempt) = numbered(sign.task_id, sign.attempt);
            if going_on.contains(&(task, attempt)) {
                let message = sign.message.as_deref().map(line);
                let progress = Progress { fraction: sign.fraction, message };
                (self.inner.sinks.watch)(task, attempt, progress);
            }
        }
        let mut lines: BTreeMap<Key, Vec<Line>> = BTreeMap::new();
        for log in &poll.logs {
            let at = lines.entry(numbered(log.task_id, log.attempt)).or_default();
            at.extend(lines_of(log));
        }
        let known = desk.not_ended(lines.keys().copied());
        for ((task, attempt), lines) in lines {
            if known.contains(&(task, attempt)) {
                noted.extend(self.inner.logs.note(task, attempt, lines));
            } else if warnings.len() < WARNINGS_MAX {
                warnings.push(format!(
                    "`logs`: attempt {attempt} of task `{task}` is not one that this worker runs, \
                     its lines were not kept"
                ));
            }
        }
        (noted, warnings)
    }

    /// Hands the outcomes of a poll to the engine, all in one go; durable when this returns. Says
    /// which do not count.
    async fn take_outcomes(
        &self,
        desk: &Desk,
        outcomes: &[Outcome<'_>],
    ) -> Result<Vec<Refused>, ApiError> {
        if outcomes.is_empty() {
            return Ok(Vec::new());
        }
        let (settled, unsettled) = desk.settle(outcomes.iter().map(outcome_key));
        let mut taken = Taken { commands: Vec::with_capacity(outcomes.len()), ..Taken::default() };
        for (outcome, settled) in outcomes.iter().zip(settled) {
            self.take(outcome, settled, &mut taken).await;
        }
        let Taken { commands, documents, mut refused, unknown } = taken;
        let kept = self.inner.payloads.keep_all(documents).await;
        kept.map_err(|why| self.storage(&why))?;
        self.forget_progress(outcomes);
        let keys: Vec<Key> = commands.iter().filter_map(command_key).collect();
        let answers = self.inner.driver.hand_in(commands).answers().await;
        let mut stale = Vec::new();
        for ((task, attempt), answer) in keys.into_iter().zip(answers.map_err(faults::refused)?) {
            match answer {
                Ok(_) => {}
                Err(Rejection::StaleAttempt { .. }) => {
                    refused.push(too_late((task, attempt)));
                    // It may be waited for: its agent has just said that it is over.
                    stale.push(Command::Release { task, attempt });
                }
                Err(rejection) => return Err(faults::rejected(&rejection)),
            }
        }
        unsettled.settled();
        self.inner.driver.report(stale);
        for key in unknown {
            if !self.was_reported(key).await? {
                refused.push(too_late(key));
            }
        }
        Ok(refused)
    }

    /// What the engine is told of one outcome.
    async fn take(&self, outcome: &Outcome<'_>, settled: Settled, taken: &mut Taken) {
        let (task, attempt) = outcome_key(outcome);
        let gave_up = matches!(outcome.status, OutcomeStatus::Cancelled | OutcomeStatus::Lost);
        match settled {
            Settled::Run(run) => {
                let report = self.report(outcome, &run, taken).await;
                taken.commands.push(Command::Report { task, attempt, report });
            }
            Settled::Stopping => {
                taken.commands.push(Command::Release { task, attempt });
                if !gave_up {
                    taken.refused.push(too_late((task, attempt)));
                }
            }
            // Whoever gave something up that it does not hold has nothing more to hear.
            Settled::Unknown if gave_up => {}
            Settled::Unknown => taken.unknown.push((task, attempt)),
        }
    }

    async fn report(&self, outcome: &Outcome<'_>, run: &Run, taken: &mut Taken) -> Report {
        let (report, refusal) = match judge(outcome, &run.spec) {
            Judged::Over(report) => (report, None),
            Judged::Refused(fault) => (agents::failed(&fault, true), Some(fault.into())),
            Judged::Plan(answer) => (self.expansion(run, answer).await, None),
            Judged::Rest(subtasks) => once(self.expansion(run, subtasks).await),
            Judged::Result(result) => {
                (Report::Completed(payload(result, &mut taken.documents)), None)
            }
        };
        let refusal = refusal
            .map(|fault| refused((run.task, run.attempt), ErrorCode::ResultRefused, fault.into()));
        taken.refused.extend(refusal);
        report
    }

    async fn expansion(&self, run: &Run, answer: &RawValue) -> Report {
        let payloads = &self.inner.payloads;
        let parameters = match agents::resolved(payloads, &run.spec, &run.inputs).await {
            Ok(parameters) => parameters,
            Err(report) => return report,
        };
        let most = agents::subtasks_max(&parameters);
        agents::expanded(payloads, &self.inner.sinks, &run.spec, answer, most).await
    }

    pub(super) fn forget_progress(&self, outcomes: &[Outcome<'_>]) {
        let mut board =
            self.inner.progress.lock().expect("nothing panics while it holds this lock");
        if !board.is_empty() {
            for outcome in outcomes {
                board.remove(&outcome_key(outcome).0);
            }
        }
    }

    /// Whether this very attempt has reported before: an answer may be lost on its way.
    pub(super) async fn was_reported(&self, (task, attempt): Key) -> Result<bool, ApiError> {
        match self.record(task, Duration::ZERO).await {
            Ok(record) => Ok(record.attempt == attempt && reported(&record)),
            Err(error) if error.code == ErrorCode::TaskNotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The attempts as the wire shows them. One whose documents cannot be had ends here.
    async fn tasks_of(&self, desk: &Desk, runs: Vec<Arc<Run>>) -> Vec<worker::Task> {
        let mut tasks = Vec::with_capacity(runs.len());
        for run in runs {
            match self.task_of(&run).await {
                Ok(task) => tasks.push(task),
                Err(report) => {
                    let (task, attempt) = (run.task, run.attempt);
                    let (_, unsettled) = desk.settle(std::iter::once((task, attempt)));
                    self.inner.driver.report(vec![Command::Report { task, attempt, report }]);
                    unsettled.settled();
                }
            }
        }
        tasks
    }

    async fn task_of(&self, run: &Run) -> Result<worker::Task, Report> {
        let spec = &run.spec;
        let parameters = if run.inputs.is_empty() {
            self.kept(&spec.parameters).await?
        } else {
            let resolved = agents::resolved(&self.inner.payloads, spec, &run.inputs).await?;
            to_raw_value(&resolved).map_err(|why| agents::lost(&why.to_string()))?
        };
        let left = run.until.saturating_duration_since(Instant::now());
        let told =
            agents::told(&self.inner.payloads, spec, (run.task, run.attempt), parameters, left);
        told.await.map_err(|why| agents::lost(&why))
    }

    async fn kept(&self, payload: &Payload) -> Result<Box<RawValue>, Report> {
        let bytes = self.inner.payloads.bytes(payload).await;
        let bytes = bytes.map_err(|fault| agents::lost(&fault.to_string()))?;
        agents::raw(bytes).map_err(|why| agents::lost(&why))
    }
}

/// What the outcome of an attempt comes to.
pub(super) enum Judged<'a> {
    /// This is how it went.
    Over(Report),
    /// Its result cannot be taken, for this reason: it has failed for good.
    Refused(String),
    /// It made subtasks, as it was asked to.
    Plan(&'a RawValue),
    /// It leaves the rest to subtasks.
    Rest(&'a RawValue),
    /// It made this.
    Result(&'a str),
}

/// Reads the outcome of an attempt of a task.
pub(super) fn judge<'a>(outcome: &'a Outcome<'_>, spec: &TaskSpec) -> Judged<'a> {
    let error = |otherwise| outcome.error.as_deref().unwrap_or(otherwise);
    match outcome.status {
        OutcomeStatus::Failed => {
            let reason = error("its agent gave no reason");
            Judged::Over(agents::failed(reason, outcome.permanent))
        }
        OutcomeStatus::Cancelled => Judged::Over(agents::lost(error("its agent gave it up"))),
        OutcomeStatus::Lost => Judged::Over(agents::lost(error("its agent lost it"))),
        OutcomeStatus::Completed => {
            let result = outcome.result.map_or("null", RawValue::get);
            if let Some(fault) = agents::fault_of(result) {
                return Judged::Refused(fault);
            }
            match (outcome.subtasks, spec.rare().plans.is_some(), outcome.result) {
                (Some(subtasks), _, _) => rest(subtasks, result),
                (None, true, Some(answer)) => Judged::Plan(answer),
                (None, true, None) => {
                    Judged::Over(agents::failed("its plan is refused: there is none", false))
                }
                (None, false, _) => Judged::Result(result),
            }
        }
    }
}

fn rest<'a>(subtasks: &'a RawValue, result: &str) -> Judged<'a> {
    if result != "null" {
        let fault = "it brings `result` and `subtasks`: the result of a task with subtasks is made \
                     of theirs";
        return Judged::Refused(fault.to_owned());
    }
    agents::fault_of(subtasks.get()).map_or(Judged::Rest(subtasks), Judged::Refused)
}

/// Subtasks that cannot be taken are a program's mistake, which it would make the next time too;
/// says why they are refused.
pub(super) fn once(report: Report) -> (Report, Option<Box<str>>) {
    match report {
        Report::Failed(failure) => (agents::failed(&failure.message, true), Some(failure.message)),
        report => (report, None),
    }
}

/// A result as the engine keeps it; what is too large for that is put to `documents`.
pub(super) fn payload(result: &str, documents: &mut Vec<([u8; 32], Vec<u8>)>) -> Payload {
    let bytes = result.len() as u64;
    if bytes <= INLINE_PAYLOAD_BYTES_MAX {
        return Payload::inline(result.as_bytes());
    }
    let hash = *blake3::hash(result.as_bytes()).as_bytes();
    documents.push((hash, result.as_bytes().to_vec()));
    Payload::stored(hash, bytes)
}

/// Whether the last attempt of a task ended by its agent's own word.
fn reported(record: &TaskRecord) -> bool {
    let last_failure = record.last_failure();
    let said_so = |kind| kind == FailureKind::Reported || kind == FailureKind::SubtaskFailed;
    match &record.stage {
        Stage::Completed(_) | Stage::Collected | Stage::Active => true,
        Stage::Failed(failure) => said_so(failure.kind),
        Stage::Backoff { .. } | Stage::Ready { .. } => {
            last_failure.is_some_and(|failure| failure.kind == FailureKind::Reported)
        }
        Stage::Waiting | Stage::Parked { .. } | Stage::Running { .. } | Stage::Cancelled { .. } => {
            false
        }
    }
}

pub(super) fn numbered(task: Uuid, attempt: u32) -> Key {
    (TaskId(task.as_u128()), Attempt(attempt))
}

fn key(held: AttemptRef) -> Key {
    numbered(held.task_id, held.attempt)
}

fn outcome_key(outcome: &Outcome<'_>) -> Key {
    numbered(outcome.task_id, outcome.attempt)
}

fn reference((task, attempt): Key) -> AttemptRef {
    AttemptRef { task_id: present::uuid(task), attempt: attempt.0 }
}

fn command_key(command: &Command) -> Option<Key> {
    match command {
        Command::Report { task, attempt, .. } | Command::Release { task, attempt } => {
            Some((*task, *attempt))
        }
        _ => None,
    }
}

fn refused((task, attempt): Key, code: ErrorCode, error: String) -> Refused {
    let error_code = Cow::Borrowed(code.name());
    Refused { task_id: present::uuid(task), attempt: attempt.0, error_code, error }
}

fn too_late(key: Key) -> Refused {
    let (task, attempt) = key;
    let error = format!(
        "attempt {attempt} of task `{task}` is not one that this worker runs: it was cancelled, \
         ran out of time or was lost, and its outcome does not count"
    );
    refused(key, ErrorCode::StaleAttempt, error)
}

pub(super) fn not_a_worker(agent: AgentId) -> ApiError {
    let message = format!("agent `{agent}` is not a worker: it does not poll");
    ApiError::new(ErrorCode::NotAWorker, message).with("agent_id", agent.to_string())
}

fn ended(agent: AgentId, end: AgentEnd) -> ApiError {
    let (code, message) = match end {
        AgentEnd::Lost => (
            ErrorCode::AgentLost,
            format!(
                "worker `{agent}` was not heard of for too long, and what it held went to others\n\
                 hint: stop that work and register again with POST /api/v1/agents and this `id`"
            ),
        ),
        AgentEnd::Terminated | AgentEnd::Retired => (
            ErrorCode::AgentEnded,
            format!(
                "worker `{agent}` was told to end its service, and what it held goes to others\n\
                 hint: stop that work and end the worker; to serve again it must be registered"
            ),
        ),
    };
    ApiError::new(code, message).with("agent_id", agent.to_string())
}

fn lines_of(log: &worker::Log<'_>) -> impl Iterator<Item = Line> {
    let level = log.level.unwrap_or(LogLevel::Info);
    let texts = log.line.iter().chain(&log.lines);
    texts.map(move |text| {
        let now = Line::now(level, LogSource::Worker, text);
        Line { time: log.time.unwrap_or(now.time), ..now }
    })
}

/// Whether all of these lines are in the logs now.
async fn written(noted: Vec<Noted>) -> bool {
    let mut all = true;
    for noted in noted {
        all &= matches!(noted.await, Ok(Ok(_)));
    }
    all
}

/// A line of a worker's words within its bound.
fn line(text: &str) -> String {
    text.chars().take(LINE_CHARS_MAX).collect()
}
