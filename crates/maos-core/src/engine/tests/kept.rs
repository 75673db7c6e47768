//! What is kept beside the tasks' life: changes, files, documents, resources that somebody holds.

use super::*;
use crate::command::Expect;

fn amend(task: u128, patch: TaskPatch) -> Command {
    Command::Amend { task: TaskId(task), patch: std::boxed::Box::new(patch) }
}

fn cores(milli: u64) -> Amounts {
    Amounts::new([("cpu_cores".into(), milli)])
}

#[test]
fn limits_are_fixed_at_the_first_start_and_the_rest_is_not() {
    let mut bench = Bench::new();
    bench.run(single(1, spec("a")));
    let limits = Limits {
        parameters: Some(Payload::inline(b"{\"b\":2}")),
        timeout_ms: Some(5_000),
        retries_max: Some(9),
        resources: Some(cores(500)),
    };
    let all = TaskPatch { limits: Some(limits), ..TaskPatch::default() };
    bench.run(amend(1, all.clone()));
    assert_eq!(bench.run(amend(1, all.clone())), [], "it is so already");
    let task = bench.state.task(TaskId(1)).unwrap();
    assert_eq!((task.spec.timeout_ms, task.spec.retries_max), (5_000, 9));
    let started = bench.run(Command::RegisterAgent { agent: agent(1, 1, Runtime::Command) });
    let timeout = Timestamp((bench.now_ms + 5_000) * 1_000);
    assert!(matches!(&started[1], Event::Started { timeout: at, .. } if *at == timeout));
    assert_eq!(bench.state.pools().next().unwrap().1.allocated_milli, 500);
    let again = Limits { retries_max: Some(1), ..Limits::default() };
    let again = TaskPatch { limits: Some(again), ..TaskPatch::default() };
    assert!(bench.try_run(amend(1, again)).unwrap_err().contains("no longer"));
    let tags = Some(Names::new(["t".into()]));
    bench.run(amend(1, TaskPatch { tags: tags.clone(), ..TaskPatch::default() }));
    bench.run(report(1, 1, done()));
    let metadata = Some(Payload::inline(b"{}"));
    bench.run(amend(1, TaskPatch { metadata, ..TaskPatch::default() }));
    assert_eq!(bench.state.task(TaskId(1)).map(|task| task.spec.tags.clone()), tags);
    let late = TaskPatch { priority: Some(Priority::High), ..TaskPatch::default() };
    assert!(bench.try_run(amend(1, late)).is_err(), "it has nothing left to overtake");
}

fn patient(patience: Patience) -> TaskPatch {
    TaskPatch { patience, ..TaskPatch::default() }
}

fn until(ms: u64) -> Option<Bound<Deadline>> {
    Some(Bound::Set(Deadline { at: Timestamp(ms * 1_000), shown: WallTime(7) }))
}

#[test]
fn patience_changes_at_once_for_what_waits_and_for_what_runs() {
    let mut bench = Bench::new();
    (1..4).for_each(|id| drop(bench.run(single(id, spec("a")))));
    let ms = |ms| Some(Bound::Set(ms));
    let waits = Patience { queue_timeout_ms: ms(300), ..Patience::default() };
    (1..3).for_each(|id| drop(bench.run(amend(id, patient(waits)))));
    let lifted = Patience { queue_timeout_ms: Some(Bound::Lifted), ..Patience::default() };
    bench.run(amend(2, patient(lifted)));
    let ends = Patience { deadline: until(bench.now_ms + 900), ..Patience::default() };
    (2..4).for_each(|id| drop(bench.run(amend(id, patient(ends)))));
    assert_eq!(bench.run(amend(3, patient(ends))), [], "it is so already");
    let shown = bench.state.task(TaskId(3)).unwrap().spec.rare().ends_by;
    assert_eq!(shown, Some(WallTime(7)));
    bench.later(300);
    assert_eq!(bench.states(&[1, 2, 3]), ["failed", "ready", "ready"]);
    bench.run(Command::RegisterAgent { agent: agent(1, 1, Runtime::Command) });
    assert_eq!(bench.states(&[2, 3]), ["running", "ready"]);
    let for_ever = Patience { deadline: Some(Bound::Lifted), ..Patience::default() };
    bench.run(amend(3, patient(for_ever)));
    bench.later(600);
    let Stage::Failed(failure) = bench.stage(2) else { panic!() };
    assert_eq!(failure.kind, FailureKind::DeadlineExceeded);
    assert!(bench.state.task(TaskId(3)).unwrap().spec.rare.is_none(), "nothing is left of it");
    let late = bench.try_run(amend(2, patient(ends))).unwrap_err();
    assert!(late.contains("can no longer be changed: it is failed"), "{late}");
    let since = Patience { queue_timeout_ms: ms(1), ..Patience::default() };
    bench.run(family(FailurePolicy::FailFast, &[&[]]));
    let planned = bench.try_run(amend(10, patient(since))).unwrap_err();
    assert!(planned.contains("its subtasks have their own"), "{planned}");
    let now = Patience { deadline: until(bench.now_ms), ..Patience::default() };
    bench.run(amend(10, patient(now)));
    assert_eq!(bench.states(&[10, 11]), ["failed", "cancelled"]);
}

