//! The paths of schedules.

use axum::extract::{Request, State};
use maos_api::schedule::{ScheduleEnvelope, ScheduleGone, ScheduleList};

use super::answer::{Answered, Json};
use super::parts::Id;
use super::routes::body_of;
use crate::service::Service;

pub(super) async fn all(State(service): State<Service>) -> Answered<ScheduleList> {
    Ok(Json(service.schedules().await?))
}

pub(super) async fn create(
    State(service): State<Service>,
    request: Request,
) -> Answered<ScheduleEnvelope> {
    let body = body_of(request, service.bounds().body_bytes_max).await?;
    Ok(Json(service.create_schedule(&body).await?))
}

pub(super) async fn one(State(service): State<Service>, Id(id): Id) -> Answered<ScheduleEnvelope> {
    Ok(Json(service.schedule(id).await?))
}

pub(super) async fn pause(
    State(service): State<Service>,
    Id(id): Id,
    request: Request,
) -> Answered<ScheduleEnvelope> {
    let body = body_of(request, service.bounds().body_bytes_max).await?;
    Ok(Json(service.pause_schedule(id, &body).await?))
}

pub(super) async fn delete(State(service): State<Service>, Id(id): Id) -> Answered<ScheduleGone> {
    Ok(Json(service.delete_schedule(id).await?))
}
