//! One operation on many tasks, as it comes in.

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::document::{self, List};
use crate::error::ApiError;
use crate::fault::Faults;
use crate::field::{Null, Reader};
use crate::submission::{self, Bounds};
use crate::task::BulkOperation;

/// Most tasks that one request may name.
pub const TASKS_MAX: usize = 1_000;

/// A request within the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedBulk {
    /// What is to be done.
    pub operation: BulkOperation,
    /// To which tasks, each once, in the order of the request.
    pub task_ids: Vec<Uuid>,
    /// Why, for those that are cancelled.
    pub reason: Option<String>,
}

/// Every field of the request.
pub const FIELDS: [&str; 3] = ["operation", "task_ids", "reason"];

/// Reads and checks the body of a request.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse(body: &[u8], bounds: &Bounds) -> Result<ParsedBulk, ApiError> {
    let members = submission::open(body, bounds)?;
    let mut faults = Faults::default();
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let mut slots = [None; FIELDS.len()];
    for (name, value) in members.0 {
        match FIELDS.iter().position(|field| *field == name) {
            Some(index) if slots[index].is_none() => slots[index] = Some(value),
            Some(_) => reader.invalid(&name, "is given twice"),
            None => reader.invalid(&name, "is not known"),
        }
    }
    let [operation, task_ids, reason] = slots;
    for (field, slot) in FIELDS.iter().zip([operation, task_ids]) {
        if slot.is_none() {
            reader.invalid(field, "is required");
        }
    }
    let names = BulkOperation::ALL.map(BulkOperation::name);
    let operation = reader
        .one_of("operation", operation, Null::Refused, &names)
        .and_then(|index| BulkOperation::ALL.get(index).copied());
    let task_ids = ids(&mut reader, task_ids);
    let reason = reader.text("reason", reason, Null::Absent, bounds.name_chars_max);
    faults.check()?;
    let reason = reason.map(Into::into);
    // Whatever is missing here was named above.
    let operation = operation.unwrap_or(BulkOperation::Cancel);
    Ok(ParsedBulk { operation, task_ids, reason })
}

fn ids(reader: &mut Reader<'_>, raw: Option<&RawValue>) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = Vec::new();
    let Some(raw) = reader.list("task_ids", raw, Null::Refused) else { return ids };
    let count = match document::list(raw.get(), TASKS_MAX) {
        Some(List::Entries(entries)) => {
            let mut seen = std::collections::HashSet::new();
            for (index, entry) in entries.iter().enumerate() {
                match document::text(entry.get()).and_then(|text| Uuid::parse_str(&text).ok()) {
                    Some(id) if seen.insert(id) => ids.push(id),
                    Some(_) => {}
                    None => reader.invalid(&format!("task_ids[{index}]"), "must be a UUID"),
                }
            }
            entries.len()
        }
        Some(List::TooLong { count }) => count,
        None => 0,
    };
    if !(1..=TASKS_MAX).contains(&count) {
        reader.invalid("task_ids", format!("must have 1 to {TASKS_MAX} entries, found {count}"));
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submission::tests::BOUNDS;

    const ID: &str = "0190163d-8694-739b-aea5-966c26f8ad90";

    #[test]
    fn a_request_names_its_tasks_once() {
        let body = format!(r#"{{"operation":"retry","task_ids":["{ID}","{ID}"]}}"#);
        let parsed = parse(body.as_bytes(), &BOUNDS).unwrap();
        assert_eq!((parsed.operation, parsed.task_ids.len()), (BulkOperation::Retry, 1));
    }

    #[test]
    fn every_fault_is_named() {
        let many = vec![format!("\"{ID}\""); TASKS_MAX + 1].join(",");
        for (body, field) in [
            (r#"{"operation":"cancel"}"#.to_owned(), "task_ids"),
            (r#"{"operation":"cancel","task_ids":[]}"#.to_owned(), "task_ids"),
            (r#"{"operation":"cancel","task_ids":["x"]}"#.to_owned(), "task_ids[0]"),
            (format!(r#"{{"operation":"cancel","task_ids":[{many}]}}"#), "task_ids"),
            (format!(r#"{{"operation":"sell","task_ids":["{ID}"]}}"#), "operation"),
            (format!(r#"{{"operation":"retry","task_ids":["{ID}"],"x":1}}"#), "x"),
            (format!(r#"{{"task_ids":["{ID}"]}}"#), "operation"),
        ] {
            let bounds = Bounds { body_bytes_max: 1 << 20, ..BOUNDS };
            let error = parse(body.as_bytes(), &bounds).unwrap_err();
            assert!(error.details["fields"].get(field).is_some(), "{field}: {error:?}");
        }
    }
}
