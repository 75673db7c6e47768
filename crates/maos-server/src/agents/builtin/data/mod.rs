//! `data.*`: SQL and summaries over CSV files, JSON files and rows.
//!
//! Paths are checked here; the work itself is done in a process of its own with bounds on memory
//! and time, so that no query can hurt the server.

mod apart;
mod engine;
mod load;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(super) use apart::run_apart;
pub use apart::worker_main;

use super::paths::Paths;
use super::{FROM_PLANS, Fault, typed};

/// Rows that a query may answer, unless it says otherwise.
const ROWS_DEFAULT: u64 = 10_000;
/// The most that it may say.
const ROWS_MAX: u64 = 1_000_000;
/// Name of the one table of `data.summarize`.
const ONLY_TABLE: &str = "source";

/// What the process of its own is to do.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Request {
    tables: BTreeMap<String, Table>,
    work: Work,
    rows_max: u64,
    /// Seconds of processor time after which the system ends it.
    seconds: u64,
}

/// Where a table's rows come from.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Table {
    /// A file, checked already.
    File {
        /// Where it is.
        path: PathBuf,
        /// As the task named it, for errors.
        shown: String,
    },
    /// Rows of the task itself: objects.
    Rows(Vec<Value>),
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Work {
    Query { sql: String, bindings: Map<String, Value> },
    Summary,
}

