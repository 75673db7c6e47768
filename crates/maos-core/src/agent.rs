//! An agent as the engine holds it: its record, what it holds, and how good it is for more.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

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
    pub(crate) created: WallTime,
    pub(crate) tally: Tally,
    /// What occupies its slots, running or stopping, and since when.
    pub(crate) held: BTreeMap<(Slot, Attempt), Timestamp>,
    pub(crate) profile: ProfileId,
    /// What the dispatch was told last.
    pub(crate) told: Option<Fitness>,
    pub(crate) listed: bool,
}

impl Agent {
    /// How good it is for one more attempt; `None` if it has no room or no longer serves.
    pub(crate) fn fitness(&self) -> Option<Fitness> {
        let held = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        if self.end.is_some() || held >= self.spec.slots {
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
        }
    }
}
