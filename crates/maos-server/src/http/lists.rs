//! The paths of lists, of plans, and of what is done to many tasks at once.

use axum::extract::{Request, State};
use maos_api::agent::AgentPage;
use maos_api::listing::{RawAgentQuery, RawTaskQuery};
use maos_api::plan::ExecutionPlan;
use maos_api::task::{BulkAnswer, TaskPage};

use super::answer::{Answered, Json};
use super::parts::{Id, Params};
use super::routes::body_of;
use crate::service::Service;

pub(super) async fn tasks(
    State(service): State<Service>,
    Params(query): Params<RawTaskQuery>,
) -> Answered<TaskPage> {
    Ok(Json(service.list(query.read()?).await?))
}

pub(super) async fn agents(
    State(service): State<Service>,
    Params(query): Params<RawAgentQuery>,
) -> Answered<AgentPage> {
    Ok(Json(service.agents(query.read()?).await?))
}

pub(super) async fn plan(State(service): State<Service>, Id(id): Id) -> Answered<ExecutionPlan> {
    Ok(Json(service.execution_plan(id).await?))
}

pub(super) async fn preview(
    State(service): State<Service>,
    request: Request,
) -> Answered<ExecutionPlan> {
    let body = body_of(request, service.bounds().body_bytes_max).await?;
    Ok(Json(service.preview(&body)?))
}

pub(super) async fn bulk(State(service): State<Service>, request: Request) -> Answered<BulkAnswer> {
    let body = body_of(request, service.bounds().body_bytes_max).await?;
    Ok(Json(service.bulk(&body).await?))
}
