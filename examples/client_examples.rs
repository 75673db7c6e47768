//! What a client does with MAOS, in Rust; all of it runs on a fresh server.
//!
//! ```sh
//! maos serve &
//! cargo run -p maos-api --features client --example client_examples -- --example all
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::process::ExitCode;
use std::time::Duration;

use maos_api::agent::AgentCreate;
use maos_api::client::{Client, ClientError, URL_DEFAULT};
use maos_api::system::ComponentHealth;
use maos_api::task::{Priority, Strategy, TaskSubmission};
use serde_json::{Map, Value, json};

type Done = Result<(), ClientError>;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// Submit a task, and wait for its result.
async fn simple_task(client: &Client) -> Done {
    let task = TaskSubmission {
        name: "Add up sales".to_owned(),
        priority: Some(Priority::High),
        parameters: object(json!({"action": "compute.sum", "values": [120, 80, 42]})),
        tags: vec!["example".to_owned()],
        ..TaskSubmission::default()
    };
    let ended = client.submit_task(&task).await?.wait().await?;
    let result = ended.task.result.as_ref().map_or("none", |result| result.get());
    println!("simple task: {}, the result is {result}", ended.task.status.name());
    Ok(())
}

/// Do the same to many things at once; the result is the list of results, in order.
async fn parallel_workflow(client: &Client) -> Done {
    let task = TaskSubmission {
        name: "Measure each region".to_owned(),
        parameters: object(json!({
            "action": "compute.expression", "expression": "item * item", "items": [1, 2, 3, 4, 5],
        })),
        decomposition_strategy: Some(Strategy::Parallel),
        ..TaskSubmission::default()
    };
    let id = client.submit_task(&task).await?.wait().await?.task.id;
    println!("parallel workflow: {}", client.results(id).await?.results);
    Ok(())
}

/// Stages one after another, with steps of their own.
async fn hierarchical_decomposition(client: &Client) -> Done {
    let does = json!({"action": "noop"});
    let task = TaskSubmission {
        name: "Build a report".to_owned(),
        parameters: object(json!({"stages": [
            {"name": "collect", "parameters": does, "steps": ["sales", "costs"]},
            {"name": "analyse", "parameters": does, "items": ["north", "south", "west"]},
            {"name": "publish", "parameters": does},
        ]})),
        decomposition_strategy: Some(Strategy::Hierarchical),
        ..TaskSubmission::default()
    };
    let ended = client.submit_task(&task).await?.wait().await?;
    let (status, stages) = (ended.task.status.name(), ended.task.subtasks.len());
    println!("hierarchical decomposition: {status}, {stages} stages");
    Ok(())
}

/// Steps that each take the result of the one before, and reserve what they need.
async fn resource_intensive_pipeline(client: &Client) -> Done {
    let task = TaskSubmission {
        name: "Heavy figures".to_owned(),
        parameters: object(json!({"steps": [
            {"name": "load", "parameters": {"action": "noop", "rows": [3, 5, 8, 13]}},
            {"name": "sum", "parameters": {"action": "compute.sum", "values": [3, 5, 8, 13]}},
        ]})),
        resource_requirements: [("cpu_cores".to_owned(), 4.0), ("memory_mb".to_owned(), 4_096.0)]
            .into(),
        timeout_seconds: Some(600),
        decomposition_strategy: Some(Strategy::Pipeline),
        ..TaskSubmission::default()
    };
    let ended = client.submit_task(&task).await?.wait().await?;
    let metrics = client.metrics().await?;
    let cores = metrics.resource_allocator.get("cpu_cores").cloned().unwrap_or_default();
    println!("resource-intensive pipeline: {}, cores: {cores}", ended.task.status.name());
    Ok(())
}

