//! The store: every task and agent as a row, written behind the journal by a thread of its own.
//!
//! Its law: rows are written in the order of positions, each transaction complete at its position;
//! a row that was handed in is found from then on, written or not. It must not know the engine's
//! rules, the driver or HTTP; it takes rows and gives them back.

mod backlog;
pub mod backup;
pub mod checkpoint;
mod facets;
mod gone;
mod listing;
mod newest;
mod read;
pub mod recovery;
mod removal;
mod search;
mod table;
mod writer;

#[cfg(test)]
mod listing_tests;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hashbrown::HashMap;
use maos_core::engine::Rows;
use maos_core::ids::{AgentId, PlanId, Position, Sequence, TaskId};
use maos_core::record::{AgentRecord, EngineRecord, EntryRecord, TaskRecord};
use rusqlite::ErrorCode;
use thiserror::Error;
use tokio::sync::watch;

use crate::codec::CodecError;
use crate::data_dir::DataDir;
use crate::journal::JournalError;
use backlog::Shared;
pub use listing::{Count, Place, Start, TaskFilter, TaskList};
pub use removal::{Pin, Removed, Retention, TellRemoved};

/// Rows that may wait for the store's thread; at this many the store is full.
pub const BACKLOG_ROWS_MAX: u64 = 2_000_000;
/// Estimated bytes that may wait; at this many the store is full.
pub const BACKLOG_BYTES_MAX: u64 = 2 << 30;

/// Rows that changed up to one position, each complete.
#[derive(Debug, Default)]
pub struct Changes {
    /// The engine's own figures; its position is the one that is reached.
    pub engine: EngineRecord,
    /// Tasks.
    pub tasks: Vec<TaskRecord>,
    /// Agents.
    pub agents: Vec<AgentRecord>,
    /// Small documents of the shell.
    pub entries: Vec<EntryRecord>,
}

/// What waits for the store's thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Rows, several versions of one folded.
    pub rows: u64,
    /// Their bytes, estimated.
    pub bytes: u64,
}

/// Why the store could not do its part.
#[derive(Debug, Error)]
pub enum StoreError {
    /// What is there cannot be trusted.
    #[error("the store `{}` is damaged: {what}\n\
     hint: restore a backup with `maos restore`, or move the data directory away to start \
     empty", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// A checkpoint that nobody can go back to; the store itself is whole.
    #[error("{what}\nhint: delete this checkpoint and restore another one")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, the file named.
        what: String,
    },
    /// Written by a newer release.
    #[error("`{}` has format {found}, this release reads up to {known}\n\
     hint: use the release that wrote it, or a newer one", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// Written by an older release, in a form that no release after it reads.
    #[error("`{}` has format {found}, this release reads format {known}\n\
     hint: use the release that wrote it, or move the data directory away to start empty",
     path.display())]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format known here.
        known: u32,
    },
    /// The store has what the journal never had.
    #[error(
        "the store is at {store}, ahead of the journal at {journal}: they do not belong together\n\
         hint: put the `journal.db` back that belongs to this `store.db`, or restore a backup \
         with `maos restore`"
    )]
    AheadOfJournal {
        /// The store's position.
        store: Position,
        /// The journal's head.
        journal: Position,
    },
    /// A folder that must be empty or absent is not.
    #[error("`{}` is not empty\nhint: name a folder that is empty or not there", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// No space left.
    #[error("no space left for `{}`\n\
     hint: free some space; writing goes on by itself then", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: rusqlite::Error,
    },
    /// The database failed otherwise.
    #[error("the store `{}` failed: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: rusqlite::Error,
    },
    /// The file system failed.
    #[error("`{}` cannot be used", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The fault.
        #[source]
        source: std::io::Error,
    },
    /// The journal or the data directory.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The documents.
    #[error(transparent)]
    Blob(#[from] crate::blobs::BlobError),
}

/// The store. Cheap to clone; its calls that read block.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    readers: Arc<read::Readers>,
    remover: Arc<removal::Remover>,
    synced: watch::Receiver<Position>,
    thread: Arc<Thread>,
}

