//! `[http_agents.<name>]`: a URL as an agent, as the operator writes it down.

use std::path::PathBuf;

use maos_core::limits::AGENT_SLOTS_MAX;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::outbound::{Outbound, OutboundError, Rules};
use crate::webhooks::Secret;

/// `[http_agents.<name>]`: a URL that is an agent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpAgentConfig {
    /// Where its attempts are posted to.
    pub url: String,
    /// The file with the secret that requests are signed with, taken from beside the
    /// configuration.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The variable of the environment with that secret.
    #[serde(default)]
    pub secret_env: Option<String>,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// The agent's type; the name of the section if it is missing.
    #[serde(default)]
    pub agent_type: Option<String>,
    /// Attempts at once.
    #[serde(default = "one")]
    pub slots: u32,
    /// Whether its URL may lead to an inner address, which nobody else may reach for that.
    #[serde(default)]
    pub allow_private: bool,
    /// Seconds until a request must be answered.
    #[serde(default = "HttpAgentConfig::timeout_seconds")]
    pub timeout_seconds: u64,
    /// Further requests within an attempt when the target is not there or asks to come later.
    #[serde(default = "HttpAgentConfig::retries")]
    pub retries: u32,
    /// Milliseconds before the first of those; doubled each time up to five minutes, and spread.
    #[serde(default = "HttpAgentConfig::retry_pause_ms")]
    pub retry_pause_ms: u64,
    /// So many requests that fail one after another open the breaker; 0: it never opens.
    #[serde(default = "HttpAgentConfig::breaker_failures")]
    pub breaker_failures: u32,
    /// Seconds that the breaker is open, before one request goes out to see.
    #[serde(default = "HttpAgentConfig::breaker_seconds")]
    pub breaker_seconds: u64,
    /// The folder of the configuration.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// A setting that cannot be: its key within the section, its value, what it may be.
pub(crate) struct BadSetting {
    pub(crate) key: &'static str,
    pub(crate) found: String,
    pub(crate) wanted: String,
}

/// Why an agent has no secret to sign with.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{place}` {why}\n\
     hint: make a secret with: echo whsec_$(head -c 32 /dev/urandom | base64 -w 0)"
)]
pub struct NoSecret {
    place: String,
    why: String,
}

fn one() -> u32 {
    1
}

impl HttpAgentConfig {
    fn timeout_seconds() -> u64 {
        60
    }

    fn retries() -> u32 {
        3
    }

    fn retry_pause_ms() -> u64 {
        500
    }

    fn breaker_failures() -> u32 {
        5
    }

    fn breaker_seconds() -> u64 {
        30
    }

    /// Finds a setting that cannot be. `rules` are those of everything that the server reaches.
    pub(crate) fn check(&self, rules: &Rules) -> Result<(), BadSetting> {
        let bounds = |key: &'static str, found: u64, least: u64, most: u64| {
            if (least..=most).contains(&found) {
                return Ok(());
            }
            Err(BadSetting { key, found: found.to_string(), wanted: format!("{least} to {most}") })
        };
        bounds("slots", self.slots.into(), 1, AGENT_SLOTS_MAX.into())?;
        bounds("timeout_seconds", self.timeout_seconds, 1, 86_400)?;
        bounds("retries", self.retries.into(), 0, 100)?;
        bounds("retry_pause_ms", self.retry_pause_ms, 1, 300_000)?;
        bounds("breaker_failures", self.breaker_failures.into(), 0, 1_000_000)?;
        bounds("breaker_seconds", self.breaker_seconds, 1, 86_400)?;
        if self.capabilities.is_empty() {
            let (found, wanted) = ("empty".to_owned(), "at least one name".to_owned());
            return Err(BadSetting { key: "capabilities", found, wanted });
        }
        if self.secret_file.is_some() == self.secret_env.is_some() {
            let found = if self.secret_file.is_some() { "beside `secret_env`" } else { "missing" };
            let wanted = "there, or `secret_env` in its place: what requests are signed with";
            let (found, wanted) = (found.to_owned(), wanted.to_owned());
            return Err(BadSetting { key: "secret_file", found, wanted });
        }
        match Outbound::new(self.rules(rules)).check(&self.url) {
            Ok(_) => Ok(()),
            Err(why) => {
                let wanted = match why {
                    OutboundError::Inner { .. } => {
                        "a public address, unless `allow_private = true` beside it opens an inner \
                         one for this agent alone"
                            .to_owned()
                    }
                    OutboundError::BadUrl { why, .. } => format!("a URL to reach: {why}"),
                    other => other.to_string(),
                };
                Err(BadSetting { key: "url", found: format!("`{}`", self.url), wanted })
            }
        }
    }

    /// Who this agent's requests may reach.
    pub(super) fn rules(&self, rules: &Rules) -> Rules {
        let allow_private = rules.allow_private || self.allow_private;
        Rules { allow_private, allow_hosts: rules.allow_hosts.clone() }
    }

    /// The secret that its requests are signed with.
    ///
    /// # Errors
    /// Where it should be, and what is there in its place; never what it is.
    pub fn secret(&self) -> Result<Secret, NoSecret> {
        let (place, text) = match (&self.secret_file, &self.secret_env) {
            (Some(file), _) => {
                let file = self.folder.join(file);
                let text = std::fs::read_to_string(&file).map_err(|why| why.to_string());
                (file.display().to_string(), text)
            }
            (None, Some(name)) => {
                (name.clone(), std::env::var(name).map_err(|why| why.to_string()))
            }
            (None, None) => ("secret_file".to_owned(), Err("is not set".to_owned())),
        };
        let text = text.map_err(|why| NoSecret {
            place: place.clone(),
            why: format!("has no secret to sign with: {why}"),
        })?;
        Secret::parse(text.trim()).map_err(|why| NoSecret { place, why })
    }
}
