//! The journal: the one place where what happened becomes durable.
//!
//! A journal keeps sealed batches of steps in order and knows nothing of what they say. Its law:
//! what `append` has confirmed survives a power cut; what it has not may be there or not, but never
//! in part. It must not know the engine, the store or the agents.

mod memory;
mod sqlite;
mod wal;

#[cfg(test)]
mod contract;

pub use memory::MemoryJournal;
pub use sqlite::SqliteJournal;

use std::path::PathBuf;

use maos_core::ids::{Epoch, Position, Sequence};
use thiserror::Error;

/// One group commit: consecutive steps, encoded and sealed by the codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The reign that wrote it.
    pub epoch: Epoch,
    /// The first step in it.
    pub first: Sequence,
    /// The last step in it; not before the first.
    pub last: Sequence,
    /// The sealed bytes.
    pub sealed: Vec<u8>,
}

/// Where batches are kept. All calls block; the driver gives a journal a thread of its own.
pub trait Journal: Send {
    /// The last step that is durable here; the default position when there is none. It stays known
    /// when everything has been trimmed.
    fn head(&self) -> Position;

    /// Keeps `batch` durably behind the last one. Nothing of it is kept when this fails; it may be
    /// called again with the same batch.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] if a newer epoch has written or claimed the journal, else the
    /// fault.
    fn append(&mut self, batch: &Batch) -> Result<(), JournalError>;

    /// Claims the journal for `epoch`, durably: from now on older epochs are refused.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] if this or a newer epoch claimed it already, else the fault.
    fn claim(&mut self, epoch: Epoch) -> Result<(), JournalError>;

    /// The newest epoch that claimed this journal; 0 before the first.
    fn epoch(&self) -> Epoch;

    /// Hands the batches that hold steps after `after` to `visit`, in order. A batch that begins
    /// before and ends after it comes whole.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] when a batch is torn, altered or missing in between, or when the
    /// steps after `after` were trimmed away; nothing is visited past the fault. Whatever `visit`
    /// returns as an error is handed on.
    fn replay(
        &mut self,
        after: Sequence,
        visit: &mut dyn FnMut(Batch) -> Result<(), JournalError>,
    ) -> Result<(), JournalError>;

    /// Lets go of the batches whose last step is not after `through`.
    ///
    /// # Errors
    /// The fault; what was not trimmed is still there.
    fn trim(&mut self, through: Sequence) -> Result<(), JournalError>;
}

/// Why the journal could not do its part.
#[derive(Debug, Error)]
pub enum JournalError {
    /// A newer reign owns the journal.
    #[error("epoch {claimed} owns the journal now, this is epoch {own}")]
    Fenced {
        /// The newest claim.
        claimed: Epoch,
        /// Who tried.
        own: Epoch,
    },
    /// Another process has the data directory.
    #[error("another process uses the data directory `{}`\n\
         hint: stop it, or choose another --data-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// What is there cannot be trusted.
    #[error("the journal `{}` is damaged: {what}\n\
         hint: restore a backup with `maos restore`, or move the directory away to start \
         empty", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Written by a newer release.
    #[error("`{}` has format {found}, this release reads up to {known}\n\
         hint: use the release that wrote it, or a newer one", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// No space left.
    #[error("no space left for `{}`\n\
         hint: free some space; intake goes on by itself then", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: rusqlite::Error,
    },
    /// The database failed otherwise.
    #[error("the journal `{}` failed", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: rusqlite::Error,
    },
    /// The file system failed.
    #[error("`{}` cannot be used", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The fault.
        #[source]
        source: std::io::Error,
    },
}

impl JournalError {
    /// What is to be told to who only sees that it does not work: no path, no fault's own words.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            JournalError::Full { .. } => "no space is left on its disk",
            JournalError::Fenced { .. } | JournalError::InUse { .. } => "another server owns it",
            JournalError::Damaged { .. } => "it is damaged",
            JournalError::TooNew { .. } => "it is of a newer release",
            JournalError::Sqlite { .. } | JournalError::Io { .. } => {
                "its disk fails, the server's log says how"
            }
        }
    }
}

/// Asserts that a batch goes right behind the head: its writer is the only one, so anything else is
/// a mistake of ours and must not reach the disk.
fn check_order(head: Position, batch: &Batch) {
    assert!(batch.first <= batch.last, "a batch holds at least one step");
    assert!(batch.first == head.sequence.next(), "batches are appended without gaps");
}

fn gone(path: PathBuf, after: Sequence, trimmed: Sequence) -> JournalError {
    let what = format!("the steps after {after} are wanted, and those up to {trimmed} are gone");
    JournalError::Damaged { path, what }
}

fn unopened(path: PathBuf, first: Sequence, fault: &crate::codec::CodecError) -> JournalError {
    match fault {
        crate::codec::CodecError::TooNew { found } => JournalError::TooNew {
            path,
            found: u32::from(*found),
            known: u32::from(crate::codec::FORMAT),
        },
        crate::codec::CodecError::Damaged(_) | crate::codec::CodecError::Encrypted { .. } => {
            JournalError::Damaged { path, what: format!("the batch of step {first}: {fault}") }
        }
    }
}
