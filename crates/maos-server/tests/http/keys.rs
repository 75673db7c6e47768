//! Keys that tasks share: set while tasks run, and kept over a restart.

use serde_json::{Value, json};

use crate::house::House;

const DB: &str = "/api/v1/keys/concurrency/db";

async fn put(house: &House, path: &str, body: Value) -> Value {
    let answer = house.call("PUT", path, Some(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_nothing_holds_tasks_back_until_it_is_raised() {
    let house = House::open().await;
    let keys = put(&house, DB, json!({"running_max": 0})).await;
    assert_eq!(
        keys["concurrency"]["db"],
        json!({"running_max": 0, "starts_per_minute": null, "running": 0, "is_set": true})
    );
    let body = json!({"name": "n", "concurrency_key": "db", "parameters": {"action": "noop"}});
    let submitted = house.submit(&body).await;
    assert_eq!(submitted["task"]["status"], "ready");
    let id = submitted["task"]["id"].as_str().unwrap().to_owned();
    let why = house.get(&format!("/api/v1/tasks/{id}/explain")).await.body;
    assert_eq!(why["blockers"][0]["kind"], "concurrency_limit", "{why}");
    put(&house, DB, json!({"running_max": 1})).await;
    assert_eq!(house.ended(&id).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_survive_a_restart_and_can_be_taken_back() {
    let house = House::open().await;
    put(&house, DB, json!({"running_max": null, "starts_per_minute": 600})).await;
    put(&house, "/api/v1/keys/fairness/a%2Fb", json!({"weight": 3})).await;
    let house = house.reopen().await;
    let keys = house.get("/api/v1/keys").await.body;
    assert_eq!(keys["fairness"], json!({"a/b": {"weight": 3}}));
    assert_eq!(keys["concurrency"]["db"]["starts_per_minute"], json!(600));
    let keys = house.call("DELETE", DB, None).await.body;
    assert_eq!(keys["concurrency"], json!({}));
    let keys = house.call("DELETE", "/api/v1/keys/fairness/a%2Fb", None).await.body;
    assert_eq!(keys, json!({"concurrency": {}, "fairness": {}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_set_is_refused_by_name() {
    let house = House::open().await;
    let weight = "/api/v1/keys/fairness/f";
    for (path, body, field) in [
        (DB, json!({}), "running_max"),
        (DB, json!({"running_max": -1}), "running_max"),
        (DB, json!({"starts_per_minute": 0}), "starts_per_minute"),
        (DB, json!({"running_max": 1, "running": 2}), "running"),
        (weight, json!({"weight": 0}), "weight"),
        (weight, json!({"weight": 1_001}), "weight"),
        (weight, json!({}), "weight"),
    ] {
        let answer = house.call("PUT", path, Some(&body)).await;
        assert_eq!(answer.status, 422, "{body}");
        assert!(answer.body["details"]["fields"][field].is_string(), "{body}: {}", answer.body);
    }
}
