//! The service: what MAOS does for whoever asks, in the words of the wire contract.
//!
//! It checks, plans and asks the driver; what has left the engine it finds in the store. It knows
//! no HTTP, so that `maos run` and an application that embeds MAOS use it as the server does.

mod abilities;
mod agents;
mod amend;
mod artifacts;
mod attendant;
mod batch;
mod bulk;
mod callbacks;
pub(crate) mod checkpoints;
mod claude;
mod cursor;
mod events;
mod faults;
mod figures;
mod history;
mod keyed;
mod keys;
mod lists;
mod logs;
mod messages;
mod outcomes;
mod planning;
mod plans;
mod pools;
mod post;
mod present;
mod resources;
mod retention;
mod schedules;
mod shortages;
mod start;
mod subscriptions;
mod tasks;
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use maos_api::error::{ApiError, ErrorCode};
use maos_api::submission::Bounds;
use maos_api::time::UtcTime;
use maos_core::ids::{Epoch, NodeId};
use maos_core::node::{Answer, Query};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::agents::Sinks;
use crate::agents::http::HttpAgents;
use crate::agents::worker::Workers;
use crate::config::Config;
use crate::driver::{Handle, Waiting};
use crate::feed::Feed;
use crate::logs::Logs;
use crate::messages::Bus;
use crate::payloads::Payloads;
use crate::store::Store;
use crate::store::checkpoint::Checkpoints;
use crate::supervisor::Supervisor;
use crate::webhooks::{Subscriptions, Webhooks};

pub use artifacts::{Download, Upload};
pub use events::Events;
pub use keys::KeyKind;
pub use logs::{Followed, Follower};
pub(crate) use outcomes::OUTCOME_BYTES_MAX;
pub(crate) use start::{Reign, start_under};
pub use start::{Server, Setup, StartError, start};
pub use tasks::{Snapshot, SubmitOptions};

/// Answers requests. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    driver: Handle,
    store: Store,
    payloads: Payloads,
    config: Config,
    planning: Arc<planning::Planning>,
    node: NodeId,
    epoch: Epoch,
    reign: Reign,
    rows: Arc<figures::RowCounts>,
    feed: Feed,
    logs: Logs,
    bus: Bus,
    subscriptions: Subscriptions,
    webhooks: Webhooks,
    room: Room,
    ending: Ending,
    progress: tasks::ProgressBoard,
    supervisor: Arc<Supervisor>,
    workers: Arc<Workers>,
    http_agents: Arc<HttpAgents>,
    sinks: Sinks,
    checkpoints: Arc<Checkpoints>,
    /// Tells when tasks wait for an agent.
    waiting: Arc<Waiting>,
    alone: Alone,
    /// Wakes who watches the calendar.
    schedules_changed: tokio::sync::Notify,
}

/// What one request does at a time.
#[derive(Default)]
struct Alone {
    /// Held while something is worked out from documents and written back.
    changes: tokio::sync::Mutex<()>,
    /// Held while a plan that has left the engine is brought back: rows that were read before
    /// another brought it back must not become what it is.
    revival: tokio::sync::Mutex<()>,
}

/// What has come to its end already, when the service does.
#[derive(Default)]
struct Ending {
    /// Nothing new is taken.
    intake: AtomicBool,
    /// Nobody waits for what comes next: events, lines, messages.
    streams: CancellationToken,
    /// Nobody waits for the end of a task.
    waits: CancellationToken,
}

/// How many more may do what takes memory for long.
struct Room {
    /// Those who follow a log.
    followers: Arc<Semaphore>,
    /// Files on their way in.
    uploads: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Room {
        let room = |most| Arc::new(Semaphore::new(most));
        Room { followers: room(logs::FOLLOWERS_MAX), uploads: room(artifacts::UPLOADS_MAX) }
    }
}

impl Service {
    /// What the configuration says.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Bounds on what comes in.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.inner.planning.bounds
    }

    pub(crate) fn reign(&self) -> Reign {
        self.inner.reign.clone()
    }

    /// Takes nothing new from now on; what runs goes on.
    pub fn stop_intake(&self) {
        self.inner.ending.intake.store(true, Ordering::Release);
        self.end_streams();
    }

    /// Answers at once whoever waits for something to happen, with what there is.
    pub(crate) fn end_waits(&self) {
        self.inner.ending.waits.cancel();
        self.end_streams();
    }

    fn end_streams(&self) {
        self.inner.workers.close();
        self.inner.feed.close();
        self.inner.ending.streams.cancel();
        self.inner.bus.stop_waiting();
    }

    /// Whether intake was stopped.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.inner.ending.intake.load(Ordering::Acquire)
    }

    fn check_intake(&self) -> Result<(), ApiError> {
        if self.stopping() {
            let message = "the server is shutting down and takes nothing new";
            return Err(ApiError::new(ErrorCode::ShuttingDown, message));
        }
        if self.inner.store.is_full() {
            let message = "the store has not caught up with what was submitted: try again shortly";
            return Err(ApiError::new(ErrorCode::QueueFull, message));
        }
        Ok(())
    }

    async fn ask(&self, query: Query) -> Result<Answer, ApiError> {
        self.inner.driver.ask(query).await.map_err(faults::refused)
    }
}

/// An id from the outside.
///
/// # Errors
/// That it is none.
pub fn parse_id(text: &str) -> Result<Uuid, ApiError> {
    Uuid::parse_str(text).map_err(|_| {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
        let message = format!("`{shown}` is not an id");
        ApiError::new(ErrorCode::MalformedId, message)
    })
}

/// The time that a calendar shows.
#[must_use]
pub fn now() -> UtcTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UtcTime(u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX))
}

fn new_id() -> u128 {
    Uuid::now_v7().as_u128()
}
