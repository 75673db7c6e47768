//! The engine at its door: given steps, when a command comes, then these events or this refusal.

mod kept;
mod why;

use std::format;
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::command::{Command, Report};
use crate::event::{AgentEnd, Event, Failure, FailureKind};
use crate::ids::PlanId;
use crate::laws;
use crate::payload::Payload;
use crate::record::Stage;
use crate::spec::*;
use crate::time::WallTime;
use crate::view::BlockerKind;

/// An engine under test: every step is checked against the laws.
struct Bench {
    state: State,
    now_ms: u64,
}

fn spec(name: &str) -> TaskSpec {
    TaskSpec {
        demand: Arc::new(Demand { capabilities: Names::new(["work".into()]), ..Demand::default() }),
        timeout_ms: 10_000,
        retries_max: 1,
        ..TaskSpec::new(name)
    }
}

fn plan_of(tasks: Vec<PlanTask>) -> Arc<Plan> {
    Arc::new(Plan {
        id: PlanId(tasks[0].id.0),
        namespace: "default".into(),
        submitter: "".into(),
        strategy: None,
        idempotency: None,
        tasks: tasks.into(),
    })
}

fn planned(id: u128, parent: Option<u32>, depends_on: &[u32], spec: TaskSpec) -> PlanTask {
    let (id, spec, depends_on) = (TaskId(id), Arc::new(spec), depends_on.into());
    PlanTask { id, spec, parent, depends_on, collect: Collect::All }
}

fn single(id: u128, spec: TaskSpec) -> Command {
    Command::Submit { plan: plan_of(vec![planned(id, None, &[], spec)]) }
}

fn agent(id: u128, slots: u32, runtime: Runtime) -> Arc<AgentSpec> {
    Arc::new(AgentSpec {
        id: AgentId(id),
        namespace: "default".into(),
        submitter: "".into(),
        name: format!("agent {id}").into(),
        agent_type: "worker".into(),
        capabilities: Names::new(["work".into()]),
        runtime,
        node: NodeId(1),
        slots,
        pool: None,
        configuration: None,
        resource_limits: Amounts::default(),
        tags: Names::default(),
        silence_ms: None,
    })
}

fn report(task: u128, attempt: u32, report: Report) -> Command {
    Command::Report { task: TaskId(task), attempt: Attempt(attempt), report }
}

fn done() -> Report {
    Report::Completed(Payload::inline(b"1"))
}

fn failed(permanent: bool) -> Report {
    Report::Failed(Failure { kind: FailureKind::Reported, message: "no".into(), permanent })
}

impl Bench {
    fn new() -> Bench {
        Bench { state: State::default(), now_ms: 1_000 }
    }

    fn with_agent(slots: u32) -> Bench {
        let mut bench = Bench::new();
        bench.run(Command::RegisterAgent { agent: agent(1, slots, Runtime::Command) });
        bench
    }

    /// Runs a command and all that follows; the events, or the refusal in words.
    fn try_run(&mut self, command: Command) -> Result<Vec<Event>, String> {
        let decided = self.state.decide(&self.moment(), &command);
        Ok(self.step(decided.map_err(|why| why.to_string())?))
    }

    fn moment(&self) -> Moment {
        let now_us = self.now_ms * 1_000;
        Moment { at: Timestamp(now_us), wall: WallTime(now_us), entropy: 0 }
    }

    fn step(&mut self, mut events: Vec<Event>) -> Vec<Event> {
        let moment = self.moment();
        self.state.begin_step(self.state.sequence().next(), moment);
        for event in &events {
            self.state.apply(event);
        }
        while let Some(event) = self.state.follow_up(&moment) {
            self.state.apply(&event);
            events.push(event);
        }
        laws::check_settled(&self.state).unwrap();
        self.survives_a_restart();
        events
    }

    /// An agent that does its work elsewhere and was heard of.
    fn worker(&mut self, id: u128) {
        self.run(Command::RegisterAgent { agent: agent(id, 1, Runtime::Worker) });
        let arrived = self.state.arrival(AgentId(id)).expect("it was not heard of before");
        self.step(vec![arrived]);
    }

    fn run(&mut self, command: Command) -> Vec<Event> {
        self.try_run(command).unwrap()
    }

    fn later(&mut self, ms: u64) -> Vec<Event> {
        self.now_ms += ms;
        self.run(Command::Tick)
    }

