//! The logs of tasks: lines of their attempts, each under an offset, apart from the engine.
//!
//! Its law: whoever writes a line never waits, and a line that is left out is told by one in its
//! place: the log is full, or the disk did not keep up. It must not know who writes or reads.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use maos_api::logs::{LogItem, LogLevel, LogSource};
use maos_api::time::UtcTime;
use maos_core::ids::{Attempt, NodeId, TaskId};
use minicbor::{Decode, Encode};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::config;
use crate::streams::{
    Appended, AtTotal, Durability, Entry, Options, Room, StreamError, Streams, Totals, Watch,
};

/// Bytes of lines that may wait to be written.
const PENDING_BYTES_MAX: u64 = 16 << 20;
/// Longest line that is kept; what is beyond is cut.
const LINE_CHARS_MAX: usize = 4_096;
/// Lines that one page looks at to find those of the level that is asked for.
const LOOKED_AT_MAX: u32 = 1_000;
/// Tasks of which is remembered that lines are missing.
const MISSING_MAX: usize = 10_000;
const DAY_US: u64 = 24 * 3_600 * 1_000_000;

/// A line on its way into a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was written.
    pub time: UtcTime,
    /// How serious it is.
    pub level: LogLevel,
    /// Where it comes from.
    pub source: LogSource,
    /// Without its line end.
    pub text: String,
}

/// A part of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Lines, by offset.
    pub items: Vec<LogItem>,
    /// The offset to go on with.
    pub next: u64,
    /// Whether there is nothing behind it by now.
    pub at_end: bool,
    /// Lines at its beginning that are gone.
    pub gone: u64,
}

/// An append under way.
pub type Noted = oneshot::Receiver<Result<Appended, StreamError>>;

/// The logs of all tasks. Clones share everything.
#[derive(Clone, Debug)]
pub struct Logs {
    streams: Streams,
    keep: config::Logs,
    /// Lines that could not be taken, and the attempt of the last.
    missing: Arc<Mutex<HashMap<TaskId, (u64, Attempt)>>>,
}

#[derive(Encode, Decode)]
struct Stored {
    #[n(0)]
    time: u64,
    #[n(1)]
    attempt: u32,
    #[n(2)]
    level: u8,
    #[n(3)]
    source: u8,
    #[n(4)]
    text: String,
}

impl Logs {
    /// The logs in the file `path`; those that begin are of the server `node`.
    ///
    /// # Errors
    /// When it is damaged, of a newer release, or the disk fails.
    pub fn open(path: &Path, keep: config::Logs, node: NodeId) -> Result<Logs, StreamError> {
        let options = Options {
            durability: Durability::Written,
            bytes_max: keep.bytes_max,
            at_total: AtTotal::DropOldest,
            pending_bytes_max: PENDING_BYTES_MAX,
            node,
        };
        Ok(Logs { streams: Streams::open(path, options)?, keep, missing: Arc::default() })
    }

    /// Adds lines of one attempt. Never waits; `None` when they could not be taken, which the log
    /// then says.
    pub fn note(&self, task: TaskId, attempt: Attempt, lines: Vec<Line>) -> Option<Noted> {
        if lines.is_empty() {
            return None;
        }
        let expires = (self.keep.keep_days > 0).then(|| {
            let now = lines.last().map_or(0, |line| line.time.0);
            now.saturating_add(u64::from(self.keep.keep_days) * DAY_US)
        });
        let count = lines.len() as u64;
        let missing = self.take_missing(task);
        let gap = missing.map(|(count, attempt)| gap(count, attempt, lines[0].time));
        let lines = lines.into_iter().map(|line| stored(attempt, line));
        let entries = gap
            .into_iter()
            .chain(lines)
            .map(|line| Entry { expires, body: encoded(&line) })
            .collect();
        match self.streams.begin_append(&name(task), entries, self.room(attempt), None) {
            Ok(noted) => Some(noted),
            Err(_) => {
                let before = missing.map_or(0, |(count, _)| count);
                self.miss(task, before + count, attempt);
                None
            }
        }
    }

    /// Makes everything that was noted before readable.
    ///
    /// # Errors
    /// That the logs are closed.
    pub async fn settle(&self, task: TaskId) -> Result<(), StreamError> {
        self.flush().await?;
        if let Some((count, attempt)) = self.take_missing(task) {
            let body = encoded(&gap(count, attempt, now()));
            let entry = Entry { expires: None, body };
            let room = self.room(attempt);
            let told = self.streams.append(&name(task), vec![entry], room, None).await;
            if told.is_err() {
                self.miss(task, count, attempt);
            }
        }
        Ok(())
    }

