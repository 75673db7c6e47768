//! The tables of a file of streams, and how it is opened.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};

use super::{Durability, StreamError};

/// The newest form of the file that this release knows.
const FORMAT: u32 = 2;
/// `MAOE`, so that no other database is taken for ours.
const APPLICATION_ID: u32 = 0x4D41_4F45;
/// Pages in the WAL that start a checkpoint.
const CHECKPOINT_PAGES: u32 = 1_000;
/// The WAL file is cut back to this after a checkpoint.
const WAL_BYTES_KEPT: u32 = 16 << 20;
/// Memory for pages, in KiB.
const WRITER_CACHE_KIB: i32 = 1_024;
const READER_CACHE_KIB: i32 = 256;

const SCHEMA: &str = "
    CREATE TABLE streams (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        next INTEGER NOT NULL,
        entries INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        closed INTEGER NOT NULL,
        touched INTEGER NOT NULL,
        node BLOB
    ) STRICT;
    CREATE INDEX streams_with_entries ON streams (id) WHERE entries > 0;
    CREATE TABLE entries (
        stream INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        expires INTEGER,
        sealed BLOB NOT NULL,
        PRIMARY KEY (stream, offset)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX entries_by_expiry ON entries (expires) WHERE expires IS NOT NULL;
    CREATE TABLE readers (
        stream INTEGER NOT NULL,
        name TEXT NOT NULL,
        acknowledged INTEGER NOT NULL,
        PRIMARY KEY (stream, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE keys (
        key TEXT PRIMARY KEY,
        hash BLOB NOT NULL,
        note BLOB NOT NULL,
        offset INTEGER NOT NULL,
        until INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX keys_by_end ON keys (until);
    CREATE TABLE facts (
        name TEXT PRIMARY KEY,
        sealed BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// Opens the file to write it, and makes it if it is not there.
pub(super) fn open(path: &Path, durability: Durability) -> Result<Connection, StreamError> {
    let wrong = |fault| StreamError::sqlite(path, &fault);
    let mut db = Connection::open(path).map_err(wrong)?;
    check_format(&db, path)?;
    prepare(&mut db, durability).map_err(wrong)?;
    Ok(db)
}

/// Opens the file to read it; `None` if it is not there.
pub(super) fn open_reader(path: &Path) -> Result<Option<Connection>, StreamError> {
    if !path.exists() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let wrong = |fault| StreamError::sqlite(path, &fault);
    let db = Connection::open_with_flags(path, flags).map_err(wrong)?;
    db.pragma_update(None, "cache_size", -READER_CACHE_KIB).map_err(wrong)?;
    db.pragma_update(None, "query_only", 1).map_err(wrong)?;
    db.busy_timeout(Duration::from_secs(5)).map_err(wrong)?;
    Ok(Some(db))
}

/// The calendar's time in microseconds.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Refuses what is no file of streams of a form that is known, before anything is written to it.
fn check_format(db: &Connection, path: &Path) -> Result<(), StreamError> {
    let number = |name: &str| -> Result<u32, StreamError> {
        db.pragma_query_value(None, name, |row| row.get(0))
            .map_err(|fault| StreamError::sqlite(path, &fault))
    };
    let (application, format) = (number("application_id")?, number("user_version")?);
    if application == 0 && format == 0 && number("schema_version")? == 0 {
        return Ok(());
    }
    let path = path.to_owned();
    if application != APPLICATION_ID {
        let what = "it is a database, but none of streams of MAOS".to_owned();
        return Err(StreamError::Damaged { path, what });
    }
    if format > FORMAT {
        return Err(StreamError::TooNew { path, found: format, known: FORMAT });
    }
    Ok(())
}

fn prepare(db: &mut Connection, durability: Durability) -> rusqlite::Result<()> {
    let synchronous = match durability {
        Durability::Synced => "full",
        Durability::Written => "normal",
    };
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", synchronous)?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    db.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    db.busy_timeout(Duration::from_secs(5))?;
    let format: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if format < FORMAT {
        let transaction = db.transaction()?;
        match format {
            0 => transaction.execute_batch(SCHEMA)?,
            // Of streams that began before nobody knows on which node.
            _ => transaction.execute_batch("ALTER TABLE streams ADD COLUMN node BLOB")?,
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
        transaction.commit()?;
    }
    // Fails where the tables are not what the format says.
    db.query_row("SELECT count(node) FROM streams WHERE id < 0", (), |_| Ok(()))
}
