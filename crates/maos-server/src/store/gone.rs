//! How many tasks and plans were removed, ever: with what was ever accepted, that says how many are
//! known. Its law: it is counted in the transaction that removes.

use maos_core::record::EngineRecord;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::codec::{self, Kind};

const TABLE: &str = "
    CREATE TABLE gone (
        id INTEGER PRIMARY KEY CHECK (id = 1), tasks INTEGER NOT NULL, plans INTEGER NOT NULL
    ) STRICT;
    INSERT INTO gone VALUES (1, 0, 0);
";

/// Makes the table. What went before anybody counted is what was ever accepted, without what is
/// there.
pub(super) fn prepare(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(TABLE)?;
    let engine: Option<Vec<u8>> =
        transaction.query_row("SELECT record FROM engine", (), |row| row.get(0)).optional()?;
    // One that cannot be read is refused when everything is loaded.
    let engine = engine.and_then(|sealed| codec::open_value(Kind::Engine, &sealed).ok());
    let EngineRecord { counters, .. } = engine.unwrap_or_default();
    let sql = "UPDATE gone SET
        tasks = max(0, ?1 - (SELECT sum(tasks) FROM counts)),
        plans = max(0, ?2 - (SELECT count(*) FROM tasks WHERE root IS NULL))";
    let given = params![counters.tasks_submitted, counters.plans_created];
    transaction.execute(sql, given).map(drop)
}

pub(super) fn add(
    transaction: &Transaction<'_>,
    tasks: usize,
    plans: usize,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE gone SET tasks = tasks + ?, plans = plans + ?")?
        .execute(params![tasks, plans])
        .map(drop)
}

/// Tasks, and plans.
pub(super) fn count(db: &Connection) -> rusqlite::Result<(u64, u64)> {
    let mut query = db.prepare_cached("SELECT tasks, plans FROM gone")?;
    query.query_row((), |row| Ok((row.get(0)?, row.get(1)?)))
}
