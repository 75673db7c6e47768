//! Backups: a data directory as of one position, with a list of its files and their hashes.
//!
//! Its law: what `backup` finished, `restore` puts back or refuses by name. The store is copied
//! from a snapshot, the journal from a snapshot that reaches back to it, so both belong together
//! while the server goes on; documents never change, so those that are there by then suffice.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use super::{StoreError, sqlite_fault, table};
use crate::data_dir::{self, LOGS, MESSAGES, sync_folder, write_whole};

const MANIFEST: &str = "manifest";
const MANIFEST_HEAD: &str = "maos backup 1";
/// Files beside the store and the journal, where they are in use.
const STREAMS: [&str; 2] = [MESSAGES, LOGS];
/// Times that snapshots are taken again before it cannot be the trimming that parts them.
const ATTEMPTS_MAX: u32 = 10;
/// Pages that are copied at a time.
const PAGES_PER_STEP: i32 = 1_000;

/// Copies the data directory `from`, in use or not, into `to`, which must be empty or not there.
///
/// # Errors
/// When `to` is not empty, something is damaged, or a disk fails. `to` is no backup then: it has no
/// `manifest`.
pub fn backup(from: &Path, to: &Path) -> Result<(), StoreError> {
    make_empty(to)?;
    let (store_snapshot, journal_snapshot) = snapshots(from)?;
    copy_database(&journal_snapshot, &to.join("journal.db"))?;
    copy_database(&store_snapshot, &to.join("store.db"))?;
    drop((store_snapshot, journal_snapshot));
    let mut names = vec!["journal.db".to_owned(), "store.db".to_owned(), "format".to_owned()];
    copy(&from.join("format"), &to.join("format"))?;
    for name in STREAMS.iter().filter(|name| from.join(name).exists()) {
        copy_database(&snapshot(&from.join(name))?, &to.join(name))?;
        names.push((*name).to_owned());
    }
    for name in documents(from)? {
        let target = to.join(&name);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(|fault| io(folder, fault))?;
        }
        match copy(&from.join(&name), &target) {
            Ok(()) => names.push(name),
            // Nothing has referred to it for a while: it was collected just now.
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(fault) => return Err(fault),
        }
    }
    let mut manifest = format!("{MANIFEST_HEAD}\n");
    for name in names {
        let hash = hash(&to.join(&name))?;
        manifest.push_str(&format!("{hash} {name}\n"));
    }
    let end = blake3::hash(manifest.as_bytes());
    manifest.push_str(&format!("end {end}\n"));
    let file = to.join(MANIFEST);
    write_whole(&file, manifest.as_bytes()).map_err(|fault| io(&file, fault))
}

/// Puts the backup `from` into the data directory `to`, which must be empty or not there.
///
/// # Errors
/// When `to` is not empty, the backup is not whole, or a disk fails. Nothing that is in `to` then
/// can be taken for a data directory: `format` comes last.
pub fn restore(from: &Path, to: &Path) -> Result<(), StoreError> {
    let names = verify(from)?;
    make_empty(to)?;
    for name in names.iter().filter(|name| *name != "format") {
        let target = to.join(name);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(|fault| io(folder, fault))?;
        }
        copy(&from.join(name), &target)?;
    }
    sync_folder(to).map_err(|fault| io(to, fault))?;
    copy(&from.join("format"), &to.join("format"))?;
    sync_folder(to).map_err(|fault| io(to, fault))
}

