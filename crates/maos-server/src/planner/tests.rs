//! Every strategy and every refusal of the planner, as data.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use maos_api::error::ErrorCode;
use maos_api::submission;
use maos_core::payload::Payload;
use maos_core::spec::{Collect, FailurePolicy, PlanTask, Priority, Work};
use serde_json::{Value, json};

use super::*;

#[path = "graph_tests.rs"]
mod graph;

const ACTIONS: &[&str] = &["data.query", "file.read", "file.write", "join.list", "noop"];
const BUILTIN_AGENT: AgentId = AgentId(0xb);
const WORKER_AGENT: AgentId = AgentId(0xa);
const WALL: WallTime = WallTime(1_800_000_000_000_000);

fn capability(action: &str) -> Option<&'static str> {
    match action {
        "data.query" => Some("data_processing"),
        "file.read" | "file.write" => Some("file_operations"),
        "join.list" => Some("coordination"),
        "noop" => Some("task_execution"),
        _ => None,
    }
}

fn runtime(agent: AgentId) -> Option<Runtime> {
    match agent {
        BUILTIN_AGENT => Some(Runtime::Builtin),
        WORKER_AGENT => Some(Runtime::Worker),
        _ => None,
    }
}

fn planned_within(body: &str, bounds: &Bounds) -> Result<Planned, ApiError> {
    let demands = Demands::default();
    let ctx = PlanContext {
        demands: &demands,
        bounds,
        defaults: DEFAULTS,
        now: Timestamp(5_000_000),
        wall: WALL,
        namespace: "default",
        submitter: "",
        idempotency: None,
        trace: None,
        origin: None,
        action_capability: &capability,
        known_actions: ACTIONS,
        agent_runtime: &runtime,
    };
    let mut last = 0;
    let mut ids = || {
        last += 1;
        last
    };
    plan(submission::parse(body.as_bytes(), bounds)?, &ctx, &mut ids)
}

fn planned(body: &Value) -> Planned {
    let body = body.to_string();
    planned_within(&body, &bounds(3_600)).unwrap_or_else(|error| panic!("{body}: {error}"))
}

/// A task in a line: indented below its parent, with what it waits for and what it is given.
fn line(plan: &Plan, task: &PlanTask) -> String {
    let key = |index: u32| plan.tasks[index as usize].spec.rare().key.as_deref().unwrap_or("root");
    let mut line = String::new();
    let mut parent = task.parent;
    while let Some(above) = parent {
        line.push_str("  ");
        parent = plan.tasks[above as usize].parent;
    }
    let _ = write!(line, "{}", task.spec.rare().key.as_deref().unwrap_or("root"));
    if !task.depends_on.is_empty() {
        let waits: Vec<&str> = task.depends_on.iter().map(|index| key(*index)).collect();
        let _ = write!(line, " after {}", waits.join("+"));
    }
    let index = plan.tasks.iter().position(|other| other.id == task.id);
    let is_parent = plan.tasks.iter().any(|other| other.parent.map(|at| at as usize) == index);
    if is_parent {
        match task.collect {
            Collect::All => line.push_str(" = all"),
            Collect::One(of) => {
                let _ = write!(line, " = {}", key(of));
            }
        }
        return line;
    }
    match &task.spec.parameters {
        Payload::Inline(json) => {
            let _ = write!(line, " {}", std::str::from_utf8(json).unwrap());
        }
        Payload::Stored(stored) => {
            let bytes = &stored.bytes;
            let _ = write!(line, " stored {bytes}");
        }
    }
    if !task.spec.rare().inputs.is_empty() {
        let inputs: Vec<&str> = task.spec.rare().inputs.iter().map(|input| &*input.key).collect();
        let _ = write!(line, " gets {}", inputs.join("+"));
    }
    line
}

fn shown(planned: &Planned) -> String {
    let plan = &planned.plan;
    let mut lines: Vec<String> = plan.tasks.iter().map(|task| line(plan, task)).collect();
    lines.extend(planned.warnings.iter().map(|warning| format!("! {warning}")));
    lines.join("\n")
}

