//! Agents on the wire: what is sent in and what comes back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::ApiError;
use crate::fault::Faults;
use crate::field::{Null, Reader, listed};
use crate::submission::{self, Bounds};
use crate::task::wire_names;
use crate::time::UtcTime;

/// Seconds between the signs of life that an agent is expected to give.
pub const HEALTH_CHECK_INTERVAL_SECONDS: u64 = 30;

wire_names! {
    /// What does an agent's work.
    AgentRuntime: 5 {
        /// The server itself.
        Builtin "builtin"
        /// A program that the operator configured.
        Command "command"
        /// A signed POST to a URL.
        Http "http"
        /// The Claude Code CLI.
        ClaudeCode "claude_code"
        /// Any program that polls.
        Worker "worker"
    }
}

wire_names! {
    /// How an agent is.
    AgentStatus: 7 {
        /// It is being started.
        Initializing "initializing"
        /// It has nothing to do.
        Idle "idle"
        /// It has something to do and a slot left.
        Busy "busy"
        /// All its slots are taken.
        Overloaded "overloaded"
        /// It fails more than it should.
        Unhealthy "unhealthy"
        /// It has not been heard of.
        Offline "offline"
        /// It takes no more work.
        Terminated "terminated"
    }
}

/// Longest silence that a worker may ask for, in seconds: a day.
pub const HEARTBEAT_TIMEOUT_MAX: u64 = 24 * 3_600;

/// The body of `POST /api/v1/agents`, for clients.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AgentCreate {
    /// The caller's word for its kind; not blank.
    pub agent_type: String,
    /// What it can do; at least one.
    pub capabilities: Vec<String>,
    /// For people, and for a worker's own program; MAOS does not read it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub configuration: Map<String, Value>,
    /// Attempts at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent_tasks: Option<u32>,
    /// For people; they bound nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resource_limits: BTreeMap<String, f64>,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Ours: its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Ours: what does the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<AgentRuntime>,
    /// Ours, for workers: an id of their own, under which they register again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Ours, for workers: seconds of silence after which it is lost, 1 to
    /// [`HEARTBEAT_TIMEOUT_MAX`]; the server's if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_timeout: Option<u64>,
}

/// A request for an agent within the contract.
#[derive(Clone, Debug)]
pub struct ParsedAgent {
    /// The caller's word for its kind.
    pub agent_type: String,
    /// Sorted, without doubles; at least one.
    pub capabilities: Vec<String>,
    /// An object as it came; `None` is `{}`.
    pub configuration: Option<Box<RawValue>>,
    /// Attempts at once, at least 1.
    pub max_concurrent_tasks: u32,
    /// Amounts by kind, in thousandths of the kind's unit.
    pub resource_limits: Vec<(String, u64)>,
    /// Sorted, without doubles.
    pub tags: Vec<String>,
    /// Its name for people.
    pub name: Option<String>,
    /// What does the work.
    pub runtime: AgentRuntime,
    /// A worker's own choice of its id.
    pub id: Option<Uuid>,
    /// A worker's own bound on its silence, in seconds.
    pub heartbeat_timeout: Option<u64>,
    /// What the answer should mention.
    pub warnings: Vec<String>,
}

/// Every field of a request for an agent.
pub const FIELDS: [&str; 10] = [
    "agent_type",
    "capabilities",
    "configuration",
    "max_concurrent_tasks",
    "resource_limits",
    "tags",
    "name",
    "runtime",
    "id",
    "heartbeat_timeout",
];

