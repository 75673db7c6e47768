//! The command line at its door: arguments in, what is printed and the exit code out, against a
//! server that answers what the wire contract says, word for word.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

mod script;

mod checkpoints;
mod help;
mod local;
mod tasks;

use std::process::{Command, Output, Stdio};

/// Runs `maos` with these arguments and no settings of whoever runs the tests.
fn maos(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maos"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("MAOS_")) {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// All that can be seen of a command that ended.
fn shown(output: &Output) -> String {
    let code = output.status.code().unwrap();
    let [out, err] =
        [&output.stdout, &output.stderr].map(|bytes| std::str::from_utf8(bytes).unwrap());
    format!("exit {code}\n-- out\n{out}-- err\n{err}")
}

/// Standard output as the one JSON document that it must be.
fn document(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|fault| panic!("{fault}: {}", shown(output)))
}
