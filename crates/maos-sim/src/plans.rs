//! What clients and operators ask for: plans of every shape, agents of every kind.

use std::sync::Arc;

use maos_core::ids::{AgentId, NodeId, PlanId, TaskId};
use maos_core::limits::STEP_EVENTS_MAX;
use maos_core::payload::Payload;
use maos_core::spec::{
    AgentSpec, Amounts, Artifact, Bound, Collect, Deadline, Demand, Expansion, FailurePolicy,
    IdempotencyKey, Limit, Limits, Name, Names, Patience, Plan, PlanTask, Priority, Rare, Runtime,
    Setting, TaskPatch, TaskSpec, Work,
};
use maos_core::time::{Timestamp, WallTime};

use crate::rng::Rng;

/// The one server of this world.
pub(crate) const NODE: NodeId = NodeId(1);
/// A capability that no agent ever has.
pub(crate) const NEVER: &str = "never";
/// Agents that may come and go.
pub(crate) const AGENTS: u64 = 9;

const CAPABILITIES: [&str; 3] = ["build", "read", "write"];
const POLICIES: [FailurePolicy; 3] =
    [FailurePolicy::FailFast, FailurePolicy::Continue, FailurePolicy::Ignore];

fn names(words: &[&str]) -> Names {
    Names::new(words.iter().map(|word| Name::from(*word)))
}

/// A task that any agent of the healed phase can do.
pub(crate) fn plain(name: &str) -> TaskSpec {
    TaskSpec { timeout_ms: 10_000, retries_max: 0, ..TaskSpec::new(name) }
}

/// A task that no agent can do.
pub(crate) fn impossible() -> TaskSpec {
    let demand = Demand { capabilities: names(&[NEVER]), ..Demand::default() };
    TaskSpec { demand: Arc::new(demand), ..plain("impossible") }
}

fn some_demand(rng: &mut Rng) -> Demand {
    let capability = CAPABILITIES[rng.index(CAPABILITIES.len())];
    let mut amounts: Vec<(Name, u64)> = Vec::new();
    if rng.once_in(3) {
        amounts.push(("cpu_cores".into(), 500 * (1 + rng.below(4))));
    }
    if rng.once_in(6) {
        amounts.push(("memory".into(), 1_000 * (1 + rng.below(3))));
    }
    let agent = rng.once_in(15).then(|| 1 + rng.below(AGENTS));
    let agent_type: Option<Name> = rng.once_in(12).then(|| "worker".into());
    // A built-in agent never knows free work.
    let builtin = agent.is_some_and(|number| runtime(number) == Runtime::Builtin);
    let named = agent.is_some() || agent_type.is_some();
    let work = match rng.below(8) {
        0..=1 if !builtin => Work::FreeForm,
        2 if !named => Work::BuiltIn(capability.into()),
        _ => Work::Known(capability.into()),
    };
    Demand {
        capabilities: names(&[if rng.once_in(40) { NEVER } else { capability }]),
        agent_type,
        agent: agent.map(|number| AgentId(u128::from(number))),
        work,
        resources: Amounts::new(amounts),
    }
}

/// One of the few keys that tasks share.
pub(crate) fn some_key(rng: &mut Rng) -> Name {
    ["red", "green", "blue"][rng.index(3)].into()
}

/// What may be set for one.
pub(crate) fn some_setting(rng: &mut Rng) -> Setting {
    let mut number = |most| u32::try_from(1 + rng.below(most)).unwrap_or(1);
    match number(4) {
        1 => Setting::Weight(None),
        2 => Setting::Weight(Some(number(9))),
        3 => Setting::Limit(None),
        _ => Setting::Limit(Some(Limit {
            running_max: Some(number(4)).filter(|most| *most < 4),
            starts_per_minute: Some(number(4)).filter(|rate| *rate < 4).map(|rate| 20 * rate),
        })),
    }
}

/// What may become another in a task.
pub(crate) fn some_patch(rng: &mut Rng, now: Timestamp) -> TaskPatch {
    let limits = Limits {
        parameters: rng.once_in(2).then(|| Payload::inline(b"{\"other\":1}")),
        timeout_ms: rng.once_in(2).then(|| 1_000 * (1 + rng.below(60))),
        retries_max: rng.once_in(2).then_some(7),
        resources: rng.once_in(2).then(|| Amounts::new([("cpu_cores".into(), 500)])),
    };
    TaskPatch {
        priority: rng.once_in(2).then_some(Priority::Critical),
        tags: rng.once_in(2).then(|| Names::new(["changed".into()])),
        metadata: rng.once_in(3).then(|| Payload::inline(b"{\"changed\":true}")),
        limits: rng.once_in(2).then_some(limits),
        patience: some_patience(rng, now),
    }
}

