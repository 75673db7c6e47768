//! The one thread that writes a file of streams: requests gather while the last commit is on its
//! way, and all that have come go into the next.
//!
//! Its law: whoever is answered well is in the file; when a commit fails, everybody in it is told.
//! It sleeps while there is nothing to do; what has expired is cleared away at most once a minute.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::table::{self, now};
use super::{Appended, AtTotal, LastFault, Once, Options, Room, StreamError, Watched, read};
use crate::codec::{self, Kind};

/// Requests that go into one commit.
const COMMIT_REQUESTS_MAX: usize = 4_096;
/// Bytes of entries after which a commit is not made larger.
const COMMIT_BYTES_MAX: u64 = 4 << 20;
/// How often what has expired is cleared away, at most.
const CLEAR_EVERY: Duration = Duration::from_secs(60);
/// What is not due before that is looked for again then.
const CLEAR_LATEST: Duration = Duration::from_secs(24 * 3_600);
/// Entries that are cleared away in one commit.
const CLEARED_MAX: u32 = 2_000;
/// For so long a full stream is not counted again.
const FULL_FOR: Duration = Duration::from_millis(100);
/// Streams without entries that nobody has touched for so long are removed.
const UNTOUCHED_US: u64 = 30 * 24 * 3_600 * 1_000_000;
/// Streams in one file.
const STREAMS_MAX: u64 = 4_000_000;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StreamError>>;

/// An entry in the stored form.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) expires: Option<u64>,
    pub(super) bytes: Vec<u8>,
}

/// Bytes that wait to be written, until it is dropped.
#[derive(Debug)]
pub(super) struct Pending {
    all: Arc<AtomicU64>,
    bytes: u64,
}

#[derive(Debug)]
pub(super) struct Append {
    pub(super) stream: String,
    pub(super) entries: Vec<Sealed>,
    pub(super) room: Room,
    pub(super) once: Option<Once>,
    pub(super) held: Pending,
    pub(super) reply: Reply<Appended>,
}

#[derive(Debug)]
pub(super) enum Request {
    Append(Append),
    Acknowledge { stream: String, reader: String, offset: u64, reply: Reply<u64> },
    Forget { stream: String, reader: String, reply: Reply<()> },
    Trim { stream: String, before: u64, reply: Reply<()> },
    Remove { streams: Vec<String>, reply: Option<Reply<()>> },
    Keep { name: String, body: Option<Vec<u8>>, reply: Reply<()> },
    Flush { reply: Reply<()> },
}

/// The thread. Ends, with all that was sent, when it is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    inbox: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Pending {
    pub(super) fn new(all: &Arc<AtomicU64>, bytes: u64) -> Pending {
        all.fetch_add(bytes, Ordering::Relaxed);
        Pending { all: all.clone(), bytes }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Writer {
    pub(super) fn start(
        path: PathBuf,
        options: Options,
        watched: Arc<Watched>,
        fault: Arc<LastFault>,
    ) -> Result<Writer, StreamError> {
        let db = table::open(&path, options.durability)?;
        let totals = read::totals(&db).map_err(|fault| StreamError::sqlite(&path, &fault))?;
        let (inbox, requests) = mpsc::channel();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let desk = Desk {
            db,
            path: path.clone(),
            options,
            bytes: totals.bytes,
            streams: totals.streams,
            full: HashMap::new(),
            clear_at: Some(Instant::now() + CLEAR_EVERY),
            fault,
        };
        let thread = std::thread::Builder::new()
            .name(format!("maos-{name}"))
            .spawn(move || desk.run(&requests, &watched))
            .map_err(|fault| StreamError::Failed { path, what: fault.to_string() })?;
        Ok(Writer { inbox: Some(inbox), thread: Some(thread) })
    }

    /// Whether its thread is gone: a panic ended it.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    pub(super) fn send(&self, request: Request) -> Result<(), StreamError> {
        let inbox = self.inbox.as_ref().ok_or(StreamError::Closed)?;
        inbox.send(request).map_err(|_| StreamError::Closed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.inbox = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been told by its hook; there is nobody to hand it on to.
            drop(thread.join());
        }
    }
}

