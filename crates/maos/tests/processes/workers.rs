//! Workers as processes of their own: the example in shell, and a server that goes away under them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use maos_api::client::Client;
use maos_api::client::worker::{Given, Verdict};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::house::{House, PATIENCE, eventually, folder, free_port, open_on};

/// `examples/worker.sh` around a program in shell; ended with its test.
struct Worker(Child);

impl Worker {
    fn start(address: SocketAddr, id: &str, script: &str) -> Worker {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/worker.sh");
        let child = Command::new("bash")
            .arg(example)
            .args(["task_execution", "sh", "-c", script])
            .env("MAOS_URL", format!("http://{address}"))
            .env("WORKER_ID", id)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Worker(child)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn kill(mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0.id().cast_signed()) {
            // In order, so that it ends what it runs.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        drop(self.0.wait());
    }
}

const ONE: &str = "0190163d-8694-739b-aea5-966c26f8ad91";
const TWO: &str = "0190163d-8694-739b-aea5-966c26f8ad92";

/// Answers its parameters, once `gate` is there, and leaves a mark for each run.
fn gated(folder: &Path) -> (String, PathBuf, PathBuf) {
    let (gate, marks) = (folder.join("gate"), folder.join("marks"));
    let script = format!(
        "echo ran >> '{}'; while ! [ -e '{}' ]; do sleep 0.05; done; cat",
        marks.display(),
        gate.display()
    );
    (script, gate, marks)
}

fn runs(marks: &Path) -> usize {
    std::fs::read_to_string(marks).unwrap_or_default().lines().count()
}

#[test]
fn the_worker_in_shell_says_how_it_is_used() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/worker.sh");
    for arguments in [&[][..], &["capability"]] {
        let output = Command::new("bash").arg(&example).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("worker.sh CAPABILITY PROGRAM"), "{said}");
    }
    // As the documents say.
    assert!(std::fs::read_to_string(&example).unwrap().lines().count() <= 40);
}

#[test]
fn a_worker_in_shell_ends_with_the_servers_words_when_it_is_refused() {
    let folder = folder(&[]);
    let house = House::open(folder.path());
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/worker.sh");
    let mut command = Command::new("bash");
    command.arg(example).args(["Bad!", "cat"]).stdin(Stdio::null());
    let output = command.env("MAOS_URL", format!("http://{}", house.address)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("capabilities"), "{said}");
}

#[test]
fn a_worker_in_shell_completes_fails_and_is_cancelled() {
    let folder = folder(&[]);
    let house = House::open(folder.path());
    let script = r#"input=$(cat); case $input in
        *fail*) echo "no luck" >&2; exit 3;;
        *words*) echo "not json";;
        *forever*) exec sleep 600;;
        *) echo "$input";;
    esac"#;
    let worker = Worker::start(house.address, ONE, script);
    let submit = |what: &str| {
        house.submit(&json!({"name": what, "max_retries": 0, "parameters": {what: 1}}))
    };
    let [good, fails, words] = ["good", "fail", "words"].map(submit);
    let good = house.ended(&good);
    assert_eq!((&good["status"], &good["result"]), (&json!("completed"), &json!({"good": 1})));
    let failed = house.ended(&fails);
    assert!(failed["error"].as_str().unwrap().contains("no luck"), "{failed}");
    assert!(house.ended(&words)["error"].as_str().unwrap().contains("no JSON"));
    let forever = submit("forever");
    eventually("the start", PATIENCE, || house.task(&forever)["status"] == "running");
    house.call("DELETE", &format!("/api/v1/tasks/{forever}"), "");
    // The next one gets the slot once the program has really ended.
    assert_eq!(house.ended(&submit("next"))["status"], "completed");
    house.call("DELETE", &format!("/api/v1/agents/{ONE}"), "");
    let mut worker = worker;
    eventually("the worker's end", PATIENCE, || worker.0.try_wait().unwrap().is_some());
}

