//! Every public error: one row decides its name, its HTTP status and whether to try again.
//!
//! `docs/errors.md` is generated from the rows; a test compares it.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;
use utoipa::ToSchema;

use crate::time::UtcTime;

/// The body of every answer that is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong and what to do.
    pub error: String,
    /// The name of an [`ErrorCode`].
    pub error_code: Cow<'static, str>,
    /// What a program needs to know; an object.
    #[schema(value_type = Object)]
    pub details: Map<String, Value>,
    /// When.
    pub timestamp: UtcTime,
    /// The request, as in the header `x-request-id` and in the log.
    pub request_id: String,
}

/// A refusal or fault on its way to becoming an [`ErrorBody`].
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{message}")]
pub struct ApiError {
    /// Which.
    pub code: ErrorCode,
    /// What is wrong and what to do.
    pub message: String,
    /// What a program needs to know.
    pub details: Map<String, Value>,
}

impl ApiError {
    /// An error without details.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError { code, message: message.into(), details: Map::new() }
    }

    /// That one field is not valid; `what` says what was wanted and what was found.
    #[must_use]
    pub fn invalid(field: &str, what: impl Into<String>) -> ApiError {
        let what = what.into();
        let message = format!("`{field}` {what}");
        ApiError::new(ErrorCode::ValidationFailed, message).with_field(field, what)
    }

    /// The same, which names the field that is at fault.
    #[must_use]
    pub fn with_field(self, field: &str, what: impl Into<Value>) -> ApiError {
        let fields = Map::from_iter([(field.to_owned(), what.into())]);
        self.with("fields", fields)
    }

    /// The same with one more detail.
    #[must_use]
    pub fn with(mut self, name: &str, detail: impl Into<Value>) -> ApiError {
        self.details.insert(name.to_owned(), detail.into());
        self
    }

    /// This fault and another one of the same request, where both name fields.
    #[must_use]
    pub fn and(mut self, other: ApiError) -> ApiError {
        let fields = |error: &ApiError| error.details.get("fields")?.as_object().cloned();
        let (Some(mut all), Some(others)) = (fields(&self), fields(&other)) else { return self };
        for (field, what) in others {
            all.entry(field).or_insert(what);
        }
        let names: Vec<String> = all.keys().take(10).map(|name| format!("`{name}`")).collect();
        if all.len() > 1 {
            let (count, names) = (all.len(), names.join(", "));
            self.message = format!(
                "{count} fields are not valid: {names}\nhint: details.fields has each fault"
            );
        }
        self.with("fields", all)
    }

    /// What is wrong and what to do: the message, which has a hint of its own or that of its code.
    #[must_use]
    pub fn told(&self) -> String {
        // A fault of a field says what is wanted there, and is told field by field by clients.
        let says_itself = self.code == ErrorCode::ValidationFailed;
        if says_itself || self.message.contains("\nhint: ") {
            return self.message.clone();
        }
        format!("{}\nhint: {}", self.message, self.code.remedy())
    }

    /// The body that goes out.
    #[must_use]
    pub fn into_body(self, timestamp: UtcTime, request_id: String) -> ErrorBody {
        let error = self.told();
        let error_code = Cow::Borrowed(self.code.name());
        ErrorBody { error, error_code, details: self.details, timestamp, request_id }
    }
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not before something else changes.
    Never,
    /// Yes: after the time in the header `Retry-After`.
    Later,
}

macro_rules! codes {
    ($(
        $variant:ident $name:literal $status:literal $retry:ident $meaning:literal $remedy:literal
    )+) => {
        /// A public error code. Its name never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = $meaning] $variant,)+
        }

        impl ErrorCode {
            /// All of them, by status.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant),+];

            /// The permanent name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => $name),+ }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(ErrorCode::$variant => $status),+ }
            }

            /// Whether trying again can help.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self { $(ErrorCode::$variant => Retry::$retry),+ }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(ErrorCode::$variant => $meaning),+ }
            }

            /// What to do, where nothing more is known than the code.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(ErrorCode::$variant => $remedy),+ }
            }
        }
    };
}

