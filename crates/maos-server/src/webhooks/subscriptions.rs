//! Subscriptions: every message of a mailbox is posted to a URL, in order, until it is taken or
//! given up.
//!
//! Its law: a message is acknowledged only when it was taken, or lies in `dead:NAME`. One message
//! of a subscription is under way at a time; others do not wait for it. A subscription is a reader
//! of its mailbox like any other, so a full mailbox waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hyper::body::Bytes;
use maos_api::error::{ApiError, ErrorCode};
use maos_api::messages::{Ack, Mailbox, Message, MessageQuery, TTL_SECONDS_MAX};
use maos_api::subscriptions::{Failing, ParsedSubscription, Subscription};
use maos_api::time::UtcTime;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Secret, Target, Webhooks};
use crate::messages::{Bus, blocking, now};

/// Most subscriptions.
const SUBSCRIPTIONS_MAX: usize = 1_000;
/// Messages that are read at once.
const READ_AT_ONCE: u32 = 32;
/// Pause when messages cannot be read or given up.
const PAUSE: Duration = Duration::from_secs(2);
/// Who reads what was given up, to deliver it again.
const REPLAYER: &str = "replay";
const FACTS: &str = "subscription/";

/// What is kept of a subscription.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    mailbox: Mailbox,
    url: String,
    secret: String,
    created_at: UtcTime,
}

/// All subscriptions. Clones share everything.
#[derive(Clone)]
pub struct Subscriptions {
    bus: Bus,
    webhooks: Webhooks,
    running: Arc<Mutex<BTreeMap<String, Running>>>,
    /// One change after another.
    changing: Arc<tokio::sync::Mutex<()>>,
}

struct Running {
    line: Arc<Line>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// One subscription at work.
struct Line {
    name: String,
    kept: Kept,
    target: Target,
    bus: Bus,
    webhooks: Webhooks,
    failing: Mutex<Option<Failing>>,
    replay: Notify,
}

impl Subscriptions {
    /// Takes up the subscriptions that are kept.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub async fn open(bus: Bus, webhooks: Webhooks) -> Result<Subscriptions, ApiError> {
        let streams = bus.streams().clone();
        let facts = blocking(move || streams.facts(FACTS)).await;
        let facts = facts.map_err(|why| failed(&why))?;
        let (running, changing) = Default::default();
        let all = Subscriptions { bus, webhooks, running, changing };
        for (name, body) in facts {
            let name = name.strip_prefix(FACTS).unwrap_or_default();
            let kept: Kept = serde_json::from_slice(&body).map_err(|why| failed(&why))?;
            let secret = Secret::parse(&kept.secret).map_err(|why| failed(&why))?;
            all.start(name, kept, secret);
        }
        Ok(all)
    }

    /// Makes a subscription, or changes it. The secret is in the answer if it was made up. That
    /// the URL may be reached was checked.
    ///
    /// # Errors
    /// What is wrong with the secret, or why it cannot be kept.
    pub async fn put(
        &self,
        name: &str,
        wanted: ParsedSubscription,
    ) -> Result<Subscription, ApiError> {
        let _alone = self.changing.lock().await;
        let before = self.held().get(name).map(|running| running.line.clone());
        if before.is_none() && self.held().len() >= SUBSCRIPTIONS_MAX {
            let message = format!("there are {SUBSCRIPTIONS_MAX} subscriptions already");
            return Err(ApiError::new(ErrorCode::QueueFull, message));
        }
        let given = wanted.secret.as_deref().map(Secret::parse).transpose();
        let given = given.map_err(|why| ApiError::invalid("secret", why))?;
        let old = before.as_ref().map(|line| line.target.secret.clone());
        let made_up = given.is_none() && old.is_none();
        let secret = given.or(old).unwrap_or_else(Secret::generate);
        let kept = Kept {
            mailbox: wanted.mailbox,
            url: wanted.url,
            secret: secret.text(),
            created_at: before.as_ref().map_or(UtcTime(now()), |line| line.kept.created_at),
        };
        let body = serde_json::to_vec(&kept).map_err(|why| failed(&why))?;
        self.end(name).await;
        let same = before.is_some_and(|line| line.kept.mailbox == kept.mailbox);
        if !same || wanted.from_offset.is_some() {
            let streams = self.bus.streams();
            let (mailbox, reader) = (kept.mailbox.to_string(), reader(name));
            // From now on, unless it was asked for otherwise: as far as there is something.
            let from = wanted.from_offset.unwrap_or(u64::MAX >> 2);
            streams.forget(&mailbox, &reader).await.map_err(|why| failed(&why))?;
            streams.acknowledge(&mailbox, &reader, from).await.map_err(|why| failed(&why))?;
        }
        let fact = format!("{FACTS}{name}");
        self.bus.streams().keep(&fact, Some(body)).await.map_err(|why| failed(&why))?;
        let text = made_up.then(|| secret.text());
        let line = self.start(name, kept, secret);
        Ok(Subscription { secret: text, ..shown(&line).await? })
    }

