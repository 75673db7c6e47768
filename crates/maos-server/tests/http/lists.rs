//! Lists, searches, plans and operations on many tasks.

use maos_server::config::Config;
use serde_json::{Value, json};

use crate::house::{House, id_of};

fn names(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().unwrap_or_else(|| panic!("no page: {page}"));
    items.iter().map(|item| item["name"].as_str().unwrap()).collect()
}

async fn list(house: &House, query: &str) -> Value {
    let answer = house.get(&format!("/api/v1/tasks?{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_just_submitted_is_in_the_list_and_every_filter_narrows_it() {
    let house = House::open().await;
    let submit = |name: &str, priority: &str, tags: &[&str]| {
        let body = json!({"name": name, "priority": priority, "tags": tags,
            "description": format!("the {name} of birds")});
        let house = &house;
        async move { id_of(&house.submit(&body).await) }
    };
    let one = submit("first count", "low", &["a", "b"]).await;
    assert_eq!(names(&list(&house, "").await), ["first count"], "at once");
    submit("second count", "high", &["b"]).await;
    let between =
        house.get(&format!("/api/v1/tasks/{one}")).await.body["task"]["created_at"].clone();
    submit("third sum", "high", &["a"]).await;
    assert_eq!(house.call("DELETE", &format!("/api/v1/tasks/{one}"), None).await.status, 200);
    let plan = json!({"name": "plan", "decomposition_strategy": "parallel",
        "parameters": {"items": ["left", "right"]}});
    let plan = id_of(&house.submit(&plan).await);
    let between = between.as_str().unwrap();
    for (query, expected) in [
        ("status=cancelled".to_owned(), vec!["first count"]),
        ("status=cancelled,ready&tags=b".to_owned(), vec!["second count", "first count"]),
        ("priority=high".to_owned(), vec!["third sum", "second count"]),
        ("tags=a,b".to_owned(), vec!["first count"]),
        ("tags=c".to_owned(), vec![]),
        ("search=COUNT%20birds".to_owned(), vec!["second count", "first count"]),
        ("search=thi*".to_owned(), vec!["third sum"]),
        ("search=%22%27%29%3B".to_owned(), vec![]),
        ("search=count&priority=low".to_owned(), vec!["first count"]),
        (format!("created_before={between}"), vec![]),
        (format!("created_after={between}&tags=b"), vec!["second count", "first count"]),
        ("agent_id=00000000-0000-7000-8000-000000000001".to_owned(), vec![]),
        (format!("parent_task_id={plan}"), vec!["right", "left"]),
        (format!("parent_task_id={plan}&status=cancelled"), vec![]),
        ("page_size=1&page=2&priority=high".to_owned(), vec!["second count"]),
    ] {
        let page = list(&house, &query).await;
        assert_eq!(names(&page), expected, "{query}: {page}");
        let exact = page["total_is_exact"] == true && page["warnings"].is_null();
        assert!(exact, "{query}: {page}");
        if !query.contains("page") {
            assert_eq!(page["total_items"], expected.len(), "{query}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_leads_through_all_pages_and_is_refused_elsewhere() {
    let house = House::open().await;
    for number in 0..7 {
        house.submit(&json!({"name": format!("n{number}"), "tags": ["x"]})).await;
    }
    let first = list(&house, "page_size=3&tags=x").await;
    let (mut found, mut cursor) = (Vec::new(), first["next_cursor"].clone());
    found.extend(names(&first).into_iter().map(str::to_owned));
    let mut pages = 1;
    while let Some(word) = cursor.as_str() {
        // A task that arrives meanwhile is on no later page.
        house.submit(&json!({"name": "late", "tags": ["x"]})).await;
        let page = list(&house, &format!("page_size=3&tags=x&cursor={word}")).await;
        pages += 1;
        assert_eq!((&page["page"], &page["total_items"]), (&json!(pages), &json!(7)), "{page}");
        assert_eq!(page["has_previous"], true);
        assert_eq!(page["has_next"], page["next_cursor"].is_string());
        found.extend(names(&page).into_iter().map(str::to_owned));
        cursor = page["next_cursor"].clone();
    }
    assert_eq!(found, ["n6", "n5", "n4", "n3", "n2", "n1", "n0"]);
    let word = first["next_cursor"].as_str().unwrap();
    for query in [
        format!("cursor={word}"),
        format!("tags=x&cursor={}", &word[2..]),
        "tags=x&cursor=%00".to_owned(),
        format!("tags=x&page=2&cursor={word}"),
    ] {
        let refused = house.get(&format!("/api/v1/tasks?{query}")).await;
        let code = &refused.body["error_code"];
        assert_eq!((refused.status, code), (400, &json!("MALFORMED_QUERY")), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_in_a_query_is_refused() {
    let house = House::open().await;
    for (query, code) in [
        ("status=ready,asleep", "MALFORMED_QUERY"),
        ("priority=urgent", "MALFORMED_QUERY"),
        ("parent_task_id=7", "MALFORMED_ID"),
        ("created_after=yesterday", "MALFORMED_QUERY"),
        ("page_size=0", "MALFORMED_QUERY"),
    ] {
        let refused = house.get(&format!("/api/v1/tasks?{query}")).await;
        assert_eq!((refused.status, &refused.body["error_code"]), (400, &json!(code)), "{query}");
    }
    let refused = house.get("/api/v1/agents?available_only=perhaps").await;
    assert_eq!(refused.body["details"]["parameter"], "available_only");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_documents_are_left_out_of_lists_and_named() {
    let house = House::open().await;
    let large = "y".repeat(3_000);
    let body = json!({"name": "a", "parameters": {"action": "noop", "x": large}});
    let task = house.run(&body).await;
    assert_eq!(task["result"]["x"], large);
    let small = house.run(&json!({"name": "b", "parameters": {"action": "noop", "x": 1}})).await;
    let page = list(&house, "").await;
    let [listed_small, listed] = [&page["items"][0], &page["items"][1]];
    assert_eq!(*listed_small, small);
    assert_eq!(listed["omitted"], json!(["parameters", "result"]), "{listed}");
    assert!(listed["parameters"].is_null() && listed["result"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_found_by_what_they_are_also_when_they_have_ended() {
    let house = House::open().await;
    let body = json!({"agent_type": "counter", "capabilities": ["computation", "monitoring"],
        "tags": ["blue", "left"], "name": "Abacus"});
    let made = house.call("POST", "/api/v1/agents", Some(&body)).await.body;
    let id = made["agent"]["id"].as_str().unwrap();
    let found = |query: &'static str| {
        let house = &house;
        async move {
            let page = house.get(&format!("/api/v1/agents?{query}")).await.body;
            names(&page).into_iter().map(str::to_owned).collect::<Vec<_>>()
        }
    };
    for query in [
        "agent_type=counter",
        "capabilities=monitoring,computation",
        "tags=left,blue",
        "search=abac",
        "search=counter%20blue",
        "available_only=true&tags=blue",
        "status=idle,busy&tags=blue",
    ] {
        assert_eq!(found(query).await, ["Abacus"], "{query}");
    }
    assert!(found("tags=red").await.is_empty());
    assert!(found("status=terminated").await.is_empty());
    assert_eq!(house.call("DELETE", &format!("/api/v1/agents/{id}"), None).await.status, 200);
    assert!(found("tags=blue").await.is_empty(), "it does not serve any more");
    assert_eq!(found("status=terminated").await, ["Abacus"]);
    assert_eq!(found("status=offline,terminated&search=abacus").await, ["Abacus"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_are_cancelled_retried_and_deleted_each_by_itself() {
    let house = House::open_with(Config { pools: Default::default(), ..Config::default() }).await;
    let noop = |name: &str| json!({"name": name, "parameters": {"action": "noop"}});
    let one = id_of(&house.submit(&noop("one")).await);
    let two = id_of(&house.submit(&noop("two")).await);
    let plan = json!({"name": "plan", "decomposition_strategy": "parallel",
        "parameters": {"items": ["left", "right"]}});
    let plan = house.submit(&plan).await;
    let (root, child) = (id_of(&plan), plan["task"]["subtasks"][0].as_str().unwrap().to_owned());
    let nobody = "00000000-0000-7000-8000-000000000000";
    let bulk = |operation: &'static str, ids: Value| {
        let body = json!({"operation": operation, "task_ids": ids});
        let house = &house;
        async move {
            let answer = house.call("POST", "/api/v1/tasks/bulk", Some(&body)).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            let results = answer.body["results"].as_array().unwrap();
            let codes: Vec<Value> = results.iter().map(|one| one["error_code"].clone()).collect();
            let failed = codes.iter().filter(|code| !code.is_null()).count();
            assert_eq!(answer.body["failed_operations"], failed);
            assert_eq!(answer.body["successful_operations"], codes.len() - failed);
            assert_eq!(answer.body["total_operations"], codes.len());
            Value::from(codes)
        }
    };
    let deleted = bulk("delete", json!([one, root, child, nobody])).await;
    let expected = json!(["NOT_ENDED", "NOT_ENDED", "NOT_A_ROOT", "TASK_NOT_FOUND"]);
    assert_eq!(deleted, expected);
    let cancelled = bulk("cancel", json!([one, nobody, two, root])).await;
    assert_eq!(cancelled, json!([null, "TASK_NOT_FOUND", null, null]));
    assert_eq!(bulk("cancel", json!([one])).await, json!(["ALREADY_ENDED"]));
    assert_eq!(bulk("retry", json!([two, nobody])).await, json!([null, "TASK_NOT_FOUND"]));
    assert_eq!(list(&house, "status=ready").await["items"][0]["id"], two);
    let deleted = bulk("delete", json!([one, two, root])).await;
    assert_eq!(deleted, json!([null, "NOT_ENDED", null]));
    for gone in [&one, &root, &child] {
        let answer = house.get(&format!("/api/v1/tasks/{gone}")).await;
        assert_eq!(answer.status, 404, "{}", answer.body);
        let retried = house.call("PUT", &format!("/api/v1/tasks/{gone}/retry"), None).await;
        assert_eq!(retried.status, 404, "{}", retried.body);
    }
    let page = list(&house, "").await;
    assert_eq!((names(&page), &page["total_items"]), (vec!["two"], &json!(1)));
    let refused = json!({"operation": "sell", "task_ids": []});
    let refused = house.call("POST", "/api/v1/tasks/bulk", Some(&refused)).await;
    assert_eq!((refused.status, &refused.body["error_code"]), (422, &json!("VALIDATION_FAILED")));
    // What is left is whole: the server starts again on it.
    let house = house.reopen().await;
    assert_eq!(names(&list(&house, "").await), ["two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_its_groups_its_longest_way_and_what_it_takes() {
    let house = House::open_with(Config { pools: Default::default(), ..Config::default() }).await;
    let body = json!({"name": "all", "timeout_seconds": 10,
    "resource_requirements": {"cpu_cores": 2},
    "subtasks": [
        {"name": "load", "key": "load"},
        {"name": "left", "key": "left", "depends_on": ["load"], "timeout_seconds": 5},
        {"name": "right", "key": "right", "depends_on": ["load"],
            "resource_requirements": {"cpu_cores": 0.5, "memory_mb": 64}},
        {"name": "join", "key": "join", "depends_on": ["left", "right"]},
    ]});
    let check = |plan: &Value, tasks: usize| {
        let tasks_by_id = plan["tasks"].as_object().unwrap();
        assert_eq!(tasks_by_id.len(), tasks, "{plan}");
        let name = |id: &Value| tasks_by_id[id.as_str().unwrap()]["name"].clone();
        let list = |ids: &Value| ids.as_array().unwrap().iter().map(name).collect::<Vec<_>>();
        let groups = plan["parallel_groups"].as_array().unwrap();
        let groups: Vec<Vec<Value>> = groups.iter().map(list).collect();
        assert_eq!(json!(groups), json!([["load"], ["left", "right"], ["join"]]), "{plan}");
        assert_eq!(json!(list(&plan["critical_path"])), json!(["load", "right", "join"]));
        assert_eq!(plan["estimated_duration"], 30.0);
        assert_eq!(plan["metadata"]["durations"], "timeout");
        assert_eq!(plan["resource_requirements"], json!({"cpu_cores": 2.5, "memory_mb": 64.0}));
        assert_eq!(name(&plan["root_task_id"]), "all");
    };
    let preview = house.call("POST", "/api/v1/plans/preview", Some(&body)).await;
    assert_eq!(preview.status, 200, "{}", preview.body);
    check(&preview.body, 5);
    assert_eq!(list(&house, "").await["total_items"], 0, "nothing is kept");
    let made = house.submit(&body).await;
    let plan_id = made["execution_plan_id"].as_str().unwrap();
    let root = id_of(&made);
    for id in [plan_id, &root] {
        let plan = house.get(&format!("/api/v1/plans/{id}")).await.body;
        check(&plan, 5);
        assert_eq!((&plan["id"], &plan["root_task_id"]), (&json!(plan_id), &json!(root)));
    }
    let child = made["task"]["subtasks"][0].as_str().unwrap();
    for unknown in [child, "00000000-0000-7000-8000-000000000000"] {
        let refused = house.get(&format!("/api/v1/plans/{unknown}")).await;
        let code = &refused.body["error_code"];
        assert_eq!((refused.status, code), (404, &json!("PLAN_NOT_FOUND")), "{unknown}");
    }
    let wrong = json!({"name": "a", "subtasks": [{"name": "b", "key": "b", "depends_on": ["c"]}]});
    let refused = house.call("POST", "/api/v1/plans/preview", Some(&wrong)).await;
    assert_eq!((refused.status, &refused.body["error_code"]), (422, &json!("UNKNOWN_KEY")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_plan_counts_what_its_tasks_took() {
    let house = House::open().await;
    let body = json!({"name": "p", "decomposition_strategy": "sequential",
        "parameters": {"action": "noop", "steps": ["a", "b"]}});
    let made = house.submit(&body).await;
    house.ended(&id_of(&made)).await;
    let house = house.reopen().await;
    let id = made["execution_plan_id"].as_str().unwrap();
    let plan = house.get(&format!("/api/v1/plans/{id}")).await.body;
    assert_eq!(plan["metadata"], json!({"strategy": "sequential", "durations": "measured"}));
    assert!(plan["estimated_duration"].as_f64().unwrap() < 10.0, "{plan}");
    assert_eq!(plan["critical_path"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_ended_tasks_are_kept_than_the_configuration_says() {
    let mut config = Config::default();
    config.store.keep_tasks = 3;
    let house = House::open_with(config).await;
    for number in 0..8 {
        let body = json!({"name": format!("n{number}"), "parameters": {"action": "noop"}});
        house.run(&body).await;
    }
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let page = list(&house, "").await;
        if page["total_items"] == 3 {
            assert_eq!(names(&page), ["n7", "n6", "n5"]);
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{page}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_not_known_is_refused_and_a_repeated_one_taken() {
    let house = House::open().await;
    for tags in [json!(["a", "b"]), json!(["a"])] {
        house.submit(&json!({"name": "n", "tags": tags})).await;
    }
    for list in ["tasks", "agents", "events", "messages/mailboxes", "messages"] {
        let answer = house.get(&format!("/api/v1/{list}?statuss=failed&x=1")).await;
        let body = &answer.body;
        assert_eq!((answer.status, &body["error_code"]), (422, &json!("VALIDATION_FAILED")));
        assert_eq!(
            body["details"]["fields"],
            json!({"statuss": "is not known", "x": "is not known"})
        );
        assert!(body["details"]["known"].as_array().is_some_and(|known| known.len() > 1), "{body}");
    }
    for (query, count) in [
        ("tags=a&tags=b", 1),
        ("tags=a", 2),
        ("tags=a,b", 1),
        ("", 2),
        ("status=ready&status=pending", 2),
        ("search=%6e&page_size=5", 2),
    ] {
        let page = house.get(&format!("/api/v1/tasks?{query}")).await.body;
        assert_eq!(page["total_items"], count, "{query}: {page}");
    }
    let twice = house.get("/api/v1/tasks?search=a&search=b").await;
    assert_eq!((twice.status, &twice.body["details"]["parameter"]), (400, &json!("search")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_lacks_the_newest_does_not_say_that_its_total_is_exact() {
    let house = House::open().await;
    house.submit(&json!({"name": "n"})).await;
    assert_eq!(house.get("/api/v1/tasks").await.body["total_is_exact"], true);
    let other = rusqlite::Connection::open(house.data_dir().join("store.db")).unwrap();
    // The store cannot write while somebody else does.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    house.submit(&json!({"name": "late"})).await;
    let page = house.get("/api/v1/tasks").await.body;
    assert!(page["warnings"][0].as_str().unwrap().contains("not caught up"), "{page}");
    assert_eq!(page["total_is_exact"], false, "{page}");
    other.execute_batch("ROLLBACK").unwrap();
}
