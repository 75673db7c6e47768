//! Checkpoints: the store as it was at one position, compressed, in one file with its hash; and the
//! way back to it.
//!
//! Its law: what is listed is whole; a directory is either as it was or as the checkpoint says,
//! whenever the way back is interrupted. A checkpoint holds tasks, agents and documents of the
//! shell; blobs that it refers to stay for as long as it does. Logs and messages are not in it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use maos_core::ids::{Epoch, Position, Sequence};
use rusqlite::Connection;
use rusqlite::backup::Backup;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{StoreError, backup, sqlite_fault, table};
use crate::codec::{self, Kind};
use crate::data_dir::{DataDir, sync_folder, write_whole};
use crate::journal::SqliteJournal;

/// Pages that are copied before others get a turn.
const PAGES_PER_STEP: i32 = 100;
/// Bytes of the copy that are compressed at a time: half a millisecond's work, as those pages are.
const CHUNK_BYTES: usize = 1 << 17;
/// Sleep behind each of them, which hands the processor over. A low priority alone does not: it
/// makes turns rare, but whoever has one keeps it for a tick of the scheduler, often 4 ms, and the
/// engine would be held up by as much.
const PAUSE: Duration = Duration::from_micros(50);
/// Bytes that a file becomes shorter by at a time before it is removed. To free the pages of a
/// large one takes tenths of a second, for which the kernel keeps the processor as well.
const FREED_BYTES: u64 = 1 << 20;
/// Chunks after which what was written is brought to disk: a commit of the journal that comes
/// meanwhile waits for no more than that.
const CHUNKS_PER_SYNC: u32 = 64;
const FORMAT: u32 = 1;
/// Says that a way back has begun; what it says is finished whatever happens.
const MARKER: &str = "restoring";
/// What comes in the store's place.
const EXPANDED: &str = "store.db.restored";

/// What brought a checkpoint about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Somebody asked for it.
    Manual,
    /// Time passed.
    Automatic,
    /// Somebody went back to another one.
    BeforeRestore,
}

/// What a checkpoint is; the file beside it says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// Its id.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// What brought it about.
    pub cause: Cause,
    /// When it was made, in microseconds since the Unix epoch.
    pub created_us: u64,
    epoch: u64,
    sequence: u64,
    /// Tasks in it, ended ones too.
    pub tasks: u64,
    /// What it takes on disk.
    pub size_bytes: u64,
    /// What the store takes that it becomes.
    pub plain_bytes: u64,
    /// BLAKE3 of that, in hexadecimal digits.
    pub hash: String,
    /// The caller's own.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

impl Manifest {
    /// The position that it holds.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { epoch: Epoch(self.epoch), sequence: Sequence(self.sequence) }
    }
}

/// The checkpoints of one data directory. All calls block.
#[derive(Debug)]
pub struct Checkpoints {
    data_dir: PathBuf,
    folder: PathBuf,
    /// One is made, or gone back to, at a time.
    working: Mutex<()>,
}

