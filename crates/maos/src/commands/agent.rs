//! `maos agent`: who does the work.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use maos_api::agent::{Agent, AgentCreate, AgentRuntime, AgentStatus};
use maos_api::client::Client;
use maos_api::listing::AgentQuery;
use maos_api::task::Page;
use serde_json::Value;
use uuid::Uuid;

use crate::layout::{Fields, Screen, few, indented, moment};
use crate::remote::Remote;
use crate::values::{agent_id, assignment, once, one_of};
use crate::words;

/// What the command line said.
#[derive(Args)]
pub(crate) struct AgentArguments {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the agents
    List(List),
    /// Show an agent
    Get {
        /// The agent's id
        #[arg(value_parser = agent_id)]
        id: Uuid,
    },
    /// Register an agent
    Create(Create),
    /// End an agent's service: it takes nothing new, and what it runs is given to others
    Terminate {
        /// The agent's id
        #[arg(value_parser = agent_id)]
        id: Uuid,
    },
}

/// Which agents, and which part of their list.
#[derive(Args)]
struct List {
    /// Only those that are so; several with commas [default: all that serve]
    #[arg(long, value_delimiter = ',', value_parser = one_of(AgentStatus::ALL, AgentStatus::name))]
    status: Vec<AgentStatus>,
    /// Only those of this kind
    #[arg(long = "type", value_name = "WORD")]
    agent_type: Option<String>,
    /// Only those that can do this; several with commas, or given again
    #[arg(long = "capability", value_name = "NAME", value_delimiter = ',')]
    capabilities: Vec<String>,
    /// Only those with this tag; may be given again
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only those that could take a task now
    #[arg(long)]
    available: bool,
    /// Only those with these words in name, type, capabilities or tags
    #[arg(long, value_name = "WORDS")]
    search: Option<String>,
    /// Which page, from 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    page: Option<u64>,
    /// Agents on a page, 1 to 100
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    page_size: Option<u32>,
}

impl List {
    fn query(&self) -> AgentQuery {
        AgentQuery {
            page: self.page.unwrap_or(1),
            page_size: self.page_size.unwrap_or(Page::<()>::SIZE_DEFAULT),
            statuses: self.status.clone(),
            agent_type: self.agent_type.clone(),
            capabilities: self.capabilities.clone(),
            tags: self.tags.clone(),
            available_only: self.available,
            search: self.search.clone(),
        }
    }
}

/// Runtimes that are there. A server says of `command` and `http` where they are configured.
const OFFERED: [AgentRuntime; 4] =
    [AgentRuntime::Builtin, AgentRuntime::Command, AgentRuntime::Http, AgentRuntime::Worker];

#[derive(Args)]
struct Create {
    /// Your word for its kind
    #[arg(long = "type", value_name = "WORD")]
    agent_type: String,
    /// What it can do; several with commas, or given again
    #[arg(long = "capability", value_name = "NAME", required = true, value_delimiter = ',')]
    capabilities: Vec<String>,
    /// Its name for people
    #[arg(long)]
    name: Option<String>,
    /// What does its work [default: builtin]
    #[arg(
        long,
        value_parser = one_of(OFFERED, AgentRuntime::name)
    )]
    runtime: Option<AgentRuntime>,
    /// Tasks that it runs at once [default: 1]
    #[arg(long, value_name = "N")]
    max_concurrent_tasks: Option<u32>,
    /// A setting for a worker's own program; the value is JSON, or else a string; may be given
    /// again
    #[arg(long = "configuration", value_name = "KEY=VALUE", value_parser = assignment)]
    configuration: Vec<(String, Value)>,
    /// A word to find it by; may be given again
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// A worker: seconds of silence after which it is lost [default: the server's]
    #[arg(long, value_name = "N")]
    heartbeat_timeout: Option<u64>,
}

