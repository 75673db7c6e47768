//! Every operation of the API. A path or a method that is not here fails a test.

use maos_api::agent::{Agent, AgentEnvelope, AgentStatus, TerminateAnswer};
use maos_api::artifacts::{ArtifactEnvelope, ArtifactList};
use maos_api::checkpoint::{CheckpointEnvelope, CheckpointGone, CheckpointList, RestoreAnswer};
use maos_api::claude::{ClaudeAccepted, ClaudeOrchestratorStatus, ClaudeTaskStatus};
use maos_api::error::ErrorCode;
use maos_api::events::{Event, EventKind};
use maos_api::explain::Explanation;
use maos_api::history::TaskHistory;
use maos_api::keys::Keys;
use maos_api::logs::{LogEnd, LogGap, LogItem, LogLevel, LogPage, OFFSET_MAX};
use maos_api::messages::{AckAnswer, MailboxPage, MessagePage, Receipt};
use maos_api::paths;
use maos_api::plan::ExecutionPlan;
use maos_api::pool::{PoolEnvelope, PoolList};
use maos_api::resource::{
    AllocationEnvelope, AllocationGone, AllocationList, ResourceEnvelope, ResourceGone,
    ResourceList,
};
use maos_api::schedule::{ScheduleEnvelope, ScheduleGone, ScheduleList};
use maos_api::subscriptions::{Subscription, SubscriptionAnswer, SubscriptionList};
use maos_api::system::{DetailedHealth, Health, SystemMetrics, SystemStatus};
use maos_api::task::{
    BatchResult, BulkAnswer, CancelAnswer, Priority, Task, TaskEnvelope, TaskResults, TaskStatus,
};
use maos_api::worker::{OutcomeAnswer, PollAnswer};
use serde_json::{Value, json};

use super::bodies;
use super::operation::{Operation, delete, get, patch, post, put};

/// What a plan may be refused for.
const PLANNING: [ErrorCode; 11] = [
    ErrorCode::AgentNotFound,
    ErrorCode::UnknownStrategy,
    ErrorCode::TimeoutTooLong,
    ErrorCode::UnknownAction,
    ErrorCode::OverCapacity,
    ErrorCode::UnknownKey,
    ErrorCode::DuplicateKey,
    ErrorCode::PlanCycle,
    ErrorCode::BadReference,
    ErrorCode::PlanTooLarge,
    ErrorCode::PlanTooDeep,
];
const NO_TASK: [ErrorCode; 1] = [ErrorCode::TaskNotFound];

pub(super) fn all() -> Vec<Operation> {
    let groups = [
        ("tasks", tasks()),
        ("tasks", task()),
        ("tasks", artifacts()),
        ("plans", plans()),
        ("agents", agents()),
        ("resources", resources()),
        ("schedules", schedules()),
        ("messages", messages()),
        ("messages", subscriptions()),
        ("keys", keys()),
        ("pools", pools()),
        ("checkpoints", checkpoints()),
        ("claude", claude()),
        ("system", system()),
    ];
    let tagged = |(tag, operations): (&'static str, Vec<Operation>)| {
        operations.into_iter().map(move |operation| operation.tagged(tag))
    };
    groups.into_iter().flat_map(tagged).collect()
}

/// One or several of these names, with commas between them.
fn listed(names: &[&str]) -> Value {
    let one = names.join("|");
    json!({"type": "string", "pattern": format!("^(({one})(,({one}))*)?$")})
}

fn statuses() -> Value {
    listed(&TaskStatus::ALL.map(TaskStatus::name))
}

/// One or several words, with commas between them.
fn names() -> Value {
    json!({"type": "string"})
}

/// As the contract's clients send what they leave open.
fn blank_or(schema: Value) -> Value {
    json!({"anyOf": [schema, {"type": "string", "maxLength": 0}]})
}

fn waits(operation: Operation) -> Operation {
    let seconds = json!({"type": "integer", "minimum": 0, "maximum": 60, "default": 0});
    operation.query("wait_seconds", seconds, "Answer at the task's end, or after so many seconds.")
}

fn idempotent(operation: Operation) -> Operation {
    let key = json!({"type": "string", "minLength": 1, "maxLength": 200,
        "pattern": "^[!-~]+$"});
    let what = "The same key and body is answered as the first time; another body is refused.";
    operation
        .header("Idempotency-Key", key, what)
        .refuses(&[ErrorCode::IdempotencyConflict, ErrorCode::QueueFull])
}