    /// The rows of a state bring back a state with the same rows that keeps the same laws.
    fn survives_a_restart(&self) {
        let rows = |state: &State| -> Vec<_> {
            let ids = state.tasks.iter().map(|(_, task)| task.id);
            ids.map(|id| (id, state.task(id))).collect::<BTreeMap<_, _>>().into_iter().collect()
        };
        let before = rows(&self.state);
        let recovered = State::recover(Rows {
            engine: self.state.engine_record(),
            agents: self.state.agents().collect(),
            tasks: before.iter().filter_map(|(_, record)| record.clone()),
            remembered: vec![],
            entries: self.state.entries.values().cloned().collect(),
        });
        laws::check(&recovered).unwrap();
        assert_eq!(before, rows(&recovered));
        assert_eq!(self.state.timers.len(), recovered.timers.len());
        assert_eq!(self.state.leases, recovered.leases);
        assert_eq!(self.state.entries, recovered.entries);
    }

    fn stage(&self, id: u128) -> Stage {
        self.state.task(TaskId(id)).unwrap().stage
    }

    fn states(&self, ids: &[u128]) -> Vec<&'static str> {
        ids.iter().map(|id| self.stage(*id).wire_name()).collect()
    }
}

/// A root with subtasks 11, 12, .. where each depends on the ones named.
fn family(on_failure: FailurePolicy, depends: &[&[u32]]) -> Command {
    let root = TaskSpec { on_failure, retries_max: 0, ..spec("root") };
    let mut tasks = vec![planned(10, None, &[], root)];
    for (index, depends_on) in depends.iter().enumerate() {
        let id = 11 + index as u128;
        let child = TaskSpec { retries_max: 0, ..spec(&format!("t{id}")) };
        tasks.push(planned(id, Some(0), depends_on, child));
    }
    Command::Submit { plan: plan_of(tasks) }
}

#[test]
fn an_idle_agent_gets_its_task_in_the_step_that_accepts_it() {
    let mut bench = Bench::with_agent(1);
    let events = bench.run(single(5, spec("a")));
    assert!(matches!(events[..], [Event::Submitted { .. }, Event::Started { .. }]));
    assert_eq!(bench.states(&[5]), ["running"]);
    bench.run(report(5, 1, done()));
    assert_eq!(bench.states(&[5]), ["completed"]);
}

#[test]
fn a_completion_counts_once() {
    let mut bench = Bench::with_agent(1);
    bench.run(single(5, spec("a")));
    bench.run(report(5, 1, done()));
    let again = bench.try_run(report(5, 1, done())).unwrap_err();
    assert_eq!(again, format!("attempt 1 of task `{}` is not the running one", TaskId(5)));
    assert_eq!(bench.state.counters().tasks_completed, 1);
}

#[test]
fn priority_goes_first_and_age_overtakes_it() {
    let mut bench = Bench::new();
    bench.run(single(1, TaskSpec { priority: Priority::Low, ..spec("old") }));
    bench.now_ms += 60 * 60 * 1_000;
    bench.run(single(2, TaskSpec { priority: Priority::Medium, ..spec("medium") }));
    bench.run(single(3, TaskSpec { priority: Priority::Critical, ..spec("critical") }));
    bench.run(Command::RegisterAgent { agent: agent(1, 1, Runtime::Command) });
    assert_eq!(bench.states(&[1, 2, 3]), ["ready", "ready", "running"]);
    bench.run(report(3, 1, done()));
    assert_eq!(bench.states(&[1, 2, 3]), ["running", "ready", "completed"]);
}

#[test]
fn a_failure_is_retried_after_a_backoff_until_retries_are_used_up() {
    let mut bench = Bench::with_agent(1);
    bench.run(single(5, spec("a")));
    bench.run(report(5, 1, failed(false)));
    assert_eq!(bench.states(&[5]), ["retrying"]);
    bench.later(60_000);
    assert_eq!(bench.states(&[5]), ["running"]);
    assert!(bench.try_run(report(5, 1, done())).is_err());
    bench.run(report(5, 2, failed(false)));
    assert_eq!(bench.states(&[5]), ["failed"]);
}

#[test]
fn a_permanent_failure_is_not_retried() {
    let mut bench = Bench::with_agent(1);
    bench.run(single(5, spec("a")));
    bench.run(report(5, 1, failed(true)));
    assert_eq!(bench.states(&[5]), ["failed"]);
}