impl Checkpoints {
    /// Those of the data directory `data_dir`, which must be ours.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(data_dir: &Path) -> Result<Checkpoints, StoreError> {
        let folder = data_dir.join("checkpoints");
        fs::create_dir_all(&folder).map_err(|fault| io(&folder, fault))?;
        for entry in fs::read_dir(&folder).map_err(|fault| io(&folder, fault))? {
            let path = entry.map_err(|fault| io(&folder, fault))?.path();
            if path.extension().is_some_and(|end| end == "partial") {
                // What a crash left of one that was being made.
                drop(fs::remove_file(path));
            }
        }
        Ok(Checkpoints { data_dir: data_dir.to_owned(), folder, working: Mutex::new(()) })
    }

    /// All of them, the oldest first.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn list(&self) -> Result<Vec<Manifest>, StoreError> {
        let mut found: Vec<Manifest> = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|fault| io(&self.folder, fault))? {
            let path = entry.map_err(|fault| io(&self.folder, fault))?.path();
            if path.extension().is_some_and(|end| end == "json") {
                found.push(read_manifest(&path)?);
            }
        }
        found.sort_by_key(|manifest| manifest.id);
        Ok(found)
    }

    /// One of them, if it is there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn find(&self, id: Uuid) -> Result<Option<Manifest>, StoreError> {
        let path = self.file(id, "json");
        if path.exists() { read_manifest(&path).map(Some) } else { Ok(None) }
    }

    /// Makes one of the store as it is now.
    ///
    /// # Errors
    /// When the store is damaged or the disk fails; nothing of it is there then.
    pub fn create(
        &self,
        id: Uuid,
        name: String,
        cause: Cause,
        created_us: u64,
        metadata: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Manifest, StoreError> {
        let _alone = self.working.lock().expect("nothing panics while it holds this lock");
        let copy = self.file(id, "copy.partial");
        let packed = self.file(id, "data.partial");
        let made = self.copy(&copy).and_then(|(position, tasks, documents)| {
            let (hash, plain_bytes) = pack(&copy, &packed)?;
            let size_bytes = fs::metadata(&packed).map_err(|fault| io(&packed, fault))?.len();
            let data = self.file(id, "data");
            fs::rename(&packed, &data).map_err(|fault| io(&data, fault))?;
            let list = self.file(id, "documents");
            write_whole(&list, &documents.concat()).map_err(|fault| io(&list, fault))?;
            let manifest = Manifest {
                format: FORMAT,
                id,
                name,
                cause,
                created_us,
                epoch: position.epoch.0,
                sequence: position.sequence.0,
                tasks,
                size_bytes,
                plain_bytes,
                hash: hash.to_hex().to_string(),
                metadata,
            };
            let path = self.file(id, "json");
            let text = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
            write_whole(&path, &text).map_err(|fault| io(&path, fault))?;
            Ok(manifest)
        });
        // What is left of it, if that fails, goes at the next start.
        drop(remove_in_parts(&copy));
        if made.is_err() {
            for end in ["data.partial", "data", "documents"] {
                drop(fs::remove_file(self.file(id, end)));
            }
        }
        made
    }

    /// Removes one; says whether it was there.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remove(&self, id: Uuid) -> Result<bool, StoreError> {
        let _alone = self.working.lock().expect("nothing panics while it holds this lock");
        let mut there = false;
        // The manifest first: what is left without it is not listed.
        for end in ["json", "documents", "data"] {
            let path = self.file(id, end);
            match remove_in_parts(&path) {
                Ok(()) => there = true,
                Err(fault) if fault.kind() == ErrorKind::NotFound => {}
                Err(fault) => return Err(io(&path, fault)),
            }
        }
        Ok(there)
    }

    /// Hashes of the blobs that any of them refers to.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn documents(&self) -> Result<HashSet<[u8; 32]>, StoreError> {
        let mut found = HashSet::new();
        for manifest in self.list()? {
            let path = self.file(manifest.id, "documents");
            let bytes = fs::read(&path).map_err(|fault| io(&path, fault))?;
            found.extend(bytes.as_chunks::<32>().0);
        }
        Ok(found)
    }

    /// Expands one beside the store, and checks that it is whole. Nothing has happened yet.
    ///
    /// # Errors
    /// When it is damaged or the disk fails.
    pub fn expand(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let _alone = self.working.lock().expect("nothing panics while it holds this lock");
        let target = self.expanded();
        let expanded = unpack(&self.file(manifest.id, "data"), &target, manifest);
        if expanded.is_err() {
            drop(fs::remove_file(&target));
        }
        expanded
    }

    /// Marks the directory, so that the next [`finish`] puts what was expanded in the store's
    /// place. `epoch` is the reign that ends with it. The server that had the directory must have
    /// ended.
    ///
    /// # Errors
    /// When the disk fails; all is as it was then.
    pub fn begin_restore(&self, manifest: &Manifest, epoch: Epoch) -> Result<(), StoreError> {
        let marker = self.data_dir.join(MARKER);
        let text = format!("{} {}-{}\n", epoch.0, manifest.epoch, manifest.sequence);
        write_whole(&marker, text.as_bytes()).map_err(|fault| io(&marker, fault))
    }

    /// Forgets what was expanded, after all.
    pub fn discard(&self) {
        drop(fs::remove_file(self.expanded()));
    }

    fn expanded(&self) -> PathBuf {
        self.data_dir.join(EXPANDED)
    }

    /// A copy of the store in one file; its position, its tasks, the blobs that it refers to.
    fn copy(&self, to: &Path) -> Result<(Position, u64, Vec<[u8; 32]>), StoreError> {
        let store = self.data_dir.join("store.db");
        let snapshot = backup::snapshot(&store)?;
        let wrong = |fault| sqlite_fault(&store, fault);
        let position = table::position(&snapshot, &store)?;
        let mut target = Connection::open(to).map_err(wrong)?;
        // It is gone again before it would have to survive anything; brought to disk, it would
        // hold up everybody who is.
        for (pragma, value) in [("journal_mode", "off"), ("synchronous", "off")] {
            target.pragma_update(None, pragma, value).map_err(wrong)?;
        }
        // What it holds back is written in one go at the end: no more than a step.
        target.pragma_update(None, "cache_size", PAGES_PER_STEP).map_err(wrong)?;
        let copied = Backup::new(&snapshot, &mut target)
            .and_then(|backup| backup.run_to_completion(PAGES_PER_STEP, PAUSE, None));
        copied.map_err(wrong)?;
        drop(snapshot);
        target.pragma_update(None, "journal_mode", "delete").map_err(wrong)?;
        let tasks = target
            .query_row("SELECT sum(tasks) FROM counts", (), |row| row.get(0))
            .map_err(wrong)?;
        let mut query =
            target.prepare("SELECT DISTINCT hash FROM documents ORDER BY hash").map_err(wrong)?;
        let hashes = query.query_map((), |row| row.get::<_, [u8; 32]>(0)).map_err(wrong)?;
        let documents = hashes.collect::<rusqlite::Result<Vec<_>>>().map_err(wrong)?;
        Ok((position, tasks, documents))
    }

    fn file(&self, id: Uuid, end: &str) -> PathBuf {
        self.folder.join(format!("{id}.{end}"))
    }
}

