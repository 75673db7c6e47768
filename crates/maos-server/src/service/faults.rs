//! Refusals and faults as the wire tells them.

use maos_api::error::{ApiError, ErrorCode};
use maos_core::rejection::Rejection;
use tracing::error;

use crate::driver::Refused;

pub(super) fn refused(refused: Refused) -> ApiError {
    match refused {
        Refused::Stopped => {
            let message = "the server is shutting down: ask again when it is back";
            ApiError::new(ErrorCode::ShuttingDown, message)
        }
        Refused::NotWritten(cause) => not_written(&cause),
        Refused::NotRead(cause) => {
            let message = format!("{CANNOT_WRITE}, {cause}: ask again later");
            ApiError::new(ErrorCode::StorageUnavailable, message).with("cause", &*cause)
        }
        Refused::Rejection(rejection) => rejected(&rejection),
    }
}

const CANNOT_WRITE: &str = "the journal cannot be written at the moment";

fn not_written(cause: &str) -> ApiError {
    let message = format!(
        "{CANNOT_WRITE}, {cause}\nhint: whether this was done will show when it can; send a \
         submission again with the same `Idempotency-Key`"
    );
    ApiError::new(ErrorCode::StorageUnavailable, message).with("cause", cause)
}

pub(super) fn rejected(rejection: &Rejection) -> ApiError {
    let message = rejection.to_string();
    let with_task = |code: ErrorCode, task: maos_core::ids::TaskId| {
        ApiError::new(code, message.clone()).with("task_id", task.to_string())
    };
    match rejection {
        Rejection::TaskNotFound(task) => with_task(ErrorCode::TaskNotFound, *task),
        Rejection::AlreadyEnded { task, state } => {
            with_task(ErrorCode::AlreadyEnded, *task).with("status", *state)
        }
        Rejection::NotRetryable { task, state } => {
            with_task(ErrorCode::NotRetryable, *task).with("status", *state)
        }
        Rejection::ParentEnded { task, parent } => {
            with_task(ErrorCode::ParentEnded, *task).with("parent_task_id", parent.to_string())
        }
        Rejection::StaleAttempt { task, attempt } => {
            with_task(ErrorCode::StaleAttempt, *task).with("attempt", attempt.0)
        }
        Rejection::AgentNotFound(agent) => {
            ApiError::new(ErrorCode::AgentNotFound, message).with("agent_id", agent.to_string())
        }
        Rejection::AgentEnded(agent) => {
            ApiError::new(ErrorCode::AgentEnded, message).with("agent_id", agent.to_string())
        }
        Rejection::IdempotencyConflict { task, .. } => {
            with_task(ErrorCode::IdempotencyConflict, *task)
        }
        Rejection::OverCapacity { kind, wanted_milli, capacity_milli } => {
            over_capacity("", kind, *wanted_milli, *capacity_milli)
        }
        Rejection::NotEnoughLeft { .. }
        | Rejection::NothingReserved { .. }
        | Rejection::EntryNotFound { .. }
        | Rejection::EntryExists { .. } => not_kept(rejection),
        Rejection::Fixed { task, state, .. } => {
            with_task(ErrorCode::TaskFixed, *task).with("status", *state)
        }
        Rejection::Full { bound, .. } => {
            ApiError::new(ErrorCode::QueueFull, message).with("bound", *bound)
        }
        Rejection::StorageUnavailable => not_written("the server's log says why"),
        Rejection::NotLeader => ApiError::new(ErrorCode::NotLeader, message),
        Rejection::TaskExists(_) => internal(&message),
    }
}

/// A requirement that could never be met, of the task at `place` in the body.
pub(super) fn over_capacity(
    place: &str,
    kind: &str,
    wanted_milli: u64,
    capacity_milli: u64,
) -> ApiError {
    let (wanted, capacity) =
        (super::present::milli(wanted_milli), super::present::milli(capacity_milli));
    let field = format!("{place}resource_requirements.{kind}");
    let whose = if place.is_empty() { kind } else { &field };
    let what = format!("`{whose}`: {wanted} is wanted, there is {capacity} in all");
    let message = format!(
        "{what}\nhint: ask for less, or raise its capacity: \
         `[resources]` of the configuration, or `PATCH /api/v1/resources/{{id}}`"
    );
    ApiError::new(ErrorCode::OverCapacity, message)
        .with_field(&field, what)
        .with("capacity", capacity)
}

/// Refusals about documents of the shell and about resources that somebody holds.
fn not_kept(rejection: &Rejection) -> ApiError {
    let message = rejection.to_string();
    match rejection {
        Rejection::NotEnoughLeft { kind, wanted_milli, free_milli } => {
            let (wanted, free) =
                (super::present::milli(*wanted_milli), super::present::milli(*free_milli));
            let message = format!("`{kind}`: {wanted} is wanted, {free} is free at the moment");
            ApiError::new(ErrorCode::NotEnoughLeft, message)
                .with("kind", &**kind)
                .with("available", free)
        }
        Rejection::NothingReserved { requester } => {
            ApiError::new(ErrorCode::AllocationNotFound, message).with("requester_id", &**requester)
        }
        Rejection::EntryNotFound { register, key } => {
            let code = match &**register {
                "resource" => ErrorCode::ResourceNotFound,
                "schedule" => ErrorCode::ScheduleNotFound,
                "pool" => ErrorCode::PoolNotFound,
                _ => return internal(&message),
            };
            ApiError::new(code, message).with("id", &**key)
        }
        // What must not be there is kept under an id that was just made.
        other => internal(&other),
    }
}

/// A fault of our own: the log has it, the caller is told where to look.
pub(super) fn internal(fault: &dyn std::fmt::Display) -> ApiError {
    error!("{fault}");
    let message = "the server failed; its log says more under this request's id";
    ApiError::new(ErrorCode::Internal, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_no_longer_leads_sends_its_callers_elsewhere_for_a_while() {
        let error = refused(Refused::Rejection(Rejection::NotLeader));
        assert_eq!((error.code, error.code.status()), (ErrorCode::NotLeader, 503));
        assert_eq!(error.code.retry(), maos_api::error::Retry::Later);
        assert!(error.message.contains("leads"), "{}", error.message);
    }
}
