//! Command agents: programs that the operator configured.
//!
//! A program gets its task as one JSON document on standard input, answers with one on standard
//! output, and logs to standard error, where lines of the form `::maos progress {"fraction": 0.5,
//! "message": ".."}` are signs of progress and `::maos message {..}` sends one.
//! `docs/command-agents.md` has the whole of it. Who may
//! define programs is the operator's choice alone: nothing in a request becomes part of a command
//! line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use maos_core::limits::{RESULT_BYTES_MAX, STOP_GRACE_MS};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use super::courier::Courier;
use super::until_gone::UntilGone;
use super::{Assignment, LogSink, Progress, ProgressSink, RunAttempt, Running, Verdict};
use crate::messages::Bus;
use crate::supervisor::{Exit, Program, ProgramSpec, Supervisor};

/// Variables of the server's own environment that programs see.
const PASSED_ON: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"];
/// Exit codes that say that trying again is useless: EX_USAGE and EX_DATAERR of sysexits.h.
const PERMANENT: [i32; 2] = [64, 65];
/// Bytes of standard error that a failure quotes.
const QUOTED_BYTES: usize = 2_000;
/// Bytes of one log line; a longer one is cut.
const LINE_BYTES_MAX: u64 = 512 << 10;
/// How long a program's pipes may stay open when it is gone.
const LEFT_OPEN: Duration = Duration::from_secs(1);
const PROGRESS: &str = "::maos progress ";
const MESSAGE: &str = "::maos message ";
/// Where the program finds the file with messages to its task.
const MESSAGES: &str = "MAOS_MESSAGES";

/// `[commands.<name>]`: a program that is an agent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CommandConfig {
    /// The program and its arguments. Those that name a file beside the configuration are taken
    /// from there, wherever the program runs.
    pub command: Vec<String>,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// The agent's type; the name of the command if it is missing.
    #[serde(default)]
    pub agent_type: Option<String>,
    /// How many of it run at once.
    #[serde(default = "one")]
    pub slots: u32,
    /// Its environment, beside PATH, HOME, LANG, LC_ALL and TZ of the server.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Address space of each of its processes, at the most; no bound if it is missing.
    #[serde(default)]
    pub memory_mb: Option<u64>,
    /// The folder of the configuration.
    #[serde(skip)]
    pub folder: PathBuf,
}

fn one() -> u32 {
    1
}

/// The runtime of command agents.
pub struct Commands {
    configured: BTreeMap<String, CommandConfig>,
    work: PathBuf,
    supervisor: Arc<Supervisor>,
    bus: Bus,
}

impl Commands {
    /// Agents that run `configured`, each attempt in a fresh folder below `work`; they send and
    /// receive over `bus`.
    #[must_use]
    pub fn new(
        configured: BTreeMap<String, CommandConfig>,
        work: PathBuf,
        supervisor: Arc<Supervisor>,
        bus: Bus,
    ) -> Commands {
        Commands { configured, work, supervisor, bus }
    }

    async fn attempt(&self, assignment: Assignment) -> Verdict {
        let pool = assignment.agent.pool.as_deref().unwrap_or_default();
        let name = pool.strip_prefix("commands.").unwrap_or_default().to_owned();
        let Some(config) = self.configured.get(&name) else {
            return lost(format!("command `{name}` is not configured any more"));
        };
        let id = assignment.id();
        let folder = WorkFolder { path: self.work.join(&id) };
        if let Err(why) = fs::create_dir_all(&folder.path) {
            return lost(format!("`{}` cannot be made: {why}", folder.path.display()));
        }
        let courier = Courier::new(self.bus.clone(), assignment.task, &folder.path);
        // What is there already is there before the program looks.
        let from = courier.deliver(0).await;
        let environment = config.environment(&courier);
        let spec = ProgramSpec {
            id,
            command: config.command.iter().map(|part| config.beside(part)).collect(),
            folder: folder.path.clone(),
            environment: Some(environment),
            memory_bytes: config.memory_mb.map(|megabytes| megabytes.saturating_mul(1 << 20)),
        };
        match self.supervisor.spawn(&spec) {
            Ok(program) => tokio::select! {
                biased;
                verdict = follow(program, assignment, &name, &courier) => verdict,
                never = courier.deliver_all(from) => match never {},
            },
            Err(why) => lost(why.to_string()),
        }
    }
}

