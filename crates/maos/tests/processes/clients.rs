//! The Rust client and the command line against real servers that come and go.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use maos_api::client::worker::{Verdict, Worker};
use maos_api::client::{Client, ClientError, Retries, Said, WAIT_SECONDS_MAX};
use maos_api::events::{Event, EventFilter, EventKind};
use maos_api::keys::ConcurrencyLimit;
use maos_api::listing::AgentQuery;
use maos_api::logs::{LogLevel, LogQuery};
use maos_api::messages::{MailboxQuery, MessageQuery};
use maos_api::task::{BatchResult, BulkOperation, TaskStatus, TaskSubmission};
use serde_json::json;
use serde_json::value::to_raw_value;
use tokio::sync::oneshot;

use crate::house::{House, PATIENCE, eventually, free_port, open_on};
use crate::{client_examples, worker_example};

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await }).expect("it ends")
}

fn client(house: &House) -> Client {
    Client::new(&format!("http://{}", house.address)).unwrap()
}

/// Ends its process with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn maos(arguments: &[&str], server: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maos"));
    command.args(arguments).env("MAOS_SERVER", server).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn every_example_of_the_client_runs() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path());
    let url = format!("http://{}", house.address);
    for group in ["tasks", "agents", "claude", "all"] {
        wait(client_examples::run(group, &url)).unwrap_or_else(|why| panic!("{group}: {why}"));
    }
}

#[test]
fn the_example_of_a_worker_counts_words() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path());
    let url = format!("http://{}", house.address);
    let (stop, stopped) = oneshot::channel::<()>();
    let results = wait(async {
        let serving = tokio::spawn(async move {
            worker_example::serve(&url, async { drop(stopped.await) }).await
        });
        let client = client(&house);
        let count = TaskSubmission { name: "count".to_owned(), ..TaskSubmission::default() }
            .with_required_capabilities(&["count_words"]);
        let mut results = Vec::new();
        for parameters in [json!({"text": "to be or not to be"}), json!({"text": 7})] {
            let parameters = parameters.as_object().cloned().unwrap();
            let task = TaskSubmission { parameters, ..count.clone() };
            let ended = client.submit_task(&task).await.unwrap().wait().await.unwrap();
            results.push((ended.task.result.clone(), ended.task.error.clone()));
        }
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
        results
    });
    assert_eq!(results[0].0.as_ref().unwrap().get(), "6");
    let said = results[1].1.as_deref().unwrap();
    assert!(said.contains("its parameters are not what this worker takes"), "{said}");
}

#[test]
fn a_submission_waits_for_its_server_and_events_go_on_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut house = open_on(folder.path(), port);
    let url = format!("http://{}", house.address);
    let pause = Duration::from_millis(20);
    let retries = Retries { more_max: 1_000, pause_first: pause, pause_max: pause };
    let client = Client::new(&url).unwrap().with_retries(retries);
    let done = EventFilter {
        kind: Some(EventKind::Task),
        statuses: vec![TaskStatus::Completed],
        ..EventFilter::default()
    };
    wait(async {
        let mut events = client.events(&done, None);
        let named =
            |name: &str| TaskSubmission { name: name.to_owned(), ..TaskSubmission::action("noop") };
        // Nobody says when the stream is open: what happens before that is not in it.
        let first = {
            let mut next = std::pin::pin!(events.next());
            loop {
                let task = named("before");
                let ended = async { client.submit_task(&task).await.unwrap().wait().await };
                tokio::select! {
                    biased;
                    event = &mut next => break event,
                    ended = ended => drop(ended.unwrap()),
                }
            }
        };
        let names = |event: Event| match event {
            Event::Task(event) => event.name,
            other => panic!("{other:?}"),
        };
        let (id, event) = first.unwrap();
        assert_eq!((names(event), id.is_some()), ("before".to_owned(), true));
        house.kill();
        let restarted = async {
            let task = named("after");
            let submitted = client.submit_task(&task);
            let opened = tokio::task::spawn_blocking({
                let folder = folder.path().to_owned();
                move || open_on(&folder, port)
            });
            let (submitted, opened) = tokio::join!(submitted, opened);
            submitted.unwrap().wait().await.unwrap();
            opened.unwrap()
        };
        let seen = async {
            loop {
                let (_, event) = events.next().await.unwrap();
                if matches!(&event, Event::Gap { .. }) || names(event) == "after" {
                    return;
                }
            }
        };
        let ((), _house) = tokio::join!(seen, restarted);
    });
}

