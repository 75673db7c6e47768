//! The clocks that the driver reads for the node, and the randomness it draws.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use maos_core::time::{Clock, Moment, Timestamp, WallTime};

pub(super) struct Clocks {
    started: Instant,
    clock: Clock,
    last: Timestamp,
    wall: WallTime,
    entropy: u64,
    /// Shown to whoever turns calendar times into the engine's.
    ahead_us: Arc<AtomicI64>,
}

impl Clocks {
    /// Clocks that go on from the last journaled time.
    pub(super) fn resume(journaled: Timestamp, ahead_us: Arc<AtomicI64>) -> Clocks {
        let clock = Clock::resume(journaled, 0, wall());
        let entropy = RandomState::new().hash_one(journaled.0);
        let wall = wall();
        Clocks { started: Instant::now(), clock, last: journaled, wall, entropy, ahead_us }
    }

    pub(super) fn read(&mut self) -> Timestamp {
        let monotonic_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall = wall();
        self.last = self.clock.read(monotonic_us, wall);
        let ahead_us = i64::try_from(self.last.0).unwrap_or(i64::MAX)
            - i64::try_from(wall.0).unwrap_or(i64::MAX);
        self.ahead_us.store(ahead_us, Ordering::Relaxed);
        self.wall = wall;
        self.last
    }

    /// What was read last.
    pub(super) fn last(&self) -> Timestamp {
        self.last
    }

    /// What was read last, with randomness that nobody else gets.
    pub(super) fn moment(&mut self) -> Moment {
        Moment { at: self.last, wall: self.wall, entropy: self.draw() }
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
