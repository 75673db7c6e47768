//! `maos run`: to the end, over a kill, and what it prints.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::house::{PATIENCE, eventually, folder};

fn maos(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maos"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command
}

fn document(output: &Output) -> Value {
    let printed = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&printed).unwrap_or_else(|why| {
        panic!("not one document: {why}\n{printed}\n{}", String::from_utf8_lossy(&output.stderr))
    })
}

#[test]
fn a_run_that_was_killed_is_taken_up_where_it_stopped() {
    // The first step leaves a mark each time it runs; the second says that it runs, and waits for
    // somebody to open a gate.
    let folder = folder(&[
        ("first", "echo ran >> \"$MARKS\"; echo 1"),
        ("second", ": > \"$MARKS.second\"; while ! [ -e \"$GATE\" ]; do sleep 0.05; done; echo 2"),
    ]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut toml = fs::read_to_string(path("maos.toml")).unwrap();
    for name in ["first", "second"] {
        let environment =
            format!("environment = {{ MARKS = {:?}, GATE = {:?} }}\n", path("marks"), path("gate"));
        let head = format!("[commands.{name}]\n");
        toml = toml.replace(&head, &format!("{head}{environment}"));
    }
    fs::write(path("maos.toml"), toml).unwrap();
    let step = |name: &str| json!({"name": name, "required_capabilities": [name]});
    let plan = json!({"name": "two", "decomposition_strategy": "sequential",
        "parameters": {"steps": [step("first"), step("second")]}});
    fs::write(path("plan.json"), plan.to_string()).unwrap();

    let mut first =
        maos(folder.path(), &["run", "plan.json"]).stderr(Stdio::null()).spawn().unwrap();
    // The second step starts when the end of the first one is durable.
    eventually("the second step", PATIENCE, || Path::new(&path("marks.second")).exists());
    let data = folder.path().join(".maos/runs");
    first.kill().unwrap();
    first.wait().unwrap();
    fs::write(path("gate"), "").unwrap();

    let output = maos(folder.path(), &["run", "plan.json", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let task = document(&output)["task"].clone();
    assert_eq!((&task["status"], &task["result"]), (&json!("completed"), &json!(2)));
    let marks = fs::read_to_string(path("marks")).unwrap();
    assert_eq!(marks, "ran\n", "what had completed does not run again");
    assert!(!data.exists(), "a finished run leaves nothing behind");
}

#[test]
fn every_line_is_told_and_the_exit_code_says_how_it_ended() {
    let folder = folder(&[("no", "echo never >&2; exit 65")]);
    let write = |name: &str, body: &Value| {
        fs::write(folder.path().join(name), body.to_string()).unwrap();
    };
    write(
        "ok.json",
        &json!({"name": "line", "decomposition_strategy": "pipeline",
        "parameters": {"action": "noop", "steps": ["a", "b"]}}),
    );
    write("no.json", &json!({"name": "never", "required_capabilities": ["no"]}));
    write("bad.json", &json!({"name": " "}));
    for (file, code, expected) in [
        ("ok.json", 0, "completed b"),
        ("no.json", 1, "never"),
        ("bad.json", 1, "must not be blank"),
        ("none.json", 2, "`none.json`"),
    ] {
        let output = maos(folder.path(), &["run", file]).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{file}: {words}");
        assert!(words.contains(expected), "{file}: {words}");
        let made = if code == 0 { "{\n" } else { "" };
        let data = String::from_utf8_lossy(&output.stdout);
        assert!(data.starts_with(made) && data.is_empty() == made.is_empty(), "{file}: {data}");
        let output = maos(folder.path(), &["run", file, "--json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{file}");
        assert!(document(&output).is_object(), "{file}");
    }
}
