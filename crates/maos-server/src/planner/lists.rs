//! Finding the list that a strategy splits.

use std::borrow::Cow;

use maos_api::document::{self, List};
use maos_api::error::{ApiError, ErrorCode};
use maos_api::fault::Faults;
use maos_api::submission::Fields;
use maos_api::task::Strategy;
use maos_core::limits::PLAN_TASKS_MAX;
use serde_json::value::RawValue;

/// A name under which a list may stand, and the word for one entry of it.
pub(super) struct ListName {
    pub(super) name: &'static str,
    pub(super) entry: &'static str,
    /// Whether a number of entries may stand there instead.
    counts: bool,
}

const STEPS: ListName = ListName { name: "steps", entry: "step", counts: false };
const STAGES: ListName = ListName { name: "stages", entry: "stage", counts: false };
const OPERATIONS: ListName = ListName { name: "operations", entry: "operation", counts: false };
const REQUIREMENTS: ListName =
    ListName { name: "requirements", entry: "requirement", counts: false };
const ITEMS: ListName = ListName { name: "items", entry: "item", counts: true };
const PARTITIONS: ListName = ListName { name: "partitions", entry: "partition", counts: true };
const SHARDS: ListName = ListName { name: "shards", entry: "shard", counts: true };

/// Where each strategy looks, in this order.
const SEQUENCE: &[ListName] = &[STEPS, STAGES, OPERATIONS, REQUIREMENTS];
const PARALLEL: &[ListName] = &[ITEMS, PARTITIONS, SHARDS, STEPS, STAGES, OPERATIONS, REQUIREMENTS];
const HIERARCHICAL: &[ListName] =
    &[STAGES, STEPS, OPERATIONS, REQUIREMENTS, ITEMS, PARTITIONS, SHARDS];
/// An entry without a strategy may hold these itself.
const OWN: &[ListName] = &[STAGES, STEPS, ITEMS];

pub(super) fn names(strategy: Option<Strategy>) -> &'static [ListName] {
    match strategy {
        None => OWN,
        Some(Strategy::Sequential | Strategy::Pipeline) => SEQUENCE,
        Some(Strategy::Parallel | Strategy::FanOutFanIn) => PARALLEL,
        Some(Strategy::Hierarchical) => HIERARCHICAL,
        Some(Strategy::Planner) => &[],
    }
}

/// A list that was found.
pub(super) struct Found<'a> {
    pub(super) list: &'static ListName,
    /// Its place within the task, such as `parameters.items`.
    pub(super) place: String,
    /// Each entry as JSON.
    pub(super) entries: Vec<Cow<'a, str>>,
}

/// The first list there is, and the places of the others.
pub(super) fn find<'a>(
    fields: &Fields<'a>,
    at: &str,
    faults: &mut Faults,
) -> Result<(Option<Found<'a>>, Vec<String>), ApiError> {
    let (mut first, mut others) = (None, Vec::new());
    let members = match (fields.strategy, fields.parameters) {
        (Some(_), Some(raw)) => document::members(raw.get()).unwrap_or_default(),
        _ => document::Members::default(),
    };
    for list in names(fields.strategy) {
        let own = own_list(fields, list.name).map(|raw| (list.name.to_owned(), raw));
        let parameter =
            members.value(list.name).map(|raw| (format!("parameters.{}", list.name), raw));
        for (place, raw) in own.into_iter().chain(parameter) {
            let full = format!("{at}{place}");
            if first.is_some() {
                if raw.get().starts_with('[') {
                    others.push(full);
                }
            } else if let Some(entries) = entries(raw, list, &full, faults)? {
                first = Some(Found { list, place, entries });
            }
        }
    }
    Ok((first, others))
}

fn own_list<'a>(fields: &Fields<'a>, name: &str) -> Option<&'a RawValue> {
    match name {
        "stages" => fields.stages,
        "steps" => fields.steps,
        "items" => fields.items,
        _ => None,
    }
}

fn entries<'a>(
    raw: &'a RawValue,
    list: &ListName,
    full: &str,
    faults: &mut Faults,
) -> Result<Option<Vec<Cow<'a, str>>>, ApiError> {
    let json = raw.get();
    let is_number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if list.counts && is_number {
        let Ok(count) = json.parse::<u64>() else {
            faults.invalid(full, format!("must be a list or a count of entries, found {json}"));
            return Ok(None);
        };
        if count > u64::from(PLAN_TASKS_MAX) {
            return Err(too_long(full, count));
        }
        return Ok(Some((0..count).map(|index| Cow::Owned(index.to_string())).collect()));
    }
    read(raw, full)
}

/// The entries of a list; `None` if it is something else.
pub(super) fn read<'a>(
    raw: &'a RawValue,
    full: &str,
) -> Result<Option<Vec<Cow<'a, str>>>, ApiError> {
    let entries_max = usize::try_from(PLAN_TASKS_MAX).unwrap_or(usize::MAX);
    match document::list(raw.get(), entries_max) {
        None => Ok(None),
        Some(List::Entries(entries)) => {
            Ok(Some(entries.into_iter().map(|entry| Cow::Borrowed(entry.get())).collect()))
        }
        Some(List::TooLong { count }) => {
            Err(too_long(full, u64::try_from(count).unwrap_or(u64::MAX)))
        }
    }
}

fn too_long(full: &str, count: u64) -> ApiError {
    let message = format!("`{full}` makes {count} subtasks, a plan has at most {PLAN_TASKS_MAX}");
    let what = format!("makes {count} subtasks, a plan has at most {PLAN_TASKS_MAX}");
    ApiError::new(ErrorCode::PlanTooLarge, message)
        .with_field(full, what)
        .with("field", full)
        .with("found", count)
        .with("maximum", PLAN_TASKS_MAX)
}
