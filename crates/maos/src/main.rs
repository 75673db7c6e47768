//! `maos`: the words of the command line and how commands end.
//!
//! Exit 0: done. 1: refused or failed. 2: broken. Data goes to standard output, words to standard error.

mod commands;
mod progress;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::{run, serve};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs many agents reliably: submit tasks, watch them, lose none.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server until a signal ends it.
    Serve {
        /// Address to listen on [default: 127.0.0.1]
        #[arg(long)]
        host: Option<String>,
        /// Port to listen on; 0 takes a free one [default: 8000]
        #[arg(long)]
        port: Option<u16>,
        /// Where everything durable is kept
        #[arg(long, default_value = "maos-data")]
        data_dir: PathBuf,
        /// The configuration [default: maos.toml, if there is one]
        #[arg(long)]
        config: Option<PathBuf>,
        /// Log everything, also to `maos_api.log`
        #[arg(long)]
        debug: bool,
        /// Log to this file as well
        #[arg(long)]
        log_file: Option<PathBuf>,
    },
    /// Run a file of submissions to its end, with no server.
    Run {
        /// A submission, or a list of them, as JSON or YAML
        file: PathBuf,
        /// Print one JSON document with the ended tasks
        #[arg(long)]
        json: bool,
        /// The configuration [default: maos.toml beside FILE, if there is one]
        #[arg(long)]
        config: Option<PathBuf>,
        /// Keep everything durable here [default: .maos/runs/<hash of FILE>]
        #[arg(long)]
        data_dir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    // Hidden words, for the processes that the server starts of itself.
    match std::env::args().nth(1).as_deref() {
        Some("data-worker") => return maos_server::agents::builtin::data::worker_main(),
        Some("supervisor") => return maos_server::supervisor::supervisor_main(),
        _ => {}
    }
    let done = match Arguments::parse().command {
        Command::Serve { host, port, data_dir, config, debug, log_file } => {
            serve::run(&serve::Serve { host, port, data_dir, config, debug, log_file })
        }
        Command::Run { file, json, config, data_dir } => {
            run::run(&run::Run { file, json, config, data_dir })
        }
    };
    done.unwrap_or_else(|error| {
        words::say(&format!("error: {error:#}"));
        ExitCode::from(2)
    })
}
