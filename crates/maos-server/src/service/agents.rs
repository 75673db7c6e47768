//! Agents: create, look at one, end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maos_api::agent::{self, Agent, AgentEnvelope, AgentRuntime, AgentStatus, TerminateAnswer};
use maos_api::document;
use maos_api::error::{ApiError, ErrorCode};
use maos_api::time::UtcTime;
use maos_core::command::Command;
use maos_core::event::AgentEnd;
use maos_core::ids::AgentId;
use maos_core::node::{AgentState, Answer, Echo, Query};
use maos_core::payload::Payload;
use maos_core::rejection::Rejection;
use maos_core::spec::{AgentSpec, Amounts, Names, Runtime};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::tasks::blocking;
use super::workers::not_a_worker;
use super::{Service, faults, new_id, present};
use crate::agents::{attempt_id, builtin};
use crate::driver::Refused;
use crate::supervisor::usage::{self, Usage};

/// Most bytes of an agent's configuration; it lives with its events.
const CONFIGURATION_BYTES_MAX: usize = 64 << 10;

impl Service {
    /// Creates an agent: durable, and ready for work, when this returns.
    ///
    /// # Errors
    /// What is wrong with the request, or why it is not taken.
    pub async fn create_agent(&self, body: &[u8]) -> Result<AgentEnvelope, ApiError> {
        self.check_intake()?;
        let parsed = agent::parse(body, self.bounds())?;
        let runtime = match parsed.runtime {
            AgentRuntime::Builtin => Runtime::Builtin,
            AgentRuntime::Worker => Runtime::Worker,
            AgentRuntime::Command | AgentRuntime::Http | AgentRuntime::ClaudeCode => {
                return Err(not_by_request(parsed.runtime));
            }
        };
        let given = parsed.configuration.as_ref();
        let configuration = given.map(|raw| configuration(raw.get())).transpose()?;
        let id = parsed.id.map_or_else(new_id, |id| id.as_u128());
        let mut warnings = parsed.warnings;
        let known = self.inner.planning.runtime_of(AgentId(id));
        match runtime {
            Runtime::Worker => {
                if known.is_some_and(|known| known != Runtime::Worker) {
                    return Err(not_a_worker(AgentId(id)));
                }
                self.check_room_for_worker(AgentId(id)).await?;
            }
            _ => {
                self.check_room_for_agent().await?;
                warnings.extend(unserved(&parsed.capabilities));
            }
        }
        let limited = !parsed.resource_limits.is_empty();
        warnings.extend(without_effect(runtime, limited, parsed.configuration.as_deref()));
        let name = parsed.name.unwrap_or_else(|| {
            let id = Uuid::from_u128(id).simple().to_string();
            format!("{}-{}", parsed.agent_type, &id[id.len() - 8..])
        });
        let spec = Arc::new(AgentSpec {
            id: AgentId(id),
            namespace: "default".into(),
            submitter: "".into(),
            name: name.into(),
            agent_type: parsed.agent_type.into(),
            capabilities: Names::new(parsed.capabilities.into_iter().map(Into::into)),
            runtime,
            node: self.inner.node,
            slots: parsed.max_concurrent_tasks,
            pool: None,
            configuration,
            resource_limits: Amounts::new(
                parsed.resource_limits.into_iter().map(|(kind, milli)| (kind.into(), milli)),
            ),
            tags: Names::new(parsed.tags.into_iter().map(Into::into)),
            silence_ms: parsed.heartbeat_timeout.map(|seconds| seconds * 1_000),
        });
        self.register(spec).await?;
        let message = if known.is_some() { "agent was there already" } else { "agent created" };
        let agent = self.agent_state(AgentId(id)).await?;
        let agent = self.shown_one(&agent).await;
        Ok(AgentEnvelope { agent, message: message.to_owned(), warnings })
    }

    /// Has the engine know an agent as it is now, and its desk be filled anew.
    pub(super) async fn register(&self, spec: Arc<AgentSpec>) -> Result<(), ApiError> {
        let command = Command::RegisterAgent { agent: spec.clone() };
        self.inner.driver.run(command, Echo::Id).await.map_err(faults::refused)?;
        self.inner.planning.note_agent(&spec);
        if let Some(desk) = self.inner.workers.desk(spec.id) {
            desk.renew();
        }
        Ok(())
    }

    /// One agent, also one that has ended.
    ///
    /// # Errors
    /// That there is no such agent.
    pub async fn agent(&self, id: Uuid) -> Result<AgentEnvelope, ApiError> {
        let state = self.agent_state(AgentId(id.as_u128())).await?;
        let agent = self.shown_one(&state).await;
        let message = format!("agent is {}", agent.status.name());
        Ok(AgentEnvelope { agent, message, warnings: Vec::new() })
    }

