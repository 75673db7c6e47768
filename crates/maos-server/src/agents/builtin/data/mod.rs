//! `data.*`: SQL, summaries and partitions over CSV files, JSON files and rows.
//!
//! Paths are checked here; the work itself is done in a process of its own with bounds on memory
//! and time, so that no query can hurt the server.

mod apart;
mod engine;
mod load;
mod partition;
mod source;
mod summary;

use std::collections::BTreeMap;

use maos_core::limits::PLAN_TASKS_MAX;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(super) use apart::run_apart;
pub use apart::worker_main;

use super::paths::Paths;
use super::{FROM_PLANS, Fault, typed};
use source::{Choice, Part, all, one};

/// Rows that a query may answer, unless it says otherwise.
const ROWS_DEFAULT: u64 = 10_000;
/// The most that it may say.
const ROWS_MAX: u64 = 1_000_000;
/// Name of the one table of `data.summarize` and `data.partition`.
const ONLY_TABLE: &str = "source";

/// What the process of its own is to do.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Request {
    tables: BTreeMap<String, Vec<Part>>,
    work: Work,
    rows_max: u64,
    /// Seconds of processor time after which the system ends it.
    seconds: u64,
}

#[derive(Debug, Deserialize, Serialize)]
enum Work {
    Query { sql: String, bindings: Map<String, Value> },
    Summary,
    Partition(Split),
}

/// How `data.partition` cuts.
#[derive(Debug, Deserialize, Serialize)]
struct Split {
    by: Option<String>,
    count: Option<u32>,
}

#[derive(Deserialize)]
struct Sql {
    query: String,
    #[serde(default)]
    sources: BTreeMap<String, Value>,
    limit: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Summarize {
    source: Option<Value>,
    input: Option<Value>,
    inputs: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Partition {
    source: Option<Value>,
    input: Option<Value>,
    by: Option<String>,
    count: Option<u32>,
}

/// Checks an action's parameters and paths, and says what is to be done.
pub(super) fn prepare(verb: &str, parameters: Value, paths: &Paths) -> Result<Request, Fault> {
    match verb {
        "sql" => prepare_sql(parameters, paths),
        "summarize" => {
            let Summarize { source, input, inputs } = typed(parameters, &["input", "inputs"])?;
            let parts = match (source, inputs, input) {
                (Some(source), _, _) => one(source, "source", paths)?,
                (None, Some(inputs), _) => all(inputs, "inputs", paths)?,
                (None, None, Some(input)) => one(input, "input", paths)?,
                (None, None, None) => return Err(Fault::wrong("`source` is missing")),
            };
            Ok(only(parts, Work::Summary))
        }
        "partition" => {
            let Partition { source, input, by, count } = typed(parameters, &["input"])?;
            let source = source.or(input).ok_or_else(|| Fault::wrong("`source` is missing"))?;
            if by.is_none() && count.is_none() {
                return Err(Fault::wrong("`count` or `by` must say how to cut"));
            }
            if count.is_some_and(|count| !(1..=PLAN_TASKS_MAX).contains(&count)) {
                return Err(Fault::wrong(format!("`count` must be 1 to {PLAN_TASKS_MAX}")));
            }
            let parts = one(source, "source", paths)?;
            if parts.iter().any(|part| !matches!(part.choice, Choice::All)) {
                return Err(Fault::wrong("`source` is a part already"));
            }
            Ok(only(parts, Work::Partition(Split { by, count })))
        }
        _ => Err(Fault::wrong(format!("no built-in action is called `data.{verb}`"))),
    }
}

fn only(parts: Vec<Part>, work: Work) -> Request {
    Request {
        tables: [(ONLY_TABLE.to_owned(), parts)].into(),
        work,
        rows_max: ROWS_MAX,
        seconds: 0,
    }
}

/// Parameters that are neither the action's own nor the plan's may be used in the query by name.
fn prepare_sql(parameters: Value, paths: &Paths) -> Result<Request, Fault> {
    let mut bindings = super::object(parameters);
    bindings.remove("action");
    let mut own = Map::new();
    for name in ["query", "sources", "limit"] {
        if let Some(value) = bindings.remove(name) {
            own.insert(name.to_owned(), value);
        }
    }
    let Sql { query, sources, limit } = typed(Value::Object(own), &FROM_PLANS)?;
    let named =
        |name: &str| [':', '@', '$'].iter().any(|mark| query.contains(&format!("{mark}{name}")));
    if let Some(unknown) =
        bindings.keys().find(|name| !named(name) && !FROM_PLANS.contains(&name.as_str()))
    {
        return Err(Fault::wrong(format!(
            "`parameters`: unknown field `{unknown}`: `data.sql` does not know it, and `query` \
             does not use `:{unknown}`"
        )));
    }
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
        let handed = |which: &str| {
            let missing = || Fault::wrong(format!("`{field}`: the plan hands it no `{which}`"));
            bindings.get(which).cloned().ok_or_else(missing)
        };
        let parts = match source.as_str() {
            Some("input") => one(handed("input")?, "input", paths)?,
            Some("inputs") => all(handed("inputs")?, "inputs", paths)?,
            Some(_) | None => one(source, &field, paths)?,
        };
        tables.insert(name, parts);
    }
    // What the query cannot use, such as all the results of a large plan, need not travel.
    bindings.retain(|name, _| named(name));
    let work = Work::Query { sql: query, bindings };
    Ok(Request { tables, work, rows_max, seconds: 0 })
}

fn is_table_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.to_ascii_lowercase().starts_with("sqlite_")
}

#[cfg(test)]
mod tests;
