//! Tasks from submission to end, over restarts.

use maos_server::config::Config;
use serde_json::{Value, json};

use crate::house::{House, id_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_noop_answers_its_own_parameters() {
    let house = House::open().await;
    let task =
        house.run(&json!({"name": "a", "parameters": {"action": "noop", "x": [1, 2]}})).await;
    assert_eq!(task["status"], "completed");
    assert_eq!(task["result"], json!({"action": "noop", "x": [1, 2]}));
    for time in ["created_at", "started_at", "completed_at", "updated_at"] {
        assert!(task[time].as_str().unwrap().ends_with('Z'), "{time}: {}", task[time]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_form_task_waits_and_explains_itself() {
    let house = House::open().await;
    let id = id_of(&house.submit(&json!({"name": "write a poem"})).await);
    let task = house.get(&format!("/api/v1/tasks/{id}?wait_seconds=1")).await.body;
    assert_eq!(task["task"]["status"], "ready");
    let why = house.get(&format!("/api/v1/tasks/{id}/explain")).await.body;
    assert_eq!(why["blockers"][0]["kind"], "no_agent", "{why}");
    assert!(why["blockers"][0]["unblock"].as_str().unwrap().contains("noop"), "{why}");
    let cancelled = house.call("DELETE", &format!("/api/v1/tasks/{id}?reason=enough"), None).await;
    assert_eq!((cancelled.status, &cancelled.body["reason"]), (200, &json!("enough")));
    assert_eq!(house.ended(&id).await["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_results_are_collected_in_order() {
    let house = House::open().await;
    let body = json!({"name": "many", "decomposition_strategy": "parallel",
        "parameters": {"action": "noop", "items": [10, 20, 30]}});
    let task = house.run(&body).await;
    let items: Vec<_> = task["result"].as_array().unwrap().iter().map(|r| &r["item"]).collect();
    assert_eq!(items, [&json!(10), &json!(20), &json!(30)], "{task}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_hands_each_result_to_the_next_step() {
    let house = House::open().await;
    let body = json!({"name": "line", "decomposition_strategy": "pipeline", "parameters": {
    "steps": [
        {"name": "one", "parameters": {"action": "noop", "x": "y".repeat(3_000)}},
        {"name": "two", "parameters": {"action": "noop"}},
    ]}});
    let task = house.run(&body).await;
    assert_eq!(task["status"], "completed", "{task}");
    assert_eq!(task["result"]["input"]["x"], "y".repeat(3_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restart() {
    let house = House::open().await;
    let done = house.run(&json!({"name": "done", "parameters": {"action": "noop"}})).await;
    let waiting = house.submit(&json!({"name": "waiting"})).await;
    let plan = json!({"name": "plan", "decomposition_strategy": "sequential",
        "parameters": {"steps": ["a", "b"]}});
    let plan = house.submit(&plan).await;
    let house = house.reopen().await;
    let path = |id: &str| format!("/api/v1/tasks/{id}");
    let again = house.get(&path(done["id"].as_str().unwrap())).await.body;
    assert_eq!(again["task"], done);
    let again = house.get(&path(&id_of(&waiting))).await.body;
    assert_eq!(again["task"]["status"], "ready");
    let again = house.get(&path(&id_of(&plan))).await.body;
    assert_eq!(again["task"]["subtasks"], plan["task"]["subtasks"]);
    let page = house.get("/api/v1/tasks?page_size=2").await.body;
    assert_eq!((&page["total_items"], &page["total_pages"]), (&json!(5), &json!(3)), "{page}");
    let ready = house.get("/api/v1/tasks?status=completed").await.body;
    assert_eq!(ready["items"][0]["id"], done["id"]);
    let metrics = house.get("/api/v1/system/metrics").await.body;
    assert_eq!(metrics["orchestrator"]["tasks_submitted"], 5);
    assert_eq!(metrics["orchestrator"]["tasks_completed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_task_runs_again_also_after_it_left_the_engine() {
    let mut config = Config::default();
    config.pools.clear();
    let house = House::open_with(config).await;
    let id = id_of(&house.submit(&json!({"name": "a", "parameters": {"action": "noop"}})).await);
    let path = format!("/api/v1/tasks/{id}");
    assert_eq!(house.call("PUT", &format!("{path}/cancel"), None).await.status, 200);
    let house = house.reopen().await;
    let retried = house.call("PUT", &format!("{path}/retry"), None).await;
    assert_eq!(retried.status, 200, "{}", retried.body);
    assert_eq!(house.ended(&id).await["status"], "completed");
    let refused = house.call("PUT", &format!("{path}/retry"), None).await;
    assert_eq!((refused.status, &refused.body["error_code"]), (409, &json!("NOT_RETRYABLE")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_has_its_own_route_beside_the_servers() {
    use tower::ServiceExt;
    let house = House::open().await;
    let shop = crate::backend_api::application(house.server.as_ref().unwrap().service.clone());
    let ask = |method: &str, path: &str, body: &str| {
        let request = axum::http::Request::builder().method(method).uri(path);
        let request = request.header("content-type", "application/json");
        let request = request.body(axum::body::Body::from(body.to_owned())).unwrap();
        let shop = shop.clone();
        async move {
            let (parts, body) = shop.oneshot(request).await.unwrap().into_parts();
            let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
            (parts.status.as_u16(), serde_json::from_slice::<Value>(&body).unwrap())
        }
    };
    let (status, answer) = ask("POST", "/orders", r#"{"item": "tea", "quantity": 3}"#).await;
    assert_eq!((status, &answer["price"]), (200, &json!(75)), "{answer}");
    let path = format!("/api/v1/tasks/{}", answer["order"].as_str().unwrap());
    assert_eq!(ask("GET", &path, "").await.1["task"]["name"], "order of tea");
    assert_eq!(ask("GET", "/nothing", "").await.1["error_code"], "PATH_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_is_no_longer_counted_as_known() {
    let house = House::open().await;
    let noop = json!({"name": "a", "parameters": {"action": "noop"}});
    let plan = json!({"name": "many", "decomposition_strategy": "parallel",
        "parameters": {"action": "noop", "items": [1, 2, 3]}});
    house.run(&noop).await;
    let gone = house.run(&plan).await["id"].clone();
    let known = async |house: &House| {
        let status = house.get("/api/v1/system/status").await.body;
        (status["total_tasks"].clone(), status["execution_plans"].clone())
    };
    assert_eq!(known(&house).await, (json!(5), json!(2)));
    let delete = json!({"operation": "delete", "task_ids": [gone]});
    let answer = house.call("POST", "/api/v1/tasks/bulk", Some(&delete)).await.body;
    assert_eq!(answer["successful_operations"], 1, "{answer}");
    assert_eq!(known(&house).await, (json!(1), json!(1)));
    let house = house.reopen().await;
    house.run(&noop).await;
    assert_eq!(known(&house).await, (json!(2), json!(2)));
    let metrics = house.get("/api/v1/system/metrics").await.body;
    assert_eq!(metrics["orchestrator"]["tasks_submitted"], 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_shows_what_was_asked_of_it() {
    let house = House::open().await;
    let asked = json!({"required_capabilities": ["poetry"], "agent_type": "poet",
        "queue_timeout_seconds": 60, "no_progress_seconds": 50, "deadline": "2100-01-01T00:00:00Z",
        "run_at": "2099-01-01T00:00:00Z", "on_failure": "continue", "concurrency_key": "c",
        "fairness_key": "f", "decomposition_strategy": "sequential"});
    let mut body = asked.clone();
    body["name"] = "n".into();
    body["parameters"] = json!({"steps": ["a"]});
    let root = house.submit(&body).await["task"].clone();
    for (field, value) in asked.as_object().unwrap() {
        assert_eq!(&root[field], value, "{field}");
    }
    let house = house.reopen().await;
    let step = format!("/api/v1/tasks/{}", root["subtasks"][0].as_str().unwrap());
    let step = house.get(&step).await.body["task"].clone();
    for (field, value) in asked.as_object().unwrap() {
        let own = matches!(&**field, "deadline" | "decomposition_strategy");
        assert_eq!(&step[field], if own { &Value::Null } else { value }, "{field}");
    }
    let plain = house.submit(&json!({"name": "n", "parameters": {"action": "noop"}})).await;
    for field in asked.as_object().unwrap().keys() {
        assert!(plain["task"].get(field).is_none(), "{field}: {plain}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_for_a_time_names_it() {
    let house = House::open().await;
    let delayed = house.submit(&json!({"name": "n", "run_at": "2099-01-01T00:00:00Z"})).await;
    let why = explained(&house, &delayed).await;
    assert_eq!((&why["kind"], &why["until"]), (&json!("parked"), &json!("2099-01-01T00:00:00Z")));
    assert_eq!(why["unblock"], "its start time, at 2099-01-01T00:00:00Z");
    let limit = json!({"running_max": 5, "starts_per_minute": 1});
    let path = "/api/v1/keys/concurrency/k";
    assert_eq!(house.call("PUT", path, Some(&limit)).await.status, 200);
    let noop = json!({"name": "n", "concurrency_key": "k", "parameters": {"action": "noop"}});
    let first = house.run(&noop).await;
    let why = explained(&house, &house.submit(&noop).await).await;
    let next: jiff::Timestamp = why["until"].as_str().unwrap().parse().unwrap();
    let started: jiff::Timestamp = first["started_at"].as_str().unwrap().parse().unwrap();
    let pause = (next - started).get_seconds();
    assert!((55..=65).contains(&pause), "{why}");
    assert!(why["unblock"].as_str().unwrap().contains("the next start, at 2"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_unblock_a_task_is_said_in_its_own_words() {
    let house = House::open().await;
    for (body, said, unsaid) in [
        (json!({"agent_type": "poet"}), "an agent of the type `poet`: start a worker", "noop"),
        (json!({"required_capabilities": ["video"]}), "an agent with `video`: start", "noop"),
        (json!({}), "`action` in `parameters` (noop", "type"),
        (
            json!({"agent_type": "poet", "parameters": {"action": "noop"}}),
            "an agent of the type `poet`: create one",
            "maos.toml",
        ),
    ] {
        let mut body = body;
        body["name"] = "n".into();
        let why = explained(&house, &house.submit(&body).await).await;
        let unblock = why["unblock"].as_str().unwrap();
        assert!(unblock.contains(said) && !unblock.contains(unsaid), "{body}: {unblock}");
    }
    let path = "/api/v1/keys/concurrency/k";
    assert_eq!(house.call("PUT", path, Some(&json!({"running_max": 0}))).await.status, 200);
    let noop = json!({"name": "n", "concurrency_key": "k", "parameters": {"action": "noop"}});
    let why = explained(&house, &house.submit(&noop).await).await;
    assert_eq!(why["unblock"], "a `running_max` above 0 for the key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_that_nobody_can_do_is_warned_of_it() {
    let house = House::open().await;
    let video = json!({"name": "n", "required_capabilities": ["video"], "agent_type": "studio"});
    let missing = "no agent has capability `video` and type `studio`";
    let warned = async |body: &Value| {
        let [submitted, planned] = ["/api/v1/tasks", "/api/v1/plans/preview"];
        let submitted = house.call("POST", submitted, Some(body)).await.body["warnings"].clone();
        let planned = house.call("POST", planned, Some(body)).await.body["warnings"].clone();
        assert_eq!(submitted, planned);
        submitted[0].as_str().unwrap_or_default().to_owned()
    };
    let said = warned(&video).await;
    assert!(said.starts_with(missing) && said.ends_with("the task waits until there is one"));
    let many = json!({"name": "n", "agent_type": "poet", "decomposition_strategy": "parallel",
        "parameters": {"items": [1, 2]}});
    assert!(warned(&many).await.contains("type `poet`; no built-in agent"));
    assert!(warned(&many).await.ends_with("2 subtasks wait until there is one"));
    assert_eq!(warned(&json!({"name": "n", "parameters": {"action": "noop"}})).await, "");
    let worker = json!({"agent_type": "studio", "capabilities": ["audio"], "runtime": "worker"});
    let made = house.call("POST", "/api/v1/agents", Some(&worker)).await.body;
    let path = format!("/api/v1/agents/{}", made["agent"]["id"].as_str().unwrap());
    assert!(warned(&video).await.starts_with(missing));
    let able = json!({"capabilities": ["audio", "video"]});
    assert_eq!(house.call("PATCH", &path, Some(&able)).await.status, 200);
    assert_eq!(warned(&video).await, "");
    assert_eq!(house.call("DELETE", &path, None).await.status, 200);
    assert!(warned(&video).await.starts_with(missing));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_pool_that_would_grow_is_somebody() {
    let mut config = Config::default();
    for pool in config.pools.values_mut() {
        (pool.min, pool.max) = (0, 1);
    }
    let house = House::open_with(config).await;
    let answer = house.submit(&json!({"name": "n", "parameters": {"action": "noop"}})).await;
    assert!(answer.get("warnings").is_none(), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_has_sizes_and_rates() {
    let house = House::open().await;
    for _ in 0..3 {
        house.run(&json!({"name": "n", "parameters": {"action": "noop"}})).await;
    }
    house.get("/api/v1/tasks").await;
    let metrics = house.get("/api/v1/system/metrics").await.body;
    let state = &metrics["state_manager"];
    assert_eq!((&state["tasks_stored"], &state["tasks_completed"]), (&json!(3), &json!(3)));
    for some in ["store_bytes", "journal_commits_per_second", "rows_changed_per_second"] {
        assert!(state[some].as_f64().unwrap() > 0.0, "{some}: {state}");
    }
    for all in ["checkpoints", "log_bytes", "log_lines", "tasks_removed"] {
        assert!(state[all].is_u64(), "{all}: {state}");
    }
}

/// The first blocker of a task.
async fn explained(house: &House, submitted: &Value) -> Value {
    let path = format!("/api/v1/tasks/{}/explain", id_of(submitted));
    house.get(&path).await.body["blockers"][0].clone()
}
