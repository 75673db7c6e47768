//! What a task is found by beside its columns: words, tags, and the documents it refers to.
//!
//! Its law: what was put is taken back exactly, in the same transaction as the row itself. The
//! search index keeps no text, so its entries are taken back with the words of the record.

use std::borrow::Cow;

use hashbrown::HashMap;
use maos_core::payload::Payload;
use maos_core::record::{Stage, TaskRecord};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::codec::{self, Kind};

/// The tags that one transaction meets: each is looked up once, and counted at the end.
#[derive(Default)]
pub(super) struct Tags {
    /// Its id, and how many more tasks have it.
    met: HashMap<Box<str>, (i64, u64)>,
}

impl Tags {
    fn meet(&mut self, transaction: &Transaction<'_>, tag: &str) -> rusqlite::Result<i64> {
        if let Some((id, more)) = self.met.get_mut(tag) {
            *more += 1;
            return Ok(*id);
        }
        let known = transaction
            .prepare_cached("SELECT id FROM tags WHERE name = ?")?
            .query_row([tag], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => transaction
                .prepare_cached("INSERT INTO tags (name, tasks) VALUES (?, 0) RETURNING id")?
                .query_row([tag], |row| row.get(0))?,
        };
        self.met.insert(tag.into(), (id, 1));
        Ok(id)
    }

    /// Adds what was met to the counts.
    pub(super) fn count(self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        for (id, more) in self.met.into_values() {
            transaction
                .prepare_cached("UPDATE tags SET tasks = tasks + ? WHERE id = ?")?
                .execute(params![more, id])?;
        }
        Ok(())
    }
}

/// The word by which the tasks that came in by a door are found: no tag is like it, as none holds a
/// NUL.
pub(super) fn door(origin: &str) -> String {
    format!("\0{origin}")
}

/// What a task is found by as if it were a tag.
fn tags_of(record: &TaskRecord) -> impl Iterator<Item = Cow<'_, str>> {
    let doors = record.spec.rare().origin.iter().map(|origin| Cow::Owned(door(origin)));
    record.spec.tags.iter().map(Cow::Borrowed).chain(doors)
}

/// Writes the words of tasks whose first row was written, by their numbers.
///
/// It must come last in a transaction: a statement that could fail halfway makes the index write
/// out everything it has gathered, which for each row by itself costs more than all the rest.
pub(super) fn put_words(
    transaction: &Transaction<'_>,
    fresh: &[(i64, &TaskRecord)],
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO search (rowid, name, description, tags) VALUES (?, ?, ?, ?)";
    let mut insert = transaction.prepare_cached(sql)?;
    for (number, record) in fresh {
        insert.execute(params![
            number,
            record.spec.name,
            record.spec.description.as_deref().unwrap_or_default(),
            words(record)
        ])?;
    }
    Ok(())
}

/// Writes the tags of a task whose first row was written.
pub(super) fn put_tags(
    transaction: &Transaction<'_>,
    tags: &mut Tags,
    number: i64,
    record: &TaskRecord,
) -> rusqlite::Result<()> {
    for tag in tags_of(record) {
        let id = tags.meet(transaction, &tag)?;
        transaction.prepare_cached("INSERT INTO tagged VALUES (?, ?, ?)")?.execute(params![
            id,
            record.times.created.0,
            number
        ])?;
    }
    Ok(())
}

/// Takes back the tags of a task whose specification has changed, if those or its words have; says
/// its number and the record that its words are to be taken back with.
pub(super) fn take_back(
    transaction: &Transaction<'_>,
    record: &TaskRecord,
) -> rusqlite::Result<Option<(i64, TaskRecord)>> {
    let sql = "SELECT number, record FROM tasks WHERE id = ?";
    let found = transaction
        .prepare_cached(sql)?
        .query_row([record.id.0.to_be_bytes()], |row| {
            Ok((row.get(0)?, opened(row.get_ref(1)?.as_blob()?)?))
        })
        .optional()?;
    let changed = |held: &TaskRecord| held.spec.tags != record.spec.tags;
    let Some((number, held)) = found.filter(|(_, held)| changed(held)) else { return Ok(None) };
    remove_tags(transaction, number, &held)?;
    Ok(Some((number, held)))
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
    let artifacts = record.artifacts().iter().map(|artifact| &artifact.content);
    for payload in payloads.into_iter().flatten().chain(artifacts) {
        if let Payload::Stored(stored) = payload {
            transaction
                .prepare_cached("INSERT OR IGNORE INTO documents VALUES (?, ?)")?
                .execute(params![number, stored.hash])?;
        }
    }
    Ok(())
}

/// Takes back the words of tasks, by their numbers. Last in a transaction, as [`put_words`].
pub(super) fn remove_words(
    transaction: &Transaction<'_>,
    gone: &[(i64, TaskRecord)],
) -> rusqlite::Result<()> {
    let mut delete = transaction.prepare_cached(
        "INSERT INTO search (search, rowid, name, description, tags)
         VALUES ('delete', ?, ?, ?, ?)",
    )?;
    for (number, record) in gone {
        delete.execute(params![
            number,
            record.spec.name,
            record.spec.description.as_deref().unwrap_or_default(),
            words(record)
        ])?;
    }
    Ok(())
}

/// Takes everything else back, the row itself as well.
pub(super) fn remove(
    transaction: &Transaction<'_>,
    number: i64,
    record: &TaskRecord,
) -> rusqlite::Result<()> {
    remove_tags(transaction, number, record)?;
    drop_unused(transaction, record)?;
    transaction.prepare_cached("DELETE FROM documents WHERE number = ?")?.execute([number])?;
    transaction.prepare_cached("DELETE FROM tasks WHERE number = ?")?.execute([number])?;
    Ok(())
}

/// A task's row as SQLite's functions hand it on.
pub(super) fn opened(sealed: &[u8]) -> rusqlite::Result<TaskRecord> {
    codec::open_value(Kind::Task, sealed).map_err(|fault| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Blob, fault.into())
    })
}

/// Forgets tags that a task had and no other has. Behind [`Tags::count`]: what is counted at the
/// end of a transaction is in use before.
pub(super) fn drop_unused(
    transaction: &Transaction<'_>,
    record: &TaskRecord,
) -> rusqlite::Result<()> {
    for tag in tags_of(record) {
        transaction
            .prepare_cached("DELETE FROM tags WHERE name = ? AND tasks = 0")?
            .execute([&*tag])?;
    }
    Ok(())
}

fn remove_tags(
    transaction: &Transaction<'_>,
    number: i64,
    record: &TaskRecord,
) -> rusqlite::Result<()> {
    for tag in tags_of(record) {
        let id: i64 = transaction
            .prepare_cached("UPDATE tags SET tasks = tasks - 1 WHERE name = ? RETURNING id")?
            .query_row([&*tag], |row| row.get(0))?;
        transaction
            .prepare_cached("DELETE FROM tagged WHERE tag = ? AND created = ? AND number = ?")?
            .execute(params![id, record.times.created.0, number])?;
    }
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
