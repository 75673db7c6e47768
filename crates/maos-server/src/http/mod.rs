//! HTTP: paths, status codes and JSON around the service.
//!
//! Every error, whatever went wrong, has the contract's shape and a request id that the log has
//! too. It must not know the driver, the journal or the store.

mod answer;
mod artifacts;
mod checkpoints;
mod claude;
mod connections;
mod events;
mod keys;
mod lists;
mod logs;
mod messages;
pub mod openapi;
mod outcomes;
mod parts;
mod pools;
mod resources;
mod routes;
mod schedules;
mod subscriptions;
mod workers;

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use maos_api::error::{ApiError, ErrorCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::door::Door;

/// Listens on `address`.
///
/// # Errors
/// When the address cannot be had.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stop` is cancelled; requests under way are then finished.
pub async fn serve(listener: TcpListener, door: impl Into<Door>, stop: CancellationToken) {
    connections::serve(listener, router(door), stop).await;
}

/// The whole API, to be nested into an application of one's own as well.
pub fn router(door: impl Into<Door>) -> Router {
    routes::all(door.into())
        .fallback(|request: Request| async move {
            let path = request.uri().path();
            let message = format!("nothing answers under `{path}`");
            answer::Failed(ApiError::new(ErrorCode::PathNotFound, message)).into_response()
        })
        .method_not_allowed_fallback(|request: Request| async move {
            let (method, path) = (request.method(), request.uri().path());
            let message = format!("`{path}` does not take {method}: see the header `Allow`");
            answer::Failed(ApiError::new(ErrorCode::MethodNotAllowed, message)).into_response()
        })
        .layer(middleware::from_fn(finish))
}

/// Gives every answer its request id, every error its body, and every panic an answer.
async fn finish(request: Request, next: middleware::Next) -> Response {
    use std::panic::AssertUnwindSafe;

    use futures_util::FutureExt;
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = answered.unwrap_or_else(|_| {
        tracing::error!("a request handler panicked");
        let message = "the server failed; its log says more under this request's id";
        answer::Failed(ApiError::new(ErrorCode::Internal, message)).into_response()
    });
    answer::finish(response)
}
