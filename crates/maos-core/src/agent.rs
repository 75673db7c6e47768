//! An agent as the engine holds it: its record, what it holds, and how good it is for more.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::dispatch::{Fitness, ProfileId};
use crate::event::AgentEnd;
use crate::ids::Attempt;
use crate::record::{AgentRecord, Tally};
use crate::slab::Slot;
use crate::spec::AgentSpec;
use crate::time::{Timestamp, WallTime};

#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) spec: Arc<AgentSpec>,
    pub(crate) end: Option<AgentEnd>,
    /// It does its work elsewhere and was not heard of yet.
    pub(crate) expected: bool,
    pub(crate) created: WallTime,
    pub(crate) tally: Tally,
    /// What occupies its slots, running or stopping, and since when.
    pub(crate) held: Held,
    pub(crate) profile: ProfileId,
    /// What the dispatch was told last.
    pub(crate) told: Option<Fitness>,
    pub(crate) listed: bool,
}

/// What an agent holds, in order; mostly one attempt, at most its slots.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(Vec<((Slot, Attempt), Timestamp)>);

impl Held {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn holds(&self, slot: Slot, attempt: Attempt) -> bool {
        self.place(slot, attempt).is_ok()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, Attempt)> {
        self.0.iter().map(|(held, _)| *held)
    }

    /// Says whether it was not held yet.
    pub(crate) fn insert(&mut self, slot: Slot, attempt: Attempt, since: Timestamp) -> bool {
        let place = self.place(slot, attempt);
        if let Err(place) = place {
            self.0.insert(place, ((slot, attempt), since));
        }
        place.is_err()
    }

    /// Since when it was held.
    pub(crate) fn remove(&mut self, slot: Slot, attempt: Attempt) -> Option<Timestamp> {
        let place = self.place(slot, attempt).ok()?;
        Some(self.0.remove(place).1)
    }

    fn place(&self, slot: Slot, attempt: Attempt) -> Result<usize, usize> {
        self.0.binary_search_by_key(&(slot, attempt), |(held, _)| *held)
    }
}

impl Agent {
    /// How good it is for one more attempt; `None` if it has no room, or serves not yet or no
    /// longer.
    pub(crate) fn fitness(&self) -> Option<Fitness> {
        let held = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        if self.end.is_some() || self.expected || held >= self.spec.slots {
            return None;
        }
        let tried = self.tally.completed + self.tally.failed;
        let failed_tenths = (self.tally.failed * 10).checked_div(tried).unwrap_or_default();
        Some(Fitness {
            load_permille: u32::try_from(u64::from(held) * 1_000 / u64::from(self.spec.slots))
                .unwrap_or(u32::MAX),
            failed_tenths: u32::try_from(failed_tenths).unwrap_or(u32::MAX),
        })
    }

    pub(crate) fn record(&self) -> AgentRecord {
        AgentRecord {
            spec: self.spec.clone(),
            end: self.end,
            created: self.created,
            tally: self.tally,
            expected: self.expected,
        }
    }
}
