//! Reading from the store: connections of their own, which the writer never waits for.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use maos_core::ids::{AgentId, PlanId, TaskId};
use maos_core::record::{AgentRecord, TaskRecord};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::table::{STATUS_NAMES, bytes, read_all};
use super::{StoreError, gone, sqlite_fault};
use crate::codec::Kind;

/// Connections that are kept open; more are opened when needed and closed again.
const KEPT_MAX: usize = 4;
/// What each of them keeps in memory, in KiB; negative, as SQLite wants it.
const CACHE_KIB: i64 = -8_192;
const STATEMENTS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Readers {
        Readers { path, idle: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().expect("nothing panics while it holds this lock").pop();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let db = Connection::open_with_flags(&self.path, flags)?;
            db.pragma_update(None, "cache_size", CACHE_KIB)?;
            db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
            Ok(db)
        };
        let db = match idle {
            Some(db) => db,
            None => open().map_err(|fault| sqlite_fault(&self.path, fault))?,
        };
        let found = read(&db)?;
        let mut idle = self.idle.lock().expect("nothing panics while it holds this lock");
        if idle.len() < KEPT_MAX {
            idle.push(db);
        }
        Ok(found)
    }

    pub(super) fn task(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        let sql = "SELECT record FROM tasks WHERE id = ?";
        self.with(|db| Ok(read_all(db, &self.path, Kind::Task, sql, [bytes(id.0)])?.pop()))
    }

    pub(super) fn plan(&self, root: TaskId) -> Result<Vec<TaskRecord>, StoreError> {
        let sql = "SELECT record FROM tasks WHERE id = ?1 AND root IS NULL
                   UNION ALL SELECT record FROM tasks WHERE root = ?1";
        self.with(|db| read_all(db, &self.path, Kind::Task, sql, [bytes(root.0)]))
    }

    /// The root of the plan with this id.
    pub(super) fn root_of(&self, plan: PlanId) -> Result<Option<TaskId>, StoreError> {
        let sql = "SELECT id FROM tasks WHERE plan = ?";
        let read = |db: &Connection| {
            let mut query = db.prepare_cached(sql)?;
            let found = query.query_row([bytes(plan.0)], |row| row.get::<_, [u8; 16]>(0));
            Ok(found.optional()?.map(|id| TaskId(u128::from_be_bytes(id))))
        };
        self.with(|db| read(db).map_err(|fault| sqlite_fault(&self.path, fault)))
    }

    pub(super) fn agent(&self, id: AgentId) -> Result<Option<AgentRecord>, StoreError> {
        let sql = "SELECT record FROM agents WHERE id = ?";
        self.with(|db| Ok(read_all(db, &self.path, Kind::Agent, sql, [bytes(id.0)])?.pop()))
    }

    /// Agents that have ended, the newest first, at most `most`.
    pub(super) fn ended_agents(&self, most: u32) -> Result<Vec<AgentRecord>, StoreError> {
        let sql = "SELECT record FROM agents WHERE ended = 1 ORDER BY id DESC LIMIT ?";
        self.with(|db| read_all(db, &self.path, Kind::Agent, sql, [most]))
    }

    pub(super) fn counts(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let read = |db: &Connection| {
            let sql = "SELECT sum(tasks) FROM counts GROUP BY status ORDER BY status";
            let mut query = db.prepare_cached(sql)?;
            let counts = query.query_map((), |row| row.get(0))?;
            counts.collect::<rusqlite::Result<Vec<u64>>>()
        };
        let counts = self.with(|db| read(db).map_err(|fault| sqlite_fault(&self.path, fault)))?;
        Ok(STATUS_NAMES.into_iter().zip(counts).collect())
    }

    /// How many tasks and plans were removed, ever.
    pub(super) fn gone(&self) -> Result<(u64, u64), StoreError> {
        self.with(|db| gone::count(db).map_err(|fault| sqlite_fault(&self.path, fault)))
    }

    /// Whether a task that is written refers to the document with this hash.
    pub(super) fn refers_to(&self, hash: &[u8; 32]) -> Result<bool, StoreError> {
        let read = |db: &Connection| {
            db.prepare_cached("SELECT 1 FROM documents WHERE hash = ? LIMIT 1")?.exists([hash])
        };
        self.with(|db| read(db).map_err(|fault| sqlite_fault(&self.path, fault)))
    }
}