pub(crate) async fn run(arguments: &AgentArguments) -> anyhow::Result<ExitCode> {
    let client = arguments.remote.client()?;
    let json = arguments.remote.json;
    match &arguments.command {
        Command::List(which) => list(&client, json, &which.query()).await?,
        Command::Get { id } => {
            let answer = client.agent(*id).await?;
            show(&answer.agent, &answer.raw, json)?;
        }
        Command::Create(create) => self::create(&client, json, create).await?,
        Command::Terminate { id } => {
            let answer = client.terminate_agent(*id).await?;
            if json {
                words::print_raw(&answer.raw)?;
            } else {
                words::print(&words::harmless(&answer.message))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, json: bool, query: &AgentQuery) -> anyhow::Result<()> {
    let page = client.agents(query).await?;
    if json {
        return Ok(words::print_raw(&page.raw)?);
    }
    if page.items.is_empty() {
        words::say(&nothing(&page, query));
        return Ok(());
    }
    let screen = Screen::stdout();
    let rows: Vec<[String; 6]> = page
        .items
        .iter()
        .map(|agent| {
            [
                agent.id.to_string(),
                screen.agent_status(agent.status),
                format!("{}/{}", agent.task_queue.len(), agent.max_concurrent_tasks),
                words::one_line(&agent.kind),
                words::one_line(&agent.name),
                words::one_line(&agent.capabilities.join(", ")),
            ]
        })
        .collect();
    let titles = ["ID", "STATUS", "TASKS", "TYPE", "NAME", "CAPABILITIES"];
    words::print(&screen.table(titles, &rows))?;
    super::task::say_page(&page, "agent");
    Ok(())
}

/// Why there is nothing to show, and what would show something.
fn nothing(page: &Page<Agent>, query: &AgentQuery) -> String {
    let all = AgentQuery { page: query.page, page_size: query.page_size, ..AgentQuery::default() };
    super::task::behind_the_last(page).unwrap_or_else(|| match *query == all {
        true => "no agents here\nhint: `maos agent create --type TYPE --capability NAME`".into(),
        false => "no agent matches\nhint: ask for less: `maos agent list` without filters shows \
                  all that serve"
            .into(),
    })
}

async fn create(client: &Client, json: bool, create: &Create) -> anyhow::Result<()> {
    let body = AgentCreate {
        agent_type: create.agent_type.clone(),
        capabilities: create.capabilities.clone(),
        configuration: once(&create.configuration, "--configuration")?,
        max_concurrent_tasks: create.max_concurrent_tasks,
        tags: create.tags.clone(),
        name: create.name.clone(),
        runtime: create.runtime,
        heartbeat_timeout: create.heartbeat_timeout,
        ..AgentCreate::default()
    };
    let answer = client.create_agent(&body).await?;
    for warning in &answer.warnings {
        words::say(&format!("warning: {}", words::harmless(warning)));
    }
    show(&answer.agent, &answer.raw, json)
}

fn show(agent: &Agent, raw: &[u8], json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(words::print_raw(raw)?);
    }
    let (metrics, screen) = (&agent.metrics, Screen::stdout());
    let configuration = agent.configuration.get();
    let configuration = (configuration != "{}").then(|| indented(configuration));
    let limits = agent.resource_limits.iter().map(|(kind, amount)| format!("{kind} {amount}"));
    let fields = Fields::default()
        .with("id", agent.id.to_string())
        .with("name", words::one_line(&agent.name))
        .with("type", words::one_line(&agent.kind))
        .with("runtime", agent.runtime.map(|runtime| runtime.name().to_owned()))
        .with("status", screen.agent_status(agent.status))
        .with("capabilities", few(&agent.capabilities))
        .with("runs", format!("{} of {}", agent.task_queue.len(), agent.max_concurrent_tasks))
        .with("tasks", few(&agent.task_queue))
        .with(
            "so far",
            format!("{} completed, {} failed", metrics.tasks_completed, metrics.tasks_failed),
        )
        .with("limits", few(&limits.collect::<Vec<_>>()))
        .with("tags", few(&agent.tags))
        .with("created", moment(agent.created_at))
        .with("last seen", agent.last_seen.map(moment))
        .with("configuration", configuration.map(|json| words::harmless(&json).into_owned()));
    Ok(words::print(&fields.text())?)
}
