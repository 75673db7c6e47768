//! The configuration of a command that runs, shows or checks a server, and what to say about it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use maos_server::config::{Config, ConfigError, Layers, Shown};
use maos_server::data_dir;

use crate::words;

/// What is in force, and who set it. Variables that look like settings and are none are told of.
pub(crate) fn load(layers: &Layers) -> Result<(Config, Vec<Shown>), ConfigError> {
    let (config, shown) = Config::load(layers)?;
    for warning in layers.unheeded(&config) {
        words::say(&format!("warning: {}", words::harmless(&warning)));
    }
    Ok((config, shown))
}

/// The data directory, from the root; it is made if it is not there.
pub(crate) fn data_dir(named: &Path) -> anyhow::Result<PathBuf> {
    let unusable = || {
        let named = named.display();
        format!(
            "`{named}` cannot be the data directory\n\
             hint: name a folder that can be made or written with --data-dir"
        )
    };
    let path = std::path::absolute(named).with_context(unusable)?;
    data_dir::make(&path).with_context(unusable)?;
    Ok(path)
}
