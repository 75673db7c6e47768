//! `maos watch`: what a server does, as it happens.
//!
//! On a terminal a picture that is drawn anew: figures, rates, agents and the last events, as much
//! of each as there are lines for. Without one a line for each event. It goes on until it is ended.

use std::collections::{HashSet, VecDeque};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use console::Term;
use maos_api::agent::{Agent, AgentStatus};
use maos_api::client::Client;
use maos_api::events::{AgentState, Event, EventFilter};
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
        } else if for_people(&event) {
            words::print(&line(&event, Screen::stdout()))?;
        }
    }
}

/// Whether it says more to people than the events of tasks beside it: what an agent holds comes
/// and goes with each of them.
fn for_people(event: &Event) -> bool {
    let Event::Agent(event) = event else { return true };
    !matches!(event.state, AgentState::Idle | AgentState::Busy | AgentState::Overloaded)
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
                recent.extend(Some(event?.1).filter(for_people));
                if recent.len() > EVENTS_MAX {
                    recent.pop_front();
                }
                // What happens brings the next picture nearer, but not nearer than its pause.
                due = due.min(Moment::now() + DRAW_EVERY);
                continue;
            }
        }
        due = Moment::now() + REST;
        let (rows, columns) = term.size();
        let lines_max = usize::from(rows).saturating_sub(1);
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
                .text(Screen::stdout(), lines_max);
                before = Some(now);
                text
            }
            Err(fault) => format!("{fault}; trying on until it does"),
        };
        let shown: Vec<&str> = text.lines().take(lines_max).collect();
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
    let mut agents = client.agents(&AgentQuery { page_size, ..whole.clone() }).await?.value;
    if agents.has_next {
        // Who works may be on any page.
        let statuses = vec![AgentStatus::Busy, AgentStatus::Overloaded];
        let busy = AgentQuery { page_size, statuses, ..whole };
        agents.items.extend(client.agents(&busy).await?.value.items);
    }
    agents.items = busy_first(agents.items);
    Ok((status, Sample { at: Instant::now(), metrics }, agents))
}

/// Each agent once, those that work before all others; else nobody changes places.
fn busy_first(mut agents: Vec<Agent>) -> Vec<Agent> {
    let mut seen = HashSet::new();
    agents.retain(|agent| seen.insert(agent.id));
    agents.sort_by_key(|agent| agent.task_queue.is_empty());
    agents.truncate(AGENTS_MAX);
    agents
}

