//! The two streams, of events and of a task's lines, held against their description: their
//! parameters, their refusals and every kind of their events. What `scripts/contract` does for all
//! other operations cannot end here. That each frame is as described is held wherever a test reads
//! one (`EventReader`).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::description::{Stream, admits, reading};
use crate::house::{EventReader, House, id_of};
use crate::workers::{Worker, completed, held, outcome};

const EVENTS: &str = "/api/v1/events";
/// How many may read a stream of each kind at once.
const READERS_MAX: usize = 1_000;
/// What parameters are tried with.
const VALUES: [&str; 25] = [
    "",
    "task",
    "agent",
    "pool",
    "ready",
    "ready,failed",
    "ready,done",
    "01890000-0000-7000-8000-000000000000",
    "01890000-0000-7000-8000",
    "true",
    "false",
    "maybe",
    "debug",
    "error",
    "loud",
    "60",
    "61",
    "1000",
    "1001",
    "-7",
    "7.5",
    "9223372036854775808",
    "1-52-0",
    "1-52",
    "12345678901-12345678901-7",
];

fn request(path: &str, header: Option<(&str, &str)>) -> Request<Body> {
    let request = Request::builder().uri(path);
    let request = match header {
        Some((name, value)) => request.header(name, value),
        None => request,
    };
    request.body(Body::empty()).unwrap()
}

/// A stream, or a page in its place, that is not read.
async fn opens(house: &House, path: &str, header: Option<(&str, &str)>) -> bool {
    let response = house.response(request(path, header)).await;
    let status = response.status().as_u16();
    let paged = response.headers()["content-type"] == "application/json";
    if status == 200 && !paged {
        Stream::of(path).hold_head(status, response.headers());
    }
    status == 200
}

