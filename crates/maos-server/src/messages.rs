//! The message bus: mailboxes on streams, read by offset and acknowledged by name.
//!
//! Its law: a message whose receipt was given is on disk, and is given to its readers in order, at
//! least once, until it is acknowledged or its time is up; a full mailbox refuses. Whether there is
//! such an agent or task it asks whoever put it together; it knows neither engine nor HTTP.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use maos_api::error::{ApiError, ErrorCode};
use maos_api::messages::{
    Ack, AckAnswer, Draft, Mailbox, MailboxPage, MailboxReader, MailboxShown, Message, MessagePage,
    MessageQuery, READER_DEFAULT, Receipt,
};
use maos_api::time::UtcTime;
use maos_core::ids::{NodeId, TaskId};
use minicbor::{Decode, Encode};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config;
use crate::streams::{
    AtTotal, Durability, Entry, Once, Options, Page, Read, ReaderStanding, Room, Standing,
    StreamError, Streams, Totals, Watch,
};

/// Bytes of messages that may wait to be written.
const PENDING_BYTES_MAX: u64 = 16 << 20;
/// How long a key of whoever sends is remembered: a day.
const KEY_US: u64 = 86_400 * 1_000_000;
/// Bytes of messages that come together to one worker, about.
const UNREAD_BYTES_MAX: usize = 8 << 20;
/// Seconds over which rates are told.
const RATE_SECONDS: u64 = 60;

/// Says whether messages can be sent there.
pub type LookUp = Box<
    dyn Fn(Mailbox) -> Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send>> + Send + Sync,
>;

/// Makes a message be sent once, however often it is asked for.
#[derive(Clone, Debug)]
pub struct SendOnce {
    /// Its name, with the room it comes from.
    pub key: String,
    /// Of what is sent.
    pub hash: [u8; 32],
}

/// The message bus. Clones share everything.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    streams: Streams,
    max_queue_size: u64,
    look_up: OnceLock<LookUp>,
    closing: CancellationToken,
    counts: Arc<Counts>,
}

/// What happened since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    sent: Count,
    refused: Count,
    read: Count,
    acknowledged: Count,
}

/// A number that grows, and how fast.
#[derive(Debug, Default)]
pub(crate) struct Count {
    all: AtomicU64,
    seconds: Mutex<Seconds>,
}

#[derive(Debug)]
struct Seconds {
    since: Instant,
    /// Of the second that began at this one, modulo the length.
    last: u64,
    counts: [u64; 60],
}

#[derive(Encode, Decode)]
struct Stored {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: Vec<u8>,
    #[n(1)]
    created: u64,
    #[n(2)]
    expires: u64,
    #[n(3)]
    sender: Option<String>,
    #[n(4)]
    kind: Option<String>,
    #[n(5)]
    body: String,
    #[cbor(n(6), with = "minicbor::bytes")]
    reply_to: Option<Vec<u8>>,
    #[n(7)]
    metadata: Option<String>,
}

/// What is remembered of a message with a key.
#[derive(Encode, Decode)]
struct Note {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: Vec<u8>,
    #[n(1)]
    mailbox: String,
    #[n(2)]
    expires: u64,
}

impl Bus {
    /// The bus in the file `path`. Nothing can be sent to agents and tasks before it can
    /// [`Bus::ask`] whether they are there.
    ///
    /// # Errors
    /// When the file is damaged, of a newer release, or the disk fails.
    pub fn open(path: &Path, config: config::MessageBus, node: NodeId) -> Result<Bus, StreamError> {
        Bus::open_counting(path, config, node, Arc::default())
    }

