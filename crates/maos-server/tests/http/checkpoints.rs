//! Checkpoints: made, listed, deleted, damaged; and the way back to one over a real socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use maos_server::config::Config;
use maos_server::host::{self, Host};
use serde_json::{Value, json};

use crate::house::{House, setup};

const CHECKPOINTS: &str = "/api/v1/checkpoints";

async fn make(house: &House, body: Value) -> Value {
    let answer = house.call("POST", CHECKPOINTS, Some(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["checkpoint"].clone()
}

/// A server that listens, and what it answers.
struct Listening {
    host: Host,
    folder: tempfile::TempDir,
}

impl Listening {
    async fn open() -> Listening {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.api.port = 0;
        let host = host::open(config, setup(folder.path().into())).await.unwrap();
        Listening { host, folder }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let stream = tokio::net::TcpStream::connect(self.host.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let body: Full<axum::body::Bytes> = Full::from(text);
        let request = Request::builder().method(method).uri(path).header("host", "x");
        let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn submit(&self, name: &str, action: Option<&str>) -> String {
        let body =
            json!({"name": name, "parameters": {"action": action, "big": "x".repeat(2_000)}});
        let (status, answer) = self.call("POST", "/api/v1/tasks?wait_seconds=5", body).await;
        assert_eq!(status, 200, "{answer}");
        answer["task"]["id"].as_str().unwrap().to_owned()
    }

    async fn status_of(&self, task: &str) -> (u16, Value) {
        let (status, answer) =
            self.call("GET", &format!("/api/v1/tasks/{task}"), Value::Null).await;
        (status, answer["task"]["status"].clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_made_listed_and_deleted() {
    let house = House::open().await;
    let task = json!({"name": "n", "parameters": {"action": "noop"}});
    house.run(&task).await;
    let made = make(&house, json!({"name": "first", "metadata": {"by": "me"}})).await;
    assert_eq!((&made["type"], &made["tasks"]), (&json!("manual"), &json!(1)));
    assert_eq!((&made["name"], &made["metadata"]), (&json!("first"), &json!({"by": "me"})));
    assert!(made["size_bytes"].as_u64().unwrap() > 100, "{made}");
    let second = make(&house, json!({})).await;
    assert!(!second["name"].as_str().unwrap().is_empty());
    let house = house.reopen().await;
    let listed = house.get(CHECKPOINTS).await.body;
    assert_eq!((&listed["total_items"], &listed["items"][0]), (&json!(2), &made));
    let path = format!("{CHECKPOINTS}/{}", made["id"].as_str().unwrap());
    assert_eq!(house.get(&path).await.body["checkpoint"], made);
    assert_eq!(house.call("DELETE", &path, None).await.status, 200);
    for (method, path) in [("GET", path.clone()), ("DELETE", path)] {
        let answer = house.call(method, &path, None).await;
        assert_eq!(
            (answer.status, &answer.body["error_code"]),
            (404, &json!("CHECKPOINT_NOT_FOUND"))
        );
    }
    // What only the host can do.
    let id = second["id"].as_str().unwrap();
    let refused = house.call("PUT", &format!("{CHECKPOINTS}/{id}/restore"), None).await;
    assert_eq!((refused.status, &refused.body["error_code"]), (409, &json!("NOT_RESTORABLE")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_goes_back_and_forth_and_workers_are_fenced() {
    let server = Listening::open().await;
    let worker = json!({"agent_type": "w", "capabilities": ["rare"], "runtime": "worker"});
    let (_, worker) = server.call("POST", "/api/v1/agents", worker).await;
    let poll = format!("/api/v1/agents/{}/poll", worker["agent"]["id"].as_str().unwrap());
    let done = server.submit("done", Some("noop")).await;
    let held = json!({"name": "held", "required_capabilities": ["rare"]});
    let (_, held) = server.call("POST", "/api/v1/tasks", held).await;
    let held = held["task"]["id"].as_str().unwrap().to_owned();
    let (_, given) = server
        .call("POST", &poll, json!({"incarnation": 1, "max_tasks": 1, "wait_ms": 5_000}))
        .await;
    assert_eq!(given["tasks"][0]["task_id"], json!(held), "{given}");
    let (status, made) = server.call("POST", CHECKPOINTS, json!({"name": "here"})).await;
    assert_eq!(status, 200, "{made}");
    let later = server.submit("later", Some("noop")).await;
    server.call("DELETE", &format!("/api/v1/tasks/{held}"), Value::Null).await;

    let here = made["checkpoint"]["id"].as_str().unwrap();
    let restore = format!("{CHECKPOINTS}/{here}/restore");
    let (status, answer) = server.call("PUT", &restore, Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["restored"]["id"], json!(here));
    assert_eq!(
        (&answer["before"]["type"], &answer["before"]["tasks"]),
        (&json!("before_restore"), &json!(3))
    );
    assert_eq!(server.status_of(&done).await, (200, json!("completed")));
    assert_eq!(server.status_of(&later).await.0, 404, "it was submitted after that");
    // It runs no more where it ran: whoever held it must begin anew.
    let (_, held_now) = server.status_of(&held).await;
    assert_eq!(held_now, "ready");
    let outcome = json!({"task_id": held, "attempt": 1, "status": "completed", "result": 1});
    let late = json!({"incarnation": 1, "max_tasks": 0, "wait_ms": 0, "outcomes": [outcome]});
    let (status, refused) = server.call("POST", &poll, late).await;
    assert!([404, 409].contains(&status), "{status} {refused}");
    assert_eq!(server.status_of(&held).await.1, "ready");

    // And forward again, to what held before.
    let before = answer["before"]["id"].as_str().unwrap();
    let (status, answer) =
        server.call("PUT", &format!("{CHECKPOINTS}/{before}/restore"), Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(server.status_of(&later).await, (200, json!("completed")));
    assert_eq!(server.status_of(&held).await.1, "cancelled");
    let again = server.submit("goes on", Some("noop")).await;
    assert_eq!(server.status_of(&again).await, (200, json!("completed")));

    // One that is damaged is refused, and nothing has happened.
    let data = server.folder.path().join(format!("data/checkpoints/{here}.data"));
    let mut bytes = std::fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let damaged = async |said: &str| {
        let (status, refused) = server.call("PUT", &restore, Value::Null).await;
        assert_eq!((status, &refused["error_code"]), (409, &json!("CHECKPOINT_DAMAGED")));
        assert_eq!(refused["details"]["checkpoint_id"], json!(here), "{refused}");
        let error = refused["error"].as_str().unwrap();
        assert!(error.contains(said) && error.contains("restore another one"), "{error}");
    };
    damaged("is damaged: ").await;
    std::fs::remove_file(&data).unwrap();
    damaged("is missing").await;
    assert_eq!(server.status_of(&again).await, (200, json!("completed")));
    let path = format!("{CHECKPOINTS}/{here}");
    assert_eq!(server.call("DELETE", &path, Value::Null).await.0, 200, "what is left goes");
    server.host.stop().await;
}

impl Listening {
    /// A task of a worker that says one line; its id.
    async fn talk(&self, poll: &str, line: &str) -> String {
        let body = json!({"name": "talker", "required_capabilities": ["rare"]});
        let (_, made) = self.call("POST", "/api/v1/tasks", body).await;
        let fetch = json!({"incarnation": 1, "max_tasks": 1, "wait_ms": 5_000});
        let (_, given) = self.call("POST", poll, fetch).await;
        let (task, attempt) = (&given["tasks"][0]["task_id"], &given["tasks"][0]["attempt"]);
        assert_eq!(*task, made["task"]["id"], "{given}");
        let said = json!({"task_id": task, "attempt": attempt, "line": line});
        let done = json!({"task_id": task, "attempt": attempt, "status": "completed", "result": 1});
        let told = json!({"incarnation": 1, "max_tasks": 0, "wait_ms": 0, "logs": [said],
            "outcomes": [done]});
        let (status, answer) = self.call("POST", poll, told).await;
        assert_eq!(status, 200, "{answer}");
        task.as_str().unwrap().to_owned()
    }

    async fn line_of(&self, task: &str) -> Value {
        let path = format!("/api/v1/tasks/{task}/logs");
        self.call("GET", &path, Value::Null).await.1["items"][0]["line"].clone()
    }

    async fn send(&self, body: u64) -> Value {
        let message = json!({"to": {"topic": "news"}, "body": body});
        self.call("POST", "/api/v1/messages", message).await.1["offset"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_is_not_taken_back() {
    let server = Listening::open().await;
    let worker = json!({"agent_type": "w", "capabilities": ["rare"], "runtime": "worker"});
    let (_, worker) = server.call("POST", "/api/v1/agents", worker).await;
    let poll = format!("/api/v1/agents/{}/poll", worker["agent"]["id"].as_str().unwrap());
    let kept = server.talk(&poll, "early").await;
    assert_eq!(server.send(0).await, 0);
    let (_, made) = server.call("POST", CHECKPOINTS, json!({"name": "here"})).await;
    let gone = server.talk(&poll, "late").await;
    assert_eq!(server.send(1).await, 1);
    let read = json!({"mailbox": "topic:news", "reader": "ann", "offset": 1});
    server.call("POST", "/api/v1/messages/ack", read).await;

    let restore = |id: &Value| format!("{CHECKPOINTS}/{}/restore", id.as_str().unwrap());
    let path = restore(&made["checkpoint"]["id"]);
    let (status, answer) = server.call("PUT", &path, Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(server.line_of(&kept).await, "early");
    let (status, _) = server.call("GET", &format!("/api/v1/tasks/{gone}/logs"), Value::Null).await;
    assert_eq!(status, 404, "its task is not there");
    // Offsets only grow, and a reader gets nothing twice.
    assert_eq!(server.send(2).await, 2);
    let (_, page) =
        server.call("GET", "/api/v1/messages?mailbox=topic:news&reader=ann", Value::Null).await;
    assert_eq!((&page["items"][0]["body"], &page["acknowledged"]), (&json!(2), &json!(1)));

    // Forward again, the log is where it was.
    server.call("PUT", &restore(&answer["before"]["id"]), Value::Null).await;
    assert_eq!(server.line_of(&gone).await, "late");
    server.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_during_the_way_back_wait_for_the_state_that_comes() {
    let server = Arc::new(Listening::open().await);
    let held = json!({"name": "held", "required_capabilities": ["rare"]});
    let (_, held) = server.call("POST", "/api/v1/tasks", held).await;
    let held = held["task"]["id"].as_str().unwrap().to_owned();
    let (_, made) = server.call("POST", CHECKPOINTS, json!({})).await;
    let id = made["checkpoint"]["id"].as_str().unwrap().to_owned();
    let over = Arc::new(AtomicBool::new(false));
    let asking = (0..4).map(|_| {
        let (server, over, held) = (server.clone(), over.clone(), held.clone());
        tokio::spawn(async move {
            let mut answers = 0;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(server.status_of(&held).await, (200, json!("ready")));
                server.submit("n", Some("noop")).await;
                answers += 1;
            }
            answers
        })
    });
    let asking: Vec<_> = asking.collect();
    let patient = {
        let (server, path) = (server.clone(), format!("/api/v1/tasks/{held}?wait_seconds=50"));
        tokio::spawn(async move { server.call("GET", &path, Value::Null).await })
    };
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let path = format!("{CHECKPOINTS}/{id}/restore");
        let (status, answer) = server.call("PUT", &path, Value::Null).await;
        assert_eq!(status, 200, "{answer}");
    }
    over.store(true, Ordering::Relaxed);
    for one in asking {
        assert!(one.await.unwrap() > 3);
    }
    let (status, answer) = patient.await.unwrap();
    assert_eq!((status, &answer["task"]["status"]), (200, &json!("ready")), "{answer}");
    Arc::into_inner(server).unwrap().host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_make_themselves_when_something_changed_and_the_oldest_go() {
    let mut config = Config::default();
    (config.checkpoints.every_seconds, config.checkpoints.keep) = (1, 2);
    let house = House::open_with(config).await;
    let until = Instant::now() + Duration::from_secs(40);
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 4 {
        house.run(&json!({"name": "n", "parameters": {"action": "noop"}})).await;
        let listed = house.get(CHECKPOINTS).await.body;
        let items = listed["items"].as_array().unwrap();
        assert!(items.len() <= 3 && items.iter().all(|item| item["type"] == "automatic"));
        seen.extend(items.iter().map(|item| item["id"].to_string()));
        assert!(Instant::now() < until, "there are only {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_goes_on_counting_over_the_way_back() {
    let server = Listening::open().await;
    let message = json!({"to": {"topic": "t"}, "body": 1});
    assert_eq!(server.call("POST", "/api/v1/messages", message).await.0, 200);
    let figures = async || {
        let status = server.call("GET", "/api/v1/system/status", Value::Null).await.1;
        let metrics = server.call("GET", "/api/v1/system/metrics", Value::Null).await.1;
        (status["startup_time"].clone(), metrics["message_bus"]["messages_sent"].clone())
    };
    let before = figures().await;
    assert_eq!(before.1, 1);
    let (_, made) = server.call("POST", CHECKPOINTS, json!({})).await;
    let id = made["checkpoint"]["id"].as_str().unwrap();
    let (status, _) = server.call("PUT", &format!("{CHECKPOINTS}/{id}/restore"), Value::Null).await;
    assert_eq!(status, 200);
    assert_eq!(figures().await, before);
    server.host.stop().await;
}
