//! The engine's rows as the wire shows them. Nothing is decided here.

use std::collections::BTreeMap;

use maos_api::agent::{
    Agent, AgentMetrics, AgentRuntime, AgentStatus, HEALTH_CHECK_INTERVAL_SECONDS,
};
use maos_api::explain::Blocker as WireBlocker;
use maos_api::task::{Dependency, OnFailure, Priority as WirePriority, Task, TaskStatus};
use maos_api::time::UtcTime;
use maos_core::change::Load;
use maos_core::ids::TaskId;
use maos_core::limits::HEARTBEAT_TIMEOUT_MS;
use maos_core::node::AgentState;
use maos_core::payload::Payload;
use maos_core::record::{Stage, Tally, TaskRecord};
use maos_core::spec::{Amounts, Demand, FailurePolicy, Names, Priority, Runtime, Work};
use maos_core::time::WallTime;
use maos_core::view::{Blocker, BlockerKind, Holder};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::planner;
use crate::supervisor::usage::Usage;

/// Who runs a task, or ran it last before its end; nobody does a task with subtasks.
fn ran_by(record: &TaskRecord) -> Option<Uuid> {
    let shown = matches!(record.stage, Stage::Running { .. }) || record.stage.ended();
    let agent = record.ran_by.filter(|_| shown && record.subtasks().is_empty())?;
    Some(Uuid::from_u128(agent.0))
}

/// The documents of a task, fetched.
pub(super) struct Documents {
    pub(super) parameters: Box<RawValue>,
    pub(super) metadata: Box<RawValue>,
    pub(super) result: Option<Box<RawValue>>,
    /// Fields whose document is there but was not fetched.
    pub(super) omitted: Vec<String>,
}

pub(super) fn task(record: &TaskRecord, documents: Documents) -> Task {
    let (spec, rare) = (&record.spec, record.spec.rare());
    let asked = rare.plans.as_deref().unwrap_or(&spec.demand);
    let on_failure = match spec.on_failure {
        FailurePolicy::FailFast => None,
        FailurePolicy::Continue => Some(OnFailure::Continue),
        FailurePolicy::Ignore => Some(OnFailure::Ignore),
    };
    let (error, error_kind) = match &record.stage {
        Stage::Failed(failure) => (Some(failure.message.to_string()), Some(failure.kind)),
        Stage::Cancelled { reason } => (Some(format!("cancelled: {reason}")), None),
        Stage::Waiting
        | Stage::Parked { .. }
        | Stage::Ready { .. }
        | Stage::Backoff { .. }
        | Stage::Running { .. }
        | Stage::Active
        | Stage::Completed(_)
        | Stage::Collected => (None, None),
    };
    Task {
        id: uuid(record.id),
        name: spec.name.to_string(),
        description: spec.description.as_deref().map(str::to_owned),
        status: status(&record.stage),
        priority: priority(spec.priority),
        agent_id: ran_by(record),
        parent_task_id: record.parent().map(uuid),
        dependencies: record.depends_on().iter().map(|id| Dependency::on(uuid(*id))).collect(),
        subtasks: record.subtasks().iter().map(|id| uuid(*id)).collect(),
        parameters: documents.parameters,
        result: documents.result,
        error,
        created_at: time(record.times.created),
        started_at: record.times.started.map(time),
        completed_at: record.times.ended.map(time),
        updated_at: time(record.times.updated),
        timeout_seconds: spec.timeout_ms / 1_000,
        retry_count: record.retries_used,
        max_retries: spec.retries_max,
        resource_requirements: amounts(&spec.demand.resources),
        tags: words(&spec.tags),
        metadata: documents.metadata,
        key: spec.rare().key.as_deref().map(str::to_owned),
        attempt: record.attempt.0,
        execution_plan_id: Some(Uuid::from_u128(record.plan.id.0)),
        error_kind: error_kind.map(|kind| kind.name().to_owned()),
        decomposition_strategy: strategy(record),
        on_failure,
        required_capabilities: if implied(asked) { Vec::new() } else { words(&asked.capabilities) },
        agent_type: asked.agent_type.as_deref().map(str::to_owned),
        required_agent_id: asked.agent.map(|agent| Uuid::from_u128(agent.0)),
        run_at: rare.run_at.map(time),
        deadline: rare.ends_by.map(time),
        queue_timeout_seconds: rare.queue_timeout_ms.map(|ms| ms / 1_000),
        no_progress_seconds: rare.no_progress_ms.map(|ms| ms / 1_000),
        concurrency_key: rare.concurrency_key.as_deref().map(str::to_owned),
        fairness_key: rare.fairness_key.as_deref().map(str::to_owned),
        omitted: documents.omitted,
    }
}

