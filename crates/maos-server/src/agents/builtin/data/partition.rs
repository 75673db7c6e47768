//! Cuts rows into parts. Each part is a source itself, so that a task of a fan-out can take it as
//! it is. Rows are counted as they pass and never held.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use rusqlite::types::Value as Cell;
use serde_json::{Value, json};

use super::load::{Key, Rows, cell_of_json, each_row, place_of};
use super::source::{Choice, Origin, Part};
use super::{Fault, Split};

/// Different values that a column may be cut by.
const VALUES_MAX: usize = 100_000;

pub(super) fn split(source: &Part, split: &Split) -> Result<Value, Fault> {
    let mut counter =
        Counter { by: split.by.as_deref(), place: 0, rows: 0, values: BTreeMap::new() };
    each_row(source, &mut counter)?;
    let rows = counter.rows;
    let cut = match &split.by {
        Some(column) => by_value(counter.values, column, split.count),
        None => by_range(rows, split.count.unwrap_or(1)),
    };
    let partitions: Vec<Value> =
        cut.into_iter().map(|(choice, rows)| part_of(source, choice, rows)).collect();
    Ok(json!({ "row_count": rows, "partitions": partitions }))
}

struct Counter<'s> {
    by: Option<&'s str>,
    place: usize,
    rows: u64,
    values: BTreeMap<Key, u64>,
}

impl Rows for Counter<'_> {
    fn columns(&mut self, columns: &[String], shown: &str) -> Result<(), Fault> {
        if let Some(by) = self.by {
            self.place = place_of(by, columns, shown)?;
        }
        Ok(())
    }

    fn row(&mut self, mut cells: Vec<Cell>) -> Result<(), Fault> {
        self.rows += 1;
        let Some(by) = self.by else { return Ok(()) };
        *self.values.entry(cells.swap_remove(self.place).into()).or_default() += 1;
        if self.values.len() > VALUES_MAX {
            let message = format!("column `{by}` has more than {VALUES_MAX} different values");
            return Err(Fault::wrong(message));
        }
        Ok(())
    }
}

/// As equal as can be, the longer ones first; none is empty.
fn by_range(rows: u64, count: u32) -> Vec<(Choice, u64)> {
    let count = u64::from(count).min(rows);
    let mut skip = 0;
    let mut parts = Vec::new();
    for index in 0..count {
        let take = rows / count + u64::from(index < rows % count);
        parts.push((Choice::Range { skip, take }, take));
        skip += take;
    }
    parts
}

/// One for each value, or the values shared out so that the parts have about as many rows.
fn by_value(values: BTreeMap<Key, u64>, column: &str, count: Option<u32>) -> Vec<(Choice, u64)> {
    let distinct = values.len();
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(distinct);
    let mut values: Vec<(Key, u64)> = values.into_iter().collect();
    if count < distinct {
        // The largest first, each to the part that has least: never far from the best.
        values.sort_by_key(|(_, rows)| Reverse(*rows));
    }
    let mut parts: Vec<(Vec<Value>, u64)> = Vec::new();
    let mut least = BinaryHeap::new();
    for (key, rows) in values {
        let place = if parts.len() < count {
            parts.push((Vec::new(), 0));
            parts.len() - 1
        } else {
            least.pop().map_or(0, |Reverse((_, place))| place)
        };
        parts[place].0.push(json_of(key));
        parts[place].1 += rows;
        least.push(Reverse((parts[place].1, place)));
    }
    let chosen = |values| Choice::Values { column: column.to_owned(), values };
    parts.into_iter().map(|(values, rows)| (chosen(values), rows)).collect()
}

fn json_of(key: Key) -> Value {
    match key {
        Key::Nothing => Value::Null,
        Key::Whole(number) => number.into(),
        Key::Real(number) => number.parse::<f64>().map_or(Value::Null, Value::from),
        Key::Text(text) => text.into(),
    }
}

/// A part of a file names its rows; a part of rows holds them.
fn part_of(source: &Part, choice: Choice, rows: u64) -> Value {
    match &source.origin {
        Origin::File(_) => match choice {
            Choice::All => json!({ "path": source.shown, "row_count": rows }),
            Choice::Range { skip, take } => {
                json!({ "path": source.shown, "skip": skip, "take": take, "row_count": rows })
            }
            Choice::Values { column, values } => json!({
                "path": source.shown, "column": column, "values": values, "row_count": rows,
            }),
        },
        Origin::Rows { rows: all, .. } => {
            let kept: Vec<&Value> = match choice {
                Choice::All => all.iter().collect(),
                Choice::Range { skip, take } => all
                    .iter()
                    .zip(0_u64..)
                    .filter(|(_, index)| *index >= skip && index - skip < take)
                    .map(|(row, _)| row)
                    .collect(),
                Choice::Values { column, values } => {
                    let values: BTreeSet<Key> =
                        values.iter().map(|value| cell_of_json(value).into()).collect();
                    let key =
                        |row: &Value| Key::from(row.get(&column).map_or(Cell::Null, cell_of_json));
                    all.iter().filter(|row| values.contains(&key(row))).collect()
                }
            };
            json!({ "rows": kept, "row_count": rows })
        }
    }
}
