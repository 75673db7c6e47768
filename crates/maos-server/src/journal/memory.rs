//! A journal in memory, for tests and for those who embed MAOS and need nothing kept.
//!
//! Its law: it does what the durable one does, except surviving. It can be told to fail.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use maos_core::ids::{Epoch, Position, Sequence};

use super::{Batch, Journal, JournalError, check_order, gone};
use crate::codec::{self, Kind};

/// Batches in memory.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    batches: VecDeque<Batch>,
    trimmed: Position,
    epoch: Epoch,
    failures: u32,
    pause: Duration,
}

impl MemoryJournal {
    /// An empty journal.
    #[must_use]
    pub fn new() -> MemoryJournal {
        MemoryJournal::default()
    }

    /// Lets the next `count` appends fail as a full disk does.
    pub fn fail_next(&mut self, count: u32) {
        self.failures = count;
    }

    /// Lets every append take at least this long.
    pub fn slow_down(&mut self, pause: Duration) {
        self.pause = pause;
    }

    /// The bytes of a batch, to damage them.
    #[cfg(test)]
    pub(super) fn sealed_mut(&mut self, index: usize) -> &mut Vec<u8> {
        &mut self.batches[index].sealed
    }
}

fn path() -> PathBuf {
    PathBuf::from("memory")
}

impl Journal for MemoryJournal {
    fn head(&self) -> Position {
        self.batches
            .back()
            .map_or(self.trimmed, |batch| Position { epoch: batch.epoch, sequence: batch.last })
    }

    fn append(&mut self, batch: &Batch) -> Result<(), JournalError> {
        if !self.pause.is_zero() {
            std::thread::sleep(self.pause);
        }
        if self.failures > 0 {
            self.failures -= 1;
            let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
            let source = rusqlite::Error::SqliteFailure(full, None);
            return Err(JournalError::Full { path: path(), source });
        }
        if batch.epoch < self.epoch {
            return Err(JournalError::Fenced { claimed: self.epoch, own: batch.epoch });
        }
        if self.batches.back() == Some(batch) {
            return Ok(());
        }
        check_order(self.head(), batch);
        self.epoch = batch.epoch;
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
        if after < self.trimmed.sequence {
            return Err(gone(path(), after, self.trimmed.sequence));
        }
        for batch in self.batches.iter().filter(|batch| batch.last > after) {
            codec::check(Kind::Steps, &batch.sealed)
                .map_err(|fault| super::unopened(path(), batch.first, &fault))?;
            visit(batch.clone())?;
        }
        Ok(())
    }

    fn trim(&mut self, through: Sequence) -> Result<(), JournalError> {
        while let Some(batch) = self.batches.front().filter(|batch| batch.last <= through) {
            self.trimmed = Position { epoch: batch.epoch, sequence: batch.last };
            self.batches.pop_front();
        }
        Ok(())
    }
}