    /// The same, which goes on counting where `counts` is.
    pub(crate) fn open_counting(
        path: &Path,
        config: config::MessageBus,
        node: NodeId,
        counts: Arc<Counts>,
    ) -> Result<Bus, StreamError> {
        let options = Options {
            durability: Durability::Synced,
            bytes_max: config.bytes_max,
            at_total: AtTotal::Refuse,
            pending_bytes_max: PENDING_BYTES_MAX,
            node,
        };
        let inner = Inner {
            streams: Streams::open(path, options)?,
            max_queue_size: config.max_queue_size,
            look_up: OnceLock::new(),
            closing: CancellationToken::new(),
            counts,
        };
        Ok(Bus { inner: Arc::new(inner) })
    }

    /// Has somebody asked whether agents and tasks are there; the first counts.
    pub fn ask(&self, look_up: LookUp) {
        // A second one is a slip of whoever puts the server together.
        assert!(self.inner.look_up.set(look_up).is_ok(), "one is asked who is there");
    }

    /// Sends a message: on disk when this returns. What is sent once more under the same key is
    /// answered as the first time.
    ///
    /// # Errors
    /// That nobody is there, that the mailbox is full, or why it cannot be kept.
    pub async fn send(&self, draft: Draft, once: Option<SendOnce>) -> Result<Receipt, ApiError> {
        let sent = self.try_send(draft, once).await;
        match &sent {
            Ok(_) => self.inner.counts.sent.add(1),
            Err(_) => self.inner.counts.refused.add(1),
        }
        sent
    }

    async fn try_send(&self, draft: Draft, once: Option<SendOnce>) -> Result<Receipt, ApiError> {
        if let (Mailbox::Agent(_) | Mailbox::Task(_), Some(look_up)) =
            (&draft.to, self.inner.look_up.get())
        {
            look_up(draft.to.clone()).await?;
        }
        let (id, created) = (Uuid::now_v7(), now());
        let mailbox = draft.to.to_string();
        let expires = created.saturating_add(draft.ttl_seconds.saturating_mul(1_000_000));
        let once = once.map(|once| Once {
            key: once.key,
            hash: once.hash,
            note: encoded(&Note { id: id.into_bytes().into(), mailbox: mailbox.clone(), expires }),
            until: created.saturating_add(KEY_US),
        });
        let stored = Stored {
            id: id.into_bytes().into(),
            created,
            expires,
            sender: draft.sender,
            kind: draft.kind,
            body: String::from(Box::<str>::from(draft.body)),
            reply_to: draft.reply_to.map(|id| id.into_bytes().into()),
            metadata: draft.metadata.map(|metadata| String::from(Box::<str>::from(metadata))),
        };
        let entry = Entry { expires: Some(expires), body: encoded(&stored) };
        let room = Room::Unread(self.inner.max_queue_size);
        let appended = self.inner.streams.append(&mailbox, vec![entry], room, once).await;
        let appended = appended.map_err(refused)?;
        let mut receipt = Receipt {
            message_id: id,
            mailbox: draft.to,
            offset: appended.first,
            expires_at: UtcTime(expires),
            warnings: draft.warnings,
        };
        if let Some(before) = appended.before {
            let note: Note = minicbor::decode(&before).map_err(|why| broken(&why))?;
            receipt.message_id = uuid(&note.id);
            receipt.mailbox = note.mailbox.parse().map_err(|why: String| broken(&why))?;
            receipt.expires_at = UtcTime(note.expires);
        }
        Ok(receipt)
    }

    /// Puts a message into another mailbox as it is, for longer.
    pub(crate) async fn copy(
        &self,
        message: &Message,
        to: &Mailbox,
        expires: u64,
        metadata: String,
    ) -> Result<u64, ApiError> {
        let stored = Stored {
            id: message.message_id.into_bytes().into(),
            created: message.created_at.0,
            expires,
            sender: message.sender.clone(),
            kind: message.kind.clone(),
            body: message.body.get().to_owned(),
            reply_to: message.reply_to.map(|id| id.into_bytes().into()),
            metadata: Some(metadata),
        };
        let entry = Entry { expires: Some(expires), body: encoded(&stored) };
        let room = Room::Unread(self.inner.max_queue_size);
        let streams = &self.inner.streams;
        let appended = streams.append(&to.to_string(), vec![entry], room, None).await;
        appended.map(|appended| appended.first).map_err(refused)
    }

