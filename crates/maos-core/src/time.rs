//! Two kinds of time, never mixed.
//!
//! [`Timestamp`] is the engine's own time: it only moves forward, and every timer and order key is
//! in it. [`WallTime`] is what a calendar shows; it may jump, so nothing but a display rests on it.

use minicbor::{Decode, Encode};

/// The engine's time, in microseconds. It starts near the Unix epoch's count and never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Timestamp(#[n(0)] pub u64);

/// What the wall clock showed, in microseconds since the Unix epoch. For people, never for timers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct WallTime(#[n(0)] pub u64);

/// What the shell knows at one instant and the core cannot find out by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Moment {
    /// The engine's time.
    #[n(0)]
    pub at: Timestamp,
    /// The calendar's time.
    #[n(1)]
    pub wall: WallTime,
    /// Fresh randomness, spent on the jitter of backoffs.
    #[n(2)]
    pub entropy: u32,
}

impl Timestamp {
    /// This time and `delta_ms` milliseconds more; stops at the end of time instead of wrapping.
    #[must_use]
    pub fn plus_ms(self, delta_ms: u64) -> Timestamp {
        Timestamp(self.0.saturating_add(delta_ms.saturating_mul(1_000)))
    }

    /// Milliseconds from `earlier` to this time; 0 if it is not earlier.
    #[must_use]
    pub fn ms_since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000
    }
}

/// The engine's clock: the last journaled time plus the monotonic time since, drawn towards the
/// wall clock by at most a tenth of what has passed.
///
/// Pure: the shell hands in what its clocks show.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    now: Timestamp,
    monotonic_us: u64,
}

/// The largest part of elapsed time that slewing may add or take away.
const SLEW_DIVISOR: u64 = 10;

impl Clock {
    /// A clock that goes on from `journaled`; `monotonic_us` is what the monotonic clock shows now.
    /// A first start, with nothing journaled, takes the wall clock's word.
    #[must_use]
    pub fn resume(journaled: Timestamp, monotonic_us: u64, wall: WallTime) -> Clock {
        let now = if journaled == Timestamp::default() { Timestamp(wall.0) } else { journaled };
        Clock { now, monotonic_us }
    }

    /// The engine's time at this reading of both clocks.
    pub fn read(&mut self, monotonic_us: u64, wall: WallTime) -> Timestamp {
        let elapsed = monotonic_us.saturating_sub(self.monotonic_us);
        self.monotonic_us = self.monotonic_us.max(monotonic_us);
        let plain = self.now.0.saturating_add(elapsed);
        let slew_max = elapsed / SLEW_DIVISOR;
        let drawn = if wall.0 >= plain {
            plain.saturating_add((wall.0 - plain).min(slew_max))
        } else {
            plain - (plain - wall.0).min(slew_max)
        };
        assert!(drawn >= self.now.0, "the engine's time never goes back");
        self.now = Timestamp(drawn);
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR_US: u64 = 365 * 24 * 3_600 * 1_000_000;
    const START: u64 = 50 * YEAR_US;

    #[test]
    fn a_wall_clock_that_jumps_a_year_moves_time_by_a_tenth_of_what_passed() {
        for wall in [START - YEAR_US, START + YEAR_US] {
            let mut clock = Clock::resume(Timestamp(START), 7, WallTime(START));
            let read = clock.read(7 + 1_000_000, WallTime(wall)).0 - START;
            assert!((900_000..=1_100_000).contains(&read), "{read}");
        }
    }

    #[test]
    fn a_resumed_clock_goes_on_from_the_journal_and_catches_up_with_the_wall() {
        let mut clock = Clock::resume(Timestamp(START), 0, WallTime(START + 500));
        assert_eq!(clock.read(100, WallTime(START + 600)).0, START + 110);
        for step in 1..100 {
            clock.read(100 * step, WallTime(START + 500 + 100 * step));
        }
        assert_eq!(clock.read(10_000, WallTime(START + 10_500)).0, START + 10_500);
    }
}
