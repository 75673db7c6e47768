//! What the agents that serve can do, kept beside the engine: a submission for which there is
//! nobody is warned of that without a question to the engine.
//!
//! It may be behind by what is not durable yet: it is for words, and decides nothing.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use maos_core::ids::AgentId;
use maos_core::record::AgentRecord;
use maos_core::spec::{AgentSpec, Demand, Name, Names, Plan, Runtime};

/// Demands whose answer is remembered: most tasks ask for the same.
const MET_MAX: usize = 16;
/// Warnings of one plan.
const WARNINGS_MAX: usize = 20;

/// What agents can do that are alike.
type Profile = (Runtime, Name, Names);

/// What can be done at the moment.
#[derive(Default)]
pub(super) struct Abilities(Mutex<Held>);

#[derive(Default)]
struct Held {
    agents: HashMap<AgentId, Arc<AgentSpec>>,
    /// One agent for each profile, and how many are like it.
    profiles: BTreeMap<Profile, (Arc<AgentSpec>, u32)>,
    /// An agent as each pool would start it.
    pools: Vec<Arc<AgentSpec>>,
    met: VecDeque<(Arc<Demand>, bool)>,
}

impl Abilities {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }

    /// An agent serves, or is another than it was.
    pub(super) fn note(&self, agent: &Arc<AgentSpec>) {
        self.held().note(agent);
    }

    /// Agents as they are from now on.
    pub(super) fn follow(&self, agents: &[AgentRecord]) {
        if agents.is_empty() {
            return;
        }
        let mut held = self.held();
        for agent in agents {
            match agent.end {
                None => held.note(&agent.spec),
                Some(_) => held.forget(agent.spec.id),
            }
        }
    }

    pub(super) fn forget(&self, agent: AgentId) {
        self.held().forget(agent);
    }

    /// Which agents the pools would start.
    pub(super) fn set_pools(&self, models: Vec<Arc<AgentSpec>>) {
        let mut held = self.held();
        let alike = |(a, b): (&Arc<AgentSpec>, &Arc<AgentSpec>)| profile(a) == profile(b);
        let same = models.len() == held.pools.len() && models.iter().zip(&held.pools).all(alike);
        if !same {
            held.pools = models;
            held.met.clear();
        }
    }

    /// Says which tasks of a plan nobody could do.
    pub(super) fn check_plan(&self, plan: &Plan, warnings: &mut Vec<String>) {
        let parents: HashSet<u32> = plan.tasks.iter().filter_map(|task| task.parent).collect();
        let mut unmet: Vec<(&Arc<Demand>, u32)> = Vec::new();
        {
            let mut held = self.held();
            for (task, index) in plan.tasks.iter().zip(0..) {
                let demand = &task.spec.demand;
                if parents.contains(&index) || held.can_be_met(&plan.namespace, demand) {
                    continue;
                }
                match unmet.iter_mut().find(|(known, _)| *known == demand) {
                    Some((_, count)) => *count += 1,
                    None => unmet.push((demand, 1)),
                }
            }
        }
        for (demand, count) in unmet.into_iter().take(WARNINGS_MAX) {
            let who = match (plan.tasks.len(), count) {
                (1, _) => "the task waits".to_owned(),
                (_, 1) => "a subtask waits".to_owned(),
                _ => format!("{count} subtasks wait"),
            };
            warnings.push(format!("{}: {who} until there is one", demand.unmet()));
        }
    }
}

impl Held {
    fn note(&mut self, agent: &Arc<AgentSpec>) {
        if let Some(known) = self.agents.get(&agent.id) {
            if Arc::ptr_eq(known, agent) {
                return;
            }
            if profile(known) == profile(agent) {
                self.agents.insert(agent.id, agent.clone());
                return;
            }
        }
        self.forget(agent.id);
        self.agents.insert(agent.id, agent.clone());
        let (_, count) = self.profiles.entry(profile(agent)).or_insert_with(|| (agent.clone(), 0));
        *count += 1;
        if *count == 1 {
            self.met.clear();
        }
    }

    fn forget(&mut self, agent: AgentId) {
        let Some(known) = self.agents.remove(&agent) else { return };
        let profile = profile(&known);
        if let Some((_, count)) = self.profiles.get_mut(&profile) {
            *count -= 1;
            if *count == 0 {
                self.profiles.remove(&profile);
                self.met.clear();
            }
        }
    }

    fn can_be_met(&mut self, namespace: &str, demand: &Arc<Demand>) -> bool {
        if let Some(agent) = demand.agent {
            let found = self.agents.get(&agent);
            return found.is_some_and(|agent| agent.can_do(namespace, demand));
        }
        if let Some((_, known)) = self.met.iter().find(|(known, _)| Arc::ptr_eq(known, demand)) {
            return *known;
        }
        let mut anybody = self.profiles.values().map(|(agent, _)| agent).chain(&self.pools);
        let can = anybody.any(|agent| agent.can_do(namespace, demand));
        self.met.truncate(MET_MAX - 1);
        self.met.push_front((demand.clone(), can));
        can
    }
}

fn profile(agent: &AgentSpec) -> Profile {
    (agent.runtime, agent.agent_type.clone(), agent.capabilities.clone())
}
