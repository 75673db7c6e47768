//! The tables of `store.db`: made, checked, written, and loaded at a start.
//!
//! Its law: `engine.record` holds the position at which all other rows are complete. WAL with
//! `synchronous=FULL`: transactions are few and large, so one fsync each is the sync point that the
//! journal may be trimmed behind. What is queried is a column; everything is in `record`.

use std::collections::BTreeMap;
use std::path::Path;

use hashbrown::HashSet;
use maos_core::engine::Rows;
use maos_core::ids::{AgentId, Position, TaskId};
use maos_core::record::{AgentRecord, EngineRecord, EntryRecord, PlanRecord, Stage, TaskRecord};
use minicbor::Decode;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::backlog::Portion;
use super::{StoreError, facets, gone, sqlite_fault, unopened};
use crate::codec::{self, Kind, Sealer};

const FORMAT: u32 = 4;
/// What was written before there were documents of the shell; it is brought up to date.
const FORMAT_WITHOUT_ENTRIES: u32 = 2;
/// What was written while the database itself counted rows that come and move, and nobody those
/// that went.
const FORMAT_THAT_COUNTS: u32 = 3;
/// `MAOS`.
const APPLICATION_ID: u32 = 0x4D41_4F53;
/// Expired idempotency keys that one transaction forgets.
const FORGOTTEN_MAX: u32 = 10_000;

/// Wire names by their stored numbers: never reused, never changed.
pub(super) const STATUS_NAMES: [&str; 7] =
    ["pending", "ready", "running", "retrying", "completed", "failed", "cancelled"];

