//! Schedules: submissions that are made again and again.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::ApiError;
use crate::fault::Faults;
use crate::field::{Null, Reader};
use crate::submission::{self, Bounds};
use crate::time::UtcTime;

/// Longest pause between two runs, in seconds: a year.
pub const EVERY_SECONDS_MAX: u64 = 366 * 24 * 3_600;
/// Most characters of a cron expression.
pub const CRON_CHARS_MAX: u32 = 200;

/// What becomes of runs that were due while no server was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// They are left out; one that is less than a minute late still runs.
    Skip,
    /// One run makes up for all of them, for the time of the first.
    #[default]
    RunOnce,
    /// Each runs, at most a hundred of them.
    RunAll,
}

impl Missed {
    /// All of them.
    pub const ALL: [Missed; 3] = [Missed::Skip, Missed::RunOnce, Missed::RunAll];

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Missed::Skip => "skip",
            Missed::RunOnce => "run_once",
            Missed::RunAll => "run_all",
        }
    }
}

/// What becomes of a run that is due while the task of the one before has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is submitted all the same.
    #[default]
    Allow,
    /// It is left out.
    Skip,
}

impl Overlap {
    /// All of them.
    pub const ALL: [Overlap; 2] = [Overlap::Allow, Overlap::Skip];

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Overlap::Allow => "allow",
            Overlap::Skip => "skip",
        }
    }
}

/// What was said of a schedule; also as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ScheduleSpec {
    /// For people.
    pub name: String,
    /// Five fields: minute, hour, day of the month, month, day of the week.
    pub cron: Option<String>,
    /// The zone whose clocks `cron` means, by its IANA name.
    pub timezone: String,
    /// Instead of `cron`: a run every so many seconds since it was created.
    pub every_seconds: Option<u64>,
    /// The submission.
    #[schema(value_type = Object)]
    pub task: Value,
    /// What becomes of missed runs.
    pub missed: Missed,
    /// What becomes of a run while the one before goes on.
    pub overlap: Overlap,
    /// Whether it waits until this is false again.
    pub paused: bool,
}

/// What came of a schedule so far; also as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// Runs up to this time are done or left out.
    pub after: UtcTime,
    /// The time of the last run, as it was planned.
    pub last_run_at: Option<UtcTime>,
    /// The task that it became.
    pub last_task_id: Option<Uuid>,
    /// Why the last run was not accepted, if it was not.
    pub last_error: Option<String>,
    /// Runs that were accepted.
    pub runs: u64,
    /// Runs that were left out.
    pub skipped: u64,
}

/// A schedule as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Schedule {
    /// Its id.
    pub id: Uuid,
    /// What was said of it.
    #[serde(flatten)]
    pub spec: ScheduleSpec,
    /// When it runs next; null while it is paused.
    pub next_run_at: Option<UtcTime>,
    /// The time of the last run, as it was planned.
    pub last_run_at: Option<UtcTime>,
    /// The task that it became.
    pub last_task_id: Option<Uuid>,
    /// Why the last run was not accepted, if it was not.
    pub last_error: Option<String>,
    /// Runs that were accepted.
    pub runs: u64,
    /// Runs that were left out.
    pub skipped: u64,
    /// When it was created.
    pub created_at: UtcTime,
}

/// The answer to creating, reading and changing a schedule.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ScheduleEnvelope {
    /// The schedule.
    pub schedule: Schedule,
    /// What happened, in words.
    pub message: String,
    /// What the caller should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The answer to `GET /api/v1/schedules`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ScheduleList {
    /// All of them, in the order of their creation.
    pub items: Vec<Schedule>,
    /// How many there are.
    pub total_items: u64,
}

/// The answer to taking a schedule away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleGone {
    /// What happened, in words.
    pub message: String,
    /// The schedule.
    pub schedule_id: Uuid,
}

/// What is said of a field that a schedule keeps.
const FIXED: &str = "cannot be changed, only `paused` can: make another schedule and delete this \
                     one";

/// Every field that a request for a schedule may have.
pub const FIELDS: [&str; 8] =
    ["name", "cron", "timezone", "every_seconds", "task", "missed", "overlap", "paused"];

/// A request for a schedule, as far as it could be read.
#[derive(Clone, Debug)]
pub struct ParsedSchedule {
    /// What it says; what could not be read is as if it was not given, a task without one null.
    pub spec: ScheduleSpec,
    /// What the answer should mention.
    pub warnings: Vec<String>,
    /// What is wrong with its form, every faulty field named.
    pub fault: Option<ApiError>,
}

/// What is wrong with a deadline in the submission of a schedule, at whatever depth.
pub const NO_DEADLINE: &str = "is one moment, after which every run would be refused: use \
                               `timeout_seconds` or `queue_timeout_seconds`";

