//! The strategy `planner`: an agent answers with the subtasks, which run like any others.

use serde_json::{Value, json};

use crate::house::{House, folder};

fn goal(parameters: Value) -> Value {
    json!({"name": "goal", "decomposition_strategy": "planner", "max_retries": 1,
           "parameters": parameters, "tags": ["t"]})
}

/// Answers with as many subtasks as it is asked for; the last one adds up what the others give. At
/// its first try it answers nonsense, if it is asked for that.
const PLANNER: &str = r#"
input=$(cat)
case $input in
  *'"attempt":1'*moody*) echo '{"subtasks": [{"key": "a", "depends_on": ["none"]}]}'; exit;;
  *empty*) echo '{"plan": "no idea"}'; exit;;
esac
cat <<'PLAN'
{"subtasks": [
  {"key": "one", "parameters": {"action": "noop", "value": 1}},
  {"key": "two", "parameters": {"action": "noop", "value": 2}},
  {"key": "sum", "parameters": {"action": "compute.sum", "values": [
    {"$from": "one", "pointer": "/value"}, {"$from": "two", "pointer": "/value"}]}}
]}
PLAN
"#;

#[test]
fn an_agent_plans_and_its_subtasks_run() {
    let folder = folder(&[("planning", PLANNER)]);
    let house = House::open(folder.path());
    let ended = house.ended(&house.submit(&goal(json!({}))));
    assert_eq!((&ended["status"], &ended["result"]), (&json!("completed"), &json!(3)), "{ended}");
    assert_eq!(ended["subtasks"].as_array().unwrap().len(), 3);
    let child = house.task(ended["subtasks"][0].as_str().unwrap());
    assert_eq!((&child["tags"], &child["parent_task_id"]), (&json!(["t"]), &ended["id"]));

    let moody = house.ended(&house.submit(&goal(json!({"mood": "moody"}))));
    assert_eq!((&moody["status"], &moody["retry_count"]), (&json!("completed"), &json!(1)));
    assert_eq!(moody["result"], json!(3));
}

#[test]
fn a_plan_that_cannot_be_fails_its_task_and_says_why() {
    let folder = folder(&[("planning", PLANNER)]);
    let house = House::open(folder.path());
    for (parameters, why) in [
        (json!({"mood": "empty"}), "the answer holds no `subtasks`"),
        (json!({"max_subtasks": 2}), "the answer holds 3 subtasks, at most 2 are allowed"),
    ] {
        let mut goal = goal(parameters);
        goal["max_retries"] = json!(0);
        let ended = house.ended(&house.submit(&goal));
        let error = ended["error"].as_str().unwrap_or_default();
        assert_eq!(ended["status"], "failed");
        assert!(error.contains("its plan is refused") && error.contains(why), "{error}");
    }
}

#[test]
fn a_goal_that_nobody_can_plan_says_what_is_missing() {
    let folder = folder(&[]);
    let house = House::open(folder.path());
    let id = house.submit(&goal(json!({})));
    let explained = house.call("GET", &format!("/api/v1/tasks/{id}/explain"), "");
    let text = explained.to_string();
    assert!(text.contains("planning"), "{text}");
}