/// Finishes a way back that was begun, before anything of the directory is opened; says whether
/// there was one.
///
/// # Errors
/// When the disk fails: the next start goes on with it.
pub fn finish(dir: &DataDir) -> Result<bool, StoreError> {
    let marker = dir.path().join(MARKER);
    let text = match fs::read_to_string(&marker) {
        Ok(text) => text,
        Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok(false),
        Err(fault) => return Err(io(&marker, fault)),
    };
    let mut numbers = text.split([' ', '-', '\n']).filter_map(|word| word.parse::<u64>().ok());
    let (Some(epoch), Some(of), Some(sequence)) = (numbers.next(), numbers.next(), numbers.next())
    else {
        let what = "it does not say what is restored".to_owned();
        return Err(StoreError::Damaged { path: marker, what });
    };
    let (restored, store, journal) = (dir.path().join(EXPANDED), dir.store(), dir.journal());
    // Whatever was done before a crash is done already; the marker goes last.
    if restored.exists() {
        for file in [&store, &journal] {
            for end in ["-wal", "-shm"] {
                remove(&with_end(file, end))?;
            }
        }
        remove(&journal)?;
        fs::rename(&restored, &store).map_err(|fault| io(&store, fault))?;
        sync_folder(dir.path()).map_err(|fault| io(dir.path(), fault))?;
    }
    let position = Position { epoch: Epoch(of), sequence: Sequence(sequence) };
    if !SqliteJournal::is_at(&journal, position) {
        for end in ["", "-wal", "-shm"] {
            remove(&with_end(&journal, end))?;
        }
        SqliteJournal::begin_at(&journal, position, Epoch(epoch))?;
    }
    remove(&marker)?;
    sync_folder(dir.path()).map_err(|fault| io(dir.path(), fault))?;
    Ok(true)
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(fault) if fault.kind() != ErrorKind::NotFound => Err(io(path, fault)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn read_manifest(path: &Path) -> Result<Manifest, StoreError> {
    let text = fs::read(path).map_err(|fault| unreadable(path, fault))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|fault| damaged(path, &fault.to_string()))?;
    if manifest.format > FORMAT {
        let (found, known) = (manifest.format, FORMAT);
        return Err(StoreError::TooNew { path: path.to_owned(), found, known });
    }
    Ok(manifest)
}

/// Removes a file that may be large, so that nobody is held up by it.
fn remove_in_parts(path: &Path) -> std::io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let mut left = file.metadata()?.len();
    while left > FREED_BYTES {
        left -= FREED_BYTES;
        file.set_len(left)?;
        std::thread::sleep(PAUSE);
    }
    drop(file);
    fs::remove_file(path)
}