#[test]
fn a_rust_worker_logs_and_keeps_files_and_a_client_follows_them() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path());
    let large = folder.path().join("large");
    let bytes: Vec<u8> = (0..3_000_000_u64).map(|at| (at * at / 3 % 251) as u8).collect();
    std::fs::write(&large, &bytes).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let work = {
        let large = large.clone();
        move |given: maos_api::client::worker::Given| {
            let large = large.clone();
            async move {
                for index in 0..3 {
                    given.log(LogLevel::Info, format!("line {index}"));
                }
                let small = given.artifact("a b.txt", Some("text/plain"), b"text".to_vec()).await;
                let file = given.artifact("..large", None, large).await;
                let sizes = [small.unwrap().size_bytes, file.unwrap().size_bytes];
                Verdict::Completed(to_raw_value(&sizes).unwrap())
            }
        }
    };
    let task = wait(async {
        let worker = Worker::new(client(&house), "maker", vec!["making".to_owned()], 2);
        let ended = async { drop(stopped.await) };
        let serving = tokio::spawn(worker.run(work, ended, PATIENCE));
        let client = client(&house);
        let task = TaskSubmission { name: "make".to_owned(), ..TaskSubmission::default() };
        let task = task.with_required_capabilities(&["making"]);
        let id = client.submit_task(&task).await.unwrap().task.id;
        let query = LogQuery {
            offset: 0,
            limit: 10,
            level: LogLevel::Debug,
            follow: true,
            wait_seconds: 0,
        };
        let mut lines = client.follow_logs(id, &query);
        for index in 0..3 {
            let Some(Said::Line(item)) = lines.next().await.unwrap() else { panic!("a line") };
            assert_eq!((item.line, item.offset), (format!("line {index}"), index));
        }
        assert_eq!(lines.next().await.unwrap(), None);
        assert_eq!(lines.end().unwrap().status, TaskStatus::Completed);
        let result = client.results(id).await.unwrap();
        assert_eq!(result.results.get(), "[4,3000000]");
        let listed = client.artifacts(id).await.unwrap();
        assert_eq!(listed.items[0].media_type, "text/plain");
        let download = client.artifact(id, "..large").await.unwrap();
        assert_eq!(download.checksum, listed.items[1].checksum);
        assert!(download.whole().await.unwrap() == bytes);
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
        id.to_string()
    });
    fetches(&house, &task, &bytes, folder.path());
}

/// The same files with the command line.
fn fetches(house: &House, task: &str, bytes: &[u8], folder: &Path) {
    let url = format!("http://{}", house.address);
    let listed = maos(&["task", "artifacts", task], &url).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    assert!(text.contains("a b.txt") && text.contains("..large"), "{text}");
    let printed = maos(&["task", "artifacts", task, "--get", "a b.txt"], &url).output().unwrap();
    assert_eq!(printed.stdout, b"text");
    let copy = folder.join("copy");
    let arguments = ["task", "artifacts", task, "--get", "..large", "-o"];
    let done = maos(&arguments, &url).arg(&copy).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(std::fs::read(&copy).unwrap() == bytes);
    let missing = maos(&["task", "artifacts", task, "--get", "none"], &url).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn watch_prints_a_line_for_each_event() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path());
    let url = format!("http://{}", house.address);
    let mut child = Ended(maos(&["watch"], &url).spawn().unwrap());
    let out = child.0.stdout.take().unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| told.send(line))
    });
    let mut lines = Vec::new();
    // It may begin to watch only after the first of them.
    eventually("a line about a completed task", PATIENCE, || {
        let id = house.submit(&json!({"name": "seen", "parameters": {"action": "noop"}}));
        house.ended(&id);
        lines.extend(heard.try_iter());
        lines.iter().any(|line: &String| line.contains("completed seen"))
    });
}

