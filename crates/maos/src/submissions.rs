//! Files of submissions: the body of `POST /api/v1/tasks`, or a list of such bodies, as JSON or
//! YAML.
//!
//! It checks no more than that: what a submission may hold is for the server to say.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail};
use maos_api::document::{self, List};
use serde_json::Value;

/// More than this cannot be sent in one batch anyway.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What a file holds.
pub(crate) struct Submissions {
    /// JSON each, as it was written where the file is JSON.
    pub(crate) bodies: Vec<Vec<u8>>,
    /// Whether the file holds a list, be it of one.
    pub(crate) is_list: bool,
}

/// The content of a file, or of standard input when it is called `-`.
pub(crate) fn content(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_end(&mut content)
    } else {
        fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content))
    };
    read.with_context(|| {
        format!(
            "{} cannot be read\nhint: name a file that exists, or - for standard input",
            shown(path)
        )
    })?;
    if content.len() as u64 > FILE_BYTES_MAX {
        bail!(
            "{} is larger than {FILE_BYTES_MAX} bytes\nhint: split it into several files",
            shown(path)
        );
    }
    Ok(content)
}

/// Reads the content of the file `path`.
pub(crate) fn read(path: &Path, content: &[u8]) -> anyhow::Result<Submissions> {
    let name = shown(path);
    let text = std::str::from_utf8(content)
        .with_context(|| format!("{name} is not UTF-8\nhint: submissions are JSON or YAML text"))?;
    let text = text.trim_start_matches('\u{feff}');
    let json = match path.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => from_yaml(&name, text)?,
        Some("json") => checked_json(&name, text)?.to_owned(),
        Some(_) | None if text.trim_start().starts_with(['{', '[']) => {
            checked_json(&name, text)?.to_owned()
        }
        Some(_) | None => from_yaml(&name, text)?,
    };
    if json.starts_with('{') {
        return Ok(Submissions { bodies: vec![json.into_bytes()], is_list: false });
    }
    let Some(List::Entries(entries)) = document::list(&json, usize::MAX) else {
        bail!("{name} holds neither a submission nor a list of them\nhint: {EXAMPLE}");
    };
    if entries.is_empty() {
        bail!("{name} is an empty list\nhint: {EXAMPLE}");
    }
    for (index, entry) in entries.iter().enumerate() {
        if !entry.get().starts_with('{') {
            let number = index + 1;
            bail!(
                "entry {number} of {name} is not a submission but `{}`\nhint: {EXAMPLE}",
                kind(entry.get())
            );
        }
    }
    let bodies = entries.iter().map(|entry| entry.get().as_bytes().to_vec()).collect();
    Ok(Submissions { bodies, is_list: true })
}

const EXAMPLE: &str =
    r#"the least there is to a submission: {"name": "hello", "parameters": {"action": "noop"}}"#;

fn shown(path: &Path) -> String {
    match path.to_str() {
        Some("-") => "standard input".to_owned(),
        Some(_) | None => format!("`{}`", path.display()),
    }
}

/// The document itself, so that what it holds is sent as it is written.
fn checked_json<'t>(name: &str, text: &'t str) -> anyhow::Result<&'t str> {
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .with_context(|| format!("{name} is not JSON\nhint: correct it where it says"))?;
    Ok(text.trim())
}

fn from_yaml(name: &str, text: &str) -> anyhow::Result<String> {
    let document: Value = serde_saphyr::from_str(text).map_err(|fault| {
        let place = fault.location().map(|at| (at.line(), at.column()));
        let plain = fault.without_snippet().to_string();
        let what = match place {
            Some((line, column)) if !plain.contains("line ") => {
                format!("{plain} at line {line} column {column}")
            }
            Some(_) | None => plain,
        };
        anyhow::anyhow!("{name} is not YAML: {what}\nhint: correct it where it says")
    })?;
    Ok(serde_json::to_string(&document)?)
}

/// What a JSON value is, in words.
fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a truth value",
        Some(b'n') => "null",
        Some(_) | None => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(path: &str, content: &str) -> Result<Vec<String>, String> {
        let read =
            read(Path::new(path), content.as_bytes()).map_err(|error| format!("{error:#}"))?;
        Ok(read.bodies.into_iter().map(|body| String::from_utf8(body).unwrap()).collect())
    }

    #[test]
    fn json_is_sent_as_it_is_written() {
        let json = "{ \"name\": \"a\",\n \"parameters\": {\"x\": 1.00} }";
        assert_eq!(bodies("a.json", &format!("\u{feff} {json}\n")).unwrap(), [json]);
        assert_eq!(bodies("-", json).unwrap(), [json]);
        assert_eq!(
            bodies("a", "[{\"name\":\"a\"}, {\"x\":1.0}]").unwrap(),
            ["{\"name\":\"a\"}", "{\"x\":1.0}"]
        );
    }

    #[test]
    fn yaml_becomes_json() {
        let yaml = "name: a\nparameters:\n  steps: [x, 2]\n  text: \"yes\"\n";
        let json = r#"{"name":"a","parameters":{"steps":["x",2],"text":"yes"}}"#;
        assert_eq!(bodies("a.yaml", yaml).unwrap(), [json]);
        assert_eq!(bodies("-", yaml).unwrap(), [json]);
        assert_eq!(
            bodies("a.yml", "- name: a\n- name: b\n").unwrap(),
            [r#"{"name":"a"}"#, r#"{"name":"b"}"#]
        );
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_place() {
        for (path, content, wanted) in [
            ("a.json", "{\n \"name\": \n}", "`a.json` is not JSON"),
            ("a.json", "{\n \"name\": \n}", "line 3 column 1"),
            ("a.yaml", "name: [1,\nb: }", "`a.yaml` is not YAML"),
            ("a.yaml", "name: a\nb: [1}", "line 2, column 4"),
            ("a.json", "[]", "`a.json` is an empty list"),
            ("a.json", "[{}, 3]", "entry 2 of `a.json` is not a submission but `a number`"),
            ("a.yaml", "hello", "neither a submission nor a list"),
            ("-", "", "standard input"),
        ] {
            let error = bodies(path, content).unwrap_err();
            assert!(error.contains(wanted) && error.contains("hint: "), "{error}");
        }
    }
}
