//! Every operation of the server's description has a method of the client that asks for it, and for
//! nothing else. A new operation needs a line in one of the lists below.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use maos_api::agent::AgentStatus;
use maos_api::client::{Client, Retries};
use maos_api::events::{EventFilter, EventKind};
use maos_api::keys::ConcurrencyLimit;
use maos_api::listing::{AgentQuery, TaskQuery};
use maos_api::logs::{LogLevel, LogQuery};
use maos_api::messages::{Mailbox, MailboxQuery, MessageQuery};
use maos_api::task::{BulkOperation, Priority, TaskStatus, TaskSubmission};
use maos_api::worker::{AttemptRef, Poll};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{answer, heads, run};

const DESCRIPTION: &str = include_str!("../../../../docs/openapi.json");
const ID: Uuid = Uuid::nil();

/// What the client leaves out, and why.
const LEFT_OUT: [(&str, &str); 4] = [
    ("cancel_task_too", "the same as `cancel`, for callers that cannot send DELETE"),
    ("cancel_claude_task_too", "the same as `cancel_claude`, for callers that cannot send DELETE"),
    ("docs", "a page for people"),
    ("redoc", "a page for people"),
];

/// An operation, and the call that must ask for it.
type Call<'c> = (&'static str, Pin<Box<dyn Future<Output = ()> + 'c>>);

macro_rules! calls {
    ($($operation:ident: $call:expr,)+) => {
        vec![$((stringify!($operation), Box::pin(async move { drop($call.await) }) as _)),+]
    };
}

fn tasks(client: &Client) -> Vec<Call<'_>> {
    let time = || Some("2026-01-01T00:00:00Z".parse().unwrap());
    let query = TaskQuery {
        page: 2,
        page_size: 3,
        statuses: vec![TaskStatus::Ready],
        priorities: vec![Priority::High],
        agent_id: Some(ID),
        parent_task_id: Some(ID),
        tags: vec!["a b".into()],
        created_after: time(),
        created_before: time(),
        search: Some("x".into()),
        cursor: Some("7".into()),
    };
    let (level, wait_seconds) = (LogLevel::Info, 1);
    let logs = LogQuery { offset: 7, limit: 8, level, follow: false, wait_seconds };
    let one = AttemptRef { task_id: ID, attempt: 1 };
    calls! {
        list_tasks: client.tasks(&query),
        submit_task: client.submit(&json!({}), None),
        submit_task: client.submit_task(&TaskSubmission::default()),
        submit_tasks: client.submit_batch(&json!({}), None),
        change_tasks: client.bulk(BulkOperation::Retry, &[ID], Some("why")),
        get_task: client.task(ID, 1),
        get_task: client.wait_for(ID),
        change_task: client.change_task(ID, &json!({})),
        cancel_task: client.cancel(ID, Some("why")),
        retry_task: client.retry(ID),
        get_task_results: client.results(ID),
        explain_task: client.explain(ID),
        get_task_events: client.task_history(ID),
        get_task_logs: client.task_logs(ID, &logs),
        get_task_logs: client.follow_logs(ID, &LogQuery::default()).next(),
        list_artifacts: client.artifacts(ID),
        get_artifact: client.artifact(ID, "a/b"),
        put_artifact: client.put_artifact(ID, "a/b", None, Some(1), b"text".to_vec()),
        bring_outcome: client.bring_outcome(one, "token", &json!({})),
        preview_plan: client.preview(&json!({})),
        get_plan: client.plan(ID),
        submit_claude_task: client.submit_claude(&json!({}), None),
        get_claude_task: client.claude_task(ID, 1),
        cancel_claude_task: client.cancel_claude(ID, Some("why")),
        get_claude_task_results: client.claude_results(ID),
        get_claude_status: client.claude_status(),
    }
}

fn agents(client: &Client) -> Vec<Call<'_>> {
    let query = AgentQuery {
        page: 2,
        page_size: 3,
        statuses: vec![AgentStatus::Idle],
        agent_type: Some("t".into()),
        capabilities: vec!["c".into()],
        tags: vec!["a b".into()],
        available_only: true,
        search: Some("x".into()),
    };
    calls! {
        list_agents: client.agents(&query),
        create_agent: client.create_agent(&json!({})),
        get_agent: client.agent(ID),
        change_agent: client.change_agent(ID, &json!({})),
        terminate_agent: client.terminate_agent(ID),
        poll: client.poll(ID, &Poll::default()),
        list_pools: client.pools(),
        get_pool: client.pool("a b"),
        change_pool: client.change_pool("a b", &json!({})),
        get_pool_demand: client.pool_demand("a b"),
        list_resources: client.resources(),
        create_resource: client.create_resource(&json!({})),
        get_resource: client.resource(ID),
        change_resource: client.change_resource(ID, &json!({})),
        delete_resource: client.delete_resource(ID),
        allocate_resources: client.allocate(&json!({})),
        list_allocations: client.allocations(),
        release_resources: client.release("a b"),
        list_keys: client.keys(),
        set_limit: client.set_limit("a/b", &ConcurrencyLimit::default()),
        unset_limit: client.unset_limit("a/b"),
        set_weight: client.set_weight("a/b", 2),
        unset_weight: client.unset_weight("a/b"),
    }
}

