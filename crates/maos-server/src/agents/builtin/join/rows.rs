//! Rows as steps hand them on: a list of objects, or an earlier result that has `rows`.

use serde_json::{Map, Value};

use super::{Fault, cut};

pub(super) struct Rows<'v> {
    /// In their order, where it is known; a JSON object has none.
    pub(super) columns: Vec<&'v str>,
    pub(super) rows: Vec<&'v Map<String, Value>>,
}

impl<'v> Rows<'v> {
    pub(super) fn of(value: &'v Value, field: &str) -> Result<Rows<'v>, Fault> {
        let list = value.as_array().or_else(|| value.get("rows").and_then(Value::as_array));
        let list = list.ok_or_else(|| {
            let found = cut(value);
            Fault::wrong(format!("`{field}` must be rows or a result with `rows`, found {found}"))
        })?;
        let named = value.get("columns").and_then(Value::as_array);
        let mut columns: Vec<&str> =
            named.map(|names| names.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
        let mut known: std::collections::BTreeSet<&str> = columns.iter().copied().collect();
        let mut rows = Vec::with_capacity(list.len());
        for (index, row) in list.iter().enumerate() {
            let object = row.as_object().ok_or_else(|| {
                let found = cut(row);
                Fault::wrong(format!("`{field}`: row {index} must be an object, found {found}"))
            })?;
            columns.extend(object.keys().map(String::as_str).filter(|name| known.insert(name)));
            rows.push(object);
        }
        Ok(Rows { columns, rows })
    }

    /// The rows of all inputs, one after another.
    pub(super) fn of_all(
        inputs: &'v Value,
        field: &str,
        skip_null: bool,
    ) -> Result<Rows<'v>, Fault> {
        let list = inputs.as_array().ok_or_else(|| {
            Fault::wrong(format!("`{field}` must be a list, found {}", cut(inputs)))
        })?;
        let mut all = Rows { columns: Vec::new(), rows: Vec::new() };
        let mut known = std::collections::BTreeSet::new();
        for (index, input) in list.iter().enumerate() {
            if skip_null && input.is_null() {
                continue;
            }
            let rows = Rows::of(input, &format!("{field}[{index}]"))?;
            all.columns.extend(rows.columns.into_iter().filter(|name| known.insert(*name)));
            all.rows.extend(rows.rows);
        }
        Ok(all)
    }
}