/// The store's thread; it ends with the last handle if nobody closed the store.
struct Thread {
    shared: Arc<Shared>,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Store {
    /// Opens the store of a data directory, or makes it, and loads what is live.
    ///
    /// # Errors
    /// When it is damaged, of a newer release, or the disk fails.
    pub fn open(dir: &Arc<DataDir>) -> Result<(Store, Rows<Vec<TaskRecord>>), StoreError> {
        let path = dir.store();
        let db = table::open(&path)?;
        let rows = table::load(&db, &path)?;
        let (reached, synced) = watch::channel(rows.engine.position);
        let shared = Arc::new(Shared::default());
        shared.begin_at(rows.engine.position.sequence);
        let thread = writer::start(db, path.clone(), shared.clone(), reached, dir.clone())
            .map_err(|source| StoreError::Io { path: path.clone(), source })?;
        let remover = Arc::new(removal::Remover::new(path.clone(), shared.clone()));
        let readers = Arc::new(read::Readers::new(path));
        let thread = Arc::new(Thread { shared: shared.clone(), running: Mutex::new(Some(thread)) });
        Ok((Store { shared, readers, remover, synced, thread }, rows))
    }

    /// Has somebody told which tasks went for good; the first who asks.
    pub fn on_removed(&self, tell: TellRemoved) {
        self.remover.on_removed(tell);
    }

    /// Hands in rows that are durable in the journal. Never blocks on the disk.
    pub fn write(&self, changes: Changes) {
        self.shared.add(changes);
    }

    /// The last position that is durable here, as it moves.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<Position> {
        self.synced.clone()
    }

