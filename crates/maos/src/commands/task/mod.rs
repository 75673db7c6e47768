//! `maos task`: what is to be done.

mod artifacts;
mod list;
mod logs;
mod show;
mod submit;
mod watch;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use maos_api::task::Page;
use uuid::Uuid;

use crate::layout::indented;
use crate::remote::Remote;
use crate::values::task_id;
use crate::words;

/// What the command line said.
#[derive(Args)]
pub(crate) struct TaskArguments {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Submit a task, or a file of them
    Submit(Box<submit::Submit>),
    /// Show a task
    Get {
        /// The task's id
        #[arg(value_parser = task_id)]
        id: Uuid,
    },
    /// List the tasks, the newest first
    List(Box<list::List>),
    /// Cancel a task and all below it
    Cancel {
        /// The task's id
        #[arg(value_parser = task_id)]
        id: Uuid,
        /// Why, for whoever asks later
        #[arg(long)]
        reason: Option<String>,
    },
    /// Run a failed or cancelled task again, under the same id
    Retry {
        /// The task's id
        #[arg(value_parser = task_id)]
        id: Uuid,
    },
    /// Say what a task waits for, since when, who holds it, and what would let it go on
    Why {
        /// The task's id
        #[arg(value_parser = task_id)]
        id: Uuid,
    },
    /// Follow a task and its subtasks to its end; exit 0 if it completes, else 1
    Watch {
        /// The task's id
        #[arg(value_parser = task_id)]
        id: Uuid,
    },
    /// Print what the attempts of a task have to say, each line with its time
    Logs(logs::Logs),
    /// List the files that are kept with a task, or fetch one
    Artifacts(artifacts::Artifacts),
    /// Print what a completed task made
    Results {
        /// The task's id
        #[arg(value_parser = task_id)]
        id: Uuid,
    },
}

pub(crate) async fn run(arguments: &TaskArguments) -> anyhow::Result<ExitCode> {
    let client = arguments.remote.client()?;
    let json = arguments.remote.json;
    match &arguments.command {
        Command::Submit(submit) => return submit::run(&client, json, submit).await,
        Command::Watch { id } => return watch::run(&client, json, *id).await,
        Command::Artifacts(wanted) => artifacts::run(&client, json, wanted).await?,
        Command::Logs(wanted) => logs::run(&client, json, wanted).await?,
        Command::Get { id } => {
            let answer = client.task(*id, 0).await?;
            show::task(&answer.task, &answer.raw, json)?;
        }
        Command::List(wanted) => list::run(&client, json, wanted).await?,
        Command::Cancel { id, reason } => {
            let answer = client.cancel(*id, reason.as_deref()).await?;
            message(&answer.message, &answer.raw, json)?;
        }
        Command::Retry { id } => {
            let answer = client.retry(*id).await?;
            message(&answer.message, &answer.raw, json)?;
        }
        Command::Why { id } => {
            let answer = client.explain(*id).await?;
            show::explanation(&answer, &answer.raw, json)?;
        }
        Command::Results { id } => {
            let answer = client.results(*id).await?;
            if json {
                words::print_raw(&answer.raw)?;
            } else {
                results(answer.results.get())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says which part of a listing is shown, if it is not all of it.
pub(crate) fn say_page<T>(page: &Page<T>, thing: &str) {
    if page.total_pages > 1 {
        let more = if page.total_is_exact { "" } else { "more than " };
        let Page { page, total_pages, total_items, .. } = page;
        words::say(&format!(
            "page {page} of {more}{total_pages}, {more}{total_items} {thing}s: --page shows another"
        ));
    }
}

/// What to say of a page that is behind the last one; `None` if it is not.
pub(crate) fn behind_the_last<T>(page: &Page<T>) -> Option<String> {
    let Page { page, total_pages: last, .. } = page;
    (*last > 0 && page > last)
        .then(|| format!("there is no page {page}\nhint: --page {last} shows the last one"))
}

fn message(message: &str, raw: &[u8], json: bool) -> anyhow::Result<()> {
    Ok(if json { words::print_raw(raw) } else { words::print(&words::harmless(message)) }?)
}

/// Prints a result; one that is text as that text, so that it can go to a file.
pub(crate) fn results(results: &str) -> anyhow::Result<()> {
    let text = match maos_api::document::text(results) {
        Some(text) => text.strip_suffix('\n').unwrap_or(&text).to_owned(),
        None => indented(results),
    };
    // A file gets it as it is.
    let for_people = std::io::stdout().is_terminal();
    Ok(if for_people { words::print(&words::harmless(&text)) } else { words::print(&text) }?)
}
