//! `maos task watch`: a task and its direct subtasks, followed to the task's end.
//!
//! The server holds each request until the task ends or the wait is over, so nothing is asked in
//! vain more often than the picture needs.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use maos_api::client::{Answer, Client, WAIT_SECONDS_MAX};
use maos_api::task::{Task, TaskEnvelope, TaskStatus};
use uuid::Uuid;

use crate::layout::Screen;
use crate::waiting::{self, Told};
use crate::words;

/// Shortest wait for a task that waits or has subtasks, whose changes nobody announces.
const WAIT_SECONDS_MIN: u64 = 2;
/// So many subtasks that have not ended make the wait a second longer.
const SUBTASKS_PER_SECOND: usize = 50;

pub(super) async fn run(client: &Client, json: bool, id: Uuid) -> anyhow::Result<ExitCode> {
    // With --json only the end is data.
    let mut say = |line: String| {
        if json {
            words::say(&line);
            return Ok(());
        }
        words::print(&line)
    };
    let ended = to_its_end(client, id, &mut say).await?;
    if json {
        words::print_raw(&ended.raw)?;
    }
    Ok(exit_code(ended.task.status))
}

/// How a command ends that waited for a task.
pub(super) fn exit_code(status: TaskStatus) -> ExitCode {
    if status == TaskStatus::Completed { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Waits for a task's end and hands `say` a line for every change until then.
pub(super) async fn to_its_end(
    client: &Client,
    id: Uuid,
    say: &mut dyn FnMut(String) -> std::io::Result<()>,
) -> anyhow::Result<Answer<TaskEnvelope>> {
    let (mut seen, mut told) = (BTreeMap::new(), Told::default());
    let (mut wait_seconds, mut stands_since) = (0, Instant::now());
    loop {
        let before = seen.clone();
        let answer = client.task(id, wait_seconds).await?;
        let task = &answer.task;
        let ended = task.status.is_terminal();
        if !ended {
            tell(&mut seen, task, "", say)?;
        }
        let mut open = 0;
        for subtask in &task.subtasks {
            if seen.get(subtask).is_some_and(|status: &TaskStatus| status.is_terminal()) {
                continue;
            }
            let subtask = client.task(*subtask, 0).await?;
            open += usize::from(!subtask.task.status.is_terminal());
            tell(&mut seen, &subtask.task, "  ", say)?;
        }
        if ended {
            tell(&mut seen, task, "", say)?;
            return Ok(answer);
        }
        if seen != before {
            stands_since = Instant::now();
        } else if stands_since.elapsed() >= waiting::PATIENCE {
            let explain = async |id| client.explain(id).await.ok().map(|answer| answer.value);
            if let Some(reason) = waiting::origin(id, explain).await
                && let Some(news) = told.news(id, &reason)
            {
                words::say(&news);
            }
        }
        wait_seconds = wait(task, open);
    }
}

fn wait(task: &Task, open: usize) -> u64 {
    if task.subtasks.is_empty() && task.status == TaskStatus::Running {
        return WAIT_SECONDS_MAX;
    }
    let longer = u64::try_from(open / SUBTASKS_PER_SECOND).unwrap_or(WAIT_SECONDS_MAX);
    (WAIT_SECONDS_MIN + longer).min(WAIT_SECONDS_MAX)
}

/// Says where a task stands if that is new. That a subtask waits for its turn is not worth a line.
fn tell(
    seen: &mut BTreeMap<Uuid, TaskStatus>,
    task: &Task,
    indent: &str,
    say: &mut dyn FnMut(String) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let before = seen.insert(task.id, task.status);
    let waits = matches!(task.status, TaskStatus::Pending | TaskStatus::Ready);
    let unworthy = before.is_none() && waits && !indent.is_empty();
    if before == Some(task.status) || unworthy {
        return Ok(());
    }
    say(format!("{indent}{}", line(task)))
}

/// A task's name, where it stands, and what went wrong if something did.
fn line(task: &Task) -> String {
    let status = Screen::stdout().task_status(task.status);
    let pad = " ".repeat(9_usize.saturating_sub(task.status.name().len()));
    let name = words::one_line(&task.name);
    let unwell =
        matches!(task.status, TaskStatus::Failed | TaskStatus::Cancelled | TaskStatus::Retrying);
    match task.error.as_deref().filter(|_| unwell) {
        Some(error) => format!("{status}{pad} {name}: {}", words::one_line(error)),
        None => format!("{status}{pad} {name}"),
    }
}
