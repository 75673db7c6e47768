//! The paths of tasks as clients of Claude Code know them.

use axum::extract::{Request, State};
use maos_api::claude::{ClaudeAccepted, ClaudeOrchestratorStatus, ClaudeTaskStatus};
use maos_api::task::{CancelAnswer, TaskResults};

use super::answer::{Answered, Json};
use super::parts::{Id, Params};
use super::routes::{ReasonQuery, WaitQuery, submission_of};
use crate::service::Service;

pub(super) async fn submit(
    State(service): State<Service>,
    request: Request,
) -> Answered<ClaudeAccepted> {
    let (options, body) = submission_of(request, service.bounds().body_bytes_max).await?;
    Ok(Json(service.submit_claude(&body, options).await?))
}

pub(super) async fn task(
    State(service): State<Service>,
    Id(id): Id,
    Params(query): Params<WaitQuery>,
) -> Answered<ClaudeTaskStatus> {
    Ok(Json(service.claude_task(id, query.wait()?).await?))
}

pub(super) async fn cancel(
    State(service): State<Service>,
    Id(id): Id,
    Params(query): Params<ReasonQuery>,
) -> Answered<CancelAnswer> {
    Ok(Json(service.cancel_claude(id, query.reason(service.bounds())?).await?))
}

pub(super) async fn cancel_too(
    State(service): State<Service>,
    Id(id): Id,
    Params(query): Params<ReasonQuery>,
    request: Request,
) -> Answered<CancelAnswer> {
    let reason = query.or_body(request, service.bounds()).await?;
    Ok(Json(service.cancel_claude(id, reason).await?))
}

pub(super) async fn results(State(service): State<Service>, Id(id): Id) -> Answered<TaskResults> {
    Ok(Json(service.claude_results(id).await?))
}

pub(super) async fn status(State(service): State<Service>) -> Answered<ClaudeOrchestratorStatus> {
    Ok(Json(service.claude_status().await?))
}