#[test]
fn an_attempt_survives_the_servers_violent_end() {
    let folder = folder(&[]);
    let port = free_port();
    let mut house = open_on(folder.path(), port);
    let (script, gate, marks) = gated(folder.path());
    let _worker = Worker::start(house.address, ONE, &script);
    let id = house.submit(&json!({"name": "long", "parameters": {"x": 1}}));
    eventually("the start", PATIENCE, || runs(&marks) == 1);
    house.kill();
    let house = open_on(folder.path(), port);
    assert_eq!(house.task(&id)["status"], "running", "its worker is elsewhere");
    std::fs::write(gate, "").unwrap();
    let task = house.ended(&id);
    assert_eq!((&task["status"], &task["attempt"]), (&json!("completed"), &json!(1)), "{task}");
    assert_eq!((&task["result"], runs(&marks)), (&json!({"x": 1}), 1));
}

#[test]
fn what_a_killed_worker_held_goes_to_another() {
    let folder = folder(&[]);
    std::fs::write(folder.path().join("maos.toml"), "[api]\nworker_timeout = 2\n").unwrap();
    let house = House::open(folder.path());
    let (script, gate, marks) = gated(folder.path());
    let first = Worker::start(house.address, ONE, &script);
    let id = house.submit(&json!({"name": "long", "max_retries": 0, "parameters": {"x": 1}}));
    eventually("the start", PATIENCE, || runs(&marks) == 1);
    first.kill();
    std::fs::write(gate, "").unwrap();
    let _second = Worker::start(house.address, TWO, &script);
    let task = house.ended(&id);
    assert_eq!((&task["status"], &task["attempt"]), (&json!("completed"), &json!(2)), "{task}");
    assert_eq!((&task["retry_count"], runs(&marks)), (&json!(0), 2));
    let agents = house.call("GET", "/api/v1/agents?capabilities=task_execution", "");
    let there = |id: &str| agents["items"].as_array().unwrap().iter().any(|a| a["id"] == json!(id));
    assert!(there(TWO) && !there(ONE), "{agents}");
}

#[test]
fn what_a_frozen_worker_held_goes_to_another_and_its_late_report_counts_for_nothing() {
    let folder = folder(&[]);
    std::fs::write(folder.path().join("maos.toml"), "[api]\nworker_timeout = 2\n").unwrap();
    let house = House::open(folder.path());
    let (script, gate, marks) = gated(folder.path());
    let first = Worker::start(house.address, ONE, &format!("{script}; echo >&2"));
    let id = house.submit(&json!({"name": "long", "max_retries": 0, "parameters": {"x": 1}}));
    eventually("the start", PATIENCE, || runs(&marks) == 1);
    // It keeps its connection, and says nothing.
    first.signal(Signal::STOP);
    std::fs::write(gate, "").unwrap();
    let _second = Worker::start(house.address, TWO, "echo 2");
    let task = house.ended(&id);
    let wanted = (&json!("completed"), &json!(2), &json!(2));
    assert_eq!((&task["status"], &task["attempt"], &task["result"]), wanted, "{task}");
    first.signal(Signal::CONT);
    // It comes back, is told that what it held is no longer its own, and takes new work.
    let next = json!({"name": "next", "agent_id": ONE, "parameters": {"y": 1}});
    let next = house.submit(&next);
    assert_eq!(house.ended(&next)["result"], json!({"y": 1}));
    let again = house.task(&id);
    assert_eq!((&again["attempt"], &again["result"]), (&json!(2), &json!(2)), "{again}");
    let history = house.call("GET", &format!("/api/v1/tasks/{id}/events"), "");
    let items = history["items"].as_array().unwrap();
    let ends = items.iter().filter(|item| item["event"] == "completed");
    assert_eq!(ends.count(), 1, "{history}");
}

#[test]
fn a_worker_that_beats_while_its_task_hangs_is_told_to_stop_it_in_time() {
    let folder = folder(&[]);
    let house = House::open(folder.path());
    let script = "grep -q hang && exec sleep 600; echo 1";
    let _worker = Worker::start(house.address, ONE, script);
    let body = json!({"name": "hangs", "timeout_seconds": 1, "max_retries": 1,
        "parameters": {"hang": true}});
    let id = house.submit(&body);
    let task = house.ended(&id);
    assert_eq!((&task["status"], &task["attempt"]), (&json!("failed"), &json!(2)), "{task}");
    assert_eq!(task["error_kind"], "TIMED_OUT", "{task}");
    // Its slot is free again, because the program was ended.
    assert_eq!(house.ended(&house.submit(&json!({"name": "next"})))["status"], "completed");
}

