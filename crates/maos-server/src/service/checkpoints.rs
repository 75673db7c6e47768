//! Checkpoints: made on request and by themselves, listed, removed. Going back to one is for the
//! host, which starts the service anew.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maos_api::checkpoint::{
    self, Checkpoint, CheckpointEnvelope, CheckpointGone, CheckpointList, CheckpointType,
    RestoreAnswer,
};
use maos_api::error::{ApiError, ErrorCode};
use maos_api::time::UtcTime;
use maos_core::ids::Sequence;
use maos_core::node::{Answer, Query};
use serde_json::Map;
use tokio::sync::oneshot;
use tracing::{debug, warn};
use uuid::Uuid;

use super::attendant::Attendant;
use super::tasks::blocking;
use super::{Service, faults, new_id, now};
use crate::process;
use crate::store::StoreError;
use crate::store::checkpoint::{Cause, Checkpoints, Manifest};

/// Most checkpoints that somebody asked for.
const MANUAL_MAX: usize = 100;
/// So much longer than the last one took passes before the next one is made by itself.
const REST: u32 = 50;

pub(crate) fn shown(manifest: &Manifest) -> Checkpoint {
    Checkpoint {
        id: manifest.id,
        name: manifest.name.clone(),
        kind: match manifest.cause {
            Cause::Manual => CheckpointType::Manual,
            Cause::Automatic => CheckpointType::Automatic,
            Cause::BeforeRestore => CheckpointType::BeforeRestore,
        },
        created_at: UtcTime(manifest.created_us),
        size_bytes: manifest.size_bytes,
        tasks: manifest.tasks,
        checksum: manifest.hash.clone(),
        metadata: manifest.metadata.clone(),
    }
}

impl Service {
    /// All checkpoints.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn checkpoints(&self) -> Result<CheckpointList, ApiError> {
        let found = self.with_checkpoints(Checkpoints::list).await?;
        let items: Vec<Checkpoint> = found.iter().map(shown).collect();
        Ok(CheckpointList { total_items: items.len() as u64, items })
    }

    /// One checkpoint.
    ///
    /// # Errors
    /// That there is none with this id.
    pub async fn checkpoint(&self, id: Uuid) -> Result<CheckpointEnvelope, ApiError> {
        let found = self.with_checkpoints(move |all| all.find(id)).await?;
        let checkpoint = shown(&found.ok_or_else(|| not_found(id))?);
        let message = format!("checkpoint is {}", checkpoint.kind.name());
        Ok(CheckpointEnvelope { checkpoint, message, warnings: Vec::new() })
    }

    /// Makes a checkpoint of everything that was answered before.
    ///
    /// # Errors
    /// What is wrong with the request, or why none can be made.
    pub async fn create_checkpoint(&self, body: &[u8]) -> Result<CheckpointEnvelope, ApiError> {
        self.check_intake()?;
        let parsed = checkpoint::parse(body, self.bounds())?;
        let manual = self.with_checkpoints(Checkpoints::list).await?;
        let manual = manual.iter().filter(|held| held.cause == Cause::Manual).count();
        if manual >= MANUAL_MAX {
            let message = format!("there are {MANUAL_MAX} checkpoints already: delete one");
            return Err(ApiError::new(ErrorCode::QueueFull, message).with("bound", MANUAL_MAX));
        }
        let manifest = self.make(parsed.name, Cause::Manual, parsed.metadata).await?;
        let message = "checkpoint made".to_owned();
        let warnings = parsed.warnings;
        Ok(CheckpointEnvelope { checkpoint: shown(&manifest), message, warnings })
    }

    /// Deletes a checkpoint.
    ///
    /// # Errors
    /// That there is none with this id.
    pub async fn delete_checkpoint(&self, id: Uuid) -> Result<CheckpointGone, ApiError> {
        if !self.with_checkpoints(move |all| all.remove(id)).await? {
            return Err(not_found(id));
        }
        Ok(CheckpointGone { message: "checkpoint deleted".to_owned(), checkpoint_id: id })
    }

    /// Expands a checkpoint, so that only its turn is left to come.
    pub(crate) async fn expand_checkpoint(&self, id: Uuid) -> Result<Manifest, ApiError> {
        let found = self.with_checkpoints(move |all| all.find(id)).await?;
        let manifest = found.ok_or_else(|| not_found(id))?;
        let expanded = manifest.clone();
        self.with_checkpoints(move |all| all.expand(&expanded)).await?;
        Ok(manifest)
    }

    /// Copies the present state and says that the next start is to be at `target`. The server must
    /// have ended: nothing comes in between the copy and that.
    pub(crate) async fn begin_restore(&self, target: &Manifest) -> Result<RestoreAnswer, ApiError> {
        let (id, created, epoch) = (Uuid::from_u128(new_id()), now(), self.inner.epoch);
        let name = format!("before `{}`", target.name);
        let restored = target.clone();
        let before = self.with_checkpoints(move |all| {
            let cause = Cause::BeforeRestore;
            let marked = all
                .create(id, name, cause, created.0, Map::new())
                .and_then(|before| all.begin_restore(&restored, epoch).map(|()| before));
            if marked.is_err() {
                all.discard();
            }
            marked
        });
        let message = "the state is that of the checkpoint; logs and messages are as they were";
        let message = message.to_owned();
        Ok(RestoreAnswer { message, restored: shown(target), before: shown(&before.await?) })
    }

    async fn make(
        &self,
        name: Option<String>,
        cause: Cause,
        metadata: Map<String, serde_json::Value>,
    ) -> Result<Manifest, ApiError> {
        // Before the store is made to write what it has, and until all is done: it goes with the
        // work, which nobody cuts off, and not with who waits for it.
        let busy = self.inner.driver.busy_disk();
        let Answer::Figures(figures) = self.ask(Query::Figures).await? else {
            return Err(faults::internal(&"figures were something else"));
        };
        self.inner.store.reach(figures.durable).await;
        let (id, created) = (Uuid::from_u128(new_id()), now());
        let name = name.unwrap_or_else(|| created.to_string());
        let checkpoints = self.inner.checkpoints.clone();
        let made = in_the_background(move || {
            let _busy = busy;
            checkpoints.create(id, name, cause, created.0, metadata)
        });
        let made = made.await.map_err(|why| self.storage(&why))?;
        made.map_err(|why| self.storage(&why))
    }

    async fn with_checkpoints<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Checkpoints) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let checkpoints = self.inner.checkpoints.clone();
        blocking(move || work(&checkpoints)).await.map_err(|why| match &why {
            StoreError::Checkpoint { path, .. } => damaged(path, &why),
            _ => self.storage(&why),
        })
    }
}

