//! Files that are kept with a task: in, out, bounds, refusals, and how long they last.

use axum::body::Body;
use axum::http::Request;
use maos_server::config::Config;
use serde_json::{Value, json};

use crate::house::{Answer, House, id_of};

/// A task that waits for an agent that nobody is.
async fn waiting(house: &House) -> String {
    id_of(&house.submit(&json!({"name": "n", "required_capabilities": ["rare"]})).await)
}

fn path(task: &str, name: &str) -> String {
    format!("/api/v1/tasks/{task}/artifacts/{name}")
}

async fn put(house: &House, path: &str, kind: Option<&str>, body: Vec<u8>) -> Answer {
    let mut request = Request::builder().method("PUT").uri(path);
    if let Some(kind) = kind {
        request = request.header("content-type", kind);
    }
    house.send(request.body(Body::from(body)).unwrap()).await
}

async fn keep(house: &House, task: &str, name: &str, body: Vec<u8>) -> Value {
    let answer = put(house, &path(task, name), None, body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["artifact"].clone()
}

fn refused(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.body["error_code"].as_str().unwrap_or_default())
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * at / 5 % 253) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_any_size_come_back_as_they_were_also_after_a_restart() {
    let house = House::open().await;
    let task = waiting(&house).await;
    let sizes = [0, 1, 1_024, 1_025, 1 << 20, (3 << 20) + 17];
    for size in sizes {
        let body = bytes(size);
        let path = path(&task, &format!("f%20{size}"));
        let answer = put(&house, &path, Some("text/plain; charset=latin1"), body.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let artifact = &answer.body["artifact"];
        assert_eq!(artifact["name"], format!("f {size}"));
        assert_eq!(artifact["size_bytes"], size);
        assert_eq!(artifact["checksum"], blake3::hash(&body).to_string());
    }
    let listed = house.get(&format!("/api/v1/tasks/{task}/artifacts")).await.body;
    let house = house.reopen().await;
    let again = house.get(&format!("/api/v1/tasks/{task}/artifacts")).await.body;
    assert_eq!((&again, &listed["total_items"]), (&listed, &json!(sizes.len())));
    for (size, item) in sizes.iter().zip(listed["items"].as_array().unwrap()) {
        let (headers, body) = house.file(&path(&task, &format!("f%20{size}"))).await;
        assert!(body == bytes(*size), "{size}");
        assert_eq!(headers["content-type"], "text/plain; charset=latin1");
        assert_eq!(headers["content-length"], size.to_string());
        assert_eq!(headers["etag"], format!("\"{}\"", item["checksum"].as_str().unwrap()));
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }
    let none = house.get(&path(&task, "none")).await;
    assert_eq!(refused(&none), (404, "ARTIFACT_NOT_FOUND"));
    let nobody = "01890000-0000-7000-8000-000000000000";
    assert_eq!(refused(&house.get(&path(nobody, "f")).await), (404, "TASK_NOT_FOUND"));
    assert_eq!(refused(&house.get(&path("x", "f")).await), (400, "MALFORMED_ID"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_same_name_takes_the_place_of_the_one_before() {
    let house = House::open().await;
    let task = waiting(&house).await;
    keep(&house, &task, "a", bytes(5_000)).await;
    keep(&house, &task, "b", bytes(10)).await;
    let last = keep(&house, &task, "a", bytes(2_000)).await;
    assert_eq!(last["media_type"], "application/octet-stream");
    let listed = house.get(&format!("/api/v1/tasks/{task}/artifacts")).await.body;
    let names: Vec<&Value> =
        listed["items"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!(house.file(&path(&task, "a")).await.1, bytes(2_000));
    let told = house.get(&format!("/api/v1/tasks/{task}/events")).await.body;
    assert!(told.to_string().contains("artifact_kept"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_its_bound_or_badly_named_is_refused_and_leaves_nothing() {
    let mut config = Config::default();
    config.api.artifact_bytes_max = 2 << 20;
    let house = House::open_with(config).await;
    let task = waiting(&house).await;
    let announced = put(&house, &path(&task, "f"), None, bytes((2 << 20) + 1)).await;
    assert_eq!(refused(&announced), (413, "BODY_TOO_LARGE"));
    // One that says nothing of its length.
    let pieces = (0..40).map(|_| Ok::<_, std::io::Error>(bytes(1 << 16)));
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let request = Request::builder().method("PUT").uri(path(&task, "f")).body(body).unwrap();
    let response = house.response(request).await;
    assert_eq!(response.status(), 413);
    let left = std::fs::read_dir(house.data_dir().join("blobs")).unwrap().count();
    assert_eq!(left, 0, "no partial file stays");
    assert_eq!(keep(&house, &task, "f", bytes(2 << 20)).await["size_bytes"], 2 << 20);
    for name in ["a%2Fb", "%2E%2E", "..", ".", "a%00", &"x".repeat(201)] {
        let answer = put(&house, &path(&task, name), None, Vec::new()).await;
        assert_eq!(refused(&answer), (422, "VALIDATION_FAILED"), "{name}");
    }
    let kind = "x".repeat(201);
    let answer = put(&house, &path(&task, "f"), Some(&kind), Vec::new()).await;
    assert_eq!(refused(&answer), (422, "VALIDATION_FAILED"));
    for query in ["attempt=0", "attempt=x", "attempt=4294967296"] {
        let path = format!("{}?{query}", path(&task, "f"));
        assert_eq!(refused(&put(&house, &path, None, Vec::new()).await).1, "MALFORMED_QUERY");
    }
    for index in 0..99 {
        keep(&house, &task, &format!("n{index}"), vec![1]).await;
    }
    let full = put(&house, &path(&task, "one-more"), None, vec![1]).await;
    assert_eq!(refused(&full), (429, "QUEUE_FULL"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_running_attempt_of_a_task_that_has_not_ended_may_keep_files() {
    let house = House::open().await;
    let task = waiting(&house).await;
    let first = format!("{}?attempt=1", path(&task, "f"));
    assert_eq!(refused(&put(&house, &first, None, vec![1]).await), (409, "STALE_ATTEMPT"));
    let worker = json!({"agent_type": "w", "capabilities": ["rare"], "runtime": "worker"});
    let worker = house.call("POST", "/api/v1/agents", Some(&worker)).await.body;
    let poll = format!("/api/v1/agents/{}/poll", worker["agent"]["id"].as_str().unwrap());
    let ask = json!({"incarnation": 1, "max_tasks": 1, "wait_ms": 5_000});
    let given = house.call("POST", &poll, Some(&ask)).await.body;
    assert_eq!(given["tasks"][0]["task_id"], json!(task), "{given}");
    assert_eq!(put(&house, &first, None, bytes(3_000)).await.status, 200);
    let second = format!("{}?attempt=2", path(&task, "f"));
    assert_eq!(refused(&put(&house, &second, None, vec![1]).await), (409, "STALE_ATTEMPT"));
    let outcome = json!({"task_id": task, "attempt": 1, "status": "completed", "result": 1});
    let report = json!({"incarnation": 1, "max_tasks": 0, "wait_ms": 0, "outcomes": [outcome]});
    assert_eq!(house.call("POST", &poll, Some(&report)).await.status, 200);
    house.ended(&task).await;
    for path in [&first, &path(&task, "late")] {
        assert_eq!(refused(&put(&house, path, None, vec![1]).await), (409, "ALREADY_ENDED"));
    }
    assert_eq!(house.file(&path(&task, "f")).await.1, bytes(3_000));
    // It goes with its task.
    let delete = json!({"operation": "delete", "task_ids": [task]});
    let gone = house.call("POST", "/api/v1/tasks/bulk", Some(&delete)).await.body;
    assert_eq!(gone["successful_operations"], 1, "{gone}");
    assert_eq!(refused(&house.get(&path(&task, "f")).await), (404, "TASK_NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_not_told_to_its_end() {
    let house = House::open().await;
    let task = waiting(&house).await;
    let kept = keep(&house, &task, "f", bytes(3 << 20)).await;
    let sum = kept["checksum"].as_str().unwrap();
    let file = house.data_dir().join("blobs").join(&sum[..2]).join(&sum[2..]);
    let mut whole = std::fs::read(&file).unwrap();
    let last = whole.len() - 1;
    whole[last] ^= 1;
    std::fs::write(&file, whole).unwrap();
    let request = Request::builder().uri(path(&task, "f")).body(Body::empty()).unwrap();
    let response = house.response(request).await;
    assert_eq!(response.status(), 200);
    let read = http_body_util::BodyExt::collect(response.into_body()).await;
    assert!(read.is_err(), "the answer breaks off");
}
