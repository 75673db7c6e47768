//! The journal in an SQLite file: one row a batch, one synced commit a row.
//!
//! WAL with `synchronous=FULL`: a commit is one append to the write-ahead log and one sync of it.

use std::path::{Path, PathBuf};

use maos_core::ids::{Epoch, Position, Sequence};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::{Batch, Journal, JournalError, check_next};
use crate::codec;

/// The newest layout of the file that this release knows, and the one it writes.
const FORMAT: u32 = 1;
/// Bytes of the write-ahead log that are kept for use again after a checkpoint.
const WAL_BYTES_KEPT: i64 = 64 << 20;
/// Pages of 4 KiB in the write-ahead log that bring about a checkpoint.
const CHECKPOINT_PAGES: i64 = 4_000;

const LAYOUT: &str = "
    CREATE TABLE batches (
        first INTEGER NOT NULL,
        last INTEGER PRIMARY KEY,
        epoch INTEGER NOT NULL,
        sealed BLOB NOT NULL
    );
    CREATE TABLE meta (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        claimed INTEGER NOT NULL,
        trimmed INTEGER NOT NULL,
        trimmed_epoch INTEGER NOT NULL
    );
    INSERT INTO meta VALUES (1, 0, 0, 0);
";

/// Batches in a file.
#[derive(Debug)]
pub struct SqliteJournal {
    path: PathBuf,
    connection: Connection,
    head: Position,
    trimmed: Sequence,
    epoch: Epoch,
}

impl SqliteJournal {
    /// Opens the journal in this file, or makes it. The data directory must be locked by the caller.
    ///
    /// # Errors
    /// When the file is damaged, too new or cannot be used.
    pub fn open(path: &Path) -> Result<SqliteJournal, JournalError> {
        let connection = Connection::open(path).map_err(|why| fault(path, why))?;
        prepare(&connection, path).map_err(|why| match why {
            Prepared::Failed(why) => fault(path, why),
            Prepared::TooNew(found) => {
                JournalError::TooNew { path: path.into(), found, known: FORMAT }
            }
        })?;
        let (claimed, trimmed, trimmed_epoch) = connection
            .query_row("SELECT claimed, trimmed, trimmed_epoch FROM meta", [], |row| {
                Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?, row.get::<_, u64>(2)?))
            })
            .map_err(|why| fault(path, why))?;
        let newest = connection
            .query_row("SELECT epoch, last FROM batches ORDER BY last DESC LIMIT 1", [], |row| {
                Ok(Position { epoch: Epoch(row.get(0)?), sequence: Sequence(row.get(1)?) })
            })
            .optional()
            .map_err(|why| fault(path, why))?;
        let before = Position { epoch: Epoch(trimmed_epoch), sequence: Sequence(trimmed) };
        Ok(SqliteJournal {
            path: path.to_owned(),
            connection,
            head: newest.unwrap_or(before),
            trimmed: Sequence(trimmed),
            epoch: Epoch(claimed),
        })
    }

    fn damaged(&self, what: String) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), what }
    }

    fn insert(&self, batch: &Batch) -> rusqlite::Result<()> {
        let sql = "INSERT INTO batches (first, last, epoch, sealed) VALUES (?1, ?2, ?3, ?4)";
        let mut insert = self.connection.prepare_cached(sql)?;
        insert.execute(params![batch.first.0, batch.last.0, batch.epoch.0, batch.sealed])?;
        Ok(())
    }

    /// Makes the file fail as on a full disk once it has this many pages; for tests.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        self.connection.pragma_update(None, "max_page_count", pages).unwrap();
    }
}

enum Prepared {
    Failed(rusqlite::Error),
    TooNew(u32),
}

impl From<rusqlite::Error> for Prepared {
    fn from(why: rusqlite::Error) -> Prepared {
        Prepared::Failed(why)
    }
}

fn prepare(connection: &Connection, path: &Path) -> Result<(), Prepared> {
    let format: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if format > FORMAT {
        return Err(Prepared::TooNew(format));
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    if format == 0 {
        tracing::debug!("a new journal at `{}`", path.display());
        connection
            .execute_batch(&format!("BEGIN; {LAYOUT} PRAGMA user_version = {FORMAT}; COMMIT;"))?;
    }
    Ok(())
}

impl Journal for SqliteJournal {
    fn head(&self) -> Position {
        self.head
    }

    fn append(&mut self, batch: &Batch) -> Result<(), JournalError> {
        check_next(batch, self.head, self.epoch)?;
        self.insert(batch).map_err(|why| fault(&self.path, why))?;
        self.head = Position { epoch: batch.epoch, sequence: batch.last };
        Ok(())
    }

    fn claim(&mut self, epoch: Epoch) -> Result<(), JournalError> {
        if epoch <= self.epoch {
            return Err(JournalError::Fenced { claimed: self.epoch, own: epoch });
        }
        let claimed = self.connection.execute("UPDATE meta SET claimed = ?1", [epoch.0]);
        claimed.map_err(|why| fault(&self.path, why))?;
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
            let trimmed = self.trimmed;
            return Err(self.damaged(format!("steps {after} to {trimmed} were trimmed away")));
        }
        let failed = |why| fault(&self.path, why);
        let sql = "SELECT first, last, epoch, sealed FROM batches WHERE last > ?1 ORDER BY last";
        let mut select = self.connection.prepare(sql).map_err(failed)?;
        let mut rows = select.query([after.0]).map_err(failed)?;
        let mut next: Option<Sequence> = None;
        while let Some(row) = rows.next().map_err(failed)? {
            let batch = (|| {
                Ok(Batch {
                    first: Sequence(row.get(0)?),
                    last: Sequence(row.get(1)?),
                    epoch: Epoch(row.get(2)?),
                    sealed: row.get(3)?,
                })
            })();
            let batch: Batch = batch.map_err(failed)?;
            let expected = next.unwrap_or_else(|| batch.first.min(after.next()));
            if batch.first != expected {
                return Err(self.damaged(format!(
                    "step {expected} is missing: the next one there is {}",
                    batch.first
                )));
            }
            next = Some(batch.last.next());
            if let Err(why) = codec::open(codec::Kind::Steps, &batch.sealed) {
                let steps = format!("steps {} to {}", batch.first, batch.last);
                return Err(self.damaged(format!("{steps}: {why}")));
            }
            visit(batch)?;
        }
        Ok(())
    }

    fn trim(&mut self, through: Sequence) -> Result<(), JournalError> {
        let failed = |why| fault(&self.path, why);
        let sql = "SELECT epoch, last FROM batches WHERE last <= ?1 ORDER BY last DESC LIMIT 1";
        let newest: Option<(u64, u64)> = self
            .connection
            .query_row(sql, [through.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(failed)?;
        let Some((epoch, last)) = newest else { return Ok(()) };
        let done = self.connection.unchecked_transaction().and_then(|transaction| {
            transaction.execute("DELETE FROM batches WHERE last <= ?1", [last])?;
            let sql = "UPDATE meta SET trimmed = ?1, trimmed_epoch = ?2";
            transaction.execute(sql, [last, epoch])?;
            transaction.commit()
        });
        done.map_err(failed)?;
        self.trimmed = Sequence(last);
        Ok(())
    }
}

fn fault(path: &Path, source: rusqlite::Error) -> JournalError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => JournalError::Full { path, source },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            JournalError::Damaged { path, what: source.to_string() }
        }
        _ => JournalError::Sqlite { path, source },
    }
}
