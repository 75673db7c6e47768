//! What happened to a task: `GET /api/v1/tasks/{id}/events`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::task::TaskStatus;
use crate::time::UtcTime;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HappeningKind {
    /// The task was accepted.
    Created,
    /// It began to wait for an agent; of several times, the last.
    Ready,
    /// An attempt started; of a task with subtasks, its first subtask.
    Started,
    /// An attempt ended without a result.
    AttemptFailed,
    /// A file was kept with it.
    ArtifactKept,
    /// It ended with a result.
    Completed,
    /// It ended without one.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Somebody had it begin anew after its end.
    Retried,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Happening {
    /// When.
    pub at: UtcTime,
    /// What.
    pub event: HappeningKind,
    /// Which attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Who ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Uuid>,
    /// Why it went wrong, what it was cancelled for, or the name of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The kind of failure, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_kind: Option<String>,
}

/// The answer to `GET /api/v1/tasks/{id}/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskHistory {
    /// The task.
    pub task_id: Uuid,
    /// Where it stands.
    pub status: TaskStatus,
    /// What happened, the oldest first.
    pub items: Vec<Happening>,
    /// Earlier unsuccessful attempts that are counted and no longer told.
    pub attempts_omitted: u32,
}
