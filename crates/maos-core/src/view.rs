//! Why a task waits: every blocker, since when, who holds it, what would unblock it. And what an
//! agent holds, with all that it needs to know.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::agent::Agent;
use crate::dispatch::can_serve;
use crate::engine::State;
use crate::ids::{AgentId, Attempt, TaskId};
use crate::outcome::Outcome;
use crate::record::{ParkReason, Stage};
use crate::slab::Slot;
use crate::spec::{AgentSpec, Demand, Limit, Name, TaskSpec, Work};
use crate::task::Task;
use crate::time::{Timestamp, WallTime};

/// One reason why a task does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// What kind of reason.
    pub kind: BlockerKind,
    /// The reason in words.
    pub message: String,
    /// Since when it holds the task back.
    pub since: WallTime,
    /// Tasks and agents that stand in the way.
    pub held_by: Vec<Holder>,
    /// What would unblock it, in words.
    pub unblock: String,
    /// When that is, if it is a matter of time.
    pub until: Option<WallTime>,
}

/// What kind of reason holds a task back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockerKind {
    /// Other tasks must end first.
    Dependency,
    /// Its subtasks must end first.
    Subtasks,
    /// No agent can do it at all.
    NoAgent,
    /// The agents that can do it are all busy.
    AgentsBusy,
    /// There is not enough of a resource left.
    Resources,
    /// As many tasks with its concurrency key run, or started lately, as may.
    ConcurrencyLimit,
    /// Others come first.
    Queue,
    /// It waits out the pause after a failure.
    Backoff,
    /// It waits for something outside the plan.
    Parked,
    /// It has ended, but an attempt of it is still being stopped.
    Stopping,
}

/// Who stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A task.
    Task(TaskId),
    /// An agent.
    Agent(AgentId),
}

/// What holds for the keys that tasks share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Concurrency keys that have a limit, or tasks that run or wait: what was set, what runs.
    pub gates: Vec<(Name, Option<Limit>, u32)>,
    /// Fairness keys that have a weight.
    pub weights: Vec<(Name, u32)>,
}

/// How a pool of agents is, and what waits for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolView {
    /// Its agents that serve: id, and slots that are taken.
    pub agents: Vec<(AgentId, u32)>,
    /// Tasks that one more of its agents could start at once.
    pub waiting: u64,
    /// How long the one that has waited longest has.
    pub waited_ms: u64,
}

/// An attempt that occupies a slot of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The task.
    pub task: TaskId,
    /// Which run of it.
    pub attempt: Attempt,
    /// What was asked for.
    pub spec: Arc<TaskSpec>,
    /// When it counts as failed; `None` if it was told to stop.
    pub timeout: Option<Timestamp>,
    /// Outcomes of the tasks that the specification's inputs name, in that order.
    pub inputs: Vec<Outcome>,
}

/// Most holders and most agents that an explanation names.
const HOLDERS_MAX: usize = 20;

impl State {
    /// What occupies the slots of an agent, in no order that means anything.
    #[must_use]
    pub fn holds(&self, agent: AgentId) -> Vec<Hold> {
        let Some(slot) = self.agents_by_id.get(&agent) else { return Vec::new() };
        let held = self.agents[*slot].held.iter();
        held.map(|(slot, attempt)| {
            let task = &self.tasks[slot];
            let inputs = task.spec.rare().inputs.iter().map(|input| self.outcome(input.task));
            Hold {
                task: task.id,
                attempt,
                spec: task.spec.clone(),
                timeout: match task.stage {
                    Stage::Running { timeout, .. } if task.attempt == attempt => Some(timeout),
                    Stage::Running { .. }
                    | Stage::Waiting
                    | Stage::Parked { .. }
                    | Stage::Ready { .. }
                    | Stage::Backoff { .. }
                    | Stage::Active
                    | Stage::Completed(_)
                    | Stage::Collected
                    | Stage::Failed(_)
                    | Stage::Cancelled { .. } => None,
                },
                inputs: inputs.collect(),
            }
        })
        .collect()
    }

