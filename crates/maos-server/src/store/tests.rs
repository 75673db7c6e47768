//! The store through its door: write, read, fail, recover, back up.

use std::path::Path;
use std::sync::Arc;

use maos_core::event::AgentEnd;
use maos_core::ids::{Epoch, Sequence, TaskId};
use maos_core::record::TaskRecord;

use super::samples::{agent, changes, done, position, ready, step, stopping, task, with_key};
use super::*;
use crate::codec;
use crate::journal::{Batch, Journal, SqliteJournal};

fn open(path: &Path) -> (Store, Rows<Vec<TaskRecord>>) {
    Store::open(&Arc::new(DataDir::open(path).unwrap())).unwrap()
}

fn ids(tasks: &[TaskRecord]) -> Vec<u128> {
    let mut ids: Vec<u128> = tasks.iter().map(|task| task.id.0).collect();
    ids.sort_unstable();
    ids
}

/// Writes, closes, opens anew.
fn reopened(given: Vec<Changes>) -> Rows<Vec<TaskRecord>> {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    for changes in given {
        store.write(changes);
    }
    store.close();
    let (store, rows) = open(folder.path());
    store.close();
    rows
}

#[test]
fn what_is_live_is_loaded_with_its_whole_plan_and_nothing_else() {
    let mut gone = agent(8);
    gone.end = Some(AgentEnd::Lost);
    let mut forgotten = agent(9);
    forgotten.end = Some(AgentEnd::Terminated);
    let given = Changes {
        agents: vec![agent(7), gone, forgotten],
        ..changes(
            4,
            vec![
                task(10, 10, ready()),
                task(20, 20, done()),
                // A live plan with an ended subtask.
                task(30, 30, ready()),
                task(30, 31, done()),
                task(30, 32, ready()),
                // An ended plan that still holds an agent.
                task(40, 40, done()),
                stopping(task(40, 41, done()), 8),
            ],
        )
    };
    let rows = reopened(vec![given]);
    assert_eq!(ids(&rows.tasks), [10, 30, 31, 32, 40, 41]);
    assert_eq!(rows.engine.position, position(4));
    let agents: Vec<u128> = rows.agents.iter().map(|agent| agent.spec.id.0).collect();
    assert_eq!(agents, [7, 8], "who serves or holds something");
}

#[test]
fn keys_of_ended_plans_are_remembered_until_they_expire() {
    let given = changes(
        1,
        vec![
            with_key(task(1, 1, done()), "kept", 101),
            with_key(task(2, 2, done()), "expired", 100),
            with_key(task(3, 3, ready()), "of a live plan", 101),
        ],
    );
    let rows = reopened(vec![given]);
    let keys: Vec<u128> = rows.remembered.iter().map(|plan| plan.root.0).collect();
    assert_eq!(keys, [1]);
    assert_eq!(ids(&rows.tasks), [3]);
}

#[test]
fn the_newest_version_of_a_row_wins() {
    let first = changes(1, vec![task(1, 1, ready()), task(2, 2, ready())]);
    let second = changes(2, vec![task(1, 1, done())]);
    let rows = reopened(vec![first, second]);
    assert_eq!(ids(&rows.tasks), [2]);
    assert_eq!(rows.engine.position, position(2));
}

#[tokio::test]
async fn a_row_is_found_at_every_moment_and_listed_once_it_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    for number in 1..=300_u64 {
        let id = u128::from(number);
        store.write(changes(number, vec![task(id, id, ready())]));
        store.write(changes(number, vec![task(id, id, done())]));
        for known in [1, id] {
            let found = store.task(TaskId(known)).unwrap().expect("it was handed in");
            assert_eq!(found.stage, done());
            assert_eq!(ids(&store.plan(TaskId(known)).unwrap()), [known]);
        }
    }
    store.reach(Sequence(300)).await;
    assert_eq!(*store.synced().borrow(), position(300));
    assert_eq!(store.backlog(), Backlog::default());
    assert!(store.task(TaskId(301)).unwrap().is_none());
    store.close();
}

