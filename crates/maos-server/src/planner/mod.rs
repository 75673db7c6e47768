//! The planner: what one submission becomes, as a graph of tasks.
//!
//! It reads parameters, which nobody behind it does: lists are split by the strategy, references to
//! earlier results become dependencies, and the core gets an explicit, acyclic graph within bounds.
//! It knows no engine, no journal and no clock; ids and times arrive as arguments.

mod draft;
mod emit;
mod explicit;
mod graph;
mod lists;
mod parallel;
mod parameters;
mod reference;
mod sequence;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use maos_api::document;
use maos_api::error::{ApiError, ErrorCode};
use maos_api::submission::{Bounds, Parsed};
use maos_core::ids::AgentId;
use maos_core::limits;
use maos_core::spec::{
    Collect, Demand, Expansion, IdempotencyKey, Plan, PlanTask, Runtime, TaskSpec, TraceContext,
};
use maos_core::time::{Timestamp, WallTime};
use serde_json::value::RawValue;

pub use draft::{PAST_DEADLINE, deadline_at, priority};
pub use emit::DEFAULT_CAPABILITY;
pub use reference::{ResolveError, resolve};

/// The keys that parameters refer to with `$from`.
///
/// # Errors
/// What is wrong with a reference.
pub fn references(parameters: &serde_json::Value) -> Result<Vec<&str>, String> {
    let mut found = Vec::new();
    reference::keys(parameters, &mut found)?;
    Ok(found)
}

/// What a submission gets that does not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Bound on one attempt's run.
    pub timeout_seconds: u64,
    /// Failed attempts that are tried again.
    pub retries: u32,
}

/// The contract's defaults.
pub const DEFAULTS: Defaults = Defaults { timeout_seconds: 300, retries: 3 };

/// Demands that were met last: most tasks ask for the same, and then share one.
#[derive(Debug, Default)]
pub struct Demands {
    met: Mutex<VecDeque<Arc<Demand>>>,
}

/// Demands that are remembered.
const DEMANDS_MET_MAX: usize = 16;

impl Demands {
    fn share(&self, demand: Demand) -> Arc<Demand> {
        let mut met = self.met.lock().expect("nothing panics while it holds this lock");
        if let Some(known) = met.iter().find(|known| ***known == demand) {
            return known.clone();
        }
        let shared = Arc::new(demand);
        met.truncate(DEMANDS_MET_MAX - 1);
        met.push_front(shared.clone());
        shared
    }
}

/// What the planner must know besides the submission.
pub struct PlanContext<'c> {
    /// The bounds that the submission was parsed with.
    pub bounds: &'c Bounds,
    /// What it gets that it does not say.
    pub defaults: Defaults,
    /// The engine's time.
    pub now: Timestamp,
    /// The calendar's time at the same instant; deadlines are given in it.
    pub wall: WallTime,
    /// Demands of earlier plans, to be shared.
    pub demands: &'c Demands,
    /// Whose room it lives in.
    pub namespace: &'c str,
    /// Who sent it; empty when nobody said.
    pub submitter: &'c str,
    /// Under which key it may be sent again.
    pub idempotency: Option<IdempotencyKey>,
    /// Where it came from, for tracing.
    pub trace: Option<TraceContext>,
    /// The door that it came in by; `None`: the usual one.
    pub origin: Option<&'static str>,
    /// The capability of a built-in action; `None` for everything else.
    pub action_capability: &'c dyn Fn(&str) -> Option<&'static str>,
    /// All built-in actions, for messages.
    pub known_actions: &'c [&'static str],
    /// What does the work of an agent; `None` if there is no such agent.
    pub agent_runtime: &'c dyn Fn(AgentId) -> Option<Runtime>,
}

/// A submission made into a plan.
#[derive(Debug)]
pub struct Planned {
    /// The graph.
    pub plan: Plan,
    /// Each task's place in the body, such as `subtasks[1].`; empty for the body itself, and as a
    /// whole if there is nothing else.
    pub places: Vec<String>,
    /// What the answer should mention.
    pub warnings: Vec<String>,
    /// Payloads too large to be inline, with their BLAKE3 hashes. They must be durable before the
    /// plan is submitted.
    pub blobs: Vec<([u8; 32], Vec<u8>)>,
}