#[test]
fn a_timed_out_attempt_is_told_to_stop_and_keeps_its_slot_until_it_has() {
    let mut bench = Bench::with_agent(1);
    bench.run(single(5, TaskSpec { retries_max: 0, ..spec("slow") }));
    bench.run(single(6, spec("next")));
    bench.state.take_effects();
    bench.later(10_000);
    assert_eq!(bench.states(&[5, 6]), ["failed", "ready"]);
    assert!(matches!(bench.state.take_effects()[..], [Effect::Stop { .. }, Effect::Ended { .. }]));
    assert_eq!(bench.state.explain(TaskId(5)).unwrap()[0].kind, BlockerKind::Stopping);
    bench.run(Command::Release { task: TaskId(5), attempt: Attempt(1) });
    assert_eq!(bench.states(&[5, 6]), ["failed", "running"]);
    assert!(bench.run(Command::Release { task: TaskId(5), attempt: Attempt(1) }).is_empty());
}

#[test]
fn cancelling_ends_a_task_with_all_below_it_and_later_results_are_stale() {
    let mut bench = Bench::with_agent(1);
    bench.run(family(FailurePolicy::FailFast, &[&[], &[1]]));
    bench.run(Command::Cancel { task: TaskId(10), reason: "enough".into() });
    assert_eq!(bench.states(&[10, 11, 12]), ["cancelled"; 3]);
    assert!(bench.try_run(report(11, 1, done())).is_err());
    let refused = bench.try_run(Command::Cancel { task: TaskId(10), reason: "".into() });
    assert!(refused.unwrap_err().contains("has already ended: it is cancelled"));
}

#[test]
fn a_parent_runs_from_its_first_subtask_to_its_last() {
    let mut bench = Bench::with_agent(2);
    bench.run(family(FailurePolicy::FailFast, &[&[], &[1], &[1], &[2, 3]]));
    assert_eq!(
        bench.states(&[10, 11, 12, 13, 14]),
        ["running", "running", "pending", "pending", "pending"]
    );
    bench.run(report(11, 1, done()));
    assert_eq!(bench.states(&[12, 13, 14]), ["running", "running", "pending"]);
    bench.run(report(12, 1, done()));
    bench.run(report(13, 1, done()));
    bench.run(report(14, 1, done()));
    assert_eq!(bench.states(&[10]), ["completed"]);
}

#[test]
fn failure_policies_decide_what_becomes_of_the_others() {
    for (policy, expected) in [
        (FailurePolicy::FailFast, ["failed", "failed", "cancelled", "cancelled"]),
        (FailurePolicy::Continue, ["running", "failed", "cancelled", "running"]),
        (FailurePolicy::Ignore, ["running", "failed", "running", "running"]),
    ] {
        let mut bench = Bench::with_agent(3);
        bench.run(family(policy, &[&[], &[1], &[]]));
        bench.run(report(11, 1, failed(true)));
        assert_eq!(bench.states(&[10, 11, 12, 13]), expected, "{policy:?}");
        if policy != FailurePolicy::FailFast {
            let _ = bench.try_run(report(12, 1, done()));
            bench.run(report(13, 1, done()));
            let end = if policy == FailurePolicy::Ignore { "completed" } else { "failed" };
            assert_eq!(bench.states(&[10]), [end], "{policy:?}");
        }
    }
}

#[test]
fn retrying_a_parent_runs_what_did_not_complete() {
    let mut bench = Bench::with_agent(1);
    bench.run(family(FailurePolicy::FailFast, &[&[], &[1], &[2]]));
    bench.run(report(11, 1, done()));
    bench.run(report(12, 1, failed(true)));
    assert_eq!(bench.states(&[10, 11, 12, 13]), ["failed", "completed", "failed", "cancelled"]);
    let child = bench.try_run(Command::Retry { task: TaskId(12) }).unwrap_err();
    assert!(child.contains("retry that one"), "{child}");
    bench.run(Command::Retry { task: TaskId(10) });
    assert_eq!(bench.states(&[10, 11, 12, 13]), ["running", "completed", "running", "pending"]);
    bench.run(report(12, 2, done()));
    bench.run(report(13, 1, done()));
    assert_eq!(bench.states(&[10]), ["completed"]);
    let again = bench.try_run(Command::Retry { task: TaskId(10) }).unwrap_err();
    assert!(again.contains("only a failed or cancelled task"), "{again}");
}

