//! The worker protocol on the wire: what a poll says, and what it is answered.
//!
//! Results are handed on unread, so that one bad result never spoils the poll that brings it; what
//! the words mean for a task is not for this room.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::agent::HEARTBEAT_TIMEOUT_MAX;
use crate::document::Members;
use crate::error::ApiError;
use crate::fault::Faults;
use crate::field::{kind, shown};
use crate::logs::LogLevel;
use crate::messages::{Ack, Message};
use crate::submission::{self, Bounds, UNKNOWN_NAMED_MAX};
use crate::time::UtcTime;

/// Longest wait for work that a poll may ask for.
pub const WAIT_MS_MAX: u64 = 60_000;
/// Most tasks that one answer holds.
pub const TASKS_MAX: u32 = 1_000;
/// Most outcomes, and most signs of progress, that one poll may bring.
pub const OUTCOMES_MAX: usize = 1_000;
/// Most log lines that one poll may bring.
pub const LOG_LINES_MAX: usize = 10_000;

/// Most messages that one answer holds.
pub const MESSAGES_MAX: u32 = 100;

/// One run of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct AttemptRef {
    /// The task.
    pub task_id: Uuid,
    /// Which run of it.
    pub attempt: u32,
}

/// The body of `POST /api/v1/agents/{id}/poll`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Poll<'a> {
    /// Which process of this worker polls: a later one has a larger number.
    pub incarnation: u64,
    /// How many tasks it has room for.
    pub max_tasks: u32,
    /// How long to wait for something to tell, in milliseconds.
    pub wait_ms: u64,
    /// What it works on. An attempt that is not here is sent again.
    pub holding: Vec<AttemptRef>,
    /// How attempts went.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<Outcome<'a>>,
    /// Signs of life of attempts that go on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub progress: Vec<Progress<'a>>,
    /// What attempts have to say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<Log<'a>>,
    /// How many messages to this worker and to the tasks that it holds the answer may bring.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_messages: u32,
    /// Messages that need not come again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ack: Vec<Ack>,
    /// From now on the worker may be silent for so many seconds, until it says otherwise: 1 to
    /// [`HEARTBEAT_TIMEOUT_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u64>,
    /// What the answer should mention.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeStatus {
    /// It has a result.
    Completed,
    /// It has none.
    Failed,
    /// It stopped because it was told to.
    Cancelled,
    /// It never came to a verdict: another attempt is made, without using up a retry.
    Lost,
}

/// The end of an attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome<'a> {
    /// The task.
    pub task_id: Uuid,
    /// Which run of it.
    pub attempt: u32,
    /// How it went.
    pub status: OutcomeStatus,
    /// What it made, if it completed; null if it is left out.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub result: Option<&'a RawValue>,
    /// What is still to be done for it, if it completed: entries as in a submission's `subtasks`.
    /// The task's result is made of theirs.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub subtasks: Option<&'a RawValue>,
    /// Why it did not complete.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'a, str>>,
    /// Whether trying again is known to be useless.
    #[serde(default)]
    pub permanent: bool,
}

/// A sign of life of an attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress<'a> {
    /// The task.
    pub task_id: Uuid,
    /// Which run of it.
    pub attempt: u32,
    /// 0.0 to 1.0, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// What it is at.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Cow<'a, str>>,
}

/// A line of log of one attempt, or several of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Log<'a> {
    /// The task.
    pub task_id: Uuid,
    /// Which run of it.
    pub attempt: u32,
    /// When; the server's time of arrival if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<UtcTime>,
    /// How serious; `info` if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// The line, without its end.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub line: Option<Cow<'a, str>>,
    /// Further lines.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Cow<'a, str>>,
}

impl Log<'_> {
    /// How many lines it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lines.len() + usize::from(self.line.is_some())
    }
}

/// The answer to a poll.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PollAnswer {
    /// What is to be done.
    pub tasks: Vec<Task>,
    /// Messages to this worker and to the tasks that it holds, if it asked for some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// What is to be stopped; left out of `holding` once it has.
    pub cancel: Vec<AttemptRef>,
    /// Outcomes that do not count, and why.
    pub refused: Vec<Refused>,
    /// Whether the server is about to end: nothing new comes until it is back.
    pub drain: bool,
    /// Seconds of silence after which the worker is lost.
    pub lease_seconds: u64,
    /// Seconds within which it should poll again.
    pub heartbeat_seconds: u64,
    /// What the worker's author should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// An attempt that is to be run.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = WorkerTask)]
