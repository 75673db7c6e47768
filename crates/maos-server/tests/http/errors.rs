//! Wrong input of every kind: each is refused with the contract's error, and nothing changes.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::house::{Answer, House, id_of};

fn check(answer: &Answer, status: u16, code: &str) {
    let body = &answer.body;
    assert_eq!((answer.status, &body["error_code"]), (status, &json!(code)), "{body}");
    for field in ["error", "timestamp", "request_id"] {
        assert!(body[field].is_string(), "`{field}` is missing in {body}");
    }
    let hints = body["error"].as_str().unwrap().matches("\nhint: ").count();
    let says_itself = hints == 0 && code == "VALIDATION_FAILED";
    assert!(hints == 1 || says_itself, "what to do is said once: {body}");
    assert!(body["details"].is_object(), "{body}");
    assert_eq!(answer.headers["x-request-id"].to_str().unwrap(), body["request_id"]);
    let later = matches!(status, 429 | 503);
    assert_eq!(answer.headers.contains_key("retry-after"), later, "{body}");
}

async fn post(house: &House, body: impl Into<Body>) -> Answer {
    let request = Request::post("/api/v1/tasks").header("content-type", "application/json");
    house.send(request.body(body.into()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_submissions_are_refused_and_change_nothing() {
    let house = House::open().await;
    let deep = format!(
        "{{\"name\":\"a\",\"parameters\":{{\"x\":{}{}}}}}",
        "[".repeat(100),
        "]".repeat(100)
    );
    let many: Vec<u32> = vec![1; 1_000_000];
    let many =
        json!({"name": "a", "decomposition_strategy": "parallel", "parameters": {"items": many}});
    let over = json!({"name": "a", "resource_requirements": {"cpu_cores": 101}});
    for (body, status, code) in [
        (r#"{"name": "a""#.to_owned(), 400, "MALFORMED_JSON"),
        (String::new(), 400, "MALFORMED_JSON"),
        ("[1]".to_owned(), 422, "VALIDATION_FAILED"),
        ("{}".to_owned(), 422, "VALIDATION_FAILED"),
        (r#"{"name": "  "}"#.to_owned(), 422, "VALIDATION_FAILED"),
        (r#"{"name": "a", "timeout_seconds": 0}"#.to_owned(), 422, "VALIDATION_FAILED"),
        (r#"{"name": "a", "timeout_seconds": 3601}"#.to_owned(), 400, "TIMEOUT_TOO_LONG"),
        (r#"{"name": "a", "timeout_seconds": 3601.0}"#.to_owned(), 400, "TIMEOUT_TOO_LONG"),
        (r#"{"name": "a", "timeout_seconds": 1e30}"#.to_owned(), 400, "TIMEOUT_TOO_LONG"),
        (
            r#"{"name":"a","timeout_seconds":18446744073709551616}"#.to_owned(),
            400,
            "TIMEOUT_TOO_LONG",
        ),
        (r#"{"name": "a\u0000"}"#.to_owned(), 422, "VALIDATION_FAILED"),
        (r#"{"name": "\ud800"}"#.to_owned(), 422, "VALIDATION_FAILED"),
        (r#"{"name": "a", "parameters": {"x": "\ud800"}}"#.to_owned(), 422, "VALIDATION_FAILED"),
        (
            r#"{"name":"a","parameters":{"x":18446744073709551616}}"#.to_owned(),
            422,
            "VALIDATION_FAILED",
        ),
        (r#"{"name": "a", "parameters": {"x": 1e999}}"#.to_owned(), 422, "VALIDATION_FAILED"),
        (r#"{"name":"a","decomposition_strategy":"magic"}"#.to_owned(), 400, "UNKNOWN_STRATEGY"),
        (deep, 422, "VALIDATION_FAILED"),
        (many.to_string(), 422, "PLAN_TOO_LARGE"),
        (over.to_string(), 422, "OVER_CAPACITY"),
    ] {
        let shown: String = body.chars().take(60).collect();
        let answer = post(&house, body).await;
        assert_eq!(answer.status, status, "{shown}: {}", answer.body);
        check(&answer, status, code);
    }
    let over = post(&house, over.to_string()).await.body;
    assert!(over["error"].as_str().unwrap().contains("hint: ask for less"), "{over}");
    let much = json!({"name": "much", "resource_requirements": {"cpu_cores": 101}});
    let subtasks = json!([{"name": "b"}, {"name": "c", "subtasks": [much]}]);
    let below = json!({"name": "a", "subtasks": subtasks});
    let below = post(&house, below.to_string()).await;
    check(&below, 422, "OVER_CAPACITY");
    let field = "subtasks[1].subtasks[0].resource_requirements.cpu_cores";
    assert!(below.body["error"].as_str().unwrap().contains(field), "{}", below.body);
    assert!(below.body["details"]["fields"][field].is_string(), "{}", below.body);
    let large = vec![b' '; (4 << 20) + 1];
    check(&post(&house, large).await, 413, "BODY_TOO_LARGE");
    let metrics = house.get("/api/v1/system/metrics").await.body;
    assert_eq!(metrics["orchestrator"]["tasks_submitted"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_paths_methods_ids_and_types_have_the_contracts_error() {
    let house = House::open().await;
    let nobody = "00000000-0000-7000-8000-000000000000";
    for (method, path, status, code) in [
        ("GET", "/nowhere".to_owned(), 404, "PATH_NOT_FOUND"),
        ("PATCH", "/api/v1/tasks".to_owned(), 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/v1/tasks/7".to_owned(), 400, "MALFORMED_ID"),
        ("GET", "/api/v1/tasks/%ff".to_owned(), 400, "MALFORMED_ID"),
        ("GET", format!("/api/v1/tasks/{nobody}"), 404, "TASK_NOT_FOUND"),
        ("GET", format!("/api/v1/tasks/{nobody}?wait_seconds=1"), 404, "TASK_NOT_FOUND"),
        ("GET", format!("/api/v1/tasks/{nobody}?wait_seconds=61"), 400, "MALFORMED_QUERY"),
        (
            "GET",
            format!("/api/v1/tasks/{nobody}?wait_seconds=1&wait_seconds=2"),
            400,
            "MALFORMED_QUERY",
        ),
        ("DELETE", format!("/api/v1/tasks/{nobody}"), 404, "TASK_NOT_FOUND"),
        ("PUT", format!("/api/v1/tasks/{nobody}/retry"), 404, "TASK_NOT_FOUND"),
        ("GET", format!("/api/v1/tasks/{nobody}/explain"), 404, "TASK_NOT_FOUND"),
        ("GET", "/api/v1/tasks?page=0".to_owned(), 400, "MALFORMED_QUERY"),
        ("GET", "/api/v1/tasks?page_size=101".to_owned(), 400, "MALFORMED_QUERY"),
        ("GET", "/api/v1/tasks?status=asleep".to_owned(), 400, "MALFORMED_QUERY"),
        ("GET", format!("/api/v1/agents/{nobody}"), 404, "AGENT_NOT_FOUND"),
        ("DELETE", format!("/api/v1/agents/{nobody}"), 404, "AGENT_NOT_FOUND"),
    ] {
        check(&house.call(method, &path, None).await, status, code);
    }
    let text = Request::post("/api/v1/tasks").header("content-type", "text/plain");
    check(&house.send(text.body(Body::from("{}")).unwrap()).await, 415, "NOT_JSON");
    let wrong_method = house.call("PATCH", "/api/v1/tasks", None).await;
    assert!(wrong_method.headers["allow"].to_str().unwrap().contains("POST"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_thing_and_says_where_to_look() {
    let house = House::open().await;
    let nobody = "00000000-0000-7000-8000-000000000000";
    for (path, thing, remedy) in [
        (format!("/api/v1/tasks/{nobody}"), nobody, "`GET /api/v1/tasks` lists"),
        (format!("/api/v1/agents/{nobody}"), nobody, "`GET /api/v1/agents` lists"),
        (format!("/api/v1/plans/{nobody}"), nobody, "`execution_plan_id`"),
        (format!("/api/v1/schedules/{nobody}"), nobody, "`GET /api/v1/schedules` lists"),
        (format!("/api/v1/checkpoints/{nobody}"), nobody, "`GET /api/v1/checkpoints` lists"),
        (format!("/api/v1/resources/{nobody}"), nobody, "`GET /api/v1/resources` lists"),
        ("/".to_owned(), "`/`", "the API is under `/api/v1`"),
        ("/api/v1/tasks/".to_owned(), "`/api/v1/tasks/`", "leave out the slash"),
        ("/api/v1/task".to_owned(), "`/api/v1/task`", "`/docs` shows every path"),
        ("/api/v1/tasks/7".to_owned(), "`7`", "an id is a UUID, such as"),
        ("/api/v1/tasks/%ff".to_owned(), "UTF-8", "an id is a UUID, such as"),
        ("/api/v1/tasks?agent_id=7".to_owned(), "`agent_id`", "an id is a UUID, such as"),
    ] {
        let said = house.get(&path).await.body["error"].as_str().unwrap().to_owned();
        let (what, hint) = said.split_once("\nhint: ").expect(&said);
        assert!(what.contains(thing) && hint.contains(remedy), "{path}: {said}");
    }
    for (path, wanted) in [("/api/v1/tasks", "an object"), ("/api/v1/tasks/batch", "a list")] {
        let empty = house.send(Request::post(path).body(Body::empty()).unwrap()).await;
        check(&empty, 400, "MALFORMED_JSON");
        let said = empty.body["error"].as_str().unwrap();
        assert!(said.starts_with("the body is empty\n") && said.contains(wanted), "{said}");
    }
    let large = post(&house, vec![b' '; (4 << 20) + 1]).await.body;
    let said = large["error"].as_str().unwrap();
    assert!(said.contains("4194304") && said.contains("no setting raises"), "{said}");
    let bulk = json!({"operation": "cancel", "task_ids": [nobody]});
    let bulk = house.call("POST", "/api/v1/tasks/bulk", Some(&bulk)).await.body;
    let said = bulk["results"][0]["error"].as_str().unwrap();
    assert!(said.contains("`GET /api/v1/tasks` lists"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_parameter_that_is_not_known_is_refused_by_name() {
    let house = House::open().await;
    let id = id_of(&house.submit(&json!({"name": "n", "agent_type": "none"})).await);
    let task = format!("/api/v1/tasks/{id}");
    for (method, path, known) in [
        ("DELETE", format!("{task}?reson=a"), "reason"),
        ("PUT", format!("{task}/cancel?wait=1"), "reason"),
        ("GET", format!("{task}?wait=1"), "wait_seconds"),
        ("POST", "/api/v1/tasks?wait=1".to_owned(), "wait_seconds"),
    ] {
        let body = json!({"name": "n"});
        let answer = house.call(method, &path, Some(&body).filter(|_| method == "POST")).await;
        check(&answer, 422, "VALIDATION_FAILED");
        assert_eq!(answer.body["details"]["known"], json!([known]), "{}", answer.body);
    }
    assert_eq!(house.get(&task).await.body["task"]["status"], "ready", "nothing was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_task_is_cancelled_may_be_in_the_body_and_what_is_no_reason_is_refused() {
    let house = House::open().await;
    let id = id_of(&house.submit(&json!({"name": "n", "agent_type": "none"})).await);
    let path = format!("/api/v1/tasks/{id}/cancel");
    for (body, status, code) in
        [(json!([]), 422, "VALIDATION_FAILED"), (json!({"reason": 7}), 422, "VALIDATION_FAILED")]
    {
        check(&house.call("PUT", &path, Some(&body)).await, status, code);
    }
    let hello = json!({"reason": "hello", "force": true});
    let twice = house.call("PUT", &format!("{path}?reason=a"), Some(&hello)).await;
    check(&twice, 422, "VALIDATION_FAILED");
    let done = house.call("PUT", &path, Some(&hello)).await;
    assert_eq!((done.status, &done.body["reason"]), (200, &json!("hello")), "{}", done.body);
    let shown = house.get(&format!("/api/v1/tasks/{id}")).await.body;
    assert_eq!(shown["task"]["error"], "cancelled: hello", "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_conflict_are_refused() {
    let house = House::open().await;
    let done = house.run(&json!({"name": "a", "parameters": {"action": "noop"}})).await;
    let path = format!("/api/v1/tasks/{}", done["id"].as_str().unwrap());
    check(&house.call("DELETE", &path, None).await, 409, "ALREADY_ENDED");
    check(&house.call("PUT", &format!("{path}/retry"), None).await, 409, "NOT_RETRYABLE");
    let waiting = id_of(&house.submit(&json!({"name": "b"})).await);
    check(&house.get(&format!("/api/v1/tasks/{waiting}/results")).await, 404, "RESULTS_NOT_READY");
    let submit = |body: Value| {
        let request = Request::post("/api/v1/tasks").header("idempotency-key", "k1");
        house.send(request.body(Body::from(body.to_string())).unwrap())
    };
    let first = submit(json!({"name": "c"})).await.body;
    let again = submit(json!({"name": "c"})).await.body;
    assert_eq!(first["task"]["id"], again["task"]["id"]);
    check(&submit(json!({"name": "d"})).await, 409, "IDEMPOTENCY_CONFLICT");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_created_listed_and_ended() {
    let house = House::open().await;
    let body = json!({"agent_type": "counter", "capabilities": ["task_execution", "poetry"]});
    let made = house.call("POST", "/api/v1/agents", Some(&body)).await;
    assert_eq!(made.status, 200, "{}", made.body);
    assert!(made.body["warnings"][0].as_str().unwrap().contains("poetry"), "{}", made.body);
    let id = made.body["agent"]["id"].as_str().unwrap().to_owned();
    assert_eq!(made.body["agent"]["status"], "idle");
    let named = json!({"name": "a", "agent_id": id, "parameters": {"action": "noop"}});
    assert_eq!(house.run(&named).await["status"], "completed");
    let unknown = json!({"name": "a", "agent_id": id, "parameters": {"action": "sing"}});
    check(&house.call("POST", "/api/v1/tasks", Some(&unknown)).await, 422, "UNKNOWN_ACTION");
    let one = house.get(&format!("/api/v1/agents/{id}")).await.body;
    assert_eq!(one["agent"]["metrics"]["tasks_completed"], 1);
    let all = house.get("/api/v1/agents").await.body;
    assert_eq!(all["total_items"], 6, "five default agents and this one");
    let ended = house.call("DELETE", &format!("/api/v1/agents/{id}"), None).await;
    assert_eq!(ended.status, 200);
    let path = format!("/api/v1/agents/{id}");
    let house = ended_agent_is_there(house, &path).await.reopen().await;
    let house = ended_agent_is_there(house, &path).await;
    for (runtime, instead) in [
        ("command", "[commands]"),
        ("http", "[http_agents]"),
        ("claude_code", "`maos worker exec`"),
    ] {
        let body = json!({"agent_type": "x", "capabilities": ["y"], "runtime": runtime});
        let refused = house.call("POST", "/api/v1/agents", Some(&body)).await;
        check(&refused, 422, "VALIDATION_FAILED");
        let said = refused.body["error"].as_str().unwrap();
        assert!(said.starts_with(&format!("`runtime` is `{runtime}`: ")), "{said}");
        assert!(said.contains(instead), "{said}");
        assert!(refused.body["details"]["fields"]["runtime"].is_string(), "{}", refused.body);
    }
}

/// Who has ended is shown, and changes no more.
async fn ended_agent_is_there(house: House, path: &str) -> House {
    let shown = house.get(path).await;
    assert_eq!((shown.status, &shown.body["agent"]["status"]), (200, &json!("terminated")));
    check(&house.call("DELETE", path, None).await, 409, "AGENT_ENDED");
    let other = json!({"tags": ["t"]});
    check(&house.call("PATCH", path, Some(&other)).await, 409, "AGENT_ENDED");
    house
}

#[tokio::test(flavor = "multi_thread")]
async fn health_status_and_metrics_have_the_contracts_fields() {
    let house = House::open().await;
    let health = house.get("/health").await.body;
    assert_eq!(health["status"], "healthy");
    let detailed = house.get("/health/detailed").await;
    assert_eq!(detailed.status, 200, "{}", detailed.body);
    let status = house.get("/api/v1/system/status").await.body;
    let metrics = house.get("/api/v1/system/metrics").await.body;
    for component in [
        "orchestrator",
        "task_planner",
        "agent_manager",
        "resource_allocator",
        "state_manager",
        "message_bus",
    ] {
        assert_eq!(detailed.body["components"][component]["healthy"], true);
        assert_eq!(status["components"][component], "running");
        assert!(metrics[component].is_object());
    }
    assert_eq!(metrics["resource_allocator"]["cpu_cores"]["available"], 100.0);
    assert_eq!(status["total_agents"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_is_broken_says_so() {
    let house = House::open().await;
    let message = json!({"to": {"topic": "t"}, "body": 1});
    assert_eq!(house.call("POST", "/api/v1/messages", Some(&message)).await.status, 200);
    let db = rusqlite::Connection::open(house.data_dir().join("messages.db")).unwrap();
    db.execute_batch("ALTER TABLE entries RENAME TO hidden").unwrap();
    let refused = house.call("POST", "/api/v1/messages", Some(&message)).await;
    check(&refused, 503, "STORAGE_UNAVAILABLE");
    let health = house.get("/health/detailed").await;
    assert_eq!((health.status, &health.body["status"]), (503, &json!("degraded")));
    for (name, part) in health.body["components"].as_object().unwrap() {
        assert_eq!(part["healthy"], json!(name != "message_bus"), "{name}: {part}");
    }
    let status = house.get("/api/v1/system/status").await.body;
    assert!(status["components"]["message_bus"].as_str().unwrap().contains("messages.db"));
    db.execute_batch("ALTER TABLE hidden RENAME TO entries").unwrap();
    assert_eq!(house.call("POST", "/api/v1/messages", Some(&message)).await.status, 200);
    assert_eq!(house.get("/health/detailed").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_process_that_runs_programs_is_told() {
    let mut config = maos_server::config::Config::default();
    let program = json!({"command": ["true"], "capabilities": ["running"]});
    config.commands.insert("runner".to_owned(), serde_json::from_value(program).unwrap());
    let house = House::open_with(config).await;
    assert_eq!(house.get("/health/detailed").await.status, 200);
    // The supervisor of these tests is a program that ends at once.
    house.submit(&json!({"name": "n", "required_capabilities": ["running"]})).await;
    let broken = async || {
        loop {
            let health = house.get("/health/detailed").await;
            if health.status == 503 {
                return health.body;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let patience = std::time::Duration::from_secs(30);
    let health = tokio::time::timeout(patience, broken()).await.expect("it is told");
    let part = &health["components"]["agent_manager"];
    assert_eq!(part["healthy"], false);
    assert!(part["status"].as_str().unwrap().contains("runs programs"), "{part}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_takes_nothing_new() {
    let house = House::open().await;
    house.server.as_ref().unwrap().service.stop_intake();
    check(&post(&house, r#"{"name": "a"}"#).await, 503, "SHUTTING_DOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subtask_of_an_ended_plan_is_not_retried_alone() {
    let house = House::open().await;
    let body = json!({"name": "line", "decomposition_strategy": "sequential", "parameters": {
        "steps": [{"name": "read", "parameters": {"action": "file.read", "path": "none"}}]}});
    let root = house.run(&body).await;
    assert_eq!(
        (&root["status"], &root["error_kind"]),
        (&json!("failed"), &json!("SUBTASK_FAILED"))
    );
    assert!(root["error"].as_str().unwrap().contains("`none`"), "{root}");
    let child = root["subtasks"][0].as_str().unwrap();
    let refused = house.call("PUT", &format!("/api/v1/tasks/{child}/retry"), None).await;
    check(&refused, 409, "PARENT_ENDED");
    assert_eq!(refused.body["details"]["parent_task_id"], root["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_agents_than_allowed_are_refused() {
    let mut config = maos_server::config::Config::default();
    config.api.max_agents = 5;
    let house = House::open_with(config).await;
    let body = json!({"agent_type": "one-more", "capabilities": ["task_execution"]});
    let refused = house.call("POST", "/api/v1/agents", Some(&body)).await;
    check(&refused, 429, "QUEUE_FULL");
    assert!(refused.body["error"].as_str().unwrap().contains("api.max_agents"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_refused_where_it_would_do_nothing() {
    let house = House::open().await;
    for (path, body) in [
        ("/api/v1/schedules", json!({"name": "s", "cron": "0 0 1 1 *", "task": {"name": "n"}})),
        ("/api/v1/agents", json!({"agent_type": "a", "capabilities": ["computation"]})),
        ("/api/v1/checkpoints", json!({})),
        ("/api/v1/resources", json!({"resource_type": "custom", "name": "n", "capacity": 1})),
    ] {
        let answer = house.keyed(path, "k", &body).await;
        check(&answer, 422, "VALIDATION_FAILED");
        let what = answer.body["details"]["fields"]["Idempotency-Key"].as_str().unwrap();
        assert!(what.contains("batches"), "{what}");
        assert_eq!(house.call("POST", path, Some(&body)).await.status, 200, "{path}");
    }
    let blank = house.keyed("/api/v1/tasks", " ", &json!({"name": "n"})).await;
    check(&blank, 422, "VALIDATION_FAILED");
    assert!(blank.body["details"]["fields"]["Idempotency-Key"].is_string(), "{}", blank.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_none_is_refused_by_its_own_code_and_names_the_place() {
    let house = House::open().await;
    let refers = json!({"x": {"$from": "a", "pointer": 7}});
    for (subtasks, code, field) in [
        (
            json!([{"key": "a", "depends_on": ["b"]}, {"key": "b", "depends_on": ["a"]}]),
            "PLAN_CYCLE",
            "subtasks[0].depends_on",
        ),
        (json!([{"key": "a"}, {"key": "a"}]), "DUPLICATE_KEY", "subtasks[1].key"),
        (json!([{"key": "a", "depends_on": ["z"]}]), "UNKNOWN_KEY", "subtasks[0].depends_on"),
        (
            json!([{"key": "a"}, {"key": "b", "parameters": refers}]),
            "BAD_REFERENCE",
            "subtasks[1].parameters",
        ),
    ] {
        let answer = post(&house, json!({"name": "n", "subtasks": subtasks}).to_string()).await;
        check(&answer, 422, code);
        let fields = &answer.body["details"]["fields"];
        assert!(fields[field].is_string(), "{code} names {fields}");
    }
    let nobody = json!({"name": "n", "agent_id": "00000000-0000-7000-8000-000000000000"});
    let answer = post(&house, nobody.to_string()).await;
    check(&answer, 404, "AGENT_NOT_FOUND");
    assert!(answer.body["details"]["fields"]["agent_id"].is_string(), "{}", answer.body);
}