#[test]
fn losses_use_up_no_retry_until_there_were_too_many() {
    let mut bench = Bench::with_agent(1);
    bench.run(single(5, TaskSpec { retries_max: 0, ..spec("a") }));
    for epoch in 1..=5 {
        bench.run(Command::BeginEpoch { epoch: Epoch(epoch), node: NodeId(1) });
        assert_eq!(bench.states(&[5]), ["running"], "epoch {epoch}");
    }
    bench.run(Command::BeginEpoch { epoch: Epoch(6), node: NodeId(1) });
    let Stage::Failed(failure) = bench.stage(5) else { panic!("{:?}", bench.stage(5)) };
    assert_eq!(failure.kind, FailureKind::AttemptsLost);
}

#[test]
fn a_workers_attempt_goes_on_over_a_restart() {
    let mut bench = Bench::new();
    bench.worker(1);
    bench.run(single(5, spec("a")));
    bench.run(Command::BeginEpoch { epoch: Epoch(1), node: NodeId(1) });
    bench.run(report(5, 1, done()));
    assert_eq!(bench.states(&[5]), ["completed"]);
}

#[test]
fn what_a_lost_agent_held_goes_to_another() {
    let mut bench = Bench::new();
    bench.worker(1);
    bench.run(single(5, spec("a")));
    bench.worker(2);
    bench.run(Command::EndAgent { agent: AgentId(1), end: AgentEnd::Lost });
    let Stage::Running { agent, .. } = bench.stage(5) else { panic!() };
    assert_eq!(agent, AgentId(2));
    let again = bench.try_run(Command::EndAgent { agent: AgentId(1), end: AgentEnd::Lost });
    assert!(again.unwrap_err().contains("already ended"));
}

#[test]
fn resources_are_reserved_while_an_attempt_lasts_and_kept_for_one_that_waited_long() {
    let needs = |cpu: u64| {
        let resources = Amounts::new([("cpu_cores".into(), cpu)]);
        let demand = Arc::new(Demand { resources, ..Demand::clone(&spec("").demand) });
        TaskSpec { demand, timeout_ms: 3_600_000, ..spec("a") }
    };
    let mut bench = Bench::with_agent(9);
    bench.run(Command::SetCapacity { capacity: Amounts::new([("cpu_cores".into(), 2_000)]) });
    let over = bench.try_run(single(1, needs(2_500))).unwrap_err();
    assert!(over.contains("more than the capacity of 2000"), "{over}");
    bench.run(single(2, needs(1_000)));
    bench.run(single(3, needs(2_000)));
    bench.run(single(4, needs(500)));
    assert_eq!(bench.states(&[2, 3, 4]), ["running", "ready", "running"]);
    assert_eq!(bench.state.explain(TaskId(3)).unwrap()[0].kind, BlockerKind::Resources);
    bench.later(30_000);
    bench.run(single(5, needs(500)));
    assert_eq!(bench.states(&[5]), ["ready"], "what is left is kept for the one that waits");
    bench.run(report(2, 1, done()));
    bench.run(report(4, 1, done()));
    assert_eq!(bench.states(&[3, 5]), ["running", "ready"]);
}

#[test]
fn deadlines_and_queue_timeouts_end_what_waits() {
    let mut bench = Bench::new();
    let rare = Rare { queue_timeout_ms: Some(500), ..Rare::default() };
    let waits = TaskSpec { rare: rare.boxed(), ..spec("a") };
    bench.run(single(5, waits));
    let deadline = Some(Timestamp(1_800_000));
    bench.run(single(
        6,
        TaskSpec { rare: Rare { deadline, ..Rare::default() }.boxed(), ..spec("b") },
    ));
    bench.later(500);
    let Stage::Failed(failure) = bench.stage(5) else { panic!() };
    assert_eq!(failure.kind, FailureKind::QueueTimedOut);
    assert!(failure.message.contains("no agent has capability `work`"), "{}", failure.message);
    bench.later(500);
    let Stage::Failed(failure) = bench.stage(6) else { panic!() };
    assert_eq!(failure.kind, FailureKind::DeadlineExceeded);
}

fn part_of(id: u128, body: u8, part: Option<u32>) -> Command {
    let mut plan = Plan::clone(&plan_of(vec![planned(id, None, &[], spec("a"))]));
    plan.idempotency = Some(IdempotencyKey { key: "k".into(), body_hash: [body; 32], part });
    Command::Submit { plan: Arc::new(plan) }
}

