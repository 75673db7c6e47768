//! Schedules: made, run, paused, kept over a restart.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::house::House;

const SCHEDULES: &str = "/api/v1/schedules";

fn every_second() -> Value {
    json!({"name": "tick", "every_seconds": 1, "task": {"name": "t", "tags": ["tick"],
        "parameters": {"action": "noop"}, "metadata": {"mine": 1}}})
}

async fn create(house: &House, body: Value) -> (String, Value) {
    let answer = house.call("POST", SCHEDULES, Some(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    (format!("{SCHEDULES}/{}", answer.body["schedule"]["id"].as_str().unwrap()), answer.body)
}

/// The schedule, once it has run so often.
async fn after_runs(house: &House, path: &str, runs: u64) -> Value {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let schedule = house.get(path).await.body["schedule"].clone();
        if schedule["runs"].as_u64().unwrap() >= runs {
            return schedule;
        }
        assert!(Instant::now() < until, "it does not run: {schedule}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_runs_again_and_again_until_it_is_paused_or_gone() {
    let house = House::open().await;
    let (path, made) = create(&house, every_second()).await;
    assert!(made["schedule"]["next_run_at"].is_string(), "{made}");
    let schedule = after_runs(&house, &path, 2).await;
    let task = schedule["last_task_id"].as_str().unwrap();
    let task = house.ended(task).await;
    assert_eq!((&task["status"], &task["metadata"]["mine"]), (&json!("completed"), &json!(1)));
    assert_eq!(path, format!("{SCHEDULES}/{}", task["metadata"]["schedule_id"].as_str().unwrap()));
    assert!(task["metadata"]["scheduled_for"].is_string());
    let paused = house.call("PATCH", &path, Some(&json!({"paused": true}))).await.body;
    assert_eq!(paused["schedule"]["next_run_at"], Value::Null);
    let house = house.reopen().await;
    let kept = house.get(&path).await.body["schedule"].clone();
    assert_eq!((&kept["paused"], &kept["name"]), (&json!(true), &json!("tick")));
    let runs = kept["runs"].as_u64().unwrap();
    house.call("PATCH", &path, Some(&json!({"paused": false}))).await;
    after_runs(&house, &path, runs + 1).await;
    assert_eq!(house.call("DELETE", &path, None).await.status, 200);
    assert_eq!(house.call("DELETE", &path, None).await.status, 404);
    assert_eq!(house.get(SCHEDULES).await.body["total_items"], 0);
    let tasks = house.get("/api/v1/tasks?tags=tick").await.body["total_items"].as_u64().unwrap();
    assert!(tasks > runs, "what ran stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_left_out_while_the_one_before_goes_on() {
    let house = House::open().await;
    let mut body = every_second();
    body["overlap"] = json!("skip");
    body["task"] = json!({"name": "waits for somebody"});
    let (path, _) = create(&house, body).await;
    let until = Instant::now() + Duration::from_secs(30);
    while house.get(&path).await.body["schedule"]["skipped"] == json!(0) {
        assert!(Instant::now() < until, "nothing is left out");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(house.get("/api/v1/tasks").await.body["total_items"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_never_run_is_refused_with_its_place() {
    let house = House::open().await;
    let task = json!({"name": "t"});
    for (body, status, field) in [
        (json!({"name": "n", "cron": "* * * *", "task": task}), 422, "cron"),
        (json!({"name": "n", "cron": "0 0 30 2 *", "task": task}), 422, "cron"),
        (json!({"name": "n", "cron": "0 0 * * *", "timezone": "X", "task": task}), 422, "timezone"),
        (json!({"name": "n", "cron": "0 0 * * *", "task": {"name": " "}}), 422, "task.name"),
        (json!({"name": "n", "cron": "0 0 * * *"}), 422, "task"),
        (json!({"name": "n", "task": task}), 422, "cron"),
        (
            json!({"name": "n", "every_seconds": 60,
                "task": {"name": "t", "deadline": "2999-01-01T00:00:00Z"}}),
            422,
            "task.deadline",
        ),
        (
            json!({"name": "n", "every_seconds": 60, "task": {"name": "t", "subtasks": [
                {"name": "a"}, {"name": "b", "decomposition_strategy": "parallel", "parameters":
                {"items": [{"name": "c", "deadline": "2999-01-01T00:00:00Z"}]}}]}}),
            422,
            "task.subtasks[1].parameters.items[0].deadline",
        ),
    ] {
        let answer = house.call("POST", SCHEDULES, Some(&body)).await;
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.body["details"]["fields"][field].is_string(), "{}", answer.body);
    }
    // All at once, whoever finds it.
    let task = json!({"name": " ", "max_retries": -1, "priority": "soon"});
    let body = json!({"name": "n", "cron": "61 * * * *", "timezone": "X", "task": task,
        "overlap": "never"});
    let refused = house.call("POST", SCHEDULES, Some(&body)).await;
    let fields = refused.body["details"]["fields"].as_object().unwrap();
    let expected =
        ["cron", "overlap", "task.max_retries", "task.name", "task.priority", "timezone"];
    assert_eq!(fields.keys().collect::<Vec<_>>(), expected, "{}", refused.body);
    assert!(refused.body["error"].as_str().unwrap().starts_with("6 fields"), "{}", refused.body);
    let body = json!({"name": "n", "cron": "0 6 * * 1-5", "timezone": "America/New_York",
        "missed": "skip", "task": {"name": "t", "resource_requirements": {"seats": 1}}});
    let (path, made) = create(&house, body).await;
    assert!(made["warnings"][0].as_str().unwrap().contains("seats"));
    let change = json!({"cron": "0 7 * * *"});
    let refused = house.call("PATCH", &path, Some(&change)).await;
    let told = refused.body["error"].as_str().unwrap();
    assert_eq!(refused.status, 422);
    assert!(told.starts_with("`cron` cannot be changed, only `paused` can"), "{told}");
}
