//! The layout of the file, and rows into it.

use maos_core::record::{Stage, TaskRecord};
use rusqlite::{Connection, Transaction, params};

use super::backlog::Generation;
use crate::codec;

/// The newest layout of the file that this release knows, and the one it writes.
pub(super) const FORMAT: u32 = 1;

pub(super) const LAYOUT: &str = "
    CREATE TABLE tasks (
        id BLOB PRIMARY KEY,
        root BLOB NOT NULL,
        single INTEGER NOT NULL, -- a plan of its own
        live INTEGER NOT NULL,   -- not at rest
        status TEXT NOT NULL,
        record BLOB NOT NULL
    ) WITHOUT ROWID;
    -- Ids are in the order of their making: an index that ends in them lists the newest first.
    CREATE INDEX tasks_by_status ON tasks (status, id);
    CREATE INDEX tasks_live ON tasks (root, id) WHERE live = 1;
    CREATE INDEX tasks_of_plan ON tasks (root) WHERE single = 0;
    CREATE TABLE agents (
        id BLOB PRIMARY KEY,
        serving INTEGER NOT NULL,
        record BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE keys (
        root BLOB PRIMARY KEY,
        until INTEGER NOT NULL,
        plan BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX keys_by_end ON keys (until);
    CREATE TABLE engine (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        record BLOB NOT NULL
    );
";

pub(super) fn write(connection: &mut Connection, rows: &Generation) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    write_tasks(&transaction, rows)?;
    {
        let sql = "INSERT OR REPLACE INTO agents (id, serving, record) VALUES (?1, ?2, ?3)";
        let mut insert = transaction.prepare_cached(sql)?;
        for agent in rows.agents.values() {
            let id = agent.spec.id.0.to_be_bytes();
            insert.execute(params![id, agent.end.is_none(), codec::seal_row(agent)])?;
        }
    }
    let sql = "INSERT OR REPLACE INTO engine (only, record) VALUES (1, ?1)";
    transaction.prepare_cached(sql)?.execute([codec::seal_row(&rows.engine)])?;
    let now = rows.engine.at.0;
    transaction.prepare_cached("DELETE FROM keys WHERE until <= ?1")?.execute([now])?;
    transaction.commit()
}

fn write_tasks(transaction: &Transaction<'_>, rows: &Generation) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO tasks (id, root, single, live, status, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET
         live = excluded.live, status = excluded.status, record = excluded.record",
    )?;
    let mut remember = transaction
        .prepare_cached("INSERT OR REPLACE INTO keys (root, until, plan) VALUES (?1, ?2, ?3)")?;
    // In the order of the ids, so that the tree grows at its end.
    let mut tasks: Vec<&TaskRecord> = rows.tasks.values().collect();
    tasks.sort_unstable_by_key(|task| task.id);
    for task in tasks {
        let id = task.id.0.to_be_bytes();
        let root = task.plan.root.0.to_be_bytes();
        let single = task.index == 0 && task.subtasks.is_empty();
        let live = is_live(task);
        let status = task.stage.wire_name();
        insert.execute(params![id, root, single, live, status, codec::seal_row(task)])?;
        if task.index == 0 && task.plan.idempotency.is_some() {
            let until = task.plan.idempotency_until.0;
            remember.execute(params![id, until, codec::seal_row(&*task.plan)])?;
        }
    }
    Ok(())
}

fn is_live(task: &TaskRecord) -> bool {
    match task.stage {
        Stage::Waiting
        | Stage::Parked { .. }
        | Stage::Ready { .. }
        | Stage::Backoff { .. }
        | Stage::Running { .. }
        | Stage::Active => true,
        Stage::Completed(_) | Stage::Collected | Stage::Failed(_) | Stage::Cancelled { .. } => {
            !task.stopping.is_empty()
        }
    }
}
