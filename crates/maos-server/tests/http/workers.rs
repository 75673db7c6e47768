//! Workers that poll: what they are given, what they may say, and what becomes of their attempts.

use std::time::{Duration, Instant};

use maos_server::config::Config;
use serde_json::{Value, json};

use crate::house::{Answer, House, id_of};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A worker's side of the protocol.
pub(crate) struct Worker<'h> {
    house: &'h House,
    pub(crate) id: String,
    pub(crate) incarnation: u64,
}

impl Worker<'_> {
    pub(crate) async fn register(house: &House, slots: u32) -> Worker<'_> {
        Worker::with(house, "task_execution", slots).await
    }

    pub(crate) async fn with<'h>(house: &'h House, capability: &str, slots: u32) -> Worker<'h> {
        let body = json!({"agent_type": "w", "capabilities": [capability],
            "max_concurrent_tasks": slots, "runtime": "worker"});
        let made = house.call("POST", "/api/v1/agents", Some(&body)).await;
        assert_eq!(made.status, 200, "{}", made.body);
        let id = made.body["agent"]["id"].as_str().unwrap().to_owned();
        Worker { house, id, incarnation: 1 }
    }

    pub(crate) async fn try_poll(&self, mut body: Value) -> Answer {
        body["incarnation"] = self.incarnation.into();
        self.house.call("POST", &format!("/api/v1/agents/{}/poll", self.id), Some(&body)).await
    }

    pub(crate) async fn poll(&self, body: Value) -> Value {
        let answer = self.try_poll(body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// The next task, waited for.
    pub(crate) async fn fetch(&self) -> Value {
        let answer = self.poll(json!({"max_tasks": 1, "wait_ms": 20_000})).await;
        assert_eq!(answer["tasks"].as_array().unwrap().len(), 1, "{answer}");
        answer["tasks"][0].clone()
    }

    async fn shown(&self) -> Value {
        self.house.get(&format!("/api/v1/agents/{}", self.id)).await.body["agent"].clone()
    }
}

pub(crate) fn held(task: &Value) -> Value {
    json!({"task_id": task["task_id"], "attempt": task["attempt"]})
}

pub(crate) fn outcome(task: &Value, more: Value) -> Value {
    let mut outcome = held(task);
    outcome.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    outcome
}

pub(crate) fn completed(task: &Value, result: Value) -> Value {
    outcome(task, json!({"status": "completed", "result": result}))
}

fn with_timeout(seconds: u64) -> Config {
    let mut config = Config::default();
    config.api.worker_timeout = seconds;
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_submission_is_done_by_a_worker() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    assert_eq!(worker.shown().await["status"], "offline");
    let body = json!({"name": "plain", "description": "do it", "parameters": {"x": [1, 2]},
        "metadata": {"from": "here"}, "tags": ["b", "a"], "timeout_seconds": 50});
    let id = id_of(&house.submit(&body).await);
    let task = worker.fetch().await;
    assert_eq!((&task["task_id"], &task["attempt"]), (&json!(id), &json!(1)));
    assert_eq!((&task["name"], &task["description"]), (&json!("plain"), &json!("do it")));
    assert_eq!((&task["parameters"], &task["tags"]), (&json!({"x": [1, 2]}), &json!(["a", "b"])));
    assert_eq!(task["metadata"], json!({"from": "here"}));
    let left = task["remaining_ms"].as_u64().unwrap();
    assert!(task["timeout_seconds"] == 50 && (40_000..=50_000).contains(&left), "{task}");
    assert_eq!(worker.shown().await["status"], "overloaded", "its only slot is taken");

    let progress = outcome(&task, json!({"fraction": 0.5, "message": "half"}));
    let log = outcome(&task, json!({"lines": ["one", "two"]}));
    let busy =
        worker.poll(json!({"holding": [held(&task)], "progress": [progress], "logs": [log]}));
    assert_eq!(busy.await["tasks"], json!([]), "what it holds is not sent again");
    let done = completed(&task, json!({"y": 3}));
    for _ in 0..2 {
        let answer = worker.poll(json!({"outcomes": [done]})).await;
        assert_eq!((&answer["refused"], &answer["cancel"]), (&json!([]), &json!([])));
        assert_eq!((&answer["lease_seconds"], &answer["drain"]), (&json!(90), &json!(false)));
    }
    let task = house.ended(&id).await;
    assert_eq!((&task["status"], &task["result"]), (&json!("completed"), &json!({"y": 3})));
    let shown = worker.shown().await;
    assert_eq!(
        (&shown["status"], &shown["metrics"]["tasks_completed"]),
        (&json!("idle"), &json!(1))
    );
    assert!(shown["last_seen"].is_string(), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn references_are_resolved_and_failures_are_retried_or_not() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    let steps = json!(["one", {"name": "two", "max_retries": 0}]);
    let body = json!({"name": "line", "decomposition_strategy": "pipeline",
        "parameters": {"steps": steps}});
    let id = id_of(&house.submit(&body).await);
    let first = worker.fetch().await;
    let large = json!({"text": "x".repeat(5_000)});
    worker.poll(json!({"outcomes": [completed(&first, large.clone())]})).await;
    let second = worker.fetch().await;
    assert_eq!(second["parameters"]["input"], large);
    let bad = outcome(&second, json!({"status": "failed", "error": "no `ink`", "permanent": true}));
    for _ in 0..2 {
        assert_eq!(worker.poll(json!({"outcomes": [bad]})).await["refused"], json!([]));
    }
    let root = house.ended(&id).await;
    assert!(root["error"].as_str().unwrap().contains("no `ink`"), "{root}");
    // Lost and given up: another attempt each, without using up a retry.
    let id = id_of(&house.submit(&json!({"name": "again", "max_retries": 0})).await);
    for (attempt, status) in [(1, "lost"), (2, "cancelled"), (3, "completed")] {
        let task = worker.fetch().await;
        assert_eq!(task["attempt"], attempt, "{task}");
        worker.poll(json!({"outcomes": [outcome(&task, json!({"status": status}))]})).await;
    }
    let task = house.ended(&id).await;
    assert_eq!((&task["status"], &task["result"]), (&json!("completed"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_attempt_is_told_once_and_keeps_its_slot_until_it_has_stopped() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "long"})).await);
    let next = id_of(&house.submit(&json!({"name": "next"})).await);
    let task = worker.fetch().await;
    let waiting = json!({"holding": [held(&task)], "wait_ms": 20_000});
    let told = async {
        let answer = worker.poll(waiting).await;
        assert_eq!(answer["cancel"], json!([held(&task)]));
    };
    let cancel = async {
        house.call("DELETE", &format!("/api/v1/tasks/{id}"), None).await;
    };
    tokio::join!(told, cancel);
    let busy = worker.poll(json!({"holding": [held(&task)]})).await;
    assert_eq!((&busy["cancel"], &busy["tasks"]), (&json!([held(&task)]), &json!([])));
    let late = worker.poll(json!({"outcomes": [completed(&task, json!(1))]})).await;
    assert_eq!(late["refused"][0]["error_code"], "STALE_ATTEMPT", "{late}");
    assert_eq!(worker.fetch().await["task_id"], json!(next), "the slot is free");
    // One that is simply no longer held has stopped as well.
    house.call("DELETE", &format!("/api/v1/tasks/{next}"), None).await;
    let third = id_of(&house.submit(&json!({"name": "third"})).await);
    let told = worker.poll(json!({"max_tasks": 1, "wait_ms": 20_000})).await;
    let task = match told["tasks"].get(0) {
        Some(task) => task.clone(),
        None => worker.fetch().await,
    };
    assert_eq!(task["task_id"], json!(third));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_after_the_attempts_time_is_refused() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    let body = json!({"name": "slow", "timeout_seconds": 1, "max_retries": 0});
    let id = id_of(&house.submit(&body).await);
    let task = worker.fetch().await;
    let ended = house.ended(&id).await;
    assert_eq!((&ended["status"], &ended["error_kind"]), (&json!("failed"), &json!("TIMED_OUT")));
    let late = worker.poll(json!({"outcomes": [completed(&task, json!(1))]})).await;
    assert_eq!(late["refused"][0]["error_code"], "STALE_ATTEMPT", "{late}");
    assert_eq!(late["refused"][0]["task_id"], json!(id));
    assert_eq!(house.ended(&id).await["status"], "failed");
    // A hanging one is ended by its silence, while its worker goes on polling.
    let body = json!({"name": "hangs", "no_progress_seconds": 1, "max_retries": 0});
    let id = id_of(&house.submit(&body).await);
    let task = worker.fetch().await;
    assert_eq!(task["no_progress_seconds"], 1);
    let told = worker.poll(json!({"holding": [held(&task)], "wait_ms": 20_000})).await;
    assert_eq!(told["cancel"], json!([held(&task)]));
    assert_eq!(house.ended(&id).await["error_kind"], "NO_PROGRESS");
}

#[tokio::test(flavor = "multi_thread")]
async fn patience_with_a_running_task_can_be_lost() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "hangs", "max_retries": 0})).await);
    let task = worker.fetch().await;
    let path = format!("/api/v1/tasks/{id}");
    for change in [json!({"no_progress_seconds": 3_600}), json!({"no_progress_seconds": 1})] {
        let changed = house.call("PATCH", &path, Some(&change)).await;
        assert_eq!(changed.status, 200, "{}", changed.body);
    }
    let told = worker.poll(json!({"holding": [held(&task)], "wait_ms": 20_000})).await;
    assert_eq!(told["cancel"], json!([held(&task)]));
    assert_eq!(house.ended(&id).await["error_kind"], "NO_PROGRESS");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_incarnation_takes_over_and_fences_the_first() {
    let house = House::open().await;
    let old = Worker::register(&house, 2).await;
    let id = id_of(&house.submit(&json!({"name": "a"})).await);
    let task = old.fetch().await;
    let new = Worker { house: &house, id: old.id.clone(), incarnation: 2 };
    let fenced = async {
        let answer = old.try_poll(json!({"holding": [held(&task)], "wait_ms": 20_000})).await;
        assert_eq!((answer.status, &answer.body["error_code"]), (409, &json!("STALE_INCARNATION")));
    };
    let took_over = async {
        let again = new.poll(json!({"max_tasks": 2, "wait_ms": 20_000})).await;
        assert_eq!(again["tasks"][0]["task_id"], json!(id), "{again}");
        assert_eq!(again["tasks"][0]["attempt"], 1, "the same attempt");
    };
    tokio::join!(fenced, took_over);
    let stale = old.try_poll(json!({"outcomes": [completed(&task, json!("old"))]})).await;
    assert_eq!((stale.status, &stale.body["error_code"]), (409, &json!("STALE_INCARNATION")));
    assert_eq!(stale.body["details"]["incarnation"], 2);
    new.poll(json!({"outcomes": [completed(&task, json!("new"))]})).await;
    assert_eq!(house.ended(&id).await["result"], "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_poll_of_the_same_process_lets_the_older_one_go() {
    let house = House::open().await;
    let worker = Worker::register(&house, 2).await;
    let older = async {
        let began = Instant::now();
        let answer = worker.poll(json!({"wait_ms": 60_000})).await;
        assert_eq!(answer["tasks"], json!([]));
        assert!(began.elapsed() < PATIENCE);
    };
    let newer = async {
        // Whichever of the two comes last waits for the task.
        tokio::task::yield_now().await;
        worker.poll(json!({"wait_ms": 1})).await;
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(older, newer) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn results_beyond_their_bounds_fail_their_attempt_and_no_other() {
    let house = House::open().await;
    let worker = Worker::register(&house, 3).await;
    let submit = async || id_of(&house.submit(&json!({"name": "a", "max_retries": 3})).await);
    let [deep, good, large] = [submit().await, submit().await, submit().await];
    let mut nested = json!(1);
    for _ in 0..65 {
        nested = json!([nested]);
    }
    let tasks = |id: &str| json!({"task_id": id, "attempt": 1});
    let mut fetched = 0;
    while fetched < 3 {
        let seen = worker.poll(json!({"max_tasks": 10, "wait_ms": 20_000})).await;
        fetched = seen["tasks"].as_array().unwrap().len();
    }
    let answer = worker
        .poll(json!({"outcomes": [
            completed(&tasks(&deep), nested),
            completed(&tasks(&good), json!("fine")),
            completed(&tasks(&large), json!("x".repeat(16 << 20))),
        ]}))
        .await;
    let refused = answer["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 2, "{answer}");
    for (id, what) in [(&deep, "nests deeper than 64"), (&large, "at most 16777216")] {
        let entry = refused.iter().find(|entry| entry["task_id"] == json!(id)).unwrap();
        assert_eq!(entry["error_code"], "RESULT_REFUSED");
        assert!(entry["error"].as_str().unwrap().contains(what), "{entry}");
        let ended = house.ended(id).await;
        assert_eq!(ended["status"], "failed", "a retry would make the same: {ended}");
    }
    assert_eq!(house.ended(&good).await["result"], "fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_worker_is_lost_and_its_task_goes_to_another() {
    let house = House::open_with(with_timeout(1)).await;
    let silent = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "a"})).await);
    assert_eq!(silent.fetch().await["attempt"], 1);
    // Long polls of the other one keep it alive all the while.
    let other = Worker::register(&house, 1).await;
    let deadline = Instant::now() + PATIENCE;
    let task = loop {
        assert!(Instant::now() < deadline, "it never came");
        let answer = other.poll(json!({"wait_ms": 60_000})).await;
        if let Some(task) = answer["tasks"].get(0) {
            break task.clone();
        }
    };
    assert_eq!((&task["task_id"], &task["attempt"]), (&json!(id), &json!(2)));
    let gone = silent.try_poll(json!({"outcomes": [completed(&task, json!("late"))]})).await;
    assert_eq!((gone.status, &gone.body["error_code"]), (409, &json!("AGENT_LOST")));
    other.poll(json!({"outcomes": [completed(&task, json!("other"))]})).await;
    assert_eq!(house.ended(&id).await["result"], "other");
    // It may come back under its id.
    let body = json!({"agent_type": "w", "capabilities": ["task_execution"], "runtime": "worker",
        "id": silent.id});
    let again = house.call("POST", "/api/v1/agents", Some(&body)).await;
    assert_eq!((again.status, &again.body["agent"]["id"]), (200, &json!(silent.id)));
    assert_eq!(silent.poll(json!({})).await["tasks"], json!([]));
}

/// A worker that does one thing at a time cannot poll while it works: it says how long that may be.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_extends_its_lease_and_is_not_lost_before() {
    let house = House::open_with(with_timeout(1)).await;
    let slow = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "a"})).await);
    let task = slow.fetch().await;
    let answer = slow.poll(json!({"max_tasks": 0, "lease_seconds": 3_600,
        "holding": [held(&task)]}));
    let answer = answer.await;
    assert_eq!(
        (&answer["lease_seconds"], &answer["heartbeat_seconds"]),
        (&json!(3_600), &json!(1_200))
    );
    assert_eq!(slow.shown().await["heartbeat_timeout"], 3_600);
    // Another without it is lost meanwhile.
    let other = Worker::register(&house, 1).await;
    other.poll(json!({"max_tasks": 0})).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let gone = other.try_poll(json!({})).await;
    assert_eq!((gone.status, &gone.body["error_code"]), (409, &json!("AGENT_LOST")));
    // It was said once, and holds until something else is said, also over a restart.
    let slow_id = slow.id.clone();
    let house = house.reopen_with(with_timeout(1)).await;
    let slow = Worker { house: &house, id: slow_id, incarnation: 1 };
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let done = slow.poll(json!({"outcomes": [completed(&task, json!(1))]})).await;
    assert_eq!((&done["refused"], &done["lease_seconds"]), (&json!([]), &json!(3_600)));
    assert_eq!(house.ended(&id).await["attempt"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_ones_own_is_registered_changed_and_within_bounds() {
    let house = House::open().await;
    let body = |more: Value| {
        let mut body = json!({"agent_type": "w", "capabilities": ["x"], "runtime": "worker"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let short = body(json!({"heartbeat_timeout": 5}));
    let made = house.call("POST", "/api/v1/agents", Some(&short)).await.body;
    assert_eq!(made["agent"]["heartbeat_timeout"], 5, "{made}");
    let id = made["agent"]["id"].as_str().unwrap().to_owned();
    let worker = Worker { house: &house, id: id.clone(), incarnation: 1 };
    assert_eq!(worker.poll(json!({})).await["lease_seconds"], 5);
    let path = format!("/api/v1/agents/{id}");
    let changed = house.call("PATCH", &path, Some(&json!({"heartbeat_timeout": 7}))).await;
    assert_eq!((changed.status, &changed.body["agent"]["heartbeat_timeout"]), (200, &json!(7)));
    assert_eq!(worker.poll(json!({})).await["lease_seconds"], 7);

    for seconds in [json!(0), json!(86_401), json!("5")] {
        let made = body(json!({"heartbeat_timeout": seconds}));
        let refused = house.call("POST", "/api/v1/agents", Some(&made)).await;
        assert_eq!(refused.status, 422, "{seconds}: {}", refused.body);
        assert!(refused.body["details"]["fields"]["heartbeat_timeout"].is_string());
        let refused = worker.try_poll(json!({"lease_seconds": seconds})).await;
        assert_eq!(refused.status, 422, "{seconds}: {}", refused.body);
        assert!(refused.body["details"]["fields"]["lease_seconds"].is_string());
    }
    let builtin = json!({"agent_type": "b", "capabilities": ["x"], "heartbeat_timeout": 5});
    let refused = house.call("POST", "/api/v1/agents", Some(&builtin)).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    let builtin = house.get("/api/v1/agents?agent_type=coordinator").await.body;
    let path = format!("/api/v1/agents/{}", builtin["items"][0]["id"].as_str().unwrap());
    let refused = house.call("PATCH", &path, Some(&json!({"heartbeat_timeout": 7}))).await;
    assert!(refused.body["details"]["fields"]["heartbeat_timeout"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn registration_is_idempotent_under_an_id_of_ones_own_and_bounded() {
    let mut config = Config::default();
    config.api.max_workers = 2;
    let house = House::open_with(config).await;
    let id = "0190163d-8694-739b-aea5-966c26f8ad90";
    let body = json!({"agent_type": "w", "capabilities": ["task_execution"], "runtime": "worker",
        "id": id});
    for message in ["agent created", "agent was there already"] {
        let made = house.call("POST", "/api/v1/agents", Some(&body)).await;
        assert_eq!((made.status, &made.body["message"]), (200, &json!(message)), "{}", made.body);
        assert_eq!(made.body["agent"]["id"], id);
        assert_eq!(made.body["agent"]["runtime"], "worker");
    }
    Worker::register(&house, 1).await;
    let third = json!({"agent_type": "w", "capabilities": ["x"], "runtime": "worker"});
    let refused = house.call("POST", "/api/v1/agents", Some(&third)).await;
    assert_eq!((refused.status, &refused.body["error_code"]), (429, &json!("QUEUE_FULL")));
    assert!(refused.body["error"].as_str().unwrap().contains("api.max_workers"));
    let again = house.call("POST", "/api/v1/agents", Some(&body)).await;
    assert_eq!(again.status, 200, "one that is there needs no room");

    let builtin = house.get("/api/v1/agents?agent_type=coordinator").await.body;
    let builtin = builtin["items"][0]["id"].as_str().unwrap().to_owned();
    let taken =
        json!({"agent_type": "w", "capabilities": ["x"], "runtime": "worker", "id": builtin});
    for answer in [
        house.call("POST", "/api/v1/agents", Some(&taken)).await,
        Worker { house: &house, id: builtin, incarnation: 1 }.try_poll(json!({})).await,
    ] {
        assert_eq!((answer.status, &answer.body["error_code"]), (409, &json!("NOT_A_WORKER")));
    }
    let ours = json!({"agent_type": "w", "capabilities": ["x"], "id": id});
    let refused = house.call("POST", "/api/v1/agents", Some(&ours)).await;
    assert!(refused.body["details"]["fields"]["id"].is_string(), "{}", refused.body);
    let nobody = "00000000-0000-7000-8000-000000000000".to_owned();
    let nobody = Worker { house: &house, id: nobody, incarnation: 1 }.try_poll(json!({})).await;
    assert_eq!((nobody.status, &nobody.body["error_code"]), (404, &json!("AGENT_NOT_FOUND")));
    let bad = house.call("POST", &format!("/api/v1/agents/{id}/poll"), Some(&json!({}))).await;
    assert_eq!((bad.status, &bad.body["error_code"]), (422, &json!("VALIDATION_FAILED")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_worker_is_told_at_once_and_a_restart_remembers_it() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "a"})).await);
    let task = worker.fetch().await;
    let told = async {
        let answer = worker.try_poll(json!({"holding": [held(&task)], "wait_ms": 60_000})).await;
        assert_eq!((answer.status, &answer.body["error_code"]), (409, &json!("AGENT_ENDED")));
    };
    let path = format!("/api/v1/agents/{}", worker.id);
    let delete = async {
        assert_eq!(house.call("DELETE", &path, None).await.status, 200);
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(told, delete) }).await.unwrap();
    let task = house.get(&format!("/api/v1/tasks/{id}")).await.body["task"].clone();
    assert_eq!(task["status"], "ready", "it waits for another agent");
    let gone = worker.id.clone();
    let house = house.reopen().await;
    let answer = Worker { house: &house, id: gone, incarnation: 9 }.try_poll(json!({})).await;
    assert_eq!((answer.status, &answer.body["error_code"]), (409, &json!("AGENT_ENDED")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_goes_on_over_a_restart_of_the_server() {
    let house = House::open().await;
    let worker = Worker::register(&house, 2).await;
    let kept = id_of(&house.submit(&json!({"name": "kept"})).await);
    let task = worker.fetch().await;
    let unseen = id_of(&house.submit(&json!({"name": "unseen"})).await);
    let id = worker.id.clone();
    let house = house.reopen().await;
    let worker = Worker { house: &house, id, incarnation: 1 };
    assert_eq!(worker.shown().await["status"], "offline", "until it polls again");
    let body = json!({"holding": [held(&task)], "max_tasks": 5, "wait_ms": 20_000});
    let answer = worker.poll(body).await;
    let sent = answer["tasks"].as_array().unwrap();
    assert_eq!((sent.len(), &sent[0]["task_id"]), (1, &json!(unseen)), "{answer}");
    let outcomes = json!([completed(&task, json!(1)), completed(&sent[0], json!(2))]);
    assert_eq!(worker.poll(json!({"outcomes": outcomes})).await["refused"], json!([]));
    for (id, result) in [(&kept, 1), (&unseen, 2)] {
        let task = house.ended(id).await;
        assert_eq!((&task["result"], &task["attempt"]), (&json!(result), &json!(1)), "{task}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_lets_waiting_workers_go_and_still_takes_outcomes() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "a"})).await);
    let task = worker.fetch().await;
    let let_go = async {
        let answer = worker.poll(json!({"holding": [held(&task)], "wait_ms": 60_000})).await;
        assert_eq!(answer["drain"], true, "{answer}");
    };
    let stop = async {
        tokio::task::yield_now().await;
        house.server.as_ref().unwrap().service.stop_intake();
    };
    // The poll may also come after the stop; then it is refused like any other.
    let stopped = tokio::time::timeout(PATIENCE, async { tokio::join!(let_go, stop) }).await;
    assert!(stopped.is_ok(), "it waits on");
    let answer = worker.poll(json!({"outcomes": [completed(&task, json!(1))]})).await;
    assert_eq!((&answer["drain"], &answer["refused"]), (&json!(true), &json!([])));
    assert_eq!(house.ended(&id).await["status"], "completed");
    let refused = worker.try_poll(json!({})).await;
    assert_eq!((refused.status, &refused.body["error_code"]), (503, &json!("SHUTTING_DOWN")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_plans_answers_with_subtasks() {
    let house = House::open().await;
    let planner = Worker::with(&house, "planning", 1).await;
    let body = json!({"name": "goal", "decomposition_strategy": "planner", "max_retries": 1,
        "parameters": {"max_subtasks": 2}});
    let id = id_of(&house.submit(&body).await);
    let noop = |value: u32| json!({"parameters": {"action": "noop", "value": value}});
    let three = json!({"subtasks": [noop(1), noop(2), noop(3)]});
    let task = planner.fetch().await;
    planner.poll(json!({"outcomes": [completed(&task, three)]})).await;
    // Too many: it is tried again.
    let task = planner.fetch().await;
    assert_eq!(task["attempt"], 2);
    let two = json!({"subtasks": [noop(1), noop(2)]});
    planner.poll(json!({"outcomes": [completed(&task, two)]})).await;
    let root = house.ended(&id).await;
    assert_eq!(root["status"], "completed", "{root}");
    assert_eq!(root["result"][1]["value"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_leaves_the_rest_of_its_task_to_others() {
    let house = House::open().await;
    let worker = Worker::with(&house, "splitting", 1).await;
    let body = json!({"name": "goal", "required_capabilities": ["splitting"], "max_retries": 3});
    let id = id_of(&house.submit(&body).await);
    let task = worker.fetch().await;
    let two = json!({"action": "noop", "value": {"$from": "one", "pointer": "/value"}});
    let rest = json!([
        {"key": "one", "parameters": {"action": "noop", "value": 1}},
        {"key": "two", "parameters": two},
    ]);
    let mut outcome = held(&task);
    outcome["status"] = json!("completed");
    outcome["subtasks"] = rest;
    let answer = worker.poll(json!({"outcomes": [outcome]})).await;
    assert_eq!(answer["refused"], json!([]), "{answer}");
    // Told once more, because the answer may have been lost: it changes nothing.
    let answer = worker.poll(json!({"outcomes": [outcome]})).await;
    assert_eq!(answer["refused"], json!([]), "{answer}");
    let root = house.ended(&id).await;
    assert_eq!((&root["status"], &root["result"]["value"]), (&json!("completed"), &json!(1)));
    assert_eq!(root["subtasks"].as_array().map(Vec::len), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn subtasks_that_cannot_be_taken_fail_the_attempt_and_the_worker_hears_why() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    for (rest, result, why) in [
        (json!([]), json!(null), "subtasks"),
        (json!({"a": 1}), json!(null), "subtasks"),
        (json!([{"key": "a", "depends_on": ["b"]}]), json!(null), "`b`"),
        (json!([{"name": "a"}]), json!({"also": 1}), "`result` and `subtasks`"),
    ] {
        let id = id_of(&house.submit(&json!({"name": "goal", "max_retries": 3})).await);
        let task = worker.fetch().await;
        let mut outcome = held(&task);
        outcome["status"] = json!("completed");
        (outcome["subtasks"], outcome["result"]) = (rest, result);
        let answer = worker.try_poll(json!({"outcomes": [outcome]})).await.body;
        let refused = &answer["refused"][0];
        assert_eq!(refused["error_code"], "RESULT_REFUSED", "{answer}");
        assert!(refused["error"].as_str().unwrap().contains(why), "{refused}");
        let root = house.ended(&id).await;
        assert_eq!((&root["status"], &root["attempt"]), (&json!("failed"), &json!(1)), "{root}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_attempt_is_still_to_be_stopped_after_a_restart() {
    let house = House::open().await;
    let worker = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "long"})).await);
    let task = worker.fetch().await;
    house.call("DELETE", &format!("/api/v1/tasks/{id}"), None).await;
    let id = worker.id.clone();
    let house = house.reopen().await;
    let worker = Worker { house: &house, id, incarnation: 1 };
    let next = id_of(&house.submit(&json!({"name": "next"})).await);
    let told = worker.poll(json!({"holding": [held(&task)], "wait_ms": 20_000})).await;
    assert_eq!((&told["cancel"], &told["tasks"]), (&json!([held(&task)]), &json!([])));
    assert_eq!(worker.fetch().await["task_id"], json!(next), "it is no longer held");
}