/// Reads and checks the body of a request for an agent.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse(body: &[u8], bounds: &Bounds) -> Result<ParsedAgent, ApiError> {
    let members = submission::open(body, bounds)?;
    let mut faults = Faults::default();
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let (mut slots, mut warnings) = ([None; FIELDS.len()], Vec::new());
    for (name, value) in members.0 {
        match FIELDS.iter().position(|field| *field == name) {
            Some(index) if slots[index].is_none() => slots[index] = Some(value),
            Some(_) => reader.invalid(&name, "is given twice"),
            None => warnings.push(submission::unknown_field(&name)),
        }
    }
    warnings.truncate(submission::UNKNOWN_NAMED_MAX);
    let [agent_type, capabilities, configuration, slots_count, ..] = slots;
    let [.., limits, tags, name, runtime, id, heartbeat] = slots;
    for (field, slot) in FIELDS.iter().zip([agent_type, capabilities]) {
        if slot.is_none() {
            reader.invalid(field, "is required");
        }
    }
    let refused = Null::Refused;
    let agent_type = reader.trimmed("agent_type", agent_type, refused, bounds.word_chars_max);
    let capabilities = reader.capabilities("capabilities", capabilities, refused);
    if capabilities.as_ref().is_some_and(Vec::is_empty) {
        reader.invalid("capabilities", "must have at least one entry");
    }
    let configuration = reader.object("configuration", configuration).map(RawValue::to_owned);
    let slots_range = 1..=u64::from(bounds.agent_slots_max);
    let slots_count =
        reader.integer("max_concurrent_tasks", slots_count, refused, slots_range).unwrap_or(1);
    let limits = reader.amounts("resource_limits", limits).unwrap_or_default();
    let tags = reader.words("tags", tags, refused, bounds.tags_max).unwrap_or_default();
    let name = reader.trimmed("name", name, Null::Absent, bounds.name_chars_max);
    let names = AgentRuntime::ALL.map(AgentRuntime::name);
    let runtime = reader
        .one_of("runtime", runtime, Null::Absent, &names)
        .and_then(|index| AgentRuntime::ALL.get(index).copied())
        .unwrap_or(AgentRuntime::Builtin);
    let id = reader.id("id", id);
    if id.is_some() && runtime != AgentRuntime::Worker {
        reader.invalid("id", "can only be chosen by an agent whose `runtime` is `worker`");
    }
    let heartbeat_timeout = reader.heartbeat_timeout(heartbeat, Null::Absent);
    if heartbeat_timeout.is_some() && runtime != AgentRuntime::Worker {
        reader.invalid("heartbeat_timeout", NO_WORKER);
    }
    faults.check()?;
    let owned = |words: Vec<std::borrow::Cow<'_, str>>| words.into_iter().map(Into::into).collect();
    Ok(ParsedAgent {
        agent_type: agent_type.map(Into::into).unwrap_or_default(),
        capabilities: capabilities.map(owned).unwrap_or_default(),
        configuration,
        max_concurrent_tasks: u32::try_from(slots_count).unwrap_or(u32::MAX),
        resource_limits: limits.into_iter().map(|(kind, milli)| (kind.into(), milli)).collect(),
        tags: owned(tags),
        name: name.map(Into::into),
        runtime,
        id,
        heartbeat_timeout,
        warnings,
    })
}

/// What is wrong with a bound on silence for an agent that is never silent.
pub const NO_WORKER: &str = "is only for agents whose `runtime` is `worker`: others are not polled";

impl Reader<'_> {
    fn heartbeat_timeout(&mut self, raw: Option<&RawValue>, null: Null) -> Option<u64> {
        self.integer("heartbeat_timeout", raw, null, 1..=HEARTBEAT_TIMEOUT_MAX)
    }
}

/// What is to be another in an agent, checked; `None`: stays as it is.
#[derive(Clone, Debug, Default)]
pub struct AgentPatch {
    /// Its name for people.
    pub name: Option<String>,
    /// At least one.
    pub capabilities: Option<Vec<String>>,
    /// For people, and for a worker's own program; MAOS does not read it.
    pub configuration: Option<Box<RawValue>>,
    /// Attempts at once.
    pub max_concurrent_tasks: Option<u32>,
    /// For people; they bound nothing. In thousandths.
    pub resource_limits: Option<Vec<(String, u64)>>,
    /// A set of words to find it by.
    pub tags: Option<Vec<String>>,
    /// A worker's own bound on its silence, in seconds.
    pub heartbeat_timeout: Option<u64>,
    /// What the answer should mention.
    pub warnings: Vec<String>,
}

/// Every field that a request to change an agent may have.
pub const PATCH_FIELDS: [&str; 7] = [
    "name",
    "capabilities",
    "configuration",
    "max_concurrent_tasks",
    "resource_limits",
    "tags",
    "heartbeat_timeout",
];

/// Reads and checks the body of a request to change an agent.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse_patch(body: &[u8], bounds: &Bounds) -> Result<AgentPatch, ApiError> {
    let members = submission::open(body, bounds)?;
    let (mut faults, mut warnings) = (Faults::default(), Vec::new());
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let slots = reader.known(&members, PATCH_FIELDS, &mut warnings);
    if slots.iter().all(Option::is_none) {
        reader.invalid("body", format!("must have at least one of {}", listed(&PATCH_FIELDS)));
    }
    let [name, capabilities, configuration, slots_count, limits, tags, heartbeat] = slots;
    let refused = Null::Refused;
    let name = reader.trimmed("name", name, refused, bounds.name_chars_max);
    let capabilities = reader.capabilities("capabilities", capabilities, refused);
    if capabilities.as_ref().is_some_and(Vec::is_empty) {
        reader.invalid("capabilities", "must have at least one entry");
    }
    let range = 1..=u64::from(bounds.agent_slots_max);
    let slots_count = reader.integer("max_concurrent_tasks", slots_count, refused, range);
    let limits = reader.amounts("resource_limits", limits);
    let configuration = reader.object("configuration", configuration).map(RawValue::to_owned);
    let tags = reader.words("tags", tags, refused, bounds.tags_max);
    let heartbeat_timeout = reader.heartbeat_timeout(heartbeat, refused);
    faults.check()?;
    let owned = |words: Vec<std::borrow::Cow<'_, str>>| words.into_iter().map(Into::into).collect();
    let named = |limits: Vec<(std::borrow::Cow<'_, str>, u64)>| {
        limits.into_iter().map(|(kind, milli)| (kind.into(), milli)).collect()
    };
    Ok(AgentPatch {
        name: name.map(Into::into),
        capabilities: capabilities.map(owned),
        configuration,
        max_concurrent_tasks: slots_count.and_then(|count| u32::try_from(count).ok()),
        resource_limits: limits.map(named),
        tags: tags.map(owned),
        heartbeat_timeout,
        warnings,
    })
}

