//! `maos worker exec`: any program becomes a worker, here or on another machine.
//!
//! The program is run as a command agent's is: its task as JSON on standard input, its result as
//! JSON on standard output, 64 and 65 for bad input, `::maos progress {..}` on standard error. It
//! runs below a supervisor of its own, so that nothing of it is left however this process ends.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use clap::{Args, Subcommand};
use maos_api::client::worker::{Contact, Given, Signs, Verdict, Worker};
use maos_api::logs::LogLevel;
use maos_server::supervisor::{Exit, Program, ProgramSpec, Supervisor};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
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
/// Bytes of one line of log; a longer one is taken for several.
const LINE_BYTES_MAX: u64 = 512 << 10;
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
    let programs = Arc::new(Programs::of(&exec.program)?);
    let mut signals = Signals::listen()?;
    let (asked, stop) = oneshot::channel();
    let stop = async move { drop(stop.await) };
    let running = programs.clone();
    let work = move |given| attempt(running.clone(), given);
    let serving = worker.run(work, stop, DRAIN_GRACE);
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
    programs.supervisor.shutdown(STOP_GRACE).await;
    Ok(ExitCode::SUCCESS)
}

/// What runs the program.
struct Programs {
    supervisor: Supervisor,
    command: Vec<String>,
    folder: PathBuf,
}

impl Programs {
    fn of(program: &[OsString]) -> anyhow::Result<Programs> {
        let own = std::env::current_exe().context("this program's path cannot be read")?;
        let text = |part: &OsString| {
            part.to_str().map(str::to_owned).with_context(|| {
                let part = part.display();
                format!("`{part}` is no UTF-8\nhint: name the program and its files in UTF-8")
            })
        };
        Ok(Programs {
            supervisor: Supervisor::unrecorded(&[own.into_os_string(), "supervisor".into()]),
            command: program.iter().map(text).collect::<anyhow::Result<_>>()?,
            folder: std::env::current_dir().context("the working directory cannot be read")?,
        })
    }

    fn spawn(&self, task: Uuid, attempt: u32) -> Result<Program, String> {
        let spec = ProgramSpec {
            id: format!("{task}-{attempt}"),
            command: self.command.clone(),
            folder: self.folder.clone(),
            environment: None,
            memory_bytes: None,
        };
        self.supervisor.spawn(&spec).map_err(|why| why.to_string())
    }
}

/// Runs the program once.
async fn attempt(programs: Arc<Programs>, given: Given) -> Verdict {
    let Given { task, mut stop, progress, files: _ } = given;
    let document = json!({
        "task_id": task.task_id,
        "attempt": task.attempt,
        "name": task.name,
        "description": task.description,
        "parameters": task.parameters,
    });
    // Dropped with this, it ends the program and all that it started.
    let Program { stdin, stdout, stderr, mut exit, stop: ends } =
        match programs.spawn(task.task_id, task.attempt) {
            Ok(program) => program,
            Err(message) => return Verdict::Failed { message, permanent: false },
        };
    let ending = async {
        let fed = hand_in(stdin, document.to_string());
        let ((), result, log) = tokio::join!(fed, take(stdout), listen(stderr, &progress));
        judge((&mut exit).await.unwrap_or(Exit::Lost), &result, &log)
    };
    let mut ending = std::pin::pin!(ending);
    tokio::select! {
        verdict = &mut ending => verdict,
        () = stop.stopped() => {
            ends.within(STOP_GRACE);
            // The slot is free only when nothing of it is left.
            ending.await;
            Verdict::Lost
        }
    }
}

/// A program need not read its input.
async fn hand_in(mut stdin: pipe::Sender, document: String) {
    drop(stdin.write_all(document.as_bytes()).await);
}

/// What it wrote, as far as it is a result; what is more is read too, since a program that cannot
/// write on ends with a signal that says nothing.
async fn take(stdout: pipe::Receiver) -> Vec<u8> {
    let mut result = Vec::new();
    let mut bounded = stdout.take(RESULT_BYTES_MAX + 1);
    drop(bounded.read_to_end(&mut result).await);
    drop(tokio::io::copy(&mut bounded.into_inner(), &mut tokio::io::sink()).await);
    result
}

/// Hands its lines on, whatever bytes they have; the last of them, for a failure to quote.
async fn listen(stderr: pipe::Receiver, progress: &Signs) -> String {
    let (mut lines, mut line) = (BufReader::new(stderr), Vec::new());
    let mut last = VecDeque::new();
    loop {
        line.clear();
        let read = (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(1..)) {
            return Vec::from(last).join("\n");
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        if tell(text, progress) {
            continue;
        }
        progress.log(LogLevel::Info, text);
        last.push_back(text.to_owned());
        if last.len() > QUOTED_LINES {
            last.pop_front();
        }
    }
}

fn judge(exit: Exit, result: &[u8], log: &str) -> Verdict {
    if result.len() as u64 > RESULT_BYTES_MAX {
        let message = format!("its result has more than {RESULT_BYTES_MAX} bytes");
        return Verdict::Failed { message, permanent: true };
    }
    let (how, permanent) = match exit {
        Exit::Code(0) => return completed(result),
        Exit::Lost => return Verdict::Lost,
        Exit::Code(code) => (format!("ended with code {code}"), matches!(code, 64 | 65)),
        Exit::Signal(signal) => (format!("was ended by signal {signal}"), false),
        Exit::NotStarted(why) => (why, false),
    };
    let message = format!("{how}\n{log}").trim_end().to_owned();
    Verdict::Failed { message, permanent }
}

fn completed(result: &[u8]) -> Verdict {
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
            progress.tell(fraction, message);
            true
        }
        Some(Err(_)) | None => false,
    }
}
