//! Who gets what next: lanes of waiting tasks, profiles of agents, pools of resources.
//!
//! Tasks with equal demands wait in one lane, in the order of their keys; agents that can do the
//! same share one profile. Which lane goes with which profile is worked out when either appears, so
//! that a dispatch only looks at lanes that some free agent could serve.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::ids::TaskId;
use crate::limits::HOLD_AFTER_MS;
use crate::slab::{Slab, Slot};
use crate::spec::{AgentSpec, Amounts, Demand, Name, Names, Priority, Runtime, Work};
use crate::time::Timestamp;

pub(crate) type LaneId = Slot;
pub(crate) type ProfileId = Slot;

/// A task's place among the waiting: the time it became ready, less its priority's head start.
/// Fixed from then on, which ages all of them alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) demand: Arc<Demand>,
    namespace: Name,
    ready: BTreeSet<(OrderKey, Slot)>,
    /// Profiles that can serve it, the least overqualified first.
    profiles: Vec<ProfileId>,
    /// Live tasks with this demand; at 0 the lane goes.
    pub(crate) tasks_count: u32,
    /// Whether it is in `Dispatch::open`, and under which key.
    open_as: Option<OrderKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ProfileKey {
    namespace: Name,
    capabilities: Names,
    agent_type: Name,
    builtin: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Profile {
    key: ProfileKey,
    /// Agents of this profile with a free slot.
    free: BTreeSet<(Fitness, Slot)>,
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
    lanes: Slab<Lane>,
    lanes_by_demand: BTreeMap<(Name, Arc<Demand>), LaneId>,
    profiles: Slab<Profile>,
    profiles_by_key: BTreeMap<ProfileKey, ProfileId>,
    /// Lanes with a task and a free agent, by the key of their first task.
    open: BTreeSet<(OrderKey, LaneId)>,
    pub(crate) pools: BTreeMap<Name, Pool>,
    ready_count: u64,
}

/// A task and the agent that is to run it.
pub(crate) struct Match {
    pub(crate) task: Slot,
    pub(crate) agent: Slot,
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
        }
    }
}

impl Dispatch {
    /// The lane of this demand; made if there is none. Counts one more task in it.
    pub(crate) fn enter_lane(&mut self, namespace: &Name, demand: &Arc<Demand>) -> LaneId {
        let lane = self.find_lane(namespace, demand).unwrap_or_else(|| {
            let lane = self.new_lane(namespace, demand);
            self.lanes_by_demand.insert((namespace.clone(), demand.clone()), lane);
            lane
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
        self.lanes_by_demand.remove(&(gone.namespace, gone.demand));
    }

    /// The lane of this demand, if there is one.
    pub(crate) fn find_lane(&self, namespace: &Name, demand: &Arc<Demand>) -> Option<LaneId> {
        // The common case is a handful of lanes: a look at each beats building a key to search by.
        if self.lanes_by_demand.len() <= 8 {
            let mut lanes = self.lanes_by_demand.iter();
            let same = |wanted: &Arc<Demand>| Arc::ptr_eq(wanted, demand) || wanted == demand;
            let found = lanes.find(|((held, wanted), _)| held == namespace && same(wanted));
            return found.map(|(_, lane)| *lane);
        }
        self.lanes_by_demand.get(&(namespace.clone(), demand.clone())).copied()
    }

    /// What the tasks of a lane ask for.
    pub(crate) fn demand_of(&self, lane: LaneId) -> Arc<Demand> {
        self.lanes[lane].demand.clone()
    }

    pub(crate) fn lanes_count(&self) -> usize {
        self.lanes.count()
    }

    pub(crate) fn ready_count(&self) -> u64 {
        self.ready_count
    }

    pub(crate) fn push(&mut self, lane: LaneId, key: OrderKey, task: Slot) {
        let fresh = self.lanes[lane].ready.insert((key, task));
        assert!(fresh, "a task waits in its lane once");
        self.ready_count += 1;
        self.review_lane(lane);
    }

    pub(crate) fn withdraw(&mut self, lane: LaneId, key: OrderKey, task: Slot) {
        let held = self.lanes[lane].ready.remove(&(key, task));
        assert!(held, "a ready task waits in its lane");
        self.ready_count -= 1;
        self.review_lane(lane);
    }

    /// Tasks of this lane that come before `key`.
    pub(crate) fn ahead_of(&self, lane: LaneId, key: OrderKey, task: Slot, most: usize) -> usize {
        self.lanes[lane].ready.range(..(key, task)).take(most).count()
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
                    || self.lanes[lane].demand.agent.is_some()
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
        for (_, lane) in &self.open {
            let lane = &self.lanes[*lane];
            let (_, task) = lane.ready.first()?;
            if !self.fits(&lane.demand.resources, kept) {
                if kept.is_none() && now.ms_since(ready_since(*task)) >= HOLD_AFTER_MS {
                    kept = Some(&lane.demand.resources);
                }
                continue;
            }
            if let Some(agent) = self.best_agent(lane, &is_agent) {
                return Some(Match { task: *task, agent });
            }
        }
        None
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

    fn best_agent(&self, lane: &Lane, is_agent: impl Fn(Slot, &Demand) -> bool) -> Option<Slot> {
        lane.profiles.iter().find_map(|profile| {
            let mut free = self.profiles[*profile].free.iter();
            if lane.demand.agent.is_none() {
                return free.next().map(|(_, agent)| *agent);
            }
            free.map(|(_, agent)| *agent).find(|agent| is_agent(*agent, &lane.demand))
        })
    }

    fn new_lane(&mut self, namespace: &Name, demand: &Arc<Demand>) -> LaneId {
        let mut profiles: Vec<ProfileId> = self
            .profiles
            .iter()
            .filter(|(_, profile)| serves(&profile.key, namespace, demand))
            .map(|(id, _)| id)
            .collect();
        self.sort_profiles(&mut profiles);
        let lane = self.lanes.insert(Lane {
            demand: demand.clone(),
            namespace: namespace.clone(),
            ready: BTreeSet::new(),
            profiles: profiles.clone(),
            tasks_count: 0,
            open_as: None,
        });
        for profile in profiles {
            self.profiles[profile].lanes.push(lane);
        }
        lane
    }

    fn new_profile(&mut self, key: ProfileKey) -> ProfileId {
        let lanes: Vec<LaneId> = self
            .lanes
            .iter()
            .filter(|(_, lane)| serves(&key, &lane.namespace, &lane.demand))
            .map(|(id, _)| id)
            .collect();
        let profile = self.profiles.insert(Profile {
            key: key.clone(),
            free: BTreeSet::new(),
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

    /// Puts a lane into `open` or takes it out, as its tasks and agents have it.
    fn review_lane(&mut self, id: LaneId) {
        let lane = &self.lanes[id];
        let served =
            || lane.profiles.iter().any(|profile| !self.profiles[*profile].free.is_empty());
        let open_as = lane.ready.first().filter(|_| served()).map(|(key, _)| *key);
        if open_as == lane.open_as {
            return;
        }
        if let Some(key) = lane.open_as {
            self.open.remove(&(key, id));
        }
        if let Some(key) = open_as {
            self.open.insert((key, id));
        }
        self.lanes[id].open_as = open_as;
    }
}