/// The strategy that made the plan of a root.
fn strategy(record: &TaskRecord) -> Option<String> {
    let own = record.plan.strategy.as_deref().filter(|_| record.parent().is_none());
    own.map(str::to_owned)
}

/// Whether the capabilities are those that follow from the action, or from there being none.
pub(super) fn implied(demand: &Demand) -> bool {
    let capability = match &demand.work {
        Work::FreeForm => planner::DEFAULT_CAPABILITY,
        Work::Known(capability) | Work::BuiltIn(capability) => capability,
    };
    demand.capabilities.iter().eq([capability])
}

/// `seen` is when an agent outside of this server was heard of last, and `timeout_seconds` how long
/// such an agent may be silent if it has no bound of its own; `usages` is what its attempts take.
pub(super) fn agent(
    state: &AgentState,
    now: UtcTime,
    seen: Option<UtcTime>,
    timeout_seconds: u64,
    usages: &[Usage],
) -> Agent {
    let (spec, tally) = (&state.record.spec, &state.record.tally);
    let timeout_seconds = spec.silence_ms.map_or(timeout_seconds, |own_ms| own_ms / 1_000);
    let here = spec.runtime.ends_with_server();
    let load = Load::of(state.held.len(), spec.slots);
    let status = match (state.record.end, load) {
        (Some(maos_core::event::AgentEnd::Lost), _) => AgentStatus::Offline,
        (Some(_), _) => AgentStatus::Terminated,
        (None, _) if !here && seen.is_none() => AgentStatus::Offline,
        (None, Load::Idle) => AgentStatus::Idle,
        (None, Load::Busy) => AgentStatus::Busy,
        (None, Load::Overloaded) => AgentStatus::Overloaded,
    };
    let tasks: Vec<Uuid> = state.held.iter().map(|(task, _)| uuid(*task)).collect();
    // An agent inside this server is as alive as the answer that tells of it.
    let seen = if here { state.record.end.is_none().then_some(now) } else { seen };
    Agent {
        id: Uuid::from_u128(spec.id.0),
        name: spec.name.to_string(),
        kind: spec.agent_type.to_string(),
        status,
        capabilities: words(&spec.capabilities),
        current_task_id: tasks.first().copied(),
        task_queue: tasks,
        max_concurrent_tasks: spec.slots,
        resource_limits: amounts(&spec.resource_limits),
        configuration: inline_json(spec.configuration.as_ref()),
        metadata: serde_json::Map::new(),
        created_at: time(state.record.created),
        started_at: Some(time(state.record.created)),
        last_seen: seen,
        metrics: metrics(tally, seen, usages),
        tags: words(&spec.tags),
        health_check_interval: HEALTH_CHECK_INTERVAL_SECONDS,
        heartbeat_timeout: if here { HEARTBEAT_TIMEOUT_MS / 1_000 } else { timeout_seconds },
        runtime: Some(runtime(spec.runtime)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people; 2^53 is far away")]
fn metrics(tally: &Tally, seen: Option<UtcTime>, usages: &[Usage]) -> AgentMetrics {
    let ended = (tally.completed + tally.failed) as f64;
    let total = tally.run_us as f64 / 1e6;
    let success_rate = if ended > 0.0 { tally.completed as f64 / ended } else { 1.0 };
    AgentMetrics {
        tasks_completed: tally.completed,
        tasks_failed: tally.failed,
        total_execution_time: total,
        average_execution_time: if ended > 0.0 { total / ended } else { 0.0 },
        cpu_usage_percent: usages.iter().map(Usage::cpu_percent).fold(0.0, |a, b| a + b),
        memory_usage_mb: usages.iter().map(Usage::memory_mb).fold(0.0, |a, b| a + b),
        success_rate,
        last_heartbeat: seen,
        health_score: if seen.is_some() { success_rate } else { 0.0 },
    }
}

pub(super) fn blocker(blocker: Blocker) -> WireBlocker {
    let kind = match blocker.kind {
        BlockerKind::Dependency => "dependency",
        BlockerKind::Subtasks => "subtasks",
        BlockerKind::NoAgent => "no_agent",
        BlockerKind::AgentsBusy => "agents_busy",
        BlockerKind::Resources => "resources",
        BlockerKind::ConcurrencyLimit => "concurrency_limit",
        BlockerKind::Queue => "queue",
        BlockerKind::Backoff => "backoff",
        BlockerKind::Parked => "parked",
        BlockerKind::Stopping => "stopping",
    };
    let held_by = blocker.held_by.iter().map(|holder| match holder {
        Holder::Task(task) => uuid(*task),
        Holder::Agent(agent) => Uuid::from_u128(agent.0),
    });
    WireBlocker {
        kind: kind.to_owned(),
        message: blocker.message,
        since: time(blocker.since),
        held_by: held_by.collect(),
        unblock: match blocker.until {
            Some(until) => format!("{}, at {}", blocker.unblock, time(until)),
            None => blocker.unblock,
        },
        until: blocker.until.map(time),
    }
}

pub(super) fn status(stage: &Stage) -> TaskStatus {
    match stage {
        Stage::Waiting | Stage::Parked { .. } => TaskStatus::Pending,
        Stage::Ready { .. } => TaskStatus::Ready,
        Stage::Backoff { .. } => TaskStatus::Retrying,
        Stage::Running { .. } | Stage::Active => TaskStatus::Running,
        Stage::Completed(_) | Stage::Collected => TaskStatus::Completed,
        Stage::Failed(_) => TaskStatus::Failed,
        Stage::Cancelled { .. } => TaskStatus::Cancelled,
    }
}

pub(super) fn runtime(runtime: Runtime) -> AgentRuntime {
    match runtime {
        Runtime::Builtin => AgentRuntime::Builtin,
        Runtime::Command => AgentRuntime::Command,
        Runtime::Http => AgentRuntime::Http,
        Runtime::ClaudeCode => AgentRuntime::ClaudeCode,
        Runtime::Worker => AgentRuntime::Worker,
    }
}

/// A task as lists show it: with the documents that its row holds, and no others.
pub(super) fn light(record: &TaskRecord) -> Task {
    let mut omitted = Vec::new();
    let mut at_hand = |field: &str, payload: Option<&Payload>| match payload {
        Some(Payload::Inline(document)) => {
            String::from_utf8(document.to_vec()).ok().and_then(|t| RawValue::from_string(t).ok())
        }
        Some(Payload::Stored(_)) => {
            omitted.push(field.to_owned());
            RawValue::from_string("null".to_owned()).ok()
        }
        None => None,
    };
    let parameters = at_hand("parameters", Some(&record.spec.parameters)).unwrap_or_else(empty);
    let metadata = at_hand("metadata", record.spec.metadata.as_deref()).unwrap_or_else(empty);
    let result = match &record.stage {
        Stage::Completed(result @ Payload::Inline(_)) => at_hand("result", Some(result)),
        // What is put together from other results, or lies in the blob store.
        Stage::Completed(_) | Stage::Collected => {
            omitted.push("result".to_owned());
            None
        }
        _ => None,
    };
    task(record, Documents { parameters, metadata, result, omitted })
}

fn priority(priority: Priority) -> WirePriority {
    match priority {
        Priority::Low => WirePriority::Low,
        Priority::Medium => WirePriority::Medium,
        Priority::High => WirePriority::High,
        Priority::Critical => WirePriority::Critical,
    }
}

pub(super) fn uuid(task: TaskId) -> Uuid {
    Uuid::from_u128(task.0)
}

pub(super) fn time(wall: WallTime) -> UtcTime {
    UtcTime(wall.0)
}

/// Thousandths as the numbers that callers write.
pub(super) fn milli(amount: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "amounts are bounded far below 2^53")]
    let amount = amount as f64;
    amount / 1_000.0
}

pub(super) fn thousandths(amount: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked against its bounds when it came in"
    )]
    let milli = (amount * 1_000.0).round() as u64;
    // As of amounts that are asked for: what is above 0 does not become nothing.
    milli.max(u64::from(amount > 0.0))
}

pub(super) fn amounts(amounts: &Amounts) -> BTreeMap<String, f64> {
    amounts.iter().map(|(kind, amount)| (kind.to_owned(), milli(amount))).collect()
}

fn words(names: &Names) -> Vec<String> {
    names.iter().map(str::to_owned).collect()
}

/// A document that is known to be small; `{}` if there is none.
fn inline_json(payload: Option<&Payload>) -> Box<RawValue> {
    let text = match payload {
        Some(Payload::Inline(document)) => String::from_utf8(document.to_vec()).unwrap_or_default(),
        Some(Payload::Stored(_)) | None => String::new(),
    };
    RawValue::from_string(text).unwrap_or_else(|_| empty())
}

pub(super) fn empty() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("an empty object is JSON")
}
