//! Where documents are: a folder of the data directory, or a bucket that speaks S3.
//!
//! Its law: what `put` or `bring` returned is durable. A bucket is one server's alone, and is
//! looked at before anything is kept in it. Both have the same names:
//!
//! ```text
//! ab/cdef...   a document; the folder is the first byte of its hash
//! owner        in a bucket: whose it is
//! probe        in a bucket, for a moment: whether it works
//! url          in the folder, when the documents are in a bucket: in which
//! *.partial    in the folder: a draft
//! *.upload     in the folder: an upload to the bucket that is underway
//! ```

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use maos_core::ids::NodeId;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Name;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tokio::sync::Semaphore;

use super::{BlobError, io, upload};
use crate::data_dir::{sync_folder, write_whole};

const OWNER: &str = "owner";
const PROBE: &str = "probe";
const URL: &str = "url";
/// A bucket's clock may be so far from ours: age is told by the one and judged by the other. What
/// is collected has not been kept for an hour, so much more than this is left.
const SKEW_MAX: Duration = Duration::from_secs(5 * 60);
/// Most of an error's text that is passed on.
const WHAT_CHARS_MAX: usize = 500;
/// Uploads in parts that go on at once; each holds one part.
const UPLOADS_AT_ONCE: usize = 4;

/// Where documents are.
#[derive(Debug)]
pub(super) struct Place {
    store: Arc<dyn ObjectStore>,
    /// What all names begin with.
    base: Name,
    shown: String,
    kind: PlaceKind,
}

#[derive(Debug)]
enum PlaceKind {
    Folder(Folder),
    Bucket(Bucket),
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// The folders in it whose own names are durable, by the byte that they are named after.
    settled: Arc<Mutex<[bool; 256]>>,
}

/// What a bucket has beside its documents.
pub(super) struct Bucket {
    /// Takes documents in parts.
    pub(super) parts: Arc<dyn MultipartStore>,
    /// Who may upload in parts.
    pub(super) turns: Semaphore,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").finish_non_exhaustive()
    }
}

/// Makes the local folder, removes the drafts that a crash left in it, and checks that the
/// documents are where they are `wanted`: in a bucket, or here. Says whether they are known to be.
pub(super) fn prepare(folder: &Path, wanted: Option<&str>) -> Result<bool, BlobError> {
    let wrong = |fault| io(folder, fault);
    fs::create_dir_all(folder).map_err(wrong)?;
    if let Some(parent) = folder.parent() {
        sync_folder(parent).map_err(|fault| io(parent, fault))?;
    }
    let mut holds_documents = false;
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let entry = entry.map_err(wrong)?.path();
        if entry.extension().is_some_and(|end| end == "partial") {
            drop(fs::remove_file(entry));
        } else if byte_of(&entry).is_some() {
            let mut within = fs::read_dir(&entry).map_err(|fault| io(&entry, fault))?;
            holds_documents |= within.next().is_some();
        }
    }
    let url = folder.join(URL);
    let (here, url_shown) = (folder.display().to_string(), url.display());
    let (found, hint) = match (noted(&url)?, wanted) {
        (Some(found), wanted) if Some(&*found) == wanted => return Ok(true),
        (Some(found), wanted) => {
            let to = wanted.unwrap_or("this folder");
            let hint = format!(
                "set it back, or copy the documents to {to} (`aws s3 sync`) and remove \
                 `{url_shown}`"
            );
            (found, hint)
        }
        (None, Some(wanted)) if holds_documents => {
            let hint = format!("copy what is in it to {wanted} (`aws s3 sync`), then move it away");
            (here.clone(), hint)
        }
        (None, _) => return Ok(false),
    };
    Err(BlobError::Elsewhere { found, wanted: wanted.unwrap_or(&here).to_owned(), hint })
}

/// Notes in the local folder that the documents are in the bucket `url`.
pub(super) fn note(folder: &Path, url: &str) -> Result<(), BlobError> {
    let file = folder.join(URL);
    if noted(&file)?.as_deref() == Some(url) {
        return Ok(());
    }
    write_whole(&file, format!("{url}\n").as_bytes()).map_err(|fault| io(&file, fault))
}

