//! `compute.*`: arithmetic over lists of numbers. Whole numbers stay whole; what does not fit is an
//! error, never a lie.

use serde::Deserialize;
use serde_json::{Number, Value};

use super::{Fault, typed};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Numbers {
    /// The numbers; without it the plan's `inputs` or `input`.
    values: Option<Value>,
    inputs: Option<Value>,
    input: Option<Value>,
}

pub(super) fn act(verb: &str, parameters: Value) -> Result<Value, Fault> {
    let Numbers { values, inputs, input } = typed(parameters, &["input", "inputs"])?;
    let values = values.or(inputs).or(input);
    let Some(Value::Array(values)) = values else {
        return Err(Fault::wrong("`values` must be a list of numbers"));
    };
    if verb == "count" {
        return Ok(values.len().into());
    }
    let numbers = values
        .iter()
        .enumerate()
        .map(|(index, value)| match value {
            Value::Number(number) => Ok(number),
            other => Err(Fault::wrong(format!("`values[{index}]` is {other}, not a number"))),
        })
        .collect::<Result<Vec<&Number>, Fault>>()?;
    let whole: Option<Vec<i64>> = numbers.iter().map(|number| number.as_i64()).collect();
    let real: Vec<f64> = numbers.iter().filter_map(|number| number.as_f64()).collect();
    if real.is_empty() && verb != "sum" && verb != "product" {
        return Err(Fault::wrong(format!("`compute.{verb}` of no numbers has no value")));
    }
    #[expect(clippy::cast_precision_loss, reason = "a list in memory is far shorter than 2^53")]
    let count = real.len() as f64;
    match (verb, whole) {
        ("sum", Some(whole)) => exact(whole.iter().try_fold(0, |sum: i64, n| sum.checked_add(*n))),
        ("sum", None) => finite(real.iter().sum()),
        ("product", Some(whole)) => {
            exact(whole.iter().try_fold(1, |product: i64, n| product.checked_mul(*n)))
        }
        ("product", None) => finite(real.iter().product()),
        ("min", Some(whole)) => exact(whole.into_iter().min()),
        ("min", None) => finite(real.into_iter().fold(f64::INFINITY, f64::min)),
        ("max", Some(whole)) => exact(whole.into_iter().max()),
        ("max", None) => finite(real.into_iter().fold(f64::NEG_INFINITY, f64::max)),
        ("mean", _) => finite(real.iter().sum::<f64>() / count),
        _ => Err(Fault::wrong(format!("no built-in action is called `compute.{verb}`"))),
    }
}

fn exact(number: Option<i64>) -> Result<Value, Fault> {
    number.map(Value::from).ok_or_else(|| Fault::wrong("the result does not fit 64 bits"))
}

fn finite(number: f64) -> Result<Value, Fault> {
    Number::from_f64(number)
        .map(Value::Number)
        .ok_or_else(|| Fault::wrong("the result is not a finite number"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_added_up_and_faults_are_named() {
        for (verb, parameters, expected) in [
            ("sum", json!({"values": [1, 2, 3]}), "6"),
            ("sum", json!({"values": [1, 0.5]}), "1.5"),
            ("sum", json!({"values": []}), "0"),
            ("product", json!({"inputs": [4, 5]}), "20"),
            ("min", json!({"values": [3, -1]}), "-1"),
            ("max", json!({"values": [3.5, 1]}), "3.5"),
            ("mean", json!({"input": [1, 2]}), "1.5"),
            ("count", json!({"values": ["a", null]}), "2"),
            ("mean", json!({"values": []}), "`compute.mean` of no numbers has no value"),
            ("sum", json!({"values": [i64::MAX, 1]}), "the result does not fit 64 bits"),
            ("product", json!({"values": [1e308, 1e308]}), "the result is not a finite number"),
            ("sum", json!({"values": [1, "2"]}), "`values[1]` is \"2\", not a number"),
            ("sum", json!({"values": 7}), "`values` must be a list of numbers"),
            ("root", json!({"values": [1]}), "no built-in action is called `compute.root`"),
        ] {
            let got = act(verb, parameters).map_or_else(|fault| fault.message, |v| v.to_string());
            assert_eq!(got, expected, "{verb}");
        }
    }
}