#[test]
fn a_worker_says_once_that_it_cannot_reach_its_server_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let arguments = ["worker", "exec", "--capability", "rare", "--", "cat"];
    let mut child = Ended(maos(&arguments, &url).spawn().unwrap());
    let mut said = BufReader::new(child.0.stderr.take().unwrap()).lines();
    let away = said.next().unwrap().unwrap();
    assert!(away.contains("no server answers") && away.contains("trying on"), "{away}");
    let house = open_on(folder.path(), port);
    let task = json!({"name": "n", "required_capabilities": ["rare"]});
    let id = house.submit(&task);
    assert_eq!(house.ended(&id)["status"], "completed");
    assert!(said.next().unwrap().unwrap().contains("the server answers"));
    assert!(said.next().unwrap().unwrap().contains("serves rare"));
}

#[test]
fn a_worker_that_is_refused_does_not_say_that_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path());
    let url = format!("http://{}", house.address);
    let arguments = ["worker", "exec", "--capability", "Bad!", "--", "cat"];
    let refused = maos(&arguments, &url).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("capabilities") && !said.contains("serves"), "{said}");
}

fn signalled(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_worker_is_stopped_although_there_never_was_a_server() {
    use rustix::process::Signal;
    let url = format!("http://127.0.0.1:{}", free_port());
    for signal in [Signal::TERM, Signal::INT] {
        let arguments = ["worker", "exec", "--capability", "rare", "--", "cat"];
        let mut child = Ended(maos(&arguments, &url).spawn().unwrap());
        let mut said = BufReader::new(child.0.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("trying on")));
        signalled(&child.0, signal);
        eventually("its end", PATIENCE, || {
            child.0.try_wait().unwrap().is_some_and(|status| status.success())
        });
    }
}

#[test]
fn a_second_signal_ends_a_worker_and_its_program_although_the_server_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path());
    let url = format!("http://{}", house.address);
    let mark = format!("mark-{}", uuid::Uuid::now_v7());
    let script = "cat > /dev/null; sleep 600 & wait";
    let arguments =
        ["worker", "exec", "--capability", "rare", "--", "sh", "-c", script, mark.as_str()];
    let mut child = Ended(maos(&arguments, &url).spawn().unwrap());
    house.submit(&json!({"name": "n", "required_capabilities": ["rare"]}));
    // The worker itself carries the mark in its arguments, too.
    eventually("the program", PATIENCE, || crate::house::marked(&mark).len() == 2);
    house.kill();
    let mut said = BufReader::new(child.0.stderr.take().unwrap()).lines();
    signalled(&child.0, rustix::process::Signal::TERM);
    assert!(said.any(|line| line.unwrap().contains("once more to stop at once")));
    signalled(&child.0, rustix::process::Signal::TERM);
    eventually("its end", PATIENCE, || {
        child.0.try_wait().unwrap().is_some_and(|status| status.code() == Some(2))
    });
    assert!(said.any(|line| line.unwrap().contains("what ran is given up")));
    eventually("the program's end", PATIENCE, || crate::house::marked(&mark).is_empty());
}

#[test]
fn a_worker_gives_up_after_its_grace_time_if_it_cannot_tell_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path());
    let (stop, stopped) = oneshot::channel::<()>();
    let (began, begun) = tokio::sync::mpsc::unbounded_channel();
    let why = wait(async {
        let worker = Worker::new(client(&house), "maker", vec!["making".to_owned()], 2);
        let work = move |_| {
            began.send(()).unwrap();
            std::future::pending::<Verdict>()
        };
        let ended = async { drop(stopped.await) };
        let serving = tokio::spawn(worker.run(work, ended, Duration::from_millis(100)));
        let task = TaskSubmission { name: "make".to_owned(), ..TaskSubmission::default() };
        let task = task.with_required_capabilities(&["making"]);
        client(&house).submit_task(&task).await.unwrap();
        let mut begun = begun;
        begun.recv().await.unwrap();
        house.kill();
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap_err()
    });
    assert!(why.to_string().contains("was told of 1 attempts"), "{why}");
}

