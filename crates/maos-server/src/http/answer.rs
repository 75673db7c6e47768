//! Answers: JSON for what worked, the contract's error for what did not.

use std::any::Any;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use maos_api::error::{ApiError, ErrorCode, Retry};
use serde::Serialize;
use tracing::{error, info};
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// When a refused request is worth another try.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// What a handler returns.
pub(super) type Answered<T> = Result<Json<T>, Failed>;

/// A body of JSON.
pub(super) struct Json<T>(pub(super) T);

/// An error on its way to becoming a body; `finish` writes it.
#[derive(Clone, Debug)]
pub(super) struct Failed(pub(super) ApiError);

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Failed {
        Failed(error)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => json(StatusCode::OK, body),
            Err(why) => {
                let message = format!("the answer cannot be written: {why}");
                Failed(ApiError::new(ErrorCode::Internal, message)).into_response()
            }
        }
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        let status = StatusCode::from_u16(self.0.code.status());
        *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(self);
        response
    }
}

/// What a panic said; for the log alone.
#[derive(Clone)]
struct Panicked(String);

/// The answer to a request whose handler panicked.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Response {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or(panic.downcast_ref::<&str>().copied()).unwrap_or("nothing readable");
    let message = "the server failed; its log says more under this request's id";
    let mut response = Failed(ApiError::new(ErrorCode::Internal, message)).into_response();
    response.extensions_mut().insert(Panicked(words.to_owned()));
    response
}

/// Adds what every answer has.
pub(super) fn finish(mut response: Response) -> Response {
    let request_id = Uuid::now_v7().to_string();
    let header = HeaderValue::from_str(&request_id).expect("a UUID is a header value");
    if let Some(Failed(error)) = response.extensions_mut().remove::<Failed>() {
        response = failed(response, error, request_id);
    }
    response.headers_mut().insert(REQUEST_ID, header);
    response
}

fn failed(mut bare: Response, error: ApiError, request_id: String) -> Response {
    let code = error.code;
    let (id, name, message) = (&request_id, code.name(), &error.message);
    match bare.extensions_mut().remove::<Panicked>() {
        Some(Panicked(words)) => {
            error!(request.id = %id, error.code = name, "a request handler panicked: {words}");
        }
        None if code.status() >= 500 => {
            error!(request.id = %id, error.code = name, "failed with {name}: {message}");
        }
        None => info!(request.id = %id, error.code = name, "refused with {name}: {message}"),
    }
    let body = error.into_body(crate::service::now(), request_id);
    // The body is made of strings, numbers and maps with string keys: it can be written.
    let mut response = json(bare.status(), serde_json::to_vec(&body).unwrap_or_default());
    // What the router put there, `Allow` among it, stays.
    for (name, value) in bare.headers() {
        if name != CONTENT_TYPE && name != axum::http::header::CONTENT_LENGTH {
            response.headers_mut().insert(name, value.clone());
        }
    }
    if code.retry() == Retry::Later {
        response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    response
}

pub(super) fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