    /// What waits for the store's thread.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        self.shared.figures()
    }

    /// Whether so much waits that nothing more should be taken in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let backlog = self.backlog();
        backlog.rows >= BACKLOG_ROWS_MAX || backlog.bytes >= BACKLOG_BYTES_MAX
    }

    /// How the store's thread is.
    ///
    /// # Errors
    /// The fault that keeps it from writing. It goes on trying; nothing is dropped.
    pub fn health(&self) -> Result<(), String> {
        self.shared.health()
    }

    /// Waits until everything up to `through` is durable here. That must be durable in the journal:
    /// then it is handed in soon, or has been.
    pub async fn reach(&self, through: Sequence) {
        self.shared.hurry(through);
        let mut synced = self.synced.clone();
        // The thread is gone only when the store is closed: then there is nothing to wait for.
        drop(synced.wait_for(|position| position.sequence >= through).await);
    }

    /// A task that is not written yet. Does not touch the disk.
    #[must_use]
    pub fn unwritten(&self, id: TaskId) -> Option<TaskRecord> {
        self.shared.task(id)
    }

    /// One task, also one that is not written yet.
    ///
    /// # Errors
    /// When its row is damaged or the disk fails.
    pub fn task(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        match self.shared.task(id) {
            Some(record) => Ok(Some(record)),
            None => self.readers.task(id),
        }
    }

    /// All tasks of the plan with this root, in the plan's order; none if there is no such plan.
    ///
    /// # Errors
    /// When a row is damaged or the disk fails.
    pub fn plan(&self, root: TaskId) -> Result<Vec<TaskRecord>, StoreError> {
        // The backlog first: what leaves it in between is in the database by then.
        let waiting = self.shared.plan(root);
        let mut tasks: HashMap<TaskId, TaskRecord> =
            self.readers.plan(root)?.into_iter().map(|task| (task.id, task)).collect();
        tasks.extend(waiting.into_iter().map(|task| (task.id, task)));
        let mut tasks: Vec<TaskRecord> = tasks.into_values().collect();
        tasks.sort_unstable_by_key(|task| task.index);
        Ok(tasks)
    }

    /// As [`Store::reach`], but at most for `patience`; says whether it was enough. What somebody
    /// was told of before is then in every listing.
    pub async fn catch_up(&self, through: Sequence, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.reach(through)).await.is_ok()
    }

    /// A page of the tasks that are written. Call [`Store::catch_up`] before to have the others in
    /// it.
    ///
    /// # Errors
    /// When a row is damaged or the disk fails.
    pub fn list(
        &self,
        filter: &TaskFilter,
        start: Start,
        limit: u32,
    ) -> Result<TaskList, StoreError> {
        self.readers.list(filter, start, limit, listing::COST_MAX)
    }

    /// The root of the plan with this id, if it is written.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn root_of(&self, plan: PlanId) -> Result<Option<TaskId>, StoreError> {
        self.readers.root_of(plan)
    }

    /// How many tasks that are written have which status, by its wire name.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn counts(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        self.readers.counts()
    }

    /// How many tasks, and how many plans, were removed since the data directory was made.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn gone(&self) -> Result<(u64, u64), StoreError> {
        self.readers.gone()
    }

    /// Bytes of the file and of what is on its way into it.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let path = self.readers.path();
        let log = path.with_extension("db-wal");
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
        bytes(path) + bytes(&log)
    }

    /// An agent that is written.
    ///
    /// # Errors
    /// When its row is damaged or the disk fails.
    pub fn agent(&self, id: AgentId) -> Result<Option<AgentRecord>, StoreError> {
        self.readers.agent(id)
    }

    /// Agents that have ended and are written, the newest first, at most `most`.
    ///
    /// # Errors
    /// When a row is damaged or the disk fails.
    pub fn ended_agents(&self, most: u32) -> Result<Vec<AgentRecord>, StoreError> {
        self.readers.ended_agents(most)
    }

    /// Whether a task that is written refers to the document with this hash.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn refers_to(&self, hash: &[u8; 32]) -> Result<bool, StoreError> {
        self.readers.refers_to(hash)
    }

    /// Keeps the plan with this root in the store until the pin is dropped. A plan that is not
    /// there by now went before.
    #[must_use]
    pub fn pin(&self, root: TaskId) -> Pin {
        self.remover.pin(root)
    }

    /// Removes ended plans that are written, each whole, and says what became of each. The engine
    /// must have let go of them.
    ///
    /// # Errors
    /// When a row is damaged or the disk fails; some may be gone then.
    pub fn remove(&self, roots: &[TaskId]) -> Result<Vec<Removed>, StoreError> {
        self.remover.remove(roots)
    }

    /// Removes what need not be kept, the oldest first, in small transactions; says how many tasks
    /// went.
    ///
    /// # Errors
    /// When a row is damaged or the disk fails; some may be gone then.
    pub fn retain(&self, keep: &Retention) -> Result<u64, StoreError> {
        self.remover.retain(keep)
    }

    /// Notes that a document may have lost the last task that referred to it.
    pub fn note_removed(&self) {
        self.remover.note_removed();
    }

    /// Whether anything was removed since this was asked last.
    #[must_use]
    pub fn take_removed(&self) -> bool {
        self.remover.take_removed()
    }

    /// Writes what waits and ends the thread. What cannot be written stays in the journal.
    pub fn close(&self) {
        self.shared.close();
        let thread =
            self.thread.running.lock().expect("nothing panics while it holds this lock").take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(
                "the store's thread panicked; what it had not written is in the journal"
            );
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "store at {}", *self.synced.borrow())
    }
}

fn sqlite_fault(path: &Path, source: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { path, source },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged { path, what: source.to_string() }
        }
        Some(_) | None => StoreError::Sqlite { path, source },
    }
}

fn unopened(path: &Path, what: &str, fault: &CodecError) -> StoreError {
    let path = path.to_owned();
    match fault {
        CodecError::TooNew { found } => StoreError::TooNew {
            path,
            found: u32::from(*found),
            known: u32::from(crate::codec::FORMAT),
        },
        CodecError::Damaged(_) | CodecError::Encrypted { .. } => {
            StoreError::Damaged { path, what: format!("{what}: {fault}") }
        }
    }
}