#[test]
fn whoever_waits_for_a_task_that_stands_still_is_told_why_once() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path());
    let url = format!("http://{}", house.address);
    let poem = json!({"name": "poem", "required_capabilities": ["rhyming"]});
    let id = house.submit(&json!({"name": "n", "subtasks": [poem]}));
    let mut watching = Ended(maos(&["task", "watch", &id], &url).spawn().unwrap());
    let mut said = BufReader::new(watching.0.stderr.take().unwrap()).lines();
    let first = said.next().unwrap().unwrap();
    assert!(first.starts_with("subtask ") && first.ends_with(" is ready: it waits for"), "{first}");
    let second = said.next().unwrap().unwrap();
    assert!(second.starts_with("1. no agent has capability `rhyming`"), "{second}");
    house.call("DELETE", &format!("/api/v1/tasks/{id}"), "");
    assert_eq!(watching.0.wait().unwrap().code(), Some(1));
    assert_eq!(said.map_while(Result::ok).filter(|line| line.contains("waits for")).count(), 0);
}

#[test]
fn the_client_speaks_of_many_tasks_plans_and_what_they_share() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path());
    let client = client(&house);
    wait(async {
        let later = json!({"name": "later", "delay_seconds": 600});
        let answers = client.submit_batch(&json!([later, {"name": " "}]), None).await.unwrap();
        let [BatchResult::Accepted { task_id }, BatchResult::Refused { error_code, .. }] =
            &answers.value[..]
        else {
            panic!("{answers:?}")
        };
        assert_eq!(error_code, "VALIDATION_FAILED");
        let id = *task_id;
        let changed = client.change_task(id, &json!({"priority": "high"})).await.unwrap();
        assert_eq!(changed.task.priority.name(), "high");
        let done = client.bulk(BulkOperation::Cancel, &[id], Some("enough")).await.unwrap();
        assert_eq!(done.successful_operations, 1);
        assert!(client.task(id, 0).await.unwrap().task.error.clone().unwrap().contains("enough"));
        assert_eq!(client.task_history(id).await.unwrap().items.len(), 2);
        assert_eq!(client.plan(id).await.unwrap().root_task_id, id);
        let preview = client.preview(&json!({"name": "n"})).await.unwrap();
        assert_eq!(preview.tasks.len(), 1);
        let message = json!({"to": {"topic": "t"}, "body": 7});
        client.send_message(&message, Some("k")).await.unwrap();
        assert_eq!(client.send_message(&message, Some("k")).await.unwrap().offset, 0);
        let mailbox = "topic:t".parse().unwrap();
        let (reader, offset) = ("me".to_owned(), None);
        let query = MessageQuery { mailbox, reader, offset, limit: 10, wait_seconds: 1 };
        assert_eq!(client.messages(&query).await.unwrap().items.len(), 1);
        let read = json!({"mailbox": "topic:t", "reader": "me", "offset": 0});
        client.acknowledge(&read).await.unwrap();
        assert!(client.messages(&query).await.unwrap().items.is_empty());
        let limit = ConcurrencyLimit { running_max: Some(2), starts_per_minute: None };
        client.set_limit("a/b", &limit).await.unwrap();
        assert!(client.keys().await.unwrap().concurrency.contains_key("a/b"));
        let wanted = json!({"requester_id": "me 1", "resources": {"cpu_cores": 2}});
        client.allocate(&wanted).await.unwrap();
        assert_eq!(client.allocations().await.unwrap().items.len(), 1);
        client.release("me 1").await.unwrap();
        assert!(!client.resources().await.unwrap().items.is_empty());
        let nightly = json!({"name": "s", "cron": "0 3 * * *", "task": {"name": "n"}});
        let schedule = client.create_schedule(&nightly).await.unwrap().schedule.id;
        assert_eq!(client.schedules().await.unwrap().items.len(), 1);
        client.delete_schedule(schedule).await.unwrap();
        let pool = client.pools().await.unwrap().items[0].name.clone();
        let changed = client.change_pool(&pool, &json!({"max": 3})).await.unwrap();
        assert_eq!(changed.pool.settings.max, 3);
        let claude = client.submit_claude(&json!({"name": "c"}), None).await.unwrap();
        let claude = claude.claude_task_id;
        assert!(client.claude_results(claude).await.is_err());
        client.cancel_claude(claude, Some("no more")).await.unwrap();
    });
}