#[test]
fn one_idempotency_key_covers_all_parts_of_a_body() {
    let mut bench = Bench::new();
    for part in 1..3 {
        assert_eq!(bench.run(part_of(5 + u128::from(part), 1, Some(part))).len(), 1);
        assert!(bench.run(part_of(50, 1, Some(part))).is_empty());
    }
    for part in [None, Some(0), Some(1), Some(7)] {
        let refused = bench.try_run(part_of(60, 2, part)).unwrap_err();
        assert!(refused.contains("key `k` was used with another body, for task"), "{refused}");
    }
    assert_eq!(bench.run(part_of(9, 1, Some(7))).len(), 1, "another part of the same body");
    bench.now_ms += 25 * 3_600 * 1_000;
    assert_eq!(bench.run(part_of(10, 2, Some(0))).len(), 1);
}

#[test]
fn an_idempotency_key_gives_the_first_answer_again_and_refuses_another_body() {
    let mut bench = Bench::new();
    let keyed = |id: u128, body: u8| part_of(id, body, None);
    assert_eq!(bench.run(keyed(5, 1)).len(), 1);
    assert!(bench.run(keyed(6, 1)).is_empty());
    assert!(bench.try_run(keyed(7, 2)).unwrap_err().contains("used with another body"));
    bench.now_ms += 25 * 3_600 * 1_000;
    assert_eq!(bench.run(keyed(8, 2)).len(), 1);
}

#[test]
fn a_plan_at_rest_leaves_the_engine_and_comes_back_to_be_retried() {
    let mut bench = Bench::with_agent(1);
    bench.run(family(FailurePolicy::FailFast, &[&[], &[1]]));
    bench.run(report(11, 1, failed(true)));
    let mut rows = vec![];
    bench.state.take_changed_tasks(|row| rows.push(row));
    rows.sort_by_key(|row| row.index);
    assert_eq!(rows.iter().map(|row| row.id.0).collect::<Vec<_>>(), [10, 11, 12]);
    assert_eq!(*rows[0].subtasks(), [TaskId(11), TaskId(12)]);
    assert_eq!(*rows[2].depends_on(), [TaskId(11)]);
    assert!(bench.state.task(TaskId(10)).is_none());
    assert_eq!(bench.state.departed(), bench.state.sequence());
    bench.run(Command::Revive { tasks: rows.into() });
    bench.run(Command::Retry { task: TaskId(10) });
    assert_eq!(bench.states(&[10, 11, 12]), ["running", "running", "pending"]);
}

#[test]
fn a_restart_finds_a_plan_that_was_at_rest_in_the_store_and_is_retried_in_the_journal() {
    let mut bench = Bench::with_agent(1);
    bench.run(single(5, spec("a")));
    bench.run(report(5, 1, failed(true)));
    let mut restarted = State::recover(Rows {
        engine: bench.state.engine_record(),
        agents: bench.state.agents().collect(),
        tasks: vec![],
        remembered: vec![],
        entries: Vec::new(),
    });
    let events = bench.run(Command::Retry { task: TaskId(5) });
    restarted.begin_step(bench.state.sequence(), bench.state.moment);
    events.iter().for_each(|event| restarted.apply(event));
    laws::check(&restarted).unwrap();
    assert_eq!(restarted.task(TaskId(5)), bench.state.task(TaskId(5)));
    bench.run(report(5, 2, done()));
    assert_eq!(bench.states(&[5]), ["completed"]);
}

#[test]
fn a_retried_subtask_whose_need_failed_does_not_wait_for_ever() {
    let mut bench = Bench::with_agent(3);
    bench.run(family(FailurePolicy::Continue, &[&[], &[1], &[]]));
    bench.run(report(11, 1, failed(true)));
    assert_eq!(bench.states(&[10, 11, 12]), ["running", "failed", "cancelled"]);
    bench.run(Command::Retry { task: TaskId(12) });
    assert_eq!(bench.states(&[10, 11, 12]), ["running", "failed", "cancelled"]);
    bench.run(Command::Retry { task: TaskId(11) });
    bench.run(Command::Retry { task: TaskId(12) });
    assert_eq!(bench.states(&[10, 11, 12]), ["running", "running", "pending"]);
}

#[test]
fn a_retried_subtask_is_waited_for_again_and_counts_once() {
    let mut bench = Bench::with_agent(3);
    bench.run(family(FailurePolicy::Ignore, &[&[], &[], &[1, 2]]));
    bench.run(report(11, 1, failed(true)));
    bench.run(Command::Retry { task: TaskId(11) });
    bench.run(report(11, 2, done()));
    assert_eq!(bench.states(&[11, 12, 13]), ["completed", "running", "pending"]);
    bench.run(report(12, 1, done()));
    assert_eq!(bench.states(&[13]), ["running"]);
}