fn messages(client: &Client) -> Vec<Call<'_>> {
    let (reader, offset) = ("me".to_owned(), Some(3));
    let mailbox = Mailbox::Topic("t".to_owned());
    let query = MessageQuery { mailbox, reader, offset, limit: 4, wait_seconds: 1 };
    let named = MailboxQuery { prefix: "topic:".into(), after: "topic:t".into(), limit: 5 };
    calls! {
        send_message: client.send_message(&json!({}), None),
        read_messages: client.messages(&query),
        acknowledge_messages: client.acknowledge(&json!({})),
        list_mailboxes: client.mailboxes(&named),
        list_subscriptions: client.subscriptions(),
        get_subscription: client.subscription("a b"),
        set_subscription: client.set_subscription("a b", &json!({})),
        end_subscription: client.end_subscription("a b"),
        replay_subscription: client.replay_subscription("a b"),
    }
}

fn system(client: &Client) -> Vec<Call<'_>> {
    let filter = EventFilter {
        kind: Some(EventKind::Task),
        task: Some(ID),
        agent: Some(ID),
        statuses: vec![TaskStatus::Ready],
    };
    calls! {
        health: client.health(),
        detailed_health: client.detailed_health(),
        get_status: client.status(),
        get_metrics: client.metrics(),
        openapi: client.description(),
        watch_events: client.events(&filter, None).next(),
        list_checkpoints: client.checkpoints(),
        create_checkpoint: client.create_checkpoint(&json!({})),
        get_checkpoint: client.checkpoint(ID),
        delete_checkpoint: client.delete_checkpoint(ID),
        restore_checkpoint: client.restore_checkpoint(ID),
        list_schedules: client.schedules(),
        create_schedule: client.create_schedule(&json!({})),
        get_schedule: client.schedule(ID),
        pause_schedule: client.pause_schedule(ID, true),
        delete_schedule: client.delete_schedule(ID),
    }
}

/// What the description says of an operation.
struct Described {
    method: String,
    path: String,
    parameters: BTreeSet<String>,
}

fn described() -> BTreeMap<String, Described> {
    let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
    let mut all = BTreeMap::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            let in_query = |parameter: &&Value| parameter["in"] == "query";
            let name = |parameter: &Value| parameter["name"].as_str().unwrap().to_owned();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let parameters = parameters.filter(in_query).map(name).collect();
            let (method, path) = (method.to_uppercase(), path.clone());
            all.insert(id, Described { method, path, parameters });
        }
    }
    all
}

impl Described {
    /// Holds the first line of a request against this.
    fn check(&self, id: &str, line: &str) {
        let [method, target, _] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("`{id}`: {line}")
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (found, wanted) = (path.split('/'), self.path.split('/'));
        let segments = found.clone().count() == wanted.clone().count();
        let same = |(found, wanted): (&str, &str)| {
            found == wanted || (wanted.starts_with('{') && !found.is_empty())
        };
        let asks = method == self.method && segments && found.zip(wanted).all(same);
        assert!(asks, "`{id}` is {} {}, and the client asks {line}", self.method, self.path);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let name = parameter.split('=').next().unwrap();
            assert!(self.parameters.contains(name), "`{id}` has no parameter `{name}`: {line}");
        }
    }
}

/// A server that finds nothing; the first lines of what it is asked are sent.
fn finds_nothing() -> (Client, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let refusal = answer(
        r#"{"error":"gone","error_code":"TASK_NOT_FOUND","details":{},
        "timestamp":"2026-01-01T00:00:00Z","request_id":"r"}"#,
    );
    let refusal = refusal.replace("200 OK", "404 Not Found");
    let (lines, asked) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (lines, refusal) = (lines.clone(), refusal.clone());
            thread::spawn(move || {
                while let Some(line) = heads(&stream).first() {
                    lines.send(line.clone()).unwrap();
                    stream.write_all(refusal.as_bytes()).unwrap();
                }
            });
        }
    });
    (client.with_retries(Retries::NONE), asked)
}

#[test]
fn every_operation_of_the_description_has_a_method() {
    let all = described();
    let (client, asked) = finds_nothing();
    let calls = [tasks(&client), agents(&client), messages(&client), system(&client)];
    let mut called = BTreeSet::new();
    run(async {
        for (id, call) in calls.into_iter().flatten() {
            let described = all.get(id).unwrap_or_else(|| panic!("`{id}` is not described"));
            call.await;
            described.check(id, &asked.try_recv().unwrap());
            assert!(asked.try_recv().is_err(), "`{id}` is asked for once");
            called.insert(id);
        }
    });
    for (id, why) in LEFT_OUT {
        assert!(all.contains_key(id) && called.insert(id), "`{id}` is not left out: {why}");
    }
    let missing: Vec<&String> = all.keys().filter(|id| !called.contains(id.as_str())).collect();
    assert!(missing.is_empty(), "the client has no method for {missing:?}");
}
