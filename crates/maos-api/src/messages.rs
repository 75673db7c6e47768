//! Messages on the wire: to an agent, a task, a topic or everybody, read from mailboxes.
//!
//! A mailbox keeps its messages in order, each under an offset. Readers have names; what a reader
//! has not acknowledged it is given again.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use crate::document;
use crate::error::{ApiError, ErrorCode};
use crate::fault::Faults;
use crate::field::{Null, Reader};
use crate::logs::{bad, number};
use crate::submission::{self, Bounds, UNKNOWN_NAMED_MAX};
use crate::time::UtcTime;

/// Most bytes of a message's body.
pub const BODY_BYTES_MAX: usize = 256 << 10;
/// Most bytes of what describes it.
pub const METADATA_BYTES_MAX: usize = 16 << 10;
/// Most bytes of the request that sends it.
pub const REQUEST_BYTES_MAX: u64 = 512 << 10;
/// How long a message is kept unless it says otherwise: a day.
pub const TTL_SECONDS_DEFAULT: u64 = 86_400;
/// How long a message may be kept: 30 days.
pub const TTL_SECONDS_MAX: u64 = 30 * 86_400;
/// Messages on a page, unless it is asked for more or fewer.
pub const LIMIT_DEFAULT: u32 = 100;
/// Most messages on a page.
pub const LIMIT_MAX: u32 = 1_000;
/// Longest wait for a message.
pub const WAIT_SECONDS_MAX: u64 = 60;
/// Most characters of the name of a topic, a sender, a kind or a reader.
pub const NAME_CHARS_MAX: u32 = 200;
/// The name of a mailbox, as schemas have it.
pub const MAILBOX_PATTERN: &str = "^(all|(agent|task):[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-\
     [0-9a-fA-F]{12}|(topic|dead):[A-Za-z0-9_./:-]{1,200})$";
/// The reader of who names none.
pub const READER_DEFAULT: &str = "default";

/// Where messages go and are read from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mailbox {
    /// An agent's own.
    Agent(Uuid),
    /// A task's own, for whoever runs it.
    Task(Uuid),
    /// Of all who care for a subject.
    Topic(String),
    /// Everybody's.
    All,
    /// What could not be delivered to this subscription.
    Dead(String),
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mailbox::Agent(id) => write!(f, "agent:{id}"),
            Mailbox::Task(id) => write!(f, "task:{id}"),
            Mailbox::Topic(name) => write!(f, "topic:{name}"),
            Mailbox::All => f.write_str("all"),
            Mailbox::Dead(name) => write!(f, "dead:{name}"),
        }
    }
}

impl FromStr for Mailbox {
    type Err = String;

    fn from_str(text: &str) -> Result<Mailbox, String> {
        const FORM: &str = "must be agent:ID, task:ID, topic:NAME, all or dead:NAME";
        let id = |id: &str| Uuid::parse_str(id).map_err(|_| format!("{FORM}, and an ID is a UUID"));
        let named = |name: &str| match name_fault(name) {
            None => Ok(name.to_owned()),
            Some(fault) => Err(format!("has a name that {fault}")),
        };
        match text.split_once(':') {
            Some(("agent", rest)) => Ok(Mailbox::Agent(id(rest)?)),
            Some(("task", rest)) => Ok(Mailbox::Task(id(rest)?)),
            Some(("topic", rest)) => Ok(Mailbox::Topic(named(rest)?)),
            Some(("dead", rest)) => Ok(Mailbox::Dead(named(rest)?)),
            None if text == "all" => Ok(Mailbox::All),
            Some(_) | None => Err(FORM.to_owned()),
        }
    }
}

impl PartialSchema for Mailbox {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).pattern(Some(MAILBOX_PATTERN)).into()
    }
}

impl ToSchema for Mailbox {}

