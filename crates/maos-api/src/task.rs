//! Tasks on the wire: what is sent in and what comes back.
//!
//! Payloads pass through as the bytes they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::time::UtcTime;

macro_rules! wire_names {
    ($(#[$doc:meta])* $name:ident: $count:literal {
        $($(#[$case_doc:meta])* $case:ident $wire:literal)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$case_doc])* #[serde(rename = $wire)] $case,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: [$name; $count] = [$($name::$case),+];

            /// The name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($name::$case => $wire),+ }
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let names = $name::ALL.map($name::name);
                let name = utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::Type::String)
                    .enum_values(Some(names));
                name.into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}
pub(crate) use wire_names;

wire_names! {
    /// How much a task matters.
    Priority: 4 {
        /// After everything else.
        Low "low"
        /// The default.
        Medium "medium"
        /// Before the default.
        High "high"
        /// Before everything else.
        Critical "critical"
    }
}

wire_names! {
    /// Where a task stands.
    TaskStatus: 7 {
        /// Waits for dependencies, a time or an approval.
        Pending "pending"
        /// Queued for an agent.
        Ready "ready"
        /// An agent has it; a task with subtasks: from its first subtask's start to its own end.
        Running "running"
        /// Ended well.
        Completed "completed"
        /// Ended without a result.
        Failed "failed"
        /// Ended by somebody's wish.
        Cancelled "cancelled"
        /// Waits out the pause after a failure.
        Retrying "retrying"
    }
}

impl TaskStatus {
    /// Whether nothing more happens by itself.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            TaskStatus::Completed | TaskStatus::Failed | TaskStatus::Cancelled => true,
            TaskStatus::Pending
            | TaskStatus::Ready
            | TaskStatus::Running
            | TaskStatus::Retrying => false,
        }
    }
}

wire_names! {
    /// How a submission is split into subtasks.
    Strategy: 6 {
        /// One after another.
        Sequential "sequential"
        /// All at once.
        Parallel "parallel"
        /// One after another, each with the result of the one before.
        Pipeline "pipeline"
        /// Stages one after another, which may have stages, steps or items of their own.
        Hierarchical "hierarchical"
        /// All at once, between a preparing and a reducing step.
        FanOutFanIn "fan_out_fan_in"
        /// An agent with the capability `planning` answers with the subtasks.
        Planner "planner"
    }
}

wire_names! {
    /// What a parent does when a subtask does not complete.
    OnFailure: 3 {
        /// Cancel the others and fail.
        FailFast "fail_fast"
        /// Run what does not depend on it, then fail.
        Continue "continue"
        /// Count it as done.
        Ignore "ignore"
    }
}

/// The body of `POST /api/v1/tasks`, for clients. What is `None` or empty is left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TaskSubmission {
    /// Not blank.
    pub name: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How much it matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// For the agent.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// Bound on one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
    /// Retries after failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// What is reserved while it runs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resource_requirements: BTreeMap<String, f64>,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Kept and never read.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// How to split it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decomposition_strategy: Option<Strategy>,
    /// Our additions to the contract, by their names; the methods below write them.
    #[serde(flatten)]
    pub additions: Map<String, Value>,
}

impl TaskSubmission {
    /// A task for a built-in agent, named as its action until it gets another name.
    #[must_use]
    pub fn action(action: &str) -> TaskSubmission {
        let parameters = Map::from_iter([("action".to_owned(), action.into())]);
        TaskSubmission { name: action.to_owned(), parameters, ..TaskSubmission::default() }
    }

    /// What an agent must be able to do to get it.
    #[must_use]
    pub fn with_required_capabilities(self, names: &[&str]) -> TaskSubmission {
        self.with("required_capabilities", names)
    }

    /// For agents of this type only.
    #[must_use]
    pub fn with_agent_type(self, kind: &str) -> TaskSubmission {
        self.with("agent_type", kind)
    }

    /// For this agent only.
    #[must_use]
    pub fn with_agent_id(self, id: Uuid) -> TaskSubmission {
        self.with("agent_id", id.to_string())
    }

    /// Bound on the wait for an agent.
    #[must_use]
    pub fn with_queue_timeout_seconds(self, seconds: u64) -> TaskSubmission {
        self.with("queue_timeout_seconds", seconds)
    }

