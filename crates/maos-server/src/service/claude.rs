//! Tasks as clients of Claude Code know them: the same tasks under ids of their own.

use std::time::Duration;

use maos_api::claude::{
    self, ClaudeAccepted, ClaudeMetrics, ClaudeOrchestratorStatus, ClaudeTaskStatus,
    OrchestratorState, Translated,
};
use maos_api::error::{ApiError, ErrorCode};
use maos_api::task::{CancelAnswer, Task, TaskResults};
use maos_core::ids::TaskId;
use uuid::Uuid;

use super::callbacks::Callback;
use super::planning::Envelope;
use super::tasks::blocking;
use super::{Service, SubmitOptions};
use crate::store::{Start, TaskFilter};

impl Service {
    /// Accepts a task in the form of these clients.
    ///
    /// # Errors
    /// What is wrong with it, or why it is not taken at the moment.
    pub async fn submit_claude(
        &self,
        body: &[u8],
        options: SubmitOptions,
    ) -> Result<ClaudeAccepted, ApiError> {
        self.check_intake()?;
        let Translated { document, callback_url, fault } = claude::submission(body, self.bounds())?;
        let unreachable = callback_url.as_deref().and_then(|url| self.check_callback(url).err());
        let key = options.key_of(hash(body));
        let idempotency = key.clone();
        let envelope = Envelope { idempotency, trace: options.trace, origin: Some(claude::SOURCE) };
        let planned = self.inner.planning.plan(document.as_bytes(), envelope);
        // One answer tells all that is wrong.
        let planned = match fault.into_iter().chain(unreachable).reduce(ApiError::and) {
            Some(fault) => Err(planned.err().into_iter().fold(fault, ApiError::and)),
            None => planned,
        };
        let (accepted, callback) = match planned {
            Ok(planned) => self.accept(planned, callback_url.map(Callback::new)).await?,
            Err(refusal) => {
                let accepted = self.accepted_or(key, refusal).await?;
                let callback = self.callback(TaskId(accepted.task.id.as_u128())).await;
                (accepted, callback.filter(|_| callback_url.is_some()))
            }
        };
        Ok(ClaudeAccepted {
            callback_secret: callback.map(Callback::secret),
            claude_task_id: claude::other_id(accepted.task.id),
            message: accepted.message,
            submitted_at: accepted.task.created_at,
            maos_task_id: accepted.task.id,
            warnings: accepted.warnings,
        })
    }

    /// One such task.
    ///
    /// # Errors
    /// That there is none with this id.
    pub async fn claude_task(
        &self,
        id: Uuid,
        wait: Duration,
    ) -> Result<ClaudeTaskStatus, ApiError> {
        let mut task = self.of_claude(id, wait).await?;
        let maos_task_id = std::mem::replace(&mut task.id, id);
        Ok(ClaudeTaskStatus { task, maos_task_id })
    }

    /// Ends one such task.
    ///
    /// # Errors
    /// That there is none with this id, or that it has ended.
    pub async fn cancel_claude(
        &self,
        id: Uuid,
        reason: Option<String>,
    ) -> Result<CancelAnswer, ApiError> {
        let task = self.of_claude(id, Duration::ZERO).await?;
        let answer = self.cancel(task.id, reason).await;
        let answer = answer.map_err(|error| named(error, task.id, id))?;
        Ok(CancelAnswer { task_id: id, ..answer })
    }

    /// What came out of one such task.
    ///
    /// # Errors
    /// That there is none with this id, or that it has no result.
    pub async fn claude_results(&self, id: Uuid) -> Result<TaskResults, ApiError> {
        let task = self.of_claude(id, Duration::ZERO).await?;
        let answer = self.results(task.id).await;
        let answer = answer.map_err(|error| named(error, task.id, id))?;
        Ok(TaskResults { task_id: id, ..answer })
    }

    /// How the system is, as these clients ask.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn claude_status(&self) -> Result<ClaudeOrchestratorStatus, ApiError> {
        let counters = self.figures().await?.counters;
        self.catch_up().await?;
        let health = self.detailed_health().await;
        let store = self.inner.store.clone();
        let filter = TaskFilter { origin: Some(claude::SOURCE), ..TaskFilter::default() };
        let counted = blocking(move || store.list(&filter, Start::Skip(0), 1)).await;
        let count = counted.map_err(|why| self.storage(&why))?.count;
        let words =
            health.components.iter().map(|(name, part)| (name.clone(), part.status.clone()));
        let stopped = self.stopping();
        Ok(ClaudeOrchestratorStatus {
            status: if stopped { OrchestratorState::Stopped } else { OrchestratorState::Running },
            uptime_seconds: health.uptime_seconds,
            components: words.collect(),
            active_executions: health.active_executions,
            total_claude_tasks: count.map_or(0, |count| count.tasks),
            health: health.components,
            metrics: ClaudeMetrics {
                tasks_submitted: counters.tasks_submitted,
                tasks_completed: counters.tasks_completed,
                tasks_failed: counters.tasks_failed,
                agents_created: counters.agents_created,
            },
        })
    }

    async fn of_claude(&self, id: Uuid, wait: Duration) -> Result<Task, ApiError> {
        let task = TaskId(claude::other_id(id).as_u128());
        match self.record(task, wait).await {
            Ok(record) if record.spec.rare().origin.as_deref() == Some(claude::SOURCE) => {
                self.present(&record).await
            }
            Ok(_) => Err(claude::not_found(id)),
            Err(error) if error.code == ErrorCode::TaskNotFound => Err(claude::not_found(id)),
            Err(error) => Err(error),
        }
    }
}

/// An error about a task in the words of who asked, who knows it under another id.
fn named(mut error: ApiError, task: Uuid, asked: Uuid) -> ApiError {
    error.message = error.message.replace(&task.to_string(), &asked.to_string());
    if error.details.contains_key("task_id") {
        return error.with("task_id", asked.to_string());
    }
    error
}

/// The hash of a body of this form: another one than that of the same bytes as a plain submission.
fn hash(body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    // No JSON begins like this.
    hasher.update(b"claude\0").update(body);
    *hasher.finalize().as_bytes()
}
