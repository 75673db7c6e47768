//! Subscriptions: messages as signed webhooks, in order, tried again, given up and delivered again.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use maos_core::command::{Command, Expect};
use maos_core::node::Echo;
use maos_core::payload::Payload;
use maos_server::config::Config;
use maos_server::webhooks::Secret;
use serde_json::{Value, json};

use crate::house::House;

/// Somebody who takes webhooks, or does not.
#[derive(Clone, Default)]
struct Taker {
    answers: Arc<AtomicU16>,
    taken: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    tries: Arc<AtomicU16>,
}

impl Taker {
    async fn listen() -> (Taker, String) {
        let taker = Taker { answers: Arc::new(200.into()), ..Taker::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let app = Router::new().route("/hook", post(take)).with_state(taker.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (taker, url)
    }

    fn bodies(&self) -> Vec<Value> {
        let body = |taken: &(HeaderMap, Bytes)| {
            serde_json::from_slice::<Value>(&taken.1).unwrap()["data"]["body"].clone()
        };
        self.taken.lock().unwrap().iter().map(body).collect()
    }
}

async fn take(State(taker): State<Taker>, headers: HeaderMap, body: Bytes) -> StatusCode {
    taker.tries.fetch_add(1, Ordering::SeqCst);
    let status = taker.answers.load(Ordering::SeqCst);
    if status == 200 {
        taker.taken.lock().unwrap().push((headers, body));
    }
    StatusCode::from_u16(status).unwrap()
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn open_to_all() -> Config {
    let mut config = Config::default();
    config.outbound.allow_private = true;
    config.webhooks.attempts_max = 3;
    config.webhooks.retry_pause_ms = 5;
    config
}

async fn subscribe(house: &House, body: Value) -> Value {
    let answer = house.call("PUT", "/api/v1/messages/subscriptions/mine", Some(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

async fn mine(house: &House) -> Value {
    house.get("/api/v1/messages/subscriptions/mine").await.body
}

async fn send(house: &House, body: Value) {
    let body = json!({"to": {"topic": "t"}, "body": body});
    assert_eq!(house.call("POST", "/api/v1/messages", Some(&body)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_posted_in_order_and_signed() {
    let house = House::open_with(open_to_all()).await;
    let (taker, url) = Taker::listen().await;
    send(&house, json!("before")).await;
    let made = subscribe(&house, json!({"mailbox": "topic:t", "url": url})).await;
    let secret = Secret::parse(made["secret"].as_str().unwrap()).unwrap();
    for n in 0..20 {
        send(&house, json!(n)).await;
    }
    eventually("all are taken", async || taker.bodies().len() == 20).await;
    assert_eq!(taker.bodies(), (0..20).map(Value::from).collect::<Vec<_>>());
    for (headers, body) in taker.taken.lock().unwrap().iter() {
        let header = |name: &str| headers[name].to_str().unwrap();
        let timestamp = header("webhook-timestamp").parse().unwrap();
        let signature = secret.sign(header("webhook-id"), timestamp, body);
        assert_eq!(header("webhook-signature"), signature);
        let sent: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(sent["data"]["message_id"], header("webhook-id"));
        assert_eq!(sent["type"], "message");
    }
    eventually("it is noted", async || mine(&house).await["delivered"] == 20).await;
    let shown = mine(&house).await;
    assert_eq!((shown.get("secret"), &shown["waiting"]), (None, &json!(0)), "{shown}");
    let again = subscribe(&house, json!({"mailbox": "topic:t", "url": url})).await;
    assert_eq!(again.get("secret"), None, "it keeps its secret");

    let house = house.reopen_with(open_to_all()).await;
    send(&house, json!("after")).await;
    eventually("it goes on", async || taker.bodies().len() == 21).await;
    let gone = house.call("DELETE", "/api/v1/messages/subscriptions/mine", None).await;
    assert_eq!(gone.status, 200);
    let gone = house.get("/api/v1/messages/subscriptions/mine").await;
    assert_eq!((gone.status, &gone.body["error_code"]), (404, &json!("SUBSCRIPTION_NOT_FOUND")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_is_given_up_and_can_be_delivered_again() {
    let house = House::open_with(open_to_all()).await;
    let (taker, url) = Taker::listen().await;
    taker.answers.store(500, Ordering::SeqCst);
    let secret = Secret::generate().text();
    let wanted = json!({"mailbox": "topic:t", "url": url, "secret": secret});
    assert_eq!(subscribe(&house, wanted).await.get("secret"), None);
    send(&house, json!("a")).await;
    send(&house, json!("b")).await;
    eventually("both are given up", async || mine(&house).await["dead"] == 2).await;
    assert_eq!(taker.tries.load(Ordering::SeqCst), 6, "three tries each");
    let dead = house.get("/api/v1/messages?mailbox=dead:mine").await.body;
    let first = &dead["items"][0];
    assert_eq!((&first["body"], &first["metadata"]["mailbox"]), (&json!("a"), &json!("topic:t")));
    assert!(first["metadata"]["error"].as_str().unwrap().contains("answered 500"), "{first}");
    taker.answers.store(200, Ordering::SeqCst);
    let path = "/api/v1/messages/subscriptions/mine/replay";
    assert_eq!(house.call("POST", path, None).await.status, 200);
    eventually("both are taken", async || taker.bodies().len() == 2).await;
    assert_eq!(taker.bodies(), ["a", "b"]);
    eventually("none is left", async || mine(&house).await["dead"] == 0).await;
    let bus = house.get("/api/v1/system/metrics").await.body["message_bus"].clone();
    let found = (&bus["subscriptions"], &bus["webhooks_delivered"], &bus["webhook_tries_failed"]);
    assert_eq!(found, (&json!(1), &json!(2), &json!(6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_answer_holds_up_nobody_else() {
    let house = House::open_with(open_to_all()).await;
    let (taker, url) = Taker::listen().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}/", closed.local_addr().unwrap());
    let put = |name: &'static str, url: String| {
        let house = &house;
        async move {
            let path = format!("/api/v1/messages/subscriptions/{name}");
            let body = json!({"mailbox": "topic:t", "url": url});
            assert_eq!(house.call("PUT", &path, Some(&body)).await.status, 200);
        }
    };
    put("silent", silent).await;
    put("mine", url).await;
    send(&house, json!(1)).await;
    eventually("it is taken", async || taker.bodies() == [json!(1)]).await;
    let all = house.get("/api/v1/messages/subscriptions").await.body;
    let names: Vec<&Value> =
        all["items"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
    assert_eq!(names, ["mine", "silent"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn inner_addresses_and_wrong_words_are_refused() {
    let house = House::open().await;
    for (body, field) in [
        (json!({"mailbox": "all", "url": "http://127.0.0.1/"}), "url"),
        (json!({"mailbox": "all", "url": "http://[::1]/"}), "url"),
        (json!({"mailbox": "all", "url": "http://169.254.169.254/latest"}), "url"),
        (json!({"mailbox": "all", "url": "file:///etc/passwd"}), "url"),
        (json!({"mailbox": "all"}), "url"),
        (json!({"mailbox": "dead:x", "url": "http://example.com"}), "mailbox"),
        (json!({"mailbox": "all", "url": "http://example.com", "secret": "x"}), "secret"),
        (json!({"mailbox": "all", "url": "http://example.com", "x": 1}), "x"),
    ] {
        let path = "/api/v1/messages/subscriptions/mine";
        let refused = house.call("PUT", path, Some(&body)).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
        assert!(refused.body["details"]["fields"].get(field).is_some(), "{}", refused.body);
    }
    let body = json!({"mailbox": "nobody", "url": "http://127.0.0.1/", "secret": "x", "y": 1});
    let refused = house.call("PUT", "/api/v1/messages/subscriptions/mine", Some(&body)).await;
    let fields = refused.body["details"]["fields"].as_object().unwrap();
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["mailbox", "secret", "url", "y"]);
    // A name is looked at when it is resolved: it may lead elsewhere by then.
    let body = json!({"mailbox": "topic:t", "url": "http://localhost:9/"});
    subscribe(&house, body).await;
    send(&house, json!(1)).await;
    eventually("it is given up at once", async || mine(&house).await["dead"] == 1).await;
    let dead = house.get("/api/v1/messages?mailbox=dead:mine").await.body;
    let error = dead["items"][0]["metadata"]["error"].as_str().unwrap();
    assert!(error.contains("inner address"), "{error}");
    for (method, path) in [
        ("GET", "/api/v1/messages/subscriptions/none"),
        ("DELETE", "/api/v1/messages/subscriptions/none"),
        ("POST", "/api/v1/messages/subscriptions/none/replay"),
    ] {
        assert_eq!(house.call(method, path, None).await.status, 404, "{method}");
    }
}

async fn submit_with_callback(house: &House, url: &str) -> Value {
    let body = json!({"name": "n", "callback_url": url, "parameters": {"action": "noop", "a": 1}});
    let answer = house.call("POST", "/api/v1/claude/tasks", Some(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn who_submitted_a_task_is_told_of_its_end() {
    let house = House::open_with(open_to_all()).await;
    let (taker, url) = Taker::listen().await;
    let accepted = submit_with_callback(&house, &url).await;
    eventually("it is told", async || taker.taken.lock().unwrap().len() == 1).await;
    let secret = Secret::parse(accepted["callback_secret"].as_str().unwrap()).unwrap();
    let (headers, body) = taker.taken.lock().unwrap()[0].clone();
    let header = |name: &str| headers[name].to_str().unwrap();
    let timestamp = header("webhook-timestamp").parse().unwrap();
    let signature = secret.sign(header("webhook-id"), timestamp, &body);
    assert_eq!(header("webhook-signature"), signature);
    let told: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&told["type"], &told["data"]["result"]["a"]),
        (&json!("task.completed"), &json!(1))
    );
    assert_eq!(told["data"]["id"], accepted["claude_task_id"]);
    assert_eq!(told["data"]["maos_task_id"], accepted["maos_task_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_nobody_takes_is_tried_over_a_restart_and_then_kept_apart() {
    let mut config = open_to_all();
    config.webhooks.attempts_max = 100;
    config.webhooks.retry_pause_ms = 300_000;
    let house = House::open_with(config).await;
    let (taker, url) = Taker::listen().await;
    taker.answers.store(500, Ordering::SeqCst);
    submit_with_callback(&house, &url).await;
    eventually("it is tried", async || taker.tries.load(Ordering::SeqCst) == 1).await;
    let house = house.reopen_with(open_to_all()).await;
    eventually("it is given up", async || taker.tries.load(Ordering::SeqCst) == 4).await;
    let mut dead = json!(null);
    eventually("it is kept", async || {
        dead = house.get("/api/v1/messages?mailbox=dead:callbacks").await.body;
        !dead["items"].as_array().unwrap().is_empty()
    })
    .await;
    let kept = &dead["items"][0];
    assert_eq!(kept["body"]["type"], "task.completed");
    assert_eq!(kept["metadata"]["url"], json!(url));
    let house = house.reopen_with(open_to_all()).await;
    taker.answers.store(200, Ordering::SeqCst);
    submit_with_callback(&house, &url).await;
    eventually("the next one is told", async || taker.taken.lock().unwrap().len() == 1).await;
    assert_eq!(taker.tries.load(Ordering::SeqCst), 5, "what was given up is not tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_was_given_up_before_a_crash_is_kept_and_not_tried_again() {
    let house = House::open_with(open_to_all()).await;
    let (taker, url) = Taker::listen().await;
    let body = json!({"name": "n", "parameters": {"action": "noop"}});
    let answer = house.call("POST", "/api/v1/claude/tasks?wait_seconds=30", Some(&body)).await;
    let task = answer.body["maos_task_id"].as_str().unwrap_or_else(|| panic!("{}", answer.body));
    // What the engine has of it between the last try and the end of the story.
    let given_up = json!({"url": url, "secret": Secret::generate().text(), "given_up": "500"});
    let engine = house.server.as_ref().unwrap().engine().clone();
    let kept = Command::SetEntry {
        register: "callback".into(),
        key: task.into(),
        value: Some(Payload::inline(given_up.to_string().as_bytes())),
        expect: Expect::Anything,
    };
    engine.run(kept, Echo::Id).await.unwrap();
    let house = house.reopen_with(open_to_all()).await;
    let path = "/api/v1/messages?mailbox=dead:callbacks&wait_seconds=30";
    let dead = house.get(path).await.body;
    assert_eq!(dead["items"][0]["metadata"], json!({"url": url, "error": "500"}), "{dead}");
    assert_eq!(taker.tries.load(Ordering::SeqCst), 0);
}
