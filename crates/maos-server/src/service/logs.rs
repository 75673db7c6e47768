//! Logs of tasks, for whoever reads or follows them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use maos_api::error::{ApiError, ErrorCode};
use maos_api::logs::{LIMIT_MAX, LogEnd, LogGap, LogItem, LogLevel, LogPage, LogQuery};
use maos_core::ids::TaskId;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::tasks::blocking;
use super::{Service, present};
use crate::logs::Part;
use crate::streams::{Totals, Watch};

/// Most followers at once.
pub(super) const FOLLOWERS_MAX: usize = 1_000;

/// What a follower gets.
#[derive(Clone, Debug)]
pub enum Followed {
    /// Lines, in order.
    Lines(Vec<LogItem>),
    /// Lines before the next ones are gone.
    Gone(LogGap),
    /// The task has ended, and everything was told.
    End(LogEnd),
}

/// Follows the log of one task.
pub struct Follower {
    service: Service,
    task: TaskId,
    level: LogLevel,
    next: u64,
    watch: Watch,
    /// Until the task has ended, what waits for that.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    told_end: bool,
    _counted: OwnedSemaphorePermit,
}

impl Service {
    /// A part of a task's log, at once or as soon as there is a line of it.
    ///
    /// # Errors
    /// That there is no such task, or why its log cannot be told.
    pub async fn task_logs(&self, id: Uuid, query: LogQuery) -> Result<LogPage, ApiError> {
        let task = TaskId(id.as_u128());
        let wait = Duration::from_secs(query.wait_seconds);
        let deadline = tokio::time::Instant::now() + wait;
        let mut ended = self.ended(task).await?;
        let mut from = query.offset;
        let mut watch = self.inner.logs.watch(task);
        let mut end: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
        loop {
            let part = self.part(task, from, query.limit, query.level).await?;
            let empty = part.items.is_empty();
            let closing = self.inner.ending.streams.is_cancelled();
            let now = tokio::time::Instant::now();
            if !empty || (part.at_end && (ended || closing || now >= deadline)) {
                return Ok(page(id, query.offset, part, ended));
            }
            from = part.next;
            if !part.at_end {
                continue;
            }
            let end = end.get_or_insert_with(|| self.wait_for_end(task));
            tokio::select! {
                biased;
                () = self.inner.ending.streams.cancelled() => {}
                // A log that is closed gets no longer.
                Ok(()) = watch.longer() => {}
                () = end => ended = true,
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// Follows a task's log from an offset on.
    ///
    /// # Errors
    /// That there is no such task, or that there are too many followers.
    pub async fn follow_logs(&self, id: Uuid, query: LogQuery) -> Result<Follower, ApiError> {
        if self.stopping() {
            let message = "the server is shutting down: nothing more will happen";
            return Err(ApiError::new(ErrorCode::ShuttingDown, message));
        }
        let task = TaskId(id.as_u128());
        let counted = Arc::clone(&self.inner.room.followers).try_acquire_owned().map_err(|_| {
            let message = format!("{FOLLOWERS_MAX} readers follow a log already");
            ApiError::new(ErrorCode::QueueFull, message).with("bound", FOLLOWERS_MAX)
        })?;
        let ended = self.ended(task).await?;
        Ok(Follower {
            service: self.clone(),
            task,
            level: query.level,
            next: query.offset,
            watch: self.inner.logs.watch(task),
            end: (!ended).then(|| self.wait_for_end(task)),
            told_end: false,
            _counted: counted,
        })
    }

    /// How much there is in all logs, with everything that was noted before.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn kept_logs(&self) -> Result<Totals, ApiError> {
        self.inner.logs.flush().await.map_err(|why| self.storage(&why))?;
        let logs = self.inner.logs.clone();
        blocking(move || logs.totals()).await.map_err(|why| self.storage(&why))
    }

    /// Whether a task has ended; what its agents said until then is readable if so.
    async fn ended(&self, task: TaskId) -> Result<bool, ApiError> {
        let record = self.record(task, Duration::ZERO).await?;
        if record.stage.ended() {
            let settled = self.inner.logs.settle(task).await;
            settled.map_err(|why| self.storage(&why))?;
        }
        Ok(record.stage.ended())
    }

    /// Returns when a task has ended, and what its agents said until then is readable.
    fn wait_for_end(&self, task: TaskId) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let service = self.clone();
        Box::pin(async move {
            // A task that the engine does not know any more has ended, too.
            drop(service.inner.driver.wait_for_end(task).await);
            drop(service.inner.logs.settle(task).await);
        })
    }

    async fn part(
        &self,
        task: TaskId,
        from: u64,
        limit: u32,
        level: LogLevel,
    ) -> Result<Part, ApiError> {
        let logs = self.inner.logs.clone();
        let read = blocking(move || logs.read(task, from, limit, level)).await;
        read.map_err(|why| self.storage(&why))
    }
}

impl Follower {
    /// What comes next; `None` when nothing more will. May be dropped and asked again.
    ///
    /// # Errors
    /// Why the log cannot be told.
    pub async fn next(&mut self) -> Result<Option<Followed>, ApiError> {
        loop {
            if self.told_end {
                return Ok(None);
            }
            let ended = self.end.is_none();
            let part = self.service.part(self.task, self.next, LIMIT_MAX, self.level).await?;
            if part.gone > 0 {
                self.next += part.gone;
                return Ok(Some(Followed::Gone(LogGap { error: gone(part.gone) })));
            }
            self.next = part.next;
            if !part.items.is_empty() {
                return Ok(Some(Followed::Lines(part.items)));
            }
            if !part.at_end {
                continue;
            }
            if ended {
                let record = self.service.record(self.task, Duration::ZERO).await?;
                self.told_end = true;
                return Ok(Some(Followed::End(LogEnd {
                    task_id: present::uuid(self.task),
                    status: present::status(&record.stage),
                    next_offset: self.next,
                })));
            }
            let end = async {
                match &mut self.end {
                    Some(end) => end.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.service.inner.ending.streams.cancelled() => return Ok(None),
                longer = self.watch.longer() => if longer.is_err() {
                    return Ok(None);
                },
                () = end => self.end = None,
            }
        }
    }
}

fn page(task_id: Uuid, from: u64, part: Part, ended: bool) -> LogPage {
    let mut warnings = Vec::new();
    if part.gone > 0 && part.items.first().is_none_or(|item| item.offset > from) {
        warnings.push(gone(part.gone));
    }
    let ended = ended && part.at_end;
    LogPage { task_id, items: part.items, next_offset: part.next, ended, warnings }
}

fn gone(count: u64) -> String {
    format!("{count} lines before the next one were removed, as `[logs]` says")
}
