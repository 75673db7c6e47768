//! The server as a part of an application of one's own, with a route of its own beside it.
//!
//! ```sh
//! cargo run -p maos-server --example backend_api -- 127.0.0.1:8000 ./shop-data
//! curl -s http://127.0.0.1:8000/orders --json '{"item": "tea", "quantity": 3}'
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use maos_server::config::Config;
use maos_server::service::{Service, SubmitOptions};
use maos_server::{host, http, service};
use serde::Deserialize;
use serde_json::{Value, json};

/// What the shop knows of an order.
#[derive(Deserialize)]
struct Order {
    item: String,
    quantity: u32,
}

/// The shop's own route: an order becomes a task, and is answered with what came of it.
async fn order(
    State(service): State<Service>,
    Json(order): Json<Order>,
) -> (StatusCode, Json<Value>) {
    let task = json!({
        "name": format!("order of {}", order.item),
        "parameters": {
            "action": "compute.expression",
            "expression": "quantity * 25",
            "variables": {"quantity": order.quantity},
        },
    });
    let submitted = service.submit(task.to_string().as_bytes(), SubmitOptions::default()).await;
    let ended = match submitted {
        Ok(accepted) => service.task(accepted.task.id, Duration::from_secs(10)).await,
        Err(refused) => Err(refused),
    };
    match ended {
        Ok(ended) => {
            let task = ended.task;
            let answer = json!({"order": task.id, "status": task.status, "price": task.result});
            (StatusCode::OK, Json(answer))
        }
        Err(refused) => {
            let status = StatusCode::from_u16(refused.code.status());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, Json(json!({"error": refused.message})))
        }
    }
}

/// The application: its own routes, and all of MAOS beside them.
pub(crate) fn application(service: Service) -> Router {
    let own = Router::new().route("/orders", post(order)).with_state(service.clone());
    own.merge(http::router(service))
}

async fn serve(address: &str, data_dir: &Path) -> Result<(), Box<dyn Error>> {
    let files = data_dir.join("files");
    let setup = host::setup(std::env::current_exe()?, data_dir.to_owned(), files);
    let listener = tokio::net::TcpListener::bind(address).await?;
    let server = service::start(Config::default(), setup).await?;
    println!("the shop is open at http://{}/orders", listener.local_addr()?);
    let stopping = server.service.clone();
    let stop = async move {
        // A handler that cannot be installed means: until it is killed, which harms nothing.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        stopping.stop_intake();
    };
    axum::serve(listener, application(server.service.clone())).with_graceful_shutdown(stop).await?;
    server.stop(Duration::from_secs(10)).await;
    Ok(())
}

pub(crate) fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let address = arguments.next();
    // Hidden words, for the processes that the server starts of this very program.
    match address.as_deref().and_then(OsStr::to_str) {
        Some("data-worker") => return maos_server::agents::builtin::data::worker_main(),
        Some("supervisor") => return maos_server::supervisor::supervisor_main(),
        Some(_) | None => {}
    }
    let address =
        address.map_or("127.0.0.1:8000".into(), |text| text.to_string_lossy().into_owned());
    let data_dir = arguments.next().map_or(PathBuf::from("shop-data"), PathBuf::from);
    let runtime = tokio::runtime::Runtime::new();
    let served = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(serve(&address, &data_dir)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
