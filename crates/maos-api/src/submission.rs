//! A submission as it comes in: parsed in one pass, checked in full, payloads kept as they came.
//!
//! Law: what `parse` returns is within the contract, and what it refuses it refuses with every
//! fault named. It knows no plan: lists of steps are handed on unread.

use std::borrow::Cow;
use std::str;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::document::{self, Members};
use crate::error::{ApiError, ErrorCode};
use crate::fault::Faults;
use crate::field::{Null, Reader, unknown};
use crate::task::{OnFailure, Priority, Strategy};
use crate::time::UtcTime;

/// The bounds of a request; the server's configuration and limits decide them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most bytes of the body.
    pub body_bytes_max: u64,
    /// Deepest nesting of lists and objects.
    pub nesting_max: u32,
    /// Most characters of a name.
    pub name_chars_max: u32,
    /// Most characters of a description.
    pub description_chars_max: u32,
    /// Most characters of a tag, a key, a capability and the like.
    pub word_chars_max: u32,
    /// Most tags.
    pub tags_max: u32,
    /// Most capabilities.
    pub capabilities_max: u32,
    /// Most kinds of resources.
    pub resource_kinds_max: u32,
    /// Most tasks that one may depend on by name, and most entries of one list of subtasks.
    pub plan_tasks_max: u32,
    /// Most retries.
    pub retries_max: u32,
    /// Most attempts of one agent at once.
    pub agent_slots_max: u32,
    /// Longest run of one attempt.
    pub task_timeout_seconds_max: u64,
}

/// Longest wait that a submission may ask for: a year. Longer ones are slips of the pen.
pub const WAIT_SECONDS_MAX: u64 = 366 * 24 * 3_600;

/// Unknown fields that an answer names at the most.
pub(crate) const UNKNOWN_NAMED_MAX: usize = 20;

macro_rules! field_names {
    (submission: $($name:ident)+; entry: $($extra:ident)+;) => {
        /// Every field of a submission.
        pub const FIELDS: &[&str] = &[$(stringify!($name)),+];
        /// What an entry of a plan's list may have besides.
        pub const ENTRY_FIELDS: &[&str] = &[$(stringify!($extra)),+];

        /// The fields of one object, unread.
        #[derive(Default)]
        struct Slots<'a> {
            $($name: Option<&'a RawValue>,)+
            $($extra: Option<&'a RawValue>,)+
        }

        impl<'a> Slots<'a> {
            fn slot(&mut self, name: &str, place: Place) -> Option<&mut Option<&'a RawValue>> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)+
                    $(stringify!($extra) if place == Place::Entry => Some(&mut self.$extra),)+
                    _ => None,
                }
            }
        }
    };
}

field_names! {
    submission: name description priority parameters timeout_seconds max_retries
        resource_requirements tags metadata decomposition_strategy required_capabilities agent_type
        agent_id queue_timeout_seconds deadline no_progress_seconds subtasks on_failure
        fairness_key concurrency_key run_at delay_seconds;
    entry: key depends_on stages steps items;
}

/// Where an object with submission fields stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is the body.
    Root,
    /// It is an entry of a list of subtasks.
    Entry,
}

