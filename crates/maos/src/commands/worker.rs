//! `maos worker exec`: any program becomes a worker, here or on another machine.
//!
//! The program is run as a command agent's is: its task as JSON on standard input, its result as
//! JSON on standard output, 64 and 65 for bad input, `::maos progress {..}` on standard error.

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::{Args, Subcommand};
use maos_api::client::worker::{Contact, Given, Signs, Verdict, Worker};
use maos_api::logs::LogLevel;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command as Process};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::serve::Signals;
use crate::remote::Remote;
use crate::{programs, words};

/// Time that a program has to end when it is told to.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Time that what runs has when the worker is told to end.
const DRAIN_GRACE: Duration = Duration::from_secs(600);
/// Bytes of a result; the server takes no more.
const RESULT_BYTES_MAX: u64 = 16 << 20;
/// Last lines of a program's log that its failure quotes.
const QUOTED_LINES: usize = 20;

/// What the command line said.
#[derive(Args)]
pub(crate) struct WorkerArguments {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a program for each task that a server has for it, until a signal ends this
    Exec(Exec),
}

#[derive(Args)]
struct Exec {
    /// What tasks can ask for; several with commas, or given again [default: task_execution]
    #[arg(long = "capability", value_name = "NAME", value_delimiter = ',')]
    capabilities: Vec<String>,
    /// The word for its kind [default: the program's name]
    #[arg(long, value_name = "TYPE")]
    agent_type: Option<String>,
    /// Tasks at once
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
    /// The agent to be; without it each start is another one
    #[arg(long, value_name = "UUID")]
    id: Option<Uuid>,
    /// The program and its arguments
    #[arg(last = true, required = true, num_args = 1..)]
    program: Vec<OsString>,
}

pub(crate) async fn run(arguments: &WorkerArguments) -> anyhow::Result<ExitCode> {
    let Command::Exec(exec) = &arguments.command;
    let client = arguments.remote.client()?;
    let url = client.url().to_owned();
    let name = exec.program[0].to_string_lossy().into_owned();
    if programs::find(&exec.program[0], Path::new(".")).is_none() {
        anyhow::bail!("there is no program `{name}`\nhint: install it, or correct its path");
    }
    let base = name.rsplit('/').next().unwrap_or(&name).to_owned();
    let agent_type = exec.agent_type.as_deref().unwrap_or(&base);
    let mut capabilities = exec.capabilities.clone();
    if capabilities.is_empty() {
        capabilities.push("task_execution".to_owned());
    }
    let serves = format!("`{base}` serves {} at {url}", capabilities.join(", "));
    let worker = Worker::new(client, agent_type, capabilities, exec.concurrency);
    let worker = match exec.id {
        Some(id) => worker.with_id(id),
        None => worker,
    };
    let mut worker = worker;
    let mut contacts = worker.contacts();
    tokio::spawn(async move {
        while let Some(contact) = contacts.recv().await {
            match contact {
                Contact::Serving => words::say(&serves),
                Contact::Away(why) => words::say(&format!("{why}; trying on until it does")),
                Contact::Back => words::say("the server answers"),
                Contact::Lost => words::say(
                    "the server had missed this worker for too long: what ran is given up, and it \
                     serves again",
                ),
            }
        }
    });
    let program = exec.program.clone();
    let mut signals = Signals::listen()?;
    let (asked, stop) = oneshot::channel();
    let stop = async move { drop(stop.await) };
    let serving = worker.run(move |given| attempt(program.clone(), given), stop, DRAIN_GRACE);
    let twice = async move {
        signals.next().await;
        words::say("stopping: running work gets its time; once more to stop at once");
        // A worker that has just ended by itself hears nothing.
        let _ = asked.send(());
        signals.next().await;
    };
    tokio::select! {
        served = serving => served?,
        () = twice => anyhow::bail!(
            "stopped at once: what ran is given up\n\
             hint: others get these tasks once the server misses this worker"
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the program once.
async fn attempt(program: Vec<OsString>, given: Given) -> Verdict {
    let Given { task, mut stop, progress, files: _ } = given;
    let document = json!({
        "task_id": task.task_id,
        "attempt": task.attempt,
        "name": task.name,
        "description": task.description,
        "parameters": task.parameters,
    });
    let mut process = Process::new(&program[0]);
    process
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = match process.spawn() {
        Ok(child) => child,
        Err(why) => {
            let message = format!("`{}` cannot be started: {why}", program[0].display());
            return Verdict::Failed { message, permanent: false };
        }
    };
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let mut ending = std::pin::pin!(to_its_end(&mut child, document.to_string(), &progress));
    tokio::select! {
        verdict = &mut ending => verdict,
        () = stop.stopped() => {
            group.send(Signal::TERM);
            drop(tokio::time::timeout(STOP_GRACE, &mut ending).await);
            Verdict::Lost
        }
    }
}

/// A program and what it started; it ends with this, also if the attempt is dropped.
struct Group(Option<Pid>);

impl Group {
    fn send(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.send(Signal::KILL);
    }
}

async fn to_its_end(child: &mut Child, document: String, progress: &Signs) -> Verdict {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let hand_in = async {
        if let Some(mut stdin) = stdin {
            // A program need not read its input.
            drop(stdin.write_all(document.as_bytes()).await);
        }
    };
    let take = async {
        let mut result = Vec::new();
        if let Some(stdout) = stdout {
            drop(stdout.take(RESULT_BYTES_MAX + 1).read_to_end(&mut result).await);
        }
        result
    };
    let listen = async {
        let mut last = std::collections::VecDeque::new();
        if let Some(stderr) = stderr {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if !tell(&line, progress) {
                    progress.log(LogLevel::Info, line.as_str());
                    last.push_back(line);
                    if last.len() > QUOTED_LINES {
                        last.pop_front();
                    }
                }
            }
        }
        Vec::from(last).join("\n")
    };
    let ((), result, log) = tokio::join!(hand_in, take, listen);
    let status = match child.wait().await {
        Ok(status) => status,
        Err(why) => {
            let message = format!("its end cannot be told: {why}");
            return Verdict::Failed { message, permanent: false };
        }
    };
    match status.code() {
        Some(0) => completed(&result),
        code => {
            let how = code.map_or("a signal".to_owned(), |code| format!("code {code}"));
            let message = format!("ended with {how}\n{log}").trim_end().to_owned();
            Verdict::Failed { message, permanent: matches!(code, Some(64 | 65)) }
        }
    }
}

fn completed(result: &[u8]) -> Verdict {
    if result.len() as u64 > RESULT_BYTES_MAX {
        let message = format!("its result has more than {RESULT_BYTES_MAX} bytes");
        return Verdict::Failed { message, permanent: true };
    }
    let document = if result.trim_ascii().is_empty() { &b"null"[..] } else { result };
    match serde_json::from_slice::<Box<RawValue>>(document) {
        Ok(document) => Verdict::Completed(document),
        Err(why) => {
            let message = format!("its standard output is no JSON: {why}");
            Verdict::Failed { message, permanent: true }
        }
    }
}

/// Whether a line of the log is a sign of progress, which is then told.
fn tell(line: &str, progress: &Signs) -> bool {
    #[derive(Deserialize)]
    struct Sign {
        fraction: Option<f64>,
        message: Option<String>,
    }
    let sign = line.strip_prefix("::maos progress ").map(serde_json::from_str::<Sign>);
    match sign {
        Some(Ok(Sign { fraction, message })) => {
            progress.tell(fraction.filter(|part| (0.0..=1.0).contains(part)), message);
            true
        }
        Some(Err(_)) | None => false,
    }
}
