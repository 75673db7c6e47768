//! The log of a task on the wire: lines of all its attempts, each under an offset.
//!
//! A page says where to go on; the same lines come as server-sent events, whose ids are offsets.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{ApiError, ErrorCode};
use crate::task::{TaskStatus, wire_names};
use crate::time::UtcTime;

/// Lines on a page, unless it is asked for more or fewer.
pub const LIMIT_DEFAULT: u32 = 200;
/// Most lines on a page.
pub const LIMIT_MAX: u32 = 1_000;
/// Greatest offset that can be asked for.
pub const OFFSET_MAX: u64 = u64::MAX >> 1;
/// Longest wait for a line, in seconds.
pub const WAIT_SECONDS_MAX: u64 = 60;

wire_names! {
    /// How serious a line is.
    LogLevel: 4 {
        /// Everything.
        Debug "debug"
        /// Steps of its life.
        Info "info"
        /// Degraded but going on.
        Warning "warning"
        /// Somebody must act.
        Error "error"
    }
}

wire_names! {
    /// Where a line comes from.
    LogSource: 4 {
        /// The standard error of a program.
        Stderr "stderr"
        /// A worker's poll.
        Worker "worker"
        /// A sign of progress.
        Progress "progress"
        /// The server itself: lines are missing here, or the log is full.
        Server "server"
    }
}

impl FromStr for LogLevel {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<LogLevel, ApiError> {
        let found = LogLevel::ALL.into_iter().find(|level| level.name() == text);
        let known = LogLevel::ALL.map(LogLevel::name).join(", ");
        found.ok_or_else(|| bad("level", format!("must be one of {known}")))
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogItem {
    /// Its place in the log of its task.
    pub offset: u64,
    /// When it was written.
    pub time: UtcTime,
    /// Which run of the task wrote it.
    pub attempt: u32,
    /// How serious it is.
    pub level: LogLevel,
    /// Without its line end.
    pub line: String,
    /// Where it comes from.
    pub source: LogSource,
}

/// The answer to `GET /api/v1/tasks/{id}/logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    /// The task.
    pub task_id: Uuid,
    /// Lines, by offset.
    pub items: Vec<LogItem>,
    /// The offset to go on with.
    pub next_offset: u64,
    /// Whether the task has ended and nothing is behind this page.
    pub ended: bool,
    /// What the reader should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The data of the event `gap`: lines before the next one were removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogGap {
    /// What happened.
    pub error: String,
}

/// The data of the event `end`: the task has ended, and every line was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEnd {
    /// The task.
    pub task_id: Uuid,
    /// What it came to.
    pub status: TaskStatus,
    /// The offset that a further attempt would go on with.
    pub next_offset: u64,
}

/// Which lines of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// From this one on.
    pub offset: u64,
    /// Most of them.
    pub limit: u32,
    /// The least serious.
    pub level: LogLevel,
    /// As they come, until the task ends.
    pub follow: bool,
    /// How long to wait for the first one.
    pub wait_seconds: u64,
}

impl Default for LogQuery {
    fn default() -> LogQuery {
        let (offset, limit, level) = (0, LIMIT_DEFAULT, LogLevel::Debug);
        LogQuery { offset, limit, level, follow: false, wait_seconds: 0 }
    }
}

/// The query of `GET /api/v1/tasks/{id}/logs`, unread.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RawLogQuery {
    offset: Option<String>,
    limit: Option<String>,
    level: Option<String>,
    follow: Option<String>,
    wait_seconds: Option<String>,
}

impl RawLogQuery {
    /// What it asks for.
    ///
    /// # Errors
    /// The parameter that cannot be read.
    pub fn read(&self) -> Result<LogQuery, ApiError> {
        let default = LogQuery::default();
        let limit = number("limit", self.limit.as_deref(), default.limit.into(), 1, LIMIT_MAX)?;
        Ok(LogQuery {
            offset: number("offset", self.offset.as_deref(), 0, 0, OFFSET_MAX)?,
            limit: u32::try_from(limit).unwrap_or(LIMIT_MAX),
            level: self.level.as_deref().map_or(Ok(default.level), str::parse)?,
            follow: match self.follow.as_deref() {
                None | Some("false" | "0") => false,
                Some("true" | "1" | "") => true,
                Some(_) => return Err(bad("follow", "must be true or false".to_owned())),
            },
            wait_seconds: number(
                "wait_seconds",
                self.wait_seconds.as_deref(),
                0,
                0,
                WAIT_SECONDS_MAX,
            )?,
        })
    }
}

/// A query parameter that is a number within its bounds.
pub(crate) fn number(
    name: &str,
    text: Option<&str>,
    absent: u64,
    least: u64,
    most: impl Into<u64>,
) -> Result<u64, ApiError> {
    let most = most.into();
    let Some(text) = text else { return Ok(absent) };
    let parsed = text.parse::<u64>().ok().filter(|number| (least..=most).contains(number));
    parsed.ok_or_else(|| bad(name, format!("must be a whole number from {least} to {most}")))
}

/// A query parameter that cannot be read.
pub(crate) fn bad(name: &str, what: String) -> ApiError {
    let message = format!("query parameter `{name}` {what}");
    ApiError::new(ErrorCode::MalformedQuery, message).with("parameter", name)
}