pub struct Task {
    /// The task.
    pub task_id: Uuid,
    /// Which run of it.
    pub attempt: u32,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// An object, with references to earlier results resolved.
    #[schema(value_type = Object)]
    pub parameters: Box<RawValue>,
    /// An object that came with the submission.
    #[schema(value_type = Object)]
    pub metadata: Box<RawValue>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Bound on one run.
    pub timeout_seconds: u64,
    /// What is left of that; the server then ends the attempt.
    pub remaining_ms: u64,
    /// Bound on the silence between two signs of progress, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_progress_seconds: Option<u64>,
    /// W3C trace context of the submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// An outcome that does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = RefusedOutcome)]
pub struct Refused {
    /// The task.
    pub task_id: Uuid,
    /// Which run of it.
    pub attempt: u32,
    /// The name of an [`crate::error::ErrorCode`].
    pub error_code: Cow<'static, str>,
    /// What is wrong.
    pub error: String,
}

/// Every field of a poll.
pub const FIELDS: [&str; 10] = [
    "incarnation",
    "max_tasks",
    "wait_ms",
    "holding",
    "outcomes",
    "progress",
    "logs",
    "max_messages",
    "ack",
    "lease_seconds",
];

/// Reads and checks the body of a poll. Results are not looked into.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse<'a>(body: &'a [u8], bounds: &Bounds) -> Result<Poll<'a>, ApiError> {
    let text = submission::readable(body, bounds)?;
    let members = match serde_json::from_str::<Members<'_>>(text) {
        Ok(members) => members,
        Err(_) => submission::open(body, bounds)?,
    };
    let mut faults = Faults::default();
    let (mut slots, mut warnings) = ([None; FIELDS.len()], Vec::new());
    for (name, value) in members.0 {
        match FIELDS.iter().position(|field| *field == name) {
            Some(index) if slots[index].is_none() => slots[index] = Some(value),
            Some(_) => faults.invalid(name, "is given twice"),
            None => warnings.push(submission::unknown_field(&name)),
        }
    }
    warnings.truncate(UNKNOWN_NAMED_MAX);
    let [incarnation, max_tasks, wait_ms, holding, outcomes, ..] = slots;
    let [.., progress, logs, max_messages, ack, lease_seconds] = slots;
    if incarnation.is_none() {
        faults.invalid("incarnation", "is required: a number that grows with every start");
    }
    let poll = Poll {
        incarnation: read(&mut faults, "incarnation", incarnation, NUMBER),
        max_tasks: match max_tasks {
            None => 1,
            some => read(&mut faults, "max_tasks", some, NUMBER),
        },
        wait_ms: read(&mut faults, "wait_ms", wait_ms, NUMBER),
        holding: entries(&mut faults, "holding", holding, "`task_id` and `attempt`"),
        outcomes: entries(&mut faults, "outcomes", outcomes, OUTCOME),
        progress: entries(&mut faults, "progress", progress, SIGN),
        logs: entries(&mut faults, "logs", logs, LINE),
        max_messages: read(&mut faults, "max_messages", max_messages, NUMBER),
        ack: entries(&mut faults, "ack", ack, "`mailbox` and `offset`"),
        lease_seconds: read(&mut faults, "lease_seconds", lease_seconds, NUMBER),
        warnings,
    };
    check(&poll, bounds, &mut faults);
    faults.check()?;
    Ok(poll)
}

/// What is wanted of numbers and of the entries of lists.
const NUMBER: &str = "a whole number of at least 0";
const OUTCOME: &str = "`task_id`, `attempt` and `status`";
const SIGN: &str = "`task_id` and `attempt`, and may have `fraction` and `message`";
const LINE: &str = "`task_id`, `attempt` and `line` or `lines`, and may have `level` and `time`";

/// Every field of a callback.
pub const OUTCOME_FIELDS: [&str; 5] = ["status", "result", "subtasks", "error", "permanent"];

/// The answer to a callback that says how an attempt went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomeAnswer {
    /// What became of it, in words.
    pub message: String,
    /// The task.
    pub task_id: Uuid,
    /// Which run of it.
    pub attempt: u32,
    /// What the agent's author should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Reads and checks the body of a callback, an outcome as in a poll whose attempt is known. The
/// result is not looked into. Second comes what the answer should mention.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse_outcome<'a>(
    AttemptRef { task_id, attempt }: AttemptRef,
    body: &'a [u8],
    bounds: &Bounds,
) -> Result<(Outcome<'a>, Vec<String>), ApiError> {
    let text = submission::readable(body, bounds)?;
    let members = match serde_json::from_str::<Members<'_>>(text) {
        Ok(members) => members,
        Err(_) => submission::open(body, bounds)?,
    };
    let mut faults = Faults::default();
    let (mut slots, mut warnings) = ([None; OUTCOME_FIELDS.len()], Vec::new());
    for (name, value) in members.0 {
        match OUTCOME_FIELDS.iter().position(|field| *field == name) {
            Some(index) if slots[index].is_none() => slots[index] = Some(value),
            Some(_) => faults.invalid(name, "is given twice"),
            None => warnings.push(submission::unknown_field(&name)),
        }
    }
    warnings.truncate(UNKNOWN_NAMED_MAX);
    let [status, result, subtasks, error, permanent] = slots;
    let statuses = "`completed`, `failed`, `cancelled` or `lost`";
    let status: Option<OutcomeStatus> = read(&mut faults, "status", status, statuses);
    if status.is_none() && faults.is_empty() {
        faults.invalid("status", format!("is required: {statuses}"));
    }
    let error = read(&mut faults, "error", error, "a text");
    let permanent = read(&mut faults, "permanent", permanent, "true or false");
    faults.check()?;
    let status = status.unwrap_or(OutcomeStatus::Lost);
    Ok((Outcome { task_id, attempt, status, result, subtasks, error, permanent }, warnings))
}