impl Serialize for Mailbox {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mailbox {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Mailbox, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What is wrong with the name of a topic or a subscription.
#[must_use]
pub fn name_fault(name: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':');
    let most = usize::try_from(NAME_CHARS_MAX).unwrap_or(usize::MAX);
    if name.is_empty() || name.len() > most || !name.chars().all(fits) {
        let what = "must be 1 to 200 of the letters a to z, digits, `_`, `-`, `.`, `/` and `:`";
        return Some(what.to_owned());
    }
    None
}

/// A message that was read and checked, and not sent yet.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Where it goes.
    pub to: Mailbox,
    /// Who sends it, in its own words.
    pub sender: Option<String>,
    /// What kind of message it is, in the sender's words.
    pub kind: Option<String>,
    /// What it says: any JSON.
    pub body: Box<RawValue>,
    /// The message that it answers.
    pub reply_to: Option<Uuid>,
    /// How long it is kept.
    pub ttl_seconds: u64,
    /// An object that describes it.
    pub metadata: Option<Box<RawValue>>,
    /// What the sender should know.
    pub warnings: Vec<String>,
}

/// A message in its mailbox.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// Its id.
    pub message_id: Uuid,
    /// Where it is.
    pub mailbox: Mailbox,
    /// Its place there.
    pub offset: u64,
    /// Who sent it, in its own words.
    pub sender: Option<String>,
    /// What kind of message it is, in the sender's words.
    pub kind: Option<String>,
    /// What it says.
    #[schema(value_type = serde_json::Value)]
    pub body: Box<RawValue>,
    /// The message that it answers.
    pub reply_to: Option<Uuid>,
    /// An object that describes it.
    #[schema(value_type = Object)]
    pub metadata: Box<RawValue>,
    /// When it was sent.
    pub created_at: UtcTime,
    /// When it is gone.
    pub expires_at: UtcTime,
}

/// The answer to `POST /api/v1/messages`: the message is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// Its id.
    pub message_id: Uuid,
    /// Where it is.
    pub mailbox: Mailbox,
    /// Its place there.
    pub offset: u64,
    /// When it is gone.
    pub expires_at: UtcTime,
    /// What the sender should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The answer to `GET /api/v1/messages`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MessagePage {
    /// Messages, by offset.
    pub items: Vec<Message>,
    /// The offset to go on with.
    pub next_offset: u64,
    /// The offset of the last message that the reader has acknowledged; null: none.
    pub acknowledged: Option<u64>,
}

/// The body of `POST /api/v1/messages/ack`, and an acknowledgement in a worker's poll.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Which.
    pub mailbox: Mailbox,
    /// Who has read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<String>,
    /// The last message that need not be given again.
    pub offset: u64,
}

/// The answer to an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AckAnswer {
    /// Which.
    pub mailbox: Mailbox,
    /// Who has read it.
    pub reader: String,
    /// The offset of the last message that it has acknowledged; null: none.
    pub acknowledged: Option<u64>,
}

/// A reader of a mailbox, known by its acknowledgements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MailboxReader {
    /// Its name.
    pub reader: String,
    /// The offset of the last message that it has acknowledged; null: none.
    pub acknowledged: Option<u64>,
    /// Messages behind that, at the most: some may have expired.
    pub waiting: u64,
}

/// One mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MailboxShown {
    /// Which.
    pub mailbox: Mailbox,
    /// Messages that are kept, read or not.
    pub messages: u64,
    /// Their bytes as they are kept.
    pub bytes: u64,
    /// The offset that the next message gets.
    pub next_offset: u64,
    /// Who reads it.
    pub readers: Vec<MailboxReader>,
}

/// The answer to `GET /api/v1/messages/mailboxes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MailboxPage {
    /// Mailboxes, by name.
    pub items: Vec<MailboxShown>,
    /// The name to go on behind, if there are more.
    pub next_after: Option<String>,
    /// Unread messages that a mailbox holds at the most.
    pub max_queue_size: u64,
}

const FIELDS: [&str; 7] = ["to", "sender", "kind", "body", "reply_to", "ttl_seconds", "metadata"];