    /// What keeps a task from going on: empty for one that runs or has ended and holds nothing.
    /// `None` if the engine does not hold the task.
    #[must_use]
    pub fn explain(&self, id: TaskId) -> Option<Vec<Blocker>> {
        let slot = self.slot(id)?;
        let task = &self.tasks[slot];
        let mut blockers = match &task.stage {
            Stage::Waiting | Stage::Active if task.is_parent() => self.explain_graph(task),
            Stage::Waiting | Stage::Active => {
                let start = task.spec.rare().start_at.filter(|start| *start > self.at());
                let mut blockers = self.explain_graph(task);
                if start.is_some() {
                    blockers.push(self.explain_parked(task, ParkReason::StartTime, start));
                }
                blockers.extend(self.explain_no_agent(task, task.times.created));
                blockers
            }
            Stage::Parked { reason, until } => {
                let mut blockers = Vec::from([self.explain_parked(task, *reason, *until)]);
                blockers.extend(self.explain_no_agent(task, task.times.created));
                blockers
            }
            Stage::Ready { .. } => self.explain_ready(slot, task),
            Stage::Backoff { until } => Vec::from([self.explain_backoff(task, *until)]),
            Stage::Running { .. }
            | Stage::Completed(_)
            | Stage::Collected
            | Stage::Failed(_)
            | Stage::Cancelled { .. } => Vec::new(),
        };
        if !task.stopping.is_empty() {
            blockers.push(Blocker {
                kind: BlockerKind::Stopping,
                message: "an earlier attempt was told to stop and still holds its slot".into(),
                since: task.times.updated,
                held_by: task.stopping.iter().map(|held| Holder::Agent(held.agent)).collect(),
                unblock: "the attempt's end, after its grace time at the latest".into(),
                until: None,
            });
        }
        Some(blockers)
    }

    /// How the pool is that agents like this one belong to.
    pub(crate) fn pool(&self, model: &AgentSpec) -> PoolView {
        let serving = self.agents.iter().filter(|(_, agent)| agent.end.is_none());
        let own = serving.filter(|(_, agent)| agent.spec.pool == model.pool);
        let held = |held: usize| u32::try_from(held).unwrap_or(u32::MAX);
        let agents = own.map(|(_, agent)| (agent.spec.id, held(agent.held.len()))).collect();
        let (waiting, first) = self.dispatch.waiting_for(model);
        let waited = first.into_iter().filter_map(|slot| {
            let Stage::Ready { since } = self.tasks[slot].stage else { return None };
            Some(self.at().ms_since(since))
        });
        PoolView { agents, waiting, waited_ms: waited.max().unwrap_or_default() }
    }

    /// What holds for the keys that tasks share.
    pub(crate) fn keys(&self) -> Keys {
        let gates = self.dispatch.gates.iter();
        let weights = self.dispatch.weights.iter();
        Keys {
            gates: gates.map(|gate| (gate.key.clone(), gate.limit, gate.running)).collect(),
            weights: weights.map(|(key, weight)| (key.clone(), *weight)).collect(),
        }
    }

    /// The reason in one line, for the failure of a task that nobody took in time.
    pub(crate) fn why_ready_waits(&self, slot: Slot) -> String {
        let blockers = self.explain_ready(slot, &self.tasks[slot]);
        let mut messages = blockers.into_iter().map(|blocker| blocker.message);
        messages.next().unwrap_or_else(|| "others came first".into())
    }

    fn explain_graph(&self, task: &Task) -> Vec<Blocker> {
        if task.is_parent() {
            let open = task.subtasks().iter().filter(|child| !self.tasks[**child].stage.ended());
            let held_by: Vec<Holder> = open
                .clone()
                .take(HOLDERS_MAX)
                .map(|child| Holder::Task(self.tasks[*child].id))
                .collect();
            return Vec::from([Blocker {
                kind: BlockerKind::Subtasks,
                message: format!("{} of its subtasks have not ended", open.count()),
                since: task.times.started.unwrap_or(task.times.created),
                held_by,
                unblock: "the end of its subtasks; each explains itself".into(),
                until: None,
            }]);
        }
        let open = task.depends_on().iter().filter(|needed| !self.tasks[**needed].stage.ended());
        let names: Vec<String> = open
            .clone()
            .take(HOLDERS_MAX)
            .map(|needed| {
                let needed = &self.tasks[*needed];
                format!("`{}` ({})", needed.spec.name, needed.stage.wire_name())
            })
            .collect();
        Vec::from([Blocker {
            kind: BlockerKind::Dependency,
            message: format!("waits for {} tasks: {}", open.clone().count(), names.join(", ")),
            since: task.times.created,
            held_by: open.take(HOLDERS_MAX).map(|id| Holder::Task(self.tasks[*id].id)).collect(),
            unblock: "the end of these tasks".into(),
            until: None,
        }])
    }

