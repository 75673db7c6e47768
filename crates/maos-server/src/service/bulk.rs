//! One operation on many tasks, and deleting.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use maos_api::bulk;
use maos_api::error::{ApiError, ErrorCode};
use maos_api::task::{BulkAnswer, BulkOperation, BulkResult};
use maos_core::ids::TaskId;
use maos_core::node::Query;
use maos_core::rejection::Rejection;
use uuid::Uuid;

use super::tasks::blocking;
use super::{Service, faults, present};
use crate::driver::Refused;
use crate::store::Removed;

/// Tasks of one request that are worked on side by side.
const AT_ONCE: usize = 64;
/// How long the engine has to let go of what has ended.
const LET_GO_MAX: Duration = Duration::from_secs(2);
const LET_GO_PAUSE: Duration = Duration::from_millis(5);

impl Service {
    /// Does one thing to many tasks, each by itself; what one of them refuses does not keep it from
    /// the others.
    ///
    /// # Errors
    /// What is wrong with the request as a whole.
    pub async fn bulk(&self, body: &[u8]) -> Result<BulkAnswer, ApiError> {
        let bulk::ParsedBulk { operation, task_ids, reason } = bulk::parse(body, self.bounds())?;
        let results: Vec<Result<(), ApiError>> = match operation {
            BulkOperation::Cancel => {
                let cancel = |id| {
                    let reason = reason.clone();
                    async move { self.cancel(id, reason).await.map(drop) }
                };
                stream::iter(task_ids.iter().copied().map(cancel)).buffered(AT_ONCE).collect().await
            }
            BulkOperation::Retry => {
                let retry = |id| async move { self.retry(id).await.map(drop) };
                stream::iter(task_ids.iter().copied().map(retry)).buffered(AT_ONCE).collect().await
            }
            BulkOperation::Delete => self.delete(&task_ids).await,
        };
        let results: Vec<BulkResult> =
            task_ids.into_iter().zip(results).map(|(id, result)| told(id, result)).collect();
        let total_operations = results.len() as u64;
        let failed_operations = results.iter().filter(|result| !result.success).count() as u64;
        Ok(BulkAnswer {
            operation,
            successful_operations: total_operations - failed_operations,
            failed_operations,
            total_operations,
            results,
        })
    }

    /// Forgets ended plans for good, each named by its root.
    async fn delete(&self, ids: &[Uuid]) -> Vec<Result<(), ApiError>> {
        let let_go = |id: Uuid| async move { self.let_go(id).await };
        let mut results: Vec<Result<(), ApiError>> =
            stream::iter(ids.iter().copied().map(let_go)).buffered(AT_ONCE).collect().await;
        let may_go = || ids.iter().zip(&results).filter(|(_, result)| result.is_ok());
        let roots: Vec<TaskId> = may_go().map(|(id, _)| TaskId(id.as_u128())).collect();
        let store = self.inner.store.clone();
        let removed = blocking(move || store.remove(&roots)).await;
        let mut removed = match removed {
            Ok(removed) => removed.into_iter(),
            Err(why) => {
                let fault = self.storage(&why);
                return ids.iter().map(|_| Err(fault.clone())).collect();
            }
        };
        for (id, result) in ids.iter().zip(&mut results) {
            if result.is_ok() {
                *result = match removed.next() {
                    Some(Removed::Gone(_)) => Ok(()),
                    Some(Removed::InUse) => Err(not_ended(*id, "is about to run again")),
                    Some(Removed::NotThere) | None => Err(not_found(*id)),
                };
            }
        }
        results
    }

    /// Waits until only the store has a plan that has ended. Refuses what is no such plan.
    async fn let_go(&self, id: Uuid) -> Result<(), ApiError> {
        let task = TaskId(id.as_u128());
        let record = self.record(task, Duration::ZERO).await?;
        if record.plan.root != task {
            let message = format!(
                "task `{id}` is part of a plan and goes with its root: delete `{}`",
                record.plan.root
            );
            return Err(ApiError::new(ErrorCode::NotARoot, message)
                .with("task_id", id.to_string())
                .with("root_task_id", record.plan.root.to_string()));
        }
        if !record.stage.ended() {
            let status = present::status(&record.stage).name();
            return Err(not_ended(id, &format!("is {status}: cancel it first")));
        }
        let deadline = Instant::now() + LET_GO_MAX;
        loop {
            let written = self.catch_up().await?;
            match self.inner.driver.ask(Query::Task(task)).await {
                Err(Refused::Rejection(Rejection::TaskNotFound(_))) => return Ok(()),
                Err(refused) => return Err(faults::refused(refused)),
                Ok(_) if Instant::now() < deadline && written => {
                    tokio::time::sleep(LET_GO_PAUSE).await;
                }
                Ok(_) => return Err(not_ended(id, "has not come to rest yet: try again shortly")),
            }
        }
    }
}

fn told(task_id: Uuid, result: Result<(), ApiError>) -> BulkResult {
    match result {
        Ok(()) => BulkResult {
            task_id,
            success: true,
            error: None,
            error_code: None,
            details: serde_json::Map::new(),
        },
        Err(error) => BulkResult {
            task_id,
            success: false,
            error: Some(error.told()),
            error_code: Some(error.code.name().to_owned()),
            details: error.details,
        },
    }
}

fn not_ended(id: Uuid, what: &str) -> ApiError {
    ApiError::new(ErrorCode::NotEnded, format!("task `{id}` {what}"))
        .with("task_id", id.to_string())
}

fn not_found(id: Uuid) -> ApiError {
    let message = format!("no task has the id `{id}`");
    ApiError::new(ErrorCode::TaskNotFound, message).with("task_id", id.to_string())
}
