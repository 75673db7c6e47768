//! Tasks as clients of Claude Code send and see them.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::house::{Answer, House};

const TASKS: &str = "/api/v1/claude/tasks";

async fn send(house: &House, body: &Value) -> Answer {
    house.call("POST", TASKS, Some(body)).await
}

async fn shown(house: &House, accepted: &Answer) -> Value {
    assert_eq!(accepted.status, 200, "{}", accepted.body);
    let id = accepted.body["claude_task_id"].as_str().unwrap();
    house.get(&format!("{TASKS}/{id}?wait_seconds=30")).await.body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_found_under_an_id_of_its_own_also_after_a_restart() {
    let house = House::open().await;
    let body = json!({"name": "n", "parameters": {"action": "noop", "a": 1}, "tags": ["x"],
        "metadata": {"m": 1}, "priority": "urgent"});
    let accepted = send(&house, &body).await;
    let task = shown(&house, &accepted).await;
    assert_eq!(task["id"], accepted.body["claude_task_id"]);
    assert_ne!(task["id"], task["maos_task_id"]);
    assert_eq!(Uuid::parse_str(task["id"].as_str().unwrap()).unwrap().get_version_num(), 7);
    assert_eq!((&task["status"], &task["priority"]), (&json!("completed"), &json!("critical")));
    assert_eq!(task["tags"], json!(["claude_code", "x"]));
    assert_eq!(
        task["metadata"],
        json!({"m": 1, "source": "claude_code", "claude_type": "generic"})
    );
    assert_eq!(
        task["resource_requirements"],
        json!({"cpu_cores": 0.5, "memory_mb": 512.0, "disk_mb": 256.0})
    );
    let house = house.reopen().await;
    let again = house.get(&format!("{TASKS}/{}", task["id"].as_str().unwrap())).await;
    assert_eq!(again.body, task);
    let results = format!("{TASKS}/{}/results", task["id"].as_str().unwrap());
    assert_eq!(house.get(&results).await.body["results"], json!({"action": "noop", "a": 1}));
    let status = house.get("/api/v1/claude/orchestrator/status").await.body;
    assert_eq!((&status["status"], &status["total_claude_tasks"]), (&json!("running"), &json!(1)));
    assert_eq!(status["metrics"]["tasks_completed"], json!(1));
    assert_eq!(status["health"]["message_bus"]["healthy"], json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_stands_for_a_capability_and_resources_of_its_own() {
    let house = House::open().await;
    for (kind, capability, resources) in [
        (
            "api_calls",
            "api_integration",
            json!({"cpu_cores": 0.25, "memory_mb": 128.0,
            "network_mbps": 10.0}),
        ),
        (
            "computation",
            "computation",
            json!({"cpu_cores": 2.0, "memory_mb": 2048.0,
            "disk_mb": 256.0}),
        ),
    ] {
        // Free work, which no built-in agent takes: it waits and says for which capability.
        let accepted = send(&house, &json!({"description": "d", "type": kind})).await;
        let id = accepted.body["maos_task_id"].as_str().unwrap().to_owned();
        let task = house.get(&format!("/api/v1/tasks/{id}")).await.body["task"].clone();
        assert_eq!((&task["name"], &task["resource_requirements"]), (&json!("d"), &resources));
        let why = house.get(&format!("/api/v1/tasks/{id}/explain")).await.body.to_string();
        assert!(why.contains(capability), "{why}");
    }
    let own = json!({"name": "n", "type": "computation", "resource_requirements": {"cpu_cores": 1},
        "parameters": {"action": "compute.sum", "values": [1, 2]}});
    let task = shown(&house, &send(&house, &own).await).await;
    assert_eq!(
        (&task["result"], &task["resource_requirements"]),
        (&json!(3), &json!({"cpu_cores": 1.0}))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_in_the_words_of_the_sender() {
    let house = House::open().await;
    for (body, status, field) in [
        (json!({}), 422, "name"),
        (json!({"name": "n", "type": "other"}), 422, "type"),
        (json!({"name": "n", "priority": "soon"}), 422, "priority"),
        (json!({"name": "n", "tags": 5}), 422, "tags"),
        (json!({"name": "n", "metadata": []}), 422, "metadata"),
        (json!({"name": "n", "callback_url": "http://127.0.0.1/"}), 422, "callback_url"),
        (json!({"name": "n", "callback_url": "no url"}), 422, "callback_url"),
        (json!({"name": "n", "callback_url": 7}), 422, "callback_url"),
    ] {
        let answer = send(&house, &body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(answer.body["details"]["fields"][field].is_string(), "{body}: {}", answer.body);
    }
    let answer = send(&house, &json!({"name": "n", "priority": "soon"})).await;
    let said = answer.body["details"]["fields"]["priority"].as_str().unwrap();
    assert!(said.contains("`normal`") && said.contains("`urgent`"), "{said}");
    for (wrong, also) in [
        (json!({"name": "n", "type": "other", "callback_url": 7}), "callback_url"),
        (json!({"name": "n", "callback_url": "http://127.0.0.1/"}), "callback_url"),
    ] {
        let mut body = wrong;
        (body["priority"], body["max_retries"]) = ("soon".into(), (-1).into());
        let answer = send(&house, &body).await.body;
        for field in ["priority", "max_retries", also] {
            assert!(answer["details"]["fields"][field].is_string(), "{body}: {answer}");
        }
    }
    // Also what only the form, the network and the planner know.
    let body = json!({"name": "n", "type": "other", "callback_url": "http://127.0.0.1/",
        "subtasks": [{"name": "a", "key": "a", "depends_on": ["b"]}]});
    let answer = send(&house, &body).await;
    let fields = answer.body["details"]["fields"].as_object().unwrap();
    assert_eq!(answer.status, 422);
    for field in ["type", "callback_url"] {
        assert!(fields.contains_key(field), "{}", answer.body);
    }
    assert_eq!(fields.len(), 3, "{}", answer.body);
    let submitted = house.submit(&json!({"name": "plain", "parameters": {"action": "noop"}})).await;
    let other = submitted["task"]["id"].as_str().unwrap();
    for id in [other.to_owned(), Uuid::now_v7().to_string()] {
        let answer = house.get(&format!("{TASKS}/{id}")).await;
        assert_eq!((answer.status, &answer.body["error_code"]), (404, &json!("TASK_NOT_FOUND")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_is_cancelled_by_its_own_id() {
    let house = House::open().await;
    let accepted = send(&house, &json!({"name": "n", "required_capabilities": ["none"]})).await;
    let id = accepted.body["claude_task_id"].as_str().unwrap();
    let path = format!("{TASKS}/{id}");
    let answer = house.call("DELETE", &format!("{path}?reason=enough"), None).await;
    assert_eq!((answer.status, &answer.body["task_id"]), (200, &json!(id)));
    assert_eq!(house.get(&path).await.body["status"], "cancelled");
    let reason = json!({"reason": "again"});
    let refused = house.call("PUT", &format!("{path}/cancel"), Some(&reason)).await;
    assert_eq!((refused.status, &refused.body["details"]["task_id"]), (409, &json!(id)));
    let results = house.get(&format!("{path}/results")).await;
    assert_eq!(results.status, 404);
    for refused in [refused, results] {
        assert!(refused.body["error"].as_str().unwrap().contains(id), "{}", refused.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_stays_what_it_is_whatever_its_tags_and_metadata_become() {
    let house = House::open().await;
    let body = json!({"name": "n", "decomposition_strategy": "parallel",
        "parameters": {"action": "noop", "items": [1, 2, 3]}});
    let accepted = send(&house, &body).await;
    let waits = send(&house, &json!({"name": "n", "required_capabilities": ["none"]})).await;
    shown(&house, &accepted).await;
    house
        .run(&json!({"name": "n", "tags": ["claude_code"], "parameters": {"action": "noop"},
        "metadata": {"source": "claude_code"}}))
        .await;
    let count = async |house: &House| {
        house.get("/api/v1/claude/orchestrator/status").await.body["total_claude_tasks"].clone()
    };
    assert_eq!(count(&house).await, 2);
    for accepted in [&accepted, &waits] {
        let path = format!("/api/v1/tasks/{}", accepted.body["maos_task_id"].as_str().unwrap());
        let other = json!({"tags": ["other"], "metadata": {}});
        assert_eq!(house.call("PATCH", &path, Some(&other)).await.status, 200);
        let task = shown(&house, accepted).await;
        assert_eq!(
            (&task["id"], &task["tags"]),
            (&accepted.body["claude_task_id"], &json!(["other"]))
        );
    }
    let house = house.reopen().await;
    let path = |accepted: &Answer| {
        format!("{TASKS}/{}", accepted.body["claude_task_id"].as_str().unwrap())
    };
    assert_eq!(house.get(&format!("{}/results", path(&accepted))).await.status, 200);
    assert_eq!(house.call("DELETE", &path(&waits), None).await.status, 200);
    assert_eq!(count(&house).await, 2);
    let bulk = json!({"operation": "delete", "task_ids": [accepted.body["maos_task_id"]]});
    house.call("POST", "/api/v1/tasks/bulk", Some(&bulk)).await;
    assert_eq!(count(&house).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_covers_all_that_was_sent_with_it() {
    let mut config = maos_server::config::Config::default();
    config.outbound.allow_private = true;
    let house = House::open_with(config).await;
    let body = json!({"name": "n", "callback_url": "http://127.0.0.1:9/a"});
    let first = house.keyed(TASKS, "k", &body).await;
    let again = house.keyed(TASKS, "k", &body).await;
    assert_eq!(first.body["claude_task_id"], again.body["claude_task_id"], "{}", again.body);
    assert_eq!(first.body["callback_secret"], again.body["callback_secret"]);
    let other = json!({"name": "n", "callback_url": "http://127.0.0.1:9/b"});
    let refused = house.keyed(TASKS, "k", &other).await;
    assert_eq!(
        (refused.status, &refused.body["error_code"]),
        (409, &json!("IDEMPOTENCY_CONFLICT"))
    );
    let plain = json!({"name": "n"});
    assert_eq!(house.keyed("/api/v1/tasks", "p", &plain).await.status, 200);
    assert_eq!(house.keyed(TASKS, "p", &plain).await.status, 409, "another kind of task");
}
