//! Server-sent events: the stream of what happens.

use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use futures_util::stream;
use maos_api::events::{Event, EventId, RawEventQuery};

use super::answer::Failed;
use super::parts::Params;
use crate::service::{Events, Service};

/// A comment is sent after so much silence, so that a connection that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn stream(
    State(service): State<Service>,
    Params(query): Params<RawEventQuery>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    let (filter, mut after) = query.read()?;
    if let Some(last) = headers.get("last-event-id") {
        after = Some(last.to_str().unwrap_or_default().parse::<EventId>()?);
    }
    let events = service.events(filter, after).await?;
    let mut response = Response::new(Body::from_stream(stream::unfold(events, written)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn written(mut events: Events) -> Option<(Result<Bytes, Infallible>, Events)> {
    let text = match tokio::time::timeout(KEEP_ALIVE, events.next()).await {
        Ok(portion) => {
            portion?.iter().fold(String::new(), |text, (id, event)| append(text, *id, event))
        }
        Err(_) => ": nothing happened\n\n".to_owned(),
    };
    Some((Ok(Bytes::from(text)), events))
}

fn append(mut text: String, id: Option<EventId>, event: &Event) -> String {
    // Writing to a string does not fail; JSON has no line ends in it.
    if let Some(id) = id {
        let _ = writeln!(text, "id: {id}");
    }
    let data = serde_json::to_string(event).unwrap_or_default();
    let _ = write!(text, "event: {}\ndata: {data}\n\n", event.name());
    text
}
