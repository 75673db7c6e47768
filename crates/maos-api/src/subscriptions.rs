//! Subscriptions on the wire: a mailbox whose messages are posted to a URL.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorCode};
use crate::fault::Faults;
use crate::field::{Null, Reader};
use crate::messages::{Mailbox, NAME_CHARS_MAX, name_fault};
use crate::submission::{self, Bounds};
use crate::time::UtcTime;

/// Most characters of a URL.
pub const URL_CHARS_MAX: u32 = 2_048;

/// A subscription that was read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedSubscription {
    /// Whose messages.
    pub mailbox: Mailbox,
    /// Where they go.
    pub url: String,
    /// What they are signed with; `None`: what it had before, or a new one.
    pub secret: Option<String>,
    /// The first message of a new subscription; `None`: the next one that is sent.
    pub from_offset: Option<u64>,
}

/// A delivery that did not work and is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failing {
    /// The message.
    pub offset: u64,
    /// Tries so far.
    pub attempts: u32,
    /// Why the last one failed.
    pub error: String,
    /// When the next one is due.
    pub next_at: UtcTime,
}

/// The answer to every request about one subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subscription {
    /// Its name.
    pub name: String,
    /// Whose messages.
    pub mailbox: Mailbox,
    /// Where they go.
    pub url: String,
    /// When it was made.
    pub created_at: UtcTime,
    /// Only when it was made up just now: it is not shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The offset of the last message that was delivered or given up; null: none.
    pub delivered: Option<u64>,
    /// Messages behind that, at the most.
    pub waiting: u64,
    /// Where messages go that nobody took.
    pub dead_mailbox: Mailbox,
    /// How many are there.
    pub dead: u64,
    /// What is tried again at the moment.
    pub failing: Option<Failing>,
}

/// The answer to `GET /api/v1/messages/subscriptions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionList {
    /// All of them, by name.
    pub items: Vec<Subscription>,
}

/// The answer to ending one, and to delivering again what was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionAnswer {
    /// What happened, in words.
    pub message: String,
    /// The subscription.
    pub name: String,
}

/// The name of a subscription.
///
/// # Errors
/// What is wrong with it.
pub fn parse_name(name: &str) -> Result<(), ApiError> {
    let fault =
        name_fault(name).or_else(|| name.contains('/').then(|| "must not hold `/`".to_owned()));
    let Some(fault) = fault else { return Ok(()) };
    let message = format!("the name of a subscription {fault}");
    let fields = serde_json::json!({ "name": fault });
    Err(ApiError::new(ErrorCode::ValidationFailed, message).with("fields", fields))
}

/// What only the server knows of a subscription: what is wrong with a text, if anything is.
#[derive(Clone, Copy)]
pub struct Checks<'c> {
    /// Of a URL that is well-formed as a text.
    pub url: &'c dyn Fn(&str) -> Option<String>,
    /// Of a secret.
    pub secret: &'c dyn Fn(&str) -> Option<String>,
}

/// Reads and checks the body of `PUT /api/v1/messages/subscriptions/{name}`.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse(
    body: &[u8],
    bounds: &Bounds,
    checks: Checks<'_>,
) -> Result<ParsedSubscription, ApiError> {
    let members = submission::open(body, bounds)?;
    let mut faults = Faults::default();
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let (mut mailbox, mut url, mut secret, mut from) = (None, None, None, None);
    for (field, value) in members.0 {
        match &*field {
            "mailbox" => mailbox = Some(value),
            "url" => url = Some(value),
            "secret" => secret = Some(value),
            "from_offset" => from = Some(value),
            other => reader.invalid(other, "is not known"),
        }
    }
    for (field, given) in [("mailbox", mailbox), ("url", url)] {
        if given.is_none() {
            reader.invalid(field, "is required");
        }
    }
    let mailbox = reader.text("mailbox", mailbox, Null::Refused, 2 * NAME_CHARS_MAX);
    let mailbox = mailbox.and_then(|text| match text.parse::<Mailbox>() {
        Ok(Mailbox::Dead(_)) => {
            reader.invalid("mailbox", "must not be one of messages that were given up");
            None
        }
        Ok(mailbox) => Some(mailbox),
        Err(what) => {
            reader.invalid("mailbox", what);
            None
        }
    });
    let url = reader.trimmed("url", url, Null::Refused, URL_CHARS_MAX);
    let secret = reader.text("secret", secret, Null::Absent, NAME_CHARS_MAX);
    for (field, text, check) in [("url", &url, checks.url), ("secret", &secret, checks.secret)] {
        if let Some(what) = text.as_deref().and_then(check) {
            reader.invalid(field, what);
        }
    }
    let from_offset = reader.integer("from_offset", from, Null::Absent, 0..=u64::MAX >> 2);
    let parsed = mailbox.zip(url).map(|(mailbox, url)| ParsedSubscription {
        mailbox,
        url: url.into(),
        secret: secret.map(Into::into),
        from_offset,
    });
    faults.check()?;
    parsed.ok_or_else(|| ApiError::new(ErrorCode::Internal, "a subscription was lost"))
}
