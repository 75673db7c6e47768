//! One operation of the description: a path, a method, what goes in, what comes out.

use std::collections::{BTreeMap, BTreeSet};

use maos_api::error::ErrorCode;
use maos_api::task::Page;
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::bodies;

/// Schemas by name: each is described once and referred to.
#[derive(Default)]
pub(super) struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    /// A reference to the schema of a type, which is described with all that it refers to.
    pub(super) fn refer<T: ToSchema>(&mut self) -> Value {
        self.refer_as::<T>(&T::name())
    }

    /// The same under another name: a generic type has one for each of what it holds.
    fn refer_as<T: ToSchema>(&mut self, name: &str) -> Value {
        let mut found: Vec<(String, RefOr<Schema>)> = Vec::new();
        T::schemas(&mut found);
        let name = name.to_owned();
        found.push((name.clone(), <T as PartialSchema>::schema()));
        for (name, schema) in found {
            self.0.entry(name).or_insert_with(|| serde_json::to_value(schema).unwrap_or_default());
        }
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }

    pub(super) fn close(self) -> BTreeMap<String, Value> {
        self.0
    }
}

/// What a successful answer is.
enum Success {
    Json(fn(&mut Schemas) -> Value),
    Other { media_type: &'static str, what: &'static str },
}

/// One operation.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    id: &'static str,
    pub(super) tag: &'static str,
    summary: &'static str,
    says: &'static str,
    parameters: Vec<Value>,
    body: Option<Value>,
    success: Success,
    /// What the data of each kind of server-sent event is, if it may be answered with such.
    events: Option<fn(&mut Schemas) -> Value>,
    /// A status beside 200 with the same kind of body.
    also: Option<u16>,
    codes: BTreeSet<ErrorCode>,
}

pub(super) fn operation(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Operation {
    let mut codes = BTreeSet::from([ErrorCode::Internal]);
    if path.starts_with("/api/") {
        codes.extend([ErrorCode::ShuttingDown, ErrorCode::StorageUnavailable]);
    }
    let mut parameters = Vec::new();
    for name in ["id", "name"] {
        if path.contains(&format!("{{{name}}}")) {
            codes.insert(ErrorCode::MalformedId);
            parameters.push(json!({
                "name": name, "in": "path", "required": true,
                "schema": {"type": "string", "format": "uuid"},
            }));
        }
    }
    if path.contains("{attempt}") {
        parameters.push(json!({
            "name": "attempt", "in": "path", "required": true,
            "schema": {"type": "integer", "minimum": 1, "maximum": u32::MAX},
        }));
    }
    Operation {
        method,
        path,
        id,
        tag: "system",
        summary,
        says: "",
        parameters,
        body: None,
        success: Success::Other { media_type: "text/plain", what: "What was asked for." },
        events: None,
        also: None,
        codes,
    }
}

pub(super) fn get(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    operation("get", path, id, summary)
}

pub(super) fn post(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    operation("post", path, id, summary)
}

pub(super) fn put(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    operation("put", path, id, summary)
}

pub(super) fn patch(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    operation("patch", path, id, summary)
}

pub(super) fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    operation("delete", path, id, summary)
}

impl Operation {
    /// More about it.
    pub(super) fn says(mut self, says: &'static str) -> Operation {
        self.says = says;
        self
    }

    /// The `{id}` of its path is a word, no UUID.
    pub(super) fn named(mut self, what: &'static str) -> Operation {
        if let Some(parameter) = self.parameters.first_mut() {
            parameter["schema"] = bodies::segment();
            parameter["description"] = what.into();
        }
        self
    }

    /// The `{name}` of its path is that of a file.
    pub(super) fn file_name(mut self, schema: Value, what: &'static str) -> Operation {
        if let Some(parameter) = self.parameters.iter_mut().find(|named| named["name"] == "name") {
            parameter["schema"] = schema;
            parameter["description"] = what.into();
        }
        self
    }

    /// A body of any type.
    pub(super) fn takes_file(mut self) -> Operation {
        self.codes.extend([ErrorCode::BodyTooLarge, ErrorCode::ValidationFailed]);
        let schema = json!({"type": "string", "format": "binary"});
        self.body = Some(json!({
            "required": true,
            "content": {"application/octet-stream": {"schema": schema}},
        }));
        self
    }

    /// A query parameter.
    pub(super) fn query(
        mut self,
        name: &'static str,
        schema: Value,
        what: &'static str,
    ) -> Operation {
        // One that is not known is refused.
        self.codes.extend([ErrorCode::MalformedQuery, ErrorCode::ValidationFailed]);
        self.parameters
            .push(json!({"name": name, "in": "query", "description": what, "schema": schema}));
        self
    }

