//! `join.*`: results of several tasks put together.

mod group;
mod markdown;
mod rows;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Fault, cut, typed};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inputs {
    inputs: Option<Vec<Value>>,
    /// What a pipeline hands over, which then must be a list.
    input: Option<Value>,
    /// Leaves out the subtasks that failed where their plan ignores that.
    #[serde(default)]
    skip_null: bool,
}

pub(super) fn act(verb: &str, parameters: Value) -> Result<Value, Fault> {
    match verb {
        "group" => return group::group(&typed(parameters, &["inputs", "input"])?),
        "markdown" => return markdown::report(&typed(parameters, &["inputs", "input"])?),
        _ => {}
    }
    let Inputs { inputs, input, skip_null } = typed(parameters, &["inputs", "input"])?;
    let mut inputs = match (inputs, input) {
        (Some(inputs), _) | (None, Some(Value::Array(inputs))) => inputs,
        (None, Some(other)) => {
            return Err(Fault::wrong(format!("`input` must be a list, found {}", cut(&other))));
        }
        (None, None) => return Err(Fault::wrong("`inputs` is missing")),
    };
    if skip_null {
        inputs.retain(|input| !input.is_null());
    }
    match verb {
        "collect" => Ok(Value::Array(inputs)),
        "concat" => {
            let mut all = Vec::new();
            for (index, input) in inputs.into_iter().enumerate() {
                match input {
                    Value::Array(list) => all.extend(list),
                    other => return Err(wanted(index, "a list", &other)),
                }
            }
            Ok(Value::Array(all))
        }
        "merge" => {
            let mut all = Map::new();
            for (index, input) in inputs.into_iter().enumerate() {
                match input {
                    Value::Object(members) => all.extend(members),
                    other => return Err(wanted(index, "an object", &other)),
                }
            }
            Ok(Value::Object(all))
        }
        _ => Err(Fault::wrong(format!("no built-in action is called `join.{verb}`"))),
    }
}

