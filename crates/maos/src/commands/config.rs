//! `maos config show`: what is in force, and who set it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use maos_server::config::{self, Layers};
use serde_json::json;

use crate::{settings, words};

/// What the command line said.
#[derive(Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print every setting that is in force, and where it comes from
    Show {
        /// Print one JSON document on standard output
        #[arg(long)]
        json: bool,
        /// The configuration [default: maos.toml, if there is one]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

impl Config {
    pub(crate) fn json(&self) -> bool {
        match self.command {
            Command::Show { json, .. } => json,
        }
    }
}

pub(crate) fn run(arguments: &Config) -> anyhow::Result<ExitCode> {
    let Command::Show { json, config } = &arguments.command;
    let folder = std::env::current_dir().context("the working directory cannot be read")?;
    let layers = Layers {
        file: config::file_in(&folder, config.as_deref()),
        environment: std::env::vars_os().collect(),
        flags: Vec::new(),
    };
    let (_, shown) = settings::load(&layers)?;
    let mut lines = Vec::new();
    let mut settings = Vec::new();
    for setting in &shown {
        let (key, origin) = (&setting.key, &setting.origin);
        let value = serde_json::to_value(&setting.value)?;
        lines.push((format!("{key} = {value}"), origin.to_string()));
        settings.push(json!({ "key": key, "value": value, "origin": origin.to_string() }));
    }
    if *json {
        words::print_json(&json!({ "settings": settings }))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Long values do not push every origin to the right.
    let width = lines.iter().map(|(line, _)| line.len()).filter(|width| *width <= 48).max();
    let width = width.unwrap_or(0);
    let text: Vec<String> =
        lines.iter().map(|(line, origin)| format!("{line:<width$}  # {origin}")).collect();
    words::print(&text.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}
