//! The stream of events: every state of every task, in order, and where to go on.

use serde_json::{Value, json};

use crate::house::{EventReader, House, id_of};
use crate::workers::{Worker, completed, held};

async fn until_ended(reader: &mut EventReader, id: &str) -> (String, Vec<String>) {
    let mut states = vec![];
    loop {
        let (place, event) = reader.next().await.unwrap();
        if event["task_id"] != json!(id) {
            continue;
        }
        let state = event["status"].as_str().unwrap().to_owned();
        let ended = ["completed", "failed", "cancelled"].contains(&state.as_str());
        states.push(state);
        if ended {
            return (place, states);
        }
    }
}

fn noop() -> Value {
    json!({"name": "n", "parameters": {"action": "noop"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_of_a_task_is_told_and_who_comes_back_goes_on() {
    let house = House::open().await;
    let mut reader = house.events("?type=task", None).await;
    let id = id_of(&house.submit(&noop()).await);
    let (place, states) = until_ended(&mut reader, &id).await;
    assert_eq!(states, ["pending", "ready", "running", "completed"]);
    drop(reader);
    let second = id_of(&house.submit(&noop()).await);
    let mut reader = house.events("", Some(&place)).await;
    let (_, event) = reader.next().await.unwrap();
    assert_eq!((&event["type"], &event["task_id"]), (&json!("task"), &json!(second)));
    assert_eq!(event["name"], "n");
    until_ended(&mut reader, &second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cancelled_parent_takes_with_it_is_told_as_well() {
    let house = House::open().await;
    let mut reader = house.events("?status=cancelled", None).await;
    let body = json!({"name": "line", "decomposition_strategy": "sequential",
        "parameters": {"steps": ["a", "b"]}});
    let root = id_of(&house.submit(&body).await);
    house.call("DELETE", &format!("/api/v1/tasks/{root}"), None).await;
    let mut names = vec![];
    for _ in 0..3 {
        let (_, event) = reader.next().await.unwrap();
        assert_eq!(event["root_task_id"], json!(root));
        names.push(event["name"].as_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["a", "b", "line"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_come_and_go_and_only_what_is_asked_for_is_told() {
    let house = House::open().await;
    let mut reader = house.events("?type=agent", None).await;
    house.ended(&id_of(&house.submit(&noop()).await)).await;
    let body = json!({"agent_type": "mine", "capabilities": ["task_execution"]});
    let agent = house.call("POST", "/api/v1/agents", Some(&body)).await.body["agent"].clone();
    let path = format!("/api/v1/agents/{}", agent["id"].as_str().unwrap());
    house.call("DELETE", &path, None).await;
    // Who did the task is told of as well: it was busy, and idle again.
    for state in ["busy", "idle"] {
        let (_, event) = reader.next().await.unwrap();
        assert_eq!((&event["type"], &event["state"]), (&json!("agent"), &json!(state)));
    }
    for state in ["registered", "terminated"] {
        let (_, event) = reader.next().await.unwrap();
        assert_eq!((&event["agent_id"], &event["state"]), (&agent["id"], &json!(state)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_holds_is_told_as_it_grows_and_shrinks() {
    let house = House::open().await;
    let worker = Worker::register(&house, 2).await;
    let mut reader = house.events(&format!("?type=agent&agent_id={}", worker.id), None).await;
    let free = json!({"name": "free", "parameters": {}});
    house.submit(&free).await;
    let first = worker.fetch().await;
    house.submit(&free).await;
    let asked = json!({"max_tasks": 1, "wait_ms": 20_000, "holding": [held(&first)]});
    let second = worker.poll(asked).await["tasks"][0].clone();
    let done = completed(&first, json!({}));
    worker.poll(json!({"outcomes": [done], "holding": [held(&second)]})).await;
    worker.poll(json!({"outcomes": [completed(&second, json!({}))]})).await;
    for state in ["online", "busy", "overloaded", "busy", "idle"] {
        let (_, event) = reader.next().await.unwrap();
        assert_eq!((&event["agent_id"], &event["state"]), (&json!(worker.id), &json!(state)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_is_said_and_a_stop_ends_the_stream() {
    let house = House::open().await;
    let mut reader = house.events("", Some("0-0-0")).await;
    let (_, event) = reader.next().await.unwrap();
    assert_eq!(event["type"], "gap");
    house.server.as_ref().unwrap().service.stop_intake();
    assert!(reader.next().await.is_none());
    let refused = house.get("/api/v1/events").await;
    assert_eq!((refused.status, &refused.body["error_code"]), (503, &json!("SHUTTING_DOWN")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_by_name() {
    let house = House::open().await;
    for query in ["?type=x", "?status=done", "?last_event_id=1-2"] {
        let answer = house.get(&format!("/api/v1/events{query}")).await;
        let code = &answer.body["error_code"];
        assert_eq!((answer.status, code), (400, &json!("MALFORMED_QUERY")), "{query}");
    }
    for query in ["?task_id=7", "?agent_id="] {
        let answer = house.get(&format!("/api/v1/events{query}")).await;
        let code = &answer.body["error_code"];
        assert_eq!((answer.status, code), (400, &json!("MALFORMED_ID")), "{query}");
    }
}
