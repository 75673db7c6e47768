//! What tasks share: keys, resources, pools; and schedules, which make tasks. Bodies are JSON as
//! the server's description says.

use hyper::Method;
use uuid::Uuid;

use super::wire::Exchange;
use super::{Answer, Client, ClientError, named, path_of};
use crate::keys::{ConcurrencyLimit, Keys};
use crate::paths;
use crate::pool::{PoolEnvelope, PoolList};
use crate::resource::{AllocationEnvelope, AllocationGone, AllocationList, ResourceList};
use crate::schedule::{ScheduleEnvelope, ScheduleGone, ScheduleList};

impl Client {
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
}