/// What was given, each within its type and range; what was not given is `None`.
#[derive(Clone, Debug, Default)]
pub struct Fields<'a> {
    /// Trimmed and not blank.
    pub name: Option<Cow<'a, str>>,
    /// Free text.
    pub description: Option<Cow<'a, str>>,
    /// How much it matters.
    pub priority: Option<Priority>,
    /// An object, as it came.
    pub parameters: Option<&'a RawValue>,
    /// 1 to the maximum.
    pub timeout_seconds: Option<u64>,
    /// Retries after failures.
    pub max_retries: Option<u32>,
    /// Amounts by kind, in thousandths of the kind's unit.
    pub resource_requirements: Option<Vec<(Cow<'a, str>, u64)>>,
    /// Sorted, without doubles.
    pub tags: Option<Vec<Cow<'a, str>>>,
    /// An object, as it came.
    pub metadata: Option<&'a RawValue>,
    /// How to split it.
    pub strategy: Option<Strategy>,
    /// What the agent must be able to do.
    pub required_capabilities: Option<Vec<Cow<'a, str>>>,
    /// Only agents of this type.
    pub agent_type: Option<Cow<'a, str>>,
    /// Only this agent.
    pub agent_id: Option<Uuid>,
    /// Bound on the wait for an agent.
    pub queue_timeout_seconds: Option<u64>,
    /// Not before this time.
    pub run_at: Option<UtcTime>,
    /// Not before so much time has passed.
    pub delay_seconds: Option<u64>,
    /// Bound on everything.
    pub deadline: Option<UtcTime>,
    /// Bound on silence.
    pub no_progress_seconds: Option<u64>,
    /// A list, as it came.
    pub subtasks: Option<&'a RawValue>,
    /// What a failed subtask means.
    pub on_failure: Option<OnFailure>,
    /// Whose turn it takes.
    pub fairness_key: Option<Cow<'a, str>>,
    /// With whom it shares a bound on how many run.
    pub concurrency_key: Option<Cow<'a, str>>,
    /// Entries only: its name within the plan.
    pub key: Option<Cow<'a, str>>,
    /// Entries only: keys of what it waits for.
    pub depends_on: Vec<Cow<'a, str>>,
    /// Entries only: its own subtasks, one after another.
    pub stages: Option<&'a RawValue>,
    /// The same.
    pub steps: Option<&'a RawValue>,
    /// Entries only: its own subtasks, all at once; a list or a count.
    pub items: Option<&'a RawValue>,
}

/// A submission within the contract, borrowed from its body.
#[derive(Clone, Debug)]
pub struct Parsed<'a> {
    /// Trimmed and not blank.
    pub name: Cow<'a, str>,
    /// The rest.
    pub fields: Fields<'a>,
    /// What the answer should mention.
    pub warnings: Vec<String>,
}

/// Reads and checks the body of a submission.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse<'a>(body: &'a [u8], bounds: &Bounds) -> Result<Parsed<'a>, ApiError> {
    let members = open(body, bounds)?;
    let mut faults = Faults::default();
    let mut warnings = Vec::new();
    let mut fields = read(
        members,
        Place::Root,
        &mut Reader { at: "", bounds, faults: &mut faults },
        &mut warnings,
    );
    faults.check()?;
    let name = fields
        .name
        .take()
        .ok_or_else(|| ApiError::new(ErrorCode::Internal, "a checked submission has no name"))?;
    Ok(Parsed { name, fields, warnings })
}

/// Opens a body that must be an object of well-formed, readable JSON.
///
/// # Errors
/// What is wrong with it.
pub fn open<'a>(body: &'a [u8], bounds: &Bounds) -> Result<Members<'a>, ApiError> {
    let text = readable(body, bounds)?;
    match serde_json::from_str::<Members<'_>>(text) {
        Ok(members) => match document::scan(text, bounds.nesting_max) {
            Ok(()) => Ok(members),
            Err((defect, at)) => {
                let field = field_at(&members, text, at);
                if field == "timeout_seconds"
                    && let Some(raw) = members.value(field)
                    && let Some(error) = too_long(raw, bounds.task_timeout_seconds_max)
                {
                    return Err(error);
                }
                let message = defect.message(bounds.nesting_max);
                Err(defective(text, at, field, message))
            }
        },
        Err(_) => Err(unopened(text, bounds)),
    }
}