/// The bucket that holds the documents of a data directory, if they are not in its `folder`.
///
/// # Errors
/// When that cannot be read.
pub fn bucket_of(folder: &Path) -> Result<Option<String>, BlobError> {
    noted(&folder.join(URL))
}

fn noted(file: &Path) -> Result<Option<String>, BlobError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(io(file, fault)),
    }
}

/// The byte that a folder of documents is named after.
fn byte_of(folder: &Path) -> Option<u8> {
    let name = folder.file_name()?.to_str()?;
    let is_plain = name.len() == 2 && name.bytes().all(|c| c.is_ascii_hexdigit());
    is_plain.then(|| u8::from_str_radix(name, 16).ok()).flatten()
}

impl Place {
    /// A local folder that is there.
    pub(super) fn folder(path: &Path) -> Result<Place, BlobError> {
        let store = LocalFileSystem::new_with_prefix(path)
            .map_err(|fault| io(path, std::io::Error::other(fault)))?
            .with_fsync(true);
        // Their names may never have been synced, if a crash came in between: they are now.
        sync_folder(path).map_err(|fault| io(path, fault))?;
        let mut settled = [false; 256];
        for entry in fs::read_dir(path).map_err(|fault| io(path, fault))? {
            let entry = entry.map_err(|fault| io(path, fault))?.path();
            if let Some(byte) = byte_of(&entry) {
                settled[usize::from(byte)] = true;
            }
        }
        let settled = Arc::new(Mutex::new(settled));
        let kind = PlaceKind::Folder(Folder { path: path.to_owned(), settled });
        let shown = path.display().to_string();
        Ok(Place { store: Arc::new(store), base: Name::default(), shown, kind })
    }

    /// A bucket, or the part of it that is below `base`.
    pub(super) fn bucket<S: ObjectStore + MultipartStore>(
        store: Arc<S>,
        base: Name,
        shown: String,
    ) -> Place {
        let turns = Semaphore::new(UPLOADS_AT_ONCE);
        let kind = PlaceKind::Bucket(Bucket { parts: store.clone(), turns });
        Place { store, base, shown, kind }
    }

    pub(super) fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    /// The bucket, if it is one.
    pub(super) fn as_bucket(&self) -> Option<&Bucket> {
        match &self.kind {
            PlaceKind::Folder(_) => None,
            PlaceKind::Bucket(bucket) => Some(bucket),
        }
    }

    /// What people call it: a path, or a URL.
    pub(super) fn name(&self) -> &str {
        &self.shown
    }

    /// Where the document with this hash belongs.
    pub(super) fn at(&self, hash: &[u8; 32]) -> Name {
        let name = blake3::Hash::from_bytes(*hash).to_hex();
        self.base.clone().join(&name[..2]).join(&name[2..])
    }

    /// The hash that an object is named by; `None` for one that is no document.
    pub(super) fn hash_of(&self, name: &Name) -> Option<[u8; 32]> {
        let mut parts = name.prefix_match(&self.base)?;
        let (folder, file) = (parts.next()?, parts.next()?);
        if folder.as_ref().len() != 2 || parts.next().is_some() {
            return None;
        }
        let name = format!("{}{}", folder.as_ref(), file.as_ref());
        blake3::Hash::from_hex(name).ok().map(|hash| *hash.as_bytes())
    }

    /// What people call an object.
    pub(super) fn shown(&self, name: &Name) -> String {
        let within = name.as_ref().strip_prefix(self.base.as_ref()).unwrap_or(name.as_ref());
        format!("{}/{}", self.shown, within.trim_start_matches('/'))
    }

    pub(super) fn failed(&self, name: &Name, fault: &Error) -> BlobError {
        BlobError::Failed { document: self.shown(name), what: what(fault) }
    }

    /// Puts an object durably where it belongs, whole or not at all.
    pub(super) async fn put(&self, name: &Name, bytes: PutPayload) -> Result<(), BlobError> {
        self.settle(name).await?;
        let put = self.store.put(name, bytes).await;
        put.map(drop).map_err(|fault| self.failed(name, &fault))
    }

