//! Rows on their way to the file: bounded, readable, folded.
//!
//! Generations follow each other; within one, only the newest version of a row is kept. A generation is
//! written as a whole, so what is in the file is always the state at one position.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use maos_core::ids::{AgentId, TaskId};
use maos_core::record::{AgentRecord, EngineRecord, TaskRecord};

use crate::driver::Changes;

/// Rows at which a generation is closed: large enough to write fast, small enough to be done soon.
const GENERATION_ROWS: usize = 20_000;
/// Rows that may wait. Ten seconds of the highest rate, at about a kilobyte each.
const ROWS_MAX: usize = 3_000_000;

/// What waits to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BacklogSize {
    /// Rows.
    pub rows: u64,
    /// Bytes of their payloads, as far as they are inline.
    pub bytes: u64,
}

/// Rows up to one position.
#[derive(Debug, Default)]
pub(super) struct Generation {
    pub(super) engine: EngineRecord,
    pub(super) tasks: HashMap<TaskId, TaskRecord>,
    pub(super) agents: HashMap<AgentId, AgentRecord>,
    since: Option<Instant>,
}

#[derive(Default)]
pub(super) struct Backlog {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The first one may be about to be written, if `writing`.
    generations: VecDeque<Arc<Generation>>,
    writing: bool,
    rows: usize,
    bytes: u64,
    hurry: bool,
    closed: bool,
}

impl Backlog {
    pub(super) fn push(&self, changes: Changes) {
        let mut state = self.lock();
        let newest_is_open = state.generations.len() > usize::from(state.writing)
            && state.generations.back().is_some_and(|newest| newest.rows() < GENERATION_ROWS);
        if !newest_is_open {
            state.generations.push_back(Arc::new(Generation::default()));
        }
        let mut newest = state.generations.pop_back().expect("one was just made sure of");
        let open = Arc::get_mut(&mut newest).expect("only one being written is shared");
        open.engine = changes.engine;
        open.since.get_or_insert_with(Instant::now);
        let (mut rows, mut bytes) = (0, 0);
        for task in changes.tasks {
            let size = size_of(&task);
            match open.tasks.insert(task.id, task) {
                Some(older) => bytes += size.saturating_sub(size_of(&older)),
                None => {
                    rows += 1;
                    bytes += size;
                }
            }
        }
        for agent in changes.agents {
            rows += usize::from(open.agents.insert(agent.spec.id, agent).is_none());
        }
        state.rows += rows;
        state.bytes += bytes;
        state.generations.push_back(newest);
        drop(state);
        self.changed.notify_one();
    }

    /// The next generation to write; waits until there is one, and for a moment until it has gathered
    /// something. `None`: closed, and nothing is left.
    pub(super) fn next(&self, gather: Duration) -> Option<Arc<Generation>> {
        let mut state = self.lock();
        loop {
            let Some(first) = state.generations.front() else {
                if state.closed {
                    return None;
                }
                state = self.changed.wait(state).expect("nothing panics while it holds this lock");
                continue;
            };
            let age = first.since.map_or(gather, |since| since.elapsed());
            let due = state.generations.len() > 1
                || first.rows() >= GENERATION_ROWS
                || age >= gather
                || state.hurry
                || state.closed;
            if due {
                state.writing = true;
                state.hurry = false;
                return state.generations.front().cloned();
            }
            let waited = self.changed.wait_timeout(state, gather - age);
            state = waited.expect("nothing panics while it holds this lock").0;
        }
    }

    /// What `next` gave last is written.
    pub(super) fn done(&self) {
        let mut state = self.lock();
        state.writing = false;
        let Some(written) = state.generations.pop_front() else { return };
        state.rows -= written.rows();
        if state.generations.is_empty() {
            state.bytes = 0;
        } else {
            let bytes: u64 = written.tasks.values().map(size_of).sum();
            state.bytes = state.bytes.saturating_sub(bytes);
        }
        drop(state);
        // Freeing many rows takes a while; nobody need wait for it.
        drop(written);
    }

    /// Whoever waits for rows does not wait for more to gather.
    pub(super) fn hurry(&self) {
        self.lock().hurry = true;
        self.changed.notify_one();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    pub(super) fn closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn is_full(&self) -> bool {
        self.lock().rows >= ROWS_MAX
    }

    pub(super) fn size(&self) -> BacklogSize {
        let state = self.lock();
        BacklogSize { rows: state.rows as u64, bytes: state.bytes }
    }

    /// The newest version of a task that waits here.
    pub(super) fn task(&self, id: TaskId) -> Option<TaskRecord> {
        let state = self.lock();
        let newest_first = state.generations.iter().rev();
        newest_first.filter_map(|generation| generation.tasks.get(&id)).next().cloned()
    }

    /// The newest versions of all tasks of a plan that wait here.
    pub(super) fn plan(&self, root: TaskId) -> Vec<TaskRecord> {
        let state = self.lock();
        let mut newest: HashMap<TaskId, TaskRecord> = HashMap::new();
        for generation in &state.generations {
            let of_plan = generation.tasks.values().filter(|task| task.plan.root == root);
            newest.extend(of_plan.map(|task| (task.id, task.clone())));
        }
        newest.into_values().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }
}

impl Generation {
    fn rows(&self) -> usize {
        self.tasks.len() + self.agents.len()
    }
}

fn size_of(task: &TaskRecord) -> u64 {
    let inline = |payload: &maos_core::payload::Payload| match payload {
        maos_core::payload::Payload::Inline(document) => document.len() as u64,
        maos_core::payload::Payload::Stored { .. } => 0,
    };
    let result = match &task.stage {
        maos_core::record::Stage::Completed(result) => inline(result),
        _ => 0,
    };
    inline(&task.spec.parameters) + result
}
