//! Tasks as clients of Claude Code know them: the form in which they send them, made into a
//! submission, and the form in which they are shown.
//!
//! `type` is a word for the capability that is needed, with resources of its own; everything else
//! is a submission and is checked as one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::document::{self, List, Members};
use crate::error::{ApiError, ErrorCode};
use crate::fault::Faults;
use crate::submission::{self, Bounds};
use crate::system::ComponentHealth;
use crate::task::{Task, wire_names};
use crate::time::UtcTime;

/// The tag that every such task has.
pub const TAG: &str = "claude_code";
/// What `metadata.source` says of every such task.
pub const SOURCE: &str = "claude_code";
/// Most characters of a callback's URL.
pub const CALLBACK_URL_CHARS_MAX: usize = 2_000;
/// Characters of a description that become the name of a task without one.
const NAME_CHARS: usize = 100;

wire_names! {
    /// What kind of work a task is.
    ClaudeType: 7 {
        /// Reading and writing files.
        FileOperations "file_operations"
        /// Queries and summaries.
        DataProcessing "data_processing"
        /// Requests to other services.
        ApiCalls "api_calls"
        /// Arithmetic.
        Computation "computation"
        /// Bringing results together.
        Coordination "coordination"
        /// Watching.
        Monitoring "monitoring"
        /// Anything else.
        Generic "generic"
    }
}

impl ClaudeType {
    /// The capability that it needs.
    #[must_use]
    pub fn capability(self) -> &'static str {
        match self {
            ClaudeType::ApiCalls => "api_integration",
            ClaudeType::Generic => "task_execution",
            ClaudeType::FileOperations
            | ClaudeType::DataProcessing
            | ClaudeType::Computation
            | ClaudeType::Coordination
            | ClaudeType::Monitoring => self.name(),
        }
    }

    /// What it reserves unless the task says otherwise, as JSON.
    fn resources(self) -> &'static str {
        match self {
            ClaudeType::FileOperations => r#"{"cpu_cores":0.5,"memory_mb":256,"disk_mb":1024}"#,
            ClaudeType::DataProcessing => r#"{"cpu_cores":1,"memory_mb":1024,"disk_mb":512}"#,
            ClaudeType::ApiCalls => r#"{"cpu_cores":0.25,"memory_mb":128,"network_mbps":10}"#,
            ClaudeType::Computation => r#"{"cpu_cores":2,"memory_mb":2048,"disk_mb":256}"#,
            ClaudeType::Coordination => r#"{"cpu_cores":0.5,"memory_mb":512}"#,
            ClaudeType::Monitoring => r#"{"cpu_cores":0.25,"memory_mb":256}"#,
            ClaudeType::Generic => r#"{"cpu_cores":0.5,"memory_mb":512,"disk_mb":256}"#,
        }
    }
}

/// The body of `POST /api/v1/claude/tasks` as that of `POST /api/v1/tasks`.
#[derive(Clone, Debug)]
pub struct Translated {
    /// The submission, unchecked.
    pub document: String,
    /// Who is to be told of the task's end; whether that can be reached is for the server to say.
    pub callback_url: Option<String>,
    /// What is wrong with what only this form has.
    pub fault: Option<ApiError>,
}

/// Writes a body of this form as a submission. What is wrong with a field that both have is left
/// for the submission's own check, so that one answer can name all of it.
///
/// # Errors
/// That the body is no object that can be read.
pub fn submission(body: &[u8], bounds: &Bounds) -> Result<Translated, ApiError> {
    let members = submission::open(body, bounds)?;
    let mut faults = Faults::default();
    let kind = kind(&members, &mut faults);
    let callback_url = callback_url(&members, &mut faults);
    let name = name(&members, &mut faults);
    check_priority(&members, &mut faults);
    let mut document = Document::default();
    document.put("name", &name);
    for (field, value) in &members.0 {
        match &**field {
            "name" | "type" | "callback_url" | "tags" | "metadata" => {}
            "priority" => document.put("priority", priority(value)),
            _ => document.put(field, value.get()),
        }
    }
    document.put("tags", &tags(members.value("tags")));
    document.put("metadata", &metadata(members.value("metadata"), kind));
    let given = |field: &str| members.value(field).is_some_and(|raw| raw.get() != "null");
    if !given("resource_requirements") || members.value("resource_requirements").is_some_and(empty)
    {
        document.replace("resource_requirements", kind.resources());
    }
    if !given("required_capabilities") {
        document.replace("required_capabilities", &format!("[\"{}\"]", kind.capability()));
    }
    Ok(Translated { document: document.close(), callback_url, fault: faults.check().err() })
}

