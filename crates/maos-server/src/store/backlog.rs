//! Rows that wait for the store's thread, in portions that each end at a position.
//!
//! Its law: a portion is written whole, so every transaction is complete at its position; a row
//! stays here until it is committed, so that a reader who looks here first never misses it. Who
//! hands rows in only puts them down: they are sorted into portions by whoever looks next, which
//! in a burst is the store's thread.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use maos_core::ids::{AgentId, Sequence, TaskId};
use maos_core::payload::Payload;
use maos_core::record::{AgentRecord, EngineRecord, EntryRecord, Stage, TaskRecord};

use super::newest::NewestRows;
use super::{Backlog, Changes};

/// Rows at which a portion is closed and the next one begins: one transaction of less than a
/// second, which is how long a burst that begins meanwhile is held up by it.
const PORTION_ROWS: usize = 20_000;
/// How long rows gather before somebody looks whether to write them: one fsync then serves many
/// changes.
const LINGER: Duration = Duration::from_millis(50);
/// So many new rows while lingering are a burst: then the processor and the disk are the journal's,
/// and the store waits for what nobody needs to be there yet.
const BURST_ROWS: u64 = 500;
/// A burst is over when so many times in a row there was none while lingering: a commit of the
/// journal alone may take as long as that, and a store that begins then makes the next one longer.
const CALM_AFTER_BURST: u32 = 5;
/// A burst is not waited for longer than this, nor when more rows or bytes than these wait.
const HOLD_MAX: Duration = Duration::from_secs(10);
const HOLD_ROWS_MAX: u64 = super::BACKLOG_ROWS_MAX / 2;
const HOLD_BYTES_MAX: u64 = super::BACKLOG_BYTES_MAX / 2;
/// What a task's row takes in memory beside its texts and payloads: each version of it, and what
/// they have in common.
const VERSION_BYTES: u64 = size_of::<TaskRecord>() as u64;
const SPEC_BYTES: u64 = 250;
const AGENT_BYTES: u64 = 400;

/// Rows as of one position, each once.
#[derive(Debug, Default)]
pub(super) struct Portion {
    pub(super) engine: EngineRecord,
    pub(super) agents: Vec<AgentRecord>,
    rows: NewestRows,
    /// The subtasks of each plan by its root; a root is found by its own id.
    members: HashMap<TaskId, Vec<TaskId>>,
    agent_index: HashMap<AgentId, usize>,
    /// Few: each looks for its older version.
    pub(super) entries: Vec<EntryRecord>,
    bytes: u64,
    began: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first; the first may be on its way to disk.
    portions: VecDeque<Arc<Portion>>,
    /// The first portion is on its way and takes nothing more.
    writing: bool,
    rows: u64,
    bytes: u64,
    /// Rows that were ever sorted in.
    handed: u64,
    /// As it was when a portion was taken last.
    handed_before: u64,
    /// A burst began, and is not known to be over.
    bursting: bool,
    synced: Sequence,
    /// Somebody waits for this to be written.
    wanted: Sequence,
    closing: bool,
    fault: Option<String>,
}

/// What was handed in and is not sorted in yet, the oldest first.
#[derive(Debug, Default)]
struct Inbox {
    changes: Vec<Changes>,
    rows: u64,
    /// The thread is to look now.
    stirred: bool,
    closing: bool,
}

/// What the store's handles and its thread share. Who holds the state may take the inbox, never the
/// other way round.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    inbox: Mutex<Inbox>,
    arrived: Condvar,
}

impl Portion {
    fn add(&mut self, changes: Changes) {
        self.engine = changes.engine;
        self.rows.add(changes.tasks, |record, fresh| {
            self.bytes += version_bytes(record);
            if fresh || record.amended() {
                self.bytes += spec_bytes(record);
            }
            if fresh && record.id != record.plan.root {
                self.members.entry(record.plan.root).or_default().push(record.id);
            }
        });
        for entry in changes.entries {
            let same =
                |held: &EntryRecord| held.register == entry.register && held.key == entry.key;
            self.entries.retain(|held| !same(held));
            self.entries.push(entry);
        }
        for record in changes.agents {
            match self.agent_index.get(&record.spec.id) {
                Some(at) => self.agents[*at] = record,
                None => {
                    self.agent_index.insert(record.spec.id, self.agents.len());
                    self.agents.push(record);
                }
            }
        }
    }

