//! Plans: the graph that a submission became, or would become, and how long it takes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use maos_api::error::{ApiError, ErrorCode};
use maos_api::plan::ExecutionPlan;
use maos_core::ids::{Attempt, PlanId, TaskId};
use maos_core::node::{Answer, Query};
use maos_core::record::{CollectRecord, Links, PlanRecord, Stage, TaskRecord, Times};
use maos_core::rejection::Rejection;
use maos_core::spec::{Collect, Plan};
use maos_core::time::{Timestamp, WallTime};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::tasks::{SubmitOptions, blocking};
use super::{Service, faults, present};
use crate::driver::Refused;

impl Service {
    /// A plan as it is, by its own id or that of its root.
    ///
    /// # Errors
    /// That there is no such plan, or why it cannot be told.
    pub async fn execution_plan(&self, id: Uuid) -> Result<ExecutionPlan, ApiError> {
        // Which task is a plan's root, the store alone knows.
        self.catch_up().await?;
        let store = self.inner.store.clone();
        let plan = PlanId(id.as_u128());
        let found = blocking(move || store.root_of(plan)).await;
        let root = found.map_err(|why| self.storage(&why))?.unwrap_or(TaskId(id.as_u128()));
        let records = match self.inner.driver.ask(Query::Plan(root)).await {
            Ok(Answer::Plan(records)) => records,
            Ok(_) => return Err(faults::internal(&"a plan was something else")),
            Err(Refused::Rejection(Rejection::TaskNotFound(_))) => self.stored_plan(root).await?,
            Err(refused) => return Err(faults::refused(refused)),
        };
        if records.first().is_none_or(|first| first.id != root || first.plan.root != root) {
            let message = format!("no plan has the id `{id}`");
            return Err(
                ApiError::new(ErrorCode::PlanNotFound, message).with("plan_id", id.to_string())
            );
        }
        Ok(shown(&records, Vec::new()))
    }

    /// The plan that a submission would become. Nothing is kept.
    ///
    /// # Errors
    /// What is wrong with the submission.
    pub fn preview(&self, body: &[u8]) -> Result<ExecutionPlan, ApiError> {
        let planned = self.plan(body, &SubmitOptions::default())?;
        let records = drafted(&planned.plan, WallTime(super::now().0));
        Ok(shown(&records, planned.warnings))
    }
}

/// The rows that a plan would have once it is accepted.
fn drafted(plan: &Plan, now: WallTime) -> Vec<TaskRecord> {
    let id_of = |index: &u32| plan.tasks[usize::try_from(*index).unwrap_or_default()].id;
    let shared = Arc::new(PlanRecord {
        id: plan.id,
        root: plan.root().id,
        namespace: plan.namespace.clone(),
        submitter: plan.submitter.clone(),
        strategy: plan.strategy.clone(),
        idempotency: None,
        idempotency_until: Timestamp(0),
    });
    let mut subtasks: HashMap<TaskId, Vec<TaskId>> = HashMap::new();
    for task in &plan.tasks {
        if let Some(parent) = &task.parent {
            subtasks.entry(id_of(parent)).or_default().push(task.id);
        }
    }
    let draft = |(task, index): (&maos_core::spec::PlanTask, u32)| {
        let children = subtasks.remove(&task.id).unwrap_or_default();
        let waits = !children.is_empty() || !task.depends_on.is_empty();
        let collect = match task.collect {
            Collect::All => CollectRecord::All,
            Collect::One(of) => CollectRecord::One(id_of(&of)),
        };
        let links = Links {
            parent: task.parent.as_ref().map(id_of),
            depends_on: task.depends_on.iter().map(id_of).collect(),
            collect: (!children.is_empty()).then_some(collect),
            subtasks: children.into(),
        };
        TaskRecord {
            id: task.id,
            spec: task.spec.clone(),
            plan: shared.clone(),
            index,
            links: links.boxed(),
            trail: None,
            stage: if waits { Stage::Waiting } else { Stage::Ready { since: Timestamp(0) } },
            attempt: Attempt(0),
            retries_used: 0,
            losses: 0,
            times: Times { created: now, updated: now, ..Times::default() },
            stopping: [].into(),
            ran_by: None,
        }
    };
    plan.tasks.iter().zip(0..).map(draft).collect()
}

/// Where a task stands in the order of a plan: the group it or its last subtask is in, and when it
/// is over at the earliest.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    /// 0: nothing before it.
    group: usize,
    end_s: f64,
    /// The task before it on the longest way here; of a parent: the last on the longest way.
    by: Option<usize>,
}