    /// Messages of a mailbox, at once or as soon as there is one.
    ///
    /// # Errors
    /// Why they cannot be told.
    pub async fn read(&self, query: &MessageQuery) -> Result<MessagePage, ApiError> {
        let mailbox = query.mailbox.to_string();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(query.wait_seconds);
        let mut watch = self.watch(&query.mailbox);
        loop {
            let page = self.page(&mailbox, query).await?;
            let now = tokio::time::Instant::now();
            let closing = self.inner.closing.is_cancelled();
            if !page.entries.is_empty() || closing || now >= deadline {
                self.inner.counts.read.add(page.entries.len() as u64);
                return shown(&query.mailbox, page);
            }
            tokio::select! {
                biased;
                () = self.inner.closing.cancelled() => {}
                Ok(()) = watch.longer() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// Messages of these mailboxes that their reader without a name has not acknowledged, at most
    /// `limit` and so many bytes as an answer may well have.
    ///
    /// # Errors
    /// Why they cannot be told.
    pub async fn unread(
        &self,
        mailboxes: Vec<Mailbox>,
        limit: usize,
    ) -> Result<Vec<Message>, ApiError> {
        let streams = self.inner.streams.clone();
        let read = blocking(move || {
            let (mut found, mut bytes) = (Vec::new(), 0);
            for mailbox in mailboxes {
                let left = u32::try_from(limit - found.len()).unwrap_or(u32::MAX);
                if left == 0 || bytes > UNREAD_BYTES_MAX {
                    break;
                }
                let page = streams.read_on(&mailbox.to_string(), READER_DEFAULT, left)?;
                for entry in page.entries {
                    bytes += entry.body.len();
                    found.push((mailbox.clone(), entry));
                }
            }
            Ok(found)
        });
        let found = read.await.map_err(refused)?;
        self.inner.counts.read.add(found.len() as u64);
        found.into_iter().map(|(mailbox, entry)| message(&mailbox, entry)).collect()
    }

    async fn page(&self, mailbox: &str, query: &MessageQuery) -> Result<Page, ApiError> {
        let (streams, mailbox) = (self.inner.streams.clone(), mailbox.to_owned());
        let (reader, offset, limit) = (query.reader.clone(), query.offset, query.limit);
        let read = blocking(move || match offset {
            Some(offset) => streams.read_for(&mailbox, &reader, offset, limit),
            None => streams.read_on(&mailbox, &reader, limit),
        });
        read.await.map_err(refused)
    }

    /// Notes that a reader has handled everything up to a message.
    ///
    /// # Errors
    /// Why it cannot be noted.
    pub async fn acknowledge(&self, ack: &Ack) -> Result<AckAnswer, ApiError> {
        let reader = ack.reader.as_deref().unwrap_or(READER_DEFAULT);
        let (mailbox, next) = (ack.mailbox.to_string(), ack.offset.saturating_add(1));
        let behind = self.inner.streams.acknowledge(&mailbox, reader, next).await;
        let behind = behind.map_err(refused)?;
        self.inner.counts.acknowledged.add(1);
        Ok(AckAnswer {
            mailbox: ack.mailbox.clone(),
            reader: reader.to_owned(),
            acknowledged: behind.checked_sub(1),
        })
    }

    /// Mailboxes whose names begin with `prefix`, behind the name `after`.
    ///
    /// # Errors
    /// Why they cannot be told.
    pub async fn mailboxes(
        &self,
        prefix: String,
        after: String,
        limit: u32,
    ) -> Result<MailboxPage, ApiError> {
        let streams = self.inner.streams.clone();
        let found = blocking(move || streams.standings(&prefix, &after, limit)).await;
        let found = found.map_err(refused)?;
        let full = u32::try_from(found.len()).is_ok_and(|count| count >= limit);
        let last = found.last().map(|last| last.name.clone());
        let items = found.into_iter().filter_map(|standing| mailbox(&standing)).collect();
        let next_after = last.filter(|_| full);
        Ok(MailboxPage { items, next_after, max_queue_size: self.inner.max_queue_size })
    }

    /// Tells when a mailbox gets more messages: look first, then wait.
    #[must_use]
    pub fn watch(&self, mailbox: &Mailbox) -> Watch {
        self.inner.streams.watch(&mailbox.to_string())
    }

    /// Removes the mailboxes of tasks that are gone.
    pub fn forget(&self, tasks: &[TaskId]) {
        let mailboxes = tasks.iter().map(|task| Mailbox::Task(Uuid::from_u128(task.0)));
        self.inner.streams.begin_remove(mailboxes.map(|mailbox| mailbox.to_string()).collect());
    }

    /// Nobody waits for messages from now on.
    pub fn stop_waiting(&self) {
        self.inner.closing.cancel();
    }

    /// Cancelled when nobody waits for messages any more.
    #[must_use]
    pub(crate) fn closing(&self) -> CancellationToken {
        self.inner.closing.clone()
    }

    /// Takes nothing from now on; what was begun is written.
    pub fn close(&self) {
        self.inner.streams.close();
    }

    pub(crate) fn streams(&self) -> &Streams {
        &self.inner.streams
    }

    /// Whether what is sent gets to the disk.
    ///
    /// # Errors
    /// What keeps it from that.
    pub fn health(&self) -> Result<(), String> {
        self.inner.streams.health()
    }

    /// Sizes and rates.
    ///
    /// # Errors
    /// Why they cannot be told.
    pub async fn figures(&self) -> Result<serde_json::Value, ApiError> {
        let streams = self.inner.streams.clone();
        let totals: Totals = blocking(move || streams.totals()).await.map_err(refused)?;
        let counts = &self.inner.counts;
        Ok(serde_json::json!({
            "mailboxes": totals.streams,
            "messages": totals.entries,
            "messages_waiting": totals.unread,
            "bytes": totals.bytes,
            "max_queue_size": self.inner.max_queue_size,
            "messages_sent": counts.sent.all(),
            "messages_refused": counts.refused.all(),
            "messages_read": counts.read.all(),
            "acknowledgements": counts.acknowledged.all(),
            "sent_per_second": counts.sent.per_second(),
            "read_per_second": counts.read.per_second(),
        }))
    }
}

fn mailbox(standing: &Standing) -> Option<MailboxShown> {
    let reader = |reader: &ReaderStanding| MailboxReader {
        reader: reader.name.clone(),
        acknowledged: reader.acknowledged.checked_sub(1),
        waiting: reader.waiting,
    };
    Some(MailboxShown {
        // Streams of other kinds are no mailboxes.
        mailbox: standing.name.parse().ok()?,
        messages: standing.entries,
        bytes: standing.bytes,
        next_offset: standing.next,
        readers: standing.readers.iter().map(reader).collect(),
    })
}

fn shown(mailbox: &Mailbox, page: Page) -> Result<MessagePage, ApiError> {
    let items = page
        .entries
        .into_iter()
        .map(|entry| message(mailbox, entry))
        .collect::<Result<Vec<Message>, ApiError>>()?;
    let acknowledged = page.acknowledged.and_then(|behind| behind.checked_sub(1));
    Ok(MessagePage { items, next_offset: page.next, acknowledged })
}

fn message(mailbox: &Mailbox, entry: Read) -> Result<Message, ApiError> {
    let stored: Stored = minicbor::decode(&entry.body).map_err(|why| broken(&why))?;
    let json = |text: String| RawValue::from_string(text).map_err(|why| broken(&why));
    Ok(Message {
        message_id: uuid(&stored.id),
        mailbox: mailbox.clone(),
        offset: entry.offset,
        sender: stored.sender,
        kind: stored.kind,
        body: json(stored.body)?,
        reply_to: stored.reply_to.as_deref().map(uuid),
        metadata: json(stored.metadata.unwrap_or_else(|| "{}".to_owned()))?,
        created_at: UtcTime(stored.created),
        expires_at: UtcTime(stored.expires),
    })
}

fn uuid(bytes: &[u8]) -> Uuid {
    Uuid::from_slice(bytes).unwrap_or_default()
}

fn encoded<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

fn broken(why: &dyn std::fmt::Display) -> ApiError {
    tracing::error!("a stored message cannot be read: {why}");
    ApiError::new(ErrorCode::Internal, "a stored message cannot be read; the log says more")
}

fn refused(error: StreamError) -> ApiError {
    match error {
        StreamError::Unread { stream, unread, bound } => {
            let message = format!(
                "mailbox `{stream}` holds {unread} unread messages, at most {bound} may be\n\
                 hint: its readers must acknowledge, or [message_bus] max_queue_size be larger"
            );
            ApiError::new(ErrorCode::MailboxFull, message).with("bound", bound)
        }
        StreamError::Total { bytes, bound, .. } => {
            let message = format!(
                "all mailboxes together hold {bytes} bytes, at most {bound} may be\n\
                 hint: readers must acknowledge, or [message_bus] bytes_max be larger"
            );
            ApiError::new(ErrorCode::MailboxFull, message).with("bound", bound)
        }
        StreamError::Busy { .. } => {
            let message = "the disk does not keep up with messages: try again shortly";
            ApiError::new(ErrorCode::QueueFull, message)
        }
        StreamError::KeyReused { .. } => {
            let message = "this idempotency key came with another message before";
            ApiError::new(ErrorCode::IdempotencyConflict, message)
        }
        StreamError::Closed => {
            let message = "the server is shutting down and takes nothing new";
            ApiError::new(ErrorCode::ShuttingDown, message)
        }
        StreamError::Damaged { .. } | StreamError::TooNew { .. } | StreamError::Failed { .. } => {
            tracing::error!("{error}");
            let message = "messages cannot be kept at the moment; the server's log says more";
            ApiError::new(ErrorCode::StorageUnavailable, message)
        }
    }
}

pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StreamError> + Send + 'static,
) -> Result<T, StreamError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(StreamError::Closed))
}