/// Who is to be told of the task's end.
fn callback_url(members: &Members<'_>, faults: &mut Faults) -> Option<String> {
    let raw = members.value("callback_url").filter(|raw| raw.get() != "null")?;
    let url = document::text(raw.get());
    let long = url.as_ref().is_some_and(|url| url.chars().count() > CALLBACK_URL_CHARS_MAX);
    if url.is_none() || long {
        let what = format!("must be a URL of at most {CALLBACK_URL_CHARS_MAX} characters");
        faults.invalid("callback_url", what);
        return None;
    }
    url.map(Cow::into_owned)
}

/// An object as it is written, each member once.
#[derive(Default)]
struct Document(Vec<(String, String)>);

impl Document {
    fn put(&mut self, name: &str, json: &str) {
        self.0.push((name.to_owned(), json.to_owned()));
    }

    fn replace(&mut self, name: &str, json: &str) {
        self.0.retain(|(held, _)| held != name);
        self.put(name, json);
    }

    fn close(self) -> String {
        let mut written = String::from("{");
        for (index, (name, json)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let name = quoted(name);
            // Writing to a string does not fail.
            let _ = write!(written, "{comma}{name}:{json}");
        }
        written.push('}');
        written
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

fn empty(raw: &RawValue) -> bool {
    document::members(raw.get()).is_some_and(|members| members.0.is_empty())
}

fn kind(members: &Members<'_>, faults: &mut Faults) -> ClaudeType {
    let given = members.value("type").filter(|raw| raw.get() != "null");
    let Some(given) = given else { return ClaudeType::Generic };
    let found = document::text(given.get());
    let known = ClaudeType::ALL.into_iter().find(|kind| Some(kind.name()) == found.as_deref());
    known.unwrap_or_else(|| {
        let names = ClaudeType::ALL.map(|kind| format!("`{}`", kind.name())).join(", ");
        let found = found.unwrap_or(Cow::Borrowed("something that is no string"));
        faults.invalid("type", format!("must be one of {names}, found `{found}`"));
        ClaudeType::Generic
    })
}

/// The name, or else the beginning of the description, as JSON.
fn name(members: &Members<'_>, faults: &mut Faults) -> String {
    let given = |field: &str| members.value(field).filter(|raw| raw.get() != "null");
    if let Some(name) = given("name") {
        return name.get().to_owned();
    }
    let text = given("description").and_then(|raw| document::text(raw.get()));
    let line = text.as_deref().and_then(|text| text.trim().lines().next()).unwrap_or_default();
    if line.is_empty() {
        faults.invalid("name", "is required, or a `description` from which one is made");
    }
    quoted(&line.chars().take(NAME_CHARS).collect::<String>())
}

/// Words for priorities in this form: those of a submission, and two of its own.
const PRIORITIES: [&str; 6] = ["low", "medium", "normal", "high", "critical", "urgent"];

/// The submission's own check would leave out the words that only this form has.
fn check_priority(members: &Members<'_>, faults: &mut Faults) {
    let given = members.value("priority").and_then(|raw| document::text(raw.get()));
    if let Some(word) = given.filter(|word| !PRIORITIES.contains(&&**word)) {
        let known = PRIORITIES.map(|name| format!("`{name}`")).join(", ");
        let shown: String = word.chars().filter(|c| !c.is_control()).take(100).collect();
        faults.invalid("priority", format!("must be one of {known}, found `{shown}`"));
    }
}

/// The priority in the submission's words.
fn priority(raw: &RawValue) -> &str {
    match document::text(raw.get()).as_deref() {
        Some("normal") => "\"medium\"",
        Some("urgent") => "\"critical\"",
        _ => raw.get(),
    }
}

/// The tags with the one of this form; what is no list stays, to be refused.
fn tags(raw: Option<&RawValue>) -> String {
    let own = quoted(TAG);
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return format!("[{own}]") };
    match document::list(raw.get(), usize::MAX) {
        Some(List::Entries(entries)) => {
            let given: Vec<&str> = entries.iter().map(|entry| entry.get()).collect();
            let all: Vec<&str> = given.into_iter().chain([own.as_str()]).collect();
            format!("[{}]", all.join(","))
        }
        Some(List::TooLong { .. }) | None => raw.get().to_owned(),
    }
}

/// The metadata with its source and type; what is no object stays, to be refused.
fn metadata(raw: Option<&RawValue>, kind: ClaudeType) -> String {
    let members = match raw.filter(|raw| raw.get() != "null") {
        None => Members(Vec::new()),
        Some(raw) => match document::members(raw.get()) {
            Some(members) => members,
            None => return raw.get().to_owned(),
        },
    };
    let mut document = Document::default();
    for (name, value) in &members.0 {
        document.replace(name, value.get());
    }
    document.replace("source", &quoted(SOURCE));
    document.replace("claude_type", &quoted(kind.name()));
    document.close()
}

/// The answer to `POST /api/v1/claude/tasks`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClaudeAccepted {
    /// The task under its own kind of id.
    pub claude_task_id: Uuid,
    /// What happened, in words.
    pub message: String,
    /// When.
    pub submitted_at: UtcTime,
    /// Ours: the task itself.
    pub maos_task_id: Uuid,
    /// Ours: what the callback is signed with (Standard Webhooks); shown here and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_secret: Option<String>,
    /// Ours: what the caller should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The answer to `GET /api/v1/claude/tasks/{id}`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ClaudeTaskStatus {
    /// The task itself; its `id` is the Claude task's.
    #[serde(flatten)]
    pub task: Task,
    /// The id under which the task API has it.
    pub maos_task_id: Uuid,
}

