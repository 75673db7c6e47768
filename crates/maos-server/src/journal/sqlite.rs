//! The journal in SQLite: one row a group commit, one fsync each.
//!
//! Its law: a batch is in the file with all its bytes or not at all. WAL with `synchronous=FULL`
//! gives that. It must not know the store; whoever trims has made sure of it.
//!
//! Nothing here may hold up a commit for long. So trimming only moves a mark, in one small commit;
//! the rows behind it go with later appends, a few each, inside commits that happen anyway. And the
//! WAL is carried over in portions of [`CHECKPOINT_PAGES`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use maos_core::ids::{Epoch, Position, Sequence};
use rusqlite::{Connection, Error as Fault, ErrorCode, OptionalExtension, params};

use super::{Batch, Journal, JournalError, check_order, gone, unopened, wal};
use crate::codec::{self, Kind};
use crate::data_dir::DataDir;

/// The newest form of the file that this release knows.
const FORMAT: u32 = 1;
/// `MAOJ`, so that no other database is taken for a journal.
const APPLICATION_ID: u32 = 0x4D41_4F4A;
/// Pages of 4 KiB in the WAL that start a checkpoint: up to 50 ms on a usual disk.
const CHECKPOINT_PAGES: u32 = 2_000;
/// The WAL file is cut back to this after a checkpoint.
const WAL_BYTES_KEPT: u32 = 64 << 20;
/// Trimmed rows that each append removes. More than one, so that removal outruns appending.
const REMOVED_PER_APPEND: u32 = 4;

const SCHEMA: &str = "
    CREATE TABLE meta (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        epoch INTEGER NOT NULL,
        trimmed INTEGER NOT NULL,
        trimmed_epoch INTEGER NOT NULL
    ) STRICT;
    INSERT INTO meta VALUES (1, 0, 0, 0);
    CREATE TABLE batches (
        last INTEGER PRIMARY KEY,
        first INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        sealed BLOB NOT NULL
    ) STRICT;
";

/// Batches in `journal.db`.
#[derive(Debug)]
pub struct SqliteJournal {
    db: Connection,
    path: PathBuf,
    head: Position,
    trimmed: Position,
    epoch: Epoch,
    /// Rows behind the mark may still be there.
    litter: bool,
    /// Keeps the directory ours for as long as the journal is open.
    _dir: Option<Arc<DataDir>>,
}

impl SqliteJournal {
    /// Opens the journal of a data directory, or makes it.
    ///
    /// # Errors
    /// When it is damaged, of a newer release, or the disk fails.
    pub fn open(dir: &Arc<DataDir>) -> Result<SqliteJournal, JournalError> {
        let mut journal = SqliteJournal::open_file(&dir.journal())?;
        journal._dir = Some(dir.clone());
        Ok(journal)
    }

    /// Makes a journal that is empty behind `position`, as if all before it had been trimmed, and
    /// that no reign up to `epoch` may write to.
    ///
    /// # Errors
    /// When there is one already with something in it, or the disk fails.
    pub fn begin_at(path: &Path, position: Position, epoch: Epoch) -> Result<(), JournalError> {
        let journal = SqliteJournal::open_file(path)?;
        let wrong = |fault| sqlite_fault(path, fault);
        if journal.head.sequence > Sequence(0) {
            let what = "it holds steps, and another was to begin in its place".to_owned();
            return Err(JournalError::Damaged { path: path.to_owned(), what });
        }
        let set = "UPDATE meta SET epoch = ?, trimmed_epoch = ?, trimmed = ?";
        journal
            .db
            .execute(set, params![epoch.0, position.epoch.0, position.sequence.0])
            .map_err(wrong)?;
        Ok(())
    }

    /// Whether there is a journal that begins behind this position.
    #[must_use]
    pub fn is_at(path: &Path, position: Position) -> bool {
        path.exists()
            && SqliteJournal::open_file(path).is_ok_and(|journal| journal.trimmed == position)
    }

