//! The client against servers that misbehave.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

mod operations;
#[cfg(feature = "tls")]
mod tls;
mod workers;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use maos_api::client::{Client, ClientError, Patience, Retries};
use serde_json::json;

const HEALTH: &str = r#"{"status":"healthy","timestamp":"2026-01-01T00:00:00Z","service":"maos",
    "version":"1","uptime_seconds":1,"newer":true}"#;

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A server that lets `serve` have its connections one after another; how many there were is sent.
fn server(mut serve: impl FnMut(&TcpStream, usize) + Send + 'static) -> (Client, Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let (connections, counted) = channel();
    thread::spawn(move || {
        for (index, stream) in listener.incoming().flatten().enumerate() {
            connections.send(index).ok();
            serve(&stream, index);
        }
    });
    (client, counted)
}

fn read_request(stream: &TcpStream) -> bool {
    let mut lines = BufReader::new(stream).lines();
    lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).count() > 0
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_connection_is_used_again_and_the_answer_keeps_its_bytes() {
    let (client, connections) = server(|mut stream, _| {
        while read_request(stream) {
            stream.write_all(answer(HEALTH).as_bytes()).unwrap();
        }
    });
    run(async {
        for _ in 0..3 {
            let health = client.health().await.unwrap();
            assert_eq!((health.version.as_str(), &health.raw[..]), ("1", HEALTH.as_bytes()));
        }
    });
    assert_eq!(connections.try_iter().count(), 1);
}

#[test]
fn a_connection_that_the_server_closed_meanwhile_is_replaced() {
    let (client, connections) = server(|mut stream, _| {
        read_request(stream);
        // Not announced: the client learns of it when it wants to use the connection again.
        stream.write_all(answer(HEALTH).as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    run(async {
        for _ in 0..5 {
            client.health().await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(connections.try_iter().count(), 5);
}

#[test]
fn a_request_that_may_have_arrived_is_not_sent_again() {
    let (client, connections) = server(|mut stream, _| {
        read_request(stream);
        stream.write_all(&answer(HEALTH).as_bytes()[..60]).unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let error = run(client.create_agent(&json!({}))).unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error:?}");
    assert_eq!(connections.try_iter().count(), 1);
}

#[test]
fn a_read_waits_for_a_server_that_starts_and_a_change_does_not() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let patience = Patience { refused: Duration::from_secs(60), ..Patience::default() };
    let client = Client::new(&format!("http://{address}")).unwrap();
    let client = client.with_retries(Retries::NONE).with_patience(patience);
    let error = run(client.create_agent(&json!({}))).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    let start = async {
        let listener = TcpListener::bind(address).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            read_request(&stream);
            stream.write_all(answer(HEALTH).as_bytes()).unwrap();
        });
    };
    // What is named first is begun first, and finds nobody.
    let (health, ()) = run(async { tokio::join!(biased; client.health(), start) });
    assert_eq!(health.unwrap().version, "1");
}

#[test]
fn silence_has_an_end() {
    let (client, _connections) = server(|mut stream, _| {
        // Until the client hangs up.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let patience = Patience { answer: Duration::from_millis(50), ..Patience::default() };
    let error = run(client.with_patience(patience).health()).unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error:?}");
}

#[test]
fn an_error_that_is_not_of_the_contract_is_told_apart() {
    let (client, _connections) = server(|mut stream, _| {
        read_request(stream);
        let page = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\n\r\n<html>";
        stream.write_all(page.as_bytes()).unwrap();
    });
    let error = run(client.health()).unwrap_err();
    assert!(matches!(error, ClientError::NotTheContract { status: 502, .. }), "{error:?}");
}

const BUSY: &str = r#"{"error":"full","error_code":"QUEUE_FULL","details":{},
    "timestamp":"2026-01-01T00:00:00Z","request_id":"r"}"#;
const ACCEPTED: &str = r#"{"task":{"id":"01900000-0000-7000-8000-000000000001","name":"n",
    "description":null,"status":"ready","priority":"medium","agent_id":null,
    "parent_task_id":null,"dependencies":[],"subtasks":[],"parameters":{},"result":null,
    "error":null,"created_at":"2026-01-01T00:00:00Z","started_at":null,"completed_at":null,
    "updated_at":"2026-01-01T00:00:00Z","timeout_seconds":300,"retry_count":0,"max_retries":3,
    "resource_requirements":{},"tags":[],"metadata":{}},
    "execution_plan_id":"01900000-0000-7000-8000-000000000002","message":"task accepted"}"#;

fn quick(client: Client) -> Client {
    let pause = Duration::from_millis(1);
    client.with_retries(Retries { more_max: 5, pause_first: pause, pause_max: pause })
}

/// The headers of a request, and its body read away.
fn heads(stream: &TcpStream) -> Vec<String> {
    let mut reader = BufReader::new(stream);
    let heads: Vec<String> =
        reader.by_ref().lines().map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
    let length = heads.iter().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    heads
}

#[test]
fn a_submission_is_sent_again_under_the_same_key_until_it_is_taken() {
    let (keys, seen) = channel();
    let (client, _connections) = server(move |mut stream, index| {
        let heads = heads(stream);
        let key = heads.iter().find_map(|line| line.strip_prefix("idempotency-key: "));
        keys.send(key.unwrap().to_owned()).ok();
        match index {
            // Broken off in the middle, then refused for now, then taken.
            0 => stream.write_all(&answer(ACCEPTED).as_bytes()[..60]).unwrap(),
            1 => {
                let busy = answer(BUSY).replace("200 OK", "429 Too Many Requests");
                stream.write_all(busy.as_bytes()).unwrap();
            }
            _ => stream.write_all(answer(ACCEPTED).as_bytes()).unwrap(),
        }
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let client = quick(client);
    let accepted = run(client.submit(&json!({}), None)).unwrap();
    assert_eq!(accepted.task.name, "n");
    let keys: Vec<String> = seen.try_iter().collect();
    assert!(keys.len() == 3 && keys.iter().all(|key| key == &keys[0] && key.len() == 32));
}

#[test]
fn what_stays_refused_is_told_in_the_end() {
    let (client, connections) = server(|mut stream, _| {
        heads(stream);
        let busy = answer(BUSY).replace("200 OK", "429 Too Many Requests");
        stream.write_all(busy.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let error = run(quick(client).create_agent(&json!({}))).unwrap_err();
    assert!(matches!(error, ClientError::Api { status: 429, .. }), "{error:?}");
    assert_eq!(connections.try_iter().count(), 6);
}

#[test]
fn a_request_comes_again_no_sooner_than_the_server_asks_for() {
    let (client, _connections) = server(|mut stream, index| {
        heads(stream);
        let busy = answer(BUSY).replace("200 OK", "429 Too Many Requests\r\nretry-after: 1");
        let said = if index == 0 { busy } else { answer(HEALTH) };
        stream.write_all(said.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let began = std::time::Instant::now();
    run(quick(client).health()).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[cfg(not(feature = "tls"))]
#[test]
fn https_says_which_feature_it_needs() {
    let error = Client::new("https://maos.test").unwrap_err();
    assert!(matches!(error, ClientError::BadUrl { .. }), "{error:?}");
    assert!(error.to_string().contains("needs the feature `tls` of `maos-api`"), "{error}");
}
