//! The configuration of a command that runs, shows or checks a server, and what to say about it.

use maos_server::config::{Config, ConfigError, Layers, Shown};

use crate::words;

/// What is in force, and who set it. Variables that look like settings and are none are told of.
pub(crate) fn load(layers: &Layers) -> Result<(Config, Vec<Shown>), ConfigError> {
    let (config, shown) = Config::load(layers)?;
    for warning in layers.unheeded(&config) {
        words::say(&format!("warning: {}", words::harmless(&warning)));
    }
    Ok((config, shown))
}