const REASON: &str = "The reason is in the query or in the body, not in both.";

fn reasoned(operation: Operation) -> Operation {
    let reason = json!({"type": "string", "maxLength": 500, "pattern": r"^[^\u0000]*$"});
    operation.query("reason", reason, "Why, in words.")
}

fn paged(operation: Operation) -> Operation {
    operation
        .query("page", blank_or(bodies::integer(1, 1_000_000_000)), "Which page, counted from 1.")
        .query("page_size", bodies::integer(1, 100), "Items on a page; 20 by default.")
}

fn tasks() -> Vec<Operation> {
    let example = json!({"name": "hello", "parameters": {"action": "noop", "greeting": "hi"}});
    let submit = post(paths::TASKS, "submit_task", "Submit a task")
        .says(
            "It is durable when this is answered. With a `decomposition_strategy` it becomes a \
             graph of subtasks. Unknown fields are ignored and named in `warnings`.",
        )
        .body(bodies::submission(), example.clone())
        .answers::<TaskEnvelope>()
        .refuses(&PLANNING);
    let list = paged(get(paths::TASKS, "list_tasks", "List tasks, the newest first"))
        .query("status", statuses(), "Only these statuses.")
        .query("priority", listed(&Priority::ALL.map(Priority::name)), "Only these priorities.")
        .query("agent_id", blank_or(bodies::uuid()), "Only what this agent runs, or ran last.")
        .query("parent_task_id", blank_or(bodies::uuid()), "Only subtasks of this task.")
        .query("tags", names(), "Only what has all of these tags.")
        .query("created_after", blank_or(bodies::time()), "Only what came at this time or later.")
        .query("created_before", blank_or(bodies::time()), "Only what came before this time.")
        .query(
            "search",
            json!({"type": "string", "maxLength": 200}),
            "Words of name, description and tags.",
        )
        .query("cursor", json!({"type": "string"}), "`next_cursor` of the page before.")
        .answers_page::<Task>();
    let some = "01890000-0000-7000-8000-000000000000";
    let many = json!({"operation": "cancel", "task_ids": [some]});
    vec![
        waits(idempotent(submit)),
        list,
        idempotent(post(paths::TASKS_BATCH, "submit_tasks", "Submit many tasks in one commit"))
            .says(
                "Each is taken or refused by itself. An `Idempotency-Key` covers the whole list: \
                 sent again, what was accepted is named again, and what was refused is refused \
                 again, unless it was to be tried later; another list under the same key is \
                 refused whole.",
            )
            .body(bodies::batch(), json!([example]))
            .answers_list::<BatchResult>(),
        post(paths::TASKS_BULK, "change_tasks", "Cancel, retry or delete many tasks")
            .body(bodies::bulk(), many)
            .answers::<BulkAnswer>()
            .refuses(&[ErrorCode::QueueFull]),
    ]
}

