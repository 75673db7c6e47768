//! Who gets what next: lanes of waiting tasks that take turns, profiles of agents, pools of
//! resources.
//!
//! Tasks with equal demands wait in one lane, in the order of their keys; agents that can do the
//! same share one profile. Which lane goes with which profile is worked out when either appears, so
//! that a dispatch only looks at lanes that some free agent could serve.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::gate::{Gate, GateId, Gates};
use crate::ids::TaskId;
use crate::limits::{BEST_FIT_AMONG, HOLD_AFTER_MS};
use crate::slab::{Slab, Slot};
use crate::sorted::{Ranked, Runs};
use crate::spec::{
    AgentSpec, Amounts, Demand, Limit, Name, Names, Policy, Priority, Runtime, TaskSpec, Work,
};
use crate::time::Timestamp;

pub(crate) type LaneId = Slot;
pub(crate) type ProfileId = Slot;
type ShareId = Slot;

/// A share's time goes on by this much with a turn, divided by its weight; small weights divide it.
const TURN: u64 = 720_720;

/// A task's place among the waiting: the time it became ready, less its priority's head start.
/// Fixed from then on, which ages all of them alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrderKey {
    us: u64,
    /// The task's id in two words: as one it would take a third more room.
    task: [u64; 2],
}

/// How good an agent is for one more attempt: the least comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fitness {
    pub(crate) load_permille: u32,
    pub(crate) failed_tenths: u32,
}

/// What the tasks of one lane have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LaneKey {
    namespace: Name,
    demand: Arc<Demand>,
    fairness: Option<Name>,
    concurrency: Option<Name>,
}

#[derive(Clone, Debug)]
pub(crate) struct Lane {
    key: LaneKey,
    share: ShareId,
    gate: Option<GateId>,
    ready: Runs<(OrderKey, Slot)>,
    /// Profiles that can serve it, the least overqualified first.
    profiles: Vec<ProfileId>,
    /// Live tasks with this demand; at 0 the lane goes.
    pub(crate) tasks_count: u32,
    /// Whether it is among the open lanes of its share, and under which key.
    open_as: Option<OrderKey>,
}

