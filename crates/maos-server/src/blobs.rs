//! Documents by their content: an object each, named by its BLAKE3.
//!
//! Its law: what `write` returned is durable and whole; what `read` returns has the hash it was
//! asked for. It must not know what the documents say or who needs them.
//!
//! Where they are is the affair of `place`: a folder of the data directory, or a bucket.

mod pieces;
mod place;
mod s3;
#[cfg(test)]
mod tests;
mod upload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::TryStreamExt;
use maos_core::ids::NodeId;
use object_store::path::Path as Name;
use object_store::{ObjectMeta, ObjectStoreExt};
use thiserror::Error;
use tokio::sync::RwLock;

use crate::codec::{self, CodecError, Kind};
use crate::config;
use pieces::Source;
use place::Place;

pub use pieces::{Draft, Kept, Reader};
pub use place::bucket_of;

/// Most bytes of a document that is written or read whole.
pub const BLOB_BYTES_MAX: usize = 64 << 20;

/// A document that is kept again is written again when it was last written this long ago.
const FRESH: Duration = Duration::from_secs(15 * 60);
/// Documents that are sealed and hashed on the spot; larger ones go to a thread that may block.
const AT_ONCE_BYTES: usize = 64 << 10;
/// What a first look reads: small documents come whole with it.
const LOOK_BYTES: usize = 64 << 10;
/// Documents of different first bytes do not wait for each other.
const GATES: usize = 256;

/// Documents in a folder or a bucket.
#[derive(Debug)]
pub struct Blobs {
    place: Place,
    /// Where drafts grow: always a local folder.
    folder: PathBuf,
    /// By the first byte of the hash. Shared by those who keep, alone with who removes: what was
    /// just kept again stays.
    gates: Vec<RwLock<()>>,
    fresh: Duration,
}