    /// The newest version of each task, in any order.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &TaskRecord> {
        self.rows.iter()
    }

    fn plan(&self, root: TaskId) -> Vec<TaskRecord> {
        let members = self.members.get(&root).map(Vec::as_slice).unwrap_or_default();
        let tasks = std::iter::once(&root).chain(members).filter_map(|id| self.rows.get(*id));
        tasks.filter(|task| task.plan.root == root).cloned().collect()
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= PORTION_ROWS
    }

    fn rows_count(&self) -> u64 {
        (self.rows.len() + self.agents.len() + self.entries.len()) as u64
    }

    fn bytes(&self) -> u64 {
        self.bytes + AGENT_BYTES * self.agents.len() as u64
    }
}

impl State {
    fn add(&mut self, changes: Changes) {
        let writable = usize::from(self.writing);
        let fits = self.portions.len() > writable
            && self.portions.back().is_some_and(|last| !last.is_full());
        if !fits {
            // The next portion is likely to be about as large as the one before.
            let likely = self.portions.back().map_or(0, |last| last.rows.len());
            let rows = NewestRows::with_capacity(likely);
            let began = Some(Instant::now());
            self.portions.push_back(Arc::new(Portion { rows, began, ..Portion::default() }));
        }
        self.handed += changes.tasks.len() as u64;
        let last = self.portions.back_mut().expect("one was just there");
        let last = Arc::get_mut(last).expect("only the portion on its way is shared");
        let (rows, bytes) = (last.rows_count(), last.bytes());
        last.add(changes);
        self.rows = self.rows + last.rows_count() - rows;
        self.bytes = self.bytes + last.bytes() - bytes;
    }

    /// Whether the first portion must be written now, burst or not.
    fn is_due(&self) -> bool {
        let Some(first) = self.portions.front() else { return true };
        // What is left of a burst that is over.
        let quiet = first.is_full() && self.handed == self.handed_before;
        quiet
            || self.closing
            || self.wanted > self.synced
            || self.rows >= HOLD_ROWS_MAX
            || self.bytes >= HOLD_BYTES_MAX
            || first.began.is_some_and(|began| began.elapsed() >= HOLD_MAX)
    }
}

