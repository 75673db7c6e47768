//! Submissions: what is taken, what is refused, and how that is said.

use serde_json::{Value, json};

use super::*;

pub(crate) const BOUNDS: Bounds = Bounds {
    body_bytes_max: 4_096,
    nesting_max: 64,
    name_chars_max: 500,
    description_chars_max: 1_000,
    word_chars_max: 200,
    tags_max: 3,
    capabilities_max: 4,
    resource_kinds_max: 3,
    plan_tasks_max: 100,
    retries_max: 100,
    agent_slots_max: 10,
    task_timeout_seconds_max: 3_600,
};

fn refused(body: &str) -> ApiError {
    parse(body.as_bytes(), &BOUNDS).map(|parsed| format!("{parsed:?}")).expect_err(body)
}

/// The fields of a refusal for their content, with their faults.
fn faults(body: &str) -> Value {
    let error = refused(body);
    assert_eq!(error.code, ErrorCode::ValidationFailed, "{body}: {error}");
    error.details["fields"].clone()
}

/// The one fault of a body with a good name and `members` besides.
fn fault(members: &str) -> String {
    let fields = faults(&format!(r#"{{"name":"n",{members}}}"#));
    let fields = fields.as_object().unwrap();
    assert_eq!(fields.len(), 1, "{members}: {fields:?}");
    let (name, what) = fields.iter().next().unwrap();
    format!("{name} {}", what.as_str().unwrap())
}

#[test]
fn an_ordinary_submission_is_read() {
    let body = r#"{"name":"  crunch ","description":"d","priority":"high","parameters":{"a": 1.0},
        "timeout_seconds":10,"max_retries":0,"resource_requirements":{"cpu_cores":0.5,"gpu":2},
        "tags":["b","a","b"],"metadata":{"x":"\u0000"},"decomposition_strategy":null}"#;
    let parsed = parse(body.as_bytes(), &BOUNDS).unwrap();
    assert_eq!(parsed.name, "crunch");
    let fields = parsed.fields;
    assert_eq!(fields.description.as_deref(), Some("d"));
    assert_eq!(fields.priority, Some(Priority::High));
    assert_eq!(fields.parameters.unwrap().get(), r#"{"a": 1.0}"#);
    assert_eq!((fields.timeout_seconds, fields.max_retries), (Some(10), Some(0)));
    let amounts: Vec<(&str, u64)> =
        fields.resource_requirements.iter().flatten().map(|(k, v)| (&**k, *v)).collect();
    assert_eq!(amounts, [("cpu_cores", 500), ("gpu", 2_000)]);
    assert_eq!(fields.tags.unwrap(), ["a", "b"]);
    assert_eq!(fields.metadata.unwrap().get(), r#"{"x":"\u0000"}"#);
    assert_eq!(fields.strategy, None);
    assert!(parsed.warnings.is_empty());
}

#[test]
fn our_own_fields_are_read_and_null_is_the_same_as_not_given() {
    let body = r#"{"name":"n","required_capabilities":["gpu","computation"],"agent_type":"t",
        "agent_id":"00000000-0000-7000-8000-000000000001","queue_timeout_seconds":5,
        "deadline":"2030-01-01T01:00:00+01:00","no_progress_seconds":7,"subtasks":[1],
        "on_failure":"ignore","fairness_key":"f","concurrency_key":"c"}"#;
    let fields = parse(body.as_bytes(), &BOUNDS).unwrap().fields;
    assert_eq!(fields.required_capabilities.unwrap(), ["computation", "gpu"]);
    assert_eq!(fields.agent_id.unwrap().as_u128() & 0xff, 1);
    assert_eq!(fields.deadline.unwrap().to_string(), "2030-01-01T00:00:00Z");
    assert_eq!((fields.queue_timeout_seconds, fields.no_progress_seconds), (Some(5), Some(7)));
    assert_eq!(fields.on_failure, Some(OnFailure::Ignore));
    assert_eq!(fields.subtasks.unwrap().get(), "[1]");
    assert_eq!(
        (fields.fairness_key.as_deref(), fields.concurrency_key.as_deref()),
        (Some("f"), Some("c"))
    );

    let names: Vec<&str> = FIELDS.iter().copied().filter(|name| !CONTRACT.contains(name)).collect();
    assert_eq!(names.len(), FIELDS.len() - CONTRACT.len());
    for name in names {
        let body = format!(r#"{{"name":"n","{name}":null}}"#);
        let parsed = parse(body.as_bytes(), &BOUNDS).expect(name);
        assert!(parsed.warnings.is_empty(), "{name}");
    }
}

const CONTRACT: [&str; 9] = [
    "name",
    "priority",
    "parameters",
    "timeout_seconds",
    "max_retries",
    "resource_requirements",
    "tags",
    "metadata",
    "description",
];

#[test]
fn each_field_of_the_contract_has_its_type_and_range() {
    for (members, expected) in [
        (r#""description":1"#, "description must be a string, found an integer"),
        (r#""description":"a\u0000""#, "description must not hold NUL"),
        (
            r#""priority":"urgent""#,
            "priority must be one of `low`, `medium`, `high`, `critical`, found `urgent`",
        ),
        (r#""priority":null"#, "priority must be a string, found null"),
        (r#""parameters":null"#, "parameters must be an object, found null"),
        (r#""parameters":[]"#, "parameters must be an object, found a list"),
        (r#""metadata":"{}""#, "metadata must be an object, found a string"),
        (r#""timeout_seconds":0"#, "timeout_seconds must be 1 to 3600, found 0"),
        (r#""timeout_seconds":-5"#, "timeout_seconds must be 1 to 3600, found -5"),
        (r#""timeout_seconds":"10""#, "timeout_seconds must be an integer, found a string"),
        (
            r#""timeout_seconds":1.5"#,
            "timeout_seconds must be an integer, found a number with a fraction or an exponent",
        ),
        (r#""timeout_seconds":true"#, "timeout_seconds must be an integer, found a boolean"),
        (r#""max_retries":101"#, "max_retries must be 0 to 100, found 101"),
        (r#""max_retries":-1"#, "max_retries must be 0 to 100, found -1"),
        (
            r#""resource_requirements":{"cpu_cores":-1}"#,
            "resource_requirements.cpu_cores must be a number from 0 to 1000000000000, found `-1`",
        ),
        (
            r#""resource_requirements":{"gpu":true}"#,
            "resource_requirements.gpu must be a number from 0 to 1000000000000, found `true`",
        ),
        (
            r#""resource_requirements":{"":1}"#,
            "resource_requirements has a kind of resource without a name",
        ),
        (
            r#""resource_requirements":{"a":1,"b":1,"c":1,"d":1}"#,
            "resource_requirements must have at most 3 kinds, found 4",
        ),
        (r#""tags":"a""#, "tags must be a list, found a string"),
        (r#""tags":["a",1]"#, "tags[1] must be a string, found an integer"),
        (r#""tags":[" "]"#, "tags[0] must not be blank"),
        (r#""tags":["a","b","c","d"]"#, "tags must have at most 3 entries, found 4"),
    ] {
        assert_eq!(fault(members), expected);
    }
}

#[test]
fn each_field_of_ours_has_its_type_and_range() {
    for (members, expected) in [
        (
            r#""required_capabilities":["No"]"#,
            "required_capabilities must hold names like `data_processing`, found `No`",
        ),
        (r#""agent_id":"7""#, "agent_id must be a UUID, found `7`"),
        (
            r#""deadline":"soon""#,
            "deadline must be a time like `2030-01-31T12:00:00Z`, found `soon`",
        ),
        (r#""queue_timeout_seconds":0"#, "queue_timeout_seconds must be 1 to 31622400, found 0"),
        (r#""subtasks":{}"#, "subtasks must be a list, found an object"),
        (
            r#""on_failure":"stop""#,
            "on_failure must be one of `fail_fast`, `continue`, `ignore`, found `stop`",
        ),
        (
            r#""run_at":"2030-01-01T00:00:00Z","delay_seconds":5"#,
            "delay_seconds says when to start, and so does `run_at`: leave one out",
        ),
        (r#""delay_seconds":-1"#, "delay_seconds must be 0 to 31622400, found -1"),
        (
            r#""decomposition_strategy":3"#,
            "decomposition_strategy must be a string, found an integer",
        ),
        (r#""fairness_key":" ""#, "fairness_key must not be blank"),
        (r#""name":"m""#, "name is given twice"),
    ] {
        assert_eq!(fault(members), expected);
    }
}

#[test]
fn a_name_is_required_and_not_blank() {
    let long = "x".repeat(501);
    for (name, expected) in [
        (r#""""#, "must not be blank"),
        ("\" \\t \"", "must not be blank"),
        (r#""a\u0000b""#, "must not hold NUL"),
        ("7", "must be a string, found an integer"),
        ("null", "must be a string, found null"),
        (&format!("\"{long}\""), "must have at most 500 characters, found 501"),
    ] {
        assert_eq!(faults(&format!(r#"{{"name":{name}}}"#)), json!({ "name": expected }));
    }
    assert_eq!(faults("{}"), json!({"name": "is required"}));
}

#[test]
fn characters_are_counted_and_not_bytes() {
    let body = format!(r#"{{"name":"{}"}}"#, "é".repeat(500));
    parse(body.as_bytes(), &BOUNDS).unwrap();
}

#[test]
fn every_fault_is_named_at_once() {
    let error = refused(
        r#"{"name":" ","priority":9,"parameters":1,"timeout_seconds":9999,"tags":[1,2],
            "decomposition_strategy":"magic"}"#,
    );
    assert_eq!(error.code, ErrorCode::ValidationFailed);
    let fields: Vec<&String> = error.details["fields"].as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        [
            "decomposition_strategy",
            "name",
            "parameters",
            "priority",
            "tags[0]",
            "tags[1]",
            "timeout_seconds"
        ]
    );
}

#[test]
fn a_timeout_above_the_maximum_and_an_unknown_strategy_have_codes_of_their_own() {
    let error = refused(r#"{"name":"n","timeout_seconds":3601}"#);
    assert_eq!(error.code, ErrorCode::TimeoutTooLong);
    assert_eq!(error.message, "`timeout_seconds` must be at most 3600, found 3601");
    for notation in ["3601.0", "1e30", "3.6000001e3", "18446744073709551616", "1e999"] {
        let error = refused(&format!(r#"{{"name":"n","timeout_seconds":{notation}}}"#));
        assert_eq!(error.code, ErrorCode::TimeoutTooLong, "{notation}: {error}");
    }
    let error = refused(r#"{"name":"n","decomposition_strategy":"magic"}"#);
    assert_eq!(error.code, ErrorCode::UnknownStrategy);
    assert_eq!(
        error.details["known"],
        json!(["sequential", "parallel", "pipeline", "hierarchical", "fan_out_fan_in", "planner"])
    );
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    for (body, line, column) in [
        ("", 1, 0),
        ("{\n\"name\": }", 2, 9),
        (r#"{"name":"n""#, 1, 11),
        ("[1,", 1, 3),
        ("{} x", 1, 4),
    ] {
        let error = refused(body);
        assert_eq!(error.code, ErrorCode::MalformedJson, "{body}");
        assert_eq!(
            (&error.details["line"], &error.details["column"]),
            (&json!(line), &json!(column)),
            "{body}"
        );
    }
    let error = parse(b"{\"name\":\"\xff\"}", &BOUNDS).unwrap_err();
    assert_eq!((error.code, &error.details["byte"]), (ErrorCode::MalformedJson, &json!(9)));
    for body in ["[]", "1", " \"x\"", "null"] {
        assert!(faults(body)["body"].as_str().unwrap().starts_with("must be an object"), "{body}");
    }
    let error = refused(&format!(r#"{{"name":"{}"}}"#, "x".repeat(5_000)));
    assert_eq!(error.code, ErrorCode::BodyTooLarge);
    assert_eq!(error.details["bytes_max"], json!(4_096));
}

#[test]
fn defects_are_refused_anywhere_in_the_body() {
    let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
    let deeper = format!("{}{}", "[".repeat(1_900), "]".repeat(1_900));
    for (members, field, part) in [
        (r#""parameters":{"a":["\ud800"]}"#.to_owned(), "parameters", "half a surrogate pair"),
        (r#""x":1e999"#.to_owned(), "x", "range of 64-bit floats"),
        (r#""metadata":{"a":18446744073709551616}"#.to_owned(), "metadata", "beyond 64 bits"),
        (r#""max_retries":99999999999999999999"#.to_owned(), "max_retries", "beyond 64 bits"),
        (r#""\udead":1"#.to_owned(), "body", "half a surrogate pair"),
        (r#""tags":["\ude00"]"#.to_owned(), "tags", "half a surrogate pair"),
        (format!(r#""parameters":{{"a":{deep}}}"#), "parameters", "deeper than 64"),
        (format!(r#""x":{deeper}"#), "x", "deeper than 64"),
    ] {
        let found = fault(&members);
        assert!(found.starts_with(field) && found.contains(part), "{found}");
    }
    let deep = format!("{}{}", "[".repeat(62), "]".repeat(62));
    let body = format!(r#"{{"name":"n","parameters":{{"a":{deep}}}}}"#);
    parse(body.as_bytes(), &BOUNDS).unwrap();
    parse(br#"{"name":"n","parameters":{"a":"\u0000","b":18446744073709551615}}"#, &BOUNDS)
        .unwrap();
}

#[test]
fn unknown_fields_are_named_and_ignored_also_those_of_entries() {
    let parsed = parse(br#"{"name":"n","nmae":1,"key":"k"}"#, &BOUNDS).unwrap();
    assert_eq!(
        parsed.warnings,
        ["unknown field `nmae` is ignored", "unknown field `key` is ignored"]
    );
    let many: String = (0..30).map(|index| format!(r#","x{index}":0"#)).collect();
    let body = format!(r#"{{"name":"n"{many}}}"#);
    let parsed = parse(body.as_bytes(), &BOUNDS).unwrap();
    assert_eq!(parsed.warnings.len(), 21);
    assert_eq!(parsed.warnings[20], "10 more unknown fields are ignored");
}

#[test]
fn an_entry_is_a_submission_if_all_its_fields_are() {
    let is = |json: &str| is_submission(&document::members(json).unwrap());
    assert!(is(r#"{"name":"a"}"#) && is(r#"{"key":"a","depends_on":[],"items":3}"#));
    assert!(!is(r#"{"name":"a","id":1}"#) && !is("{}"));

    let members = document::members(r#"{"key":" k ","depends_on":["b","a"],"timeout_seconds":0}"#);
    let (mut faults, mut warnings) = (Faults::default(), Vec::new());
    let fields = entry(members.unwrap(), "subtasks[2]", &BOUNDS, &mut faults, &mut warnings);
    assert_eq!((fields.key.as_deref(), &*fields.depends_on.join(",")), (Some("k"), "a,b"));
    let error = faults.check().unwrap_err();
    assert_eq!(error.message, "`subtasks[2].timeout_seconds` must be 1 to 3600, found 0");
}