/// Reads and checks the body of `POST /api/v1/messages`.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse(body: &[u8], bounds: &Bounds) -> Result<Draft, ApiError> {
    let bounds = &Bounds { body_bytes_max: REQUEST_BYTES_MAX, ..bounds.clone() };
    let members = submission::open(body, bounds)?;
    let mut faults = Faults::default();
    let (mut slots, mut warnings) = ([None; FIELDS.len()], Vec::new());
    for (name, value) in members.0 {
        match FIELDS.iter().position(|field| *field == name) {
            Some(index) if slots[index].is_none() => slots[index] = Some(value),
            Some(_) => faults.invalid(name, "is given twice"),
            None => warnings.push(submission::unknown_field(&name)),
        }
    }
    warnings.truncate(UNKNOWN_NAMED_MAX);
    let [to, sender, kind, body, reply_to, ttl_seconds, metadata] = slots;
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let to = address(&mut reader, to);
    let sender = reader.trimmed("sender", sender, Null::Absent, NAME_CHARS_MAX);
    let kind = reader.trimmed("kind", kind, Null::Absent, NAME_CHARS_MAX);
    let reply_to = reader.id("reply_to", reply_to.filter(|raw| raw.get() != "null"));
    let lasts = 1..=TTL_SECONDS_MAX;
    let ttl_seconds = reader.integer("ttl_seconds", ttl_seconds, Null::Absent, lasts);
    let metadata = reader.object("metadata", metadata.filter(|raw| raw.get() != "null"));
    if body.is_none() {
        reader.invalid("body", "is required: any JSON");
    }
    for (field, raw, most) in
        [("body", body, BODY_BYTES_MAX), ("metadata", metadata, METADATA_BYTES_MAX)]
    {
        if let Some(found) = raw.map(|raw| raw.get().len()).filter(|found| *found > most) {
            reader.invalid(field, format!("must have at most {most} bytes, found {found}"));
        }
    }
    let draft = to.zip(body).map(|(to, body)| Draft {
        to,
        sender: sender.map(Into::into),
        kind: kind.map(Into::into),
        body: body.to_owned(),
        reply_to,
        ttl_seconds: ttl_seconds.unwrap_or(TTL_SECONDS_DEFAULT),
        metadata: metadata.map(RawValue::to_owned),
        warnings,
    });
    faults.check()?;
    // Without a fault both are there.
    draft.ok_or_else(|| ApiError::new(ErrorCode::Internal, "a message was lost while it was read"))
}

/// `{"agent": id}`, `{"task": id}`, `{"topic": name}` or `{"all": true}`.
fn address(reader: &mut Reader<'_>, raw: Option<&RawValue>) -> Option<Mailbox> {
    const FORM: &str = "one of {\"agent\": ID}, {\"task\": ID}, {\"topic\": NAME}, {\"all\": true}";
    let Some(raw) = raw else {
        reader.invalid("to", format!("is required: {FORM}"));
        return None;
    };
    let members = document::members(reader.object("to", Some(raw))?.get())?;
    let [(name, value)] = &members.0[..] else {
        reader.invalid("to", format!("must be {FORM}"));
        return None;
    };
    match &**name {
        "agent" | "task" | "topic" if value.get() == "null" => {
            reader.invalid(&format!("to.{name}"), "must be given, found null");
            None
        }
        "agent" => reader.id("to.agent", Some(value)).map(Mailbox::Agent),
        "task" => reader.id("to.task", Some(value)).map(Mailbox::Task),
        "topic" => {
            let name = reader.text("to.topic", Some(value), Null::Refused, NAME_CHARS_MAX)?;
            if let Some(fault) = name_fault(&name) {
                reader.invalid("to.topic", fault);
                return None;
            }
            Some(Mailbox::Topic(name.into_owned()))
        }
        "all" if value.get() == "true" => Some(Mailbox::All),
        _ => {
            reader.invalid("to", format!("must be {FORM}"));
            None
        }
    }
}

