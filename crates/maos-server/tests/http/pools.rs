//! Pools of agents: they grow with what waits, shrink when idle, and say why.

use std::time::{Duration, Instant};

use maos_server::config::Config;
use serde_json::{Value, json};

use crate::house::{House, id_of};

pub(crate) fn config(min: u32, max: u32) -> Config {
    let mut config = Config::default();
    let mut pool = config.pools["general_purpose"].clone();
    (pool.slots, pool.queue_depth, pool.min, pool.max) = (1, 1, min, max);
    (pool.wait_seconds, pool.idle_seconds, pool.cooldown_seconds) = (1, 1, 0);
    config.pools = [("small".to_owned(), pool)].into();
    config
}

async fn pool(house: &House) -> Value {
    house.get("/api/v1/pools/small").await.body["pool"].clone()
}

/// The pool, once it has so many agents.
async fn grown_to(house: &House, agents: u32) -> Value {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let shown = pool(house).await;
        if shown["agents"] == agents {
            return shown;
        }
        assert!(Instant::now() < until, "{agents} agents are wanted: {shown}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_nobody_starts_somebody_and_goes_back_to_nobody() {
    let house = House::open_with(config(0, 2)).await;
    assert_eq!(pool(&house).await["agents"], 0);
    let mut events = house.events("?type=pool", None).await;
    let task = json!({"name": "n", "parameters": {"action": "noop"}});
    assert_eq!(house.run(&task).await["status"], "completed");
    let (_, grown) = events.next().await.unwrap();
    assert_eq!(
        (&grown["pool"], &grown["from"], &grown["to"]),
        (&json!("small"), &json!(0), &json!(1))
    );
    assert!(grown["reason"].as_str().unwrap().contains("there is no agent"), "{grown}");
    let shrunk = grown_to(&house, 0).await;
    let reason = shrunk["last_decision"]["reason"].as_str().unwrap();
    assert!(reason.contains("nothing to do"), "{shrunk}");
    let (_, told) = events.next().await.unwrap();
    assert_eq!(told["reason"], json!(reason));
    let house = house.reopen().await;
    let kept = house.get("/api/v1/pools").await.body;
    assert!(kept["items"].as_array().unwrap().iter().all(|pool| pool["name"] != "small"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_begins_to_wait_just_behind_a_look_at_pools_is_seen() {
    let house = House::open_with(config(0, 2)).await;
    for _ in 0..3 {
        // One that no pool can do has them looked at, and nothing is to be done.
        let nobody = json!({"name": "n", "required_capabilities": ["flying"]});
        house.submit(&nobody).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        // Nothing else happens meanwhile that might call for a look.
        let task = json!({"name": "n", "parameters": {"action": "noop"}});
        let answer = house.call("POST", "/api/v1/tasks?wait_seconds=10", Some(&task)).await;
        assert_eq!(answer.body["task"]["status"], "completed", "{}", answer.body);
        grown_to(&house, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_those_that_are_always_there_is_replaced_when_somebody_ends_it() {
    let house = House::open_with(config(1, 2)).await;
    let of_pool = "/api/v1/agents?search=small&status=idle";
    let first = house.get(of_pool).await.body["items"][0]["id"].clone();
    let path = format!("/api/v1/agents/{}", first.as_str().unwrap());
    assert_eq!(house.call("DELETE", &path, None).await.status, 200);
    grown_to(&house, 1).await;
    let second = house.get(of_pool).await.body["items"][0]["id"].clone();
    assert!(second.is_string() && second != first, "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_makes_a_pool_grow_to_its_bound_and_demand_tells_more() {
    let house = House::open_with(config(1, 3)).await;
    let limit = json!({"running_max": 0});
    house.call("PUT", "/api/v1/keys/concurrency/held", Some(&limit)).await;
    // What is held back by its key would not start with more agents.
    let held = json!({"name": "h", "concurrency_key": "held", "parameters": {"action": "noop"}});
    for _ in 0..5 {
        house.submit(&held).await;
    }
    assert_eq!(house.get("/api/v1/pools/small/demand").await.body, json!(1));
    // Nobody can have so much: these wait, and agents do nothing about that either.
    let big = json!({"resource_type": "custom", "name": "seats", "capacity": 1});
    house.call("POST", "/api/v1/resources", Some(&big)).await;
    let taken = json!({"requester_id": "r", "resources": {"seats": 1}});
    house.call("POST", "/api/v1/resources/allocate", Some(&taken)).await;
    let seats = json!({"name": "s", "resource_requirements": {"seats": 1},
        "parameters": {"action": "noop"}});
    let waits = id_of(&house.submit(&seats).await);
    assert_eq!(house.get("/api/v1/pools/small/demand").await.body, json!(1));
    house.call("DELETE", "/api/v1/resources/allocations/r", None).await;
    assert_eq!(house.ended(&waits).await["status"], "completed");
    // Without an agent all of it waits for one.
    let none = json!({"min": 0, "max": 0});
    let changed = house.call("PUT", "/api/v1/pools/small", Some(&none)).await.body;
    assert_eq!(changed["pool"]["max"], 0);
    grown_to(&house, 0).await;
    for _ in 0..9 {
        house.submit(&json!({"name": "n", "parameters": {"action": "noop"}})).await;
    }
    assert_eq!(house.get("/api/v1/pools/small/demand").await.body, json!(9));
    house.call("PUT", "/api/v1/pools/small", Some(&json!({"min": 2, "max": 3}))).await;
    grown_to(&house, 2).await;
    let until = Instant::now() + Duration::from_secs(30);
    while pool(&house).await["waiting"] != json!(0) {
        assert!(Instant::now() < until, "it is all done in the end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_grows_by_what_there_is_room_for_and_names_the_bound_that_holds_it() {
    let mut config = config(0, 6);
    config.api.max_agents = 3;
    config.pools.get_mut("small").unwrap().capabilities.push("communication".to_owned());
    let house = House::open_with(config).await;
    let other = json!({"agent_type": "other", "capabilities": ["file_processing"]});
    house.call("POST", "/api/v1/agents", Some(&other)).await;
    let mut events = house.events("?type=pool", None).await;
    let listens = json!({"name": "l", "parameters": {"action": "message.receive",
        "mailbox": "topic:t", "wait_seconds": 60}});
    let listens: Vec<&Value> = vec![&listens; 5];
    let answer = house.call("POST", "/api/v1/tasks/batch", Some(&json!(listens))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    grown_to(&house, 2).await;
    let (_, grown) = events.next().await.unwrap();
    assert_eq!((&grown["from"], &grown["to"]), (&json!(0), &json!(2)), "{grown}");
    let reason = grown["reason"].as_str().unwrap();
    assert!(reason.contains("`api.max_agents` is 3, and there are 1 agents"), "{reason}");
    let (_, held) = events.next().await.unwrap();
    assert_eq!((&held["from"], &held["to"]), (&json!(2), &json!(2)), "{held}");
    let reason = held["reason"].as_str().unwrap();
    assert!(reason.contains("none can start: `api.max_agents` is 3, and there are"), "{reason}");
    assert_eq!(pool(&house).await["last_decision"]["reason"], held["reason"]);
    let ready = house.get("/api/v1/tasks?status=ready").await.body["items"][0].clone();
    let path = format!("/api/v1/tasks/{}/explain", ready["id"].as_str().unwrap());
    let why = house.get(&path).await.body;
    let blockers = why["blockers"].as_array().unwrap();
    let bound = blockers.iter().find(|blocker| blocker["kind"] == "agents_bound").expect("it is");
    let message = bound["message"].as_str().unwrap();
    assert!(message.contains("`small`: `api.max_agents` is 3, and there are 3 agents"), "{why}");
    assert!(bound["unblock"].as_str().unwrap().contains("a higher `api.max_agents`"), "{why}");
    house.call("PUT", "/api/v1/pools/small", Some(&json!({"max": 2}))).await;
    let why = house.get(&path).await.body;
    assert!(!why.to_string().contains("agents_bound"), "more would not help: {why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pool_cannot_be_is_refused_by_name() {
    let house = House::open_with(config(1, 3)).await;
    for (body, field) in [
        (json!({"min": 4}), "min"),
        (json!({"max": 101}), "max"),
        (json!({"slots": 0}), "slots"),
        (json!({}), "body"),
    ] {
        let answer = house.call("PUT", "/api/v1/pools/small", Some(&body)).await;
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert!(answer.body["details"]["fields"][field].is_string(), "{}", answer.body);
    }
    for path in ["/api/v1/pools/none", "/api/v1/pools/none/demand"] {
        let answer = house.get(path).await;
        assert_eq!((answer.status, &answer.body["error_code"]), (404, &json!("POOL_NOT_FOUND")));
    }
    let slots = json!({"slots": 7, "max": 2});
    let changed = house.call("PUT", "/api/v1/pools/small", Some(&slots)).await.body;
    assert_eq!((&changed["pool"]["slots"], &changed["pool"]["min"]), (&json!(7), &json!(1)));
    let agents = house.get("/api/v1/agents").await.body;
    assert_eq!(agents["items"][0]["max_concurrent_tasks"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_runs_no_more_at_once_than_it_may_and_says_so() {
    let mut config = Config::default();
    config.api.max_concurrent_tasks = 1;
    let house = House::open_with(config).await;
    let listens = json!({"name": "l", "parameters": {"action": "message.receive",
        "mailbox": "topic:t", "wait_seconds": 60}});
    let first = id_of(&house.submit(&listens).await);
    let second = id_of(&house.submit(&listens).await);
    let shown = house.get(&format!("/api/v1/tasks/{second}")).await.body;
    assert_eq!(shown["task"]["status"], "ready");
    let why = house.get(&format!("/api/v1/tasks/{second}/explain")).await.body;
    assert!(
        why["blockers"][0]["unblock"].as_str().unwrap().contains("max_concurrent_tasks"),
        "{why}"
    );
    let message = json!({"to": {"topic": "t"}, "body": 1});
    house.call("POST", "/api/v1/messages", Some(&message)).await;
    assert_eq!(house.ended(&first).await["status"], "completed");
    assert_eq!(house.ended(&second).await["status"], "completed");
}
