//! Servers that are killed, stopped, or started twice.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::house::{GONE_WITHIN, House, PATIENCE, call_at, command, eventually, folder, marked};

fn rounds() -> u32 {
    if std::env::var_os("MAOS_FULL").is_some() { 50 } else { 4 }
}

/// Submits from several threads until the server is gone; what was acknowledged is in
/// `acknowledged`.
fn load(house: &House, acknowledged: &Arc<Mutex<BTreeSet<String>>>, stop: &Arc<AtomicBool>) {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let body =
                    json!({"name": "a", "parameters": {"action": "noop", "x": "y"}}).to_string();
                while !stop.load(Ordering::Relaxed) {
                    let Some((status, answer)) = house.try_call("POST", "/api/v1/tasks", &body)
                    else {
                        return;
                    };
                    assert_eq!(status, 200, "{answer}");
                    let id = answer["task"]["id"].as_str().unwrap().to_owned();
                    acknowledged.lock().unwrap().insert(id);
                }
            });
        }
    });
}

/// A program with a child in a session of its own; what it starts carries its mark.
const SLEEPER: &str = "setsid sh -c 'sleep 300' $MARK & exec sh -c 'sleep 300' $MARK";

/// Has a program run, with what is left of the one before ended.
fn sleep_on(house: &House, before: Option<&String>, mark: &str) -> String {
    if let Some(before) = before {
        house.call("DELETE", &format!("/api/v1/tasks/{before}"), "");
    }
    let body = json!({"name": "sleeper", "required_capabilities": ["sleeper"]});
    let id = house.submit(&body);
    eventually("the program and its child", PATIENCE, || marked(mark).len() >= 2);
    id
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_left_however_often_the_server_is_killed() {
    let mark = "mark-of-those-whose-server-is-killed";
    let folder = folder(&[("sleeper", &SLEEPER.replace("$MARK", mark))]);
    let acknowledged: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let mut sleepers: Vec<String> = Vec::new();
    for round in 0..rounds() {
        let house = House::open(folder.path());
        sleepers.push(sleep_on(&house, sleepers.last(), mark));
        let before = acknowledged.lock().unwrap().len();
        // Another moment in each round: after this many more tasks.
        let wanted = before + 1 + usize::try_from(round * 37 % 200).unwrap();
        let pid = rustix::process::Pid::from_child(&house.child);
        let stop = Arc::new(AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| load(&house, &acknowledged, &stop));
            eventually("enough tasks", PATIENCE, || acknowledged.lock().unwrap().len() >= wanted);
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            stop.store(true, Ordering::Relaxed);
        });
        eventually("the end of all children", GONE_WITHIN, || marked(mark).is_empty());
    }
    let house = House::open(folder.path());
    for sleeper in &sleepers {
        house.try_call("DELETE", &format!("/api/v1/tasks/{sleeper}"), "");
        assert_eq!(house.ended(sleeper)["status"], "cancelled", "{sleeper}");
    }
    let acknowledged = acknowledged.lock().unwrap();
    for id in acknowledged.iter() {
        assert_eq!(house.ended(id)["status"], "completed", "{id}");
    }
    let metrics = house.call("GET", "/api/v1/system/metrics", "")["orchestrator"].clone();
    // What was submitted but not acknowledged may be there as well; nothing completes twice.
    let count = |figure: &str| metrics[figure].as_u64().unwrap();
    let submitted = count("tasks_submitted") - sleepers.len() as u64;
    assert_eq!(count("tasks_completed"), submitted, "{metrics}");
    assert!(submitted >= acknowledged.len() as u64);
}