fn task() -> Vec<Operation> {
    let amended = json!({"priority": "high", "tags": ["urgent"]});
    vec![
        waits(get(paths::TASK, "get_task", "Show a task"))
            .answers::<TaskEnvelope>()
            .refuses(&NO_TASK),
        patch(paths::TASK, "change_task", "Change a task")
            .says(
                "Priority, tags and metadata; parameters and limits until its first attempt \
                 starts; `deadline`, `queue_timeout_seconds` and `no_progress_seconds` until it \
                 ends, at once, and null takes them away. Those of a task with subtasks are its \
                 subtasks', but for the deadline.",
            )
            .body(bodies::amendment(), amended)
            .answers::<TaskEnvelope>()
            .refuses(&NO_TASK)
            .refuses(&[
                ErrorCode::TaskFixed,
                ErrorCode::OverCapacity,
                ErrorCode::TimeoutTooLong,
                ErrorCode::QueueFull,
            ]),
        reasoned(delete(paths::TASK, "cancel_task", "Cancel a task and what is below it"))
            .answers::<CancelAnswer>()
            .refuses(&NO_TASK)
            .refuses(&[ErrorCode::AlreadyEnded]),
        reasoned(put(paths::TASK_CANCEL, "cancel_task_too", "The same"))
            .says(REASON)
            .body(bodies::cancellation(), json!({"reason": "no longer needed"}))
            .or_none()
            .answers::<CancelAnswer>()
            .refuses(&NO_TASK)
            .refuses(&[ErrorCode::AlreadyEnded]),
        put(paths::TASK_RETRY, "retry_task", "Run a failed or cancelled task again")
            .answers::<TaskEnvelope>()
            .refuses(&NO_TASK)
            .refuses(&[ErrorCode::NotRetryable, ErrorCode::ParentEnded, ErrorCode::QueueFull]),
        get(paths::TASK_RESULTS, "get_task_results", "Show what a task made")
            .answers::<TaskResults>()
            .refuses(&NO_TASK)
            .refuses(&[ErrorCode::ResultsNotReady]),
        get(paths::TASK_EXPLAIN, "explain_task", "Say why a task waits")
            .answers::<Explanation>()
            .refuses(&NO_TASK),
        task_logs(),
        post(paths::ATTEMPT_OUTCOME, "bring_outcome", "Say what came of an attempt")
            .says(
                "For targets of HTTP agents that answered 202, with `Authorization: Bearer` and \
                 the token that came with the attempt: `docs/http-agents.md`.",
            )
            .body(bodies::outcome(), json!({"status": "completed", "result": {"answer": 42}}))
            .answers::<OutcomeAnswer>()
            .refuses(&NO_TASK)
            .refuses(&[ErrorCode::BadToken, ErrorCode::StaleAttempt, ErrorCode::ResultRefused]),
        get(paths::TASK_EVENTS, "get_task_events", "Tell what happened to a task")
            .answers::<TaskHistory>()
            .refuses(&NO_TASK),
    ]
}

fn task_logs() -> Operation {
    let offset = bodies::integer(0, OFFSET_MAX);
    let level = bodies::words(LogLevel::ALL.map(LogLevel::name));
    get(paths::TASK_LOGS, "get_task_logs", "Show what a task's attempts say")
        .says(
            "With `follow` it is server-sent events, whose ids are offsets: `log` for each line, \
             and `end` once the task has ended and all was sent; `x-events` is what their data \
             are. `docs/logs.md` has more.",
        )
        .query("offset", offset.clone(), "The first line.")
        .query("limit", bodies::integer(1, 1_000), "Lines on a page; 200 by default.")
        .query("level", level, "Only what is at least so serious.")
        .query("follow", json!({"type": "boolean"}), "Lines as they come, until the task ends.")
        .query("wait_seconds", bodies::integer(0, 60), "Wait so long for the first line.")
        .header("Last-Event-ID", offset, "When following: the last line that was seen.")
        .answers::<LogPage>()
        .streams(|schemas| {
            json!({"log": schemas.refer::<LogItem>(), "gap": schemas.refer::<LogGap>(),
                "end": schemas.refer::<LogEnd>()})
        })
        .refuses(&NO_TASK)
}

fn artifacts() -> Vec<Operation> {
    const NAME: &str = "The file's name: without `/`, not `.` or `..`.";
    let attempt = bodies::integer(1, u32::MAX.into());
    vec![
        get(paths::TASK_ARTIFACTS, "list_artifacts", "List the files of a task")
            .answers::<ArtifactList>()
            .refuses(&NO_TASK),
        put(paths::TASK_ARTIFACT, "put_artifact", "Keep a file with a task")
            .says(
                "In the place of one of the same name, and as long as the task. \
                 `docs/artifacts.md` has more.",
            )
            .file_name(bodies::file_name(), NAME)
            .query("attempt", attempt, "The attempt that made it: refused unless that one runs.")
            .takes_file()
            .answers::<ArtifactEnvelope>()
            .refuses(&NO_TASK)
            .refuses(&[ErrorCode::AlreadyEnded, ErrorCode::StaleAttempt, ErrorCode::QueueFull]),
        get(paths::TASK_ARTIFACT, "get_artifact", "Fetch a file of a task")
            .file_name(bodies::file_name(), NAME)
            .sends("*/*", "The file, with its media type, its size, and its checksum as `ETag`.")
            .refuses(&NO_TASK)
            .refuses(&[ErrorCode::ArtifactNotFound]),
    ]
}

