//! Tasks: submit, look, wait, cancel, retry, explain.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use maos_api::error::{ApiError, ErrorCode};
use maos_api::explain::Explanation;
use maos_api::task::{CancelAnswer, Task, TaskEnvelope, TaskResults, TaskStatus};
use maos_core::command::Command;
use maos_core::ids::TaskId;
use maos_core::node::{Answer, Echo, Query};
use maos_core::outcome::{Outcome, Source};
use maos_core::payload::Payload;
use maos_core::record::{Stage, TaskRecord};
use maos_core::spec::{TraceContext, Work};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::callbacks::Callback;
use super::keyed::ACCEPTED_BEFORE;
use super::planning::Envelope;
use super::{Service, faults, present};
use crate::agents::{Progress, builtin};
use crate::driver::Refused;
use crate::planner;
use crate::store::Pin;
use maos_core::rejection::Rejection;

/// The message of an envelope whose submission was accepted just now, and not before.
const ACCEPTED: &str = "task accepted";

/// The last sign of progress of each running attempt.
pub(super) type ProgressBoard = Arc<Mutex<HashMap<TaskId, Progress>>>;

/// What comes with a submission beside its body.
#[derive(Clone, Debug, Default)]
pub struct SubmitOptions {
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// `traceparent`.
    pub trace: Option<TraceContext>,
}

/// One task of a running plan, for whoever watches it.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Its id.
    pub id: Uuid,
    /// Its parent.
    pub parent: Option<Uuid>,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// How far its attempt has come, if the agent says so.
    pub progress: Option<Progress>,
    /// Why it failed, or what its last attempt failed of.
    pub error: Option<String>,
}

impl Service {
    /// Accepts a submission: durable when this returns.
    ///
    /// # Errors
    /// What is wrong with it, or why it is not taken at the moment.
    pub async fn submit(
        &self,
        body: &[u8],
        options: SubmitOptions,
    ) -> Result<TaskEnvelope, ApiError> {
        self.check_intake()?;
        match self.plan(body, &options) {
            Ok(planned) => Ok(self.accept(planned, None).await?.0),
            Err(refusal) => self.accepted_or(options.key_of_bytes(body), refusal).await,
        }
    }

    /// The same; answers when the task has ended or the wait is over.
    ///
    /// # Errors
    /// As [`Service::submit`].
    pub async fn submit_to_end(
        &self,
        body: &[u8],
        options: SubmitOptions,
        wait: Duration,
    ) -> Result<TaskEnvelope, ApiError> {
        // What was accepted before under this key is known by its answer only.
        if options.idempotency_key.is_some() {
            let accepted = self.submit(body, options).await?;
            let ended = self.task(accepted.task.id, wait).await?;
            return Ok(TaskEnvelope { warnings: accepted.warnings, ..ended });
        }
        self.check_intake()?;
        let planned = self.plan(body, &options)?;
        self.inner.payloads.keep_all(planned.blobs).await.map_err(|why| self.storage(&why))?;
        let (plan, warnings) = (Arc::new(planned.plan), planned.warnings);
        let task = plan.root().id;
        let driver = &self.inner.driver;
        let submit = Command::Submit { plan };
        let mut end = driver.run_to_end(submit).await.map_err(faults::refused)?;
        let answer = tokio::select! {
            biased;
            answer = end.answer() => Some(answer),
            () = self.waited(wait) => None,
        };
        let answer = match answer {
            Some(answer) => answer,
            None => match driver.ask(Query::Task(task)).await {
                // It was refused, or has just left: that answer is there or on its way.
                Err(Refused::Rejection(Rejection::TaskNotFound(_))) => end.answer().await,
                shown => shown,
            },
        };
        let record = self.told(task, answer).await?;
        let message = format!("task is {}", present::status(&record.stage).name());
        let envelope = self.envelope(&record, message).await?;
        Ok(TaskEnvelope { warnings, ..envelope })
    }

