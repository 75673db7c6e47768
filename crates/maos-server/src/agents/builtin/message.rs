//! `message.*`: sending and receiving over the message bus.
//!
//! A task sends its message once, over all its attempts: the bus knows it by the task.

use std::time::Duration;

use maos_api::error::{ApiError, Retry};
use maos_api::messages::{
    self, Ack, LIMIT_DEFAULT, LIMIT_MAX, Mailbox, MessageQuery, NAME_CHARS_MAX, READER_DEFAULT,
};
use maos_api::submission::Bounds;
use maos_core::ids::TaskId;
use maos_core::limits;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{FROM_PLANS, Fault, Stop, object, typed};
use crate::messages::{Bus, SendOnce};

/// Longest wait for a message; the attempt's own time ends it earlier.
const WAIT_SECONDS_MAX: u64 = 24 * 3_600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Receive {
    mailbox: Option<Mailbox>,
    reader: Option<String>,
    offset: Option<u64>,
    limit: Option<u32>,
    #[serde(default)]
    wait_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Acknowledge {
    mailbox: Option<Mailbox>,
    reader: Option<String>,
    offset: u64,
}

pub(super) async fn act(
    verb: &str,
    task: TaskId,
    parameters: Value,
    bus: &Bus,
    timeout: Duration,
    stop: &Stop,
) -> Result<Value, Fault> {
    let acting = async {
        match verb {
            "send" => send(task, parameters, bus).await,
            "receive" => receive(task, typed(parameters, &[])?, bus, timeout, stop).await,
            _ => acknowledge(task, typed(parameters, &[])?, bus).await,
        }
    };
    tokio::select! {
        biased;
        () = stop.called() => Err(Fault::failed("stopped")),
        done = acting => done,
    }
}

async fn send(task: TaskId, parameters: Value, bus: &Bus) -> Result<Value, Fault> {
    let mut members = object(parameters);
    for name in FROM_PLANS.iter().chain(&["action"]) {
        members.remove(*name);
    }
    members.entry("sender").or_insert_with(|| own(task).to_string().into());
    let body = Value::Object(members).to_string();
    let draft = messages::parse(body.as_bytes(), &bounds()).map_err(|error| fault(&error))?;
    if let Some(unknown) = draft.warnings.first() {
        return Err(Fault::wrong(format!("`parameters`: {unknown}")));
    }
    let hash = blake3::hash(body.as_bytes());
    let once = SendOnce { key: format!("task/{task}/{hash}"), hash: *hash.as_bytes() };
    let receipt = bus.send(draft, Some(once)).await;
    Ok(json!(receipt.map_err(|error| fault(&error))?))
}

async fn receive(
    task: TaskId,
    wanted: Receive,
    bus: &Bus,
    timeout: Duration,
    stop: &Stop,
) -> Result<Value, Fault> {
    let limit = wanted.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Fault::wrong(format!("`limit` must be 1 to {LIMIT_MAX}, found {limit}")));
    }
    let (wait, most) = (wanted.wait_seconds, WAIT_SECONDS_MAX);
    if wait > most {
        return Err(Fault::wrong(format!("`wait_seconds` must be 0 to {most}, found {wait}")));
    }
    let query = MessageQuery {
        mailbox: wanted.mailbox.unwrap_or_else(|| own(task)),
        reader: reader(wanted.reader)?,
        offset: wanted.offset,
        limit,
        // The attempt would be timed out while it waits: an empty answer is worth more.
        wait_seconds: wait.min(timeout.as_secs().saturating_sub(1)),
    };
    let page = bus.read(&query).await.map_err(|error| fault(&error))?;
    if page.items.is_empty() && query.wait_seconds > 0 && bus.closing().is_cancelled() {
        // It was told that there is nothing because the server stops: it is to wait on after that.
        return Err(stop.give_up());
    }
    Ok(json!(page))
}

async fn acknowledge(task: TaskId, wanted: Acknowledge, bus: &Bus) -> Result<Value, Fault> {
    let ack = Ack {
        mailbox: wanted.mailbox.unwrap_or_else(|| own(task)),
        reader: Some(reader(wanted.reader)?),
        offset: wanted.offset.min(u64::MAX >> 2),
    };
    Ok(json!(bus.acknowledge(&ack).await.map_err(|error| fault(&error))?))
}

fn own(task: TaskId) -> Mailbox {
    Mailbox::Task(Uuid::from_u128(task.0))
}

fn reader(named: Option<String>) -> Result<String, Fault> {
    let name = named.unwrap_or_else(|| READER_DEFAULT.to_owned());
    let most = usize::try_from(NAME_CHARS_MAX).unwrap_or(usize::MAX);
    if name.trim().is_empty() || name.chars().count() > most {
        return Err(Fault::wrong(format!("`reader` must have 1 to {most} characters")));
    }
    Ok(name)
}

fn fault(error: &ApiError) -> Fault {
    let message = error.message.clone();
    Fault { message, permanent: error.code.retry() == Retry::Never }
}

/// What a message is read with; only its own bounds are looked at.
pub(crate) fn bounds() -> Bounds {
    Bounds {
        body_bytes_max: messages::REQUEST_BYTES_MAX,
        nesting_max: limits::NESTING_MAX,
        name_chars_max: NAME_CHARS_MAX,
        description_chars_max: 0,
        word_chars_max: NAME_CHARS_MAX,
        tags_max: 0,
        capabilities_max: 0,
        resource_kinds_max: 0,
        plan_tasks_max: 0,
        retries_max: 0,
        agent_slots_max: 0,
        task_timeout_seconds_max: 0,
    }
}
