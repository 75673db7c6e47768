//! A finished draft on its way to a bucket: in parts, each read from its file when it is its turn.
//!
//! Its law: an upload that does not come to its end leaves nothing in the bucket. Each is noted in
//! the local folder before its first part, so that it can be given up after a crash.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::multipart::MultipartStore;
use object_store::path::Path as Name;
use object_store::{Error, ObjectStoreExt};
use tokio::runtime::Handle;
use tracing::warn;

use super::place::{Bucket, Place, blocking, what};
use super::{BlobError, io, too_large};
use crate::data_dir::write_whole;

/// S3 takes no smaller part than 5 MiB but the last.
const PART_BYTES: u64 = 8 << 20;
/// Each upload holds one part.
const PART_BYTES_MAX: u64 = 64 << 20;
/// S3 takes no more.
const PARTS_MAX: u64 = 10_000;
/// Most bytes of a document in a bucket.
pub(super) const BYTES_MAX: u64 = PART_BYTES_MAX * PARTS_MAX;
const NOTE: &str = "upload";

/// An upload that has begun. It is given up when this is dropped before its end.
struct Underway {
    parts: Arc<dyn MultipartStore>,
    name: Name,
    id: String,
    note: PathBuf,
    complete: bool,
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.complete {
            return;
        }
        let (parts, name, id) = (self.parts.clone(), self.name.clone(), self.id.clone());
        let note = self.note.clone();
        let give_up = async move { give_up(&*parts, &name, &id, &note).await };
        // Without a runtime everything ends: the next start reads the note.
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn(give_up));
        }
    }
}

async fn give_up(parts: &dyn MultipartStore, name: &Name, id: &String, note: &Path) {
    match parts.abort_multipart(name, id).await {
        Ok(()) | Err(Error::NotFound { .. }) => drop(fs::remove_file(note)),
        Err(fault) => {
            let why = what(&fault);
            warn!("an upload could not be given up, the next start tries again: {why}");
        }
    }
}

/// Gives up the uploads that a crash cut short.
pub(super) async fn sweep(folder: &Path, place: &Place) -> Result<(), BlobError> {
    let Some(bucket) = place.as_bucket() else { return Ok(()) };
    for entry in fs::read_dir(folder).map_err(|fault| io(folder, fault))? {
        let note = entry.map_err(|fault| io(folder, fault))?.path();
        if note.extension().is_some_and(|end| end == NOTE) {
            let text = fs::read_to_string(&note).map_err(|fault| io(&note, fault))?;
            if let Some((name, id)) = text.trim_end().split_once('\n') {
                give_up(&*bucket.parts, &Name::from(name), &id.to_owned(), &note).await;
            }
        }
    }
    Ok(())
}

/// Puts the file `draft` durably under `name`.
pub(super) async fn upload(
    place: &Place,
    bucket: &Bucket,
    draft: &Path,
    name: &Name,
) -> Result<(), BlobError> {
    let _turn = bucket.turns.acquire().await.expect("it is never closed");
    let failed = |fault: Error| place.failed(name, &fault);
    let bytes = fs::metadata(draft).map_err(|fault| io(draft, fault))?.len();
    if bytes > BYTES_MAX {
        return Err(too_large(bytes, BYTES_MAX));
    }
    let part_bytes = bytes.div_ceil(PARTS_MAX).max(PART_BYTES);
    let mut file = File::open(draft).map_err(|fault| io(draft, fault))?;
    if bytes <= part_bytes {
        let (_, part) = part(file, draft, part_bytes).await?;
        return place.put(name, part.into()).await;
    }
    let id = bucket.parts.create_multipart(name).await.map_err(failed)?;
    let mut underway = note(bucket, draft, name, id).await?;
    let mut parts = Vec::new();
    loop {
        let (rest, part) = part(file, draft, part_bytes).await?;
        if part.is_empty() {
            break;
        }
        let put = bucket.parts.put_part(name, &underway.id, parts.len(), part.into()).await;
        parts.push(put.map_err(failed)?);
        file = rest;
    }
    if let Err(fault) = bucket.parts.complete_multipart(name, &underway.id, parts).await {
        // Only its answer may have been lost: then asking again is refused, and it is all there.
        match place.store().head(name).await {
            Ok(found) if found.size == bytes => {}
            Ok(_) | Err(_) => return Err(failed(fault)),
        }
    }
    underway.complete = true;
    drop(fs::remove_file(&underway.note));
    Ok(())
}

async fn note(
    bucket: &Bucket,
    draft: &Path,
    name: &Name,
    id: String,
) -> Result<Underway, BlobError> {
    let (parts, name, note) = (bucket.parts.clone(), name.clone(), draft.with_extension(NOTE));
    let text = format!("{name}\n{id}\n");
    let underway = Underway { parts, name, id, note: note.clone(), complete: false };
    blocking(move || write_whole(&note, text.as_bytes()).map_err(|fault| io(&note, fault))).await?;
    Ok(underway)
}

/// The next part of a file, empty at its end.
async fn part(file: File, path: &Path, bytes: u64) -> Result<(File, Vec<u8>), BlobError> {
    let path = path.to_owned();
    blocking(move || {
        let mut part = Vec::new();
        let read = (&file).take(bytes).read_to_end(&mut part);
        read.map(|_| (file, part)).map_err(|fault| io(&path, fault))
    })
    .await
}
