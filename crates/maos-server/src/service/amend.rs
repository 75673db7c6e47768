//! Changing tasks and agents that are there.

use std::collections::HashSet;
use std::time::Duration;

use maos_api::agent::{self, AgentEnvelope};
use maos_api::amend;
use maos_api::error::{ApiError, ErrorCode};
use maos_api::task::TaskEnvelope;
use maos_core::command::Command;
use maos_core::ids::{AgentId, TaskId};
use maos_core::payload::Payload;
use maos_core::record::TaskRecord;
use maos_core::rejection::Rejection;
use maos_core::spec::{AgentSpec, Amounts, Bound, Limits, Names, Patience, Runtime, TaskPatch};
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Arc;
use uuid::Uuid;

use super::{Service, faults};
use crate::planner;

impl Service {
    /// Changes a task. Priority, tags and metadata at any time, as far as they mean anything;
    /// parameters and limits until it starts, its deadline and the other bounds in time until it
    /// ends.
    ///
    /// # Errors
    /// What is wrong with the request, or what can no longer be changed.
    pub async fn change_task(&self, id: Uuid, body: &[u8]) -> Result<TaskEnvelope, ApiError> {
        self.check_intake()?;
        let given = amend::parse(body, self.bounds())?;
        let task = TaskId(id.as_u128());
        if let Some(parameters) = given.parameters {
            let record = self.record(task, Duration::ZERO).await?;
            self.check_parameters(&record, parameters).await?;
        }
        let patience = self.patience(&given)?;
        let mut warnings = given.warnings;
        let resources = given.resource_requirements.map(|amounts| {
            Amounts::new(amounts.into_iter().map(|(kind, milli)| (kind.into(), milli)))
        });
        if let Some(resources) = &resources {
            let kinds = self.inner.planning.kinds();
            kinds.check("resource_requirements", resources, &mut warnings)?;
        }
        let limits = Limits {
            parameters: self.keep_object(given.parameters).await?,
            timeout_ms: given.timeout_seconds.map(|seconds| seconds * 1_000),
            retries_max: given.max_retries,
            resources,
        };
        let patch = TaskPatch {
            priority: given.priority.map(planner::priority),
            tags: given.tags.map(|tags| Names::new(tags.into_iter().map(Into::into))),
            metadata: self.keep_object(given.metadata).await?,
            limits: (limits != Limits::default()).then_some(limits),
            patience,
        };
        let record = self.run_on(task, Command::Amend { task, patch: Box::new(patch) }).await?;
        let envelope = self.envelope(&record, "task changed".to_owned()).await?;
        Ok(TaskEnvelope { warnings, ..envelope })
    }

