//! A journal that forgets with its process; for tests and for embedding where nothing need last.

use std::collections::VecDeque;
use std::path::PathBuf;

use maos_core::ids::{Epoch, Position, Sequence};

use super::{Batch, Journal, JournalError, check_next};

/// Batches in memory.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    batches: VecDeque<Batch>,
    head: Position,
    trimmed: Sequence,
    epoch: Epoch,
    failures_left: u32,
}

impl MemoryJournal {
    /// A journal whose first `failures` appends fail.
    #[must_use]
    pub fn failing(failures: u32) -> MemoryJournal {
        MemoryJournal { failures_left: failures, ..MemoryJournal::default() }
    }
}

impl Journal for MemoryJournal {
    fn head(&self) -> Position {
        self.head
    }

    fn append(&mut self, batch: &Batch) -> Result<(), JournalError> {
        check_next(batch, self.head, self.epoch)?;
        if let Some(left) = self.failures_left.checked_sub(1) {
            self.failures_left = left;
            let source = std::io::Error::other("a failure that a test asked for");
            return Err(JournalError::Io { path: PathBuf::from("memory"), source });
        }
        self.head = Position { epoch: batch.epoch, sequence: batch.last };
        self.batches.push_back(batch.clone());
        Ok(())
    }

    fn claim(&mut self, epoch: Epoch) -> Result<(), JournalError> {
        if epoch <= self.epoch {
            return Err(JournalError::Fenced { claimed: self.epoch, own: epoch });
        }
        self.epoch = epoch;
        Ok(())
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn replay(
        &mut self,
        after: Sequence,
        visit: &mut dyn FnMut(Batch) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        if after < self.trimmed {
            let what = format!("steps up to {} were trimmed away", self.trimmed);
            return Err(JournalError::Damaged { path: PathBuf::from("memory"), what });
        }
        self.batches.iter().filter(|batch| batch.last > after).cloned().try_for_each(visit)
    }

    fn trim(&mut self, through: Sequence) -> Result<(), JournalError> {
        while self.batches.front().is_some_and(|batch| batch.last <= through) {
            self.trimmed = self.batches.pop_front().map_or(self.trimmed, |batch| batch.last);
        }
        Ok(())
    }
}