    /// Bound on the silence between two signs of progress.
    #[must_use]
    pub fn with_no_progress_seconds(self, seconds: u64) -> TaskSubmission {
        self.with("no_progress_seconds", seconds)
    }

    /// It has failed if it has not ended by then.
    #[must_use]
    pub fn with_deadline(self, at: UtcTime) -> TaskSubmission {
        self.with("deadline", at.to_string())
    }

    /// It waits until then.
    #[must_use]
    pub fn with_run_at(self, at: UtcTime) -> TaskSubmission {
        self.with("run_at", at.to_string())
    }

    /// It waits for so long; not together with a moment to run at.
    #[must_use]
    pub fn with_delay_seconds(self, seconds: u64) -> TaskSubmission {
        self.with("delay_seconds", seconds)
    }

    /// Tasks with one key share a bound on how many run; one at a time unless it is set.
    #[must_use]
    pub fn with_concurrency_key(self, key: &str) -> TaskSubmission {
        self.with("concurrency_key", key)
    }

    /// Tasks with different keys take turns.
    #[must_use]
    pub fn with_fairness_key(self, key: &str) -> TaskSubmission {
        self.with("fairness_key", key)
    }

    /// What becomes of it when a subtask does not complete.
    #[must_use]
    pub fn with_on_failure(self, what: OnFailure) -> TaskSubmission {
        self.with("on_failure", what.name())
    }

    /// It is made of these: its graph, each with a key of its own (see
    /// [`TaskSubmission::as_subtask`]).
    #[must_use]
    pub fn with_subtasks(self, subtasks: &[TaskSubmission]) -> TaskSubmission {
        let entries = subtasks.iter().map(serde_json::to_value);
        let entries: Vec<Value> = entries.map(Result::unwrap_or_default).collect();
        self.with("subtasks", entries)
    }

    /// As an entry of a graph: its key there, and the keys of what it waits for.
    #[must_use]
    pub fn as_subtask(self, key: &str, depends_on: &[&str]) -> TaskSubmission {
        self.with("key", key).with("depends_on", depends_on)
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> TaskSubmission {
        self.additions.insert(name.to_owned(), value.into());
        self
    }
}

/// One thing that a task waits for.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Dependency {
    /// What must have ended.
    pub task_id: Uuid,
    /// Always `completion`.
    pub dependency_type: DependencyType,
    /// Always true.
    pub required: bool,
    /// An object.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
}

wire_names! {
    /// How a task depends on another.
    DependencyType: 1 {
        /// The other must have ended.
        Completion "completion"
    }
}

impl Dependency {
    /// A dependency on the end of `task_id`.
    #[must_use]
    pub fn on(task_id: Uuid) -> Dependency {
        let dependency_type = DependencyType::Completion;
        Dependency { task_id, dependency_type, required: true, metadata: Map::new() }
    }
}

/// A task as the contract shows it, and our additions behind it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Where it stands.
    pub status: TaskStatus,
    /// How much it matters.
    pub priority: Priority,
    /// Who runs it, or ran it last.
    pub agent_id: Option<Uuid>,
    /// Its parent.
    pub parent_task_id: Option<Uuid>,
    /// What it waits or waited for.
    pub dependencies: Vec<Dependency>,
    /// Its direct subtasks, in order.
    pub subtasks: Vec<Uuid>,
    /// As submitted; an object. Null where `omitted` says so.
    #[schema(value_type = Option<Object>)]
    pub parameters: Box<RawValue>,
    /// What it made.
    #[schema(value_type = serde_json::Value)]
    pub result: Option<Box<RawValue>>,
    /// Why it has no result.
    pub error: Option<String>,
    /// Accepted.
    pub created_at: UtcTime,
    /// Started last.
    pub started_at: Option<UtcTime>,
    /// Ended.
    pub completed_at: Option<UtcTime>,
    /// Changed last.
    pub updated_at: UtcTime,
    /// Bound on one attempt.
    pub timeout_seconds: u64,
    /// Retries used up.
    pub retry_count: u32,
    /// Retries it may use.
    pub max_retries: u32,
    /// What is reserved while it runs.
    pub resource_requirements: BTreeMap<String, f64>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// As submitted; an object.
    #[schema(value_type = Option<Object>)]
    pub metadata: Box<RawValue>,
    /// Ours: its name within its plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Ours: the last attempt that started; 0 before the first.
    #[serde(default)]
    pub attempt: u32,
    /// Ours: the plan it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_plan_id: Option<Uuid>,
    /// Ours: why it has no result, for programs (`TIMED_OUT`, ...).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<String>,
    /// Ours, of the root: how it was split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decomposition_strategy: Option<String>,
    /// Ours: what a failed subtask means, if that is not `fail_fast`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Ours: what its agent must be able to do, if that does not follow from its action.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_capabilities: Vec<String>,
    /// Ours: the type that its agent must be of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
    /// Ours: the only agent that may do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_agent_id: Option<Uuid>,
    /// Ours: it does not start before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<UtcTime>,
    /// Ours: bound on everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<UtcTime>,
    /// Ours: bound on the wait for an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_seconds: Option<u64>,
    /// Ours: bound on the silence of an attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_progress_seconds: Option<u64>,
    /// Ours: with whom it shares a bound on how many run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<String>,
    /// Ours: whose turn it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fairness_key: Option<String>,
    /// Ours, in lists and plans: which of `parameters`, `result` and `metadata` are there and shown
    /// as null, because lists never load what is larger than 1 KiB or put together from others. The
    /// task itself has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted: Vec<String>,
}

