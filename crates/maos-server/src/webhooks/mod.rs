//! Webhooks: signed POSTs to whoever wants to be told, tried again until they are taken.
//!
//! Its law: what is sent is signed as Standard Webhooks say (`webhook-id`, `webhook-timestamp`,
//! `webhook-signature`), with the same id at every try; so many are under way at once and no more.
//! What is sent, and what becomes of what nobody takes, is for whoever sends.

mod subscriptions;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request, Uri};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::base64;
use crate::config;
use crate::messages::{Count, now};
use crate::outbound::{Outbound, OutboundError};

pub use subscriptions::Subscriptions;

const PREFIX: &str = "whsec_";
/// Bytes of a secret, as the standard says.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Bytes of an answer that an error quotes.
const QUOTED_BYTES: usize = 300;
/// Longest pause between two tries.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(300);

/// A key to sign with.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Who is told.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where.
    pub url: String,
    /// What it is signed with.
    pub secret: Secret,
}

/// Why somebody was not told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Undelivered {
    /// It was not reached.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// It did not take it.
    #[error("`{url}` answered {status}: {quoted}")]
    NotTaken {
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the answer.
        quoted: String,
    },
}

/// Delivers. Clones share everything.
#[derive(Clone)]
pub struct Webhooks {
    inner: Arc<Inner>,
}

struct Inner {
    outbound: Outbound,
    slots: Semaphore,
    config: config::Webhooks,
    counts: Arc<WebhookCounts>,
}

/// What happened since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct WebhookCounts {
    delivered: Count,
    failed: Count,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// A new one that nobody knows.
    ///
    /// # Panics
    /// When the system has no randomness.
    #[must_use]
    pub fn generate() -> Secret {
        let mut bytes = vec![0; 32];
        SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
        Secret(bytes)
    }

    /// One as it is written down: `whsec_` and base64.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Secret, String> {
        let wanted = "must be `whsec_` and 24 to 64 bytes in base64";
        let digits = text.strip_prefix(PREFIX).ok_or(wanted)?;
        let bytes = base64::decode(digits).map_err(|_| wanted)?;
        if SECRET_BYTES.contains(&bytes.len()) { Ok(Secret(bytes)) } else { Err(wanted.to_owned()) }
    }

    /// As it is written down.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", base64::encode(&self.0))
    }

    /// The signature of a body.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", base64::encode(context.sign().as_ref()))
    }

    /// A signed request, as of now.
    ///
    /// # Errors
    /// That the URL cannot be sent.
    pub(crate) fn request(
        &self,
        method: Method,
        uri: Uri,
        id: &str,
        body: &Bytes,
    ) -> Result<Request<Full<Bytes>>, OutboundError> {
        let timestamp = now() / 1_000_000;
        let url = uri.to_string();
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", "application/json")
            .header("user-agent", concat!("maos/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", self.sign(id, timestamp, body))
            .body(Full::new(body.clone()));
        request.map_err(|_| OutboundError::BadUrl { url, why: "it cannot be sent" })
    }
}

impl Webhooks {
    /// Delivers through `outbound` as `config` says, so many at once.
    #[must_use]
    pub(crate) fn new(
        config: config::Webhooks,
        at_once: u32,
        outbound: Outbound,
        counts: Arc<WebhookCounts>,
    ) -> Webhooks {
        let slots = Semaphore::new(usize::try_from(at_once).unwrap_or(usize::MAX >> 3));
        Webhooks { inner: Arc::new(Inner { outbound, slots, config, counts }) }
    }

    /// Refuses a URL that can never be told.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, url: &str) -> Result<(), OutboundError> {
        self.inner.outbound.check(url).map(drop)
    }

    /// Tells a target, as often as it takes and as often as may be; `tried` hears of each failure
    /// and of the pause behind it. Drop it to give up.
    ///
    /// # Errors
    /// Why the last try failed.
    pub async fn send(
        &self,
        target: &Target,
        id: &str,
        body: &Bytes,
        tried: &(dyn Fn(u32, &Undelivered, Duration) + Sync),
    ) -> Result<(), Undelivered> {
        let config = &self.inner.config;
        let mut pause = Duration::from_millis(config.retry_pause_ms);
        for number in 1.. {
            let why = match self.send_once(target, id, body).await {
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            let hopeless = matches!(
                why,
                Undelivered::Outbound(OutboundError::BadUrl { .. } | OutboundError::Inner { .. })
            );
            if hopeless || number >= config.attempts_max {
                return Err(why);
            }
            let spread = spread(pause);
            tried(number, &why, spread);
            tokio::time::sleep(spread).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        unreachable!("the last try returns")
    }

    /// Tells a target once.
    ///
    /// # Errors
    /// Why it was not told.
    pub async fn send_once(
        &self,
        target: &Target,
        id: &str,
        body: &Bytes,
    ) -> Result<(), Undelivered> {
        // Closed never: the semaphore lives as long as this.
        let _slot = self.inner.slots.acquire().await;
        let told = self.post(target, id, body).await;
        let counts = &self.inner.counts;
        let count = if told.is_ok() { &counts.delivered } else { &counts.failed };
        count.add(1);
        told
    }

    async fn post(&self, target: &Target, id: &str, body: &Bytes) -> Result<(), Undelivered> {
        let outbound = &self.inner.outbound;
        let uri = outbound.check(&target.url)?;
        let request = target.secret.request(Method::POST, uri, id, body)?;
        let time = Duration::from_secs(self.inner.config.timeout_seconds);
        let answer = outbound.send(request, time, QUOTED_BYTES).await?;
        if (200..300).contains(&answer.status) {
            return Ok(());
        }
        let quoted = String::from_utf8_lossy(&answer.body);
        let quoted = quoted.chars().filter(|c| !c.is_control()).collect();
        let (url, status) = (target.url.clone(), answer.status);
        Err(Undelivered::NotTaken { url, status, quoted })
    }

    /// How many were told, and how many tries failed.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.inner.counts.delivered.all(), self.inner.counts.failed.all())
    }
}

/// A pause of one half to one and a half of `pause`: what failed together comes back apart.
pub(crate) fn spread(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let chance = RandomState::new().hash_one(()) % 1_000;
    pause.mul_f64(0.5 + f64::from(u32::try_from(chance).unwrap_or_default()) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_published_one() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_read_back_what_they_write() {
        let secret = Secret::generate();
        assert!(Secret::parse(&secret.text()).unwrap() == secret);
        assert_eq!(format!("{secret:?}"), "Secret");
        for bad in ["", "whsec_", "whsec_YQ==", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_ä"] {
            assert!(Secret::parse(bad).is_err(), "{bad}");
        }
    }
}
