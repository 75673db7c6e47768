//! `docs/builtins.md` shows every action with an example; what it shows is what happens.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use maos_server::agents::builtin::ACTIONS;
use maos_server::agents::{RunAttempt, Verdict};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{Test, assignment, builtin, wait};

pub(crate) const TESTS: &[Test] =
    &[("document::every_example_does_what_it_shows", every_example_does_what_it_shows)];

/// An action's section: its heading, and its blocks of JSON.
struct Section {
    heading: String,
    blocks: Vec<Value>,
}

fn every_example_does_what_it_shows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/builtins.md");
    let text = std::fs::read_to_string(path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let address = somebody_else();
    let mut shown = Vec::new();
    for section in sections(&text) {
        let action = ACTIONS.iter().find(|action| action.name == section.heading);
        let action = action.unwrap_or_else(|| panic!("there is no `{}`", section.heading));
        shown.push(action.name);
        let [parameters, expected] = &*section.blocks else {
            panic!("`{}` needs its parameters and its result", action.name);
        };
        assert_eq!(parameters["action"], action.name);
        let parameters = &reached(parameters, &address);
        let stop = CancellationToken::new();
        let builtin = builtin(folder.path());
        let running = assignment(parameters.clone(), Duration::from_secs(50), &stop);
        let verdict = wait(builtin.run(running));
        let Verdict::Completed(found) = verdict else { panic!("{parameters}: {verdict:?}") };
        assert!(matches(expected, &found), "{parameters}: found {found}, wanted {expected}");
    }
    let mut known: Vec<&str> = ACTIONS.iter().map(|action| action.name).collect();
    shown.sort_unstable();
    known.sort_unstable();
    assert_eq!(shown, known, "the document's actions and ours");
}

/// Answers every request over HTTP with the same JSON, for as long as the test runs.
fn somebody_else() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4_096];
            // Its beginning is enough: nobody sends more.
            let _ = stream.read(&mut request).unwrap();
            let body = r#"{"open":true}"#;
            let length = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n");
            let kind = "content-type: application/json\r\n\r\n";
            stream.write_all(format!("{head}{kind}{body}").as_bytes()).unwrap();
        }
    });
    format!("http://{address}")
}

/// Parameters that name a host of the document, with one that is there.
fn reached(parameters: &Value, address: &str) -> Value {
    let text = parameters.to_string().replace("https://shop.example.org", address);
    serde_json::from_str(&text).unwrap()
}

/// Whether a result is as shown, where `…` stands for any text or number.
fn matches(shown: &Value, found: &Value) -> bool {
    match (shown, found) {
        (Value::String(any), Value::String(_) | Value::Number(_)) if any == "…" => true,
        (Value::Array(shown), Value::Array(found)) => {
            shown.len() == found.len() && shown.iter().zip(found).all(|(a, b)| matches(a, b))
        }
        (Value::Object(shown), Value::Object(found)) => {
            let same = |(name, value)| found.get(name).is_some_and(|found| matches(value, found));
            shown.len() == found.len() && shown.iter().all(same)
        }
        (shown, found) => shown == found,
    }
}

fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("### `") {
            let heading = heading.trim_end_matches('`').to_owned();
            sections.push(Section { heading, blocks: Vec::new() });
        }
        if let (true, Some(section)) = (line == "```json", sections.last_mut()) {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let block = serde_json::from_str(&block.join("\n"));
            section.blocks.push(block.unwrap_or_else(|why| panic!("{}: {why}", section.heading)));
        }
    }
    sections
}