fn wanted(index: usize, wanted: &str, found: &Value) -> Fault {
    Fault::wrong(format!("`inputs[{index}]` must be {wanted}, found {}", cut(found)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(cases: &[(&str, Value, &str)]) {
        for (verb, parameters, expected) in cases {
            let got = act(verb, parameters.clone());
            let got = got.map_or_else(|fault| fault.message, |value| value.to_string());
            assert_eq!(&got, expected, "{verb} {parameters}");
        }
    }

    #[test]
    fn inputs_are_put_together() {
        check(&[
            ("collect", json!({"inputs": [1, "a"]}), r#"[1,"a"]"#),
            ("collect", json!({"input": [1]}), "[1]"),
            ("concat", json!({"inputs": [[1], [2, 3]]}), "[1,2,3]"),
            ("concat", json!({"inputs": [[1], null], "skip_null": true}), "[1]"),
            ("merge", json!({"inputs": [{"a": 1}, {"b": 2, "a": 3}]}), r#"{"a":3,"b":2}"#),
            ("concat", json!({"inputs": [[1], 2]}), "`inputs[1]` must be a list, found 2"),
            ("merge", json!({"inputs": [null]}), "`inputs[0]` must be an object, found null"),
            ("collect", json!({"input": 7}), "`input` must be a list, found 7"),
            ("collect", json!({}), "`inputs` is missing"),
            ("knot", json!({"inputs": []}), "no built-in action is called `join.knot`"),
        ]);
    }

    #[test]
    fn rows_of_many_inputs_are_grouped() {
        let one = json!({"columns": ["k", "n"], "rows": [{"k": "a", "n": 1}, {"k": "b", "n": 2}]});
        let two = json!([{"k": "a", "n": 0.5}, {"k": null}, {"n": 3}]);
        let measures = json!({"rows": {"count": "*"}, "n": {"count": "n"}, "s": {"sum": "n"},
            "least": {"min": "n"}, "most": {"max": "n"}, "middle": {"mean": "n"}});
        check(&[
            (
                "group",
                json!({"inputs": [one, two], "by": ["k"], "measures": {"s": {"sum": "n"}}}),
                concat!(
                    r#"{"columns":["k","s"],"row_count":3,"rows":[{"k":null,"s":3},"#,
                    r#"{"k":"a","s":1.5},{"k":"b","s":2}]}"#,
                ),
            ),
            (
                "group",
                json!({"input": two, "measures": measures}),
                concat!(
                    r#"{"columns":["least","middle","most","n","rows","s"],"#,
                    r#""row_count":1,"rows":[{"least":0.5,"middle":1.75,"most":3,"n":2,"#,
                    r#""rows":3,"s":3.5}]}"#,
                ),
            ),
            (
                "group",
                json!({"rows": [], "measures": {"n": {"count": "*"}, "m": {"max": "x"}}}),
                r#"{"columns":["m","n"],"row_count":1,"rows":[{"m":null,"n":0}]}"#,
            ),
            (
                "group",
                json!({"rows": [{"k": 2}, {"k": "x"}, {"k": true}, {"k": 1.5}, {"k": 2.0}],
                    "by": ["k"], "measures": {"n": {"count": "*"}}}),
                concat!(
                    r#"{"columns":["k","n"],"row_count":4,"rows":[{"k":true,"n":1},"#,
                    r#"{"k":1.5,"n":1},{"k":2,"n":2},{"k":"x","n":1}]}"#,
                ),
            ),
            (
                "group",
                json!({"inputs": [one, null], "measures": {}}),
                "`inputs[1]` must be rows or a result with `rows`, found null",
            ),
            (
                "group",
                json!({"inputs": [one, null], "skip_null": true, "measures": {"n": {"sum": "n"}}}),
                r#"{"columns":["n"],"row_count":1,"rows":[{"n":3}]}"#,
            ),
            (
                "group",
                json!({"rows": [{"n": "1"}], "measures": {"n": {"sum": "n"}}}),
                "column `n` has \"1\", not a number",
            ),
            (
                "group",
                json!({"rows": [{"n": [1]}], "by": ["n"], "measures": {}}),
                "rows cannot be grouped by `n`: [1]",
            ),
            (
                "group",
                json!({"rows": [], "by": ["n"], "measures": {"n": {"sum": "n"}}}),
                "`measures.n` is named in `by` as well",
            ),
            (
                "group",
                json!({"rows": [], "measures": {"n": {"middle": "n"}}}),
                "`parameters`: unknown variant `middle`, expected one of `count`, `sum`, `min`, \
                 `max`, `mean`",
            ),
        ]);
    }

    #[test]
    fn reports_are_written_and_data_stays_in_its_cells() {
        let rows = json!({"columns": ["name", "n"], "rows": [
            {"name": "a|b\n<script>", "n": 1}, {"name": "*c* & \\", "n": null}]});
        let report = act(
            "markdown",
            json!({"title": "Title", "text": "Some *text*.",
            "sections": [
                {"title": "First", "rows": rows},
                {"rows": rows, "columns": ["n", {"name": "none", "title": "N one"}]},
            ]}),
        );
        let expected = "# Title\n\nSome *text*.\n\n## First\n\n| name | n |\n| --- | ---: |\n\
            | a\\|b<br>&lt;script> | 1 |\n| \\*c\\* &amp; \\\\ |  |\n\n\
            | n | N one |\n| ---: | --- |\n| 1 |  |\n|  |  |\n";
        assert_eq!(report.unwrap(), expected);
        check(&[
            ("markdown", json!({"input": [{"a": 1}]}), r#""| a |\n| ---: |\n| 1 |\n""#),
            (
                "markdown",
                json!({"inputs": [[{"a": 1}], {"rows": [{"a": "x"}]}]}),
                r#""| a |\n| --- |\n| 1 |\n| x |\n""#,
            ),
            ("markdown", json!({}), "the report is empty: it has no `title`, `text` or `rows`"),
            ("markdown", json!({"rows": [1]}), "`rows`: row 0 must be an object, found 1"),
            (
                "markdown",
                json!({"sections": [{"rows": 5}]}),
                "`sections[0].rows` must be rows or a result with `rows`, found 5",
            ),
        ]);
    }
}