impl Picture<'_> {
    /// The picture in so many lines: the first agents and the last events that there is room for.
    fn text(&self, screen: Screen, lines_max: usize) -> String {
        let head = self.head();
        // A blank line each, the titles, and how many agents there are more.
        let room = lines_max.saturating_sub(head.lines().count() + 4);
        let events_count = self.events.len().min(room - self.agents.len().min(room.div_ceil(2)));
        let agents_count = self.agents.len().min(room - events_count);
        let agents = self.agents.iter().take(agents_count);
        let rows: Vec<[String; 4]> = agents.map(|agent| row(agent, screen)).collect();
        let table = screen.table(["AGENT", "STATUS", "RUNS", "DONE"], &rows);
        let mut text = format!("{head}\n\n{table}\n");
        let more = self.agents_count.saturating_sub(rows.len() as u64);
        if more > 0 {
            text.push_str(&format!("and {more} more\n"));
        }
        for event in self.events.iter().skip(self.events.len() - events_count) {
            text.push_str(&format!("\n{}", line(event, screen)));
        }
        text
    }

    fn head(&self) -> String {
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
        Fields::default()
            .with("server", format!("{}, up {up}", self.url))
            .with("tasks", tasks)
            .with("rates", self.rates())
            .with("agents", format!("{} serving, {active} active, {idle} idle", self.agents_count))
            .text()
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

#[cfg(test)]
mod tests {
    use maos_api::agent::AgentStatus;
    use maos_api::events::AgentEvent;
    use maos_api::time::UtcTime;
    use serde_json::json;

    use super::*;

    fn agent(index: usize) -> Agent {
        serde_json::from_value(
            json!({"id": uuid::Uuid::from_u128(index as u128), "name": format!("agent-{index}"),
            "type": "t", "status": AgentStatus::Idle, "capabilities": [], "current_task_id": null,
            "task_queue": [], "max_concurrent_tasks": 1, "resource_limits": {},
            "configuration": {}, "metadata": {}, "created_at": "2026-01-01T00:00:00Z",
            "started_at": null, "last_seen": null, "tags": [], "health_check_interval": 30,
            "heartbeat_timeout": 90, "metrics": {
                "tasks_completed": 0, "tasks_failed": 0, "total_execution_time": 0.0,
                "average_execution_time": 0.0, "cpu_usage_percent": 0.0, "memory_usage_mb": 0.0,
                "success_rate": 1.0, "last_heartbeat": null, "health_score": 1.0}}),
        )
        .unwrap()
    }

    /// The agents and the events of a picture in `lines_max` lines, and how many lines it has.
    fn check(agents: usize, events: usize, lines_max: usize) -> (Vec<String>, Vec<String>, usize) {
        let status = serde_json::from_value(json!({"running": true, "uptime_seconds": 1,
            "startup_time": "2026-01-01T00:00:00Z", "components": {}, "active_executions": 0,
            "execution_plans": 0, "total_tasks": 0, "total_agents": 0, "total_resources": 0}));
        let metrics = serde_json::from_value(json!({"orchestrator": {}, "task_planner": {},
            "agent_manager": {}, "resource_allocator": {}, "state_manager": {}, "message_bus": {},
            "timestamp": "2026-01-01T00:00:00Z"}));
        let sample = Sample { at: Instant::now(), metrics: metrics.unwrap() };
        let shown: Vec<Agent> = (0..agents.min(AGENTS_MAX)).map(agent).collect();
        let events: VecDeque<Event> =
            (0..events).map(|index| Event::Gap { error: index.to_string() }).collect();
        let text = Picture {
            url: "http://127.0.0.1:8000",
            status: &status.unwrap(),
            now: &sample,
            before: Some(&sample),
            agents: &shown,
            agents_count: agents as u64,
            events: &events,
        }
        .text(Screen::stdout(), lines_max);
        let named = |start: &str| {
            let lines = text.lines().filter(|line| line.starts_with(start));
            lines.map(|line| line.split(' ').next_back().unwrap().to_owned()).collect()
        };
        let agents = text.lines().filter(|line| line.starts_with("agent-")).map(str::to_owned);
        (agents.collect(), named("gap: "), text.lines().count())
    }

    #[test]
    fn what_agents_hold_is_left_to_the_events_of_tasks() {
        let shown = AgentState::ALL.into_iter().filter(|state| {
            let (agent_id, at) = (uuid::Uuid::nil(), UtcTime(0));
            let (name, agent_type) = (String::new(), String::new());
            let state = *state;
            for_people(&Event::Agent(AgentEvent { agent_id, name, agent_type, state, at }))
        });
        let shown: Vec<&str> = shown.map(AgentState::name).collect();
        assert_eq!(shown, ["registered", "online", "terminated", "lost", "retired"]);
    }

    #[test]
    fn who_works_comes_first_and_once() {
        let mut agents: Vec<Agent> = (0..14).map(agent).collect();
        agents[3].task_queue.push(uuid::Uuid::nil());
        agents[13].task_queue.push(uuid::Uuid::nil());
        let again = agents[13].clone();
        let shown = busy_first(agents.into_iter().chain([again]).collect());
        let names: Vec<&str> = shown.iter().map(|agent| agent.name.as_str()).collect();
        assert_eq!(names[..4], ["agent-3", "agent-13", "agent-0", "agent-1"]);
        assert_eq!(names.len(), AGENTS_MAX);
    }

    #[test]
    fn a_small_screen_shows_the_first_agents_and_the_newest_events() {
        let (agents, events, lines) = check(15, 10, 23);
        assert!(agents.len() >= 7 && agents[0].starts_with("agent-0 "), "{agents:?}");
        assert!(events.len() >= 7 && events.last().unwrap() == "9", "{events:?}");
        assert_eq!(lines, 23);
        // Who needs less leaves the room to the others.
        let (agents, events, _) = check(2, 10, 23);
        assert_eq!((agents.len(), events.len()), (2, 10));
        let (agents, events, _) = check(15, 1, 23);
        assert_eq!((agents.len(), &events[..]), (12, &["0".to_owned()][..]));
        let (agents, events, _) = check(15, 10, 60);
        assert_eq!((agents.len(), events.len()), (12, 10));
        // Nothing fits, nothing breaks.
        let (agents, events, _) = check(15, 10, 3);
        assert_eq!((agents.len(), events.len()), (0, 0));
    }
}
