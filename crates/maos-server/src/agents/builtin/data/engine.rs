//! The work itself: an SQLite in memory that can read its own tables and nothing else.

use maos_core::limits::RESULT_BYTES_MAX;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use serde_json::{Map, Value, json};

use super::load::{cell_of_json, load};
use super::{ONLY_TABLE, Request, Work};
use crate::agents::builtin::Fault;

/// Memory that the database may take, in bytes.
const MEMORY_BYTES_MAX: u64 = 512 << 20;

pub(super) fn run(request: &Request) -> Result<Value, Fault> {
    let mut connection = Connection::open_in_memory().map_err(|why| failed(&why))?;
    let limit = format!("PRAGMA hard_heap_limit = {MEMORY_BYTES_MAX}; PRAGMA temp_store = MEMORY;");
    connection.execute_batch(&limit).map_err(|why| failed(&why))?;
    connection.execute_batch("BEGIN").map_err(|why| failed(&why))?;
    for (name, table) in &request.tables {
        load(&connection, name, table)?;
    }
    connection.execute_batch("COMMIT").map_err(|why| failed(&why))?;
    let reader: &mut Connection = &mut connection;
    reader.authorizer(Some(authorize)).map_err(|why| failed(&why))?;
    match &request.work {
        Work::Query { sql, bindings } => query(&connection, sql, bindings, request.rows_max),
        Work::Summary => summary(&connection),
    }
}

/// Reading is allowed; whatever reaches beyond the tables, or changes them, is not.
fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        AuthAction::Function { function_name }
            if !function_name.eq_ignore_ascii_case("load_extension") =>
        {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

fn query(
    connection: &Connection,
    sql: &str,
    bindings: &Map<String, Value>,
    rows_max: u64,
) -> Result<Value, Fault> {
    let wrong = |why: rusqlite::Error| Fault::wrong(format!("`query`: {why}"));
    let mut batch = rusqlite::Batch::new(connection, sql);
    let statement = batch.next().map_err(wrong)?;
    let mut statement = statement.ok_or_else(|| Fault::wrong("`query` is empty"))?;
    if batch.next().map_err(wrong)?.is_some() {
        return Err(Fault::wrong("`query` must be one statement"));
    }
    for index in 1..=statement.parameter_count() {
        let Some(name) = statement.parameter_name(index).map(str::to_owned) else {
            return Err(Fault::wrong("`query`: parameters have names, such as `:item`"));
        };
        let value = bindings.get(name.trim_start_matches([':', '@', '$'])).ok_or_else(|| {
            Fault::wrong(format!("`query` uses `{name}`, and `parameters` has no such member"))
        })?;
        statement.raw_bind_parameter(index, cell_of_json(value)).map_err(wrong)?;
    }
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut found = statement.raw_query();
    let (mut rows, mut bytes) = (Vec::new(), 0_u64);
    while let Some(row) = found.next().map_err(wrong)? {
        if rows.len() as u64 >= rows_max {
            let message =
                format!("`query` has more than {rows_max} rows: add LIMIT, or raise `limit`");
            return Err(Fault::wrong(message));
        }
        let row = object(row, &columns)?;
        bytes += row.to_string().len() as u64;
        if bytes > RESULT_BYTES_MAX {
            let message = format!("`query` answers more than {RESULT_BYTES_MAX} bytes");
            return Err(Fault::wrong(message));
        }
        rows.push(row);
    }
    Ok(json!({ "columns": columns, "row_count": rows.len(), "rows": rows }))
}

fn object(row: &Row<'_>, columns: &[String]) -> Result<Value, Fault> {
    let mut members = Map::new();
    for (index, column) in columns.iter().enumerate() {
        let cell = row.get_ref(index).map_err(|why| failed(&why))?;
        members.insert(column.clone(), json_of(cell, column)?);
    }
    Ok(Value::Object(members))
}

fn json_of(cell: ValueRef<'_>, column: &str) -> Result<Value, Fault> {
    Ok(match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => serde_json::Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| Fault::wrong(format!("column `{column}`: {number} is not in JSON")))?,
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Blob(_) => {
            return Err(Fault::wrong(format!("column `{column}` is binary: use hex() on it")));
        }
    })
}

fn summary(connection: &Connection) -> Result<Value, Fault> {
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let rows =
        count(&format!("SELECT count(*) FROM \"{ONLY_TABLE}\"")).map_err(|why| failed(&why))?;
    let statement = connection.prepare(&format!("SELECT * FROM \"{ONLY_TABLE}\""));
    let statement = statement.map_err(|why| failed(&why))?;
    let mut columns = Map::new();
    for column in statement.column_names() {
        let quoted = format!("\"{}\"", column.replace('"', "\"\""));
        let number = format!("CASE WHEN typeof({quoted}) IN ('integer', 'real') THEN {quoted} END");
        let sql = format!(
            "SELECT count(*) - count({quoted}), count(DISTINCT {quoted}), min({quoted}), \
             max({quoted}), count({number}), avg({number}), \
             avg({number} * {number} * 1.0) - avg({number}) * avg({number}) \
             FROM \"{ONLY_TABLE}\""
        );
        let names = ["nulls", "distinct", "min", "max", "numbers", "mean", "stddev"];
        let names = names.map(str::to_owned);
        let found = connection.query_row(&sql, [], |row| Ok(object(row, &names)));
        let mut found = found.map_err(|why| failed(&why))??;
        // SQLite has a variance at best; rounding may leave it a little below zero.
        if let Some(variance) = found["stddev"].as_f64() {
            found["stddev"] = variance.max(0.0).sqrt().into();
        }
        columns.insert(column.to_owned(), found);
    }
    Ok(json!({ "row_count": rows, "columns": columns }))
}

fn failed(why: &rusqlite::Error) -> Fault {
    Fault::wrong(format!("the data could not be worked on: {why}"))
}
