//! Plans on the wire: the graph that a submission became, or would become.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::task::Task;
use crate::time::UtcTime;

/// The answer to `GET /api/v1/plans/{id}` and `POST /api/v1/plans/preview`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExecutionPlan {
    /// Its id; of a preview: one that no plan will have.
    pub id: Uuid,
    /// The task that stands for the whole submission.
    pub root_task_id: Uuid,
    /// All its tasks, as in a listing: large documents are left out.
    pub tasks: BTreeMap<Uuid, Task>,
    /// The tasks that agents run, in groups that may run at once: each group waits for the ones
    /// before it. Tasks with subtasks are in none.
    pub parallel_groups: Vec<Vec<Uuid>>,
    /// The chain of tasks that takes longest, from the first to the last.
    pub critical_path: Vec<Uuid>,
    /// How long the critical path takes, in seconds. A task that has run counts what it took; any
    /// other the mean of those that have, or, when none has, its `timeout_seconds`.
    pub estimated_duration: f64,
    /// What the largest group takes at once, by kind.
    pub resource_requirements: BTreeMap<String, f64>,
    /// When it was accepted; of a preview: now.
    pub created_at: UtcTime,
    /// `strategy`, and `durations`: `measured`, `mean` or `timeout`, the weakest that
    /// `estimated_duration` rests on.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// Ours: what the caller should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
