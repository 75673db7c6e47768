//! Every variable of the environment that sets something, with what a running server does
//! differently for it. What `docs/config.md` or the contract names and has no row here fails.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::{MethodRouter, get, post};
use maos_api::client::Client;
use maos_server::config::{Config, Layers};
use maos_server::{host, telemetry};
use serde_json::{Value, json};
use tokio::task::LocalSet;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::house::{House, id_of, setup};
use crate::target::{CAPABILITY, Target};
use crate::workers::{Worker, completed, held, outcome};

/// Rows that are tried at once.
const AT_ONCE: usize = 6;

type Trial = Pin<Box<dyn Future<Output = ()>>>;

enum Shows {
    /// A server with it does what this asserts.
    Effect(fn(Config) -> Trial),
    /// No server starts, and the words say why.
    Refusal(&'static str),
}

struct Row {
    variable: &'static str,
    value: &'static str,
    shows: Shows,
}

macro_rules! rows {
    (effects { $($variable:literal = $value:expr => $trial:expr,)* }
     refusals { $($refused:literal = $asked:literal => $words:literal,)* }) => {
        [
            $(Row {
                variable: $variable,
                value: $value,
                shows: Shows::Effect(|config| Box::pin($trial(config))),
            },)*
            $(Row { variable: $refused, value: $asked, shows: Shows::Refusal($words) },)*
        ]
    };
}

const ROWS: &[Row] = &rows! {
    effects {
        "MAOS_ENV" = "development" => async |c| assert!(!is_json(&logged(&c))),
        "MAOS_ENV" = "testing" => async |c| assert!(!is_json(&logged(&c))),
        "MAOS_ENV" = "staging" => async |c| assert!(is_json(&logged(&c))),
        "LOG_LEVEL" = "DEBUG" => async |c| assert_eq!(logged(&c).lines().count(), 4),
        "LOG_LEVEL" = "INFO" => async |c| assert_eq!(logged(&c).lines().count(), 3),
        "LOG_LEVEL" = "WARNING" => async |c| assert_eq!(logged(&c).lines().count(), 2),
        "LOG_LEVEL" = "ERROR" => async |c| assert_eq!(logged(&c).lines().count(), 1),
        "MAOS_LOG_LEVEL" = "ERROR" => async |c| assert_eq!(logged(&c).lines().count(), 1),
        "MAOS_LOG_FORMAT" = "json" => async |c| assert!(is_json(&logged(&c))),
        "MESSAGE_BUS_MAX_QUEUE_SIZE" = "2" => a_mailbox_takes_two,
        "MAOS_MESSAGE_BUS_MAX_QUEUE_SIZE" = "2" => a_mailbox_takes_two,
        "MESSAGE_BUS_WORKER_COUNT" = "1" => one_webhook_at_once,
        "MAOS_MESSAGE_BUS_WORKER_COUNT" = "1" => one_webhook_at_once,
        "MAOS_MESSAGE_BUS_BYTES_MAX" = "1048576" => messages_take_no_more_than_a_megabyte,
        "MAOS_API_HOST" = "127.0.0.2" => it_listens_on_another_address,
        "MAOS_API_PORT" = "0" => it_listens_on_a_free_port,
        "MAOS_API_PUBLIC_URL" = "https://maos.example/in" => targets_call_back_there,
        "MAOS_API_MAX_AGENTS" = "6" => one_agent_beside_those_of_pools,
        "MAOS_API_MAX_WORKERS" = "1" => one_worker,
        "MAOS_API_MAX_CONCURRENT_TASKS" = "1" => one_attempt_at_once,
        "MAOS_API_WORKER_TIMEOUT" = "1" => a_silent_worker_is_lost,
        "MAOS_API_DEFAULT_TASK_TIMEOUT" = "7" => an_attempt_has_seven_seconds,
        "MAOS_API_MAX_TASK_TIMEOUT" = "400" => an_attempt_has_400_seconds_at_most,
        "MAOS_API_SHUTDOWN_GRACE" = "0" => an_attempt_is_given_no_time_at_the_end,
        "MAOS_API_ARTIFACT_BYTES_MAX" = "10" => a_file_has_ten_bytes_at_most,
        "MAOS_BLOBS_URL" = "s3://maos-test/a" => documents_belong_in_a_bucket,
        "MAOS_CHECKPOINTS_EVERY_SECONDS" = "1" => checkpoints_make_themselves,
        "MAOS_CHECKPOINTS_KEEP" = "1" => one_checkpoint_is_kept,
        "MAOS_FILES_ROOTS" = concat!("[\"", env!("CARGO_MANIFEST_DIR"), "\"]") => a_file_is_read,
        "MAOS_LOGS_TASK_LINES_MAX" = "3" => a_log_ends_after_three_lines,
        "MAOS_LOGS_TASK_BYTES_MAX" = "2048" => a_log_ends_at_its_bytes,
        "MAOS_LOGS_BYTES_MAX" = "1048576" => the_oldest_log_gives_way,
        "MAOS_LOGS_KEEP_DAYS" = "1" => old_lines_are_gone,
        "MAOS_OUTBOUND_ALLOW_PRIVATE" = "true" => loopback_is_reached,
        "MAOS_OUTBOUND_ALLOW_HOSTS" = "[\"127.0.0.1\"]" => loopback_is_reached,
        "MAOS_SCHEDULING_POLICY" = "priority" => keys_do_not_take_turns,
        "MAOS_STORE_KEEP_DAYS" = "1" => old_tasks_are_removed,
        "MAOS_STORE_KEEP_TASKS" = "1" => one_ended_task_is_kept,
        "MAOS_WEBHOOKS_ATTEMPTS_MAX" = "1" => a_webhook_is_tried_once,
        "MAOS_WEBHOOKS_TIMEOUT_SECONDS" = "1" => a_silent_webhook_is_given_up,
        "MAOS_WEBHOOKS_RETRY_PAUSE_MS" = "1" => tries_follow_at_once,
        "MAOS_RESOURCES_CPU_CORES" = "2" => async |c| two_of("cpu_cores", c).await,
        "MAOS_RESOURCES_MEMORY_MB" = "2" => async |c| two_of("memory_mb", c).await,
        "MAOS_RESOURCES_DISK_MB" = "2" => async |c| two_of("disk_mb", c).await,
        "MAOS_RESOURCES_NETWORK_MBPS" = "2" => async |c| two_of("network_mbps", c).await,
        "MAOS_RESOURCES_LICENCES" = "2" => async |c| two_of("licences", c).await,
        "MAOS_POOLS_DATA_PROCESSOR_CAPABILITIES" = "[\"computation\"]" => its_agents_can_compute,
        "MAOS_POOLS_DATA_PROCESSOR_SLOTS" = "7" => its_agents_have_seven_slots,
        "MAOS_POOLS_DATA_PROCESSOR_MIN" = "3" => three_agents_are_there,
        "MAOS_POOLS_DATA_PROCESSOR_MAX" = "1" => async |c| in_its_pool("max", 1, c).await,
        "MAOS_POOLS_DATA_PROCESSOR_QUEUE_DEPTH" = "9"
            => async |c| in_its_pool("queue_depth", 9, c).await,
        "MAOS_POOLS_DATA_PROCESSOR_WAIT_SECONDS" = "9"
            => async |c| in_its_pool("wait_seconds", 9, c).await,
        "MAOS_POOLS_DATA_PROCESSOR_IDLE_SECONDS" = "9"
            => async |c| in_its_pool("idle_seconds", 9, c).await,
        "MAOS_POOLS_DATA_PROCESSOR_COOLDOWN_SECONDS" = "9"
            => async |c| in_its_pool("cooldown_seconds", 9, c).await,
    }
    refusals {
        "MAOS_ENV" = "production" => "cannot do that yet: authentication",
        "MAOS_ENV" = "moon" => "development, testing, staging or production",
        "SECURITY_REQUIRE_AUTH" = "true" => "cannot do that yet: authentication",
        "SECURITY_REQUIRE_ENCRYPTION" = "true" => "cannot do that yet: encryption",
        "SECURITY_RATE_LIMIT" = "1000" => "cannot do that yet: rate limits",
        "REDIS_HOST" = "localhost" => "cannot do that yet: Redis",
        "REDIS_PORT" = "6379" => "cannot do that yet: Redis",
        "REDIS_PASSWORD" = "x" => "cannot do that yet: Redis",
        "REDIS_DB" = "1" => "cannot do that yet: Redis",
        "REDIS_URL" = "redis://localhost" => "cannot do that yet: Redis",
        "MAOS_API_PROT" = "1" => "unknown field `prot`",
        // With a bucket they say where it is: the tests of the blob store show that.
        "MAOS_BLOBS_ENDPOINT" = "https://a" => "must be empty while `blobs.url` is",
        "MAOS_BLOBS_REGION" = "eu-west-1" => "must be empty while `blobs.url` is",
        "MAOS_BLOBS_ALLOW_HTTP" = "true" => "must be false while `blobs.url` is empty",
    }
};

/// What the contract names, whatever our own reference says.
const CONTRACT: [&str; 23] = [
    "MAOS_ENV",
    "LOG_LEVEL",
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_PASSWORD",
    "REDIS_DB",
    "REDIS_URL",
    "SECURITY_REQUIRE_ENCRYPTION",
    "SECURITY_REQUIRE_AUTH",
    "SECURITY_RATE_LIMIT",
    "MESSAGE_BUS_MAX_QUEUE_SIZE",
    "MESSAGE_BUS_WORKER_COUNT",
    "MAOS_API_HOST",
    "MAOS_API_PORT",
    "MAOS_API_MAX_AGENTS",
    "MAOS_API_MAX_WORKERS",
    "MAOS_API_MAX_CONCURRENT_TASKS",
    "MAOS_API_DEFAULT_TASK_TIMEOUT",
    "MAOS_API_MAX_TASK_TIMEOUT",
    "MAOS_RESOURCES_CPU_CORES",
    "MAOS_RESOURCES_MEMORY_MB",
    "MAOS_RESOURCES_DISK_MB",
    "MAOS_RESOURCES_NETWORK_MBPS",
];

/// The configuration that one variable makes.
fn with(variable: &str, value: &str) -> Result<Config, String> {
    let environment = BTreeMap::from([(variable.into(), value.into())]);
    let layers = Layers { environment, ..Layers::default() };
    Config::load(&layers).map(|(config, _)| config).map_err(|why| why.to_string())
}

#[test]
fn every_variable_has_a_row() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md");
    let page = std::fs::read_to_string(path).unwrap();
    let mut wanted: BTreeSet<String> = CONTRACT.map(str::to_owned).into();
    let mut section = String::new();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if line.starts_with("```") {
            section.clear();
        }
        let key = line.strip_prefix("| `").and_then(|rest| rest.split_once("` |"));
        if let Some((first, _)) = key {
            // The contract's own variables share lines.
            wanted.extend(first.split("`, `").map(|name| match name.contains('.') {
                true => variable_of(name),
                false => name.to_owned(),
            }));
        } else if let (false, Some((key, _))) = (section.is_empty(), line.split_once(" = ")) {
            wanted.insert(variable_of(&format!("{section}.{key}")));
        }
    }
    assert!(wanted.len() > 50, "the reference has another form now: {wanted:?}");
    let rows: BTreeSet<&str> = ROWS.iter().map(|row| row.variable).collect();
    let missing: Vec<&String> =
        wanted.iter().filter(|name| !rows.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "no row shows what these do: {missing:?}");
}

