//! A worker against a server that plays it tricks: away, full, forgetful, strict.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use maos_api::client::worker::{Contact, Given, Verdict, Worker};
use maos_api::client::{Client, ClientError};
use maos_api::logs::LogLevel;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tokio::sync::{Barrier, oneshot};
use uuid::Uuid;

use crate::run;

/// What a server reads of one poll.
const BODY_BYTES_MAX: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// What the server does with a request.
enum Answer {
    Poll(Value),
    Refuse(u16, &'static str),
    /// None, over a connection that stays open.
    Silence,
}

const AWAY: Answer = Answer::Refuse(503, "SHUTTING_DOWN");

/// A server that registers everybody; what it answers the polls says `polled`, by their number.
/// The bodies of the polls are sent, without what it drops: what attempts say after their outcome.
fn server(
    mut polled: impl FnMut(usize, &Value) -> Answer + Send + 'static,
) -> (Client, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let (bodies, seen) = channel();
    thread::spawn(move || {
        let (mut polls, mut ended, mut silent) = (0, BTreeSet::new(), Vec::new());
        for stream in listener.incoming().flatten() {
            while let Some((line, body)) = request(&stream) {
                let answer = match () {
                    () if line.starts_with("DELETE") => break,
                    () if !line.contains("/poll") => write(&stream, 200, &registered()),
                    () if body.len() > BODY_BYTES_MAX => {
                        write(&stream, 413, &refusal("BODY_TOO_LARGE"))
                    }
                    () => {
                        let mut body = serde_json::from_slice(&body).unwrap();
                        polls += 1;
                        let answer = polled(polls - 1, &body);
                        if matches!(answer, Answer::Poll(_)) {
                            drop_late(&mut body, &mut ended);
                        }
                        bodies.send(body).ok();
                        match answer {
                            Answer::Poll(answer) => write(&stream, 200, &answer),
                            Answer::Refuse(status, code) => write(&stream, status, &refusal(code)),
                            Answer::Silence => {
                                silent.extend(stream.try_clone());
                                false
                            }
                        }
                    }
                };
                if !answer {
                    break;
                }
            }
        }
    });
    (client, seen)
}

fn drop_late(body: &mut Value, ended: &mut BTreeSet<String>) {
    let attempt = |entry: &Value| format!("{} {}", entry["task_id"], entry["attempt"]);
    for field in ["logs", "progress"] {
        if let Some(said) = body[field].as_array_mut() {
            said.retain(|entry| !ended.contains(&attempt(entry)));
        }
    }
    ended.extend(outcomes(body).iter().map(attempt));
}

fn request(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut first).ok().filter(|bytes| *bytes > 0)?;
    while reader.read_line(&mut line).ok()? > 0 && line != "\r\n" {
        if let Some(bytes) = line.strip_prefix("content-length: ") {
            length = bytes.trim().parse().ok()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first, body))
}

fn write(mut stream: &TcpStream, status: u16, body: &Value) -> bool {
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status} Fine\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).is_ok()
}

fn refusal(code: &str) -> Value {
    json!({"error": "no", "error_code": code, "details": {}, "request_id": "r",
        "timestamp": "2026-01-01T00:00:00Z"})
}

fn registered() -> Value {
    json!({"message": "agent created", "agent": {"id": Uuid::nil(), "name": "a", "type": "t",
        "status": "offline", "capabilities": ["c"], "current_task_id": null, "task_queue": [],
        "max_concurrent_tasks": 1, "resource_limits": {}, "configuration": {}, "metadata": {},
        "created_at": "2026-01-01T00:00:00Z", "started_at": null, "last_seen": null, "tags": [],
        "health_check_interval": 30, "heartbeat_timeout": 90, "metrics": {
            "tasks_completed": 0, "tasks_failed": 0, "total_execution_time": 0.0,
            "average_execution_time": 0.0, "cpu_usage_percent": 0.0, "memory_usage_mb": 0.0,
            "success_rate": 1.0, "last_heartbeat": null, "health_score": 1.0}}})
}

/// An answer to a poll that brings so many tasks.
fn tasks(count: u128, lease_seconds: u64) -> Answer {
    let task = |index| {
        json!({"task_id": Uuid::from_u128(index), "attempt": 1, "name": "n", "description": null,
            "parameters": {}, "metadata": {}, "tags": [], "timeout_seconds": 300,
            "remaining_ms": 300_000})
    };
    let tasks: Vec<Value> = (1..=count).map(task).collect();
    Answer::Poll(json!({"tasks": tasks, "cancel": [], "refused": [], "drain": false,
        "lease_seconds": lease_seconds, "heartbeat_seconds": 30}))
}

fn outcomes(body: &Value) -> &[Value] {
    body["outcomes"].as_array().map_or(&[], Vec::as_slice)
}