/// Subtasks that an attempt made of its task.
#[derive(Debug)]
pub struct Expanded {
    /// The graph below the task.
    pub expansion: Expansion,
    /// Payloads that must be durable before the expansion is reported.
    pub blobs: Vec<([u8; 32], Vec<u8>)>,
}

/// The bounds of requests: the limits, and the configured longest run of one attempt.
#[must_use]
pub fn bounds(task_timeout_seconds_max: u64) -> Bounds {
    Bounds {
        body_bytes_max: limits::SUBMISSION_BYTES_MAX,
        nesting_max: limits::NESTING_MAX,
        name_chars_max: limits::NAME_CHARS_MAX,
        description_chars_max: limits::DESCRIPTION_CHARS_MAX,
        word_chars_max: limits::WORD_CHARS_MAX,
        tags_max: limits::TAGS_MAX,
        capabilities_max: limits::CAPABILITIES_MAX,
        resource_kinds_max: limits::RESOURCE_KINDS_MAX,
        plan_tasks_max: limits::PLAN_TASKS_MAX,
        retries_max: limits::RETRIES_MAX,
        agent_slots_max: limits::AGENT_SLOTS_MAX,
        task_timeout_seconds_max,
    }
}

/// Makes `submission` into a plan. `ids` gives a fresh UUID each time: the plan's first, then the
/// tasks' in the plan's order.
///
/// # Errors
/// What is wrong with its lists, keys, references or bounds, everything named.
pub fn plan(
    submission: Parsed<'_>,
    ctx: &PlanContext<'_>,
    ids: &mut dyn FnMut() -> u128,
) -> Result<Planned, ApiError> {
    let Parsed { name, mut fields, warnings } = submission;
    let strategy = fields.strategy;
    let mut drafts = draft::Drafts::new(ctx, warnings);
    drafts.add_root(&name, &mut fields)?;
    drafts.split(0, &fields, &draft::PassedOn::default())?;
    let graph = graph::link(&mut drafts)?;
    emit::emit(drafts, &graph, strategy, ids)
}

/// Makes the answer of an attempt into subtasks of its task, at most `most`: the answer is
/// `{"subtasks": [..]}` or the bare list, each entry as in a submission.
///
/// # Errors
/// What is wrong with it, everything named.
pub fn expand(
    task: &TaskSpec,
    answer: &RawValue,
    most: u32,
    ctx: &PlanContext<'_>,
    ids: &mut dyn FnMut() -> u128,
) -> Result<Expanded, ApiError> {
    let mut drafts = draft::Drafts::new(ctx, Vec::new());
    drafts.add_expanded(task);
    let members = document::members(answer.get());
    let subtasks = match &members {
        Some(members) => members.value("subtasks"),
        None => Some(answer),
    };
    let missing = || {
        let message = "the answer holds no `subtasks`: `{\"subtasks\": [..]}` is wanted, with \
                       at least one entry";
        ApiError::new(ErrorCode::ValidationFailed, message).with_field("subtasks", "are missing")
    };
    drafts.split_explicit(0, subtasks.ok_or_else(missing)?, &draft::PassedOn::default())?;
    let graph = graph::link(&mut drafts)?;
    let Planned { plan, blobs, .. } = emit::emit(drafts, &graph, None, ids)?;
    let added = plan.tasks.len() - 1;
    if added == 0 {
        return Err(missing());
    }
    if u32::try_from(added).is_ok_and(|added| added > most) {
        let message = format!("the answer holds {added} subtasks, at most {most} are allowed");
        let error = ApiError::new(ErrorCode::PlanTooLarge, message);
        return Err(
            error.with_field("subtasks", format!("are {added}, at most {most} are allowed"))
        );
    }
    Ok(Expanded { expansion: below_root(plan), blobs })
}

/// A plan without its root: everything moves up by one.
fn below_root(plan: Plan) -> Expansion {
    let up = |index: u32| index.checked_sub(1);
    let collect = |collect: Collect| match collect {
        Collect::One(index) => up(index).map_or(Collect::All, Collect::One),
        Collect::All => Collect::All,
    };
    let own = collect(plan.root().collect);
    let tasks = plan.tasks.into_iter().skip(1).map(|task| PlanTask {
        parent: task.parent.and_then(up),
        depends_on: task.depends_on.iter().copied().filter_map(up).collect(),
        collect: collect(task.collect),
        ..task
    });
    Expansion { tasks: tasks.collect(), collect: own }
}
