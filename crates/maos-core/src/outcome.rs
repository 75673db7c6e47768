//! What came out of a task, followed through the tasks it was collected from.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::engine::State;
use crate::ids::TaskId;
use crate::payload::Payload;
use crate::record::{CollectRecord, Stage};

/// A result that may be spread over several payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is none: the task has not completed.
    Nothing,
    /// A document.
    Payload(Payload),
    /// The outcomes of subtasks, in order.
    List(Box<[Outcome]>),
}

/// What one task says about its outcome: enough to follow it through a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// There is none.
    Nothing,
    /// A document.
    Payload(Payload),
    /// Another task's.
    Task(TaskId),
    /// Those of other tasks, in order.
    Tasks(Box<[TaskId]>),
}

impl Source {
    /// Where the outcome of a task in this stage is.
    #[must_use]
    pub fn of(stage: &Stage, collect: Option<CollectRecord>, subtasks: &[TaskId]) -> Source {
        match (stage, collect) {
            (Stage::Completed(payload), _) => Source::Payload(payload.clone()),
            (Stage::Collected, Some(CollectRecord::One(task))) => Source::Task(task),
            (Stage::Collected, Some(CollectRecord::All) | None) => Source::Tasks(subtasks.into()),
            (
                Stage::Waiting
                | Stage::Parked { .. }
                | Stage::Ready { .. }
                | Stage::Backoff { .. }
                | Stage::Running { .. }
                | Stage::Active
                | Stage::Failed(_)
                | Stage::Cancelled { .. },
                _,
            ) => Source::Nothing,
        }
    }

    /// Follows the source through a plan; `look_up` says what each further task has.
    pub fn follow(self, look_up: &dyn Fn(TaskId) -> Source) -> Outcome {
        match self {
            Source::Nothing => Outcome::Nothing,
            Source::Payload(payload) => Outcome::Payload(payload),
            Source::Task(task) => look_up(task).follow(look_up),
            Source::Tasks(tasks) => {
                let parts: Vec<Outcome> =
                    tasks.iter().map(|task| look_up(*task).follow(look_up)).collect();
                Outcome::List(parts.into())
            }
        }
    }
}

impl State {
    /// What came out of a task that the engine holds; nothing if it does not.
    #[must_use]
    pub fn outcome(&self, task: TaskId) -> Outcome {
        self.source(task).follow(&|task| self.source(task))
    }

    fn source(&self, task: TaskId) -> Source {
        let Some(record) = self.task(task) else { return Source::Nothing };
        Source::of(&record.stage, record.collect(), record.subtasks())
    }
}
