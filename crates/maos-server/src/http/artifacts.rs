//! The paths of files that are kept with a task: bodies of any type, piece by piece.

use std::io;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use futures_util::{StreamExt, stream};
use maos_api::artifacts::{ArtifactEnvelope, ArtifactList};
use maos_api::error::{ApiError, ErrorCode};
use serde::Deserialize;

use super::answer::{Answered, Failed, Json};
use super::parts::{Id, Named, Params, number};
use crate::service::{Download, Service};

pub(super) async fn all(State(service): State<Service>, Id(id): Id) -> Answered<ArtifactList> {
    Ok(Json(service.artifacts(id).await?))
}

#[derive(Deserialize)]
pub(super) struct AttemptQuery {
    attempt: Option<String>,
}

pub(super) async fn keep(
    State(service): State<Service>,
    Named(id, name): Named,
    Params(query): Params<AttemptQuery>,
    request: Request,
) -> Answered<ArtifactEnvelope> {
    let attempt = query.attempt.map(|text| number("attempt", &text, 1, u32::MAX.into()));
    let attempt = attempt.transpose()?.map(|attempt| u32::try_from(attempt).unwrap_or(u32::MAX));
    let (parts, body) = request.into_parts();
    let media_type = parts.headers.get(CONTENT_TYPE);
    let media_type = media_type.map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
    let mut upload = service.keep_artifact(id, name, media_type, attempt).await?;
    // What is announced as too large is refused before it comes.
    upload.check_size(announced(&parts.headers))?;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|why| {
            let message = format!("the body broke off: {why}");
            let error = ApiError::new(ErrorCode::ValidationFailed, message);
            Failed(error.with_field("body", "broke off"))
        })?;
        upload.push(piece).await?;
    }
    Ok(Json(upload.keep().await?))
}

fn announced(headers: &HeaderMap) -> u64 {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

pub(super) async fn one(
    State(service): State<Service>,
    Named(id, name): Named,
) -> Result<Response, Failed> {
    let download = service.artifact(id, &name).await?;
    let artifact = download.artifact.clone();
    let mut response = Response::new(Body::from_stream(stream::unfold(Some(download), written)));
    let headers = response.headers_mut();
    let value = |text: &str| HeaderValue::from_str(text).ok();
    headers.insert(CONTENT_LENGTH, artifact.size_bytes.into());
    if let Some(kind) = value(&artifact.media_type) {
        headers.insert(CONTENT_TYPE, kind);
    }
    if let Some(tag) = value(&format!("\"{}\"", artifact.checksum)) {
        headers.insert(ETAG, tag);
    }
    // A page that an agent made must not run with the rights of this server's own.
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

type Piece = (Result<axum::body::Bytes, io::Error>, Option<Download>);

async fn written(download: Option<Download>) -> Option<Piece> {
    let mut download = download?;
    match download.next().await {
        Ok(piece) => piece.map(|piece| (Ok(piece), Some(download))),
        // The log says what is wrong; the reader misses the rest of what was announced.
        Err(why) => Some((Err(io::Error::other(why.message)), None)),
    }
}