/// Why a document could not be kept or fetched.
#[derive(Debug, Error)]
pub enum BlobError {
    /// It is larger than it may be.
    #[error("a document has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// It is not there.
    #[error(
        "the document `{document}` is missing\n\
     hint: bring it back from a backup, or from the versions that the bucket keeps"
    )]
    Missing {
        /// Where it would be.
        document: String,
    },
    /// What is there is something else.
    #[error(
        "the document `{document}` is damaged: {what}\n\
     hint: bring it back from a backup, or from the versions that the bucket keeps"
    )]
    Damaged {
        /// Where it is.
        document: String,
        /// What was found.
        what: String,
    },
    /// The place where documents are kept does not do what it should.
    #[error("the document `{document}` cannot be kept or fetched: {what}")]
    Failed {
        /// Where it is, or would be.
        document: String,
        /// The fault.
        what: String,
    },
    /// The settings name a place that cannot be used.
    #[error(
        "documents cannot be kept in `{place}`, which `blobs.url` names: {what}\n\
     hint: {hint}"
    )]
    Unusable {
        /// The place.
        place: String,
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The documents of this data directory are not where the settings say.
    #[error(
        "the documents of this server are in `{found}`, and `blobs.url` says `{wanted}`\n\
     hint: {hint}"
    )]
    Elsewhere {
        /// Where they are.
        found: String,
        /// Where they should be.
        wanted: String,
        /// What to do.
        hint: String,
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
    /// Documents in the folder `folder`, which is made if it is not there and must be ours alone.
    ///
    /// # Errors
    /// When the folder cannot be made, or its documents are elsewhere.
    pub fn local(folder: &Path) -> Result<Blobs, BlobError> {
        place::prepare(folder, None)?;
        Ok(Blobs::at(Place::folder(folder)?, folder, FRESH))
    }

    /// Documents where `settings` say; `folder` holds them, or what is on its way to a bucket,
    /// which must be `node`'s alone. An upload that a crash cut short is given up for good.
    ///
    /// # Errors
    /// When the place cannot be used: each error names the setting and says what to do.
    pub async fn open(
        folder: &Path,
        settings: &config::Blobs,
        node: NodeId,
    ) -> Result<Blobs, BlobError> {
        Blobs::open_as(folder, settings, node, &|name| std::env::var(name).ok()).await
    }

    async fn open_as(
        folder: &Path,
        settings: &config::Blobs,
        node: NodeId,
        environment: s3::Environment<'_>,
    ) -> Result<Blobs, BlobError> {
        let Some(bucket) = settings.bucket() else { return Blobs::local(folder) };
        let place = s3::place(settings, &bucket, environment)?;
        let known = place::prepare(folder, Some(place.name()))?;
        place.check().await?;
        place.claim(node, known).await?;
        place::note(folder, place.name())?;
        upload::sweep(folder, &place).await?;
        Ok(Blobs::at(place, folder, FRESH))
    }

    /// Whether the bucket that `settings` name takes, shows and removes documents, and how long it
    /// takes to keep one; `None` if they name none.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub async fn check(settings: &config::Blobs) -> Result<Option<Duration>, BlobError> {
        let Some(bucket) = settings.bucket() else { return Ok(None) };
        let begun = Instant::now();
        s3::place(settings, &bucket, &|name| std::env::var(name).ok())?.check().await?;
        Ok(Some(begun.elapsed()))
    }

    fn at(place: Place, folder: &Path, fresh: Duration) -> Blobs {
        let gates = (0..GATES).map(|_| RwLock::new(())).collect();
        Blobs { place, folder: folder.to_owned(), gates, fresh }
    }

    /// Keeps `document` durably; what is there already, and not for long, is not written again.
    ///
    /// # Errors
    /// When it is too large, or the place fails; nothing of it is there then.
    pub async fn write(&self, document: Vec<u8>) -> Result<[u8; 32], BlobError> {
        if document.len() > BLOB_BYTES_MAX {
            return Err(too_large(document.len() as u64, BLOB_BYTES_MAX as u64));
        }
        let at_once = document.len() <= AT_ONCE_BYTES;
        let (hash, document) =
            work(at_once, move || (*blake3::hash(&document).as_bytes(), document)).await;
        self.take_in(&hash, async |name| {
            let sealed = work(at_once, move || codec::seal(Kind::Blob, &document)).await;
            self.place.put(name, sealed.into()).await
        })
        .await?;
        Ok(hash)
    }

    /// A document that comes piece by piece.
    #[must_use]
    pub fn draft(self: &Arc<Blobs>) -> Draft {
        Draft::new(self.clone())
    }

    /// Has `place` put a document durably where it belongs, unless it is there and fresh. One that
    /// was written long ago is written again: no store of objects can be told to only mark it.
    async fn take_in(
        &self,
        hash: &[u8; 32],
        place: impl AsyncFnOnce(&Name) -> Result<(), BlobError>,
    ) -> Result<(), BlobError> {
        let name = self.place.at(hash);
        let _kept = self.gate(hash).read().await;
        if self.age(&name).await?.is_some_and(|age| age <= self.fresh) {
            return self.place.confirm(&name).await;
        }
        place(&name).await
    }

    /// The document with this hash.
    ///
    /// # Errors
    /// When it is missing or damaged, or the place fails.
    pub async fn read(&self, hash: &[u8; 32]) -> Result<Vec<u8>, BlobError> {
        self.reader(hash).await?.read_whole().await
    }

    /// The document with this hash, piece by piece.
    ///
    /// # Errors
    /// When it is missing or damaged, or the place fails.
    pub async fn reader(&self, hash: &[u8; 32]) -> Result<Reader, BlobError> {
        let name = self.place.at(hash);
        let document = self.place.shown(&name);
        let found = match self.place.store().get(&name).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(BlobError::Missing { document });
            }
            Err(fault) => return Err(self.place.failed(&name, &fault)),
        };
        let bytes = usize::try_from(found.meta.size).unwrap_or(usize::MAX);
        let mut source = Source::new(found.payload, document.clone());
        source.look(bytes.min(LOOK_BYTES)).await?;
        if codec::begins(Kind::LargeBlob, source.ahead()) {
            return Reader::pieces(source, *hash).await;
        }
        let damaged = |what: String| BlobError::Damaged { document: document.clone(), what };
        if bytes > 2 * BLOB_BYTES_MAX {
            return Err(damaged(format!("it has {bytes} bytes")));
        }
        let sealed = source.take(bytes).await?;
        let opened = work(bytes <= AT_ONCE_BYTES, move || {
            let document = codec::open(Kind::Blob, &sealed)?.into_owned();
            Ok::<_, CodecError>((blake3::hash(&document), document))
        });
        let (found, whole) = opened.await.map_err(|why| damaged(why.to_string()))?;
        if found.as_bytes() != hash {
            return Err(damaged(format!("its hash is {found}")));
        }
        Ok(Reader::whole(document, whole, *hash))
    }

    /// Documents that nobody has kept for at least `quiet`, which must be longer than a quarter of
    /// an hour: younger ones may be on their way into a plan. So many at the most.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn quiet(&self, quiet: Duration, most: usize) -> Result<Vec<[u8; 32]>, BlobError> {
        assert!(quiet > self.fresh, "a document is written again no more often than that");
        self.place.sweep(quiet).await?;
        let mut listed = self.place.list();
        let mut found = Vec::new();
        let fault = |fault| self.place.failed(&Name::default(), &fault);
        while let Some(meta) = listed.try_next().await.map_err(fault)? {
            if found.len() == most {
                break;
            }
            if let Some(hash) = self.place.hash_of(&meta.location)
                && age_of(&meta) >= quiet
            {
                found.push(hash);
            }
        }
        Ok(found)
    }

    /// Removes a document unless somebody has kept it within `quiet`. Says whether it went. Once
    /// begun it must be told to its end: whoever keeps the same waits for that.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub async fn remove_quiet(&self, hash: &[u8; 32], quiet: Duration) -> Result<bool, BlobError> {
        assert!(quiet > self.fresh, "a document is written again no more often than that");
        let name = self.place.at(hash);
        let _alone = self.gate(hash).write().await;
        if self.age(&name).await?.is_none_or(|age| age < quiet) {
            return Ok(false);
        }
        let removed = self.place.store().delete(&name).await;
        removed.map_err(|fault| self.place.failed(&name, &fault))?;
        Ok(true)
    }

    /// How long ago a document was written; `None` if it is not there.
    async fn age(&self, name: &Name) -> Result<Option<Duration>, BlobError> {
        match self.place.store().head(name).await {
            Ok(meta) => Ok(Some(age_of(&meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(fault) => Err(self.place.failed(name, &fault)),
        }
    }

    fn gate(&self, hash: &[u8; 32]) -> &RwLock<()> {
        &self.gates[usize::from(hash[0])]
    }
}

/// A clock that was set back makes it young: it is kept the longer.
fn age_of(meta: &ObjectMeta) -> Duration {
    SystemTime::from(meta.last_modified).elapsed().unwrap_or_default()
}

/// Work that takes the longer the larger the document is.
async fn work<T: Send + 'static>(at_once: bool, work: impl FnOnce() -> T + Send + 'static) -> T {
    if at_once {
        return work();
    }
    tokio::task::spawn_blocking(work).await.expect("sealing and hashing do not panic")
}

fn too_large(bytes: u64, bytes_max: u64) -> BlobError {
    BlobError::TooLarge { bytes, bytes_max }
}

fn io(path: &Path, source: std::io::Error) -> BlobError {
    BlobError::Io { path: path.to_owned(), source }
}
