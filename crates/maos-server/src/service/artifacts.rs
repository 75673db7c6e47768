//! Files that are kept with a task. They come and go piece by piece: nobody holds one whole.
//!
//! Its law: what was answered is durable, the file before the event that names it. A file whose
//! task does not take it is left to the housekeeper.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use maos_api::artifacts::{
    Artifact, ArtifactEnvelope, ArtifactList, MEDIA_TYPE_DEFAULT, media_type_fault, name_fault,
};
use maos_api::error::{ApiError, ErrorCode};
use maos_api::time::UtcTime;
use maos_core::command::Command;
use maos_core::ids::{Attempt, TaskId};
use maos_core::node::Echo;
use maos_core::payload::Payload;
use maos_core::record::{Stage, TaskRecord};
use maos_core::rejection::Rejection;
use maos_core::spec;
use maos_core::time::WallTime;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::tasks::blocking;
use super::{Service, faults};
use crate::blobs::{Draft, Reader};
use crate::driver::Refused;

/// Most files that are on their way in at once.
pub(super) const UPLOADS_MAX: usize = 200;

/// A file on its way in. Dropped before it is kept, nothing of it stays.
pub struct Upload {
    service: Service,
    task: TaskId,
    attempt: Option<Attempt>,
    name: String,
    media_type: String,
    /// `None` only while it is written to, and after a fault.
    draft: Option<Draft>,
    _counted: OwnedSemaphorePermit,
}

/// A file on its way out.
pub struct Download {
    service: Service,
    /// What it is.
    pub artifact: Artifact,
    source: Source,
}

enum Source {
    /// What is left to tell of a file that travels with its task.
    Inline(Option<Arc<[u8]>>),
    Stored(Box<Reader>),
    /// It is being read, or cannot be.
    Away,
}

impl Service {
    /// The files of a task.
    ///
    /// # Errors
    /// That there is no such task.
    pub async fn artifacts(&self, id: Uuid) -> Result<ArtifactList, ApiError> {
        let record = self.record(TaskId(id.as_u128()), Duration::ZERO).await?;
        let items: Vec<Artifact> = record.artifacts().iter().map(shown).collect();
        Ok(ArtifactList { task_id: id, total_items: items.len() as u64, items })
    }

    /// One of them, to be read.
    ///
    /// # Errors
    /// That there is no such task or file, or why it cannot be read.
    pub async fn artifact(&self, id: Uuid, name: &str) -> Result<Download, ApiError> {
        let record = self.record(TaskId(id.as_u128()), Duration::ZERO).await?;
        let found = record.artifacts().iter().find(|artifact| *artifact.name == *name);
        let artifact = found.ok_or_else(|| {
            let message = format!("task `{id}` has no artifact of this name");
            ApiError::new(ErrorCode::ArtifactNotFound, message).with("task_id", id.to_string())
        })?;
        let source = match &artifact.content {
            Payload::Inline(file) => Source::Inline(Some(file.clone())),
            Payload::Stored(stored) => {
                let reader = self.inner.payloads.reader(stored.hash).await;
                Source::Stored(Box::new(reader.map_err(|why| self.storage(&why))?))
            }
        };
        Ok(Download { service: self.clone(), artifact: shown(artifact), source })
    }

    /// Begins to keep a file with a task that has not ended, in the place of one of this name.
    /// With an attempt, only while that one runs.
    ///
    /// # Errors
    /// What is wrong with it, that the task does not take it, or that too many are on their way.
    pub async fn keep_artifact(
        &self,
        id: Uuid,
        name: String,
        media_type: Option<String>,
        attempt: Option<u32>,
    ) -> Result<Upload, ApiError> {
        self.check_intake()?;
        let media_type = media_type.unwrap_or_else(|| MEDIA_TYPE_DEFAULT.to_owned());
        for (field, fault) in
            [("name", name_fault(&name)), ("content-type", media_type_fault(&media_type))]
        {
            if let Some(fault) = fault {
                let message = format!("`{field}` of an artifact {fault}");
                let error = ApiError::new(ErrorCode::ValidationFailed, message);
                return Err(error.with("fields", json!({ field: fault })));
            }
        }
        let (task, attempt) = (TaskId(id.as_u128()), attempt.map(Attempt));
        // Before all of it has come; the engine looks again.
        takes_files(&self.record(task, Duration::ZERO).await?, attempt)
            .map_err(|why| faults::rejected(&why))?;
        let counted = self.inner.room.uploads.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{UPLOADS_MAX} files are on their way already");
            ApiError::new(ErrorCode::QueueFull, message).with("bound", UPLOADS_MAX)
        })?;
        let draft = Some(self.inner.payloads.draft());
        let service = self.clone();
        Ok(Upload { service, task, attempt, name, media_type, draft, _counted: counted })
    }
}