/// Does the tasks until the server has so many outcomes, then ends; those outcomes.
fn served<Fut>(
    client: Client,
    bodies: &Receiver<Value>,
    count: usize,
    work: impl Fn(Given) -> Fut + Send + Sync + 'static,
) -> (Result<(), ClientError>, Vec<Value>)
where
    Fut: Future<Output = Verdict> + Send + 'static,
{
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = Worker::new(client, "t", vec!["c".to_owned()], 10);
    let stopped = async { drop(stopped.await) };
    let serving = thread::spawn(move || run(worker.run(work, stopped, PATIENCE)));
    let (mut seen, mut stop) = (Vec::new(), Some(stop));
    while !serving.is_finished() {
        seen.extend(bodies.recv_timeout(Duration::from_millis(20)));
        if seen.iter().map(|body| outcomes(body).len()).sum::<usize>() >= count {
            drop(stop.take());
        }
    }
    seen.extend(bodies.try_iter());
    (serving.join().unwrap(), seen)
}

#[test]
fn outcomes_that_gathered_while_the_server_was_away_are_told_in_polls_that_it_reads() {
    const TASKS: usize = 6;
    let (client, bodies) = server(|poll, _| match poll {
        0 => tasks(TASKS as u128, 90),
        _ => tasks(0, 90),
    });
    let together = Arc::new(Barrier::new(TASKS));
    let (result, seen) = served(client, &bodies, TASKS, move |given: Given| {
        let together = together.clone();
        async move {
            // They end at one moment.
            together.wait().await;
            given.log(LogLevel::Info, "\u{1}".repeat(100_000));
            Verdict::Completed(to_raw_value(&"x".repeat(15_500_000)).unwrap())
        }
    });
    result.unwrap();
    let told = || seen.iter().flat_map(outcomes);
    // The last poll may come again when the worker is told to end.
    let tasks: BTreeSet<&str> = told().filter_map(|outcome| outcome["task_id"].as_str()).collect();
    assert_eq!(tasks.len(), TASKS);
    assert!(told().all(|outcome| outcome["status"] == "completed"));
}

#[test]
fn what_no_poll_can_hold_is_a_failure_for_good_that_says_so() {
    let (client, bodies) = server(|poll, _| tasks(u128::from(poll == 0), 90));
    let (result, seen) = served(client, &bodies, 1, |_| async {
        Verdict::Completed(to_raw_value(&"x".repeat(70_000_000)).unwrap())
    });
    result.unwrap();
    let outcome = seen.iter().flat_map(outcomes).next().unwrap();
    let said = outcome["error"].as_str().unwrap();
    assert!(said.contains("has 70000002 bytes, more than any server takes"), "{said}");
    assert_eq!((&outcome["status"], &outcome["permanent"]), (&json!("failed"), &json!(true)));
}

#[test]
fn lines_that_come_faster_than_they_are_told_are_left_out_and_the_log_says_so() {
    let (client, bodies) = server(|poll, _| tasks(u128::from(poll == 0), 90));
    let (result, seen) = served(client, &bodies, 1, |given: Given| async move {
        for index in 0..10_100 {
            given.log(LogLevel::Info, index.to_string());
        }
        Verdict::Completed(given.task.parameters)
    });
    result.unwrap();
    let lines = seen.iter().filter_map(|body| body["logs"].as_array()).flatten();
    let lines: BTreeSet<&str> = lines.filter_map(|line| line["line"].as_str()).collect();
    assert_eq!(lines.len(), 10_001);
    assert!(lines.contains("9999") && !lines.contains("10001"));
    assert!(lines.contains("more lines are left out here: 10000 wait for the server"));
}

fn said<'a>(seen: &'a [Value], list: &str) -> Vec<&'a Value> {
    seen.iter().filter_map(|body| body[list].as_array()).flatten().collect()
}

#[test]
fn the_end_of_a_long_log_comes_before_the_outcome() {
    let (client, bodies) = server(|poll, _| tasks(2 * u128::from(poll == 0), 90));
    let (result, seen) = served(client, &bodies, 2, |given: Given| async move {
        let long = given.task.task_id == Uuid::from_u128(1);
        for index in 0..if long { 600 } else { 1 } {
            given.log(LogLevel::Info, format!("{index} {}", "x".repeat(20_000)));
        }
        Verdict::Completed(given.task.parameters)
    });
    result.unwrap();
    assert_eq!(said(&seen, "logs").len(), 601);
    // What has ended and is not told is held.
    let mut told = 0;
    for body in seen.iter().filter(|body| !said(std::slice::from_ref(body), "logs").is_empty()) {
        told += outcomes(body).len();
        assert_eq!(body["holding"].as_array().map_or(0, Vec::len) + told, 2);
    }
}

