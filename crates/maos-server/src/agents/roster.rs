//! The roster: has orders carried out by the runtimes, and brings back how it went.
//!
//! An attempt that was told to stop is released when it has really ended, never before; any other
//! is reported. A runtime that panics has failed its attempt and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use maos_core::command::{Command, Report};
use maos_core::event::{Failure, FailureKind};
use maos_core::ids::{Attempt, TaskId};
use maos_core::limits::{ERROR_CHARS_MAX, RESULT_BYTES_MAX};
use maos_core::outcome::Outcome;
use maos_core::payload::Payload;
use maos_core::spec::Runtime;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::{Assignment, Order, Progress, RunAttempt, Start, Verdict};
use crate::payloads::Payloads;
use crate::planner;

/// What does the work, by runtime.
pub struct Runtimes {
    /// For `Runtime::Builtin`.
    pub builtin: Arc<dyn RunAttempt>,
    /// For `Runtime::Command`.
    pub command: Arc<dyn RunAttempt>,
}

/// Takes reports of attempts; never blocks.
pub type ReportSink = Arc<dyn Fn(Vec<Command>) + Send + Sync>;
/// Takes signs of progress of attempts; never blocks.
pub type WatchSink = Arc<dyn Fn(TaskId, Attempt, Progress) + Send + Sync>;

/// Carries out orders. Clones share everything.
#[derive(Clone)]
pub struct Roster {
    runtimes: Arc<Runtimes>,
    payloads: Payloads,
    report: ReportSink,
    watch: WatchSink,
    running: Arc<Mutex<HashMap<(TaskId, Attempt), CancellationToken>>>,
    emptied: Arc<Notify>,
}

impl Roster {
    /// A roster that reports to `report` and shows progress to `watch`.
    #[must_use]
    pub fn new(
        runtimes: Runtimes,
        payloads: Payloads,
        report: ReportSink,
        watch: WatchSink,
    ) -> Roster {
        let runtimes = Arc::new(runtimes);
        Roster {
            runtimes,
            payloads,
            report,
            watch,
            running: Arc::default(),
            emptied: Arc::default(),
        }
    }

    /// The report of an attempt that needs nobody's time; `None` for all others.
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
            let mut at_once = Vec::new();
            for order in batch {
                match order {
                    Order::Start(start) => match echo(&start) {
                        Some(report) => at_once.push(report),
                        None => self.start(*start),
                    },
                    Order::Stop(task, attempt) => at_once.extend(self.stop(task, attempt)),
                }
            }
            if !at_once.is_empty() {
                (self.report)(at_once);
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
                failed("its agent failed in an unexpected way; the server's log says more", false)
            });
            let empty = {
                let mut held = roster.held();
                held.remove(&key);
                held.is_empty()
            };
            let (task, attempt) = key;
            (roster.report)(vec![if stop.is_cancelled() {
                Command::Release { task, attempt }
            } else {
                Command::Report { task, attempt, report }
            }]);
            if empty {
                roster.emptied.notify_waiters();
            }
        });
    }

    async fn attempt(&self, start: Start, stop: CancellationToken) -> Report {
        let parameters = match self.parameters(&start).await {
            Ok(parameters) => parameters,
            Err(report) => return report,
        };
        let (task, attempt) = (start.task, start.attempt);
        let watch = self.watch.clone();
        let runtime = match start.agent.runtime {
            Runtime::Builtin => &self.runtimes.builtin,
            Runtime::Command => &self.runtimes.command,
            Runtime::Http | Runtime::ClaudeCode | Runtime::Worker => {
                let message = "this server cannot run agents of this kind yet";
                return failed(message, true);
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
                log: Arc::new(move |line| debug!(task.id = %task, "task `{task}`: {line}")),
            })
            .await;
        match verdict {
            Verdict::Completed(result) => self.completed(result).await,
            Verdict::Failed { message, permanent } => failed(&message, permanent),
            Verdict::Lost { message } => Report::Lost(cut(&message)),
        }
    }

    /// The parameters of an attempt, with references to earlier results resolved.
    async fn parameters(&self, start: &Start) -> Result<Value, Report> {
        let document = Outcome::Payload(start.spec.parameters.clone());
        let parameters = self.load(&document).await?;
        if start.inputs.is_empty() {
            return Ok(parameters);
        }
        let mut inputs = BTreeMap::new();
        for (input, outcome) in start.spec.rare().inputs.iter().zip(&start.inputs) {
            inputs.insert(input.key.to_string(), self.load(outcome).await?);
        }
        planner::resolve(parameters, &inputs).map_err(|why| failed(&why.to_string(), true))
    }

    async fn load(&self, outcome: &Outcome) -> Result<Value, Report> {
        self.payloads.value(outcome).await.map_err(|fault| Report::Lost(cut(&fault.to_string())))
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
            Err(fault) => Report::Lost(cut(&fault.to_string())),
        }
    }
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

fn failed(message: &str, permanent: bool) -> Report {
    Report::Failed(Failure { kind: FailureKind::Reported, message: cut(message), permanent })
}

/// An agent's words within their bound; what was cut off is said.
fn cut(message: &str) -> Box<str> {
    let most = usize::try_from(ERROR_CHARS_MAX).unwrap_or(usize::MAX);
    match message.char_indices().nth(most) {
        None => message.into(),
        Some((end, _)) => format!("{} … ({} bytes in all)", &message[..end], message.len()).into(),
    }
}
