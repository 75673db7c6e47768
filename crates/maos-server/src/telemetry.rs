//! Logs: where they go and how they look. Set up once, by the binary.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use tracing::Dispatch;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt};

use crate::config::{Format, Level, Log};

/// Writes logs to standard error from now on, and to `file` as well if there is one.
///
/// # Errors
/// When the file cannot be opened for appending.
pub fn start(log: &Log, file: Option<&Path>) -> io::Result<()> {
    let writer = match file {
        None => BoxMakeWriter::new(io::stderr),
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            BoxMakeWriter::new(io::stderr.and(Mutex::new(file)))
        }
    };
    // A second start in one process keeps the first one's settings: tests do that.
    drop(tracing::dispatcher::set_global_default(dispatch(log, writer)));
    Ok(())
}

/// Who takes logs and writes them to `writer`.
#[must_use]
pub fn dispatch(log: &Log, writer: BoxMakeWriter) -> Dispatch {
    let level = match log.level {
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warning => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(writer);
    match log.format {
        Format::Text => builder.with_ansi(false).with_target(false).finish().into(),
        Format::Json => builder.json().finish().into(),
    }
}