impl Shared {
    /// The state as it is.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("nothing panics while it holds this lock")
    }

    /// The state with everything that was handed in.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        let changes = {
            let mut inbox = self.inbox();
            inbox.rows = 0;
            std::mem::take(&mut inbox.changes)
        };
        changes.into_iter().for_each(|changes| state.add(changes));
        state
    }

    pub(super) fn add(&self, changes: Changes) {
        let mut inbox = self.inbox();
        inbox.rows += (changes.tasks.len() + changes.agents.len() + changes.entries.len()) as u64;
        inbox.changes.push(changes);
        // Who lingers looks by itself.
        if inbox.changes.len() == 1 {
            self.arrived.notify_all();
        }
    }

    /// Has the thread look now.
    fn stir(&self) {
        self.inbox().stirred = true;
        self.arrived.notify_all();
    }

    /// Waits until something was handed in, or somebody wants something.
    fn await_rows(&self) {
        let idle = |inbox: &mut Inbox| {
            inbox.changes.is_empty() && !inbox.closing && !std::mem::take(&mut inbox.stirred)
        };
        drop(self.arrived.wait_while(self.inbox(), idle));
    }

    /// Waits for a while, or until somebody wants something.
    fn linger(&self) {
        let lingers = |inbox: &mut Inbox| !inbox.closing && !std::mem::take(&mut inbox.stirred);
        drop(self.arrived.wait_timeout_while(self.inbox(), LINGER, lingers));
    }

    /// The next portion to write, once there is one; `None` when the store is closed and all is
    /// written.
    pub(super) fn take(&self) -> Option<Arc<Portion>> {
        let mut state = self.lock();
        while state.portions.is_empty() && !state.closing {
            drop(state);
            self.await_rows();
            state = self.lock();
        }
        let mut calm = 0;
        while !state.is_due() {
            let before = state.handed;
            drop(state);
            self.linger();
            state = self.lock();
            if state.is_due() {
                break;
            }
            if state.handed - before >= BURST_ROWS {
                (state.bursting, calm) = (true, 0);
                continue;
            }
            calm += 1;
            if !state.bursting || calm >= CALM_AFTER_BURST {
                state.bursting = false;
                break;
            }
        }
        state.handed_before = state.handed;
        state.writing = !state.portions.is_empty();
        state.portions.front().cloned()
    }

    /// The portion that was taken is durable.
    pub(super) fn written(&self) {
        let mut state = self.state();
        let portion = state.portions.pop_front().expect("the portion on its way is the first");
        state.writing = false;
        state.synced = portion.engine.position.sequence;
        state.rows -= portion.rows_count();
        state.bytes -= portion.bytes();
        state.fault = None;
        // Freeing many rows takes a while: not while the engine may want to hand in more.
        drop(state);
        drop(portion);
    }

    /// The portion that was taken could not be written. Waits before it is tried again; `false`
    /// when the store is being closed, so that it is not.
    pub(super) fn failed(&self, fault: String, pause: Duration) -> bool {
        self.state().fault = Some(fault);
        let (inbox, _) = self
            .arrived
            .wait_timeout_while(self.inbox(), pause, |inbox| !inbox.closing)
            .expect("nothing panics while it holds this lock");
        !inbox.closing
    }

    pub(super) fn hurry(&self, through: Sequence) {
        let mut state = self.state();
        state.wanted = state.wanted.max(through);
        drop(state);
        self.stir();
    }

    /// Where the database stood when it was opened.
    pub(super) fn begin_at(&self, position: Sequence) {
        self.state().synced = position;
    }

    pub(super) fn close(&self) {
        self.state().closing = true;
        self.inbox().closing = true;
        self.arrived.notify_all();
    }

    pub(super) fn figures(&self) -> Backlog {
        let state = self.state();
        let waiting = self.inbox().rows;
        let bytes = state.bytes + waiting * (VERSION_BYTES + SPEC_BYTES);
        Backlog { rows: state.rows + waiting, bytes }
    }

    pub(super) fn health(&self) -> Result<(), String> {
        self.state().fault.clone().map_or(Ok(()), Err)
    }

    pub(super) fn task(&self, id: TaskId) -> Option<TaskRecord> {
        let state = self.lock();
        state.portions.iter().rev().find_map(|portion| portion.rows.get(id).cloned())
    }

    /// Whether anything of the plan with this root waits here.
    pub(super) fn holds(&self, root: TaskId) -> bool {
        let state = self.lock();
        let holds = |portion: &Arc<Portion>| {
            portion.rows.get(root).is_some() || portion.members.contains_key(&root)
        };
        state.portions.iter().any(holds)
    }

    /// The newest versions of a plan's tasks that wait here.
    pub(super) fn plan(&self, root: TaskId) -> Vec<TaskRecord> {
        // Only the last portion still changes. The others are read without the lock, so that the
        // engine, which hands in rows, does not wait for large plans.
        let (frozen, last) = {
            let state = self.lock();
            let count = state.portions.len().saturating_sub(1);
            let frozen: Vec<Arc<Portion>> = state.portions.iter().take(count).cloned().collect();
            let last = state.portions.back().map(|portion| portion.plan(root));
            (frozen, last.unwrap_or_default())
        };
        let mut newest: HashMap<TaskId, TaskRecord> = HashMap::new();
        for record in frozen.iter().flat_map(|portion| portion.plan(root)).chain(last) {
            newest.insert(record.id, record);
        }
        newest.into_values().collect()
    }
}

fn inline(payload: &Payload) -> u64 {
    match payload {
        Payload::Inline(document) => document.len() as u64,
        Payload::Stored(_) => 0,
    }
}

fn version_bytes(record: &TaskRecord) -> u64 {
    let result = match &record.stage {
        Stage::Completed(payload) => inline(payload),
        Stage::Failed(failure) => failure.message.len() as u64,
        Stage::Cancelled { reason } => reason.len() as u64,
        Stage::Waiting
        | Stage::Parked { .. }
        | Stage::Ready { .. }
        | Stage::Backoff { .. }
        | Stage::Running { .. }
        | Stage::Active
        | Stage::Collected => 0,
    };
    let links = 16 * (record.depends_on().len() + record.subtasks().len());
    VERSION_BYTES + links as u64 + result
}

/// What the versions of a row have in common.
fn spec_bytes(record: &TaskRecord) -> u64 {
    let spec = &record.spec;
    let texts = spec.name.len() + spec.description.as_ref().map_or(0, |text| text.len());
    SPEC_BYTES
        + texts as u64
        + inline(&spec.parameters)
        + spec.metadata.as_deref().map_or(0, inline)
}