#[test]
fn a_hundred_busy_workers_go_on_over_a_kill_and_every_task_ends_once() {
    const TASKS: usize = 2_000;
    let folder = folder(&[]);
    let port = free_port();
    let mut house = open_on(folder.path(), port);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let url = format!("http://{}", house.address);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    // Every second task goes on over the restart.
    let (open, opened) = tokio::sync::watch::channel(false);
    let workers: Vec<_> = (0..100)
        .map(|_| {
            let client = Client::new(&url).unwrap();
            let capabilities = vec!["task_execution".to_owned()];
            let worker = maos_api::client::worker::Worker::new(client, "w", capabilities, 8);
            let opened = opened.clone();
            let work = move |given: Given| {
                let mut opened = opened.clone();
                async move {
                    if given.task.name == "held" {
                        drop(opened.wait_for(|opened| *opened).await);
                    }
                    Verdict::Completed(given.task.parameters)
                }
            };
            let mut stopped = stopped.clone();
            let stopped = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
            runtime.spawn(worker.run(work, stopped, PATIENCE))
        })
        .collect();
    let completed = |house: &House| {
        let metrics = house.call("GET", "/api/v1/system/metrics", "");
        metrics["orchestrator"]["tasks_completed"].as_u64().unwrap()
    };
    let submit = |house: &House| {
        let name = |index| json!({"name": if index % 2 == 0 { "quick" } else { "held" }});
        let body: Vec<Value> = (0..TASKS).map(name).collect();
        house.call("POST", "/api/v1/tasks/batch", &json!(body).to_string());
    };
    submit(&house);
    eventually("the first results", PATIENCE, || completed(&house) > 0);
    house.kill();
    let house = open_on(folder.path(), port);
    open.send_replace(true);
    eventually("all results", PATIENCE, || completed(&house) == TASKS as u64);
    assert!(workers.iter().all(|worker| !worker.is_finished()), "a worker gave up");
    stop.send_replace(true);
    for worker in workers {
        runtime.block_on(worker).unwrap().unwrap();
    }
    let page = house.call("GET", "/api/v1/tasks?page_size=1&status=completed", "");
    assert_eq!(page["total_items"], json!(TASKS));
    let metrics = house.call("GET", "/api/v1/system/metrics", "")["orchestrator"].clone();
    assert_eq!((&metrics["tasks_failed"], &metrics["tasks_retried"]), (&json!(0), &json!(0)));
}

/// A thousand, with `MAOS_FULL` ten thousand.
#[test]
fn many_idle_workers_cost_next_to_nothing() {
    let full = std::env::var_os("MAOS_FULL").is_some();
    // In a minute each of them polls once.
    let (workers, span) = if full { (10_000_u64, 60) } else { (1_000, 2) };
    let span = Duration::from_secs(span);
    let folder = folder(&[]);
    // The usual bound of a process: the server raises it.
    let house = House::open_with_files(folder.path(), 512);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let register = json!({"agent_type": "w", "capabilities": ["task_execution"],
        "runtime": "worker"});
    let (registering, idle, memory) = runtime.block_on(async {
        let before = processor_time(house.child.id());
        let mut streams = Vec::new();
        for _ in 0..workers {
            let mut stream = TcpStream::connect(house.address).await.unwrap();
            let made = exchange(&mut stream, "/api/v1/agents", &register).await;
            streams.push((stream, made["agent"]["id"].as_str().unwrap().to_owned()));
        }
        let registering = processor_time(house.child.id()).saturating_sub(before);
        let polls = streams.into_iter().map(|(mut stream, id)| {
            tokio::spawn(async move {
                let body = json!({"incarnation": 1, "max_tasks": 1, "wait_ms": 60_000});
                let path = format!("/api/v1/agents/{id}/poll");
                let task = loop {
                    let answer = exchange(&mut stream, &path, &body).await;
                    if let Some(task) = answer["tasks"].get(0) {
                        break task.clone();
                    }
                };
                let done = json!({"incarnation": 1, "max_tasks": 0, "outcomes": [{
                    "task_id": task["task_id"], "attempt": task["attempt"],
                    "status": "completed", "result": id}]});
                exchange(&mut stream, &path, &done).await;
            })
        });
        let polls: Vec<_> = polls.collect();
        let mut waiting = 0;
        let deadline = std::time::Instant::now() + PATIENCE;
        while waiting < workers {
            assert!(std::time::Instant::now() < deadline, "{waiting} workers wait");
            tokio::time::sleep(Duration::from_millis(20)).await;
            let page = house.call("GET", "/api/v1/agents?status=idle&page_size=1", "");
            waiting = page["total_items"].as_u64().unwrap().saturating_sub(BUILT_IN);
        }
        let idle = processor_time_of(&house, span).await;
        let memory = resident_mb(house.child.id());
        let ids: Vec<String> = (0..workers)
            .map(|_| house.submit(&json!({"name": "a", "parameters": {"n": 1}})))
            .collect();
        let done = futures_wait(polls);
        tokio::time::timeout(PATIENCE, done).await.expect("every worker gets a task");
        for id in ids {
            assert_eq!(house.ended(&id)["status"], "completed");
        }
        (registering, idle, memory)
    });
    eprintln!(
        "{workers} idle workers: {idle:?} of {span:?}, {registering:?} to register, {memory} MB"
    );
    // A twentieth of a core; where a processor is slow, no more than it took to register them all.
    let most = registering.max(span / 20);
    assert!(idle < most, "{workers} idle workers took {idle:?} of {span:?}, at most {most:?}");
    assert!(memory < 300, "{workers} idle workers take {memory} MB");
}

