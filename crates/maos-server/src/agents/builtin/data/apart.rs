//! A process of its own for each request: JSON in, JSON out, bounds on memory and time, and an end
//! when the server ends.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::{Request, engine};
use crate::agents::builtin::Fault;

/// Address space of the process, in bytes: what the database may take, twice over.
const MEMORY_BYTES_MAX: u64 = 2 << 30;

#[derive(Deserialize, Serialize)]
enum Answer {
    Done(Value),
    Wrong(String),
    Failed(String),
}

/// Has `program` work on `request`. Dropped before it is done, the process is ended.
pub(crate) async fn run_apart(
    program: &[OsString],
    request: Request,
    timeout: Duration,
) -> Result<Value, Fault> {
    let failed = |what: &str, why: std::io::Error| {
        Fault::failed(format!("the process that works on data {what}: {why}"))
    };
    let (name, arguments) =
        program.split_first().ok_or_else(|| Fault::failed("no program works on data here"))?;
    let request = Request { seconds: timeout.as_secs().max(1), ..request };
    let json = serde_json::to_vec(&request).map_err(|why| Fault::wrong(why.to_string()))?;
    let mut child = Command::new(name)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|why| failed("cannot be started", why))?;
    let (mut stdin, mut stdout) = match (child.stdin.take(), child.stdout.take()) {
        (Some(stdin), Some(stdout)) => (stdin, stdout),
        _ => return Err(Fault::failed("the process that works on data has no pipes")),
    };
    let write = async move {
        // One that ends early says why on its other end.
        drop(stdin.write_all(&json).await);
        drop(stdin);
    };
    let mut output = Vec::new();
    let (_, read) = tokio::join!(write, stdout.read_to_end(&mut output));
    read.map_err(|why| failed("cannot be read", why))?;
    let status = child.wait().await.map_err(|why| failed("cannot be waited for", why))?;
    match serde_json::from_slice(&output) {
        Ok(Answer::Done(result)) => Ok(result),
        Ok(Answer::Wrong(message)) => Err(Fault::wrong(message)),
        Ok(Answer::Failed(message)) => Err(Fault::failed(message)),
        Err(_) => Err(Fault::wrong(format!(
            "the process that works on data was ended ({status}): it took more memory or time than \
             it may"
        ))),
    }
}

/// What the process does, from its standard input to its standard output.
#[must_use]
pub fn worker_main() -> ExitCode {
    // The server may be gone before this takes hold; then nothing arrives on standard input.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    bound(Resource::As, MEMORY_BYTES_MAX);
    let mut input = Vec::new();
    let answer = match std::io::stdin().lock().read_to_end(&mut input) {
        Err(why) => Answer::Failed(format!("the request cannot be read: {why}")),
        Ok(_) => match serde_json::from_slice::<Request>(&input) {
            Err(why) => Answer::Failed(format!("the request cannot be understood: {why}")),
            Ok(request) => {
                drop(input);
                bound(Resource::Cpu, request.seconds);
                match engine::run(&request) {
                    Ok(result) => Answer::Done(result),
                    Err(Fault { message, permanent: true }) => Answer::Wrong(message),
                    Err(Fault { message, permanent: false }) => Answer::Failed(message),
                }
            }
        },
    };
    let output = serde_json::to_vec(&answer).unwrap_or_default();
    match std::io::stdout().lock().write_all(&output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn bound(resource: Resource, most: u64) {
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    // A bound that is lower already stays.
    let _ = setrlimit(resource, limit);
}
