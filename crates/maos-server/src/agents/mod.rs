//! Agents: what really does the work of an attempt, one runtime each.
//!
//! A runtime gets one attempt with its parameters, runs it, and says how it went. Whether the
//! attempt still counts is for the engine; a runtime knows neither the engine nor the journal.

pub mod builtin;
pub mod command;
mod courier;
pub mod http;
mod order;
mod roster;
mod told;
mod until_gone;
pub mod worker;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use maos_core::ids::{Attempt, TaskId};
use maos_core::spec::{AgentSpec, TaskSpec};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub use order::{Order, Start};
pub use roster::{Expand, NoteSink, ReportSink, Roster, Runtimes, Sinks, WatchSink};
pub(crate) use roster::{expanded, failed, lost, resolved, subtasks_max};
pub(crate) use told::{fault_of, raw, told};

/// One attempt, handed to a runtime.
pub struct Assignment {
    /// The task.
    pub task: TaskId,
    /// Which run of it.
    pub attempt: Attempt,
    /// Who runs it.
    pub agent: Arc<AgentSpec>,
    /// What was asked for.
    pub spec: Arc<TaskSpec>,
    /// The parameters, with references to earlier results resolved. An object.
    pub parameters: Value,
    /// What is left of the attempt's time. The engine ends it then; a runtime need not.
    pub timeout: Duration,
    /// Cancelled when the attempt is to stop. A runtime then ends what it started, within
    /// `limits::STOP_GRACE_MS`, and returns; its verdict no longer counts.
    pub stop: CancellationToken,
    /// Where signs of life go.
    pub progress: ProgressSink,
    /// Where the attempt's log lines go.
    pub log: LogSink,
}

impl Assignment {
    /// What its processes are known by.
    pub(crate) fn id(&self) -> String {
        attempt_id(self.task, self.attempt)
    }
}

/// What the processes of an attempt are known by, and who is asked over HTTP knows it by.
pub(crate) fn attempt_id(task: TaskId, attempt: Attempt) -> String {
    format!("{task}-{attempt}")
}

/// How an attempt went.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It has a result: any JSON value, at most `limits::RESULT_BYTES_MAX` bytes when written.
    Completed(Value),
    /// It has none.
    Failed {
        /// Why, for the person who must act: the thing, what was found, what was wanted.
        message: String,
        /// Whether trying again is known to be useless (bad input).
        permanent: bool,
    },
    /// It never came to a verdict, by our own doing: stopped, or not started for lack of something.
    Lost {
        /// Why.
        message: String,
    },
    /// Its end was handed in already, by whoever brought it.
    Reported,
}

/// How far an attempt has come. Every sign of it counts as progress.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// 0.0 to 1.0, if the agent knows.
    pub fraction: Option<f64>,
    /// What it is at.
    pub message: Option<String>,
}

/// Takes progress; called from any thread, never blocks.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;
/// Takes one line of log without its line end; called from any thread, never blocks.
pub type LogSink = Arc<dyn Fn(&str) + Send + Sync>;

/// A future that a runtime returns.
pub type Running<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// Something that does attempts. One suite of tests holds for all of them.
pub trait RunAttempt: Send + Sync {
    /// Runs one attempt to its verdict. Must be safe to drop at any `.await`.
    fn run(&self, assignment: Assignment) -> Running<'_>;
}

/// Folders that `file.*` and `data.*` may touch. A path outside of all of them is refused, also
/// when a symbolic link leads there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedRoots {
    /// Absolute folders; relative paths of tasks are taken from the first.
    pub roots: Vec<PathBuf>,
}