/// What a request came to, told once its commit is through.
type Told = Box<dyn FnOnce(Result<(), StreamError>)>;

struct Desk {
    db: Connection,
    path: PathBuf,
    options: Options,
    /// Of all entries.
    bytes: u64,
    streams: u64,
    /// Streams that were full when they were counted, with what was acknowledged then.
    full: HashMap<i64, (Instant, u64)>,
    clear_at: Option<Instant>,
    fault: Arc<LastFault>,
}

/// A stream's row.
#[derive(Clone, Copy)]
struct Row {
    id: i64,
    next: u64,
    entries: u64,
    bytes: u64,
    closed: bool,
}

impl Desk {
    fn run(mut self, requests: &mpsc::Receiver<Request>, watched: &Watched) {
        let mut batch = Vec::new();
        loop {
            let first = match self.clear_at {
                None => requests.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some(at) => requests.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match first {
                Ok(first) => batch.push(first),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.clear();
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            let mut bytes = 0;
            while batch.len() < COMMIT_REQUESTS_MAX && bytes < COMMIT_BYTES_MAX {
                let Ok(request) = requests.try_recv() else { break };
                if let Request::Append(append) = &request {
                    bytes += append.held.bytes;
                }
                batch.push(request);
            }
            self.commit(&mut batch, watched);
        }
    }

    fn commit(&mut self, batch: &mut Vec<Request>, watched: &Watched) {
        let before = (self.bytes, self.streams);
        // One that only waits for its turn says nothing of the disk.
        let writes = batch.iter().any(|request| !matches!(request, Request::Flush { .. }));
        let mut told: Vec<Told> = Vec::with_capacity(batch.len());
        let mut longer: HashMap<String, u64> = HashMap::new();
        let mut fault = self.db.execute_batch("BEGIN IMMEDIATE").err();
        for request in batch.drain(..) {
            if let Some(fault) = &fault {
                let error = StreamError::sqlite(&self.path, fault);
                told.push(refuse(request, error));
                continue;
            }
            let (tell, failed) = self.carry_out(request, &mut longer);
            fault = failed;
            told.push(tell);
        }
        if fault.is_none() {
            fault = self.db.execute_batch("COMMIT").err();
        }
        let outcome = match &fault {
            None => Ok(()),
            Some(fault) => {
                // Where there is no transaction any more, there is nothing to take back.
                drop(self.db.execute_batch("ROLLBACK"));
                (self.bytes, self.streams) = before;
                let error = StreamError::sqlite(&self.path, fault);
                error!("{error}");
                self.clear_by(0);
                Err(error)
            }
        };
        if writes {
            self.fault.note(outcome.as_ref().err());
        }
        for tell in told {
            tell(outcome.clone());
        }
        if outcome.is_ok() {
            for (stream, next) in longer {
                watched.tell(&stream, next);
            }
        }
    }

    /// Does what is asked for within the open transaction. The fault that spoils it comes second.
    fn carry_out(
        &mut self,
        request: Request,
        longer: &mut HashMap<String, u64>,
    ) -> (Told, Option<rusqlite::Error>) {
        match request {
            Request::Append(append) => {
                let Append { stream, entries, room, once, held, reply } = append;
                let done = self.append(&stream, &entries, room, once, longer);
                drop((entries, held));
                settle(done, reply)
            }
            Request::Acknowledge { stream, reader, offset, reply } => {
                let done = self.acknowledge(&stream, &reader, offset);
                settle(done.map(Ok), reply)
            }
            Request::Forget { stream, reader, reply } => {
                let sql = "DELETE FROM readers WHERE name = ?2
                           AND stream IN (SELECT id FROM streams WHERE name = ?1)";
                let done = self.execute(sql, params![stream, reader]);
                settle(done.map(Ok), reply)
            }
            Request::Trim { stream, before, reply } => {
                let done = self.trim(&stream, before);
                settle(done.map(Ok), reply)
            }
            Request::Remove { streams, reply } => {
                let done = streams.iter().try_for_each(|stream| self.remove(stream));
                match reply {
                    Some(reply) => settle(done.map(Ok), reply),
                    None => (Box::new(|_| ()), done.err()),
                }
            }
            Request::Keep { name, body, reply } => {
                let done = match body {
                    Some(body) => self.execute(
                        "INSERT OR REPLACE INTO facts (name, sealed) VALUES (?, ?)",
                        params![name, body],
                    ),
                    None => self.execute("DELETE FROM facts WHERE name = ?", [name]),
                };
                settle(done.map(Ok), reply)
            }
            Request::Flush { reply } => settle(Ok(Ok(())), reply),
        }
    }

    fn execute(&self, sql: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<()> {
        self.db.prepare_cached(sql)?.execute(parameters).map(drop)
    }

    fn row(&self, stream: &str) -> rusqlite::Result<Option<Row>> {
        self.db
            .prepare_cached("SELECT id, next, entries, bytes, closed FROM streams WHERE name = ?")?
            .query_row([stream], |row| {
                let (id, next, entries) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Row { id, next, entries, bytes: row.get(3)?, closed: row.get(4)? })
            })
            .optional()
    }

    fn append(
        &mut self,
        stream: &str,
        entries: &[Sealed],
        room: Room,
        once: Option<Once>,
        longer: &mut HashMap<String, u64>,
    ) -> rusqlite::Result<Result<Appended, StreamError>> {
        if let Some(once) = &once
            && let Some(before) = self.before(once)?
        {
            return Ok(before);
        }
        let known = self.row(stream)?;
        let added: u64 = entries.iter().map(|entry| entry.bytes.len() as u64).sum();
        if let Room::Unread(bound) = room
            && let Some(row) = known
            && let Some(unread) = self.overfull(row, entries.len() as u64, bound)?
        {
            return Ok(Err(StreamError::Unread { stream: stream.to_owned(), unread, bound }));
        }
        if !self.make_room(added)? || (known.is_none() && self.streams >= STREAMS_MAX) {
            let (path, bytes) = (self.path.clone(), self.bytes);
            return Ok(Err(StreamError::Total { path, bytes, bound: self.options.bytes_max }));
        }
        let mut row = match known {
            // What made room may have taken some of its entries.
            Some(_) => self.row(stream)?,
            None => None,
        };
        if row.is_none() {
            let sql = "INSERT INTO streams VALUES (NULL, ?, 0, 0, 0, 0, 0, ?)";
            self.execute(sql, params![stream, self.options.node.0.to_be_bytes()])?;
            self.streams += 1;
            row = self.row(stream)?;
        }
        let mut row = row.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let first = row.next;
        let taken = self.insert(&mut row, entries, room)?;
        self.write_row(&row)?;
        longer.insert(stream.to_owned(), row.next);
        if let Some(once) = once {
            self.clear_by(once.until);
            self.execute(
                "INSERT OR REPLACE INTO keys (key, hash, note, offset, until)
                 VALUES (?, ?, ?, ?, ?)",
                params![
                    once.key,
                    once.hash,
                    codec::seal(Kind::StreamEntry, &once.note),
                    first,
                    once.until
                ],
            )?;
        }
        Ok(Ok(Appended { first, taken, before: None }))
    }

    /// What an append with the same key came to.
    fn before(&self, once: &Once) -> rusqlite::Result<Option<Result<Appended, StreamError>>> {
        let sql = "SELECT hash, note, offset FROM keys WHERE key = ? AND until > ?";
        let found: Option<(Vec<u8>, Vec<u8>, u64)> = self
            .db
            .prepare_cached(sql)?
            .query_row(params![once.key, now()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        Ok(found.map(|(hash, sealed, first)| {
            if hash != once.hash {
                return Err(StreamError::KeyReused { key: once.key.clone() });
            }
            // Format 1 kept notes as they came.
            let note = match codec::begins(Kind::StreamEntry, &sealed) {
                false => sealed,
                true => codec::open(Kind::StreamEntry, &sealed)
                    .map_err(|fault| self.damaged_note(&once.key, &fault))?
                    .into_owned(),
            };
            Ok(Appended { first, taken: 0, before: Some(note) })
        }))
    }

    fn damaged_note(&self, key: &str, fault: &codec::CodecError) -> StreamError {
        let what = format!("what is kept under the key `{key}`: {fault}");
        StreamError::Damaged { path: self.path.clone(), what }
    }

    /// Writes the entries that there is room for, and the last one where there is no more.
    fn insert(&mut self, row: &mut Row, entries: &[Sealed], room: Room) -> rusqlite::Result<usize> {
        if row.closed {
            return Ok(0);
        }
        let sql = "INSERT INTO entries (stream, offset, expires, sealed) VALUES (?, ?, ?, ?)";
        let mut put = self.db.prepare_cached(sql)?;
        let mut bytes = 0;
        let mut taken = 0;
        let mut add = |row: &mut Row, entry: &Sealed| -> rusqlite::Result<()> {
            put.execute(params![row.id, row.next, entry.expires, entry.bytes])?;
            row.next += 1;
            row.entries += 1;
            row.bytes += entry.bytes.len() as u64;
            bytes += entry.bytes.len() as u64;
            Ok(())
        };
        for entry in entries {
            if let Room::Whole { entries_max, bytes_max, last } = &room
                && (row.next >= *entries_max || row.bytes + entry.bytes.len() as u64 > *bytes_max)
            {
                let bytes = codec::seal(Kind::StreamEntry, last);
                add(row, &Sealed { expires: entry.expires, bytes })?;
                row.closed = true;
                break;
            }
            add(row, entry)?;
            taken += 1;
        }
        drop(put);
        self.bytes += bytes;
        if let Some(expires) = entries.iter().filter_map(|entry| entry.expires).min() {
            self.clear_by(expires);
        }
        Ok(taken)
    }

    fn write_row(&self, row: &Row) -> rusqlite::Result<()> {
        let sql = "UPDATE streams SET next = ?2, entries = ?3, bytes = ?4, closed = ?5,
                   touched = ?6 WHERE id = ?1";
        self.execute(sql, params![row.id, row.next, row.entries, row.bytes, row.closed, now()])
    }

    /// How many entries of a stream wait for its slowest reader, if there is no room for `more`.
    fn overfull(&mut self, row: Row, more: u64, bound: u64) -> rusqlite::Result<Option<u64>> {
        let sql = "SELECT coalesce(min(acknowledged), 0) FROM readers WHERE stream = ?";
        let from: u64 = self.db.prepare_cached(sql)?.query_row([row.id], |row| row.get(0))?;
        let most = row.next.saturating_sub(from).min(row.entries);
        if most.saturating_add(more) <= bound {
            return Ok(None);
        }
        if let Some((until, known)) = self.full.get(&row.id)
            && *until > Instant::now()
            && *known == from
        {
            return Ok(Some(bound));
        }
        let sql = "SELECT count(*) FROM entries WHERE stream = ? AND offset >= ?
                   AND (expires IS NULL OR expires > ?)";
        let unread: u64 = self
            .db
            .prepare_cached(sql)?
            .query_row(params![row.id, from, now()], |row| row.get(0))?;
        if unread.saturating_add(more) <= bound {
            return Ok(None);
        }
        self.full.retain(|_, (until, _)| *until > Instant::now());
        self.full.insert(row.id, (Instant::now() + FULL_FOR, from));
        Ok(Some(unread))
    }

    /// Whether there is room for so many bytes, after having made some where that may be.
    fn make_room(&mut self, added: u64) -> rusqlite::Result<bool> {
        let bound = self.options.bytes_max;
        if self.bytes.saturating_add(added) <= bound {
            return Ok(true);
        }
        // Some more than needed, so that not every append has to.
        let goal = (bound / 10 * 9).saturating_sub(added);
        match self.options.at_total {
            AtTotal::DropOldest => {
                while self.bytes > goal {
                    let sql = "SELECT id, next FROM streams WHERE entries > 0 ORDER BY id LIMIT 1";
                    let oldest: Option<(i64, u64)> = self
                        .db
                        .prepare_cached(sql)?
                        .query_row((), |row| Ok((row.get(0)?, row.get(1)?)))
                        .optional()?;
                    let Some((id, next)) = oldest else { break };
                    self.drop_before(id, next)?;
                }
            }
            AtTotal::Refuse => {
                self.clear_expired(u32::MAX)?;
                let sql = "SELECT stream, min(acknowledged) FROM readers GROUP BY stream";
                let mut query = self.db.prepare_cached(sql)?;
                let rows = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
                let rows: Vec<(i64, u64)> = rows.collect::<rusqlite::Result<_>>()?;
                drop(query);
                for (id, read) in rows {
                    if self.bytes <= goal {
                        break;
                    }
                    self.drop_before(id, read)?;
                }
            }
        }
        Ok(self.bytes.saturating_add(added) <= bound)
    }

    /// Removes the entries of a stream before an offset.
    fn drop_before(&mut self, id: i64, before: u64) -> rusqlite::Result<()> {
        let sql = "SELECT count(*), coalesce(sum(length(sealed)), 0) FROM entries
                   WHERE stream = ? AND offset < ?";
        let (count, bytes): (u64, u64) = self
            .db
            .prepare_cached(sql)?
            .query_row(params![id, before], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if count == 0 {
            return Ok(());
        }
        self.execute("DELETE FROM entries WHERE stream = ? AND offset < ?", params![id, before])?;
        self.took(id, count, bytes)
    }

    /// Notes that entries of a stream went.
    fn took(&mut self, id: i64, count: u64, bytes: u64) -> rusqlite::Result<()> {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.execute(
            "UPDATE streams SET entries = entries - ?2, bytes = bytes - ?3 WHERE id = ?1",
            params![id, count, bytes],
        )
    }

    fn acknowledge(&self, stream: &str, reader: &str, offset: u64) -> rusqlite::Result<u64> {
        let Some(row) = self.row(stream)? else { return Ok(0) };
        let offset = offset.min(row.next);
        self.execute(
            "INSERT INTO readers (stream, name, acknowledged) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET acknowledged = max(acknowledged, ?3)",
            params![row.id, reader, offset],
        )?;
        self.write_row(&row)?;
        let sql = "SELECT acknowledged FROM readers WHERE stream = ? AND name = ?";
        self.db.prepare_cached(sql)?.query_row(params![row.id, reader], |row| row.get(0))
    }

    fn trim(&mut self, stream: &str, before: u64) -> rusqlite::Result<()> {
        match self.row(stream)? {
            Some(row) => self.drop_before(row.id, before),
            None => Ok(()),
        }
    }

    fn remove(&mut self, stream: &str) -> rusqlite::Result<()> {
        let Some(row) = self.row(stream)? else { return Ok(()) };
        self.execute("DELETE FROM entries WHERE stream = ?", [row.id])?;
        self.execute("DELETE FROM readers WHERE stream = ?", [row.id])?;
        self.execute("DELETE FROM streams WHERE id = ?", [row.id])?;
        self.bytes = self.bytes.saturating_sub(row.bytes);
        self.streams = self.streams.saturating_sub(1);
        Ok(())
    }

    /// Clears away what has expired, a part of it at a time.
    fn clear(&mut self) {
        let before = (self.bytes, self.streams);
        let cleared = self.db.execute_batch("BEGIN IMMEDIATE").and_then(|()| {
            let cleared = self.clear_expired(CLEARED_MAX)?;
            self.clear_untouched()?;
            if self.fault.last().is_some() {
                // Whether the disk takes something again.
                self.db.execute_batch("CREATE TABLE probe (nothing); DROP TABLE probe")?;
            }
            let sql = "SELECT min(expires) FROM entries WHERE expires IS NOT NULL
                       UNION ALL SELECT min(until) FROM keys";
            let mut query = self.db.prepare_cached(sql)?;
            let rows = query.query_map((), |row| row.get(0))?;
            let next: Vec<Option<u64>> = rows.collect::<rusqlite::Result<_>>()?;
            drop(query);
            self.db.execute_batch("COMMIT")?;
            Ok((cleared, next.into_iter().flatten().min()))
        });
        self.clear_at = None;
        if cleared.is_ok() {
            self.fault.note(None);
        }
        match cleared {
            Ok((cleared, _)) if cleared >= CLEARED_MAX => self.clear_at = Some(Instant::now()),
            Ok((_, Some(next))) => self.clear_by(next),
            Ok((_, None)) => {}
            Err(fault) => {
                drop(self.db.execute_batch("ROLLBACK"));
                (self.bytes, self.streams) = before;
                warn!("{}", StreamError::sqlite(&self.path, &fault));
                self.clear_by(0);
            }
        }
    }

    /// Has what expires at this time cleared away soon behind it. Nobody reads it in between.
    fn clear_by(&mut self, expires: u64) {
        let wait = Duration::from_micros(expires.saturating_sub(now()));
        let at = Instant::now() + wait.clamp(CLEAR_EVERY, CLEAR_LATEST);
        self.clear_at = Some(self.clear_at.map_or(at, |known| known.min(at)));
    }

    fn clear_expired(&mut self, most: u32) -> rusqlite::Result<u32> {
        let sql = "SELECT stream, offset, length(sealed) FROM entries
                   WHERE expires IS NOT NULL AND expires <= ? LIMIT ?";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query
            .query_map(params![now(), most], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let gone: Vec<(i64, u64, u64)> = rows.collect::<rusqlite::Result<_>>()?;
        drop(query);
        let mut by_stream: HashMap<i64, (u64, u64)> = HashMap::new();
        for (stream, offset, bytes) in &gone {
            self.execute(
                "DELETE FROM entries WHERE stream = ? AND offset = ?",
                params![stream, offset],
            )?;
            let all = by_stream.entry(*stream).or_default();
            *all = (all.0 + 1, all.1 + bytes);
        }
        for (stream, (count, bytes)) in by_stream {
            self.took(stream, count, bytes)?;
        }
        let sql = "DELETE FROM keys WHERE key IN (SELECT key FROM keys WHERE until <= ? LIMIT ?)";
        self.execute(sql, params![now(), most])?;
        Ok(u32::try_from(gone.len()).unwrap_or(u32::MAX))
    }

    /// Streams that have been empty for long are forgotten, with those who read them.
    fn clear_untouched(&mut self) -> rusqlite::Result<()> {
        if self.options.at_total == AtTotal::DropOldest {
            // An empty one says that something was there.
            return Ok(());
        }
        let sql = "SELECT name FROM streams WHERE entries = 0 AND touched < ? LIMIT 100";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query.query_map([now().saturating_sub(UNTOUCHED_US)], |row| row.get(0))?;
        let names: HashSet<String> = rows.collect::<rusqlite::Result<_>>()?;
        drop(query);
        names.iter().try_for_each(|name| self.remove(name))
    }
}

/// The answer of a request that was carried out, to be given once the commit is through.
fn settle<T: 'static>(
    done: rusqlite::Result<Result<T, StreamError>>,
    reply: Reply<T>,
) -> (Told, Option<rusqlite::Error>) {
    match done {
        // Who asked may have gone away.
        Ok(answer) => (Box::new(|outcome| drop(reply.send(outcome.and(answer)))), None),
        Err(fault) => (Box::new(|outcome| tell_fault(reply, outcome)), Some(fault)),
    }
}

fn tell_fault<T>(reply: Reply<T>, outcome: Result<(), StreamError>) {
    if let Err(error) = outcome {
        drop(reply.send(Err(error)));
    }
}

/// The answer of a request whose commit is spoilt.
fn refuse(request: Request, error: StreamError) -> Told {
    fn with<T: 'static>(reply: Reply<T>, error: StreamError) -> Told {
        Box::new(move |_| drop(reply.send(Err(error))))
    }
    match request {
        Request::Append(append) => with(append.reply, error),
        Request::Acknowledge { reply, .. } => with(reply, error),
        Request::Forget { reply, .. }
        | Request::Trim { reply, .. }
        | Request::Keep { reply, .. }
        | Request::Remove { reply: Some(reply), .. }
        | Request::Flush { reply } => with(reply, error),
        Request::Remove { reply: None, .. } => Box::new(|_| ()),
    }
}