#[test]
fn a_second_server_on_a_data_directory_is_refused() {
    let folder = folder(&[]);
    let _first = House::open(folder.path());
    let second = command(folder.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    let words = String::from_utf8_lossy(&second.stderr);
    assert!(words.contains("another process uses the data directory"), "{words}");
}

#[test]
fn a_signal_ends_the_server_in_order() {
    let folder = folder(&[("slow", "sleep 600")]);
    let mut house = House::open(folder.path());
    let waiting = house.submit(&json!({"name": "waits", "required_capabilities": ["nobody"]}));
    let pid = rustix::process::Pid::from_child(&house.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut code = None;
    eventually("the end of the server", PATIENCE, || {
        code = house.child.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.unwrap().code(), Some(0));
    let house = House::open(folder.path());
    assert_eq!(house.task(&waiting)["status"], "ready");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = folder(&[("slow", "sleep 600")]);
    let mut house = House::open(folder.path());
    let body = json!({"name": "slow", "required_capabilities": ["slow"]});
    let id = house.submit(&body);
    eventually("the start", PATIENCE, || house.task(&id)["status"] == "running");
    let pid = rustix::process::Pid::from_child(&house.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    eventually("the refusal of new work", PATIENCE, || {
        let answer = house.try_call("POST", "/api/v1/tasks", r#"{"name":"late"}"#);
        answer.is_none_or(|(status, _)| status == 503)
    });
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut code = None;
    // Far below the grace time of ten seconds that the running program would have.
    eventually("the end of the server", Duration::from_secs(5), || {
        code = house.child.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.unwrap().code(), Some(2));
    let data = house.folder.join("data").display().to_string();
    eventually("the end of all below it", PATIENCE, || crate::house::marked(&data).is_empty());
}

#[test]
fn a_full_disk_stops_intake_with_a_clear_error_and_loses_nothing() {
    let folder = folder(&[]);
    let mut house = House::open_on_a_disk_that_may_fill(folder.path());
    let pid = rustix::process::Pid::from_child(&house.child);
    let limit = |bytes: Option<u64>| {
        let limit = rustix::process::Rlimit { current: bytes, maximum: None };
        rustix::process::prlimit(Some(pid), rustix::process::Resource::Fsize, limit).unwrap();
    };
    let body = json!({"name": "waits", "required_capabilities": ["nobody"],
        "parameters": {"text": "x".repeat(700)}});
    let submit = || house.try_call("POST", "/api/v1/tasks", &body.to_string()).unwrap();
    let (_, first) = submit();
    let mut acknowledged = vec![first["task"]["id"].as_str().unwrap().to_owned()];
    // No file may grow beyond this: as if there was no space left.
    limit(Some(256 << 10));
    let refusal = loop {
        let (status, answer) = submit();
        match status {
            200 => acknowledged.push(answer["task"]["id"].as_str().unwrap().to_owned()),
            _ => break (status, answer),
        }
        assert!(acknowledged.len() < 10_000, "the limit was never met");
    };
    assert_eq!((refusal.0, &refusal.1["error_code"]), (503, &json!("STORAGE_UNAVAILABLE")));
    let cause = refusal.1["details"]["cause"].as_str().unwrap();
    let error = refusal.1["error"].as_str().unwrap();
    let (what, hint) = error.split_once("\nhint: ").expect(error);
    assert!(what.ends_with(cause) && hint.contains("same `Idempotency-Key`"), "{error}");
    let many = json!([body, body]).to_string();
    assert_eq!(house.try_call("POST", "/api/v1/tasks/batch", &many).unwrap().0, 503);
    let (_, health) = house.try_call("GET", "/health/detailed", "").unwrap();
    let manager = health["components"]["state_manager"]["status"].as_str().unwrap();
    assert_eq!(manager, format!("the journal cannot be written: {cause}"));
    assert_eq!(house.try_call("GET", "/health", "").unwrap().0, 200);
    assert_eq!(house.task(&acknowledged[0])["status"], "ready", "what is durable is shown");
    limit(None);
    eventually("space again", PATIENCE, || {
        let (status, answer) = submit();
        if status == 200 {
            acknowledged.push(answer["task"]["id"].as_str().unwrap().to_owned());
        }
        status == 200
    });
    house.kill();
    let house = House::open(folder.path());
    for id in &acknowledged {
        assert_eq!(house.task(id)["status"], "ready", "{id}");
    }
}

#[test]
fn no_acknowledged_message_is_lost_when_the_server_is_killed() {
    let folder = folder(&[]);
    let mut house = House::open(folder.path());
    let body = |n: u64| json!({"to": {"topic": "line"}, "body": n}).to_string();
    let (told, acknowledged) = std::sync::mpsc::channel();
    let address = house.address;
    let killed = std::thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0.. {
                match call_at(address, "POST", "/api/v1/messages", &body(n)) {
                    Some((200, receipt)) => told.send((n, receipt["offset"].clone())).unwrap(),
                    Some((status, answer)) => panic!("{status}: {answer}"),
                    None => return,
                }
            }
        });
        let before: Vec<_> = acknowledged.iter().take(200).collect();
        house.kill();
        before.into_iter().chain(acknowledged.iter()).collect::<Vec<_>>()
    });
    let house = House::open(folder.path());
    for (n, offset) in &killed {
        assert_eq!(*offset, json!(n), "one sender's messages are in its order");
    }
    let mut found = 0;
    loop {
        let path = format!("/api/v1/messages?mailbox=topic:line&limit=1000&offset={found}");
        let page = house.call("GET", &path, "");
        let items = page["items"].as_array().unwrap();
        for item in items {
            assert_eq!((&item["offset"], &item["body"]), (&json!(found), &json!(found)));
            found += 1;
        }
        if items.is_empty() {
            break;
        }
    }
    assert!(found >= killed.len(), "{found} of {} are there", killed.len());
}
