//! HTTP agents: answered at once or by callback, refused, asked again, left alone, called off.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::house::{Answer, House, id_of};
use crate::target::{Asked, CAPABILITY, Target};

fn poem(more: Value) -> Value {
    let mut body = json!({"name": "a poem", "required_capabilities": [CAPABILITY],
        "max_retries": 0});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn submit(house: &House) -> String {
    id_of(&house.submit(&poem(json!({}))).await)
}

async fn open(settings: Value) -> (House, Target) {
    let target = Target::listen().await;
    (House::open_with(target.config(settings)).await, target)
}

async fn call_back(house: &House, path: &str, token: Option<&str>, outcome: &Value) -> Answer {
    let mut request = Request::post(path).header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    house.send(request.body(Body::from(outcome.to_string())).unwrap()).await
}

fn check(answer: &Answer, status: u16, code: &str) {
    let found = (answer.status, answer.body["error_code"].as_str().unwrap_or_default());
    assert_eq!(found, (status, code), "{}", answer.body);
}

async fn agent(house: &House) -> Value {
    let all = house.get("/api/v1/agents?agent_type=poet").await.body;
    all["items"][0].clone()
}

async fn failure(house: &House, id: &str) -> String {
    let task = house.ended(id).await;
    assert_eq!(task["status"], "failed", "{task}");
    task["error"].as_str().unwrap().to_owned()
}

fn done(asked: Asked) {
    asked.answer(200, r#"{"text": "roses"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_a_signed_request_and_its_answer_the_result() {
    let (house, mut target) = open(json!({})).await;
    let body = poem(json!({"description": "of roses", "tags": ["t"], "metadata": {"m": 1},
        "parameters": {"action": "write", "input": {"lines": 2}}, "timeout_seconds": 60}));
    let id = id_of(&house.submit(&body).await);
    let asked = target.next().await;
    assert!(target.signed(&asked));
    assert_eq!(asked.header("webhook-id"), format!("{id}-1"));
    let mut sent = asked.body();
    assert_eq!(
        sent["callback"]["url"],
        format!("http://maos.test/api/v1/tasks/{id}/attempts/1/outcome")
    );
    assert!(sent["remaining_ms"].take().as_u64().unwrap() <= 60_000);
    sent["callback"].take();
    let expected = json!({"task_id": id, "attempt": 1, "name": "a poem", "description": "of roses",
        "action": "write", "parameters": body["parameters"], "metadata": {"m": 1}, "tags": ["t"],
        "timeout_seconds": 60, "remaining_ms": null, "callback": null});
    assert_eq!(sent, expected);
    done(asked);
    assert_eq!(house.ended(&id).await["result"], json!({"text": "roses"}));
    let shown = agent(&house).await;
    assert_eq!(
        (&shown["runtime"], &shown["metadata"]["url"]),
        (&json!("http"), &json!(target.url))
    );
    assert_eq!(shown["metadata"]["breaker"]["state"], "closed");
    let id = submit(&house).await;
    target.next().await.answer(204, "");
    assert_eq!(house.ended(&id).await["result"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_leaves_the_rest_to_others() {
    let (house, mut target) = open(json!({})).await;
    let id = submit(&house).await;
    let asked = target.next().await;
    let (path, token) = asked.callback();
    asked.answer(202, "");
    let rest = json!([{"parameters": {"action": "noop", "value": 3}}]);
    let outcome = json!({"status": "completed", "subtasks": rest});
    let answer = call_back(&house, &path, Some(&token), &outcome).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(house.ended(&id).await["result"]["value"], 3);
    let id = submit(&house).await;
    let asked = target.next().await;
    let (path, token) = asked.callback();
    asked.answer(202, "");
    let outcome = json!({"status": "completed", "subtasks": [{"depends_on": ["nobody"]}]});
    check(&call_back(&house, &path, Some(&token), &outcome).await, 422, "RESULT_REFUSED");
    assert!(failure(&house, &id).await.contains("nobody"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_for_good_or_another_attempt_is_made() {
    let (house, mut target) = open(json!({})).await;
    let body = poem(json!({"max_retries": 3}));
    let id = id_of(&house.submit(&body).await);
    target.next().await.answer(422, r#"{"error": "no such rhyme"}"#);
    let task = house.ended(&id).await;
    assert_eq!((&task["status"], &task["attempt"]), (&json!("failed"), &json!(1)));
    assert!(task["error"].as_str().unwrap().contains("no such rhyme"), "{task}");
    let id = id_of(&house.submit(&body).await);
    target.next().await.answer(500, r#"{"error": "no mood"}"#);
    let again = target.next().await;
    assert_eq!(
        (again.header("webhook-id"), &again.body()["attempt"]),
        (&*format!("{id}-2"), &json!(2))
    );
    again.answer(500, r#"{"error": "never", "permanent": true}"#);
    let task = house.ended(&id).await;
    assert_eq!((&task["status"], &task["attempt"]), (&json!("failed"), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_with_the_attempts_own_token_counts_once() {
    let (house, mut target) = open(json!({})).await;
    let (id, other) = (submit(&house).await, submit(&house).await);
    let (mine, theirs) = (target.next().await, target.next().await);
    let of_first = mine.body()["task_id"] == json!(id);
    let (mine, theirs) = if of_first { (mine, theirs) } else { (theirs, mine) };
    let ((path, token), (path_of_other, token_of_other)) = (mine.callback(), theirs.callback());
    mine.answer(202, "");
    let outcome = json!({"status": "completed", "result": {"text": "violets"}});
    for wrong in [None, Some(""), Some("x"), Some(token_of_other.as_str())] {
        check(&call_back(&house, &path, wrong, &outcome).await, 401, "BAD_TOKEN");
    }
    let next = path.replace("/1/outcome", "/2/outcome");
    check(&call_back(&house, &next, Some(&token), &outcome).await, 401, "BAD_TOKEN");
    let none = path.replace("/1/outcome", "/one/outcome");
    check(&call_back(&house, &none, Some(&token), &outcome).await, 400, "MALFORMED_ID");
    let unclear = call_back(&house, &path, Some(&token), &json!({"status": "great"})).await;
    check(&unclear, 422, "VALIDATION_FAILED");
    let taken = call_back(&house, &path, Some(&token), &outcome).await;
    assert_eq!((taken.status, &taken.body["message"]), (200, &json!("outcome taken")));
    assert_eq!(house.ended(&id).await["result"], json!({"text": "violets"}));
    let other_word = json!({"status": "failed", "error": "no"});
    let again = call_back(&house, &path, Some(&token), &other_word).await;
    assert_eq!((again.status, &again.body["message"]), (200, &json!("outcome was taken before")));
    assert_eq!(house.ended(&id).await["result"], json!({"text": "violets"}));

    // Before its request is answered, with a result that is too large for the journal.
    let text = "x".repeat(100_000);
    let outcome = json!({"status": "completed", "result": text});
    let taken = call_back(&house, &path_of_other, Some(&token_of_other), &outcome).await;
    assert_eq!(taken.status, 200, "{}", taken.body);
    assert_eq!(house.ended(&other).await["result"], json!(text));
    theirs.hung_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_says_how_an_attempt_went() {
    let (house, mut target) = open(json!({})).await;
    let deep = format!("{}1{}", "[".repeat(70), "]".repeat(70));
    let deep = format!(r#"{{"status": "completed", "result": {deep}}}"#);
    for (outcome, status, code, error) in [
        (r#"{"status": "failed", "error": "no", "permanent": true}"#, 200, "", "no"),
        (r#"{"status": "failed"}"#, 200, "", "its agent gave no reason"),
        (&deep, 422, "RESULT_REFUSED", "64"),
    ] {
        let id = submit(&house).await;
        let asked = target.next().await;
        let (path, token) = asked.callback();
        asked.answer(202, "");
        let request = Request::post(&path).header("authorization", format!("bearer {token}"));
        let answer = house.send(request.body(Body::from(outcome.to_owned())).unwrap()).await;
        check(&answer, status, code);
        assert!(failure(&house, &id).await.contains(error), "{outcome}");
    }
    let id = submit(&house).await;
    let asked = target.next().await;
    let (path, token) = asked.callback();
    asked.answer(202, "");
    call_back(&house, &path, Some(&token), &json!({"status": "lost"})).await;
    done(target.next().await);
    let task = house.ended(&id).await;
    assert_eq!((&task["status"], &task["attempt"]), (&json!("completed"), &json!(2)));
    assert_eq!(task["retry_count"], 0, "what was lost uses up no retry");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_after_the_attempts_time_is_refused() {
    let (house, mut target) = open(json!({})).await;
    let id = id_of(&house.submit(&poem(json!({"timeout_seconds": 1}))).await);
    let asked = target.next().await;
    let (path, token) = asked.callback();
    asked.answer(202, "");
    let over = target.next().await;
    assert_eq!((over.method.as_str(), target.signed(&over)), ("DELETE", true));
    assert_eq!(over.body(), json!({"task_id": id, "attempt": 1}));
    over.answer(200, "");
    assert_eq!(house.ended(&id).await["error_kind"], "TIMED_OUT");
    let outcome = json!({"status": "completed"});
    let late = call_back(&house, &path, Some(&token), &outcome).await;
    check(&late, 409, "STALE_ATTEMPT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_asks_for_time_gets_it() {
    let (house, mut target) = open(json!({})).await;
    let id = submit(&house).await;
    let first = target.next().await;
    let (sent, known) = (first.bytes.clone(), first.header("webhook-id").to_owned());
    let begun = Instant::now();
    first.answer_with(503, &[("retry-after", "1")], "later");
    let second = target.next().await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "not before it was asked for");
    assert_eq!((&second.bytes, second.header("webhook-id")), (&sent, &*known));
    assert!(target.signed(&second));
    second.answer(429, "");
    done(target.next().await);
    let task = house.ended(&id).await;
    assert_eq!((&task["status"], &task["attempt"]), (&json!("completed"), &json!(1)));
    let log = house.get(&format!("/api/v1/tasks/{id}/logs")).await.body.to_string();
    assert!(log.contains("`poet` answered 503: later; asked again in"), "{log}");

    let id = submit(&house).await;
    target.next().await.answer_with(503, &[("retry-after", "100000")], "");
    let why = failure(&house, &id).await;
    assert!(why.contains("100000 s is too late"), "{why}");
    let id = submit(&house).await;
    for _ in 0..4 {
        target.next().await.answer(502, "");
    }
    let why = failure(&house, &id).await;
    assert!(why.contains("answered 502") && why.contains("4 requests were made"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_not_there_is_asked_again_and_named() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", gone.local_addr().unwrap());
    drop(gone);
    let (house, _target) = open(json!({"url": url, "retries": 2})).await;
    let why = failure(&house, &submit(&house).await).await;
    assert!(why.contains("was not reached") && why.contains("3 requests were made"), "{why}");
}

async fn break_it(house: &House, target: &mut Target, times: u32) {
    for _ in 0..times {
        let id = submit(house).await;
        target.next().await.answer(500, "oops");
        failure(house, &id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_fails_what_it_would_hold_for_too_long() {
    let (house, mut target) = open(json!({"breaker_failures": 2, "breaker_seconds": 3_600})).await;
    break_it(&house, &mut target, 2).await;
    let shown = agent(&house).await;
    let breaker = &shown["metadata"]["breaker"];
    assert_eq!((&shown["status"], &breaker["state"]), (&json!("unhealthy"), &json!("open")));
    assert_eq!(breaker["last_failure"], "`poet` answered 500");
    let health = house.get("/health/detailed").await;
    let away = &health.body["components"]["agent_manager"]["http_agents_away"]["poet"];
    assert_eq!((health.status, &away["failures"]), (200, &json!(2)));
    let why = failure(&house, &submit(&house).await).await;
    assert!(why.contains("2 requests to `poet` failed, the last so: `poet` answered 500"), "{why}");
    assert!(target.is_quiet(), "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_waits_for_an_open_breaker_and_says_so() {
    let settings = json!({"breaker_failures": 1, "breaker_seconds": 200, "slots": 1});
    let (house, mut target) = open(settings).await;
    break_it(&house, &mut target, 1).await;
    let (held, queued) = (submit(&house).await, submit(&house).await);
    for id in [&held, &queued] {
        let path = format!("/api/v1/tasks/{id}/explain");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let why = house.get(&path).await.body;
            let blockers = why["blockers"].as_array().unwrap();
            let target = blockers.iter().find(|blocker| blocker["kind"] == "target");
            if let Some(target) = target {
                let message = target["message"].as_str().unwrap();
                assert!(message.contains("1 requests to `poet` failed"), "{message}");
                break;
            }
            assert!(Instant::now() < deadline, "{why}");
        }
    }
    let path = format!("/api/v1/tasks/{held}");
    assert_eq!(house.call("DELETE", &path, None).await.status, 200);
    assert!(target.is_quiet(), "who was never asked is not called off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_lets_one_request_look_and_closes_with_its_luck() {
    let (house, mut target) = open(json!({"breaker_failures": 1, "breaker_seconds": 1})).await;
    break_it(&house, &mut target, 1).await;
    let ids = [submit(&house).await, submit(&house).await];
    // It comes by itself; the other one waits for what becomes of it.
    let looks = target.next().await;
    assert_eq!(agent(&house).await["metadata"]["breaker"]["state"], "half_open");
    assert!(target.is_quiet(), "one at a time");
    looks.answer(503, "");
    let again = target.next().await;
    assert_eq!(agent(&house).await["metadata"]["breaker"]["failures"], 2);
    done(again);
    done(target.next().await);
    for id in ids {
        assert_eq!(house.ended(&id).await["status"], "completed");
    }
    let shown = agent(&house).await;
    assert_eq!(
        (&shown["status"], &shown["metadata"]["breaker"]["state"]),
        (&json!("idle"), &json!("closed"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_leads_elsewhere_is_refused() {
    let (house, mut target) = open(json!({})).await;
    let mut other = Target::listen().await;
    let id = submit(&house).await;
    target.next().await.answer(200, vec![b' '; (16 << 20) + 1]);
    assert!(failure(&house, &id).await.contains("more than 16777216 bytes"));
    let id = submit(&house).await;
    target.next().await.answer_with(307, &[("location", &other.url)], "");
    let why = failure(&house, &id).await;
    assert!(why.contains("a redirect to") && why.contains("hint: "), "{why}");
    assert!(other.is_quiet(), "it is not followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_hangs_up_and_calls_off() {
    let (house, mut target) = open(json!({})).await;
    let id = submit(&house).await;
    let hanging = target.next().await;
    let (path, token) = hanging.callback();
    let cancelled = house.call("DELETE", &format!("/api/v1/tasks/{id}"), None).await;
    assert_eq!(cancelled.status, 200);
    hanging.hung_up().await;
    let over = target.next().await;
    assert_eq!((over.method.as_str(), target.signed(&over)), ("DELETE", true));
    assert_eq!(over.header("webhook-id"), format!("{id}-1-cancel"));
    over.answer(405, "");
    let late = call_back(&house, &path, Some(&token), &json!({"status": "completed"})).await;
    check(&late, 409, "STALE_ATTEMPT");
    let next = submit(&house).await;
    done(target.next().await);
    assert_eq!(house.ended(&next).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inner_address_is_not_reached_unless_the_operator_opens_it() {
    let mut target = Target::listen().await;
    let url = target.url.replace("127.0.0.1", "localhost");
    let config = target.config(json!({"url": url, "allow_private": false}));
    config.check().expect("where a name leads is seen when it is used");
    let house = House::open_with(config).await;
    let why = failure(&house, &submit(&house).await).await;
    assert!(why.contains("inner address") && why.contains("under [http_agents.poet]"), "{why}");
    assert!(target.is_quiet(), "nobody came");
    let refused = target.config(json!({"allow_private": false})).check().unwrap_err().to_string();
    assert!(refused.contains("`http_agents.poet.url`") && refused.contains("allow_private"));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_are_named() {
    let target = Target::listen().await;
    for (settings, expected) in [
        (json!({"url": "ftp://example.com"}), "`http_agents.poet.url` is `ftp://example.com`"),
        (json!({"secret_env": "X"}), "`http_agents.poet.secret_file` is beside `secret_env`"),
        (json!({"secret_file": null}), "`http_agents.poet.secret_file` is missing"),
        (json!({"capabilities": []}), "`http_agents.poet.capabilities` is empty"),
        (json!({"slots": 0}), "`http_agents.poet.slots` is 0"),
        (json!({"timeout_seconds": 0}), "`http_agents.poet.timeout_seconds` is 0"),
        (json!({"retries": 101}), "`http_agents.poet.retries` is 101"),
        (json!({"retry_pause_ms": 0}), "`http_agents.poet.retry_pause_ms` is 0"),
        (json!({"breaker_failures": 1_000_001}), "`http_agents.poet.breaker_failures` is"),
        (json!({"breaker_seconds": 0}), "`http_agents.poet.breaker_seconds` is 0"),
    ] {
        let refused = target.config(settings).check().unwrap_err().to_string();
        assert!(refused.starts_with(expected), "{refused}");
    }
    let mut config = target.config(json!({}));
    config.api.public_url = "maos.example.org".to_owned();
    assert!(config.check().unwrap_err().to_string().starts_with("`api.public_url` is"));
    for (settings, expected) in [
        (json!({"secret_file": "none"}), "has no secret to sign with"),
        (json!({"secret_file": null, "secret_env": "MAOS_NO_SUCH_SECRET"}), "MAOS_NO_SUCH_SECRET"),
        // A file that holds something else: a program of this test.
        (json!({"secret_file": "/dev/null"}), "must be `whsec_`"),
    ] {
        let config = target.config(settings);
        let refused = config.http_agents["poet"].secret().unwrap_err().to_string();
        assert!(refused.contains(expected) && refused.contains("hint: "), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_server_had_asked_for_is_asked_for_again_by_the_next() {
    let (house, mut target) = open(json!({})).await;
    let id = submit(&house).await;
    let asked = target.next().await;
    let (path, token) = asked.callback();
    asked.answer(202, "");
    let config = target.config(json!({}));
    let (house, over) = tokio::join!(house.reopen_with(config), async {
        let over = target.next().await;
        let method = over.method.clone();
        over.answer(200, "");
        method
    });
    assert_eq!(over, "DELETE");
    let again = target.next().await;
    assert_eq!(again.header("webhook-id"), format!("{id}-2"));
    let outcome = json!({"status": "completed"});
    check(&call_back(&house, &path, Some(&token), &outcome).await, 401, "BAD_TOKEN");
    done(again);
    let task = house.ended(&id).await;
    assert_eq!((&task["status"], &task["retry_count"]), (&json!("completed"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_called_says_so() {
    let mut target = Target::listen().await;
    let house = House::open_alone(target.config(json!({}))).await;
    let id = submit(&house).await;
    let asked = target.next().await;
    assert_eq!(asked.body()["callback"], Value::Null);
    asked.answer(202, "");
    assert!(failure(&house, &id).await.contains("[api] public_url"));
    let mut config = target.config(json!({}));
    config.api.public_url = "https://maos.example.org/".to_owned();
    let house = House::open_alone(config).await;
    submit(&house).await;
    let asked = target.next().await;
    assert!(asked.callback().0.starts_with("https://maos.example.org/api/v1/tasks/"));
    done(asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_may_come_at_once_or_by_callback() {
    let (house, mut target) = open(json!({"capabilities": ["planning"]})).await;
    let body = json!({"name": "plan", "decomposition_strategy": "planner", "max_retries": 0});
    let plan = json!({"subtasks": [{"key": "a", "parameters": {"action": "noop", "n": 1}}]});
    let id = id_of(&house.submit(&body).await);
    target.next().await.answer(200, plan.to_string());
    assert_eq!(house.ended(&id).await["status"], "completed");
    let id = id_of(&house.submit(&body).await);
    let asked = target.next().await;
    let (path, token) = asked.callback();
    asked.answer(202, "");
    let outcome = json!({"status": "completed", "result": plan});
    let taken = call_back(&house, &path, Some(&token), &outcome).await;
    assert_eq!(taken.status, 200, "{}", taken.body);
    let task = house.ended(&id).await;
    assert_eq!(task["status"], "completed", "{task}");
    assert_eq!(task["subtasks"].as_array().unwrap().len(), 1);
}
