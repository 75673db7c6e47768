//! Two sorted sets for the two ways in which the engine's keys come and go: `Runs` for keys that
//! arrive almost in order and leave from the front, `Ranked` for few of which the first counts.
//!
//! Both do what `BTreeSet` does, and cost less where the engine spends its time: the tree allocates
//! its root anew whenever it was empty, and looks at every key along its right edge to append one.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

/// So many ascending runs at most; what fits none of them lies in a tree.
const RUNS_MAX: usize = 8;

/// Keys to a piece of a run: growing moves no more than these.
const CHUNK: usize = 512;

/// A set of keys as ascending runs, like the piles of patience sorting: a queue in which everybody
/// has one of few head starts (priorities, timeouts) is that many runs, and nothing is searched to
/// add to it.
#[derive(Clone, Debug)]
pub(crate) struct Runs<K> {
    runs: Vec<Run<K>>,
    strays: BTreeSet<K>,
    first: Option<K>,
    count: usize,
}

/// Keys in ascending order. One that was taken from the middle keeps its place until half of them
/// are such.
#[derive(Clone, Debug)]
struct Run<K> {
    chunks: VecDeque<VecDeque<Place<K>>>,
    present: usize,
    gone: usize,
}

#[derive(Clone, Copy, Debug)]
struct Place<K> {
    key: K,
    present: bool,
}

impl<K> Default for Runs<K> {
    fn default() -> Self {
        Runs { runs: Vec::new(), strays: BTreeSet::new(), first: None, count: 0 }
    }
}

impl<K: Ord + Copy> Runs<K> {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a key that is not there yet.
    pub(crate) fn insert(&mut self, key: K) {
        self.count += 1;
        self.first = Some(self.first.map_or(key, |first| first.min(key)));
        if let Some(run) = self.runs.iter_mut().find(|run| run.last().is_none_or(|last| last < key))
        {
            return run.push(key);
        }
        if self.runs.len() == RUNS_MAX {
            self.strays.insert(key);
            return;
        }
        let mut run = Run::default();
        run.push(key);
        self.runs.push(run);
    }

    /// Takes a key out; says whether it was there.
    pub(crate) fn remove(&mut self, key: &K) -> bool {
        let held = self.runs.iter_mut().any(|run| run.remove(key)) || self.strays.remove(key);
        self.count -= usize::from(held);
        if self.first.as_ref() == Some(key) {
            let fronts = self.runs.iter().filter_map(Run::first);
            self.first = fronts.chain(self.strays.first().copied()).min();
        }
        held
    }

    pub(crate) fn first(&self) -> Option<K> {
        self.first
    }

    /// How many keys come before this one; counts no further than `most`.
    pub(crate) fn count_before(&self, key: &K, most: usize) -> usize {
        let runs = self.runs.iter().flat_map(|run| run.iter().take_while(|held| held < key));
        runs.chain(self.strays.range(..key).copied()).take(most).count()
    }

    /// All keys, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = K> {
        self.runs.iter().flat_map(Run::iter).chain(self.strays.iter().copied())
    }
}

impl<K> Default for Run<K> {
    fn default() -> Self {
        Run { chunks: VecDeque::new(), present: 0, gone: 0 }
    }
}

impl<K: Ord + Copy> Run<K> {
    fn iter(&self) -> impl Iterator<Item = K> {
        self.chunks.iter().flatten().filter(|place| place.present).map(|place| place.key)
    }

    /// The first key is always present: those before it leave with it.
    fn first(&self) -> Option<K> {
        self.chunks.front()?.front().map(|place| place.key)
    }

    /// The last key, present or not: what is added must lie behind it.
    fn last(&self) -> Option<K> {
        self.chunks.back()?.back().map(|place| place.key)
    }

    fn push(&mut self, key: K) {
        self.present += 1;
        let place = Place { key, present: true };
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push_back(place),
            Some(_) | None => self.chunks.push_back(VecDeque::from([place])),
        }
    }

    fn remove(&mut self, key: &K) -> bool {
        if self.first() == Some(*key) {
            self.present -= 1;
            self.drop_front();
            while self.chunks.front().and_then(VecDeque::front).is_some_and(|place| !place.present)
            {
                self.gone -= 1;
                self.drop_front();
            }
            return true;
        }
        let Some(place) = self.find(key).filter(|place| place.present) else { return false };
        place.present = false;
        self.present -= 1;
        self.gone += 1;
        if self.gone > self.present.max(CHUNK) {
            self.tidy();
        }
        true
    }

    fn find(&mut self, key: &K) -> Option<&mut Place<K>> {
        let before = |chunk: &VecDeque<Place<K>>| chunk.back().is_some_and(|last| last.key < *key);
        let chunk = self.chunks.partition_point(before);
        let chunk = self.chunks.get_mut(chunk)?;
        let index = chunk.binary_search_by(|place| place.key.cmp(key)).ok()?;
        chunk.get_mut(index)
    }

    fn drop_front(&mut self) {
        let Some(chunk) = self.chunks.front_mut() else { return };
        chunk.pop_front();
        // The last chunk stays: a run that is often empty need not allocate each time.
        if chunk.is_empty() && self.chunks.len() > 1 {
            self.chunks.pop_front();
        }
    }

    fn tidy(&mut self) {
        for chunk in &mut self.chunks {
            chunk.retain(|place| place.present);
        }
        self.chunks.retain(|chunk| !chunk.is_empty());
        self.gone = 0;
    }
}

