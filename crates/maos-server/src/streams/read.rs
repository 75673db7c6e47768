//! Reading: pages of entries, and how streams stand. Never in the writer's way.

use std::path::Path;

use maos_core::ids::NodeId;
use rusqlite::{Connection, OptionalExtension, params};

use super::table::{self, now};
use super::{StreamError, Streams, Totals};
use crate::codec::{self, Kind};

/// Connections that are kept for the next reader.
const IDLE_MAX: usize = 2;
/// Bytes of entries in one page; a single one may have more.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// An entry that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its place.
    pub offset: u64,
    /// Microseconds of the calendar after which it is gone.
    pub expires: Option<u64>,
    /// What it says.
    pub body: Vec<u8>,
}

/// A part of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their offsets.
    pub entries: Vec<Read>,
    /// Where to go on.
    pub next: u64,
    /// Whether there is nothing behind it by now.
    pub at_end: bool,
    /// What the reader has acknowledged, if one was named and is known.
    pub acknowledged: Option<u64>,
}

/// How a stream stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// The offset that the next entry gets.
    pub next: u64,
    /// Entries that are kept and have not expired.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Its known readers.
    pub readers: Vec<ReaderStanding>,
    /// The node that began it; `None`: it began when that was not noted.
    pub node: Option<NodeId>,
}

