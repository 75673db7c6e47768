//! `maos`: the words of the command line and how commands end.
//!
//! Exit 0: done. 1: refused or failed. 2: broken. Data goes to standard output, words to standard
//! error.

mod commands;
mod failure;
mod layout;
mod programs;
mod progress;
mod remote;
mod settings;
mod submissions;
mod turn;
mod values;
mod waiting;
mod words;

use std::ffi::OsStr;
use std::panic::{self, PanicHookInfo};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use commands::{
    agent, backup, checkpoint, config, doctor, restore, run, serve, status, task, watch, worker,
};
use remote::Remote;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs many agents reliably: submit tasks, watch them, lose none.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    /// The server to talk to, also before the command
    #[arg(long = "server", value_name = "URL", hide = true)]
    server: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server until a signal ends it
    Serve {
        /// Address to listen on [default: 127.0.0.1]
        #[arg(long)]
        host: Option<String>,
        /// Port to listen on; 0 takes a free one [default: 8000]
        #[arg(long)]
        port: Option<u16>,
        /// Where everything durable is kept
        #[arg(long, value_name = "DIR", default_value = "maos-data")]
        data_dir: PathBuf,
        /// The configuration [default: maos.toml, if there is one]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Log everything, also to `maos_api.log`
        #[arg(long)]
        debug: bool,
        /// Log to this file as well
        #[arg(long, value_name = "FILE")]
        log_file: Option<PathBuf>,
    },
    /// Run a file of submissions to its end, with no server
    Run {
        /// A submission, or a list of them, as JSON or YAML
        file: PathBuf,
        /// Print one JSON document on standard output
        #[arg(long)]
        json: bool,
        /// The configuration [default: maos.toml beside FILE, if there is one]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Keep everything durable here [default: .maos/runs/<hash of FILE>]
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Submit tasks to a server, watch them, change them
    Task(task::TaskArguments),
    /// See, make and end the agents of a server
    Agent(agent::AgentArguments),
    /// Make any program a worker of a server
    Worker(worker::WorkerArguments),
    /// Keep the state of a server as it is, and go back to it
    Checkpoint(checkpoint::CheckpointArguments),
    /// Show how a server is
    Status(status::Status),
    /// Watch what a server does, live on a terminal, else line by line
    Watch(watch::Watch),
    /// Show the configuration
    Config(config::Config),
    /// Check whether this machine and the configuration are fit for a server
    Doctor(doctor::Doctor),
    /// Copy a data directory
    Backup(backup::Backup),
    /// Make a data directory from a copy
    Restore(restore::Restore),
}

fn main() -> ExitCode {
    // Hidden words, for the processes that the server starts of itself.
    match std::env::args_os().nth(1).as_deref().and_then(OsStr::to_str) {
        Some("data-worker") => return maos_server::agents::builtin::data::worker_main(),
        Some("supervisor") => return maos_server::supervisor::supervisor_main(),
        Some(_) | None => {}
    }
    panic::set_hook(Box::new(say_panic));
    let command = match Arguments::try_parse().and_then(Arguments::command_for_its_server) {
        Ok(command) => command,
        Err(fault) => return failure::of_arguments(&fault, asks_for_json()),
    };
    let json = command.json();
    // A panic has been told by its hook; what is left is the exit code.
    let done = panic::catch_unwind(|| carry_out(command)).unwrap_or_else(|_| Ok(ExitCode::from(2)));
    done.unwrap_or_else(|error| failure::report(&error, json))
}

/// Whether `--json` is among arguments that could not be read as a whole. What follows `--` is
/// another program's.
fn asks_for_json() -> bool {
    std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json")
}

impl Arguments {
    /// The command, with the server that was named before it.
    fn command_for_its_server(self) -> Result<Command, clap::Error> {
        let Arguments { server, mut command } = self;
        if let Some(server) = server {
            let Some(remote) = command.remote() else {
                let what = "this command talks to no server: --server";
                return Err(Arguments::command().error(ErrorKind::ArgumentConflict, what));
            };
            remote.server = server;
        }
        Ok(command)
    }
}

impl Command {
    /// Whether standard output is for one JSON document, also if the command fails.
    fn json(&self) -> bool {
        match self {
            Command::Run { json, .. } => *json,
            Command::Task(task) => task.remote.json,
            Command::Agent(agent) => agent.remote.json,
            Command::Worker(worker) => worker.remote.json,
            Command::Checkpoint(checkpoint) => checkpoint.remote.json,
            Command::Status(status) => status.remote.json,
            Command::Watch(watch) => watch.remote.json,
            Command::Config(config) => config.json(),
            Command::Doctor(doctor) => doctor.json,
            Command::Backup(backup) => backup.json,
            Command::Restore(restore) => restore.json,
            Command::Serve { .. } => false,
        }
    }

    /// The server that it talks to, if it does.
    fn remote(&mut self) -> Option<&mut Remote> {
        match self {
            Command::Task(task) => Some(&mut task.remote),
            Command::Agent(agent) => Some(&mut agent.remote),
            Command::Worker(worker) => Some(&mut worker.remote),
            Command::Checkpoint(checkpoint) => Some(&mut checkpoint.remote),
            Command::Status(status) => Some(&mut status.remote),
            Command::Watch(watch) => Some(&mut watch.remote),
            Command::Serve { .. }
            | Command::Run { .. }
            | Command::Config(_)
            | Command::Doctor(_)
            | Command::Backup(_)
            | Command::Restore(_) => None,
        }
    }
}

fn carry_out(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { host, port, data_dir, config, debug, log_file } => {
            serve::run(&serve::Serve { host, port, data_dir, config, debug, log_file })
        }
        Command::Run { file, json, config, data_dir } => {
            run::run(&run::Run { file, json, config, data_dir })
        }
        Command::Task(arguments) => talk(task::run(&arguments)),
        Command::Agent(arguments) => talk(agent::run(&arguments)),
        Command::Worker(arguments) => talk(worker::run(&arguments)),
        Command::Checkpoint(arguments) => talk(checkpoint::run(&arguments)),
        Command::Status(arguments) => talk(status::run(&arguments)),
        Command::Watch(arguments) => talk(watch::run(&arguments)),
        Command::Config(arguments) => config::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Backup(arguments) => backup::run(&arguments),
        Command::Restore(arguments) => restore::run(&arguments),
    }
}

/// Runs a command that talks to a server: one thread is enough, and starts sooner.
fn talk(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

fn say_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(|at| format!(" at {}:{}", at.file(), at.line()));
    let said = panic.payload_as_str().unwrap_or("it did not say why");
    words::say(&format!(
        "error: a fault of maos itself{}: {said}\nhint: please report it with these lines",
        place.unwrap_or_default()
    ));
}