impl RunAttempt for Commands {
    fn run(&self, assignment: Assignment) -> Running<'_> {
        Box::pin(self.attempt(assignment))
    }
}

impl CommandConfig {
    fn beside(&self, part: &str) -> String {
        let beside = self.folder.join(part);
        let names_file = !part.starts_with('-') && Path::new(part).is_relative();
        if names_file && beside.is_file() {
            return beside.display().to_string();
        }
        part.to_owned()
    }

    fn environment(&self, courier: &Courier) -> Vec<(String, String)> {
        let passed = PASSED_ON
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        let own = self.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
        let messages = (MESSAGES.to_owned(), courier.file().display().to_string());
        passed.chain(own).chain([messages]).collect()
    }
}

/// A folder of an attempt's own; gone when the attempt is.
struct WorkFolder {
    path: PathBuf,
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // What cannot be removed now is in nobody's way: the next attempt has another folder.
        drop(fs::remove_dir_all(&self.path));
    }
}

async fn follow(
    program: Program,
    assignment: Assignment,
    name: &str,
    courier: &Courier,
) -> Verdict {
    let Program { stdin, stdout, stderr, exit, stop } = program;
    let input = json!({
        "task_id": assignment.task.to_string(),
        "attempt": assignment.attempt.0,
        "name": &*assignment.spec.name,
        "description": assignment.spec.description.as_deref(),
        "parameters": assignment.parameters,
    });
    let gone = CancellationToken::new();
    let feeding = gone.run_until_cancelled(feed(stdin, input.to_string().into_bytes()));
    let reading = read(UntilGone::new(stdout, &gone));
    let stderr = UntilGone::new(stderr, &gone);
    let logging = log(stderr, assignment.log, assignment.progress, courier);
    let ended = async { tokio::join!(feeding, reading, logging) };
    tokio::pin!(ended);
    let mut exit = exit;
    let mut stopping = false;
    let mut heard = None;
    let exit = loop {
        tokio::select! {
            biased;
            () = assignment.stop.cancelled(), if !stopping => {
                stopping = true;
                stop.within(Duration::from_millis(STOP_GRACE_MS));
            }
            exit = &mut exit => break exit.unwrap_or(Exit::Lost),
            (_, output, log) = &mut ended, if heard.is_none() => {
                let flooded = output.is_err();
                heard = Some((output, log));
                if flooded {
                    stop.within(Duration::ZERO);
                }
            }
        }
    };
    let (output, log) = match heard {
        Some(heard) => heard,
        // Its pipes close when nothing of it is left, which is so now, unless somebody left its
        // tree and is not known to be its own.
        None => {
            let ended_in_time = tokio::time::timeout(LEFT_OPEN, &mut ended).await;
            let (_, output, log) = match ended_in_time {
                Ok(heard) => heard,
                Err(_) => {
                    gone.cancel();
                    ended.await
                }
            };
            (output, log)
        }
    };
    if stopping {
        return lost("stopped".to_owned());
    }
    judge(name, exit, output, &log)
}

fn judge(name: &str, exit: Exit, output: Result<Vec<u8>, String>, log: &str) -> Verdict {
    let failed = |what: String, permanent: bool| {
        let quoted = if log.is_empty() { String::new() } else { format!("\n{log}") };
        Verdict::Failed { message: format!("`{name}` {what}{quoted}"), permanent }
    };
    let output = match (exit, output) {
        (Exit::NotStarted(why), _) => return failed(format!("was not started: {why}"), true),
        (Exit::Lost, _) => return lost(format!("`{name}` was lost with the process that ran it")),
        (_, Err(what)) => return failed(what, true),
        (Exit::Signal(signal), _) => return failed(format!("was ended by signal {signal}"), false),
        (Exit::Code(0), Ok(output)) => output,
        (Exit::Code(code), _) => {
            return failed(format!("ended with code {code}"), PERMANENT.contains(&code));
        }
    };
    if output.iter().all(u8::is_ascii_whitespace) {
        return Verdict::Completed(Value::Null);
    }
    match serde_json::from_slice(&output) {
        Ok(result) => Verdict::Completed(result),
        Err(why) => {
            let start: String = String::from_utf8_lossy(&output).chars().take(200).collect();
            failed(format!("answered something that is not JSON ({why}): {start}"), true)
        }
    }
}

