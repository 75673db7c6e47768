//! `maos backup`: a data directory, copied as it is at one moment, in use or not.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use maos_server::blobs;
use maos_server::store::backup;
use serde_json::json;

use crate::words;

/// What the command line said.
#[derive(Args)]
pub(crate) struct Backup {
    /// The folder to write; it must be empty or not there yet
    #[arg(value_name = "DIR")]
    target: PathBuf,
    /// The data directory to copy; its server may go on
    #[arg(long, value_name = "DIR", default_value = "maos-data")]
    data_dir: PathBuf,
    /// Print one JSON document on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: &Backup) -> anyhow::Result<ExitCode> {
    let (from, to) = (&arguments.data_dir, &arguments.target);
    if !from.join("format").is_file() {
        let from = from.display();
        anyhow::bail!(
            "`{from}` is no data directory\nhint: name the one of the server with --data-dir"
        );
    }
    backup::backup(from, to)?;
    let bucket = blobs::bucket_of(&from.join("blobs"))?;
    if arguments.json {
        words::print_json(&json!({ "data_dir": from, "backup": to, "documents": bucket }))?;
    } else {
        words::print(&format!("copied `{}` to `{}`", from.display(), to.display()))?;
        if let Some(bucket) = bucket {
            words::say(&format!("its documents stay in `{bucket}`: docs/blobs.md"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