    /// Ends an agent's service; what it runs is stopped and goes to others.
    ///
    /// # Errors
    /// That there is no such agent, or that it has ended.
    pub async fn terminate_agent(&self, id: Uuid) -> Result<TerminateAnswer, ApiError> {
        let agent = AgentId(id.as_u128());
        let command = Command::EndAgent { agent, end: AgentEnd::Terminated };
        match self.inner.driver.run(command, Echo::Id).await {
            Err(Refused::Rejection(Rejection::AgentNotFound(_))) => {
                let state = self.agent_state(agent).await?;
                return Err(faults::rejected(&Rejection::AgentEnded(state.record.spec.id)));
            }
            ended => ended.map_err(faults::refused)?,
        };
        self.inner.planning.forget_agent(agent);
        self.inner.workers.end(agent);
        // It may have been one of those that a pool always has.
        self.inner.waiting.stir();
        Ok(TerminateAnswer { message: "agent terminated".to_owned(), agent_id: id })
    }

    async fn check_room_for_agent(&self) -> Result<(), ApiError> {
        let bound = self.inner.config.api.max_agents;
        check_room(self.own_agents_count().await?, bound, "agents", "api.max_agents")
    }

    /// Agents that serve and are no workers: those that `api.max_agents` bounds.
    pub(super) async fn own_agents_count(&self) -> Result<usize, ApiError> {
        let serving = self.serving().await?;
        let ours = serving.iter().filter(|agent| agent.record.spec.runtime != Runtime::Worker);
        Ok(ours.count())
    }

    /// Counts cheaply first: thousands of workers may register at once.
    async fn check_room_for_worker(&self, agent: AgentId) -> Result<(), ApiError> {
        let bound = self.inner.config.api.max_workers;
        let check = |count| check_room(count, bound, "workers", "api.max_workers");
        let planning = &self.inner.planning;
        if check(planning.workers_but(agent)).is_ok() {
            return Ok(());
        }
        let serving = self.serving().await?;
        let workers = serving.iter().map(|agent| &agent.record.spec);
        let workers = workers.filter(|spec| spec.runtime == Runtime::Worker);
        let workers: HashSet<AgentId> = workers.map(|spec| spec.id).collect();
        planning.keep_workers(&workers);
        check(planning.workers_but(agent))
    }

    async fn shown_one(&self, state: &AgentState) -> Agent {
        let usages = usages(std::slice::from_ref(state)).await;
        self.shown(state, super::now(), &usages)
    }

    /// An agent as the wire shows it; `usages` is what attempts take.
    pub(super) fn shown(&self, state: &AgentState, now: UtcTime, usages: &Usages) -> Agent {
        let desk = self.inner.workers.desk(state.record.spec.id);
        let ago = desk.and_then(|desk| desk.seen()).map(|seen| seen.elapsed());
        let seen = ago.map(|ago| {
            UtcTime(now.0.saturating_sub(u64::try_from(ago.as_micros()).unwrap_or(u64::MAX)))
        });
        let ids = state.held.iter().map(|(task, attempt)| attempt_id(*task, *attempt));
        let taken: Vec<Usage> = ids.filter_map(|id| usages.get(&id).copied()).collect();
        let timeout = self.inner.config.api.worker_timeout;
        let agent = present::agent(state, now, seen, timeout, &taken);
        let Some(metadata) = self.inner.http_agents.shown(&state.record.spec) else { return agent };
        let out_of_reach = self.inner.http_agents.out_of_reach(&state.record.spec).is_some();
        let ended = state.record.end.is_some();
        let status = if out_of_reach && !ended { AgentStatus::Unhealthy } else { agent.status };
        Agent { metadata, status, ..agent }
    }

    pub(super) async fn serving(&self) -> Result<Vec<AgentState>, ApiError> {
        let Answer::Agents(agents) = self.ask(Query::Agents).await? else {
            return Err(faults::internal(&"agents were something else"));
        };
        Ok(agents.into_iter().filter(|agent| agent.record.end.is_none()).collect())
    }

    /// An agent, also one that has ended: the engine lets go of those, the store does not.
    pub(super) async fn agent_state(&self, id: AgentId) -> Result<AgentState, ApiError> {
        match self.inner.driver.ask(Query::Agent(id)).await {
            Ok(Answer::Agents(agents)) => agents
                .into_iter()
                .next()
                .ok_or_else(|| faults::internal(&"an agent was something else")),
            Ok(_) => Err(faults::internal(&"an agent was something else")),
            Err(Refused::Rejection(unknown @ Rejection::AgentNotFound(_))) => {
                self.catch_up().await?;
                let store = self.inner.store.clone();
                let stored = blocking(move || store.agent(id)).await;
                let record = stored.map_err(|why| self.storage(&why))?;
                let held = Vec::new();
                record
                    .map(|record| AgentState { record, held })
                    .ok_or_else(|| faults::rejected(&unknown))
            }
            Err(refused) => Err(faults::refused(refused)),
        }
    }
}