// By hand: what is flattened cannot be read with its payloads as they are.
impl<'de> Deserialize<'de> for ClaudeTaskStatus {
    fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<ClaudeTaskStatus, D::Error> {
        #[derive(Deserialize)]
        struct Own {
            maos_task_id: Uuid,
        }
        let whole = Box::<RawValue>::deserialize(source)?;
        let wrong = serde::de::Error::custom::<serde_json::Error>;
        let task = serde_json::from_str(whole.get()).map_err(wrong)?;
        let Own { maos_task_id } = serde_json::from_str(whole.get()).map_err(wrong)?;
        Ok(ClaudeTaskStatus { task, maos_task_id })
    }
}

/// The answer to `GET /api/v1/claude/orchestrator/status`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClaudeOrchestratorStatus {
    /// `running` or `stopped`.
    pub status: OrchestratorState,
    /// Since the server's start.
    pub uptime_seconds: u64,
    /// Each component in a word.
    pub components: BTreeMap<String, String>,
    /// Running attempts.
    pub active_executions: u64,
    /// Tasks that came in by `POST /api/v1/claude/tasks` and are known; not their subtasks.
    pub total_claude_tasks: u64,
    /// Each component.
    pub health: BTreeMap<String, ComponentHealth>,
    /// Figures since the data directory was made.
    pub metrics: ClaudeMetrics,
}

wire_names! {
    /// Whether tasks are taken.
    OrchestratorState: 2 {
        /// They are.
        Running "running"
        /// They are not: the server is shutting down.
        Stopped "stopped"
    }
}

/// Figures since the data directory was made, whoever submitted the tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClaudeMetrics {
    /// Tasks accepted.
    pub tasks_submitted: u64,
    /// Tasks that ended well.
    pub tasks_completed: u64,
    /// Tasks that failed.
    pub tasks_failed: u64,
    /// Agents registered.
    pub agents_created: u64,
}

/// Bits in which the id of a Claude task differs from that of its task: so it is another id, unique
/// as that one is, and nothing need be remembered to find one by the other.
const OTHER: u128 = 0x0000_0000_0000_0000_0C1A_0DEC_0DE0_0001;

/// The other id: of the task for a Claude task's, and the other way round.
#[must_use]
pub fn other_id(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128() ^ OTHER)
}

/// That no Claude task has this id.
#[must_use]
pub fn not_found(id: Uuid) -> ApiError {
    let message = format!(
        "no Claude task has the id `{id}`\nhint: the id is the `claude_task_id` of the answer to \
         `POST /api/v1/claude/tasks`; the task's own id is for `/api/v1/tasks`"
    );
    ApiError::new(ErrorCode::TaskNotFound, message)
}