#[test]
fn a_retried_subtask_leaves_alone_who_went_on_without_it() {
    let mut bench = Bench::with_agent(3);
    bench.run(family(FailurePolicy::Ignore, &[&[], &[1]]));
    bench.run(report(11, 1, failed(true)));
    assert_eq!(bench.states(&[11, 12]), ["failed", "running"]);
    bench.run(Command::Retry { task: TaskId(11) });
    bench.run(report(11, 2, done()));
    assert_eq!(bench.states(&[10, 11, 12]), ["running", "completed", "running"]);
    bench.run(report(12, 1, done()));
    assert_eq!(bench.states(&[10]), ["completed"]);
}

#[test]
fn a_timed_out_attempt_counts_against_its_agent_at_once() {
    let mut bench = Bench::with_agent(2);
    bench.run(single(5, TaskSpec { retries_max: 0, ..spec("slow") }));
    bench.state.take_changed_agents();
    bench.later(10_000);
    assert_eq!(bench.state.take_changed_agents()[0].tally.failed, 1);
}

#[test]
fn an_agent_that_comes_back_is_the_same_whether_it_had_left_the_engine_or_not() {
    let mut bench = Bench::with_agent(1);
    bench.run(single(5, spec("a")));
    bench.run(report(5, 1, done()));
    bench.run(Command::EndAgent { agent: AgentId(1), end: AgentEnd::Lost });
    let mut left = bench.state.clone();
    left.take_changed_agents();
    assert_eq!(left.agents().count(), 0);
    let events = bench.run(Command::RegisterAgent { agent: agent(1, 1, Runtime::Command) });
    left.begin_step(bench.state.sequence(), bench.state.moment);
    events.iter().for_each(|event| left.apply(event));
    assert!(left.agents().eq(bench.state.agents()));
    assert_eq!(left.counters(), bench.state.counters());
}

#[test]
fn a_restart_between_a_failure_and_what_follows_from_it_leaves_nobody_waiting() {
    let parent = |on_failure| TaskSpec { on_failure, ..spec("parent") };
    let mut bench = Bench::with_agent(2);
    bench.run(Command::Submit {
        plan: plan_of(vec![
            planned(10, None, &[], parent(FailurePolicy::Ignore)),
            planned(11, Some(0), &[], parent(FailurePolicy::FailFast)),
            planned(12, Some(1), &[], spec("fails")),
            planned(13, Some(0), &[], parent(FailurePolicy::FailFast)),
            planned(14, Some(3), &[2], spec("waits for it")),
        ]),
    });
    let failure = report(12, 1, failed(true));
    let moment = bench.state.moment;
    let events = bench.state.decide(&moment, &failure).unwrap();
    bench.state.begin_step(bench.state.sequence().next(), moment);
    events.iter().for_each(|event| bench.state.apply(event));
    bench.state = State::recover(Rows {
        engine: bench.state.engine_record(),
        agents: bench.state.agents().collect(),
        tasks: bench.state.plan(TaskId(10)).unwrap(),
        remembered: vec![],
        entries: Vec::new(),
    });
    bench.run(Command::Tick);
    assert_eq!(bench.states(&[12, 14]), ["failed", "cancelled"]);
}

fn subtasks(of: &[(u128, &[u32])]) -> Report {
    let tasks = of.iter().map(|(id, after)| planned(*id, None, after, spec("below"))).collect();
    Report::Expanded(Arc::new(Expansion { tasks, collect: Collect::All }))
}

#[test]
fn an_attempt_may_hand_its_task_over_to_subtasks() {
    let mut bench = Bench::with_agent(2);
    bench.run(single(5, spec("goal")));
    bench.run(report(5, 1, subtasks(&[(6, &[]), (7, &[0])])));
    assert_eq!(bench.states(&[5, 6, 7]), ["running", "running", "pending"]);
    let goal = bench.state.task(TaskId(5)).unwrap();
    assert_eq!(*goal.subtasks(), [TaskId(6), TaskId(7)]);
    assert_eq!(bench.state.task(TaskId(7)).unwrap().plan.root, TaskId(5));
    assert!(bench.try_run(report(5, 1, done())).is_err(), "its attempt is over");
    bench.run(report(6, 1, done()));
    // One of the subtasks does the same.
    bench.run(report(7, 1, subtasks(&[(8, &[])])));
    assert_eq!(bench.states(&[5, 7, 8]), ["running", "running", "running"]);
    bench.run(report(8, 1, done()));
    assert_eq!(bench.states(&[5, 6, 7, 8]), ["completed"; 4]);
    assert_eq!(bench.state.counters().tasks_submitted, 4);
    let mut left = 0;
    bench.state.take_changed_tasks(|_| left += 1);
    assert_eq!((left, bench.state.tasks_count()), (4, 0), "it rests as one plan");
}