/// Compares the plan of `body`, given without its name, with the lines of `expected`; one that
/// begins with `~` goes on from the one before.
#[track_caller]
fn check(mut body: Value, expected: &str) {
    body["name"] = json!("n");
    let indent = "        ";
    let expected: Vec<&str> =
        expected.trim().lines().map(|line| line.strip_prefix(indent).unwrap_or(line)).collect();
    let expected = expected.join("\n").replace("\n~", "");
    assert_eq!(shown(&planned(&body)), expected, "{body}");
}

fn refused(mut body: Value) -> ApiError {
    body["name"] = json!("n");
    let body = body.to_string();
    planned_within(&body, &bounds(3_600)).map(|planned| shown(&planned)).expect_err(&body)
}

#[track_caller]
fn check_refused(body: Value, code: ErrorCode, message: &str) {
    let error = refused(body);
    assert_eq!((error.code.name(), &*error.message), (code.name(), message));
}

#[test]
fn without_a_strategy_the_task_is_itself() {
    check(json!({"parameters": {"steps": ["a"], "x": 1}}), r#"root {"steps":["a"],"x":1}"#);
    check(json!({}), "root {}");
}

#[test]
fn a_strategy_without_a_list_is_a_plan_of_one_and_says_so() {
    for parameters in
        [json!({}), json!({"steps": []}), json!({"steps": "a"}), json!({"items": [1]})]
    {
        let planned = planned(&json!({"name": "n", "decomposition_strategy": "pipeline",
            "parameters": parameters}));
        assert_eq!(planned.plan.tasks.len(), 1);
        assert_eq!(
            planned.warnings,
            ["the task runs as one: `pipeline` found no entries in any of \
            `steps`, `stages`, `operations`, `requirements`"]
        );
        assert_eq!(planned.plan.strategy.as_deref(), Some("pipeline"));
    }
}

#[test]
fn sequential() {
    check(
        json!({"decomposition_strategy": "sequential", "parameters": {"action": "noop", "steps": [
            "load", {"n": 2}, {"name": "own", "parameters": {"action": "file.read"}}, 7]}}),
        r#"
        root = step-4
          step-1 {"action":"noop","stage":"load","index":0}
          step-2 after step-1 {"action":"noop","item":{"n":2},"index":1}
          step-3 after step-2 {"action":"file.read"}
          step-4 after step-3 {"action":"noop","item":7,"index":3}"#,
    );
}

#[test]
fn pipeline() {
    check(
        json!({"decomposition_strategy": "pipeline", "parameters": {"input": "seed", "operations": [
            "load", {"key": "clean", "parameters": {"a": 1}}, {"parameters": {"input": 5}}, [1]]}}),
        r#"
        root = operation-4
          operation-1 {"input":"seed","stage":"load","index":0}
          clean after operation-1 {"a":1,"input":{"$from":"operation-1"}} gets operation-1
          operation-3 after clean {"input":5}
          operation-4 after operation-3 {"item":[1],"index":3,"input":{"$from":"operation-3"}}
        ~ gets operation-3
        ! `parameters.operations[2]` has its own `input`, which is kept"#,
    );
}

#[test]
fn parallel() {
    check(
        json!({"decomposition_strategy": "parallel", "parameters": {"action": "noop", "items":
            ["a", {"id": 1}, null], "steps": ["x"]}}),
        r#"
        root = all
          item-1 {"action":"noop","stage":"a","index":0}
          item-2 {"action":"noop","item":{"id":1},"index":1}
          item-3 {"action":"noop","item":null,"index":2}
        ! `parameters.items` is split: `parameters.steps` is not used"#,
    );
    check(
        json!({"decomposition_strategy": "parallel", "parameters": {"shards": 2, "q": "x"}}),
        r#"
        root = all
          shard-1 {"q":"x","item":0,"index":0}
          shard-2 {"q":"x","item":1,"index":1}"#,
    );
    check(
        json!({"decomposition_strategy": "parallel", "parameters": {"steps": ["x"]}}),
        r#"
        root = all
          step-1 {"stage":"x","index":0}"#,
    );
}

#[test]
fn fan_out_fan_in() {
    check(
        json!({"decomposition_strategy": "fan_out_fan_in", "parameters": {"action": "noop",
            "prepare": "split", "items": [1, 2], "reduce": {"action": "join.list"}}}),
        r#"
        root = reduce
          prepare {"action":"noop","stage":"split"}
          item-1 after prepare {"action":"noop","item":1,"index":0}
          item-2 after prepare {"action":"noop","item":2,"index":1}
          reduce after item-1+item-2 {"action":"join.list","inputs":
        ~[{"$from":"item-1"},{"$from":"item-2"}]}
        ~ gets item-1+item-2"#,
    );
    check(
        json!({"decomposition_strategy": "fan_out_fan_in", "parameters": {"items": [1],
            "reduce": {"key": "sum", "parameters": {"inputs": [0]}}}}),
        r#"
        root = sum
          item-1 {"item":1,"index":0}
          sum after item-1 {"inputs":[0]}
        ! `parameters.reduce` has its own `inputs`, which is kept"#,
    );
    check(
        json!({"decomposition_strategy": "fan_out_fan_in", "parameters": {"items": [1],
            "prepare": {"name": "p"}}}),
        r#"
        root = all
          prepare {}
          item-1 after prepare {"item":1,"index":0}
        ! `parameters.prepare` has no `reduce` beside it:
        ~ its result is the first of the collected ones"#,
    );
}

#[test]
fn hierarchical() {
    check(
        json!({"decomposition_strategy": "hierarchical", "parameters": {"action": "noop",
            "stages": ["begin",
            {"key": "mid", "stages": [{"steps": ["x", "y"]}, {"items": ["a", "b"]}]},
            {"name": "end", "items": 2, "parameters": {"action": "file.read", "z": 1}}]}}),
        r#"
        root = stage-3
          stage-1 {"action":"noop","stage":"begin","index":0}
          mid after stage-1 = mid.stage-2
            mid.stage-1 after stage-1 = mid.stage-1.step-2
              mid.stage-1.step-1 after stage-1 {"action":"noop","stage":"x","index":0}
              mid.stage-1.step-2 after mid.stage-1.step-1 {"action":"noop","stage":"y","index":1}
            mid.stage-2 after mid.stage-1 = all
              mid.stage-2.item-1 after mid.stage-1 {"action":"noop","stage":"a","index":0}
              mid.stage-2.item-2 after mid.stage-1 {"action":"noop","stage":"b","index":1}
          stage-3 after mid = all
            stage-3.item-1 after mid {"action":"file.read","z":1,"item":0,"index":0}
            stage-3.item-2 after mid {"action":"file.read","z":1,"item":1,"index":1}"#,
    );
    check(
        json!({"decomposition_strategy": "hierarchical", "parameters": {"items": ["a", "b"]}}),
        r#"
        root = item-2
          item-1 {"stage":"a","index":0}
          item-2 after item-1 {"stage":"b","index":1}"#,
    );
}

#[test]
fn explicit() {
    check(
        json!({"decomposition_strategy": "parallel", "subtasks": [
            {"key": "c", "depends_on": ["a", "b"]},
            {"key": "a", "parameters": {"x": {"$from": "b", "pointer": "/rows/0"}}},
            {"key": "b", "extra": 1}]}),
        r#"
        root = c
          c after a+b {}
          a after b {"x":{"$from":"b","pointer":"/rows/0"}} gets b
          b {}
        ! `subtasks` is the plan: the strategy is not used
        ! `subtasks[2]`: unknown field `extra` is ignored"#,
    );
    check(
        json!({"subtasks": [{}, {"depends_on": ["subtask-1"]}, {}]}),
        r#"
        root = all
          subtask-1 {}
          subtask-2 after subtask-1 {}
          subtask-3 {}"#,
    );
    check(
        json!({"subtasks": [{"key": "a"}, {"key": "p", "depends_on": ["a"], "subtasks": [
            {"key": "q"}, {"key": "r", "depends_on": ["q"]}, {"key": "s", "depends_on": ["t"]}]},
            {"key": "t"}, {"key": "last", "parameters": {"in": {"$from": "p"}}}]}),
        r#"
        root = last
          a {}
          p after a = all
            q after a {}
            r after q {}
            s after a+t {}
          t {}
          last after p {"in":{"$from":"p"}} gets p"#,
    );
    check(
        json!({"subtasks": []}),
        r#"
        root {}
        ! `subtasks` is empty: the task runs as one"#,
    );
    check(
        json!({"subtasks": [{"key": "a", "decomposition_strategy": "pipeline", "parameters":
            {"action": "noop", "steps": ["u", "v"]}}]}),
        r#"
        root = a
          a = a.step-2
            a.step-1 {"action":"noop","stage":"u","index":0}
            a.step-2 after a.step-1 {"action":"noop","stage":"v","index":1,"input":
        ~{"$from":"a.step-1"}}
        ~ gets a.step-1"#,
    );
}

#[test]
fn keys_made_from_places_avoid_those_that_are_taken() {
    check(
        json!({"subtasks": [{"key": "subtask-2"}, {}]}),
        r#"
        root = all
          subtask-2 {}
          subtask-2-2 {}"#,
    );
    let error = refused(json!({"subtasks": [{}, {"key": "subtask-1"}]}));
    assert_eq!((error.code, &error.details["key"]), (ErrorCode::DuplicateKey, &json!("subtask-1")));
}

#[test]
fn wrong_graphs_are_refused_by_name() {
    check_refused(
        json!({"subtasks": [{"key": "a"}, {"key": "b"}, {"key": "a"}]}),
        ErrorCode::DuplicateKey,
        "`subtasks[0]` and `subtasks[2]` have the same key `a`\n\
         hint: entries without `key` are called after their place, such as `step-1`",
    );
    check_refused(
        json!({"subtasks": [{"key": "a", "depends_on": ["z"]}, {"key": "b"}]}),
        ErrorCode::UnknownKey,
        "`subtasks[0].depends_on` names `z`, which is no task of this plan\n\
         hint: use one of `a`, `b`",
    );
    check_refused(
        json!({"subtasks": [{"key": "a", "parameters": {"x": [{"$from": "z"}]}}]}),
        ErrorCode::UnknownKey,
        "`subtasks[0].parameters` names `z`, which is no task of this plan\nhint: use one of `a`",
    );
    check_refused(
        json!({"parameters": {"x": {"$from": "z"}}}),
        ErrorCode::UnknownKey,
        "`parameters` names `z`, which is no task of this plan\n\
         hint: the task is not split into subtasks, so there are no earlier results",
    );
    check_refused(
        json!({"subtasks": [{"key": "a", "depends_on": ["c"]}, {"key": "b", "depends_on": ["a"]},
            {"key": "c", "parameters": {"x": {"$from": "b"}}}, {"key": "d", "depends_on": ["a"]}]}),
        ErrorCode::PlanCycle,
        "tasks wait for each other: `a` -> `c` -> `b` -> `a`",
    );
    check_refused(
        json!({"subtasks": [{"key": "a", "depends_on": ["a"]}]}),
        ErrorCode::PlanCycle,
        "`a` waits for itself",
    );
    check_refused(
        json!({"subtasks": [{"key": "p", "subtasks": [{"key": "q", "depends_on": ["p"]}]}]}),
        ErrorCode::PlanCycle,
        "tasks wait for each other: `p` -> `q` -> `p`",
    );
    check_refused(
        json!({"decomposition_strategy": "sequential", "parameters": {"steps":
            [{"key": "a", "depends_on": ["b"]}, {"key": "b"}]}}),
        ErrorCode::PlanCycle,
        "tasks wait for each other: `a` -> `b` -> `a`",
    );
    let error = refused(json!({"subtasks": [{"depends_on": ["y"]}, {"depends_on": ["z"]}]}));
    assert_eq!(error.code, ErrorCode::ValidationFailed);
    assert_eq!(error.details["fields"].as_object().unwrap().len(), 2);
}

#[test]
fn wrong_references_are_refused() {
    for (reference, what) in [
        (json!({"$from": 1}), "has a reference whose `$from` is not a string"),
        (json!({"$from": "b", "at": 1}), "has a reference to `b` with a member `at` too many"),
        (
            json!({"$from": "b", "pointer": "rows"}),
            "has a reference to `b` whose `pointer` is not a JSON pointer like `/rows/0`",
        ),
        (
            json!({"$from": "b", "pointer": 0}),
            "has a reference to `b` whose `pointer` is not a JSON pointer like `/rows/0`",
        ),
    ] {
        check_refused(
            json!({"subtasks": [{"key": "a", "parameters": {"x": reference}}, {"key": "b"}]}),
            ErrorCode::BadReference,
            &format!("`subtasks[0].parameters` {what}"),
        );
    }
    // However its name is written.
    let body = r#"{"name":"n","parameters":{"x":{"\u0024from":"z"}}}"#;
    let error = planned_within(body, &bounds(3_600)).unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownKey);
    // A string that only looks like one is data.
    check(json!({"parameters": {"x": "$from"}}), r#"root {"x":"$from"}"#);
}

#[test]
fn plans_have_bounds() {
    let strategy = "parallel";
    let parallel =
        |items| json!({"decomposition_strategy": strategy, "parameters": {"items": items}});
    for count in [10_001_u64, 1_000_000, u64::MAX] {
        check_refused(
            parallel(json!(count)),
            ErrorCode::PlanTooLarge,
            &format!("`parameters.items` makes {count} subtasks, a plan has at most 10000"),
        );
    }
    check_refused(
        parallel(json!(vec![0; 1_000_000])),
        ErrorCode::PlanTooLarge,
        "`parameters.items` makes 1000000 subtasks, a plan has at most 10000",
    );
    check_refused(
        parallel(json!([{"items": 6_000}, {"items": 6_000}])),
        ErrorCode::PlanTooLarge,
        "the plan has more than 10000 subtasks, at `parameters.items[1].items[3998]`",
    );
    check_refused(
        json!({"decomposition_strategy": "parallel",
            "parameters": {"items": 10_000, "note": "x".repeat(8_000)}}),
        ErrorCode::PlanTooLarge,
        "the plan has more than 67108864 bytes of parameters",
    );
    let mut dense = vec![json!({"key": "p", "subtasks": [], "depends_on": []})];
    dense[0]["subtasks"] = json!((0..1_100).map(|_| json!({})).collect::<Vec<_>>());
    dense[0]["depends_on"] = json!((0..1_000).map(|n| format!("k{n}")).collect::<Vec<_>>());
    dense.extend((0..1_000).map(|n| json!({"key": format!("k{n}")})));
    check_refused(
        json!({"subtasks": dense}),
        ErrorCode::PlanTooLarge,
        "the plan has more than 1000000 dependencies",
    );
    for (items, found) in [(json!(-1), "-1"), (json!(1.5), "1.5")] {
        let message =
            format!("`parameters.items` must be a list or a count of entries, found {found}");
        check_refused(parallel(items), ErrorCode::ValidationFailed, &message);
    }
    assert_eq!(
        planned(&json!({"name": "n", "decomposition_strategy": "parallel",
        "parameters": {"items": 10_000}}))
        .plan
        .tasks
        .len(),
        10_001
    );
}

#[test]
fn many_parents_cannot_pass_on_many_parameters() {
    let mut parameters: serde_json::Map<String, Value> =
        (0..2_000).map(|n| (format!("p{n}"), json!(n))).collect();
    let parent = json!({"items": 1, "parameters": {"own": 1}});
    parameters.insert("items".to_owned(), json!(vec![parent; 600]));
    check_refused(
        json!({"decomposition_strategy": "parallel", "parameters": parameters}),
        ErrorCode::PlanTooLarge,
        "the plan's subtasks inherit more than 1000000 parameters",
    );
}

#[test]
fn plans_nest_only_so_deep() {
    let nested = |depth: usize| {
        let (mut open, mut close) = (String::new(), String::new());
        for _ in 0..depth {
            open.push_str(r#""subtasks":[{"#);
            close.push_str("}]");
        }
        format!(r#"{{"name":"n",{open}"name":"m"{close}}}"#)
    };
    let lenient = Bounds { nesting_max: 200, ..bounds(3_600) };
    assert_eq!(planned_within(&nested(32), &lenient).unwrap().plan.tasks.len(), 33);
    let error = planned_within(&nested(33), &lenient).unwrap_err();
    assert_eq!(error.code, ErrorCode::PlanTooDeep);
    let error = planned_within(&nested(33), &bounds(3_600)).unwrap_err();
    assert_eq!(error.code, ErrorCode::ValidationFailed);
}

#[test]
fn entries_that_are_no_subtasks_are_refused() {
    check_refused(
        json!({"subtasks": [{}, "a"]}),
        ErrorCode::ValidationFailed,
        "`subtasks[1]` must be an object with the fields of a submission",
    );
    check_refused(
        json!({"decomposition_strategy": "fan_out_fan_in",
            "parameters": {"items": 2, "reduce": 1}}),
        ErrorCode::ValidationFailed,
        "`parameters.reduce` must be a submission, a name or an object of parameters",
    );
    let error = refused(json!({"decomposition_strategy": "sequential", "parameters": {"steps": [
        {"name": " ", "timeout_seconds": 0}, {"priority": "now"}]}}));
    let fields: Vec<&String> = error.details["fields"].as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        [
            "parameters.steps[0].name",
            "parameters.steps[0].timeout_seconds",
            "parameters.steps[1].priority"
        ]
    );
}

#[test]
fn data_that_looks_like_a_submission_is_mentioned() {
    check(
        json!({"decomposition_strategy": "parallel", "parameters": {"items": [
            {"action": "noop", "x": 1}, {"name": "a", "paramters": {}, "depends_on": []},
            {"name": "Ada", "age": 36}]}}),
        r#"
        root = all
          item-1 {"item":{"action":"noop","x":1},"index":0}
          item-2 {"item":{"depends_on":[],"name":"a","paramters":{}},"index":1}
          item-3 {"item":{"age":36,"name":"Ada"},"index":2}
        ! `parameters.items[0]` is taken as data, for no submission has the field `action`, `x`:
        ~ what an agent is to read belongs into its `parameters`
        ! `parameters.items[1]` is taken as data, for no submission has the field `paramters`:
        ~ what an agent is to read belongs into its `parameters`"#,
    );
}

#[test]
fn subtasks_inherit_what_they_do_not_say() {
    let planned =
        planned(&json!({"name": "n", "priority": "high", "tags": ["t"], "max_retries": 7,
        "timeout_seconds": 9, "resource_requirements": {"cpu_cores": 0.5}, "on_failure": "continue",
        "queue_timeout_seconds": 4, "no_progress_seconds": 3, "fairness_key": "f",
        "concurrency_key": "c", "agent_type": "crew", "description": "d", "metadata": {"m": 1},
        "subtasks": [{}, {"priority": "low", "tags": [], "max_retries": 0, "timeout_seconds": 8,
            "resource_requirements": {}, "on_failure": "ignore", "required_capabilities": ["gpu"],
            "fairness_key": "g", "name": "own"}]}));
    let [root, same, own] = &planned.plan.tasks[..] else { panic!("three tasks") };
    for spec in [&root.spec, &same.spec] {
        assert_eq!((spec.priority, spec.retries_max, spec.timeout_ms), (Priority::High, 7, 9_000));
        assert_eq!(spec.tags.iter().collect::<Vec<_>>(), ["t"]);
        assert_eq!(spec.demand.resources.of("cpu_cores"), 500);
        assert_eq!(spec.demand.agent_type.as_deref(), Some("crew"));
        assert_eq!(
            (spec.rare().queue_timeout_ms, spec.rare().no_progress_ms),
            (Some(4_000), Some(3_000))
        );
        assert_eq!(spec.on_failure, FailurePolicy::Continue);
        assert_eq!(
            (spec.rare().fairness_key.as_deref(), spec.rare().concurrency_key.as_deref()),
            (Some("f"), Some("c"))
        );
    }
    assert_eq!(
        (root.spec.description.as_deref(), same.spec.description.as_deref()),
        (Some("d"), None)
    );
    assert!(root.spec.metadata.is_some() && same.spec.metadata.is_none());
    assert_eq!((&*same.spec.name, &*own.spec.name), ("n / subtask-1", "own"));
    let spec = &own.spec;
    assert_eq!((spec.priority, spec.retries_max, spec.timeout_ms), (Priority::Low, 0, 8_000));
    assert!(spec.tags.is_empty() && spec.demand.resources.is_empty());
    assert_eq!((spec.on_failure, spec.demand.agent_type.as_deref()), (FailurePolicy::Ignore, None));
    assert!(spec.demand.capabilities.contains("gpu"));
    assert_eq!(spec.rare().fairness_key.as_deref(), Some("g"));
}

#[test]
fn defaults_hold_where_nothing_is_said() {
    let spec = planned(&json!({"name": "n", "metadata": {}})).plan.tasks[0].spec.clone();
    assert_eq!((spec.priority, spec.retries_max, spec.timeout_ms), (Priority::Medium, 3, 300_000));
    assert_eq!(
        (spec.rare().queue_timeout_ms, spec.rare().deadline, &spec.metadata),
        (None, None, &None)
    );
    assert_eq!(spec.on_failure, FailurePolicy::FailFast);
}

/// Capabilities and kind of work of a single task.
fn demand_of(body: Value) -> (String, Work) {
    let mut body = body;
    body["name"] = json!("n");
    let demand = planned(&body).plan.tasks[0].spec.demand.clone();
    (demand.capabilities.iter().collect::<Vec<_>>().join("+"), demand.work.clone())
}

#[test]
fn an_action_says_who_can_do_it_unless_the_submission_does() {
    let known = |capability: &str| Work::Known(capability.into());
    let built_in = |capability: &str| Work::BuiltIn(capability.into());
    let worker = uuid::Uuid::from_u128(WORKER_AGENT.0).to_string();
    for (body, capabilities, work) in [
        (json!({}), "task_execution", Work::FreeForm),
        (json!({"parameters": {"action": "mine"}}), "task_execution", Work::FreeForm),
        (json!({"parameters": {"action": 5}}), "task_execution", Work::FreeForm),
        (json!({"parameters": {"action": "noop"}}), "task_execution", built_in("task_execution")),
        (
            json!({"parameters": {"action": "data.query"}}),
            "data_processing",
            built_in("data_processing"),
        ),
        (
            json!({"parameters": {"action": "data.query"}, "required_capabilities": ["b", "a"]}),
            "a+b",
            known("data_processing"),
        ),
        (
            json!({"parameters": {"action": "data.query"}, "agent_type": "t"}),
            "",
            known("data_processing"),
        ),
        (json!({"agent_id": worker}), "", Work::FreeForm),
    ] {
        assert_eq!(demand_of(body.clone()), (capabilities.to_owned(), work), "{body}");
    }
}

#[test]
fn an_action_that_looks_built_in_and_is_not_is_mentioned() {
    check(
        json!({"parameters": {"action": "file.reed"}}),
        r#"
        root {"action":"file.reed"}
        ! `parameters.action`: no built-in action is called `file.reed`,
        ~ so an agent of your own must do it; the built-in ones are `file.read`, `file.write`"#,
    );
}

#[test]
fn a_named_agent_must_be_there_and_a_built_in_one_know_the_action() {
    let id = |agent: AgentId| uuid::Uuid::from_u128(agent.0).to_string();
    let hint = "\nhint: use one of `data.query`, `file.read`, `file.write`, `join.list`, `noop`";
    check_refused(
        json!({"agent_id": id(BUILTIN_AGENT), "parameters": {"action": "mine"}}),
        ErrorCode::UnknownAction,
        &format!("the built-in agent does not know the action `mine`{hint}"),
    );
    check_refused(
        json!({"agent_id": id(BUILTIN_AGENT)}),
        ErrorCode::UnknownAction,
        &format!("the built-in agent needs `parameters.action`{hint}"),
    );
    check_refused(
        json!({"agent_id": id(AgentId(0xc))}),
        ErrorCode::AgentNotFound,
        "no agent has the id `00000000-0000-0000-0000-00000000000c` that `agent_id` names",
    );
}

#[test]
fn deadlines_are_moved_to_the_engines_clock() {
    let in_a_minute = maos_api::time::UtcTime(WALL.0 + 60_000_000).to_string();
    let planned = planned(&json!({"name": "n", "deadline": in_a_minute}));
    assert_eq!(planned.plan.tasks[0].spec.rare().deadline, Some(Timestamp(65_000_000)));
    check_refused(
        json!({"deadline": "2020-01-01T00:00:00Z"}),
        ErrorCode::ValidationFailed,
        "`deadline` must be in the future",
    );
}

#[test]
fn large_payloads_are_set_aside() {
    let large = json!({"x": "y".repeat(1_100)});
    let planned = planned(&json!({"name": "n", "parameters": large, "metadata": large}));
    assert_eq!(planned.blobs.len(), 2);
    let text = large.to_string();
    let spec = &planned.plan.tasks[0].spec;
    let hash = *blake3::hash(text.as_bytes()).as_bytes();
    let stored = Payload::stored(hash, text.len() as u64);
    assert_eq!((&spec.parameters, spec.metadata.as_deref()), (&stored, Some(&stored)));
    assert_eq!(planned.blobs[0], (hash, text.into_bytes()));

    let edge = json!({"x": "y".repeat(1_024 - 8)});
    let planned = self::planned(&json!({"name": "n", "parameters": edge}));
    assert!(planned.blobs.is_empty());
}

#[test]
fn names_of_strings_fit_the_bound() {
    let planned = planned(&json!({"name": "n", "decomposition_strategy": "parallel",
        "parameters": {"items": ["é".repeat(600), "  ", "a\u{0}b"]}}));
    let names: Vec<&str> = planned.plan.tasks.iter().skip(1).map(|task| &*task.spec.name).collect();
    assert_eq!(names, ["é".repeat(500).as_str(), "n / item-2", "a b"]);
}

#[test]
fn ids_are_the_plans_first_and_then_the_tasks() {
    let planned = planned(&json!({"name": "n", "subtasks": [{}, {}]}));
    assert_eq!(planned.plan.id.0, 1);
    let ids: Vec<u128> = planned.plan.tasks.iter().map(|task| task.id.0).collect();
    assert_eq!(ids, [2, 3, 4]);
}

#[test]
fn references_are_resolved_when_an_attempt_starts() {
    let inputs = BTreeMap::from([
        ("a".to_owned(), json!({"rows": [[1], {"$from": "b"}], "~/": 2})),
        ("gone".to_owned(), Value::Null),
    ]);
    let resolved = |parameters: Value| resolve(parameters, &inputs).map_err(|e| e.to_string());
    assert_eq!(
        resolved(json!({"x": [{"$from": "a", "pointer": "/rows/0"}], "y": {"$from": "gone"},
            "z": {"$from": "gone", "pointer": "/deep"}, "w": {"$from": "a", "pointer": "/~0~1"},
            "n": 1})),
        Ok(json!({"x": [[1]], "y": null, "z": null, "w": 2, "n": 1}))
    );
    // What comes from a result is not looked through again.
    assert_eq!(resolved(json!({"$from": "a", "pointer": "/rows/1"})), Ok(json!({"$from": "b"})));
    for (parameters, message) in [
        (
            json!([{"$from": "a", "pointer": "/rows/2"}]),
            "the result of `a` has nothing at `/rows/2`",
        ),
        (json!({"x": {"$from": "z"}}), "there is no result of `z`"),
        (
            json!({"x": {"$from": 1}}),
            "the parameters cannot be used: has a reference whose `$from` is not a string",
        ),
    ] {
        assert_eq!(resolved(parameters), Err(message.to_owned()));
    }
}
