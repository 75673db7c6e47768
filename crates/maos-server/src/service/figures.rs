//! Health, status and metrics: how the server is, in the contract's words.

use std::collections::BTreeMap;

use maos_api::error::ApiError;
use maos_api::system::{
    COMPONENTS, ComponentHealth, DetailedHealth, Figures as WireFigures, Health, HealthStatus,
    SystemMetrics, SystemStatus,
};
use maos_core::node::{Answer, Figures, Query};
use serde_json::{Map, Value, json};

use super::tasks::blocking;
use super::{Service, faults, now, present};
use crate::messages::Count;
use crate::store::StoreError;

/// How fast rows change, since this service was started.
#[derive(Debug, Default)]
pub(super) struct RowCounts {
    /// Groups that became durable together.
    pub(super) groups: Count,
    /// Tasks whose row changed with them.
    pub(super) rows: Count,
}

impl Service {
    /// Whether the server is there at all. Never asks the engine.
    #[must_use]
    pub fn health(&self) -> Health {
        Health {
            status: HealthStatus::Healthy,
            timestamp: now(),
            service: "maos".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.inner.reign.seconds(),
        }
    }

    /// How every part is. Told even when the engine does not answer.
    pub async fn detailed_health(&self) -> DetailedHealth {
        let patience = std::time::Duration::from_secs(2);
        let figures = tokio::time::timeout(patience, self.figures()).await;
        let figures = figures.ok().and_then(Result::ok);
        let components: BTreeMap<String, ComponentHealth> = COMPONENTS
            .into_iter()
            .map(|name| (name.to_owned(), self.component(name, figures.is_some())))
            .collect();
        let status = match components.values().filter(|part| !part.healthy).count() {
            0 => HealthStatus::Healthy,
            _ if figures.is_none() || self.stopping() => HealthStatus::Unhealthy,
            _ => HealthStatus::Degraded,
        };
        DetailedHealth {
            status,
            timestamp: now(),
            uptime_seconds: self.inner.reign.seconds(),
            active_executions: figures.map_or(0, |figures| figures.held),
            components,
        }
    }

    /// How one of [`COMPONENTS`] is, by whether it can do its own part.
    fn component(&self, name: &str, engine_answers: bool) -> ComponentHealth {
        let inner = &self.inner;
        let engine = || match engine_answers {
            true => Ok(()),
            false => Err(match inner.driver.journal_fault() {
                Some(cause) => format!("the journal cannot be written: {cause}"),
                None => "the engine does not answer".to_owned(),
            }),
        };
        let state = match name {
            _ if self.stopping() => Err("shutting down".to_owned()),
            // Who plans needs nobody.
            "task_planner" => Ok(()),
            "agent_manager" => engine().and_then(|()| inner.supervisor.health()),
            "state_manager" => {
                engine().and_then(|()| inner.store.health()).and_then(|()| inner.logs.health())
            }
            "message_bus" => inner.bus.health().and_then(|()| inner.subscriptions.health()),
            _ => engine(),
        };
        // A target that is away is no fault of this server's, but whoever looks should see it.
        let away = match name {
            "agent_manager" => ("http_agents_away", inner.http_agents.all_out_of_reach()),
            "message_bus" => ("subscriptions_away", inner.subscriptions.all_out_of_reach()),
            _ => ("", Map::new()),
        };
        let more = match away {
            (_, away) if away.is_empty() => Map::new(),
            (what, away) => Map::from_iter([(what.to_owned(), away.into())]),
        };
        let healthy = state.is_ok();
        let status = state.err().unwrap_or_else(|| "running".to_owned());
        ComponentHealth { healthy, status, more }
    }

