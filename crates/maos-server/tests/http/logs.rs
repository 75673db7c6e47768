//! Logs of tasks: pages, following, going on behind the last line, and their end.

use maos_server::config::Config;
use serde_json::{Value, json};

use crate::house::{House, id_of};
use crate::workers::{Worker, completed, held, outcome};

async fn say(worker: &Worker<'_>, task: &Value, entries: Value) -> Value {
    let logs: Vec<Value> =
        entries.as_array().unwrap().iter().map(|entry| outcome(task, entry.clone())).collect();
    worker.poll(json!({"max_tasks": 0, "holding": [held(task)], "logs": logs})).await
}

async fn page(house: &House, id: &str, query: &str) -> Value {
    let answer = house.get(&format!("/api/v1/tasks/{id}/logs{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

fn lines(page: &Value) -> Vec<(u64, &str)> {
    let items = page["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| (item["offset"].as_u64().unwrap(), item["line"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_worker_are_kept_in_pages_and_outlive_the_server() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "talker"})).await);
    let empty = page(&house, &id, "").await;
    assert_eq!((&empty["items"], &empty["ended"]), (&json!([]), &json!(false)));
    let task = worker.fetch().await;
    let said = json!([{"line": "one"}, {"line": "bad", "level": "error",
        "time": "2026-01-01T00:00:00Z"}, {"lines": ["two", "three"], "level": "debug"}]);
    assert_eq!(say(&worker, &task, said).await.get("warnings"), None);
    let progress = outcome(&task, json!({"message": "half", "fraction": 0.5}));
    worker.poll(json!({"max_tasks": 0, "holding": [held(&task)], "progress": [progress]})).await;
    worker.poll(json!({"max_tasks": 0, "outcomes": [completed(&task, json!(1))]})).await;

    let all = page(&house, &id, "").await;
    let texts = [(0, "one"), (1, "bad"), (2, "two"), (3, "three"), (4, "half")];
    assert_eq!(lines(&all), texts);
    assert_eq!((&all["ended"], &all["next_offset"]), (&json!(true), &json!(5)));
    let bad = &all["items"][1];
    assert_eq!((&bad["level"], &bad["time"]), (&json!("error"), &json!("2026-01-01T00:00:00Z")));
    assert_eq!((&bad["attempt"], &bad["source"]), (&json!(1), &json!("worker")));
    assert_eq!(all["items"][4]["source"], "progress");
    let part = page(&house, &id, "?offset=1&limit=2").await;
    assert_eq!(lines(&part), texts[1..3]);
    assert_eq!((&part["ended"], &part["next_offset"]), (&json!(false), &json!(3)));
    assert_eq!(lines(&page(&house, &id, "?level=warning").await), [(1, "bad")]);
    assert_eq!(page(&house, &id, "?offset=99").await["next_offset"], 99);

    let house = house.reopen().await;
    assert_eq!(page(&house, &id, "").await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_gets_every_line_once_and_the_end() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "talker"})).await);
    let path = format!("/api/v1/tasks/{id}/logs?follow=true");
    let mut follower = house.stream(&path, None).await;
    let task = worker.fetch().await;
    say(&worker, &task, json!([{"line": "one"}])).await;
    let (place, first) = follower.next().await.unwrap();
    assert_eq!((&*place, &first["line"]), ("0", &json!("one")));
    drop(follower);
    say(&worker, &task, json!([{"line": "two"}])).await;
    let mut follower = house.stream(&path, Some(&place)).await;
    assert_eq!(follower.next().await.unwrap().1["line"], "two");
    let mut serious = house.stream(&format!("{path}&level=error&offset=1"), None).await;
    let last = outcome(&task, json!({"line": "three", "level": "error"}));
    let done = completed(&task, json!(null));
    worker.poll(json!({"max_tasks": 0, "logs": [last], "outcomes": [done]})).await;
    assert_eq!(follower.next().await.unwrap().1["line"], "three");
    assert_eq!(serious.next().await.unwrap().1["line"], "three");
    for mut reader in [follower, serious] {
        let (_, end) = reader.next().await.unwrap();
        assert_eq!((&end["status"], &end["next_offset"]), (&json!("completed"), &json!(3)));
        assert!(reader.next().await.is_none(), "nothing comes behind the end");
    }
    let mut late = house.stream(&path, None).await;
    for line in ["one", "two", "three"] {
        assert_eq!(late.next().await.unwrap().1["line"], line);
    }
    assert_eq!(late.next().await.unwrap().1["task_id"], json!(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_may_wait_for_a_line_or_the_end() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "talker"})).await);
    let task = worker.fetch().await;
    let (waited, _) = tokio::join!(
        page(&house, &id, "?wait_seconds=30"),
        say(&worker, &task, json!([{"line": "x"}])),
    );
    assert_eq!(lines(&waited), [(0, "x")]);
    let done = json!({"max_tasks": 0, "outcomes": [completed(&task, json!(1))]});
    let (waited, _) =
        tokio::join!(page(&house, &id, "?wait_seconds=30&offset=1"), worker.poll(done));
    assert_eq!((&waited["items"], &waited["ended"]), (&json!([]), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_has_a_bound_and_lines_of_others_are_refused_aloud() {
    let mut config = Config::default();
    config.logs.task_lines_max = 3;
    let house = House::open_with(config).await;
    let worker = Worker::register(&house, 2).await;
    let id = id_of(&house.submit(&json!({"name": "talker"})).await);
    let task = worker.fetch().await;
    let mut stale = task.clone();
    stale["attempt"] = json!(7);
    let answer = say(&worker, &stale, json!([{"line": "x"}])).await;
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(warning.contains("attempt 7 of task") && warning.contains("not kept"), "{warning}");
    for number in 0..3 {
        let said = json!([{"line": format!("{number}a")}, {"line": format!("{number}b")}]);
        say(&worker, &task, said).await;
    }
    let full = page(&house, &id, "").await;
    let texts = lines(&full);
    assert_eq!(texts[..3], [(0, "0a"), (1, "0b"), (2, "1a")]);
    assert!(texts.len() == 4 && texts[3].1.starts_with("the log is full"), "{texts:?}");
    assert_eq!(full["items"][3]["source"], "server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_goes_with_its_task() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "talker"})).await);
    let task = worker.fetch().await;
    let said = outcome(&task, json!({"line": "x"}));
    let done = completed(&task, json!(1));
    worker.poll(json!({"max_tasks": 0, "logs": [said], "outcomes": [done]})).await;
    assert_eq!(lines(&page(&house, &id, "").await).len(), 1);
    let service = &house.server.as_ref().unwrap().service;
    assert_eq!(service.kept_logs().await.unwrap().streams, 1);
    let body = json!({"operation": "delete", "task_ids": [id]});
    let gone = house.call("POST", "/api/v1/tasks/bulk", Some(&body)).await;
    assert_eq!(gone.body["successful_operations"], 1, "{}", gone.body);
    assert_eq!(house.get(&format!("/api/v1/tasks/{id}/logs")).await.status, 404);
    assert_eq!(service.kept_logs().await.unwrap().streams, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_by_name() {
    let house = House::open().await;
    let nobody = "00000000-0000-7000-8000-000000000000";
    for follow in ["", "?follow=true"] {
        let answer = house.get(&format!("/api/v1/tasks/{nobody}/logs{follow}")).await;
        let code = &answer.body["error_code"];
        assert_eq!((answer.status, code), (404, &json!("TASK_NOT_FOUND")));
    }
    for query in
        ["offset=-1", "limit=0", "limit=1001", "level=loud", "follow=maybe", "wait_seconds=61"]
    {
        let answer = house.get(&format!("/api/v1/tasks/{nobody}/logs?{query}")).await;
        let code = &answer.body["error_code"];
        assert_eq!((answer.status, code), (400, &json!("MALFORMED_QUERY")), "{query}");
    }
}
