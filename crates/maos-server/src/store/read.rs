//! Reading from the store: connections of their own, which the writer never waits for.

use std::path::PathBuf;
use std::sync::Mutex;

use maos_core::ids::TaskId;
use maos_core::record::{AgentRecord, TaskRecord};
use rusqlite::{Connection, OpenFlags, params};

use super::table::{STATUS_NAMES, bytes, read_all, status_number};
use super::{StoreError, sqlite_fault};
use crate::codec::Kind;

/// Connections that are kept open; more are opened when needed and closed again.
const KEPT_MAX: usize = 4;

/// Which tasks a listing holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskFilter {
    /// Only those with this status, by its wire name.
    pub status: Option<&'static str>,
    /// How many are passed over.
    pub offset: u64,
    /// At most this many.
    pub limit: u32,
}

#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Readers {
        Readers { path, idle: Mutex::default() }
    }

    pub(super) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().expect("nothing panics while it holds this lock").pop();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = match idle {
            Some(db) => db,
            None => Connection::open_with_flags(&self.path, flags)
                .map_err(|fault| sqlite_fault(&self.path, fault))?,
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

    pub(super) fn agents(&self) -> Result<Vec<AgentRecord>, StoreError> {
        self.with(|db| read_all(db, &self.path, Kind::Agent, "SELECT record FROM agents", ()))
    }

    pub(super) fn counts(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let read = |db: &Connection| {
            let mut query = db.prepare_cached("SELECT tasks FROM counts ORDER BY status")?;
            let counts = query.query_map((), |row| row.get(0))?;
            counts.collect::<rusqlite::Result<Vec<u64>>>()
        };
        let counts = self.with(|db| read(db).map_err(|fault| sqlite_fault(&self.path, fault)))?;
        Ok(STATUS_NAMES.into_iter().zip(counts).collect())
    }

    pub(super) fn page(&self, filter: &TaskFilter) -> Result<(Vec<TaskRecord>, u64), StoreError> {
        let offset = i64::try_from(filter.offset).unwrap_or(i64::MAX);
        let counts = self.counts()?;
        let Some(wanted) = filter.status else {
            let sql = "SELECT record FROM tasks WHERE number IN
                       (SELECT number FROM tasks ORDER BY number DESC LIMIT ? OFFSET ?)
                       ORDER BY number DESC";
            let given = params![filter.limit, offset];
            let tasks = self.with(|db| read_all(db, &self.path, Kind::Task, sql, given))?;
            return Ok((tasks, counts.iter().map(|(_, tasks)| tasks).sum()));
        };
        let Some(number) = status_number(wanted) else {
            return Ok((Vec::new(), 0));
        };
        let sql = "SELECT record FROM tasks WHERE number IN
                   (SELECT number FROM tasks WHERE status = ? ORDER BY number DESC LIMIT ? OFFSET ?)
                   ORDER BY number DESC";
        let given = params![number, filter.limit, offset];
        let tasks = self.with(|db| read_all(db, &self.path, Kind::Task, sql, given))?;
        Ok((tasks, counts.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, n)| *n)))
    }
}
