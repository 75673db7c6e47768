//! Submissions under an idempotency key that come again.
//!
//! Its law: what was accepted is never refused when it is sent again, whatever has changed since: a
//! deadline that has passed, an agent that has ended. So whoever is refused is looked up first.

use maos_api::error::ApiError;
use maos_api::task::TaskEnvelope;
use maos_core::ids::TaskId;
use maos_core::node::{Answer, Query};
use maos_core::spec::IdempotencyKey;
use uuid::Uuid;

use super::planning::{NAMESPACE, SUBMITTER};
use super::{Service, SubmitOptions, faults};

/// What is said of a task that was there already.
pub(super) const ACCEPTED_BEFORE: &str = "task was accepted before";

impl SubmitOptions {
    /// The key of a whole body as it came.
    pub(super) fn key_of_bytes(&self, body: &[u8]) -> Option<IdempotencyKey> {
        let hash = || *blake3::hash(body).as_bytes();
        self.idempotency_key.as_ref().and_then(|_| self.key_of(hash()))
    }

    /// The key of a whole body with this hash.
    pub(super) fn key_of(&self, body_hash: [u8; 32]) -> Option<IdempotencyKey> {
        let key = self.idempotency_key.as_deref()?;
        Some(IdempotencyKey { key: key.into(), body_hash, part: None })
    }
}

impl Service {
    /// The roots that these bodies became under their keys, in order, where they did.
    pub(super) async fn accepted_under(
        &self,
        keys: Vec<IdempotencyKey>,
    ) -> Result<Vec<Option<TaskId>>, ApiError> {
        let (namespace, submitter) = (NAMESPACE.into(), SUBMITTER.into());
        match self.ask(Query::Remembered { namespace, submitter, keys }).await? {
            Answer::Remembered(roots) => Ok(roots),
            _ => Err(faults::internal(&"a key was answered with something else")),
        }
    }

    /// What was accepted under this key before, instead of a refusal; else the refusal.
    pub(super) async fn accepted_or(
        &self,
        key: Option<IdempotencyKey>,
        refusal: ApiError,
    ) -> Result<TaskEnvelope, ApiError> {
        let Some(key) = key else { return Err(refusal) };
        let root = self.accepted_under(vec![key]).await?.pop().flatten();
        let Some(root) = root else { return Err(refusal) };
        let record = self.record(root, std::time::Duration::ZERO).await?;
        let task = self.present(&record).await?;
        let execution_plan_id = Uuid::from_u128(record.plan.id.0);
        let message = ACCEPTED_BEFORE.to_owned();
        Ok(TaskEnvelope { task, execution_plan_id, message, warnings: Vec::new() })
    }
}
