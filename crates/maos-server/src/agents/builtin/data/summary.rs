//! What a table holds, column by column.

use rusqlite::Connection;
use serde_json::{Map, Value, json};

use super::engine::{failed, object};
use super::{Fault, ONLY_TABLE};

pub(super) fn of(connection: &Connection) -> Result<Value, Fault> {
    let count = format!("SELECT count(*) FROM \"{ONLY_TABLE}\"");
    let rows = connection.query_row(&count, [], |row| row.get::<_, i64>(0));
    let rows = rows.map_err(|why| failed(&why))?;
    let statement = connection.prepare(&format!("SELECT * FROM \"{ONLY_TABLE}\""));
    let statement = statement.map_err(|why| failed(&why))?;
    let mut columns = Map::new();
    for column in statement.column_names() {
        columns.insert(column.to_owned(), of_column(connection, column)?);
    }
    Ok(json!({ "row_count": rows, "columns": columns }))
}

fn of_column(connection: &Connection, column: &str) -> Result<Value, Fault> {
    let quoted = format!("\"{}\"", column.replace('"', "\"\""));
    // The distance to the mean first, then its square: the difference of two large squares would
    // lose every digit that matters.
    let sql = format!(
        "WITH numbers AS (SELECT {quoted} AS n FROM \"{ONLY_TABLE}\" \
             WHERE typeof({quoted}) IN ('integer', 'real')), \
         middle AS (SELECT count(n) AS numbers, avg(n) AS mean FROM numbers) \
         SELECT count({quoted}) AS count, count(*) - count({quoted}) AS nulls, \
             count(DISTINCT {quoted}) AS distinct_values, min({quoted}) AS least, \
             max({quoted}) AS greatest, (SELECT numbers FROM middle) AS numbers, \
             (SELECT mean FROM middle) AS mean, \
             (SELECT avg((n - mean) * (n - mean)) FROM numbers, middle) AS variance \
         FROM \"{ONLY_TABLE}\""
    );
    let names = ["count", "nulls", "distinct", "min", "max", "numbers", "mean", "stddev"];
    let names = names.map(str::to_owned);
    let found = connection.query_row(&sql, [], |row| Ok(object(row, &names)));
    let mut found = found.map_err(|why| failed(&why))??;
    if let Some(variance) = found["stddev"].as_f64() {
        found["stddev"] = variance.sqrt().into();
    }
    Ok(found)
}
