//! The description of the API: `GET /openapi.json`, OpenAPI 3.1.
//!
//! What comes back is described by the types of `maos-api` themselves, what goes in by the rules of
//! their parsers (`bodies`); which errors an operation has stands beside it (`operations`). A test
//! holds the description against the router: nothing more, nothing less.

mod bodies;
mod operation;
mod operations;
pub(super) mod pages;

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use maos_api::error::ErrorBody;
use maos_api::events::Event;
use serde_json::{Map, Value, json};

use operation::Schemas;

const ABOUT: &str = "Tasks, plans and agents that work on them. Every error is `{error, \
     error_code, details, timestamp, request_id}`; `docs/errors.md` lists the codes.";

/// The description, as it is written to `docs/openapi.json`.
#[must_use]
pub fn document() -> Value {
    let mut schemas = Schemas::default();
    schemas.refer::<ErrorBody>();
    schemas.refer::<Event>();
    let mut paths: Map<String, Value> = Map::new();
    let mut tags: Vec<&str> = Vec::new();
    for operation in operations::all() {
        if tags.last() != Some(&operation.tag) {
            tags.push(operation.tag);
        }
        let (method, path) = (operation.method, operation.path);
        let described = operation.describe(&mut schemas);
        let methods = paths.entry(path).or_insert_with(|| Value::Object(Map::new()));
        methods[method] = described;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "MAOS",
            "summary": "A backend that runs many agents reliably.",
            "description": ABOUT,
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": tags.into_iter().map(|tag| json!({"name": tag})).collect::<Vec<_>>(),
        "paths": paths,
        "components": {"schemas": schemas.close()},
    })
}

static WRITTEN: LazyLock<String> = LazyLock::new(|| document().to_string());

pub(super) async fn json_document() -> Response {
    let mut response = Response::new(Body::from(WRITTEN.as_str()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_committed_description_is_that_of_the_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        let mut written = serde_json::to_string_pretty(&document()).unwrap();
        written.push('\n');
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &written).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == written, "docs/openapi.json is old: UPDATE_DOCS=1 writes it anew");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn visit(value: &Value, schemas: &Map<String, Value>) {
            if let Some(Value::String(target)) = value.get("$ref") {
                let name = target.strip_prefix("#/components/schemas/").unwrap();
                assert!(schemas.contains_key(name), "`{name}` is not described");
            }
            match value {
                Value::Object(members) => members.values().for_each(|value| visit(value, schemas)),
                Value::Array(entries) => entries.iter().for_each(|value| visit(value, schemas)),
                _ => {}
            }
        }
        let document = document();
        visit(&document, document["components"]["schemas"].as_object().unwrap());
    }
}
