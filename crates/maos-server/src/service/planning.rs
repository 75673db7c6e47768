//! Planning: what the planner must know of this server, and the calls that need it.
//!
//! Shared by the service, which plans submissions, and the roster, whose agents may answer with
//! subtasks.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use maos_api::error::{ApiError, ErrorCode};
use maos_api::submission::{self, Bounds};
use maos_api::time::UtcTime;
use maos_core::ids::AgentId;
use maos_core::spec::{AgentSpec, Deadline, IdempotencyKey, Runtime, TaskSpec, TraceContext};
use maos_core::time::WallTime;
use serde_json::value::RawValue;

use super::abilities::Abilities;
use super::new_id;
use super::resources::Kinds;
use crate::agents::builtin;
use crate::config::Config;
use crate::driver::Handle;
use crate::planner::{self, Defaults, Demands, Expanded, PlanContext, Planned};

/// Whose all submissions are, for as long as there is one of each.
pub(super) const NAMESPACE: &str = "default";
pub(super) const SUBMITTER: &str = "";

/// What the planner must know of this server.
pub(super) struct Planning {
    driver: Handle,
    pub(super) bounds: Bounds,
    defaults: Defaults,
    demands: Demands,
    known_actions: Vec<&'static str>,
    /// What does the work of each agent that a submission may name. Workers that were lost are
    /// among them: they may come back. So these are not the agents of `abilities`.
    runtimes: RwLock<HashMap<AgentId, Runtime>>,
    /// What the agents can do.
    pub(super) abilities: Arc<Abilities>,
    /// What may be asked for of each kind of resource.
    kinds: RwLock<Arc<Kinds>>,
}

/// What comes with a submission beside its body.
#[derive(Default)]
pub(super) struct Envelope {
    pub(super) idempotency: Option<IdempotencyKey>,
    pub(super) trace: Option<TraceContext>,
    /// The door that it came in by; `None`: the usual one.
    pub(super) origin: Option<&'static str>,
}

impl Planning {
    pub(super) fn new(driver: Handle, config: &Config, abilities: Arc<Abilities>) -> Planning {
        let timeout_seconds = config.api.default_task_timeout;
        Planning {
            driver,
            bounds: planner::bounds(config.api.max_task_timeout),
            defaults: Defaults { timeout_seconds, ..planner::DEFAULTS },
            demands: Demands::default(),
            known_actions: builtin::ACTIONS.iter().map(|action| action.name).collect(),
            runtimes: RwLock::default(),
            abilities,
            kinds: RwLock::default(),
        }
    }

    /// A submission as a graph.
    pub(super) fn plan(&self, body: &[u8], envelope: Envelope) -> Result<Planned, ApiError> {
        let parsed = submission::parse(body, &self.bounds)?;
        let mut planned =
            self.with_context(envelope, |context| planner::plan(parsed, context, &mut new_id))?;
        self.kinds().check_plan(&planned.plan, &planned.places, &mut planned.warnings)?;
        self.abilities.check_plan(&planned.plan, &mut planned.warnings);
        Ok(planned)
    }

    /// The answer of an attempt as subtasks of its task, at most `most` of them.
    pub(super) fn expand(
        &self,
        task: &TaskSpec,
        answer: &RawValue,
        most: u32,
    ) -> Result<Expanded, ApiError> {
        let envelope = Envelope { trace: task.rare().trace.clone(), ..Envelope::default() };
        self.with_context(envelope, |context| {
            planner::expand(task, answer, most, context, &mut new_id)
        })
    }

    /// A deadline of the calendar in the engine's time.
    pub(super) fn deadline(&self, deadline: UtcTime) -> Result<Deadline, ApiError> {
        let wall = WallTime(super::now().0);
        let found = planner::deadline_at(deadline, self.driver.engine_time(wall), wall);
        found.ok_or_else(|| {
            let what = planner::PAST_DEADLINE;
            let message = format!("`deadline` {what}");
            ApiError::new(ErrorCode::ValidationFailed, message).with_field("deadline", what)
        })
    }

    pub(super) fn kinds(&self) -> Arc<Kinds> {
        self.kinds.read().expect("nothing panics while it holds this lock").clone()
    }

    pub(super) fn set_kinds(&self, kinds: Kinds) {
        *self.kinds.write().expect("nothing panics while it holds this lock") = Arc::new(kinds);
    }

    pub(super) fn runtime_of(&self, agent: AgentId) -> Option<Runtime> {
        let known = self.runtimes.read().expect("nothing panics while it holds this lock");
        known.get(&agent).copied()
    }

    /// Workers beside this one that serve, and some that may have been lost since.
    pub(super) fn workers_but(&self, agent: AgentId) -> usize {
        let known = self.runtimes.read().expect("nothing panics while it holds this lock");
        let workers = known.iter().filter(|(_, runtime)| **runtime == Runtime::Worker);
        workers.filter(|(id, _)| **id != agent).count()
    }

    /// Forgets all workers but these.
    pub(super) fn keep_workers(&self, serving: &std::collections::HashSet<AgentId>) {
        let mut known = self.runtimes.write().expect("nothing panics while it holds this lock");
        known.retain(|id, runtime| *runtime != Runtime::Worker || serving.contains(id));
    }

    /// An agent serves, or is another than it was.
    pub(super) fn note_agent(&self, agent: &Arc<AgentSpec>) {
        let mut known = self.runtimes.write().expect("nothing panics while it holds this lock");
        known.insert(agent.id, agent.runtime);
        drop(known);
        self.abilities.note(agent);
    }

    pub(super) fn forget_agent(&self, agent: AgentId) {
        let mut known = self.runtimes.write().expect("nothing panics while it holds this lock");
        known.remove(&agent);
        drop(known);
        self.abilities.forget(agent);
    }

    fn with_context<T>(&self, envelope: Envelope, plan: impl FnOnce(&PlanContext<'_>) -> T) -> T {
        let wall = WallTime(super::now().0);
        plan(&PlanContext {
            bounds: &self.bounds,
            defaults: self.defaults,
            now: self.driver.engine_time(wall),
            wall,
            demands: &self.demands,
            namespace: NAMESPACE,
            submitter: SUBMITTER,
            idempotency: envelope.idempotency,
            trace: envelope.trace,
            origin: envelope.origin,
            action_capability: &builtin::capability_of,
            known_actions: &self.known_actions,
            agent_runtime: &|agent| self.runtime_of(agent),
        })
    }
}