    /// One subscription.
    ///
    /// # Errors
    /// That there is none of this name, or why it cannot be told.
    pub async fn one(&self, name: &str) -> Result<Subscription, ApiError> {
        let line = self.line(name)?;
        shown(&line).await
    }

    /// All subscriptions, by name.
    ///
    /// # Errors
    /// Why they cannot be told.
    pub async fn all(&self) -> Result<Vec<Subscription>, ApiError> {
        let lines: Vec<Arc<Line>> =
            self.held().values().map(|running| running.line.clone()).collect();
        let mut all = Vec::with_capacity(lines.len());
        for line in lines {
            all.push(shown(&line).await?);
        }
        Ok(all)
    }

    /// Ends a subscription. What it has given up stays until its time is up.
    ///
    /// # Errors
    /// That there is none of this name, or why it cannot be ended.
    pub async fn delete(&self, name: &str) -> Result<(), ApiError> {
        let _alone = self.changing.lock().await;
        let line = self.line(name)?;
        self.end(name).await;
        let streams = self.bus.streams();
        let (fact, mailbox) = (format!("{FACTS}{name}"), line.kept.mailbox.to_string());
        streams.keep(&fact, None).await.map_err(|why| failed(&why))?;
        streams.forget(&mailbox, &reader(name)).await.map_err(|why| failed(&why))
    }

    /// Has everything delivered again that was given up.
    ///
    /// # Errors
    /// That there is none of this name.
    pub fn replay(&self, name: &str) -> Result<(), ApiError> {
        self.line(name)?.replay.notify_one();
        Ok(())
    }

    /// How many there are, how many messages were delivered, and how many tries failed.
    #[must_use]
    pub fn counts(&self) -> (usize, u64, u64) {
        let (delivered, failed) = self.webhooks.counts();
        (self.held().len(), delivered, failed)
    }

    /// Those whose target does not take what it is sent, with the last fault.
    #[must_use]
    pub fn all_out_of_reach(&self) -> Map<String, Value> {
        let held = self.held();
        let failing = held.iter().filter_map(|(name, running)| {
            let failing = running.line.failing().clone()?;
            let shown = json!({"attempts": failing.attempts, "error": failing.error});
            Some((name.clone(), shown))
        });
        failing.collect()
    }

    /// Whether somebody delivers.
    ///
    /// # Errors
    /// For which subscription nobody does.
    pub fn health(&self) -> Result<(), String> {
        let held = self.held();
        let ended = |running: &Running| running.task.is_finished() && !running.stop.is_cancelled();
        match held.iter().find(|(_, running)| ended(running)) {
            Some((name, _)) => Err(format!("nobody delivers for the subscription `{name}`")),
            None => Ok(()),
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.running.lock().expect("nothing panics while it holds this lock")
    }

    fn line(&self, name: &str) -> Result<Arc<Line>, ApiError> {
        let found = self.held().get(name).map(|running| running.line.clone());
        found.ok_or_else(|| {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
            let message = format!("no subscription is called `{shown}`");
            ApiError::new(ErrorCode::SubscriptionNotFound, message).with("name", shown)
        })
    }

    fn start(&self, name: &str, kept: Kept, secret: Secret) -> Arc<Line> {
        let line = Arc::new(Line {
            name: name.to_owned(),
            target: Target { url: kept.url.clone(), secret },
            kept,
            bus: self.bus.clone(),
            webhooks: self.webhooks.clone(),
            failing: Mutex::default(),
            replay: Notify::new(),
        });
        let stop = self.bus.closing().child_token();
        let (working, stopped) = (line.clone(), stop.clone());
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = working.run() => {}
            }
        });
        let running = Running { line: line.clone(), stop, task };
        self.held().insert(name.to_owned(), running);
        line
    }

    async fn end(&self, name: &str) {
        let running = self.held().remove(name);
        if let Some(running) = running {
            running.stop.cancel();
            if let Err(why) = running.task.await {
                error!("the subscription `{name}` did not end well: {why}");
            }
        }
    }
}

