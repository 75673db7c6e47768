//! Where programs are that a command line names.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The file of a program: as it is named, if that is a path from `folder`, else what `PATH` has.
pub(crate) fn find(program: &OsStr, folder: &Path) -> Option<PathBuf> {
    if Path::new(program).components().count() > 1 {
        return Some(folder.join(program)).filter(|file| file.exists());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