/// How a reader of a stream stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderStanding {
    /// Its name.
    pub name: String,
    /// The offset before which it has acknowledged all.
    pub acknowledged: u64,
    /// Entries that it would still read.
    pub waiting: u64,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum From<'r> {
    Offset(u64),
    /// The same, and what this reader has acknowledged is told.
    OffsetFor(u64, &'r str),
    /// Behind what this reader has acknowledged.
    Reader(&'r str),
}

impl Streams {
    /// Up to `limit` entries from the offset `from` on. Blocks; call it where that is fine.
    ///
    /// # Errors
    /// What is damaged or failed.
    pub fn read(&self, stream: &str, from: u64, limit: u32) -> Result<Page, StreamError> {
        self.page(stream, From::Offset(from), limit)
    }

    /// The same behind what `reader` has acknowledged.
    ///
    /// # Errors
    /// What is damaged or failed.
    pub fn read_on(&self, stream: &str, reader: &str, limit: u32) -> Result<Page, StreamError> {
        self.page(stream, From::Reader(reader), limit)
    }

    /// From the offset `from` on, and what `reader` has acknowledged.
    ///
    /// # Errors
    /// What is damaged or failed.
    pub fn read_for(
        &self,
        stream: &str,
        reader: &str,
        from: u64,
        limit: u32,
    ) -> Result<Page, StreamError> {
        self.page(stream, From::OffsetFor(from, reader), limit)
    }

    /// How a stream stands; `None` if there is none.
    ///
    /// # Errors
    /// What is damaged or failed.
    pub fn standing(&self, stream: &str) -> Result<Option<Standing>, StreamError> {
        let found = self.with_reader(|db, _| {
            let sql = "SELECT id, name, next, entries, bytes, node FROM streams WHERE name = ?";
            let row = db.prepare_cached(sql)?.query_row([stream], standing).optional()?;
            row.map(|(id, found)| with_readers(db, id, found)).transpose()
        })?;
        Ok(found.flatten())
    }

    /// The same without blocking.
    ///
    /// # Errors
    /// What is damaged or failed.
    pub async fn standing_of(&self, stream: &str) -> Result<Option<Standing>, StreamError> {
        let (streams, stream) = (self.clone(), stream.to_owned());
        let found = tokio::task::spawn_blocking(move || streams.standing(&stream)).await;
        found.unwrap_or(Err(StreamError::Closed))
    }

    /// How streams stand whose names begin with `prefix`, behind the name `after`, by name.
    ///
    /// # Errors
    /// What is damaged or failed.
    pub fn standings(
        &self,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Standing>, StreamError> {
        let found = self.with_reader(|db, _| {
            let sql = "SELECT id, name, next, entries, bytes, node FROM streams
                       WHERE name > ?1 AND name >= ?2 AND name < ?3 ORDER BY name LIMIT ?4";
            let end = format!("{prefix}\u{10ffff}");
            let mut query = db.prepare_cached(sql)?;
            let rows = query.query_map(params![after, prefix, end, limit], standing)?;
            let rows: Vec<(i64, Standing)> = rows.collect::<rusqlite::Result<_>>()?;
            rows.into_iter().map(|(id, found)| with_readers(db, id, found)).collect()
        })?;
        Ok(found.unwrap_or_default())
    }

    /// Everything together.
    ///
    /// # Errors
    /// What is damaged or failed.
    pub fn totals(&self) -> Result<Totals, StreamError> {
        Ok(self.with_reader(|db, _| totals(db))?.unwrap_or_default())
    }

    /// What is kept under names that begin with `prefix`.
    ///
    /// # Errors
    /// What is damaged or failed.
    pub fn facts(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StreamError> {
        let found = self.with_reader(|db, _| {
            let sql = "SELECT name, sealed FROM facts WHERE name >= ?1 AND name < ?2 ORDER BY name";
            let end = format!("{prefix}\u{10ffff}");
            let mut query = db.prepare_cached(sql)?;
            let rows = query.query_map([prefix, &end], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<(String, Vec<u8>)>>>()
        })?;
        let opened = found.unwrap_or_default().into_iter().map(|(name, sealed)| {
            let body = codec::open(Kind::StreamEntry, &sealed)
                .map_err(|fault| StreamError::codec(&self.inner.path, &name, 0, &fault))?
                .into_owned();
            Ok((name, body))
        });
        opened.collect()
    }

    fn page(&self, stream: &str, from: From<'_>, limit: u32) -> Result<Page, StreamError> {
        let nothing = match from {
            From::Offset(offset) | From::OffsetFor(offset, _) => offset,
            From::Reader(_) => 0,
        };
        let empty = Page { next: nothing, at_end: true, ..Page::default() };
        let found = self.with_reader(|db, path| page(db, path, stream, from, limit))?;
        found.unwrap_or(Ok(Some(empty.clone()))).map(|page| page.unwrap_or(empty))
    }

    /// Does something with a connection; `None` if there is no file.
    fn with_reader<T>(
        &self,
        work: impl FnOnce(&Connection, &Path) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StreamError> {
        let path = &self.inner.path;
        let kept = self.connections().pop();
        let db = match kept {
            Some(db) => db,
            None => match table::open_reader(path)? {
                Some(db) => db,
                None => return Ok(None),
            },
        };
        // What is read in several steps is read as of one moment.
        let done = db.unchecked_transaction().and_then(|transaction| {
            let done = work(&transaction, path)?;
            transaction.finish()?;
            Ok(done)
        });
        let done = match done {
            Ok(done) => done,
            // The writer is about to make the tables.
            Err(fault) if fault.to_string().contains("no such table") => return Ok(None),
            Err(fault) => return Err(StreamError::sqlite(path, &fault)),
        };
        let mut idle = self.connections();
        if idle.len() < IDLE_MAX {
            idle.push(db);
        }
        Ok(Some(done))
    }
}

fn standing(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, Standing)> {
    let node: Option<[u8; 16]> = row.get(5)?;
    let found = Standing {
        node: node.map(|id| NodeId(u128::from_be_bytes(id))),
        name: row.get(1)?,
        next: row.get(2)?,
        entries: row.get(3)?,
        bytes: row.get(4)?,
        readers: Vec::new(),
    };
    Ok((row.get(0)?, found))
}

/// Adds who reads a stream, and takes off what has expired and is not cleared away yet.
fn with_readers(db: &Connection, id: i64, found: Standing) -> rusqlite::Result<Standing> {
    let now = now();
    let sql = "SELECT count(*), coalesce(sum(length(sealed)), 0)
               FROM entries INDEXED BY entries_by_expiry
               WHERE expires IS NOT NULL AND expires <= ?1 AND stream = ?2";
    let expired: (u64, u64) = db
        .prepare_cached(sql)?
        .query_row(params![now, id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let sql = "SELECT coalesce(min(offset), 0) FROM entries WHERE stream = ?";
    let first: u64 = db.prepare_cached(sql)?.query_row([id], |row| row.get(0))?;
    let whole = expired.0 == 0 && found.next.saturating_sub(first) == found.entries;
    let sql = "SELECT name, acknowledged FROM readers WHERE stream = ? ORDER BY name";
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut readers = Vec::new();
    for row in rows {
        let (name, acknowledged): (String, u64) = row?;
        let waiting = if whole {
            found.next.saturating_sub(acknowledged.max(first))
        } else {
            // Entries are cleared away wherever they are: offsets alone do not say how many wait.
            let sql = "SELECT count(*) FROM entries WHERE stream = ? AND offset >= ?
                       AND (expires IS NULL OR expires > ?)";
            let bound = params![id, acknowledged, now];
            db.prepare_cached(sql)?.query_row(bound, |row| row.get(0))?
        };
        readers.push(ReaderStanding { name, acknowledged, waiting });
    }
    let entries = found.entries.saturating_sub(expired.0);
    let bytes = found.bytes.saturating_sub(expired.1);
    Ok(Standing { entries, bytes, readers, ..found })
}

/// What has expired and is not cleared away yet counts nowhere. Offsets tell how many entries wait
/// for a reader where none is missing between; elsewhere they are counted one by one.
const TOTALS: &str = "
    WITH expired AS MATERIALIZED (
        SELECT stream, count(*) AS entries, sum(length(sealed)) AS bytes
        FROM entries INDEXED BY entries_by_expiry
        WHERE expires IS NOT NULL AND expires <= ?1 GROUP BY stream
    ), slowest AS MATERIALIZED (
        SELECT stream, min(acknowledged) AS seen FROM readers GROUP BY stream
    )
    SELECT count(*),
           coalesce(sum(max(streams.entries - coalesce(expired.entries, 0), 0)), 0),
           coalesce(sum(max(streams.bytes - coalesce(expired.bytes, 0), 0)), 0),
           coalesce(sum(CASE
               WHEN seen IS NULL THEN max(streams.entries - coalesce(expired.entries, 0), 0)
               WHEN expired.entries IS NULL AND streams.entries = next - (
                   SELECT min(offset) FROM entries WHERE stream = streams.id)
               THEN min(streams.entries, next - seen)
               ELSE (SELECT count(*) FROM entries WHERE stream = streams.id AND offset >= seen
                     AND (expires IS NULL OR expires > ?1))
           END), 0)
    FROM streams LEFT JOIN expired ON expired.stream = streams.id
    LEFT JOIN slowest ON slowest.stream = streams.id";

pub(super) fn totals(db: &Connection) -> rusqlite::Result<Totals> {
    db.query_row(TOTALS, [now()], |row| {
        let (streams, entries) = (row.get(0)?, row.get(1)?);
        Ok(Totals { streams, entries, bytes: row.get(2)?, unread: row.get(3)? })
    })
}

fn page(
    db: &Connection,
    path: &Path,
    stream: &str,
    from: From<'_>,
    limit: u32,
) -> rusqlite::Result<Result<Option<Page>, StreamError>> {
    let sql = "SELECT id, next FROM streams WHERE name = ?";
    let known: Option<(i64, u64)> = db
        .prepare_cached(sql)?
        .query_row([stream], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((id, end)) = known else { return Ok(Ok(None)) };
    let known = |reader: &str| -> rusqlite::Result<Option<u64>> {
        let sql = "SELECT acknowledged FROM readers WHERE stream = ? AND name = ?";
        db.prepare_cached(sql)?.query_row(params![id, reader], |row| row.get(0)).optional()
    };
    let (from, acknowledged) = match from {
        From::Offset(offset) => (offset, None),
        From::OffsetFor(offset, reader) => (offset, known(reader)?),
        From::Reader(reader) => {
            let known = known(reader)?;
            (known.unwrap_or(0), known)
        }
    };
    let sql = "SELECT offset, expires, sealed FROM entries WHERE stream = ?1 AND offset >= ?2
               AND (expires IS NULL OR expires > ?3) ORDER BY offset LIMIT ?4";
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query(params![id, from, now(), limit])?;
    let (mut entries, mut bytes) = (Vec::new(), 0);
    let mut at_end = true;
    while let Some(row) = rows.next()? {
        let (offset, expires) = (row.get(0)?, row.get(1)?);
        let sealed = row.get_ref(2)?.as_blob()?;
        let body = match codec::open(Kind::StreamEntry, sealed) {
            Ok(body) => body.into_owned(),
            Err(fault) => return Ok(Err(StreamError::codec(path, stream, offset, &fault))),
        };
        bytes += body.len();
        if bytes > PAGE_BYTES_MAX && !entries.is_empty() {
            at_end = false;
            break;
        }
        entries.push(Read { offset, expires, body });
    }
    let last = entries.last().map(|entry| entry.offset + 1);
    let full = u32::try_from(entries.len()).is_ok_and(|count| count >= limit);
    at_end &= !full || last.is_some_and(|last| last >= end);
    let next = if at_end { end.max(from) } else { last.unwrap_or(from) };
    Ok(Ok(Some(Page { entries, next, at_end, acknowledged })))
}
