//! What the API has beside single tasks and agents: many tasks at once, plans, changes, and what
//! tasks share. Bodies are JSON as the server's description says.

use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::json;
use uuid::Uuid;

use super::url::{Query, escaped};
use super::wire::Exchange;
use super::{Answer, Client, ClientError, path_of};
use crate::agent::AgentEnvelope;
use crate::history::TaskHistory;
use crate::keys::{ConcurrencyLimit, Keys};
use crate::messages::{AckAnswer, MessagePage, MessageQuery, Receipt};
use crate::paths;
use crate::plan::ExecutionPlan;
use crate::pool::{PoolEnvelope, PoolList};
use crate::resource::{AllocationEnvelope, AllocationGone, AllocationList, ResourceList};
use crate::schedule::{ScheduleEnvelope, ScheduleGone, ScheduleList};
use crate::task::{
    BatchResult, BulkAnswer, BulkOperation, CancelAnswer, TaskEnvelope, TaskResults,
};

impl Client {
    /// Submits up to 10,000 tasks in one commit: `body` is a list of submissions, and each has its
    /// own answer. With the key it is as in [`Client::submit`].
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn submit_batch(
        &self,
        body: Vec<u8>,
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
        self.send(Method::POST, paths::TASKS_BULK.to_owned(), body.to_string().into()).await
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
    pub async fn preview(&self, body: Vec<u8>) -> Result<Answer<ExecutionPlan>, ClientError> {
        let exchange = Exchange::new(Method::POST, paths::PLANS_PREVIEW.to_owned());
        self.call(Exchange { body: body.into(), harmless: true, ..exchange }).await
    }

    /// Changes the fields of a task that `body` has.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn change_task(
        &self,
        id: Uuid,
        body: Vec<u8>,
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
        body: Vec<u8>,
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

    /// Sends a message. With the key it is as in [`Client::submit`].
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn send_message(
        &self,
        body: Vec<u8>,
        idempotency_key: Option<&str>,
    ) -> Result<Answer<Receipt>, ClientError> {
        self.submit_to(paths::MESSAGES, body, idempotency_key).await
    }

    /// A page of a mailbox; with a wait, as soon as there is a message.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn messages(&self, query: &MessageQuery) -> Result<Answer<MessagePage>, ClientError> {
        let path = Query::default()
            .with("mailbox", Some(&query.mailbox.to_string()))
            .with("reader", Some(&query.reader))
            .with("offset", query.offset.map(|offset| offset.to_string()).as_deref())
            .with("limit", Some(&query.limit.to_string()))
            .with("wait_seconds", Some(&query.wait_seconds.to_string()))
            .after(paths::MESSAGES);
        let server_wait = std::time::Duration::from_secs(query.wait_seconds);
        self.call(Exchange { server_wait, ..Exchange::new(Method::GET, path) }).await
    }

    /// Says that a reader has handled everything up to a message. `body` has `mailbox`, `offset`
    /// and `reader`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn acknowledge(&self, body: Vec<u8>) -> Result<Answer<AckAnswer>, ClientError> {
        self.send(Method::POST, paths::MESSAGES_ACK.to_owned(), body).await
    }

    /// The limits by `concurrency_key` and the weights by `fairness_key`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn keys(&self) -> Result<Answer<Keys>, ClientError> {
        self.read(paths::KEYS.to_owned()).await
    }

    /// Says how many tasks with a `concurrency_key` run at once, and how many start in a minute.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn set_limit(
        &self,
        key: &str,
        limit: &ConcurrencyLimit,
    ) -> Result<Answer<Keys>, ClientError> {
        let body = serde_json::to_vec(limit).unwrap_or_default();
        self.send(Method::PUT, named(paths::CONCURRENCY_KEY, key), body).await
    }

    /// The resources, with what is allocated and free of each.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn resources(&self) -> Result<Answer<ResourceList>, ClientError> {
        self.read(paths::RESOURCES.to_owned()).await
    }

    /// Reserves resources until a lease is over. `body` has `requester_id` and `resources`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn allocate(&self, body: Vec<u8>) -> Result<Answer<AllocationEnvelope>, ClientError> {
        self.send(Method::POST, paths::RESOURCES_ALLOCATE.to_owned(), body).await
    }

    /// The reservations.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn allocations(&self) -> Result<Answer<AllocationList>, ClientError> {
        self.read(paths::ALLOCATIONS.to_owned()).await
    }

    /// Gives back all that a requester has reserved.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn release(&self, requester: &str) -> Result<Answer<AllocationGone>, ClientError> {
        self.call(Exchange::new(Method::DELETE, named(paths::ALLOCATION, requester))).await
    }

    /// The schedules.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn schedules(&self) -> Result<Answer<ScheduleList>, ClientError> {
        self.read(paths::SCHEDULES.to_owned()).await
    }

    /// Has a task submitted again and again.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn create_schedule(
        &self,
        body: Vec<u8>,
    ) -> Result<Answer<ScheduleEnvelope>, ClientError> {
        self.send(Method::POST, paths::SCHEDULES.to_owned(), body).await
    }

    /// Ends a schedule.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn delete_schedule(&self, id: Uuid) -> Result<Answer<ScheduleGone>, ClientError> {
        self.call(Exchange::new(Method::DELETE, path_of(paths::SCHEDULE, id))).await
    }

    /// The pools of agents.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn pools(&self) -> Result<Answer<PoolList>, ClientError> {
        self.read(paths::POOLS.to_owned()).await
    }

    /// Changes what holds for a pool: the fields that `body` has.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn change_pool(
        &self,
        name: &str,
        body: Vec<u8>,
    ) -> Result<Answer<PoolEnvelope>, ClientError> {
        self.send(Method::PUT, named(paths::POOL, name), body).await
    }

    async fn submit_to<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
        idempotency_key: Option<&str>,
    ) -> Result<Answer<T>, ClientError> {
        let own = Uuid::now_v7().simple().to_string();
        let idempotency_key = Some(idempotency_key.unwrap_or(&own));
        let exchange = Exchange::new(Method::POST, path.to_owned());
        self.call(Exchange { body: body.into(), idempotency_key, harmless: true, ..exchange }).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: Vec<u8>,
    ) -> Result<Answer<T>, ClientError> {
        self.call(Exchange { body: body.into(), ..Exchange::new(method, path) }).await
    }
}

fn named(path: &str, name: &str) -> String {
    paths::with_id(path, &escaped(name))
}
