//! Words for people, on standard error.

use std::io::Write;

use maos_api::error::ApiError;

/// Says something. That nobody listens is no failure.
pub(crate) fn say(words: &str) {
    drop(writeln!(std::io::stderr().lock(), "{words}"));
}

/// A refusal as an error of the command.
pub(crate) fn api_error(error: ApiError) -> anyhow::Error {
    let mut words = format!("{} ({})", error.message, error.code.name());
    if let Some(fields) = error.details.get("fields").and_then(|fields| fields.as_object()) {
        for (field, fault) in fields {
            words.push_str(&format!("\n  {field}: {}", fault.as_str().unwrap_or_default()));
        }
    }
    anyhow::Error::msg(words)
}
