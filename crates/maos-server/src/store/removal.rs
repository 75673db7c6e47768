//! Ended plans leave the store for good: on request, by age, or to keep to a number of tasks.
//!
//! Its law: a plan goes whole or not at all, and never while anything of it lives, waits to be
//! written or is pinned; the engine, which may still remember it, must not take up a part of it.
//! Transactions are small and have a connection of their own, so that rows are written in between.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use maos_core::ids::TaskId;
use maos_core::record::TaskRecord;
use maos_core::time::WallTime;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::backlog::Shared;
use super::table::{bytes, is_live};
use super::{StoreError, facets, gone, sqlite_fault};

/// Tasks after which a transaction is ended; one larger plan still goes in one.
const TRANSACTION_TASKS: u64 = 500;
/// Roots that are looked at in one go.
const LOOKED_AT: u32 = 500;

/// How long ended tasks are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Plans that ended before this go.
    pub ended_before: Option<WallTime>,
    /// The oldest ended plans go until there are no more tasks than that.
    pub tasks_max: Option<u64>,
}

/// Is told which tasks went for good.
pub type TellRemoved = Box<dyn Fn(&[TaskId]) + Send + Sync>;

/// What became of a plan that was to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It went, with so many tasks.
    Gone(u64),
    /// No plan has this root.
    NotThere,
    /// Something of it lives, waits to be written, or is about to run again.
    InUse,
}

/// Keeps a plan in the store for as long as it is held.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Mutex<HashMap<TaskId, u32>>>,
    root: TaskId,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.pins.lock().expect("nothing panics while it holds this lock");
        if let Some(count) = pins.get_mut(&self.root) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.root);
            }
        }
    }
}

pub(super) struct Remover {
    path: PathBuf,
    shared: Arc<Shared>,
    db: Mutex<Option<Connection>>,
    pins: Arc<Mutex<HashMap<TaskId, u32>>>,
    /// Something went since it was asked last.
    removed: AtomicBool,
    told: OnceLock<TellRemoved>,
}

impl Remover {
    pub(super) fn new(path: PathBuf, shared: Arc<Shared>) -> Remover {
        let (pins, told) = Default::default();
        let removed = AtomicBool::new(false);
        Remover { path, shared, db: Mutex::default(), pins, removed, told }
    }

    pub(super) fn on_removed(&self, tell: TellRemoved) {
        // A second one is a slip of whoever puts the server together.
        assert!(self.told.set(tell).is_ok(), "one is told what goes");
    }

    pub(super) fn pin(&self, root: TaskId) -> Pin {
        *self.pins().entry(root).or_default() += 1;
        Pin { pins: self.pins.clone(), root }
    }

    fn pins(&self) -> MutexGuard<'_, HashMap<TaskId, u32>> {
        self.pins.lock().expect("nothing panics while it holds this lock")
    }

    pub(super) fn note_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    pub(super) fn take_removed(&self) -> bool {
        self.removed.swap(false, Ordering::AcqRel)
    }

    /// Removes these plans, as far as each may go.
    pub(super) fn remove(&self, roots: &[TaskId]) -> Result<Vec<Removed>, StoreError> {
        let mut outcomes = Vec::with_capacity(roots.len());
        while outcomes.len() < roots.len() {
            let rest = &roots[outcomes.len()..];
            let more = self.with(|db| self.remove_some(db, rest, u64::MAX))?;
            outcomes.extend(more);
        }
        Ok(outcomes)
    }

    /// Removes what need not be kept, the oldest first, and says how many tasks went. Pauses
    /// between transactions for as long as they take.
    pub(super) fn retain(&self, keep: &Retention) -> Result<u64, StoreError> {
        let (mut gone, mut from) = (0, 0);
        loop {
            let begun = Instant::now();
            let (due, excess) = self.with(|db| due(db, keep, from))?;
            let Some(last) = due.last else { return Ok(gone) };
            from = last;
            let mut rest = &due.roots[..];
            let mut left = excess.unwrap_or(u64::MAX);
            while !rest.is_empty() && left > 0 {
                let outcomes = self.with(|db| self.remove_some(db, rest, left))?;
                rest = &rest[outcomes.len()..];
                for outcome in outcomes {
                    if let Removed::Gone(tasks) = outcome {
                        gone += tasks;
                        left = left.saturating_sub(tasks);
                    }
                }
                std::thread::sleep(begun.elapsed().min(Duration::from_millis(100)));
            }
            if left == 0 {
                return Ok(gone);
            }
        }
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let wrong = |fault| sqlite_fault(&self.path, fault);
        let mut held = self.db.lock().expect("nothing panics while it holds this lock");
        let mut db = match held.take() {
            Some(db) => db,
            None => open(&self.path).map_err(wrong)?,
        };
        let done = work(&mut db).map_err(wrong)?;
        *held = Some(db);
        Ok(done)
    }

    /// The first of these plans, in one transaction.
    fn remove_some(
        &self,
        db: &mut Connection,
        roots: &[TaskId],
        most: u64,
    ) -> rusqlite::Result<Vec<Removed>> {
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Held to the end: whoever pins a plan then knows that it is there, or gone.
        let pins = self.pins();
        let (mut outcomes, mut gone) = (Vec::new(), Vec::new());
        for root in roots {
            let free = !pins.contains_key(root) && !self.shared.holds(*root);
            let outcome =
                if free { remove_plan(&transaction, *root, &mut gone)? } else { Removed::InUse };
            outcomes.push(outcome);
            if gone.len() as u64 >= TRANSACTION_TASKS.min(most) {
                break;
            }
        }
        let plans = outcomes.iter().filter(|outcome| matches!(outcome, Removed::Gone(_))).count();
        gone::add(&transaction, gone.len(), plans)?;
        facets::remove_words(&transaction, &gone)?;
        transaction.commit()?;
        if !gone.is_empty() {
            self.removed.store(true, Ordering::Release);
            if let Some(tell) = self.told.get() {
                tell(&gone.iter().map(|(_, record)| record.id).collect::<Vec<_>>());
            }
        }
        Ok(outcomes)
    }
}