    /// Puts a finished draft durably where it belongs. In a folder it moves there.
    pub(super) async fn bring(&self, draft: &Path, name: &Name) -> Result<(), BlobError> {
        let Some(bucket) = self.as_bucket() else {
            self.settle(name).await?;
            let file = draft.file_name().and_then(|file| file.to_str());
            let from = Name::from(file.expect("a draft is named by us"));
            let moved = self.store.rename(&from, name).await;
            return moved.map_err(|fault| self.failed(name, &fault));
        };
        upload::upload(self, bucket, draft, name).await
    }

    /// Makes the folder of a document and its name durable.
    ///
    /// `LocalFileSystem` syncs the file, and the folder that it is in, before `put` and `rename`
    /// return; a folder that it makes, and the one above that, too. But who comes second finds the
    /// new folder there and does not wait for that last sync. So we make it first.
    async fn settle(&self, name: &Name) -> Result<(), BlobError> {
        let PlaceKind::Folder(folder) = &self.kind else { return Ok(()) };
        let within = name.parts().next();
        let within = within.expect("a document is in a folder").as_ref().to_owned();
        let path = folder.path.join(within);
        let byte = usize::from(byte_of(&path).expect("a document's folder is named by a byte"));
        let is_settled = |settled: &Mutex<[bool; 256]>| {
            settled.lock().expect("nothing panics while it holds this lock")[byte]
        };
        if is_settled(&folder.settled) {
            return Ok(());
        }
        let (above, settled) = (folder.path.clone(), folder.settled.clone());
        blocking(move || {
            let mut settled = settled.lock().expect("nothing panics while it holds this lock");
            fs::create_dir_all(&path).map_err(|fault| io(&path, fault))?;
            sync_folder(&above).map_err(|fault| io(&above, fault))?;
            settled[byte] = true;
            Ok(())
        })
        .await
    }

    /// Makes sure that an object which is there is durable. In a folder, who put it may have been
    /// cut off, or be still about to sync its name; when it is synced already, this costs nothing.
    pub(super) async fn confirm(&self, name: &Name) -> Result<(), BlobError> {
        let PlaceKind::Folder(folder) = &self.kind else { return Ok(()) };
        let path = folder.path.join(name.as_ref());
        self.settle(name).await?;
        blocking(move || {
            let within = path.parent().expect("a document is in a folder");
            sync_folder(within).map_err(|fault| io(within, fault))
        })
        .await
    }

