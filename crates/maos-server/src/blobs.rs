//! Documents by their content: a file each, named by its BLAKE3.
//!
//! Its law: what `write` returned is durable and whole; what `read` returns has the hash it was
//! asked for. It must not know what the documents say or who needs them.

mod pieces;

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use thiserror::Error;

use crate::codec::{self, CodecError, Kind};
use crate::data_dir::{sync_folder, write_whole};

pub use pieces::{Draft, Kept, Reader};

/// Most bytes of a document that is written or read whole.
pub const BLOB_BYTES_MAX: usize = 64 << 20;

/// A document that is kept again is marked as fresh when it was last marked this long ago.
const FRESH: Duration = Duration::from_secs(15 * 60);

/// Documents in a local directory. All calls block.
#[derive(Debug)]
pub struct Blobs {
    path: PathBuf,
    /// Shared by those who keep, alone with who removes: what was just kept again stays.
    gate: RwLock<()>,
}

/// Why a document could not be kept or fetched.
#[derive(Debug, Error)]
pub enum BlobError {
    /// It is larger than it may be.
    #[error("a document has {bytes} bytes, at most {BLOB_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is not there.
    #[error("the document `{}` is missing\n\
     hint: restore a backup with `maos restore`", path.display())]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// What is there is something else.
    #[error("the document `{}` is damaged: {what}\n\
     hint: restore a backup with `maos restore`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
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
}

impl Blobs {
    /// Documents in the folder `path`, which is made if it is not there and must be ours alone.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(path: &Path) -> Result<Blobs, BlobError> {
        fs::create_dir_all(path).map_err(|fault| io(path, fault))?;
        for entry in fs::read_dir(path).map_err(|fault| io(path, fault))? {
            let entry = entry.map_err(|fault| io(path, fault))?.path();
            if entry.extension().is_some_and(|end| end == "partial") {
                // What a crash left of one that was being written.
                drop(fs::remove_file(entry));
            }
        }
        Ok(Blobs { path: path.to_owned(), gate: RwLock::default() })
    }

    /// Keeps `document` durably; what is there already is not written again.
    ///
    /// # Errors
    /// When it is too large, or the disk fails; nothing of it is there then.
    pub fn write(&self, document: &[u8]) -> Result<[u8; 32], BlobError> {
        if document.len() > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { bytes: document.len() });
        }
        let hash = *blake3::hash(document).as_bytes();
        self.take_in(&hash, &mut |file| write_whole(file, &codec::seal(Kind::Blob, document)))?;
        Ok(hash)
    }

    /// A document that comes piece by piece.
    #[must_use]
    pub fn draft(self: &Arc<Blobs>) -> Draft {
        Draft::new(self.clone())
    }

    /// Has `place` put a document durably where it belongs, unless it is there: then it is fresh
    /// again.
    fn take_in(
        &self,
        hash: &[u8; 32],
        place: &mut dyn FnMut(&Path) -> std::io::Result<()>,
    ) -> Result<(), BlobError> {
        let file = self.file(hash);
        let _kept = self.gate.read().expect("nothing panics while it holds this lock");
        if let Some(age) = age(&file)? {
            if age > FRESH {
                let opened = fs::File::options().write(true).open(&file);
                opened
                    .and_then(|file| file.set_modified(SystemTime::now()))
                    .map_err(|fault| io(&file, fault))?;
            }
            return Ok(());
        }
        let folder = file.parent().expect("a document is in a folder of its own");
        if !folder.exists() {
            fs::create_dir_all(folder).map_err(|fault| io(folder, fault))?;
            sync_folder(&self.path).map_err(|fault| io(&self.path, fault))?;
        }
        place(&file).map_err(|fault| io(&file, fault))
    }

    /// The document with this hash.
    ///
    /// # Errors
    /// When it is missing or damaged, or the disk fails.
    pub fn read(&self, hash: &[u8; 32]) -> Result<Vec<u8>, BlobError> {
        self.reader(hash)?.read_whole()
    }

    /// The document with this hash, piece by piece.
    ///
    /// # Errors
    /// When it is missing or damaged, or the disk fails.
    pub fn reader(&self, hash: &[u8; 32]) -> Result<Reader, BlobError> {
        let path = self.file(hash);
        let mut file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(fault) if fault.kind() == ErrorKind::NotFound => {
                return Err(BlobError::Missing { path });
            }
            Err(fault) => return Err(io(&path, fault)),
        };
        let mut sealed = Vec::new();
        let begun = (&mut file).take(codec::BEGINNING_BYTES).read_to_end(&mut sealed);
        begun.map_err(|fault| io(&path, fault))?;
        if codec::begins(Kind::LargeBlob, &sealed) {
            return Reader::pieces(path, file, *hash);
        }
        file.read_to_end(&mut sealed).map_err(|fault| io(&path, fault))?;
        let document = match codec::open(Kind::Blob, &sealed) {
            Ok(document) => document.into_owned(),
            Err(
                fault @ (CodecError::Damaged(_)
                | CodecError::TooNew { .. }
                | CodecError::Encrypted { .. }),
            ) => {
                return Err(BlobError::Damaged { path, what: fault.to_string() });
            }
        };
        let found = blake3::hash(&document);
        if found.as_bytes() != hash {
            let what = format!("its hash is {found}");
            return Err(BlobError::Damaged { path, what });
        }
        Ok(Reader::whole(path, document, *hash))
    }

    /// Shows `visit` every document that nobody has kept for at least `quiet`, which must be longer
    /// than a quarter of an hour: younger ones may be on their way into a plan.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn visit_quiet(
        &self,
        quiet: Duration,
        visit: &mut dyn FnMut([u8; 32]),
    ) -> Result<(), BlobError> {
        assert!(quiet > FRESH, "a document is marked as fresh no more often than that");
        for folder in fs::read_dir(&self.path).map_err(|fault| io(&self.path, fault))? {
            let folder = folder.map_err(|fault| io(&self.path, fault))?.path();
            if !folder.is_dir() {
                continue;
            }
            for file in fs::read_dir(&folder).map_err(|fault| io(&folder, fault))? {
                let file = file.map_err(|fault| io(&folder, fault))?.path();
                let Some(hash) = hash_of(&file) else { continue };
                if age(&file)?.is_some_and(|age| age >= quiet) {
                    visit(hash);
                }
            }
        }
        Ok(())
    }

    /// Removes a document unless somebody has kept it within `quiet`. Says whether it went.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_quiet(&self, hash: &[u8; 32], quiet: Duration) -> Result<bool, BlobError> {
        assert!(quiet > FRESH, "a document is marked as fresh no more often than that");
        let file = self.file(hash);
        let _alone = self.gate.write().expect("nothing panics while it holds this lock");
        if age(&file)?.is_none_or(|age| age < quiet) {
            return Ok(false);
        }
        fs::remove_file(&file).map_err(|fault| io(&file, fault))?;
        Ok(true)
    }

    fn file(&self, hash: &[u8; 32]) -> PathBuf {
        let name = blake3::Hash::from_bytes(*hash).to_hex();
        self.path.join(&name[..2]).join(&name[2..])
    }
}

