//! The feed: what those who watch are told, and a memory of the last of it for who comes back.
//!
//! Its law: a reader gets every change behind its place in order, or is told that some are lost. It
//! never waits for a reader. It must not know the engine, the driver or HTTP.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use maos_api::events::EventId;
use maos_core::change::Change;
use maos_core::ids::{Epoch, Position, Sequence};
use tokio::sync::watch;

/// Changes that are remembered: a reader may fall behind, or be away, by so many.
const REMEMBERED_MAX: usize = 65_536;
/// Changes that a reader is handed at once.
const PORTION_MAX: usize = 256;

/// One change and its place.
#[derive(Debug)]
pub(crate) struct Told {
    /// Its place.
    pub(crate) id: EventId,
    /// The change.
    pub(crate) change: Change,
}

#[derive(Debug, Default)]
struct Memory {
    told: VecDeque<Arc<Told>>,
    /// The number of the first that is remembered; they are counted from 0.
    first: u64,
    /// Everything behind this is remembered; `None`: nothing was watched yet.
    complete_after: Option<EventId>,
    /// Each reader holds one; clones of the feed do not.
    readers: Arc<()>,
}

/// Hands changes to readers. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    memory: Arc<Mutex<Memory>>,
    /// How many were told in all; gone when nothing more will be.
    count: Arc<watch::Sender<u64>>,
}

/// One reader and its place.
#[derive(Debug)]
pub(crate) struct Reader {
    memory: Arc<Mutex<Memory>>,
    count: watch::Receiver<u64>,
    next: u64,
    gap: bool,
    _counted: Arc<()>,
}

/// What a reader gets.
#[derive(Debug)]
pub(crate) enum Portion {
    /// Changes, in order.
    Changes(Vec<Arc<Told>>),
    /// Some are lost; what is remembered follows.
    Gap,
}

impl Default for Feed {
    fn default() -> Feed {
        let count = Arc::new(watch::Sender::new(0));
        Feed { memory: Arc::default(), count }
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().expect("nothing panics while it holds this lock")
}

impl Feed {
    /// Notes from which step on everything is told; once.
    pub(crate) fn begin(&self, position: Position) {
        let Position { epoch, sequence } = position;
        let id = EventId { epoch: epoch.0, sequence: sequence.0, index: u32::MAX };
        lock(&self.memory).complete_after.get_or_insert(id);
    }

    /// Whether it was begun.
    #[must_use]
    pub(crate) fn has_begun(&self) -> bool {
        lock(&self.memory).complete_after.is_some()
    }

    /// How many read it.
    #[must_use]
    pub(crate) fn readers_count(&self) -> usize {
        Arc::strong_count(&lock(&self.memory).readers) - 1
    }

    /// Takes the changes of one durable step.
    pub(crate) fn tell(&self, epoch: Epoch, sequence: Sequence, changes: Vec<Change>) {
        let mut memory = lock(&self.memory);
        for (index, change) in (0..).zip(changes) {
            let id = EventId { epoch: epoch.0, sequence: sequence.0, index };
            memory.told.push_back(Arc::new(Told { id, change }));
        }
        while memory.told.len() > REMEMBERED_MAX {
            let dropped = memory.told.pop_front();
            memory.complete_after = dropped.map(|told| told.id);
            memory.first += 1;
        }
        let count = memory.first + memory.told.len() as u64;
        drop(memory);
        self.count.send_replace(count);
    }

    /// A reader of what is told from now on, or of all behind `after`.
    #[must_use]
    pub(crate) fn read(&self, after: Option<EventId>) -> Reader {
        let memory = lock(&self.memory);
        let end = memory.first + memory.told.len() as u64;
        let (next, gap) = match after {
            None => (end, false),
            Some(after) => {
                let at = memory.told.partition_point(|told| told.id <= after) as u64;
                // A place ahead of all that was told is of another journal: where its reader was
                // in this one nobody knows.
                let told = memory.told.back().map(|told| told.id).max(memory.complete_after);
                let ahead = told.is_some_and(|told| told < after);
                let complete = memory.complete_after.is_some_and(|known| known <= after);
                (memory.first + if ahead { 0 } else { at }, !complete || ahead)
            }
        };
        let (count, counted) = (self.count.subscribe(), memory.readers.clone());
        drop(memory);
        Reader { memory: self.memory.clone(), count, next, gap, _counted: counted }
    }