    /// Accepts a plan, with somebody who is told of its end; says who that is: of a task that was
    /// accepted before, as it was said then.
    pub(super) async fn accept(
        &self,
        planned: planner::Planned,
        callback: Option<Callback>,
    ) -> Result<(TaskEnvelope, Option<Callback>), ApiError> {
        self.inner.payloads.keep_all(planned.blobs).await.map_err(|why| self.storage(&why))?;
        let (plan, warnings) = (Arc::new(planned.plan), planned.warnings);
        let plan_id = Uuid::from_u128(plan.id.0);
        let own = plan.root().id;
        let submit = Command::Submit { plan };
        let answer = match &callback {
            None => self.inner.driver.run(submit, Echo::Task).await,
            Some(callback) => {
                // Before the task: it is never accepted without.
                let both = vec![callback.keep(own)?, submit];
                let answers = self.inner.driver.run_all(both, Echo::Task).await;
                let last = answers.map_err(faults::refused)?.pop();
                last.map_or(Err(Refused::Stopped), |last| {
                    last.map_err(|why| self.inner.driver.refused(why))
                })
            }
        };
        if callback.is_some() && !matches!(answer, Ok(Answer::Accepted { fresh: true, .. })) {
            self.forget_callback(own).await;
        }
        let Answer::Accepted { root, fresh, task } = answer.map_err(faults::refused)? else {
            return Err(faults::internal(&"a submission was answered with something else"));
        };
        let record = match task {
            Some(record) => *record,
            None => self.stored(root).await?,
        };
        let execution_plan_id = if fresh { plan_id } else { Uuid::from_u128(record.plan.id.0) };
        let task = self.present(&record).await?;
        let message = if fresh { ACCEPTED } else { ACCEPTED_BEFORE }.to_owned();
        let callback = match callback {
            Some(callback) if fresh => {
                self.begin_callback(root, callback.clone());
                Some(callback)
            }
            Some(_) => self.callback(root).await,
            None => None,
        };
        Ok((TaskEnvelope { task, execution_plan_id, message, warnings }, callback))
    }

    pub(super) fn plan(
        &self,
        body: &[u8],
        options: &SubmitOptions,
    ) -> Result<planner::Planned, ApiError> {
        let (idempotency, trace) = (options.key_of_bytes(body), options.trace.clone());
        let envelope = Envelope { idempotency, trace, ..Envelope::default() };
        self.inner.planning.plan(body, envelope)
    }

    /// A task as it is; with a wait, once it has ended or the wait is over.
    ///
    /// # Errors
    /// That there is no such task, or why it cannot be told.
    pub async fn task(&self, id: Uuid, wait: Duration) -> Result<TaskEnvelope, ApiError> {
        let record = self.record(TaskId(id.as_u128()), wait).await?;
        let message = format!("task is {}", present::status(&record.stage).name());
        self.envelope(&record, message).await
    }

    /// What came out of a task.
    ///
    /// # Errors
    /// That there is no such task, or that it has no result.
    pub async fn results(&self, id: Uuid) -> Result<TaskResults, ApiError> {
        let record = self.record(TaskId(id.as_u128()), Duration::ZERO).await?;
        if !record.stage.completed() {
            let status = present::status(&record.stage).name();
            let message = format!("task `{id}` is {status}: it has no results");
            return Err(ApiError::new(ErrorCode::ResultsNotReady, message).with("status", status));
        }
        let results = self.result(&record).await?.unwrap_or_else(null);
        Ok(TaskResults { task_id: id, results })
    }

    /// Cancels a task and what is below it.
    ///
    /// # Errors
    /// That there is no such task, or that it has ended.
    pub async fn cancel(&self, id: Uuid, reason: Option<String>) -> Result<CancelAnswer, ApiError> {
        let task = TaskId(id.as_u128());
        let words = reason.clone().unwrap_or_else(|| "no reason given".to_owned());
        let command = Command::Cancel { task, reason: words.into() };
        match self.inner.driver.run(command, Echo::Id).await {
            Ok(_) => {
                let message = "task cancelled".to_owned();
                Ok(CancelAnswer { message, task_id: id, reason })
            }
            Err(Refused::Rejection(Rejection::TaskNotFound(_))) => {
                // What has left the engine has ended.
                let record = self.stored(task).await?;
                let state = record.stage.wire_name();
                Err(faults::rejected(&Rejection::AlreadyEnded { task, state }))
            }
            Err(refused) => Err(faults::refused(refused)),
        }
    }

