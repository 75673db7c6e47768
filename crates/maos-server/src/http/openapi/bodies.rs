//! What requests may hold: the rules of the parsers in `maos-api`, as schemas.

use maos_api::agent::HEARTBEAT_TIMEOUT_MAX;
use maos_api::artifacts;
use maos_api::claude::ClaudeType;
use maos_api::logs::LogLevel;
use maos_api::messages::{MAILBOX_PATTERN, NAME_CHARS_MAX, TTL_SECONDS_MAX};
use maos_api::resource::{LEASE_SECONDS_MAX, ResourceType};
use maos_api::schedule::{CRON_CHARS_MAX, EVERY_SECONDS_MAX, Missed, Overlap};
use maos_api::submission::WAIT_SECONDS_MAX;
use maos_api::subscriptions::URL_CHARS_MAX;
use maos_api::task::{BulkOperation, OnFailure, Priority, Strategy};
use maos_core::limits;
use serde_json::{Value, json};

/// Neither blank nor with NUL.
const NOT_BLANK: &str = r"^[^\u0000]*[^\s\u0000][^\u0000]*$";
const NO_NUL: &str = r"^[^\u0000]*$";

pub(super) fn words<const N: usize>(names: [&'static str; N]) -> Value {
    json!({"type": "string", "enum": names.to_vec()})
}

/// The same, or null.
pub(super) fn optional(mut schema: Value) -> Value {
    if let Some(Value::Array(names)) = schema.get_mut("enum") {
        names.push(Value::Null);
    }
    schema["type"] = json!([schema["type"], "null"]);
    schema
}

pub(super) fn text(chars_max: u32) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": chars_max, "pattern": NOT_BLANK})
}

pub(super) fn word() -> Value {
    text(limits::WORD_CHARS_MAX)
}

/// A word that is part of a path.
pub(super) fn segment() -> Value {
    let pattern = r"^[^\u0000/]*[^\s\u0000/][^\u0000/]*$";
    json!({"type": "string", "minLength": 1, "maxLength": limits::WORD_CHARS_MAX,
        "pattern": pattern})
}

/// The name of a file that is kept with a task.
pub(super) fn file_name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": artifacts::NAME_CHARS_MAX,
        "pattern": r"^[^\u0000/]+$", "not": {"enum": [".", ".."]}})
}

pub(super) fn integer(least: u64, most: u64) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most})
}

pub(super) fn uuid() -> Value {
    json!({"type": "string", "format": "uuid"})
}

pub(super) fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

fn tags() -> Value {
    json!({"type": "array", "items": word(), "maxItems": limits::TAGS_MAX})
}

fn capabilities(least: u32) -> Value {
    let name = json!({"type": "string", "pattern": "^[a-z][a-z0-9_]*$", "maxLength": 200});
    json!({
        "type": "array", "items": name, "minItems": least, "maxItems": limits::CAPABILITIES_MAX,
    })
}

fn amounts() -> Value {
    json!({
        "type": "object",
        "description": "Amounts by kind, kept in thousandths; one above 0 counts as at least one.",
        "maxProperties": limits::RESOURCE_KINDS_MAX,
        "propertyNames": word(),
        "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1e12},
    })
}

