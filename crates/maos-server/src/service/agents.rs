//! Agents: create, look at one, end.

use std::sync::Arc;

use maos_api::agent::{self, AgentEnvelope, AgentRuntime, TerminateAnswer};
use maos_api::error::{ApiError, ErrorCode};
use maos_core::command::Command;
use maos_core::event::AgentEnd;
use maos_core::ids::AgentId;
use maos_core::node::{AgentState, Answer, Echo, Query};
use maos_core::payload::Payload;
use maos_core::spec::{AgentSpec, Amounts, Names, Runtime};
use uuid::Uuid;

use super::{Service, faults, new_id, present};
use crate::agents::builtin;

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
        if parsed.runtime != AgentRuntime::Builtin {
            return Err(not_by_request(parsed.runtime));
        }
        let configuration = parsed.configuration.map(|raw| raw.get().as_bytes().to_vec());
        if configuration.as_ref().is_some_and(|raw| raw.len() > CONFIGURATION_BYTES_MAX) {
            return Err(fault(
                "configuration",
                format!("has more than {CONFIGURATION_BYTES_MAX} bytes"),
            ));
        }
        let bound = self.inner.config.api.max_agents;
        if self.serving().await?.len() >= usize::try_from(bound).unwrap_or(usize::MAX) {
            let message = format!(
                "there are {bound} agents already, the bound `api.max_agents`: end one, or \
                 raise it"
            );
            return Err(ApiError::new(ErrorCode::QueueFull, message).with("bound", bound));
        }
        let id = new_id();
        let mut warnings = parsed.warnings;
        warnings.extend(unserved(&parsed.capabilities));
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
            runtime: Runtime::Builtin,
            node: self.inner.node,
            slots: parsed.max_concurrent_tasks,
            pool: None,
            configuration: configuration.map(|raw| Payload::inline(&raw)),
            resource_limits: Amounts::new(
                parsed.resource_limits.into_iter().map(|(kind, milli)| (kind.into(), milli)),
            ),
            tags: Names::new(parsed.tags.into_iter().map(Into::into)),
        });
        let command = Command::RegisterAgent { agent: spec };
        self.inner.driver.run(command, Echo::Id).await.map_err(faults::refused)?;
        self.inner.planning.note_agent(AgentId(id), Some(Runtime::Builtin));
        let agent = self.agent_state(AgentId(id)).await?;
        let agent = present::agent(&agent, super::now());
        Ok(AgentEnvelope { agent, message: "agent created".to_owned(), warnings })
    }

    /// One agent.
    ///
    /// # Errors
    /// That there is no such agent.
    pub async fn agent(&self, id: Uuid) -> Result<AgentEnvelope, ApiError> {
        let state = self.agent_state(AgentId(id.as_u128())).await?;
        let agent = present::agent(&state, super::now());
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
        self.inner.driver.run(command, Echo::Id).await.map_err(faults::refused)?;
        self.inner.planning.note_agent(agent, None);
        Ok(TerminateAnswer { message: "agent terminated".to_owned(), agent_id: id })
    }

    pub(super) async fn serving(&self) -> Result<Vec<AgentState>, ApiError> {
        let Answer::Agents(agents) = self.ask(Query::Agents).await? else {
            return Err(faults::internal(&"agents were something else"));
        };
        Ok(agents.into_iter().filter(|agent| agent.record.end.is_none()).collect())
    }

    async fn agent_state(&self, id: AgentId) -> Result<AgentState, ApiError> {
        let found = self.ask(Query::Agent(id)).await?;
        match found {
            Answer::Agents(agents) => agents.into_iter().next(),
            _ => None,
        }
        .ok_or_else(|| faults::internal(&"an agent was something else"))
    }
}

fn not_by_request(runtime: AgentRuntime) -> ApiError {
    let why = match runtime {
        AgentRuntime::Command => {
            "is `command`: programs are the operator's, under [commands] in maos.toml"
        }
        AgentRuntime::Builtin
        | AgentRuntime::Http
        | AgentRuntime::ClaudeCode
        | AgentRuntime::Worker => "names a runtime that is not built yet",
    };
    fault("runtime", why.to_owned())
}

fn fault(field: &str, what: String) -> ApiError {
    let message = format!("`{field}` {what}");
    let fields = serde_json::json!({ field: what });
    ApiError::new(ErrorCode::ValidationFailed, message).with("fields", fields)
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
