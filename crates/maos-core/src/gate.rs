//! Keys that tasks share: how many of them run at once, and how fast they start.
//!
//! A gate counts; whether its lanes are open follows from it. What is set for a key stays, what is
//! counted goes when nothing is left to count.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::dispatch::LaneId;
use crate::slab::{Slab, Slot};
use crate::spec::{Limit, Name};
use crate::time::Timestamp;

pub(crate) type GateId = Slot;

const MINUTE_US: u64 = 60_000_000;

/// One concurrency key.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) key: Name,
    /// What was set for it, if anything was.
    pub(crate) limit: Option<Limit>,
    /// Attempts of its tasks that hold a slot.
    pub(crate) running: u32,
    /// Lanes with this key.
    pub(crate) lanes: Vec<LaneId>,
    /// Nothing starts before this.
    next_start: Timestamp,
    /// Whether `next_start` has not come.
    pausing: bool,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gates {
    gates: Slab<Gate>,
    by_key: BTreeMap<Name, GateId>,
    pauses: BTreeSet<(Timestamp, GateId)>,
}

impl Gate {
    /// How many may run at once: one by one unless something else was set.
    pub(crate) fn running_max(&self) -> u32 {
        match self.limit {
            None => Limit::UNSET.running_max.unwrap_or(u32::MAX),
            Some(limit) => limit.running_max.unwrap_or(u32::MAX),
        }
    }

    /// Whether one more may start.
    pub(crate) fn is_open(&self) -> bool {
        self.running < self.running_max() && !self.pausing
    }

    /// When the next one may start, if that has not come.
    pub(crate) fn next_start(&self) -> Option<Timestamp> {
        self.pausing.then_some(self.next_start)
    }
}

impl Gates {
    pub(crate) fn find(&self, key: &str) -> Option<&Gate> {
        self.by_key.get(key).map(|id| &self.gates[*id])
    }

    pub(crate) fn get(&self, id: GateId) -> &Gate {
        &self.gates[id]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Gate> {
        self.by_key.values().map(|id| &self.gates[*id])
    }

    /// Keys for which something was set.
    pub(crate) fn set_count(&self) -> usize {
        self.iter().filter(|gate| gate.limit.is_some()).count()
    }

    pub(crate) fn add_lane(&mut self, key: &Name, lane: LaneId) -> GateId {
        let id = self.enter(key);
        self.gates[id].lanes.push(lane);
        id
    }

    pub(crate) fn remove_lane(&mut self, id: GateId, lane: LaneId) {
        self.gates[id].lanes.retain(|held| *held != lane);
        self.tidy(id);
    }

    /// Sets or unsets the limit of a key; its lanes are to be reviewed.
    pub(crate) fn set(&mut self, key: &Name, limit: Option<Limit>) -> Vec<LaneId> {
        let id = self.enter(key);
        self.gates[id].limit = limit;
        if limit.is_none_or(|limit| limit.starts_per_minute.is_none()) {
            self.resume(id);
        }
        let lanes = self.gates[id].lanes.clone();
        self.tidy(id);
        lanes
    }

    /// An attempt started now; the lanes to be reviewed, if any.
    pub(crate) fn start(&mut self, key: &Name, now: Timestamp) -> Vec<LaneId> {
        let id = self.enter(key);
        let gate = &mut self.gates[id];
        gate.running += 1;
        let rate = gate.limit.and_then(|limit| limit.starts_per_minute);
        if let Some(rate) = rate.filter(|rate| *rate > 0) {
            // Facts that are read back come without the time that passed between them.
            self.pauses.remove(&(gate.next_start, id));
            gate.next_start = Timestamp(now.0.saturating_add(MINUTE_US / u64::from(rate)));
            gate.pausing = true;
            self.pauses.insert((gate.next_start, id));
        }
        if self.gates[id].is_open() { Vec::new() } else { self.gates[id].lanes.clone() }
    }

    /// An attempt holds its slot again after a restart.
    pub(crate) fn resume_attempt(&mut self, key: &Name) {
        let id = self.enter(key);
        self.gates[id].running += 1;
    }

    /// An attempt gave its slot back; the lanes to be reviewed.
    pub(crate) fn end(&mut self, key: &Name) -> Vec<LaneId> {
        let id = *self.by_key.get(key).expect("what ended had started");
        let gate = &mut self.gates[id];
        gate.running = gate.running.checked_sub(1).expect("no more ends than started");
        let lanes = gate.lanes.clone();
        self.tidy(id);
        lanes
    }

    /// When the next pause between two starts is over.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.pauses.first().map(|(at, _)| *at)
    }

    /// A key whose pause is over; its lanes are to be reviewed.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<Vec<LaneId>> {
        let (_, id) = *self.pauses.first().filter(|(at, _)| *at <= now)?;
        self.resume(id);
        let lanes = self.gates[id].lanes.clone();
        self.tidy(id);
        Some(lanes)
    }

    fn resume(&mut self, id: GateId) {
        let gate = &mut self.gates[id];
        gate.pausing = false;
        self.pauses.remove(&(gate.next_start, id));
    }

    fn enter(&mut self, key: &Name) -> GateId {
        if let Some(id) = self.by_key.get(key) {
            return *id;
        }
        let id = self.gates.insert(Gate {
            key: key.clone(),
            limit: None,
            running: 0,
            lanes: Vec::new(),
            next_start: Timestamp(0),
            pausing: false,
        });
        self.by_key.insert(key.clone(), id);
        id
    }

    /// A gate that neither counts nor bounds anything goes.
    fn tidy(&mut self, id: GateId) {
        let gate = &self.gates[id];
        if gate.limit.is_some() || gate.running > 0 || !gate.lanes.is_empty() || gate.pausing {
            return;
        }
        let gone = self.gates.remove(id);
        self.by_key.remove(&gone.key);
    }
}
