//! The roster: has orders carried out by the runtimes, and brings back how it went.
//!
//! An attempt that was told to stop is released when it has really ended, never before; any other
//! is reported. A runtime that panics has failed its attempt and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use maos_api::error::ApiError;
use maos_api::logs::{LogLevel, LogSource};
use maos_core::command::{Command, Report};
use maos_core::event::{Failure, FailureKind};
use maos_core::ids::{Attempt, TaskId};
use maos_core::limits::{ERROR_CHARS_MAX, PLAN_TASKS_MAX, RESULT_BYTES_MAX};
use maos_core::outcome::Outcome;
use maos_core::payload::Payload;
use maos_core::spec::{Runtime, TaskSpec};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::worker::Workers;
use super::{Assignment, Order, Progress, RunAttempt, Start, Verdict};
use crate::logs::Line;
use crate::payloads::Payloads;
use crate::planner;

/// What does the work, by runtime.
pub struct Runtimes {
    /// For `Runtime::Builtin`.
    pub builtin: Arc<dyn RunAttempt>,
    /// For `Runtime::Command`.
    pub command: Arc<dyn RunAttempt>,
    /// For `Runtime::Http`.
    pub http: Arc<dyn RunAttempt>,
}

/// Takes reports of attempts; never blocks.
pub type ReportSink = Arc<dyn Fn(Vec<Command>) + Send + Sync>;
/// Takes signs of progress of attempts; never blocks.
pub type WatchSink = Arc<dyn Fn(TaskId, Attempt, Progress) + Send + Sync>;

/// Takes lines of log of attempts; never blocks.
pub type NoteSink = Arc<dyn Fn(TaskId, Attempt, Line) + Send + Sync>;

/// Makes the answer of an attempt into subtasks of its task, at most so many.
pub type Expand =
    Arc<dyn Fn(&TaskSpec, &RawValue, u32) -> Result<planner::Expanded, ApiError> + Send + Sync>;

/// Where what agents say goes.
#[derive(Clone)]
pub struct Sinks {
    /// Reports.
    pub report: ReportSink,
    /// Signs of progress.
    pub watch: WatchSink,
    /// Lines of log.
    pub note: NoteSink,
    /// Answers that are subtasks.
    pub expand: Expand,
}

/// Carries out orders. Clones share everything.
#[derive(Clone)]
pub struct Roster {
    runtimes: Arc<Runtimes>,
    workers: Arc<Workers>,
    payloads: Payloads,
    sinks: Sinks,
    running: Arc<Mutex<HashMap<(TaskId, Attempt), CancellationToken>>>,
    emptied: Arc<Notify>,
}

impl Roster {
    /// A roster that hands on to `sinks` what agents say.
    #[must_use]
    pub fn new(
        runtimes: Runtimes,
        workers: Arc<Workers>,
        payloads: Payloads,
        sinks: Sinks,
    ) -> Roster {
        let (running, emptied) = Default::default();
        Roster { runtimes: Arc::new(runtimes), workers, payloads, sinks, running, emptied }
    }

    /// The report of an attempt that needs nobody's time; `None` for all others, which
    /// [`Roster::run`] carries out.
    #[must_use]
    pub fn at_once(order: &Order) -> Option<Command> {
        match order {
            Order::Start(start) => echo(start),
            Order::Stop(..) => None,
        }
    }

    /// Carries out orders until there will be no more.
    pub async fn run(self, mut orders: mpsc::UnboundedReceiver<Vec<Order>>) {
        while let Some(batch) = orders.recv().await {
            let (mut reports, mut for_workers) = (Vec::new(), Vec::new());
            for order in batch {
                match order {
                    order if order.agent().runtime == Runtime::Worker => for_workers.push(order),
                    Order::Start(start) => self.start(*start),
                    Order::Stop(task, attempt, _) => reports.extend(self.stop(task, attempt)),
                }
            }
            reports.extend(self.workers.deliver(for_workers));
            if !reports.is_empty() {
                (self.sinks.report)(reports);
            }
        }
    }

