//! A task, and why it waits, for people.

use maos_api::explain::Explanation;
use maos_api::task::Task;

use crate::layout::{Fields, Screen, few, moment};
use crate::{waiting, words};

pub(super) fn task(task: &Task, raw: &[u8], json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(words::print_raw(raw)?);
    }
    Ok(words::print(&fields(task, Screen::stdout()))?)
}

fn fields(task: &Task, screen: Screen) -> String {
    let needs = task.resource_requirements.iter().map(|(kind, amount)| format!("{kind} {amount}"));
    let waits: Vec<_> = task.dependencies.iter().map(|dependency| dependency.task_id).collect();
    let tried =
        format!("{}, {} of {} retries used", task.attempt, task.retry_count, task.max_retries);
    let took = task.started_at.zip(task.completed_at).map(|(from, to)| {
        let milliseconds = to.0.saturating_sub(from.0) / 1_000;
        format!("{}.{:03} s", milliseconds / 1_000, milliseconds % 1_000)
    });
    let error = task.error.as_deref().map(|error| words::harmless(error).into_owned());
    let payload = |json: &str| Some(json).filter(|json| *json != "{}").map(|j| screen.excerpt(j));
    Fields::default()
        .with("id", task.id.to_string())
        .with("name", words::one_line(&task.name))
        .with("description", task.description.as_deref().map(|d| words::harmless(d).into_owned()))
        .with("status", screen.task_status(task.status))
        .with("error", error)
        .with("priority", task.priority.name().to_owned())
        .with("agent", task.agent_id.map(|id| id.to_string()))
        .with("attempt", (task.attempt > 0).then_some(tried))
        .with("created", moment(task.created_at))
        .with("started", task.started_at.map(moment))
        .with("ended", task.completed_at.map(moment))
        .with("took", took)
        .with("timeout", format!("{} s", task.timeout_seconds))
        .with("needs", few(&needs.collect::<Vec<_>>()))
        .with("tags", few(&task.tags))
        .with("key", task.key.as_deref().map(words::one_line))
        .with("parent", task.parent_task_id.map(|id| id.to_string()))
        .with("waits for", few(&waits))
        .with("subtasks", few(&task.subtasks))
        .with("parameters", payload(task.parameters.get()))
        .with("result", task.result.as_deref().map(|result| screen.excerpt(result.get())))
        .text()
}

pub(super) fn explanation(explanation: &Explanation, raw: &[u8], json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(words::print_raw(raw)?);
    }
    let status = Screen::stdout().task_status(explanation.status);
    let mut text = format!("{status}: ");
    let is_free = explanation.blockers.is_empty();
    text.push_str(match (explanation.waiting, explanation.status.is_terminal(), is_free) {
        (true, _, _) => "it waits for",
        (false, true, true) => "it has ended and waits for nothing",
        (false, true, false) => "it has ended; what is left of it is on its way out",
        (false, false, _) => "it waits for nothing",
    });
    text.push_str(&waiting::listed(&explanation.blockers));
    Ok(words::print(&text)?)
}
