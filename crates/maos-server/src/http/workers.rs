//! The path that workers poll.

use axum::extract::{Request, State};
use maos_api::worker::PollAnswer;
use maos_core::limits::BATCH_BYTES_MAX;

use super::answer::{Answered, Json};
use super::parts::Id;
use super::routes::{check_json, read};
use crate::service::Service;

pub(super) async fn poll(
    State(service): State<Service>,
    Id(id): Id,
    request: Request,
) -> Answered<PollAnswer> {
    let (parts, body) = request.into_parts();
    check_json(&parts.headers)?;
    let body = read(body, BATCH_BYTES_MAX).await?;
    Ok(Json(service.poll(id, &body).await?))
}
