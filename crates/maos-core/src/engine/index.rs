//! Where each task is, by its id: a hash table of slots, which leaves the ids to the tasks.
//!
//! Every report looks its task up, and what it looks at is rarely in the processor's cache. So an
//! entry is small, and whoever finds one looks at a task that is needed next in any case.

use hashbrown::HashTable;

use crate::ids::TaskId;
use crate::slab::{Slab, Slot};
use crate::task::Task;

/// The slots of tasks by their ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskIndex(HashTable<Entry>);

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// A part of the id, to tell most others from it without a look at their tasks.
    tag: u32,
    slot: Slot,
}

impl Entry {
    /// Out of the tag alone: growing looks at no task.
    fn hash(&self) -> u64 {
        spread(self.tag)
    }
}

fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The low words of a version 7 UUID are random; ids of tests count.
fn tag_of(id: TaskId) -> u32 {
    let [.., a, b, c, d] = id.0.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

impl TaskIndex {
    pub(crate) fn get(&self, tasks: &Slab<Task>, id: TaskId) -> Option<Slot> {
        let tag = tag_of(id);
        let is_it = |entry: &Entry| entry.tag == tag && tasks[entry.slot].id == id;
        self.0.find(spread(tag), is_it).map(|entry| entry.slot)
    }

    /// Notes a task that is in its slot already and under an id that is not noted yet.
    pub(crate) fn insert(&mut self, tasks: &Slab<Task>, slot: Slot) {
        let id = tasks[slot].id;
        assert!(self.get(tasks, id).is_none(), "a task's id is never used twice");
        let tag = tag_of(id);
        self.0.insert_unique(spread(tag), Entry { tag, slot }, Entry::hash);
    }

    /// Forgets a task that is in its slot still.
    pub(crate) fn remove(&mut self, tasks: &Slab<Task>, slot: Slot) {
        let tag = tag_of(tasks[slot].id);
        let entry = self.0.find_entry(spread(tag), |entry| entry.slot == slot);
        entry.expect("a task is found by its id").remove();
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}
