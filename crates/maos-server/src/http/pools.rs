//! The paths of pools.

use axum::extract::{Request, State};
use maos_api::pool::{PoolEnvelope, PoolList};

use super::answer::{Answered, Json};
use super::parts::Name;
use super::routes::body_of;
use crate::service::Service;

pub(super) async fn all(State(service): State<Service>) -> Answered<PoolList> {
    Ok(Json(service.pools().await?))
}

pub(super) async fn one(
    State(service): State<Service>,
    Name(name): Name,
) -> Answered<PoolEnvelope> {
    Ok(Json(service.pool(&name).await?))
}

pub(super) async fn change(
    State(service): State<Service>,
    Name(name): Name,
    request: Request,
) -> Answered<PoolEnvelope> {
    let body = body_of(request, service.bounds().body_bytes_max).await?;
    Ok(Json(service.change_pool(&name, &body).await?))
}

pub(super) async fn demand(State(service): State<Service>, Name(name): Name) -> Answered<u64> {
    Ok(Json(service.pool_demand(&name).await?))
}
