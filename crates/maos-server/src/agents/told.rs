//! An attempt in the words of the wire, for agents outside of this server.

use std::time::Duration;

use maos_api::document;
use maos_api::worker;
use maos_core::ids::{Attempt, TaskId};
use maos_core::limits::{NESTING_MAX, RESULT_BYTES_MAX};
use maos_core::spec::TaskSpec;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::payloads::Payloads;

/// What an agent outside is told of an attempt; or why its documents cannot be had.
pub(crate) async fn told(
    payloads: &Payloads,
    spec: &TaskSpec,
    (task, attempt): (TaskId, Attempt),
    parameters: Box<RawValue>,
    left: Duration,
) -> Result<worker::Task, String> {
    let metadata = match &spec.metadata {
        Some(metadata) => {
            let bytes = payloads.bytes(metadata).await.map_err(|why| why.to_string())?;
            raw(bytes)?
        }
        None => worker::empty(),
    };
    let rare = spec.rare();
    Ok(worker::Task {
        task_id: Uuid::from_u128(task.0),
        attempt: attempt.0,
        name: spec.name.to_string(),
        description: spec.description.as_deref().map(str::to_owned),
        parameters,
        metadata,
        tags: spec.tags.iter().map(str::to_owned).collect(),
        timeout_seconds: spec.timeout_ms / 1_000,
        remaining_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        no_progress_seconds: rare.no_progress_ms.map(|silence_ms| silence_ms / 1_000),
        traceparent: rare.trace.as_ref().map(|trace| trace.parent.to_string()),
    })
}

/// A kept document, as it is.
pub(crate) fn raw(json: Vec<u8>) -> Result<Box<RawValue>, String> {
    let text = String::from_utf8(json).map_err(|why| why.to_string())?;
    RawValue::from_string(text).map_err(|why| why.to_string())
}

/// What is wrong with a result from outside.
pub(crate) fn fault_of(result: &str) -> Option<String> {
    if result.len() as u64 > RESULT_BYTES_MAX {
        let bytes = result.len();
        return Some(format!(
            "its result has {bytes} bytes, at most {RESULT_BYTES_MAX} are allowed"
        ));
    }
    let (defect, at) = document::scan(result, NESTING_MAX).err()?;
    Some(format!("its result {} at byte {at}", defect.message(NESTING_MAX)))
}