fn messages() -> Vec<Operation> {
    let example = json!({"to": {"topic": "news"}, "kind": "note", "body": {"text": "hello"}});
    let ack = json!({"mailbox": "topic:news", "reader": "me", "offset": 0});
    vec![
        idempotent(post(paths::MESSAGES, "send_message", "Send a message"))
            .says("It is on disk when this is answered. `docs/messages.md` has more.")
            .body(bodies::message(), example)
            .answers::<Receipt>()
            .refuses(&[
                ErrorCode::AgentNotFound,
                ErrorCode::AgentEnded,
                ErrorCode::TaskNotFound,
                ErrorCode::AlreadyEnded,
                ErrorCode::MailboxFull,
            ]),
        required(get(paths::MESSAGES, "read_messages", "Read a mailbox"), "mailbox")
            .query("reader", bodies::reader(), "For whom; `default` by default.")
            .query(
                "offset",
                bodies::integer(0, u64::MAX >> 2),
                "The first message; without it, \
                 behind what the reader has acknowledged.",
            )
            .query("limit", bodies::integer(1, 1_000), "Messages on a page; 100 by default.")
            .query("wait_seconds", bodies::integer(0, 60), "Wait so long for the first one.")
            .answers::<MessagePage>(),
        post(paths::MESSAGES_ACK, "acknowledge_messages", "Say which messages were handled")
            .body(bodies::ack(), ack)
            .answers::<AckAnswer>(),
        get(paths::MAILBOXES, "list_mailboxes", "List mailboxes, by name")
            .query("prefix", json!({"type": "string"}), "Only names that begin so.")
            .query("after", json!({"type": "string"}), "`next_after` of the page before.")
            .query("limit", bodies::integer(1, 1_000), "Mailboxes on a page; 100 by default.")
            .answers::<MailboxPage>(),
    ]
}

/// A query parameter with the name of a mailbox, which must be there.
fn required(operation: Operation, name: &'static str) -> Operation {
    operation.query(name, bodies::mailbox(), "Which one.").required()
}

fn subscriptions() -> Vec<Operation> {
    const NAME: &str = "The subscription's name.";
    let example = json!({"mailbox": "topic:news", "url": "https://example.com/hook"});
    let missing = [ErrorCode::SubscriptionNotFound];
    vec![
        get(paths::SUBSCRIPTIONS, "list_subscriptions", "List mailboxes that are posted to URLs")
            .answers::<SubscriptionList>(),
        put(paths::SUBSCRIPTION, "set_subscription", "Have a mailbox posted to a URL")
            .says("Signed as Standard Webhooks say. `docs/messages.md` has more.")
            .named(NAME)
            .body(bodies::subscription(), example)
            .answers::<Subscription>()
            .refuses(&[ErrorCode::QueueFull]),
        get(paths::SUBSCRIPTION, "get_subscription", "Show a subscription")
            .named(NAME)
            .answers::<Subscription>()
            .refuses(&missing),
        delete(paths::SUBSCRIPTION, "end_subscription", "End a subscription")
            .named(NAME)
            .answers::<SubscriptionAnswer>()
            .refuses(&missing),
        post(paths::SUBSCRIPTION_REPLAY, "replay_subscription", "Deliver again what was given up")
            .named(NAME)
            .answers::<SubscriptionAnswer>()
            .refuses(&missing),
    ]
}

fn plans() -> Vec<Operation> {
    let example = json!({"name": "in steps", "decomposition_strategy": "sequential",
        "parameters": {"action": "noop", "steps": ["first", "second"]}});
    vec![
        get(paths::PLAN, "get_plan", "Show the graph that a submission became")
            .answers::<ExecutionPlan>()
            .refuses(&[ErrorCode::PlanNotFound]),
        post(paths::PLANS_PREVIEW, "preview_plan", "Show the graph that a submission would become")
            .body(bodies::submission(), example)
            .answers::<ExecutionPlan>()
            .refuses(&PLANNING),
    ]
}

