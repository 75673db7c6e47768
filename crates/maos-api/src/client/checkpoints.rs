//! Checkpoints, asked for by a client. Making one and going back take as long as the state is
//! large: they are waited for longer than other answers.

use std::time::Duration;

use hyper::Method;
use serde::Serialize;
use uuid::Uuid;

use super::content::Content;
use super::wire::Exchange;
use super::{Answer, Client, ClientError, path_of};
use crate::checkpoint::{CheckpointEnvelope, CheckpointGone, CheckpointList, RestoreAnswer};
use crate::paths;

/// What copying or expanding the largest state may take, on top of the usual patience.
const WORK_MAX: Duration = Duration::from_secs(1_800);

impl Client {
    /// All checkpoints, the oldest first.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn checkpoints(&self) -> Result<Answer<CheckpointList>, ClientError> {
        self.read(paths::CHECKPOINTS.to_owned()).await
    }

    /// A checkpoint.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn checkpoint(&self, id: Uuid) -> Result<Answer<CheckpointEnvelope>, ClientError> {
        self.read(path_of(paths::CHECKPOINT, id)).await
    }

    /// Makes a checkpoint of everything that was answered before. `body` has `name` and
    /// `metadata`, both optional.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn create_checkpoint(
        &self,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<CheckpointEnvelope>, ClientError> {
        let exchange = Exchange::new(Method::POST, paths::CHECKPOINTS.to_owned());
        self.call(Exchange { body: Content::json(body)?, server_wait: WORK_MAX, ..exchange }).await
    }

    /// Goes back to a checkpoint; the state until now becomes one too, which the answer names.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn restore_checkpoint(&self, id: Uuid) -> Result<Answer<RestoreAnswer>, ClientError> {
        let exchange = Exchange::new(Method::PUT, path_of(paths::CHECKPOINT_RESTORE, id));
        self.call(Exchange { server_wait: WORK_MAX, ..exchange }).await
    }

    /// Deletes a checkpoint.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn delete_checkpoint(&self, id: Uuid) -> Result<Answer<CheckpointGone>, ClientError> {
        self.call(Exchange::new(Method::DELETE, path_of(paths::CHECKPOINT, id))).await
    }
}