/// Reads and checks the body of `POST /api/v1/messages/ack`.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse_ack(body: &[u8], bounds: &Bounds) -> Result<Ack, ApiError> {
    let members = submission::open(body, bounds)?;
    let mut faults = Faults::default();
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let (mut mailbox, mut name, mut offset) = (None, None, None);
    for (field, value) in members.0 {
        match &*field {
            "mailbox" => mailbox = Some(value),
            "reader" => name = Some(value),
            "offset" => offset = Some(value),
            other => reader.invalid(other, "is not known"),
        }
    }
    if mailbox.is_none() {
        reader.invalid("mailbox", "is required");
    }
    if offset.is_none() {
        reader.invalid("offset", "is required: that of the last message that was handled");
    }
    let mailbox = reader.text("mailbox", mailbox, Null::Refused, 2 * NAME_CHARS_MAX);
    let mailbox = mailbox.and_then(|text| match text.parse::<Mailbox>() {
        Ok(mailbox) => Some(mailbox),
        Err(what) => {
            reader.invalid("mailbox", what);
            None
        }
    });
    let name = reader.trimmed("reader", name, Null::Absent, NAME_CHARS_MAX);
    let offset = reader.integer("offset", offset, Null::Refused, 0..=u64::MAX >> 2);
    let ack = mailbox.zip(offset).map(|(mailbox, offset)| Ack {
        mailbox,
        reader: name.map(Into::into),
        offset,
    });
    faults.check()?;
    ack.ok_or_else(|| ApiError::new(ErrorCode::Internal, "an acknowledgement was lost"))
}

/// Which messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageQuery {
    /// Of which mailbox.
    pub mailbox: Mailbox,
    /// For whom.
    pub reader: String,
    /// From this one on; `None`: behind what the reader has acknowledged.
    pub offset: Option<u64>,
    /// Most of them.
    pub limit: u32,
    /// How long to wait for the first one.
    pub wait_seconds: u64,
}

/// The query of `GET /api/v1/messages`, unread.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RawMessageQuery {
    mailbox: Option<String>,
    reader: Option<String>,
    offset: Option<String>,
    limit: Option<String>,
    wait_seconds: Option<String>,
}

impl RawMessageQuery {
    /// What it asks for.
    ///
    /// # Errors
    /// The parameter that cannot be read.
    pub fn read(&self) -> Result<MessageQuery, ApiError> {
        let mailbox = self.mailbox.as_deref().unwrap_or_default().parse();
        let reader = self.reader.as_deref().unwrap_or(READER_DEFAULT);
        let most = usize::try_from(NAME_CHARS_MAX).unwrap_or(usize::MAX);
        let (least, chars) = (reader.trim().len(), reader.chars().count());
        if least == 0 || chars > most || reader.contains('\0') {
            let what = format!("must be 1 to {most} characters without NUL, not all blank");
            return Err(bad("reader", what));
        }
        let wait = self.wait_seconds.as_deref();
        let limit = number("limit", self.limit.as_deref(), LIMIT_DEFAULT.into(), 1, LIMIT_MAX)?;
        let offset = self.offset.as_deref();
        let from = number("offset", offset, 0, 0, u64::MAX >> 2)?;
        Ok(MessageQuery {
            mailbox: mailbox.map_err(|what| bad("mailbox", what))?,
            reader: reader.trim().to_owned(),
            offset: offset.map(|_| from),
            limit: u32::try_from(limit).unwrap_or(LIMIT_MAX),
            wait_seconds: number("wait_seconds", wait, 0, 0, WAIT_SECONDS_MAX)?,
        })
    }
}

/// Which mailboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxQuery {
    /// What their names begin with, such as `topic:`; empty: all of them.
    pub prefix: String,
    /// Those whose names come behind this one, as `next_after` of the page before said; empty: from
    /// the first.
    pub after: String,
    /// Most of them, up to [`LIMIT_MAX`].
    pub limit: u32,
}

impl Default for MailboxQuery {
    fn default() -> MailboxQuery {
        MailboxQuery { prefix: String::new(), after: String::new(), limit: LIMIT_DEFAULT }
    }
}