/// Tries every parameter that is described with everything that it may be, or may not.
async fn try_parameters(house: &House, path: &str) {
    let parameters = reading(path)["parameters"].as_array().unwrap().clone();
    let mut tried = 0;
    for parameter in parameters.iter().filter(|parameter| parameter["in"] != "path") {
        let name = parameter["name"].as_str().unwrap();
        let flag = parameter["schema"]["type"] == "boolean";
        // A flag may also be written without a value.
        for value in VALUES.into_iter().filter(|value| !(flag && value.is_empty())) {
            let join = if path.contains('?') { '&' } else { '?' };
            let (path, header) = match parameter["in"] == "header" {
                true => (path.to_owned(), Some((name, value))),
                false if name == "follow" => (path.replace("true", value), None),
                false => (format!("{path}{join}{name}={value}"), None),
            };
            let (wanted, opened) =
                (admits(&parameter["schema"], value), opens(house, &path, header).await);
            assert_eq!(opened, wanted, "{path} {header:?}");
            if !opened {
                let refused = house.send(request(&path, header)).await;
                let is_id = parameter["schema"]["format"] == "uuid";
                let code = if is_id { "MALFORMED_ID" } else { "MALFORMED_QUERY" };
                let found = &refused.body["error_code"];
                assert_eq!((refused.status, found), (400, &json!(code)), "{path}");
                assert_eq!(refused.body["details"]["parameter"], name, "{path}");
            }
            tried += 1;
        }
    }
    assert!(tried > 5 * VALUES.len(), "what is described is tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn their_parameters_are_taken_and_refused_as_described() {
    let house = House::open().await;
    try_parameters(&house, EVENTS).await;
    let id = id_of(&house.submit(&json!({"name": "waits"})).await);
    try_parameters(&house, &format!("/api/v1/tasks/{id}/logs?follow=true")).await;
}

/// Notes that this is refused, and as described.
async fn refused(house: &House, path: &str, expected: (u16, &str)) -> u16 {
    let answer = house.get(path).await;
    let code = answer.body["error_code"].as_str().unwrap();
    assert_eq!((answer.status, code), expected, "{path}: {}", answer.body);
    let said = &reading(path)["responses"][expected.0.to_string()]["description"];
    assert!(said.as_str().unwrap().contains(&format!("`{code}`")), "{path}: {said}");
    answer.status
}

/// Has as many read as may, and asks once more.
async fn crowded(house: &House, path: &str) -> u16 {
    let mut readers = Vec::new();
    for number in 0..READERS_MAX {
        let response = house.response(request(path, None)).await;
        assert_eq!(response.status(), 200, "{path}: {number}");
        readers.push(response);
    }
    refused(house, path, (429, "QUEUE_FULL")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_that_is_described_comes_and_no_other() {
    let house = House::open().await;
    let id = id_of(&house.submit(&json!({"name": "waits"})).await);
    let logs = format!("/api/v1/tasks/{id}/logs?follow=true");
    let nobody = "01890000-0000-7000-8000-000000000000";
    let mut of_events = BTreeSet::from([
        refused(&house, &format!("{EVENTS}?type=x"), (400, "MALFORMED_QUERY")).await,
        refused(&house, &format!("{EVENTS}?x=1"), (422, "VALIDATION_FAILED")).await,
        crowded(&house, EVENTS).await,
    ]);
    let path = |id: &str| logs.replace(&*id_in(&logs), id);
    let mut of_logs = BTreeSet::from([
        refused(&house, &path("7"), (400, "MALFORMED_ID")).await,
        refused(&house, &format!("{logs}&limit=0"), (400, "MALFORMED_QUERY")).await,
        refused(&house, &path(nobody), (404, "TASK_NOT_FOUND")).await,
        refused(&house, &format!("{logs}&x=1"), (422, "VALIDATION_FAILED")).await,
        crowded(&house, &logs).await,
    ]);
    house.server.as_ref().unwrap().service.stop_intake();
    of_events.insert(refused(&house, EVENTS, (503, "SHUTTING_DOWN")).await);
    of_logs.insert(refused(&house, &logs, (503, "SHUTTING_DOWN")).await);
    for (path, mut met) in [(EVENTS, of_events), (&*logs, of_logs)] {
        // A fault of the server's own is not to be had.
        met.extend([200, 500]);
        let described = reading(path)["responses"].as_object().unwrap().keys();
        let described: BTreeSet<u16> = described.map(|status| status.parse().unwrap()).collect();
        assert_eq!(met, described, "{path}");
    }
}

fn id_in(logs: &str) -> String {
    logs.split('/').nth(4).unwrap().to_owned()
}

/// Reads until every kind of event that is described has come.
async fn all_kinds(path: &str, readers: Vec<EventReader>) {
    let described = Stream::of(path).kinds();
    let mut met = BTreeSet::new();
    for mut reader in readers {
        while met != described && reader.next().await.is_some() {
            met.extend(reader.kind.take());
        }
    }
    assert_eq!(met, described, "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_event_comes_as_it_is_described() {
    let house = House::open_with(crate::pools::config(1, 3)).await;
    let reader = house.events("", Some("0-0-0")).await;
    house.run(&json!({"name": "n", "parameters": {"action": "noop"}})).await;
    Worker::register(&house, 1).await;
    house.call("PUT", "/api/v1/pools/small", Some(&json!({"min": 2, "max": 3}))).await;
    all_kinds(EVENTS, vec![reader]).await;
}

/// A task of which so many lines were kept, and that has ended.
async fn talked(house: &House, worker: &Worker<'_>, count: usize) -> String {
    let id = id_of(&house.submit(&json!({"name": "talker"})).await);
    let task = worker.fetch().await;
    let lines: Vec<Value> = (0..count).map(|_| json!("x".repeat(1_000))).collect();
    let said = outcome(&task, json!({"lines": lines}));
    worker.poll(json!({"max_tasks": 0, "holding": [held(&task)], "logs": [said]})).await;
    worker.poll(json!({"max_tasks": 0, "outcomes": [completed(&task, json!(1))]})).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_event_of_a_log_comes_as_it_is_described() {
    let mut config = maos_server::config::Config::default();
    config.logs.bytes_max = 20_000;
    let house = House::open_with(config).await;
    let worker = Worker::register(&house, 1).await;
    let first = talked(&house, &worker, 15).await;
    let last = talked(&house, &worker, 15).await;
    let path = |id: &str| format!("/api/v1/tasks/{id}/logs");
    let until = Instant::now() + Duration::from_secs(30);
    while house.get(&path(&first)).await.body["warnings"].is_null() {
        assert!(Instant::now() < until, "the oldest lines go");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let followed = |id: &str| format!("{}?follow=true", path(id));
    let (old, new) = (followed(&first), followed(&last));
    let readers = vec![house.stream(&old, None).await, house.stream(&new, None).await];
    all_kinds(&old, readers).await;
}