/// The body as text, within the bound on its size.
///
/// # Errors
/// What is wrong with it.
pub fn readable<'a>(body: &'a [u8], bounds: &Bounds) -> Result<&'a str, ApiError> {
    let (bytes, bytes_max) = (body.len(), bounds.body_bytes_max);
    if u64::try_from(bytes).is_ok_and(|bytes| bytes > bytes_max) {
        let message = format!("the body has {bytes} bytes, at most {bytes_max} are taken");
        return Err(ApiError::new(ErrorCode::BodyTooLarge, message).with("bytes_max", bytes_max));
    }
    str::from_utf8(body).map_err(|fault| {
        let at = fault.valid_up_to();
        ApiError::new(ErrorCode::MalformedJson, format!("the body is not UTF-8 at byte {at}"))
            .with("byte", at)
    })
}

/// Whether `members` are a submission and not data: there are some, and all are known.
#[must_use]
pub fn is_submission(members: &Members<'_>) -> bool {
    !members.0.is_empty() && members.0.iter().all(|(name, _)| is_field(name))
}

/// Whether an entry of a list may have a field of this name.
#[must_use]
pub fn is_field(name: &str) -> bool {
    FIELDS.contains(&name) || ENTRY_FIELDS.contains(&name)
}

/// Reads an entry of a list of subtasks that is a submission. `at` is its place in the body, such
/// as `subtasks[2]`; its faults are noted under that.
pub fn entry<'a>(
    members: Members<'a>,
    at: &str,
    bounds: &Bounds,
    faults: &mut Faults,
    warnings: &mut Vec<String>,
) -> Fields<'a> {
    let at = format!("{at}.");
    read(members, Place::Entry, &mut Reader { at: &at, bounds, faults }, warnings)
}

/// That a body is no JSON, or that there is none; `wanted` is what should be in it.
#[must_use]
pub fn not_json(body: &[u8], wanted: &str, why: &serde_json::Error) -> ApiError {
    let blank = body.iter().all(u8::is_ascii_whitespace);
    let what =
        if blank { "the body is empty".to_owned() } else { format!("the body is not JSON: {why}") };
    let message =
        format!("{what}\nhint: send JSON in UTF-8: {wanted}; `/docs` shows what belongs into it");
    ApiError::new(ErrorCode::MalformedJson, message)
        .with("line", why.line())
        .with("column", why.column())
}

/// Why `text` could not be opened as an object.
fn unopened(text: &str, bounds: &Bounds) -> ApiError {
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return not_json(text.as_bytes(), "an object", &error);
    }
    // Well-formed and yet not to be opened: another type, or a name that no text can hold.
    match document::scan(text, bounds.nesting_max) {
        Err((defect, at)) => defective(text, at, "body", defect.message(bounds.nesting_max)),
        Ok(()) => {
            let found = crate::field::kind(text.trim_start());
            let mut faults = Faults::default();
            faults.invalid("body", format!("must be an object, found {found}"));
            faults.check().err().unwrap_or_else(|| ApiError::new(ErrorCode::Internal, "no fault"))
        }
    }
}

fn defective(text: &str, at: usize, field: &str, message: String) -> ApiError {
    let (line, column) = document::line_and_column(text, at);
    let fields = serde_json::Map::from_iter([(field.to_owned(), message.clone().into())]);
    ApiError::new(
        ErrorCode::ValidationFailed,
        format!("`{field}` {message} at line {line} column {column}"),
    )
    .with("fields", fields)
    .with("line", line)
    .with("column", column)
}

/// The member of the body whose value holds byte `at`.
fn field_at<'m>(members: &'m Members<'_>, text: &str, at: usize) -> &'m str {
    let offset = |raw: &RawValue| raw.get().as_ptr().addr() - text.as_ptr().addr();
    let holds = |raw: &RawValue| (offset(raw)..offset(raw) + raw.get().len()).contains(&at);
    members.0.iter().find(|(_, raw)| holds(raw)).map_or("body", |(name, _)| name)
}

