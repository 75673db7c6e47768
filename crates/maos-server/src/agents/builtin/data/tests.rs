//! The data actions against real files and a real SQLite, in this very process.

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
    let summary = run(folder.path(), "summarize", json!({"source": {"path": "t.csv"}})).unwrap();
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
        (json!({"query": "SELECT x FROM t", "sources": {"t; DROP": [{"x": 1}]}}), "table's name"),
        (json!({"query": "SELECT 1", "sources": {"t": {"path": "/etc/passwd"}}}), "outside"),
        (json!({"query": "SELECT 1", "sources": {"t": {"path": "none.csv"}}}), "no file"),
        (
            json!({"query": "SELECT 1", "sources": {"t": {"path": "bad.csv"}}}),
            "line 3 has 1 fields, wanted 2",
        ),
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

#[test]
fn no_query_reaches_beyond_its_tables() {
    let folder = folder();
    let file = folder.path().join("made.db").display().to_string();
    for sql in [
        format!("ATTACH '{file}' AS x"),
        format!("VACUUM INTO '{file}'"),
        "VACUUM".to_owned(),
        "PRAGMA temp_store_directory = '/'".to_owned(),
        "PRAGMA database_list".to_owned(),
        "SELECT * FROM pragma_database_list".to_owned(),
        "SELECT readfile('/etc/passwd')".to_owned(),
        format!("SELECT writefile('{file}', 'x')"),
        "SELECT fts3_tokenizer('simple')".to_owned(),
        "CREATE TEMP TABLE u AS SELECT 1".to_owned(),
        "CREATE VIRTUAL TABLE u USING fts5(a)".to_owned(),
        "INSERT INTO t VALUES (1)".to_owned(),
        "UPDATE t SET x = 2".to_owned(),
        "DROP TABLE t".to_owned(),
        "COMMIT".to_owned(),
        "SAVEPOINT s".to_owned(),
        "DETACH main".to_owned(),
        "ANALYZE".to_owned(),
        "REINDEX".to_owned(),
    ] {
        let parameters = json!({"query": sql, "sources": {"t": [{"x": 1}]}});
        let refused = run(folder.path(), "sql", parameters);
        assert!(refused.is_err(), "{sql}: {refused:?}");
    }
    assert!(!folder.path().join("made.db").exists());
}

#[test]
fn a_step_takes_the_result_of_the_one_before_as_its_source() {
    let folder = folder();
    let sql = |parameters: Value| run(folder.path(), "sql", parameters).unwrap();
    let first = sql(json!({"query": "SELECT x FROM t", "sources": {"t": [{"x": 1}, {"x": 2}]}}));
    let none = sql(json!({"query": "SELECT x, 1 AS y FROM t WHERE 0",
        "sources": {"t": [{"x": 1}]}}));
    for (parameters, expected) in [
        (json!({"query": "SELECT sum(x) s FROM t", "sources": {"t": "input"}, "input": first}), 3),
        (
            json!({"query": "SELECT sum(x) + count(y) s FROM t", "sources": {"t": "inputs"},
                "inputs": [none, first, {"rows": [{"x": 4, "y": 5}]}, []]}),
            8,
        ),
    ] {
        assert_eq!(sql(parameters)["rows"], json!([{ "s": expected }]));
    }
    let summary = run(folder.path(), "summarize", json!({"input": first})).unwrap();
    assert_eq!(summary["columns"]["x"]["mean"], 1.5);
    let summary = run(folder.path(), "summarize", json!({"inputs": [first, first]})).unwrap();
    assert_eq!(summary["row_count"], 4);
    // What the plan hands over is not looked at when the task says where its rows are.
    let given = json!({"source": [{"x": 1}], "input": "text", "item": 3});
    assert_eq!(run(folder.path(), "summarize", given).unwrap()["row_count"], 1);
}

#[test]
fn a_summary_keeps_the_digits_that_matter() {
    let folder = folder();
    let rows: Vec<Value> = (0..4).map(|n| json!({"n": 1_000_000_000 + n})).collect();
    let summary = run(folder.path(), "summarize", json!({"source": rows})).unwrap();
    let stddev = summary["columns"]["n"]["stddev"].as_f64().unwrap();
    assert!((stddev - 1.25_f64.sqrt()).abs() < 1e-12, "{stddev}");
}

