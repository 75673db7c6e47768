//! Every path of the API, in one place. `{id}`, `{name}` and `{attempt}` stand for one segment.

macro_rules! paths {
    ($($(#[$doc:meta])* $name:ident $path:literal)+) => {
        $($(#[$doc])* pub const $name: &str = $path;)+

        /// All of them.
        pub const ALL: &[&str] = &[$($name),+];
    };
}

paths! {
    /// Whether the server is alive.
    HEALTH "/health"
    /// The same, for each component.
    HEALTH_DETAILED "/health/detailed"
    /// Submitting and listing tasks.
    TASKS "/api/v1/tasks"
    /// Many submissions at once.
    TASKS_BATCH "/api/v1/tasks/batch"
    /// One operation on many tasks.
    TASKS_BULK "/api/v1/tasks/bulk"
    /// One task.
    TASK "/api/v1/tasks/{id}"
    /// Ending a task.
    TASK_CANCEL "/api/v1/tasks/{id}/cancel"
    /// Running an ended task again.
    TASK_RETRY "/api/v1/tasks/{id}/retry"
    /// What a task made.
    TASK_RESULTS "/api/v1/tasks/{id}/results"
    /// Why a task does not go on.
    TASK_EXPLAIN "/api/v1/tasks/{id}/explain"
    /// What came of an attempt, as a callback says it.
    ATTEMPT_OUTCOME "/api/v1/tasks/{id}/attempts/{attempt}/outcome"
    /// The graph that a submission became.
    PLAN "/api/v1/plans/{id}"
    /// The graph that a submission would become.
    PLANS_PREVIEW "/api/v1/plans/preview"
    /// Submitting a task as Claude Code's clients do.
    CLAUDE_TASKS "/api/v1/claude/tasks"
    /// One such task.
    CLAUDE_TASK "/api/v1/claude/tasks/{id}"
    /// Ending one.
    CLAUDE_TASK_CANCEL "/api/v1/claude/tasks/{id}/cancel"
    /// What one made.
    CLAUDE_TASK_RESULTS "/api/v1/claude/tasks/{id}/results"
    /// How the system is, as these clients ask.
    CLAUDE_STATUS "/api/v1/claude/orchestrator/status"
    /// What happens, as it happens.
    EVENTS "/api/v1/events"
    /// Keys that tasks share.
    KEYS "/api/v1/keys"
    /// How many tasks with one concurrency key run at once, and how fast they start.
    CONCURRENCY_KEY "/api/v1/keys/concurrency/{id}"
    /// How often the turn of a fairness key comes.
    FAIRNESS_KEY "/api/v1/keys/fairness/{id}"
    /// Creating and listing agents.
    AGENTS "/api/v1/agents"
    /// One agent.
    AGENT "/api/v1/agents/{id}"
    /// The worker protocol.
    AGENT_POLL "/api/v1/agents/{id}/poll"
    /// Declaring and listing resources.
    RESOURCES "/api/v1/resources"
    /// One resource.
    RESOURCE "/api/v1/resources/{id}"
    /// Holding resources outside of tasks.
    RESOURCES_ALLOCATE "/api/v1/resources/allocate"
    /// Who holds resources so.
    ALLOCATIONS "/api/v1/resources/allocations"
    /// What one requester holds so.
    ALLOCATION "/api/v1/resources/allocations/{id}"
    /// What happened to a task.
    TASK_EVENTS "/api/v1/tasks/{id}/events"
    /// Files that are kept with a task.
    TASK_ARTIFACTS "/api/v1/tasks/{id}/artifacts"
    /// One of them.
    TASK_ARTIFACT "/api/v1/tasks/{id}/artifacts/{name}"
    /// Recurring submissions.
    SCHEDULES "/api/v1/schedules"
    /// One of them.
    SCHEDULE "/api/v1/schedules/{id}"
    /// Pools of agents.
    POOLS "/api/v1/pools"
    /// One of them.
    POOL "/api/v1/pools/{id}"
    /// How many agents a pool should have, as a plain number.
    POOL_DEMAND "/api/v1/pools/{id}/demand"
    /// Copies of the state.
    CHECKPOINTS "/api/v1/checkpoints"
    /// One of them.
    CHECKPOINT "/api/v1/checkpoints/{id}"
    /// Going back to one.
    CHECKPOINT_RESTORE "/api/v1/checkpoints/{id}/restore"
    /// What the attempts of a task have to say.
    TASK_LOGS "/api/v1/tasks/{id}/logs"
    /// Sending and reading messages.
    MESSAGES "/api/v1/messages"
    /// Saying which messages were handled.
    MESSAGES_ACK "/api/v1/messages/ack"
    /// Where there are messages.
    MAILBOXES "/api/v1/messages/mailboxes"
    /// Mailboxes whose messages are posted somewhere.
    SUBSCRIPTIONS "/api/v1/messages/subscriptions"
    /// One of them.
    SUBSCRIPTION "/api/v1/messages/subscriptions/{id}"
    /// Delivering again what was given up.
    SUBSCRIPTION_REPLAY "/api/v1/messages/subscriptions/{id}/replay"
    /// How the system is.
    SYSTEM_STATUS "/api/v1/system/status"
    /// Its figures.
    SYSTEM_METRICS "/api/v1/system/metrics"
    /// The description of this API for programs.
    OPENAPI "/openapi.json"
    /// The same to read and to try out.
    DOCS "/docs"
    /// The same to read.
    REDOC "/redoc"
}

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