/// The order of every listing is `created`, then `number`, the newest first: each index that a
/// listing walks ends in both. `number` grows by insertion and is never reused while rows above it
/// are there.
const SCHEMA: &str = "
    CREATE TABLE engine (id INTEGER PRIMARY KEY CHECK (id = 1), record BLOB NOT NULL) STRICT;
    CREATE TABLE tasks (
        number INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
        plan BLOB,
        root BLOB,
        parent BLOB,
        status INTEGER NOT NULL,
        priority INTEGER NOT NULL,
        agent BLOB,
        created INTEGER NOT NULL,
        ended INTEGER,
        live INTEGER NOT NULL,
        record BLOB NOT NULL
    ) STRICT;
    CREATE INDEX tasks_by_group ON tasks (status, priority, created);
    CREATE INDEX tasks_by_parent ON tasks (parent, created) WHERE parent IS NOT NULL;
    CREATE INDEX tasks_by_agent ON tasks (agent, created) WHERE agent IS NOT NULL;
    CREATE INDEX tasks_by_plan ON tasks (plan) WHERE plan IS NOT NULL;
    CREATE INDEX tasks_by_root ON tasks (root) WHERE root IS NOT NULL;
    CREATE INDEX tasks_live ON tasks (live) WHERE live = 1;
    CREATE TABLE counts (
        status INTEGER NOT NULL, priority INTEGER NOT NULL, tasks INTEGER NOT NULL,
        PRIMARY KEY (status, priority)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO counts SELECT s.value, p.value, 0
        FROM json_each('[0,1,2,3,4,5,6]') s, json_each('[0,1,2,3]') p;
    CREATE TRIGGER task_gone AFTER DELETE ON tasks BEGIN
        UPDATE counts SET tasks = tasks - 1
            WHERE status = old.status AND priority = old.priority;
    END;
    CREATE TABLE tags (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, tasks INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE tagged (
        tag INTEGER NOT NULL, created INTEGER NOT NULL, number INTEGER NOT NULL,
        PRIMARY KEY (tag, created, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE documents (
        number INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (number, hash)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX documents_by_hash ON documents (hash);
    CREATE VIRTUAL TABLE search USING fts5(
        name, description, tags, content = '', columnsize = 0,
        tokenize = 'unicode61 remove_diacritics 2'
    );
    CREATE TABLE agents (id BLOB PRIMARY KEY, ended INTEGER NOT NULL, record BLOB NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE INDEX agents_ended ON agents (ended, id);
    CREATE TABLE keys (root BLOB PRIMARY KEY, until INTEGER NOT NULL, plan BLOB NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE INDEX keys_by_end ON keys (until);
";

const NO_TRIGGERS: &str = "
    DROP TRIGGER IF EXISTS task_new;
    DROP TRIGGER IF EXISTS task_moved;
";

const ENTRIES: &str = "
    CREATE TABLE entries (
        register TEXT NOT NULL, key TEXT NOT NULL, record BLOB NOT NULL,
        PRIMARY KEY (register, key)
    ) STRICT, WITHOUT ROWID;
";

/// No `ON CONFLICT`, no `RETURNING`, no trigger: a statement that could fail halfway keeps a
/// journal of its own, which cost a fifth of all writing.
const FIND_TASK: &str = "SELECT number, status, priority FROM tasks WHERE id = ?";
const NEW_TASK: &str = "
    INSERT INTO tasks (number, id, plan, root, parent, status, priority, agent, created, ended,
                       live, record)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
";
const CHANGED_TASK: &str = "
    UPDATE tasks SET status = ?2, priority = ?3, agent = ?4, ended = ?5, live = ?6, record = ?7
    WHERE number = ?1
";

/// Opens the file, or makes it; refuses what is damaged, foreign or newer.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let wrong = |fault| sqlite_fault(path, fault);
    let mut db = Connection::open(path).map_err(wrong)?;
    let number = |db: &Connection, name: &str| -> Result<u32, StoreError> {
        db.pragma_query_value(None, name, |row| row.get(0)).map_err(wrong)
    };
    let (application, format) = (number(&db, "application_id")?, number(&db, "user_version")?);
    let new = application == 0 && format == 0 && number(&db, "schema_version")? == 0;
    if !new && application != APPLICATION_ID {
        let what = "it is a database, but no store of MAOS".to_owned();
        return Err(StoreError::Damaged { path: path.to_owned(), what });
    }
    if format > FORMAT {
        return Err(StoreError::TooNew { path: path.to_owned(), found: format, known: FORMAT });
    }
    if !new && format < FORMAT_WITHOUT_ENTRIES {
        return Err(StoreError::TooOld { path: path.to_owned(), found: format, known: FORMAT });
    }
    prepare(&mut db, new, format).map_err(wrong)?;
    Ok(db)
}

fn prepare(db: &mut Connection, new: bool, format: u32) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "cache_size", -65_536)?;
    db.pragma_update(None, "wal_autocheckpoint", 8_000)?;
    db.pragma_update(None, "journal_size_limit", 64 << 20)?;
    if new || format < FORMAT {
        let transaction = db.transaction()?;
        if new {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        if new || format <= FORMAT_WITHOUT_ENTRIES {
            transaction.execute_batch(ENTRIES)?;
        }
        if new || format <= FORMAT_THAT_COUNTS {
            transaction.execute_batch(NO_TRIGGERS)?;
            gone::prepare(&transaction)?;
        }
        transaction.pragma_update(None, "user_version", FORMAT)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Writes a portion in one transaction.
pub(super) fn write(db: &mut Connection, portion: &Portion) -> rusqlite::Result<()> {
    // Deletions have a connection of their own: the lock is taken before anything is read.
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut next = next_number(&transaction)?;
    let (mut tags, mut fresh) = (facets::Tags::default(), Vec::new());
    let mut counts = Counts::new();
    // In the order of the ids, so that the trees grow at their ends.
    let mut tasks: Vec<&TaskRecord> = portion.tasks().collect();
    tasks.sort_unstable_by_key(|record| record.id);
    let mut sealer = Sealer::default();
    let mut amended = Vec::new();
    for record in tasks {
        if record.amended() {
            amended.extend(facets::take_back(&transaction, record)?);
        }
        let number = put_task(&transaction, record, next, &mut counts, &mut sealer)?;
        if number == next {
            // It is here for the first time: what it is found by does not change later.
            facets::put_tags(&transaction, &mut tags, number, record)?;
            fresh.push((number, record));
            next += 1;
        } else if amended.last().is_some_and(|(last, _)| *last == number) {
            facets::put_tags(&transaction, &mut tags, number, record)?;
            fresh.push((number, record));
        }
    }
    tags.count(&transaction)?;
    count(&transaction, &counts)?;
    for (_, before) in &amended {
        facets::drop_unused(&transaction, before)?;
    }
    for record in &portion.agents {
        transaction.prepare_cached("INSERT OR REPLACE INTO agents VALUES (?, ?, ?)")?.execute(
            params![
                bytes(record.spec.id.0),
                record.end.is_some(),
                sealer.seal_value(Kind::Agent, record)
            ],
        )?;
    }
    transaction
        .prepare_cached(
            "DELETE FROM keys WHERE root IN (SELECT root FROM keys WHERE until <= ? LIMIT ?)",
        )?
        .execute(params![portion.engine.at.0, FORGOTTEN_MAX])?;
    let engine = sealer.seal_value(Kind::Engine, &portion.engine);
    transaction.prepare_cached("INSERT OR REPLACE INTO engine VALUES (1, ?)")?.execute([engine])?;
    for entry in &portion.entries {
        put_entry(&transaction, entry, &mut sealer)?;
    }
    facets::remove_words(&transaction, &amended)?;
    facets::put_words(&transaction, &fresh)?;
    transaction.commit()
}

fn put_entry(
    transaction: &Transaction<'_>,
    entry: &EntryRecord,
    sealer: &mut Sealer,
) -> rusqlite::Result<()> {
    let done = match entry.value {
        Some(_) => transaction
            .prepare_cached("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)")?
            .execute(params![entry.register, entry.key, sealer.seal_value(Kind::Entry, entry)]),
        None => transaction
            .prepare_cached("DELETE FROM entries WHERE register = ? AND key = ?")?
            .execute(params![entry.register, entry.key]),
    };
    done.map(drop)
}

/// How many more tasks have which status and priority.
type Counts = BTreeMap<(u8, u8), i64>;

fn count(transaction: &Transaction<'_>, counts: &Counts) -> rusqlite::Result<()> {
    let sql = "UPDATE counts SET tasks = tasks + ? WHERE status = ? AND priority = ?";
    let mut update = transaction.prepare_cached(sql)?;
    for ((status, priority), more) in counts.iter().filter(|(_, more)| **more != 0) {
        update.execute(params![more, status, priority])?;
    }
    Ok(())
}

fn next_number(transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
    let mut query = transaction.prepare_cached("SELECT max(number) FROM tasks")?;
    let highest: Option<i64> = query.query_row((), |row| row.get(0))?;
    Ok(highest.unwrap_or(0) + 1)
}

/// Writes a row and says its number: `next` if the task is here for the first time.
fn put_task(
    transaction: &Transaction<'_>,
    record: &TaskRecord,
    next: i64,
    counts: &mut Counts,
    sealer: &mut Sealer,
) -> rusqlite::Result<i64> {
    let is_root = record.plan.root == record.id;
    let (id, agent) = (bytes(record.id.0), ran_by(record).map(|agent| bytes(agent.0)));
    let (status, priority) = (status(&record.stage), record.spec.priority as u8);
    let (ended, live) = (record.times.ended.map(|ended| ended.0), is_live(record));
    let sealed = sealer.seal_value(Kind::Task, record);
    let known: Option<(i64, u8, u8)> = transaction
        .prepare_cached(FIND_TASK)?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    *counts.entry((status, priority)).or_default() += 1;
    let number = match known {
        Some((number, was_status, was_priority)) => {
            *counts.entry((was_status, was_priority)).or_default() -= 1;
            let given = params![number, status, priority, agent, ended, live, sealed];
            transaction.prepare_cached(CHANGED_TASK)?.execute(given)?;
            number
        }
        None => {
            let given = params![
                next,
                id,
                is_root.then(|| bytes(record.plan.id.0)),
                (!is_root).then(|| bytes(record.plan.root.0)),
                record.parent().map(|parent| bytes(parent.0)),
                status,
                priority,
                agent,
                record.times.created.0,
                ended,
                live,
                sealed,
            ];
            transaction.prepare_cached(NEW_TASK)?.execute(given)?;
            next
        }
    };
    facets::put_documents(transaction, number, record)?;
    if is_root && record.plan.idempotency.is_some() {
        let plan = sealer.seal_value(Kind::Plan, &*record.plan);
        transaction
            .prepare_cached("INSERT OR REPLACE INTO keys VALUES (?, ?, ?)")?
            .execute(params![bytes(record.id.0), record.plan.idempotency_until.0, plan])?;
    }
    Ok(number)
}

/// What an engine needs to go on: whole plans with something live in them, agents, keys.
pub(super) fn load(db: &Connection, path: &Path) -> Result<Rows<Vec<TaskRecord>>, StoreError> {
    let engine = load_engine(db, path)?;
    let (tasks, roots) = load_live(db, path)?;
    let mut agents: Vec<AgentRecord> =
        read_all(db, path, Kind::Agent, "SELECT record FROM agents", ())?;
    let holders = holders(&tasks);
    agents.retain(|agent| agent.end.is_none() || holders.contains(&agent.spec.id));
    let keys = "SELECT plan FROM keys WHERE until > ?";
    let mut remembered: Vec<PlanRecord> = read_all(db, path, Kind::Plan, keys, [engine.at.0])?;
    remembered.retain(|plan| !roots.contains(&plan.root));
    let entries = read_all(db, path, Kind::Entry, "SELECT record FROM entries", ())?;
    Ok(Rows { engine, agents, tasks, remembered, entries })
}

/// The position of the rows.
pub(super) fn position(db: &Connection, path: &Path) -> Result<Position, StoreError> {
    load_engine(db, path).map(|engine| engine.position)
}

fn load_engine(db: &Connection, path: &Path) -> Result<EngineRecord, StoreError> {
    let engine: Option<Vec<u8>> = db
        .query_row("SELECT record FROM engine", (), |row| row.get(0))
        .optional()
        .map_err(|fault| sqlite_fault(path, fault))?;
    match engine {
        Some(sealed) => codec::open_value(Kind::Engine, &sealed)
            .map_err(|fault| unopened(path, "the engine's row", &fault)),
        None => Ok(EngineRecord::default()),
    }
}

/// Whom a task is listed under: who runs it, or ran it last before its end.
fn ran_by(record: &TaskRecord) -> Option<AgentId> {
    let shown = matches!(record.stage, Stage::Running { .. }) || record.stage.ended();
    record.ran_by.filter(|_| shown && record.subtasks().is_empty())
}

fn holder(stage: &Stage) -> Option<AgentId> {
    if let Stage::Running { agent, .. } = stage { Some(*agent) } else { None }
}

/// Who holds an attempt: such an agent is needed even when it has ended.
fn holders(tasks: &[TaskRecord]) -> HashSet<AgentId> {
    let mut holders = HashSet::new();
    for task in tasks {
        holders.extend(holder(&task.stage));
        holders.extend(task.stopping.iter().map(|held| held.agent));
    }
    holders
}

fn load_live(
    db: &Connection,
    path: &Path,
) -> Result<(Vec<TaskRecord>, HashSet<TaskId>), StoreError> {
    let live = "SELECT record FROM tasks INDEXED BY tasks_live WHERE live = 1";
    let mut tasks: Vec<TaskRecord> = read_all(db, path, Kind::Task, live, ())?;
    let mut roots: HashSet<TaskId> = HashSet::new();
    let mut larger: HashSet<TaskId> = HashSet::new();
    for task in &tasks {
        roots.insert(task.plan.root);
        if task.id != task.plan.root || !task.subtasks().is_empty() {
            larger.insert(task.plan.root);
        }
    }
    // The ended tasks of live plans.
    let ended = "SELECT record FROM tasks WHERE live = 0 AND id = ?1
                 UNION ALL SELECT record FROM tasks WHERE live = 0 AND root = ?1";
    for root in larger {
        tasks.append(&mut read_all(db, path, Kind::Task, ended, [bytes(root.0)])?);
    }
    Ok((tasks, roots))
}

/// Opens and decodes the first column of every row.
pub(super) fn read_all<T: for<'b> Decode<'b, ()>>(
    db: &Connection,
    path: &Path,
    kind: Kind,
    sql: &str,
    given: impl rusqlite::Params,
) -> Result<Vec<T>, StoreError> {
    let wrong = |fault| sqlite_fault(path, fault);
    let mut query = db.prepare_cached(sql).map_err(wrong)?;
    let mut rows = query.query(given).map_err(wrong)?;
    let mut values = Vec::new();
    while let Some(row) = rows.next().map_err(wrong)? {
        values.push(value(row, path, kind)?);
    }
    Ok(values)
}

fn value<T: for<'b> Decode<'b, ()>>(
    row: &Row<'_>,
    path: &Path,
    kind: Kind,
) -> Result<T, StoreError> {
    let sealed = row.get_ref(0).map_err(|fault| sqlite_fault(path, fault))?;
    let sealed = sealed.as_blob().map_err(|_| StoreError::Damaged {
        path: path.to_owned(),
        what: format!("a row of kind {kind:?} holds no bytes"),
    })?;
    codec::open_value(kind, sealed)
        .map_err(|fault| unopened(path, &format!("a row of kind {kind:?}"), &fault))
}

pub(super) fn bytes(id: u128) -> [u8; 16] {
    id.to_be_bytes()
}

pub(super) fn is_live(record: &TaskRecord) -> bool {
    !record.stage.ended() || !record.stopping.is_empty()
}

fn status(stage: &Stage) -> u8 {
    match stage {
        Stage::Waiting | Stage::Parked { .. } => 0,
        Stage::Ready { .. } => 1,
        Stage::Running { .. } | Stage::Active => 2,
        Stage::Backoff { .. } => 3,
        Stage::Completed(_) | Stage::Collected => 4,
        Stage::Failed(_) => 5,
        Stage::Cancelled { .. } => 6,
    }
}

/// The stored number of a status by its wire name; `None` for one that no task has.
pub(super) fn status_number(name: &str) -> Option<u8> {
    STATUS_NAMES.iter().zip(0..).find_map(|(known, number)| (*known == name).then_some(number))
}
