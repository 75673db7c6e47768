//! Rows of many inputs grouped by columns and measured: what a fan-out has counted, added up.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::rows::Rows;
use super::{Fault, cut};
use crate::agents::builtin::compute::{Figure, greatest, least, mean, sum};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    rows: Option<Value>,
    inputs: Option<Value>,
    input: Option<Value>,
    /// Rows with the same values here make one.
    #[serde(default)]
    by: Vec<String>,
    /// The columns of the answer beside those.
    measures: BTreeMap<String, Measure>,
    #[serde(default)]
    skip_null: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Measure {
    /// Of how many rows the column has a value; `*` counts all rows.
    Count(String),
    Sum(String),
    Min(String),
    Max(String),
    Mean(String),
}

pub(super) fn group(wanted: &Group) -> Result<Value, Fault> {
    let rows = match (&wanted.rows, &wanted.inputs, &wanted.input) {
        (Some(rows), _, _) => Rows::of(rows, "rows")?,
        (None, Some(inputs), _) => Rows::of_all(inputs, "inputs", wanted.skip_null)?,
        (None, None, Some(input)) => Rows::of(input, "input")?,
        (None, None, None) => return Err(Fault::wrong("`rows` is missing")),
    };
    if let Some(double) = wanted.by.iter().find(|name| wanted.measures.contains_key(*name)) {
        return Err(Fault::wrong(format!("`measures.{double}` is named in `by` as well")));
    }
    let mut groups: BTreeMap<Vec<Key<'_>>, Vec<&Map<String, Value>>> = BTreeMap::new();
    if wanted.by.is_empty() {
        // As in SQL: without groups there is one, also of no rows.
        groups.insert(Vec::new(), Vec::new());
    }
    for row in rows.rows {
        let keys = wanted.by.iter().map(|column| Key::of(row, column));
        groups.entry(keys.collect::<Result<_, Fault>>()?).or_default().push(row);
    }
    let mut answer = Vec::with_capacity(groups.len());
    for (keys, rows) in groups {
        let mut object = Map::new();
        for (name, key) in wanted.by.iter().zip(keys) {
            object.insert(name.clone(), key.0.clone());
        }
        for (name, measure) in &wanted.measures {
            object.insert(name.clone(), measured(measure, &rows)?);
        }
        answer.push(Value::Object(object));
    }
    let columns: Vec<&String> = wanted.by.iter().chain(wanted.measures.keys()).collect();
    Ok(json!({ "columns": columns, "row_count": answer.len(), "rows": answer }))
}

/// Null where there is no number to measure; a sum of none is 0.
fn measured(measure: &Measure, rows: &[&Map<String, Value>]) -> Result<Value, Fault> {
    let figure = match measure {
        Measure::Count(column) if column == "*" => return Ok(rows.len().into()),
        Measure::Count(column) => {
            let held = rows.iter().filter(|row| row.get(column).is_some_and(|v| !v.is_null()));
            return Ok(held.count().into());
        }
        Measure::Sum(column) => Some(sum(&figures(column, rows)?)?),
        Measure::Min(column) => least(&figures(column, rows)?),
        Measure::Max(column) => greatest(&figures(column, rows)?),
        Measure::Mean(column) => mean(&figures(column, rows)?)?,
    };
    figure.map_or(Ok(Value::Null), Figure::value)
}

/// The numbers of a column; nulls are left out, anything else is a fault.
fn figures(column: &str, rows: &[&Map<String, Value>]) -> Result<Vec<Figure>, Fault> {
    let values = rows.iter().filter_map(|row| row.get(column)).filter(|value| !value.is_null());
    values
        .map(|value| {
            let wrong =
                || Fault::wrong(format!("column `{column}` has {}, not a number", cut(value)));
            Figure::of(value).ok_or_else(wrong)
        })
        .collect()
}

/// What rows are grouped by: nothing, truths, numbers, texts, in this order.
struct Key<'v>(&'v Value);

impl<'v> Key<'v> {
    fn of(row: &'v Map<String, Value>, column: &str) -> Result<Key<'v>, Fault> {
        let value = row.get(column).unwrap_or(&Value::Null);
        if value.is_array() || value.is_object() {
            let found = cut(value);
            return Err(Fault::wrong(format!("rows cannot be grouped by `{column}`: {found}")));
        }
        Ok(Key(value))
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.0, other.0) {
            (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
            (Value::String(left), Value::String(right)) => left.cmp(right),
            (left, right) => match (Figure::of(left), Figure::of(right)) {
                (Some(left), Some(right)) => left.compare(right),
                _ => rank(left).cmp(&rank(right)),
            },
        }
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key<'_> {}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) | Value::Object(_) => 4,
    }
}
