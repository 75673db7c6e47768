//! What happened to a task, out of its record: also of one that ended long ago.

use std::time::Duration;

use maos_api::error::ApiError;
use maos_api::history::{Happening, HappeningKind, TaskHistory};
use maos_api::time::UtcTime;
use maos_core::event::Failure;
use maos_core::ids::{AgentId, Attempt, TaskId};
use maos_core::record::{PastAttempt, Stage, TaskRecord};
use maos_core::time::WallTime;
use uuid::Uuid;

use super::{Service, present};

impl Service {
    /// What happened to a task.
    ///
    /// # Errors
    /// That there is no such task.
    pub async fn history(&self, id: Uuid) -> Result<TaskHistory, ApiError> {
        let record = self.record(TaskId(id.as_u128()), Duration::ZERO).await?;
        Ok(history(&record))
    }
}

fn history(record: &TaskRecord) -> TaskHistory {
    let times = &record.times;
    let mut items = vec![at(times.created, HappeningKind::Created)];
    // A task with subtasks starts with the first of them, once.
    if let (Some(started), None) = (times.started, record.ran_by) {
        items.push(at(started, HappeningKind::Started));
    }
    let mut begun = Attempt(0);
    for past in record.ends() {
        let last = LastAttempt { number: past.attempt, agent: past.agent, started: past.started };
        items.extend(attempts(record, begun, &last));
        items.push(end(past.ended, &past.stage));
        items.push(at(past.reopened, HappeningKind::Retried));
        begun = past.attempt;
    }
    items.extend(times.ready.map(|ready| at(ready, HappeningKind::Ready)));
    let last = LastAttempt { number: record.attempt, agent: record.ran_by, started: times.started };
    items.extend(attempts(record, begun, &last));
    for artifact in record.artifacts() {
        let message = Some(artifact.name.to_string());
        items.push(Happening { message, ..at(artifact.kept, HappeningKind::ArtifactKept) });
    }
    if let Some(ended) = times.ended {
        items.push(end(ended, &record.stage));
    }
    // Stable: what happened at the same time stays in the order of a task's life.
    items.sort_by_key(|item| item.at);
    let started =
        |item: &&Happening| item.event == HappeningKind::Started && item.attempt.is_some();
    let told = u32::try_from(items.iter().filter(started).count()).unwrap_or(u32::MAX);
    TaskHistory {
        task_id: present::uuid(record.id),
        status: present::status(&record.stage),
        items,
        attempts_omitted: record.attempt.0.saturating_sub(told),
    }
}

/// The last attempt before an end, or until now.
struct LastAttempt {
    number: Attempt,
    agent: Option<AgentId>,
    started: Option<WallTime>,
}

/// What is known of the attempts behind `after` up to the last one.
fn attempts(record: &TaskRecord, after: Attempt, last: &LastAttempt) -> Vec<Happening> {
    let mut items = vec![];
    let those = |past: &&PastAttempt| after < past.attempt && past.attempt <= last.number;
    for past in record.past().iter().filter(those) {
        items.push(of_attempt(past.started, HappeningKind::Started, past.attempt, past.agent));
        items.push(failed(past));
    }
    // One that has a result, was cancelled or runs is not among the unsuccessful ones.
    let told = record.past().iter().any(|past| past.attempt == last.number);
    if let (Some(agent), Some(started)) = (last.agent, last.started)
        && last.number > after
        && !told
    {
        items.push(of_attempt(started, HappeningKind::Started, last.number, agent));
    }
    items
}

fn at(time: WallTime, event: HappeningKind) -> Happening {
    let at = UtcTime(time.0);
    Happening { at, event, attempt: None, agent_id: None, message: None, failure_kind: None }
}

fn of_attempt(time: WallTime, event: HappeningKind, attempt: Attempt, agent: AgentId) -> Happening {
    let agent_id = Some(Uuid::from_u128(agent.0));
    Happening { attempt: Some(attempt.0), agent_id, ..at(time, event) }
}

fn failed(past: &PastAttempt) -> Happening {
    let attempt = of_attempt(past.ended, HappeningKind::AttemptFailed, past.attempt, past.agent);
    because(attempt, &past.failure)
}

fn because(happening: Happening, failure: &Failure) -> Happening {
    let (message, kind) = (failure.message.to_string(), failure.kind.name().to_owned());
    Happening { message: Some(message), failure_kind: Some(kind), ..happening }
}

fn end(ended: WallTime, stage: &Stage) -> Happening {
    match stage {
        Stage::Failed(failure) => because(at(ended, HappeningKind::Failed), failure),
        Stage::Cancelled { reason } => {
            let message = Some(reason.to_string());
            Happening { message, ..at(ended, HappeningKind::Cancelled) }
        }
        Stage::Waiting
        | Stage::Parked { .. }
        | Stage::Ready { .. }
        | Stage::Backoff { .. }
        | Stage::Running { .. }
        | Stage::Active
        | Stage::Completed(_)
        | Stage::Collected => at(ended, HappeningKind::Completed),
    }
}
