//! Messages: who gets them, in which order, how often, and what happens when nobody reads them.

use axum::body::Body;
use axum::http::Request;
use maos_server::config::Config;
use maos_server::store::backup;
use serde_json::{Value, json};

use crate::house::{Answer, House, id_of};
use crate::workers::{Worker, completed, held, outcome};

async fn send(house: &House, body: Value) -> Answer {
    house.call("POST", "/api/v1/messages", Some(&body)).await
}

async fn sent(house: &House, body: Value) -> Value {
    let answer = send(house, body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

async fn read(house: &House, query: &str) -> Value {
    let answer = house.get(&format!("/api/v1/messages?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

async fn ack(house: &House, mailbox: &str, reader: &str, offset: u64) -> Value {
    let body = json!({"mailbox": mailbox, "reader": reader, "offset": offset});
    let answer = house.call("POST", "/api/v1/messages/ack", Some(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

fn bodies(page: &Value) -> Vec<Value> {
    page["items"].as_array().unwrap().iter().map(|item| item["body"].clone()).collect()
}

fn check(answer: &Answer, status: u16, code: &str) {
    let found = (answer.status, &answer.body["error_code"]);
    assert_eq!(found, (status, &json!(code)), "{}", answer.body);
    assert_eq!(answer.headers.contains_key("retry-after"), status == 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_read_acknowledged_and_replayed_by_each_reader_for_itself() {
    let house = House::open().await;
    let to = json!({"topic": "news"});
    let first = sent(
        &house,
        json!({"to": to, "sender": "me", "kind": "note", "body": {"n": 0},
        "metadata": {"m": 1}, "reply_to": "0190163d-8694-739b-aea5-966c26f8ad90"}),
    )
    .await;
    assert_eq!((&first["mailbox"], &first["offset"]), (&json!("topic:news"), &json!(0)));
    for n in 1..4 {
        sent(&house, json!({"to": to, "body": {"n": n}})).await;
    }
    let page = read(&house, "mailbox=topic:news&reader=a&limit=2").await;
    assert_eq!(bodies(&page), [json!({"n": 0}), json!({"n": 1})]);
    assert_eq!((&page["next_offset"], &page["acknowledged"]), (&json!(2), &json!(null)));
    let message = &page["items"][0];
    for (field, wanted) in [
        ("message_id", &first["message_id"]),
        ("expires_at", &first["expires_at"]),
        ("sender", &json!("me")),
        ("kind", &json!("note")),
        ("metadata", &json!({"m": 1})),
        ("reply_to", &json!("0190163d-8694-739b-aea5-966c26f8ad90")),
    ] {
        assert_eq!(&message[field], wanted, "{field}");
    }
    assert_eq!(bodies(&read(&house, "mailbox=topic:news&reader=a").await).len(), 4, "again");
    assert_eq!(ack(&house, "topic:news", "a", 1).await["acknowledged"], 1);
    assert_eq!(ack(&house, "topic:news", "a", 0).await["acknowledged"], 1, "it never goes back");
    let page = read(&house, "mailbox=topic:news&reader=a").await;
    assert_eq!(bodies(&page), [json!({"n": 2}), json!({"n": 3})]);
    assert_eq!(page["acknowledged"], 1);
    assert_eq!(bodies(&read(&house, "mailbox=topic:news&reader=b").await).len(), 4);
    let replayed = read(&house, "mailbox=topic:news&reader=a&offset=0").await;
    assert_eq!((bodies(&replayed).len(), &replayed["acknowledged"]), (4, &json!(1)));
    let listed = house.get("/api/v1/messages/mailboxes").await.body;
    assert_eq!(listed["items"][0]["mailbox"], "topic:news");
    assert_eq!(listed["items"][0]["messages"], 4);
    let readers = json!([{"reader": "a", "acknowledged": 1, "waiting": 2}]);
    assert_eq!((&listed["items"][0]["readers"], &listed["next_after"]), (&readers, &json!(null)));
    let bus = house.get("/api/v1/system/metrics").await.body["message_bus"].clone();
    let found = (&bus["messages"], &bus["messages_waiting"], &bus["messages_sent"]);
    assert_eq!(found, (&json!(4), &json!(2), &json!(4)), "{bus}");
    assert!(bus["sent_per_second"].as_f64().unwrap() > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_and_tasks_must_be_there() {
    let house = House::open().await;
    let nobody = "00000000-0000-7000-8000-000000000000";
    let message = |to: Value| json!({"to": to, "body": 1});
    check(&send(&house, message(json!({"agent": nobody}))).await, 404, "AGENT_NOT_FOUND");
    check(&send(&house, message(json!({"task": nobody}))).await, 404, "TASK_NOT_FOUND");
    let worker = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "t"})).await);
    let receipt = sent(&house, message(json!({"agent": worker.id}))).await;
    assert_eq!(receipt["mailbox"], format!("agent:{}", worker.id));
    sent(&house, message(json!({"task": id}))).await;
    let task = worker.fetch().await;
    worker.poll(json!({"max_tasks": 0, "outcomes": [completed(&task, json!(1))]})).await;
    check(&send(&house, message(json!({"task": id}))).await, 409, "ALREADY_ENDED");
    assert_eq!(bodies(&read(&house, &format!("mailbox=task:{id}")).await), [json!(1)]);
    house.call("DELETE", &format!("/api/v1/agents/{}", worker.id), None).await;
    check(&send(&house, message(json!({"agent": worker.id}))).await, 409, "AGENT_ENDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_refuses_until_its_slowest_reader_has_read() {
    let mut config = Config::default();
    config.message_bus.max_queue_size = 2;
    let house = House::open_with(config).await;
    let message = json!({"to": {"all": true}, "body": "x"});
    for _ in 0..2 {
        sent(&house, message.clone()).await;
    }
    let full = send(&house, message.clone()).await;
    check(&full, 429, "MAILBOX_FULL");
    assert_eq!(full.body["details"]["bound"], 2);
    sent(&house, json!({"to": {"topic": "other"}, "body": 1})).await;
    ack(&house, "all", "fast", 1).await;
    sent(&house, message.clone()).await;
    ack(&house, "all", "slow", 0).await;
    check(&send(&house, message.clone()).await, 429, "MAILBOX_FULL");
    ack(&house, "all", "slow", 1).await;
    sent(&house, message.clone()).await;
    assert_eq!(bodies(&read(&house, "mailbox=all&offset=0").await).len(), 4, "read ones stay");
    let bus = house.get("/api/v1/system/metrics").await.body["message_bus"].clone();
    assert_eq!((&bus["messages_refused"], &bus["max_queue_size"]), (&json!(2), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_time_is_up_is_gone() {
    let house = House::open().await;
    sent(&house, json!({"to": {"all": true}, "body": "short", "ttl_seconds": 1})).await;
    sent(&house, json!({"to": {"all": true}, "body": "long"})).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while bodies(&read(&house, "mailbox=all").await).len() > 1 {
        assert!(std::time::Instant::now() < deadline, "it stays");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(bodies(&read(&house, "mailbox=all").await), ["long"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_gets_the_message_when_it_comes_and_a_stop_ends_the_wait() {
    let house = House::open().await;
    let waiting = house.get("/api/v1/messages?mailbox=topic:a&wait_seconds=60");
    let (page, _) =
        tokio::join!(waiting, sent(&house, json!({"to": {"topic": "a"}, "body": "now"})));
    assert_eq!(bodies(&page.body), ["now"]);
    let waiting = house.get("/api/v1/messages?mailbox=topic:b&wait_seconds=60");
    let stop = async { house.server.as_ref().unwrap().service.stop_intake() };
    let (page, ()) = tokio::join!(waiting, stop);
    assert_eq!(page.body["items"], json!([]));
    check_shutdown(&send(&house, json!({"to": {"all": true}, "body": 1})).await);
}

fn check_shutdown(answer: &Answer) {
    assert_eq!((answer.status, &answer.body["error_code"]), (503, &json!("SHUTTING_DOWN")));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_acknowledgements_outlive_the_server_and_stay_in_order() {
    let house = House::open().await;
    for n in 0..50 {
        sent(&house, json!({"to": {"topic": "line"}, "body": n})).await;
    }
    ack(&house, "topic:line", "default", 9).await;
    let house = house.reopen().await;
    let page = read(&house, "mailbox=topic:line").await;
    assert_eq!(bodies(&page), (10..50).map(Value::from).collect::<Vec<_>>());
    assert_eq!(sent(&house, json!({"to": {"topic": "line"}, "body": 50})).await["offset"], 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_sends_once() {
    let house = House::open().await;
    let with_key = |body: &'static str| {
        let request = Request::post("/api/v1/messages").header("idempotency-key", "k");
        house.send(request.body(Body::from(body)).unwrap())
    };
    let body = r#"{"to": {"all": true}, "body": 1}"#;
    let first = with_key(body).await;
    let again = with_key(body).await;
    assert_eq!((first.status, &first.body), (200, &again.body));
    check(&with_key(r#"{"to": {"all": true}, "body": 2}"#).await, 409, "IDEMPOTENCY_CONFLICT");
    assert_eq!(bodies(&read(&house, "mailbox=all").await), [json!(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_by_name() {
    let house = House::open().await;
    let large = json!({"to": {"all": true}, "body": "x".repeat(300_000)});
    check(&send(&house, large).await, 422, "VALIDATION_FAILED");
    let larger = json!({"to": {"all": true}, "body": "x".repeat(600_000)});
    check(&send(&house, larger).await, 413, "BODY_TOO_LARGE");
    check(&send(&house, json!({"to": "all"})).await, 422, "VALIDATION_FAILED");
    let ack = house.call("POST", "/api/v1/messages/ack", Some(&json!({}))).await;
    check(&ack, 422, "VALIDATION_FAILED");
    for query in
        ["", "mailbox=x", "mailbox=all&offset=x", "mailbox=all&reader=", "mailbox=all&limit=0"]
    {
        let answer = house.get(&format!("/api/v1/messages?{query}")).await;
        check(&answer, 400, "MALFORMED_QUERY");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gets_messages_to_it_and_its_tasks_with_its_polls() {
    let house = House::open().await;
    let mut worker = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "t"})).await);
    let task = worker.fetch().await;
    let poll = |ack: Value, wait: u64| {
        json!({"max_tasks": 0, "max_messages": 10, "wait_ms": wait, "ack": ack,
            "holding": [held(&task)]})
    };
    sent(&house, json!({"to": {"agent": worker.id}, "body": "to you"})).await;
    let first = worker.poll(poll(json!([]), 30_000)).await;
    assert_eq!(first["messages"][0]["body"], "to you");
    let own = &first["messages"][0]["mailbox"];
    let told = worker.poll(poll(json!([]), 0)).await;
    assert_eq!(told.get("messages"), None, "it has it, and may take its time");
    let ack = json!([{"mailbox": own, "offset": 0}, {"mailbox": "topic:x", "offset": 0}]);
    let (answer, _) = tokio::join!(
        worker.poll(poll(ack, 30_000)),
        sent(&house, json!({"to": {"task": id}, "body": "to your task"})),
    );
    assert_eq!(answer["messages"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!(answer["messages"][0]["body"], "to your task");
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(warning.contains("`topic:x` is neither its own"), "{warning}");
    worker.incarnation = 2;
    let again = worker.poll(poll(json!([]), 0)).await;
    assert_eq!(again["messages"][0]["body"], "to your task", "a new process has nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_for_a_message_waits_on_after_a_restart() {
    let house = House::open().await;
    let receive = json!({"action": "message.receive", "mailbox": "topic:t", "wait_seconds": 30});
    let submitted = house.submit(&json!({"name": "r", "parameters": receive})).await;
    let id = id_of(&submitted);
    let path = format!("/api/v1/tasks/{id}");
    while house.get(&path).await.body["task"]["status"] != "running" {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let house = house.reopen().await;
    let message = json!({"to": {"topic": "t"}, "body": 7});
    assert_eq!(house.call("POST", "/api/v1/messages", Some(&message)).await.status, 200);
    let task = house.ended(&id).await;
    assert_eq!((&task["status"], &task["retry_count"]), (&json!("completed"), &json!(0)));
    assert_eq!(task["result"]["items"][0]["body"], 7, "{task}");
}

#[tokio::test(flavor = "multi_thread")]
async fn built_in_tasks_send_and_receive() {
    let house = House::open().await;
    let house_ref = &house;
    let run = |parameters: Value| async move {
        let task = house_ref.run(&json!({"name": "m", "parameters": parameters})).await;
        assert_eq!(task["status"], "completed", "{task}");
        task["result"].clone()
    };
    let receive = run(json!({"action": "message.receive", "mailbox": "topic:t",
        "wait_seconds": 30}));
    let send = run(json!({"action": "message.send", "to": {"topic": "t"}, "body": 7}));
    let (received, receipt) = tokio::join!(receive, send);
    assert_eq!(bodies(&received), [json!(7)]);
    assert_eq!(received["items"][0]["message_id"], receipt["message_id"]);
    run(json!({"action": "message.acknowledge", "mailbox": "topic:t", "offset": 0})).await;
    assert_eq!(bodies(&read(&house, "mailbox=topic:t").await), [] as [Value; 0]);
    let wrong = json!({"action": "message.send", "to": {"topic": "t"}, "body": 7, "bdy": 8});
    let task = house.run(&json!({"name": "m", "parameters": wrong})).await;
    assert_eq!(task["status"], "failed");
    assert!(task["error"].as_str().unwrap().contains("unknown field `bdy`"), "{task}");
    let nobody = json!({"action": "message.send", "body": 7,
        "to": {"agent": "00000000-0000-7000-8000-000000000000"}});
    let task = house.run(&json!({"name": "m", "parameters": nobody})).await;
    assert_eq!((&task["status"], &task["retry_count"]), (&json!("failed"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_logs_are_in_a_backup() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "t"})).await);
    let task = worker.fetch().await;
    let log = outcome(&task, json!({"line": "kept"}));
    worker.poll(json!({"max_tasks": 0, "holding": [held(&task)], "logs": [log]})).await;
    sent(&house, json!({"to": {"topic": "t"}, "body": "kept"})).await;
    let folder = tempfile::tempdir().unwrap();
    let (copy, back) = (folder.path().join("copy"), folder.path().join("back"));
    backup::backup(&house.data_dir(), &copy).unwrap();
    sent(&house, json!({"to": {"topic": "t"}, "body": "later"})).await;
    backup::restore(&copy, &back).unwrap();
    let house = House::open_on(&back).await;
    assert_eq!(bodies(&read(&house, "mailbox=topic:t").await), ["kept"]);
    let page = house.get(&format!("/api/v1/tasks/{id}/logs")).await.body;
    assert_eq!(page["items"][0]["line"], "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_refused_with_what_to_do() {
    for name in ["messages.db", "logs.db"] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join(name), [b'x'; 9_000]).unwrap();
        let refused = House::try_open_on(&data).await.err().unwrap();
        assert!(refused.contains(name) && refused.contains("is damaged"), "{refused}");
        assert!(refused.contains("hint: put back a backup"), "{refused}");
    }
}