/// The files of a backup, once each has the hash that its manifest gives.
///
/// # Errors
/// What is missing or altered.
pub fn verify(from: &Path) -> Result<Vec<String>, StoreError> {
    let file = from.join(MANIFEST);
    let damaged = |what: String| StoreError::Damaged { path: file.clone(), what };
    let text = fs::read_to_string(&file).map_err(|fault| io(&file, fault))?;
    let (body, end) = text
        .rsplit_once("end ")
        .ok_or_else(|| damaged("it has no end: the backup was not finished".to_owned()))?;
    if end.trim_end() != blake3::hash(body.as_bytes()).to_hex().as_str() {
        return Err(damaged("it is not as it was written".to_owned()));
    }
    let mut lines = body.lines();
    if lines.next() != Some(MANIFEST_HEAD) {
        return Err(damaged(format!("`{MANIFEST_HEAD}` is wanted in its first line")));
    }
    let mut names = Vec::new();
    for line in lines {
        let (wanted, name) = line
            .split_once(' ')
            .filter(|(_, name)| !name.contains("..") && !name.starts_with('/'))
            .ok_or_else(|| damaged(format!("`{line}` is no hash and name")))?;
        let found = hash(&from.join(name))?;
        if found.to_hex().as_str() != wanted {
            return Err(damaged(format!("`{name}` has the hash {found}, wanted {wanted}")));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// Snapshots of store and journal that belong together. The store's is taken first, so that the
/// journal's has all that it rests on; when the journal was trimmed past it in between, both are
/// taken again.
fn snapshots(from: &Path) -> Result<(Connection, Connection), StoreError> {
    let (store, journal) = (from.join("store.db"), from.join("journal.db"));
    let mut trimmed = 0;
    for _ in 0..ATTEMPTS_MAX {
        let store_snapshot = snapshot(&store)?;
        let journal_snapshot = snapshot(&journal)?;
        let kept = table::position(&store_snapshot, &store)?.sequence.0;
        trimmed = journal_snapshot
            .query_row("SELECT trimmed FROM meta", (), |row| row.get(0))
            .map_err(|fault| sqlite_fault(&journal, fault))?;
        if trimmed <= kept {
            return Ok((store_snapshot, journal_snapshot));
        }
    }
    let what = format!("its journal is trimmed up to {trimmed}, past what the store holds");
    Err(StoreError::Damaged { path: store, what })
}

/// A connection that sees the database as it is now for as long as it lives.
pub(super) fn snapshot(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let db = Connection::open_with_flags(path, flags)?;
        db.execute_batch("PRAGMA query_only = 1; BEGIN; SELECT count(*) FROM sqlite_schema;")?;
        Ok(db)
    };
    open().map_err(|fault| sqlite_fault(path, fault))
}

fn copy_database(from: &Connection, to: &Path) -> Result<(), StoreError> {
    let copied = || -> rusqlite::Result<()> {
        let mut target = Connection::open(to)?;
        Backup::new(from, &mut target)?.run_to_completion(PAGES_PER_STEP, Duration::ZERO, None)?;
        // One file, without a WAL beside it.
        target.pragma_update(None, "journal_mode", "delete")
    };
    copied().map_err(|fault| sqlite_fault(to, fault))?;
    fs::File::open(to).and_then(|file| file.sync_all()).map_err(|fault| io(to, fault))
}

/// The names of all documents, from the data directory on; or of what says in which bucket they
/// are.
fn documents(from: &Path) -> Result<Vec<String>, StoreError> {
    let is_hex =
        |name: &str, digits| name.len() == digits && name.bytes().all(|c| c.is_ascii_hexdigit());
    let mut names = Vec::new();
    let blobs = from.join("blobs");
    for folder in list(&blobs)? {
        if folder == "url" {
            names.push(format!("blobs/{folder}"));
        }
        if !is_hex(&folder, 2) {
            // A draft.
            continue;
        }
        for name in list(&blobs.join(&folder))? {
            if is_hex(&name, 62) {
                names.push(format!("blobs/{folder}/{name}"));
            }
        }
    }
    Ok(names)
}

fn list(path: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(fault) => return Err(io(path, fault)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|fault| io(path, fault))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn make_empty(path: &Path) -> Result<(), StoreError> {
    data_dir::make(path).map_err(|fault| io(path, fault))?;
    if list(path)?.is_empty() {
        Ok(())
    } else {
        Err(StoreError::NotEmpty { path: path.to_owned() })
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::copy(from, to).map_err(|fault| io(from, fault))?;
    fs::File::open(to).and_then(|file| file.sync_all()).map_err(|fault| io(to, fault))
}

fn hash(path: &Path) -> Result<blake3::Hash, StoreError> {
    let mut hasher = blake3::Hasher::new();
    fs::File::open(path)
        .and_then(|file| hasher.update_reader(file).map(|hasher| hasher.finalize()))
        .map_err(|fault| io(path, fault))
}

fn io(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Io { path: PathBuf::from(path), source }
}
