//! Rows out of the file, through a connection of its own that cannot write.

use std::path::Path;

use maos_core::ids::TaskId;
use maos_core::record::TaskRecord;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::codec::{self, CodecError};

/// Which tasks a page holds.
#[derive(Clone, Debug)]
pub struct TaskFilter {
    /// Only tasks in this state, by its wire name.
    pub status: Option<&'static str>,
    /// Tasks to pass over.
    pub offset: u64,
    /// Tasks to give.
    pub limit: u32,
}

pub(super) enum ReadError {
    Sqlite(rusqlite::Error),
    Codec(CodecError),
}

impl From<rusqlite::Error> for ReadError {
    fn from(why: rusqlite::Error) -> ReadError {
        ReadError::Sqlite(why)
    }
}

impl From<CodecError> for ReadError {
    fn from(why: CodecError) -> ReadError {
        ReadError::Codec(why)
    }
}

pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

pub(super) fn task(connection: &Connection, id: TaskId) -> Result<Option<TaskRecord>, ReadError> {
    let mut select = connection.prepare_cached("SELECT record FROM tasks WHERE id = ?1")?;
    let sealed: Option<Vec<u8>> =
        select.query_row([id.0.to_be_bytes()], |row| row.get(0)).optional()?;
    Ok(sealed.map(|sealed| codec::open_row(&sealed)).transpose()?)
}

pub(super) fn plan(connection: &Connection, root: TaskId) -> Result<Vec<TaskRecord>, ReadError> {
    let id = root.0.to_be_bytes();
    let mut tasks: Vec<TaskRecord> = task(connection, root)?.into_iter().collect();
    let sql = "SELECT record FROM tasks WHERE root = ?1 AND single = 0 AND id <> ?1";
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query([id])?;
    while let Some(row) = rows.next()? {
        tasks.push(record(row)?);
    }
    Ok(tasks)
}

pub(super) fn page(
    connection: &Connection,
    filter: &TaskFilter,
) -> Result<(Vec<TaskRecord>, u64), ReadError> {
    let offset = i64::try_from(filter.offset).unwrap_or(i64::MAX);
    let (total, mut select) = match filter.status {
        None => (
            connection.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0))?,
            connection.prepare_cached(
                "SELECT record FROM tasks WHERE ?1 IS NULL ORDER BY id DESC LIMIT ?2 OFFSET ?3",
            )?,
        ),
        Some(status) => (
            connection.query_row(
                "SELECT count(*) FROM tasks WHERE status = ?1",
                [status],
                |row| row.get(0),
            )?,
            connection.prepare_cached(
                "SELECT record FROM tasks WHERE status = ?1 ORDER BY id DESC LIMIT ?2 OFFSET ?3",
            )?,
        ),
    };
    let mut rows = select.query(params![filter.status, filter.limit, offset])?;
    let mut tasks = Vec::new();
    while let Some(row) = rows.next()? {
        tasks.push(record(row)?);
    }
    Ok((tasks, total))
}

pub(super) fn record(row: &Row<'_>) -> Result<TaskRecord, ReadError> {
    let sealed = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
    Ok(codec::open_row(sealed)?)
}
