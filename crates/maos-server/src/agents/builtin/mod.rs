//! Built-in agents: actions that the server itself knows, doing real work.
//!
//! Each takes typed parameters and refuses what it does not know; what is wrong with them is a
//! permanent failure that names the field. `docs/builtins.md` shows each with an example.

mod compute;
pub mod data;
mod file;
mod http;
mod join;
mod message;
mod paths;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use maos_core::ids::{Attempt, TaskId};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::{AllowedRoots, Assignment, RunAttempt, Running, Verdict, attempt_id};
use crate::messages::Bus;
use crate::outbound::Outbound;
pub(crate) use message::bounds as message_bounds;
use paths::Paths;

/// Something that built-in agents can do.
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// What `parameters.action` says.
    pub name: &'static str,
    /// What an agent needs for it.
    pub capability: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
}

const FILES: &str = "file_operations";
const DATA: &str = "data_processing";
const COMPUTATION: &str = "computation";
const COORDINATION: &str = "coordination";
const INTEGRATION: &str = "api_integration";
const MONITORING: &str = "monitoring";
const COMMUNICATION: &str = "communication";

/// Everything that built-in agents can do.
pub const ACTIONS: &[Action] = &[
    action("noop", "task_execution", "answers its own parameters"),
    action("file.read", FILES, "a file's content, as text or JSON"),
    action("file.write", FILES, "writes text or JSON, whole or not at all"),
    action("file.list", FILES, "what is in a folder"),
    action("file.copy", FILES, "copies a file"),
    action("file.move", FILES, "moves a file"),
    action("file.hash", FILES, "a file's size and BLAKE3"),
    action("file.glob", FILES, "files whose paths match a pattern"),
    action("data.sql", DATA, "a query over CSV files, JSON files and rows"),
    action("data.summarize", DATA, "counts, ranges and means of every column"),
    action("data.partition", DATA, "cuts a file or rows into parts for a fan-out"),
    action("compute.sum", COMPUTATION, "the sum of numbers"),
    action("compute.product", COMPUTATION, "the product of numbers"),
    action("compute.min", COMPUTATION, "the least of numbers"),
    action("compute.max", COMPUTATION, "the greatest of numbers"),
    action("compute.mean", COMPUTATION, "the mean of numbers"),
    action("compute.count", COMPUTATION, "how many values there are"),
    action("compute.stats", COMPUTATION, "count, sum, range, mean, median and deviation"),
    action("compute.expression", COMPUTATION, "the value of a formula"),
    action("join.collect", COORDINATION, "its inputs as a list"),
    action("join.concat", COORDINATION, "lists put together into one"),
    action("join.merge", COORDINATION, "objects put together into one"),
    action("join.group", COORDINATION, "rows of many inputs grouped and measured"),
    action("join.markdown", COORDINATION, "rows as a report with tables"),
    action("http.request", INTEGRATION, "a request to somebody else's API"),
    action("monitor.http", MONITORING, "whether a URL answers as it should"),
    action("monitor.system", MONITORING, "load, memory and disk of this machine"),
    action("message.send", COMMUNICATION, "sends a message to an agent, a task, a topic or all"),
    action("message.receive", COMMUNICATION, "messages of a mailbox, waited for if need be"),
    action("message.acknowledge", COMMUNICATION, "says which messages were handled"),
];

const fn action(name: &'static str, capability: &'static str, summary: &'static str) -> Action {
    Action { name, capability, summary }
}

/// The capability that a built-in action needs; `None` if there is no such action.
#[must_use]
pub fn capability_of(name: &str) -> Option<&'static str> {
    ACTIONS.iter().find(|action| action.name == name).map(|action| action.capability)
}

/// Why an action did not work out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) message: String,
    /// Whether it would fail again with the same parameters.
    pub(crate) permanent: bool,
}

impl Fault {
    /// The parameters are at fault.
    pub(crate) fn wrong(message: impl Into<String>) -> Fault {
        Fault { message: message.into(), permanent: true }
    }

    /// The world is at fault, and may be better later.
    pub(crate) fn failed(message: impl Into<String>) -> Fault {
        Fault { message: message.into(), permanent: false }
    }
}

/// Whether an action is to end. Work that can take long looks at it now and then.
#[derive(Clone)]
pub(crate) struct Stop(CancellationToken);

impl Stop {
    /// Ends the action without a verdict: the attempt is lost, and another one is made.
    pub(crate) fn give_up(&self) -> Fault {
        self.0.cancel();
        Fault::failed("given up")
    }

    /// A fault once the action is to end; nobody sees it, as the verdict no longer counts.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.0.is_cancelled() { Err(Fault::failed("stopped")) } else { Ok(()) }
    }

    pub(crate) async fn called(&self) {
        self.0.cancelled().await;
    }

    #[cfg(test)]
    pub(crate) fn never() -> Stop {
        Stop(CancellationToken::new())
    }

    #[cfg(test)]
    pub(crate) fn now() -> Stop {
        let token = CancellationToken::new();
        token.cancel();
        Stop(token)
    }
}