fn agents() -> Vec<Operation> {
    let example = json!({"agent_type": "calculator", "capabilities": ["computation"]});
    let list = paged(get(paths::AGENTS, "list_agents", "List agents"))
        .query("status", listed(&AgentStatus::ALL.map(AgentStatus::name)), "Only these statuses.")
        .query("agent_type", json!({"type": "string"}), "Only this type.")
        .query("capabilities", names(), "Only what has all of these.")
        .query("tags", names(), "Only what has all of these tags.")
        .query("available_only", blank_or(json!({"type": "boolean"})), "Only what has a slot left.")
        .query("search", json!({"type": "string", "maxLength": 200}), "Part of a name or type.")
        .answers_page::<Agent>();
    let missing = [ErrorCode::AgentNotFound];
    vec![
        post(paths::AGENTS, "create_agent", "Create an agent, or register a worker")
            .body(bodies::agent(), example)
            .answers::<AgentEnvelope>()
            .refuses(&[ErrorCode::QueueFull, ErrorCode::NotAWorker]),
        list,
        get(paths::AGENT, "get_agent", "Show an agent")
            .answers::<AgentEnvelope>()
            .refuses(&missing),
        patch(paths::AGENT, "change_agent", "Change an agent")
            .body(bodies::agent_patch(), json!({"max_concurrent_tasks": 4}))
            .answers::<AgentEnvelope>()
            .refuses(&missing)
            .refuses(&[
                ErrorCode::AgentEnded,
                ErrorCode::DeclaredByConfiguration,
                ErrorCode::QueueFull,
            ]),
        delete(paths::AGENT, "terminate_agent", "End an agent's service")
            .answers::<TerminateAnswer>()
            .refuses(&missing)
            .refuses(&[ErrorCode::AgentEnded]),
        post(paths::AGENT_POLL, "poll", "Fetch work and report what came of it")
            .says("The worker protocol: `docs/worker-protocol.md`.")
            .body(bodies::poll(), json!({"incarnation": 1, "max_tasks": 10, "wait_ms": 0}))
            .answers::<PollAnswer>()
            .refuses(&missing)
            .refuses(&[
                ErrorCode::NotAWorker,
                ErrorCode::AgentEnded,
                ErrorCode::AgentLost,
                ErrorCode::StaleIncarnation,
                ErrorCode::QueueFull,
            ]),
    ]
}

fn resources() -> Vec<Operation> {
    let example = json!({"resource_type": "custom", "name": "licences", "capacity": 3});
    let held = json!({"requester_id": "nightly", "resources": {"cpu_cores": 2},
        "lease_seconds": 600});
    let missing = [ErrorCode::ResourceNotFound];
    vec![
        post(paths::RESOURCES, "create_resource", "Declare a resource")
            .body(bodies::resource(), example)
            .answers::<ResourceEnvelope>()
            .refuses(&[ErrorCode::QueueFull]),
        get(paths::RESOURCES, "list_resources", "List resources and what they come to")
            .answers::<ResourceList>(),
        get(paths::RESOURCE, "get_resource", "Show a resource")
            .answers::<ResourceEnvelope>()
            .refuses(&missing),
        patch(paths::RESOURCE, "change_resource", "Change a resource")
            .body(bodies::resource_patch(), json!({"capacity": 5}))
            .answers::<ResourceEnvelope>()
            .refuses(&missing)
            .refuses(&[ErrorCode::DeclaredByConfiguration, ErrorCode::QueueFull]),
        delete(paths::RESOURCE, "delete_resource", "Take a resource away")
            .answers::<ResourceGone>()
            .refuses(&missing)
            .refuses(&[ErrorCode::DeclaredByConfiguration]),
        post(paths::RESOURCES_ALLOCATE, "allocate_resources", "Hold resources outside of tasks")
            .says("What the requester holds so far is free for that. A lease ends by itself.")
            .body(bodies::allocation(), held)
            .answers::<AllocationEnvelope>()
            .refuses(&[ErrorCode::NotEnoughLeft, ErrorCode::OverCapacity, ErrorCode::QueueFull]),
        get(paths::ALLOCATIONS, "list_allocations", "List what is held outside of tasks")
            .answers::<AllocationList>(),
        delete(paths::ALLOCATION, "release_resources", "Give back what a requester holds")
            .named("The `requester_id`.")
            .answers::<AllocationGone>()
            .refuses(&[ErrorCode::AllocationNotFound]),
    ]
}

