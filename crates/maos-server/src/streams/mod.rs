//! Streams: append-only logs by name, each entry under an offset that only grows.
//!
//! Its law: an entry whose append was answered is read back unchanged, in the order of the offsets,
//! until it expires or is trimmed; at a bound an append is refused, and what was refused left no
//! trace. One thread writes, many appends a commit; readers never wait for it. What is in an entry
//! is none of its business, and the engine never hears of it. Nothing runs and no file is open
//! before the first use.

mod fault;
mod read;
mod table;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use maos_core::ids::NodeId;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use crate::codec::{self, Kind};

pub use fault::StreamError;
pub use read::{Page, Read, ReaderStanding, Standing};

/// When an append is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on disk, whatever happens to the machine.
    Synced,
    /// Once it outlives this process; the machine's own crash may take the last of it.
    Written,
}

/// What happens when the file holds as much as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtTotal {
    /// What every reader has acknowledged goes first; then appends are refused.
    Refuse,
    /// The oldest streams lose their entries.
    DropOldest,
}

/// How a file of streams is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// When an append is answered.
    pub durability: Durability,
    /// Bytes of all entries together.
    pub bytes_max: u64,
    /// What happens then.
    pub at_total: AtTotal,
    /// Bytes that may wait to be written.
    pub pending_bytes_max: u64,
    /// Whose streams those are that begin from now on: where others find them, once there are
    /// several nodes.
    pub node: NodeId,
}

/// One entry on its way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Microseconds of the calendar after which nobody reads it any more.
    pub expires: Option<u64>,
    /// What it says.
    pub body: Vec<u8>,
}

/// How much a stream takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// As much as the file does.
    Any,
    /// So many entries that its slowest reader has not acknowledged, or that are kept if nobody
    /// reads it; more are refused.
    Unread(u64),
    /// So many entries and bytes; instead of the first one beyond that, `last` ends the stream, and
    /// whatever follows is left out.
    Whole {
        /// Entries.
        entries_max: u64,
        /// Bytes.
        bytes_max: u64,
        /// The body of the last entry.
        last: Vec<u8>,
    },
}

/// Makes an append happen once, however often it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// Its name.
    pub key: String,
    /// What is appended; the same key with another one is refused.
    pub hash: [u8; 32],
    /// Handed back to whoever asks again.
    pub note: Vec<u8>,
    /// Microseconds of the calendar until which it is remembered.
    pub until: u64,
}

/// What an append came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first entry; the others follow.
    pub first: u64,
    /// How many of its entries are in the stream.
    pub taken: usize,
    /// The note of the append with the same key that was there before.
    pub before: Option<Vec<u8>>,
}

/// Totals of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Streams.
    pub streams: u64,
    /// Entries of all of them that have not expired.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of them that the slowest reader of each stream has not acknowledged.
    pub unread: u64,
}

/// A file of streams. Clones share everything.
#[derive(Clone, Debug)]
pub struct Streams {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    options: Options,
    pending: Arc<AtomicU64>,
    watched: Arc<Watched>,
    writer: Mutex<Option<writer::Writer>>,
    closed: AtomicBool,
    idle: Mutex<Vec<Connection>>,
    fault: Arc<LastFault>,
}

/// What the last commit failed of; `None`: nothing.
#[derive(Debug, Default)]
struct LastFault(Mutex<Option<StreamError>>);

/// Who waits for which stream.
#[derive(Debug, Default)]
struct Watched(Mutex<HashMap<String, watch::Sender<u64>>>);

/// Tells when a stream gets longer.
#[derive(Debug)]
pub struct Watch {
    name: String,
    watched: Arc<Watched>,
    next: Option<watch::Receiver<u64>>,
}