    /// Runs a failed or cancelled task again.
    ///
    /// # Errors
    /// That there is no such task, or that it cannot be run again.
    pub async fn retry(&self, id: Uuid) -> Result<TaskEnvelope, ApiError> {
        self.check_intake()?;
        let task = TaskId(id.as_u128());
        let record = self.run_on(task, Command::Retry { task }).await?;
        self.envelope(&record, "task runs again".to_owned()).await
    }

    /// Has a command decided about a task that may have left the engine: then its plan comes back.
    pub(super) async fn run_on(
        &self,
        task: TaskId,
        command: Command,
    ) -> Result<TaskRecord, ApiError> {
        // From here to the answer the plan cannot be deleted: the engine takes up all of it.
        let root = self.record(task, Duration::ZERO).await?.plan.root;
        let store = self.inner.store.clone();
        let pin = blocking(move || store.pin(root)).await;
        let _held = self.hold(pin, task);
        // It may have gone just before. One that the engine holds may not be written yet.
        self.record(root, Duration::ZERO).await?;
        let mut answer = self.inner.driver.run(command.clone(), Echo::Task).await;
        if let Err(Refused::Rejection(Rejection::TaskNotFound(_))) = answer {
            answer = self.revive_and_run(task, command).await?;
        }
        match answer.map_err(faults::refused)? {
            Answer::Task(record) => Ok(*record),
            _ => Err(faults::internal(&"a change of a task was answered with something else")),
        }
    }

    async fn revive_and_run(
        &self,
        task: TaskId,
        command: Command,
    ) -> Result<Result<Answer, Refused>, ApiError> {
        let _alone = self.inner.alone.revival.lock().await;
        // Another may have brought it back meanwhile.
        match self.inner.driver.run(command.clone(), Echo::Task).await {
            Err(Refused::Rejection(Rejection::TaskNotFound(_))) => {}
            answer => return Ok(answer),
        }
        let record = self.stored(task).await?;
        let tasks = self.stored_plan(record.plan.root).await?;
        // In one go: a plan at rest leaves the engine again with the next rows.
        let both = vec![Command::Revive { tasks: tasks.into() }, command];
        let answers = self.inner.driver.run_all(both, Echo::Task).await;
        let last = answers.map_err(faults::refused)?.pop();
        Ok(last.map_or(Err(Refused::Stopped), |last| {
            last.map_err(|why| self.inner.driver.refused(why))
        }))
    }

    /// Keeps a pin until the store has what a task came to by the time that the answer is dropped:
    /// whoever asked may go away at any moment, and what it asked for is done anyway.
    fn hold(&self, pin: Pin, task: TaskId) -> oneshot::Sender<()> {
        let (done, finished) = oneshot::channel();
        let (driver, store) = (self.inner.driver.clone(), self.inner.store.clone());
        tokio::spawn(async move {
            drop(finished.await);
            // Once this is answered the task's last change is durable in the journal.
            drop(driver.ask(Query::Task(task)).await);
            if let Ok(Answer::Figures(figures)) = driver.ask(Query::Figures).await {
                store.reach(figures.durable).await;
            }
            drop(pin);
        });
        done
    }

    /// Why a task waits.
    ///
    /// # Errors
    /// That there is no such task.
    pub async fn explain(&self, id: Uuid) -> Result<Explanation, ApiError> {
        let task = TaskId(id.as_u128());
        let (record, blockers) = match self.inner.driver.ask(Query::Explain(task)).await {
            Ok(Answer::Explained(record, blockers)) => (*record, blockers),
            Ok(_) => return Err(faults::internal(&"an explanation was something else")),
            Err(Refused::Rejection(Rejection::TaskNotFound(_))) => {
                (self.stored(task).await?, Vec::new())
            }
            Err(refused) => return Err(faults::refused(refused)),
        };
        let status = present::status(&record.stage);
        let waiting =
            matches!(status, TaskStatus::Pending | TaskStatus::Ready | TaskStatus::Retrying);
        let mut blockers: Vec<_> = blockers.into_iter().map(present::blocker).collect();
        for blocker in blockers.iter_mut().filter(|blocker| blocker.kind == "no_agent") {
            blocker.unblock = self.what_would_serve(&record);
        }
        blockers.extend(self.targets_away(&record, &blockers).await);
        blockers.extend(self.pools_held(&record, &blockers).await?);
        Ok(Explanation { task_id: id, status, waiting, blockers })
    }