fn shown(records: &[TaskRecord], warnings: Vec<String>) -> ExecutionPlan {
    let durations = Durations::of(records);
    let (reached, groups) = order(records, &durations);
    let (critical_path, estimated_duration) = longest(records, &reached);
    let widest = groups.iter().rev().max_by_key(|group| group.len());
    let mut resources: BTreeMap<String, f64> = BTreeMap::new();
    for index in widest.into_iter().flatten() {
        for (kind, amount) in present::amounts(&records[*index].spec.demand.resources) {
            *resources.entry(kind).or_default() += amount;
        }
    }
    let id = |index: &usize| present::uuid(records[*index].id);
    let root = &records[0];
    let strategy = root.plan.strategy.as_deref().map_or(Value::Null, Value::from);
    let metadata = Map::from_iter([
        ("strategy".to_owned(), strategy),
        ("durations".to_owned(), durations.source.into()),
    ]);
    ExecutionPlan {
        id: Uuid::from_u128(root.plan.id.0),
        root_task_id: present::uuid(root.id),
        tasks: records.iter().map(|task| (present::uuid(task.id), present::light(task))).collect(),
        parallel_groups: groups.iter().map(|group| group.iter().map(id).collect()).collect(),
        critical_path: critical_path.iter().map(id).collect(),
        estimated_duration,
        resource_requirements: resources,
        created_at: present::time(root.times.created),
        metadata,
        warnings,
    }
}

/// How long the tasks of a plan take.
struct Durations {
    seconds: Vec<f64>,
    source: &'static str,
}

impl Durations {
    fn of(records: &[TaskRecord]) -> Durations {
        let leaves = || records.iter().filter(|task| task.subtasks().is_empty());
        let measured: Vec<f64> = leaves().filter_map(took).collect();
        #[expect(clippy::cast_precision_loss, reason = "a plan has ten thousand tasks at the most")]
        let mean = measured.iter().sum::<f64>() / measured.len() as f64;
        let source = match measured.len() {
            0 => "timeout",
            count if count < leaves().count() => "mean",
            _ => "measured",
        };
        let seconds = records.iter().map(|task| match took(task) {
            Some(seconds) => seconds,
            None if !measured.is_empty() => mean,
            None => seconds(task.spec.timeout_ms.saturating_mul(1_000)),
        });
        Durations { seconds: seconds.collect(), source }
    }
}

/// What a task took from the start of its last attempt to its end; `None` if it has not run to its
/// end.
fn took(task: &TaskRecord) -> Option<f64> {
    let (started, ended) = (task.times.started?, task.times.ended?);
    Some(seconds(ended.0.saturating_sub(started.0)))
}

#[expect(clippy::cast_precision_loss, reason = "estimates for people")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Goes through the graph in an order in which nothing comes before what it waits for: a leaf waits
/// for its dependencies, a parent for its subtasks.
fn order(records: &[TaskRecord], durations: &Durations) -> (Vec<Reached>, Vec<Vec<usize>>) {
    let index: HashMap<TaskId, usize> =
        records.iter().enumerate().map(|(index, task)| (task.id, index)).collect();
    let is_leaf = |task: &TaskRecord| task.subtasks().is_empty();
    // Those of a parent are repeated on its subtasks.
    let needs: Vec<Vec<usize>> = records
        .iter()
        .map(|task| {
            let needed = if is_leaf(task) { task.depends_on() } else { task.subtasks() };
            needed.iter().filter_map(|id| index.get(id).copied()).collect()
        })
        .collect();
    let mut missing: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); records.len()];
    for (task, needed) in needs.iter().enumerate() {
        for needed in needed {
            waiting[*needed].push(task);
        }
    }
    let mut open: Vec<usize> = (0..records.len()).filter(|task| missing[*task] == 0).collect();
    let mut reached = vec![Reached::default(); records.len()];
    let mut groups: Vec<Vec<usize>> = Vec::new();
    while let Some(task) = open.pop() {
        let last =
            needs[task].iter().max_by(|a, b| reached[**a].end_s.total_cmp(&reached[**b].end_s));
        let deepest = needs[task].iter().map(|needed| reached[*needed].group + 1).max();
        let before = last.map_or(0.0, |last| reached[*last].end_s);
        let by = last.copied();
        if is_leaf(&records[task]) {
            let group = deepest.unwrap_or(0);
            groups.resize_with(groups.len().max(group + 1), Vec::new);
            groups[group].push(task);
            reached[task] = Reached { group, end_s: before + durations.seconds[task], by };
        } else {
            let group = deepest.map_or(0, |deepest| deepest - 1);
            reached[task] = Reached { group, end_s: before, by };
        }
        for next in &waiting[task] {
            missing[*next] -= 1;
            if missing[*next] == 0 {
                open.push(*next);
            }
        }
    }
    for group in &mut groups {
        group.sort_unstable();
    }
    (reached, groups)
}

/// The leaves on the longest way to the end of the root, and its length in seconds.
fn longest(records: &[TaskRecord], reached: &[Reached]) -> (Vec<usize>, f64) {
    let mut path = Vec::new();
    let mut at = Some(0);
    while let Some(task) = at {
        if records[task].subtasks().is_empty() {
            path.push(task);
        }
        at = reached[task].by;
    }
    path.reverse();
    (path, reached[0].end_s)
}
