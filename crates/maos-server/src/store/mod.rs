//! The store: every task, live and ended, and the rest of the state, as rows in an SQLite file.
//!
//! It follows the journal. Rows that changed are handed over once they are durable there, gathered in
//! a backlog (many versions of a row become one) and written in order by a thread of its own, each
//! transaction with the position that it reaches. So the rows are always those of one position. It must
//! not know the engine.

mod backlog;
mod read;
pub mod recovery;
mod rows;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use maos_core::ids::{Position, Sequence, TaskId};
use maos_core::record::TaskRecord;
use rusqlite::{Connection, ErrorCode};
use thiserror::Error;
use tokio::sync::watch;
use tracing::error;

use crate::codec::CodecError;
use crate::driver::Changes;
use crate::journal::JournalError;
use backlog::Backlog;
pub use backlog::BacklogSize;
pub use read::TaskFilter;

/// Pause before rows that could not be written are tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long changes gather before they are written, if nobody waits for them.
const GATHER: Duration = Duration::from_millis(50);

/// Why the store could not do its part.
#[derive(Debug, Error)]
pub enum StoreError {
    /// What is there cannot be trusted.
    #[error("the store `{}` is damaged: {what}\nhint: restore a backup with `maos restore`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Written by a newer release.
    #[error("`{}` has format {found}, this release reads up to {known}\nhint: use the release that wrote it, or a newer one", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// The store knows more than the journal: they are not from the same directory.
    #[error("the store `{}` is at step {store}, the journal ends at step {journal}\nhint: restore a backup with `maos restore`: these two files do not belong together", path.display())]
    Ahead {
        /// The store's file.
        path: PathBuf,
        /// Its position.
        store: Sequence,
        /// The journal's head.
        journal: Sequence,
    },
    /// The database failed.
    #[error("the store `{}` failed: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: rusqlite::Error,
    },
    /// A thread could not be started.
    #[error("the store's thread cannot be started")]
    Thread(#[source] std::io::Error),
    /// The journal, or the directory that both share.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The blob store.
    #[error(transparent)]
    Blob(#[from] crate::blobs::BlobError),
}

/// Reaches the store from anywhere. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    backlog: Backlog,
    reader: Mutex<Connection>,
    synced: watch::Sender<Position>,
    fault: Mutex<Option<String>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the store in this file, or makes it, and starts its thread.
    fn start(path: &Path, mut connection: Connection, at: Position) -> Result<Store, StoreError> {
        let reader = read::connect(path).map_err(|why| fault(path, why))?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            backlog: Backlog::default(),
            reader: Mutex::new(reader),
            synced: watch::Sender::new(at),
            fault: Mutex::default(),
            writer: Mutex::default(),
        });
        let writing = shared.clone();
        let thread = std::thread::Builder::new()
            .name("maos-store".into())
            .spawn(move || {
                // Whoever waits for an answer goes first: the store only has to keep up on average.
                let _ = rustix::process::nice(10);
                writing.write_all(&mut connection);
            })
            .map_err(StoreError::Thread)?;
        *lock(&shared.writer) = Some(thread);
        Ok(Store { shared })
    }

    /// Takes rows that are durable in the journal. Never blocks.
    pub fn write(&self, changes: Changes) {
        self.shared.backlog.push(changes);
    }

    /// The last position that is durable here.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<Position> {
        self.shared.synced.subscribe()
    }

    /// Waits until the rows of this step can be read here.
    pub async fn reach(&self, step: Sequence) {
        self.shared.backlog.hurry();
        // The sender lives as long as we do.
        drop(self.synced().wait_for(|at| at.sequence >= step).await);
    }

    /// Whether so much waits to be written that nothing more should come in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.backlog.is_full()
    }

    /// What waits to be written.
    #[must_use]
    pub fn backlog(&self) -> BacklogSize {
        self.shared.backlog.size()
    }

    /// Whether rows are being written; if not, why.
    ///
    /// # Errors
    /// The fault, in words.
    pub fn health(&self) -> Result<(), String> {
        lock(&self.shared.fault).clone().map_or(Ok(()), Err)
    }

    /// One task. Blocks.
    ///
    /// # Errors
    /// When the store fails.
    pub fn task(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        if let Some(record) = self.shared.backlog.task(id) {
            return Ok(Some(record));
        }
        read::task(&lock(&self.shared.reader), id).map_err(|why| self.read_fault(why))
    }

    /// All tasks of a plan, in its order; empty if there is no such plan. Blocks.
    ///
    /// # Errors
    /// When the store fails.
    pub fn plan(&self, root: TaskId) -> Result<Vec<TaskRecord>, StoreError> {
        let stored = read::plan(&lock(&self.shared.reader), root);
        let mut tasks = stored.map_err(|why| self.read_fault(why))?;
        for newer in self.shared.backlog.plan(root) {
            match tasks.iter_mut().find(|task| task.id == newer.id) {
                Some(task) => *task = newer,
                None => tasks.push(newer),
            }
        }
        tasks.sort_by_key(|task| task.index);
        Ok(tasks)
    }

    /// A page of tasks, the newest first, and how many there are in all. Blocks. Sees what is
    /// written; `reach` waits for more.
    ///
    /// # Errors
    /// When the store fails.
    pub fn page(&self, filter: &TaskFilter) -> Result<(Vec<TaskRecord>, u64), StoreError> {
        read::page(&lock(&self.shared.reader), filter).map_err(|why| self.read_fault(why))
    }

    /// Writes what is left and ends the thread. Blocks.
    pub fn close(&self) {
        self.shared.backlog.close();
        if let Some(thread) = lock(&self.shared.writer).take() {
            thread.join().expect("the store's thread does not panic");
        }
    }

    fn read_fault(&self, why: read::ReadError) -> StoreError {
        match why {
            read::ReadError::Sqlite(source) => fault(&self.shared.path, source),
            read::ReadError::Codec(why) => damaged(&self.shared.path, why),
        }
    }
}

impl Shared {
    fn write_all(&self, connection: &mut Connection) {
        while let Some(generation) = self.backlog.next(GATHER) {
            loop {
                match rows::write(connection, &generation) {
                    Ok(()) => break,
                    Err(why) => self.note_fault(Some(why)),
                }
                if self.backlog.closed() {
                    // The journal has it all: the next start brings the rows up to date.
                    error!("the store was closed before everything was written");
                    return;
                }
                std::thread::sleep(RETRY_PAUSE);
            }
            self.note_fault(None);
            let reached = generation.engine.position;
            self.backlog.done();
            self.synced.send_replace(reached);
        }
    }

    fn note_fault(&self, why: Option<rusqlite::Error>) {
        let mut noted = lock(&self.fault);
        if let Some(why) = &why
            && noted.is_none()
        {
            error!("the store cannot be written: {why}; it is tried again");
        }
        *noted = why.map(|why| format!("the store cannot be written: {why}"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this lock")
}

fn fault(path: &Path, source: rusqlite::Error) -> StoreError {
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged { path: path.into(), what: source.to_string() }
        }
        _ => StoreError::Sqlite { path: path.into(), source },
    }
}

fn damaged(path: &Path, why: CodecError) -> StoreError {
    match why {
        CodecError::Damaged(what) => StoreError::Damaged { path: path.into(), what },
        CodecError::TooNew { found } => StoreError::TooNew {
            path: path.into(),
            found: found.into(),
            known: crate::codec::FORMAT.into(),
        },
    }
}
