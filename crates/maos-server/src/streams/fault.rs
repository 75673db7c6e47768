//! Why a stream did not do what it was asked for.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use thiserror::Error;

use crate::codec::CodecError;

/// Why a stream did not do what it was asked for.
#[derive(Clone, Debug, Error)]
pub enum StreamError {
    /// As many entries as may be wait for a reader.
    #[error("`{stream}` holds {unread} unread entries, at most {bound} may be")]
    Unread {
        /// Which.
        stream: String,
        /// How many.
        unread: u64,
        /// The bound.
        bound: u64,
    },
    /// The file holds as much as it may.
    #[error("`{}` holds {bytes} bytes, at most {bound} may be", path.display())]
    Total {
        /// The file.
        path: PathBuf,
        /// How much.
        bytes: u64,
        /// The bound.
        bound: u64,
    },
    /// More waits to be written than may.
    #[error("`{}` does not keep up with what is appended", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The key came with something else before.
    #[error("the key `{key}` came with another body before")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// The file is no streams of ours, or its bytes are not what was written.
    #[error(
        "`{}` is damaged: {what}\nhint: put back a backup with `maos restore`, or move this file \
         away: what it held is lost then, and tasks are not", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A newer release wrote the file.
    #[error(
        "`{}` has format {found}, this release reads up to {known}\n\
         hint: use the release that wrote it, or a newer one", path.display()
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The disk or the thread failed.
    #[error("`{}` failed: {what}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// The fault.
        what: String,
    },
    /// The file was closed.
    #[error("the streams are closed")]
    Closed,
}

impl StreamError {
    pub(super) fn sqlite(path: &Path, fault: &rusqlite::Error) -> StreamError {
        let (path, what) = (path.to_owned(), fault.to_string());
        match fault.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StreamError::Damaged { path, what }
            }
            Some(_) | None => StreamError::Failed { path, what },
        }
    }

    pub(super) fn codec(path: &Path, stream: &str, offset: u64, fault: &CodecError) -> StreamError {
        let what = format!("entry {offset} of `{stream}`: {fault}");
        StreamError::Damaged { path: path.to_owned(), what }
    }
}
