//! Opening a data directory: the lock, the journal, the store, the documents, and what to replay.
//!
//! Its law: the journal holds every step after the store's position, or the directory is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use maos_core::engine::Rows;
use maos_core::event::Step;
use maos_core::ids::{NodeId, Position, Sequence};
use maos_core::record::TaskRecord;

use super::{Store, StoreError, checkpoint};
use crate::blobs::{BlobError, Blobs};
use crate::codec;
use crate::data_dir::DataDir;
use crate::journal::{Journal, JournalError, SqliteJournal};

/// Everything durable, opened.
#[derive(Debug)]
pub struct Opened {
    /// The store, at `from`.
    pub store: Store,
    /// The journal, from `from` on at least.
    pub journal: SqliteJournal,
    /// The documents.
    pub blobs: Blobs,
    /// Whose directory it is.
    pub node: NodeId,
    /// The store's position.
    pub from: Position,
    /// What an engine at `from` needs.
    pub rows: Rows<Vec<TaskRecord>>,
    /// Whether it was brought back to a checkpoint just now.
    pub restored: bool,
    journal_path: PathBuf,
}

/// Opens a data directory, or makes it.
///
/// # Errors
/// When another process has it, when something is damaged or of a newer release, when journal and
/// store do not belong together, or the disk fails.
pub fn open(path: &Path) -> Result<Opened, StoreError> {
    open_with(path, |dir| Blobs::local(&dir.blobs()))
}

/// The same with documents that may be elsewhere.
///
/// # Errors
/// As `open`, and why the documents cannot be had.
pub fn open_with(
    path: &Path,
    documents: impl FnOnce(&DataDir) -> Result<Blobs, BlobError>,
) -> Result<Opened, StoreError> {
    let dir = Arc::new(DataDir::open(path)?);
    let restored = checkpoint::finish(&dir)?;
    let journal = SqliteJournal::open(&dir)?;
    let blobs = documents(&dir)?;
    let (store, rows) = Store::open(&dir)?;
    let from = rows.engine.position;
    let opened = Opened {
        store,
        journal,
        blobs,
        node: dir.node(),
        from,
        rows,
        restored,
        journal_path: dir.journal(),
    };
    if let Err(refused) = check(from, &opened.journal, &dir) {
        opened.store.close();
        return Err(refused);
    }
    Ok(opened)
}

fn check(from: Position, journal: &SqliteJournal, dir: &DataDir) -> Result<(), StoreError> {
    let (head, trimmed) = (journal.head(), journal.trimmed());
    if from.sequence > head.sequence {
        return Err(StoreError::AheadOfJournal { store: from, journal: head });
    }
    if from.sequence == head.sequence && from.epoch != head.epoch {
        let what = format!("its last step is {head}, the store's is {from}");
        return Err(JournalError::Damaged { path: dir.journal(), what }.into());
    }
    if trimmed.sequence > from.sequence {
        let what = format!("the steps from {from} to {trimmed} are in neither journal nor store");
        return Err(JournalError::Damaged { path: dir.journal(), what }.into());
    }
    Ok(())
}

impl Opened {
    /// Hands the steps after the store's position to `visit`, in order, up to the journal's head.
    ///
    /// # Errors
    /// When a batch is damaged, of a newer release or missing.
    pub fn replay(&mut self, visit: &mut dyn FnMut(Sequence, Step)) -> Result<(), JournalError> {
        let mut next = self.from.sequence.next();
        let head = self.journal.head().sequence;
        let after = self.from.sequence;
        let path = &self.journal_path;
        self.journal.replay(after, &mut |batch| {
            let damaged = |what| JournalError::Damaged { path: path.clone(), what };
            let steps = codec::open_steps(&batch.sealed)
                .map_err(|fault| damaged(format!("the batch of step {}: {fault}", batch.first)))?;
            if batch.first.0 + steps.len() as u64 != batch.last.0 + 1 {
                let (first, last, found) = (batch.first, batch.last, steps.len());
                return Err(damaged(format!("the batch {first} to {last} holds {found} steps")));
            }
            for (step, sequence) in steps.into_iter().zip(batch.first.0..) {
                if sequence < next.0 {
                    continue;
                }
                if sequence != next.0 {
                    return Err(damaged(format!("step {next} is missing")));
                }
                visit(next, step);
                next = next.next();
            }
            Ok(())
        })?;
        assert!(next == head.next(), "a replay that found no fault ends at the head");
        Ok(())
    }
}
