//! `PATCH /api/v1/tasks/{id}`: what is to be another in a task that was accepted; and why one is
//! cancelled.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::fault::Faults;
use crate::field::{Null, Reader, listed};
use crate::submission::{self, Bounds, unknown_field};
use crate::task::Priority;
use crate::time::UtcTime;

/// What may be changed; parameters and limits only until the task starts, all but tags and metadata
/// until it ends.
pub const FIELDS: [&str; 10] = [
    "priority",
    "tags",
    "metadata",
    "parameters",
    "timeout_seconds",
    "max_retries",
    "resource_requirements",
    "deadline",
    "queue_timeout_seconds",
    "no_progress_seconds",
];

/// What comes in the place of a bound that not every task has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound<T> {
    /// There is this one from now on.
    Set(T),
    /// There is none any more: `null`.
    Lifted,
}

impl<T> Bound<T> {
    /// The same bound in another form.
    pub fn map<U>(self, other: impl FnOnce(T) -> U) -> Bound<U> {
        match self {
            Bound::Set(bound) => Bound::Set(other(bound)),
            Bound::Lifted => Bound::Lifted,
        }
    }
}

/// What is to be another; `None`: stays as it is.
#[derive(Clone, Debug, Default)]
pub struct TaskPatch<'a> {
    /// How much it matters; also for what is below it.
    pub priority: Option<Priority>,
    /// Sorted, without doubles.
    pub tags: Option<Vec<Cow<'a, str>>>,
    /// An object, as it came.
    pub metadata: Option<&'a RawValue>,
    /// An object, as it came.
    pub parameters: Option<&'a RawValue>,
    /// 1 to the maximum.
    pub timeout_seconds: Option<u64>,
    /// Retries after failures.
    pub max_retries: Option<u32>,
    /// Amounts by kind, in thousandths.
    pub resource_requirements: Option<Vec<(Cow<'a, str>, u64)>>,
    /// Bound on everything. Whether it is in the future is not looked at here.
    pub deadline: Option<Bound<UtcTime>>,
    /// Bound on the wait for an agent, in seconds.
    pub queue_timeout_seconds: Option<Bound<u64>>,
    /// Bound on the silence of a running attempt, in seconds.
    pub no_progress_seconds: Option<Bound<u64>>,
    /// What the answer should mention.
    pub warnings: Vec<String>,
}

/// Reads and checks the body of a change.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse<'a>(body: &'a [u8], bounds: &Bounds) -> Result<TaskPatch<'a>, ApiError> {
    let members = submission::open(body, bounds)?;
    let (mut faults, mut warnings) = (Faults::default(), Vec::new());
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let slots = reader.known(&members, FIELDS, &mut warnings);
    for warning in &mut warnings {
        let fixed = submission::FIELDS.iter().find(|field| *warning == unknown_field(field));
        if let Some(field) = fixed {
            *warning = format!("`{field}` cannot be changed once a task is accepted: it stays");
        }
    }
    if slots.iter().all(Option::is_none) {
        reader.invalid("body", format!("must have at least one of {}", listed(&FIELDS)));
    }
    let [priority, tags, metadata, parameters, timeout, retries, resources, rest @ ..] = slots;
    let [deadline, queue_timeout, no_progress] = rest;
    let patch = TaskPatch {
        priority: reader
            .one_of("priority", priority, Null::Refused, &Priority::ALL.map(Priority::name))
            .and_then(|index| Priority::ALL.get(index).copied()),
        tags: reader.words("tags", tags, Null::Refused, bounds.tags_max),
        metadata: reader.object("metadata", metadata),
        parameters: reader.object("parameters", parameters),
        timeout_seconds: submission::read_timeout(timeout, &mut reader),
        max_retries: reader
            .integer("max_retries", retries, Null::Refused, 0..=bounds.retries_max.into())
            .and_then(|retries| u32::try_from(retries).ok()),
        resource_requirements: reader.amounts("resource_requirements", resources),
        deadline: bound(deadline, |raw| submission::read_time("deadline", raw, &mut reader)),
        queue_timeout_seconds: bound(queue_timeout, |raw| {
            submission::read_wait("queue_timeout_seconds", raw, &mut reader)
        }),
        no_progress_seconds: bound(no_progress, |raw| {
            submission::read_wait("no_progress_seconds", raw, &mut reader)
        }),
        warnings,
    };
    faults.check()?;
    Ok(patch)
}

/// Only what not every task has can be taken away: elsewhere `null` is refused.
fn bound<'a, T>(
    raw: Option<&'a RawValue>,
    read: impl FnOnce(Option<&'a RawValue>) -> Option<T>,
) -> Option<Bound<T>> {
    match raw {
        Some(raw) if raw.get() == "null" => Some(Bound::Lifted),
        raw => read(raw).map(Bound::Set),
    }
}

/// Reads the body of a cancellation: why, if it says so.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse_cancel(body: &[u8], bounds: &Bounds) -> Result<Option<String>, ApiError> {
    let members = submission::open(body, bounds)?;
    let mut faults = Faults::default();
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let mut given = None;
    for (name, value) in &members.0 {
        match &**name {
            "reason" if given.is_none() => given = Some(*value),
            "reason" => reader.invalid(name, "is given twice"),
            // Clients that sent a body before one was read may go on to.
            _ => {}
        }
    }
    let reason = reader.text("reason", given, Null::Absent, bounds.name_chars_max);
    let reason = reason.map(Into::into);
    faults.check()?;
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submission::tests::BOUNDS;

    #[test]
    fn a_change_names_something_and_its_faults_are_all_named() {
        let patch = parse(br#"{"priority":"high","tags":["b","a","b"],"x":1}"#, &BOUNDS).unwrap();
        assert_eq!(
            (patch.priority, patch.tags),
            (Some(Priority::High), Some(vec!["a".into(), "b".into()]))
        );
        assert_eq!(patch.warnings, ["unknown field `x` is ignored"]);
        let patch = parse(br#"{"priority":"high","run_at":null}"#, &BOUNDS).unwrap();
        let fixed = "`run_at` cannot be changed once a task is accepted: it stays";
        assert_eq!(patch.warnings, [fixed]);
        let body = br#"{"priority":"now","parameters":[],"timeout_seconds":0,"max_retries":101}"#;
        let error = parse(body, &BOUNDS).unwrap_err();
        let fields: Vec<&String> = error.details["fields"].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["max_retries", "parameters", "priority", "timeout_seconds"]);
        assert!(parse(br#"{"name":"other"}"#, &BOUNDS).is_err(), "a name stays");
    }

    #[test]
    fn bounds_in_time_are_read_as_in_a_submission_and_null_lifts_them() {
        let body = br#"{"deadline":"2030-01-01T01:00:00+01:00","queue_timeout_seconds":5,
            "no_progress_seconds":null}"#;
        let patch = parse(body, &BOUNDS).unwrap();
        let deadline = patch.deadline.map(|bound| bound.map(|at| at.to_string()));
        assert_eq!(deadline, Some(Bound::Set("2030-01-01T00:00:00Z".to_owned())));
        assert_eq!(patch.queue_timeout_seconds, Some(Bound::Set(5)));
        assert_eq!(patch.no_progress_seconds, Some(Bound::Lifted));
        let body = br#"{"deadline":"soon","queue_timeout_seconds":0,"no_progress_seconds":"1"}"#;
        let error = parse(body, &BOUNDS).unwrap_err();
        let fields: Vec<&String> = error.details["fields"].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["deadline", "no_progress_seconds", "queue_timeout_seconds"]);
    }
}
