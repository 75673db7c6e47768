//! `maos watch`: what a server does, as it happens.
//!
//! On a terminal a picture that is drawn anew: figures, rates, agents and the last events. Without
//! one a line for each event. It goes on until it is ended.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use console::Term;
use maos_api::agent::Agent;
use maos_api::client::Client;
use maos_api::events::{Event, EventFilter};
use maos_api::listing::AgentQuery;
use maos_api::system::{Figures, SystemMetrics, SystemStatus};
use serde_json::Value;
use tokio::time::{Instant as Moment, sleep_until};

use crate::layout::{Fields, Screen, moment, span};
use crate::remote::Remote;
use crate::words;

/// A picture is drawn at most so often while something happens, and so often while nothing does.
const DRAW_EVERY: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_secs(5);
/// Agents and events that a picture shows at the most.
const AGENTS_MAX: usize = 12;
const EVENTS_MAX: usize = 10;

/// What the command line said.
#[derive(Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) remote: Remote,
}

pub(crate) async fn run(arguments: &Watch) -> anyhow::Result<ExitCode> {
    let client = arguments.remote.client()?;
    // A server that is not there is said at once; one that goes later is waited for.
    client.health().await?;
    if arguments.remote.json || !std::io::stdout().is_terminal() {
        lines(&client, arguments.remote.json).await?;
    } else {
        picture(&client).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn lines(client: &Client, json: bool) -> anyhow::Result<()> {
    let mut events = client.events(&EventFilter::default(), None);
    loop {
        let (_, event) = events.next().await?;
        if json {
            words::print(&serde_json::to_string(&event)?)?;
        } else {
            words::print(&line(&event, Screen::stdout()))?;
        }
    }
}

/// One event for people.
fn line(event: &Event, screen: Screen) -> String {
    match event {
        Event::Task(event) => {
            let kind = event.error_kind.as_deref().map(|kind| format!(": {kind}"));
            let (name, kind) = (words::one_line(&event.name), kind.unwrap_or_default());
            let status = screen.task_status(event.status);
            format!("{} task {} {status} {name}{kind}", moment(event.at), event.task_id)
        }
        Event::Agent(event) => {
            let (name, state) = (words::one_line(&event.name), event.state.name());
            format!("{} agent {} {state} {name}", moment(event.at), event.agent_id)
        }
        Event::Pool(event) => {
            let (pool, reason) = (words::one_line(&event.pool), words::one_line(&event.reason));
            let (from, to) = (event.from, event.to);
            format!("{} pool {pool} from {from} to {to} agents: {reason}", moment(event.at))
        }
        Event::Gap { error } => format!("gap: {}", words::one_line(error)),
    }
}

/// What was counted, and when.
struct Sample {
    at: Instant,
    metrics: SystemMetrics,
}

/// All that a picture shows.
struct Picture<'a> {
    url: &'a str,
    status: &'a SystemStatus,
    now: &'a Sample,
    before: Option<&'a Sample>,
    agents: &'a [Agent],
    agents_count: u64,
    events: &'a VecDeque<Event>,
}

async fn picture(client: &Client) -> anyhow::Result<()> {
    let term = Term::stdout();
    let mut events = client.events(&EventFilter::default(), None);
    let (mut recent, mut before) = (VecDeque::new(), None::<Sample>);
    let (mut drawn, mut due) = (0, Moment::now());
    loop {
        tokio::select! {
            biased;
            () = sleep_until(due) => {}
            event = events.next() => {
                recent.push_back(event?.1);
                if recent.len() > EVENTS_MAX {
                    recent.pop_front();
                }
                // What happens brings the next picture nearer, but not nearer than its pause.
                due = due.min(Moment::now() + DRAW_EVERY);
                continue;
            }
        }
        due = Moment::now() + REST;
        let text = match shot(client).await {
            Ok((status, now, agents)) => {
                let text = Picture {
                    url: client.url(),
                    status: &status,
                    now: &now,
                    before: before.as_ref(),
                    agents: &agents.items,
                    agents_count: agents.total_items,
                    events: &recent,
                }
                .text(Screen::stdout());
                before = Some(now);
                text
            }
            Err(fault) => format!("{fault}; trying on until it does"),
        };
        let (rows, columns) = term.size();
        let shown: Vec<&str> = text.lines().take(usize::from(rows).saturating_sub(1)).collect();
        term.clear_last_lines(drawn)?;
        for line in &shown {
            term.write_line(&console::truncate_str(line, columns.into(), "…"))?;
        }
        drawn = shown.len();
    }
}

async fn shot(
    client: &Client,
) -> Result<(SystemStatus, Sample, maos_api::agent::AgentPage), maos_api::client::ClientError> {
    let status = client.status().await?.value;
    let metrics = client.metrics().await?.value;
    let whole = AgentQuery::default();
    let page_size = u32::try_from(AGENTS_MAX).unwrap_or(whole.page_size);
    let agents = client.agents(&AgentQuery { page_size, ..whole }).await?.value;
    Ok((status, Sample { at: Instant::now(), metrics }, agents))
}

impl Picture<'_> {
    fn text(&self, screen: Screen) -> String {
        let figures = &self.now.metrics.orchestrator;
        let count = |name| figure(figures, name);
        let tasks = format!(
            "{} running, {} ready, {} live, {} completed, {} failed, {} cancelled",
            count("active_executions"),
            count("tasks_ready"),
            count("tasks_live"),
            count("tasks_completed"),
            count("tasks_failed"),
            count("tasks_cancelled"),
        );
        let manager = &self.now.metrics.agent_manager;
        let (active, idle) = (figure(manager, "active_agents"), figure(manager, "idle_agents"));
        let up = span(self.status.uptime_seconds);
        let fields = Fields::default()
            .with("server", format!("{}, up {up}", self.url))
            .with("tasks", tasks)
            .with("rates", self.rates())
            .with("agents", format!("{} serving, {active} active, {idle} idle", self.agents_count));
        let rows: Vec<[String; 4]> = self.agents.iter().map(|agent| row(agent, screen)).collect();
        let table = screen.table(["AGENT", "STATUS", "RUNS", "DONE"], &rows);
        let mut text = format!("{}\n\n{table}\n", fields.text());
        let more = self.agents_count.saturating_sub(rows.len() as u64);
        if more > 0 {
            text.push_str(&format!("and {more} more\n"));
        }
        for event in self.events {
            text.push_str(&format!("\n{}", line(event, screen)));
        }
        text
    }

    /// What happened since the picture before, by the second.
    fn rates(&self) -> Option<String> {
        let before = self.before?;
        let seconds = self.now.at.duration_since(before.at).as_secs_f64().max(0.001);
        let rate = |name: &str| {
            let now = figure(&self.now.metrics.orchestrator, name);
            let gained = now.saturating_sub(figure(&before.metrics.orchestrator, name));
            f64::from(u32::try_from(gained).unwrap_or(u32::MAX)) / seconds
        };
        let [submitted, completed, failed] =
            ["tasks_submitted", "tasks_completed", "tasks_failed"].map(rate);
        Some(format!(
            "{submitted:.1}/s submitted, {completed:.1}/s completed, {failed:.1}/s failed"
        ))
    }
}

fn row(agent: &Agent, screen: Screen) -> [String; 4] {
    let runs = format!("{} of {}", agent.task_queue.len(), agent.max_concurrent_tasks);
    let done = agent.metrics.tasks_completed.to_string();
    [words::one_line(&agent.name), screen.agent_status(agent.status), runs, done]
}

fn figure(figures: &Figures, name: &str) -> u64 {
    figures.get(name).and_then(Value::as_u64).unwrap_or(0)
}