/// The query of `GET /api/v1/messages/mailboxes`, unread.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RawMailboxQuery {
    prefix: Option<String>,
    after: Option<String>,
    limit: Option<String>,
}

impl RawMailboxQuery {
    /// What it asks for.
    ///
    /// # Errors
    /// The parameter that cannot be read.
    pub fn read(self) -> Result<MailboxQuery, ApiError> {
        let limit = number("limit", self.limit.as_deref(), LIMIT_DEFAULT.into(), 1, LIMIT_MAX)?;
        let limit = u32::try_from(limit).unwrap_or(LIMIT_MAX);
        let (prefix, after) = (self.prefix.unwrap_or_default(), self.after.unwrap_or_default());
        Ok(MailboxQuery { prefix, after, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submission::tests::BOUNDS;

    const ID: &str = "0190163d-8694-739b-aea5-966c26f8ad90";

    #[test]
    fn mailboxes_read_back_what_they_write() {
        for text in [
            "all".to_owned(),
            format!("agent:{ID}"),
            format!("task:{ID}"),
            "topic:a/b.c".to_owned(),
            "dead:x".to_owned(),
        ] {
            assert_eq!(text.parse::<Mailbox>().unwrap().to_string(), text);
        }
        for text in ["", "agent:7", "topic:", "topic:ä", "every", "all:x", "topic:a b"] {
            assert!(text.parse::<Mailbox>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_message_has_defaults_and_its_faults_are_all_named() {
        let draft = parse(br#"{"to": {"topic": "news"}, "body": [1], "x": 1}"#, &BOUNDS).unwrap();
        assert_eq!((draft.to.to_string(), draft.body.get()), ("topic:news".to_owned(), "[1]"));
        assert_eq!(draft.ttl_seconds, TTL_SECONDS_DEFAULT);
        assert_eq!(draft.warnings, ["unknown field `x` is ignored"]);
        let large = format!(r#"{{"to": {{"all": true}}, "body": "{}"}}"#, "x".repeat(262_143));
        for (body, field) in [
            ("{}", "to"),
            (r#"{"to": {"all": true}}"#, "body"),
            (r#"{"to": {"all": false}, "body": 1}"#, "to"),
            (r#"{"to": {"agent": "x"}, "body": 1}"#, "to.agent"),
            (r#"{"to": {"task": null}, "body": 1}"#, "to.task"),
            (r#"{"to": {"topic": "a b"}, "body": 1}"#, "to.topic"),
            (r#"{"to": {"topic": "a", "all": true}, "body": 1}"#, "to"),
            (r#"{"to": {"all": true}, "body": 1, "ttl_seconds": 0}"#, "ttl_seconds"),
            (r#"{"to": {"all": true}, "body": 1, "reply_to": "x"}"#, "reply_to"),
            (r#"{"to": {"all": true}, "body": 1, "metadata": []}"#, "metadata"),
            (&large, "body"),
        ] {
            let error = parse(body.as_bytes(), &BOUNDS).unwrap_err();
            assert!(error.details["fields"].get(field).is_some(), "{field}: {error:?}");
        }
    }

    #[test]
    fn an_acknowledgement_is_read_whole() {
        let ack = parse_ack(br#"{"mailbox": "all", "offset": 3}"#, &BOUNDS).unwrap();
        assert_eq!(ack, Ack { mailbox: Mailbox::All, reader: None, offset: 3 });
        for (body, field) in [
            (r#"{"offset": 1}"#, "mailbox"),
            (r#"{"mailbox": "al", "offset": 1}"#, "mailbox"),
            (r#"{"mailbox": "all"}"#, "offset"),
            (r#"{"mailbox": "all", "offset": 1, "x": 2}"#, "x"),
        ] {
            let error = parse_ack(body.as_bytes(), &BOUNDS).unwrap_err();
            assert!(error.details["fields"].get(field).is_some(), "{field}: {error:?}");
        }
    }
}
