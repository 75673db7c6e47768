//! How a file takes its place: written beside it under a name of its own, synced, then renamed. A
//! reader sees the old content or the new one, never half of it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{Fault, FromTo, Stop, each_piece, io, open};

/// What becomes of a file that is there already.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Existing {
    Replace,
    Refuse,
}

impl Existing {
    pub(super) fn of(overwrite: bool) -> Existing {
        if overwrite { Existing::Replace } else { Existing::Refuse }
    }
}

/// Removes a file that never took its place.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It may be gone already; there is nobody to tell either way.
            let _ = fs::remove_file(path);
        }
    }
}

/// Puts what `fill` writes at `path`.
pub(super) fn place<T>(
    path: &Path,
    shown: &str,
    existing: Existing,
    create_parents: bool,
    fill: impl FnOnce(&mut File) -> Result<T, Fault>,
) -> Result<T, Fault> {
    refuse_existing(path, shown, existing)?;
    let folder = folder_of(path, shown, create_parents)?;
    let beside = folder.join(format!(".maos-{}", uuid::Uuid::now_v7()));
    let mut file = io(shown, File::create_new(&beside))?;
    let mut temporary = Temporary(Some(beside.clone()));
    let filled = fill(&mut file)?;
    io(shown, file.sync_all())?;
    drop(file);
    rename(&beside, path, shown, existing)?;
    temporary.0 = None;
    Ok(filled)
}

/// The content of `source` into `file`, with its permissions.
pub(super) fn copy_into(
    source: File,
    file: &mut File,
    (from, to): (&str, &str),
    stop: &Stop,
) -> Result<u64, Fault> {
    let permissions = io(from, source.metadata())?.permissions();
    let bytes = each_piece(source, from, stop, |piece| io(to, file.write_all(piece)))?;
    io(to, file.set_permissions(permissions))?;
    Ok(bytes)
}

/// Moves a file or a folder; a file also into another file system.
pub(super) fn carry(
    (from, from_shown): (&Path, &str),
    (to, to_shown): (&Path, &str),
    wanted: &FromTo,
    stop: &Stop,
) -> Result<(), Fault> {
    let existing = Existing::of(wanted.overwrite);
    refuse_existing(to, to_shown, existing)?;
    folder_of(to, to_shown, wanted.create_parents)?;
    match try_rename(from, to, existing) {
        Err(why) if why.kind() == ErrorKind::CrossesDevices && from.is_file() => {
            let source = open(from, from_shown)?;
            place(to, to_shown, existing, wanted.create_parents, |file| {
                copy_into(source, file, (from_shown, to_shown), stop)
            })?;
            io(from_shown, fs::remove_file(from))
        }
        done => taken(done, to_shown),
    }
}

fn refuse_existing(path: &Path, shown: &str, existing: Existing) -> Result<(), Fault> {
    if existing == Existing::Refuse && path.symlink_metadata().is_ok() {
        return Err(already(shown));
    }
    Ok(())
}

fn folder_of<'p>(path: &'p Path, shown: &str, create: bool) -> Result<&'p Path, Fault> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if create {
        io(shown, fs::create_dir_all(folder))?;
    }
    Ok(folder)
}

fn rename(from: &Path, to: &Path, shown: &str, existing: Existing) -> Result<(), Fault> {
    taken(try_rename(from, to, existing), shown)
}

fn taken(done: std::io::Result<()>, shown: &str) -> Result<(), Fault> {
    match done {
        Err(why) if why.kind() == ErrorKind::AlreadyExists => Err(already(shown)),
        done => io(shown, done),
    }
}

fn already(shown: &str) -> Fault {
    Fault::wrong(format!("`{shown}` is there already\nhint: allow it with `overwrite`"))
}

#[cfg(target_os = "linux")]
fn try_rename(from: &Path, to: &Path, existing: Existing) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;

    if existing == Existing::Replace {
        return fs::rename(from, to);
    }
    // Somebody else may have put a file there since we looked.
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can; some also say so of a folder that is moved into itself.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to),
        done => Ok(done?),
    }
}

#[cfg(not(target_os = "linux"))]
fn try_rename(from: &Path, to: &Path, _: Existing) -> std::io::Result<()> {
    fs::rename(from, to)
}
