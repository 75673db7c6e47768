//! The paths of keys that tasks share.

use axum::extract::{Request, State};
use maos_api::keys::Keys;

use super::answer::{Answered, Json};
use super::parts::Name;
use super::routes::body_of;
use crate::service::{KeyKind, Service};

pub(super) async fn all(State(service): State<Service>) -> Answered<Keys> {
    Ok(Json(service.keys().await?))
}

pub(super) async fn set_limit(
    State(service): State<Service>,
    Name(key): Name,
    request: Request,
) -> Answered<Keys> {
    set(&service, KeyKind::Concurrency, &key, request).await
}

pub(super) async fn set_weight(
    State(service): State<Service>,
    Name(key): Name,
    request: Request,
) -> Answered<Keys> {
    set(&service, KeyKind::Fairness, &key, request).await
}

pub(super) async fn unset_limit(State(service): State<Service>, Name(key): Name) -> Answered<Keys> {
    Ok(Json(service.unset_key(KeyKind::Concurrency, &key).await?))
}

pub(super) async fn unset_weight(
    State(service): State<Service>,
    Name(key): Name,
) -> Answered<Keys> {
    Ok(Json(service.unset_key(KeyKind::Fairness, &key).await?))
}

async fn set(service: &Service, kind: KeyKind, key: &str, request: Request) -> Answered<Keys> {
    let body = body_of(request, service.bounds().body_bytes_max).await?;
    Ok(Json(service.set_key(kind, key, &body).await?))
}
