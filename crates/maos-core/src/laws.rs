//! What holds of every state between two steps, whatever happened before. For tests and the
//! simulator: `check` looks at everything and is as slow as that sounds.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;

use crate::engine::State;
use crate::record::Stage;
use crate::slab::Slot;
use crate::spec::{FailurePolicy, Name};
use crate::task::{Task, Timer};

/// A law that does not hold, in words.
pub type Broken = String;

macro_rules! law {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}

/// Checks every law.
///
/// # Errors
/// The first that does not hold.
pub fn check(state: &State) -> Result<(), Broken> {
    counts_agree(state)?;
    timers_are_those_of_the_stages(state)?;
    slots_and_attempts_agree(state)?;
    reservations_add_up(state)?;
    gates_count_what_runs(state)?;
    for (slot, task) in state.tasks.iter() {
        task_is_sound(state, slot, task)?;
    }
    Ok(())
}

/// What must hold as well when nothing is left to follow: nobody waits for what has happened.
///
/// # Errors
/// The first that does not hold.
pub fn check_settled(state: &State) -> Result<(), Broken> {
    check(state)?;
    for (_, task) in state.tasks.iter() {
        let Some(edges) = task.edges().filter(|edges| edges.collect.is_some()) else { continue };
        law!(
            task.stage.ended() || edges.open > 0,
            "parent {} goes on though all its subtasks have ended",
            task.id
        );
        law!(
            task.stage.ended()
                || edges.spoiled_by.is_none()
                || task.on_failure() != FailurePolicy::FailFast,
            "parent {} goes on though a subtask failed",
            task.id
        );
    }
    Ok(())
}

fn counts_agree(state: &State) -> Result<(), Broken> {
    let live = state.tasks.iter().filter(|(_, task)| !task.stage.ended()).count();
    law!(state.live_count == live as u64, "{} live tasks counted as {}", live, state.live_count);
    let ready =
        state.tasks.iter().filter(|(_, task)| matches!(task.stage, Stage::Ready { .. })).count();
    law!(
        state.ready_count() == ready as u64,
        "{ready} ready tasks, {} in the lanes",
        state.ready_count()
    );
    law!(
        state.tasks_by_id.count() == state.tasks.count(),
        "{} tasks, {} of them can be found",
        state.tasks.count(),
        state.tasks_by_id.count()
    );
    Ok(())
}

fn timers_are_those_of_the_stages(state: &State) -> Result<(), Broken> {
    let mut wanted = BTreeSet::new();
    for (slot, task) in state.tasks.iter() {
        wanted.extend(task.stage_timer().map(|(at, timer)| (at, timer, slot)));
        if let Some(deadline) = task.spec.rare().deadline.filter(|_| !task.stage.ended()) {
            wanted.insert((deadline, Timer::Deadline, slot));
        }
    }
    let timers: BTreeSet<_> = state.timers.iter().collect();
    law!(wanted == timers, "timers {timers:?}, wanted {wanted:?}");
    law!(state.timers.len() == timers.len(), "a timer is set twice among {timers:?}");
    let leases =
        state.reservations().filter_map(|held| Some((held.until?, held.requester.clone())));
    law!(state.leases == leases.collect(), "leases {:?} are not the reservations'", state.leases);
    Ok(())
}

fn slots_and_attempts_agree(state: &State) -> Result<(), Broken> {
    let mut held = 0;
    for (_, agent) in state.agents.iter() {
        held += agent.held.len() as u64;
        for (slot, attempt) in agent.held.iter() {
            let task = &state.tasks[slot];
            let running = task.attempt == attempt
                && matches!(task.stage, Stage::Running { agent: by, .. } if by == agent.spec.id);
            let stopping = task
                .stopping
                .iter()
                .any(|held| held.attempt == attempt && held.agent == agent.spec.id);
            law!(
                running != stopping,
                "agent {} holds attempt {attempt} of {}, which is {}",
                agent.spec.id,
                task.id,
                task.stage.wire_name()
            );
        }
        law!(
            agent.told == agent.fitness(),
            "agent {} is dispatched by what it was before",
            agent.spec.id
        );
    }
    let own = state.agents.iter().filter(|(_, agent)| agent.spec.runtime.ends_with_server());
    let own: usize = own.map(|(_, agent)| agent.held.len()).sum();
    let counted = state.dispatch.own_held;
    law!(own as u64 == counted, "{own} attempts of our own, {counted} counted");
    law!(held == state.held_count, "{held} slots taken, {} counted", state.held_count);
    Ok(())
}

fn reservations_add_up(state: &State) -> Result<(), Broken> {
    let mut wanted: BTreeMap<Name, u64> = BTreeMap::new();
    for (_, agent) in state.agents.iter() {
        for (slot, _) in agent.held.iter() {
            for (kind, amount) in state.tasks[slot].spec.demand.resources.iter() {
                *wanted.entry(kind.into()).or_default() += amount;
            }
        }
    }
    for (kind, amount) in state.reservations().flat_map(|held| held.amounts.iter()) {
        *wanted.entry(kind.into()).or_default() += amount;
    }
    for (kind, pool) in &state.dispatch.pools {
        let sum = wanted.get(kind).copied().unwrap_or_default();
        law!(
            pool.allocated_milli == sum,
            "`{kind}`: {} reserved, {sum} held",
            pool.allocated_milli
        );
    }
    Ok(())
}

fn gates_count_what_runs(state: &State) -> Result<(), Broken> {
    let mut running: BTreeMap<Name, u32> = BTreeMap::new();
    for (_, agent) in state.agents.iter() {
        for (slot, _) in agent.held.iter() {
            if let Some(key) = &state.tasks[slot].spec.rare().concurrency_key {
                *running.entry(key.clone()).or_default() += 1;
            }
        }
    }
    for gate in state.dispatch.gates.iter() {
        let count = running.remove(&gate.key).unwrap_or_default();
        law!(gate.running == count, "`{}`: {count} run, {} counted", gate.key, gate.running);
    }
    law!(running.is_empty(), "what runs under {running:?} is not counted");
    Ok(())
}

fn task_is_sound(state: &State, slot: Slot, task: &Task) -> Result<(), Broken> {
    let id = task.id;
    law!(state.slot(id) == Some(slot), "task {id} cannot be found");
    law!(task.stage.ended() == task.lane.is_none(), "task {id} has no lane, or one too many");
    law!(task.stage.ended() == task.times.ended.is_some(), "task {id} has a wrong end time");
    if let Stage::Running { agent, .. } = task.stage {
        let holder = state.agents_by_id.get(&agent).map(|slot| &state.agents[*slot]);
        law!(
            holder.is_some_and(|agent| agent.held.holds(slot, task.attempt)),
            "task {id} runs though no agent holds it"
        );
    }
    law!(
        task.retries_used <= task.spec.retries_max,
        "task {id} was retried {} times, {} are allowed",
        task.retries_used,
        task.spec.retries_max
    );
    let Some(edges) = task.edges() else { return Ok(()) };
    let open = task.subtasks().iter().filter(|child| !state.tasks[**child].stage.ended());
    let open_count = open.count() as u64;
    law!(u64::from(edges.open) == open_count, "parent {id} counts {} open subtasks", edges.open);
    law!(!task.stage.ended() || open_count == 0, "parent {id} has ended before its subtasks");
    let waits = matches!(task.stage, Stage::Waiting) && !task.is_parent();
    law!(!waits || task.missing > 0 || state.has_consequences(), "task {id} waits for nothing");
    Ok(())
}