    /// All objects.
    pub(super) fn list(&self) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.store.list(Some(&self.base).filter(|base| !base.is_root()))
    }

    /// Removes what a crash left of documents that were on their way into a folder, once it is
    /// older than `quiet`. Not at the start: it takes a look at every name.
    pub(super) async fn sweep(&self, quiet: Duration) -> Result<(), BlobError> {
        let PlaceKind::Folder(folder) = &self.kind else { return Ok(()) };
        let path = folder.path.clone();
        blocking(move || {
            for entry in fs::read_dir(&path).map_err(|fault| io(&path, fault))? {
                let entry = entry.map_err(|fault| io(&path, fault))?.path();
                if byte_of(&entry).is_some() {
                    sweep_folder(&entry, quiet)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Whether it takes, shows, lists and removes objects, and has our time.
    pub(super) async fn check(&self) -> Result<(), BlobError> {
        let unusable = |fault: Error| self.unusable(what(&fault), remedy(&fault));
        let name = self.base.clone().join(PROBE);
        let said = PutPayload::from_static(b"maos");
        self.store.put(&name, said.clone()).await.map_err(unusable)?;
        let found = self.store.get(&name).await.map_err(unusable)?;
        let written = SystemTime::from(found.meta.last_modified);
        if found.bytes().await.map_err(unusable)?[..] != *b"maos" {
            let what = "it shows something else than was written".to_owned();
            return Err(self.unusable(what, "it must give back at once what it has taken"));
        }
        self.list().try_next().await.map_err(unusable)?;
        self.store.delete(&name).await.map_err(unusable)?;
        let now = SystemTime::now();
        let skew = now.duration_since(written).or_else(|_| written.duration_since(now));
        let skew = skew.unwrap_or_default();
        if skew > SKEW_MAX {
            let what = format!("its clock is {} s away from this machine's", skew.as_secs());
            return Err(self.unusable(what, "set the clock of this machine"));
        }
        Ok(())
    }

    /// Makes it this server's, or finds that it is already. `known`: it must be.
    pub(super) async fn claim(&self, node: NodeId, known: bool) -> Result<(), BlobError> {
        let name = self.base.clone().join(OWNER);
        let unusable = |fault: Error| self.unusable(what(&fault), remedy(&fault));
        let ours = format!("maos 1\nnode {node}\n");
        let found = match self.store.get(&name).await {
            Ok(found) => found.bytes().await.map_err(unusable)?,
            Err(Error::NotFound { .. }) if known => {
                let what = "it is empty, and documents were kept in it before".to_owned();
                let hint = "correct `blobs.url` and `blobs.endpoint`, or bring the bucket back";
                return Err(self.unusable(what, hint));
            }
            Err(Error::NotFound { .. }) => {
                let claim = PutPayload::from(ours.clone());
                match self.store.put_opts(&name, claim, PutMode::Create.into()).await {
                    Ok(_) => return Ok(()),
                    // Somebody else was faster.
                    Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                        let found = self.store.get(&name).await.map_err(unusable)?;
                        found.bytes().await.map_err(unusable)?
                    }
                    Err(fault) => return Err(unusable(fault)),
                }
            }
            Err(fault) => return Err(unusable(fault)),
        };
        if *found == *ours.as_bytes() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&found);
        let by = text.lines().nth(1).unwrap_or_default().chars().take(60).collect::<String>();
        let what = format!("it is another server's (`{by}`), which would remove our documents");
        Err(self.unusable(what, "give each server a bucket or a prefix of its own"))
    }

    fn unusable(&self, what: String, hint: &str) -> BlobError {
        BlobError::Unusable { place: self.shown.clone(), what, hint: hint.to_owned() }
    }
}

fn sweep_folder(folder: &Path, quiet: Duration) -> Result<(), BlobError> {
    for file in fs::read_dir(folder).map_err(|fault| io(folder, fault))? {
        let file = file.map_err(|fault| io(folder, fault))?;
        let name = file.file_name();
        let name = name.to_string_lossy();
        // `<hash>#<number>` is a put of `LocalFileSystem`; earlier releases had `<uuid>.partial`.
        if name.contains('#') || name.ends_with(".partial") {
            let written = file.metadata().and_then(|metadata| metadata.modified());
            let age = written.ok().and_then(|written| written.elapsed().ok());
            if age.is_some_and(|age| age >= quiet) {
                // It may be gone by now.
                drop(fs::remove_file(file.path()));
            }
        }
    }
    Ok(())
}

/// Work on files. It goes on to its end when nobody waits for it any more.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(work).await.expect("work on files does not panic")
}

/// A fault in one line. An answer in XML can be long and repeats what was signed: its code and
/// message say it all.
pub(super) fn what(fault: &Error) -> String {
    let text = fault.to_string();
    let said = match text.find("<?xml").or_else(|| text.find("<Error>")) {
        None => text,
        Some(at) => {
            let tag = |name: &str| {
                let (_, rest) = text[at..].split_once(&format!("<{name}>"))?;
                rest.split_once(&format!("</{name}>")).map(|(found, _)| found)
            };
            let code = tag("Code").unwrap_or("no code");
            format!("{}{code}: {}", &text[..at], tag("Message").unwrap_or_default())
        }
    };
    let line: Vec<&str> = said.split_whitespace().collect();
    line.join(" ").chars().take(WHAT_CHARS_MAX).collect()
}

fn remedy(fault: &Error) -> &'static str {
    match fault {
        Error::NotFound { .. } => "make the bucket, or correct `blobs.url`",
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be right, and allow to read, write, \
             list and remove there"
        }
        _ => {
            "look at `blobs.endpoint` and `blobs.region`, and at AWS_ACCESS_KEY_ID in the \
             environment; `maos doctor` tries again"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_xml_is_told_by_its_code_and_message() {
        let source = "PUT failed: <?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code>\
                      <Message>Reduce\nyour rate</Message><AWSAccessKeyId>A</AWSAccessKeyId>";
        let fault = Error::Generic { store: "S3", source: source.into() };
        assert_eq!(what(&fault), "Generic S3 error: PUT failed: SlowDown: Reduce your rate");
        let long = Error::Generic { store: "S3", source: "x".repeat(5_000).into() };
        assert_eq!(what(&long).chars().count(), WHAT_CHARS_MAX);
    }
}