    /// `GET /system/status`.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn status(&self) -> Result<SystemStatus, ApiError> {
        let figures = self.figures().await?;
        let store = self.inner.store.clone();
        let gone = blocking(move || store.gone()).await;
        let (tasks_gone, plans_gone) = gone.map_err(|why| self.storage(&why))?;
        let counters = &figures.counters;
        let health = self.detailed_health().await;
        let components = health.components.into_iter().map(|(name, part)| (name, part.status));
        Ok(SystemStatus {
            running: !self.stopping(),
            uptime_seconds: self.inner.reign.seconds(),
            startup_time: self.inner.reign.started_at,
            components: components.collect(),
            active_executions: figures.held,
            // What goes between the two looks is in neither: the engine is asked first.
            execution_plans: counters.plans_created.saturating_sub(plans_gone),
            total_tasks: counters.tasks_submitted.saturating_sub(tasks_gone),
            total_agents: figures.agents.0,
            total_resources: figures.pools.len() as u64,
        })
    }

    /// `GET /system/metrics`.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn metrics(&self) -> Result<SystemMetrics, ApiError> {
        let figures = self.figures().await?;
        let counters = figures.counters;
        Ok(SystemMetrics {
            orchestrator: table(json!({
                "tasks_submitted": counters.tasks_submitted,
                "tasks_completed": counters.tasks_completed,
                "tasks_failed": counters.tasks_failed,
                "tasks_cancelled": counters.tasks_cancelled,
                "tasks_retried": counters.tasks_retried,
                "agents_created": counters.agents_created,
                "tasks_live": figures.live,
                "tasks_ready": figures.ready,
                "active_executions": figures.held,
                "attempts_started": counters.attempts_started,
                "attempts_lost": counters.attempts_lost,
            })),
            task_planner: table(json!({
                "plans_created": counters.plans_created,
                "tasks_planned": counters.tasks_submitted,
            })),
            agent_manager: table(json!({
                "total_agents": figures.agents.0,
                "active_agents": figures.agents.1,
                "idle_agents": figures.agents.0 - figures.agents.1,
            })),
            resource_allocator: resources(&figures),
            state_manager: self.state_figures(&figures).await?,
            message_bus: self.bus_figures().await?,
            timestamp: now(),
        })
    }

    /// Sizes and rates of what keeps the state.
    async fn state_figures(&self, figures: &Figures) -> Result<WireFigures, ApiError> {
        let (store, logs) = (self.inner.store.clone(), self.inner.logs.clone());
        let checkpoints = self.inner.checkpoints.clone();
        let read = blocking(move || {
            let read = (store.counts()?, store.gone()?.0, store.file_bytes(), checkpoints.list()?);
            Ok::<_, StoreError>((read, logs.totals()))
        });
        let (read, logs) = read.await.map_err(|why| self.storage(&why))?;
        let (counts, gone, bytes, checkpoints) = read;
        let logs = logs.map_err(|why| self.storage(&why))?;
        let (backlog, rows) = (self.inner.store.backlog(), &self.inner.rows);
        let mut figures = table(json!({
            "tasks_in_memory": figures.in_memory,
            "tasks_stored": counts.iter().map(|(_, tasks)| tasks).sum::<u64>(),
            "tasks_removed": gone,
            "journal_sequence": figures.durable.0,
            "journal_commits": rows.groups.all(),
            "journal_commits_per_second": rows.groups.per_second(),
            "rows_changed": rows.rows.all(),
            "rows_changed_per_second": rows.rows.per_second(),
            "store_bytes": bytes,
            "store_backlog_rows": backlog.rows,
            "store_backlog_bytes": backlog.bytes,
            "checkpoints": checkpoints.len(),
            "checkpoint_bytes": checkpoints.iter().map(|made| made.size_bytes).sum::<u64>(),
            "log_lines": logs.entries,
            "log_bytes": logs.bytes,
        }));
        let named = |(status, tasks): (&str, u64)| (format!("tasks_{status}"), tasks.into());
        figures.extend(counts.into_iter().map(named));
        Ok(figures)
    }

    async fn bus_figures(&self) -> Result<WireFigures, ApiError> {
        let mut figures = table(self.inner.bus.figures().await?);
        let (subscriptions, delivered, failed) = self.inner.subscriptions.counts();
        figures.insert("subscriptions".to_owned(), subscriptions.into());
        figures.insert("webhooks_delivered".to_owned(), delivered.into());
        figures.insert("webhook_tries_failed".to_owned(), failed.into());
        Ok(figures)
    }

    pub(super) async fn figures(&self) -> Result<Box<Figures>, ApiError> {
        match self.ask(Query::Figures).await? {
            Answer::Figures(figures) => Ok(figures),
            _ => Err(faults::internal(&"figures were something else")),
        }
    }
}

fn resources(figures: &Figures) -> WireFigures {
    let pool = |(kind, capacity, allocated): &(Box<str>, Option<u64>, u64)| {
        let free = capacity.map(|capacity| present::milli(capacity.saturating_sub(*allocated)));
        let figures = json!({
            "capacity": capacity.map(present::milli),
            "allocated": present::milli(*allocated),
            "available": free,
        });
        (kind.to_string(), figures)
    };
    figures.pools.iter().map(pool).collect()
}

fn table(value: Value) -> WireFigures {
    match value {
        Value::Object(map) => map.into_iter().collect(),
        _ => WireFigures::new(),
    }
}
