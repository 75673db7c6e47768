//! `maos status`: health, state and figures of a server on one screen.

use std::process::ExitCode;

use clap::Args;
use maos_api::system::{Figures, HealthStatus};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::layout::{Fields, moment, span};
use crate::remote::Remote;
use crate::words;

/// What the command line said.
#[derive(Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// Done also when the server is degraded; failed when it is unhealthy.
pub(crate) async fn run(arguments: &Status) -> anyhow::Result<ExitCode> {
    let client = arguments.remote.client()?;
    let lives = client.health().await?;
    let health = client.detailed_health().await?;
    let status = client.status().await?;
    let metrics = client.metrics().await?;
    if arguments.remote.json {
        let raw = |bytes: &[u8]| serde_json::from_slice::<Box<RawValue>>(bytes);
        let document = std::collections::BTreeMap::from([
            ("health", raw(&health.raw)?),
            ("status", raw(&status.raw)?),
            ("metrics", raw(&metrics.raw)?),
            ("service", raw(&lives.raw)?),
        ]);
        words::print(&serde_json::to_string(&document)?)?;
    } else {
        let unwell = health.components.iter().filter(|(_, component)| !component.healthy);
        let unwell: Vec<String> =
            unwell.map(|(name, component)| format!("{name}: {}", component.status)).collect();
        let [tasks, resources] =
            [task_figures(&metrics.orchestrator), resource_figures(&metrics.resource_allocator)];
        let fields = Fields::default()
            .with("server", format!("{} {} at {}", lives.service, lives.version, client.url()))
            .with("health", health.status.name().to_owned())
            .with("unwell", words::harmless(&unwell.join("\n")).into_owned())
            .with("takes tasks", (if status.running { "yes" } else { "no" }).to_owned())
            .with(
                "up",
                format!("{}, since {}", span(status.uptime_seconds), moment(status.startup_time)),
            )
            .with("running now", counted(status.active_executions, "attempt"))
            .with("plans", format!("{} accepted so far", status.execution_plans))
            .with("tasks", format!("{} known{tasks}", status.total_tasks))
            .with("agents", agent_figures(status.total_agents, &metrics.agent_manager))
            .with("resources", resources);
        words::print(&fields.text())?;
    }
    Ok(match health.status {
        HealthStatus::Healthy | HealthStatus::Degraded => ExitCode::SUCCESS,
        HealthStatus::Unhealthy => ExitCode::from(1),
    })
}

fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

fn figure(figures: &Figures, name: &str) -> Option<u64> {
    figures.get(name).and_then(Value::as_u64)
}

fn task_figures(figures: &Figures) -> String {
    let names = [
        ("tasks_submitted", "submitted"),
        ("tasks_completed", "completed"),
        ("tasks_failed", "failed"),
        ("tasks_cancelled", "cancelled"),
        ("tasks_retried", "retried"),
    ];
    let known = names
        .iter()
        .filter_map(|(name, word)| figure(figures, name).map(|count| format!("{count} {word}")));
    let known = known.collect::<Vec<_>>().join(", ");
    if known.is_empty() { known } else { format!("; so far {known}") }
}

fn agent_figures(total: u64, figures: &Figures) -> String {
    let mut text = format!("{total} serving");
    for (name, word) in [("active_agents", "active"), ("idle_agents", "idle")] {
        if let Some(count) = figure(figures, name) {
            text.push_str(&format!(", {count} {word}"));
        }
    }
    text
}

/// What of each kind is taken; a kind without a bound is left out.
fn resource_figures(figures: &Figures) -> String {
    let lines = figures.iter().filter_map(|(kind, figures)| {
        let amount = |name: &str| figures.get(name).and_then(Value::as_f64);
        let (capacity, allocated) = (amount("capacity")?, amount("allocated")?);
        Some(format!("{kind}: {allocated} of {capacity} taken"))
    });
    words::harmless(&lines.collect::<Vec<_>>().join("\n")).into_owned()
}