fn variable_of(key: &str) -> String {
    format!("MAOS_{}", key.replace('.', "_").to_uppercase())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_variable_does_what_its_row_says() {
    let local = LocalSet::new();
    local.run_until(try_all()).await;
}

async fn try_all() {
    let mut failed = Vec::new();
    for rows in ROWS.chunks(AT_ONCE) {
        let trials: Vec<_> =
            rows.iter().map(|row| (row, tokio::task::spawn_local(try_one(row)))).collect();
        for (row, trial) in trials {
            if trial.await.is_err() {
                failed.push(format!("{}={}", row.variable, row.value));
            }
        }
    }
    assert!(failed.is_empty(), "these do something else, see above: {failed:?}");
}

async fn try_one(row: &'static Row) {
    let config = with(row.variable, row.value);
    match row.shows {
        Shows::Effect(trial) => trial(config.unwrap()).await,
        Shows::Refusal(words) => {
            let refusal = config.unwrap_err();
            let key = row.variable.trim_start_matches("MAOS_").to_lowercase().replacen('_', ".", 1);
            let is_named = refusal.contains(row.variable) || refusal.contains(&format!("`{key}`"));
            assert!(is_named && refusal.contains(words), "{refusal}");
        }
    }
}

#[test]
fn what_asks_for_nothing_is_no_setting() {
    // Kubernetes names a port of every service beside the server by such a variable.
    for (variable, value) in [
        ("SECURITY_REQUIRE_AUTH", "false"),
        ("SECURITY_RATE_LIMIT", ""),
        ("REDIS_DB", "0"),
        ("REDIS_PORT", "tcp://10.0.0.7:6379"),
    ] {
        with(variable, value).unwrap();
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What is written of four lines, one at each level.
fn logged(config: &Config) -> String {
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);
    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let page = Page::default();
    let shared = page.clone();
    let writer = BoxMakeWriter::new(move || shared.clone());
    tracing::dispatcher::with_default(&telemetry::dispatch(&config.log, writer), || {
        tracing::error!("one");
        tracing::warn!("two");
        tracing::info!("three");
        tracing::debug!("four");
    });
    let bytes = page.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn is_json(lines: &str) -> bool {
    lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok())
}

async fn send(house: &House, topic: &str, body: Value) -> u16 {
    let message = json!({"to": {"topic": topic}, "body": body});
    house.call("POST", "/api/v1/messages", Some(&message)).await.status
}

async fn a_mailbox_takes_two(config: Config) {
    let house = House::open_with(config).await;
    for status in [200, 200, 429] {
        assert_eq!(send(&house, "t", json!(1)).await, status);
    }
}

async fn messages_take_no_more_than_a_megabyte(config: Config) {
    let house = House::open_with(config).await;
    let body = json!(noise(200_000));
    for number in 0..20 {
        if send(&house, &format!("t{number}"), body.clone()).await == 429 {
            assert!(number > 3, "{number} messages");
            return;
        }
    }
    panic!("four megabytes do not fit into one");
}

/// Text that no compression makes much smaller.
fn noise(bytes: usize) -> String {
    let mut random = vec![0; bytes / 2];
    blake3::Hasher::new().finalize_xof().fill(&mut random);
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes webhooks, and notes how many came at once; each stays until so many did or a while passed.
#[derive(Default)]
struct Crowd {
    here: AtomicUsize,
    most: AtomicUsize,
    taken: AtomicUsize,
}

async fn crowd(wanted: usize) -> (Arc<Crowd>, String) {
    let crowd = Arc::new(Crowd::default());
    let shared = crowd.clone();
    let take = post(move || async move {
        let here = shared.here.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most.fetch_max(here, Ordering::SeqCst);
        for _ in 0..20 {
            if shared.most.load(Ordering::SeqCst) >= wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        shared.here.fetch_sub(1, Ordering::SeqCst);
        shared.taken.fetch_add(1, Ordering::SeqCst);
    });
    (crowd, serve(take).await)
}

async fn subscribe(house: &House, name: &str, url: &str) -> u16 {
    let path = format!("/api/v1/messages/subscriptions/{name}");
    let body = json!({"mailbox": "topic:t", "url": url});
    house.call("PUT", &path, Some(&body)).await.status
}

/// How many webhooks of four subscriptions are called at once.
async fn webhooks_at_once(mut config: Config) -> usize {
    config.outbound.allow_private = true;
    let house = House::open_with(config).await;
    let (crowd, url) = crowd(4).await;
    for name in ["a", "b", "c", "d"] {
        assert_eq!(subscribe(&house, name, &url).await, 200);
    }
    assert_eq!(send(&house, "t", json!(1)).await, 200);
    eventually("all are called", async || crowd.taken.load(Ordering::SeqCst) == 4).await;
    crowd.most.load(Ordering::SeqCst)
}

async fn one_webhook_at_once(config: Config) {
    assert_eq!(webhooks_at_once(config).await, 1);
    assert!(webhooks_at_once(Config::default()).await > 1);
}

/// The host that this configuration makes; who asks it must be able to reach it.
async fn listening(config: Config) -> (host::Host, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let host = host::open(config, setup(folder.path().into())).await.unwrap();
    tokio::net::TcpStream::connect(host.address).await.unwrap();
    (host, folder)
}

async fn it_listens_on_another_address(mut config: Config) {
    config.api.port = 0;
    let (host, _folder) = listening(config).await;
    assert_eq!(host.address.ip().to_string(), "127.0.0.2");
    host.stop().await;
}

async fn it_listens_on_a_free_port(config: Config) {
    let (one, _folder) = listening(config.clone()).await;
    let (another, _folder) = listening(config).await;
    assert_ne!(one.address.port(), another.address.port());
    one.stop().await;
    another.stop().await;
}

/// What the registration of one more agent is answered.
async fn register(house: &House, runtime: &str) -> u16 {
    let body = json!({"agent_type": "w", "capabilities": ["task_execution"], "runtime": runtime});
    house.call("POST", "/api/v1/agents", Some(&body)).await.status
}

async fn one_agent_beside_those_of_pools(config: Config) {
    let house = House::open_with(config).await;
    assert_eq!(register(&house, "builtin").await, 200);
    assert_eq!(register(&house, "builtin").await, 429);
}

async fn one_worker(config: Config) {
    let house = House::open_with(config).await;
    assert_eq!(register(&house, "worker").await, 200);
    assert_eq!(register(&house, "worker").await, 429);
}

/// A built-in action that goes on for so many seconds.
fn listens(seconds: u64) -> Value {
    json!({"name": "l", "parameters": {"action": "message.receive", "mailbox": "topic:t",
        "wait_seconds": seconds}})
}

async fn one_attempt_at_once(config: Config) {
    let house = House::open_with(config).await;
    house.submit(&listens(60)).await;
    let second = id_of(&house.submit(&listens(60)).await);
    let why = house.get(&format!("/api/v1/tasks/{second}/explain")).await.body;
    let unblock = why["blockers"][0]["unblock"].as_str().unwrap();
    assert!(unblock.contains("max_concurrent_tasks"), "{why}");
}

async fn a_silent_worker_is_lost(config: Config) {
    let house = House::open_with(config).await;
    let worker = Worker::register(&house, 1).await;
    let id = id_of(&house.submit(&json!({"name": "n"})).await);
    worker.fetch().await;
    let path = format!("/api/v1/tasks/{id}");
    eventually("its task waits again", async || {
        house.get(&path).await.body["task"]["status"] == "ready"
    })
    .await;
}

async fn an_attempt_has_seven_seconds(config: Config) {
    let house = House::open_with(config).await;
    let worker = Worker::register(&house, 1).await;
    let task = house.submit(&json!({"name": "n"})).await;
    assert_eq!(task["task"]["timeout_seconds"], 7);
    let left = worker.fetch().await["remaining_ms"].as_u64().unwrap();
    assert!(left <= 7_000, "{left}");
}

async fn an_attempt_has_400_seconds_at_most(config: Config) {
    let house = House::open_with(config).await;
    let with = |seconds: u64| json!({"name": "n", "timeout_seconds": seconds});
    house.submit(&with(400)).await;
    let refused = house.call("POST", "/api/v1/tasks", Some(&with(401))).await;
    let found = (refused.status, &refused.body["error_code"]);
    assert_eq!(found, (400, &json!("TIMEOUT_TOO_LONG")));
}

/// With ten seconds, as it is by default, the first call would be answered before the end.
async fn an_attempt_is_given_no_time_at_the_end(mut config: Config) {
    (config.api.port, config.outbound.allow_private) = (0, true);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let slow = get(move || async move {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    });
    let body =
        json!({"name": "n", "parameters": {"action": "http.request", "url": serve(slow).await}});
    let folder = tempfile::tempdir().unwrap();
    let setup = setup(folder.path().into());
    let host = host::open(config.clone(), setup.clone()).await.unwrap();
    let client = Client::new(&format!("http://{}", host.address)).unwrap();
    client.submit(&body, None).await.unwrap();
    eventually("it is called", async || calls.load(Ordering::SeqCst) == 1).await;
    host.stop().await;
    let host = host::open(config, setup).await.unwrap();
    eventually("it is called again", async || calls.load(Ordering::SeqCst) == 2).await;
    host.stop().await;
}

/// The address of a server that does only this.
async fn serve(route: MethodRouter) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", route)).await });
    url
}

async fn a_file_has_ten_bytes_at_most(config: Config) {
    let house = House::open_with(config).await;
    let id = id_of(&house.submit(&json!({"name": "n"})).await);
    for (bytes, status) in [(10, 200), (11, 413)] {
        let path = format!("/api/v1/tasks/{id}/artifacts/f");
        let request = Request::builder().method("PUT").uri(path).body(Body::from(vec![0; bytes]));
        assert_eq!(house.send(request.unwrap()).await.status, status);
    }
}

async fn checkpoints(house: &House) -> Vec<String> {
    let listed = house.get("/api/v1/checkpoints").await.body;
    let items = listed["items"].as_array().unwrap();
    items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

async fn checkpoints_make_themselves(config: Config) {
    let house = House::open_with(config).await;
    house.run(&json!({"name": "n", "parameters": {"action": "noop"}})).await;
    eventually("one is made", async || !checkpoints(&house).await.is_empty()).await;
}

async fn one_checkpoint_is_kept(mut config: Config) {
    config.checkpoints.every_seconds = 1;
    let house = House::open_with(config).await;
    let mut seen = BTreeSet::new();
    eventually("three are made", async || {
        house.run(&json!({"name": "n", "parameters": {"action": "noop"}})).await;
        let listed = checkpoints(&house).await;
        assert!(listed.len() <= 2, "the one before goes once the next one is there");
        seen.extend(listed);
        seen.len() == 3
    })
    .await;
    eventually("the last one is alone", async || checkpoints(&house).await.len() == 1).await;
}

async fn a_file_is_read(config: Config) {
    let read = json!({"name": "n", "max_retries": 0, "parameters": {"action": "file.read",
        "path": concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")}});
    let house = House::open_with(config).await;
    assert_eq!(house.run(&read).await["status"], "completed");
    let house = House::open().await;
    assert_eq!(house.run(&read).await["status"], "failed");
}

/// A server whose documents are in a folder still does not start without them.
async fn documents_belong_in_a_bucket(config: Config) {
    let folder = tempfile::tempdir().unwrap();
    let documents = folder.path().join("data/blobs/ab");
    std::fs::create_dir_all(&documents).unwrap();
    std::fs::write(documents.join("cd"), "a document").unwrap();
    let started = maos_server::service::start(config, setup(folder.path().into())).await;
    let refused = started.err().unwrap().to_string();
    assert!(refused.contains("and `blobs.url` says `s3://maos-test/a`\nhint: copy"), "{refused}");
}

async fn lines(house: &House, id: &str) -> Vec<String> {
    let page = house.get(&format!("/api/v1/tasks/{id}/logs?limit=1000")).await.body;
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["line"].as_str().unwrap().to_owned()).collect()
}

/// Submits a task to a worker, which says these lines.
async fn talk(house: &House, worker: &Worker<'_>, said: Value) -> String {
    let id = id_of(&house.submit(&json!({"name": "talker"})).await);
    let task = worker.fetch().await;
    let said = outcome(&task, said);
    worker.poll(json!({"max_tasks": 0, "holding": [held(&task)], "logs": [said]})).await;
    worker.poll(json!({"max_tasks": 0, "outcomes": [completed(&task, json!(1))]})).await;
    id
}

/// The log of a task whose worker said this.
async fn log_of(config: Config, said: Value) -> Vec<String> {
    let house = House::open_with(config).await;
    let worker = Worker::register(&house, 1).await;
    let id = talk(&house, &worker, said).await;
    lines(&house, &id).await
}

async fn a_log_ends_after_three_lines(config: Config) {
    let kept = log_of(config, json!({"lines": ["a", "b", "c", "d", "e"]})).await;
    assert_eq!(kept[..3], ["a", "b", "c"]);
    assert!(kept.len() == 4 && kept[3].starts_with("the log is full"), "{kept:?}");
}

async fn a_log_ends_at_its_bytes(config: Config) {
    let kept = log_of(config, json!({"lines": vec!["x".repeat(500); 10]})).await;
    assert!((2..5).contains(&kept.len()), "{} lines", kept.len());
    assert!(kept.last().unwrap().starts_with("the log is full"), "{kept:?}");
}

async fn old_lines_are_gone(config: Config) {
    let old = json!({"line": "old", "time": "2020-01-01T00:00:00Z"});
    assert_eq!(log_of(config.clone(), old.clone()).await, Vec::<String>::new());
    assert_eq!(log_of(config, json!({"line": "new"})).await, ["new"]);
    assert_eq!(log_of(Config::default(), old).await, ["old"]);
}

async fn the_oldest_log_gives_way(config: Config) {
    let house = House::open_with(config).await;
    let worker = Worker::register(&house, 1).await;
    let many = json!({"lines": vec![noise(4_000); 100]});
    let first = talk(&house, &worker, many.clone()).await;
    assert_eq!(lines(&house, &first).await.len(), 100);
    let mut last = first.clone();
    for _ in 0..4 {
        last = talk(&house, &worker, many.clone()).await;
    }
    assert_eq!(lines(&house, &last).await.len(), 100);
    assert!(lines(&house, &first).await.len() < 100, "the oldest one gave way");
}

async fn loopback_is_reached(config: Config) {
    let (url, house) = ("http://127.0.0.1:9/", House::open_with(config).await);
    assert_eq!(subscribe(&house, "mine", url).await, 200);
    assert_eq!(subscribe(&House::open().await, "mine", url).await, 422);
}

/// The names of four tasks in the order in which one worker gets them.
async fn order_under(config: Config) -> Vec<String> {
    let house = House::open_with(config).await;
    for (name, key) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")] {
        let task = json!({"name": name, "fairness_key": key, "required_capabilities": ["rare"]});
        house.submit(&task).await;
    }
    let worker = Worker::with(&house, "rare", 1).await;
    let mut names = Vec::new();
    for _ in 0..4 {
        let task = worker.fetch().await;
        names.push(task["name"].as_str().unwrap().to_owned());
        worker.poll(json!({"max_tasks": 0, "outcomes": [completed(&task, json!(1))]})).await;
    }
    names
}

async fn keys_do_not_take_turns(config: Config) {
    assert_eq!(order_under(config).await, ["a1", "a2", "a3", "b1"]);
    assert_eq!(order_under(Config::default()).await, ["a1", "b1", "a2", "a3"]);
}

async fn old_tasks_are_removed(config: Config) {
    let house = House::open_over(Config::default(), |data_dir| {
        crate::ended::prepare(data_dir, 1);
    })
    .await;
    let listed = async |house: &House| house.get("/api/v1/tasks").await.body["total_items"].clone();
    assert_eq!(listed(&house).await, 1);
    let house = house.reopen_with(config).await;
    eventually("it is removed", async || listed(&house).await == 0).await;
}

async fn one_ended_task_is_kept(config: Config) {
    let house = House::open_with(config).await;
    let noop = json!({"name": "n", "parameters": {"action": "noop"}});
    let mut last = Value::Null;
    for _ in 0..3 {
        last = house.run(&noop).await;
    }
    eventually("one is left", async || {
        let page = house.get("/api/v1/tasks").await.body;
        page["total_items"] == 1 && page["items"][0]["id"] == last["id"]
    })
    .await;
}

/// Waits until a message is given up that nobody takes; how often it was tried.
async fn given_up(mut config: Config) -> usize {
    config.outbound.allow_private = true;
    let house = House::open_with(config).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let refuse = post(move || async move {
        counted.fetch_add(1, Ordering::SeqCst);
        axum::http::StatusCode::INTERNAL_SERVER_ERROR
    });
    let url = serve(refuse).await;
    assert_eq!(subscribe(&house, "mine", &url).await, 200);
    send(&house, "t", json!(1)).await;
    dead(&house).await;
    tries.load(Ordering::SeqCst)
}

async fn dead(house: &House) {
    let path = "/api/v1/messages/subscriptions/mine";
    eventually("it is given up", async || house.get(path).await.body["dead"] == 1).await;
}

async fn a_webhook_is_tried_once(config: Config) {
    assert_eq!(given_up(config).await, 1);
}

/// With a second between the first two, the eighth would be minutes away.
async fn tries_follow_at_once(config: Config) {
    assert_eq!(given_up(config).await, 8);
}

async fn a_silent_webhook_is_given_up(mut config: Config) {
    config.outbound.allow_private = true;
    config.webhooks.attempts_max = 1;
    let house = House::open_with(config).await;
    // It takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let held: Arc<Mutex<Vec<tokio::net::TcpStream>>> = Arc::default();
    let holding = held.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = silent.accept().await {
            holding.lock().unwrap().push(stream);
        }
    });
    assert_eq!(subscribe(&house, "mine", &url).await, 200);
    send(&house, "t", json!(1)).await;
    dead(&house).await;
    assert_eq!(held.lock().unwrap().len(), 1);
}

async fn targets_call_back_there(config: Config) {
    let mut target = Target::listen().await;
    let http_agents = target.config(json!({})).http_agents;
    let house = House::open_with(Config { http_agents, ..config }).await;
    house.submit(&json!({"name": "a", "required_capabilities": [CAPABILITY]})).await;
    let asked = target.next().await;
    let url = asked.body()["callback"]["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("https://maos.example/in/api/v1/tasks/"), "{url}");
    asked.answer(204, "");
}

async fn two_of(kind: &'static str, config: Config) {
    let house = House::open_with(config).await;
    let metrics = house.get("/api/v1/system/metrics").await.body;
    assert_eq!(metrics["resource_allocator"][kind]["capacity"], 2.0, "{kind}");
    let needs = |amount: f64| json!({"name": "n", "resource_requirements": {kind: amount}});
    house.submit(&needs(2.0)).await;
    let refused = house.call("POST", "/api/v1/tasks", Some(&needs(2.5))).await;
    assert_eq!(refused.status, 422, "{kind}: {}", refused.body);
}

/// The agents of the pool that is set by variables here.
async fn pooled(config: Config) -> Vec<Value> {
    let house = House::open_with(config).await;
    let agents = house.get("/api/v1/agents?agent_type=data_processor").await.body;
    agents["items"].as_array().unwrap().clone()
}

async fn its_agents_can_compute(config: Config) {
    assert_eq!(pooled(config).await[0]["capabilities"], json!(["computation"]));
}

async fn its_agents_have_seven_slots(config: Config) {
    assert_eq!(pooled(config).await[0]["max_concurrent_tasks"], 7);
}

async fn three_agents_are_there(config: Config) {
    assert_eq!(pooled(config).await.len(), 3);
}

/// What these decide is shown by the tests of pools; here it is that the pool has them.
async fn in_its_pool(key: &'static str, value: u64, config: Config) {
    let house = House::open_with(config).await;
    let pool = house.get("/api/v1/pools/data_processor").await.body;
    assert_eq!(pool["pool"][key], value, "{pool}");
}
