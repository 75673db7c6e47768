//! The data directory: its layout, who it belongs to, and the lock that keeps a second process out.
//!
//! Its law: whoever holds a [`DataDir`] is the only one that does. It must not know what the files
//! say.
//!
//! ```text
//! lock        held for as long as a process uses the directory
//! format      `maos 1` and the id of this server
//! journal.db  what has happened since the store's position
//! store.db    every task, every agent
//! blobs/      documents by their hash, or what is on its way to their bucket
//! logs.db     what attempts have to say
//! messages.db what agents and people tell each other
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use maos_core::ids::NodeId;
use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use crate::journal::JournalError;

/// The newest layout that this release knows.
const FORMAT: u32 = 1;

/// The file with what attempts have to say.
pub(crate) const LOGS: &str = "logs.db";
/// The file with what agents and people tell each other.
pub(crate) const MESSAGES: &str = "messages.db";

/// A data directory that is ours.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    node: NodeId,
    /// Unlocked when it is closed, also by a crash.
    _lock: File,
}

impl DataDir {
    /// Opens `path`, makes it if it is not there, for its owner alone, and locks it.
    ///
    /// # Errors
    /// [`JournalError::InUse`] when another process has it; a newer or unreadable format; the
    /// fault.
    pub fn open(path: &Path) -> Result<DataDir, JournalError> {
        make(path).map_err(|fault| io(path, fault))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|fault| io(&lock_path, fault))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(JournalError::InUse { path: path.to_owned() });
            }
            Err(fault) => return Err(io(&lock_path, fault.into())),
        }
        let node = read_or_write_format(path)?;
        Ok(DataDir { path: path.to_owned(), node, _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The server that lives in it; the same at every start.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Where the journal is.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal.db")
    }

    /// Where the store is.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join("store.db")
    }

    /// Where documents are.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }
}

/// Makes the directory if it is not there: secrets of webhooks are in its files. What is above it,
/// and one that is there already, are the operator's.
///
/// # Errors
/// The fault.
pub fn make(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(fault) if fault.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// Writes a file whole or not at all, durably: a temporary file, then a rename.
///
/// # Errors
/// The fault; the file is as it was then.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let partial = parent.join(format!("{}.partial", Uuid::now_v7().simple()));
    let written = File::create(&partial)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&partial, path))
        .and_then(|()| sync_folder(parent));
    if written.is_err() {
        // Best effort: the fault that is reported is the first one.
        drop(fs::remove_file(&partial));
    }
    written
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

fn read_or_write_format(path: &Path) -> Result<NodeId, JournalError> {
    let file = path.join("format");
    match fs::read_to_string(&file) {
        Ok(text) => parse_format(&file, &text),
        Err(fault) if fault.kind() == ErrorKind::NotFound => {
            for name in ["journal.db", "store.db"] {
                if path.join(name).exists() {
                    let what = format!("`{name}` is there and `format` is not");
                    return Err(JournalError::Damaged { path: file, what });
                }
            }
            let node = NodeId(Uuid::now_v7().as_u128());
            let text = format!("maos {FORMAT}\nnode {node}\n");
            write_whole(&file, text.as_bytes()).map_err(|fault| io(&file, fault))?;
            Ok(node)
        }
        Err(fault) => Err(io(&file, fault)),
    }
}

fn parse_format(file: &Path, text: &str) -> Result<NodeId, JournalError> {
    let damaged = || JournalError::Damaged {
        path: file.to_owned(),
        what: "`maos <format>` and `node <uuid>` are wanted, each on its line".to_owned(),
    };
    let mut lines = text.lines();
    let format = lines.next().and_then(|line| line.strip_prefix("maos ")).ok_or_else(damaged)?;
    let found: u32 = format.parse().map_err(|_| damaged())?;
    if found > FORMAT {
        return Err(JournalError::TooNew { path: file.to_owned(), found, known: FORMAT });
    }
    let node = lines.next().and_then(|line| line.strip_prefix("node ")).ok_or_else(damaged)?;
    Uuid::parse_str(node).map(|id| NodeId(id.as_u128())).map_err(|_| damaged())
}

fn io(path: &Path, source: std::io::Error) -> JournalError {
    JournalError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_node_and_has_one_owner_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/data");
        let first = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(JournalError::InUse { .. })));
        let node = first.node();
        drop(first);
        assert_eq!(DataDir::open(&path).unwrap().node(), node);
    }

    #[test]
    fn a_directory_that_is_made_is_its_owners_alone_and_one_that_is_there_stays() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let made = folder.path().join("deep/data");
        drop(DataDir::open(&made).unwrap());
        assert_eq!(mode(&made), 0o700);
        fs::set_permissions(&made, fs::Permissions::from_mode(0o755)).unwrap();
        drop(DataDir::open(&made).unwrap());
        assert_eq!(mode(&made), 0o755);
    }

    #[test]
    fn a_newer_and_a_broken_format_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("format");
        fs::write(&file, "maos 7\nwho knows\n").unwrap();
        let refused = DataDir::open(folder.path()).unwrap_err();
        assert!(matches!(refused, JournalError::TooNew { found: 7, known: FORMAT, .. }));
        for text in ["", "maos x\n", "maos 1\n", "maos 1\nnode 5\n"] {
            fs::write(&file, text).unwrap();
            let refused = DataDir::open(folder.path()).unwrap_err();
            assert!(matches!(refused, JournalError::Damaged { .. }), "{text:?}");
        }
        fs::remove_file(&file).unwrap();
        fs::write(folder.path().join("store.db"), "").unwrap();
        let refused = DataDir::open(folder.path()).unwrap_err();
        assert!(matches!(refused, JournalError::Damaged { .. }));
    }
}
