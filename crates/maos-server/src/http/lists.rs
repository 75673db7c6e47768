//! The paths of lists: their queries in, their pages out.

use axum::extract::State;
use maos_api::agent::AgentPage;
use maos_api::listing::{RawAgentQuery, RawTaskQuery};
use maos_api::task::TaskPage;

use super::answer::{Answered, Json};
use super::parts::Params;
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
