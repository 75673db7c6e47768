//! Every public error code is produced by a test: here is looked whether one names it.

use std::path::Path;

use axum::body::Body;
use axum::http::Request;
use maos_api::error::ErrorCode;
use serde_json::{Value, json};

use crate::house::House;

/// What no request brings about, and the test that produces it below HTTP.
const ELSEWHERE: [(ErrorCode, &str, &str); 3] = [
    (ErrorCode::NotLeader, "src/service/faults.rs", "a_server_that_no_longer_leads"),
    (ErrorCode::Internal, "src/http/mod.rs", "a_panic_is_answered"),
    // A body does not nest as deep as its plan would have to.
    (ErrorCode::PlanTooDeep, "src/planner/tests.rs", "plans_nest_only_so_deep"),
];

#[test]
fn every_code_is_named_by_a_test() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let files = std::fs::read_dir(crate_dir.join("tests/http")).unwrap();
    let tests: String = files.map(|file| read(&file.unwrap().path())).collect();
    for code in ErrorCode::ALL {
        let named = tests.contains(&format!("\"{}\"", code.name()));
        match ELSEWHERE.iter().find(|(known, ..)| known == code) {
            Some((_, file, test)) => {
                assert!(read(&crate_dir.join(file)).contains(test), "`{test}` is gone");
                assert!(!named, "{} is produced over HTTP, too", code.name());
            }
            None => assert!(named, "no test in tests/http produces {}", code.name()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_of_tasks_is_refused_and_nothing_of_it_taken() {
    let house = House::open().await;
    let batch = |of: u32| -> Value {
        (0..10_000)
            .map(|n| json!({"name": "n", "required_capabilities": [format!("c{of}_{n}")]}))
            .collect()
    };
    let mut refused = Vec::new();
    for of in 0..7 {
        let request = Request::post("/api/v1/tasks/batch");
        let response = house.response(request.body(Body::from(batch(of).to_string())).unwrap());
        let body = http_body_util::BodyExt::collect(response.await.into_body()).await.unwrap();
        let results: Vec<Value> = serde_json::from_slice(&body.to_bytes()).unwrap();
        refused.extend(results.into_iter().filter(|result| result["task_id"].is_null()));
    }
    assert!(refused.iter().all(|result| result["error_code"] == "QUEUE_FULL"));
    assert_eq!(refused.len(), 70_000 - 65_536);
    let one = json!({"name": "n", "required_capabilities": ["yet_another"]});
    let answer = house.call("POST", "/api/v1/tasks", Some(&one)).await;
    assert_eq!((answer.status, &answer.body["error_code"]), (429, &json!("QUEUE_FULL")));
    assert!(answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
    let status = house.get("/api/v1/system/status").await.body;
    assert_eq!(status["total_tasks"], 65_536);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_is_not_there_is_named() {
    let house = House::open().await;
    let path = "/api/v1/schedules/00000000-0000-7000-8000-000000000000";
    for (method, body) in
        [("GET", None), ("DELETE", None), ("PATCH", Some(json!({"paused": true})))]
    {
        let answer = house.call(method, path, body.as_ref()).await;
        let code = &answer.body["error_code"];
        assert_eq!((answer.status, code), (404, &json!("SCHEDULE_NOT_FOUND")), "{method}");
    }
}