    /// Returns once everything that was noted before is written.
    ///
    /// # Errors
    /// That the logs are closed.
    pub async fn flush(&self) -> Result<(), StreamError> {
        self.streams.flush().await
    }

    /// Up to `limit` lines from `from` on that are at least as serious as `level`. Blocks.
    ///
    /// # Errors
    /// What is damaged or failed.
    pub fn read(
        &self,
        task: TaskId,
        from: u64,
        limit: u32,
        level: LogLevel,
    ) -> Result<Part, StreamError> {
        let look = if level == LogLevel::Debug { limit } else { LOOKED_AT_MAX };
        let page = self.streams.read(&name(task), from, look)?;
        let first = page.entries.first().map_or(page.next, |entry| entry.offset);
        let mut part = Part {
            items: Vec::new(),
            next: page.next,
            at_end: page.at_end,
            gone: first.saturating_sub(from),
        };
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        for entry in page.entries {
            if part.items.len() >= most {
                (part.next, part.at_end) = (entry.offset, false);
                break;
            }
            let item = item(entry.offset, &entry.body);
            if item.level >= level {
                part.items.push(item);
            }
        }
        Ok(part)
    }

    /// Tells when the log of a task gets longer.
    #[must_use]
    pub fn watch(&self, task: TaskId) -> Watch {
        self.streams.watch(&name(task))
    }

    /// Removes the logs of tasks that are gone.
    pub fn forget(&self, tasks: &[TaskId]) {
        self.streams.begin_remove(tasks.iter().map(|task| name(*task)).collect());
    }

    /// The tasks that have a log, in order, behind `after`. Blocks.
    ///
    /// # Errors
    /// What is damaged or failed.
    pub fn tasks(&self, after: Option<TaskId>, limit: u32) -> Result<Vec<TaskId>, StreamError> {
        let after = after.map(name).unwrap_or_default();
        let standings = self.streams.standings(PREFIX, &after, limit)?;
        let id = |name: &str| Uuid::parse_str(name.strip_prefix(PREFIX)?).ok();
        let ids = standings.iter().filter_map(|standing| id(&standing.name));
        Ok(ids.map(|id| TaskId(id.as_u128())).collect())
    }

    /// How much there is. Blocks.
    ///
    /// # Errors
    /// What is damaged or failed.
    pub fn totals(&self) -> Result<Totals, StreamError> {
        self.streams.totals()
    }

    /// Whether lines get to the disk.
    ///
    /// # Errors
    /// What keeps them from that.
    pub fn health(&self) -> Result<(), String> {
        self.streams.health()
    }

    /// Takes nothing from now on; what was noted is written.
    pub fn close(&self) {
        self.streams.close();
    }

    fn room(&self, attempt: Attempt) -> Room {
        let (lines, bytes) = (self.keep.task_lines_max, self.keep.task_bytes_max);
        let text = format!(
            "the log is full: a task may have {lines} lines and {bytes} bytes, and what its agents \
             have to say from here on is left out"
        );
        let last = stored(attempt, server_line(text, now()));
        Room::Whole { entries_max: lines, bytes_max: bytes, last: encoded(&last) }
    }

    fn miss(&self, task: TaskId, count: u64, attempt: Attempt) {
        let mut missing = self.missing.lock().expect("nothing panics while it holds this lock");
        if missing.len() >= MISSING_MAX && !missing.contains_key(&task) {
            tracing::warn!(task.id = %task, "{count} lines of the log of task `{task}` are lost");
            return;
        }
        let known = missing.entry(task).or_insert((0, attempt));
        *known = (known.0 + count, attempt);
    }

    fn take_missing(&self, task: TaskId) -> Option<(u64, Attempt)> {
        let mut missing = self.missing.lock().expect("nothing panics while it holds this lock");
        if missing.is_empty() { None } else { missing.remove(&task) }
    }
}

const PREFIX: &str = "task:";

fn name(task: TaskId) -> String {
    format!("{PREFIX}{}", Uuid::from_u128(task.0))
}

fn now() -> UtcTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UtcTime(u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX))
}

impl Line {
    /// A line that is written now.
    #[must_use]
    pub fn now(level: LogLevel, source: LogSource, text: &str) -> Line {
        Line { time: now(), level, source, text: text.to_owned() }
    }
}

fn server_line(text: String, time: UtcTime) -> Line {
    Line { time, level: LogLevel::Warning, source: LogSource::Server, text }
}