    fn explain_ready(&self, slot: Slot, task: &Task) -> Vec<Blocker> {
        let since = task.times.ready.unwrap_or(task.times.created);
        let serving = || self.serving(task);
        let mut blockers = Vec::from_iter(self.explain_no_agent(task, since));
        let any = blockers.is_empty();
        if any && serving().all(|(_, agent)| agent.fitness().is_none()) {
            blockers.push(self.explain_busy(task, since));
        }
        let mut others = serving().filter(|(_, agent)| !agent.spec.runtime.ends_with_server());
        if any && self.dispatch.own_is_full() && others.all(|(_, agent)| agent.fitness().is_none())
        {
            let most = self.dispatch.own_max.unwrap_or_default();
            blockers.push(Blocker {
                kind: BlockerKind::AgentsBusy,
                message: format!("this server runs {most} attempts at once, which is its bound"),
                since,
                held_by: Vec::new(),
                unblock: "the end of one of them, a worker, or a higher `api.max_concurrent_tasks`"
                    .into(),
                until: None,
            });
        }
        blockers.extend(self.explain_resources(task, since));
        blockers.extend(self.explain_gate(task, since));
        if let Some((lane, key)) = self.waiting_in(slot) {
            let ahead = self.dispatch.ahead_of(lane, key, slot, 10_000);
            if ahead > 0 {
                blockers.push(Blocker {
                    kind: BlockerKind::Queue,
                    message: format!("{ahead} tasks with the same needs come first"),
                    since,
                    held_by: Vec::new(),
                    unblock: "their start, or a higher priority".into(),
                    until: None,
                });
            }
        }
        blockers
    }

