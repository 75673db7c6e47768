//! Who waits for whom: keys and references become edges, which must be acyclic.
//!
//! A task begins when what it and its parents depend on has ended; a parent ends when its subtasks
//! have. The core acts on the edges of leaves only, so a parent's are repeated below it.

use std::borrow::Cow;
use std::rc::Rc;

use maos_api::error::{ApiError, ErrorCode};
use maos_core::limits::BATCH_BYTES_MAX;
use serde_json::Value;

use super::draft::{CollectRule, Drafts};
use super::reference;

/// Most dependencies of one plan, repeated ones included.
const PLAN_EDGES_MAX: usize = 1_000_000;
/// Most bytes of all parameters of one plan: many subtasks may inherit one large parameter.
const PLAN_PARAMETERS_BYTES_MAX: u64 = BATCH_BYTES_MAX;
/// Keys that a message names at the most.
const KEYS_SHOWN_MAX: usize = 20;

/// What linking found out about each task, by its index.
pub(super) struct Graph<'a> {
    /// Its parameters as JSON.
    pub(super) parameters: Vec<Cow<'a, str>>,
    /// Tasks whose results it is handed, by key.
    pub(super) inputs: Vec<Vec<(Rc<str>, usize)>>,
}

/// Resolves keys and references, and completes the dependencies of all tasks.
pub(super) fn link<'a>(drafts: &mut Drafts<'a, '_>) -> Result<Graph<'a>, ApiError> {
    let count = drafts.tasks.len();
    let mut graph =
        Graph { parameters: Vec::with_capacity(count), inputs: Vec::with_capacity(count) };
    let mut bytes_left = PLAN_PARAMETERS_BYTES_MAX;
    for index in 0..count {
        let text = drafts.tasks[index].parameters.text();
        bytes_left = u64::try_from(text.len())
            .ok()
            .and_then(|bytes| bytes_left.checked_sub(bytes))
            .ok_or_else(|| too_large("bytes of parameters", PLAN_PARAMETERS_BYTES_MAX))?;
        link_wants(drafts, index);
        let inputs = link_inputs(drafts, index, &text);
        graph.parameters.push(text);
        graph.inputs.push(inputs);
        let depends_on = &mut drafts.tasks[index].depends_on;
        depends_on.sort_unstable();
        depends_on.dedup();
    }
    std::mem::take(&mut drafts.faults).check()?;
    if count > 1 {
        check_acyclic(drafts)?;
        choose_sinks(drafts);
        repeat_below(drafts)?;
    }
    Ok(graph)
}

fn too_large(what: &str, maximum: u64) -> ApiError {
    let message = format!("the plan has more than {maximum} {what}");
    let what = format!("makes more than {maximum} {what}");
    ApiError::new(ErrorCode::PlanTooLarge, message)
        .with_field("body", what)
        .with("maximum", maximum)
}

fn link_wants(drafts: &mut Drafts<'_, '_>, index: usize) {
    for wanted in std::mem::take(&mut drafts.tasks[index].wants) {
        match drafts.keys.get(&*wanted) {
            Some(task) => drafts.tasks[index].depends_on.push(*task),
            None => note_unknown_key(drafts, index, "depends_on", &wanted),
        }
    }
}

fn link_inputs(drafts: &mut Drafts<'_, '_>, index: usize, text: &str) -> Vec<(Rc<str>, usize)> {
    let mut inputs = Vec::new();
    // A parent has no attempts, so nothing is put into its parameters.
    let is_leaf = drafts.tasks[index].children.is_empty();
    if !is_leaf || !reference::may_be_in(text) {
        return inputs;
    }
    let Ok(parameters) = serde_json::from_str::<Value>(text) else { return inputs };
    let mut keys = Vec::new();
    if let Err(what) = reference::keys(&parameters, &mut keys) {
        let field = format!("{}parameters", drafts.tasks[index].at);
        let error = ApiError::new(ErrorCode::BadReference, format!("`{field}` {what}"));
        drafts.faults.note(field, error);
        return inputs;
    }
    keys.sort_unstable();
    keys.dedup();
    for wanted in keys {
        match drafts.keys.get_key_value(wanted) {
            Some((key, task)) => inputs.push((key.clone(), *task)),
            None => note_unknown_key(drafts, index, "parameters", wanted),
        }
    }
    drafts.tasks[index].depends_on.extend(inputs.iter().map(|(_, task)| *task));
    inputs
}

fn note_unknown_key(drafts: &mut Drafts<'_, '_>, index: usize, field: &str, wanted: &str) {
    let known: Vec<&str> =
        drafts.tasks.iter().skip(1).take(KEYS_SHOWN_MAX).map(|task| &*task.key).collect();
    let field = format!("{}{field}", drafts.tasks[index].at);
    let hint = if known.is_empty() {
        "the task is not split into subtasks, so there are no earlier results".to_owned()
    } else {
        let quoted: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
        format!("use one of {}", quoted.join(", "))
    };
    let message =
        format!("`{field}` names `{wanted}`, which is no task of this plan\nhint: {hint}");
    let error = ApiError::new(ErrorCode::UnknownKey, message)
        .with("key", wanted)
        .with("field", &*field)
        .with("known", known);
    drafts.faults.note(field, error);
}

/// The beginning of a task.
fn start(task: usize) -> usize {
    2 * task
}

/// The end of a task.
fn end(task: usize) -> usize {
    2 * task + 1
}