/// Tasks that take one turn together among the others.
#[derive(Clone, Debug)]
struct Share {
    key: Name,
    /// When its next turn is, in a time of its own that goes on with every start.
    turn: u64,
    /// Lanes with a task, a free agent and an open gate, by the key of their first task.
    open: Ranked<(OrderKey, LaneId)>,
    lanes_count: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ProfileKey {
    namespace: Name,
    capabilities: Names,
    agent_type: Name,
    builtin: bool,
    /// Whether this server itself runs what its agents are given.
    own: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Profile {
    key: ProfileKey,
    /// Agents of this profile with a free slot.
    free: Ranked<(Fitness, Slot)>,
    lanes: Vec<LaneId>,
    agents_count: u32,
}

/// One kind of resource: what there is, and what attempts hold of it, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// How much there is; `None`: nobody said, no bound.
    pub capacity_milli: Option<u64>,
    /// How much is reserved.
    pub allocated_milli: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Dispatch {
    policy: Policy,
    lanes: Slab<Lane>,
    lanes_by_key: BTreeMap<LaneKey, LaneId>,
    profiles: Slab<Profile>,
    profiles_by_key: BTreeMap<ProfileKey, ProfileId>,
    shares: Slab<Share>,
    shares_by_key: BTreeMap<Name, ShareId>,
    /// Shares with an open lane, by their turn.
    turns: Ranked<(u64, ShareId)>,
    /// The turn that was taken last: who comes anew begins there.
    turn: u64,
    pub(crate) weights: BTreeMap<Name, u32>,
    pub(crate) gates: Gates,
    pub(crate) pools: BTreeMap<Name, Pool>,
    ready_count: u64,
    /// Attempts that this server itself runs, and how many it may at once.
    pub(crate) own_held: u64,
    pub(crate) own_max: Option<u64>,
}

/// A task and the agent that is to run it.
pub(crate) struct Match {
    pub(crate) task: Slot,
    pub(crate) agent: Slot,
}

impl Ord for OrderKey {
    // What is derived compares the words as a slice, in a loop.
    fn cmp(&self, other: &OrderKey) -> Ordering {
        let words = |key: &OrderKey| (key.us, key.task[0], key.task[1]);
        words(self).cmp(&words(other))
    }
}

impl PartialOrd for OrderKey {
    fn partial_cmp(&self, other: &OrderKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl OrderKey {
    pub(crate) fn new(since: Timestamp, priority: Priority, task: TaskId) -> OrderKey {
        let us = since.0.saturating_sub(head_start_us(priority));
        OrderKey { us, task: task.words() }
    }
}

/// How much earlier a task of this priority counts as ready: what it may overtake at the most.
fn head_start_us(priority: Priority) -> u64 {
    const MINUTE_US: u64 = 60_000_000;
    match priority {
        Priority::Low => 0,
        Priority::Medium => 10 * MINUTE_US,
        Priority::High => 30 * MINUTE_US,
        Priority::Critical => 120 * MINUTE_US,
    }
}

/// Whether an agent could do what a lane asks for, whatever it is doing at the moment.
pub(crate) fn can_serve(agent: &AgentSpec, namespace: &str, demand: &Demand) -> bool {
    if demand.agent.is_some_and(|wanted| wanted != agent.id) {
        return false;
    }
    serves(&ProfileKey::of(agent), namespace, demand)
}

fn serves(profile: &ProfileKey, namespace: &str, demand: &Demand) -> bool {
    let known = match &demand.work {
        Work::FreeForm => !profile.builtin,
        Work::Known(capability) => !profile.builtin || profile.capabilities.contains(capability),
        Work::BuiltIn(capability) => profile.builtin && profile.capabilities.contains(capability),
    };
    known
        && *profile.namespace == *namespace
        && demand.agent_type.as_ref().is_none_or(|wanted| *wanted == profile.agent_type)
        && profile.capabilities.contains_all(&demand.capabilities)
}

impl ProfileKey {
    fn of(agent: &AgentSpec) -> ProfileKey {
        ProfileKey {
            namespace: agent.namespace.clone(),
            capabilities: agent.capabilities.clone(),
            agent_type: agent.agent_type.clone(),
            builtin: agent.runtime == Runtime::Builtin,
            own: agent.runtime.ends_with_server(),
        }
    }
}

impl Dispatch {
    /// Has tasks chosen otherwise from now on.
    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        let lanes: Vec<LaneId> = self.lanes.iter().map(|(id, _)| id).collect();
        for id in lanes {
            let share = self.share_of(&self.lanes[id].key.fairness.clone());
            self.close_lane(id);
            let before = core::mem::replace(&mut self.lanes[id].share, share);
            self.leave_share(before);
            self.review_lane(id);
        }
    }

    /// The lane of this task; made if there is none. Counts one more task in it.
    pub(crate) fn enter_lane(&mut self, namespace: &Name, task: &TaskSpec) -> LaneId {
        let lane = self.find_lane(namespace, task).unwrap_or_else(|| {
            let rare = task.rare();
            let (fairness, concurrency) = (rare.fairness_key.clone(), rare.concurrency_key.clone());
            let (namespace, demand) = (namespace.clone(), task.demand.clone());
            self.new_lane(LaneKey { namespace, demand, fairness, concurrency })
        });
        self.lanes[lane].tasks_count += 1;
        lane
    }

    /// One task less in the lane; the last one takes it away.
    pub(crate) fn leave_lane(&mut self, lane: LaneId) {
        self.lanes[lane].tasks_count -= 1;
        if self.lanes[lane].tasks_count > 0 {
            return;
        }
        let gone = self.lanes.remove(lane);
        assert!(gone.ready.is_empty(), "a lane without tasks has none that is ready");
        for profile in gone.profiles {
            self.profiles[profile].lanes.retain(|held| *held != lane);
        }
        if let Some(gate) = gone.gate {
            self.gates.remove_lane(gate, lane);
        }
        self.leave_share(gone.share);
        self.lanes_by_key.remove(&gone.key);
    }

    /// The lane of this task, if there is one.
    pub(crate) fn find_lane(&self, namespace: &Name, task: &TaskSpec) -> Option<LaneId> {
        let (demand, rare) = (&task.demand, task.rare());
        // The common case is a handful of lanes: a look at each beats building a key to search by.
        if self.lanes_by_key.len() <= 8 {
            let same = |key: &LaneKey| {
                (Arc::ptr_eq(&key.demand, demand) || key.demand == *demand)
                    && key.namespace == *namespace
                    && key.fairness == rare.fairness_key
                    && key.concurrency == rare.concurrency_key
            };
            let mut lanes = self.lanes_by_key.iter();
            return lanes.find(|(key, _)| same(key)).map(|(_, lane)| *lane);
        }
        let key = LaneKey {
            namespace: namespace.clone(),
            demand: demand.clone(),
            fairness: rare.fairness_key.clone(),
            concurrency: rare.concurrency_key.clone(),
        };
        self.lanes_by_key.get(&key).copied()
    }

    /// What the tasks of a lane ask for.
    pub(crate) fn demand_of(&self, lane: LaneId) -> Arc<Demand> {
        self.lanes[lane].key.demand.clone()
    }

    /// A task of this lane starts: its share has taken a turn, and its gate counts one more.
    pub(crate) fn start(&mut self, lane: LaneId, now: Timestamp) {
        if let Some(key) = self.lanes[lane].key.concurrency.clone() {
            for lane in self.gates.start(&key, now) {
                self.review_lane(lane);
            }
        }
        // A turn counts only while others wait for theirs.
        let share = self.lanes[lane].share;
        if self.turns.iter().take(2).any(|(_, other)| *other != share) {
            self.take_turn(share);
        }
    }

    fn take_turn(&mut self, share: ShareId) {
        let weight = self.weights.get(&self.shares[share].key).copied().unwrap_or(1);
        let before = self.shares[share].turn;
        self.turn = self.turn.max(before);
        let after = before + TURN / u64::from(weight.max(1));
        self.shares[share].turn = after;
        if self.turns.remove(&(before, share)) {
            self.turns.insert((after, share));
        }
    }

    /// An attempt of a task with this concurrency key gave its slot back.
    pub(crate) fn end(&mut self, key: &Name) {
        for lane in self.gates.end(key) {
            self.review_lane(lane);
        }
    }

    /// Sets what holds for a concurrency key.
    pub(crate) fn set_limit(&mut self, key: &Name, limit: Option<Limit>) {
        for lane in self.gates.set(key, limit) {
            self.review_lane(lane);
        }
    }

    /// Sets the weight of a fairness key.
    pub(crate) fn set_weight(&mut self, key: &Name, weight: Option<u32>) {
        match weight {
            Some(weight) => self.weights.insert(key.clone(), weight),
            None => self.weights.remove(key),
        };
    }

    /// Opens what waited for this time.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        while let Some(lanes) = self.gates.pop_due(now) {
            for lane in lanes {
                self.review_lane(lane);
            }
        }
    }

    /// The gate of a lane.
    pub(crate) fn gate_of(&self, lane: LaneId) -> Option<&Gate> {
        self.lanes[lane].gate.map(|gate| self.gates.get(gate))
    }

    pub(crate) fn lanes_count(&self) -> usize {
        self.lanes.count()
    }

    pub(crate) fn ready_count(&self) -> u64 {
        self.ready_count
    }

    pub(crate) fn push(&mut self, lane: LaneId, key: OrderKey, task: Slot) {
        self.lanes[lane].ready.insert((key, task));
        self.ready_count += 1;
        self.review_lane(lane);
    }

    pub(crate) fn withdraw(&mut self, lane: LaneId, key: OrderKey, task: Slot) {
        let held = self.lanes[lane].ready.remove(&(key, task));
        assert!(held, "a ready task waits in its lane");
        self.ready_count -= 1;
        self.review_lane(lane);
    }

    /// What waits for want of an agent like this one and could start at once if there were one: how
    /// many tasks, and the first of each lane.
    pub(crate) fn waiting_for(&self, agent: &AgentSpec) -> (u64, Vec<Slot>) {
        let profile = ProfileKey::of(agent);
        let (mut count, mut first) = (0, Vec::new());
        for (_, lane) in self.lanes.iter() {
            let (key, gate) = (&lane.key, lane.gate.map(|gate| self.gates.get(gate)));
            let open = gate.is_none_or(Gate::is_open) && self.fits(&key.demand.resources, None);
            let served =
                open && key.demand.agent.is_none() && serves(&profile, &key.namespace, &key.demand);
            if let Some((_, task)) = lane.ready.first().filter(|_| served) {
                count += lane.ready.len() as u64;
                first.push(task);
            }
        }
        (count, first)
    }

    /// Tasks of this lane that come before `key`.
    pub(crate) fn ahead_of(&self, lane: LaneId, key: OrderKey, task: Slot, most: usize) -> usize {
        self.lanes[lane].ready.count_before(&(key, task), most)
    }

    /// Counts an agent in; it has no free slot until `set_free` says so.
    pub(crate) fn add_agent(&mut self, agent: &AgentSpec) -> ProfileId {
        let key = ProfileKey::of(agent);
        let profile = match self.profiles_by_key.get(&key) {
            Some(profile) => *profile,
            None => self.new_profile(key),
        };
        self.profiles[profile].agents_count += 1;
        profile
    }

    /// Counts an agent out; it must not be free any more.
    pub(crate) fn remove_agent(&mut self, profile: ProfileId) {
        self.profiles[profile].agents_count -= 1;
        if self.profiles[profile].agents_count > 0 {
            return;
        }
        let gone = self.profiles.remove(profile);
        assert!(gone.free.is_empty(), "a profile without agents has none that is free");
        for lane in gone.lanes {
            self.lanes[lane].profiles.retain(|held| *held != profile);
            self.review_lane(lane);
        }
        self.profiles_by_key.remove(&gone.key);
    }

    /// Says whether and how well an agent could take one more attempt; `before` is what was said
    /// last.
    pub(crate) fn set_free(
        &mut self,
        profile: ProfileId,
        agent: Slot,
        before: Option<Fitness>,
        after: Option<Fitness>,
    ) {
        let free = &mut self.profiles[profile].free;
        let was_empty = free.is_empty();
        if let Some(fitness) = before {
            free.remove(&(fitness, agent));
        }
        if let Some(fitness) = after {
            free.insert((fitness, agent));
        }
        // A lane that asks for one agent cares about that agent, not about its profile's others.
        if was_empty != free.is_empty() || before.is_some() != after.is_some() {
            for index in 0..self.profiles[profile].lanes.len() {
                let lane = self.profiles[profile].lanes[index];
                if was_empty != self.profiles[profile].free.is_empty()
                    || self.lanes[lane].key.demand.agent.is_some()
                {
                    self.review_lane(lane);
                }
            }
        }
    }

    /// The next task that an agent and the pools have room for, in the order of the keys.
    ///
    /// One that does not fit is passed by others, until it has waited `HOLD_AFTER_MS`: from then on
    /// what it needs is kept back from those behind it.
    pub(crate) fn next_match(
        &self,
        now: Timestamp,
        ready_since: impl Fn(Slot) -> Timestamp,
        is_agent: impl Fn(Slot, &Demand) -> bool,
    ) -> Option<Match> {
        let mut kept: Option<&Amounts> = None;
        let mut best: Option<(u64, Match)> = None;
        let mut fitting = 0;
        let open = self.turns.iter().flat_map(|(_, share)| self.shares[*share].open.iter());
        for (_, lane) in open {
            let lane = &self.lanes[*lane];
            let (_, task) = lane.ready.first()?;
            let resources = &lane.key.demand.resources;
            if !self.fits(resources, kept) {
                if kept.is_none() && now.ms_since(ready_since(task)) >= HOLD_AFTER_MS {
                    kept = Some(resources);
                }
                continue;
            }
            let Some(agent) = self.best_agent(lane, &is_agent) else { continue };
            let found = Match { task, agent };
            if self.policy != Policy::BestFit {
                return Some(found);
            }
            let left = self.left_by(resources);
            if best.as_ref().is_none_or(|(least, _)| left < *least) {
                best = Some((left, found));
            }
            fitting += 1;
            if fitting == BEST_FIT_AMONG {
                break;
            }
        }
        best.map(|(_, found)| found)
    }

    /// How much of the scarcest pool that these amounts touch is left when they are taken, in
    /// thousandths of its capacity; all of it when they touch none.
    fn left_by(&self, wanted: &Amounts) -> u64 {
        let left = wanted.iter().filter_map(|(kind, amount)| {
            let pool = self.pools.get(kind)?;
            let capacity = pool.capacity_milli.filter(|capacity| *capacity > 0)?;
            let free = capacity.saturating_sub(pool.allocated_milli).saturating_sub(amount);
            Some(u64::try_from(u128::from(free) * 1_000 / u128::from(capacity)).unwrap_or(1_000))
        });
        left.min().unwrap_or(1_000)
    }

    /// Whether the pools have this much left, when `kept` is kept for somebody else.
    pub(crate) fn fits(&self, wanted: &Amounts, kept: Option<&Amounts>) -> bool {
        wanted.iter().all(|(kind, amount)| {
            let Some(Pool { capacity_milli: Some(capacity), allocated_milli }) =
                self.pools.get(kind)
            else {
                return true;
            };
            let kept = kept.map_or(0, |kept| kept.of(kind));
            allocated_milli.saturating_add(kept).saturating_add(amount) <= *capacity
        })
    }

    pub(crate) fn reserve(&mut self, amounts: &Amounts) {
        for (kind, amount) in amounts.iter() {
            match self.pools.get_mut(kind) {
                Some(pool) => pool.allocated_milli += amount,
                None => {
                    let pool = Pool { capacity_milli: None, allocated_milli: amount };
                    self.pools.insert(kind.into(), pool);
                }
            }
        }
    }

    pub(crate) fn release(&mut self, amounts: &Amounts) {
        if cfg!(feature = "fault-leak-reservation") {
            return;
        }
        for (kind, amount) in amounts.iter() {
            let pool = self.pools.get_mut(kind).expect("what is released was reserved");
            pool.allocated_milli = pool
                .allocated_milli
                .checked_sub(amount)
                .expect("no more is released than reserved");
        }
    }

    pub(crate) fn set_capacity(&mut self, capacity: &Amounts) {
        for pool in self.pools.values_mut() {
            pool.capacity_milli = None;
        }
        for (kind, amount) in capacity.iter() {
            self.pools.entry(kind.into()).or_default().capacity_milli = Some(amount);
        }
    }

    /// Whether this server itself runs as much as it may.
    pub(crate) fn own_is_full(&self) -> bool {
        self.own_max.is_some_and(|most| self.own_held >= most)
    }

    fn best_agent(&self, lane: &Lane, is_agent: impl Fn(Slot, &Demand) -> bool) -> Option<Slot> {
        let full = self.own_is_full();
        let may = |profile: &&ProfileId| !(full && self.profiles[**profile].key.own);
        lane.profiles.iter().filter(may).find_map(|profile| {
            let mut free = self.profiles[*profile].free.iter();
            if lane.key.demand.agent.is_none() {
                return free.next().map(|(_, agent)| *agent);
            }
            free.map(|(_, agent)| *agent).find(|agent| is_agent(*agent, &lane.key.demand))
        })
    }

    fn new_lane(&mut self, key: LaneKey) -> LaneId {
        let mut profiles: Vec<ProfileId> = self
            .profiles
            .iter()
            .filter(|(_, profile)| serves(&profile.key, &key.namespace, &key.demand))
            .map(|(id, _)| id)
            .collect();
        self.sort_profiles(&mut profiles);
        let share = self.share_of(&key.fairness);
        let concurrency = key.concurrency.clone();
        let lane = self.lanes.insert(Lane {
            key: key.clone(),
            share,
            gate: None,
            ready: Runs::default(),
            profiles: profiles.clone(),
            tasks_count: 0,
            open_as: None,
        });
        self.lanes[lane].gate = concurrency.map(|key| self.gates.add_lane(&key, lane));
        self.lanes_by_key.insert(key, lane);
        for profile in profiles {
            self.profiles[profile].lanes.push(lane);
        }
        lane
    }

    /// The share of a fairness key; counts one more lane in it. Those without a key are one share,
    /// and so are all under a policy that knows no turns.
    fn share_of(&mut self, fairness: &Option<Name>) -> ShareId {
        let key = match self.policy {
            Policy::Fair => fairness.clone().unwrap_or_default(),
            Policy::Priority | Policy::BestFit => Name::default(),
        };
        let share = match self.shares_by_key.get(&key) {
            Some(share) => *share,
            None => {
                let (turn, open) = (self.turn, Ranked::default());
                let share = Share { key: key.clone(), turn, open, lanes_count: 0 };
                let share = self.shares.insert(share);
                self.shares_by_key.insert(key, share);
                share
            }
        };
        self.shares[share].lanes_count += 1;
        share
    }

    fn leave_share(&mut self, id: ShareId) {
        self.shares[id].lanes_count -= 1;
        if self.shares[id].lanes_count == 0 {
            let share = self.shares.remove(id);
            assert!(share.open.is_empty(), "a share without lanes has none that is open");
            self.shares_by_key.remove(&share.key);
        }
    }

    fn close_lane(&mut self, id: LaneId) {
        let Some(key) = self.lanes[id].open_as.take() else { return };
        let share_id = self.lanes[id].share;
        let share = &mut self.shares[share_id];
        share.open.remove(&(key, id));
        if share.open.is_empty() {
            self.turns.remove(&(share.turn, share_id));
        }
    }

    fn new_profile(&mut self, key: ProfileKey) -> ProfileId {
        let lanes: Vec<LaneId> = self
            .lanes
            .iter()
            .filter(|(_, lane)| serves(&key, &lane.key.namespace, &lane.key.demand))
            .map(|(id, _)| id)
            .collect();
        let profile = self.profiles.insert(Profile {
            key: key.clone(),
            free: Ranked::default(),
            lanes: lanes.clone(),
            agents_count: 0,
        });
        self.profiles_by_key.insert(key, profile);
        for lane in lanes {
            let mut profiles = core::mem::take(&mut self.lanes[lane].profiles);
            profiles.push(profile);
            self.sort_profiles(&mut profiles);
            self.lanes[lane].profiles = profiles;
        }
        profile
    }

    /// Specialists first: an agent that can do everything is kept for what only it can do.
    fn sort_profiles(&self, profiles: &mut [ProfileId]) {
        profiles.sort_by_key(|id| (self.profiles[*id].key.capabilities.count(), *id));
    }

    /// Opens a lane or closes it, as its tasks, agents and gate have it.
    fn review_lane(&mut self, id: LaneId) {
        let lane = &self.lanes[id];
        let served =
            || lane.profiles.iter().any(|profile| !self.profiles[*profile].free.is_empty());
        let passes = || lane.gate.is_none_or(|gate| self.gates.get(gate).is_open());
        let first = lane.ready.first().filter(|_| served() && passes());
        let open_as = first.map(|(key, _)| key);
        if open_as == lane.open_as {
            return;
        }
        let Some(key) = open_as else { return self.close_lane(id) };
        let share_id = lane.share;
        let before = self.lanes[id].open_as.replace(key);
        let share = &mut self.shares[share_id];
        if let Some(before) = before {
            share.open.remove(&(before, id));
        } else if share.open.is_empty() {
            // Who had nothing to do has not saved up turns.
            share.turn = share.turn.max(self.turn);
            self.turns.insert((share.turn, share_id));
        }
        share.open.insert((key, id));
    }
}
