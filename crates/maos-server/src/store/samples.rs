//! Rows and steps for the tests of this room.

use std::sync::Arc;

use maos_core::event::{Event, Step};
use maos_core::ids::{AgentId, Attempt, Epoch, NodeId, PlanId, Position, Sequence, TaskId};
use maos_core::payload::Payload;
use maos_core::record::{
    AgentRecord, EngineRecord, HeldAttempt, Links, PlanRecord, Stage, Tally, TaskRecord, Times,
};
use maos_core::spec::{
    AgentSpec, Amounts, Collect, Demand, IdempotencyKey, Names, Plan, PlanTask, Runtime, TaskSpec,
};
use maos_core::time::{Moment, Timestamp, WallTime};

use super::Changes;

fn spec(id: u128) -> Arc<TaskSpec> {
    Arc::new(TaskSpec {
        parameters: Payload::inline(b"{\"action\":\"noop\"}"),
        demand: Arc::new(Demand { capabilities: Names::new(["work".into()]), ..Demand::default() }),
        timeout_ms: 10_000,
        retries_max: 1,
        ..TaskSpec::new(&format!("task {id}"))
    })
}

/// Task `id` of the plan with this root; the root's place is 0.
pub(super) fn task(root: u128, id: u128, stage: Stage) -> TaskRecord {
    let plan = PlanRecord {
        id: PlanId(root),
        root: TaskId(root),
        namespace: "default".into(),
        submitter: "".into(),
        strategy: None,
        idempotency: None,
        idempotency_until: Timestamp(0),
    };
    let ran_by = if let Stage::Running { agent, .. } = stage { Some(agent) } else { None };
    TaskRecord {
        id: TaskId(id),
        spec: spec(id),
        plan: Arc::new(plan),
        index: u32::try_from(id - root).unwrap(),
        links: Links { parent: (id != root).then_some(TaskId(root)), ..Links::default() }.boxed(),
        trail: None,
        stage,
        attempt: Attempt(0),
        retries_used: 0,
        losses: 0,
        times: Times { created: WallTime(5), updated: WallTime(6), ..Times::default() },
        stopping: [].into(),
        ran_by,
    }
}

pub(super) fn ready() -> Stage {
    Stage::Ready { since: Timestamp(1) }
}

pub(super) fn done() -> Stage {
    Stage::Completed(Payload::inline(b"1"))
}

pub(super) fn stopping(mut task: TaskRecord, agent: u128) -> TaskRecord {
    task.stopping = [HeldAttempt { attempt: Attempt(1), agent: AgentId(agent) }].into();
    task
}

pub(super) fn with_key(mut task: TaskRecord, key: &str, until: u64) -> TaskRecord {
    let plan = Arc::make_mut(&mut task.plan);
    plan.idempotency = Some(IdempotencyKey { key: key.into(), body_hash: [7; 32], part: None });
    plan.idempotency_until = Timestamp(until);
    task
}

pub(crate) fn agent(id: u128) -> AgentRecord {
    let spec = AgentSpec {
        id: AgentId(id),
        namespace: "default".into(),
        submitter: "".into(),
        name: format!("agent {id}").into(),
        agent_type: "worker".into(),
        capabilities: Names::new(["work".into()]),
        runtime: Runtime::Worker,
        node: NodeId(1),
        slots: 1,
        pool: None,
        configuration: None,
        resource_limits: Amounts::default(),
        tags: Names::default(),
        silence_ms: None,
    };
    let tally = Tally::default();
    AgentRecord { spec: Arc::new(spec), end: None, created: WallTime(1), tally, expected: false }
}

/// The position of a step of the first reign.
pub(super) fn position(sequence: u64) -> Position {
    Position { epoch: Epoch(1), sequence: Sequence(sequence) }
}

pub(super) fn changes(sequence: u64, tasks: Vec<TaskRecord>) -> Changes {
    let engine = EngineRecord {
        position: position(sequence),
        at: Timestamp(100),
        ..EngineRecord::default()
    };
    Changes { engine, tasks, ..Changes::default() }
}

/// A step that says which one it is.
pub(super) fn step(sequence: u64) -> Step {
    let id = TaskId(sequence.into());
    let task = PlanTask {
        id,
        spec: spec(id.0),
        parent: None,
        depends_on: [].into(),
        collect: Collect::All,
    };
    let plan = Plan {
        id: PlanId(id.0),
        namespace: "default".into(),
        submitter: "".into(),
        strategy: None,
        idempotency: None,
        tasks: [task].into(),
    };
    let moment = Moment { at: Timestamp(sequence), ..Moment::default() };
    Step { moment, events: vec![Event::Submitted { plan: Arc::new(plan) }] }
}
