//! The blob store: documents by their hash, in a local directory.
//!
//! A document is durable when `write` returns. What is there is never changed, so writing it again
//! costs nothing, and a crash in between leaves at most a temporary file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::codec::{self, CodecError, Kind};

/// Documents by their BLAKE3 hash. All calls block.
#[derive(Debug)]
pub struct Blobs {
    folder: PathBuf,
}

/// Why a document could not be kept or fetched.
#[derive(Debug, Error)]
pub enum BlobError {
    /// The file system failed.
    #[error("the blob `{}` cannot be {what}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: io::Error,
    },
    /// What is there is not what was written.
    #[error("the blob `{}` is damaged: {fault}\nhint: restore a backup with `maos restore`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        fault: CodecError,
    },
}

impl Blobs {
    /// The blob store in this folder, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: &Path) -> Result<Blobs, BlobError> {
        let done = fs::create_dir_all(folder);
        done.map_err(|source| BlobError::Io { what: "set up", path: folder.into(), source })?;
        Ok(Blobs { folder: folder.to_owned() })
    }

    /// Keeps a document; durable when this returns its hash.
    ///
    /// # Errors
    /// When the file system fails; nothing is kept then.
    pub fn write(&self, document: &[u8]) -> Result<[u8; 32], BlobError> {
        let hash = blake3::hash(document);
        let path = self.path(hash.as_bytes());
        let failed = |source| BlobError::Io { what: "written", path: path.clone(), source };
        if path.exists() {
            return Ok(*hash.as_bytes());
        }
        let folder = path.parent().expect("a blob is in a folder");
        fs::create_dir_all(folder).map_err(failed)?;
        let temporary = folder.join(format!("{}.tmp", uuid::Uuid::now_v7()));
        let written = write_synced(&temporary, &codec::seal(Kind::Blob, document))
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| File::open(folder)?.sync_all())
            .and_then(|()| File::open(&self.folder)?.sync_all());
        if let Err(source) = written {
            // Best effort: the fault is what matters, and a leftover harms nothing.
            drop(fs::remove_file(&temporary));
            return Err(failed(source));
        }
        Ok(*hash.as_bytes())
    }

    /// The document with this hash.
    ///
    /// # Errors
    /// When it is not there or is not what was written.
    pub fn read(&self, hash: &[u8; 32]) -> Result<Vec<u8>, BlobError> {
        let path = self.path(hash);
        let sealed = fs::read(&path).map_err(|source| BlobError::Io {
            what: "read",
            path: path.clone(),
            source,
        })?;
        let damaged = |fault| BlobError::Damaged { path: path.clone(), fault };
        let document = codec::open(Kind::Blob, &sealed).map_err(damaged)?;
        if blake3::hash(&document).as_bytes() != hash {
            return Err(damaged(CodecError::Damaged("another document is here".to_owned())));
        }
        Ok(document.into_owned())
    }

    fn path(&self, hash: &[u8; 32]) -> PathBuf {
        let name = blake3::Hash::from_bytes(*hash).to_hex();
        self.folder.join(&name[..2]).join(&name[2..])
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_comes_back_and_a_damaged_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let document = b"abc".repeat(5_000);
        let hash = blobs.write(&document).unwrap();
        assert_eq!(blobs.write(&document).unwrap(), hash);
        assert_eq!(blobs.read(&hash).unwrap(), document);
        let path = blobs.path(&hash);
        let mut sealed = fs::read(&path).unwrap();
        sealed[20] ^= 1;
        fs::write(&path, sealed).unwrap();
        let error = blobs.read(&hash).unwrap_err().to_string();
        assert!(error.contains("damaged") && error.contains("maos restore"), "{error}");
        assert!(matches!(blobs.read(&[7; 32]), Err(BlobError::Io { .. })));
    }
}
