//! `PATCH /api/v1/tasks/{id}`: what is to be another in a task that was accepted; and why one is
//! cancelled.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::fault::Faults;
use crate::field::{Null, Reader, listed};
use crate::submission::{self, Bounds, unknown_field};
use crate::task::Priority;

/// What may be changed; the last four only until the task starts.
pub const FIELDS: [&str; 7] = [
    "priority",
    "tags",
    "metadata",
    "parameters",
    "timeout_seconds",
    "max_retries",
    "resource_requirements",
];

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
    let [priority, tags, metadata, parameters, timeout, retries, resources] = slots;
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
        warnings,
    };
    faults.check()?;
    Ok(patch)
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
        let patch = parse(br#"{"priority":"high","deadline":null}"#, &BOUNDS).unwrap();
        let fixed = "`deadline` cannot be changed once a task is accepted: it stays";
        assert_eq!(patch.warnings, [fixed]);
        let body = br#"{"priority":"now","parameters":[],"timeout_seconds":0,"max_retries":101}"#;
        let error = parse(body, &BOUNDS).unwrap_err();
        let fields: Vec<&String> = error.details["fields"].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["max_retries", "parameters", "priority", "timeout_seconds"]);
        assert!(parse(br#"{"name":"other"}"#, &BOUNDS).is_err(), "a name stays");
    }
}
