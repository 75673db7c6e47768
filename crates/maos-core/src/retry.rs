//! Whether and when an unsuccessful attempt is followed by another.

use crate::event::{Failure, Next};
use crate::limits::{BACKOFF_FIRST_MS, BACKOFF_MAX_MS, LOSSES_MAX};
use crate::task::Task;
use crate::time::Moment;

/// What follows a failure of the task's own.
pub(crate) fn after_failure(task: &Task, failure: &Failure, moment: &Moment) -> Next {
    if failure.permanent || task.retries_used >= task.spec.retries_max {
        return Next::End;
    }
    // Tasks that fail in one step must not come back in one step: each mixes in its own id.
    let [.., a, b, c, d] = task.id.0.to_be_bytes();
    let entropy = moment.entropy ^ u32::from_be_bytes([a, b, c, d]);
    Next::Backoff { until: moment.at.plus_ms(backoff_ms(task.retries_used, entropy)) }
}

/// What follows an attempt that was lost through no fault of the task's.
pub(crate) fn after_loss(task: &Task) -> Next {
    if task.losses >= LOSSES_MAX { Next::End } else { Next::Requeue }
}

/// Doubled for each retry and capped; between a half of that and all of it, as `entropy` has it.
fn backoff_ms(retries_used: u32, entropy: u32) -> u64 {
    let doubled = BACKOFF_FIRST_MS.saturating_mul(1u64 << retries_used.min(32));
    let full = doubled.min(BACKOFF_MAX_MS);
    let half = full / 2;
    half + (full - half) * u64::from(entropy) / u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_a_cap_and_jitters_by_half() {
        assert_eq!(backoff_ms(0, 0), BACKOFF_FIRST_MS / 2);
        assert_eq!(backoff_ms(0, u32::MAX), BACKOFF_FIRST_MS);
        assert_eq!(backoff_ms(3, u32::MAX), BACKOFF_FIRST_MS * 8);
        assert_eq!(backoff_ms(99, u32::MAX), BACKOFF_MAX_MS);
        assert_eq!(backoff_ms(99, 0), BACKOFF_MAX_MS / 2);
    }
}