/// What an agent has done and how it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentMetrics {
    /// Attempts with a result.
    pub tasks_completed: u64,
    /// Attempts without one.
    pub tasks_failed: u64,
    /// Of all ended attempts, in seconds.
    pub total_execution_time: f64,
    /// Of one ended attempt, in seconds.
    pub average_execution_time: f64,
    /// What the processes of its running attempts take of one core, on average since each attempt's
    /// first process began. 0: there are none, or it is not known, as of workers and URLs.
    pub cpu_usage_percent: f64,
    /// Resident memory of the processes of its running attempts, in units of 1,048,576 bytes. 0:
    /// there are none, or it is not known, as of workers and URLs.
    pub memory_usage_mb: f64,
    /// Completed among ended attempts, 0 to 1; 1 before the first.
    pub success_rate: f64,
    /// Its last sign of life.
    pub last_heartbeat: Option<UtcTime>,
    /// 0 to 1.
    pub health_score: f64,
}

/// An agent as the contract shows it, and our additions behind it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The caller's word for its kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// How it is.
    pub status: AgentStatus,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// One of the tasks it runs.
    pub current_task_id: Option<Uuid>,
    /// All tasks it runs.
    pub task_queue: Vec<Uuid>,
    /// Attempts at once.
    pub max_concurrent_tasks: u32,
    /// For people; they bound nothing.
    pub resource_limits: BTreeMap<String, f64>,
    /// An object for people, and for a worker's own program; MAOS does not read it.
    #[schema(value_type = Object)]
    pub configuration: Box<RawValue>,
    /// An object.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// Registered first.
    pub created_at: UtcTime,
    /// Serves since.
    pub started_at: Option<UtcTime>,
    /// Its last sign of life.
    pub last_seen: Option<UtcTime>,
    /// What it has done.
    pub metrics: AgentMetrics,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Seconds between expected signs of life.
    pub health_check_interval: u64,
    /// Seconds of silence after which it is lost.
    pub heartbeat_timeout: u64,
    /// Ours: what does the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<AgentRuntime>,
}

/// The answer to creating and reading an agent.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AgentEnvelope {
    /// The agent.
    pub agent: Agent,
    /// What happened, in words.
    pub message: String,
    /// What the caller should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The answer to ending an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TerminateAnswer {
    /// What happened, in words.
    pub message: String,
    /// The agent.
    pub agent_id: Uuid,
}

/// The answer to `GET /api/v1/agents`.
pub type AgentPage = crate::task::Page<Agent>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submission::tests::BOUNDS;

    #[test]
    fn an_agent_has_defaults_and_its_faults_are_all_named() {
        let body = br#"{"agent_type":" data ","capabilities":["computation","computation"],"x":1}"#;
        let agent = parse(body, &BOUNDS).unwrap();
        assert_eq!((&*agent.agent_type, agent.max_concurrent_tasks), ("data", 1));
        assert_eq!(agent.capabilities, ["computation"]);
        assert_eq!(agent.runtime, AgentRuntime::Builtin);
        assert_eq!(agent.warnings, ["unknown field `x` is ignored"]);

        let body = br#"{"capabilities":[],"max_concurrent_tasks":0,"runtime":"shell","tags":"a",
            "configuration":[],"resource_limits":{"cpu_cores":-1},"name":" "}"#;
        let error = parse(body, &BOUNDS).unwrap_err();
        let fields: Vec<&String> = error.details["fields"].as_object().unwrap().keys().collect();
        assert_eq!(
            fields,
            [
                "agent_type",
                "capabilities",
                "configuration",
                "max_concurrent_tasks",
                "name",
                "resource_limits.cpu_cores",
                "runtime",
                "tags"
            ]
        );
    }
}
