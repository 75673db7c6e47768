//! The server that a command talks to.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clap::builder::TypedValueParser;
use maos_api::client::{Client, Patience, Retries, URL_DEFAULT};

/// How long a command that only reads waits for a server to listen.
const REFUSED_MAX: Duration = Duration::from_secs(2);

/// What every command that talks to a server takes.
#[derive(Args)]
pub(crate) struct Remote {
    /// The server to talk to
    #[arg(
        long,
        global = true,
        display_order = 900,
        value_name = "URL",
        env = "MAOS_SERVER",
        hide_env_values = true,
        default_value = URL_DEFAULT
    )]
    pub(crate) server: String,
    /// A PEM file of authorities to trust over https, beside the well-known ones
    #[arg(
        long,
        global = true,
        display_order = 901,
        value_name = "FILE",
        env = "MAOS_SERVER_CA",
        hide_env_values = true,
        value_parser = clap::builder::OsStringValueParser::new().map(PathBuf::from)
    )]
    server_ca: Option<PathBuf>,
    /// Print one JSON document on standard output
    #[arg(long, global = true, display_order = 902)]
    pub(crate) json: bool,
}

impl Remote {
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        // Whoever sits before it decides whether to try again. Only a server that was started in
        // the line above gets a moment.
        let patience = Patience { refused: REFUSED_MAX, ..Patience::default() };
        let is_unset = self.server.is_empty() && is_empty("MAOS_SERVER");
        let client = Client::new(if is_unset { URL_DEFAULT } else { &self.server })?;
        let client = client.with_retries(Retries::NONE).with_patience(patience);
        let is_set = |file: &&PathBuf| !file.as_os_str().is_empty() || !is_empty("MAOS_SERVER_CA");
        let Some(file) = self.server_ca.as_ref().filter(is_set) else { return Ok(client) };
        let unread = || format!("`{}` of --server-ca cannot be read", file.display());
        let pem = std::fs::read(file).with_context(unread)?;
        let unfit = || format!("`{}` of --server-ca cannot be used", file.display());
        client.with_root_certificate(&pem).with_context(unfit)
    }
}

/// Whether a variable is set to nothing, which is how scripts unset one for a single command.
fn is_empty(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value.is_empty())
}