    /// Agents that could do a task, whatever they are doing at the moment.
    fn serving<'a>(&'a self, task: &'a Task) -> impl Iterator<Item = (Slot, &'a Agent)> {
        let alive = self.agents.iter().filter(|(_, agent)| agent.end.is_none());
        alive.filter(|(_, agent)| can_serve(&agent.spec, &task.plan.namespace, &task.spec.demand))
    }

    fn explain_busy(&self, task: &Task, since: WallTime) -> Blocker {
        let count = self.serving(task).count();
        let message = match self.serving(task).filter(|(_, agent)| agent.expected).count() {
            0 => format!("all {count} agents that can do it are busy"),
            silent if silent == count => {
                format!("of the {count} agents that can do it none has polled yet")
            }
            silent => format!(
                "of the {count} agents that can do it {silent} have not polled yet and the others \
                 are busy"
            ),
        };
        let held_by = self.serving(task).map(|(_, agent)| Holder::Agent(agent.spec.id));
        Blocker {
            kind: BlockerKind::AgentsBusy,
            message,
            since,
            held_by: held_by.take(HOLDERS_MAX).collect(),
            unblock:
                "the end of an attempt on one of them, the first poll of a worker, or another \
                      agent"
                    .into(),
            until: None,
        }
    }

    fn explain_no_agent(&self, task: &Task, since: WallTime) -> Option<Blocker> {
        self.serving(task).next().is_none().then(|| Blocker {
            kind: BlockerKind::NoAgent,
            message: task.spec.demand.unmet(),
            since,
            held_by: Vec::new(),
            unblock: "an agent that has it".into(),
            until: None,
        })
    }

    fn explain_resources(&self, task: &Task, since: WallTime) -> Option<Blocker> {
        let resources = &task.spec.demand.resources;
        if self.dispatch.fits(resources, None) {
            return None;
        }
        let short: Vec<String> = resources
            .iter()
            .filter_map(|(kind, wanted)| {
                let pool = self.dispatch.pools.get(kind)?;
                let free = pool.capacity_milli?.saturating_sub(pool.allocated_milli);
                (wanted > free)
                    .then(|| format!("`{kind}`: {} wanted, {} free", Milli(wanted), Milli(free)))
            })
            .collect();
        let holds =
            |task: &Task| resources.iter().any(|(kind, _)| task.spec.demand.resources.of(kind) > 0);
        let held = self.agents.iter().flat_map(|(_, agent)| agent.held.iter());
        let holders = held.filter(|(task, _)| holds(&self.tasks[*task])).take(HOLDERS_MAX);
        let reserved: Vec<String> = self
            .reservations
            .values()
            .filter(|held| resources.iter().any(|(kind, _)| held.amounts.of(kind) > 0))
            .take(HOLDERS_MAX)
            .map(|held| format!("`{}`", held.requester))
            .collect();
        let reserved = match reserved.is_empty() {
            true => String::new(),
            false => format!(", reserved by {}", reserved.join(", ")),
        };
        Some(Blocker {
            kind: BlockerKind::Resources,
            message: format!("not enough left of {}{reserved}", short.join("; ")),
            since,
            held_by: holders.map(|(task, _)| Holder::Task(self.tasks[task].id)).collect(),
            unblock: "the end of what holds them, or more capacity".into(),
            until: None,
        })
    }

    fn explain_gate(&self, task: &Task, since: WallTime) -> Option<Blocker> {
        let gate = self.dispatch.gate_of(task.lane?).filter(|gate| !gate.is_open())?;
        let key = &gate.key;
        let starts = (gate.running < gate.running_max()).then(|| gate.next_start()).flatten();
        let (message, unblock) = if gate.running_max() == 0 {
            let message =
                format!("tasks with the concurrency key `{key}` may not run at the moment");
            (message, "a `running_max` above 0 for the key")
        } else if starts.is_some() {
            let rate = gate.limit.and_then(|limit| limit.starts_per_minute).unwrap_or_default();
            let message = format!("tasks with the concurrency key `{key}` start {rate} a minute");
            (message, "a higher `starts_per_minute` for the key, or the next start")
        } else {
            let (running, most) = (gate.running, gate.running_max());
            let message =
                format!("{running} tasks with the concurrency key `{key}` run, {most} may at once");
            (message, "the end of one of them, or a higher `running_max` for the key")
        };
        let held = self.agents.iter().flat_map(|(_, agent)| agent.held.iter());
        let same = held.filter(|(task, _)| {
            self.tasks[*task].spec.rare().concurrency_key.as_ref() == Some(key)
        });
        Some(Blocker {
            kind: BlockerKind::ConcurrencyLimit,
            message,
            since,
            held_by: same.take(HOLDERS_MAX).map(|(t, _)| Holder::Task(self.tasks[t].id)).collect(),
            unblock: unblock.into(),
            until: starts.map(|at| self.wall_of(at)),
        })
    }

    fn explain_backoff(&self, task: &Task, until: Timestamp) -> Blocker {
        let why = task.last_failure().map(|failure| failure.message.to_string());
        Blocker {
            kind: BlockerKind::Backoff,
            message: format!(
                "waits before retry {} of {}, after: {}",
                task.retries_used,
                task.spec.retries_max,
                why.unwrap_or_default()
            ),
            since: task.times.updated,
            held_by: Vec::new(),
            unblock: format!("time: at most {} ms more", until.ms_since(self.at())),
            until: Some(self.wall_of(until)),
        }
    }

    fn explain_parked(&self, task: &Task, reason: ParkReason, until: Option<Timestamp>) -> Blocker {
        let asked = task.spec.rare().run_at.filter(|_| reason == ParkReason::StartTime);
        let (message, unblock) = match reason {
            ParkReason::StartTime => ("its start time has not come", "its start time"),
            ParkReason::Approval => ("somebody must approve it", "an approval"),
            ParkReason::UsageLimit => ("its agent's usage limit is reached", "the limit's reset"),
            ParkReason::Paused => ("somebody paused it", "somebody resumes it"),
        };
        Blocker {
            kind: BlockerKind::Parked,
            message: message.into(),
            since: task.times.updated,
            held_by: Vec::new(),
            unblock: unblock.into(),
            until: asked.or_else(|| until.map(|until| self.wall_of(until))),
        }
    }

    /// What the calendar will show then, as far as its clock and the engine's go alike.
    fn wall_of(&self, then: Timestamp) -> WallTime {
        WallTime(self.moment.wall.0.saturating_add(then.0.saturating_sub(self.at().0)))
    }
}

impl AgentSpec {
    /// Whether it could do what is asked for, whatever it is doing at the moment.
    #[must_use]
    pub fn can_do(&self, namespace: &str, demand: &Demand) -> bool {
        can_serve(self, namespace, demand)
    }
}

impl Demand {
    /// That nobody can do it, in words.
    #[must_use]
    pub fn unmet(&self) -> String {
        let mut wanted: Vec<String> =
            self.capabilities.iter().map(|name| format!("capability `{name}`")).collect();
        wanted.extend(self.agent_type.as_ref().map(|kind| format!("type `{kind}`")));
        wanted.extend(self.agent.map(|id| format!("id `{id}`")));
        let wanted = wanted.join(" and ");
        match self.work {
            Work::FreeForm => format!(
                "no agent has {wanted}; no built-in agent knows its action, so it needs a command, \
                 http or worker agent"
            ),
            Work::Known(_) => format!("no agent has {wanted}"),
            Work::BuiltIn(_) => format!("no built-in agent has {wanted}"),
        }
    }
}

/// Shows thousandths as the number that the caller wrote.
pub struct Milli(pub u64);

impl core::fmt::Display for Milli {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (whole, rest) = (self.0 / 1_000, self.0 % 1_000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{rest:03}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}
