//! References to earlier results: `{"$from": "key", "pointer": "/rows/0"}`.
//!
//! An object with `$from` is a reference and nothing else. The planner turns it into a dependency;
//! at the start of an attempt the result takes its place.

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use super::parameters::quoted;

const FROM: &str = "$from";
const POINTER: &str = "pointer";

/// A reference as JSON.
pub(super) fn write(key: &str) -> String {
    format!("{{\"{FROM}\":{}}}", quoted(key))
}

/// Whether `json` may hold a reference; a cheap look that may err on the side of yes.
pub(super) fn may_be_in(json: &str) -> bool {
    json.contains(FROM) || json.contains("\\u0024")
}

/// The keys that `value` refers to, in the order found.
///
/// # Errors
/// What is wrong with a reference.
pub(super) fn keys<'v>(value: &'v Value, found: &mut Vec<&'v str>) -> Result<(), String> {
    match value {
        Value::Object(members) => match members.get(FROM) {
            Some(from) => found.push(read(from, members)?.0),
            None => members.values().try_for_each(|member| keys(member, found))?,
        },
        Value::Array(entries) => entries.iter().try_for_each(|entry| keys(entry, found))?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    Ok(())
}

/// Key and pointer of a reference.
fn read<'v>(
    from: &'v Value,
    members: &'v serde_json::Map<String, Value>,
) -> Result<(&'v str, &'v str), String> {
    let Value::String(key) = from else {
        return Err("has a reference whose `$from` is not a string".to_owned());
    };
    if let Some(other) = members.keys().find(|name| *name != FROM && *name != POINTER) {
        return Err(format!("has a reference to `{key}` with a member `{other}` too many"));
    }
    match members.get(POINTER) {
        None | Some(Value::Null) => Ok((key, "")),
        Some(Value::String(pointer)) if pointer.is_empty() || pointer.starts_with('/') => {
            Ok((key, pointer))
        }
        Some(_) => Err(format!(
            "has a reference to `{key}` whose `pointer` is not a JSON pointer like `/rows/0`"
        )),
    }
}

/// Why the parameters of an attempt could not be put together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// The result has no such part.
    #[error("the result of `{key}` has nothing at `{pointer}`")]
    NothingThere {
        /// Whose result.
        key: String,
        /// Which part of it.
        pointer: String,
    },
    /// No result goes by this key.
    #[error("there is no result of `{key}`")]
    NoInput {
        /// The key.
        key: String,
    },
    /// The reference itself is wrong.
    #[error("the parameters cannot be used: {what}")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
}

/// Puts results in the place of all references in `parameters`. A result that is null, as that of a
/// subtask whose failure is ignored, stays null whatever part of it is asked for.
///
/// # Errors
/// The first reference that leads nowhere.
pub fn resolve(parameters: Value, inputs: &BTreeMap<String, Value>) -> Result<Value, ResolveError> {
    match parameters {
        Value::Object(members) => match members.get(FROM) {
            Some(from) => {
                let (key, pointer) =
                    read(from, &members).map_err(|what| ResolveError::Malformed { what })?;
                part(key, pointer, inputs)
            }
            None => members
                .into_iter()
                .map(|(name, value)| Ok((name, resolve(value, inputs)?)))
                .collect::<Result<_, _>>()
                .map(Value::Object),
        },
        Value::Array(entries) => entries
            .into_iter()
            .map(|entry| resolve(entry, inputs))
            .collect::<Result<_, _>>()
            .map(Value::Array),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => Ok(plain),
    }
}

fn part(key: &str, pointer: &str, inputs: &BTreeMap<String, Value>) -> Result<Value, ResolveError> {
    let Some(result) = inputs.get(key) else {
        return Err(ResolveError::NoInput { key: key.to_owned() });
    };
    if result.is_null() {
        return Ok(Value::Null);
    }
    result.pointer(pointer).cloned().ok_or_else(|| ResolveError::NothingThere {
        key: key.to_owned(),
        pointer: pointer.to_owned(),
    })
}