/// A set whose first key lies apart: while there is only one, no tree is touched.
#[derive(Clone, Debug)]
pub(crate) struct Ranked<K> {
    first: Option<K>,
    rest: BTreeSet<K>,
}

impl<K> Default for Ranked<K> {
    fn default() -> Self {
        Ranked { first: None, rest: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Ranked<K> {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn insert(&mut self, key: K) {
        match self.first {
            None => self.first = Some(key),
            Some(first) if first == key => {}
            Some(first) if key < first => {
                self.first = Some(key);
                self.rest.insert(first);
            }
            Some(_) => {
                self.rest.insert(key);
            }
        }
    }

    /// Takes a key out; says whether it was there.
    pub(crate) fn remove(&mut self, key: &K) -> bool {
        if self.first.as_ref() != Some(key) {
            return self.rest.remove(key);
        }
        self.first = self.rest.pop_first();
        true
    }

    /// In ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &K> {
        self.first.iter().chain(&self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator of numbers that are the same in every run.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040);
            (self.0 >> 33) % bound
        }
    }

    fn same(runs: &Runs<u64>, model: &BTreeSet<u64>) {
        assert_eq!(runs.first(), model.first().copied());
        assert_eq!((runs.len(), runs.is_empty()), (model.len(), model.is_empty()));
        assert_eq!(&runs.iter().collect::<BTreeSet<_>>(), model);
        let middle = model.iter().nth(model.len() / 2).copied().unwrap_or(7);
        let before = model.range(..middle).count();
        assert_eq!(runs.count_before(&middle, usize::MAX), before);
        assert_eq!(runs.count_before(&middle, 3), before.min(3));
    }

    #[test]
    fn runs_are_the_set_that_a_tree_would_be() {
        for seed in 0..20 {
            let mut dice = Dice(seed);
            let (mut runs, mut model) = (Runs::default(), BTreeSet::new());
            for now in 0..6_000_u64 {
                // Few head starts, many of them, or none at all: piles, strays, one run.
                let key = 1_000 * now + 1_000_000 * dice.below([4, 4_000, 1][seed as usize % 3]);
                if model.insert(key) {
                    runs.insert(key);
                }
                let victim = match dice.below(4) {
                    0 => model.first().copied(),
                    1 => model.range(dice.below(6_000_000)..).next().copied(),
                    2 if now > 3_000 => model.last().copied(),
                    _ => Some(5),
                };
                if let Some(victim) = victim {
                    assert_eq!(runs.remove(&victim), model.remove(&victim));
                }
                if now % 97 == 0 {
                    same(&runs, &model);
                }
            }
            while let Some(first) = model.pop_first() {
                assert!(runs.remove(&first));
                assert_eq!(runs.first(), model.first().copied());
            }
            same(&runs, &model);
        }
    }

    #[test]
    fn what_is_taken_from_the_middle_does_not_pile_up() {
        let mut runs = Runs::default();
        runs.insert(0);
        for key in 1..100_000_u64 {
            runs.insert(key);
            assert!(runs.remove(&key));
        }
        let places: usize = runs.runs.iter().flat_map(|run| &run.chunks).map(VecDeque::len).sum();
        assert!(places <= 2 * CHUNK, "{places} places for one key");
    }

    #[test]
    fn ranked_is_the_set_that_a_tree_would_be() {
        let mut dice = Dice(1);
        let (mut ranked, mut model) = (Ranked::default(), BTreeSet::new());
        for _ in 0..10_000 {
            let key = dice.below(8);
            if dice.below(2) == 0 {
                ranked.insert(key);
                model.insert(key);
            } else {
                assert_eq!(ranked.remove(&key), model.remove(&key));
            }
            assert!(ranked.iter().eq(&model));
            assert_eq!(ranked.is_empty(), model.is_empty());
        }
    }
}