/// The runtime of built-in agents.
pub struct Builtin {
    paths: Arc<Paths>,
    data_worker: Vec<OsString>,
    bus: Bus,
    outbound: Outbound,
}

impl Builtin {
    /// Agents that touch files below `roots` only, work on data in a process of `data_worker`, send
    /// and receive over `bus`, and ask others through `outbound`.
    #[must_use]
    pub fn new(
        roots: AllowedRoots,
        data_worker: Vec<OsString>,
        bus: Bus,
        outbound: Outbound,
    ) -> Builtin {
        Builtin { paths: Arc::new(Paths::new(roots)), data_worker, bus, outbound }
    }

    async fn act(
        &self,
        (task, attempt): (TaskId, Attempt),
        parameters: Value,
        timeout: Duration,
        stop: Stop,
    ) -> Result<Value, Fault> {
        let name = parameters.get("action").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (family, verb) = match name.split_once('.') {
            _ if capability_of(&name).is_none() => {
                return Err(Fault::wrong(format!("no built-in action is called `{name}`")));
            }
            None => return Ok(parameters),
            Some((family, verb)) => (family.to_owned(), verb.to_owned()),
        };
        let paths = self.paths.clone();
        if family == "data" {
            let request = blocking(move || data::prepare(&verb, parameters, &paths)).await?;
            let id = attempt_id(task, attempt);
            return data::run_apart(&self.data_worker, &id, request, timeout, &stop).await;
        }
        if family == "message" {
            return message::act(&verb, task, parameters, &self.bus, timeout, &stop).await;
        }
        if family == "http" || family == "monitor" {
            return http::act(&name, task, parameters, &self.outbound, timeout, &stop).await;
        }
        blocking(move || match &*family {
            "file" => file::act(&verb, parameters, &paths, &stop),
            "compute" => compute::act(&verb, parameters),
            _ => join::act(&verb, parameters),
        })
        .await
    }
}

impl RunAttempt for Builtin {
    fn run(&self, assignment: Assignment) -> Running<'_> {
        Box::pin(async move {
            let Assignment { task, attempt, parameters, timeout, stop, .. } = assignment;
            // Dropped before its end, the attempt stops what goes on in other threads.
            let stop = stop.child_token();
            let dropped = stop.clone().drop_guard();
            // Its slot is taken until the work has really ended, so a stop is not answered before.
            let done = self.act((task, attempt), parameters, timeout, Stop(stop.clone())).await;
            let stopped = stop.is_cancelled();
            dropped.disarm();
            match done {
                Ok(result) => Verdict::Completed(result),
                Err(_) if stopped => Verdict::Lost { message: "stopped".to_owned() },
                Err(Fault { message, permanent }) => Verdict::Failed { message, permanent },
            }
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Fault::failed("the action failed in an unexpected way")))
}

/// What plans add to the parameters of every subtask; an action that does not name them ignores
/// them.
const FROM_PLANS: [&str; 5] = ["item", "index", "stage", "input", "inputs"];

/// The parameters of an action as its type; `wanted` are the plan's additions that it takes.
fn typed<T: DeserializeOwned>(parameters: Value, wanted: &[&str]) -> Result<T, Fault> {
    let mut members = object(parameters);
    members.remove("action");
    for name in FROM_PLANS.iter().filter(|name| !wanted.contains(name)) {
        members.remove(*name);
    }
    serde_json::from_value(Value::Object(members))
        .map_err(|why| Fault::wrong(format!("`parameters`: {why}")))
}

/// The first list that is there, with its name; an earlier result's list of rows counts as one.
fn handed<'v>(
    candidates: [(&'static str, Option<&'v Value>); 3],
) -> Result<(&'static str, &'v [Value]), Fault> {
    let missing = || Fault::wrong(format!("`{}` is missing", candidates[0].0));
    let found = candidates.iter().find_map(|(name, value)| value.map(|value| (*name, value)));
    let (name, value) = found.ok_or_else(missing)?;
    let list = value.as_array().or_else(|| value.get("rows").and_then(Value::as_array));
    let wrong = || Fault::wrong(format!("`{name}` must be a list, found {}", cut(value)));
    Ok((name, list.ok_or_else(wrong)?))
}

/// The beginning of a value, for errors.
fn cut(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_has_one_name_and_the_capability_of_its_family() {
        let mut names: Vec<&str> = ACTIONS.iter().map(|action| action.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ACTIONS.len());
        assert_eq!(capability_of("data.sql"), Some("data_processing"));
        assert_eq!(capability_of("data.magic"), None);
    }
}
