//! What a command would change. Nothing here mutates; refusals name what is wrong.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::{IdempotencyScope, State};
use crate::command::{Command, Report};
use crate::event::{AgentEnd, Event, Failure, FailureKind, Holding};
use crate::ids::{AgentId, Attempt, TaskId};
use crate::limits::{
    AGENTS_MAX, IDEMPOTENCY_KEYS_MAX, KEY_SETTINGS_MAX, LANES_MAX, LIVE_TASKS_MAX, PLAN_DEPTH_MAX,
    PLAN_TASKS_MAX,
};
use crate::record::Stage;
use crate::rejection::Rejection;
use crate::retry;
use crate::slab::Slot;
use crate::spec::{AgentSpec, Expansion, IdempotencyKey, Name, Plan, PlanTask, Setting, TaskSpec};
use crate::task::Task;
use crate::time::{Moment, Timestamp};

impl State {
    /// What `command` would change at `moment`, without changing it. No events: it is already so.
    ///
    /// # Errors
    /// The reason why it may not happen.
    pub fn decide(&self, moment: &Moment, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Submit { plan } => self.decide_submit(moment, plan),
            Command::Cancel { task, reason } => self.decide_cancel(*task, reason),
            Command::Retry { task } => self.decide_retry(*task),
            Command::Revive { tasks } => Ok(self.decide_revive(tasks)),
            Command::Report { task, attempt, report } => {
                self.decide_report(moment, *task, *attempt, report)
            }
            Command::Release { task, attempt } => Ok(self.decide_release(*task, *attempt)),
            Command::Stall { task, attempt } => self.decide_stall(moment, *task, *attempt),
            Command::RegisterAgent { agent } => self.decide_register(agent),
            Command::EndAgent { agent, end } => self.decide_end_agent(*agent, *end),
            Command::SetCapacity { capacity } => Ok(if self.capacity() == *capacity {
                vec![]
            } else {
                vec![Event::CapacitySet { capacity: capacity.clone() }]
            }),
            Command::SetKey { key, setting } => self.decide_set_key(key, setting),
            Command::Amend { task, patch } => self.decide_amend(*task, patch),
            Command::KeepArtifact { task, attempt, artifact } => {
                self.decide_artifact(moment, *task, *attempt, artifact)
            }
            Command::SetEntry { register, key, value, expect } => {
                self.decide_entry(register, key, value.as_ref(), *expect)
            }
            Command::Reserve { requester, amounts, lease_ms } => {
                self.decide_reserve(moment, requester, amounts, *lease_ms)
            }
            Command::Unreserve { requester } => self.decide_unreserve(requester),
            Command::BeginEpoch { epoch, node } => {
                if *epoch <= self.epoch() {
                    return Err(Rejection::NotLeader);
                }
                Ok(vec![Event::EpochBegan { epoch: *epoch, node: *node }])
            }
            Command::Tick => Ok(vec![]),
        }
    }

    /// The root that a submission under this plan's idempotency key became before, if it did.
    #[must_use]
    pub fn accepted_before(&self, moment: &Moment, plan: &Plan) -> Option<TaskId> {
        let key = plan.idempotency.as_ref()?;
        let remembered = self.idempotency.get(&scope(plan, key, key.part))?;
        (remembered.until > moment.at).then_some(remembered.root)
    }

    /// The root that this very body became under its idempotency key, if it did; refused if another
    /// body came under it.
    ///
    /// # Errors
    /// That the key is taken.
    pub fn remembered(
        &self,
        namespace: &Name,
        submitter: &Name,
        key: &IdempotencyKey,
    ) -> Result<Option<TaskId>, Rejection> {
        let (now, first) =
            (self.at(), (namespace.clone(), submitter.clone(), key.key.clone(), None));
        if let Some(task) = self.taken_by(now, &first, key) {
            return Err(Rejection::IdempotencyConflict { key: key.key.clone(), task });
        }
        let scope = (first.0, first.1, first.2, key.part);
        let known = self.idempotency.get(&scope).filter(|known| known.until > now);
        Ok(known.map(|known| known.root))
    }

    /// That an agent is heard of now, if it is for the first time.
    pub(crate) fn arrival(&self, id: AgentId) -> Option<Event> {
        let slot = self.agents_by_id.get(&id)?;
        let agent = &self.agents[*slot];
        let arrives = agent.expected && agent.end.is_none();
        arrives.then_some(Event::AgentArrived { agent: id })
    }

    /// What another body became that came under this key. All parts of a body share its hash, so
    /// any part that is remembered speaks for all.
    fn taken_by(
        &self,
        now: Timestamp,
        first: &IdempotencyScope,
        key: &IdempotencyKey,
    ) -> Option<TaskId> {
        let same =
            |held: &IdempotencyScope| (&held.0, &held.1, &held.2) == (&first.0, &first.1, &first.2);
        let parts = self.idempotency.range(first.clone()..).take_while(|(held, _)| same(held));
        let remembered = parts.map(|(_, held)| held).find(|held| held.until > now)?;
        (remembered.body_hash != key.body_hash).then_some(remembered.root)
    }

    fn decide_submit(&self, moment: &Moment, plan: &Arc<Plan>) -> Result<Vec<Event>, Rejection> {
        if let Some(key) = &plan.idempotency {
            if let Some(task) = self.taken_by(moment.at, &scope(plan, key, None), key) {
                return Err(Rejection::IdempotencyConflict { key: key.key.clone(), task });
            }
            if self.accepted_before(moment, plan).is_some() {
                return Ok(vec![]);
            }
        }
        if plan.idempotency.is_some()
            && self.idempotency.len() as u64 >= IDEMPOTENCY_KEYS_MAX.into()
        {
            let bound = IDEMPOTENCY_KEYS_MAX.into();
            return Err(Rejection::Full { what: "remembered idempotency keys", bound });
        }
        self.check_tasks(&plan.namespace, &plan.tasks)?;
        Ok(and_more(Event::Submitted { plan: plan.clone() }))
    }

    /// Whether there is room for these tasks, and what they ask for can ever be had.
    fn check_tasks(&self, namespace: &Name, tasks: &[PlanTask]) -> Result<(), Rejection> {
        let live = self.live_count + tasks.len() as u64;
        if live > u64::from(LIVE_TASKS_MAX) {
            return Err(Rejection::Full { what: "live tasks", bound: LIVE_TASKS_MAX.into() });
        }
        for task in tasks {
            if self.slot(task.id).is_some() {
                return Err(Rejection::TaskExists(task.id));
            }
            self.check_demand(namespace, &task.spec)?;
        }
        Ok(())
    }

    fn decide_set_key(&self, key: &Name, setting: &Setting) -> Result<Vec<Event>, Rejection> {
        let dispatch = &self.dispatch;
        let (now, known) = match setting {
            Setting::Limit(_) => {
                let limit = dispatch.gates.find(key).and_then(|gate| gate.limit);
                (Setting::Limit(limit), limit.is_some())
            }
            Setting::Weight(_) => {
                let weight = dispatch.weights.get(key).copied();
                (Setting::Weight(weight), weight.is_some())
            }
        };
        if now == *setting {
            return Ok(vec![]);
        }
        let count = dispatch.gates.set_count() + dispatch.weights.len();
        if !known && count >= usize::try_from(KEY_SETTINGS_MAX).unwrap_or(usize::MAX) {
            return Err(Rejection::Full {
                what: "keys with a setting",
                bound: KEY_SETTINGS_MAX.into(),
            });
        }
        Ok(vec![Event::KeySet { key: key.clone(), setting: setting.clone() }])
    }

    pub(super) fn check_demand(&self, namespace: &Name, task: &TaskSpec) -> Result<(), Rejection> {
        for (kind, wanted_milli) in task.demand.resources.iter() {
            let capacity = self.dispatch.pools.get(kind).and_then(|pool| pool.capacity_milli);
            if let Some(capacity_milli) = capacity.filter(|capacity| wanted_milli > *capacity) {
                let kind: Box<str> = kind.into();
                return Err(Rejection::OverCapacity { kind, wanted_milli, capacity_milli });
            }
        }
        let lanes = self.dispatch.lanes_count();
        let at_bound = lanes >= usize::try_from(LANES_MAX).unwrap_or(usize::MAX);
        if at_bound && self.dispatch.find_lane(namespace, task).is_none() {
            return Err(Rejection::Full { what: "distinct demands", bound: LANES_MAX.into() });
        }
        Ok(())
    }

    fn decide_cancel(&self, id: TaskId, reason: &str) -> Result<Vec<Event>, Rejection> {
        let (_, task) = self.find(id)?;
        if task.stage.ended() {
            return Err(Rejection::AlreadyEnded { task: id, state: task.stage.wire_name() });
        }
        Ok(vec![Event::Cancelled { task: id, reason: reason.into() }])
    }

    fn decide_retry(&self, id: TaskId) -> Result<Vec<Event>, Rejection> {
        let (slot, task) = self.find(id)?;
        if !matches!(task.stage, Stage::Failed(_) | Stage::Cancelled { .. }) {
            return Err(Rejection::NotRetryable { task: id, state: task.stage.wire_name() });
        }
        if let Some(parent) = task.parent.filter(|parent| self.tasks[*parent].stage.ended()) {
            return Err(Rejection::ParentEnded { task: id, parent: self.tasks[parent].id });
        }
        let mut events = self.come_back(slot);
        events.push(Event::Reopened { task: id });
        Ok(events)
    }

    fn decide_revive(&self, tasks: &[crate::record::TaskRecord]) -> Vec<Event> {
        let here = tasks.iter().any(|task| self.slot(task.id).is_some());
        if here || tasks.is_empty() {
            return vec![];
        }
        vec![Event::Revived { tasks: tasks.to_vec() }]
    }

    fn decide_report(
        &self,
        moment: &Moment,
        id: TaskId,
        attempt: Attempt,
        report: &Report,
    ) -> Result<Vec<Event>, Rejection> {
        let (_, task) = self.running(id, attempt)?;
        Ok(and_more(match report {
            Report::Completed(result) => {
                Event::Completed { task: id, attempt, result: result.clone() }
            }
            Report::Expanded(expansion) => self.decide_expanded(moment, task, attempt, expansion),
            Report::Failed(failure) => {
                let next = retry::after_failure(task, failure, moment);
                let failure = failure.clone();
                Event::AttemptFailed { task: id, attempt, failure, holding: Holding::Nothing, next }
            }
            Report::Lost(message) => lost(task, attempt, message, Holding::Nothing),
        }))
    }

    /// Subtasks are accepted as a plan is; what cannot be has failed its attempt for good.
    fn decide_expanded(
        &self,
        moment: &Moment,
        task: &Task,
        attempt: Attempt,
        expansion: &Arc<Expansion>,
    ) -> Event {
        let id = task.id;
        let Err(why) = self.check_expansion(task, expansion) else {
            return Event::Expanded { task: id, attempt, expansion: expansion.clone() };
        };
        let message = alloc::format!("its subtasks cannot be taken: {why}").into();
        let failure = Failure { kind: FailureKind::Reported, message, permanent: true };
        let next = retry::after_failure(task, &failure, moment);
        Event::AttemptFailed { task: id, attempt, failure, holding: Holding::Nothing, next }
    }

    fn check_expansion(&self, task: &Task, expansion: &Expansion) -> Result<(), Rejection> {
        let added = expansion.tasks.len();
        let members = self.tasks[task.root].edges().map_or(1, |root| root.members.len());
        let most = usize::try_from(PLAN_TASKS_MAX).unwrap_or(usize::MAX);
        if members - 1 + added > most {
            return Err(Rejection::Full {
                what: "subtasks of a plan",
                bound: PLAN_TASKS_MAX.into(),
            });
        }
        let mut depths: Vec<u32> = Vec::with_capacity(added);
        let own = self.depth(task);
        for planned in &expansion.tasks {
            let above = planned.parent.and_then(|parent| usize::try_from(parent).ok());
            depths.push(1 + above.map_or(own, |parent| depths[parent]));
        }
        if depths.iter().any(|depth| *depth > PLAN_DEPTH_MAX) {
            return Err(Rejection::Full { what: "levels of a plan", bound: PLAN_DEPTH_MAX.into() });
        }
        self.check_tasks(&task.plan.namespace, &expansion.tasks)
    }

    /// How many parents are above a task.
    fn depth(&self, task: &Task) -> u32 {
        let above = core::iter::successors(task.parent, |slot| self.tasks[*slot].parent);
        u32::try_from(above.count()).unwrap_or(u32::MAX)
    }

    fn decide_release(&self, id: TaskId, attempt: Attempt) -> Vec<Event> {
        let Some(slot) = self.slot(id) else { return vec![] };
        let stopping = self.tasks[slot].stopping.iter().any(|held| held.attempt == attempt);
        if stopping { vec![Event::Released { task: id, attempt }] } else { vec![] }
    }

    fn decide_stall(
        &self,
        moment: &Moment,
        id: TaskId,
        attempt: Attempt,
    ) -> Result<Vec<Event>, Rejection> {
        let (_, task) = self.running(id, attempt)?;
        let silence_ms = task.spec.rare().no_progress_ms.unwrap_or_default();
        let failure = Failure {
            kind: FailureKind::NoProgress,
            message: alloc::format!("no sign of progress for {silence_ms} ms").into(),
            permanent: false,
        };
        let next = retry::after_failure(task, &failure, moment);
        let holding = Holding::Everything;
        Ok(vec![Event::AttemptFailed { task: id, attempt, failure, holding, next }])
    }

    fn decide_register(&self, agent: &Arc<AgentSpec>) -> Result<Vec<Event>, Rejection> {
        match self.agents_by_id.get(&agent.id) {
            Some(slot) => {
                let known = &self.agents[*slot];
                if known.end.is_none() && known.spec == *agent {
                    return Ok(vec![]);
                }
            }
            None if self.agents.count() >= usize::try_from(AGENTS_MAX).unwrap_or(usize::MAX) => {
                return Err(Rejection::Full { what: "agents", bound: AGENTS_MAX.into() });
            }
            None => {}
        }
        Ok(vec![Event::AgentRegistered { agent: agent.clone() }])
    }

    fn decide_end_agent(&self, id: AgentId, end: AgentEnd) -> Result<Vec<Event>, Rejection> {
        let slot = self.agents_by_id.get(&id).ok_or(Rejection::AgentNotFound(id))?;
        if self.agents[*slot].end.is_some() {
            return Err(Rejection::AgentEnded(id));
        }
        Ok(vec![Event::AgentEnded { agent: id, end }])
    }

    fn find(&self, id: TaskId) -> Result<(Slot, &Task), Rejection> {
        let slot = self.slot(id).ok_or(Rejection::TaskNotFound(id))?;
        Ok((slot, &self.tasks[slot]))
    }

    fn running(&self, id: TaskId, attempt: Attempt) -> Result<(Slot, &Task), Rejection> {
        // One that has left the engine has ended: whatever is reported of it comes too late.
        let stale = Rejection::StaleAttempt { task: id, attempt };
        let slot = self.slot(id).ok_or_else(|| stale.clone())?;
        let task = &self.tasks[slot];
        let current = matches!(task.stage, Stage::Running { .. })
            && (task.attempt == attempt || cfg!(feature = "fault-accept-stale-report"));
        if current { Ok((slot, task)) } else { Err(stale) }
    }
}

/// One fact, with room for the start that mostly follows from it.
fn and_more(event: Event) -> Vec<Event> {
    let mut events = Vec::with_capacity(2);
    events.push(event);
    events
}

/// The fact that an attempt is gone through no fault of the task's.
pub(super) fn lost(task: &Task, attempt: Attempt, message: &str, holding: Holding) -> Event {
    let next = retry::after_loss(task);
    let ended = next == crate::event::Next::End;
    let failure = Failure {
        kind: if ended { FailureKind::AttemptsLost } else { FailureKind::Lost },
        message: message.into(),
        permanent: false,
    };
    Event::AttemptFailed { task: task.id, attempt, failure, holding, next }
}

fn scope(plan: &Plan, key: &IdempotencyKey, part: Option<u32>) -> IdempotencyScope {
    (plan.namespace.clone(), plan.submitter.clone(), key.key.clone(), part)
}