#[test]
fn of_too_many_signs_of_progress_the_newest_are_told_before_the_outcome() {
    let (client, bodies) = server(|poll, _| tasks(u128::from(poll == 0), 90));
    let (result, seen) = served(client, &bodies, 1, |given: Given| async move {
        for index in 0..12_000 {
            given.progress.tell(None, Some(index.to_string()));
        }
        Verdict::Completed(given.task.parameters)
    });
    result.unwrap();
    let signs = said(&seen, "progress");
    assert_eq!(signs.len(), 10_000);
    let (first, last) = (&signs[0]["message"], &signs[9_999]["message"]);
    assert_eq!((first, last), (&json!("2000"), &json!("11999")));
}

#[test]
fn a_bad_sign_of_progress_is_made_a_good_one() {
    let (client, bodies) = server(|poll, _| tasks(u128::from(poll == 0), 90));
    let (result, seen) = served(client, &bodies, 1, |given: Given| async move {
        for part in [7.0, -1.0, f64::NAN, 0.5] {
            given.progress.tell(Some(part), None);
        }
        Verdict::Completed(given.task.parameters)
    });
    result.unwrap();
    let signs = seen.iter().filter_map(|body| body["progress"].as_array()).flatten();
    // The poll may come again when the worker is told to end.
    let parts: Vec<&Value> = signs.map(|sign| &sign["fraction"]).take(4).collect();
    assert_eq!(parts, [&json!(1.0), &json!(0.0), &Value::Null, &json!(0.5)]);
}

#[test]
fn a_worker_with_a_short_lease_comes_back_within_it_however_long_the_server_is_away() {
    const POLLS: usize = 12;
    let (client, bodies) = server(|poll, _| match poll {
        0 => tasks(1, 1),
        1..POLLS => AWAY,
        _ => tasks(0, 1),
    });
    let began = std::time::Instant::now();
    let (result, _) = served(client, &bodies, 1, |given: Given| async move {
        Verdict::Completed(given.task.parameters)
    });
    result.unwrap();
    // With pauses that grow without regard to the lease these are minutes.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_connection_that_dies_in_silence_is_given_up_within_the_lease() {
    let mut ended = false;
    let (client, bodies) = server(move |poll, body| {
        let first = !ended && !outcomes(body).is_empty();
        ended |= first;
        if first { Answer::Silence } else { tasks(u128::from(poll == 0), 18) }
    });
    let began = std::time::Instant::now();
    let (result, _) = served(client, &bodies, 2, |given: Given| async move {
        Verdict::Completed(given.task.parameters)
    });
    result.unwrap();
    // Six seconds of silence, and a pause.
    let took = began.elapsed();
    assert!(took > Duration::from_secs(5) && took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn lines_alone_hold_up_no_worker_that_is_told_to_end() {
    let (stop, stopped) = oneshot::channel::<()>();
    let (mut ended, mut stop) = (false, Some(stop));
    let (client, _bodies) = server(move |poll, body| {
        let has_lines = body["logs"].as_array().is_some_and(|lines| !lines.is_empty());
        if ended && has_lines {
            drop(stop.take());
            return AWAY;
        }
        ended |= !outcomes(body).is_empty();
        tasks(u128::from(poll == 0), 90)
    });
    let worker = Worker::new(client, "t", vec!["c".to_owned()], 1);
    let work = |given: Given| async move {
        // Something goes on to say what nobody takes.
        let signs = given.progress.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                signs.log(LogLevel::Info, "still there");
            }
        });
        Verdict::Completed(given.task.parameters)
    };
    let began = std::time::Instant::now();
    run(worker.run(work, async { drop(stopped.await) }, PATIENCE)).unwrap();
    let took = began.elapsed();
    assert!(took > Duration::from_secs(4) && took < PATIENCE / 2, "{took:?}");
}

#[test]
fn a_worker_says_how_it_stands_with_its_server() {
    let (client, _bodies) = server(|poll, _| match poll {
        0 => AWAY,
        1 => Answer::Refuse(409, "AGENT_LOST"),
        2 => AWAY,
        3 => tasks(0, 90),
        _ => Answer::Refuse(409, "AGENT_ENDED"),
    });
    let told = run(async {
        let mut worker = Worker::new(client, "t", vec!["c".to_owned()], 1);
        let mut contacts = worker.contacts();
        let work = |given: Given| async move { Verdict::Completed(given.task.parameters) };
        worker.run(work, std::future::pending(), PATIENCE).await.unwrap_err();
        let mut told = Vec::new();
        while let Some(contact) = contacts.recv().await {
            told.push(match contact {
                Contact::Serving => "serving",
                Contact::Away(_) => "away",
                Contact::Back => "back",
                Contact::Lost => "lost",
            });
        }
        told
    });
    assert_eq!(told, ["serving", "away", "back", "lost", "away", "back"]);
}
