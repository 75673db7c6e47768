//! Keys that tasks share: what holds for them, and how to change it.

use maos_api::error::ApiError;
use maos_api::keys::{self, ConcurrencyKey, ConcurrencyLimit, FairnessKey, Keys};
use maos_core::command::Command;
use maos_core::node::{Answer, Echo, Query};
use maos_core::spec::{Limit, Setting};

use super::{Service, faults};

/// Which kind of key is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// How many run at once, how fast they start.
    Concurrency,
    /// How often their turn comes.
    Fairness,
}

impl Service {
    /// All keys that have a setting, and concurrency keys that are in use.
    ///
    /// # Errors
    /// Why they cannot be told.
    pub async fn keys(&self) -> Result<Keys, ApiError> {
        let Answer::Keys(found) = self.ask(Query::Keys).await? else {
            return Err(faults::internal(&"keys were something else"));
        };
        let concurrency = found.gates.into_iter().map(|(key, limit, running)| {
            let Limit { running_max, starts_per_minute } = limit.unwrap_or(Limit::UNSET);
            let is_set = limit.is_some();
            let limit = ConcurrencyLimit { running_max, starts_per_minute };
            (key.into(), ConcurrencyKey { limit, running, is_set })
        });
        let weights = found.weights.into_iter();
        let fairness = weights.map(|(key, weight)| (key.into(), FairnessKey { weight }));
        Ok(Keys { concurrency: concurrency.collect(), fairness: fairness.collect() })
    }

    /// Sets what holds for a key; it does so for the next task that starts.
    ///
    /// # Errors
    /// What is wrong with the setting, or why it is not taken.
    pub async fn set_key(&self, kind: KeyKind, key: &str, body: &[u8]) -> Result<Keys, ApiError> {
        let setting = match kind {
            KeyKind::Concurrency => {
                let ConcurrencyLimit { running_max, starts_per_minute } =
                    keys::parse_limit(body, self.bounds())?;
                Setting::Limit(Some(Limit { running_max, starts_per_minute }))
            }
            KeyKind::Fairness => {
                Setting::Weight(Some(keys::parse_weight(body, self.bounds())?.weight))
            }
        };
        self.change_key(key, setting).await
    }

    /// Forgets what was set for a key.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn unset_key(&self, kind: KeyKind, key: &str) -> Result<Keys, ApiError> {
        let setting = match kind {
            KeyKind::Concurrency => Setting::Limit(None),
            KeyKind::Fairness => Setting::Weight(None),
        };
        self.change_key(key, setting).await
    }

    async fn change_key(&self, key: &str, setting: Setting) -> Result<Keys, ApiError> {
        let most = usize::try_from(self.bounds().word_chars_max).unwrap_or(usize::MAX);
        let trimmed = key.trim();
        if trimmed.is_empty() || key.chars().count() > most || key.contains('\0') {
            let what = format!("must be 1 to {most} characters without NUL");
            return Err(ApiError::invalid("key", what));
        }
        let command = Command::SetKey { key: trimmed.into(), setting };
        self.inner.driver.run(command, Echo::Id).await.map_err(faults::refused)?;
        self.keys().await
    }
}