fn open(path: &std::path::Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "cache_size", -4_096)?;
    // The writer's transactions may be long.
    db.busy_timeout(Duration::from_secs(30))?;
    Ok(db)
}

/// Plans that may go, and where the search for more goes on.
struct Due {
    roots: Vec<TaskId>,
    last: Option<i64>,
}

/// What is due behind the row `from`, and how many tasks there are too many of.
fn due(db: &Connection, keep: &Retention, from: i64) -> rusqlite::Result<(Due, Option<u64>)> {
    let mut due = Due { roots: Vec::new(), last: None };
    let excess = match keep.tasks_max {
        Some(most) => {
            let sql = "SELECT sum(tasks) FROM counts";
            let tasks: u64 = db.prepare_cached(sql)?.query_row((), |row| row.get(0))?;
            tasks.saturating_sub(most)
        }
        None => 0,
    };
    let before = keep.ended_before.map_or(0, |time| time.0);
    // By count all ended ones are due; by age, those that ended long enough ago.
    let limit = if excess > 0 { None } else { Some(before) };
    if limit == Some(0) {
        return Ok((due, None));
    }
    let mut query = db.prepare_cached(
        "SELECT number, id, created, ended, live FROM tasks
         WHERE number > ? AND root IS NULL ORDER BY number LIMIT ?",
    )?;
    let mut rows = query.query(params![from, LOOKED_AT])?;
    while let Some(row) = rows.next()? {
        // Numbers grow with time: what was created too late ended too late, and so did the rest.
        if limit.is_some_and(|limit| row.get::<_, u64>(2).is_ok_and(|created| created >= limit)) {
            break;
        }
        due.last = Some(row.get(0)?);
        let ended: Option<u64> = row.get(3)?;
        let live: bool = row.get(4)?;
        if !live && ended.is_some_and(|ended| limit.is_none_or(|limit| ended < limit)) {
            due.roots.push(TaskId(u128::from_be_bytes(row.get(1)?)));
        }
    }
    Ok((due, (excess > 0).then_some(excess)))
}

fn remove_plan(
    transaction: &Transaction<'_>,
    root: TaskId,
    gone: &mut Vec<(i64, TaskRecord)>,
) -> rusqlite::Result<Removed> {
    let sql = "SELECT number, record FROM tasks WHERE id = ?1 AND root IS NULL
               UNION ALL SELECT number, record FROM tasks WHERE root = ?1";
    let mut tasks: Vec<(i64, TaskRecord)> = Vec::new();
    let mut query = transaction.prepare_cached(sql)?;
    let mut rows = query.query([bytes(root.0)])?;
    while let Some(row) = rows.next()? {
        let record = facets::opened(row.get_ref(1)?.as_blob()?)?;
        if is_live(&record) {
            return Ok(Removed::InUse);
        }
        tasks.push((row.get(0)?, record));
    }
    if tasks.is_empty() {
        return Ok(Removed::NotThere);
    }
    for (number, record) in &tasks {
        facets::remove(transaction, *number, record)?;
    }
    let count = tasks.len() as u64;
    gone.append(&mut tasks);
    Ok(Removed::Gone(count))
}
