//! Who may do a task, and what a task says that waits.

use super::*;

#[test]
fn builtin_agents_take_only_what_they_know() {
    let mut bench = Bench::new();
    bench.run(Command::RegisterAgent { agent: agent(1, 9, Runtime::Builtin) });
    bench.run(single(5, spec("free-form")));
    let work = Work::Known("work".into());
    let known = Arc::new(Demand { work, ..Demand::clone(&spec("").demand) });
    bench.run(single(6, TaskSpec { demand: known, ..spec("known") }));
    assert_eq!(bench.states(&[5, 6]), ["ready", "running"]);
    assert_eq!(bench.state.explain(TaskId(5)).unwrap()[0].kind, BlockerKind::NoAgent);
}

#[test]
fn a_built_in_action_is_for_built_in_agents_unless_somebody_is_named() {
    let mut bench = Bench::new();
    bench.run(Command::RegisterAgent { agent: agent(1, 9, Runtime::Command) });
    let asking = |work| Arc::new(Demand { work, ..Demand::clone(&spec("").demand) });
    let built_in = asking(Work::BuiltIn("work".into()));
    bench.run(single(5, TaskSpec { demand: built_in, ..spec("nobody named") }));
    let known = asking(Work::Known("work".into()));
    bench.run(single(6, TaskSpec { demand: known, ..spec("named") }));
    assert_eq!(bench.states(&[5, 6]), ["ready", "running"]);
    let why = bench.state.explain(TaskId(5)).unwrap();
    assert_eq!(why[0].message, "no built-in agent has capability `work`");
    bench.run(Command::RegisterAgent { agent: agent(2, 1, Runtime::Builtin) });
    assert_eq!(bench.states(&[5]), ["running"]);
}

#[test]
fn everything_that_holds_a_task_back_is_named_at_once() {
    let mut bench = Bench::new();
    let kinds = |bench: &Bench, id| -> Vec<BlockerKind> {
        bench.state.explain(TaskId(id)).unwrap().iter().map(|blocker| blocker.kind).collect()
    };
    let capacity = Amounts::new([("cpu".into(), 1_000)]);
    bench.run(Command::SetCapacity { capacity });
    let resources = Amounts::new([("cpu".into(), 1_000)]);
    let amounts = resources.clone();
    bench.run(Command::Reserve { requester: "r".into(), amounts, lease_ms: None });
    let demand = Arc::new(Demand { resources, ..Demand::clone(&spec("").demand) });
    bench.run(single(5, TaskSpec { demand, ..spec("much") }));
    assert_eq!(kinds(&bench, 5), [BlockerKind::NoAgent, BlockerKind::Resources]);
    let start_at = Some(Timestamp((bench.now_ms + 5_000) * 1_000));
    let rare = Rare { start_at, ..Rare::default() };
    let later = TaskSpec { rare: rare.boxed(), ..spec("later") };
    let tasks = vec![
        planned(10, None, &[], spec("root")),
        planned(11, Some(0), &[], spec("first")),
        planned(12, Some(0), &[1], later),
    ];
    bench.run(Command::Submit { plan: plan_of(tasks) });
    let all = [BlockerKind::Dependency, BlockerKind::Parked, BlockerKind::NoAgent];
    assert_eq!(kinds(&bench, 12), all);
}

#[test]
fn a_task_with_a_start_time_waits_for_it_and_says_so() {
    let mut bench = Bench::with_agent(1);
    let at = Some(Timestamp((bench.now_ms + 5_000) * 1_000));
    let rare = Rare { start_at: at, queue_timeout_ms: Some(1_000), ..Rare::default() };
    bench.run(single(5, TaskSpec { rare: rare.boxed(), ..spec("later") }));
    bench.later(4_999);
    assert_eq!(bench.states(&[5]), ["pending"]);
    let blockers = bench.state.explain(TaskId(5)).unwrap();
    assert_eq!(blockers[0].kind, BlockerKind::Parked);
    bench.later(1);
    assert_eq!(bench.states(&[5]), ["running"]);
}

#[test]
fn a_worker_gets_nothing_before_it_was_heard_of() {
    let mut bench = Bench::new();
    bench.run(Command::RegisterAgent { agent: agent(1, 1, Runtime::Worker) });
    bench.run(single(5, spec("a")));
    assert_eq!(bench.states(&[5]), ["ready"]);
    let why = bench.state.explain(TaskId(5)).unwrap();
    assert_eq!(why[0].message, "of the 1 agents that can do it none has polled yet");
    let arrived = bench.state.arrival(AgentId(1)).unwrap();
    bench.step(vec![arrived]);
    assert_eq!(bench.states(&[5]), ["running"]);
    assert_eq!(bench.state.arrival(AgentId(1)), None, "only once");
    bench.worker(2);
    bench.run(Command::EndAgent { agent: AgentId(2), end: AgentEnd::Lost });
    bench.run(Command::RegisterAgent { agent: agent(2, 1, Runtime::Worker) });
    bench.run(single(6, spec("b")));
    assert_eq!(bench.states(&[6]), ["ready"], "a worker that comes back is heard of anew");
}
