//! `maos restore`: a data directory from what `maos backup` wrote.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use maos_server::store::backup;
use serde_json::json;

use crate::words;

/// What the command line said.
#[derive(Args)]
pub(crate) struct Restore {
    /// What `maos backup` wrote
    #[arg(value_name = "DIR")]
    backup: PathBuf,
    /// The data directory to make; it must be empty or not there yet
    #[arg(long, value_name = "DIR", default_value = "maos-data")]
    data_dir: PathBuf,
    /// Print one JSON document on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: &Restore) -> anyhow::Result<ExitCode> {
    let (from, to) = (&arguments.backup, &arguments.data_dir);
    if !from.join("manifest").is_file() {
        let from = from.display();
        anyhow::bail!("`{from}` is no whole backup\nhint: name a folder that `maos backup` wrote");
    }
    backup::restore(from, to)?;
    if arguments.json {
        words::print_json(&json!({ "backup": from, "data_dir": to }))?;
    } else {
        words::print(&format!("restored `{}` to `{}`", from.display(), to.display()))?;
        words::say(&format!("`maos serve --data-dir {}` goes on from there", to.display()));
    }
    Ok(ExitCode::SUCCESS)
}