#[test]
fn a_failed_subtask_of_a_handed_over_task_can_be_retried_from_the_top() {
    let mut bench = Bench::with_agent(1);
    bench.run(single(5, spec("goal")));
    bench.run(report(5, 1, subtasks(&[(6, &[])])));
    bench.run(report(6, 1, failed(true)));
    assert_eq!(bench.states(&[5, 6]), ["failed", "failed"]);
    bench.run(Command::Retry { task: TaskId(5) });
    assert_eq!(bench.states(&[5, 6]), ["running", "running"]);
    bench.run(report(6, 2, done()));
    assert_eq!(bench.states(&[5, 6]), ["completed"; 2]);
}

#[test]
fn subtasks_that_cannot_be_taken_fail_the_attempt_for_good() {
    let mut bench = Bench::with_agent(1);
    bench.run(single(5, spec("goal")));
    bench.run(single(9, spec("other")));
    bench.run(report(5, 1, subtasks(&[(9, &[])])));
    let Stage::Failed(failure) = bench.stage(5) else { panic!("{:?}", bench.stage(5)) };
    assert!(failure.message.starts_with("its subtasks cannot be taken: "), "{}", failure.message);
    assert!(failure.permanent);
    // Deeper and deeper, up to the bound.
    bench.run(report(9, 1, done()));
    bench.run(single(100, spec("deep")));
    for id in 100..100 + u128::from(crate::limits::PLAN_DEPTH_MAX) {
        bench.run(report(id, 1, subtasks(&[(id + 1, &[])])));
    }
    let last = 100 + u128::from(crate::limits::PLAN_DEPTH_MAX);
    assert_eq!(bench.states(&[last]), ["running"]);
    bench.run(report(last, 1, subtasks(&[(last + 1, &[])])));
    assert_eq!(bench.states(&[100, last]), ["failed", "failed"]);
}

fn keyed(fairness: Option<&str>, concurrency: Option<&str>) -> TaskSpec {
    let name = |word: Option<&str>| word.map(Into::into);
    let (fairness_key, concurrency_key) = (name(fairness), name(concurrency));
    let rare = Rare { fairness_key, concurrency_key, ..Rare::default() };
    TaskSpec { rare: rare.boxed(), ..spec("keyed") }
}

fn set(key: &str, setting: Setting) -> Command {
    Command::SetKey { key: key.into(), setting }
}

#[test]
fn tasks_with_one_concurrency_key_run_one_after_another_unless_more_may() {
    let mut bench = Bench::with_agent(9);
    for id in 1..=4 {
        bench.run(single(id, keyed(None, Some("db"))));
    }
    bench.run(single(5, spec("free")));
    assert_eq!(bench.states(&[1, 2, 3, 4, 5]), ["running", "ready", "ready", "ready", "running"]);
    let why = bench.state.explain(TaskId(2)).unwrap();
    assert_eq!(why[0].kind, BlockerKind::ConcurrencyLimit);
    assert_eq!(why[0].message, "1 tasks with the concurrency key `db` run, 1 may at once");
    let two = Limit { running_max: Some(2), starts_per_minute: None };
    bench.run(set("db", Setting::Limit(Some(two))));
    assert_eq!(bench.states(&[1, 2, 3]), ["running", "running", "ready"]);
    bench.run(report(1, 1, done()));
    assert_eq!(bench.states(&[2, 3, 4]), ["running", "running", "ready"]);
    // A limit that is lowered stops nothing that runs.
    bench.run(set("db", Setting::Limit(None)));
    bench.run(report(2, 1, done()));
    assert_eq!(bench.states(&[3, 4]), ["running", "ready"]);
    bench.run(report(3, 1, done()));
    assert_eq!(bench.states(&[4]), ["running"]);
    assert!(bench.run(set("db", Setting::Limit(None))).is_empty(), "it is so already");
}

#[test]
fn an_attempt_that_is_being_stopped_still_counts() {
    let mut bench = Bench::with_agent(9);
    bench.run(single(1, keyed(None, Some("db"))));
    bench.run(single(2, keyed(None, Some("db"))));
    bench.run(Command::Cancel { task: TaskId(1), reason: "no".into() });
    assert_eq!(bench.states(&[1, 2]), ["cancelled", "ready"]);
    bench.run(Command::Release { task: TaskId(1), attempt: Attempt(1) });
    assert_eq!(bench.states(&[2]), ["running"]);
}

