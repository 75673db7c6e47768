//! `compute.*`: arithmetic over lists of numbers, and formulas.

mod expression;
mod number;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

pub(super) use number::{Figure, greatest, least, mean, sum};

use super::{Fault, cut, handed, typed};
use number::{deviation, median, product};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Numbers {
    /// The numbers; without it the plan's `inputs` or `input`.
    values: Option<Value>,
    inputs: Option<Value>,
    input: Option<Value>,
    /// Where in each value its number is.
    #[serde(default)]
    pointer: String,
    #[serde(default)]
    skip_null: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Formula {
    expression: String,
    #[serde(default)]
    variables: BTreeMap<String, Value>,
    input: Option<Value>,
    item: Option<Value>,
    index: Option<Value>,
}

pub(super) fn act(verb: &str, parameters: Value) -> Result<Value, Fault> {
    if verb == "expression" {
        return formula(typed(parameters, &["input", "item", "index"])?);
    }
    let wanted: Numbers = typed(parameters, &["input", "inputs"])?;
    let values = values(&wanted)?;
    if verb == "count" {
        return Ok(values.len().into());
    }
    let figures = values
        .iter()
        .map(|(name, value)| {
            let wrong = || Fault::wrong(format!("`{name}` is {}, not a number", cut(value)));
            Figure::of(value).ok_or_else(wrong)
        })
        .collect::<Result<Vec<Figure>, Fault>>()?;
    let none = || Fault::wrong(format!("`compute.{verb}` of no numbers has no value"));
    match verb {
        "sum" => sum(&figures)?.value(),
        "product" => product(&figures)?.value(),
        "min" => least(&figures).ok_or_else(none)?.value(),
        "max" => greatest(&figures).ok_or_else(none)?.value(),
        "mean" => mean(&figures)?.ok_or_else(none)?.value(),
        "stats" => statistics(&figures),
        _ => Err(Fault::wrong(format!("no built-in action is called `compute.{verb}`"))),
    }
}

/// The values with the names by which faults call them.
fn values(wanted: &Numbers) -> Result<Vec<(String, &Value)>, Fault> {
    let (field, list) = handed([
        ("values", wanted.values.as_ref()),
        ("inputs", wanted.inputs.as_ref()),
        ("input", wanted.input.as_ref()),
    ])?;
    let mut values = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let name = format!("{field}[{index}]");
        if wanted.skip_null && value.is_null() {
            continue;
        }
        let found = value.pointer(&wanted.pointer).ok_or_else(|| {
            Fault::wrong(format!("`{name}` has nothing at `{}`: {}", wanted.pointer, cut(value)))
        })?;
        if !(wanted.skip_null && found.is_null()) {
            values.push((name, found));
        }
    }
    Ok(values)
}

/// Of no numbers the sum is 0 and everything else null.
fn statistics(figures: &[Figure]) -> Result<Value, Fault> {
    let mut found = Map::new();
    found.insert("count".to_owned(), json!(figures.len()));
    for (name, figure) in [
        ("sum", Some(sum(figures)?)),
        ("min", least(figures)),
        ("max", greatest(figures)),
        ("mean", mean(figures)?),
        ("median", median(figures)?),
        ("stddev", deviation(figures)?),
    ] {
        let value = figure.map_or(Ok(Value::Null), Figure::value)?;
        found.insert(name.to_owned(), value);
    }
    Ok(Value::Object(found))
}

