//! Faults of a request, gathered so that one answer names them all.

use serde_json::{Map, Value};

use crate::error::{ApiError, ErrorCode};

/// Faults that one answer names at the most.
const FAULTS_MAX: usize = 100;

/// One field and what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
struct Fault {
    field: String,
    error: ApiError,
}

/// What is wrong with a request so far.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    found: Vec<Fault>,
    more_count: usize,
}

impl Faults {
    /// Notes that `field` is not valid; `what` says what was wanted and what was found.
    pub fn invalid(&mut self, field: impl Into<String>, what: impl Into<String>) {
        self.note(field, ApiError::new(ErrorCode::ValidationFailed, what));
    }

    /// Notes a fault with a code of its own, which is answered if it is the only one.
    pub fn note(&mut self, field: impl Into<String>, error: ApiError) {
        if self.found.len() < FAULTS_MAX {
            self.found.push(Fault { field: field.into(), error });
        } else {
            self.more_count += 1;
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// `Ok` if nothing is wrong, else one error that names every faulty field.
    ///
    /// # Errors
    /// All that was noted.
    pub fn check(self) -> Result<(), ApiError> {
        let mut found = self.found;
        match found.pop() {
            None => Ok(()),
            Some(only) if found.is_empty() => Err(single(only)),
            Some(last) => {
                found.push(last);
                Err(many(found, self.more_count))
            }
        }
    }
}

fn single(Fault { field, error }: Fault) -> ApiError {
    let what = error.message.clone();
    if error.code != ErrorCode::ValidationFailed {
        // It says by itself what is wrong, and with what.
        return error.with_field(&field, what);
    }
    let message = format!("`{field}` {what}");
    ApiError { code: error.code, message, details: error.details }.with_field(&field, what)
}

fn many(found: Vec<Fault>, more_count: usize) -> ApiError {
    let count = found.len() + more_count;
    let fields: Map<String, Value> =
        found.into_iter().map(|fault| (fault.field, fault.error.message.into())).collect();
    let names: Vec<String> = fields.keys().take(10).map(|name| format!("`{name}`")).collect();
    let names = names.join(", ");
    let message =
        format!("{count} fields are not valid: {names}\nhint: details.fields has each fault");
    ApiError::new(ErrorCode::ValidationFailed, message).with("fields", fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_faults_than_the_bound_are_counted_and_not_kept() {
        let mut faults = Faults::default();
        for index in 0..FAULTS_MAX + 5 {
            faults.invalid(format!("f{index}"), "is bad");
        }
        let error = faults.check().unwrap_err();
        assert!(error.message.starts_with("105 fields are not valid"), "{}", error.message);
        assert_eq!(error.details["fields"].as_object().unwrap().len(), FAULTS_MAX);
    }
}
