//! `maos run`: to the end, over a kill, and what it prints.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::house::{House, PATIENCE, eventually, folder, marked};

/// Less than the time that a program has to heed its signal.
const AT_ONCE: Duration = Duration::from_secs(3);

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

/// Two programs: the first step leaves a mark each time it runs; the second says that it runs, and
/// waits for somebody to open a gate.
fn two_steps() -> tempfile::TempDir {
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
    folder
}

#[test]
fn a_run_that_was_killed_is_taken_up_where_it_stopped() {
    let folder = two_steps();
    let path = |name: &str| folder.path().join(name).display().to_string();
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
fn a_run_whose_tasks_have_ended_meanwhile_is_taken_up_as_well() {
    let folder = two_steps();
    let path = |name: &str| folder.path().join(name);
    let run = ["run", "plan.json", "--json", "--data-dir", "data"];
    let mut first = maos(folder.path(), &run).stderr(Stdio::null()).spawn().unwrap();
    eventually("the second step", PATIENCE, || path("marks.second").exists());
    first.kill().unwrap();
    first.wait().unwrap();
    fs::write(path("gate"), "").unwrap();
    let mut house = House::open(folder.path());
    eventually("its end", PATIENCE, || {
        house.call("GET", "/api/v1/tasks?status=completed", "")["total_items"] == json!(3)
    });
    house.kill();
    let marks = |wanted: &str, why: &str| {
        let output = maos(folder.path(), &run).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(document(&output)["task"]["result"], json!(2));
        assert_eq!(fs::read_to_string(path("marks")).unwrap(), wanted, "{why}");
    };
    marks("ran\n", "it had completed, nobody had been told");
    marks("ran\nran\n", "a finished run starts anew");
}

#[test]
fn a_second_interrupt_ends_what_ignores_the_first() {
    let folder = folder(&[("deaf", "trap '' TERM; : > \"$MARK\"; while :; do sleep 0.05; done")]);
    let mark = folder.path().join("mark");
    let toml = fs::read_to_string(folder.path().join("maos.toml")).unwrap();
    let environment = format!("environment = {{ MARK = {:?} }}\n", mark.display().to_string());
    fs::write(folder.path().join("maos.toml"), format!("{toml}{environment}")).unwrap();
    let task = json!({"name": "d", "required_capabilities": ["deaf"]});
    fs::write(folder.path().join("d.json"), task.to_string()).unwrap();
    let mut command = maos(folder.path(), &["run", "d.json", "--json"]);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let interrupt = |run: &Child| {
        let pid = Pid::from_raw(run.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
    };
    eventually("the program", PATIENCE, || mark.exists());
    interrupt(&run);
    let mut told = BufReader::new(run.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(told.any(|line| line.contains("interrupt once more to end them at once")));
    let waited = Instant::now();
    interrupt(&run);
    // Read to the end, so that it never waits for a reader.
    let told: Vec<String> = told.collect();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{told:?}");
    assert!(waited.elapsed() < AT_ONCE, "{told:?}");
    assert_eq!(document(&output)["task"]["status"], "cancelled");
    let marker = format!("MARK={}", mark.display());
    eventually("the end of the program", PATIENCE, || marked(&marker).is_empty());
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
