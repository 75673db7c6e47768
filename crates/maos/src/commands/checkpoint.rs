//! `maos checkpoint`: the state at one moment, and the way back to it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use maos_api::checkpoint::Checkpoint;
use maos_api::client::Client;
use maos_api::error::{ApiError, ErrorCode};
use serde_json::json;
use uuid::Uuid;

use crate::layout::{Screen, few, moment, size};
use crate::remote::Remote;
use crate::words;

/// What the command line said.
#[derive(Args)]
pub(crate) struct CheckpointArguments {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the checkpoints, the oldest first
    List,
    /// Make a checkpoint of everything that was answered before
    Create {
        /// Its name [default: the time]
        name: Option<String>,
    },
    /// Go back to a checkpoint; the state until now becomes one too
    Restore {
        /// The checkpoint's name or id
        name: String,
    },
    /// Delete a checkpoint
    Delete {
        /// The checkpoint's name or id
        name: String,
    },
}

pub(crate) async fn run(arguments: &CheckpointArguments) -> anyhow::Result<ExitCode> {
    let client = arguments.remote.client()?;
    let json = arguments.remote.json;
    match &arguments.command {
        Command::List => list(&client, json).await?,
        Command::Create { name } => create(&client, json, name.as_deref()).await?,
        Command::Restore { name } => restore(&client, json, name).await?,
        Command::Delete { name } => {
            let answer = client.delete_checkpoint(find(&client, name).await?).await?;
            if json {
                words::print_raw(&answer.raw)?;
            } else {
                words::print(&words::harmless(&answer.message))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let all = client.checkpoints().await?;
    if json {
        return Ok(words::print_raw(&all.raw)?);
    }
    if all.items.is_empty() {
        words::say("no checkpoints here\nhint: `maos checkpoint create NAME` makes one");
        return Ok(());
    }
    let row = |held: &Checkpoint| {
        [
            held.id.to_string(),
            held.kind.name().to_owned(),
            moment(held.created_at),
            held.tasks.to_string(),
            size(held.size_bytes),
            words::one_line(&held.name),
        ]
    };
    let rows: Vec<[String; 6]> = all.items.iter().map(row).collect();
    let titles = ["ID", "TYPE", "CREATED", "TASKS", "SIZE", "NAME"];
    Ok(words::print(&Screen::stdout().table(titles, &rows))?)
}

async fn create(client: &Client, json: bool, name: Option<&str>) -> anyhow::Result<()> {
    let body = match name {
        Some(name) => json!({ "name": name }),
        None => json!({}),
    };
    let answer = client.create_checkpoint(&body).await?;
    for warning in &answer.warnings {
        words::say(&format!("warning: {}", words::harmless(warning)));
    }
    if json {
        return Ok(words::print_raw(&answer.raw)?);
    }
    let made = &answer.checkpoint;
    words::print(&made.id.to_string())?;
    words::say(&format!(
        "made `{}` of {} tasks, {}; `maos checkpoint restore {}` goes back to it",
        words::one_line(&made.name),
        made.tasks,
        size(made.size_bytes),
        made.id
    ));
    Ok(())
}

async fn restore(client: &Client, json: bool, name: &str) -> anyhow::Result<()> {
    let id = find(client, name).await?;
    let answer = client.restore_checkpoint(id).await?;
    if json {
        return Ok(words::print_raw(&answer.raw)?);
    }
    let (restored, before) = (&answer.restored, &answer.before);
    words::print(&format!(
        "restored `{}` of {}: {} tasks",
        words::one_line(&restored.name),
        moment(restored.created_at),
        restored.tasks
    ))?;
    words::say(&format!("`maos checkpoint restore {}` goes forward again", before.id));
    Ok(())
}

/// The checkpoint with this id or name. A name that several have is refused: which of them is meant
/// is not for us to guess where the state goes back.
async fn find(client: &Client, name: &str) -> anyhow::Result<Uuid> {
    if let Ok(id) = Uuid::try_parse(name) {
        return Ok(id);
    }
    let all = client.checkpoints().await?;
    let named: Vec<&Checkpoint> = all.items.iter().filter(|held| held.name == name).collect();
    match named.as_slice() {
        [one] => Ok(one.id),
        [] => {
            let message = format!("no checkpoint has the name `{name}`");
            Err(words::api_error(ApiError::new(ErrorCode::CheckpointNotFound, message)))
        }
        [.., last] => {
            let ids: Vec<Uuid> = named.iter().map(|held| held.id).collect();
            let count = named.len();
            anyhow::bail!(
                "{count} checkpoints have the name `{name}`: {}\n\
                 hint: name one by its id; the newest is {}",
                few(&ids),
                last.id
            )
        }
    }
}