codes! {
    MalformedJson "MALFORMED_JSON" 400 Never
        "The body is not JSON; `details` has the line and column."
        "send one JSON document in UTF-8"
    MalformedId "MALFORMED_ID" 400 Never
        "An id in the path or the query is not a UUID."
        "an id is a UUID, such as `0190b6f2-6c2e-7cc1-9d1c-0f6a5e2b7a10`, as the answer that \
         made it shows; the lists, such as `GET /api/v1/tasks` and `GET /api/v1/agents`, show \
         those there are"
    MalformedQuery "MALFORMED_QUERY" 400 Never
        "A query parameter cannot be read; `details.parameter` names it."
        "correct the parameter, or leave it out; `/docs` shows what each one takes"
    UnknownStrategy "UNKNOWN_STRATEGY" 400 Never
        "`decomposition_strategy` is none of the known ones, which `details.known` lists."
        "use one of `details.known`, or leave it out"
    TimeoutTooLong "TIMEOUT_TOO_LONG" 400 Never
        "`timeout_seconds` is above the configured maximum."
        "ask for at most `details.maximum`, or raise `[api] max_task_timeout`"
    BadToken "BAD_TOKEN" 401 Never
        "The token is missing, or is not the one that came with the attempt."
        "send the token that came with the attempt as `Authorization: Bearer`"
    PathNotFound "PATH_NOT_FOUND" 404 Never
        "Nothing answers under this path."
        "`/docs` shows every path"
    TaskNotFound "TASK_NOT_FOUND" 404 Never
        "No task has this id."
        "`GET /api/v1/tasks` lists the tasks there are (`maos task list`); those that ended go \
         as `store.keep_days` and `store.keep_tasks` say"
    PlanNotFound "PLAN_NOT_FOUND" 404 Never
        "No plan has this id."
        "take `execution_plan_id` of the answer that has the task; `GET /api/v1/tasks` lists \
         those there are"
    AgentNotFound "AGENT_NOT_FOUND" 404 Never
        "No agent has this id."
        "`GET /api/v1/agents` lists the agents there are (`maos agent list`)"
    SubscriptionNotFound "SUBSCRIPTION_NOT_FOUND" 404 Never
        "No subscription has this name."
        "`GET /api/v1/messages/subscriptions` lists those there are"
    ResourceNotFound "RESOURCE_NOT_FOUND" 404 Never
        "No resource has this id."
        "`GET /api/v1/resources` lists those there are"
    AllocationNotFound "ALLOCATION_NOT_FOUND" 404 Never
        "Nobody of this name holds resources."
        "`GET /api/v1/resources/allocations` lists who holds some; what ran out is given back by \
         itself"
    ArtifactNotFound "ARTIFACT_NOT_FOUND" 404 Never
        "The task has no artifact of this name."
        "`GET /api/v1/tasks/{id}/artifacts` lists those of a task"
    ScheduleNotFound "SCHEDULE_NOT_FOUND" 404 Never
        "No schedule has this id."
        "`GET /api/v1/schedules` lists those there are"
    PoolNotFound "POOL_NOT_FOUND" 404 Never
        "No pool has this name."
        "`GET /api/v1/pools` lists those there are; `[pools]` of the configuration makes them"
    CheckpointNotFound "CHECKPOINT_NOT_FOUND" 404 Never
        "No checkpoint has this id."
        "`GET /api/v1/checkpoints` lists those there are (`maos checkpoint list`)"
    ResultsNotReady "RESULTS_NOT_READY" 404 Never
        "The task has no results: it has not ended, or not well."
        "`GET /api/v1/tasks/{id}?wait_seconds=60` waits for its end, `GET \
         /api/v1/tasks/{id}/explain` says what it waits for"
    MethodNotAllowed "METHOD_NOT_ALLOWED" 405 Never
        "The path exists and does not take this method; the header `Allow` lists what it takes."
        "use a method of the header `Allow`; `/docs` shows what each does"
    AlreadyEnded "ALREADY_ENDED" 409 Never
        "The task has ended, so it cannot be cancelled or changed."
        "`GET /api/v1/tasks/{id}` shows how it ended; submit another one where more is to be \
         done"
    TaskFixed "TASK_FIXED" 409 Never
        "What is to change is fixed: the task has started or ended, or was made into subtasks."
        "cancel the task and submit it anew; its tags and metadata can be changed at any time"
    NotEnoughLeft "NOT_ENOUGH_LEFT" 409 Never
        "There is not enough left of a resource at the moment; `details` says how much is."
        "ask for less, or try again once others have given something back"
    DeclaredByConfiguration "DECLARED_BY_CONFIGURATION" 409 Never
        "The configuration file says so; change it there and start the server again."
        "change it in the configuration file and start the server again"
    NotRestorable "NOT_RESTORABLE" 409 Never
        "The server is part of another program, and cannot put another state in its place."
        "have `maos serve` serve the data directory, and restore there"
    CheckpointDamaged "CHECKPOINT_DAMAGED" 409 Never
        "A file of the checkpoint is missing or damaged, so nobody can go back to it: delete it \
         and restore another one."
        "delete it and restore another one of `GET /api/v1/checkpoints`"
    NotEnded "NOT_ENDED" 409 Never
        "The task or something of its plan has not ended: only ended plans can be deleted."
        "cancel the root, or wait for its end, and delete then"
    NotARoot "NOT_A_ROOT" 409 Never
        "The task is part of a plan, which goes as a whole: `details.root_task_id` names its root."
        "delete `details.root_task_id`"
    NotRetryable "NOT_RETRYABLE" 409 Never
        "Only a failed or cancelled task can be retried."
        "wait for its end, or submit it anew where it has completed"
    ParentEnded "PARENT_ENDED" 409 Never
        "The task is a subtask of one that has ended: retry that one."
        "retry `details.parent_task_id`"
    StaleAttempt "STALE_ATTEMPT" 409 Never
        "The report is about an attempt that is no longer the running one; it was not accepted."
        "stop this attempt and drop its result: the task goes on without it"
    IdempotencyConflict "IDEMPOTENCY_CONFLICT" 409 Never
        "The idempotency key came with another body before."
        "use a key of its own for each submission, or send the first body again"
    AgentEnded "AGENT_ENDED" 409 Never
        "The agent has ended its service."
        "create another one by `POST /api/v1/agents`; `GET /api/v1/agents` lists those that \
         serve"
    AgentLost "AGENT_LOST" 409 Never
        "The worker was not heard of for too long, and what it held went to others: it must stop \
         that work and register again under its id."
        "stop that work and register again by `POST /api/v1/agents` with this `id`"
    StaleIncarnation "STALE_INCARNATION" 409 Never
        "A newer process polls for this worker: the older one must stop its work and end."
        "stop what this process runs, and end it"
    NotAWorker "NOT_A_WORKER" 409 Never
        "The agent is not a worker: it does not poll, and its id cannot be registered for one."
        "register a worker by `POST /api/v1/agents` with `runtime` `worker` and another `id`"
    BodyTooLarge "BODY_TOO_LARGE" 413 Never
        "The body is above the bound, which `details.bytes_max` names."
        "send less, as no setting raises this bound: a batch in several requests, what is large \
         as a path or a URL that the agent reads"
    NotJson "NOT_JSON" 415 Never
        "The body's `content-type` is not JSON."
        "send the header `content-type: application/json`"
    ValidationFailed "VALIDATION_FAILED" 422 Never
        "Fields have a wrong type or range; `details.fields` names each and its fault."
        "correct what `details.fields` names; `/docs` shows what each field takes"
    ResultRefused "RESULT_REFUSED" 422 Never
        "The result of an attempt is above its bound or no readable JSON; the attempt has failed \
         for good."
        "send a smaller result, and what is large as an artifact of the task"
    UnknownAction "UNKNOWN_ACTION" 422 Never
        "The named agent is built in and does not know the action; `details.known` lists them."
        "use one of `details.known`, or leave the agent out"
    OverCapacity "OVER_CAPACITY" 422 Never
        "A resource requirement is above what there is in all, so it could never be met."
        "ask for less, or raise its capacity: `[resources]` of the configuration, or `PATCH \
         /api/v1/resources/{id}`"
    UnknownKey "UNKNOWN_KEY" 422 Never
        "`depends_on` or `$from` names a key that no task of the plan has."
        "use the `key` of a task of this plan"
    DuplicateKey "DUPLICATE_KEY" 422 Never
        "Two tasks of the plan have the same key."
        "give each task of the plan a `key` of its own"
    PlanCycle "PLAN_CYCLE" 422 Never
        "Tasks of the plan wait for each other; `details.cycle` lists their keys."
        "take one of the dependencies of `details.cycle` out"
    BadReference "BAD_REFERENCE" 422 Never
        "An object with `$from` is not of the form `{\"$from\": key, \"pointer\": \"/a/0\"}`."
        "write it in this form; `pointer` may be left out"
    PlanTooLarge "PLAN_TOO_LARGE" 422 Never
        "The plan has too many tasks, dependencies or bytes of parameters."
        "submit it as several plans"
    PlanTooDeep "PLAN_TOO_DEEP" 422 Never
        "Tasks of the plan are nested too deeply."
        "nest them less deeply, or submit the inner ones as plans of their own"
    QueueFull "QUEUE_FULL" 429 Later
        "A bound on what may wait is reached; nothing was accepted."
        "send it again after `Retry-After`; `details.bound` is the bound, where it is one number"
    MailboxFull "MAILBOX_FULL" 429 Later
        "The mailbox holds as many unread messages as it may; the message was not taken."
        "send it again once its readers have acknowledged; `[message_bus]` sets the bounds"
    StorageUnavailable "STORAGE_UNAVAILABLE" 503 Later
        "The journal cannot be written at the moment: whether it was done will show when it can."
        "send it again after `Retry-After`, a submission with the same `Idempotency-Key`; the \
         server's log says why"
    ShuttingDown "SHUTTING_DOWN" 503 Later
        "The server is about to end and takes nothing new."
        "send it again after `Retry-After`, when the server is back"
    NotLeader "NOT_LEADER" 503 Later
        "This server does not lead at the moment."
        "send it again after `Retry-After`, or to another server"
    Internal "INTERNAL" 500 Never
        "A fault of the server's own; the log has more under the same `request_id`."
        "look for the `request_id` in the server's log, and report what stands there"
}

