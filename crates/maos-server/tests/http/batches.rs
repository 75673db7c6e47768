//! Many submissions in one request, and a submission that waits for its end.

use serde_json::{Value, json};

use crate::house::House;

const BATCH: &str = "/api/v1/tasks/batch";
const OVER: &str = "OVER_CAPACITY";
const CONFLICT: &str = "IDEMPOTENCY_CONFLICT";

#[tokio::test(flavor = "multi_thread")]
async fn each_is_taken_or_refused_by_itself_in_order() {
    let house = House::open().await;
    let noop = |n: u64| json!({"name": "n", "parameters": {"action": "noop", "n": n}});
    let bodies = json!([noop(1), {"name": " "}, noop(2), 7,
        {"name": "much", "resource_requirements": {"cpu_cores": 1_000_000}}]);
    let answer = house.call("POST", BATCH, Some(&bodies)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let results = answer.body.as_array().unwrap();
    for (place, n) in [(0, 1), (2, 2)] {
        assert_eq!(results[place].as_object().unwrap().len(), 1, "{}", results[place]);
        let task = house.ended(results[place]["task_id"].as_str().unwrap()).await;
        assert_eq!(task["result"]["n"], json!(n));
    }
    let codes: Vec<&Value> = [1, 3, 4].map(|place| &results[place]["error_code"]).to_vec();
    assert_eq!(codes, ["VALIDATION_FAILED", "VALIDATION_FAILED", "OVER_CAPACITY"]);
    assert!(results[1]["details"]["fields"]["name"].is_string(), "{}", results[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gives_the_first_answers_again() {
    let house = House::open().await;
    let send = async |path: &str, key: &str, body: Value| house.keyed(path, key, &body).await;
    let body = json!([{"name": " "}, {"name": "a"}, {"name": "b"}]);
    let first = send(BATCH, "k", body.clone()).await;
    assert_eq!(send(BATCH, "k", body.clone()).await.body, first.body);
    let house = house.reopen().await;
    let send = async |path: &str, key: &str, body: Value| house.keyed(path, key, &body).await;
    assert_eq!(send(BATCH, "k", body.clone()).await.body, first.body);
    for other in [
        json!([{"name": "c"}]),
        json!([{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}]),
        json!([{"name": " "}, {"name": " "}, {"name": " "}, {"name": "d"}]),
    ] {
        let refused = send(BATCH, "k", other).await;
        assert_eq!((refused.status, &refused.body["error_code"]), (409, &json!(CONFLICT)));
        assert!(refused.body["error"].as_str().unwrap().contains("`k`"), "{}", refused.body);
    }
    assert_eq!(house.get("/api/v1/tasks").await.body["total_items"], 2);
    assert_eq!(send("/api/v1/tasks", "k", json!({"name": "a"})).await.status, 409);
    assert_eq!(send("/api/v1/tasks", "k/1", json!({"name": "a"})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_not_refused_when_it_comes_again() {
    let house = House::open().await;
    let agent = json!({"agent_type": "counter", "capabilities": ["task_execution"]});
    let made = house.call("POST", "/api/v1/agents", Some(&agent)).await;
    let agent = made.body["agent"]["id"].as_str().unwrap();
    let noop = json!({"name": "n", "agent_id": agent, "parameters": {"action": "noop"}});
    let all = json!([noop, {"name": " "}]);
    let alone = house.keyed("/api/v1/tasks", "one", &noop).await;
    let listed = house.keyed(BATCH, "many", &all).await;
    assert!(alone.status == 200 && listed.body[0]["task_id"].is_string(), "{}", alone.body);
    let ended = house.call("DELETE", &format!("/api/v1/agents/{agent}"), None).await;
    assert_eq!(ended.status, 200);
    // Whoever sends it for the first time hears that there is no such agent any more.
    let late = house.keyed("/api/v1/tasks", "two", &noop).await;
    assert_eq!((late.status, &late.body["error_code"]), (404, &json!("AGENT_NOT_FOUND")));
    let again = house.keyed("/api/v1/tasks", "one", &noop).await;
    assert_eq!(again.status, 200, "{}", again.body);
    assert_eq!(again.body["task"]["id"], alone.body["task"]["id"]);
    let waited = house.keyed("/api/v1/tasks?wait_seconds=30", "one", &noop).await;
    assert_eq!(waited.body["task"]["status"], "completed", "{}", waited.body);
    assert_eq!(house.keyed(BATCH, "many", &all).await.body, listed.body);
    // That the key is taken is told before what is wrong with another body.
    let other = house.keyed("/api/v1/tasks", "one", &json!({"name": " "})).await;
    assert_eq!((other.status, &other.body["error_code"]), (409, &json!(CONFLICT)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_not_accepted_when_it_comes_again() {
    let house = House::open().await;
    let seats = |capacity: u64| {
        json!({"resource_type": "custom", "name": "seats",
        "capacity": capacity})
    };
    house.call("POST", "/api/v1/resources", Some(&seats(1))).await;
    let much = json!({"name": "n", "resource_requirements": {"seats": 2}});
    let (mixed, refused) = (json!([much, {"name": "a"}, {"name": " "}]), json!([much, much]));
    let first = house.keyed(BATCH, "mixed", &mixed).await.body;
    let none = house.keyed(BATCH, "none", &refused).await.body;
    assert_eq!((&first[0]["error_code"], &none[1]["error_code"]), (&json!(OVER), &json!(OVER)));
    // By now all of it could be accepted.
    house.call("POST", "/api/v1/resources", Some(&seats(9))).await;
    let house = house.reopen().await;
    assert_eq!(house.keyed(BATCH, "mixed", &mixed).await.body, first);
    assert_eq!(house.keyed(BATCH, "none", &refused).await.body, none);
    assert_eq!(house.get("/api/v1/tasks").await.body["total_items"], 1);
    let fresh = house.keyed(BATCH, "other", &refused).await.body;
    assert!(fresh[0]["task_id"].is_string(), "{fresh}");
    // A key is that of its first body also where nothing was accepted of it.
    for (key, other) in [("none", &mixed), ("other", &json!([{"name": " "}]))] {
        let conflict = house.keyed(BATCH, key, other).await;
        assert_eq!((conflict.status, &conflict.body["error_code"]), (409, &json!(CONFLICT)));
    }
    // So many different refusals are more than is remembered; those left out are looked at anew.
    let many: Vec<Value> = (0..1_000).map(|n| json!({"name": n, "tags": "x".repeat(n)})).collect();
    let many = Value::from(many);
    let again = house.keyed(BATCH, "many", &many).await;
    assert_eq!(house.keyed(BATCH, "many", &many).await.body, again.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_list_or_too_long_a_one_is_refused_whole() {
    let house = House::open().await;
    let many = Value::from(vec![json!({"name": "n"}); 10_001]);
    for (body, status, code) in
        [(json!({"name": "n"}), 422, "VALIDATION_FAILED"), (many, 422, "VALIDATION_FAILED")]
    {
        let answer = house.call("POST", BATCH, Some(&body)).await;
        assert_eq!((answer.status, &answer.body["error_code"]), (status, &json!(code)));
    }
    assert_eq!(house.call("POST", BATCH, Some(&json!([]))).await.body, json!([]));
    assert_eq!(house.get("/api/v1/tasks").await.body["total_items"], json!(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_may_wait_for_its_end() {
    let house = House::open().await;
    let path = "/api/v1/tasks?wait_seconds=30";
    let body = json!({"name": "n", "strange": 1, "parameters": {"action": "noop", "n": 1}});
    let answer = house.call("POST", path, Some(&body)).await;
    assert_eq!(answer.body["task"]["status"], "completed", "{}", answer.body);
    assert_eq!(answer.body["warnings"], json!(["unknown field `strange` is ignored"]));
    let refused = house.call("POST", "/api/v1/tasks?wait_seconds=61", Some(&body)).await;
    assert_eq!((refused.status, &refused.body["error_code"]), (400, &json!("MALFORMED_QUERY")));
}
