//! Opens a data directory and says what the engine was at its last durable step: the rows of the
//! store, then the steps of the journal behind them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use maos_core::engine::Rows;
use maos_core::event::Step;
use maos_core::ids::{AgentId, NodeId, Sequence};
use maos_core::record::{AgentRecord, EngineRecord, PlanRecord, Stage, TaskRecord};
use rusqlite::{Connection, OptionalExtension};

use super::read::{self, ReadError};
use super::{Store, StoreError, damaged, fault, rows};
use crate::blobs::Blobs;
use crate::codec;
use crate::data_dir::DataDir;
use crate::journal::{Journal, JournalError, SqliteJournal};

/// Bytes of the write-ahead log that are kept for use again after a checkpoint.
const WAL_BYTES_KEPT: i64 = 64 << 20;

/// Everything that is in a data directory.
pub struct Opened {
    /// What the store has.
    pub rows: Rows<Vec<TaskRecord>>,
    /// The store.
    pub store: Store,
    /// The journal.
    pub journal: SqliteJournal,
    /// The blob store.
    pub blobs: Blobs,
    /// This server.
    pub node: NodeId,
    /// Ours for as long as this lives.
    pub data_dir: DataDir,
    at: Sequence,
    journal_path: PathBuf,
}

/// Opens a data directory, or makes it.
///
/// # Errors
/// When another process has it, or something in it is damaged, too new or does not fit together.
pub fn open(path: &Path) -> Result<Opened, StoreError> {
    let data_dir = DataDir::open(path)?;
    let journal_path = path.join("journal.db");
    let journal = SqliteJournal::open(&journal_path)?;
    let store_path = path.join("store.db");
    let connection = connect(&store_path)?;
    let rows = load(&connection).map_err(|why| match why {
        ReadError::Sqlite(why) => fault(&store_path, why),
        ReadError::Codec(why) => damaged(&store_path, why),
    })?;
    let position = rows.engine.position;
    let (at, head) = (position.sequence, journal.head().sequence);
    if at > head {
        return Err(StoreError::Ahead { path: store_path, store: at, journal: head });
    }
    let store = Store::start(&store_path, connection, position)?;
    let blobs = Blobs::open(&path.join("blobs"))?;
    let node = data_dir.node;
    Ok(Opened { rows, store, journal, blobs, node, data_dir, at, journal_path })
}

impl Opened {
    /// Hands the steps behind the store's position to `visit`, in order.
    ///
    /// # Errors
    /// When the journal is damaged or does not reach back to the store.
    pub fn replay(&mut self, visit: &mut dyn FnMut(Sequence, &Step)) -> Result<(), StoreError> {
        let (at, path) = (self.at, self.journal_path.clone());
        self.journal.replay(at, &mut |batch| {
            let damaged = |what: String| JournalError::Damaged { path: path.clone(), what };
            let steps = codec::open_steps(&batch.sealed).map_err(|why| damaged(why.to_string()))?;
            let expected = batch.last.0 - batch.first.0 + 1;
            if steps.len() as u64 != expected {
                let found = steps.len();
                return Err(damaged(format!("{found} steps where {expected} should be")));
            }
            for (sequence, step) in (batch.first.0..).map(Sequence).zip(&steps) {
                if sequence > at {
                    visit(sequence, step);
                }
            }
            Ok(())
        })?;
        Ok(())
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let failed = |why| fault(path, why);
    let connection = Connection::open(path).map_err(failed)?;
    let format: u32 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    if format > rows::FORMAT {
        let known = rows::FORMAT;
        return Err(StoreError::TooNew { path: path.into(), found: format, known });
    }
    let prepare = || {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A position is told to the journal, which then forgets: it must really be on disk.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        if format == 0 {
            let (layout, format) = (rows::LAYOUT, rows::FORMAT);
            connection.execute_batch(&format!(
                "BEGIN; {layout} PRAGMA user_version = {format}; COMMIT;"
            ))?;
        }
        Ok(())
    };
    prepare().map_err(failed)?;
    Ok(connection)
}

fn load(connection: &Connection) -> Result<Rows<Vec<TaskRecord>>, ReadError> {
    let engine: Option<Vec<u8>> =
        connection.query_row("SELECT record FROM engine", [], |row| row.get(0)).optional()?;
    let engine: EngineRecord =
        engine.map(|sealed| codec::open_row(&sealed)).transpose()?.unwrap_or_default();
    let mut tasks = Vec::new();
    for sql in [
        "SELECT record FROM tasks WHERE live = 1",
        "SELECT task.record FROM
         (SELECT DISTINCT root FROM tasks WHERE live = 1 AND single = 0) AS plan
         JOIN tasks AS task ON task.root = plan.root AND task.single = 0
         WHERE task.live = 0",
    ] {
        let mut select = connection.prepare(sql)?;
        let mut found = select.query([])?;
        while let Some(row) = found.next()? {
            tasks.push(read::record(row)?);
        }
    }
    let agents = load_agents(connection, &tasks)?;
    let mut remembered = Vec::new();
    let mut select = connection.prepare("SELECT plan FROM keys WHERE until > ?1 ORDER BY until")?;
    let mut found = select.query([engine.at.0])?;
    while let Some(row) = found.next()? {
        let sealed: Vec<u8> = row.get(0)?;
        remembered.push(codec::open_row::<PlanRecord>(&sealed)?);
    }
    Ok(Rows { engine, agents, tasks, remembered })
}

/// Agents that serve, and those that have ended but still hold something.
fn load_agents(
    connection: &Connection,
    tasks: &[TaskRecord],
) -> Result<Vec<AgentRecord>, ReadError> {
    let mut holding: BTreeSet<AgentId> = BTreeSet::new();
    for task in tasks {
        if let Stage::Running { agent, .. } = task.stage {
            holding.insert(agent);
        }
        holding.extend(task.stopping.iter().map(|held| held.agent));
    }
    let mut agents = Vec::new();
    let mut select = connection.prepare("SELECT record FROM agents ORDER BY id")?;
    let mut found = select.query([])?;
    while let Some(row) = found.next()? {
        let sealed: Vec<u8> = row.get(0)?;
        let agent: AgentRecord = codec::open_row(&sealed)?;
        if agent.end.is_none() || holding.contains(&agent.spec.id) {
            agents.push(agent);
        }
    }
    Ok(agents)
}
