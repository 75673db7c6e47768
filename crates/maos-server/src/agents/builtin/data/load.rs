//! Rows of files and tasks into tables. A value of CSV is a number where it reads back as it was
//! written, else text; an empty one is NULL.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use rusqlite::types::Value as Cell;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Map, Value};

use super::Table;
use crate::agents::builtin::Fault;

/// Columns that a table may have; SQLite's own bound on variables is above it.
const COLUMNS_MAX: usize = 2_000;

pub(super) fn load(connection: &Connection, name: &str, table: &Table) -> Result<(), Fault> {
    match table {
        Table::Rows(rows) => load_objects(connection, name, name, rows),
        Table::File { path, shown } => {
            let extension = path.extension().and_then(|extension| extension.to_str());
            match extension.map(str::to_ascii_lowercase).as_deref() {
                Some("csv") => load_csv(connection, name, path, shown),
                Some("json") => load_json(connection, name, path, shown),
                Some("jsonl" | "ndjson") => load_lines(connection, name, path, shown),
                _ => Err(Fault::wrong(format!("`{shown}` must end in .csv, .json or .jsonl"))),
            }
        }
    }
}

fn load_csv(connection: &Connection, name: &str, path: &Path, shown: &str) -> Result<(), Fault> {
    let mut reader = csv::Reader::from_path(path)
        .map_err(|why| Fault::failed(format!("`{shown}` cannot be read: {why}")))?;
    let wrong = |why: csv::Error| Fault::wrong(format!("`{shown}`: {why}"));
    let columns: Vec<String> = reader.headers().map_err(wrong)?.iter().map(str::to_owned).collect();
    let mut insert = create(connection, name, shown, &columns)?;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(wrong)? {
        let cells = record.iter().map(cell_of_text);
        insert.execute(params_from_iter(cells)).map_err(|why| fault(&why))?;
    }
    Ok(())
}

fn load_json(connection: &Connection, name: &str, path: &Path, shown: &str) -> Result<(), Fault> {
    let file = File::open(path).map_err(|why| Fault::failed(format!("`{shown}`: {why}")))?;
    let document: Value = serde_json::from_reader(BufReader::new(file))
        .map_err(|why| Fault::wrong(format!("`{shown}` is not JSON: {why}")))?;
    let Value::Array(rows) = document else {
        return Err(Fault::wrong(format!("`{shown}` must hold a list of objects")));
    };
    load_objects(connection, name, shown, &rows)
}

fn load_lines(connection: &Connection, name: &str, path: &Path, shown: &str) -> Result<(), Fault> {
    let file = File::open(path).map_err(|why| Fault::failed(format!("`{shown}`: {why}")))?;
    let mut rows = Vec::new();
    for (line, number) in BufReader::new(file).lines().zip(1..) {
        let line = line.map_err(|why| Fault::wrong(format!("`{shown}` line {number}: {why}")))?;
        if line.trim().is_empty() {
            continue;
        }
        let row = serde_json::from_str(&line)
            .map_err(|why| Fault::wrong(format!("`{shown}` line {number} is not JSON: {why}")))?;
        rows.push(row);
    }
    load_objects(connection, name, shown, &rows)
}

fn load_objects(
    connection: &Connection,
    name: &str,
    shown: &str,
    rows: &[Value],
) -> Result<(), Fault> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut columns: Vec<String> = Vec::new();
    let mut objects: Vec<&Map<String, Value>> = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let Value::Object(object) = row else {
            return Err(Fault::wrong(format!("`{shown}`: row {index} must be an object")));
        };
        for column in object.keys() {
            places.entry(column).or_insert_with(|| {
                columns.push(column.clone());
                columns.len() - 1
            });
        }
        objects.push(object);
    }
    if columns.is_empty() {
        return Err(Fault::wrong(format!("`{shown}` has no columns")));
    }
    let mut insert = create(connection, name, shown, &columns)?;
    for object in objects {
        let cells =
            columns.iter().map(|column| object.get(column).map_or(Cell::Null, cell_of_json));
        insert.execute(params_from_iter(cells)).map_err(|why| fault(&why))?;
    }
    Ok(())
}

/// Makes the table and the statement that fills it.
fn create<'c>(
    connection: &'c Connection,
    name: &str,
    shown: &str,
    columns: &[String],
) -> Result<rusqlite::Statement<'c>, Fault> {
    if columns.len() > COLUMNS_MAX {
        return Err(Fault::wrong(format!("`{shown}` has more than {COLUMNS_MAX} columns")));
    }
    let quoted: Vec<String> =
        columns.iter().map(|column| format!("\"{}\"", column.replace('"', "\"\""))).collect();
    let sql = format!("CREATE TABLE \"{name}\" ({})", quoted.join(", "));
    let made = connection.execute(&sql, []);
    made.map_err(|why| Fault::wrong(format!("`{shown}`: its columns make no table: {why}")))?;
    let marks = vec!["?"; columns.len()].join(", ");
    connection
        .prepare(&format!("INSERT INTO \"{name}\" VALUES ({marks})"))
        .map_err(|why| fault(&why))
}

fn cell_of_text(text: &str) -> Cell {
    if text.is_empty() {
        return Cell::Null;
    }
    if let Ok(number) = text.parse::<i64>()
        && number.to_string() == text
    {
        return Cell::Integer(number);
    }
    let digits = text.trim_start_matches('-');
    let plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && !(digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit()));
    match text.parse::<f64>() {
        Ok(number) if plain && number.is_finite() && digits.contains(['.', 'e', 'E']) => {
            Cell::Real(number)
        }
        _ => Cell::Text(text.to_owned()),
    }
}

pub(super) fn cell_of_json(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(truth) => Cell::Integer(i64::from(*truth)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Cell::Integer(whole),
            (None, Some(real)) => Cell::Real(real),
            (None, None) => Cell::Null,
        },
        Value::String(text) => Cell::Text(text.clone()),
        Value::Array(_) | Value::Object(_) => Cell::Text(value.to_string()),
    }
}

/// A fault of the database while it is filled: it ran out of something.
fn fault(why: &rusqlite::Error) -> Fault {
    Fault::wrong(format!("the rows could not be loaded: {why}"))
}