/// Make an agent for one kind of work, give it some, and end it.
async fn specialised_agents(client: &Client) -> Done {
    let agent = AgentCreate {
        agent_type: "calculator".to_owned(),
        capabilities: vec!["computation".to_owned()],
        max_concurrent_tasks: Some(2),
        tags: vec!["example".to_owned()],
        ..AgentCreate::default()
    };
    let made = client.create_agent(&agent).await?;
    let task = TaskSubmission {
        name: "For the calculator".to_owned(),
        parameters: object(json!({"action": "compute.mean", "values": [1, 2, 6]})),
        ..TaskSubmission::default()
    };
    let task = task.with_agent_id(made.agent.id);
    let ended = client.submit_task(&task).await?.wait().await?;
    println!("specialised agents: {} says {}", made.agent.name, ended.task.status.name());
    client.terminate_agent(made.agent.id).await?;
    Ok(())
}

/// Look at health, state and figures.
async fn health_monitoring(client: &Client) -> Done {
    let (health, detailed) = (client.health().await?, client.detailed_health().await?);
    let status = client.status().await?;
    let is_well = |component: &&ComponentHealth| component.healthy;
    let well = detailed.components.values().filter(is_well).count();
    println!("health monitoring: {} {} is well", health.service, health.version);
    println!("  {well} of {} components are well", detailed.components.len());
    println!("  {} tasks, {} agents", status.total_tasks, status.total_agents);
    Ok(())
}

/// Every error says what is wrong and what to do.
async fn error_handling(client: &Client) -> Done {
    let nameless = TaskSubmission::default();
    match client.submit_task(&nameless).await {
        Err(ClientError::Api { status, body, .. }) => {
            println!("error handling: no name: {status}, {}: {}", body.error_code, body.error);
        }
        Err(other) => return Err(other),
        Ok(_) => println!("error handling: a task without a name was accepted"),
    }
    let nobody = TaskSubmission { name: "For nobody".to_owned(), ..TaskSubmission::default() };
    let nobody = nobody.with_required_capabilities(&["nobody_has_this"]);
    let waits = client.submit_task(&nobody).await?;
    let id = waits.task.id;
    if tokio::time::timeout(Duration::from_millis(200), waits.wait()).await.is_err() {
        let why = client.explain(id).await?;
        let blocker = why.blockers.first().map_or("nothing", |blocker| &blocker.message);
        println!("error handling: it waits: {blocker}");
    }
    client.cancel(id, Some("the example is over")).await?;
    Ok(())
}

/// Submit a task as Claude Code does, and look at it.
async fn claude_tasks(client: &Client) -> Done {
    let task = json!({
        "name": "Collect what was found",
        "type": "coordination",
        "priority": "urgent",
        "parameters": {"action": "join.collect", "inputs": ["a", "b"]},
    });
    let accepted = client.submit_claude(&task, None).await?;
    let task = client.claude_task(accepted.claude_task_id, 0).await?;
    client.wait_for(task.maos_task_id).await?;
    let task = client.claude_task(accepted.claude_task_id, 0).await?.value.task;
    println!("claude: {}, tags {:?}", task.status.name(), task.tags);
    Ok(())
}

/// Runs one group of examples, or all.
pub(crate) async fn run(example: &str, base_url: &str) -> Done {
    let client = Client::new(base_url)?;
    let wants = |group: &str| example == "all" || example == group;
    if wants("tasks") {
        simple_task(&client).await?;
        parallel_workflow(&client).await?;
        hierarchical_decomposition(&client).await?;
        resource_intensive_pipeline(&client).await?;
        error_handling(&client).await?;
    }
    if wants("agents") {
        specialised_agents(&client).await?;
        health_monitoring(&client).await?;
    }
    if wants("claude") {
        claude_tasks(&client).await?;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> ExitCode {
    let (mut example, mut base_url) = ("all".to_owned(), URL_DEFAULT.to_owned());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--example", Some(group))
                if ["all", "tasks", "agents", "claude"].contains(&group.as_str()) =>
            {
                example = group;
            }
            ("--base-url", Some(url)) => base_url = url,
            _ => {
                println!("usage: --example all|tasks|agents|claude --base-url URL");
                return ExitCode::from(2);
            }
        }
    }
    match run(&example, &base_url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
