//! The paths of resources and of what is held outside of tasks.

use axum::extract::{Request, State};
use maos_api::resource::{
    AllocationEnvelope, AllocationGone, AllocationList, ResourceEnvelope, ResourceGone,
    ResourceList,
};

use super::answer::{Answered, Json};
use super::parts::{Id, Name};
use super::routes::body_of;
use crate::service::Service;

pub(super) async fn all(State(service): State<Service>) -> Answered<ResourceList> {
    Ok(Json(service.resources().await?))
}

pub(super) async fn create(
    State(service): State<Service>,
    request: Request,
) -> Answered<ResourceEnvelope> {
    let body = body_of(request, service.bounds().body_bytes_max).await?;
    Ok(Json(service.create_resource(&body).await?))
}

pub(super) async fn one(State(service): State<Service>, Id(id): Id) -> Answered<ResourceEnvelope> {
    Ok(Json(service.resource(id).await?))
}

pub(super) async fn change(
    State(service): State<Service>,
    Id(id): Id,
    request: Request,
) -> Answered<ResourceEnvelope> {
    let body = body_of(request, service.bounds().body_bytes_max).await?;
    Ok(Json(service.change_resource(id, &body).await?))
}

pub(super) async fn delete(State(service): State<Service>, Id(id): Id) -> Answered<ResourceGone> {
    Ok(Json(service.delete_resource(id).await?))
}

pub(super) async fn allocate(
    State(service): State<Service>,
    request: Request,
) -> Answered<AllocationEnvelope> {
    let body = body_of(request, service.bounds().body_bytes_max).await?;
    Ok(Json(service.allocate(&body).await?))
}

pub(super) async fn allocations(State(service): State<Service>) -> Answered<AllocationList> {
    Ok(Json(service.allocations().await?))
}

pub(super) async fn release(
    State(service): State<Service>,
    Name(requester): Name,
) -> Answered<AllocationGone> {
    Ok(Json(service.release_allocation(&requester).await?))
}
