//! A process of its own for each request: JSON in, JSON out, bounds on memory and time, and an end
//! when the server ends.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use maos_core::limits::RESULT_BYTES_MAX;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::{Request, engine};
use crate::agents::builtin::{Fault, Stop};
use crate::supervisor::ATTEMPT_MARKER;

/// Address space of the process, in bytes: what the database may take, twice over.
const MEMORY_BYTES_MAX: u64 = 2 << 30;

/// What the process may answer: a result with what belongs to it.
const ANSWER_BYTES_MAX: u64 = 2 * RESULT_BYTES_MAX;

#[derive(Deserialize, Serialize)]
enum Answer {
    Done(Value),
    Wrong(String),
    Failed(String),
}

/// Has `program` work on `request`, in a process that is known by `id`. Stopped, or dropped before
/// it is done, the process is ended.
pub(crate) async fn run_apart(
    program: &[OsString],
    id: &str,
    request: Request,
    timeout: Duration,
    stop: &Stop,
) -> Result<Value, Fault> {
    let request = Request { seconds: timeout.as_secs().max(1), ..request };
    let json = serde_json::to_vec(&request).map_err(|why| Fault::wrong(why.to_string()))?;
    drop(request);
    let mut child = start(program, id)?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Fault::failed("the process that works on data has no pipes"));
    };
    let write = async move {
        // One that ends early says why on its other end.
        drop(stdin.write_all(&json).await);
        drop(stdin);
    };
    let mut output = Vec::new();
    let mut stdout = stdout.take(ANSWER_BYTES_MAX + 1);
    let talk = async { tokio::join!(write, stdout.read_to_end(&mut output)).1 };
    let read = tokio::select! {
        biased;
        () = stop.called() => {
            child.kill().await.map_err(|why| broken("cannot be ended", &why))?;
            return Err(Fault::failed("stopped"));
        }
        read = talk => read,
    };
    read.map_err(|why| broken("cannot be read", &why))?;
    if output.len() as u64 > ANSWER_BYTES_MAX {
        child.kill().await.map_err(|why| broken("cannot be ended", &why))?;
        return Err(Fault::wrong(format!("the result has more than {RESULT_BYTES_MAX} bytes")));
    }
    let status = child.wait().await.map_err(|why| broken("cannot be waited for", &why))?;
    match serde_json::from_slice(&output) {
        Ok(Answer::Done(result)) => Ok(result),
        Ok(Answer::Wrong(message)) => Err(Fault::wrong(message)),
        Ok(Answer::Failed(message)) => Err(Fault::failed(message)),
        Err(_) => Err(ended_early(status)),
    }
}

fn start(program: &[OsString], id: &str) -> Result<Child, Fault> {
    let (name, arguments) =
        program.split_first().ok_or_else(|| Fault::failed("no program works on data here"))?;
    Command::new(name)
        .args(arguments)
        .env_clear()
        .env(ATTEMPT_MARKER, id)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|why| broken("cannot be started", &why))
}

fn broken(what: &str, why: &std::io::Error) -> Fault {
    Fault::failed(format!("the process that works on data {what}: {why}"))
}

/// It ended without an answer. Its own bounds would be met again; whoever else ended it may not
/// come back.
fn ended_early(status: ExitStatus) -> Fault {
    let signal = status.signal().and_then(Signal::from_named_raw);
    match signal {
        Some(Signal::ABORT | Signal::SEGV | Signal::BUS) => Fault::wrong(format!(
            "the data takes more than the {MEMORY_BYTES_MAX} bytes of memory that it may"
        )),
        Some(Signal::XCPU) => {
            Fault::wrong("the query takes more processor time than its attempt has")
        }
        _ => Fault::failed(format!("the process that works on data ended early: {status}")),
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
    // The room above the processor's bound lets the process end by a signal that says so.
    let limit = Rlimit { current: Some(most), maximum: most.checked_add(5) };
    // A bound that is lower already stays.
    let _ = setrlimit(resource, limit);
}
