//! The paths: what each takes from a request, and which words of the service it says.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use futures_util::StreamExt;
use maos_api::agent::{AgentEnvelope, TerminateAnswer};
use maos_api::amend;
use maos_api::error::{ApiError, ErrorCode};
use maos_api::explain::Explanation;
use maos_api::history::TaskHistory;
use maos_api::paths;
use maos_api::submission::Bounds;
use maos_api::system::{Health, HealthStatus, SystemMetrics, SystemStatus};
use maos_api::task::{BatchResult, CancelAnswer, TaskEnvelope, TaskResults};
use maos_core::limits::BATCH_BYTES_MAX;
use maos_core::spec::TraceContext;
use serde::Deserialize;

use super::answer::{Answered, Failed, Json, json};
use super::openapi::{self, pages};
use super::parts::{Id, Params, bad_query, number};
use super::{
    artifacts, checkpoints, claude, events, keys, lists, logs, messages, outcomes, pools,
    resources, schedules, subscriptions, workers,
};
use crate::door::Door;
use crate::service::{Service, SubmitOptions};

/// Longest wait that a request may ask for.
const WAIT_SECONDS_MAX: u64 = 60;
/// Longest idempotency key.
const KEY_CHARS_MAX: usize = 200;
const IDEMPOTENCY_KEY: &str = "idempotency-key";

pub(super) fn all(door: Door) -> Router {
    Router::new()
        .route(paths::HEALTH_DETAILED, get(detailed_health))
        .route(paths::TASKS, post(submit).get(lists::tasks))
        .route(paths::TASKS_BULK, post(lists::bulk))
        .route(paths::PLAN, get(lists::plan))
        .route(paths::PLANS_PREVIEW, post(lists::preview))
        .route(paths::TASK, get(task).patch(change_task).delete(cancel))
        .route(paths::TASK_EVENTS, get(history))
        .route(paths::TASK_CANCEL, put(cancel_too))
        .route(paths::TASK_RETRY, put(retry))
        .route(paths::TASK_RESULTS, get(results))
        .route(paths::TASK_EXPLAIN, get(explain))
        .route(paths::ATTEMPT_OUTCOME, post(outcomes::take))
        .route(paths::TASK_LOGS, get(logs::of_task))
        .route(paths::TASK_ARTIFACTS, get(artifacts::all))
        .route(paths::TASK_ARTIFACT, put(artifacts::keep).get(artifacts::one))
        .route(paths::AGENTS, post(create_agent).get(lists::agents))
        .route(paths::AGENT, get(agent).patch(change_agent).delete(terminate_agent))
        .route(paths::AGENT_POLL, post(workers::poll))
        .route(paths::TASKS_BATCH, post(batch))
        .route(paths::CLAUDE_TASKS, post(claude::submit))
        .route(paths::CLAUDE_TASK, get(claude::task).delete(claude::cancel))
        .route(paths::CLAUDE_TASK_CANCEL, put(claude::cancel_too))
        .route(paths::CLAUDE_TASK_RESULTS, get(claude::results))
        .route(paths::CLAUDE_STATUS, get(claude::status))
        .route(paths::EVENTS, get(events::stream))
        .route(paths::MESSAGES, post(messages::send).get(messages::read))
        .route(paths::MESSAGES_ACK, post(messages::acknowledge))
        .route(paths::MAILBOXES, get(messages::mailboxes))
        .route(paths::SUBSCRIPTIONS, get(subscriptions::all))
        .route(
            paths::SUBSCRIPTION,
            put(subscriptions::put).get(subscriptions::one).delete(subscriptions::delete),
        )
        .route(paths::SUBSCRIPTION_REPLAY, post(subscriptions::replay))
        .route(paths::KEYS, get(keys::all))
        .route(paths::CONCURRENCY_KEY, put(keys::set_limit).delete(keys::unset_limit))
        .route(paths::FAIRNESS_KEY, put(keys::set_weight).delete(keys::unset_weight))
        .route(paths::RESOURCES, get(resources::all).post(resources::create))
        .route(paths::RESOURCES_ALLOCATE, post(resources::allocate))
        .route(paths::ALLOCATIONS, get(resources::allocations))
        .route(paths::ALLOCATION, delete(resources::release))
        .route(
            paths::RESOURCE,
            get(resources::one).patch(resources::change).delete(resources::delete),
        )
        .route(paths::SCHEDULES, get(schedules::all).post(schedules::create))
        .route(
            paths::SCHEDULE,
            get(schedules::one).patch(schedules::pause).delete(schedules::delete),
        )
        .route(paths::SYSTEM_STATUS, get(status))
        .route(paths::SYSTEM_METRICS, get(metrics))
        .route(paths::POOLS, get(pools::all))
        .route(paths::POOL, get(pools::one).put(pools::change))
        .route(paths::POOL_DEMAND, get(pools::demand))
        .route(paths::CHECKPOINTS, get(checkpoints::all).post(checkpoints::create))
        .route(paths::CHECKPOINT, get(checkpoints::one).delete(checkpoints::delete))
        .route_layer(middleware::from_fn_with_state(door.clone(), pass))
        // What needs no service, and what replaces it, does not wait for another one.
        .route(paths::HEALTH, get(health))
        .route(paths::CHECKPOINT_RESTORE, put(checkpoints::restore))
        .route(paths::OPENAPI, get(openapi::json_document))
        .route(paths::DOCS, get(pages::docs))
        .route(paths::REDOC, get(pages::redoc))
        .route(pages::ASSET, get(pages::asset))
        .with_state(door)
}