    /// The last parameter must be there.
    pub(super) fn required(mut self) -> Operation {
        if let Some(parameter) = self.parameters.last_mut() {
            parameter["required"] = true.into();
        }
        self
    }

    /// A header.
    pub(super) fn header(
        mut self,
        name: &'static str,
        schema: Value,
        what: &'static str,
    ) -> Operation {
        self.parameters
            .push(json!({"name": name, "in": "header", "description": what, "schema": schema}));
        self
    }

    /// A body of JSON, with an example that works.
    pub(super) fn body(mut self, schema: Value, example: Value) -> Operation {
        self.codes.extend([
            ErrorCode::MalformedJson,
            ErrorCode::BodyTooLarge,
            ErrorCode::NotJson,
            ErrorCode::ValidationFailed,
        ]);
        self.body = Some(json!({
            "required": true,
            "content": {"application/json": {"schema": schema, "example": example}},
        }));
        self
    }

    /// The body may be left out.
    pub(super) fn or_none(mut self) -> Operation {
        if let Some(body) = &mut self.body {
            body["required"] = false.into();
        }
        self
    }

    /// It is answered with this as JSON.
    pub(super) fn answers<T: ToSchema>(mut self) -> Operation {
        self.success = Success::Json(Schemas::refer::<T>);
        self
    }

    /// It is answered with a page of these.
    pub(super) fn answers_page<T: ToSchema + serde::Serialize>(mut self) -> Operation {
        self.success =
            Success::Json(|schemas| schemas.refer_as::<Page<T>>(&format!("PageOf{}s", T::name())));
        self
    }

    /// It is answered with a list of these.
    pub(super) fn answers_list<T: ToSchema>(mut self) -> Operation {
        self.success =
            Success::Json(|schemas| json!({"type": "array", "items": schemas.refer::<T>()}));
        self
    }

    /// It is answered with an object that is described elsewhere.
    pub(super) fn answers_object(mut self) -> Operation {
        self.success = Success::Json(|_| json!({"type": "object"}));
        self
    }

    /// It is answered with something that is no JSON.
    pub(super) fn sends(mut self, media_type: &'static str, what: &'static str) -> Operation {
        self.success = Success::Other { media_type, what };
        self
    }

    /// It may be answered with server-sent events; `events` says what the data of each kind is.
    pub(super) fn streams(mut self, events: fn(&mut Schemas) -> Value) -> Operation {
        self.events = Some(events);
        self.codes.insert(ErrorCode::QueueFull);
        self
    }

    /// The same body may come with another status.
    pub(super) fn or_with(mut self, status: u16) -> Operation {
        self.also = Some(status);
        self
    }

    /// Refusals of its own.
    pub(super) fn refuses(mut self, codes: &[ErrorCode]) -> Operation {
        self.codes.extend(codes);
        self
    }

    /// Which group it belongs to.
    pub(super) fn tagged(mut self, tag: &'static str) -> Operation {
        self.tag = tag;
        self
    }

    pub(super) fn describe(self, schemas: &mut Schemas) -> Value {
        let mut content = match self.success {
            Success::Json(refer) => json!({"application/json": {"schema": refer(schemas)}}),
            Success::Other { media_type, .. } => {
                json!({ media_type: {"schema": {"type": "string"}} })
            }
        };
        if let Some(events) = self.events {
            content["text/event-stream"] =
                json!({"schema": {"type": "string"}, "x-events": events(schemas)});
        }
        let what = match self.success {
            Success::Json(_) => "Done.",
            Success::Other { what, .. } => what,
        };
        let mut responses = Map::new();
        for status in [Some(200), self.also].into_iter().flatten() {
            let answer = json!({"description": what, "content": content});
            responses.insert(status.to_string(), answer);
        }
        let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for code in &self.codes {
            by_status.entry(code.status()).or_default().push(code.name());
        }
        let error = json!({"$ref": "#/components/schemas/ErrorBody"});
        for (status, codes) in by_status {
            if self.also == Some(status) {
                continue;
            }
            let description = format!("`{}`", codes.join("`, `"));
            let content = json!({"application/json": {"schema": error}});
            let mut answer = json!({"description": description, "content": content});
            if matches!(status, 429 | 503) {
                answer["headers"] = json!({"Retry-After": {"schema": {"type": "integer"}}});
            }
            responses.insert(status.to_string(), answer);
        }
        let mut described = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "responses": responses,
        });
        if !self.says.is_empty() {
            described["description"] = self.says.into();
        }
        if !self.parameters.is_empty() {
            described["parameters"] = self.parameters.into();
        }
        if let Some(body) = self.body {
            described["requestBody"] = body;
        }
        described
    }
}
