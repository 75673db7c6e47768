//! How often a file was run to its end in a data directory: the next run of it is another one, and
//! one that was cut off is taken up.
//!
//! Whether its tasks have ended does not tell. They go on as soon as the directory is opened, and
//! may have ended before anybody asks.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use maos_server::data_dir::write_whole;

/// One run of a file.
pub(crate) struct Turn {
    file: PathBuf,
    number: u64,
    /// What the file holds.
    hash: String,
}

impl Turn {
    /// The run that begins, or goes on, in this directory.
    pub(crate) fn of(content: &[u8], data_dir: &Path) -> anyhow::Result<Turn> {
        let hash = blake3::hash(content).to_hex()[..32].to_owned();
        let file = data_dir.join("runs").join(&hash);
        let number = match fs::read_to_string(&file) {
            Ok(text) => text.trim().parse().with_context(|| {
                let file = file.display();
                format!("`{file}` holds no number\nhint: remove it; the file is run anew then")
            })?,
            Err(fault) if fault.kind() == ErrorKind::NotFound => 0,
            Err(fault) => {
                return Err(fault).context(format!("`{}` cannot be read", file.display()));
            }
        };
        Ok(Turn { file, number, hash })
    }

    /// The idempotency key of one of its submissions.
    pub(crate) fn key(&self, index: usize) -> String {
        format!("run/{}/{}/{index}", self.hash, self.number)
    }

    /// Notes that it has come to its end.
    pub(crate) fn end(&self) -> anyhow::Result<()> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .and_then(|()| write_whole(&self.file, (self.number + 1).to_string().as_bytes()))
            .with_context(|| format!("`{}` cannot be written", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_that_has_ended_is_followed_by_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let turn = |content: &[u8]| Turn::of(content, folder.path()).unwrap();
        let first = turn(b"a").key(0);
        assert_eq!(turn(b"a").key(0), first, "it is taken up");
        assert!(turn(b"a").key(1) != first && turn(b"b").key(0) != first);
        turn(b"a").end().unwrap();
        assert!(turn(b"a").key(0) != first);
        assert_eq!(turn(b"b").number, 0);
        fs::write(&turn(b"a").file, "x").unwrap();
        let fault = Turn::of(b"a", folder.path()).err().unwrap().to_string();
        assert!(fault.contains("holds no number\nhint: "), "{fault}");
    }
}
