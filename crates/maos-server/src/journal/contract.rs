//! What every journal must do, tested through the port alone.

use maos_core::ids::{Epoch, Position, Sequence};

use super::{Batch, Journal, JournalError, MemoryJournal};
use crate::codec::{self, Kind};

/// A batch whose bytes say which one it is.
pub(super) fn batch(epoch: u64, first: u64, last: u64) -> Batch {
    let sealed = codec::seal(Kind::Steps, format!("{epoch}-{first}-{last}").as_bytes());
    Batch { epoch: Epoch(epoch), first: Sequence(first), last: Sequence(last), sealed }
}

/// The first steps of the batches that a replay visits.
pub(super) fn firsts(journal: &mut impl Journal, after: u64) -> Vec<u64> {
    let mut firsts = Vec::new();
    journal
        .replay(Sequence(after), &mut |found| {
            assert_eq!(found, batch_or_own(&found));
            firsts.push(found.first.0);
            Ok(())
        })
        .unwrap();
    firsts
}

/// Batches of this suite say who they are; others only have to open.
fn batch_or_own(found: &Batch) -> Batch {
    codec::check(Kind::Steps, &found.sealed).unwrap();
    let own = batch(found.epoch.0, found.first.0, found.last.0);
    if found.sealed.len() == own.sealed.len() { own } else { found.clone() }
}

/// Runs the suite; `make` gives an empty journal, and what must outlive it.
pub(super) fn check<J: Journal, Keep>(make: &mut dyn FnMut() -> (J, Keep)) {
    empty_journals_know_nothing(&mut make().0);
    batches_come_back_in_order(&mut make().0);
    a_repeated_append_counts_once(&mut make().0);
    older_epochs_are_fenced(&mut make().0);
    trimming_keeps_the_head(&mut make().0);
    a_visitor_may_stop(&mut make().0);
}

fn empty_journals_know_nothing(journal: &mut impl Journal) {
    assert_eq!(journal.head(), Position::default());
    assert_eq!(journal.epoch(), Epoch(0));
    assert_eq!(firsts(journal, 0), [0; 0]);
    journal.trim(Sequence(5)).unwrap();
    assert_eq!(journal.head(), Position::default());
}

fn batches_come_back_in_order(journal: &mut impl Journal) {
    for (epoch, first, last) in [(1, 1, 3), (1, 4, 4), (2, 5, 9)] {
        journal.append(&batch(epoch, first, last)).unwrap();
        assert_eq!(journal.head().sequence, Sequence(last));
    }
    assert_eq!(journal.head().epoch, Epoch(2));
    assert_eq!(firsts(journal, 0), [1, 4, 5]);
    // A batch that begins before and ends after comes whole.
    assert_eq!(firsts(journal, 2), [1, 4, 5]);
    assert_eq!(firsts(journal, 3), [4, 5]);
    assert_eq!(firsts(journal, 9), [0; 0]);
}

fn a_repeated_append_counts_once(journal: &mut impl Journal) {
    journal.append(&batch(1, 1, 2)).unwrap();
    journal.append(&batch(1, 1, 2)).unwrap();
    journal.append(&batch(1, 3, 3)).unwrap();
    assert_eq!(firsts(journal, 0), [1, 3]);
}

fn older_epochs_are_fenced(journal: &mut impl Journal) {
    journal.claim(Epoch(2)).unwrap();
    journal.append(&batch(2, 1, 1)).unwrap();
    journal.claim(Epoch(5)).unwrap();
    let fenced = |result| matches!(result, Err(JournalError::Fenced { claimed: Epoch(5), .. }));
    assert!(fenced(journal.append(&batch(2, 2, 2))));
    assert!(fenced(journal.claim(Epoch(5))) && fenced(journal.claim(Epoch(4))));
    assert_eq!(journal.epoch(), Epoch(5));
    journal.append(&batch(5, 2, 2)).unwrap();
    assert_eq!(firsts(journal, 0), [1, 2]);
}

fn trimming_keeps_the_head(journal: &mut impl Journal) {
    for (first, last) in [(1, 3), (4, 6), (7, 9)] {
        journal.append(&batch(1, first, last)).unwrap();
    }
    journal.trim(Sequence(5)).unwrap();
    assert_eq!(firsts(journal, 3), [4, 7]);
    let gone = journal.replay(Sequence(2), &mut |_| panic!("nothing may be visited"));
    assert!(matches!(gone, Err(JournalError::Damaged { .. })));
    journal.trim(Sequence(100)).unwrap();
    assert_eq!(journal.head(), Position { epoch: Epoch(1), sequence: Sequence(9) });
    assert_eq!(firsts(journal, 9), [0; 0]);
    journal.append(&batch(1, 10, 10)).unwrap();
    assert_eq!(firsts(journal, 9), [10]);
}

fn a_visitor_may_stop(journal: &mut impl Journal) {
    journal.append(&batch(1, 1, 1)).unwrap();
    journal.append(&batch(1, 2, 2)).unwrap();
    let mut seen = 0;
    let stopped = journal.replay(Sequence(0), &mut |_| {
        seen += 1;
        Err(JournalError::InUse { path: "x".into() })
    });
    assert!(matches!(stopped, Err(JournalError::InUse { .. })));
    assert_eq!(seen, 1);
}

#[test]
fn memory_keeps_the_contract() {
    check(&mut || (MemoryJournal::new(), ()));
}

#[test]
fn memory_fails_as_it_is_told_and_takes_the_batch_later() {
    let mut journal = MemoryJournal::new();
    journal.fail_next(2);
    for _ in 0..2 {
        assert!(matches!(journal.append(&batch(1, 1, 1)), Err(JournalError::Full { .. })));
        assert_eq!(journal.head(), Position::default());
    }
    journal.append(&batch(1, 1, 1)).unwrap();
    journal.append(&batch(1, 2, 2)).unwrap();
    journal.sealed_mut(1)[9] ^= 1;
    let mut visited = 0;
    let fault = journal.replay(Sequence(0), &mut |_| {
        visited += 1;
        Ok(())
    });
    assert!(matches!(fault, Err(JournalError::Damaged { .. })));
    assert_eq!(visited, 1);
}
