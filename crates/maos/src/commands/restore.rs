//! `maos restore`: a data directory from what `maos backup` wrote.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

/// What the command line said.
#[derive(Args)]
pub(crate) struct Restore {
    /// What `maos backup` wrote
    #[arg(value_name = "DIR|FILE")]
    backup: PathBuf,
    /// The data directory to make; it must not be there yet
    #[arg(long, value_name = "DIR", default_value = "maos-data")]
    data_dir: PathBuf,
    /// Print one JSON document on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: &Restore) -> anyhow::Result<ExitCode> {
    let (from, to) = (arguments.backup.display(), arguments.data_dir.display());
    anyhow::bail!(
        "`{from}` cannot be restored to `{to}`: backups are not built yet\n\
         hint: stop the server and copy the whole directory, for example with `cp -a`"
    )
}