/// Reads a request for a schedule: its form, not whether the expression or the task is one. Faults
/// of the form are handed on, so that one answer can name all that is wrong.
///
/// # Errors
/// That the body is no object that can be read.
pub fn parse(body: &[u8], bounds: &Bounds) -> Result<ParsedSchedule, ApiError> {
    let members = submission::open(body, bounds)?;
    let (mut faults, mut warnings) = (Faults::default(), Vec::new());
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let slots = reader.known(&members, FIELDS, &mut warnings);
    let [name, cron, timezone, every, task, missed, overlap, paused] = slots;
    for (field, slot) in [("name", name), ("task", task)] {
        if slot.is_none() {
            reader.invalid(field, "is required");
        }
    }
    let name = reader.trimmed("name", name, Null::Refused, bounds.name_chars_max);
    let given = |raw: Option<&RawValue>| raw.is_some_and(|raw| raw.get() != "null");
    match (given(cron), given(every)) {
        (false, false) => {
            reader.invalid("cron", "is required, or else `every_seconds`: one of the two");
        }
        (true, true) => reader.invalid("cron", "and `every_seconds` exclude each other: give one"),
        (true, false) | (false, true) => {}
    }
    if given(timezone) && !given(cron) {
        let what = "`timezone` has no effect: it is for `cron`, `every_seconds` knows no calendar";
        warnings.push(what.to_owned());
    }
    let cron = reader.trimmed("cron", cron, Null::Absent, CRON_CHARS_MAX);
    let timezone = reader.trimmed("timezone", timezone, Null::Absent, bounds.word_chars_max);
    let every = reader.integer("every_seconds", every, Null::Absent, 1..=EVERY_SECONDS_MAX);
    let task = reader.object("task", task);
    let task: Option<serde_json::Value> = task.and_then(|raw| serde_json::from_str(raw.get()).ok());
    if task.as_ref().is_some_and(|task| task.get("deadline").is_some_and(|at| !at.is_null())) {
        reader.invalid("task.deadline", NO_DEADLINE);
    }
    let missed = reader
        .one_of("missed", missed, Null::Absent, &Missed::ALL.map(Missed::name))
        .and_then(|index| Missed::ALL.get(index).copied());
    let overlap = reader
        .one_of("overlap", overlap, Null::Absent, &Overlap::ALL.map(Overlap::name))
        .and_then(|index| Overlap::ALL.get(index).copied());
    let paused = reader.flag("paused", paused).unwrap_or(false);
    let spec = ScheduleSpec {
        name: name.map(Into::into).unwrap_or_default(),
        cron: cron.map(Into::into),
        timezone: timezone.map_or_else(|| "UTC".to_owned(), Into::into),
        every_seconds: every,
        task: task.unwrap_or_default(),
        missed: missed.unwrap_or_default(),
        overlap: overlap.unwrap_or_default(),
        paused,
    };
    Ok(ParsedSchedule { spec, warnings, fault: faults.check().err() })
}

/// Reads a request to pause a schedule or to have it go on.
///
/// # Errors
/// What is wrong with it.
pub fn parse_pause(body: &[u8], bounds: &Bounds) -> Result<bool, ApiError> {
    let members = submission::open(body, bounds)?;
    let mut faults = Faults::default();
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let mut given = None;
    for (name, value) in &members.0 {
        match &**name {
            "paused" if given.is_none() => given = Some(*value),
            "paused" => reader.invalid(name, "is given twice"),
            known if FIELDS.contains(&known) => reader.invalid(name, FIXED),
            _ => reader.invalid(name, "is not known: only `paused` can be changed"),
        }
    }
    if members.0.is_empty() {
        reader.invalid("paused", "is required: it is what can be changed");
    }
    let paused = reader.flag("paused", given);
    faults.check()?;
    Ok(paused.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submission::tests::BOUNDS;

    #[test]
    fn a_schedule_has_defaults_and_its_faults_are_all_named() {
        let body = br#"{"name":"n","cron":"0 6 * * *","task":{"name":"t"}}"#;
        let ParsedSchedule { spec, fault, .. } = parse(body, &BOUNDS).unwrap();
        assert_eq!(fault, None);
        assert_eq!(
            (&*spec.timezone, spec.missed, spec.overlap),
            ("UTC", Missed::RunOnce, Overlap::Allow)
        );
        assert!(!spec.paused);
        let body = br#"{"name":"n","every_seconds":5,"timezone":"UTC","task":{"name":"t",
            "deadline":"2030-01-01T00:00:00Z"}}"#;
        let ParsedSchedule { warnings, fault, .. } = parse(body, &BOUNDS).unwrap();
        assert!(warnings[0].contains("`timezone` has no effect"), "{warnings:?}");
        assert!(fault.unwrap().details["fields"]["task.deadline"].is_string());
        let body =
            br#"{"cron":"0 6 * * *","every_seconds":5,"task":"t","missed":"all","paused":1}"#;
        let error = parse(body, &BOUNDS).unwrap().fault.unwrap();
        let fields: Vec<&String> = error.details["fields"].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["cron", "missed", "name", "paused", "task"]);
        assert!(error.details["fields"]["cron"].as_str().unwrap().contains("exclude each other"));
        assert!(parse_pause(br#"{"paused":true}"#, &BOUNDS).unwrap());
    }

    #[test]
    fn what_cannot_be_changed_is_refused_and_what_can_is_named() {
        for (body, fields) in [
            (&br#"{"cron":"* * * * *"}"#[..], vec!["cron"]),
            (br#"{"cron":"* * * * *","task":{},"paused":true}"#, vec!["cron", "task"]),
            (br#"{"x":1}"#, vec!["x"]),
            (b"{}", vec!["paused"]),
        ] {
            let error = parse_pause(body, &BOUNDS).unwrap_err();
            let faults = error.details["fields"].as_object().unwrap();
            assert_eq!(faults.keys().collect::<Vec<_>>(), fields);
            for fault in faults.values() {
                let told = fault.as_str().unwrap();
                assert!(told.contains("`paused`") || fields == ["paused"], "{told}");
            }
        }
    }
}
