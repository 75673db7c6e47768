//! The clocks that the driver reads for the node, and the randomness it draws.

use std::hash::{BuildHasher, RandomState};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use maos_core::time::{Clock, Moment, Timestamp, WallTime};

pub(super) struct Clocks {
    started: Instant,
    clock: Clock,
    last: Timestamp,
    entropy: u64,
}

impl Clocks {
    /// Clocks that go on from the last journaled time.
    pub(super) fn resume(journaled: Timestamp) -> Clocks {
        let clock = Clock::resume(journaled, 0, wall());
        let entropy = RandomState::new().hash_one(journaled.0);
        Clocks { started: Instant::now(), clock, last: journaled, entropy }
    }

    pub(super) fn read(&mut self) -> Moment {
        let monotonic_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall = wall();
        self.last = self.clock.read(monotonic_us, wall);
        Moment { at: self.last, wall, entropy: self.draw() }
    }

    /// What was read last.
    pub(super) fn last(&self) -> Timestamp {
        self.last
    }

    /// SplitMix64 by Steele, Lea and Flood: good enough to spread retries.
    fn draw(&mut self) -> u32 {
        self.entropy = self.entropy.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.entropy;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        u32::try_from(mixed >> 32).unwrap_or_default()
    }
}

fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
