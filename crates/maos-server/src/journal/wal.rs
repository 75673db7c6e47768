//! Whether SQLite will read all of a write-ahead log, before it does.
//!
//! SQLite takes a log up to the first frame whose checksum is wrong. Right after a crash: what is
//! behind it was never synced, or is left over from an older log. But a frame that was damaged
//! later looks the same, and with it every commit behind it would go in silence. The two are told
//! apart by what follows: every commit is synced before the next one begins, so a write that was
//! cut off is part of the last one. Damage to the last commit alone looks like that too.
//!
//! The form of the file: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Result};
use std::path::{Path, PathBuf};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// With its lowest bit, checksums read the log's words in big-endian order.
const MAGIC: u32 = 0x377F_0682;
const PAGE_BYTES_MAX: u32 = 65_536;

/// What is wrong with the log of a database that nobody has open; `None`: all of it that counts
/// will be read, or there is none.
pub(super) fn damage(database: &Path) -> Result<Option<String>> {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    let mut log = match File::open(PathBuf::from(name)) {
        Ok(file) => BufReader::with_capacity(1 << 16, file),
        Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let mut header = [0; HEADER_BYTES];
    if !fill(&mut log, &mut header)? {
        return Ok(None);
    }
    let mut sum = Checksum { big_endian: word(&header, 0) & 1 == 1, sums: (0, 0) };
    sum.add(&header[..24]);
    let is_header = word(&header, 0) & !1 == MAGIC
        && word(&header, 8) <= PAGE_BYTES_MAX
        && sum.sums == (word(&header, 24), word(&header, 28));
    match is_header {
        true => damaged_frame(&mut log, &header, sum),
        false => damaged_header(&mut log),
    }
}

/// A header is synced before the first frame is written, so one that is wrong in front of frames
/// was right once. With nothing behind it, or zeros, it was never synced.
fn damaged_header(log: &mut impl Read) -> Result<Option<String>> {
    let mut behind = Vec::new();
    log.take(u64::from(PAGE_BYTES_MAX)).read_to_end(&mut behind)?;
    let is_empty = behind.iter().all(|byte| *byte == 0);
    Ok((!is_empty).then(|| "the header of its log is damaged".to_owned()))
}

/// Looks for the first bad frame, and for commits behind it that were written after it: each
/// frame's checksum goes on from the one before, and what is left of an earlier write does not.
fn damaged_frame(
    log: &mut impl Read,
    header: &[u8; HEADER_BYTES],
    mut sum: Checksum,
) -> Result<Option<String>> {
    let page_bytes = usize::try_from(word(header, 8)).unwrap_or_default();
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
    let (mut frames, mut first_bad, mut commits) = (0_u64, None, 0);
    while fill(log, &mut frame)? {
        frames += 1;
        let stored = (word(&frame, 16), word(&frame, 20));
        sum.add(&frame[..8]);
        sum.add(&frame[FRAME_HEADER_BYTES..]);
        let is_ours = frame[8..16] == header[16..24];
        let follows = is_ours && sum.sums == stored;
        sum.sums = stored;
        match first_bad {
            None if follows => continue,
            None if is_ours => first_bad = Some(frames),
            Some(_) if follows => {}
            None | Some(_) => break,
        }
        commits += u32::from(word(&frame, 4) > 0);
    }
    Ok(first_bad.filter(|_| commits > 1).map(|bad| {
        format!(
            "frame {bad} of its log is damaged, and {commits} commits from there on would be lost"
        )
    }))
}

/// Reads a whole buffer; `false` if the file ends before.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(fault) if fault.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(fault) => Err(fault),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Goes on from frame to frame.
struct Checksum {
    big_endian: bool,
    sums: (u32, u32),
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        let read = if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let (mut first, mut second) = self.sums;
        for pair in bytes.chunks_exact(8) {
            let one = read([pair[0], pair[1], pair[2], pair[3]]);
            let two = read([pair[4], pair[5], pair[6], pair[7]]);
            first = first.wrapping_add(one).wrapping_add(second);
            second = second.wrapping_add(two).wrapping_add(first);
        }
        self.sums = (first, second);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::Connection;

    use super::*;

    /// The bytes of database and log of so many commits, as a crash leaves them.
    fn left_behind(commits: u32) -> (Vec<u8>, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        let db = Connection::open(&file).unwrap();
        db.pragma_update(None, "journal_mode", "wal").unwrap();
        db.execute_batch("CREATE TABLE t (a); PRAGMA wal_checkpoint(RESTART)").unwrap();
        for number in 0..commits {
            db.execute("INSERT INTO t VALUES (?)", [number]).unwrap();
        }
        (fs::read(&file).unwrap(), fs::read(folder.path().join("a.db-wal")).unwrap())
    }

    /// What is said of it, and how many rows SQLite finds.
    fn look(database: &[u8], log: &[u8]) -> (Option<String>, u32) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        fs::write(&file, database).unwrap();
        fs::write(folder.path().join("a.db-wal"), log).unwrap();
        let said = damage(&file).unwrap();
        let db = Connection::open(&file).unwrap();
        (said, db.query_row("SELECT count(*) FROM t", (), |row| row.get(0)).unwrap())
    }

    #[test]
    fn only_what_ends_before_more_commits_is_damage() {
        let (database, log) = left_behind(6);
        assert_eq!(look(&database, &log), (None, 6));
        let frame = FRAME_HEADER_BYTES + 4_096;
        let at = |number: usize| HEADER_BYTES + (number - 1) * frame + FRAME_HEADER_BYTES + 100;
        let flipped = |at: usize| {
            let mut bytes = log.clone();
            bytes[at] ^= 1;
            look(&database, &bytes)
        };
        let (said, found) = flipped(at(3));
        assert_eq!(found, 2, "SQLite goes on without a word");
        let wanted = "frame 3 of its log is damaged, and 4 commits from there on would be lost";
        assert_eq!(said.as_deref(), Some(wanted));
        assert!(flipped(at(5)).0.is_some());
        assert_eq!(flipped(at(6)), (None, 5), "as a write that was cut off leaves it");
        assert_eq!(look(&database, &log[..log.len() - frame - 1]), (None, 4));
        assert!(flipped(20).0.unwrap().contains("the header of its log"));
        for nothing in [&[][..], &log[..10], &log[..HEADER_BYTES]] {
            assert_eq!(look(&database, nothing), (None, 0));
        }
    }

    #[test]
    fn what_is_left_of_a_write_that_was_cut_off_before_is_no_commit_behind() {
        let frame = FRAME_HEADER_BYTES + 4_096;
        let end = |frames: usize| HEADER_BYTES + frames * frame;
        let (database, log) = left_behind(6);
        let (_, other) = left_behind(6);
        // Two crashes: whole frames of an earlier write lie behind one that was cut off later.
        let mut bytes = log[..end(4)].to_vec();
        bytes[end(3) + FRAME_HEADER_BYTES + 100] ^= 1;
        let mut left = other[end(4)..].to_vec();
        for leftover in left.chunks_exact_mut(frame) {
            leftover[8..16].copy_from_slice(&log[16..24]);
        }
        bytes.extend(left);
        assert_eq!(look(&database, &bytes), (None, 3));
    }

    #[test]
    fn a_header_that_was_never_synced_is_none() {
        let (database, _) = left_behind(1);
        for bytes in [vec![0; HEADER_BYTES], vec![0; 9_000]] {
            assert_eq!(look(&database, &bytes), (None, 0));
        }
    }

    #[test]
    fn what_is_left_of_an_older_log_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        let db = Connection::open(&file).unwrap();
        db.pragma_update(None, "journal_mode", "wal").unwrap();
        db.execute_batch("CREATE TABLE t (a)").unwrap();
        for _ in 0..9 {
            db.execute("INSERT INTO t VALUES (1)", ()).unwrap();
        }
        db.execute_batch("PRAGMA wal_checkpoint(RESTART)").unwrap();
        db.execute("INSERT INTO t VALUES (1)", ()).unwrap();
        assert_eq!(damage(&file).unwrap(), None);
    }
}
