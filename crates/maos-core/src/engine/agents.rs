//! Facts about agents become state: who is there, who was heard of, who is gone.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Consequence, Gone, State};
use crate::agent::{Agent, Held};
use crate::change::{AgentTurn, Change, Load};
use crate::event::AgentEnd;
use crate::ids::{AgentId, NodeId};
use crate::record::Tally;
use crate::slab::Slot;
use crate::spec::AgentSpec;

/// Whether it gets work only once it was heard of.
fn works_elsewhere(agent: &AgentSpec) -> bool {
    !agent.runtime.ends_with_server()
}

impl State {
    pub(super) fn apply_registered(&mut self, spec: &Arc<AgentSpec>) {
        self.note_agent(spec, AgentTurn::Registered);
        if let Some(slot) = self.agents_by_id.get(&spec.id).copied() {
            let before = self.agents[slot].told.take();
            let profile = self.agents[slot].profile;
            self.dispatch.set_free(profile, slot, before, None);
            self.dispatch.remove_agent(profile);
            self.agents[slot].profile = self.dispatch.add_agent(spec);
            self.agents[slot].spec = spec.clone();
            // One that ended and held nothing may have left already, or not: it starts anew.
            if self.agents[slot].end.take().is_some() && self.agents[slot].held.is_empty() {
                self.agents[slot].created = self.moment.wall;
                self.agents[slot].tally = Tally::default();
                self.agents[slot].expected = works_elsewhere(spec);
                self.counters.agents_created += 1;
            }
            self.tell_fitness(slot);
            return;
        }
        let profile = self.dispatch.add_agent(spec);
        let slot = self.agents.insert(Agent {
            spec: spec.clone(),
            end: None,
            expected: works_elsewhere(spec),
            created: self.moment.wall,
            tally: Tally::default(),
            held: Held::default(),
            profile,
            told: None,
            listed: false,
        });
        self.agents_by_id.insert(spec.id, slot);
        self.counters.agents_created += 1;
        self.tell_fitness(slot);
    }

    pub(super) fn apply_arrived(&mut self, id: AgentId) {
        let slot = self.known_agent(id);
        self.agents[slot].expected = false;
        self.note_agent(&self.agents[slot].spec.clone(), AgentTurn::Arrived);
        self.tell_fitness(slot);
    }

    pub(super) fn apply_agent_ended(&mut self, id: AgentId, end: AgentEnd) {
        let slot = self.known_agent(id);
        self.agents[slot].end = Some(end);
        self.note_agent(&self.agents[slot].spec.clone(), AgentTurn::Ended(end));
        self.tell_fitness(slot);
        let because = match (end, self.agents[slot].spec.runtime.ends_with_server()) {
            (AgentEnd::Terminated | AgentEnd::Retired, true) => Gone::Dismissed,
            (AgentEnd::Lost, _) | (AgentEnd::Terminated | AgentEnd::Retired, false) => Gone::Agent,
        };
        self.lose_attempts(slot, because);
    }

    pub(super) fn lose_local_attempts(&mut self, node: NodeId) {
        let local: Vec<Slot> = self
            .agents
            .iter()
            .filter(|(_, agent)| agent.spec.runtime.ends_with_server() && agent.spec.node == node)
            .map(|(slot, _)| slot)
            .collect();
        for slot in local {
            self.lose_attempts(slot, Gone::Server);
        }
    }

    pub(super) fn lose_attempts(&mut self, agent: Slot, because: Gone) {
        for (task, attempt) in self.agents[agent].held.iter() {
            let id = self.tasks[task].id;
            self.consequences.push_back(Consequence::Lose { task, id, attempt, because });
        }
    }

    /// What an agent holds has changed from so many attempts.
    pub(super) fn note_load(&mut self, agent: Slot, before: usize) {
        if !self.watched {
            return;
        }
        let Agent { spec, held, end, .. } = &self.agents[agent];
        let load = Load::of(held.len(), spec.slots);
        if end.is_none() && load != Load::of(before, spec.slots) {
            self.note_agent(&spec.clone(), AgentTurn::Load(load));
        }
    }

    fn note_agent(&mut self, agent: &Arc<AgentSpec>, turn: AgentTurn) {
        if self.watched {
            let at = self.moment.wall;
            self.changes.push(Change::Agent { agent: agent.clone(), turn, at });
        }
    }
}
