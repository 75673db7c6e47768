//! From drafts to the core's plan: ids, payloads, and which agents can do each task.

use std::borrow::Cow;
use std::sync::Arc;

use maos_api::document;
use maos_api::error::{ApiError, ErrorCode};
use maos_api::task::Strategy;
use maos_core::ids::{PlanId, TaskId};
use maos_core::limits::INLINE_PAYLOAD_BYTES_MAX;
use maos_core::payload::Payload;
use maos_core::spec::{
    Collect, Demand, Names, Plan, PlanTask, Rare, Runtime, TaskInput, TaskSpec, Work,
};

use super::draft::{CollectRule, Drafts, Settings};
use super::graph::Graph;
use super::{PlanContext, Planned};

/// What an agent can do that answers with subtasks.
const PLANNING: &str = "planning";
/// What a task needs that says nothing about who is to do it.
pub const DEFAULT_CAPABILITY: &str = "task_execution";

pub(super) fn emit(
    mut drafts: Drafts<'_, '_>,
    graph: &Graph<'_>,
    strategy: Option<Strategy>,
    ids: &mut dyn FnMut() -> u128,
) -> Result<Planned, ApiError> {
    let plan_id = PlanId(ids());
    let task_ids: Vec<TaskId> = drafts.tasks.iter().map(|_| TaskId(ids())).collect();
    let mut blobs = Vec::new();
    let mut tasks = Vec::with_capacity(task_ids.len());
    for (index, id) in task_ids.iter().enumerate() {
        let demand = demand(&mut drafts, index, &graph.parameters[index]);
        let demand = drafts.ctx.demands.share(demand);
        let spec = spec(&drafts, graph, index, demand, &task_ids, &mut blobs);
        let draft = &drafts.tasks[index];
        tasks.push(PlanTask {
            id: *id,
            spec: Arc::new(spec),
            parent: draft.parent.map(number),
            depends_on: draft.depends_on.iter().copied().map(number).collect(),
            collect: match draft.collect {
                CollectRule::One(of) => Collect::One(number(of)),
                CollectRule::All | CollectRule::Sink => Collect::All,
            },
        });
    }
    std::mem::take(&mut drafts.faults).check()?;
    let ctx = drafts.ctx;
    let plan = Plan {
        id: plan_id,
        namespace: ctx.namespace.into(),
        submitter: ctx.submitter.into(),
        strategy: strategy.map(|strategy| strategy.name().into()),
        idempotency: ctx.idempotency.clone(),
        tasks: tasks.into_boxed_slice(),
    };
    let places = match &mut drafts.tasks[..] {
        [_] => Vec::new(),
        all => all.iter_mut().map(|draft| std::mem::take(&mut draft.at)).collect(),
    };
    Ok(Planned { plan, places, warnings: drafts.into_warnings(), blobs })
}

/// An index as the plan stores it.
fn number(index: usize) -> u32 {
    u32::try_from(index).expect("a plan's size is bounded far below")
}

fn spec(
    drafts: &Drafts<'_, '_>,
    graph: &Graph<'_>,
    index: usize,
    demand: Arc<Demand>,
    task_ids: &[TaskId],
    blobs: &mut Vec<([u8; 32], Vec<u8>)>,
) -> TaskSpec {
    let draft = &drafts.tasks[index];
    let Settings {
        priority,
        tags,
        timeout_ms,
        retries_max,
        queue_timeout_ms,
        no_progress_ms,
        on_failure,
        fairness_key,
        concurrency_key,
        start_at,
        ..
    } = &*draft.settings;
    let input = |(key, task): &(std::rc::Rc<str>, usize)| TaskInput {
        key: (&**key).into(),
        task: task_ids[*task],
    };
    let rare = Rare {
        queue_timeout_ms: *queue_timeout_ms,
        no_progress_ms: *no_progress_ms,
        deadline: draft.deadline.map(|deadline| deadline.at),
        // A parent waits as long as what is below it.
        start_at: start_at.filter(|_| draft.children.is_empty()).map(|start| start.at),
        fairness_key: fairness_key.clone(),
        concurrency_key: concurrency_key.clone(),
        inputs: graph.inputs[index].iter().map(input).collect(),
        key: (!draft.key.is_empty()).then(|| (&*draft.key).into()),
        trace: drafts.ctx.trace.clone(),
        plans: draft.plans.then(|| Box::new(inherited(&draft.settings))),
        run_at: start_at.and_then(|start| start.shown),
        ends_by: draft.deadline.and_then(|deadline| deadline.shown),
        origin: drafts.ctx.origin.filter(|_| index == 0).map(Into::into),
    };
    TaskSpec {
        name: draft.name.clone(),
        description: draft.description.clone(),
        priority: *priority,
        parameters: payload(&graph.parameters[index], blobs),
        metadata: draft
            .metadata
            .filter(|json| *json != "{}")
            .map(|json| Box::new(payload(json, blobs))),
        tags: tags.clone(),
        demand,
        timeout_ms: *timeout_ms,
        retries_max: *retries_max,
        on_failure: *on_failure,
        rare: rare.boxed(),
    }
}