/// What attempts take, by what their processes are known by.
pub(super) type Usages = HashMap<String, Usage>;

/// What the attempts of these agents take at the moment, where this server runs their processes.
pub(super) async fn usages(agents: &[AgentState]) -> Usages {
    let here = agents.iter().filter(|agent| has_processes(agent.record.spec.runtime));
    let held = here.flat_map(|agent| &agent.held);
    let ids: HashSet<String> = held.map(|(task, attempt)| attempt_id(*task, *attempt)).collect();
    if ids.is_empty() {
        return Usages::new();
    }
    blocking(move || usage::of_attempts(&ids)).await
}

/// Whether attempts of such an agent may be processes of this server.
fn has_processes(runtime: Runtime) -> bool {
    match runtime {
        Runtime::Builtin | Runtime::Command | Runtime::ClaudeCode => true,
        Runtime::Http | Runtime::Worker => false,
    }
}

/// An agent's configuration as it is kept.
pub(super) fn configuration(raw: &str) -> Result<Payload, ApiError> {
    if raw.len() > CONFIGURATION_BYTES_MAX {
        let what = format!("has more than {CONFIGURATION_BYTES_MAX} bytes");
        return Err(fault("configuration", what));
    }
    Ok(Payload::inline(raw.as_bytes()))
}

fn check_room(count: usize, bound: u32, what: &str, key: &str) -> Result<(), ApiError> {
    if count < usize::try_from(bound).unwrap_or(usize::MAX) {
        return Ok(());
    }
    let message = format!("there are {count} {what}, and `{key}` is {bound}: end one, or raise it");
    Err(ApiError::new(ErrorCode::QueueFull, message).with("bound", bound))
}

fn not_by_request(runtime: AgentRuntime) -> ApiError {
    let why = match runtime {
        AgentRuntime::Command => {
            "is `command`: programs are the operator's, under [commands] in maos.toml"
        }
        AgentRuntime::Http => {
            "is `http`: URLs are the operator's, under [http_agents] in maos.toml"
        }
        AgentRuntime::ClaudeCode => {
            "is `claude_code`: agents that run the Claude Code CLI are not built yet\n\
             hint: use `worker`, with `maos worker exec` or a program of one's own that runs the \
             CLI, or have the operator put it under [commands] in maos.toml"
        }
        AgentRuntime::Builtin | AgentRuntime::Worker => "is one that requests may create",
    };
    fault("runtime", why.to_owned())
}

fn fault(field: &str, what: String) -> ApiError {
    let message = format!("`{field}` {what}");
    let fields = serde_json::json!({ field: what });
    ApiError::new(ErrorCode::ValidationFailed, message).with("fields", fields)
}

/// What was given of an agent and has no effect, in words.
pub(super) fn without_effect(
    runtime: Runtime,
    limited: bool,
    configuration: Option<&RawValue>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if limited {
        let warning = "`resource_limits` are kept for people and have no effect: \
                       `max_concurrent_tasks` bounds what an agent runs at once, and resources \
                       what all attempts hold together";
        warnings.push(warning.to_owned());
    }
    let instead = match runtime {
        Runtime::Builtin => Some("a built-in agent is told all by the parameters of its tasks"),
        Runtime::Command => Some("programs are configured under [commands] in maos.toml"),
        Runtime::Http => Some("URLs are configured under [http_agents] in maos.toml"),
        // Its own program may ask for it.
        Runtime::ClaudeCode | Runtime::Worker => None,
    };
    let members = configuration.and_then(|raw| document::members(raw.get()));
    let given = members.is_some_and(|members| !members.0.is_empty());
    if let Some(instead) = instead.filter(|_| given) {
        warnings.push(format!("`configuration` is kept for people and has no effect: {instead}"));
    }
    warnings
}

/// Capabilities for which a built-in agent knows no action: it would never get a task for them.
fn unserved(capabilities: &[String]) -> Vec<String> {
    let served = |name: &String| builtin::ACTIONS.iter().any(|action| action.capability == name);
    let unserved = capabilities.iter().filter(|name| !served(name));
    unserved
        .map(|name| {
            format!(
                "no built-in action has the capability `{name}`: this agent only gets tasks for it \
                 that name a built-in action"
            )
        })
        .collect()
}
