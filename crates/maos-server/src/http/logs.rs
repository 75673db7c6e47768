//! The path of a task's log: a page of it, or its lines as server-sent events.

use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use maos_api::logs::{LogQuery, OFFSET_MAX, RawLogQuery};
use serde::Serialize;

use super::answer::{Failed, Json};
use super::parts::{Id, Params, bad_query};
use crate::service::{Followed, Follower, Service};

/// A comment is sent after so much silence, so that a connection that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn of_task(
    State(service): State<Service>,
    Id(id): Id,
    Params(query): Params<RawLogQuery>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    let mut query = query.read()?;
    if !query.follow {
        return Ok(Json(service.task_logs(id, query).await?).into_response());
    }
    if let Some(last) = headers.get("last-event-id") {
        let last = last.to_str().ok().and_then(|text| text.parse::<u64>().ok());
        let last = last.filter(|last| *last <= OFFSET_MAX);
        let offset = last
            .map(|last| last + 1)
            .ok_or_else(|| bad_query("Last-Event-ID", "must be the offset of a line".to_owned()))?;
        query = LogQuery { offset, ..query };
    }
    let follower = service.follow_logs(id, query).await?;
    let body = Body::from_stream(stream::unfold(follower, written));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn written(mut follower: Follower) -> Option<(Result<Bytes, Infallible>, Follower)> {
    let text = match tokio::time::timeout(KEEP_ALIVE, follower.next()).await {
        Ok(Ok(followed)) => text(&followed?),
        // What is wrong is in the server's log; the reader comes back where it was.
        Ok(Err(_)) => return None,
        Err(_) => ": nothing was said\n\n".to_owned(),
    };
    Some((Ok(Bytes::from(text)), follower))
}

fn text(followed: &Followed) -> String {
    let mut text = String::new();
    match followed {
        Followed::Lines(items) => {
            for item in items {
                append(&mut text, Some(item.offset), "log", item);
            }
        }
        Followed::Gone(gap) => append(&mut text, None, "gap", gap),
        Followed::End(end) => append(&mut text, None, "end", end),
    }
    text
}

fn append(text: &mut String, id: Option<u64>, event: &str, data: &impl Serialize) {
    // Writing to a string does not fail; JSON has no line ends in it.
    if let Some(id) = id {
        let _ = writeln!(text, "id: {id}");
    }
    let data = serde_json::to_string(data).unwrap_or_default();
    let _ = write!(text, "event: {event}\ndata: {data}\n\n");
}
