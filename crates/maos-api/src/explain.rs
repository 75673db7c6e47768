//! Why a task does not go on, on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::task::TaskStatus;
use crate::time::UtcTime;

/// The answer to `GET /api/v1/tasks/{id}/explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The task.
    pub task_id: Uuid,
    /// Where it stands.
    pub status: TaskStatus,
    /// Whether it waits for something.
    pub waiting: bool,
    /// What for; empty if it does not wait.
    pub blockers: Vec<Blocker>,
}

/// One thing that keeps a task from going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Blocker {
    /// What, for programs: `dependency`, `no_agent`, `agents_busy`, `agents_bound`,
    /// `resources`, `backoff`, ...
    pub kind: String,
    /// What, for people.
    pub message: String,
    /// Since when.
    pub since: UtcTime,
    /// Ids of the tasks or agents that hold what is needed.
    pub held_by: Vec<Uuid>,
    /// What would let it go on.
    pub unblock: String,
    /// When that is, if it is a matter of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UtcTime>,
}
