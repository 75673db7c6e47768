//! The housekeeper: ended plans go by age and by number, and documents that nobody refers to go
//! with them.
//!
//! Its law: a document goes only when no task has referred to it, and nobody has kept it, for an
//! hour: whoever reads it, and a backup that copies it, has that long. It sleeps until something
//! changes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maos_core::ids::TaskId;
use maos_core::node::{Answer, Query};
use maos_core::time::WallTime;
use tokio::runtime::Handle as Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::attendant::Attendant;
use super::tasks::blocking;
use crate::blobs::Blobs;
use crate::config;
use crate::driver::Handle;
use crate::logs::Logs;
use crate::store::checkpoint::{Cause, Checkpoints};
use crate::store::{Retention, Store};

/// Changes of the store gather for this long before they are looked at.
const GATHER: Duration = Duration::from_secs(1);
/// How often age is looked at when nothing changes, and how long documents are kept.
const HOUR: Duration = Duration::from_secs(3_600);
const DAY_US: u64 = 24 * 3_600 * 1_000_000;
/// Documents that one round finds at the most.
const FOUND_MAX: usize = 1_000_000;
/// Logs whose tasks are looked for in one go.
const LOGS_AT_ONCE: u32 = 1_000;

/// The housekeeper at work.
pub(super) struct Keeper {
    rounds: Attendant,
    collecting: TaskTracker,
}

struct Rounds {
    driver: Handle,
    store: Store,
    blobs: Arc<Blobs>,
    logs: Logs,
    keep: config::Store,
    checkpoints: Arc<Checkpoints>,
    /// Logs of which no task was found when they were looked for last.
    orphans: HashSet<TaskId>,
    /// Documents that nobody referred to when they were looked for last, an hour ago.
    doomed: HashSet<[u8; 32]>,
    /// Plans went since then.
    removed: bool,
    stop: CancellationToken,
    /// A removal that has begun is told to its end: whoever keeps the same document waits for it.
    collecting: TaskTracker,
}

impl Keeper {
    pub(super) fn start(
        driver: Handle,
        store: Store,
        blobs: Arc<Blobs>,
        (logs, checkpoints): (Logs, Arc<Checkpoints>),
        keep: config::Store,
    ) -> Keeper {
        let collecting = TaskTracker::new();
        let kept = collecting.clone();
        let rounds = Attendant::start("housekeeper", |stop| {
            let rounds = Rounds {
                driver,
                store,
                blobs,
                logs,
                keep,
                checkpoints,
                orphans: HashSet::new(),
                doomed: HashSet::new(),
                // What an earlier server left is looked for once.
                removed: true,
                stop,
                collecting: kept,
            };
            rounds.run()
        });
        Keeper { rounds, collecting }
    }

    /// Ends it; what it has begun is finished by the store itself.
    pub(super) async fn stop(self) {
        self.rounds.stop().await;
        self.collecting.close();
        self.collecting.wait().await;
    }
}

