//! Health, status and figures of the system on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::task::wire_names;
use crate::time::UtcTime;

/// The components that status, health and metrics name.
pub const COMPONENTS: [&str; 6] = [
    "orchestrator",
    "task_planner",
    "agent_manager",
    "resource_allocator",
    "state_manager",
    "message_bus",
];

wire_names! {
    /// How the system is.
    HealthStatus: 3 {
        /// Everything works.
        Healthy "healthy"
        /// It works, with less than it should have.
        Degraded "degraded"
        /// Something that it needs is down.
        Unhealthy "unhealthy"
    }
}

/// The answer to `GET /health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Always healthy: whoever answers lives.
    pub status: HealthStatus,
    /// Now.
    pub timestamp: UtcTime,
    /// Who answers.
    pub service: String,
    /// Its release.
    pub version: String,
    /// Since its start.
    pub uptime_seconds: u64,
}

/// How one component is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ComponentHealth {
    /// Whether it works.
    pub healthy: bool,
    /// In a word or two.
    pub status: String,
    /// More about it.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub more: Map<String, Value>,
}

/// The answer to `GET /health/detailed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DetailedHealth {
    /// All in all.
    pub status: HealthStatus,
    /// Now.
    pub timestamp: UtcTime,
    /// Since its start.
    pub uptime_seconds: u64,
    /// Running attempts.
    pub active_executions: u64,
    /// Each of [`COMPONENTS`].
    pub components: BTreeMap<String, ComponentHealth>,
}

/// The answer to `GET /api/v1/system/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SystemStatus {
    /// Whether it takes and runs tasks.
    pub running: bool,
    /// Since its start.
    pub uptime_seconds: u64,
    /// Its start.
    pub startup_time: UtcTime,
    /// Each of [`COMPONENTS`], in a word or two.
    pub components: BTreeMap<String, String>,
    /// Running attempts.
    pub active_executions: u64,
    /// All known plans, ended ones too; not those that were deleted or no longer kept.
    pub execution_plans: u64,
    /// All known tasks, ended ones too; not those that were deleted or are no longer kept.
    pub total_tasks: u64,
    /// Agents that serve.
    pub total_agents: u64,
    /// Kinds of resources that have a bound.
    pub total_resources: u64,
}

/// Figures of one component by name.
pub type Figures = BTreeMap<String, Value>;

/// The answer to `GET /api/v1/system/metrics`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SystemMetrics {
    /// Tasks and agents since the data directory was made.
    #[schema(value_type = Object)]
    pub orchestrator: Figures,
    /// Plans.
    #[schema(value_type = Object)]
    pub task_planner: Figures,
    /// Agents now.
    #[schema(value_type = Object)]
    pub agent_manager: Figures,
    /// Capacity, allocated and available of each kind.
    #[schema(value_type = Object)]
    pub resource_allocator: Figures,
    /// Sizes and rates of journal and store.
    #[schema(value_type = Object)]
    pub state_manager: Figures,
    /// Sizes and rates of messages.
    #[schema(value_type = Object)]
    pub message_bus: Figures,
    /// Now.
    pub timestamp: UtcTime,
}