impl ErrorCode {
    /// The code of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<ErrorCode> {
        ErrorCode::ALL.iter().copied().find(|code| code.name() == name)
    }
}

/// The text of `docs/errors.md`.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Error codes\n\n\
         Generated from `crates/maos-api/src/error.rs`; \
         `UPDATE_DOCS=1 cargo test -p maos-api` writes it anew.\n\n\
         Every error answer is `{error, error_code, details, timestamp, request_id}`. \
         `error` ends with a line `hint: ..` that says what to do: that of the code, in the last \
         column, or one that knows more; what is wrong with a field says by itself what is \
         wanted. \
         Codes that say *later* come with `Retry-After`. \
         Only what the HTTP layer itself refuses has no such body: a request that cannot be \
         parsed (400), a path and query that are too long (414), headers that are too large \
         (431).\n\n\
         A value out of range is 422 `VALIDATION_FAILED` in a body and 400 `MALFORMED_QUERY` in \
         a query; a query parameter that is not known is 422.\n\n\
         | code | status | try again | meaning | what to do |\n|---|---|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        let retry = match code.retry() {
            Retry::Never => "no",
            Retry::Later => "later",
        };
        let (name, status) = (code.name(), code.status());
        let (meaning, remedy) = (code.meaning(), code.remedy());
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| `{name}` | {status} | {retry} | {meaning} | {remedy} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_committed_reference_is_what_the_rows_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, reference()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == reference(), "docs/errors.md is old: UPDATE_DOCS=1 writes it anew");
    }

    #[test]
    fn an_error_goes_out_with_what_to_do_said_once() {
        let told = |error: ApiError| error.into_body(UtcTime(0), String::new()).error;
        for code in ErrorCode::ALL {
            let remedy = code.remedy();
            let plain = remedy.trim_end_matches('.') == remedy && !remedy.contains('\n');
            assert!(plain && !remedy.is_empty(), "{}: {remedy}", code.name());
            let expected = match code {
                ErrorCode::ValidationFailed => "it is so".to_owned(),
                _ => format!("it is so\nhint: {remedy}"),
            };
            assert_eq!(told(ApiError::new(*code, "it is so")), expected);
        }
        let own = "it is so\nhint: do this";
        assert_eq!(told(ApiError::new(ErrorCode::TaskNotFound, own)), own);
    }

    #[test]
    fn names_are_unique_and_lead_back_to_their_codes() {
        let names: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.name()), Some(*code));
            assert!(code.name().bytes().all(|b| b.is_ascii_uppercase() || b == b'_'));
        }
        assert_eq!(ErrorCode::from_name("NO_SUCH_CODE"), None);
    }

    #[test]
    fn exactly_what_may_pass_by_itself_is_worth_another_try() {
        for code in ErrorCode::ALL {
            let later = matches!(code.status(), 429 | 503);
            assert_eq!(code.retry() == Retry::Later, later, "{}", code.name());
        }
    }
}
