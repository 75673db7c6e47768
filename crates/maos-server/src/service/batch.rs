//! Many submissions at once: each is taken or refused by itself, and those that are taken become
//! durable together.

use std::collections::HashMap;
use std::sync::Arc;

use maos_api::document;
use maos_api::error::{ApiError, ErrorCode};
use maos_api::submission::{self, Bounds};
use maos_api::task::BatchResult;
use maos_core::command::Command;
use maos_core::limits::{BATCH_BYTES_MAX, BATCH_TASKS_MAX};
use maos_core::node::{Answer, Echo};
use maos_core::rejection::Rejection;
use maos_core::spec::IdempotencyKey;
use uuid::Uuid;

use super::keyed::Refusals;
use super::planning::Envelope;
use super::tasks::blocking;
use super::{Service, SubmitOptions, faults};
use crate::planner::Planned;

/// Submissions that are planned on the spot; more would keep other requests waiting.
const AT_ONCE_MAX: usize = 1_000;

/// A list of submissions, looked at one by one.
struct List {
    /// The key of the whole list.
    key: Option<IdempotencyKey>,
    planned: Vec<Result<Planned, ApiError>>,
}

impl Service {
    /// Takes many submissions, a list of bodies of `POST /api/v1/tasks`, in one commit. An
    /// idempotency key covers the whole list: sent again, what was accepted is named again, and
    /// what was refused is refused again, unless it was to be tried later.
    ///
    /// # Errors
    /// That the body is no such list, that its key came with another one, or that nothing is taken
    /// at the moment. What is wrong with one submission is its own result.
    pub async fn submit_batch(
        &self,
        body: impl AsRef<[u8]> + Send + 'static,
        options: SubmitOptions,
    ) -> Result<Vec<BatchResult>, ApiError> {
        self.check_intake()?;
        let large = body.as_ref().len() > AT_ONCE_MAX * 1_024;
        let service = self.clone();
        let List { key, planned } = if large {
            blocking(move || service.plan_all(body.as_ref(), &options)).await?
        } else {
            service.plan_all(body.as_ref(), &options)?
        };
        self.admit(key, planned).await
    }

    async fn admit(
        &self,
        key: Option<IdempotencyKey>,
        planned: Vec<Result<Planned, ApiError>>,
    ) -> Result<Vec<BatchResult>, ApiError> {
        let first = match &key {
            Some(key) => self.first_refusals(key).await?,
            None => None,
        };
        let before: HashMap<usize, &BatchResult> =
            first.iter().flat_map(Refusals::places).collect();
        let mut results = Vec::with_capacity(planned.len());
        let (mut commands, mut places) = (Vec::new(), Vec::new());
        for (place, planned) in planned.into_iter().enumerate() {
            if let Some(refusal) = before.get(&place) {
                results.push((*refusal).clone());
                continue;
            }
            match planned {
                Ok(planned) => {
                    let kept = self.inner.payloads.keep_all(planned.blobs).await;
                    kept.map_err(|why| self.storage(&why))?;
                    // Filled in below.
                    results.push(BatchResult::Accepted { task_id: Uuid::nil() });
                    commands.push(Command::Submit { plan: Arc::new(planned.plan) });
                    places.push(place);
                }
                Err(error) => results.push(refused(error)),
            }
        }
        if let Some(key) = &key {
            self.find_accepted(key, &mut results).await?;
        }
        let answers = self.inner.driver.run_all(commands, Echo::Id).await;
        for (place, answer) in places.into_iter().zip(answers.map_err(faults::refused)?) {
            results[place] = match answer {
                Ok(Answer::Accepted { root, .. }) => {
                    BatchResult::Accepted { task_id: Uuid::from_u128(root.0) }
                }
                Ok(_) => refused(faults::internal(&"a submission was answered otherwise")),
                // All of it is in one commit, so whether any of it was done is not known.
                Err(rejection @ Rejection::StorageUnavailable) => {
                    return Err(faults::refused(self.inner.driver.refused(rejection)));
                }
                // The key is that of the whole body, and all of it is refused for the same.
                Err(rejection @ Rejection::IdempotencyConflict { .. }) => {
                    return Err(faults::rejected(&rejection));
                }
                Err(rejection) => refused(faults::rejected(&rejection)),
            };
        }
        if let Some(key) = key.filter(|_| first.is_none()) {
            self.keep_refusals(&key, &mut results).await?;
        }
        Ok(results)
    }

    /// Puts in the place of refusals what became of these entries when the list came before.
    async fn find_accepted(
        &self,
        whole: &IdempotencyKey,
        results: &mut [BatchResult],
    ) -> Result<(), ApiError> {
        let is_refused = |result: &BatchResult| matches!(result, BatchResult::Refused { .. });
        let places: Vec<usize> =
            (0..results.len()).filter(|at| is_refused(&results[*at])).collect();
        if places.is_empty() {
            return Ok(());
        }
        let keys = places.iter().map(|place| part_of(whole, *place)).collect();
        for (place, root) in places.into_iter().zip(self.accepted_under(keys).await?) {
            if let Some(root) = root {
                results[place] = BatchResult::Accepted { task_id: Uuid::from_u128(root.0) };
            }
        }
        Ok(())
    }

    fn plan_all(&self, body: &[u8], options: &SubmitOptions) -> Result<List, ApiError> {
        let most = usize::try_from(BATCH_TASKS_MAX).unwrap_or(usize::MAX);
        let bounds = Bounds { body_bytes_max: BATCH_BYTES_MAX, ..*self.bounds() };
        let entries = match document::list(submission::readable(body, &bounds)?, most) {
            Some(document::List::Entries(entries)) => entries,
            Some(document::List::TooLong { count }) => {
                let message =
                    format!("the body holds {count} submissions, at most {most} are taken");
                let error = ApiError::new(ErrorCode::ValidationFailed, message);
                let what = format!("has {count} entries, at most {most} are taken");
                let error = error.with_field("body", what);
                return Err(error.with("maximum", most).with("found", count));
            }
            None => return Err(no_list(body)),
        };
        let whole = options.key_of_bytes(body);
        let plan = |(index, entry): (usize, &&serde_json::value::RawValue)| {
            let idempotency = whole.as_ref().map(|key| part_of(key, index));
            let envelope =
                Envelope { idempotency, trace: options.trace.clone(), ..Envelope::default() };
            self.inner.planning.plan(entry.get().as_bytes(), envelope)
        };
        let planned = entries.iter().enumerate().map(plan).collect();
        Ok(List { key: whole, planned })
    }
}

/// The key of one entry of a list.
fn part_of(whole: &IdempotencyKey, place: usize) -> IdempotencyKey {
    IdempotencyKey { part: u32::try_from(place).ok(), ..whole.clone() }
}

fn refused(error: ApiError) -> BatchResult {
    let error_code = error.code.name().to_owned();
    BatchResult::Refused { error: error.told(), error_code, details: error.details }
}

fn no_list(body: &[u8]) -> ApiError {
    match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
        Ok(_) => {
            let message = "the body must be a list of submissions";
            let fields = serde_json::json!({ "body": "must be a list" });
            ApiError::new(ErrorCode::ValidationFailed, message).with("fields", fields)
        }
        Err(why) => submission::not_json(body, "a list of submissions", &why),
    }
}
