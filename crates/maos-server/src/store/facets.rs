//! What a task is found by beside its columns: words, tags, and the documents it refers to.
//!
//! Its law: `remove` takes back exactly what `put` and `put_documents` wrote, in the same
//! transaction as the row itself. The search index keeps no text, so its entries are taken back
//! with the words of the record.

use maos_core::payload::Payload;
use maos_core::record::{Stage, TaskRecord};
use rusqlite::{Transaction, params};

/// Writes what is fixed from a task's first row on.
pub(super) fn put(
    transaction: &Transaction<'_>,
    number: i64,
    record: &TaskRecord,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO search (rowid, name, description, tags) VALUES (?, ?, ?, ?)")?
        .execute(params![
            number,
            record.spec.name,
            record.spec.description.as_deref().unwrap_or_default(),
            words(record)
        ])?;
    for tag in record.spec.tags.iter() {
        let id: i64 = transaction
            .prepare_cached(
                "INSERT INTO tags (name, tasks) VALUES (?, 1)
                 ON CONFLICT (name) DO UPDATE SET tasks = tasks + 1 RETURNING id",
            )?
            .query_row([tag], |row| row.get(0))?;
        transaction.prepare_cached("INSERT INTO tagged VALUES (?, ?, ?)")?.execute(params![
            id,
            record.times.created.0,
            number
        ])?;
    }
    Ok(())
}

/// Notes the documents in the blob store that a task refers to. A result that a later one took the
/// place of stays noted until the task goes.
pub(super) fn put_documents(
    transaction: &Transaction<'_>,
    number: i64,
    record: &TaskRecord,
) -> rusqlite::Result<()> {
    let result = match &record.stage {
        Stage::Completed(result) => Some(result),
        _ => None,
    };
    let payloads = [Some(&record.spec.parameters), record.spec.metadata.as_deref(), result];
    for payload in payloads.into_iter().flatten() {
        if let Payload::Stored { hash, .. } = payload {
            transaction
                .prepare_cached("INSERT OR IGNORE INTO documents VALUES (?, ?)")?
                .execute(params![number, hash])?;
        }
    }
    Ok(())
}

/// Takes everything back, the row itself as well.
pub(super) fn remove(
    transaction: &Transaction<'_>,
    number: i64,
    record: &TaskRecord,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO search (search, rowid, name, description, tags)
             VALUES ('delete', ?, ?, ?, ?)",
        )?
        .execute(params![
            number,
            record.spec.name,
            record.spec.description.as_deref().unwrap_or_default(),
            words(record)
        ])?;
    for tag in record.spec.tags.iter() {
        let id: i64 = transaction
            .prepare_cached("UPDATE tags SET tasks = tasks - 1 WHERE name = ? RETURNING id")?
            .query_row([tag], |row| row.get(0))?;
        transaction
            .prepare_cached("DELETE FROM tagged WHERE tag = ? AND created = ? AND number = ?")?
            .execute(params![id, record.times.created.0, number])?;
        transaction.prepare_cached("DELETE FROM tags WHERE id = ? AND tasks = 0")?.execute([id])?;
    }
    transaction.prepare_cached("DELETE FROM documents WHERE number = ?")?.execute([number])?;
    transaction.prepare_cached("DELETE FROM tasks WHERE number = ?")?.execute([number])?;
    Ok(())
}

fn words(record: &TaskRecord) -> String {
    let mut words = String::new();
    for tag in record.spec.tags.iter() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(tag);
    }
    words
}