impl Streams {
    /// Streams in the file `path`, which need not be there. What is there is checked.
    ///
    /// # Errors
    /// When it is damaged, of a newer release, or the disk fails.
    pub fn open(path: &Path, options: Options) -> Result<Streams, StreamError> {
        if path.exists() {
            // Closed again: nothing is held open for streams that nobody uses.
            drop(table::open(path, options.durability)?);
        }
        Ok(Streams {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                options,
                pending: Arc::default(),
                watched: Arc::default(),
                writer: Mutex::default(),
                closed: AtomicBool::new(false),
                idle: Mutex::default(),
                fault: Arc::default(),
            }),
        })
    }

    /// Appends entries to a stream, which is made if it is not there; all of them or, at a bound,
    /// none. On disk as the file's durability says when this returns. The order of appends of one
    /// task is the order of their calls. May be dropped: the append happens all the same.
    ///
    /// # Errors
    /// The bound that is reached, or what failed.
    pub async fn append(
        &self,
        stream: &str,
        entries: Vec<Entry>,
        room: Room,
        once: Option<Once>,
    ) -> Result<Appended, StreamError> {
        self.begin_append(stream, entries, room, once)?.await.map_err(|_| StreamError::Closed)?
    }

    /// The same without waiting: its turn is taken when this returns.
    ///
    /// # Errors
    /// [`StreamError::Busy`] and [`StreamError::Closed`]; the rest comes later.
    pub fn begin_append(
        &self,
        stream: &str,
        entries: Vec<Entry>,
        room: Room,
        once: Option<Once>,
    ) -> Result<oneshot::Receiver<Result<Appended, StreamError>>, StreamError> {
        let seal = |entry: Entry| writer::Sealed {
            expires: entry.expires,
            bytes: codec::seal(Kind::StreamEntry, &entry.body),
        };
        let entries: Vec<writer::Sealed> = entries.into_iter().map(seal).collect();
        let bytes = entries.iter().map(|entry| entry.bytes.len() as u64).sum::<u64>();
        let bound = self.inner.options.pending_bytes_max;
        if self.inner.pending.load(Ordering::Relaxed).saturating_add(bytes) > bound {
            return Err(StreamError::Busy { path: self.inner.path.clone() });
        }
        let held = writer::Pending::new(&self.inner.pending, bytes);
        let (reply, answer) = oneshot::channel();
        let append = writer::Append { stream: stream.to_owned(), entries, room, once, held, reply };
        self.send(writer::Request::Append(append))?;
        Ok(answer)
    }

    /// Notes that `reader` needs nothing before `offset` any more; it never goes back. The reader
    /// is known from then on.
    ///
    /// # Errors
    /// What failed.
    pub async fn acknowledge(
        &self,
        stream: &str,
        reader: &str,
        offset: u64,
    ) -> Result<u64, StreamError> {
        let (stream, reader) = (stream.to_owned(), reader.to_owned());
        self.ask(|reply| writer::Request::Acknowledge { stream, reader, offset, reply }).await
    }

    /// Forgets a reader.
    ///
    /// # Errors
    /// What failed.
    pub async fn forget(&self, stream: &str, reader: &str) -> Result<(), StreamError> {
        let (stream, reader) = (stream.to_owned(), reader.to_owned());
        self.ask(|reply| writer::Request::Forget { stream, reader, reply }).await
    }

    /// Removes what is before `offset`.
    ///
    /// # Errors
    /// What failed.
    pub async fn trim(&self, stream: &str, before: u64) -> Result<(), StreamError> {
        let stream = stream.to_owned();
        self.ask(|reply| writer::Request::Trim { stream, before, reply }).await
    }

    /// Removes streams with all that belongs to them.
    ///
    /// # Errors
    /// What failed.
    pub async fn remove(&self, streams: Vec<String>) -> Result<(), StreamError> {
        if !self.exists() {
            return Ok(());
        }
        self.ask(|reply| writer::Request::Remove { streams, reply: Some(reply) }).await
    }

    /// The same without waiting.
    pub fn begin_remove(&self, streams: Vec<String>) {
        if self.exists() {
            // A server that ends removes nothing more; what is left is found at the next start.
            drop(self.send(writer::Request::Remove { streams, reply: None }));
        }
    }

    /// Keeps a fact under its name, over what was there; `None` removes it.
    ///
    /// # Errors
    /// What failed.
    pub async fn keep(&self, name: &str, body: Option<Vec<u8>>) -> Result<(), StreamError> {
        let name = name.to_owned();
        let body = body.map(|body| codec::seal(Kind::StreamEntry, &body));
        self.ask(|reply| writer::Request::Keep { name, body, reply }).await
    }

    /// Returns once everything that was begun before is written.
    ///
    /// # Errors
    /// That the file is closed.
    pub async fn flush(&self) -> Result<(), StreamError> {
        if self.writer().is_none() {
            return Ok(());
        }
        self.ask(|reply| writer::Request::Flush { reply }).await
    }

    /// Tells when there is something at or behind an offset: look first, then wait.
    #[must_use]
    pub fn watch(&self, stream: &str) -> Watch {
        let mut senders = self.inner.watched.senders();
        let sender = senders.entry(stream.to_owned()).or_insert_with(|| watch::Sender::new(0));
        let next = Some(sender.subscribe());
        drop(senders);
        Watch { name: stream.to_owned(), watched: self.inner.watched.clone(), next }
    }

    /// Whether what is appended gets to the disk.
    ///
    /// # Errors
    /// What the last commit failed of, or that the thread has ended.
    pub fn health(&self) -> Result<(), String> {
        let ended = self.writer().as_ref().is_some_and(writer::Writer::has_ended);
        if ended && !self.inner.closed.load(Ordering::Acquire) {
            return Err(format!(
                "the thread that writes `{}` has ended",
                self.inner.path.display()
            ));
        }
        self.inner.fault.last().map_or(Ok(()), |why| Err(why.to_string()))
    }

    /// Ends the thread once everything that was begun is written. Nothing is taken from then on.
    pub fn close(&self) {
        self.inner.closed.store(true, Ordering::Release);
        let writer = self.writer().take();
        drop(writer);
        self.inner.watched.senders().clear();
        self.connections().clear();
    }

    fn exists(&self) -> bool {
        self.writer().is_some() || self.inner.path.exists()
    }

    fn writer(&self) -> MutexGuard<'_, Option<writer::Writer>> {
        self.inner.writer.lock().expect("nothing panics while it holds this lock")
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.inner.idle.lock().expect("nothing panics while it holds this lock")
    }

    fn send(&self, request: writer::Request) -> Result<(), StreamError> {
        let mut writer = self.writer();
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(StreamError::Closed);
        }
        if writer.is_none() {
            let (path, options) = (self.inner.path.clone(), self.inner.options);
            let (watched, fault) = (self.inner.watched.clone(), self.inner.fault.clone());
            let started = writer::Writer::start(path, options, watched, fault);
            *writer = Some(started.inspect_err(|why| self.inner.fault.note(Some(why)))?);
        }
        writer.as_ref().map_or(Err(StreamError::Closed), |writer| writer.send(request))
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(writer::Reply<T>) -> writer::Request,
    ) -> Result<T, StreamError> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply))?;
        answer.await.map_err(|_| StreamError::Closed)?
    }
}

impl LastFault {
    fn held(&self) -> MutexGuard<'_, Option<StreamError>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }

    fn last(&self) -> Option<StreamError> {
        self.held().clone()
    }

    fn note(&self, fault: Option<&StreamError>) {
        *self.held() = fault.cloned();
    }
}

impl Watched {
    fn senders(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<u64>>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }

    /// Tells who waits that a stream now ends at `next`.
    fn tell(&self, stream: &str, next: u64) {
        if let Some(sender) = self.senders().get(stream) {
            sender.send_replace(next);
        }
    }
}

impl Watch {
    /// Returns once the stream has got longer since it was looked at last.
    ///
    /// # Errors
    /// That nothing more will come.
    pub async fn longer(&mut self) -> Result<(), StreamError> {
        let next = self.next.as_mut().ok_or(StreamError::Closed)?;
        next.changed().await.map_err(|_| StreamError::Closed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut senders = self.watched.senders();
        self.next = None;
        if senders.get(&self.name).is_some_and(|sender| sender.receiver_count() == 0) {
            senders.remove(&self.name);
        }
    }
}