/// The answer to submitting, reading and changing a task.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TaskEnvelope {
    /// The task.
    pub task: Task,
    /// The plan it belongs to.
    pub execution_plan_id: Uuid,
    /// What happened, in words.
    pub message: String,
    /// What the caller should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The answer to cancelling a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CancelAnswer {
    /// What happened, in words.
    pub message: String,
    /// The task.
    pub task_id: Uuid,
    /// The caller's words.
    pub reason: Option<String>,
}

/// The answer to `GET /api/v1/tasks/{id}/results`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TaskResults {
    /// The task.
    pub task_id: Uuid,
    /// What it made.
    #[schema(value_type = serde_json::Value)]
    pub results: Box<RawValue>,
}

/// How it went with one of many submissions.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum BatchResult {
    /// It was accepted, now or before under the same key.
    Accepted {
        /// The task.
        task_id: Uuid,
    },
    /// It was not.
    Refused {
        /// Why, in words.
        error: String,
        /// Why, by the name of an error code.
        error_code: String,
        /// What a program needs to know of it.
        details: Map<String, Value>,
    },
}

wire_names! {
    /// What is done to each of many tasks.
    BulkOperation: 3 {
        /// End it and what is below it.
        Cancel "cancel"
        /// Run it again.
        Retry "retry"
        /// Forget it, once it has ended, with its whole plan.
        Delete "delete"
    }
}

/// The answer to `POST /api/v1/tasks/bulk`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BulkAnswer {
    /// What was done.
    pub operation: BulkOperation,
    /// Tasks to which it was done.
    pub successful_operations: u64,
    /// Tasks that refused.
    pub failed_operations: u64,
    /// Tasks that were named.
    pub total_operations: u64,
    /// How each went, in the order of the request.
    pub results: Vec<BulkResult>,
}

/// How it went with one of many tasks.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BulkResult {
    /// The task.
    pub task_id: Uuid,
    /// Whether it was done.
    pub success: bool,
    /// Why not, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why not, by the name of an error code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// What a program needs to know of why not.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub details: Map<String, Value>,
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Which page, counted from 1.
    pub page: u64,
    /// Items on a full page.
    pub page_size: u32,
    /// Items on all pages.
    pub total_items: u64,
    /// How many pages there are.
    pub total_pages: u64,
    /// Whether there is a page after this one.
    pub has_next: bool,
    /// Whether there is a page before this one.
    pub has_previous: bool,
    /// Ours: where the next page begins, at any depth; stays valid while tasks come and go. A page
    /// with one may have fewer items than a full page, even none: the search goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Ours: whether `total_items` is all there are; else there are more than were counted.
    #[serde(default = "exactly")]
    pub total_is_exact: bool,
    /// Ours: what the caller should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

fn exactly() -> bool {
    true
}

impl<T> Page<T> {
    /// Items on a page unless asked otherwise.
    pub const SIZE_DEFAULT: u32 = 20;
    /// Most items on a page.
    pub const SIZE_MAX: u32 = 100;

