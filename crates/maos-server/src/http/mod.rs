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
mod query;
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
    dressed(routes::all(door.into()))
}

/// Routes with what every answer has, and answers for what they have not.
fn dressed(routes: Router) -> Router {
    routes
        .fallback(|request: Request| async move {
            answer::Failed(nothing_there(request.uri().path())).into_response()
        })
        .method_not_allowed_fallback(|request: Request| async move {
            let (method, path) = (request.method(), request.uri().path());
            let message = format!("`{path}` does not take {method}");
            answer::Failed(ApiError::new(ErrorCode::MethodNotAllowed, message)).into_response()
        })
        .layer(middleware::from_fn(finish))
}

fn nothing_there(path: &str) -> ApiError {
    let hint = match path.strip_suffix('/') {
        Some("") => {
            "\nhint: the API is under `/api/v1`; `/docs` shows it, `/openapi.json` describes it"
        }
        Some(_) => "\nhint: leave out the slash at its end; `/docs` shows every path",
        None => "",
    };
    let message = format!("nothing answers under `{path}`{hint}");
    ApiError::new(ErrorCode::PathNotFound, message).with("documentation", "/docs")
}

/// Gives every answer its request id, every error its body, and every panic an answer.
async fn finish(request: Request, next: middleware::Next) -> Response {
    use std::panic::AssertUnwindSafe;

    use futures_util::FutureExt;
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = answered.unwrap_or_else(|panic| answer::panicked(&*panic));
    answer::finish(response)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::body::Body;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use maos_api::error::ErrorBody;
    use tower::ServiceExt;
    use tracing::Level;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The answer to a request, and what the log has of it at this level.
    async fn asked(path: &str, level: Level) -> (u16, ErrorBody, String) {
        let routes = Router::new()
            .route("/panics", get(async || -> String { panic!("a bug with a name") }))
            .route(
                "/fails",
                get(async || {
                    answer::Failed(ApiError::new(ErrorCode::StorageUnavailable, "no disk"))
                }),
            );
        let log = Log::default();
        let written = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(move || written.clone())
            .with_ansi(false)
            .finish();
        let _logged = tracing::subscriber::set_default(subscriber);
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = dressed(routes).oneshot(request).await.unwrap();
        let (status, id) = (response.status().as_u16(), response.headers()["x-request-id"].clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: ErrorBody = serde_json::from_slice(&body).unwrap();
        assert_eq!(id.to_str().unwrap(), body.request_id);
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        (status, body, log)
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_its_words_are_in_the_log_alone() {
        let (status, body, log) = asked("/panics", Level::ERROR).await;
        assert_eq!((status, &*body.error_code), (500, "INTERNAL"));
        assert!(!body.error.contains("a bug with a name"), "{}", body.error);
        for said in [&body.request_id, "a bug with a name", "ERROR"] {
            assert!(log.contains(said), "{log}");
        }
    }

    #[tokio::test]
    async fn faults_of_the_server_are_logged_as_errors_and_those_of_callers_are_not() {
        let (status, body, log) = asked("/fails", Level::ERROR).await;
        assert_eq!((status, &*body.error_code), (503, "STORAGE_UNAVAILABLE"));
        assert!(log.contains(&body.request_id), "{log}");
        let (status, _, log) = asked("/nowhere", Level::ERROR).await;
        assert_eq!((status, &*log), (404, ""));
        let (_, body, log) = asked("/nowhere/", Level::INFO).await;
        assert!(log.contains(&body.request_id), "{log}");
        assert!(body.error.contains("/docs"), "{}", body.error);
    }
}
