//! The paths of checkpoints.

use axum::extract::{Request, State};
use maos_api::checkpoint::{CheckpointEnvelope, CheckpointGone, CheckpointList, RestoreAnswer};

use super::answer::{Answered, Json};
use super::parts::Id;
use super::routes::body_of;
use crate::door::Door;
use crate::service::Service;

pub(super) async fn all(State(service): State<Service>) -> Answered<CheckpointList> {
    Ok(Json(service.checkpoints().await?))
}

pub(super) async fn create(
    State(service): State<Service>,
    request: Request,
) -> Answered<CheckpointEnvelope> {
    let body = body_of(request, service.bounds().body_bytes_max).await?;
    Ok(Json(service.create_checkpoint(&body).await?))
}

pub(super) async fn one(
    State(service): State<Service>,
    Id(id): Id,
) -> Answered<CheckpointEnvelope> {
    Ok(Json(service.checkpoint(id).await?))
}

pub(super) async fn delete(State(service): State<Service>, Id(id): Id) -> Answered<CheckpointGone> {
    Ok(Json(service.delete_checkpoint(id).await?))
}

pub(super) async fn restore(State(door): State<Door>, Id(id): Id) -> Answered<RestoreAnswer> {
    Ok(Json(door.restore(id).await?))
}