fn read<'a>(
    members: Members<'a>,
    place: Place,
    reader: &mut Reader<'_>,
    warnings: &mut Vec<String>,
) -> Fields<'a> {
    let mut slots = Slots::default();
    let mut unknown_count = 0;
    for (name, value) in members.0 {
        match slots.slot(&name, place) {
            Some(slot) if slot.is_none() => *slot = Some(value),
            Some(_) => reader.invalid(&name, "is given twice"),
            None => {
                unknown_count += 1;
                if unknown_count <= UNKNOWN_NAMED_MAX {
                    warnings.push(unknown_field(&name));
                }
            }
        }
    }
    if unknown_count > UNKNOWN_NAMED_MAX {
        let more = unknown_count - UNKNOWN_NAMED_MAX;
        warnings.push(format!("{more} more unknown fields are ignored"));
    }
    if place == Place::Root && slots.name.is_none() {
        reader.invalid("name", "is required");
    }
    let mut fields = Fields::default();
    read_contract(&slots, reader, &mut fields);
    read_ours(&slots, reader, &mut fields);
    read_entry(&slots, reader, &mut fields);
    fields
}

pub(crate) fn unknown_field(name: &str) -> String {
    let short: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
    format!("unknown field `{short}` is ignored")
}

/// The fields that every client of the contract knows.
fn read_contract<'a>(slots: &Slots<'a>, reader: &mut Reader<'_>, fields: &mut Fields<'a>) {
    let bounds = reader.bounds;
    fields.name = reader.trimmed("name", slots.name, Null::Refused, bounds.name_chars_max);
    fields.description =
        reader.text("description", slots.description, Null::Absent, bounds.description_chars_max);
    fields.priority = reader
        .one_of("priority", slots.priority, Null::Refused, &Priority::ALL.map(Priority::name))
        .and_then(|index| Priority::ALL.get(index).copied());
    fields.parameters = reader.object("parameters", slots.parameters);
    fields.metadata = reader.object("metadata", slots.metadata);
    fields.timeout_seconds = read_timeout(slots.timeout_seconds, reader);
    fields.max_retries = reader
        .integer("max_retries", slots.max_retries, Null::Refused, 0..=bounds.retries_max.into())
        .and_then(|retries| u32::try_from(retries).ok());
    fields.resource_requirements =
        reader.amounts("resource_requirements", slots.resource_requirements);
    fields.tags = reader.words("tags", slots.tags, Null::Refused, bounds.tags_max);
    fields.strategy = read_strategy(slots.decomposition_strategy, reader);
}

pub(crate) fn read_timeout(raw: Option<&RawValue>, reader: &mut Reader<'_>) -> Option<u64> {
    let most = reader.bounds.task_timeout_seconds_max;
    if let Some(error) = raw.and_then(|raw| too_long(raw, most)) {
        reader.note("timeout_seconds", error);
        return None;
    }
    reader.integer("timeout_seconds", raw, Null::Refused, 1..=most)
}

/// That a timeout is above its maximum, in whatever notation.
fn too_long(raw: &RawValue, most: u64) -> Option<ApiError> {
    #[expect(clippy::cast_precision_loss, reason = "timeouts are bounded far below 2^53")]
    let above = raw.get().parse::<f64>().is_ok_and(|found| found > most as f64);
    // `inf` and the like are no JSON, so they do not come here.
    above.then(|| {
        let found = raw.get();
        let message = format!("`timeout_seconds` must be at most {most}, found {found}");
        let found = serde_json::from_str(found).unwrap_or(serde_json::Value::Null);
        ApiError::new(ErrorCode::TimeoutTooLong, message).with("maximum", most).with("found", found)
    })
}

fn read_strategy(raw: Option<&RawValue>, reader: &mut Reader<'_>) -> Option<Strategy> {
    let field = "decomposition_strategy";
    let found = reader.text(field, raw, Null::Absent, reader.bounds.word_chars_max)?;
    let known = Strategy::ALL.map(Strategy::name);
    let strategy = Strategy::ALL.into_iter().find(|strategy| strategy.name() == found);
    if strategy.is_none() {
        let what = "the decomposition strategy";
        reader.note(field, unknown(ErrorCode::UnknownStrategy, what, &found, &known));
    }
    strategy
}