/// What the plan hands over may be named like a variable, as far as it is a number.
fn formula(wanted: Formula) -> Result<Value, Fault> {
    let mut names = BTreeMap::new();
    let handed = [("input", wanted.input), ("item", wanted.item), ("index", wanted.index)];
    for (name, value) in handed {
        if let Some(figure) = value.as_ref().and_then(Figure::of) {
            names.insert(name.to_owned(), figure);
        }
    }
    for (name, value) in wanted.variables {
        let wrong = || Fault::wrong(format!("`variables.{name}` is {}, not a number", cut(&value)));
        let figure = Figure::of(&value).ok_or_else(wrong)?;
        names.insert(name, figure);
    }
    expression::evaluate(&wanted.expression, &names)?.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(verb: &str, parameters: Value, expected: &str) {
        let shown = parameters.to_string();
        let got = act(verb, parameters);
        let got = got.map_or_else(|fault| fault.message, |value| value.to_string());
        assert_eq!(got, expected, "{verb} {shown}");
    }

    #[test]
    fn numbers_are_added_up() {
        let rows = json!({"columns": ["n"], "rows": [{"n": 1}, {"n": 2.5}]});
        for (verb, parameters, expected) in [
            ("sum", json!({"values": [1, 2, 3]}), "6"),
            ("sum", json!({"values": [1, 0.5]}), "1.5"),
            ("sum", json!({"values": []}), "0"),
            ("sum", json!({"values": [1e16, 1.0, -1e16]}), "1.0"),
            ("sum", json!({"values": [u64::MAX, -1]}), "18446744073709551614"),
            ("sum", json!({"values": [i64::MAX, 1, -1]}), "9223372036854775807"),
            ("product", json!({"inputs": [4, 5]}), "20"),
            ("product", json!({"values": [u64::MAX, u64::MAX, u64::MAX, 0]}), "0"),
            ("min", json!({"values": [3, -1]}), "-1"),
            ("max", json!({"values": [3.5, 1]}), "3.5"),
            ("max", json!({"values": [0, -0.0]}), "-0.0"),
            ("max", json!({"values": [9007199254740993_i64, 0.5]}), "9007199254740993"),
            (
                "max",
                json!({"values": [9007199254740993_i64, 9007199254740992.0]}),
                "9007199254740993",
            ),
            ("mean", json!({"input": [1, 2]}), "1.5"),
            ("mean", json!({"values": [u64::MAX, u64::MAX]}), "1.8446744073709552e+19"),
            ("count", json!({"values": ["a", null]}), "2"),
            ("count", json!({"values": ["a", null], "skip_null": true}), "1"),
            ("sum", json!({"input": rows, "pointer": "/n"}), "3.5"),
            ("sum", json!({"inputs": [rows, rows], "pointer": "/rows/0/n"}), "2"),
            ("sum", json!({"inputs": [1, null], "skip_null": true}), "1"),
            (
                "stats",
                json!({"values": [2, 4, 4, 4, 5, 5, 7, 9]}),
                r#"{"count":8,"max":9,"mean":5.0,"median":4.5,"min":2,"stddev":2.0,"sum":40}"#,
            ),
            (
                "stats",
                json!({"values": []}),
                concat!(
                    r#"{"count":0,"max":null,"mean":null,"median":null,"min":null,"#,
                    r#""stddev":null,"sum":0}"#,
                ),
            ),
            (
                "expression",
                json!({"expression": "item * 2 + x", "variables": {"x": 1}, "item": 4}),
                "9",
            ),
            (
                "expression",
                json!({"expression": "item", "item": "4"}),
                "`expression`, character 1: `item` is not known, known are: ",
            ),
            (
                "expression",
                json!({"expression": "x", "variables": {"x": "1"}}),
                "`variables.x` is \"1\", not a number",
            ),
        ] {
            check(verb, parameters, expected);
        }
    }

    #[test]
    fn faults_are_named() {
        for (verb, parameters, expected) in [
            ("mean", json!({"values": []}), "`compute.mean` of no numbers has no value"),
            ("sum", json!({"values": [u64::MAX, 1]}), "the result does not fit 64 bits"),
            ("product", json!({"values": [1e308, 1e308]}), "the result is not a finite number"),
            ("sum", json!({"values": [1, "2"]}), "`values[1]` is \"2\", not a number"),
            (
                "sum",
                json!({"values": [{"a": 1}], "pointer": "/b"}),
                "`values[0]` has nothing at `/b`: {\"a\":1}",
            ),
            ("sum", json!({"values": 7}), "`values` must be a list, found 7"),
            ("sum", json!({}), "`values` is missing"),
            (
                "sum",
                json!({"values": [], "colour": 1}),
                "`parameters`: unknown field `colour`, \
                expected one of `values`, `inputs`, `input`, `pointer`, `skip_null`",
            ),
            ("root", json!({"values": [1]}), "no built-in action is called `compute.root`"),
        ] {
            check(verb, parameters, expected);
        }
    }
}
