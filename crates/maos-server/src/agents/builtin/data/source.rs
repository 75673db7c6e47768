//! Where rows come from, as a task writes it: a file, a part of one, rows, or an earlier result.

use std::path::PathBuf;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Fault, Paths};

/// Rows for a table. A table may have several of these, one after another.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Part {
    pub(super) origin: Origin,
    /// As the task named it, for errors.
    pub(super) shown: String,
    pub(super) choice: Choice,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Origin {
    /// A file, checked already.
    File(PathBuf),
    /// Rows of the task itself: objects. Of columns that are named, there may be no value at all.
    Rows { columns: Vec<String>, rows: Vec<Value> },
}

/// Which of the rows count.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) enum Choice {
    All,
    /// So many after so many.
    Range {
        skip: u64,
        take: u64,
    },
    /// Those with one of these values in this column.
    Values {
        column: String,
        values: Vec<Value>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    path: Option<String>,
    rows: Option<Vec<Value>>,
    skip: Option<u64>,
    take: Option<u64>,
    column: Option<String>,
    values: Option<Vec<Value>>,
    // The result of `data.sql` and `join.group` is a source as it is.
    columns: Option<Vec<String>>,
    #[serde(rename = "row_count")]
    _row_count: Option<IgnoredAny>,
}

/// Several sources, the rows of all together.
pub(super) fn all(sources: Value, field: &str, paths: &Paths) -> Result<Vec<Part>, Fault> {
    let Value::Array(sources) = sources else {
        return Err(Fault::wrong(format!("`{field}` must be a list of sources")));
    };
    let mut parts = Vec::new();
    for (index, source) in sources.into_iter().enumerate() {
        parts.extend(one(source, &format!("{field}[{index}]"), paths)?);
    }
    Ok(parts)
}

/// One source, its path checked.
pub(super) fn one(source: Value, field: &str, paths: &Paths) -> Result<Vec<Part>, Fault> {
    let written = match source {
        Value::Array(rows) => {
            let origin = Origin::Rows { columns: Vec::new(), rows };
            return Ok(vec![Part { origin, shown: field.to_owned(), choice: Choice::All }]);
        }
        Value::Object(_) => serde_json::from_value::<Written>(source)
            .map_err(|why| Fault::wrong(format!("`{field}`: {why}")))?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let message = format!(
                "`{field}` must be a list of rows or an object with `path` or `rows`, found {}",
                crate::agents::builtin::cut(&source)
            );
            return Err(Fault::wrong(message));
        }
    };
    let choice = choice(&written, field)?;
    let (origin, shown) = match (written.path, written.rows) {
        (Some(path), None) => {
            let checked = paths.allowed(field, &path)?;
            if !checked.is_file() {
                return Err(Fault::wrong(format!("`{field}`: there is no file `{path}`")));
            }
            (Origin::File(checked), path)
        }
        (None, Some(rows)) => {
            let columns = written.columns.unwrap_or_default();
            (Origin::Rows { columns, rows }, field.to_owned())
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(Fault::wrong(format!("`{field}` must have either `path` or `rows`")));
        }
    };
    Ok(vec![Part { origin, shown, choice }])
}

fn choice(written: &Written, field: &str) -> Result<Choice, Fault> {
    match (written.skip, written.take, &written.column, &written.values) {
        (None, None, None, None) => Ok(Choice::All),
        (skip, take, None, None) => {
            Ok(Choice::Range { skip: skip.unwrap_or(0), take: take.unwrap_or(u64::MAX) })
        }
        (None, None, Some(column), Some(values)) => {
            Ok(Choice::Values { column: column.clone(), values: values.clone() })
        }
        _ => Err(Fault::wrong(format!(
            "`{field}`: a part is `skip` and `take`, or `column` and `values`"
        ))),
    }
}
