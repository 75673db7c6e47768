//! `maos backup`: a data directory, copied as it is at one moment.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

/// What the command line said.
#[derive(Args)]
pub(crate) struct Backup {
    /// The folder or file to write; it must not be there yet
    #[arg(value_name = "DIR|FILE")]
    target: PathBuf,
    /// The data directory to copy
    #[arg(long, value_name = "DIR", default_value = "maos-data")]
    data_dir: PathBuf,
    /// Print one JSON document on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: &Backup) -> anyhow::Result<ExitCode> {
    let (from, to) = (arguments.data_dir.display(), arguments.target.display());
    anyhow::bail!(
        "`{from}` cannot be copied to `{to}`: backups are not built yet\n\
         hint: stop the server and copy the whole directory, for example with `cp -a`"
    )
}
