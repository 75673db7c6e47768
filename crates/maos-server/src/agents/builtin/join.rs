//! `join.*`: results of several tasks put together.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Fault, typed};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inputs {
    inputs: Vec<Value>,
}

pub(super) fn act(verb: &str, parameters: Value) -> Result<Value, Fault> {
    let Inputs { inputs } = typed(parameters, &["inputs"])?;
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
    let shown: String = found.to_string().chars().take(60).collect();
    Fault::wrong(format!("`inputs[{index}]` must be {wanted}, found {shown}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn inputs_are_put_together() {
        for (verb, inputs, expected) in [
            ("collect", json!([1, "a"]), r#"[1,"a"]"#),
            ("concat", json!([[1], [2, 3]]), "[1,2,3]"),
            ("merge", json!([{"a": 1}, {"b": 2, "a": 3}]), r#"{"a":3,"b":2}"#),
            ("concat", json!([[1], 2]), "`inputs[1]` must be a list, found 2"),
            ("merge", json!([null]), "`inputs[0]` must be an object, found null"),
            ("knot", json!([]), "no built-in action is called `join.knot`"),
        ] {
            let got = act(verb, json!({"action": "x", "inputs": inputs}));
            let got = got.map_or_else(|fault| fault.message, |value| value.to_string());
            assert_eq!(got, expected, "{verb}");
        }
    }
}