#[tokio::test]
async fn counts_follow_every_change_of_a_status() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    store.write(changes(1, vec![task(1, 1, ready()), task(2, 2, ready())]));
    store.reach(Sequence(1)).await;
    store.write(changes(2, vec![task(1, 1, done())]));
    store.reach(Sequence(2)).await;
    let counts = store.counts().unwrap();
    assert!(counts.contains(&("ready", 1)) && counts.contains(&("completed", 1)), "{counts:?}");
    store.close();
}

#[tokio::test]
async fn a_store_that_counted_by_itself_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    store.write(changes(1, vec![task(1, 1, ready())]));
    store.close();
    drop(store);
    let before = "
        CREATE TRIGGER task_new AFTER INSERT ON tasks BEGIN
            UPDATE counts SET tasks = tasks + 1 WHERE status = new.status;
        END;
        CREATE TRIGGER task_moved AFTER UPDATE OF status ON tasks BEGIN
            UPDATE counts SET tasks = tasks + 1 WHERE status = new.status;
        END;
        DROP TABLE gone;
        PRAGMA user_version = 3;";
    let file = folder.path().join("store.db");
    rusqlite::Connection::open(&file).unwrap().execute_batch(before).unwrap();
    let (store, _) = open(folder.path());
    store.write(changes(2, vec![task(1, 1, done()), task(2, 2, done())]));
    store.reach(Sequence(2)).await;
    let counts = store.counts().unwrap();
    assert!(counts.contains(&("ready", 0)) && counts.contains(&("completed", 2)), "{counts:?}");
    store.close();
}

#[test]
fn a_full_disk_drops_nothing_and_writing_goes_on_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut db = table::open(&path).unwrap();
    let shared = Shared::default();
    let tasks = (1..500).map(|id| task(id, id, done())).collect();
    shared.add(changes(1, tasks));
    let portion = shared.take().unwrap();
    let pages: u32 = db.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    db.pragma_update(None, "max_page_count", pages + 5).unwrap();
    let fault = sqlite_fault(&path, table::write(&mut db, &portion).unwrap_err());
    assert!(matches!(fault, StoreError::Full { .. }));
    assert!(shared.failed(fault.to_string(), std::time::Duration::ZERO));
    assert!(shared.health().unwrap_err().contains("no space left"));
    assert!(shared.task(TaskId(7)).is_some() && shared.figures().rows == 499);
    assert_eq!(table::load(&db, &path).unwrap().engine.position, Default::default());
    db.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    table::write(&mut db, &portion).unwrap();
    shared.written();
    assert_eq!((shared.health(), shared.figures()), (Ok(()), Backlog::default()));
    assert_eq!(table::load(&db, &path).unwrap().engine.position, position(1));
}