    /// Waits until nothing runs, at most `grace`; then stops what is left and waits for its end.
    pub async fn wind_down(&self, grace: Duration) {
        let _ = tokio::time::timeout(grace, self.idle()).await;
        for stop in self.held().values() {
            stop.cancel();
        }
        let kill = Duration::from_millis(maos_core::limits::STOP_GRACE_MS + 1_000);
        let _ = tokio::time::timeout(kill, self.idle()).await;
    }

    async fn idle(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.held().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<(TaskId, Attempt), CancellationToken>> {
        self.running.lock().expect("nothing panics while it holds this lock")
    }

    /// Stops an attempt; one that is not running here any more is released at once.
    fn stop(&self, task: TaskId, attempt: Attempt) -> Option<Command> {
        match self.held().get(&(task, attempt)) {
            Some(stop) => {
                stop.cancel();
                None
            }
            None => Some(Command::Release { task, attempt }),
        }
    }

    fn start(&self, start: Start) {
        let key = (start.task, start.attempt);
        let stop = CancellationToken::new();
        self.held().insert(key, stop.clone());
        let roster = self.clone();
        tokio::spawn(async move {
            let report = AssertUnwindSafe(roster.attempt(start, stop.clone())).catch_unwind().await;
            let report = report.unwrap_or_else(|_| {
                error!(task.id = %key.0, "the runtime of task `{}` panicked", key.0);
                let message = "its agent failed in an unexpected way; the server's log says more";
                Some(failed(message, false))
            });
            let empty = {
                let mut held = roster.held();
                held.remove(&key);
                held.is_empty()
            };
            let (task, attempt) = key;
            if stop.is_cancelled() {
                (roster.sinks.report)(vec![Command::Release { task, attempt }]);
            } else if let Some(report) = report {
                (roster.sinks.report)(vec![Command::Report { task, attempt, report }]);
            }
            if empty {
                roster.emptied.notify_waiters();
            }
        });
    }

    /// Runs an attempt; `None` if its end was handed in already.
    async fn attempt(&self, start: Start, stop: CancellationToken) -> Option<Report> {
        let given = resolved(&self.payloads, &start.spec, &start.inputs).await;
        let parameters = match given {
            Ok(parameters) => parameters,
            Err(report) => return Some(report),
        };
        let (task, attempt) = (start.task, start.attempt);
        let (watch, note) = (self.sinks.watch.clone(), self.sinks.note.clone());
        let spec = start.spec.clone();
        let subtasks_max = spec.rare().plans.is_some().then(|| subtasks_max(&parameters));
        let runtime = match start.agent.runtime {
            Runtime::Builtin => &self.runtimes.builtin,
            Runtime::Command => &self.runtimes.command,
            Runtime::Http => &self.runtimes.http,
            Runtime::ClaudeCode | Runtime::Worker => {
                let message = "this server cannot run agents of this kind";
                return Some(failed(message, true));
            }
        };
        let verdict = runtime
            .run(Assignment {
                task,
                attempt,
                agent: start.agent,
                spec: start.spec,
                parameters,
                timeout: start.timeout,
                stop,
                progress: Arc::new(move |progress| watch(task, attempt, progress)),
                log: Arc::new(move |line| {
                    note(task, attempt, Line::now(LogLevel::Info, LogSource::Stderr, line));
                }),
            })
            .await;
        Some(match verdict {
            Verdict::Completed(answer) => match subtasks_max {
                Some(most) => match to_raw_value(&answer) {
                    Ok(answer) => {
                        let (payloads, sinks) = (&self.payloads, &self.sinks);
                        expanded(payloads, sinks, &spec, &answer, most).await
                    }
                    Err(why) => failed(&format!("its plan cannot be written: {why}"), true),
                },
                None => self.completed(answer).await,
            },
            Verdict::Failed { message, permanent } => failed(&message, permanent),
            Verdict::Lost { message } => lost(&message),
            Verdict::Reported => return None,
        })
    }

    async fn completed(&self, result: Value) -> Report {
        let document = match serde_json::to_vec(&result) {
            Ok(document) => document,
            Err(why) => return failed(&format!("its result cannot be written: {why}"), true),
        };
        if document.len() as u64 > RESULT_BYTES_MAX {
            let bytes = document.len();
            let message =
                format!("its result has {bytes} bytes, at most {RESULT_BYTES_MAX} are allowed");
            return failed(&message, true);
        }
        match self.payloads.keep(document).await {
            Ok(payload) => Report::Completed(payload),
            Err(fault) => lost(&fault.to_string()),
        }
    }
}

/// The parameters of an attempt, with references to earlier results resolved; or how the attempt
/// has ended for want of them.
pub(crate) async fn resolved(
    payloads: &Payloads,
    spec: &TaskSpec,
    inputs: &[Outcome],
) -> Result<Value, Report> {
    let parameters = load(payloads, &Outcome::Payload(spec.parameters.clone())).await?;
    if inputs.is_empty() {
        return Ok(parameters);
    }
    let mut results = BTreeMap::new();
    for (input, outcome) in spec.rare().inputs.iter().zip(inputs) {
        results.insert(input.key.to_string(), load(payloads, outcome).await?);
    }
    planner::resolve(parameters, &results).map_err(|why| failed(&why.to_string(), true))
}

async fn load(payloads: &Payloads, outcome: &Outcome) -> Result<Value, Report> {
    payloads.value(outcome).await.map_err(|fault| lost(&fault.to_string()))
}

/// The answer of an agent that plans: subtasks of its task. A wrong one may be right the next
/// time, so it is tried again like any failure.
pub(crate) async fn expanded(
    payloads: &Payloads,
    sinks: &Sinks,
    task: &TaskSpec,
    answer: &RawValue,
    most: u32,
) -> Report {
    let expanded = match (sinks.expand)(task, answer, most) {
        Ok(expanded) => expanded,
        Err(why) => return failed(&format!("its plan is refused: {}", why.message), false),
    };
    match payloads.keep_all(expanded.blobs).await {
        Ok(()) => Report::Expanded(Arc::new(expanded.expansion)),
        Err(fault) => lost(&fault.to_string()),
    }
}

/// How many subtasks a task wants at the most: its `parameters.max_subtasks`, within the bound.
pub(crate) fn subtasks_max(parameters: &Value) -> u32 {
    let wanted = parameters.get("max_subtasks").and_then(Value::as_u64);
    wanted.and_then(|most| u32::try_from(most).ok()).unwrap_or(PLAN_TASKS_MAX).min(PLAN_TASKS_MAX)
}

/// `noop` answers its own parameters: no runtime need look at them.
fn echo(start: &Start) -> Option<Command> {
    if start.agent.runtime != Runtime::Builtin || !start.inputs.is_empty() {
        return None;
    }
    let Payload::Inline(document) = &start.spec.parameters else { return None };
    #[derive(serde::Deserialize)]
    struct Peek<'a> {
        #[serde(borrow, default)]
        action: Option<std::borrow::Cow<'a, str>>,
    }
    let peek: Peek<'_> = serde_json::from_slice(document).ok()?;
    (peek.action.as_deref() == Some("noop")).then(|| Command::Report {
        task: start.task,
        attempt: start.attempt,
        report: Report::Completed(start.spec.parameters.clone()),
    })
}

/// An agent's own word that its attempt has no result.
pub(crate) fn failed(message: &str, permanent: bool) -> Report {
    Report::Failed(Failure { kind: FailureKind::Reported, message: cut(message), permanent })
}

/// That an attempt never came to a verdict.
pub(crate) fn lost(message: &str) -> Report {
    Report::Lost(cut(message))
}

/// An agent's words within their bound; what was cut off is said.
fn cut(message: &str) -> Box<str> {
    let most = usize::try_from(ERROR_CHARS_MAX).unwrap_or(usize::MAX);
    match message.char_indices().nth(most) {
        None => message.into(),
        Some((end, _)) => format!("{} … ({} bytes in all)", &message[..end], message.len()).into(),
    }
}
