//! Rows of files and tasks, one at a time, and tables made of them. A value of CSV is a number
//! where it reads back as it was written, else text; an empty one is NULL.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use rusqlite::types::Value as Cell;
use rusqlite::{Connection, Statement, params_from_iter};
use serde_json::{Map, Value};

use super::source::{Choice, Origin, Part};
use crate::agents::builtin::Fault;

/// Columns that a table may have; SQLite's own bound on variables is above it.
const COLUMNS_MAX: usize = 2_000;

/// Takes rows as they come.
pub(super) trait Rows {
    /// Which columns the following rows have.
    fn columns(&mut self, columns: &[String], shown: &str) -> Result<(), Fault>;
    /// One row, a cell for each column.
    fn row(&mut self, cells: Vec<Cell>) -> Result<(), Fault>;
}

/// A cell that can be sorted and found again: nothing before numbers before text.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Nothing,
    Whole(i64),
    /// As its shortest text, which tells it from all others.
    Real(String),
    Text(String),
}

impl From<Cell> for Key {
    fn from(cell: Cell) -> Key {
        match cell {
            Cell::Null | Cell::Blob(_) => Key::Nothing,
            Cell::Integer(number) => Key::Whole(number),
            Cell::Real(number) => Key::Real(number.to_string()),
            Cell::Text(text) => Key::Text(text),
        }
    }
}

/// Makes the table `name` of `parts`, one after another; a column that one does not have is NULL.
pub(super) fn fill(connection: &Connection, name: &str, parts: &[Part]) -> Result<(), Fault> {
    let mut table = Table { connection, name, columns: Vec::new(), insert: None };
    for part in parts {
        each_row(part, &mut table)?;
    }
    if table.columns.is_empty() {
        let shown = parts.first().map_or(name, |part| &part.shown);
        return Err(Fault::wrong(format!("`{shown}` has no columns")));
    }
    Ok(())
}

/// Hands over the chosen rows of `part`.
pub(super) fn each_row(part: &Part, rows: &mut dyn Rows) -> Result<(), Fault> {
    let mut chosen =
        Chosen { rows, choice: &part.choice, index: 0, place: 0, values: BTreeSet::new() };
    let shown = &part.shown;
    let path = match &part.origin {
        Origin::Rows { columns, rows } => return each_object(rows, columns, shown, &mut chosen),
        Origin::File(path) => path,
    };
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("csv") => each_record(path, shown, &mut chosen),
        Some("json") => each_object(&read_json(path, shown)?, &[], shown, &mut chosen),
        Some("jsonl" | "ndjson") => each_object(&read_lines(path, shown)?, &[], shown, &mut chosen),
        _ => Err(Fault::wrong(format!("`{shown}` must end in .csv, .json or .jsonl"))),
    }
}

/// Lets through what a part takes of its source.
struct Chosen<'r> {
    rows: &'r mut dyn Rows,
    choice: &'r Choice,
    index: u64,
    place: usize,
    values: BTreeSet<Key>,
}

impl Chosen<'_> {
    /// Whether nothing after this row can be chosen.
    fn done(&self) -> bool {
        match self.choice {
            Choice::Range { skip, take } => self.index >= skip.saturating_add(*take),
            Choice::All | Choice::Values { .. } => false,
        }
    }
}

impl Rows for Chosen<'_> {
    fn columns(&mut self, columns: &[String], shown: &str) -> Result<(), Fault> {
        if let Choice::Values { column, values } = self.choice {
            self.place = place_of(column, columns, shown)?;
            self.values = values.iter().map(|value| cell_of_json(value).into()).collect();
        }
        self.rows.columns(columns, shown)
    }

    fn row(&mut self, cells: Vec<Cell>) -> Result<(), Fault> {
        let index = self.index;
        self.index += 1;
        let takes = match self.choice {
            Choice::All => true,
            Choice::Range { skip, take } => index >= *skip && index - skip < *take,
            Choice::Values { .. } => self.values.contains(&cells[self.place].clone().into()),
        };
        if takes { self.rows.row(cells) } else { Ok(()) }
    }
}

/// Where `column` stands among `columns`.
pub(super) fn place_of(column: &str, columns: &[String], shown: &str) -> Result<usize, Fault> {
    columns.iter().position(|name| name == column).ok_or_else(|| {
        let known: Vec<String> = columns.iter().map(|name| format!("`{name}`")).collect();
        Fault::wrong(format!("`{shown}` has no column `{column}`, it has {}", known.join(", ")))
    })
}

fn each_record(path: &Path, shown: &str, rows: &mut Chosen<'_>) -> Result<(), Fault> {
    let mut reader = csv::Reader::from_path(path)
        .map_err(|why| Fault::failed(format!("`{shown}` cannot be read: {why}")))?;
    let wrong = |why: csv::Error| wrong_record(&why, shown);
    let columns: Vec<String> = reader.headers().map_err(wrong)?.iter().map(str::to_owned).collect();
    if columns.is_empty() {
        return Err(Fault::wrong(format!("`{shown}` is empty, wanted a line with column names")));
    }
    rows.columns(&columns, shown)?;
    let mut record = csv::StringRecord::new();
    while !rows.done() && reader.read_record(&mut record).map_err(wrong)? {
        rows.row(record.iter().map(cell_of_text).collect())?;
    }
    Ok(())
}