#[test]
fn a_damaged_or_newer_store_is_refused_by_name() {
    for (sql, said) in [
        ("PRAGMA application_id = 5", "no store of MAOS"),
        ("PRAGMA user_version = 9", "has format 9"),
        ("PRAGMA user_version = 1", "has format 1"),
        ("UPDATE tasks SET record = zeroblob(40)", "is damaged"),
        ("UPDATE engine SET record = x'4d6f09'", "is damaged"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(folder.path());
        store.write(changes(1, vec![task(1, 1, ready())]));
        store.close();
        drop(store);
        let file = folder.path().join("store.db");
        rusqlite::Connection::open(&file).unwrap().execute_batch(sql).unwrap();
        let dir = Arc::new(DataDir::open(folder.path()).unwrap());
        let refusal = Store::open(&dir).unwrap_err().to_string();
        assert!(refusal.contains(said) && refusal.contains("hint: "), "{sql}: {refusal}");
    }
}

/// Journals steps 1 to `head` in batches of two, and the store up to `kept`; trims to `trimmed`.
fn directory(path: &Path, head: u64, kept: u64, trimmed: u64) {
    let dir = Arc::new(DataDir::open(path).unwrap());
    let mut journal = SqliteJournal::open(&dir).unwrap();
    for first in (1..=head).step_by(2) {
        let steps = [step(first), step(first + 1)];
        let (first, last) = (Sequence(first), Sequence(first + 1));
        let sealed = codec::seal_steps(&steps);
        journal.append(&Batch { epoch: Epoch(1), first, last, sealed }).unwrap();
    }
    journal.trim(Sequence(trimmed)).unwrap();
    let (store, _) = Store::open(&dir).unwrap();
    if kept > 0 {
        let tasks = (1..=kept.into()).map(|id| task(id, id, ready())).collect();
        store.write(changes(kept, tasks));
    }
    store.close();
}

fn replayed(path: &Path) -> Result<(usize, Vec<u64>), StoreError> {
    let mut opened = recovery::open(path)?;
    let mut sequences = Vec::new();
    opened.replay(&mut |sequence, found| {
        assert_eq!(found, step(sequence.0));
        sequences.push(sequence.0);
    })?;
    opened.store.close();
    Ok((opened.rows.tasks.len(), sequences))
}

#[test]
fn recovery_works_at_every_point_between_journal_and_store() {
    for kept in 0..=6 {
        for trimmed in [0, kept] {
            let folder = tempfile::tempdir().unwrap();
            directory(folder.path(), 6, kept, trimmed);
            let (rows, steps) = replayed(folder.path()).unwrap();
            assert_eq!(rows as u64, kept);
            assert_eq!(steps, (kept + 1..=6).collect::<Vec<_>>());
        }
    }
}

#[test]
fn journals_and_stores_that_do_not_belong_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    directory(folder.path(), 4, 5, 0);
    assert!(matches!(replayed(folder.path()), Err(StoreError::AheadOfJournal { .. })));
    let folder = tempfile::tempdir().unwrap();
    directory(folder.path(), 6, 2, 4);
    let refusal = replayed(folder.path()).unwrap_err().to_string();
    assert!(refusal.contains("in neither journal nor store"), "{refusal}");
    let folder = tempfile::tempdir().unwrap();
    directory(folder.path(), 2, 0, 0);
    let dir = Arc::new(DataDir::open(folder.path()).unwrap());
    assert!(matches!(
        recovery::open(folder.path()),
        Err(StoreError::Journal(JournalError::InUse { .. }))
    ));
    drop(dir);
}

#[tokio::test]
async fn a_backup_is_taken_while_in_use_and_restored_only_whole_and_into_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [data, copy, back] = ["data", "copy", "back"].map(|name| folder.path().join(name));
    directory(&data, 6, 4, 2);
    let opened = recovery::open(&data).unwrap();
    let hash = opened.blobs.write(b"a document".to_vec()).await.unwrap();
    // One that is on its way is no part of it.
    std::fs::write(data.join("blobs/0190.partial"), "x").unwrap();
    backup::backup(&data, &copy).unwrap();
    assert!(matches!(backup::backup(&data, &copy), Err(StoreError::NotEmpty { .. })));
    backup::restore(&copy, &back).unwrap();
    assert!(matches!(backup::restore(&copy, &back), Err(StoreError::NotEmpty { .. })));
    assert_eq!(replayed(&back).unwrap(), (4, vec![5, 6]));
    let restored = recovery::open(&back).unwrap();
    assert_eq!(restored.node, opened.node);
    assert_eq!(restored.blobs.read(&hash).await.unwrap(), b"a document");
    restored.store.close();
    opened.store.close();
    let mut bytes = std::fs::read(copy.join("store.db")).unwrap();
    bytes[5_000] ^= 1;
    std::fs::write(copy.join("store.db"), bytes).unwrap();
    let refusal = backup::restore(&copy, &folder.path().join("other")).unwrap_err().to_string();
    assert!(refusal.contains("`store.db` has the hash"), "{refusal}");
}

#[tokio::test]
async fn what_went_before_anybody_counted_is_what_is_not_there_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let mut given = changes(1, vec![task(1, 1, done()), task(2, 2, done()), task(2, 3, done())]);
    (given.engine.counters.tasks_submitted, given.engine.counters.plans_created) = (7, 4);
    store.write(given);
    store.reach(Sequence(1)).await;
    assert_eq!(store.gone().unwrap(), (0, 0));
    store.close();
    drop(store);
    let db = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    db.execute_batch("DROP TABLE gone; PRAGMA user_version = 3").unwrap();
    drop(db);
    let (store, _) = open(folder.path());
    assert_eq!(store.gone().unwrap(), (4, 2));
    assert_eq!(store.remove(&[TaskId(2)]).unwrap(), [Removed::Gone(2)]);
    assert_eq!(store.gone().unwrap(), (6, 3));
    store.close();
}
