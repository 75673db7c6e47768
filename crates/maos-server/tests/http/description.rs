//! The description of the API, held against every request and answer of these tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use axum::http::HeaderMap;
use jsonschema::Validator;
use maos_api::paths;
use maos_server::http::openapi;
use serde_json::{Value, json};

use crate::house::{Answer, House};

static DOCUMENT: LazyLock<Value> = LazyLock::new(openapi::document);

/// The described path that this one is, and its segments that are literal.
fn template(path: &str) -> Option<&'static str> {
    let path = path.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = path.split('/').collect();
    let literal = |template: &str| -> Option<usize> {
        let wanted: Vec<&str> = template.split('/').collect();
        let same = |(wanted, found): (&&str, &&str)| wanted.starts_with('{') || wanted == found;
        let fits = wanted.len() == segments.len() && wanted.iter().zip(&segments).all(same);
        fits.then(|| wanted.iter().filter(|wanted| !wanted.starts_with('{')).count())
    };
    paths::ALL
        .iter()
        .copied()
        .max_by_key(|path| literal(path))
        .filter(|path| literal(path).is_some())
}

fn validator(schema: &Value) -> Validator {
    let mut schema = schema.clone();
    schema["components"] = DOCUMENT["components"].clone();
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    options.build(&schema).expect("the description holds schemas")
}

fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let validator = validator(schema);
    validator
        .iter_errors(value)
        .map(|error| format!("{error} at `{}`", error.instance_path()))
        .collect()
}

/// Panics when an answer, or a request that was accepted, is not as described.
pub(crate) fn hold(method: &str, path: &str, sent: Option<&Value>, answer: &Answer) {
    let Answer { status, headers, body: answer } = answer;
    let status = *status;
    let Some(template) = template(path) else { return };
    let operation = &DOCUMENT["paths"][template][method.to_ascii_lowercase()];
    if operation.is_null() {
        assert_eq!(status, 405, "{method} {template} is not described");
        return;
    }
    let described = &operation["responses"][status.to_string()];
    assert!(!described.is_null(), "{method} {template}: {status} is not described: {answer}");
    for (name, header) in described["headers"].as_object().into_iter().flatten() {
        let found = headers.get(name).map(|text| text.to_str().unwrap());
        let fits = found.is_some_and(|text| admits(&header["schema"], text));
        assert!(fits, "{method} {template} answers {status} with {name}: {found:?}");
    }
    let fields = answer["details"]["fields"].as_object();
    let named = status != 422 || fields.is_some_and(|fields| !fields.is_empty());
    assert!(named, "{method} {template}: 422 names no field: {answer}");
    let schema = &described["content"]["application/json"]["schema"];
    let found = faults(schema, answer);
    assert!(found.is_empty(), "{method} {template} answers {status} with {answer}: {found:?}");
    if let (200, Some(sent)) = (status, sent) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let found = faults(schema, sent);
        assert!(found.is_empty(), "{method} {template} accepts {sent}: {found:?}");
    }
}

/// What a parameter of a request line or a header says, as the value that its schema is about.
pub(crate) fn value_of(schema: &Value, text: &str) -> Value {
    let read = || serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    match schema["type"].as_str() {
        Some("integer" | "boolean") => read(),
        _ => json!(text),
    }
}

/// The operation that reads this path.
pub(crate) fn reading(path: &str) -> &'static Value {
    let template = template(path).expect("it is described");
    &DOCUMENT["paths"][template]["get"]
}

/// Whether a parameter may be this.
pub(crate) fn admits(schema: &Value, text: &str) -> bool {
    faults(schema, &value_of(schema, text)).is_empty()
}

/// A stream of server-sent events as it is described.
pub(crate) struct Stream {
    /// What the data of each kind of event is.
    events: BTreeMap<String, Validator>,
    /// What its ids are: what a reader that comes back sends.
    place: Value,
}