/// Compresses `from` into `to`, chunk by chunk, durably; its hash and size.
fn pack(from: &Path, to: &Path) -> Result<(blake3::Hash, u64), StoreError> {
    let mut source = File::open(from).map_err(|fault| io(from, fault))?;
    let target = File::create(to).map_err(|fault| io(to, fault))?;
    let mut target = BufWriter::new(target);
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    for chunks in 1_u32.. {
        chunk.clear();
        let limit = CHUNK_BYTES as u64;
        let read = (&mut source).take(limit).read_to_end(&mut chunk);
        if read.map_err(|fault| io(from, fault))? == 0 {
            break;
        }
        hasher.update(&chunk);
        bytes += chunk.len() as u64;
        let sealed = codec::seal(Kind::Checkpoint, &chunk);
        let length = u32::try_from(sealed.len()).unwrap_or(u32::MAX).to_le_bytes();
        let written = target.write_all(&length).and_then(|()| target.write_all(&sealed));
        written.map_err(|fault| io(to, fault))?;
        if chunks.is_multiple_of(CHUNKS_PER_SYNC) {
            let synced = target.flush().and_then(|()| target.get_ref().sync_data());
            synced.map_err(|fault| io(to, fault))?;
        }
        std::thread::sleep(PAUSE);
    }
    let file = target.into_inner().map_err(|fault| io(to, fault.into_error()))?;
    file.sync_all().map_err(|fault| io(to, fault))?;
    Ok((hasher.finalize(), bytes))
}

fn unpack(from: &Path, to: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    let damaged = |what: String| damaged(from, &what);
    let mut source = BufReader::new(File::open(from).map_err(|fault| unreadable(from, fault))?);
    let mut target = File::create(to).map_err(|fault| io(to, fault))?;
    let (mut hasher, mut left) = (blake3::Hasher::new(), manifest.plain_bytes);
    let mut sealed = Vec::new();
    while left > 0 {
        let mut length = [0; 4];
        source.read_exact(&mut length).map_err(|fault| match fault.kind() {
            ErrorKind::UnexpectedEof => damaged("it ends before its content does".to_owned()),
            _ => io(from, fault),
        })?;
        let length = u64::from(u32::from_le_bytes(length));
        sealed.clear();
        let read = (&mut source).take(length).read_to_end(&mut sealed);
        read.map_err(|fault| io(from, fault))?;
        let chunk =
            codec::open(Kind::Checkpoint, &sealed).map_err(|fault| damaged(fault.to_string()))?;
        left = left
            .checked_sub(chunk.len() as u64)
            .ok_or_else(|| damaged("it holds more than it should".to_owned()))?;
        hasher.update(&chunk);
        target.write_all(&chunk).map_err(|fault| io(to, fault))?;
    }
    let found = hasher.finalize().to_hex().to_string();
    if found != manifest.hash {
        return Err(damaged(format!("its checksum is {found}, {} is wanted", manifest.hash)));
    }
    target.sync_all().map_err(|fault| io(to, fault))
}

