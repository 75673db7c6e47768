//! Attempts whose targets may call back.
//!
//! Its law: an attempt is handed in once, by whoever comes first: the answer to its request, a
//! callback, or the order to stop. A token is good for one attempt and for one start of the server;
//! nothing is kept for it, so that one of an attempt long gone is still known for what it is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use maos_core::ids::{Attempt, TaskId};
use maos_core::spec::TaskSpec;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio_util::sync::CancellationToken;

use crate::base64;

type Key = (TaskId, Attempt);

/// All attempts under way.
pub struct Awaited {
    signing: hmac::Key,
    attempts: Mutex<HashMap<Key, Entry>>,
}

struct Entry {
    underway: Underway,
    brought: CancellationToken,
    waits: Option<String>,
}

/// What is needed to judge what a callback brings.
#[derive(Clone)]
pub struct Underway {
    /// What was asked for.
    pub spec: Arc<TaskSpec>,
    /// Subtasks that its answer may have, if it plans.
    pub subtasks_max: u32,
}

/// The attempt's own end of it; closed when it is dropped.
pub(super) struct Place<'a> {
    awaited: &'a Awaited,
    key: Key,
    brought: CancellationToken,
}

impl Awaited {
    /// # Panics
    /// When the system has no randomness.
    pub(super) fn new() -> Awaited {
        let signing = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let signing = signing.expect("the system has randomness");
        Awaited { signing, attempts: Mutex::default() }
    }

    /// What a callback for an attempt must show.
    pub(super) fn token(&self, key: Key) -> String {
        base64::encode(hmac::sign(&self.signing, named(key).as_bytes()).as_ref())
    }

    /// Whether a token is that of an attempt, compared in constant time.
    #[must_use]
    pub fn admits(&self, key: Key, token: &str) -> bool {
        let tag = base64::decode(token).unwrap_or_default();
        hmac::verify(&self.signing, named(key).as_bytes(), &tag).is_ok()
    }

    /// An attempt, if it is under way.
    #[must_use]
    pub fn underway(&self, key: Key) -> Option<Underway> {
        self.held().get(&key).map(|entry| entry.underway.clone())
    }

    /// Has an attempt handed in and ends it, in one moment; `None` if it is not under way any more.
    pub fn bring<T>(&self, key: Key, hand_in: impl FnOnce() -> T) -> Option<T> {
        let mut held = self.held();
        let entry = held.remove(&key)?;
        let handed = hand_in();
        entry.brought.cancel();
        Some(handed)
    }

    /// What an attempt waits for before it is even asked for, in words.
    #[must_use]
    pub fn waits(&self, key: Key) -> Option<String> {
        self.held().get(&key).and_then(|entry| entry.waits.clone())
    }

    /// Begins to await an attempt.
    pub(super) fn begin(&self, key: Key, underway: Underway) -> Place<'_> {
        let brought = CancellationToken::new();
        let entry = Entry { underway, brought: brought.clone(), waits: None };
        self.held().insert(key, entry);
        Place { awaited: self, key, brought }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.attempts.lock().expect("nothing panics while it holds this lock")
    }
}

impl Place<'_> {
    /// Returns when somebody else has handed the attempt in.
    pub(super) async fn brought(&self) {
        self.brought.cancelled().await;
    }

    /// Closes it; whether nobody has handed the attempt in.
    pub(super) fn close(&self) -> bool {
        self.awaited.held().remove(&self.key).is_some()
    }

    /// Notes what it waits for; `None`: it does not any more.
    pub(super) fn waits(&self, what: Option<String>) {
        if let Some(entry) = self.awaited.held().get_mut(&self.key) {
            entry.waits = what;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

fn named((task, attempt): Key) -> String {
    format!("{task}-{attempt}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_one_attempt_of_one_server() {
        let (here, there) = (Awaited::new(), Awaited::new());
        let key = (TaskId(7), Attempt(1));
        let token = here.token(key);
        assert!(here.admits(key, &token));
        for (awaited, key, token) in [
            (&there, key, token.as_str()),
            (&here, (TaskId(7), Attempt(2)), &token),
            (&here, (TaskId(8), Attempt(1)), &token),
            (&here, key, ""),
            (&here, key, &token[..token.len() - 4]),
            (&here, key, "no base64"),
        ] {
            assert!(!awaited.admits(key, token), "{key:?} {token}");
        }
    }
}
