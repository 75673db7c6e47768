//! The rows of a portion as they were handed in, and where the newest version of each task is.
//!
//! A burst leaves a million rows here: what finds them takes 8 bytes each and leaves the ids to the
//! rows.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use maos_core::ids::TaskId;
use maos_core::record::TaskRecord;

/// Rows in the groups in which they came, so that taking them in moves nothing; older versions of a
/// row stay.
#[derive(Debug, Default)]
pub(super) struct NewestRows {
    groups: Vec<Vec<TaskRecord>>,
    places: HashTable<Place>,
    hasher: DefaultHashBuilder,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    group: u32,
    row: u32,
}

impl Place {
    fn of(group: usize, row: usize) -> Place {
        let narrow = |place| u32::try_from(place).expect("a backlog has fewer rows");
        Place { group: narrow(group), row: narrow(row) }
    }

    fn record(self, groups: &[Vec<TaskRecord>]) -> &TaskRecord {
        let wide = |place| usize::try_from(place).expect("a u32 fits an address");
        &groups[wide(self.group)][wide(self.row)]
    }
}

impl NewestRows {
    pub(super) fn with_capacity(tasks: usize) -> NewestRows {
        NewestRows { places: HashTable::with_capacity(tasks), ..NewestRows::default() }
    }

    /// Takes rows in; each is told, with whether it is the first one of its task.
    pub(super) fn add(&mut self, rows: Vec<TaskRecord>, mut tell: impl FnMut(&TaskRecord, bool)) {
        let (group, count) = (self.groups.len(), rows.len());
        self.groups.push(rows);
        let (groups, hasher) = (&self.groups, &self.hasher);
        for row in 0..count {
            let place = Place::of(group, row);
            let record = place.record(groups);
            let hash = hasher.hash_one(record.id);
            let older = self.places.find_mut(hash, |held| held.record(groups).id == record.id);
            tell(record, older.is_none());
            match older {
                Some(older) => *older = place,
                None => {
                    let hash_of = |held: &Place| hasher.hash_one(held.record(groups).id);
                    self.places.insert_unique(hash, place, hash_of);
                }
            }
        }
    }

    pub(super) fn get(&self, id: TaskId) -> Option<&TaskRecord> {
        let is_it = |held: &Place| held.record(&self.groups).id == id;
        let place = self.places.find(self.hasher.hash_one(id), is_it)?;
        Some(place.record(&self.groups))
    }

    /// The newest version of each task, in any order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &TaskRecord> {
        self.places.iter().map(|place| place.record(&self.groups))
    }

    /// How many tasks there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}
