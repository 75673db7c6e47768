//! Resources: declared, changed, held by tasks and by others, and kept over a restart.

use maos_server::config::Config;
use serde_json::{Value, json};

use crate::house::House;
use crate::workers::Worker;

const RESOURCES: &str = "/api/v1/resources";

async fn declare(house: &House, body: Value) -> Value {
    let answer = house.call("POST", RESOURCES, Some(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["resource"].clone()
}

async fn allocate(house: &House, body: Value) -> (u16, Value) {
    let answer = house.call("POST", "/api/v1/resources/allocate", Some(&body)).await;
    (answer.status, answer.body)
}

fn task(resources: &Value) -> Value {
    json!({"name": "n", "resource_requirements": resources, "parameters": {"action": "noop"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_of_one_kind_add_up_and_survive_a_restart() {
    let house = House::open().await;
    let shown = house.get(RESOURCES).await.body;
    assert_eq!(shown["pools"]["cpu_cores"]["capacity"], 100.0);
    assert_eq!(shown["items"][0]["origin"], "configuration");
    let declared = declare(
        &house,
        json!({"resource_type": "cpu", "name": "node 7", "capacity": 8, "cost_per_unit": 0.02}),
    )
    .await;
    assert_eq!((&declared["kind"], &declared["origin"]), (&json!("cpu_cores"), &json!("api")));
    let house = house.reopen().await;
    assert_eq!(house.get(RESOURCES).await.body["pools"]["cpu_cores"]["capacity"], 108.0);
    let path = format!("{RESOURCES}/{}", declared["id"].as_str().unwrap());
    let patch = json!({"capacity": 4, "location": "rack 2"});
    let changed = house.call("PATCH", &path, Some(&patch)).await.body;
    assert_eq!(changed["resource"]["capacity"], 4.0);
    assert_eq!(changed["resource"]["cost_per_unit"], 0.02);
    assert_eq!(house.get(RESOURCES).await.body["pools"]["cpu_cores"]["capacity"], 104.0);
    assert_eq!(house.call("DELETE", &path, None).await.status, 200);
    assert_eq!(house.get(RESOURCES).await.body["pools"]["cpu_cores"]["capacity"], 100.0);
    assert_eq!(house.get(&path).await.body["error_code"], "RESOURCE_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configuration_declares_is_changed_there() {
    let house = House::open().await;
    let first = house.get(RESOURCES).await.body["items"][0].clone();
    let path = format!("{RESOURCES}/{}", first["id"].as_str().unwrap());
    assert_eq!(house.get(&path).await.body["resource"], first);
    for (method, body) in [("PATCH", Some(json!({"capacity": 1}))), ("DELETE", None)] {
        let answer = house.call(method, &path, body.as_ref()).await;
        assert_eq!(answer.status, 409);
        assert_eq!(answer.body["error_code"], "DECLARED_BY_CONFIGURATION");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requirement_is_held_against_what_is_declared() {
    let house = House::open().await;
    declare(
        &house,
        json!({"resource_type": "custom", "name": "licences", "capacity": 3,
               "minimum_allocation": 1, "maximum_allocation": 2}),
    )
    .await;
    for (amount, status) in [(0.5, 422), (1.0, 200), (2.5, 422), (4.0, 422)] {
        let body = task(&json!({"licences": amount}));
        let answer = house.call("POST", "/api/v1/tasks", Some(&body)).await;
        assert_eq!(answer.status, status, "{amount}: {}", answer.body);
        assert!(answer.body.get("warnings").is_none());
        let in_all = answer.body["error"].as_str().is_some_and(|said| said.contains("3 in all"));
        assert_eq!(in_all, amount > 3.0, "{}", answer.body);
    }
    // It does not round to nothing.
    let least = house.submit(&task(&json!({"cpu_cores": 0.0004}))).await;
    assert_eq!(least["task"]["resource_requirements"], json!({"cpu_cores": 0.001}));
    let shelf = json!({"resource_type": "custom", "name": "shelves", "capacity": 9,
                       "maximum_allocation": 4});
    declare(&house, shelf).await;
    let both = task(&json!({"licences": 2.5, "shelves": 5}));
    let answer = house.call("POST", "/api/v1/tasks", Some(&both)).await;
    let fields: Vec<&String> =
        answer.body["details"]["fields"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["resource_requirements.licences", "resource_requirements.shelves"]);
    let answer = house.call("POST", "/api/v1/tasks", Some(&task(&json!({"cpu_cores": 200})))).await;
    assert_eq!((answer.status, &answer.body["details"]["capacity"]), (422, &json!(100.0)));
    let warned = house.submit(&task(&json!({"seats": 5}))).await;
    assert!(warned["warnings"][0].as_str().unwrap().contains("`seats`"), "{warned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allocation_holds_tasks_back_until_it_is_given_back() {
    let resources = [("cpu_cores".to_owned(), 4.0)].into();
    let config = Config { resources, ..Config::default() };
    let house = House::open_with(config).await;
    let (status, held) =
        allocate(&house, json!({"requester_id": "nightly", "resources": {"cpu_cores": 3}})).await;
    assert_eq!((status, &held["allocation"]["resources"]["cpu_cores"]), (200, &json!(3.0)));
    assert!(held["allocation"]["expires_at"].is_string());
    let id = crate::house::id_of(&house.submit(&task(&json!({"cpu_cores": 2}))).await);
    let why = house.get(&format!("/api/v1/tasks/{id}/explain")).await.body;
    assert_eq!(why["blockers"][0]["kind"], "resources");
    assert!(why["blockers"][0]["message"].as_str().unwrap().contains("`nightly`"), "{why}");
    let more = json!({"requester_id": "other", "resources": {"cpu_cores": 2}});
    let (status, refused) = allocate(&house, more).await;
    assert_eq!((status, &refused["error_code"]), (409, &json!("NOT_ENOUGH_LEFT")));
    assert_eq!(refused["details"]["available"], 1.0);
    // The same requester asks anew: what it held so far is free for that.
    let (status, _) =
        allocate(&house, json!({"requester_id": "nightly", "resources": {"cpu_cores": 4}})).await;
    assert_eq!(status, 200);
    let shown = house.get("/api/v1/resources/allocations").await.body;
    assert_eq!(
        (&shown["total_items"], &shown["items"][0]["requester_id"]),
        (&json!(1), &json!("nightly"))
    );
    let path = "/api/v1/resources/allocations/nightly";
    assert_eq!(house.call("DELETE", path, None).await.status, 200);
    assert_eq!(house.ended(&id).await["status"], "completed");
    let gone = house.call("DELETE", path, None).await;
    assert_eq!((gone.status, &gone.body["error_code"]), (404, &json!("ALLOCATION_NOT_FOUND")));
}

/// The warnings of a change or removal that is taken.
async fn warned(house: &House, method: &str, path: &str, body: Option<Value>) -> Vec<String> {
    let answer = house.call(method, path, body.as_ref()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let warnings = answer.body["warnings"].as_array().cloned().unwrap_or_default();
    warnings.iter().map(|warning| warning.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn less_than_is_held_or_wanted_is_warned_of() {
    let house = House::open().await;
    let body = json!({"resource_type": "custom", "name": "licences", "capacity": 8});
    let declared = declare(&house, body).await;
    let path = format!("{RESOURCES}/{}", declared["id"].as_str().unwrap());
    let worker = Worker::register(&house, 1).await;
    house.submit(&json!({"name": "n", "resource_requirements": {"licences": 2}})).await;
    worker.fetch().await;
    let held = json!({"requester_id": "nightly", "resources": {"licences": 3}});
    assert_eq!(allocate(&house, held).await.0, 200);
    for name in ["a", "b"] {
        house.submit(&json!({"name": name, "resource_requirements": {"licences": 6}})).await;
    }
    let change = |capacity: u32| Some(json!({"capacity": capacity}));
    assert_eq!(warned(&house, "PATCH", &path, change(7)).await, [""; 0]);
    let less = warned(&house, "PATCH", &path, change(5)).await;
    let wanting = "`licences`: the 5 that there is now is too little for 2 waiting tasks, until \
                   there is more";
    assert_eq!(less, [wanting]);
    let less = warned(&house, "PATCH", &path, change(4)).await;
    let used = "`licences`: 5 in use by 1 attempt and 1 allocation, of 4 that there is now: they \
                keep it, and nobody else gets any until enough is given back";
    assert_eq!((less.len(), &*less[0]), (2, used));
    // Neither more nor something else is of concern.
    assert_eq!(warned(&house, "PATCH", &path, change(5)).await, [""; 0]);
    assert_eq!(warned(&house, "PATCH", &path, Some(json!({"tags": ["x"]}))).await, [""; 0]);
    let gone = warned(&house, "DELETE", &path, None).await;
    let free = "`licences`: nobody declares it any more: it does not hold back 2 waiting tasks";
    let kept = "`licences`: 5 in use by 1 attempt and 1 allocation: they keep it";
    assert_eq!(gone, [kept, free]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_by_itself() {
    let resources = [("cpu_cores".to_owned(), 1.0)].into();
    let config = Config { resources, ..Config::default() };
    let house = House::open_with(config).await;
    let body = json!({"requester_id": "r", "resources": {"cpu_cores": 1}, "lease_seconds": 1});
    assert_eq!(allocate(&house, body).await.0, 200);
    let id = crate::house::id_of(&house.submit(&task(&json!({"cpu_cores": 1}))).await);
    assert_eq!(house.ended(&id).await["status"], "completed");
    let shown = house.get("/api/v1/resources/allocations").await.body;
    assert_eq!(shown["total_items"], 0);
}
