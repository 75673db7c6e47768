//! The path where targets of HTTP agents say what came of an attempt.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use maos_api::worker::OutcomeAnswer;

use super::answer::{Answered, Json};
use super::parts::AttemptOf;
use super::routes::{check_json, read};
use crate::service::{OUTCOME_BYTES_MAX, Service};

pub(super) async fn take(
    State(service): State<Service>,
    AttemptOf(of): AttemptOf,
    request: Request,
) -> Answered<OutcomeAnswer> {
    let (parts, body) = request.into_parts();
    check_json(&parts.headers)?;
    let body = read(body, OUTCOME_BYTES_MAX).await?;
    Ok(Json(service.take_outcome(of, bearer(&parts.headers), &body).await?))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