fn object(required: &[&str], properties: Value) -> Value {
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn limits_of_a_task() -> Value {
    json!({
        "priority": words(Priority::ALL.map(Priority::name)),
        "parameters": {"type": "object"},
        "timeout_seconds": integer(1, limits::TASK_TIMEOUT_SECONDS_MAX),
        "max_retries": integer(0, limits::RETRIES_MAX.into()),
        "resource_requirements": amounts(),
        "tags": tags(),
        "metadata": {"type": "object"},
    })
}

fn with(mut schema: Value, more: Value) -> Value {
    if let (Value::Object(held), Value::Object(more)) = (&mut schema, more) {
        held.extend(more);
    }
    schema
}

/// A submission.
pub(super) fn submission() -> Value {
    let chars = limits::DESCRIPTION_CHARS_MAX;
    let description = json!({"type": ["string", "null"], "maxLength": chars, "pattern": NO_NUL});
    let ours = json!({
        "name": text(limits::NAME_CHARS_MAX),
        "description": description,
        "decomposition_strategy": optional(words(Strategy::ALL.map(Strategy::name))),
        "required_capabilities": optional(capabilities(0)),
        "agent_type": optional(word()),
        "agent_id": optional(uuid()),
        "run_at": optional(time()),
        "delay_seconds": optional(integer(0, WAIT_SECONDS_MAX)),
        "on_failure": optional(words(OnFailure::ALL.map(OnFailure::name))),
        "fairness_key": optional(word()),
        "concurrency_key": optional(word()),
        "subtasks": {
            "type": ["array", "null"],
            "maxItems": limits::PLAN_TASKS_MAX,
            "items": {"description": "An object with the fields of a submission, `key` and \
                `depends_on`, or whatever else a plan's entry may be."},
        },
    });
    object(&["name"], with(limits_of_a_task(), with(patience(), ours)))
}

/// Bounds in time that not every task has.
fn patience() -> Value {
    json!({
        "queue_timeout_seconds": optional(integer(1, WAIT_SECONDS_MAX)),
        "no_progress_seconds": optional(integer(1, WAIT_SECONDS_MAX)),
        "deadline": optional(time()),
    })
}

/// What may be changed in a task.
pub(super) fn amendment() -> Value {
    let mut schema = object(&[], with(limits_of_a_task(), patience()));
    schema["minProperties"] = 1.into();
    schema
}

/// Many submissions.
pub(super) fn batch() -> Value {
    json!({
        "type": "array", "maxItems": limits::BATCH_TASKS_MAX,
        "items": {"description": "A submission; one that is none is refused by itself."},
    })
}

/// One operation on many tasks.
pub(super) fn bulk() -> Value {
    let ids = json!({"type": "array", "items": uuid(), "minItems": 1,
        "maxItems": maos_api::bulk::TASKS_MAX});
    let mut schema = object(
        &["operation", "task_ids"],
        json!({
            "operation": words(BulkOperation::ALL.map(BulkOperation::name)),
            "task_ids": ids,
            "reason": optional(json!({"type": "string", "maxLength": 500, "pattern": NO_NUL})),
        }),
    );
    schema["additionalProperties"] = false.into();
    schema
}

fn of_an_agent() -> Value {
    json!({
        "name": text(limits::NAME_CHARS_MAX),
        "capabilities": capabilities(1),
        "configuration": {"type": "object"},
        "max_concurrent_tasks": integer(1, limits::AGENT_SLOTS_MAX.into()),
        "resource_limits": amounts(),
        "tags": tags(),
    })
}

const HEARTBEAT_TIMEOUT: &str =
    "Seconds of silence after which it is lost; only for agents whose `runtime` is `worker`.";

/// An agent.
pub(super) fn agent() -> Value {
    let more = json!({
        "name": optional(text(limits::NAME_CHARS_MAX)),
        "agent_type": word(),
        "runtime": optional(words(["builtin", "worker"])),
        "id": {"type": ["string", "null"], "format": "uuid",
            "description": "A worker's own choice."},
        "heartbeat_timeout": {"type": ["integer", "null"], "minimum": 1,
            "maximum": HEARTBEAT_TIMEOUT_MAX, "description": HEARTBEAT_TIMEOUT},
    });
    object(&["agent_type", "capabilities"], with(of_an_agent(), more))
}

/// What may be changed in an agent.
pub(super) fn agent_patch() -> Value {
    let more = json!({
        "heartbeat_timeout": {"type": "integer", "minimum": 1,
            "maximum": HEARTBEAT_TIMEOUT_MAX, "description": HEARTBEAT_TIMEOUT},
    });
    let mut schema = object(&[], with(of_an_agent(), more));
    schema["minProperties"] = 1.into();
    schema
}

fn attempt(more: Value) -> Value {
    let of = json!({"task_id": uuid(), "attempt": integer(0, u32::MAX.into())});
    object(&["task_id", "attempt"], with(of, more))
}

/// A worker's poll.
pub(super) fn poll() -> Value {
    let list = |items: Value| json!({"type": "array", "items": items, "maxItems": 1_000});
    let message = json!({"type": ["string", "null"], "pattern": NO_NUL});
    let mut outcome = attempt(of_an_outcome());
    outcome["required"] = json!(["task_id", "attempt", "status"]);
    let progress = attempt(json!({
        "fraction": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "message": message,
    }));
    object(
        &["incarnation"],
        json!({
            "incarnation": integer(1, u64::from(u32::MAX)),
            "max_tasks": integer(0, 1_000),
            "wait_ms": integer(0, 60_000),
            "holding": list(attempt(json!({}))),
            "outcomes": list(outcome),
            "progress": list(progress),
            "logs": {"type": "array", "items": log_lines(), "maxItems": 10_000},
            "max_messages": integer(0, 100),
            "ack": list(ack()),
            "lease_seconds": optional(integer(1, HEARTBEAT_TIMEOUT_MAX)),
        }),
    )
}

fn of_an_outcome() -> Value {
    json!({
        "status": words(["completed", "failed", "cancelled", "lost"]),
        "result": {"description": "Any JSON."},
        // What is wrong with them fails the attempt and not the request, as with a result.
        "subtasks": {"description": "What is left to do: entries as in a submission's `subtasks`."},
        "error": {"type": ["string", "null"], "pattern": NO_NUL},
        "permanent": {"type": "boolean"},
    })
}

/// What came of one attempt.
pub(super) fn outcome() -> Value {
    object(&["status"], of_an_outcome())
}

/// A task as Claude Code's clients send it.
pub(super) fn claude() -> Value {
    let priorities = ["low", "medium", "high", "critical", "normal", "urgent"];
    let own = json!({
        "name": text(limits::NAME_CHARS_MAX),
        "description": text(limits::DESCRIPTION_CHARS_MAX),
        "type": words(ClaudeType::ALL.map(ClaudeType::name)),
        "priority": words(priorities),
        "callback_url": {"type": ["string", "null"], "format": "uri", "maxLength": 2_000,
            "description": "Told of the task's end: a POST, signed as Standard Webhooks says."},
        "decomposition_strategy": optional(words(Strategy::ALL.map(Strategy::name))),
    });
    let mut schema = object(&[], with(limits_of_a_task(), own));
    schema["anyOf"] = json!([{"required": ["name"]}, {"required": ["description"]}]);
    schema
}

/// What holds for a concurrency key.
pub(super) fn limit() -> Value {
    let mut schema = object(
        &[],
        json!({
            "running_max": optional(integer(0, u32::MAX.into())),
            "starts_per_minute": optional(integer(1, 60_000_000)),
        }),
    );
    schema["minProperties"] = 1.into();
    schema["additionalProperties"] = false.into();
    schema
}

/// What holds for a fairness key.
pub(super) fn weight() -> Value {
    let mut schema = object(&["weight"], json!({"weight": integer(1, 1_000)}));
    schema["additionalProperties"] = false.into();
    schema
}

fn of_a_resource() -> Value {
    let amount = json!({"type": ["number", "null"], "minimum": 0, "maximum": 1e12});
    json!({
        "resource_type": words(ResourceType::ALL.map(ResourceType::name)),
        "name": word(),
        "capacity": {"type": "number", "minimum": 0.001, "maximum": 1e12},
        "unit": optional(word()),
        "location": optional(word()),
        "cost_per_unit": {"type": ["number", "null"], "minimum": 0},
        "minimum_allocation": amount,
        "maximum_allocation": amount,
        "metadata": {"type": "object"},
        "tags": tags(),
    })
}

/// Lines of log in a poll.
fn log_lines() -> Value {
    let mut log = attempt(json!({
        "time": {"type": ["string", "null"], "format": "date-time"},
        "level": optional(words(LogLevel::ALL.map(LogLevel::name))),
        "line": {"type": ["string", "null"]},
        "lines": {"type": "array", "items": {"type": "string"}},
    }));
    log["required"] = json!(["task_id", "attempt"]);
    log
}

/// The name of a mailbox.
pub(super) fn mailbox() -> Value {
    json!({"type": "string", "pattern": MAILBOX_PATTERN})
}

/// The name of a reader, a sender or a kind.
pub(super) fn reader() -> Value {
    text(NAME_CHARS_MAX)
}

/// A message.
pub(super) fn message() -> Value {
    let only = |name: &str, schema: Value| {
        let mut address = object(&[name], json!({ name: schema }));
        address["additionalProperties"] = false.into();
        address
    };
    let topic = json!({"type": "string", "pattern": "^[A-Za-z0-9_./:-]{1,200}$"});
    let to = json!({"oneOf": [
        only("agent", uuid()), only("task", uuid()), only("topic", topic),
        only("all", json!({"const": true})),
    ]});
    object(
        &["to", "body"],
        json!({
            "to": to,
            "sender": optional(reader()),
            "kind": optional(reader()),
            "body": {"description": "Any JSON, up to 256 KiB."},
            "reply_to": optional(uuid()),
            "ttl_seconds": optional(integer(1, TTL_SECONDS_MAX)),
            "metadata": {"type": ["object", "null"]},
        }),
    )
}

/// An acknowledgement.
pub(super) fn ack() -> Value {
    let properties = json!({
        "mailbox": mailbox(), "reader": optional(reader()), "offset": integer(0, u64::MAX >> 2),
    });
    let mut schema = object(&["mailbox", "offset"], properties);
    schema["additionalProperties"] = false.into();
    schema
}

/// A subscription.
pub(super) fn subscription() -> Value {
    let url = json!({"type": "string", "maxLength": URL_CHARS_MAX, "pattern": "^https?://"});
    let secret = json!({"type": ["string", "null"], "pattern": "^whsec_[A-Za-z0-9+/]+=*$"});
    let mut schema = object(
        &["mailbox", "url"],
        json!({
            "mailbox": mailbox(), "url": url, "secret": secret,
            "from_offset": optional(integer(0, u64::MAX >> 2)),
        }),
    );
    schema["additionalProperties"] = false.into();
    schema
}

/// A resource.
pub(super) fn resource() -> Value {
    object(&["resource_type", "name", "capacity"], of_a_resource())
}

/// What may be changed in a resource.
pub(super) fn resource_patch() -> Value {
    let mut schema = object(&[], of_a_resource());
    schema["minProperties"] = 1.into();
    schema
}

/// A request to hold resources.
pub(super) fn allocation() -> Value {
    let requester = segment();
    let mut resources = amounts();
    resources["minProperties"] = 1.into();
    resources["additionalProperties"] = json!({"type": "number", "minimum": 0.001,
        "maximum": 1e12});
    object(
        &["requester_id", "resources"],
        json!({
            "requester_id": requester,
            "resources": resources,
            "lease_seconds": optional(integer(1, LEASE_SECONDS_MAX)),
        }),
    )
}

/// What may be changed in a pool.
pub(super) fn pool() -> Value {
    let agents = integer(0, 100);
    let mut schema = object(
        &[],
        json!({
            "min": agents,
            "max": agents,
            "slots": integer(1, limits::AGENT_SLOTS_MAX.into()),
            "queue_depth": integer(1, 1_000_000),
            "wait_seconds": integer(0, 86_400),
            "idle_seconds": integer(0, 366 * 86_400),
            "cooldown_seconds": integer(0, 86_400),
        }),
    );
    schema["minProperties"] = 1.into();
    schema
}

/// A checkpoint.
pub(super) fn checkpoint() -> Value {
    let name = optional(text(limits::NAME_CHARS_MAX));
    object(&[], json!({"name": name, "metadata": {"type": "object"}}))
}

/// A schedule.
pub(super) fn schedule() -> Value {
    let field = r"[0-9*,/A-Za-z#?-]+";
    let cron = format!("^{field} {field} {field} {field} {field}$");
    let cron = json!({"type": "string", "maxLength": CRON_CHARS_MAX, "pattern": cron});
    // A moment would be over at every run but the first.
    let mut task = submission();
    task["properties"]["deadline"] = json!({"type": "null"});
    let mut schema = object(
        &["name", "task"],
        json!({
            "name": text(limits::NAME_CHARS_MAX),
            "cron": optional(cron),
            "timezone": {"type": ["string", "null"],
                "description": "A zone's IANA name, such as `Europe/Berlin`; UTC by default."},
            "every_seconds": optional(integer(1, EVERY_SECONDS_MAX)),
            "task": task,
            "missed": optional(words(Missed::ALL.map(Missed::name))),
            "overlap": optional(words(Overlap::ALL.map(Overlap::name))),
            "paused": {"type": "boolean"},
        }),
    );
    let one = |given: &str, kind: &str, other: &str| {
        json!({"required": [given],
            "properties": {given: {"type": kind}, other: {"type": "null"}}})
    };
    schema["oneOf"] =
        json!([one("cron", "string", "every_seconds"), one("every_seconds", "integer", "cron"),]);
    schema
}

/// Why a task is cancelled.
pub(super) fn cancellation() -> Value {
    let reason = json!({"type": "string", "maxLength": 500, "pattern": NO_NUL});
    object(&[], json!({"reason": optional(reason)}))
}

/// A schedule that pauses or goes on.
pub(super) fn pause() -> Value {
    let mut schema = object(&["paused"], json!({"paused": {"type": "boolean"}}));
    schema["additionalProperties"] = false.into();
    schema
}