fn damaged(path: &Path, what: &str) -> StoreError {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let what = format!("the file `{file}` of the checkpoint is damaged: {what}");
    StoreError::Checkpoint { path: path.to_owned(), what }
}

/// A file of a checkpoint that is gone does not come back by itself.
fn unreadable(path: &Path, fault: std::io::Error) -> StoreError {
    if fault.kind() != ErrorKind::NotFound {
        return io(path, fault);
    }
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let what = format!("the file `{file}` of the checkpoint is missing");
    StoreError::Checkpoint { path: path.to_owned(), what }
}

fn io(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::recovery;
    use crate::store::samples;

    /// A directory whose store has come to step 3, with a checkpoint of that.
    fn prepared(folder: &Path) -> (Checkpoints, Manifest) {
        let dir = Arc::new(DataDir::open(folder).unwrap());
        let (store, _) = crate::store::Store::open(&dir).unwrap();
        let done = samples::task(1, 1, samples::done());
        store.write(samples::changes(3, vec![done]));
        store.close();
        drop((store, dir));
        let checkpoints = Checkpoints::open(folder).unwrap();
        let made = checkpoints.create(Uuid::now_v7(), "c".into(), Cause::Manual, 5, <_>::default());
        (checkpoints, made.unwrap())
    }

    #[test]
    fn a_way_back_that_was_cut_off_anywhere_is_finished_at_the_next_start() {
        for cut in 0..4 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path();
            let (checkpoints, made) = prepared(path);
            checkpoints.expand(&made).unwrap();
            checkpoints.begin_restore(&made, Epoch(7)).unwrap();
            if cut > 0 {
                remove(&path.join("journal.db")).unwrap();
            }
            if cut > 1 {
                fs::rename(path.join(EXPANDED), path.join("store.db")).unwrap();
            }
            if cut > 2 {
                SqliteJournal::begin_at(&path.join("journal.db"), made.position(), Epoch(7))
                    .unwrap();
            }
            let opened = recovery::open(path).unwrap();
            assert!(opened.restored, "cut {cut}");
            assert_eq!(opened.from, made.position());
            assert_eq!(crate::journal::Journal::epoch(&opened.journal), Epoch(7));
            opened.store.close();
            drop(opened);
            assert!(!recovery::open(path).unwrap().restored, "it happens once");
        }
    }

    #[test]
    fn what_is_damaged_is_not_expanded() {
        let folder = tempfile::tempdir().unwrap();
        let (checkpoints, made) = prepared(folder.path());
        let data = checkpoints.file(made.id, "data");
        let whole = fs::read(&data).unwrap();
        for length in [0, 3, whole.len() / 2, whole.len() - 1] {
            fs::write(&data, &whole[..length]).unwrap();
            assert!(checkpoints.expand(&made).is_err(), "{length} bytes of {}", whole.len());
            assert!(!folder.path().join(EXPANDED).exists());
        }
        fs::write(&data, &whole).unwrap();
        let other = Manifest { hash: "0".repeat(64), ..made };
        assert!(checkpoints.expand(&other).is_err());
    }

    #[test]
    fn a_large_file_is_removed_as_a_small_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        for bytes in [0, FREED_BYTES, 3 * FREED_BYTES + 1] {
            File::create(&path).unwrap().set_len(bytes).unwrap();
            remove_in_parts(&path).unwrap();
            assert_eq!(remove_in_parts(&path).unwrap_err().kind(), ErrorKind::NotFound);
        }
    }
}
