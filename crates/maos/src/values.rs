//! How values are written on the command line.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::Value;
use uuid::Uuid;

/// One of the wire's names for `all`; another one is refused with a list of them.
pub(crate) fn one_of<T, const N: usize>(
    all: [T; N],
    name_of: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.map(name_of)).try_map(move |name| {
        let known = all.into_iter().find(|known| name_of(*known) == name);
        known.ok_or("not one of the names")
    })
}

/// The id of a task; who gives something else is told where ids are.
pub(crate) fn task_id(text: &str) -> Result<Uuid, String> {
    id(text, "maos task list")
}

/// The id of an agent.
pub(crate) fn agent_id(text: &str) -> Result<Uuid, String> {
    id(text, "maos agent list")
}

fn id(text: &str, shown_by: &str) -> Result<Uuid, String> {
    text.parse().map_err(|_| format!("an id is a UUID\nhint: `{shown_by}` shows the ids there are"))
}

/// Reads `KEY=VALUE`; a value that is no JSON is a string.
pub(crate) fn assignment(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| format!("`{text}` is not of the form KEY=VALUE"))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((key.to_owned(), value))
}

/// The assignments as one object; a name that is given twice is refused, as one of them would be
/// dropped in silence.
pub(crate) fn once(
    given: &[(String, Value)],
    flag: &str,
) -> anyhow::Result<serde_json::Map<String, Value>> {
    let mut object = serde_json::Map::new();
    for (key, value) in given {
        if object.insert(key.clone(), value.clone()).is_some() {
            anyhow::bail!("{flag} names `{key}` twice\nhint: leave one of them out");
        }
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_json_or_else_strings() {
        let value = |text| assignment(text).map(|(_, value)| value);
        assert_eq!(value("a=1"), Ok(json!(1)));
        assert_eq!(value("a=[1,\"x\"]"), Ok(json!([1, "x"])));
        assert_eq!(value("a=plain words = more"), Ok(json!("plain words = more")));
        assert_eq!(value("a="), Ok(json!("")));
        assert_eq!(value("a=\"1\""), Ok(json!("1")));
        assert!(value("a").is_err() && value("=1").is_err());
    }

    #[test]
    fn a_name_that_is_given_twice_is_refused() {
        let given = |names: &[&str]| {
            let given: Vec<_> = names.iter().map(|name| ((*name).to_owned(), json!(1))).collect();
            once(&given, "--param").map_err(|why| why.to_string())
        };
        assert_eq!(given(&["a", "b"]).unwrap().len(), 2);
        let refused = "--param names `a` twice\nhint: leave one of them out";
        assert_eq!(given(&["a", "b", "a"]).unwrap_err(), refused);
    }
}