/// The fields that are our addition.
fn read_ours<'a>(slots: &Slots<'a>, reader: &mut Reader<'_>, fields: &mut Fields<'a>) {
    let word_max = reader.bounds.word_chars_max;
    let absent = Null::Absent;
    fields.required_capabilities =
        reader.capabilities("required_capabilities", slots.required_capabilities, absent);
    fields.agent_type = reader.trimmed("agent_type", slots.agent_type, absent, word_max);
    fields.agent_id =
        read_form("agent_id", slots.agent_id, reader, "a UUID", |text| Uuid::parse_str(text).ok());
    fields.queue_timeout_seconds =
        read_wait("queue_timeout_seconds", slots.queue_timeout_seconds, reader);
    fields.no_progress_seconds =
        read_wait("no_progress_seconds", slots.no_progress_seconds, reader);
    fields.deadline = read_time("deadline", slots.deadline, reader);
    fields.subtasks = reader.list("subtasks", slots.subtasks, absent);
    fields.on_failure = reader
        .one_of("on_failure", slots.on_failure, absent, &OnFailure::ALL.map(OnFailure::name))
        .and_then(|index| OnFailure::ALL.get(index).copied());
    fields.fairness_key = reader.trimmed("fairness_key", slots.fairness_key, absent, word_max);
    fields.concurrency_key =
        reader.trimmed("concurrency_key", slots.concurrency_key, absent, word_max);
    fields.run_at = read_time("run_at", slots.run_at, reader);
    fields.delay_seconds =
        reader.integer("delay_seconds", slots.delay_seconds, absent, 0..=WAIT_SECONDS_MAX);
    if fields.run_at.is_some() && fields.delay_seconds.is_some() {
        reader.invalid("delay_seconds", "says when to start, and so does `run_at`: leave one out");
    }
}

pub(crate) fn read_wait(
    field: &str,
    raw: Option<&RawValue>,
    reader: &mut Reader<'_>,
) -> Option<u64> {
    reader.integer(field, raw, Null::Absent, 1..=WAIT_SECONDS_MAX)
}

pub(crate) fn read_time(
    field: &str,
    raw: Option<&RawValue>,
    reader: &mut Reader<'_>,
) -> Option<UtcTime> {
    let form = "a time like `2030-01-31T12:00:00Z`";
    read_form(field, raw, reader, form, |text| text.parse().ok())
}

fn read_form<T>(
    field: &str,
    raw: Option<&RawValue>,
    reader: &mut Reader<'_>,
    form: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let text = reader.text(field, raw, Null::Absent, reader.bounds.word_chars_max)?;
    let parsed = parse(&text);
    if parsed.is_none() {
        reader.invalid(field, format!("must be {form}, found `{text}`"));
    }
    parsed
}

/// The fields that only entries of lists have.
fn read_entry<'a>(slots: &Slots<'a>, reader: &mut Reader<'_>, fields: &mut Fields<'a>) {
    let bounds = reader.bounds;
    fields.key = reader.trimmed("key", slots.key, Null::Absent, bounds.word_chars_max);
    fields.depends_on = reader
        .words("depends_on", slots.depends_on, Null::Absent, bounds.plan_tasks_max)
        .unwrap_or_default();
    fields.stages = reader.list("stages", slots.stages, Null::Absent);
    fields.steps = reader.list("steps", slots.steps, Null::Absent);
    fields.items = slots.items.filter(|raw| raw.get() != "null");
    if let Some(items) = fields.items.filter(|raw| !raw.get().starts_with('[')) {
        // A count; the planner has its bound.
        reader.integer("items", Some(items), Null::Refused, 0..=u64::MAX);
    }
}

#[cfg(test)]
#[path = "submission_tests.rs"]
pub(crate) mod tests;