    /// Tells readers that nothing more will come.
    pub(crate) fn close(&self) {
        self.count.send_replace(u64::MAX);
    }
}

impl Reader {
    /// The next changes, as soon as there are some; `None` when nothing more will come.
    pub(crate) async fn next(&mut self) -> Option<Portion> {
        loop {
            if std::mem::take(&mut self.gap) {
                return Some(Portion::Gap);
            }
            let count = *self.count.borrow_and_update();
            if let Some(portion) = self.take() {
                return Some(portion);
            }
            if count == u64::MAX {
                return None;
            }
            self.count.changed().await.ok()?;
        }
    }

    fn take(&mut self) -> Option<Portion> {
        let memory = lock(&self.memory);
        if self.next < memory.first {
            self.next = memory.first;
            return Some(Portion::Gap);
        }
        let skip = usize::try_from(self.next - memory.first).unwrap_or(usize::MAX);
        let changes: Vec<Arc<Told>> =
            memory.told.iter().skip(skip).take(PORTION_MAX).cloned().collect();
        self.next += changes.len() as u64;
        (!changes.is_empty()).then_some(Portion::Changes(changes))
    }
}

#[cfg(test)]
mod tests {
    use maos_core::change::AgentTurn;
    use maos_core::event::AgentEnd;
    use maos_core::time::WallTime;

    use super::*;
    use crate::store::samples;

    fn change() -> Change {
        let agent = samples::agent(1).spec;
        Change::Agent { agent, turn: AgentTurn::Ended(AgentEnd::Lost), at: WallTime(1) }
    }

    fn tell(feed: &Feed, sequence: u64) {
        feed.tell(Epoch(1), Sequence(sequence), vec![change()]);
    }

    async fn sequences(reader: &mut Reader) -> Vec<u64> {
        match reader.next().await {
            Some(Portion::Changes(told)) => told.iter().map(|told| told.id.sequence).collect(),
            Some(Portion::Gap) => vec![],
            None => panic!("the feed was closed"),
        }
    }

    #[tokio::test]
    async fn who_comes_back_goes_on_behind_its_last_event() {
        let feed = Feed::default();
        feed.begin(Position { epoch: Epoch(1), sequence: Sequence(4) });
        (5..=8).for_each(|sequence| tell(&feed, sequence));
        let after = |sequence| Some(EventId { epoch: 1, sequence, index: 0 });
        assert_eq!(sequences(&mut feed.read(after(6))).await, [7, 8]);
        // Nothing is known of what was before it was begun.
        let mut early = feed.read(after(3));
        assert!(sequences(&mut early).await.is_empty());
        assert_eq!(sequences(&mut early).await, [5, 6, 7, 8]);
        // Nor is a place behind the end one of this feed's.
        let mut ahead = feed.read(after(9));
        assert!(matches!(ahead.next().await, Some(Portion::Gap)));
        assert_eq!(sequences(&mut ahead).await, [5, 6, 7, 8]);
        drop(ahead);
        let mut fresh = feed.read(None);
        tell(&feed, 9);
        assert_eq!(sequences(&mut fresh).await, [9]);
        assert_eq!(feed.clone().readers_count(), 2);
        feed.close();
        assert!(fresh.next().await.is_none());
    }

    #[tokio::test]
    async fn who_falls_behind_is_told_that_something_is_lost() {
        let feed = Feed::default();
        feed.begin(Position { epoch: Epoch(1), sequence: Sequence(0) });
        let mut slow = feed.read(None);
        let count = u64::try_from(REMEMBERED_MAX).unwrap() + 10;
        (1..=count).for_each(|sequence| tell(&feed, sequence));
        assert!(matches!(slow.next().await, Some(Portion::Gap)));
        assert_eq!(sequences(&mut slow).await[0], 11);
        let after = Some(EventId { epoch: 1, sequence: 10, index: 0 });
        assert_eq!(sequences(&mut feed.read(after)).await[0], 11, "it has missed nothing");
    }
}