    /// All tasks of a plan, the root first, for whoever watches it run.
    ///
    /// # Errors
    /// That there is no such plan.
    pub async fn watch(&self, root: Uuid) -> Result<Vec<Snapshot>, ApiError> {
        let root = TaskId(root.as_u128());
        let records = match self.inner.driver.ask(Query::Plan(root)).await {
            Ok(Answer::Plan(records)) => records,
            Ok(_) => return Err(faults::internal(&"a plan was something else")),
            Err(Refused::Rejection(Rejection::TaskNotFound(_))) => self.stored_plan(root).await?,
            Err(refused) => return Err(faults::refused(refused)),
        };
        let board = self.inner.progress.lock().expect("nothing panics while it holds this lock");
        Ok(records.iter().map(|record| snapshot(record, board.get(&record.id))).collect())
    }

    /// A plan that has left the engine; empty if there is none.
    pub(super) async fn stored_plan(&self, root: TaskId) -> Result<Vec<TaskRecord>, ApiError> {
        let store = self.inner.store.clone();
        blocking(move || store.plan(root)).await.map_err(|why| self.storage(&why))
    }

    pub(super) async fn record(
        &self,
        task: TaskId,
        wait: Duration,
    ) -> Result<TaskRecord, ApiError> {
        let answer = if wait.is_zero() {
            self.inner.driver.ask(Query::Task(task)).await
        } else {
            tokio::select! {
                answer = self.inner.driver.wait_for_end(task) => answer,
                () = self.waited(wait) => self.inner.driver.ask(Query::Task(task)).await,
            }
        };
        self.told(task, answer).await
    }