#[test]
fn a_priority_reaches_what_is_below_and_moves_it_ahead() {
    let mut bench = Bench { now_ms: 100_000_000, ..Bench::new() };
    bench.run(single(1, spec("first")));
    bench.run(family(FailurePolicy::FailFast, &[&[], &[1]]));
    let patch = TaskPatch { priority: Some(Priority::Critical), ..TaskPatch::default() };
    assert_eq!(bench.run(amend(10, patch)).len(), 3);
    let events = bench.run(Command::RegisterAgent { agent: agent(1, 1, Runtime::Command) });
    assert!(matches!(events[1], Event::Started { task: TaskId(11), .. }));
}

#[test]
fn files_are_kept_by_the_attempt_that_runs_until_the_task_ends() {
    let mut bench = Bench::with_agent(1);
    bench.run(single(1, spec("a")));
    let keep = |attempt, name: &str, content: &[u8]| Command::KeepArtifact {
        task: TaskId(1),
        attempt: Some(Attempt(attempt)),
        artifact: std::boxed::Box::new(Artifact {
            name: name.into(),
            media_type: "text/plain".into(),
            content: Payload::inline(content),
            kept: WallTime(0),
        }),
    };
    bench.run(keep(1, "a", b"1"));
    bench.run(keep(1, "b", b"1"));
    bench.run(keep(1, "a", b"2"));
    assert!(bench.try_run(keep(2, "c", b"1")).is_err(), "no such attempt runs");
    let kept = bench.state.task(TaskId(1)).unwrap().artifacts().to_vec();
    let names: Vec<_> = kept.iter().map(|file| (&*file.name, file.content.clone())).collect();
    assert_eq!(names, [("b", Payload::inline(b"1")), ("a", Payload::inline(b"2"))]);
    bench.run(report(1, 1, done()));
    assert!(bench.try_run(keep(1, "c", b"1")).is_err(), "it has ended");
}

#[test]
fn unsuccessful_attempts_are_remembered_up_to_a_bound() {
    let mut bench = Bench::with_agent(1);
    bench.run(single(1, TaskSpec { retries_max: 100, ..spec("a") }));
    for attempt in 1..=20 {
        bench.run(report(1, attempt, failed(false)));
        bench.later(300_000);
    }
    let task = bench.state.task(TaskId(1)).unwrap();
    let attempts: Vec<u32> = task.past().iter().map(|past| past.attempt.0).collect();
    assert_eq!(attempts, (5..=20).collect::<Vec<_>>());
    assert_eq!(task.ran_by, Some(AgentId(1)));
}

#[test]
fn held_resources_are_missing_until_they_are_given_back_or_their_lease_ends() {
    let mut bench = Bench::with_agent(1);
    bench.run(Command::SetCapacity { capacity: cores(2_000) });
    let hold = |name: &str, milli, lease_ms| Command::Reserve {
        requester: name.into(),
        amounts: cores(milli),
        lease_ms,
    };
    let demand = Arc::new(Demand { resources: cores(1_000), ..(*spec("a").demand).clone() });
    bench.run(hold("x", 1_500, Some(1_000)));
    bench.run(single(1, TaskSpec { demand, ..spec("a") }));
    assert_eq!(bench.states(&[1]), ["ready"]);
    assert!(bench.try_run(hold("y", 600, None)).unwrap_err().contains("500 are free"));
    assert!(bench.try_run(hold("y", 2_001, None)).is_err(), "there is never so much");
    // Its own share does not stand in its way.
    bench.run(hold("x", 2_000, Some(2_000)));
    bench.later(1_500);
    assert_eq!(bench.states(&[1]), ["ready"]);
    bench.later(600);
    assert_eq!(bench.states(&[1]), ["running"]);
    bench.run(hold("x", 1_000, None));
    let back = Command::Unreserve { requester: "x".into() };
    bench.run(back.clone());
    assert!(bench.try_run(back).is_err());
}

#[test]
fn documents_of_the_shell_are_kept_by_kind_and_name() {
    let mut bench = Bench::new();
    let set = |register: &str, key: &str, value: Option<&[u8]>, expect| Command::SetEntry {
        register: register.into(),
        key: key.into(),
        value: value.map(Payload::inline),
        expect,
    };
    bench.run(set("b", "k", Some(b"1"), Expect::Absent));
    bench.run(set("a", "z", Some(b"1"), Expect::Anything));
    bench.run(set("b", "a", Some(b"1"), Expect::Anything));
    assert!(bench.try_run(set("b", "k", Some(b"2"), Expect::Absent)).is_err());
    assert!(bench.try_run(set("c", "k", Some(b"2"), Expect::Present)).is_err());
    let keys: Vec<_> = bench.state.entries("b").map(|entry| &*entry.key).collect();
    assert_eq!(keys, ["a", "k"]);
    assert_eq!(bench.state.take_changed_entries().len(), 3);
    bench.run(set("b", "k", None, Expect::Present));
    let gone = bench.state.take_changed_entries();
    assert!(matches!(&gone[..], [entry] if entry.value.is_none() && &*entry.key == "k"));
    assert!(bench.state.entry("b", "k").is_none());
}