/// Has a request wait while another service takes the place of the one that answered so far.
async fn pass(State(door): State<Door>, request: Request, next: Next) -> Response {
    let _share = door.enter().await;
    next.run(request).await
}

async fn health(State(service): State<Service>) -> Json<Health> {
    Json(service.health())
}

async fn detailed_health(State(service): State<Service>) -> Response {
    let health = service.detailed_health().await;
    let status = match health.status {
        HealthStatus::Healthy => StatusCode::OK,
        HealthStatus::Degraded | HealthStatus::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(status, serde_json::to_vec(&health).unwrap_or_default())
}

async fn submit(
    State(service): State<Service>,
    Params(query): Params<WaitQuery>,
    request: Request,
) -> Answered<TaskEnvelope> {
    let wait = query.wait()?;
    let (options, body) = submission_of(request, service.bounds().body_bytes_max).await?;
    let answer = match wait {
        Duration::ZERO => service.submit(&body, options).await?,
        wait => service.submit_to_end(&body, options, wait).await?,
    };
    Ok(Json(answer))
}

async fn batch(State(service): State<Service>, request: Request) -> Answered<Vec<BatchResult>> {
    let (options, body) = submission_of(request, BATCH_BYTES_MAX).await?;
    Ok(Json(service.submit_batch(body, options).await?))
}

/// The body of any request that is no submission.
pub(super) async fn body_of(request: Request, bytes_max: u64) -> Result<Bytes, Failed> {
    let (parts, body) = request.into_parts();
    check_json(&parts.headers)?;
    if parts.headers.contains_key(IDEMPOTENCY_KEY) {
        // Whoever sends one counts on it when it tries again.
        let what = "has no effect here: it is for `POST` of tasks, batches, Claude tasks and \
                    messages; leave it out";
        return Err(bad_key(what.to_owned()));
    }
    read(body, bytes_max).await
}

/// The body of a submission, with what its headers say.
pub(super) async fn submission_of(
    request: Request,
    bytes_max: u64,
) -> Result<(SubmitOptions, Bytes), Failed> {
    let (parts, body) = request.into_parts();
    check_json(&parts.headers)?;
    let options = SubmitOptions {
        idempotency_key: idempotency_key(&parts.headers)?,
        trace: trace(&parts.headers),
    };
    Ok((options, read(body, bytes_max).await?))
}

#[derive(Deserialize)]
pub(super) struct WaitQuery {
    wait_seconds: Option<String>,
}

impl WaitQuery {
    pub(super) fn wait(&self) -> Result<Duration, Failed> {
        let seconds = match &self.wait_seconds {
            None => 0,
            Some(text) => number("wait_seconds", text, 0, WAIT_SECONDS_MAX)?,
        };
        Ok(Duration::from_secs(seconds))
    }
}

async fn task(
    State(service): State<Service>,
    Id(id): Id,
    Params(query): Params<WaitQuery>,
) -> Answered<TaskEnvelope> {
    Ok(Json(service.task(id, query.wait()?).await?))
}

async fn change_task(
    State(service): State<Service>,
    Id(id): Id,
    request: Request,
) -> Answered<TaskEnvelope> {
    let body = body_of(request, service.bounds().body_bytes_max).await?;
    Ok(Json(service.change_task(id, &body).await?))
}

async fn history(State(service): State<Service>, Id(id): Id) -> Answered<TaskHistory> {
    Ok(Json(service.history(id).await?))
}

#[derive(Deserialize)]
pub(super) struct ReasonQuery {
    reason: Option<String>,
}

impl ReasonQuery {
    pub(super) fn reason(self, bounds: &Bounds) -> Result<Option<String>, Failed> {
        let most = usize::try_from(bounds.name_chars_max).unwrap_or(usize::MAX);
        match &self.reason {
            Some(reason) if reason.chars().count() > most || reason.contains('\0') => {
                Err(bad_query("reason", format!("must be at most {most} characters without NUL")))
            }
            Some(_) | None => Ok(self.reason),
        }
    }

    /// The same, or else out of the body, which may be missing.
    pub(super) async fn or_body(
        self,
        request: Request,
        bounds: &Bounds,
    ) -> Result<Option<String>, Failed> {
        let given = self.reason(bounds)?;
        let (parts, body) = request.into_parts();
        let body = read(body, bounds.body_bytes_max).await?;
        if body.is_empty() {
            // Clients announce types of bodies that they do not send.
            return Ok(given);
        }
        check_json(&parts.headers)?;
        match (amend::parse_cancel(&body, bounds)?, given) {
            (Some(_), Some(_)) => {
                let what = "is given in the query and in the body: once is enough";
                Err(Failed(ApiError::invalid("reason", what)))
            }
            (reason, given) => Ok(reason.or(given)),
        }
    }
}

async fn cancel(
    State(service): State<Service>,
    Id(id): Id,
    Params(query): Params<ReasonQuery>,
) -> Answered<CancelAnswer> {
    Ok(Json(service.cancel(id, query.reason(service.bounds())?).await?))
}

async fn cancel_too(
    State(service): State<Service>,
    Id(id): Id,
    Params(query): Params<ReasonQuery>,
    request: Request,
) -> Answered<CancelAnswer> {
    let reason = query.or_body(request, service.bounds()).await?;
    Ok(Json(service.cancel(id, reason).await?))
}

async fn retry(State(service): State<Service>, Id(id): Id) -> Answered<TaskEnvelope> {
    Ok(Json(service.retry(id).await?))
}

async fn results(State(service): State<Service>, Id(id): Id) -> Answered<TaskResults> {
    Ok(Json(service.results(id).await?))
}

async fn explain(State(service): State<Service>, Id(id): Id) -> Answered<Explanation> {
    Ok(Json(service.explain(id).await?))
}

async fn create_agent(State(service): State<Service>, request: Request) -> Answered<AgentEnvelope> {
    let body = body_of(request, service.bounds().body_bytes_max).await?;
    Ok(Json(service.create_agent(&body).await?))
}

async fn agent(State(service): State<Service>, Id(id): Id) -> Answered<AgentEnvelope> {
    Ok(Json(service.agent(id).await?))
}

async fn change_agent(
    State(service): State<Service>,
    Id(id): Id,
    request: Request,
) -> Answered<AgentEnvelope> {
    let body = body_of(request, service.bounds().body_bytes_max).await?;
    Ok(Json(service.change_agent(id, &body).await?))
}

async fn terminate_agent(State(service): State<Service>, Id(id): Id) -> Answered<TerminateAnswer> {
    Ok(Json(service.terminate_agent(id).await?))
}

async fn status(State(service): State<Service>) -> Answered<SystemStatus> {
    Ok(Json(service.status().await?))
}

async fn metrics(State(service): State<Service>) -> Answered<SystemMetrics> {
    Ok(Json(service.metrics().await?))
}

/// A missing content type is taken for JSON, as the contract's first clients send none.
pub(super) fn check_json(headers: &HeaderMap) -> Result<(), Failed> {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.to_str().unwrap_or("not readable");
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || essence.ends_with("+json") {
        return Ok(());
    }
    let message = format!("the content type is `{essence}`, it must be `application/json`");
    Err(Failed(ApiError::new(ErrorCode::NotJson, message)))
}

/// A body within its bound, which holds whatever length was announced.
pub(super) async fn read(body: Body, bytes_max: u64) -> Result<Bytes, Failed> {
    let too_large = || {
        let message = format!("the body has more than {bytes_max} bytes");
        Failed(ApiError::new(ErrorCode::BodyTooLarge, message).with("bytes_max", bytes_max))
    };
    let mut stream = body.into_data_stream();
    let mut whole: Option<Bytes> = None;
    let mut joined: Vec<u8> = Vec::new();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|why| {
            let message = format!("the body broke off: {why}");
            Failed(ApiError::new(ErrorCode::MalformedJson, message))
        })?;
        // Almost every body comes in one piece: it is not copied.
        if let Some(first) = whole.take() {
            joined.extend_from_slice(&first);
        }
        if joined.is_empty() {
            whole = Some(piece);
        } else {
            joined.extend_from_slice(&piece);
        }
        let bytes = joined.len() + whole.as_ref().map_or(0, Bytes::len);
        if bytes as u64 > bytes_max {
            return Err(too_large());
        }
    }
    Ok(whole.unwrap_or_else(|| Bytes::from(joined)))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Failed> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = key.to_str().unwrap_or_default();
    let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if key.is_empty() || key.len() > KEY_CHARS_MAX || !visible {
        return Err(bad_key(format!("must be 1 to {KEY_CHARS_MAX} visible characters")));
    }
    Ok(Some(key.to_owned()))
}

fn bad_key(what: String) -> Failed {
    Failed(ApiError::invalid("Idempotency-Key", what))
}

fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let parent = text("traceparent").filter(|parent| parent.len() <= KEY_CHARS_MAX)?;
    let state = text("tracestate").filter(|state| state.len() <= 512);
    Some(TraceContext { parent: parent.into(), state: state.map(Into::into) })
}