    fn open_file(path: &Path) -> Result<SqliteJournal, JournalError> {
        let wrong = |fault| sqlite_fault(path, fault);
        check_log(path)?;
        let mut db = Connection::open(path).map_err(wrong)?;
        check_format(&db, path)?;
        prepare(&mut db).map_err(wrong)?;
        let (epoch, trimmed) = db
            .query_row("SELECT epoch, trimmed_epoch, trimmed FROM meta", (), |row| {
                let trimmed =
                    Position { epoch: Epoch(row.get(1)?), sequence: Sequence(row.get(2)?) };
                Ok((Epoch(row.get(0)?), trimmed))
            })
            .map_err(wrong)?;
        let head = check_sequences(&db, path, trimmed)?;
        let litter = true;
        let epoch = epoch.max(head.epoch);
        Ok(SqliteJournal { db, path: path.to_owned(), head, trimmed, epoch, litter, _dir: None })
    }

    /// The position up to which it has been trimmed.
    #[must_use]
    pub fn trimmed(&self) -> Position {
        self.trimmed
    }

    fn write(&mut self, batch: &Batch) -> rusqlite::Result<usize> {
        let transaction = self.db.transaction()?;
        transaction
            .prepare_cached("INSERT INTO batches (last, first, epoch, sealed) VALUES (?, ?, ?, ?)")?
            .execute(params![batch.last.0, batch.first.0, batch.epoch.0, batch.sealed])?;
        let mut removed = 0;
        if self.litter {
            removed = transaction
                .prepare_cached(
                    "DELETE FROM batches WHERE last IN
                     (SELECT last FROM batches WHERE last <= ? ORDER BY last LIMIT ?)",
                )?
                .execute(params![self.trimmed.sequence.0, REMOVED_PER_APPEND])?;
        }
        transaction.commit()?;
        Ok(removed)
    }

