//! Whether a request that failed goes out again, and when.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::ClientError;
use crate::error::{ErrorCode, Retry};

/// Pause before a server that is away is asked again.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// No server's wish for a pause is heeded beyond this.
const ASKED_MAX: Duration = Duration::from_secs(60);

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

    /// The pauses, one after another, without chance.
    pub(super) fn pauses(self) -> impl Iterator<Item = Duration> {
        (0..self.more_max).map(move |index| {
            let pause = self.pause_first.saturating_mul(1 << index.min(20));
            pause.min(self.pause_max)
        })
    }
}

/// The pauses of whoever goes on for ever.
#[derive(Debug)]
pub(super) struct Reconnecting {
    next: Duration,
    /// No pause is longer, chance included.
    pause_max: Duration,
}

impl Reconnecting {
    /// From [`PAUSE_FIRST`] on, each about twice the one before, none above `pause_max`.
    pub(super) fn within(pause_max: Duration) -> Reconnecting {
        Reconnecting { next: PAUSE_FIRST, pause_max }
    }

    /// The pause after a try that ended so: not below what the server asks for, within the bound.
    pub(super) fn after(&mut self, fault: &ClientError) -> Duration {
        // Half of it is left to chance, also at the bound: else all who wait long come back at the
        // same moment.
        let grown = self.next.min(self.pause_max / 2);
        self.next = grown.saturating_mul(2);
        let least = grown.max(asked_for(fault).min(self.pause_max));
        by_chance(least, least.saturating_mul(2).min(self.pause_max))
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
        ClientError::Api { status, body, .. } => match ErrorCode::from_name(&body.error_code) {
            // It may have been done.
            Some(ErrorCode::StorageUnavailable) => harmless,
            Some(code) => code.retry() == Retry::Later,
            None => matches!(status, 429 | 503),
        },
        ClientError::BadUrl { .. }
        | ClientError::BadCertificate { .. }
        | ClientError::Insecure { .. }
        | ClientError::NoJson { .. }
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

/// The pause that a server asks for; none if it does not.
pub(super) fn asked_for(fault: &ClientError) -> Duration {
    match fault {
        ClientError::Api { retry_after, .. } => retry_after.unwrap_or_default().min(ASKED_MAX),
        _ => Duration::ZERO,
    }
}

/// A pause of one to two times `pause`.
pub(super) fn spread(pause: Duration) -> Duration {
    by_chance(pause, pause.saturating_mul(2))
}

fn by_chance(least: Duration, most: Duration) -> Duration {
    let chance = RandomState::new().hash_one(()) % 1_000;
    let part = f64::from(u32::try_from(chance).unwrap_or_default()) / 1_000.0;
    least + most.saturating_sub(least).mul_f64(part)
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
        assert_eq!(pauses[..6], [1, 2, 4, 8, 8, 8].map(|seconds| seconds * second));
        assert_eq!(Retries::NONE.pauses().count(), 0);
    }

    fn away() -> ClientError {
        ClientError::TimedOut { url: String::new(), seconds: 1 }
    }

    #[test]
    fn many_who_wait_come_back_within_their_bound_and_not_at_once() {
        for most in [Duration::from_millis(300), Duration::from_secs(30)] {
            let mut workers: Vec<_> = (0..1_000).map(|_| Reconnecting::within(most)).collect();
            for _ in 0..10 {
                let pauses = workers.iter_mut().map(|worker| worker.after(&away()));
                let mut pauses: Vec<Duration> = pauses.collect();
                pauses.sort();
                let (first, last) = (pauses[0], pauses[999]);
                assert!(last <= most && last > first.mul_f64(1.8), "{first:?} to {last:?}");
                // In no twentieth of the time are there more than three times their share.
                let span = (last - first) / 20;
                let most_at_once = pauses.chunk_by(|one, two| {
                    let slot = |at: &Duration| (*at - first).as_nanos() / span.as_nanos();
                    slot(one) == slot(two)
                });
                assert!(most_at_once.map(<[Duration]>::len).max() < Some(150), "{pauses:?}");
            }
        }
    }

    #[test]
    fn a_server_may_ask_for_a_longer_pause_within_the_bound() {
        let asks = |seconds| {
            let full = crate::error::ApiError::new(ErrorCode::QueueFull, "full");
            let body = Box::new(full.into_body(crate::time::UtcTime(0), String::new()));
            let retry_after = Some(Duration::from_secs(seconds));
            ClientError::Api { status: 429, body, retry_after }
        };
        let second = Duration::from_secs(1);
        let pause = |seconds| Reconnecting::within(30 * second).after(&asks(seconds));
        assert!((5 * second..=10 * second).contains(&pause(5)));
        assert!((0..100).all(|_| (20 * second..=30 * second).contains(&pause(20))));
        assert_eq!(pause(1_000_000), 30 * second);
    }
}