fn schedules() -> Vec<Operation> {
    let example = json!({"name": "every morning", "cron": "30 6 * * 1-5",
        "timezone": "Europe/Berlin",
        "task": {"name": "report", "parameters": {"action": "noop"}}});
    let missing = [ErrorCode::ScheduleNotFound];
    vec![
        post(paths::SCHEDULES, "create_schedule", "Submit a task again and again")
            .body(bodies::schedule(), example)
            .answers::<ScheduleEnvelope>()
            .refuses(&PLANNING)
            .refuses(&[ErrorCode::QueueFull]),
        get(paths::SCHEDULES, "list_schedules", "List schedules").answers::<ScheduleList>(),
        get(paths::SCHEDULE, "get_schedule", "Show a schedule")
            .answers::<ScheduleEnvelope>()
            .refuses(&missing),
        patch(paths::SCHEDULE, "pause_schedule", "Pause a schedule, or have it go on")
            .body(bodies::pause(), json!({"paused": true}))
            .answers::<ScheduleEnvelope>()
            .refuses(&missing)
            .refuses(&[ErrorCode::QueueFull]),
        delete(paths::SCHEDULE, "delete_schedule", "Delete a schedule")
            .answers::<ScheduleGone>()
            .refuses(&missing),
    ]
}

fn pools() -> Vec<Operation> {
    let missing = [ErrorCode::PoolNotFound];
    vec![
        get(paths::POOLS, "list_pools", "List pools of agents").answers::<PoolList>(),
        get(paths::POOL, "get_pool", "Show a pool")
            .named("Its name.")
            .answers::<PoolEnvelope>()
            .refuses(&missing),
        put(paths::POOL, "change_pool", "Say how large a pool may be and when it grows")
            .named("Its name.")
            .body(bodies::pool(), json!({"min": 0, "max": 4, "idle_seconds": 120}))
            .answers::<PoolEnvelope>()
            .refuses(&missing)
            .refuses(&[ErrorCode::QueueFull]),
        get(paths::POOL_DEMAND, "get_pool_demand", "Tell how many agents a pool should have")
            .says("A plain number, for an autoscaler; it may be above the pool's maximum.")
            .named("Its name.")
            .answers::<u64>()
            .refuses(&missing),
    ]
}

fn checkpoints() -> Vec<Operation> {
    let example = json!({"name": "before the upgrade", "metadata": {"by": "me"}});
    let missing = [ErrorCode::CheckpointNotFound];
    let damaged = [ErrorCode::CheckpointDamaged];
    vec![
        post(paths::CHECKPOINTS, "create_checkpoint", "Copy the state as it is now")
            .body(bodies::checkpoint(), example)
            .or_none()
            .answers::<CheckpointEnvelope>()
            .refuses(&[ErrorCode::QueueFull])
            .refuses(&damaged),
        get(paths::CHECKPOINTS, "list_checkpoints", "List the copies")
            .answers::<CheckpointList>()
            .refuses(&damaged),
        get(paths::CHECKPOINT, "get_checkpoint", "Show a copy")
            .answers::<CheckpointEnvelope>()
            .refuses(&missing)
            .refuses(&damaged),
        delete(paths::CHECKPOINT, "delete_checkpoint", "Delete a copy")
            .answers::<CheckpointGone>()
            .refuses(&missing),
        put(paths::CHECKPOINT_RESTORE, "restore_checkpoint", "Go back to a copy")
            .says(
                "The present state is copied first. Attempts that run are lost, and workers must \
                 register again. Other requests are refused with 503 while it lasts.",
            )
            .answers::<RestoreAnswer>()
            .refuses(&missing)
            .refuses(&damaged)
            .refuses(&[ErrorCode::NotRestorable]),
    ]
}

fn keys() -> Vec<Operation> {
    let full = [ErrorCode::ValidationFailed, ErrorCode::QueueFull];
    vec![
        get(paths::KEYS, "list_keys", "List the keys that tasks share").answers::<Keys>(),
        put(paths::CONCURRENCY_KEY, "set_limit", "Say how many tasks with a key run at once")
            .named("The `concurrency_key`.")
            .body(bodies::limit(), json!({"running_max": 2}))
            .answers::<Keys>()
            .refuses(&full),
        delete(paths::CONCURRENCY_KEY, "unset_limit", "Forget that")
            .named("The `concurrency_key`.")
            .answers::<Keys>()
            .refuses(&full),
        put(paths::FAIRNESS_KEY, "set_weight", "Say how often the turn of a key comes")
            .named("The `fairness_key`.")
            .body(bodies::weight(), json!({"weight": 3}))
            .answers::<Keys>()
            .refuses(&full),
        delete(paths::FAIRNESS_KEY, "unset_weight", "Forget that")
            .named("The `fairness_key`.")
            .answers::<Keys>()
            .refuses(&full),
    ]
}