fn wrong_record(why: &csv::Error, shown: &str) -> Fault {
    let line = |position: &Option<csv::Position>| {
        position.as_ref().map_or_else(String::new, |at| format!(" line {}", at.line()))
    };
    match why.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = line(pos);
            let text = format!("`{shown}`{line} has {len} fields, wanted {expected_len}");
            Fault::wrong(text)
        }
        csv::ErrorKind::Utf8 { pos, err } => {
            Fault::wrong(format!("`{shown}`{} is not UTF-8 text: {err}", line(pos)))
        }
        _ => Fault::failed(format!("`{shown}` cannot be read: {why}")),
    }
}

fn read_json(path: &Path, shown: &str) -> Result<Vec<Value>, Fault> {
    let file = File::open(path).map_err(|why| Fault::failed(format!("`{shown}`: {why}")))?;
    let document: Value = serde_json::from_reader(BufReader::new(file))
        .map_err(|why| Fault::wrong(format!("`{shown}` is not JSON: {why}")))?;
    match document {
        Value::Array(rows) => Ok(rows),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Err(Fault::wrong(format!("`{shown}` must hold a list of objects")))
        }
    }
}

fn read_lines(path: &Path, shown: &str) -> Result<Vec<Value>, Fault> {
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
    Ok(rows)
}

/// Objects as rows: `known` columns first, the others in the order in which they are met.
fn each_object(
    objects: &[Value],
    known: &[String],
    shown: &str,
    rows: &mut Chosen<'_>,
) -> Result<(), Fault> {
    let mut columns: Vec<String> = known.to_vec();
    let mut places: BTreeMap<String, usize> = columns.iter().cloned().zip(0..).collect();
    let mut found: Vec<&Map<String, Value>> = Vec::with_capacity(objects.len());
    for (index, row) in objects.iter().enumerate() {
        let object = row.as_object().ok_or_else(|| {
            let row = crate::agents::builtin::cut(row);
            Fault::wrong(format!("`{shown}`: row {index} must be an object, found {row}"))
        })?;
        for column in object.keys() {
            if !places.contains_key(column) {
                places.insert(column.clone(), columns.len());
                columns.push(column.clone());
            }
        }
        found.push(object);
    }
    if columns.is_empty() {
        return Ok(());
    }
    rows.columns(&columns, shown)?;
    for object in found {
        let cell = |column: &String| object.get(column).map_or(Cell::Null, cell_of_json);
        rows.row(columns.iter().map(cell).collect())?;
    }
    Ok(())
}

/// A table of the database that rows go into.
struct Table<'c> {
    connection: &'c Connection,
    name: &'c str,
    columns: Vec<String>,
    insert: Option<Statement<'c>>,
}

impl Rows for Table<'_> {
    fn columns(&mut self, columns: &[String], shown: &str) -> Result<(), Fault> {
        let new: Vec<&String> =
            columns.iter().filter(|column| !self.columns.contains(column)).collect();
        if self.columns.len() + new.len() > COLUMNS_MAX {
            return Err(Fault::wrong(format!("`{shown}` has more than {COLUMNS_MAX} columns")));
        }
        self.insert = None;
        let name = self.name;
        let made = if self.columns.is_empty() {
            let list = quoted(columns).join(", ");
            self.connection.execute_batch(&format!("CREATE TABLE \"{name}\" ({list})"))
        } else {
            new.iter().try_for_each(|column| {
                let column = quote(column);
                self.connection
                    .execute_batch(&format!("ALTER TABLE \"{name}\" ADD COLUMN {column}"))
            })
        };
        let new: Vec<String> = new.into_iter().cloned().collect();
        self.columns.extend(new);
        made.map_err(|why| Fault::wrong(format!("`{shown}`: its columns make no table: {why}")))?;
        let marks = vec!["?"; columns.len()].join(", ");
        let list = quoted(columns).join(", ");
        let sql = format!("INSERT INTO \"{name}\" ({list}) VALUES ({marks})");
        self.insert = Some(self.connection.prepare(&sql).map_err(|why| fault(&why))?);
        Ok(())
    }

    fn row(&mut self, cells: Vec<Cell>) -> Result<(), Fault> {
        let insert = self.insert.as_mut().expect("columns come before rows");
        insert.execute(params_from_iter(cells)).map(drop).map_err(|why| fault(&why))
    }
}

fn quoted(columns: &[String]) -> Vec<String> {
    columns.iter().map(|column| quote(column)).collect()
}

fn quote(column: &str) -> String {
    format!("\"{}\"", column.replace('"', "\"\""))
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