/// What must have happened before the beginning or end that `node` is.
fn before<'d>(drafts: &'d Drafts<'_, '_>, node: usize) -> impl Iterator<Item = usize> + 'd {
    let task = &drafts.tasks[node / 2];
    let begins = node.is_multiple_of(2);
    let above = task.parent.filter(|_| begins).map(start);
    let depends_on = if begins { &task.depends_on[..] } else { &[] };
    let below = if begins { &[] } else { &task.children[..] };
    let itself = (!begins).then(|| start(node / 2));
    let ends = depends_on.iter().chain(below).map(|other| end(*other));
    above.into_iter().chain(itself).chain(ends)
}

fn check_acyclic(drafts: &Drafts<'_, '_>) -> Result<(), ApiError> {
    let nodes_count = 2 * drafts.tasks.len();
    let mut open: Vec<usize> = (0..nodes_count).map(|node| before(drafts, node).count()).collect();
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); nodes_count];
    for node in 0..nodes_count {
        before(drafts, node).for_each(|earlier| after[earlier].push(node));
    }
    let mut free: Vec<usize> = (0..nodes_count).filter(|node| open[*node] == 0).collect();
    while let Some(node) = free.pop() {
        for later in &after[node] {
            open[*later] -= 1;
            if open[*later] == 0 {
                free.push(*later);
            }
        }
    }
    match (0..nodes_count).find(|node| open[*node] > 0) {
        None => Ok(()),
        Some(stuck) => Err(cycle(drafts, &open, stuck)),
    }
}

/// Names a cycle: whatever is stuck waits for something stuck, so walking back finds one.
fn cycle(drafts: &Drafts<'_, '_>, open: &[usize], stuck: usize) -> ApiError {
    let (mut path, mut node) = (vec![stuck], stuck);
    let round = loop {
        let Some(earlier) = before(drafts, node).find(|earlier| open[*earlier] > 0) else {
            break &path[..];
        };
        if let Some(first) = path.iter().position(|passed| *passed == earlier) {
            break &path[first..];
        }
        path.push(earlier);
        node = earlier;
    };
    let waits = |node: &&usize| !drafts.tasks[**node / 2].depends_on.is_empty();
    let at = round.iter().find(waits).map_or("", |node| &drafts.tasks[node / 2].at);
    let mut keys: Vec<&str> = round
        .iter()
        .map(|node| &*drafts.tasks[node / 2].key)
        .filter(|key| !key.is_empty())
        .collect();
    keys.dedup();
    if keys.len() > 1 && keys.first() == keys.last() {
        keys.pop();
    }
    let shown: Vec<String> =
        keys.iter().take(KEYS_SHOWN_MAX).map(|key| format!("`{key}`")).collect();
    let message = match &shown[..] {
        [only] => format!("{only} waits for itself"),
        [first, ..] => format!("tasks wait for each other: {} -> {first}", shown.join(" -> ")),
        [] => "tasks wait for each other".to_owned(),
    };
    let error = ApiError::new(ErrorCode::PlanCycle, message.clone());
    error.with_field(&format!("{at}depends_on"), message).with("cycle", keys)
}

/// Gives each parent whose result is that of its sink the one sink, or the list of all.
fn choose_sinks(drafts: &mut Drafts<'_, '_>) {
    let mut needed = vec![false; drafts.tasks.len()];
    for task in 0..drafts.tasks.len() {
        for earlier in &drafts.tasks[task].depends_on {
            needed[outermost(drafts, *earlier, task)] = true;
        }
    }
    for parent in 0..drafts.tasks.len() {
        let draft = &mut drafts.tasks[parent];
        if draft.collect == CollectRule::Sink {
            let mut sinks = draft.children.iter().filter(|child| !needed[**child]);
            draft.collect = match (sinks.next(), sinks.next()) {
                (Some(only), None) => CollectRule::One(*only),
                _ => CollectRule::All,
            };
        }
    }
}

/// The outermost task around `task` (or itself) that `other` is not below.
fn outermost(drafts: &Drafts<'_, '_>, mut task: usize, other: usize) -> usize {
    while let Some(parent) = drafts.tasks[task].parent {
        if is_below(drafts, other, parent) {
            break;
        }
        task = parent;
    }
    task
}

fn is_below(drafts: &Drafts<'_, '_>, task: usize, above: usize) -> bool {
    let mut next = drafts.tasks[task].parent;
    while let Some(parent) = next {
        if parent == above {
            return true;
        }
        next = drafts.tasks[parent].parent;
    }
    false
}

/// Repeats the dependencies of parents on what would start too early below them.
fn repeat_below(drafts: &mut Drafts<'_, '_>) -> Result<(), ApiError> {
    let mut edges_count = 0;
    for task in 0..drafts.tasks.len() {
        if let Some(parent) = drafts.tasks[task].parent {
            let inner =
                drafts.tasks[task].depends_on.iter().any(|other| is_below(drafts, *other, parent));
            if !inner && !drafts.tasks[parent].depends_on.is_empty() {
                let above = drafts.tasks[parent].depends_on.clone();
                let depends_on = &mut drafts.tasks[task].depends_on;
                depends_on.extend(above);
                depends_on.sort_unstable();
                depends_on.dedup();
            }
        }
        edges_count += drafts.tasks[task].depends_on.len();
        if edges_count > PLAN_EDGES_MAX {
            let maximum = u64::try_from(PLAN_EDGES_MAX).unwrap_or(u64::MAX);
            return Err(too_large("dependencies", maximum));
        }
    }
    Ok(())
}