    /// Returns when nobody is to wait any longer.
    async fn waited(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.inner.ending.waits.cancelled() => {}
        }
    }

    /// What the engine says of a task; the store's word for one that has left it.
    async fn told(
        &self,
        task: TaskId,
        answer: Result<Answer, Refused>,
    ) -> Result<TaskRecord, ApiError> {
        match answer {
            Ok(Answer::Task(record)) => Ok(*record),
            Ok(_) => Err(faults::internal(&"a task was something else")),
            Err(Refused::Rejection(Rejection::TaskNotFound(_))) => self.stored(task).await,
            Err(refused) => Err(faults::refused(refused)),
        }
    }

    /// A task that has left the engine.
    pub(super) async fn stored(&self, task: TaskId) -> Result<TaskRecord, ApiError> {
        // What has just left is in memory.
        if let Some(record) = self.inner.store.unwritten(task) {
            return Ok(record);
        }
        let store = self.inner.store.clone();
        let found = blocking(move || store.task(task)).await.map_err(|why| self.storage(&why))?;
        found.ok_or_else(|| {
            let message = format!("no task has the id `{task}`");
            ApiError::new(ErrorCode::TaskNotFound, message).with("task_id", task.to_string())
        })
    }

    pub(super) async fn envelope(
        &self,
        record: &TaskRecord,
        message: String,
    ) -> Result<TaskEnvelope, ApiError> {
        let task = self.present(record).await?;
        let execution_plan_id = Uuid::from_u128(record.plan.id.0);
        Ok(TaskEnvelope { task, execution_plan_id, message, warnings: Vec::new() })
    }

    pub(super) async fn present(&self, record: &TaskRecord) -> Result<Task, ApiError> {
        let documents = present::Documents {
            parameters: self.document(&record.spec.parameters).await?,
            metadata: match &record.spec.metadata {
                Some(metadata) => self.document(metadata).await?,
                None => present::empty(),
            },
            result: self.result(record).await?,
            omitted: Vec::new(),
        };
        Ok(present::task(record, documents))
    }

    async fn document(&self, payload: &Payload) -> Result<Box<RawValue>, ApiError> {
        let bytes = self.inner.payloads.bytes(payload).await.map_err(|why| self.storage(&why))?;
        raw(bytes)
    }

    async fn result(&self, record: &TaskRecord) -> Result<Option<Box<RawValue>>, ApiError> {
        let outcome = match &record.stage {
            Stage::Completed(payload) => Outcome::Payload(payload.clone()),
            Stage::Collected => self.collected(record).await?,
            _ => return Ok(None),
        };
        let json = self.inner.payloads.json(&outcome).await.map_err(|why| self.storage(&why))?;
        raw(json).map(Some)
    }

    async fn collected(&self, record: &TaskRecord) -> Result<Outcome, ApiError> {
        match self.inner.driver.ask(Query::Outcome(record.id)).await {
            Ok(Answer::Outcome(outcome)) => return Ok(outcome),
            Ok(_) => return Err(faults::internal(&"an outcome was something else")),
            Err(Refused::Rejection(Rejection::TaskNotFound(_))) => {}
            Err(refused) => return Err(faults::refused(refused)),
        }
        let tasks = self.stored_plan(record.plan.root).await?;
        let by_id: HashMap<TaskId, &TaskRecord> =
            tasks.iter().map(|task| (task.id, task)).collect();
        let source =
            |record: &TaskRecord| Source::of(&record.stage, record.collect(), record.subtasks());
        let look_up = |id: TaskId| by_id.get(&id).map_or(Source::Nothing, |task| source(task));
        Ok(source(record).follow(&look_up))
    }

    fn what_would_serve(&self, record: &TaskRecord) -> String {
        let demand = &record.spec.demand;
        let names: Vec<String> =
            demand.capabilities.iter().map(|name| format!("`{name}`")).collect();
        let mut wanted = match demand.agent {
            Some(agent) => format!("the agent `{agent}`"),
            None if matches!(demand.work, Work::BuiltIn(_)) => "a built-in agent".to_owned(),
            None => "an agent".to_owned(),
        };
        if let Some(kind) = &demand.agent_type {
            wanted = format!("{wanted} of the type `{kind}`");
        }
        if !names.is_empty() {
            wanted = format!("{wanted} with {}", names.join(", "));
        }
        if demand.agent.is_some() {
            return format!("{wanted}, which has ended or cannot do it: submit it for another one");
        }
        if demand.work != Work::FreeForm {
            return format!("{wanted}: create one (`POST /api/v1/agents`), or enlarge its pool");
        }
        let outside = format!(
            "{wanted}: start a worker, or configure a program under [commands] or a URL under \
             [http_agents] in maos.toml"
        );
        if demand.agent_type.is_some() || !present::implied(demand) {
            return outside;
        }
        let known: Vec<&str> = builtin::ACTIONS.iter().map(|action| action.name).collect();
        let known = known.join(", ");
        format!("{outside}; or submit with a built-in `action` in `parameters` ({known})")
    }

    pub(super) fn storage(&self, fault: &dyn std::fmt::Display) -> ApiError {
        tracing::error!("{fault}");
        let message = "the storage does not answer at the moment; the server's log says more";
        ApiError::new(ErrorCode::StorageUnavailable, message)
    }
}

fn snapshot(record: &TaskRecord, progress: Option<&Progress>) -> Snapshot {
    let status = present::status(&record.stage);
    let error = match &record.stage {
        Stage::Failed(failure) => Some(failure.message.to_string()),
        Stage::Cancelled { reason } => Some(reason.to_string()),
        _ => record.last_failure().map(|failure| failure.message.to_string()),
    };
    Snapshot {
        id: present::uuid(record.id),
        parent: record.parent().map(present::uuid),
        name: record.spec.name.to_string(),
        status,
        progress: progress.filter(|_| status == TaskStatus::Running).cloned(),
        error,
    }
}

pub(super) fn null() -> Box<RawValue> {
    RawValue::from_string("null".to_owned()).expect("null is JSON")
}

pub(super) fn raw(json: Vec<u8>) -> Result<Box<RawValue>, ApiError> {
    let text = String::from_utf8(json).map_err(|why| faults::internal(&why))?;
    RawValue::from_string(text).map_err(|why| faults::internal(&why))
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("reads of the store do not panic")
}
