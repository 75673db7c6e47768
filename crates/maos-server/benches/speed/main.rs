//! How fast the server is, everything on one machine: no-op tasks of about 200 bytes of parameters,
//! every commit synced. Prints one table, or JSON with `--json`. Nothing here asserts a time.

mod checkpoint;
mod ended;
mod lists;
mod sustained;

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use maos_api::client::worker::{Verdict, Worker};
use maos_core::command::Command;
use maos_core::ids::{PlanId, TaskId};
use maos_core::node::{Answer, Echo, Query};
use maos_core::payload::Payload;
use maos_core::spec::{Collect, Demand, Names, Plan, PlanTask, TaskSpec, Work};
use maos_server::config::Config;
use maos_server::service::{Server, Setup, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 64;
const BATCH: usize = 500;

struct Row {
    name: Cow<'static, str>,
    figure: f64,
    unit: &'static str,
}

fn main() {
    maos_server::process::use_huge_pages(false);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let rows = runtime.expect("a runtime").block_on(measure());
    let mut out = std::io::stdout().lock();
    let json = std::env::args().any(|argument| argument == "--json");
    for row in rows {
        let line = if json {
            format!(r#"{{"name":"{}","figure":{:.2},"unit":"{}"}}"#, row.name, row.figure, row.unit)
        } else {
            format!("{:<58} {:>12.2} {}", row.name, row.figure, row.unit)
        };
        writeln!(out, "{line}").expect("standard output");
    }
}

async fn measure() -> Vec<Row> {
    let only = std::env::var("ONLY").unwrap_or_default();
    // These are asked for by name: they are no measure of speed, and take minutes.
    let extra = |name: &str| ["checkpoint", "lists", "sustained"].contains(&name);
    let all = |name: &str| only.is_empty() && !extra(name);
    let wanted = |name: &str| all(name) || only.split(',').any(|part| part == name);
    let mut rows = Vec::new();
    if wanted("rest") {
        rows.push(at_rest().await);
    }
    if wanted("batches") {
        rows.extend(in_batches().await);
    }
    if wanted("http") {
        rows.extend(over_http().await);
    }
    if wanted("plans") {
        rows.extend(of_plans().await);
    }
    if wanted("fan") {
        rows.push(fan_out().await);
    }
    if wanted("workers") {
        rows.extend(with_a_worker().await);
    }
    if wanted("queue") {
        rows.extend(a_million_queued().await);
    }
    if wanted("checkpoint") {
        rows.extend(checkpoint::measure().await);
    }
    if wanted("lists") {
        rows.extend(lists::measure().await);
    }
    if wanted("sustained") {
        rows.extend(sustained::measure().await);
    }
    rows
}

async fn at_rest() -> Row {
    let folder = tempfile::tempdir().expect("a folder");
    let server = open(folder.path(), Config::default()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let figure = resident_mb();
    server.stop(Duration::ZERO).await;
    Row { name: "memory at rest".into(), figure, unit: "MB" }
}

/// Through driver and SQLite journal, in process, in batches.
async fn in_batches() -> Vec<Row> {
    let folder = tempfile::tempdir().expect("a folder");
    let server = open(folder.path(), Config::default()).await;
    let engine = server.engine().clone();
    let tasks = 1_000_000_u64;
    let before = Instant::now();
    let feeders_count = number("FEEDERS", 16);
    let feeders = (0..feeders_count).map(|_| {
        let engine = engine.clone();
        tokio::spawn(async move {
            for _ in 0..tasks / feeders_count / BATCH as u64 {
                let commands = (0..BATCH).map(|_| submission("noop")).collect();
                let answers = engine.run_all(commands, Echo::Id).await.expect("a running engine");
                assert!(answers.iter().all(Result::is_ok), "every submission is accepted");
            }
        })
    });
    for feeder in feeders.collect::<Vec<_>>() {
        feeder.await.expect("a feeder");
    }
    completed(&server, tasks).await;
    let seconds = before.elapsed().as_secs_f64();
    let drained = drain(&server).await;
    server.stop(Duration::ZERO).await;
    vec![
        Row {
            name: "lives in process, batches of 500".into(),
            figure: tasks as f64 / seconds,
            unit: "tasks/s",
        },
        Row {
            name: "the same with the store caught up".into(),
            figure: tasks as f64 / (seconds + drained),
            unit: "tasks/s",
        },
    ]
}

/// One by one over HTTP, to completion; then one at a time on an idle server.
async fn over_http() -> Vec<Row> {
    let house = House::open().await;
    let body = body();
    let left = Arc::new(AtomicU64::new(200_000));
    let tasks = left.load(Ordering::Relaxed);
    let before = Instant::now();
    let clients = (0..CONNECTIONS).map(|_| {
        let (left, body) = (left.clone(), body.clone());
        tokio::spawn(async move {
            let mut client = Client::connect(house.address).await;
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
            {
                client.post("/api/v1/tasks", &body).await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("a client");
    }
    completed(&house.server, tasks).await;
    let seconds = before.elapsed().as_secs_f64();
    drain(&house.server).await;

    let (times, waited) = idle_latency(house.address, &body).await;
    let folder = house.close().await;
    vec![
        Row {
            name: "over HTTP one by one, 64 connections".into(),
            figure: tasks as f64 / seconds,
            unit: "tasks/s",
        },
        Row {
            name: "idle latency, a submission that waits for its end, p50".into(),
            figure: waited[250],
            unit: "ms",
        },
        Row {
            name: "idle latency, a submission that waits for its end, p99".into(),
            figure: waited[495],
            unit: "ms",
        },
        Row {
            name: "idle latency, submitted and then waited for, p50".into(),
            figure: times[250],
            unit: "ms",
        },
        Row {
            name: "idle latency, submitted and then waited for, p99".into(),
            figure: times[495],
            unit: "ms",
        },
        Row {
            name: "synced SQLite commit of 512 bytes, p50".into(),
            figure: commit_floor(folder.path()),
            unit: "ms",
        },
    ]
}

/// Milliseconds from a submission to its known end, sorted: in two requests, then in one.
async fn idle_latency(address: SocketAddr, body: &[u8]) -> (Vec<f64>, Vec<f64>) {
    let mut client = Client::connect(address).await;
    let (mut times, mut waited) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        let before = Instant::now();
        let answer = client.post("/api/v1/tasks", body).await;
        let id = id_in(&answer);
        client.get(&format!("/api/v1/tasks/{id}?wait_seconds=10")).await;
        times.push(before.elapsed().as_secs_f64() * 1e3);
    }
    for _ in 0..500 {
        let before = Instant::now();
        client.post("/api/v1/tasks?wait_seconds=10", body).await;
        waited.push(before.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    waited.sort_by(f64::total_cmp);
    (times, waited)
}

/// Bodies of `POST /tasks/batch` over HTTP; chains of steps.
async fn of_plans() -> Vec<Row> {
    let house = House::open().await;
    let one = String::from_utf8(body()).expect("JSON");
    let batch = format!("[{}]", vec![one; 500].join(","));
    let batches =
        per_second(&house.server, house.address, "/api/v1/tasks/batch", &batch, (400, 500)).await;
    drain(&house.server).await;
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let steps = serde_json::json!({"name": "chain", "decomposition_strategy": "sequential",
        "parameters": {"action": "noop", "steps": names}});
    let chains = format!("[{}]", vec![steps.to_string(); 100].join(","));
    let chains =
        per_second(&house.server, house.address, "/api/v1/tasks/batch", &chains, (20, 1_100)).await;
    drain(&house.server).await;
    house.close().await;
    vec![
        Row { name: "over HTTP in batches of 500".into(), figure: batches, unit: "tasks/s" },
        // The chain itself is a task as well, and no step.
        Row { name: "2,000 chains of 10 steps".into(), figure: chains / 1.1, unit: "steps/s" },
    ]
}

/// One task into a thousand and their join, one after another.
async fn fan_out() -> Row {
    let house = House::open().await;
    let rounds = usize::try_from(number("ROUNDS", 50)).expect("a number");
    let mut client = Client::connect(house.address).await;
    let fan = serde_json::json!({"name": "fan", "decomposition_strategy": "fan_out_fan_in",
        "parameters": {"action": "noop", "items": 1_000, "reduce": {"name": "join",
            "parameters": {"action": "join.collect"}}}});
    let mut times = Vec::new();
    for _ in 0..rounds {
        let before = Instant::now();
        let path = "/api/v1/tasks?wait_seconds=30";
        client.post(path, fan.to_string().as_bytes()).await;
        times.push(before.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    drop(client);
    house.close().await;
    let figure = times[rounds / 2];
    Row { name: "one into 1,000 and their join, p50".into(), figure, unit: "ms" }
}

/// Sends so many bodies over eight connections; tasks that completed in a second, of so many each.
async fn per_second(
    server: &Server,
    address: SocketAddr,
    path: &'static str,
    body: &str,
    (bodies, tasks): (u64, u64),
) -> f64 {
    let left = Arc::new(AtomicU64::new(bodies));
    let before_all = tasks_completed(server).await;
    let before = Instant::now();
    let clients = (0..8).map(|_| {
        let (left, body) = (left.clone(), body.to_owned());
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
            {
                client.post(path, body.as_bytes()).await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("a client");
    }
    completed(server, before_all + bodies * tasks).await;
    (bodies * tasks) as f64 / before.elapsed().as_secs_f64()
}

/// One worker over HTTP, in this process, with batches of up to 1,000; then one task at a time.
async fn with_a_worker() -> Vec<Row> {
    let house = House::open().await;
    let api = maos_api::client::Client::new(&format!("http://{}", house.address));
    let api = api.expect("an address");
    let worker = Worker::new(api, "bench", vec!["bench".to_owned()], 2_000);
    let stopping = house.stop.clone();
    let working = tokio::spawn(worker.run(
        |given| std::future::ready(Verdict::Completed(given.task.parameters)),
        async move { stopping.cancelled().await },
        Duration::ZERO,
    ));
    let body = format!(
        r#"{{"name":"bench","required_capabilities":["bench"],"parameters":{}}}"#,
        parameters("none")
    );
    let batch = format!("[{}]", vec![body.as_str(); BATCH].join(","));
    let tasks = 200_000_u64;
    let before = Instant::now();
    let mut client = Client::connect(house.address).await;
    for _ in 0..tasks / BATCH as u64 {
        client.post("/api/v1/tasks/batch", batch.as_bytes()).await;
    }
    completed(&house.server, tasks).await;
    let seconds = before.elapsed().as_secs_f64();
    drain(&house.server).await;
    let mut times = Vec::new();
    for _ in 0..300 {
        let before = Instant::now();
        client.post("/api/v1/tasks?wait_seconds=10", body.as_bytes()).await;
        times.push(before.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    drop(client);
    working.abort();
    house.close().await;
    vec![
        Row {
            name: "one Rust worker over HTTP, submitted in batches of 500".into(),
            figure: tasks as f64 / seconds,
            unit: "tasks/s",
        },
        Row {
            name: "submit to completion through a worker, p50".into(),
            figure: times[150],
            unit: "ms",
        },
    ]
}

async fn a_million_queued() -> Vec<Row> {
    let folder = tempfile::tempdir().expect("a folder");
    let server = open(folder.path(), Config::default()).await;
    let engine = server.engine().clone();
    let before = resident_mb();
    for _ in 0..1_000_000 / BATCH {
        let commands = (0..BATCH).map(|_| submission("wait")).collect();
        engine.run_all(commands, Echo::Id).await.expect("a running engine");
    }
    let peak = resident_mb();
    drain(&server).await;
    let queued = resident_mb();
    server.stop(Duration::ZERO).await;
    let restart = Instant::now();
    let server = open(folder.path(), Config::default()).await;
    let seconds = restart.elapsed().as_secs_f64();
    let Ok(Answer::Figures(figures)) = server.engine().ask(Query::Figures).await else {
        panic!("no figures")
    };
    assert_eq!(figures.live, 1_000_000, "nothing is lost");
    server.stop(Duration::ZERO).await;
    vec![
        Row {
            name: "memory with a million queued, store caught up".into(),
            figure: queued - before,
            unit: "MB",
        },
        Row {
            name: "the same while the store catches up".into(),
            figure: peak - before,
            unit: "MB",
        },
        Row { name: "restart with a million live tasks".into(), figure: seconds, unit: "s" },
    ]
}

/// A number that the environment may set.
fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no number")),
        Err(_) => default,
    }
}

/// Waits until the store has everything; how long that took.
async fn drain(server: &Server) -> f64 {
    let before = Instant::now();
    while server.service.metrics().await.expect("figures").state_manager["store_backlog_rows"] != 0
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    before.elapsed().as_secs_f64()
}

async fn tasks_completed(server: &Server) -> u64 {
    match server.engine().ask(Query::Figures).await {
        Ok(Answer::Figures(figures)) => figures.counters.tasks_completed,
        other => panic!("{other:?}"),
    }
}

async fn completed(server: &Server, tasks: u64) {
    loop {
        match server.engine().ask(Query::Figures).await {
            Ok(Answer::Figures(figures)) if figures.counters.tasks_completed >= tasks => return,
            Ok(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            Err(why) => panic!("{why}"),
        }
    }
}

/// A server with its port and a folder of its own.
struct House {
    folder: tempfile::TempDir,
    server: Server,
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl House {
    async fn open() -> House {
        let folder = tempfile::tempdir().expect("a folder");
        let server = open(folder.path(), Config::default()).await;
        let listener = maos_server::http::listen(([127, 0, 0, 1], 0).into()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let served = maos_server::http::serve(listener, server.service.clone(), stop.clone());
        House { folder, server, address, stop, serving: tokio::spawn(served) }
    }

    /// Ends it; its folder is left.
    async fn close(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.serving.await.expect("the server");
        self.server.stop(Duration::ZERO).await;
        self.folder
    }
}

async fn open(folder: &Path, config: Config) -> Server {
    let nothing = vec![OsString::from("false")];
    let setup = Setup {
        base_url: None,
        data_dir: folder.join("data"),
        default_root: folder.join("files"),
        supervisor: nothing.clone(),
        data_worker: nothing,
    };
    start(config, setup).await.expect("a server")
}

fn parameters(action: &str) -> String {
    format!(r#"{{"action":"{action}","text":"{}"}}"#, "x".repeat(170))
}

fn body() -> Vec<u8> {
    format!(r#"{{"name":"bench","parameters":{}}}"#, parameters("noop")).into_bytes()
}

/// What the tasks of one action ask for; shared, as the planner shares it.
fn demand(action: &str) -> Arc<Demand> {
    static KNOWN: OnceLock<Arc<Demand>> = OnceLock::new();
    static UNKNOWN: OnceLock<Arc<Demand>> = OnceLock::new();
    let (shared, work) = match action {
        "noop" => (&KNOWN, Work::BuiltIn("task_execution".into())),
        _ => (&UNKNOWN, Work::FreeForm),
    };
    let capabilities = Names::new(["task_execution".into()]);
    let make = || Arc::new(Demand { capabilities, work, ..Demand::default() });
    shared.get_or_init(make).clone()
}

fn submission(action: &str) -> Command {
    let spec = TaskSpec {
        parameters: Payload::inline(parameters(action).as_bytes()),
        demand: demand(action),
        ..TaskSpec::new("bench")
    };
    let task = PlanTask {
        id: TaskId(uuid::Uuid::now_v7().as_u128()),
        spec: Arc::new(spec),
        parent: None,
        depends_on: [].into(),
        collect: Collect::All,
    };
    let plan = Plan {
        id: PlanId(uuid::Uuid::now_v7().as_u128()),
        namespace: "default".into(),
        submitter: "".into(),
        strategy: None,
        idempotency: None,
        tasks: [task].into(),
    };
    Command::Submit { plan: Arc::new(plan) }
}

/// HTTP/1.1 over one connection, as little of it as these answers need.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        Client { stream, buffer: Vec::with_capacity(8_192) }
    }

    async fn post(&mut self, path: &str, body: &[u8]) -> Vec<u8> {
        self.round_trip(&posted(path, body)).await
    }

    /// The head of whatever is answered.
    async fn send(&mut self, path: &str, body: &[u8]) -> String {
        self.answer(&posted(path, body)).await.0
    }

    async fn get(&mut self, path: &str) -> Vec<u8> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
        self.round_trip(request.as_bytes()).await
    }
    async fn round_trip(&mut self, request: &[u8]) -> Vec<u8> {
        let (head, body) = self.answer(request).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}: {}", String::from_utf8_lossy(&body));
        body
    }

    /// Head and body of whatever is answered.
    async fn answer(&mut self, request: &[u8]) -> (String, Vec<u8>) {
        self.stream.write_all(request).await.expect("a request");
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("an answer");
            assert!(read > 0, "the server hung up");
            let Some(end) = find(&self.buffer, b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.buffer[..end]).expect("a head");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.expect("a length").parse().expect("a number");
            if self.buffer.len() >= end + 4 + length {
                return (head.to_owned(), self.buffer[end + 4..].to_vec());
            }
        }
    }
}

fn posted(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    request
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn id_in(answer: &[u8]) -> String {
    let at = find(answer, br#""id":""#).expect("an id") + 6;
    String::from_utf8_lossy(&answer[at..at + 36]).into_owned()
}

/// What one synced commit costs on this disk, now.
fn commit_floor(folder: &Path) -> f64 {
    let connection = rusqlite::Connection::open(folder.join("floor.db")).expect("a file");
    connection.pragma_update(None, "journal_mode", "WAL").expect("WAL");
    connection.pragma_update(None, "synchronous", "FULL").expect("FULL");
    connection.execute_batch("CREATE TABLE t (b BLOB)").expect("a table");
    let mut times: Vec<f64> = (0..500)
        .map(|_| {
            let before = Instant::now();
            connection.execute("INSERT INTO t VALUES (zeroblob(512))", []).expect("a row");
            before.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[250]
}

fn resident_mb() -> f64 {
    resident_mb_of("self")
}

fn resident_mb_of(process: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().expect("a number") / 1_024.0
}