impl Stream {
    /// That under this path.
    pub(crate) fn of(path: &str) -> Stream {
        let operation = reading(path);
        let answer = &operation["responses"]["200"]["content"]["text/event-stream"];
        let events = answer["x-events"].as_object().expect("a stream says what its events are");
        let events = events.iter().map(|(name, schema)| (name.clone(), validator(schema)));
        let mut parameters = operation["parameters"].as_array().unwrap().iter();
        let place = parameters.find(|named| named["name"] == "Last-Event-ID").unwrap();
        Stream { events: events.collect(), place: place["schema"].clone() }
    }

    /// Its kinds of events.
    pub(crate) fn kinds(&self) -> BTreeSet<String> {
        self.events.keys().cloned().collect()
    }

    /// Panics when the head of the answer is not as described.
    pub(crate) fn hold_head(&self, status: u16, headers: &HeaderMap) {
        assert_eq!(status, 200);
        for (name, expected) in
            [("content-type", "text/event-stream"), ("cache-control", "no-store")]
        {
            assert_eq!(headers[name], expected);
        }
        assert!(headers.contains_key("x-request-id"), "{headers:?}");
    }

    /// Panics when a frame is not as described; says which kind of event it is, if it is one.
    pub(crate) fn hold(&self, frame: &str) -> Option<String> {
        let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
        for line in frame.lines().filter(|line| !line.starts_with(':')) {
            let (field, text) = line.split_once(": ").expect("a field and its text");
            assert!(["id", "event", "data"].contains(&field), "{frame}");
            assert_eq!(fields.insert(field, text), None, "{frame}");
        }
        if fields.is_empty() {
            return None;
        }
        if let Some(id) = fields.get("id") {
            assert!(admits(&self.place, id), "the id of {frame}");
        }
        let (event, data) = (fields["event"], fields["data"]);
        let data: Value = serde_json::from_str(data).expect("its data is JSON");
        let known = self.events.get(event).unwrap_or_else(|| panic!("{event} is not described"));
        let found: Vec<String> = known.iter_errors(&data).map(|error| error.to_string()).collect();
        assert!(found.is_empty(), "{frame}: {found:?}");
        Some(event.to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_takes_what_is_described_and_nothing_else() {
    let house = House::open().await;
    let described: BTreeSet<&str> =
        DOCUMENT["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(described, paths::ALL.iter().copied().collect());
    for path in paths::ALL {
        let real = paths::with_id(path, "01890000-0000-7000-8000-000000000000");
        let answer =
            house.call("TRACE", &real.replace("{name}", "n").replace("{attempt}", "1"), None).await;
        assert_eq!(answer.status, 405, "{path}: {}", answer.body);
        let allowed = answer.headers["allow"].to_str().unwrap().to_ascii_lowercase();
        let allowed: BTreeSet<&str> = allowed.split(',').filter(|m| *m != "head").collect();
        let methods = DOCUMENT["paths"][path].as_object().unwrap().keys().map(String::as_str);
        assert_eq!(allowed, methods.collect(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_cannot_be_read_is_refused_as_everything_is() {
    let house = House::open().await;
    for path in paths::ALL.iter().filter(|path| path.contains('{') && path.starts_with("/api/")) {
        for method in DOCUMENT["paths"][path].as_object().unwrap().keys() {
            let real = paths::with_id(path, "%ff").replace("{name}", "n");
            let answer = house.call(&method.to_ascii_uppercase(), &real, Some(&json!({}))).await;
            let code = &answer.body["error_code"];
            assert_eq!((answer.status, code), (400, &json!("MALFORMED_ID")), "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_works() {
    let house = House::open().await;
    for (path, methods) in DOCUMENT["paths"].as_object().unwrap() {
        let content = &methods["post"]["requestBody"]["content"]["application/json"];
        if content.is_null() || path.contains('{') {
            continue;
        }
        assert_eq!(faults(&content["schema"], &content["example"]), [""; 0], "{path}");
        let answer = house.call("POST", path, Some(&content["example"])).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    let page = house.raw("/docs").await;
    assert!(page.contains("docs/assets/docs.js"), "{page}");
    let refused = house.call("GET", "/docs/assets/none.js", None).await;
    assert_eq!((refused.status, &refused.body["error_code"]), (404, &json!("PATH_NOT_FOUND")));
}