    /// Page `page` (from 1) of a listing with `total_items`, `page_size` (at least 1) a page.
    #[must_use]
    pub fn new(items: Vec<T>, page: u64, page_size: u32, total_items: u64) -> Page<T> {
        let total_pages = total_items.div_ceil(u64::from(page_size.max(1)));
        let (has_next, has_previous) = (page < total_pages, page > 1 && total_pages > 0);
        Page {
            items,
            page,
            page_size,
            total_items,
            total_pages,
            has_next,
            has_previous,
            next_cursor: None,
            total_is_exact: true,
            warnings: Vec::new(),
        }
    }
}

/// The answer to `GET /api/v1/tasks`.
pub type TaskPage = Page<Task>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submission::{self, tests::BOUNDS};

    #[test]
    fn pages_know_their_neighbours() {
        let page = |number| Page::new(vec![(); 2], number, 2, 5);
        assert_eq!((page(1).has_previous, page(1).has_next, page(1).total_pages), (false, true, 3));
        assert_eq!((page(3).has_previous, page(3).has_next), (true, false));
        let empty = Page::<()>::new(vec![], 1, 20, 0);
        assert_eq!((empty.total_pages, empty.has_next, empty.has_previous), (0, false, false));
    }

    #[test]
    fn a_task_passes_its_payloads_on_as_they_came() {
        let payload = r#"{"a":1.00,  "b":"\u0000"}"#;
        let json = format!(
            r#"{{"id":"00000000-0000-0000-0000-000000000001","name":"n","description":null,
            "status":"ready","priority":"medium","agent_id":null,"parent_task_id":null,
            "dependencies":[],"subtasks":[],"parameters":{payload},"result":null,"error":null,
            "created_at":"2026-01-01T00:00:00Z","started_at":null,"completed_at":null,
            "updated_at":"2026-01-01T00:00:00Z","timeout_seconds":300,"retry_count":0,
            "max_retries":3,"resource_requirements":{{"cpu_cores":0.5}},"tags":[],
            "metadata":{{}}}}"#
        );
        let task: Task = serde_json::from_str(&json).unwrap();
        assert!(task.result.is_none());
        let written = serde_json::to_string(&task).unwrap();
        assert!(written.contains(payload), "{written}");
    }

    #[test]
    fn a_submission_is_written_without_what_was_not_given() {
        let submission = TaskSubmission { name: "n".into(), ..TaskSubmission::default() };
        assert_eq!(serde_json::to_string(&submission).unwrap(), r#"{"name":"n"}"#);
    }

    #[test]
    fn what_a_submission_is_given_by_name_is_what_a_server_reads() {
        let named = |name: &str| TaskSubmission { name: name.into(), ..TaskSubmission::default() };
        let at: UtcTime = "2026-01-02T03:04:05Z".parse().unwrap();
        let submission = named("n")
            .with_required_capabilities(&["c", "d"])
            .with_agent_type("t")
            .with_agent_id(Uuid::nil())
            .with_queue_timeout_seconds(1)
            .with_no_progress_seconds(2)
            .with_deadline(at)
            .with_delay_seconds(3)
            .with_concurrency_key("k")
            .with_fairness_key("f")
            .with_on_failure(OnFailure::Ignore)
            .with_subtasks(&[named("a").as_subtask("a", &[]), named("b").as_subtask("b", &["a"])]);
        let body = serde_json::to_vec(&submission).unwrap();
        let parsed = submission::parse(&body, &BOUNDS).unwrap();
        let fields = parsed.fields;
        assert_eq!(parsed.warnings, [""; 0]);
        assert_eq!(fields.required_capabilities.unwrap(), ["c", "d"]);
        assert_eq!((fields.agent_type.as_deref(), fields.agent_id), (Some("t"), Some(Uuid::nil())));
        assert_eq!((fields.queue_timeout_seconds, fields.no_progress_seconds), (Some(1), Some(2)));
        assert_eq!((fields.deadline, fields.delay_seconds), (Some(at), Some(3)));
        assert_eq!((&*fields.concurrency_key.unwrap(), &*fields.fairness_key.unwrap()), ("k", "f"));
        assert_eq!(fields.on_failure, Some(OnFailure::Ignore));
        let subtasks: Value = serde_json::from_str(fields.subtasks.unwrap().get()).unwrap();
        assert_eq!(
            (&subtasks[0]["key"], &subtasks[1]["depends_on"][0]),
            (&"a".into(), &"a".into())
        );
        let body = serde_json::to_vec(&named("n").with_run_at(at)).unwrap();
        assert_eq!(submission::parse(&body, &BOUNDS).unwrap().fields.run_at, Some(at));
    }
}