fn claude() -> Vec<Operation> {
    let example = json!({"name": "sum up", "type": "computation",
        "parameters": {"action": "compute.sum", "values": [1, 2, 3]}});
    vec![
        idempotent(post(
            paths::CLAUDE_TASKS,
            "submit_claude_task",
            "Submit a task for Claude Code",
        ))
        .body(bodies::claude(), example)
        .answers::<ClaudeAccepted>()
        .refuses(&PLANNING),
        waits(get(paths::CLAUDE_TASK, "get_claude_task", "Show such a task"))
            .answers::<ClaudeTaskStatus>()
            .refuses(&NO_TASK),
        reasoned(delete(paths::CLAUDE_TASK, "cancel_claude_task", "Cancel such a task"))
            .answers::<CancelAnswer>()
            .refuses(&NO_TASK)
            .refuses(&[ErrorCode::AlreadyEnded]),
        reasoned(put(paths::CLAUDE_TASK_CANCEL, "cancel_claude_task_too", "The same"))
            .says(REASON)
            .body(bodies::cancellation(), json!({"reason": "no longer needed"}))
            .or_none()
            .answers::<CancelAnswer>()
            .refuses(&NO_TASK)
            .refuses(&[ErrorCode::AlreadyEnded]),
        get(paths::CLAUDE_TASK_RESULTS, "get_claude_task_results", "Show what such a task made")
            .answers::<TaskResults>()
            .refuses(&NO_TASK)
            .refuses(&[ErrorCode::ResultsNotReady]),
        get(paths::CLAUDE_STATUS, "get_claude_status", "Tell how the system is")
            .answers::<ClaudeOrchestratorStatus>(),
    ]
}

fn system() -> Vec<Operation> {
    vec![
        get(paths::HEALTH, "health", "Tell whether the server is alive").answers::<Health>(),
        get(paths::HEALTH_DETAILED, "detailed_health", "The same for each component")
            .answers::<DetailedHealth>()
            .or_with(503),
        get(paths::SYSTEM_STATUS, "get_status", "Tell how the system is").answers::<SystemStatus>(),
        get(paths::SYSTEM_METRICS, "get_metrics", "Tell the system's figures")
            .answers::<SystemMetrics>(),
        events(),
        get(paths::OPENAPI, "openapi", "Show this description").answers_object(),
        get(paths::DOCS, "docs", "This description, to try out").sends("text/html", "A page."),
        get(paths::REDOC, "redoc", "This description, to read").sends("text/html", "A page."),
    ]
}

fn events() -> Operation {
    let states = TaskStatus::ALL.map(TaskStatus::name).join("|");
    let states = json!({"type": "string", "pattern": format!("^({states})(,({states}))*$")});
    // As many digits as are surely a number.
    let id = json!({"type": "string", "pattern": "^[0-9]{1,19}-[0-9]{1,19}-[0-9]{1,9}$"});
    get(paths::EVENTS, "watch_events", "Watch what happens, as it happens")
        .says(
            "Server-sent events; behind the one that `Last-Event-ID` names, if it is given. \
             `x-events` is what their data are. `docs/events.md` has more.",
        )
        .query("type", bodies::words(EventKind::ALL.map(EventKind::name)), "Only these.")
        .query("task_id", bodies::uuid(), "Only this task, and tasks of its plan.")
        .query("agent_id", bodies::uuid(), "Only this agent and what it runs.")
        .query("status", states, "Only tasks that came to one of these.")
        .query("last_event_id", id.clone(), "As the header.")
        .header("Last-Event-ID", id, "The last event that was seen.")
        .sends("text/event-stream", "Events, until the connection ends.")
        .streams(|schemas| {
            let event = schemas.refer::<Event>();
            json!({"task": event, "agent": event, "pool": event, "gap": event})
        })
}
