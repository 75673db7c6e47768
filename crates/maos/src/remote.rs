//! The server that a command talks to.

use std::time::Duration;

use clap::Args;
use maos_api::client::{Client, ClientError, Patience, Retries, URL_DEFAULT};

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
    /// Print one JSON document on standard output
    #[arg(long, global = true, display_order = 901)]
    pub(crate) json: bool,
}

impl Remote {
    pub(crate) fn client(&self) -> Result<Client, ClientError> {
        // Whoever sits before it decides whether to try again. Only a server that was started in
        // the line above gets a moment.
        let patience = Patience { refused: REFUSED_MAX, ..Patience::default() };
        Ok(Client::new(&self.server)?.with_retries(Retries::NONE).with_patience(patience))
    }
}
