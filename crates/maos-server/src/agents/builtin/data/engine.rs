//! The work itself: an SQLite in memory that can read its own tables and nothing else.

use maos_core::limits::RESULT_BYTES_MAX;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use serde_json::{Map, Value, json};

use super::load::{cell_of_json, fill};
use super::{Request, Work, partition, summary};
use crate::agents::builtin::Fault;

/// Memory that the database may take, in bytes.
const MEMORY_BYTES_MAX: u64 = 512 << 20;

pub(super) fn run(request: &Request) -> Result<Value, Fault> {
    if let Work::Partition(split) = &request.work {
        let source = request.tables.values().flatten().next();
        let source = source.ok_or_else(|| Fault::failed("there is nothing to cut"))?;
        return partition::split(source, split);
    }
    let mut connection = Connection::open_in_memory().map_err(|why| failed(&why))?;
    let limit = format!("PRAGMA hard_heap_limit = {MEMORY_BYTES_MAX}; PRAGMA temp_store = MEMORY;");
    connection.execute_batch(&limit).map_err(|why| failed(&why))?;
    connection.execute_batch("BEGIN").map_err(|why| failed(&why))?;
    for (name, parts) in &request.tables {
        fill(&connection, name, parts)?;
    }
    connection.execute_batch("COMMIT").map_err(|why| failed(&why))?;
    let reader: &mut Connection = &mut connection;
    reader.authorizer(Some(authorize)).map_err(|why| failed(&why))?;
    match &request.work {
        Work::Query { sql, bindings } => query(&connection, sql, bindings, request.rows_max),
        Work::Summary => summary::of(&connection),
        Work::Partition(_) => Err(Fault::failed("cutting needs no database")),
    }
}

/// Functions that reach beyond the tables; SQLite has them switched off as well.
const FORBIDDEN: [&str; 2] = ["load_extension", "fts3_tokenizer"];

/// Reading is allowed; whatever reaches beyond the tables, or changes them, is not.
fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        AuthAction::Function { function_name }
            if !FORBIDDEN.contains(&function_name.to_ascii_lowercase().as_str()) =>
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
    if columns.is_empty() {
        return Err(Fault::wrong("`query` answers nothing: it must begin with SELECT or WITH"));
    }
    if let Some(double) = doubled(&columns) {
        return Err(Fault::wrong(format!(
            "`query` answers two columns called `{double}`\nhint: give one another name with AS"
        )));
    }
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

fn doubled(columns: &[String]) -> Option<&String> {
    let mut sorted: Vec<&String> = columns.iter().collect();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

pub(super) fn object(row: &Row<'_>, columns: &[String]) -> Result<Value, Fault> {
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

pub(super) fn failed(why: &rusqlite::Error) -> Fault {
    Fault::wrong(format!("the data could not be worked on: {why}"))
}