#[test]
fn the_client_declares_weighs_pauses_and_subscribes() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path());
    let client = client(&house);
    wait(async {
        let seats = json!({"resource_type": "custom", "name": "seats", "capacity": 3});
        let seats = client.create_resource(&seats).await.unwrap().resource.id;
        client.change_resource(seats, &json!({"capacity": 5})).await.unwrap();
        let resource = client.resource(seats).await.unwrap().value.resource;
        assert_eq!((resource.kind.as_str(), resource.spec.capacity), ("seats", 5.0));
        assert_eq!(client.delete_resource(seats).await.unwrap().resource_id, seats);
        assert_eq!(refusal(client.resource(seats).await), "RESOURCE_NOT_FOUND");
        assert_eq!(client.set_weight("team/a", 3).await.unwrap().fairness["team/a"].weight, 3);
        assert!(client.unset_weight("team/a").await.unwrap().fairness.is_empty());
        let limit = ConcurrencyLimit { running_max: Some(2), starts_per_minute: None };
        assert!(client.set_limit("a/b", &limit).await.unwrap().concurrency["a/b"].is_set);
        assert!(client.unset_limit("a/b").await.unwrap().concurrency.is_empty());
        let often = json!({"name": "s", "every_seconds": 3600, "task": {"name": "n"}});
        let schedule = client.create_schedule(&often).await.unwrap().schedule.id;
        assert_eq!(client.pause_schedule(schedule, true).await.unwrap().schedule.next_run_at, None);
        client.pause_schedule(schedule, false).await.unwrap();
        let schedule = client.schedule(schedule).await.unwrap().value.schedule;
        assert!(!schedule.spec.paused && schedule.next_run_at.is_some());
        let pool = client.pools().await.unwrap().items[0].name.clone();
        assert_eq!(client.pool(&pool).await.unwrap().pool.name, pool);
        let demand = client.pool_demand(&pool).await.unwrap();
        assert_eq!(demand.value.to_string().as_bytes(), &demand.raw[..]);
        let kept = client.create_checkpoint(&json!({"name": "k"})).await.unwrap();
        let kept = client.checkpoint(kept.checkpoint.id).await.unwrap().value.checkpoint;
        assert_eq!(kept.name, "k");
        client.delete_checkpoint(kept.id).await.unwrap();
        let query = MailboxQuery { prefix: "topic:".to_owned(), ..MailboxQuery::default() };
        assert!(client.mailboxes(&query).await.unwrap().items.is_empty());
        let message = json!({"to": {"topic": "t"}, "body": 7});
        client.send_message(&message, None).await.unwrap();
        assert_eq!(client.mailboxes(&query).await.unwrap().items.len(), 1);
        let desk = json!({"mailbox": "topic:t", "url": "https://desk.example.com/hook"});
        let made = client.set_subscription("desk:1", &desk).await.unwrap();
        assert!(made.secret.is_some() && made.waiting == 0, "{made:?}");
        assert_eq!(client.subscription("desk:1").await.unwrap().secret, None);
        client.replay_subscription("desk:1").await.unwrap();
        assert_eq!(client.subscriptions().await.unwrap().items.len(), 1);
        client.end_subscription("desk:1").await.unwrap();
        assert_eq!(refusal(client.subscription("desk:1").await), "SUBSCRIPTION_NOT_FOUND");
    });
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer.unwrap_err() {
        ClientError::Api { body, .. } => body.error_code.into_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_client_finds_agents_waits_for_claude_tasks_and_reads_the_description() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path());
    let client = client(&house);
    wait(async {
        let rare =
            json!({"agent_type": "t", "capabilities": ["rare", "rarer"], "runtime": "worker"});
        client.create_agent(&rare).await.unwrap();
        for (capability, count) in [("rare", 1), ("common", 0)] {
            let capabilities = vec![capability.to_owned()];
            let query = AgentQuery { capabilities, ..AgentQuery::default() };
            assert_eq!(client.agents(&query).await.unwrap().items.len(), count, "{capability}");
        }
        let task = json!({"name": "c", "parameters": {"action": "noop"}});
        let task = client.submit_claude(&task, None).await.unwrap();
        let ended = client.claude_task(task.claude_task_id, WAIT_SECONDS_MAX).await.unwrap();
        assert_eq!(ended.task.status, TaskStatus::Completed);
        let status = client.claude_status().await.unwrap();
        assert_eq!((status.status.name(), status.total_claude_tasks), ("running", 1));
        let description = client.description().await.unwrap();
        assert!(description["paths"]["/health"].is_object());
    });
}
