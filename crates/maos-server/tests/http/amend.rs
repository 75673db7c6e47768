//! Tasks and agents that change after they were accepted, and what is told of their past.

use maos_server::config::Config;
use serde_json::{Value, json};

use crate::house::{House, id_of};
use crate::workers::{Worker, completed};

fn noop(name: &str) -> Value {
    json!({"name": name, "parameters": {"action": "noop"}, "tags": ["old"]})
}

async fn patch(house: &House, id: &str, body: Value) -> (u16, Value) {
    let answer = house.call("PATCH", &format!("/api/v1/tasks/{id}"), Some(&body)).await;
    (answer.status, answer.body)
}

async fn found(house: &House, query: &str) -> u64 {
    house.get(&format!("/api/v1/tasks?{query}")).await.body["total_items"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_task_can_become_another() {
    let house = House::open().await;
    let body = json!({"name": "n", "parameters": {"a": 1}, "required_capabilities": ["rare"]});
    let id = id_of(&house.submit(&body).await);
    let change = json!({"priority": "critical", "parameters": {"a": 2}, "timeout_seconds": 7,
        "max_retries": 0, "resource_requirements": {"cpu_cores": 2}, "metadata": {"why": "now"},
        "tags": ["b", "a"], "name": "ignored"});
    let (status, changed) = patch(&house, &id, change).await;
    assert_eq!(status, 200, "{changed}");
    let task = &changed["task"];
    assert_eq!((&task["priority"], &task["parameters"]["a"]), (&json!("critical"), &json!(2)));
    assert_eq!((&task["timeout_seconds"], &task["max_retries"]), (&json!(7), &json!(0)));
    assert_eq!(task["resource_requirements"], json!({"cpu_cores": 2.0}));
    assert_eq!((&task["tags"], &task["metadata"]), (&json!(["a", "b"]), &json!({"why": "now"})));
    assert_eq!(task["name"], "n");
    assert!(changed["warnings"][0].as_str().unwrap().contains("`name`"));
    let house = house.reopen().await;
    assert_eq!(house.get(&format!("/api/v1/tasks/{id}")).await.body["task"], *task);
    for (change, field) in [
        (json!({"parameters": {"action": "noop"}}), "parameters"),
        (json!({"parameters": {"a": {"$from": "b"}}}), "parameters"),
        (json!({}), "body"),
    ] {
        let (status, refused) = patch(&house, &id, change).await;
        assert_eq!(status, 422, "{refused}");
        assert!(refused["details"]["fields"][field].is_string(), "{refused}");
    }
    let (status, refused) =
        patch(&house, &id, json!({"resource_requirements": {"cpu_cores": 1e6}})).await;
    assert_eq!((status, &refused["error_code"]), (422, &json!("OVER_CAPACITY")));
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_in_time_can_be_set_moved_and_lifted_until_the_end() {
    let house = House::open().await;
    let body = json!({"name": "n", "required_capabilities": ["rare"]});
    let id = id_of(&house.submit(&body).await);
    let fields = ["deadline", "queue_timeout_seconds", "no_progress_seconds"];
    let change = json!({"deadline": "2100-01-01T01:00:00+01:00", "queue_timeout_seconds": 60,
        "no_progress_seconds": 50});
    let (status, changed) = patch(&house, &id, change).await;
    assert_eq!(status, 200, "{changed}");
    let shown = |task: &Value| fields.map(|field| task[field].clone());
    let expected = [json!("2100-01-01T00:00:00Z"), json!(60), json!(50)];
    assert_eq!(shown(&changed["task"]), expected);
    assert!(changed["warnings"].is_null(), "{changed}");
    let house = house.reopen().await;
    let path = format!("/api/v1/tasks/{id}");
    assert_eq!(shown(&house.get(&path).await.body["task"]), expected);
    let lifted = json!({"deadline": null, "queue_timeout_seconds": null});
    let (_, changed) = patch(&house, &id, lifted).await;
    assert_eq!(shown(&changed["task"]), [Value::Null, Value::Null, json!(50)]);
    for (change, field, fault) in [
        (json!({"deadline": "2020-01-01T00:00:00Z"}), fields[0], "must be in the future"),
        (json!({"deadline": "soon"}), fields[0], "must be a time"),
        (json!({"queue_timeout_seconds": 0}), fields[1], "must be 1 to"),
        (json!({"no_progress_seconds": "1"}), fields[2], "must be an integer"),
    ] {
        let (status, refused) = patch(&house, &id, change).await;
        let found = refused["details"]["fields"][field].as_str().unwrap_or_default();
        assert_eq!((status, found.contains(fault)), (422, true), "{refused}");
    }
    let (status, _) = patch(&house, &id, json!({"queue_timeout_seconds": 1})).await;
    assert_eq!(status, 200);
    assert_eq!(house.ended(&id).await["error_kind"], "QUEUE_TIMED_OUT");
    let (status, refused) = patch(&house, &id, json!({"deadline": null})).await;
    assert_eq!((status, &refused["error_code"]), (409, &json!("TASK_FIXED")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_priority_overtakes_and_reaches_the_subtasks() {
    let house = House::open().await;
    let steps = json!({"name": "plan", "decomposition_strategy": "parallel",
        "parameters": {"items": [1, 2]}});
    let first = id_of(&house.submit(&json!({"name": "first"})).await);
    let plan = house.submit(&steps).await;
    let (status, _) = patch(&house, &id_of(&plan), json!({"priority": "critical"})).await;
    assert_eq!(status, 200);
    assert_eq!(found(&house, "priority=critical").await, 3);
    let worker =
        json!({"agent_type": "w", "capabilities": ["task_execution"], "runtime": "worker"});
    let worker = house.call("POST", "/api/v1/agents", Some(&worker)).await.body;
    let path = format!("/api/v1/agents/{}/poll", worker["agent"]["id"].as_str().unwrap());
    let poll = json!({"incarnation": 1, "max_tasks": 1, "wait_ms": 10_000});
    let given = house.call("POST", &path, Some(&poll)).await.body;
    let given = given["tasks"][0]["task_id"].as_str().unwrap().to_owned();
    assert_ne!(given, first, "what came later and matters more goes first");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_found_by_what_they_are_now_also_of_ended_tasks() {
    let house = House::open().await;
    let id = id_of(&house.submit(&noop("tagged")).await);
    house.ended(&id).await;
    assert_eq!((found(&house, "tags=old").await, found(&house, "search=old").await), (1, 1));
    let other = id_of(&house.submit(&noop("other")).await);
    house.ended(&other).await;
    let (status, changed) = patch(&house, &id, json!({"tags": ["new"]})).await;
    assert_eq!((status, &changed["task"]["tags"]), (200, &json!(["new"])), "{changed}");
    assert_eq!((found(&house, "tags=old").await, found(&house, "search=old").await), (1, 1));
    assert_eq!((found(&house, "tags=new").await, found(&house, "search=new").await), (1, 1));
    let house = house.reopen().await;
    let (status, _) = patch(&house, &id, json!({"tags": ["newer"], "metadata": {"a": 1}})).await;
    assert_eq!(status, 200);
    assert_eq!((found(&house, "tags=new").await, found(&house, "tags=newer").await), (0, 1));
    for body in [json!({"timeout_seconds": 5}), json!({"priority": "low"})] {
        let (status, refused) = patch(&house, &id, body).await;
        assert_eq!((status, &refused["error_code"]), (409, &json!("TASK_FIXED")));
    }
    let (status, _) =
        patch(&house, "01890000-0000-7000-8000-000000000000", json!({"tags": []})).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_can_become_another() {
    let mut config = Config::default();
    config.pools.clear();
    let house = House::open_with(config).await;
    let id = id_of(&house.submit(&noop("waits")).await);
    let body =
        json!({"agent_type": "t", "capabilities": ["computation"], "configuration": {"a": 1}});
    let created = house.call("POST", "/api/v1/agents", Some(&body)).await.body;
    let path = format!("/api/v1/agents/{}", created["agent"]["id"].as_str().unwrap());
    let change =
        json!({"capabilities": ["task_execution"], "max_concurrent_tasks": 3, "tags": ["x"]});
    let changed = house.call("PATCH", &path, Some(&change)).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let agent = &changed.body["agent"];
    assert_eq!((&agent["max_concurrent_tasks"], &agent["tags"]), (&json!(3), &json!(["x"])));
    assert_eq!(agent["configuration"], json!({"a": 1}));
    assert_eq!(house.ended(&id).await["agent_id"], agent["id"]);
    assert_eq!(found(&house, &format!("agent_id={}", agent["id"].as_str().unwrap())).await, 1);
    let refused = house.call("PATCH", &path, Some(&json!({"capabilities": []}))).await;
    assert_eq!(refused.status, 422);
    house.call("DELETE", &path, None).await;
    let refused = house.call("PATCH", &path, Some(&change)).await;
    assert!([404, 409].contains(&refused.status), "{}", refused.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_of_an_agent_has_no_effect_is_named() {
    let house = House::open().await;
    let warned = |answer: &Value| -> Vec<String> {
        let warnings = answer["warnings"].as_array().cloned().unwrap_or_default();
        let first = |warning: &Value| warning.as_str()?.split('`').nth(1).map(str::to_owned);
        warnings.iter().filter_map(first).collect()
    };
    let limits = json!({"cpu_cores": 1});
    let mut body = json!({"agent_type": "t", "capabilities": ["computation"],
        "configuration": {"a": 1}, "resource_limits": limits});
    let created = house.call("POST", "/api/v1/agents", Some(&body)).await.body;
    assert_eq!(warned(&created), ["resource_limits", "configuration"], "{created}");
    assert_eq!(created["agent"]["resource_limits"], json!({"cpu_cores": 1.0}));
    let path = format!("/api/v1/agents/{}", created["agent"]["id"].as_str().unwrap());
    for (change, expected) in [
        (json!({"resource_limits": limits}), vec!["resource_limits"]),
        (json!({"configuration": {"b": 2}, "tags": []}), vec!["configuration"]),
        (json!({"configuration": { }, "resource_limits": {}}), vec![]),
        (json!({"name": "other"}), vec![]),
    ] {
        let changed = house.call("PATCH", &path, Some(&change)).await;
        assert_eq!((changed.status, warned(&changed.body)), (200, to_words(&expected)));
    }
    // A worker's own program may ask how it is configured.
    body["runtime"] = json!("worker");
    let created = house.call("POST", "/api/v1/agents", Some(&body)).await.body;
    assert_eq!(warned(&created), ["resource_limits"], "{created}");
}

fn to_words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_of_a_task_tells_of_every_attempt() {
    let house = House::open().await;
    let parameters = json!({"action": "compute.expression", "expression": "1 / 0"});
    let body = json!({"name": "n", "parameters": parameters, "max_retries": 3});
    let id = id_of(&house.submit(&body).await);
    assert_eq!(house.ended(&id).await["status"], "failed");
    let path = format!("/api/v1/tasks/{id}/events");
    let told = house.get(&path).await.body;
    assert_eq!(happened(&told), ["created", "ready", "started", "attempt_failed", "failed"]);
    let attempt = &told["items"][3];
    assert_eq!((&attempt["attempt"], &attempt["failure_kind"]), (&json!(1), &json!("REPORTED")));
    assert!(attempt["agent_id"].is_string() && attempt["message"].is_string(), "{told}");
    house.call("PUT", &format!("/api/v1/tasks/{id}/retry"), None).await;
    house.ended(&id).await;
    let house = house.reopen().await;
    let told = house.get(&path).await.body;
    let (again, life) = ("retried", ["started", "attempt_failed", "failed"]);
    let lives = ["created"].into_iter().chain(life).chain([again, "ready"]).chain(life);
    assert_eq!(happened(&told), lives.collect::<Vec<_>>());
    assert_eq!(told["attempts_omitted"], 0);
}

fn happened(told: &Value) -> Vec<&str> {
    told["items"].as_array().unwrap().iter().map(|item| item["event"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_stays_in_the_past_of_a_task_that_is_tried_anew() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "n"})).await);
    let path = format!("/api/v1/tasks/{id}");
    // Twice: before an attempt, and while one runs.
    let cancel = async |reason| {
        let body = json!({"reason": reason});
        let answer = house.call("PUT", &format!("{path}/cancel"), Some(&body)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer = house.call("PUT", &format!("{path}/retry"), None).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    cancel("not now").await;
    let task = worker.fetch().await;
    cancel("too slow").await;
    // What it no longer holds has stopped.
    let task = match worker.poll(json!({"max_tasks": 1})).await["tasks"].get(0) {
        Some(next) if next["attempt"] != task["attempt"] => next.clone(),
        _ => worker.fetch().await,
    };
    worker.poll(json!({"outcomes": [completed(&task, json!(1))]})).await;
    house.ended(&id).await;
    let told = house.get(&format!("{path}/events")).await.body;
    let expected = ["created", "cancelled", "retried", "started", "cancelled", "retried", "ready"];
    let expected: Vec<&str> = expected.into_iter().chain(["started", "completed"]).collect();
    assert_eq!(happened(&told), expected, "{told}");
    let said = ["not now", "too slow"].map(|reason| json!(reason));
    let cancelled = told["items"].as_array().unwrap().iter().filter(|i| i["event"] == "cancelled");
    assert!(cancelled.map(|item| &item["message"]).eq(&said), "{told}");
    assert_eq!((&told["attempts_omitted"], &told["items"][3]["attempt"]), (&json!(0), &json!(1)));
}
