//! What tasks share: keys, resources, pools; and schedules, which make tasks. Bodies are
//! whatever serializes as the server's description says.

use hyper::Method;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::wire::Exchange;
use super::{Answer, Client, ClientError, named, path_of};
use crate::keys::{ConcurrencyLimit, FairnessKey, Keys};
use crate::paths;
use crate::pool::{PoolEnvelope, PoolList};
use crate::resource::{
    AllocationEnvelope, AllocationGone, AllocationList, ResourceEnvelope, ResourceGone,
    ResourceList,
};
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
        self.send(Method::PUT, named(paths::CONCURRENCY_KEY, key), limit).await
    }

    /// Lets tasks with a `concurrency_key` run as the configuration says for all keys.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn unset_limit(&self, key: &str) -> Result<Answer<Keys>, ClientError> {
        self.call(Exchange::new(Method::DELETE, named(paths::CONCURRENCY_KEY, key))).await
    }

    /// Says how many turns a `fairness_key` gets while one without a weight gets one: 1 to
    /// [`crate::keys::WEIGHT_MAX`].
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn set_weight(&self, key: &str, weight: u32) -> Result<Answer<Keys>, ClientError> {
        self.send(Method::PUT, named(paths::FAIRNESS_KEY, key), &FairnessKey { weight }).await
    }

    /// Gives a `fairness_key` one turn, as those have that nobody speaks of.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn unset_weight(&self, key: &str) -> Result<Answer<Keys>, ClientError> {
        self.call(Exchange::new(Method::DELETE, named(paths::FAIRNESS_KEY, key))).await
    }

    /// The resources, with what is allocated and free of each.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn resources(&self) -> Result<Answer<ResourceList>, ClientError> {
        self.read(paths::RESOURCES.to_owned()).await
    }

    /// Declares a resource. `body` has `resource_type`, `name` and `capacity`, and more if wanted.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn create_resource(
        &self,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<ResourceEnvelope>, ClientError> {
        self.send(Method::POST, paths::RESOURCES.to_owned(), body).await
    }

    /// A resource.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn resource(&self, id: Uuid) -> Result<Answer<ResourceEnvelope>, ClientError> {
        self.read(path_of(paths::RESOURCE, id)).await
    }

    /// Changes the fields of a resource that `body` has.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn change_resource(
        &self,
        id: Uuid,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<ResourceEnvelope>, ClientError> {
        self.send(Method::PATCH, path_of(paths::RESOURCE, id), body).await
    }

    /// Takes a resource away.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn delete_resource(&self, id: Uuid) -> Result<Answer<ResourceGone>, ClientError> {
        self.call(Exchange::new(Method::DELETE, path_of(paths::RESOURCE, id))).await
    }

    /// Reserves resources until a lease is over. `body` has `requester_id` and `resources`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn allocate(
        &self,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<AllocationEnvelope>, ClientError> {
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
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<ScheduleEnvelope>, ClientError> {
        self.send(Method::POST, paths::SCHEDULES.to_owned(), body).await
    }

    /// A schedule: when it runs next, and what came of it so far.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn schedule(&self, id: Uuid) -> Result<Answer<ScheduleEnvelope>, ClientError> {
        self.read(path_of(paths::SCHEDULE, id)).await
    }

    /// Has a schedule wait, or go on.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn pause_schedule(
        &self,
        id: Uuid,
        paused: bool,
    ) -> Result<Answer<ScheduleEnvelope>, ClientError> {
        let body = json!({ "paused": paused });
        self.send(Method::PATCH, path_of(paths::SCHEDULE, id), &body).await
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

    /// A pool.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn pool(&self, name: &str) -> Result<Answer<PoolEnvelope>, ClientError> {
        self.read(named(paths::POOL, name)).await
    }

    /// How many agents a pool should have; may be above its maximum.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn pool_demand(&self, name: &str) -> Result<Answer<u64>, ClientError> {
        self.read(named(paths::POOL_DEMAND, name)).await
    }

    /// Changes what holds for a pool: the fields that `body` has.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn change_pool(
        &self,
        name: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<PoolEnvelope>, ClientError> {
        self.send(Method::PUT, named(paths::POOL, name), body).await
    }
}