impl Upload {
    /// Takes the next piece.
    ///
    /// # Errors
    /// That it is too large, or why it cannot be written; it must be dropped then.
    pub async fn push(&mut self, piece: Bytes) -> Result<(), ApiError> {
        let mut draft = self.draft.take().ok_or_else(broken)?;
        self.check_size(draft.bytes() + piece.len() as u64)?;
        let (draft, written) = if draft.would_write(piece.len()) {
            let append = move || {
                let written = draft.append(&piece);
                (draft, written)
            };
            blocking(append).await
        } else {
            let written = draft.append(&piece);
            (draft, written)
        };
        written.map_err(|why| self.service.storage(&why))?;
        self.draft = Some(draft);
        Ok(())
    }

    /// Refuses a size that is above the bound.
    ///
    /// # Errors
    /// That it is.
    pub fn check_size(&self, bytes: u64) -> Result<(), ApiError> {
        let bytes_max = self.service.config().api.artifact_bytes_max;
        if bytes <= bytes_max {
            return Ok(());
        }
        let message = format!(
            "the file has more than {bytes_max} bytes\n\
             hint: keep it in pieces, or raise `[api] artifact_bytes_max`"
        );
        Err(ApiError::new(ErrorCode::BodyTooLarge, message).with("bytes_max", bytes_max))
    }

    /// Keeps what has come; it is durable when this returns.
    ///
    /// # Errors
    /// That the task does not take it, or why it cannot be kept.
    pub async fn keep(mut self) -> Result<ArtifactEnvelope, ApiError> {
        let draft = self.draft.take().ok_or_else(broken)?;
        let inner = &self.service.inner;
        let kept = inner.payloads.keep_draft(draft).await;
        let content = kept.map_err(|why| self.service.storage(&why))?;
        let artifact = spec::Artifact {
            name: self.name.clone().into(),
            media_type: self.media_type.clone().into(),
            content,
            kept: WallTime(0),
        };
        let (task, attempt) = (self.task, self.attempt);
        let command = Command::KeepArtifact { task, attempt, artifact: Box::new(artifact) };
        let answer = inner.driver.run(command, Echo::Id).await;
        // It was not taken, or is in the place of another one: something may be left over.
        inner.store.note_removed();
        match answer {
            Ok(_) => {}
            Err(Refused::Rejection(Rejection::TaskNotFound(_))) => {
                // What has left the engine has ended.
                let state = self.service.stored(task).await?.stage.wire_name();
                return Err(faults::rejected(&Rejection::AlreadyEnded { task, state }));
            }
            Err(refused) => return Err(faults::refused(refused)),
        }
        let record = self.service.record(task, Duration::ZERO).await?;
        let found = record.artifacts().iter().find(|artifact| *artifact.name == *self.name);
        let artifact = found.map(shown).ok_or_else(broken)?;
        let task_id = Uuid::from_u128(task.0);
        Ok(ArtifactEnvelope { artifact, task_id, message: "artifact kept".to_owned() })
    }
}

impl Download {
    /// The next piece; `None` at its end.
    ///
    /// # Errors
    /// Why it cannot be read on.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        match std::mem::replace(&mut self.source, Source::Away) {
            Source::Inline(file) => {
                self.source = Source::Inline(None);
                Ok(file.map(|file| Bytes::copy_from_slice(&file)).filter(|file| !file.is_empty()))
            }
            Source::Stored(mut reader) => {
                let piece = reader.next_piece().await.map_err(|why| self.service.storage(&why))?;
                self.source = Source::Stored(reader);
                Ok(piece.map(Bytes::from))
            }
            Source::Away => Err(broken()),
        }
    }
}

/// Whether a task takes a file at the moment.
fn takes_files(record: &TaskRecord, attempt: Option<Attempt>) -> Result<(), Rejection> {
    let task = record.id;
    if record.stage.ended() {
        return Err(Rejection::AlreadyEnded { task, state: record.stage.wire_name() });
    }
    match attempt {
        Some(attempt)
            if record.attempt != attempt || !matches!(record.stage, Stage::Running { .. }) =>
        {
            Err(Rejection::StaleAttempt { task, attempt })
        }
        Some(_) | None => Ok(()),
    }
}

fn shown(artifact: &spec::Artifact) -> Artifact {
    let hash = match &artifact.content {
        Payload::Inline(file) => blake3::hash(file),
        Payload::Stored(stored) => blake3::Hash::from_bytes(stored.hash),
    };
    Artifact {
        name: artifact.name.to_string(),
        media_type: artifact.media_type.to_string(),
        size_bytes: artifact.content.bytes(),
        checksum: hash.to_hex().to_string(),
        created_at: UtcTime(artifact.kept.0),
    }
}

fn broken() -> ApiError {
    faults::internal(&"a file was read or written on after a fault")
}