impl Line {
    async fn run(&self) {
        let mut watch = self.bus.watch(&self.kept.mailbox);
        loop {
            let read = self.bus.read(&self.query(&self.kept.mailbox, &reader(&self.name))).await;
            match read {
                Ok(page) if page.items.is_empty() => tokio::select! {
                    biased;
                    () = self.replay.notified() => self.deliver_dead().await,
                    longer = watch.longer() => if longer.is_err() {
                        return;
                    },
                },
                Ok(page) => {
                    for message in &page.items {
                        self.deliver(message, &self.kept.mailbox, &reader(&self.name)).await;
                    }
                }
                Err(why) => {
                    warn!("the subscription `{}` waits: {}", self.name, why.message);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Delivers what was given up until now once more.
    async fn deliver_dead(&self) {
        let dead = Mailbox::Dead(self.name.clone());
        let end = match self.bus.streams().standing_of(&dead.to_string()).await {
            Ok(Some(standing)) => standing.next,
            Ok(None) => return,
            Err(why) => return warn!("what was given up cannot be read: {why}"),
        };
        loop {
            match self.bus.read(&self.query(&dead, REPLAYER)).await {
                Ok(page) if page.items.is_empty() => return,
                Ok(page) => {
                    for message in &page.items {
                        if message.offset >= end {
                            return;
                        }
                        self.deliver(message, &dead, REPLAYER).await;
                    }
                }
                Err(why) => return warn!("what was given up cannot be read: {}", why.message),
            }
        }
    }

    fn query(&self, mailbox: &Mailbox, reader: &str) -> MessageQuery {
        let (mailbox, reader) = (mailbox.clone(), reader.to_owned());
        MessageQuery { mailbox, reader, offset: None, limit: READ_AT_ONCE, wait_seconds: 0 }
    }

    /// Delivers a message or gives it up; it is acknowledged when this returns.
    async fn deliver(&self, message: &Message, mailbox: &Mailbox, reader: &str) {
        let body = json!({ "type": "message", "timestamp": message.created_at, "data": message });
        let body = Bytes::from(body.to_string());
        let id = message.message_id.to_string();
        let tried = |attempts: u32, why: &super::Undelivered, pause: Duration| {
            let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
            let next_at = UtcTime(now().saturating_add(micros));
            let error = why.to_string();
            *self.failing() = Some(Failing { offset: message.offset, attempts, error, next_at });
        };
        let sent = self.webhooks.send(&self.target, &id, &body, &tried).await;
        if let Err(why) = sent {
            warn!("the subscription `{}` gives up message `{id}`: {why}", self.name);
            self.give_up(message, &why.to_string()).await;
        }
        *self.failing() = None;
        let ack = Ack {
            mailbox: mailbox.clone(),
            reader: Some(reader.to_owned()),
            offset: message.offset,
        };
        while let Err(why) = self.bus.acknowledge(&ack).await {
            warn!("the subscription `{}` waits: {}", self.name, why.message);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Puts a message to those that nobody took; waits while there is no room for it.
    async fn give_up(&self, message: &Message, error: &str) {
        let dead = Mailbox::Dead(self.name.clone());
        let metadata = json!({
            "subscription": self.name,
            "mailbox": message.mailbox,
            "offset": message.offset,
            "error": error,
            "metadata": message.metadata,
        });
        let expires = now().saturating_add(TTL_SECONDS_MAX * 1_000_000);
        while let Err(why) = self.bus.copy(message, &dead, expires, metadata.to_string()).await {
            warn!("the subscription `{}` waits: {}", self.name, why.message);
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn failing(&self) -> MutexGuard<'_, Option<Failing>> {
        self.failing.lock().expect("nothing panics while it holds this lock")
    }
}

async fn shown(line: &Line) -> Result<Subscription, ApiError> {
    let streams = line.bus.streams();
    let dead_mailbox = Mailbox::Dead(line.name.clone());
    let standing = streams.standing_of(&line.kept.mailbox.to_string()).await;
    let standing = standing.map_err(|why| failed(&why))?;
    let dead = streams.standing_of(&dead_mailbox.to_string()).await.map_err(|why| failed(&why))?;
    let waiting = |standing: &crate::streams::Standing, name: &str| {
        let known = standing.readers.iter().find(|reader| reader.name == name);
        known.map_or((0, standing.entries), |reader| (reader.acknowledged, reader.waiting))
    };
    let own = standing.map_or((0, 0), |standing| waiting(&standing, &reader(&line.name)));
    Ok(Subscription {
        name: line.name.clone(),
        mailbox: line.kept.mailbox.clone(),
        url: line.kept.url.clone(),
        created_at: line.kept.created_at,
        secret: None,
        delivered: own.0.checked_sub(1),
        waiting: own.1,
        dead_mailbox,
        dead: dead.map_or(0, |standing| waiting(&standing, REPLAYER).1),
        failing: line.failing().clone(),
    })
}

/// The reader that a subscription is.
fn reader(name: &str) -> String {
    format!("webhook:{name}")
}

fn failed(why: &dyn std::fmt::Display) -> ApiError {
    error!("subscriptions: {why}");
    let message = "subscriptions cannot be kept at the moment; the server's log says more";
    ApiError::new(ErrorCode::StorageUnavailable, message)
}
