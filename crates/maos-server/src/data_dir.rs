//! The data directory: who may use it, and what is where in it.
//!
//! ```text
//! lock         held by the process that uses the directory
//! node         the id of this server, made once
//! journal.db   what happened
//! store.db     what is, as far as the store has got
//! blobs/       documents by their hash
//! files/       what `file.*` may touch
//! work/        working folders of running programs
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use maos_core::ids::NodeId;
use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use crate::journal::JournalError;

/// A data directory that is ours for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    /// The directory.
    pub path: PathBuf,
    /// This server.
    pub node: NodeId,
    _lock: File,
}

impl DataDir {
    /// Takes a directory, which is made if it is not there.
    ///
    /// # Errors
    /// When another process has it, or it cannot be used.
    pub fn open(path: &Path) -> Result<DataDir, JournalError> {
        let failed = |source: io::Error| JournalError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(JournalError::InUse { path: path.to_owned() });
            }
            Err(why) => return Err(failed(why.into())),
        }
        let node = node_id(path).map_err(failed)?;
        Ok(DataDir { path: path.to_owned(), node, _lock: lock })
    }
}

fn node_id(folder: &Path) -> io::Result<NodeId> {
    let path = folder.join("node");
    match fs::read_to_string(&path) {
        Ok(text) => match Uuid::parse_str(text.trim()) {
            Ok(id) => return Ok(NodeId(id.as_u128())),
            // Torn by a crash at its first writing: nothing rests on it yet.
            Err(_) if text.len() < 36 => {}
            Err(why) => return Err(io::Error::other(format!("`{}`: {why}", path.display()))),
        },
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(why),
    }
    let id = Uuid::now_v7();
    fs::write(&path, id.to_string())?;
    File::open(&path)?.sync_all()?;
    Ok(NodeId(id.as_u128()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_user_is_refused_and_the_id_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataDir::open(&path).unwrap();
        let refused = DataDir::open(&path).unwrap_err();
        assert!(matches!(refused, JournalError::InUse { .. }), "{refused}");
        let node = first.node;
        drop(first);
        assert_eq!(DataDir::open(&path).unwrap().node, node);
    }
}