fn some_patience(rng: &mut Rng, now: Timestamp) -> Patience {
    let some_ms = |rng: &mut Rng, most: u64| match rng.below(6) {
        0 => Some(Bound::Lifted),
        1 => Some(Bound::Set(500 * (1 + rng.below(most)))),
        _ => None,
    };
    let deadline = match rng.below(8) {
        0 => Some(Bound::Lifted),
        1 => {
            let at = now.plus_ms(1_000 * rng.below(200));
            Some(Bound::Set(Deadline { at, shown: WallTime(at.0) }))
        }
        _ => None,
    };
    Patience { deadline, queue_timeout_ms: some_ms(rng, 180), no_progress_ms: some_ms(rng, 40) }
}

/// A file that may be kept with a task.
pub(crate) fn some_artifact(rng: &mut Rng) -> Artifact {
    let name = ["model", "log"][rng.index(2)];
    Artifact {
        name: name.into(),
        media_type: "text/plain".into(),
        content: Payload::inline(name.as_bytes()),
        kept: WallTime::default(),
    }
}

fn some_rare(rng: &mut Rng, now: Timestamp) -> Rare {
    Rare {
        queue_timeout_ms: rng.once_in(5).then(|| 1_000 * (1 + rng.below(90))),
        no_progress_ms: rng.once_in(5).then(|| 500 * (1 + rng.below(40))),
        deadline: rng.once_in(8).then(|| now.plus_ms(1_000 * rng.below(200))),
        concurrency_key: rng.once_in(6).then(|| some_key(rng)),
        fairness_key: rng.once_in(4).then(|| some_key(rng)),
        start_at: rng.once_in(8).then(|| now.plus_ms(1_000 * rng.below(100))),
        ..Rare::default()
    }
}

fn some_spec(rng: &mut Rng, now: Timestamp) -> TaskSpec {
    let priorities = [Priority::Low, Priority::Medium, Priority::High, Priority::Critical];
    TaskSpec {
        priority: priorities[rng.index(priorities.len())],
        demand: Arc::new(some_demand(rng)),
        timeout_ms: 1_000 * (1 + rng.below(60)),
        retries_max: u32::try_from(rng.below(4)).unwrap_or_default(),
        on_failure: POLICIES[rng.index(POLICIES.len())],
        rare: some_rare(rng, now).boxed(),
        ..plain("task")
    }
}

/// Makes the tasks of one plan.
struct Drawing<'a> {
    rng: &'a mut Rng,
    now: Timestamp,
    next_id: &'a mut u64,
    tasks: Vec<PlanTask>,
}

impl Drawing<'_> {
    fn add(&mut self, parent: Option<u32>, depends_on: Vec<u32>) -> u32 {
        let index = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        *self.next_id += 1;
        let id = TaskId((u128::from(*self.next_id) << 64) | u128::from(self.rng.next()));
        let spec = Arc::new(some_spec(self.rng, self.now));
        let depends_on = depends_on.into_boxed_slice();
        self.tasks.push(PlanTask { id, spec, parent, depends_on, collect: Collect::All });
        index
    }

    /// Any earlier task of the plan that is not above the children of `parent`.
    fn some_relative(&mut self, parent: u32) -> Option<u32> {
        let any = u32::try_from(self.rng.index(self.tasks.len())).ok()?;
        let mut above = Some(parent);
        while let Some(index) = above {
            if index == any {
                return None;
            }
            above = self.tasks.get(usize::try_from(index).ok()?)?.parent;
        }
        Some(any)
    }

    /// Subtasks of `parent`; they wait for what holds it back, and some for each other.
    fn family(&mut self, parent: u32, held_back_by: &[u32], depth: u32) {
        let mut siblings: Vec<u32> = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            let mut depends_on = held_back_by.to_vec();
            for sibling in &siblings {
                if self.rng.once_in(3) {
                    depends_on.push(*sibling);
                }
            }
            if self.rng.once_in(8) {
                depends_on.extend(self.some_relative(parent));
            }
            depends_on.sort_unstable();
            depends_on.dedup();
            let index = self.add(Some(parent), depends_on.clone());
            if depth > 0 && self.rng.once_in(4) {
                self.family(index, &depends_on, depth - 1);
            }
            siblings.push(index);
        }
        if self.rng.once_in(4) {
            let at = usize::try_from(parent).unwrap_or_default();
            let one = siblings[self.rng.index(siblings.len())];
            self.tasks[at].collect = Collect::One(one);
        }
    }
}