/// How long ago a file was written or marked as fresh; `None` if it is not there.
fn age(file: &Path) -> Result<Option<Duration>, BlobError> {
    match fs::metadata(file).and_then(|metadata| metadata.modified()) {
        // A clock that was set back makes it young: it is kept the longer.
        Ok(modified) => Ok(Some(modified.elapsed().unwrap_or_default())),
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(io(file, fault)),
    }
}

/// The hash that a file is named by; `None` for a file that is no document.
fn hash_of(file: &Path) -> Option<[u8; 32]> {
    let folder = file.parent()?.file_name()?.to_str()?;
    let name = format!("{folder}{}", file.file_name()?.to_str()?);
    blake3::Hash::from_hex(name).ok().map(|hash| *hash.as_bytes())
}

fn io(path: &Path, source: std::io::Error) -> BlobError {
    BlobError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_comes_back_and_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&folder.path().join("blobs")).unwrap();
        let document = vec![b'{'; 100_000];
        let hash = blobs.write(&document).unwrap();
        assert_eq!(&hash, blake3::hash(&document).as_bytes());
        let written = fs::metadata(blobs.file(&hash)).unwrap().modified().unwrap();
        assert_eq!(blobs.write(&document).unwrap(), hash);
        assert_eq!(fs::metadata(blobs.file(&hash)).unwrap().modified().unwrap(), written);
        assert_eq!(blobs.read(&hash).unwrap(), document);
        let files = fs::read_dir(blobs.file(&hash).parent().unwrap()).unwrap().count();
        assert_eq!(files, 1, "no partial file is left");
    }

    #[test]
    fn missing_altered_and_exchanged_documents_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        assert!(matches!(blobs.read(&[0; 32]), Err(BlobError::Missing { .. })));
        let (one, two) = (blobs.write(b"one").unwrap(), blobs.write(b"two").unwrap());
        fs::copy(blobs.file(&two), blobs.file(&one)).unwrap();
        assert!(matches!(blobs.read(&one), Err(BlobError::Damaged { .. })));
        fs::write(blobs.file(&two), b"short").unwrap();
        assert!(matches!(blobs.read(&two), Err(BlobError::Damaged { .. })));
    }

    #[test]
    fn a_document_over_the_bound_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let refused = blobs.write(&vec![0; BLOB_BYTES_MAX + 1]);
        assert!(matches!(refused, Err(BlobError::TooLarge { .. })));
    }

    #[test]
    fn only_what_nobody_kept_for_long_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let hour = Duration::from_secs(3_600);
        let [young, old, again] = [b"young", b"old..", b"again"].map(|d| blobs.write(d).unwrap());
        for hash in [&old, &again] {
            let file = fs::File::options().write(true).open(blobs.file(hash)).unwrap();
            file.set_modified(SystemTime::now() - 2 * hour).unwrap();
        }
        // On its way into a new plan: it is fresh from then on.
        blobs.write(b"again").unwrap();
        let mut quiet = Vec::new();
        blobs.visit_quiet(hour, &mut |hash| quiet.push(hash)).unwrap();
        assert_eq!(quiet, [old]);
        assert!(!blobs.remove_quiet(&young, hour).unwrap());
        assert!(!blobs.remove_quiet(&again, hour).unwrap());
        assert!(
            blobs.remove_quiet(&old, hour).unwrap() && !blobs.remove_quiet(&old, hour).unwrap()
        );
        assert!(matches!(blobs.read(&old), Err(BlobError::Missing { .. })));
        assert_eq!(blobs.read(&again).unwrap(), b"again");
    }
}
