//! What every journal must do, and what only a file can suffer.

use maos_core::event::{Event, Step};
use maos_core::ids::{Epoch, NodeId, Sequence};
use maos_core::time::Moment;

use super::*;
use crate::codec;

fn batch(epoch: u64, first: u64, last: u64) -> Batch {
    let node = NodeId(7);
    let step = Step {
        moment: Moment::default(),
        events: vec![Event::EpochBegan { epoch: Epoch(epoch), node }],
    };
    let steps: Vec<Step> = (first..=last).map(|_| step.clone()).collect();
    let (first, last) = (Sequence(first), Sequence(last));
    Batch { epoch: Epoch(epoch), first, last, sealed: codec::seal_steps(&steps) }
}

fn replayed(journal: &mut dyn Journal, after: u64) -> Result<Vec<Batch>, JournalError> {
    let mut batches = vec![];
    journal.replay(Sequence(after), &mut |batch| {
        batches.push(batch);
        Ok(())
    })?;
    Ok(batches)
}

/// The contract: `reopen` gives the journal as a new process would find it.
fn check(mut reopen: impl FnMut(Option<Box<dyn Journal>>) -> Box<dyn Journal>) {
    let mut journal = reopen(None);
    assert_eq!((journal.head(), journal.epoch()), (Position::default(), Epoch(0)));
    journal.claim(Epoch(1)).unwrap();
    for written in [batch(1, 1, 3), batch(1, 4, 4), batch(1, 5, 9)] {
        journal.append(&written).unwrap();
    }
    let mut journal = reopen(Some(journal));
    assert_eq!(journal.head(), Position { epoch: Epoch(1), sequence: Sequence(9) });
    assert_eq!(replayed(&mut *journal, 0).unwrap().len(), 3);
    assert_eq!(replayed(&mut *journal, 3).unwrap(), [batch(1, 4, 4), batch(1, 5, 9)]);
    assert_eq!(replayed(&mut *journal, 6).unwrap(), [batch(1, 5, 9)]);
    assert!(replayed(&mut *journal, 9).unwrap().is_empty());

    journal.claim(Epoch(2)).unwrap();
    assert!(matches!(journal.claim(Epoch(2)), Err(JournalError::Fenced { .. })));
    assert!(matches!(journal.append(&batch(1, 10, 10)), Err(JournalError::Fenced { .. })));
    journal.append(&batch(2, 10, 10)).unwrap();

    journal.trim(Sequence(6)).unwrap();
    let mut journal = reopen(Some(journal));
    assert_eq!(journal.epoch(), Epoch(2));
    assert_eq!(replayed(&mut *journal, 4).unwrap(), [batch(1, 5, 9), batch(2, 10, 10)]);
    assert!(matches!(replayed(&mut *journal, 2), Err(JournalError::Damaged { .. })));
    journal.trim(Sequence(10)).unwrap();
    let journal = reopen(Some(journal));
    assert_eq!(journal.head(), Position { epoch: Epoch(2), sequence: Sequence(10) });
}

#[test]
fn a_memory_journal_keeps_the_contract() {
    check(|journal| journal.unwrap_or_else(|| Box::<MemoryJournal>::default()));
}

#[test]
fn an_sqlite_journal_keeps_the_contract_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    check(|journal| {
        drop(journal);
        Box::new(SqliteJournal::open(&folder.path().join("journal.db")).unwrap())
    });
}

#[test]
fn a_failed_append_keeps_nothing_and_may_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let mut full = SqliteJournal::open(&folder.path().join("journal.db")).unwrap();
    full.append(&batch(1, 1, 1)).unwrap();
    full.limit_pages(12);
    let large = batch(1, 2, 9_000);
    let error = full.append(&large).unwrap_err();
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    assert!(error.to_string().contains("free some space"));
    assert_eq!(full.head().sequence, Sequence(1));
    full.limit_pages(1 << 30);
    full.append(&large).unwrap();
    assert_eq!(replayed(&mut full, 0).unwrap().len(), 2);

    let mut failing = MemoryJournal::failing(1);
    assert!(failing.append(&batch(1, 1, 1)).is_err());
    failing.append(&batch(1, 1, 1)).unwrap();
}

/// Damages the file of a journal with three batches and says what opening and replaying it finds.
fn after_damage(damage: impl Fn(&rusqlite::Connection)) -> JournalError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let mut journal = SqliteJournal::open(&path).unwrap();
    for written in [batch(1, 1, 3), batch(1, 4, 4), batch(1, 5, 9)] {
        journal.append(&written).unwrap();
    }
    drop(journal);
    let connection = rusqlite::Connection::open(&path).unwrap();
    damage(&connection);
    drop(connection);
    match SqliteJournal::open(&path) {
        Err(error) => error,
        Ok(mut journal) => replayed(&mut journal, 0).unwrap_err(),
    }
}

#[test]
fn damage_is_refused_with_what_to_do() {
    for (sql, expected) in [
        ("DELETE FROM batches WHERE first = 4", "step 4 is missing"),
        ("DELETE FROM batches WHERE first = 1", "step 1 is missing"),
        ("UPDATE batches SET sealed = substr(sealed, 1, 20) WHERE first = 4", "steps 4 to 4"),
        ("UPDATE batches SET sealed = x'00' WHERE first = 5", "steps 5 to 9"),
    ] {
        let error = after_damage(|connection| drop(connection.execute_batch(sql)));
        let text = error.to_string();
        assert!(matches!(error, JournalError::Damaged { .. }), "{sql}: {text}");
        assert!(text.contains(expected) && text.contains("maos restore"), "{sql}: {text}");
    }
    let newer = after_damage(|connection| {
        connection.pragma_update(None, "user_version", 99).unwrap();
    });
    assert!(matches!(newer, JournalError::TooNew { found: 99, .. }), "{newer}");
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    std::fs::write(&path, b"this is not a database, whatever its name says".repeat(100)).unwrap();
    let error = SqliteJournal::open(&path).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
}
