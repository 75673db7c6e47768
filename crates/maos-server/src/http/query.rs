//! The query of a request: every parameter is known, and a list may be written as one parameter or
//! as several.

use axum::extract::Query;
use axum::http::Uri;
use maos_api::error::{ApiError, ErrorCode};
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

use super::answer::Failed;
use super::parts::bad_query;

/// Parameters that are lists: repeated, they are joined as if they had been written with commas.
const LISTS: [&str; 5] = ["capabilities", "priority", "status", "tags", "type"];

/// Reads the query of `uri` into a structure of optional strings, whose fields are the known
/// parameters.
pub(super) fn read<T: DeserializeOwned>(uri: &Uri) -> Result<T, Failed> {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        let message = "the query cannot be read";
        return Err(Failed(ApiError::new(ErrorCode::MalformedQuery, message)));
    };
    let mut joined: Vec<(String, String)> = Vec::new();
    for (name, value) in pairs {
        match joined.iter_mut().find(|(held, _)| *held == name) {
            None => joined.push((name, value)),
            Some((_, held)) if LISTS.contains(&&*name) => {
                held.push(',');
                held.push_str(&value);
            }
            Some(_) => return Err(bad_query(&name, "is given twice".to_owned())),
        }
    }
    T::deserialize(Pairs(joined)).map_err(|Refused(error)| Failed(*error))
}

/// Parameters on their way into a structure.
struct Pairs(Vec<(String, String)>);

/// One value.
struct Text(String);

/// Why the structure cannot be made.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Refused(Box<ApiError>);

impl Error for Refused {
    fn custom<M: std::fmt::Display>(what: M) -> Refused {
        let message = format!("the query cannot be read: {what}");
        Refused(Box::new(ApiError::new(ErrorCode::MalformedQuery, message)))
    }
}

impl<'de> Deserializer<'de> for Pairs {
    type Error = Refused;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let strange = self.0.iter().map(|(name, _)| name).filter(|name| !known.contains(&&***name));
        let strange: Vec<String> = strange.map(|name| name.chars().take(100).collect()).collect();
        if let Some(first) = strange.first() {
            let message = format!(
                "query parameter `{first}` is not known\nhint: use {}",
                known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            );
            let what = || Value::from("is not known");
            let fields: Map<_, _> = strange.into_iter().map(|name| (name, what())).collect();
            let error = ApiError::new(ErrorCode::ValidationFailed, message);
            return Err(Refused(Box::new(
                error.with("fields", fields).with("known", known.to_vec()),
            )));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let pairs = self.0.into_iter().map(|(name, value)| (name, Text(value)));
        visitor.visit_map(MapDeserializer::new(pairs))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl IntoDeserializer<'_, Refused> for Text {
    type Deserializer = Text;

    fn into_deserializer(self) -> Text {
        self
    }
}

impl<'de> Deserializer<'de> for Text {
    type Error = Refused;

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_some(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_string(self.0)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
