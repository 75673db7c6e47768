//! A vector with holes: stable small indexes for tasks and agents, freed ones used again.

use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

/// A place in a slab. Only good while its value is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(u32);

/// In chunks, so that growing never moves what is there.
#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<Slot>,
}

const CHUNK: usize = 1_024;

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { chunks: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> Slot {
        if let Some(slot) = self.free.pop() {
            *self.place(slot) = Some(value);
            return slot;
        }
        let slot = Slot(u32::try_from(self.places_count()).expect("bounded by LIVE_TASKS_MAX"));
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(Some(value)),
            Some(_) | None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(Some(value));
                self.chunks.push(chunk);
            }
        }
        slot
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> T {
        let value = self.place(slot).take().expect("a slot is removed once");
        self.free.push(slot);
        value
    }

    /// Drops a value where it lies.
    pub(crate) fn discard(&mut self, slot: Slot) {
        let place = self.place(slot);
        assert!(place.is_some(), "a slot is removed once");
        *place = None;
        self.free.push(slot);
    }

    /// The value in this place; `None` when it is free.
    pub(crate) fn get(&self, slot: Slot) -> Option<&T> {
        let index = index(slot);
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)?.as_ref()
    }

    pub(crate) fn count(&self) -> usize {
        self.places_count() - self.free.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        (0u32..)
            .map(Slot)
            .zip(self.chunks.iter().flatten())
            .filter_map(|(slot, place)| Some((slot, place.as_ref()?)))
    }

    fn place(&mut self, slot: Slot) -> &mut Option<T> {
        let index = index(slot);
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }

    fn places_count(&self) -> usize {
        match self.chunks.split_last() {
            Some((last, full)) => full.len() * CHUNK + last.len(),
            None => 0,
        }
    }
}

impl<T> Index<Slot> for Slab<T> {
    type Output = T;

    fn index(&self, slot: Slot) -> &T {
        let index = index(slot);
        self.chunks[index / CHUNK][index % CHUNK].as_ref().expect("a slot in use points at a value")
    }
}

impl<T> IndexMut<Slot> for Slab<T> {
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        self.place(slot).as_mut().expect("a slot in use points at a value")
    }
}

fn index(slot: Slot) -> usize {
    usize::try_from(slot.0).expect("a u32 fits an address")
}