    /// Changes what an agent is for; what it runs goes on.
    ///
    /// # Errors
    /// What is wrong with the request, or that the agent is not there or is not to be changed so.
    pub async fn change_agent(&self, id: Uuid, body: &[u8]) -> Result<AgentEnvelope, ApiError> {
        self.check_intake()?;
        let given = agent::parse_patch(body, self.bounds())?;
        let state = self.agent_state(AgentId(id.as_u128())).await?;
        let before = &state.record;
        if before.end.is_some() {
            return Err(faults::rejected(&Rejection::AgentEnded(before.spec.id)));
        }
        let names = |words: Vec<String>| Names::new(words.into_iter().map(Into::into));
        let fixed = given.capabilities.is_some() || given.max_concurrent_tasks.is_some();
        if let Some(pool) = before.spec.pool.as_ref().filter(|_| fixed) {
            let message = format!(
                "agent `{id}` belongs to the pool `{pool}`, which says what it can do and how much \
                 at once: change the pool"
            );
            return Err(ApiError::new(ErrorCode::DeclaredByConfiguration, message));
        }
        if given.heartbeat_timeout.is_some() && before.spec.runtime != Runtime::Worker {
            let fields = serde_json::json!({ "heartbeat_timeout": agent::NO_WORKER });
            let message = format!("`heartbeat_timeout` {}", agent::NO_WORKER);
            return Err(ApiError::new(ErrorCode::ValidationFailed, message).with("fields", fields));
        }
        let silence_ms = given.heartbeat_timeout.map(|seconds| seconds * 1_000);
        let old = (*before.spec).clone();
        let limited = given.resource_limits.as_ref().is_some_and(|limits| !limits.is_empty());
        let mut warnings = given.warnings;
        let raw = given.configuration.as_deref();
        warnings.extend(super::agents::without_effect(old.runtime, limited, raw));
        let configuration = match given.configuration {
            Some(raw) => Some(super::agents::configuration(raw.get())?),
            None => old.configuration,
        };
        let limits = given.resource_limits.map(|limits| {
            Amounts::new(limits.into_iter().map(|(kind, milli)| (kind.into(), milli)))
        });
        let spec = AgentSpec {
            name: given.name.map_or(old.name, Into::into),
            capabilities: given.capabilities.map_or(old.capabilities, names),
            slots: given.max_concurrent_tasks.unwrap_or(old.slots),
            configuration,
            resource_limits: limits.unwrap_or(old.resource_limits),
            tags: given.tags.map_or(old.tags, names),
            silence_ms: silence_ms.or(old.silence_ms),
            ..old
        };
        self.register(Arc::new(spec)).await?;
        let answer = self.agent(id).await?;
        let message = "agent changed".to_owned();
        Ok(AgentEnvelope { message, warnings, ..answer })
    }

    fn patience(&self, given: &amend::TaskPatch<'_>) -> Result<Patience, ApiError> {
        let ms = |bound: amend::Bound<u64>| core_bound(bound.map(|seconds| seconds * 1_000));
        let deadline = match given.deadline {
            Some(amend::Bound::Set(at)) => Some(Bound::Set(self.inner.planning.deadline(at)?)),
            Some(amend::Bound::Lifted) => Some(Bound::Lifted),
            None => None,
        };
        Ok(Patience {
            deadline,
            queue_timeout_ms: given.queue_timeout_seconds.map(ms),
            no_progress_ms: given.no_progress_seconds.map(ms),
        })
    }

    async fn keep_object(&self, object: Option<&RawValue>) -> Result<Option<Payload>, ApiError> {
        let Some(object) = object else { return Ok(None) };
        let document = object.get().as_bytes().to_vec();
        let kept = self.inner.payloads.keep(document).await;
        kept.map(Some).map_err(|why| self.storage(&why))
    }

    /// Other parameters must be for the same action, and rest on the same results.
    async fn check_parameters(
        &self,
        record: &TaskRecord,
        parameters: &RawValue,
    ) -> Result<(), ApiError> {
        let bytes = self.inner.payloads.bytes(&record.spec.parameters).await;
        let before: Value = serde_json::from_slice(&bytes.map_err(|why| self.storage(&why))?)
            .map_err(|why| faults::internal(&why))?;
        let after: Value =
            serde_json::from_str(parameters.get()).map_err(|why| faults::internal(&why))?;
        let fault = |what: String| {
            let fields = serde_json::json!({ "parameters": what });
            let message = format!("`parameters` {what}");
            ApiError::new(ErrorCode::ValidationFailed, message).with("fields", fields)
        };
        if before.get("action") != after.get("action") {
            let what = "cannot have another `action`, which decides who does the task: cancel it \
                        and submit another";
            return Err(fault(what.to_owned()));
        }
        let known: HashSet<&str> =
            record.spec.rare().inputs.iter().map(|input| &*input.key).collect();
        let keys = planner::references(&after).map_err(&fault)?;
        match keys.into_iter().find(|key| !known.contains(key)) {
            Some(key) => Err(fault(format!("cannot refer to `{key}`: it did not when planned"))),
            None => Ok(()),
        }
    }
}

fn core_bound<T>(bound: amend::Bound<T>) -> Bound<T> {
    match bound {
        amend::Bound::Set(bound) => Bound::Set(bound),
        amend::Bound::Lifted => Bound::Lifted,
    }
}
