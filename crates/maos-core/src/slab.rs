//! A vector with holes: stable small indexes for tasks and agents, freed ones used again.

use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

/// A place in a slab. Only good while its value is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(u32);

#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<Slot>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> Slot {
        if let Some(slot) = self.free.pop() {
            *self.place(slot) = Some(value);
            return slot;
        }
        let slot = Slot(u32::try_from(self.places.len()).expect("bounded by LIVE_TASKS_MAX"));
        self.places.push(Some(value));
        slot
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> T {
        let value = self.place(slot).take().expect("a slot is removed once");
        self.free.push(slot);
        value
    }

    pub(crate) fn count(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        (0u32..)
            .map(Slot)
            .zip(&self.places)
            .filter_map(|(slot, place)| Some((slot, place.as_ref()?)))
    }

    fn place(&mut self, slot: Slot) -> &mut Option<T> {
        &mut self.places[index(slot)]
    }
}

impl<T> Index<Slot> for Slab<T> {
    type Output = T;

    fn index(&self, slot: Slot) -> &T {
        self.places[index(slot)].as_ref().expect("a slot in use points at a value")
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