/// A plan of one task or of many.
pub(crate) fn some_plan(rng: &mut Rng, now: Timestamp, next_id: &mut u64) -> Plan {
    let many = rng.below(5) < 2;
    let mut drawing = Drawing { rng, now, next_id, tasks: Vec::new() };
    drawing.add(None, Vec::new());
    if many {
        drawing.family(0, &[], 2);
    }
    let tasks = drawing.tasks;
    let key = rng.once_in(4).then(|| IdempotencyKey {
        key: format!("key {}", *next_id).into(),
        body_hash: [7; 32],
        part: None,
    });
    plan_of(tasks, key)
}

/// Subtasks that an attempt makes of its task.
pub(crate) fn some_expansion(rng: &mut Rng, now: Timestamp, next_id: &mut u64) -> Expansion {
    let mut drawing = Drawing { rng, now, next_id, tasks: Vec::new() };
    drawing.add(None, Vec::new());
    drawing.family(0, &[], 2);
    // Without the root, everything moves up by one.
    let collect = match drawing.tasks[0].collect {
        Collect::All => Collect::All,
        Collect::One(index) => Collect::One(index - 1),
    };
    let tasks = drawing.tasks.into_iter().skip(1).map(|mut task| {
        task.parent = task.parent.and_then(|parent| parent.checked_sub(1));
        task.depends_on.iter_mut().for_each(|needed| *needed -= 1);
        if let Collect::One(index) = &mut task.collect {
            *index -= 1;
        }
        task
    });
    Expansion { tasks: tasks.collect(), collect }
}

/// A plan in which more follows from one task's end than fits into one step.
pub(crate) fn huge_plan(rng: &mut Rng, now: Timestamp, next_id: &mut u64) -> Plan {
    let mut drawing = Drawing { rng, now, next_id, tasks: Vec::new() };
    drawing.add(None, Vec::new());
    let first = drawing.add(Some(0), Vec::new());
    for _ in 0..STEP_EVENTS_MAX + 100 {
        drawing.add(Some(0), vec![first]);
    }
    let mut tasks = drawing.tasks;
    let root = TaskSpec { on_failure: FailurePolicy::Continue, ..plain("huge") };
    tasks[0].spec = Arc::new(root);
    plan_of(tasks, None)
}

/// A plan of exactly these tasks.
pub(crate) fn plan_of(tasks: Vec<PlanTask>, idempotency: Option<IdempotencyKey>) -> Plan {
    Plan {
        id: PlanId(tasks[0].id.0),
        namespace: "default".into(),
        submitter: "".into(),
        strategy: None,
        idempotency,
        tasks: tasks.into(),
    }
}

/// The runtime of an agent, which its number decides.
pub(crate) fn runtime(number: u64) -> Runtime {
    match number % 3 {
        0 => Runtime::Builtin,
        1 => Runtime::Command,
        _ => Runtime::Worker,
    }
}

/// An agent that may be there; its number decides its runtime.
pub(crate) fn some_agent(rng: &mut Rng, number: u64) -> AgentSpec {
    let slots = u32::try_from(1 + rng.below(3)).unwrap_or(1);
    let able = CAPABILITIES.into_iter().filter(|_| rng.below(3) > 0).collect::<Vec<_>>();
    // Some say themselves how long they may be silent.
    let silence_ms = (rng.below(4) == 0).then(|| 1_000 * (1 + rng.below(600)));
    AgentSpec { silence_ms, ..agent(u128::from(number), runtime(number), slots, &able) }
}

/// An agent that can do everything that can be done.
pub(crate) fn able_agent(number: u128, runtime: Runtime) -> AgentSpec {
    agent(number, runtime, 3, &CAPABILITIES)
}

fn agent(number: u128, runtime: Runtime, slots: u32, able: &[&str]) -> AgentSpec {
    AgentSpec {
        id: AgentId(number),
        namespace: "default".into(),
        submitter: "".into(),
        name: format!("agent {number}").into(),
        agent_type: "worker".into(),
        capabilities: names(able),
        runtime,
        node: NODE,
        slots,
        pool: None,
        configuration: None,
        resource_limits: Amounts::default(),
        tags: Names::default(),
        silence_ms: None,
    }
}
