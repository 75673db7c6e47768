//! The server that a command talks to.

use clap::Args;
use maos_api::client::{Client, ClientError, Retries, URL_DEFAULT};

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
    server: String,
    /// Print one JSON document on standard output
    #[arg(long, global = true, display_order = 901)]
    pub(crate) json: bool,
}

impl Remote {
    pub(crate) fn client(&self) -> Result<Client, ClientError> {
        // Whoever sits before it decides whether to try again.
        Ok(Client::new(&self.server)?.with_retries(Retries::NONE))
    }
}