fn payload(json: &str, blobs: &mut Vec<([u8; 32], Vec<u8>)>) -> Payload {
    let bytes = u64::try_from(json.len()).unwrap_or(u64::MAX);
    if bytes <= INLINE_PAYLOAD_BYTES_MAX {
        return Payload::inline(json.as_bytes());
    }
    let hash = *blake3::hash(json.as_bytes()).as_bytes();
    blobs.push((hash, json.as_bytes().to_vec()));
    Payload::stored(hash, bytes)
}

/// What the subtasks of a task ask for if they do not say otherwise.
fn inherited(settings: &Settings) -> Demand {
    Demand {
        capabilities: settings.capabilities.clone().unwrap_or_default(),
        agent_type: settings.agent_type.clone(),
        agent: settings.agent,
        resources: settings.resources.clone(),
        ..Demand::default()
    }
}

/// Which agents can do a task.
fn demand(drafts: &mut Drafts<'_, '_>, index: usize, parameters: &str) -> Demand {
    let settings = drafts.tasks[index].settings.clone();
    let resources = settings.resources.clone();
    if !drafts.tasks[index].children.is_empty() {
        // No agent is ever given a parent; what it asks for is what its subtasks inherit.
        return inherited(&settings);
    }
    if drafts.tasks[index].plans {
        check_agent(drafts, index, &settings);
        let capabilities = Names::new([PLANNING.into()]);
        return Demand { capabilities, resources, ..Demand::default() };
    }
    let action = document::member(parameters, "action").and_then(|raw| document::text(raw.get()));
    let known = action.as_deref().and_then(drafts.ctx.action_capability);
    check_agent(drafts, index, &settings);
    if known.is_none() {
        check_unknown(drafts, index, &settings, action);
    }
    let says_who = settings.agent_type.is_some() || settings.agent.is_some();
    let capabilities = match &settings.capabilities {
        Some(named) => named.clone(),
        None if says_who => Names::default(),
        None => Names::new([known.unwrap_or(DEFAULT_CAPABILITY).into()]),
    };
    Demand {
        capabilities,
        agent_type: settings.agent_type.clone(),
        agent: settings.agent,
        work: match known {
            None => Work::FreeForm,
            Some(capability) if says_who || settings.capabilities.is_some() => {
                Work::Known(capability.into())
            }
            Some(capability) => Work::BuiltIn(capability.into()),
        },
        resources,
    }
}

/// An agent that is named must be there: a task for one that never was would wait for ever.
fn check_agent(drafts: &mut Drafts<'_, '_>, index: usize, settings: &Settings) {
    let Some(agent) = settings.agent else { return };
    if (drafts.ctx.agent_runtime)(agent).is_none() {
        let field = format!("{}agent_id", drafts.tasks[index].at);
        let message = format!("no agent has the id `{agent}` that `{field}` names");
        drafts.faults.note(field, ApiError::new(ErrorCode::AgentNotFound, message));
    }
}

/// A task whose action no built-in agent knows: an error if one is named, a warning if the action
/// looks like theirs.
fn check_unknown(
    drafts: &mut Drafts<'_, '_>,
    index: usize,
    settings: &Settings,
    action: Option<Cow<'_, str>>,
) {
    let ctx = drafts.ctx;
    let at = drafts.tasks[index].at.clone();
    if settings.agent.is_some_and(|agent| (ctx.agent_runtime)(agent) == Some(Runtime::Builtin)) {
        let field = format!("{at}parameters.action");
        drafts.faults.note(field, unknown_action(ctx, action.as_deref()));
        return;
    }
    if let Some(action) = action
        && let Some((room, _)) = action.split_once('.')
    {
        let close: Vec<String> = ctx
            .known_actions
            .iter()
            .filter(|known| known.split_once('.').is_some_and(|(other, _)| other == room))
            .map(|known| format!("`{known}`"))
            .collect();
        if !close.is_empty() {
            let close = close.join(", ");
            drafts.warn(format!(
                "`{at}parameters.action`: no built-in action is called `{action}`, so an agent \
                 of your own must do it; the built-in ones are {close}"
            ));
        }
    }
}

fn unknown_action(ctx: &PlanContext<'_>, action: Option<&str>) -> ApiError {
    let found = match action {
        Some(action) => format!("the built-in agent does not know the action `{action}`"),
        None => "the built-in agent needs `parameters.action`".to_owned(),
    };
    let known: Vec<String> = ctx.known_actions.iter().map(|known| format!("`{known}`")).collect();
    let message = format!("{found}\nhint: use one of {}", known.join(", "));
    ApiError::new(ErrorCode::UnknownAction, message).with("known", ctx.known_actions.to_vec())
}