/// A source as a task writes it: `{"path": ..}`, `{"rows": [..]}`, or the rows themselves.
#[derive(Deserialize)]
#[serde(untagged)]
enum Source {
    File(FileSource),
    Rows(RowsSource),
    List(Vec<Value>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSource {
    path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowsSource {
    rows: Vec<Value>,
}

#[derive(Deserialize)]
struct Sql {
    query: String,
    #[serde(default)]
    sources: BTreeMap<String, Source>,
    limit: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Summarize {
    source: Option<Source>,
    input: Option<Source>,
}

/// Checks an action's parameters and paths, and says what is to be done.
pub(super) fn prepare(verb: &str, parameters: Value, paths: &Paths) -> Result<Request, Fault> {
    match verb {
        "sql" => prepare_sql(parameters, paths),
        "summarize" => {
            let Summarize { source, input } = typed(parameters, &["input"])?;
            let source = source.or(input);
            let source = source.ok_or_else(|| Fault::wrong("`source` is missing"))?;
            let tables = [(ONLY_TABLE.to_owned(), table(source, "source", paths)?)].into();
            Ok(Request { tables, work: Work::Summary, rows_max: ROWS_MAX, seconds: 0 })
        }
        _ => Err(Fault::wrong(format!("no built-in action is called `data.{verb}`"))),
    }
}

/// Parameters that are neither the action's own nor the plan's may be used in the query by name.
fn prepare_sql(parameters: Value, paths: &Paths) -> Result<Request, Fault> {
    let bindings = super::object(parameters.clone());
    let mut own = Map::new();
    for name in ["query", "sources", "limit"] {
        if let Some(value) = bindings.get(name) {
            own.insert(name.to_owned(), value.clone());
        }
    }
    let Sql { query, sources, limit } = typed(Value::Object(own), &FROM_PLANS)?;
    let rows_max = limit.unwrap_or(ROWS_DEFAULT);
    if !(1..=ROWS_MAX).contains(&rows_max) {
        return Err(Fault::wrong(format!("`limit` must be 1 to {ROWS_MAX}")));
    }
    let mut tables = BTreeMap::new();
    for (name, source) in sources {
        if !is_table_name(&name) {
            let message = format!("`sources.{name}`: a table's name is letters, digits and `_`");
            return Err(Fault::wrong(message));
        }
        let field = format!("sources.{name}");
        tables.insert(name, table(source, &field, paths)?);
    }
    let work = Work::Query { sql: query, bindings };
    Ok(Request { tables, work, rows_max, seconds: 0 })
}

fn table(source: Source, field: &str, paths: &Paths) -> Result<Table, Fault> {
    match source {
        Source::File(FileSource { path }) => {
            let checked = paths.allowed(field, &path)?;
            if !checked.is_file() {
                return Err(Fault::wrong(format!("`{field}`: there is no file `{path}`")));
            }
            Ok(Table::File { path: checked, shown: path })
        }
        Source::Rows(RowsSource { rows }) | Source::List(rows) => Ok(Table::Rows(rows)),
    }
}

fn is_table_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.to_ascii_lowercase().starts_with("sqlite_")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agents::AllowedRoots;

    /// Runs an action in this very process, which only tests do.
    fn run(folder: &std::path::Path, verb: &str, parameters: Value) -> Result<Value, String> {
        let paths = Paths::new(AllowedRoots { roots: vec![folder.to_owned()] });
        let request = prepare(verb, parameters, &paths).map_err(|fault| fault.message)?;
        engine::run(&request).map_err(|fault| fault.message)
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let csv = "name,n,part\nann,1,0.5\n\"bob, jr\",2,\ncid,007,x\n";
        std::fs::write(folder.path().join("t.csv"), csv).unwrap();
        std::fs::write(folder.path().join("t.json"), r#"[{"a":1},{"b":[1]}]"#).unwrap();
        std::fs::write(folder.path().join("t.jsonl"), "{\"a\":1}\n{\"a\":2}\n").unwrap();
        std::fs::write(folder.path().join("bad.csv"), "a,b\n1,2\n3\n").unwrap();
        folder
    }

    #[test]
    fn queries_run_over_files_and_rows_with_bindings() {
        let folder = folder();
        for (parameters, expected) in [
            (
                json!({"query": "SELECT * FROM t", "sources": {"t": {"path": "t.csv"}}}),
                json!([{"name": "ann", "n": 1, "part": 0.5},
                    {"name": "bob, jr", "n": 2, "part": null},
                    {"name": "cid", "n": "007", "part": "x"}]),
            ),
            (
                json!({"query": "SELECT sum(a) s FROM t", "sources": {"t": {"path": "t.jsonl"}}}),
                json!([{"s": 3}]),
            ),
            (
                json!({"query": "SELECT a, b FROM t", "sources": {"t": {"path": "t.json"}}}),
                json!([{"a": 1, "b": null}, {"a": null, "b": "[1]"}]),
            ),
            (
                json!({"query": "SELECT x FROM t WHERE x > :item", "item": 1,
                    "sources": {"t": [{"x": 1}, {"x": 2}]}}),
                json!([{"x": 2}]),
            ),
            (
                json!({"query": "SELECT value AS v FROM json_each(:inputs)", "inputs": [5, "a"]}),
                json!([{"v": 5}, {"v": "a"}]),
            ),
        ] {
            let result = run(folder.path(), "sql", parameters.clone());
            assert_eq!(result.unwrap()["rows"], expected, "{parameters}");
        }
    }

    #[test]
    fn summaries_know_every_column() {
        let folder = folder();
        let summary =
            run(folder.path(), "summarize", json!({"source": {"path": "t.csv"}})).unwrap();
        assert_eq!(summary["row_count"], 3);
        let part = &summary["columns"]["part"];
        assert_eq!((&part["nulls"], &part["distinct"]), (&json!(1), &json!(2)), "{summary}");
        let n = &summary["columns"]["n"];
        assert_eq!((&n["numbers"], &n["mean"], &n["max"]), (&json!(2), &json!(1.5), &json!("007")));
    }

    #[test]
    fn what_is_wrong_or_forbidden_is_refused() {
        let folder = folder();
        let rows = json!({"t": [{"x": 1}]});
        for (parameters, expected) in [
            (json!({"query": "SELEC 1"}), "syntax error"),
            (json!({"query": "SELECT :who"}), "`:who`"),
            (json!({"query": "SELECT 1; SELECT 2"}), "one statement"),
            (json!({"query": "ATTACH 'x.db' AS x"}), "not authorized"),
            (json!({"query": "PRAGMA writable_schema = 1"}), "not authorized"),
            (json!({"query": "DELETE FROM t", "sources": rows}), "not authorized"),
            (json!({"query": "CREATE TABLE u (a)"}), "not authorized"),
            (json!({"query": "SELECT load_extension('x')"}), "not authorized"),
            (
                json!({"query": "SELECT x FROM t", "sources": {"t; DROP": [{"x": 1}]}}),
                "table's name",
            ),
            (json!({"query": "SELECT 1", "sources": {"t": {"path": "/etc/passwd"}}}), "outside"),
            (json!({"query": "SELECT 1", "sources": {"t": {"path": "none.csv"}}}), "no file"),
            (json!({"query": "SELECT 1", "sources": {"t": {"path": "bad.csv"}}}), "line: 3"),
            (json!({"query": "SELECT 1", "sources": {"t": [1]}}), "must be an object"),
            (
                json!({"query": "SELECT value FROM json_each('[1,2,3]')", "limit": 2}),
                "more than 2 rows",
            ),
            (json!({"query": "SELECT 1", "limit": 0}), "`limit` must be"),
            (json!({}), "missing field `query`"),
        ] {
            let error = run(folder.path(), "sql", parameters.clone()).unwrap_err();
            assert!(error.contains(expected), "{parameters}: {error}");
        }
    }
}