    fn holds(&self, batch: &Batch) -> rusqlite::Result<bool> {
        let found: Option<(u64, u64, Vec<u8>)> = self
            .db
            .prepare_cached("SELECT first, epoch, sealed FROM batches WHERE last = ?")?
            .query_row([batch.last.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        Ok(found.is_some_and(|(first, epoch, sealed)| {
            first == batch.first.0 && epoch == batch.epoch.0 && sealed == batch.sealed
        }))
    }
}

impl Journal for SqliteJournal {
    fn head(&self) -> Position {
        self.head
    }

    fn append(&mut self, batch: &Batch) -> Result<(), JournalError> {
        if batch.epoch < self.epoch {
            return Err(JournalError::Fenced { claimed: self.epoch, own: batch.epoch });
        }
        // A commit that seemed to fail may have worked.
        if batch.last == self.head.sequence
            && self.holds(batch).map_err(|fault| sqlite_fault(&self.path, fault))?
        {
            return Ok(());
        }
        check_order(self.head, batch);
        let removed = self.write(batch).map_err(|fault| sqlite_fault(&self.path, fault))?;
        self.litter = self.litter && removed > 0;
        self.epoch = batch.epoch;
        self.head = Position { epoch: batch.epoch, sequence: batch.last };
        Ok(())
    }

    fn claim(&mut self, epoch: Epoch) -> Result<(), JournalError> {
        if epoch <= self.epoch {
            return Err(JournalError::Fenced { claimed: self.epoch, own: epoch });
        }
        self.db
            .execute("UPDATE meta SET epoch = ?", [epoch.0])
            .map_err(|fault| sqlite_fault(&self.path, fault))?;
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
            return Err(gone(self.path.clone(), after, self.trimmed.sequence));
        }
        let path = &self.path;
        let wrong = |fault| sqlite_fault(path, fault);
        let mut rows = self
            .db
            .prepare("SELECT first, last, epoch, sealed FROM batches WHERE last > ? ORDER BY last")
            .map_err(wrong)?;
        let mut rows = rows.query([after.0]).map_err(wrong)?;
        while let Some(row) = rows.next().map_err(wrong)? {
            let batch = batch(row).map_err(wrong)?;
            codec::check(Kind::Steps, &batch.sealed)
                .map_err(|fault| unopened(path.clone(), batch.first, &fault))?;
            visit(batch)?;
        }
        Ok(())
    }

    fn trim(&mut self, through: Sequence) -> Result<(), JournalError> {
        let wrong = |fault| sqlite_fault(&self.path, fault);
        let mark: Option<(u64, u64)> = self
            .db
            .prepare_cached(
                "SELECT last, epoch FROM batches WHERE last <= ? ORDER BY last DESC LIMIT 1",
            )
            .and_then(|mut found| {
                found.query_row([through.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(wrong)?;
        let Some((last, epoch)) = mark.filter(|(last, _)| *last > self.trimmed.sequence.0) else {
            return Ok(());
        };
        self.db
            .prepare_cached("UPDATE meta SET trimmed = ?, trimmed_epoch = ?")
            .and_then(|mut update| update.execute([last, epoch]))
            .map_err(wrong)?;
        self.trimmed = Position { epoch: Epoch(epoch), sequence: Sequence(last) };
        self.litter = true;
        Ok(())
    }
}

fn batch(row: &rusqlite::Row<'_>) -> rusqlite::Result<Batch> {
    Ok(Batch {
        first: Sequence(row.get(0)?),
        last: Sequence(row.get(1)?),
        epoch: Epoch(row.get(2)?),
        sealed: row.get(3)?,
    })
}

/// Refuses a log that would be read in part only.
fn check_log(path: &Path) -> Result<(), JournalError> {
    let path = path.to_owned();
    match wal::damage(&path) {
        Ok(None) => Ok(()),
        Ok(Some(what)) => Err(JournalError::Damaged { path, what }),
        Err(source) => Err(JournalError::Io { path, source }),
    }
}

/// Refuses what is not a journal of a form that is known. Before anything is written to it.
fn check_format(db: &Connection, path: &Path) -> Result<(), JournalError> {
    let number = |name: &str| -> Result<u32, JournalError> {
        db.pragma_query_value(None, name, |row| row.get(0))
            .map_err(|fault| sqlite_fault(path, fault))
    };
    let (application, format) = (number("application_id")?, number("user_version")?);
    if application == 0 && format == 0 && number("schema_version")? == 0 {
        return Ok(());
    }
    if application != APPLICATION_ID {
        let what = "it is a database, but no journal of MAOS".to_owned();
        return Err(JournalError::Damaged { path: path.to_owned(), what });
    }
    if format > FORMAT {
        return Err(JournalError::TooNew { path: path.to_owned(), found: format, known: FORMAT });
    }
    Ok(())
}

fn prepare(db: &mut Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    let format: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if format == 0 {
        let transaction = db.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
        transaction.commit()?;
    }
    Ok(())
}

/// The head, once every batch behind the mark follows on the one before. Reads no batch's bytes:
/// those that are needed are checked when they are replayed.
fn check_sequences(
    db: &Connection,
    path: &Path,
    trimmed: Position,
) -> Result<Position, JournalError> {
    let wrong = |fault| sqlite_fault(path, fault);
    let mut head = trimmed;
    let mut rows = db
        .prepare("SELECT first, last, epoch FROM batches WHERE last > ? ORDER BY last")
        .map_err(wrong)?;
    let mut rows = rows.query([trimmed.sequence.0]).map_err(wrong)?;
    while let Some(row) = rows.next().map_err(wrong)? {
        let get = |column| row.get::<_, u64>(column).map_err(wrong);
        let (first, last, epoch) = (get(0)?, get(1)?, get(2)?);
        let follows = first == head.sequence.0 + 1 && last >= first && epoch >= head.epoch.0;
        if !follows {
            let what =
                format!("after {head} comes a batch {epoch}-{first} to {last}, one is missing");
            return Err(JournalError::Damaged { path: path.to_owned(), what });
        }
        head = Position { epoch: Epoch(epoch), sequence: Sequence(last) };
    }
    Ok(head)
}

fn sqlite_fault(path: &Path, source: rusqlite::Error) -> JournalError {
    let path = path.to_owned();
    if let Fault::FromSqlConversionFailure(..)
    | Fault::IntegralValueOutOfRange(..)
    | Fault::InvalidColumnType(..)
    | Fault::QueryReturnedNoRows = source
    {
        return JournalError::Damaged { path, what: source.to_string() };
    }
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => JournalError::Full { path, source },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            JournalError::Damaged { path, what: source.to_string() }
        }
        Some(_) | None => JournalError::Sqlite { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    fn opened(path: &Path) -> SqliteJournal {
        SqliteJournal::open(&Arc::new(DataDir::open(path).unwrap())).unwrap()
    }

    fn refusal(path: &Path) -> String {
        let dir = Arc::new(DataDir::open(path).unwrap());
        SqliteJournal::open(&dir).unwrap_err().to_string()
    }

    #[test]
    fn it_keeps_the_contract() {
        contract::check(&mut || {
            let folder = tempfile::tempdir().unwrap();
            let journal = opened(folder.path());
            (journal, folder)
        });
    }

    #[test]
    fn everything_is_there_again_after_opening_it_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = opened(folder.path());
        journal.claim(Epoch(3)).unwrap();
        for (first, last) in [(1, 2), (3, 3), (4, 9)] {
            journal.append(&contract::batch(3, first, last)).unwrap();
        }
        drop(journal);
        let mut journal = opened(folder.path());
        assert_eq!(journal.epoch(), Epoch(3));
        assert_eq!(contract::firsts(&mut journal, 2), [3, 4]);
        journal.trim(Sequence(9)).unwrap();
        drop(journal);
        let mut journal = opened(folder.path());
        assert_eq!(journal.head(), Position { epoch: Epoch(3), sequence: Sequence(9) });
        journal.append(&contract::batch(3, 10, 10)).unwrap();
        drop(journal);
        let left: u64 = Connection::open(folder.path().join("journal.db"))
            .unwrap()
            .query_row("SELECT count(*) FROM batches", (), |row| row.get(0))
            .unwrap();
        assert_eq!(left, 1, "trimmed rows go with the next appends");
    }

    #[test]
    fn damage_is_refused_by_name_when_it_is_opened() {
        for (sql, said) in [
            ("DELETE FROM batches WHERE last = 2", "one is missing"),
            ("UPDATE batches SET epoch = 0 WHERE last = 2", "one is missing"),
            ("PRAGMA application_id = 5", "no journal of MAOS"),
            ("PRAGMA user_version = 9", "has format 9"),
            ("DELETE FROM meta", "is damaged"),
            ("UPDATE meta SET epoch = -1", "is damaged"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let mut journal = opened(folder.path());
            for step in 1..=3 {
                journal.append(&contract::batch(1, step, step)).unwrap();
            }
            drop(journal);
            let file = folder.path().join("journal.db");
            Connection::open(&file).unwrap().execute_batch(sql).unwrap();
            let refusal = refusal(folder.path());
            assert!(refusal.contains(said), "{sql}: {refusal}");
        }
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(opened(folder.path()));
        std::fs::write(folder.path().join("journal.db"), [b'x'; 9_000]).unwrap();
        let refusal = refusal(folder.path());
        assert!(refusal.contains("is damaged") && refusal.contains("hint: "), "{refusal}");
    }

    #[test]
    fn altered_bytes_stop_the_replay_before_they_are_visited() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = opened(folder.path());
        for step in 1..=3 {
            journal.append(&contract::batch(1, step, step)).unwrap();
        }
        journal.db.execute("UPDATE batches SET sealed = x'00' WHERE last = 2", ()).unwrap();
        let mut visited = 0;
        let fault = journal.replay(Sequence(0), &mut |_| {
            visited += 1;
            Ok(())
        });
        assert!(matches!(fault, Err(JournalError::Damaged { .. })));
        assert_eq!(visited, 1);
    }

    #[test]
    fn a_full_disk_refuses_and_the_same_batch_is_taken_later() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = opened(folder.path());
        journal.append(&contract::batch(1, 1, 1)).unwrap();
        let limit = |journal: &SqliteJournal, pages: u32| {
            journal.db.pragma_update(None, "max_page_count", pages).unwrap();
        };
        limit(&journal, 4);
        // Does not shrink, so that it needs more pages than there are.
        let mut noise = vec![0; 40_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let sealed = codec::seal(Kind::Steps, &noise);
        let batch = Batch { sealed, ..contract::batch(1, 2, 2) };
        assert!(matches!(journal.append(&batch), Err(JournalError::Full { .. })));
        assert_eq!(journal.head().sequence, Sequence(1));
        limit(&journal, 1_000_000);
        journal.append(&batch).unwrap();
        assert_eq!(contract::firsts(&mut journal, 0), [1, 2]);
    }
}