fn read<'a, T: Deserialize<'a> + Default>(
    faults: &mut Faults,
    field: &str,
    raw: Option<&'a RawValue>,
    wanted: &str,
) -> T {
    let Some(raw) = raw else { return T::default() };
    serde_json::from_str(raw.get()).unwrap_or_else(|_| {
        faults.invalid(field, format!("must be {wanted}, found {}", shown(raw.get())));
        T::default()
    })
}

/// A list whose entries are objects with the members `wanted`. Each faulty one is named.
fn entries<'a, T: Deserialize<'a>>(
    faults: &mut Faults,
    field: &str,
    raw: Option<&'a RawValue>,
    wanted: &str,
) -> Vec<T> {
    let Some(raw) = raw else { return Vec::new() };
    // Most polls are well: only in others each entry is looked at by itself.
    if let Ok(entries) = serde_json::from_str(raw.get()) {
        return entries;
    }
    let Ok(found) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
        faults.invalid(field, format!("must be a list, found {}", kind(raw.get())));
        return Vec::new();
    };
    for (index, entry) in found.into_iter().enumerate() {
        let what = match serde_json::from_str::<T>(entry.get()) {
            Ok(_) => continue,
            Err(_) if !entry.get().starts_with('{') => format!(", found {}", kind(entry.get())),
            Err(why) => format!(": {}", in_words(&why)),
        };
        faults.invalid(format!("{field}[{index}]"), format!("must have {wanted}{what}"));
    }
    Vec::new()
}

/// What is wrong with an entry, without the words of the language that this is written in.
fn in_words(why: &serde_json::Error) -> String {
    let text = why.to_string();
    let text = text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text);
    let words = [("u64", NUMBER), ("u32", NUMBER), ("f64", "a number")];
    words.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn check(poll: &Poll<'_>, bounds: &Bounds, faults: &mut Faults) {
    let mut most = |field: &str, found: u64, most: u64, what: &str| {
        if found > most {
            faults.invalid(field, format!("must {what} at most {most}, found {found}"));
        }
    };
    most("max_tasks", poll.max_tasks.into(), TASKS_MAX.into(), "be");
    most("wait_ms", poll.wait_ms, WAIT_MS_MAX, "be");
    most("lease_seconds", poll.lease_seconds.unwrap_or(0), HEARTBEAT_TIMEOUT_MAX, "be");
    let entries = "have entries:";
    let slots_max = bounds.agent_slots_max.into();
    most("holding", poll.holding.len() as u64, slots_max, entries);
    most("outcomes", poll.outcomes.len() as u64, OUTCOMES_MAX as u64, entries);
    most("progress", poll.progress.len() as u64, OUTCOMES_MAX as u64, entries);
    let lines: usize = poll.logs.iter().map(Log::count).sum();
    most("max_messages", poll.max_messages.into(), MESSAGES_MAX.into(), "be");
    most("ack", poll.ack.len() as u64, OUTCOMES_MAX as u64, entries);
    most("logs", lines as u64, LOG_LINES_MAX as u64, "have lines:");
    if poll.lease_seconds == Some(0) {
        faults.invalid("lease_seconds", "must be at least 1, found 0");
    }
    for (index, sign) in poll.progress.iter().enumerate() {
        if sign.fraction.is_some_and(|fraction| !(0.0..=1.0).contains(&fraction)) {
            faults.invalid(format!("progress[{index}].fraction"), "must be 0 to 1");
        }
    }
}