#[test]
fn parts_hold_every_row_once_and_are_sources() {
    let folder = folder();
    let csv: String = (0..103).map(|n| format!("{n},{}\n", ["a", "b", "", "2.5"][n % 4])).collect();
    std::fs::write(folder.path().join("p.csv"), format!("n,k\n{csv}")).unwrap();
    let rows: Vec<Value> = (0..10).map(|n| json!({"n": n, "k": n % 3})).collect();
    for (parameters, counts) in [
        (json!({"source": {"path": "p.csv"}, "count": 4}), vec![26, 26, 26, 25]),
        (json!({"source": {"path": "p.csv"}, "by": "k"}), vec![26, 25, 26, 26]),
        (json!({"source": {"path": "p.csv"}, "by": "k", "count": 2}), vec![52, 51]),
        (json!({"source": rows, "count": 3}), vec![4, 3, 3]),
        (json!({"source": rows, "by": "k"}), vec![4, 3, 3]),
        (json!({"source": [{"n": 1}], "count": 5}), vec![1]),
        (json!({"source": {"rows": [], "columns": ["n"]}, "count": 5}), vec![]),
    ] {
        let cut = run(folder.path(), "partition", parameters.clone()).unwrap();
        let mut seen = Vec::new();
        let parts = cut["partitions"].as_array().unwrap();
        assert_eq!(parts.len(), counts.len(), "{parameters}: {cut}");
        for (part, count) in parts.iter().zip(counts) {
            assert_eq!(part["row_count"], count, "{parameters}: {cut}");
            let query = json!({"query": "SELECT n FROM t", "sources": {"t": part}});
            let found = run(folder.path(), "sql", query).unwrap();
            assert_eq!(found["row_count"], count, "{parameters}: {part}");
            let numbers = found["rows"].as_array().unwrap().clone();
            seen.extend(numbers.iter().map(|row| row["n"].as_i64().unwrap()));
        }
        seen.sort_unstable();
        let whole: Vec<i64> = (0..).take(seen.len()).collect();
        assert!(seen == whole || seen == [1], "{parameters}: {seen:?}");
        assert_eq!(cut["row_count"], seen.len(), "{parameters}");
    }
}

#[test]
fn a_source_that_is_none_says_why() {
    let folder = folder();
    std::fs::write(folder.path().join("latin.csv"), b"a\n\xe9\n").unwrap();
    std::fs::write(folder.path().join("none.csv"), "").unwrap();
    std::fs::write(folder.path().join("one.json"), "{}").unwrap();
    std::fs::write(folder.path().join("torn.jsonl"), "{\"a\":1}\n{\"a\"\n").unwrap();
    std::fs::write(folder.path().join("bom.csv"), "\u{feff}a\n1\n").unwrap();
    let marked = run(folder.path(), "summarize", json!({"source": {"path": "bom.csv"}})).unwrap();
    assert_eq!(marked["columns"]["a"]["max"], 1);
    for (source, expected) in [
        (json!({"path": "latin.csv"}), "`latin.csv` line 2 is not UTF-8"),
        (json!({"path": "none.csv"}), "`none.csv` is empty"),
        (json!({"path": "one.json"}), "must hold a list"),
        (json!({"path": "torn.jsonl"}), "`torn.jsonl` line 2 is not JSON"),
        (json!({"path": "t.csv", "rows": []}), "either `path` or `rows`"),
        (json!({"path": "t.csv", "skip": 1, "column": "n"}), "a part is"),
        (
            json!({"path": "t.csv", "column": "none", "values": []}),
            "has no column `none`, it has `name`",
        ),
        (json!({"path": "t.csv", "colour": 1}), "unknown field `colour`"),
        (json!("t.csv"), "`source` must be a list of rows or an object"),
        (json!([]), "has no columns"),
        (json!([{"x": 1}, 2]), "row 1 must be an object, found 2"),
    ] {
        let error = run(folder.path(), "summarize", json!({"source": source})).unwrap_err();
        assert!(error.contains(expected), "{source}: {error}");
    }
    for (parameters, expected) in [
        (json!({"source": {"path": "t.csv"}}), "`count` or `by`"),
        (json!({"source": {"path": "t.csv"}, "count": 0}), "`count` must be 1 to"),
        (json!({"source": {"path": "t.csv"}, "by": "none"}), "no column `none`"),
        (json!({"source": {"path": "t.csv", "skip": 1}, "count": 2}), "a part already"),
        (json!({"count": 2}), "`source` is missing"),
    ] {
        let error = run(folder.path(), "partition", parameters.clone()).unwrap_err();
        assert!(error.contains(expected), "{parameters}: {error}");
    }
    for (parameters, expected) in [
        (json!({"query": "SELECT 1", "colour": 2}), "unknown field `colour`"),
        (json!({"query": "SELECT 1 AS a, 2 AS a"}), "two columns called `a`"),
        (json!({"query": "SELECT 1", "sources": {"t": "input"}}), "hands it no `input`"),
        (json!({"query": "SELECT 1", "sources": {"t": "inputs"}, "inputs": 1}), "list of sources"),
        (json!({"query": "SELECT 9e999"}), "is not in JSON"),
        (json!({"query": "SELECT x'00'"}), "binary"),
        (
            json!({"query": "SELECT sum(x) FROM t", "sources": {"t": [{"x": i64::MAX}, {"x": 1}]}}),
            "overflow",
        ),
    ] {
        let error = run(folder.path(), "sql", parameters.clone()).unwrap_err();
        assert!(error.contains(expected), "{parameters}: {error}");
    }
}