impl Default for Seconds {
    fn default() -> Seconds {
        Seconds { since: Instant::now(), last: 0, counts: [0; 60] }
    }
}

impl Count {
    pub(crate) fn add(&self, count: u64) {
        if count > 0 {
            self.all.fetch_add(count, Ordering::Relaxed);
            let mut seconds = self.seconds.lock().expect("nothing panics while it holds this lock");
            *seconds.at(Instant::now()) += count;
        }
    }

    pub(crate) fn all(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }

    /// Over the last minute.
    pub(crate) fn per_second(&self) -> f64 {
        let mut seconds = self.seconds.lock().expect("nothing panics while it holds this lock");
        seconds.at(Instant::now());
        let sum: u64 = seconds.counts.iter().sum();
        let over = u32::try_from(seconds.last.clamp(1, RATE_SECONDS)).unwrap_or(60);
        f64::from(u32::try_from(sum).unwrap_or(u32::MAX)) / f64::from(over)
    }
}

impl Seconds {
    /// The place of this second, after having cleared those that are over.
    fn at(&mut self, now: Instant) -> &mut u64 {
        let second = now.saturating_duration_since(self.since).as_secs();
        for passed in (self.last + 1..=second).take(self.counts.len()) {
            self.counts[usize::try_from(passed % RATE_SECONDS).unwrap_or(0)] = 0;
        }
        self.last = second;
        &mut self.counts[usize::try_from(second % RATE_SECONDS).unwrap_or(0)]
    }
}