/// An empty object; what is left out on the wire.
#[must_use]
pub fn empty() -> Box<RawValue> {
    serde_json::value::to_raw_value(&Value::Object(Map::new())).expect("an empty object is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submission::tests::BOUNDS;

    const ID: &str = "0190163d-8694-739b-aea5-966c26f8ad90";

    #[test]
    fn a_poll_has_defaults_and_hands_results_on_unread() {
        let body = format!(
            r#"{{"incarnation": 7, "outcomes": [{{"task_id": "{ID}", "attempt": 2,
            "status": "completed", "result": [[ 1e999 ]], "later": 1}}], "extra": 0}}"#
        );
        let poll = parse(body.as_bytes(), &BOUNDS).unwrap();
        assert_eq!((poll.incarnation, poll.max_tasks, poll.wait_ms), (7, 1, 0));
        assert_eq!(poll.outcomes[0].result.unwrap().get(), "[[ 1e999 ]]");
        assert_eq!(poll.warnings, ["unknown field `extra` is ignored"]);
        let written = serde_json::to_vec(&poll).unwrap();
        assert_eq!(parse(&written, &BOUNDS).unwrap().outcomes[0].attempt, 2);
    }

    #[test]
    fn a_callback_is_an_outcome_without_its_attempt() {
        let of = AttemptRef { task_id: ID.parse().unwrap(), attempt: 3 };
        let body = br#"{"status": "completed", "result": [[1e999]], "task_id": 7}"#;
        let (outcome, warnings) = parse_outcome(of, body, &BOUNDS).unwrap();
        assert_eq!((outcome.attempt, outcome.status), (3, OutcomeStatus::Completed));
        assert_eq!(outcome.result.unwrap().get(), "[[1e999]]");
        assert_eq!(warnings, ["unknown field `task_id` is ignored"]);
        let body = br#"{"status": "failed", "error": "no \u00fc", "permanent": true}"#;
        let (outcome, _) = parse_outcome(of, body, &BOUNDS).unwrap();
        assert_eq!((outcome.error.as_deref(), outcome.permanent), (Some("no \u{fc}"), true));
        for (body, field) in [
            ("{}", "status"),
            (r#"{"status": null}"#, "status"),
            (r#"{"status": "great"}"#, "status"),
            (r#"{"status": "lost", "status": "lost"}"#, "status"),
            (r#"{"status": "failed", "error": 7}"#, "error"),
            (r#"{"status": "failed", "permanent": "yes"}"#, "permanent"),
        ] {
            let error = parse_outcome(of, body.as_bytes(), &BOUNDS).unwrap_err();
            assert!(error.details["fields"].get(field).is_some(), "{field}: {error:?}");
        }
    }

    #[test]
    fn every_fault_is_named() {
        for (body, field) in [
            ("{}".to_owned(), "incarnation"),
            (r#"{"incarnation": -1}"#.to_owned(), "incarnation"),
            (r#"{"incarnation": 1, "incarnation": 2}"#.to_owned(), "incarnation"),
            (r#"{"incarnation": 1, "max_tasks": 1001}"#.to_owned(), "max_tasks"),
            (r#"{"incarnation": 1, "wait_ms": 60001}"#.to_owned(), "wait_ms"),
            (r#"{"incarnation": 1, "holding": [{"task_id": "x"}]}"#.to_owned(), "holding[0]"),
            (r#"{"incarnation": 1, "holding": 7}"#.to_owned(), "holding"),
            (
                format!(
                    r#"{{"incarnation": 1, "outcomes":
                    [{{"task_id": "{ID}", "attempt": 1, "status": "great"}}]}}"#
                ),
                "outcomes[0]",
            ),
            (
                format!(
                    r#"{{"incarnation": 1, "progress":
                    [{{"task_id": "{ID}", "attempt": 1, "fraction": 2}}]}}"#
                ),
                "progress[0].fraction",
            ),
        ] {
            let error = parse(body.as_bytes(), &BOUNDS).unwrap_err();
            assert!(error.details["fields"].get(field).is_some(), "{field}: {error:?}");
        }
        assert_eq!(parse(b"{", &BOUNDS).unwrap_err().code.name(), "MALFORMED_JSON");
    }

    #[test]
    fn a_fault_says_what_is_wanted_and_of_which_entry() {
        let good = format!(r#"{{"task_id": "{ID}", "attempt": 1}}"#);
        for (poll, field, said) in [
            (
                r#""wait_ms": "x""#.to_owned(),
                "wait_ms",
                r#"must be a whole number of at least 0, found `"x"`"#,
            ),
            (r#""logs": {}"#.to_owned(), "logs", "must be a list, found an object"),
            (
                format!(r#""holding": [{good}, 1]"#),
                "holding[1]",
                "must have `task_id` and `attempt`, found an integer",
            ),
            (
                format!(r#""holding": [{good}, {{"task_id": "{ID}", "attempt": "1"}}]"#),
                "holding[1]",
                "must have `task_id` and `attempt`: invalid type: string \"1\", expected a whole \
                 number of at least 0",
            ),
            (
                format!(r#""outcomes": [{good}]"#),
                "outcomes[0]",
                "must have `task_id`, `attempt` and `status`: missing field `status`",
            ),
        ] {
            let body = format!(r#"{{"incarnation": 1, {poll}}}"#);
            let error = parse(body.as_bytes(), &BOUNDS).unwrap_err();
            assert_eq!(error.details["fields"][field], said, "{error:?}");
        }
    }
}
