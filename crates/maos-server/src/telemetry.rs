//! Logs: where they go and how they look. Set up once, by the binary.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use thiserror::Error;
use tracing::Dispatch;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt};

use crate::config::{Format, Level, Log};

/// Why logs cannot be kept.
#[derive(Debug, Error)]
#[error(
    "the log file `{}` cannot be opened\n\
     hint: name a file that can be written, in a folder that is there",
    path.display()
)]
pub struct LogFileError {
    /// The file.
    path: PathBuf,
    /// The fault.
    #[source]
    source: io::Error,
}

/// Writes logs to standard error from now on, and to each of `files` as well.
///
/// # Errors
/// When a file cannot be opened for appending.
pub fn start(log: &Log, files: &[&Path]) -> Result<(), LogFileError> {
    let mut writer = BoxMakeWriter::new(io::stderr);
    for path in files {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let unopened = |source| LogFileError { path: (*path).to_owned(), source };
        writer = BoxMakeWriter::new(writer.and(Mutex::new(opened.map_err(unopened)?)));
    }
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
