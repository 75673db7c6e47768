//! Every path of the API, in one place. `{id}` stands for an id.

/// Whether the server is alive.
pub const HEALTH: &str = "/health";
/// The same, for each component.
pub const HEALTH_DETAILED: &str = "/health/detailed";
/// Submitting and listing tasks.
pub const TASKS: &str = "/api/v1/tasks";
/// Many submissions at once.
pub const TASKS_BATCH: &str = "/api/v1/tasks/batch";
/// One operation on many tasks.
pub const TASKS_BULK: &str = "/api/v1/tasks/bulk";
/// One task.
pub const TASK: &str = "/api/v1/tasks/{id}";
/// Ending a task.
pub const TASK_CANCEL: &str = "/api/v1/tasks/{id}/cancel";
/// Running an ended task again.
pub const TASK_RETRY: &str = "/api/v1/tasks/{id}/retry";
/// What a task made.
pub const TASK_RESULTS: &str = "/api/v1/tasks/{id}/results";
/// Why a task does not go on.
pub const TASK_EXPLAIN: &str = "/api/v1/tasks/{id}/explain";
/// What the attempts of a task have to say.
pub const TASK_LOGS: &str = "/api/v1/tasks/{id}/logs";
/// The graph that a submission became.
pub const PLAN: &str = "/api/v1/plans/{id}";
/// The graph that a submission would become.
pub const PLANS_PREVIEW: &str = "/api/v1/plans/preview";
/// Submitting a task as Claude Code's clients do.
pub const CLAUDE_TASKS: &str = "/api/v1/claude/tasks";
/// One such task.
pub const CLAUDE_TASK: &str = "/api/v1/claude/tasks/{id}";
/// Ending one.
pub const CLAUDE_TASK_CANCEL: &str = "/api/v1/claude/tasks/{id}/cancel";
/// What one made.
pub const CLAUDE_TASK_RESULTS: &str = "/api/v1/claude/tasks/{id}/results";
/// How the system is, as these clients ask.
pub const CLAUDE_STATUS: &str = "/api/v1/claude/orchestrator/status";
/// What happens, as it happens.
pub const EVENTS: &str = "/api/v1/events";
/// Sending and reading messages.
pub const MESSAGES: &str = "/api/v1/messages";
/// Saying which messages were handled.
pub const MESSAGES_ACK: &str = "/api/v1/messages/ack";
/// Where there are messages.
pub const MAILBOXES: &str = "/api/v1/messages/mailboxes";
/// Mailboxes whose messages are posted somewhere.
pub const SUBSCRIPTIONS: &str = "/api/v1/messages/subscriptions";
/// One of them.
pub const SUBSCRIPTION: &str = "/api/v1/messages/subscriptions/{id}";
/// Delivering again what was given up.
pub const SUBSCRIPTION_REPLAY: &str = "/api/v1/messages/subscriptions/{id}/replay";
/// Keys that tasks share.
pub const KEYS: &str = "/api/v1/keys";
/// How many tasks with one concurrency key run at once, and how fast they start.
pub const CONCURRENCY_KEY: &str = "/api/v1/keys/concurrency/{id}";
/// How often the turn of a fairness key comes.
pub const FAIRNESS_KEY: &str = "/api/v1/keys/fairness/{id}";
/// Creating and listing agents.
pub const AGENTS: &str = "/api/v1/agents";
/// One agent.
pub const AGENT: &str = "/api/v1/agents/{id}";
/// The worker protocol.
pub const AGENT_POLL: &str = "/api/v1/agents/{id}/poll";
/// How the system is.
pub const SYSTEM_STATUS: &str = "/api/v1/system/status";
/// Its figures.
pub const SYSTEM_METRICS: &str = "/api/v1/system/metrics";

/// `path` with `id` in the place of `{id}`.
#[must_use]
pub fn with_id(path: &str, id: &str) -> String {
    path.replacen("{id}", id, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_takes_its_place() {
        assert_eq!(with_id(TASK_CANCEL, "7"), "/api/v1/tasks/7/cancel");
    }
}
