//! Checkpoints through the command line: two real processes, the server and who asks it.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::house::{House, folder};

fn maos(house: &House, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maos"));
    command.args(arguments).env("MAOS_SERVER", format!("http://{}", house.address));
    command.output().unwrap()
}

fn document(house: &House, arguments: &[&str]) -> Value {
    let output = maos(house, &[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn noop(house: &House) -> String {
    let id = house.submit(&json!({"name": "n", "parameters": {"action": "noop"}}));
    assert_eq!(house.ended(&id)["status"], "completed");
    id
}

#[test]
fn the_command_line_makes_a_checkpoint_goes_back_to_it_and_forward_again() {
    let folder = folder(&[]);
    let house = House::open(folder.path());
    let kept = noop(&house);
    let made = document(&house, &["checkpoint", "create", "here"]);
    assert_eq!(
        (&made["checkpoint"]["name"], &made["checkpoint"]["tasks"]),
        (&json!("here"), &json!(1))
    );
    let later = noop(&house);
    let path = format!("/api/v1/tasks/{later}");

    let restored = document(&house, &["checkpoint", "restore", "here"]);
    assert_eq!(restored["restored"]["id"], made["checkpoint"]["id"]);
    assert_eq!(house.try_call("GET", &path, "").unwrap().0, 404, "it came later");
    assert_eq!(house.task(&kept)["status"], "completed");

    let listed = document(&house, &["checkpoint", "list"]);
    let kinds: Vec<&Value> =
        listed["items"].as_array().unwrap().iter().map(|held| &held["type"]).collect();
    assert_eq!(kinds, ["manual", "before_restore"]);
    let before = restored["before"]["id"].as_str().unwrap();
    let output = maos(&house, &["checkpoint", "restore", before]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(house.task(&later)["status"], "completed");

    assert_eq!(maos(&house, &["checkpoint", "delete", "here"]).status.code(), Some(0));
    let refused = maos(&house, &["checkpoint", "restore", "here"]);
    let words = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{words}");
    assert!(words.contains("no checkpoint has the name `here`"), "{words}");
    assert!(words.contains("hint: `maos checkpoint list`"), "{words}");
}
