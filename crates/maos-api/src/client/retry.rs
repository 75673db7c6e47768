//! Whether a request that failed goes out again, and when.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::ClientError;
use crate::error::{ErrorCode, Retry};

/// How often a request is sent again, and after which pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Times that it is sent again at the most.
    pub more_max: u32,
    /// The first pause; each is twice the one before, and up to twice as long by chance, so that
    /// many clients do not come back at the same moment.
    pub pause_first: Duration,
    /// No pause is longer, but for chance.
    pub pause_max: Duration,
}

impl Retries {
    /// Everything is sent once.
    pub const NONE: Retries =
        Retries { more_max: 0, pause_first: Duration::ZERO, pause_max: Duration::ZERO };

    /// The pauses, one after another.
    pub(super) fn pauses(self) -> impl Iterator<Item = Duration> {
        (0..self.more_max).map(move |index| {
            let pause = self.pause_first.saturating_mul(1 << index.min(20));
            spread(pause.min(self.pause_max))
        })
    }
}

impl Default for Retries {
    fn default() -> Retries {
        let (pause_first, pause_max) = (Duration::from_millis(200), Duration::from_secs(5));
        Retries { more_max: 4, pause_first, pause_max }
    }
}

/// Whether the same request is worth another try. `harmless`: to be carried out twice is the same
/// as once.
pub(super) fn worth_it(fault: &ClientError, harmless: bool) -> bool {
    match fault {
        // It never left.
        ClientError::Unreachable { .. } => true,
        ClientError::Broken { .. } => harmless,
        ClientError::Api { status, body } => match ErrorCode::from_name(&body.error_code) {
            // It may have been done.
            Some(ErrorCode::StorageUnavailable) => harmless,
            Some(code) => code.retry() == Retry::Later,
            None => matches!(status, 429 | 503),
        },
        ClientError::BadUrl { .. }
        | ClientError::BadCertificate { .. }
        | ClientError::Insecure { .. }
        | ClientError::Unreadable { .. }
        | ClientError::TimedOut { .. }
        | ClientError::AnswerTooLarge { .. }
        | ClientError::NotTheContract { .. }
        | ClientError::Untold { .. } => false,
    }
}

/// Whether a fault passes by itself, sooner or later.
pub(super) fn passes(fault: &ClientError) -> bool {
    matches!(fault, ClientError::TimedOut { .. }) || worth_it(fault, true)
}

/// A pause of one to two times `pause`.
pub(super) fn spread(pause: Duration) -> Duration {
    let chance = RandomState::new().hash_one(()) % 1_000;
    pause + pause.mul_f64(f64::from(u32::try_from(chance).unwrap_or_default()) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound() {
        let second = Duration::from_secs(1);
        let retries = Retries { more_max: 40, pause_first: second, pause_max: 8 * second };
        let pauses: Vec<Duration> = retries.pauses().collect();
        assert_eq!(pauses.len(), 40);
        for (pause, least) in pauses.iter().zip([1, 2, 4, 8, 8, 8, 8]) {
            assert!((least * second..=2 * least * second).contains(pause), "{pauses:?}");
        }
        assert_eq!(Retries::NONE.pauses().count(), 0);
    }
}