fn gap(count: u64, attempt: Attempt, time: UtcTime) -> Stored {
    let text = format!("{count} lines are missing here: the server could not keep up with them");
    stored(attempt, server_line(text, time))
}

fn stored(attempt: Attempt, line: Line) -> Stored {
    let mut text = line.text;
    if let Some((at, _)) = text.char_indices().nth(LINE_CHARS_MAX) {
        let cut = text.len() - at;
        text.truncate(at);
        text.push_str(&format!("… ({cut} bytes more)"));
    }
    let level = LogLevel::ALL.iter().position(|known| *known == line.level);
    let source = LogSource::ALL.iter().position(|known| *known == line.source);
    let number = |index: Option<usize>| index.and_then(|at| u8::try_from(at).ok()).unwrap_or(0);
    let (level, source) = (number(level), number(source));
    Stored { time: line.time.0, attempt: attempt.0, level, source, text }
}

fn encoded(line: &Stored) -> Vec<u8> {
    minicbor::to_vec(line).expect("writing to memory does not fail")
}

fn item(offset: u64, body: &[u8]) -> LogItem {
    match minicbor::decode::<Stored>(body) {
        Ok(line) => LogItem {
            offset,
            time: UtcTime(line.time),
            attempt: line.attempt,
            level: *LogLevel::ALL.get(usize::from(line.level)).unwrap_or(&LogLevel::Info),
            line: line.text,
            source: *LogSource::ALL.get(usize::from(line.source)).unwrap_or(&LogSource::Server),
        },
        // Its checksum is right, so a newer release wrote it.
        Err(why) => LogItem {
            offset,
            time: UtcTime(0),
            attempt: 0,
            level: LogLevel::Warning,
            line: format!("this line cannot be read by this release: {why}"),
            source: LogSource::Server,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId(7);

    fn logs(keep: config::Logs) -> (Logs, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (Logs::open(&folder.path().join("logs.db"), keep, NodeId(3)).unwrap(), folder)
    }

    fn line(level: LogLevel, text: &str) -> Line {
        Line { time: UtcTime(5), level, source: LogSource::Worker, text: text.to_owned() }
    }

    #[tokio::test]
    async fn levels_are_told_apart_and_every_line_is_looked_at_once() {
        let (logs, _folder) = logs(config::Logs::default());
        for index in 0..10 {
            let level = if index % 5 == 4 { LogLevel::Error } else { LogLevel::Info };
            drop(logs.note(TASK, Attempt(2), vec![line(level, &index.to_string())]));
        }
        logs.settle(TASK).await.unwrap();
        let part = logs.read(TASK, 0, 1, LogLevel::Warning).unwrap();
        assert_eq!((part.items.len(), &*part.items[0].line, part.at_end), (1, "4", false));
        let part = logs.read(TASK, part.next, 9, LogLevel::Warning).unwrap();
        assert_eq!((&*part.items[0].line, part.next, part.at_end), ("9", 10, true));
        assert_eq!(part.items[0].attempt, 2);
        let standing = logs.streams.standing(&name(TASK)).unwrap().unwrap();
        assert_eq!(standing.node, Some(NodeId(3)));
        assert_eq!(logs.tasks(None, 9).unwrap(), [TASK]);
        logs.forget(&[TASK]);
        logs.settle(TASK).await.unwrap();
        assert_eq!(
            logs.read(TASK, 0, 9, LogLevel::Debug).unwrap(),
            Part { at_end: true, ..Part::default() }
        );
    }

    #[tokio::test]
    async fn a_full_log_and_one_that_is_behind_say_so() {
        let keep = config::Logs { task_lines_max: 2, ..config::Logs::default() };
        let (logs, _folder) = logs(keep);
        logs.miss(TASK, 3, Attempt(1));
        let lines = ["a", "b", "c"].map(|text| line(LogLevel::Info, text)).to_vec();
        drop(logs.note(TASK, Attempt(1), lines));
        logs.settle(TASK).await.unwrap();
        let part = logs.read(TASK, 0, 9, LogLevel::Debug).unwrap();
        let texts: Vec<&str> = part.items.iter().map(|item| &*item.line).collect();
        assert!(texts[0].starts_with("3 lines are missing here"), "{texts:?}");
        assert_eq!(texts[1], "a");
        assert!(texts[2].starts_with("the log is full") && texts.len() == 3, "{texts:?}");
    }

    #[test]
    fn long_lines_are_cut_and_say_so() {
        let cut = stored(Attempt(1), line(LogLevel::Info, &"ü".repeat(5_000)));
        assert!(cut.text.ends_with("… (1808 bytes more)"), "{}", &cut.text[8_000..]);
    }
}