impl Rounds {
    async fn run(mut self) {
        let mut synced = self.store.synced();
        let retains = self.keep.keep_days > 0 || self.keep.keep_tasks > 0;
        let mut due = Instant::now() + HOUR;
        loop {
            if retains {
                self.retain().await;
            }
            self.removed |= self.store.take_removed();
            if Instant::now() >= due {
                due += HOUR;
                if self.removed || !self.doomed.is_empty() {
                    self.collect().await;
                }
            }
            let hour = due.saturating_duration_since(Instant::now());
            tokio::select! {
                biased;
                changed = synced.changed(), if retains => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(hour) => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    async fn retain(&self) {
        let aged = u64::from(self.keep.keep_days) * DAY_US;
        let keep = Retention {
            ended_before: (aged > 0).then(|| WallTime(super::now().0.saturating_sub(aged))),
            tasks_max: (self.keep.keep_tasks > 0).then_some(self.keep.keep_tasks),
        };
        let store = self.store.clone();
        match blocking(move || store.retain(&keep)).await {
            Ok(0) => {}
            Ok(gone) => info!(tasks = gone, "{gone} ended tasks were removed, as `[store]` says"),
            Err(why) => warn!("ended tasks could not be removed: {why}"),
        }
    }

    /// Removes logs that a crash left without their task: those that had none an hour ago either.
    async fn sweep_logs(&mut self) {
        let (store, logs) = (self.store.clone(), self.logs.clone());
        let checkpoints = self.checkpoints.clone();
        let found = match blocking(move || orphans(&store, &logs, &checkpoints)).await {
            Ok(found) => found,
            Err(why) => return warn!("logs without a task could not be looked for: {why}"),
        };
        let gone: Vec<TaskId> = found.intersection(&self.orphans).copied().collect();
        self.logs.forget(&gone);
        self.orphans = found;
    }

    /// Removes the documents that were not referred to an hour ago either, and looks for others.
    async fn collect(&mut self) {
        // What the store does not have yet may refer to any of them.
        let Ok(Answer::Figures(figures)) = self.driver.ask(Query::Figures).await else { return };
        if !self.store.catch_up(figures.durable, GATHER).await {
            return;
        }
        self.removed = false;
        self.sweep_logs().await;
        let (store, blobs) = (self.store.clone(), self.blobs.clone());
        let doomed = std::mem::take(&mut self.doomed);
        let checkpoints = self.checkpoints.clone();
        let stop = self.stop.clone();
        let collected = self.collecting.spawn_blocking(move || {
            let kept = checkpoints.documents()?;
            collect(&store, &blobs, &doomed, &kept, &stop)
        });
        let collected = collected.await;
        match collected.expect("collecting does not panic") {
            Ok((gone, found)) => {
                if gone > 0 {
                    info!("{gone} documents that no task refers to were removed");
                }
                self.doomed = found;
            }
            Err(why) => {
                warn!("documents could not be collected: {why}");
                self.removed = true;
            }
        }
    }
}

/// The tasks that have a log and are not in the store, and that no checkpoint could bring back.
/// Those that make themselves do not count: they are gone sooner than an orphan is.
fn orphans(
    store: &Store,
    logs: &Logs,
    checkpoints: &Checkpoints,
) -> Result<HashSet<TaskId>, String> {
    let held = checkpoints.list().map_err(|why| why.to_string())?;
    let held = held.iter().filter(|held| held.cause != Cause::Automatic);
    let last_us = held.map(|held| held.created_us).max().unwrap_or(0);
    let (mut found, mut after) = (HashSet::new(), None);
    loop {
        let tasks = logs.tasks(after, LOGS_AT_ONCE).map_err(|why| why.to_string())?;
        for task in &tasks {
            let may_come_back = created_us(*task) <= last_us;
            if !may_come_back && store.task(*task).map_err(|why| why.to_string())?.is_none() {
                found.insert(*task);
            }
        }
        match tasks.last() {
            Some(last) if found.len() < FOUND_MAX => after = Some(*last),
            Some(_) | None => return Ok(found),
        }
    }
}

/// When a task was given its id, which begins with the milliseconds since the Unix epoch.
fn created_us(task: TaskId) -> u64 {
    u64::try_from(task.0 >> 80).unwrap_or(u64::MAX).saturating_mul(1_000)
}

/// Removes those of `doomed` that still nobody refers to and that are not `kept`; says how many
/// went, and which others nobody refers to. Blocks, within a runtime; ends early when it is
/// stopped.
fn collect(
    store: &Store,
    blobs: &Blobs,
    doomed: &HashSet<[u8; 32]>,
    kept: &HashSet<[u8; 32]>,
    stop: &CancellationToken,
) -> Result<(u64, HashSet<[u8; 32]>), crate::store::StoreError> {
    let runtime = Runtime::current();
    let mut gone = 0;
    for hash in doomed.iter().take_while(|_| !stop.is_cancelled()) {
        if !kept.contains(hash)
            && !store.refers_to(hash)?
            && runtime.block_on(blobs.remove_quiet(hash, HOUR))?
        {
            gone += 1;
        }
    }
    let listing = stop.run_until_cancelled(blobs.quiet(HOUR, FOUND_MAX));
    let quiet = runtime.block_on(listing).transpose()?.unwrap_or_default();
    let mut found = HashSet::new();
    for hash in quiet {
        if !kept.contains(&hash) && !store.refers_to(&hash)? {
            found.insert(hash);
        }
    }
    Ok((gone, found))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use maos_core::engine::Rows;

    use super::*;
    use crate::data_dir::DataDir;
    use crate::logs::Line;
    use maos_api::logs::{LogLevel, LogSource};
    use maos_api::time::UtcTime;
    use maos_core::ids::{Attempt, NodeId};
    use uuid::Uuid;

    #[tokio::test]
    async fn a_log_without_a_task_stays_while_a_checkpoint_could_bring_the_task_back() {
        let folder = tempfile::tempdir().unwrap();
        let dir = Arc::new(DataDir::open(folder.path()).unwrap());
        let (store, Rows { .. }) = Store::open(&dir).unwrap();
        let logs =
            Logs::open(&folder.path().join("logs.db"), config::Logs::default(), NodeId(1)).unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        let [early, late] = [1_000_u128, 3_000].map(|millis| TaskId(millis << 80));
        for task in [early, late] {
            let (level, source) = (LogLevel::Info, LogSource::Worker);
            let line = Line { time: UtcTime(0), level, source, text: "x".into() };
            logs.note(task, Attempt(1), vec![line]).unwrap().await.unwrap().unwrap();
        }
        let make = |cause| {
            let id = Uuid::now_v7();
            checkpoints.create(id, "c".into(), cause, 2_000_000, <_>::default()).unwrap();
            id
        };
        make(Cause::Automatic);
        let found = || orphans(&store, &logs, &checkpoints).unwrap();
        assert_eq!(found(), HashSet::from([early, late]));
        let held = make(Cause::BeforeRestore);
        assert_eq!(found(), HashSet::from([late]), "the other one was there before it was made");
        checkpoints.remove(held).unwrap();
        assert_eq!(found(), HashSet::from([early, late]));
        store.close();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_document_goes_in_the_second_round_that_finds_it_without_a_task() {
        let folder = tempfile::tempdir().unwrap();
        let dir = Arc::new(DataDir::open(folder.path()).unwrap());
        let (store, Rows { .. }) = Store::open(&dir).unwrap();
        let blobs = Arc::new(Blobs::local(&dir.blobs()).unwrap());
        let [old, kept_again] = [b"old...", b"again."].map(|document| document.to_vec());
        let old = aged(&blobs, &dir, old).await;
        let kept_again = aged(&blobs, &dir, kept_again).await;
        let collect = async |doomed: HashSet<[u8; 32]>| {
            let (store, blobs) = (store.clone(), blobs.clone());
            let stop = CancellationToken::new();
            let round = move || collect(&store, &blobs, &doomed, &HashSet::new(), &stop);
            blocking(round).await.unwrap()
        };
        let (gone, found) = collect(HashSet::new()).await;
        assert_eq!((gone, &found), (0, &HashSet::from([old, kept_again])));
        // Meanwhile somebody submits one of them again.
        blobs.write(b"again.".to_vec()).await.unwrap();
        assert_eq!(collect(found).await, (1, HashSet::new()));
        assert!(blobs.read(&old).await.is_err() && blobs.read(&kept_again).await.is_ok());
        store.close();
    }

    /// A document that was kept two hours ago.
    async fn aged(blobs: &Blobs, dir: &DataDir, document: Vec<u8>) -> [u8; 32] {
        let hash = blobs.write(document).await.unwrap();
        let name = blake3::Hash::from_bytes(hash).to_hex();
        let file = dir.blobs().join(&name[..2]).join(&name[2..]);
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_modified(SystemTime::now() - 2 * HOUR).unwrap();
        hash
    }
}