/// It stays as it is whatever the disk does: no reason to try again.
fn damaged(file: &Path, why: &StoreError) -> ApiError {
    let error = ApiError::new(ErrorCode::CheckpointDamaged, why.to_string());
    // Files of a checkpoint are named by its id.
    match file.file_stem().and_then(|id| id.to_str()) {
        Some(id) => error.with("checkpoint_id", id),
        None => error,
    }
}

/// Does what takes seconds of a processor on a thread that yields to all others.
async fn in_the_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name("maos-checkpoint".into()).spawn(move || {
        process::yield_to_others();
        // Whoever asked may have gone away.
        drop(done.send(work()));
    })?;
    Ok(result.await.expect("making a checkpoint does not panic"))
}

pub(crate) fn not_found(id: Uuid) -> ApiError {
    let message = format!("no checkpoint has the id `{id}`");
    ApiError::new(ErrorCode::CheckpointNotFound, message).with("checkpoint_id", id.to_string())
}

/// Makes checkpoints by itself, and removes the oldest of those. One that is being made when it is
/// stopped is finished by itself.
pub(super) fn attend(service: Service) -> Attendant {
    Attendant::start("checkpoints' watch", |_| async move { watch(&service).await })
}

async fn watch(service: &Service) {
    let settings = service.config().checkpoints;
    if settings.every_seconds == 0 {
        return;
    }
    let every = Duration::from_secs(settings.every_seconds);
    let mut pause = every;
    let mut last = Sequence(0);
    let mut synced = service.inner.store.synced();
    loop {
        tokio::time::sleep(pause).await;
        // Nothing is written while nothing changes.
        if synced.wait_for(|position| position.sequence > last).await.is_err() {
            return;
        }
        let begun = Instant::now();
        match service.make(None, Cause::Automatic, Map::new()).await {
            Ok(made) => {
                last = made.position().sequence;
                debug!(checkpoint.id = %made.id, "a checkpoint was made");
            }
            Err(why) => warn!("no checkpoint could be made: {why}"),
        }
        pause = every.max(begun.elapsed() * REST);
        let keep = usize::try_from(settings.keep).unwrap_or(usize::MAX);
        let checkpoints = service.inner.checkpoints.clone();
        if let Err(why) = blocking(move || thin_out(&checkpoints, keep)).await {
            warn!("old checkpoints could not be removed: {why}");
        }
    }
}

/// Removes the oldest of those that nobody asked for.
fn thin_out(checkpoints: &Arc<Checkpoints>, keep: usize) -> Result<(), StoreError> {
    for cause in [Cause::Automatic, Cause::BeforeRestore] {
        let all = checkpoints.list()?;
        let own: Vec<&Manifest> = all.iter().filter(|held| held.cause == cause).collect();
        for gone in own.iter().take(own.len().saturating_sub(keep)) {
            checkpoints.remove(gone.id)?;
        }
    }
    Ok(())
}
