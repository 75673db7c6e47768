//! The paths of subscriptions: messages of a mailbox as webhooks.

use axum::extract::{Request, State};
use maos_api::messages::REQUEST_BYTES_MAX;
use maos_api::subscriptions::{Subscription, SubscriptionAnswer, SubscriptionList};

use super::answer::{Answered, Json};
use super::parts::Name;
use super::routes::body_of;
use crate::service::Service;

pub(super) async fn all(State(service): State<Service>) -> Answered<SubscriptionList> {
    Ok(Json(service.subscriptions().await?))
}

pub(super) async fn put(
    State(service): State<Service>,
    Name(name): Name,
    request: Request,
) -> Answered<Subscription> {
    let body = body_of(request, REQUEST_BYTES_MAX).await?;
    Ok(Json(service.put_subscription(&name, &body).await?))
}

pub(super) async fn one(
    State(service): State<Service>,
    Name(name): Name,
) -> Answered<Subscription> {
    Ok(Json(service.subscription(&name).await?))
}

pub(super) async fn delete(
    State(service): State<Service>,
    Name(name): Name,
) -> Answered<SubscriptionAnswer> {
    Ok(Json(service.delete_subscription(&name).await?))
}

pub(super) async fn replay(
    State(service): State<Service>,
    Name(name): Name,
) -> Answered<SubscriptionAnswer> {
    Ok(Json(service.replay_subscription(&name)?))
}
