//! Submissions under an idempotency key that come again.
//!
//! Its law: what was accepted is never refused when it is sent again, whatever has changed since: a
//! deadline that has passed, an agent that has ended. So whoever is refused is looked up first.
//! What was refused of a list is a document that the engine keeps (`REFUSALS`), durable before it
//! is told: it is not accepted later, when its sender counts on the first answer.

use std::collections::HashMap;

use maos_api::error::{ApiError, ErrorCode, Retry};
use maos_api::task::{BatchResult, TaskEnvelope};
use maos_api::time::UtcTime;
use maos_core::command::{Command, Expect};
use maos_core::ids::TaskId;
use maos_core::limits::IDEMPOTENCY_MS;
use maos_core::node::{Answer, Echo, Query};
use maos_core::payload::Payload;
use maos_core::record::EntryRecord;
use maos_core::rejection::Rejection;
use maos_core::spec::{IdempotencyKey, Name};
use serde::{Deserialize, Serialize};
use tracing::warn;
use uuid::Uuid;

use super::planning::{NAMESPACE, SUBMITTER};
use super::{Service, SubmitOptions, faults, now};
use crate::driver::Refused;

/// What is said of a task that was there already.
pub(super) const ACCEPTED_BEFORE: &str = "task was accepted before";
/// What first answers refused, by their keys.
const REFUSALS: &str = "refusals";
/// Answers of which that is kept at once.
const ANSWERS_MAX: usize = 1_000;
/// Most bytes of what is kept of one. Refusals that are alike are one.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What the first answer to a list refused for good.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refusals {
    /// BLAKE3 of the list, in hexadecimal digits.
    body: String,
    at: UtcTime,
    /// Each refusal, and the places that have it.
    alike: Vec<(BatchResult, Vec<usize>)>,
}

impl Refusals {
    /// What there is to keep of an answer, and how many refusals are too much.
    fn of(key: &IdempotencyKey, results: &[BatchResult]) -> (Refusals, usize) {
        let (mut groups, mut alike) = (HashMap::new(), Vec::<(BatchResult, Vec<usize>)>::new());
        let (mut bytes, mut left_out) = (0, 0);
        for (place, result) in results.iter().enumerate().filter(|(_, result)| is_final(result)) {
            let words = serde_json::to_string(result).unwrap_or_default();
            let known = groups.get(&words).copied();
            // A place has four digits and a comma.
            let added = 5 + if known.is_some() { 0 } else { words.len() + 5 };
            if bytes + added > ANSWER_BYTES_MAX {
                left_out += 1;
                continue;
            }
            bytes += added;
            let group = known.unwrap_or(alike.len());
            if known.is_none() {
                groups.insert(words, group);
                alike.push((result.clone(), Vec::new()));
            }
            alike[group].1.push(place);
        }
        (Refusals { body: hex(key), at: now(), alike }, left_out)
    }

    fn read(entry: &EntryRecord) -> Option<Refusals> {
        let Some(Payload::Inline(document)) = &entry.value else { return None };
        serde_json::from_slice(document).ok()
    }

    fn is_over(&self) -> bool {
        self.at.0.saturating_add(IDEMPOTENCY_MS * 1_000) <= now().0
    }

    /// The refusals by place.
    pub(super) fn places(&self) -> impl Iterator<Item = (usize, &BatchResult)> {
        let each = |(refusal, places)| std::iter::zip(places, std::iter::repeat(refusal));
        let all = self.alike.iter().flat_map(move |(refusal, places)| each((refusal, places)));
        all.map(|(place, refusal): (&usize, &BatchResult)| (*place, refusal))
    }
}

/// Whether trying again changes nothing about it.
fn is_final(result: &BatchResult) -> bool {
    match result {
        BatchResult::Accepted { .. } => false,
        BatchResult::Refused { error_code, .. } => {
            ErrorCode::from_name(error_code).is_some_and(|code| code.retry() == Retry::Never)
        }
    }
}

fn hex(key: &IdempotencyKey) -> String {
    blake3::Hash::from_bytes(key.body_hash).to_hex().to_string()
}

fn entry(key: &Name, value: Option<Payload>) -> Command {
    let expect = if value.is_some() { Expect::Absent } else { Expect::Anything };
    Command::SetEntry { register: REFUSALS.into(), key: key.clone(), value, expect }
}

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

    /// What the first answer under this key refused, if it came before.
    ///
    /// # Errors
    /// That it came with another body.
    pub(super) async fn first_refusals(
        &self,
        key: &IdempotencyKey,
    ) -> Result<Option<Refusals>, ApiError> {
        let query = Query::Entry(REFUSALS.into(), key.key.clone());
        let found = match self.inner.driver.ask(query).await {
            Ok(Answer::Entries(found)) => found,
            Ok(_) => return Err(faults::internal(&"a document was something else")),
            Err(Refused::Rejection(Rejection::EntryNotFound { .. })) => return Ok(None),
            Err(refused) => return Err(faults::refused(refused)),
        };
        let kept = found.first().and_then(Refusals::read).filter(|kept| !kept.is_over());
        if kept.as_ref().is_some_and(|kept| kept.body != hex(key)) {
            let message = format!("idempotency key `{}` was used with another body", key.key);
            return Err(ApiError::new(ErrorCode::IdempotencyConflict, message));
        }
        Ok(kept)
    }

    /// Keeps what an answer refuses for good, durable when this returns. If the same list is being
    /// answered a second time at this moment, its refusals come in the place of these.
    pub(super) async fn keep_refusals(
        &self,
        key: &IdempotencyKey,
        results: &mut [BatchResult],
    ) -> Result<(), ApiError> {
        let (refusals, left_out) = Refusals::of(key, results);
        if left_out > 0 {
            warn!(
                "{left_out} refusals of the list with the key `{}` are too much to be remembered: \
                 they are looked at anew when it comes again",
                key.key
            );
        }
        if refusals.alike.is_empty() {
            return Ok(());
        }
        let kept = self.entries(REFUSALS).await?;
        let over = |entry: &&EntryRecord| Refusals::read(entry).is_none_or(|kept| kept.is_over());
        let mut commands: Vec<Command> =
            kept.iter().filter(over).map(|kept| entry(&kept.key, None)).collect();
        if kept.len() - commands.len() >= ANSWERS_MAX {
            warn!(
                "what {ANSWERS_MAX} lists were refused is remembered: what that with the key `{}` \
                 is refused is looked at anew when it comes again",
                key.key
            );
            return Ok(());
        }
        let document = serde_json::to_vec(&refusals).map_err(|why| faults::internal(&why))?;
        commands.push(entry(&key.key, Some(Payload::inline(&document))));
        let answers = self.inner.driver.run_all(commands, Echo::Id).await;
        match answers.map_err(faults::refused)?.pop() {
            Some(Err(Rejection::EntryExists { .. })) => {
                let first = self.first_refusals(key).await?;
                for (place, refusal) in first.iter().flat_map(Refusals::places) {
                    if results.get(place).is_some_and(is_final) {
                        results[place] = refusal.clone();
                    }
                }
                Ok(())
            }
            Some(Err(rejection)) => Err(faults::refused(self.inner.driver.refused(rejection))),
            Some(Ok(_)) | None => Ok(()),
        }
    }
}