#[test]
fn starts_under_a_rate_are_spaced_evenly() {
    let mut bench = Bench::with_agent(9);
    let rate = Limit { running_max: None, starts_per_minute: Some(60) };
    bench.run(set("api", Setting::Limit(Some(rate))));
    for id in 1..=3 {
        bench.run(single(id, keyed(None, Some("api"))));
    }
    assert_eq!(bench.states(&[1, 2, 3]), ["running", "ready", "ready"]);
    assert_eq!(bench.state.next_deadline(), Some(Timestamp((bench.now_ms + 1_000) * 1_000)));
    assert_eq!(bench.state.explain(TaskId(2)).unwrap()[0].kind, BlockerKind::ConcurrencyLimit);
    bench.later(999);
    assert_eq!(bench.states(&[2]), ["ready"]);
    bench.later(1);
    assert_eq!(bench.states(&[1, 2, 3]), ["running", "running", "ready"]);
    bench.run(set("api", Setting::Limit(Some(Limit { running_max: None, ..rate }))));
    bench.later(60_000);
    assert_eq!(bench.states(&[3]), ["running"]);
}

/// The order in which one agent gets tasks that all waited before it came.
fn order(bench: &mut Bench, ids: &[u128]) -> Vec<u128> {
    bench.run(Command::RegisterAgent { agent: agent(1, 1, Runtime::Command) });
    let mut order = Vec::new();
    while let Some(id) = ids.iter().find(|id| bench.stage(**id).wire_name() == "running") {
        order.push(*id);
        bench.run(report(*id, 1, done()));
    }
    order
}

#[test]
fn submitters_take_turns_by_their_weight() {
    let ids: Vec<u128> = (1..=8).collect();
    let submit = |bench: &mut Bench| {
        for id in 1..=4 {
            bench.run(single(id, keyed(Some("many"), None)));
        }
        for id in 5..=8 {
            bench.run(single(id, keyed(Some("few"), None)));
        }
    };
    let mut bench = Bench::new();
    submit(&mut bench);
    assert_eq!(order(&mut bench, &ids), [1, 5, 2, 6, 3, 7, 4, 8]);

    let mut bench = Bench::new();
    bench.run(set("few", Setting::Weight(Some(3))));
    submit(&mut bench);
    assert_eq!(order(&mut bench, &ids), [1, 5, 6, 7, 2, 8, 3, 4]);

    let mut bench = Bench::new();
    submit(&mut bench);
    bench.state.set_policy(Policy::Priority);
    assert_eq!(order(&mut bench, &ids), ids, "who came first is first");
}

#[test]
fn best_fit_takes_what_fills_a_pool_and_the_others_take_what_came_first() {
    let cpu = |milli| {
        let resources = Amounts::new([("cpu_cores".into(), milli)]);
        let capabilities = Names::new(["work".into()]);
        let demand = Arc::new(Demand { resources, capabilities, ..Demand::default() });
        TaskSpec { demand, ..spec("a") }
    };
    for (policy, first) in [(Policy::Fair, 1), (Policy::Priority, 1), (Policy::BestFit, 2)] {
        let mut bench = Bench::new();
        bench.state.set_policy(policy);
        let capacity = Amounts::new([("cpu_cores".into(), 4_000)]);
        bench.run(Command::SetCapacity { capacity });
        bench.run(single(1, cpu(1_000)));
        bench.run(single(2, cpu(4_000)));
        assert_eq!(order(&mut bench, &[1, 2])[0], first, "{policy:?}");
    }
}

#[test]
fn who_sends_one_task_after_another_does_not_keep_others_from_their_turn() {
    let mut bench = Bench::with_agent(1);
    for id in 1..=3 {
        bench.run(single(id, keyed(Some("many"), None)));
    }
    // Each time its only task has started, the next one comes.
    let mut order = vec![];
    for id in 11..=14 {
        bench.run(single(id, keyed(Some("eager"), None)));
        let running = (1..=14).find(|id| {
            bench.state.task(TaskId(*id)).is_some_and(|task| task.stage.wire_name() == "running")
        });
        order.extend(running);
        bench.run(report(running.unwrap(), 1, done()));
    }
    assert_eq!(order, [1, 2, 11, 3]);
}