/// A program need not read its input.
async fn feed(mut stdin: pipe::Sender, input: Vec<u8>) {
    drop(stdin.write_all(&input).await);
}

async fn read(stdout: impl AsyncRead + Unpin) -> Result<Vec<u8>, String> {
    let mut output = Vec::new();
    let mut bounded = stdout.take(RESULT_BYTES_MAX + 1);
    let read = bounded.read_to_end(&mut output).await;
    read.map_err(|why| format!("could not be read: {why}"))?;
    if output.len() as u64 > RESULT_BYTES_MAX {
        return Err(format!("answered more than {RESULT_BYTES_MAX} bytes"));
    }
    Ok(output)
}

/// Hands lines on; gives back the last of them, for a failure to quote.
async fn log(
    stderr: impl AsyncRead + Unpin,
    log: LogSink,
    progress: ProgressSink,
    courier: &Courier,
) -> String {
    let mut lines = BufReader::new(stderr);
    let mut last: Vec<u8> = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(1..)) {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        if let Some(message) = text.strip_prefix(MESSAGE) {
            if let Err(why) = courier.send(message).await {
                log(&format!("its message was refused: {why}"));
            }
            continue;
        }
        match text.strip_prefix(PROGRESS).and_then(sign) {
            Some(sign) => progress(sign),
            None => {
                log(text);
                last.extend_from_slice(text.as_bytes());
                last.push(b'\n');
            }
        }
        if last.len() > 2 * QUOTED_BYTES {
            last.drain(..last.len() - QUOTED_BYTES);
        }
    }
    let from = last.len().saturating_sub(QUOTED_BYTES);
    String::from_utf8_lossy(&last[from..]).trim_end().to_owned()
}

fn sign(text: &str) -> Option<Progress> {
    #[derive(Deserialize)]
    struct Sign {
        fraction: Option<f64>,
        message: Option<String>,
    }
    let Sign { fraction, message } = serde_json::from_str(text).ok()?;
    let fraction = fraction.filter(|fraction| (0.0..=1.0).contains(fraction));
    Some(Progress { fraction, message })
}

fn lost(message: String) -> Verdict {
    Verdict::Lost { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_program_ended_decides_the_verdict() {
        let ok = |output: &str| Ok(output.as_bytes().to_vec());
        for (exit, output, log, expected) in [
            (Exit::Code(0), ok("{\"a\": 1}\n"), "", "done {\"a\":1}"),
            (Exit::Code(0), ok(" \n"), "", "done null"),
            (Exit::Code(0), ok("oops"), "", "permanent `p` answered something that is not JSON"),
            (Exit::Code(1), ok(""), "last words", "failed `p` ended with code 1\nlast words"),
            (Exit::Code(65), ok(""), "", "permanent `p` ended with code 65"),
            (Exit::Signal(9), ok(""), "", "failed `p` was ended by signal 9"),
            (Exit::NotStarted("no".into()), ok(""), "", "permanent `p` was not started: no"),
            (Exit::Lost, ok(""), "", "lost `p` was lost"),
            (Exit::Code(0), Err("answered too much".into()), "", "permanent `p` answered too much"),
        ] {
            let got = match judge("p", exit, output, log) {
                Verdict::Completed(value) => format!("done {value}"),
                Verdict::Failed { message, permanent: true } => format!("permanent {message}"),
                Verdict::Failed { message, permanent: false } => format!("failed {message}"),
                Verdict::Lost { message } => format!("lost {message}"),
                Verdict::Reported => "reported".to_owned(),
            };
            assert!(got.starts_with(expected), "{got}");
        }
    }

    #[test]
    fn signs_of_progress_are_read_and_nonsense_is_not() {
        let half = sign(r#"{"fraction": 0.5, "message": "half"}"#).unwrap();
        assert_eq!((half.fraction, half.message.as_deref()), (Some(0.5), Some("half")));
        assert_eq!(sign(r#"{"fraction": 7}"#).unwrap().fraction, None);
        assert_eq!(sign("half"), None);
    }
}
