//! What the API has beside single tasks and agents: many tasks at once, plans, and changes. Bodies
//! are JSON as the server's description says.

use hyper::Method;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::content::Content;
use super::url::Query;
use super::wire::Exchange;
use super::{Answer, Client, ClientError, path_of};
use crate::agent::AgentEnvelope;
use crate::claude::ClaudeOrchestratorStatus;
use crate::history::TaskHistory;
use crate::paths;
use crate::plan::ExecutionPlan;
use crate::task::{
    BatchResult, BulkAnswer, BulkOperation, CancelAnswer, TaskEnvelope, TaskResults,
};
use crate::worker::{AttemptRef, OutcomeAnswer};

impl Client {
    /// Submits up to 10,000 tasks in one commit: `body` is a list of submissions, and each has its
    /// own answer. With the key it is as in [`Client::submit`].
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn submit_batch(
        &self,
        body: &(impl Serialize + ?Sized),
        idempotency_key: Option<&str>,
    ) -> Result<Answer<Vec<BatchResult>>, ClientError> {
        self.submit_to(paths::TASKS_BATCH, body, idempotency_key).await
    }

    /// Does the same to each of up to 1,000 tasks.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn bulk(
        &self,
        operation: BulkOperation,
        task_ids: &[Uuid],
        reason: Option<&str>,
    ) -> Result<Answer<BulkAnswer>, ClientError> {
        let mut body = json!({ "operation": operation.name(), "task_ids": task_ids });
        if let Some(reason) = reason {
            body["reason"] = reason.into();
        }
        self.send(Method::POST, paths::TASKS_BULK.to_owned(), &body).await
    }

    /// A plan, by its own id or that of its root.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn plan(&self, id: Uuid) -> Result<Answer<ExecutionPlan>, ClientError> {
        self.read(path_of(paths::PLAN, id)).await
    }

    /// The plan that a submission would become. Nothing is kept.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn preview(
        &self,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<ExecutionPlan>, ClientError> {
        let exchange = Exchange::new(Method::POST, paths::PLANS_PREVIEW.to_owned());
        self.call(Exchange { body: Content::json(body)?, harmless: true, ..exchange }).await
    }

    /// Changes the fields of a task that `body` has.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn change_task(
        &self,
        id: Uuid,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<TaskEnvelope>, ClientError> {
        self.send(Method::PATCH, path_of(paths::TASK, id), body).await
    }

    /// What happened to a task, step by step.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn task_history(&self, id: Uuid) -> Result<Answer<TaskHistory>, ClientError> {
        self.read(path_of(paths::TASK_EVENTS, id)).await
    }

    /// Changes the fields of an agent that `body` has.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn change_agent(
        &self,
        id: Uuid,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<AgentEnvelope>, ClientError> {
        self.send(Method::PATCH, path_of(paths::AGENT, id), body).await
    }

    /// Cancels a task of Claude Code's clients and all below it.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn cancel_claude(
        &self,
        id: Uuid,
        reason: Option<&str>,
    ) -> Result<Answer<CancelAnswer>, ClientError> {
        let query = Query::default().with("reason", reason);
        let path = query.after(&path_of(paths::CLAUDE_TASK, id));
        self.call(Exchange::new(Method::DELETE, path)).await
    }

    /// What such a task made.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn claude_results(&self, id: Uuid) -> Result<Answer<TaskResults>, ClientError> {
        self.read(path_of(paths::CLAUDE_TASK_RESULTS, id)).await
    }

    /// How the server is, as Claude Code's clients ask.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn claude_status(&self) -> Result<Answer<ClaudeOrchestratorStatus>, ClientError> {
        self.read(paths::CLAUDE_STATUS.to_owned()).await
    }

    /// Says how an attempt of an HTTP agent went. `token` came with the attempt; `body` has
    /// `status` and, as that wants, `result`, `subtasks`, `error` and `permanent`. Once this
    /// returns the outcome is durable; to say it again changes nothing.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn bring_outcome(
        &self,
        of: AttemptRef,
        token: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<OutcomeAnswer>, ClientError> {
        let path = path_of(paths::ATTEMPT_OUTCOME, of.task_id);
        let path = path.replace("{attempt}", &of.attempt.to_string());
        let (body, token) = (Content::json(body)?, Some(token));
        let exchange = Exchange::new(Method::POST, path);
        self.call(Exchange { body, token, harmless: true, ..exchange }).await
    }

    /// The server's description of its API for programs, in OpenAPI 3.1.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn description(&self) -> Result<Answer<Value>, ClientError> {
        self.read(paths::OPENAPI.to_owned()).await
    }
}