fn resident_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}

/// Agents that every server has.
const BUILT_IN: u64 = 5;

async fn futures_wait(polls: Vec<tokio::task::JoinHandle<()>>) {
    for poll in polls {
        poll.await.unwrap();
    }
}

/// Processor time that a server takes while `span` passes.
async fn processor_time_of(house: &House, span: Duration) -> Duration {
    let before = processor_time(house.child.id());
    tokio::time::sleep(span).await;
    processor_time(house.child.id()).saturating_sub(before)
}

fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// One request on a connection that stays open.
async fn exchange(stream: &mut TcpStream, path: &str, body: &Value) -> Value {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: maos\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    loop {
        line.clear();
        reader.read_line(&mut line).await.unwrap();
        if line == "\r\n" || line.is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer).await.unwrap();
    serde_json::from_slice(&answer).unwrap()
}

/// `maos worker exec` with these arguments, killed with its test.
struct Exec(std::process::Child);

impl Exec {
    fn start(house: &House, arguments: &[&str], program: &[&str]) -> Exec {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_maos"));
        command.args(["worker", "exec", "--server", &format!("http://{}", house.address)]);
        command.args(arguments).arg("--").args(program).current_dir(&house.folder);
        Exec(command.stderr(std::process::Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn exec_task(house: &House, capability: &str, parameters: &Value) -> String {
    house.submit(&json!({"name": "n", "required_capabilities": [capability],
        "parameters": parameters, "max_retries": 0}))
}

#[test]
fn any_program_becomes_a_worker() {
    let folder = folder(&[]);
    let house = House::open(folder.path());
    let script = "input=$(cat); case $input in *broken*) echo no luck >&2; exit 3;; \
                  *'\"bad\"'*) exit 65;; *words*) echo hello;; *) echo \"$input\";; esac";
    let arguments = ["--capability", "shelling", "--concurrency", "3"];
    let mut exec = Exec::start(&house, &arguments, &["sh", "-c", script]);
    let run = |parameters: Value| house.ended(&exec_task(&house, "shelling", &parameters));
    let echoed = run(json!({"x": "y".repeat(100_000)}));
    assert_eq!(echoed["result"]["parameters"]["x"], "y".repeat(100_000), "{}", echoed["error"]);
    for (word, error) in [
        ("broken", "ended with code 3\nno luck"),
        ("bad", "ended with code 65"),
        ("words", "its standard output is no JSON"),
    ] {
        let ended = run(json!({ "how": word }));
        let said = ended["error"].as_str().unwrap_or_default();
        assert!(ended["status"] == "failed" && said.contains(error), "{word}: {said}");
        let path = format!("/api/v1/tasks/{}/logs", ended["id"].as_str().unwrap());
        let lines = house.call("GET", &path, "")["items"].clone();
        let line = json!(if word == "broken" { Some("no luck") } else { None });
        assert_eq!((&lines[0]["line"], lines.get(1)), (&line, None), "{word}");
    }
    let many: Vec<String> =
        (0..100).map(|n| exec_task(&house, "shelling", &json!({ "n": n }))).collect();
    for (n, id) in many.iter().enumerate() {
        assert_eq!(house.ended(id)["result"]["parameters"]["n"], json!(n));
    }
    // Told to end, it leaves in order.
    let pid = rustix::process::Pid::from_child(&exec.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    eventually("the end of the worker", PATIENCE, || {
        exec.0.try_wait().unwrap().is_some_and(|status| status.success())
    });
    let agents = house.call("GET", "/api/v1/agents?capabilities=shelling", "");
    assert_eq!(agents["total_items"], json!(0), "{agents}");
}

#[test]
fn a_program_of_a_worker_is_stopped_with_its_task_and_goes_on_over_a_restart() {
    let folder = folder(&[]);
    let port = free_port();
    let mut house = open_on(folder.path(), port);
    let id = uuid::Uuid::now_v7().to_string();
    let script = "cat > /dev/null; while ! [ -e gate ]; do sleep 0.05; done; echo 7";
    let arguments = ["--capability", "waiting", "--id", &id, "--concurrency", "2"];
    let mark = format!("mark-{id}");
    let exec = Exec::start(&house, &arguments, &["sh", "-c", script, &mark]);
    let stopped = exec_task(&house, "waiting", &json!({}));
    let kept = exec_task(&house, "waiting", &json!({}));
    // The worker itself carries the mark in its arguments, too.
    eventually("two programs", PATIENCE, || crate::house::marked(&mark).len() == 3);
    house.call("DELETE", &format!("/api/v1/tasks/{stopped}"), "");
    eventually("the end of one", PATIENCE, || crate::house::marked(&mark).len() == 2);
    house.kill();
    let house = open_on(folder.path(), port);
    std::fs::write(folder.path().join("gate"), "").unwrap();
    let ended = house.ended(&kept);
    assert_eq!((&ended["result"], &ended["attempt"]), (&json!(7), &json!(1)), "{ended}");
    drop(exec);
}

#[test]
fn a_program_may_say_anything_and_more_than_is_taken() {
    let folder = folder(&[]);
    let house = House::open(folder.path());
    let script = r#"input=$(cat); printf '\377bad\n' >&2; echo second >&2
        case $input in *flood*) head -c 20000000 /dev/zero | tr '\0' 1;; *) echo 7;; esac"#;
    let _exec = Exec::start(&house, &["--capability", "saying"], &["bash", "-c", script]);
    let spoken = house.ended(&exec_task(&house, "saying", &json!({})));
    assert_eq!(
        (&spoken["status"], &spoken["result"]),
        (&json!("completed"), &json!(7)),
        "{spoken}"
    );
    let path = format!("/api/v1/tasks/{}/logs", spoken["id"].as_str().unwrap());
    let lines = house.call("GET", &path, "")["items"].clone();
    assert_eq!((&lines[0]["line"], &lines[1]["line"]), (&json!("\u{fffd}bad"), &json!("second")));
    let flooded = house.submit(&json!({"name": "n", "required_capabilities": ["saying"],
        "parameters": {"flood": true}, "max_retries": 3}));
    let flooded = house.ended(&flooded);
    let said = flooded["error"].as_str().unwrap();
    assert!(said.contains("its result has more than 16777216 bytes"), "{said}");
    assert_eq!((&flooded["status"], &flooded["attempt"]), (&json!("failed"), &json!(1)));
}

#[test]
fn nothing_is_left_of_a_program_whose_worker_is_killed() {
    let folder = folder(&[]);
    let house = House::open(folder.path());
    let mark = format!("mark-{}", uuid::Uuid::now_v7());
    // One of them is in a session of its own.
    let script = "export MARK=$0; setsid sleep 600 & exec sleep 601";
    let exec = Exec::start(&house, &["--capability", "rare"], &["sh", "-c", script, &mark]);
    exec_task(&house, "rare", &json!({}));
    let sleeping = || {
        let named = |pid: &i32| std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        crate::house::marked(&mark).iter().filter(|pid| named(pid) == b"sleep\n").count()
    };
    eventually("both programs", PATIENCE, || sleeping() == 2);
    // By SIGKILL.
    drop(exec);
    let marked = || crate::house::marked(&mark);
    eventually("their end", crate::house::GONE_WITHIN, || marked().is_empty());
}
