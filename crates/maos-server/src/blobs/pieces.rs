//! Large documents: written and read in pieces, so that nobody holds one whole.
//!
//! Its law: as for every document, what `keep` returned is durable, and what a reader told to its
//! end has the hash it was asked for: the last piece is held back until that is known.
//!
//! ```text
//! sealed head: bytes of the document | length, sealed piece | length, sealed piece | ...
//! ```

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::{BLOB_BYTES_MAX, BlobError, Blobs, io};
use crate::codec::{self, Kind};
use crate::data_dir::sync_folder;

/// Bytes of a document that are sealed together.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// What a sealed head takes: a header and the size.
const HEAD_BYTES: usize = 16 + 8;
/// A sealed piece is no longer than this, or it is none of ours.
const SEALED_BYTES_MAX: u64 = 2 * PIECE_BYTES as u64;

/// A document that is being written. Dropped before it is kept, nothing of it stays.
#[derive(Debug)]
pub struct Draft {
    blobs: Arc<Blobs>,
    /// What does not fill a piece yet.
    rest: Vec<u8>,
    hasher: blake3::Hasher,
    bytes: u64,
    file: Option<Partial>,
}

/// The file of a draft, which goes with it unless it is kept.
#[derive(Debug)]
struct Partial {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Drop for Partial {
    fn drop(&mut self) {
        // It is not there any more when the document was kept.
        drop(fs::remove_file(&self.path));
    }
}

/// What a draft came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is so small that it can be carried: it was not written.
    Small(Vec<u8>),
    /// It is in the store of documents.
    Stored {
        /// Its hash.
        hash: [u8; 32],
        /// Its size.
        bytes: u64,
    },
}

impl Draft {
    pub(super) fn new(blobs: Arc<Blobs>) -> Draft {
        let (rest, hasher) = (Vec::new(), blake3::Hasher::new());
        Draft { blobs, rest, hasher, bytes: 0, file: None }
    }

    /// How long it is by now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether appending so much more writes to the disk.
    #[must_use]
    pub fn would_write(&self, bytes: usize) -> bool {
        self.rest.len() + bytes >= PIECE_BYTES
    }

    /// Appends to it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), BlobError> {
        self.bytes += bytes.len() as u64;
        while self.rest.len() + bytes.len() >= PIECE_BYTES {
            let (now, later) = bytes.split_at(PIECE_BYTES - self.rest.len());
            self.rest.extend_from_slice(now);
            bytes = later;
            self.write_piece()?;
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }

    /// Keeps it durably, unless it has at most `small` bytes: then it is handed back.
    ///
    /// # Errors
    /// When the disk fails; nothing of it is there then.
    pub fn keep(mut self, small: u64) -> Result<Kept, BlobError> {
        if self.bytes <= small {
            return Ok(Kept::Small(std::mem::take(&mut self.rest)));
        }
        let bytes = self.bytes;
        if self.file.is_none() {
            return Ok(Kept::Stored { hash: self.blobs.write(&self.rest)?, bytes });
        }
        self.write_piece()?;
        let hash = *self.hasher.finalize().as_bytes();
        let mut partial = self.file.take().expect("a file was begun with the first piece");
        let path = partial.path.clone();
        let wrong = |fault| io(&path, fault);
        let head = codec::seal(Kind::LargeBlob, &bytes.to_le_bytes());
        partial.file.seek(SeekFrom::Start(0)).map_err(wrong)?;
        partial.file.write_all(&head).map_err(wrong)?;
        partial.file.flush().map_err(wrong)?;
        partial.file.get_ref().sync_all().map_err(wrong)?;
        self.blobs.take_in(&hash, &mut |file| {
            let folder = file.parent().unwrap_or(Path::new("."));
            fs::rename(&path, file).and_then(|()| sync_folder(folder))
        })?;
        Ok(Kept::Stored { hash, bytes })
    }

    fn write_piece(&mut self) -> Result<(), BlobError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let partial = match &mut self.file {
            Some(partial) => partial,
            none => {
                let name = format!("{}.partial", Uuid::now_v7().simple());
                let path = self.blobs.path.join(name);
                let mut file =
                    BufWriter::new(File::create(&path).map_err(|fault| io(&path, fault))?);
                let room = file.write_all(&[0; HEAD_BYTES]);
                let partial = none.insert(Partial { path, file });
                room.map_err(|fault| io(&partial.path, fault))?;
                partial
            }
        };
        self.hasher.update(&self.rest);
        let sealed = codec::seal(Kind::LargeBlob, &self.rest);
        let length = u32::try_from(sealed.len()).expect("a piece is small").to_le_bytes();
        let file = &mut partial.file;
        let written = file.write_all(&length).and_then(|()| file.write_all(&sealed));
        written.map_err(|fault| io(&partial.path, fault))?;
        self.rest.clear();
        Ok(())
    }
}

/// Reads a document in pieces.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    source: Source,
    left: u64,
    hasher: blake3::Hasher,
    wanted: [u8; 32],
}

#[derive(Debug)]
enum Source {
    /// A document in one piece: it is read and checked already.
    Whole(Option<Vec<u8>>),
    Pieces(BufReader<File>),
}

impl Reader {
    pub(super) fn whole(path: PathBuf, document: Vec<u8>, wanted: [u8; 32]) -> Reader {
        let (left, hasher) = (document.len() as u64, blake3::Hasher::new());
        Reader { path, source: Source::Whole(Some(document)), left, hasher, wanted }
    }

    /// Reads on from a file behind whose head is `head`.
    pub(super) fn pieces(
        path: PathBuf,
        mut file: File,
        wanted: [u8; 32],
    ) -> Result<Reader, BlobError> {
        let damaged = |what: String| BlobError::Damaged { path: path.clone(), what };
        let mut head = [0; HEAD_BYTES];
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut head));
        read.map_err(|fault| damaged(fault.to_string()))?;
        let body = codec::open(Kind::LargeBlob, &head).map_err(|why| damaged(why.to_string()))?;
        let left = body.as_ref().try_into().map(u64::from_le_bytes);
        let left = left.map_err(|_| damaged("its head is too short".to_owned()))?;
        let (source, hasher) = (Source::Pieces(BufReader::new(file)), blake3::Hasher::new());
        Ok(Reader { path, source, left, hasher, wanted })
    }

    /// How much there is left to read.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When it is damaged, or the disk fails.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, BlobError> {
        let file = match &mut self.source {
            Source::Whole(document) => {
                self.left = 0;
                return Ok(document.take().filter(|document| !document.is_empty()));
            }
            Source::Pieces(_) if self.left == 0 => return Ok(None),
            Source::Pieces(file) => file,
        };
        let path = &self.path;
        let damaged = |what: String| BlobError::Damaged { path: path.clone(), what };
        let piece = read_piece(file, path)?;
        self.left = (self.left)
            .checked_sub(piece.len() as u64)
            .filter(|_| !piece.is_empty())
            .ok_or_else(|| damaged("its pieces are not as long as it is".to_owned()))?;
        self.hasher.update(&piece);
        if self.left == 0 {
            let found = self.hasher.finalize();
            if *found.as_bytes() != self.wanted {
                return Err(damaged(format!("its hash is {found}")));
            }
        }
        Ok(Some(piece))
    }

    /// All of it, if it is no larger than a document that is kept in one piece may be.
    pub(super) fn read_whole(mut self) -> Result<Vec<u8>, BlobError> {
        let bytes = usize::try_from(self.left).unwrap_or(usize::MAX);
        if bytes > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { bytes });
        }
        let mut document = Vec::with_capacity(bytes);
        while let Some(piece) = self.next_piece()? {
            document.extend_from_slice(&piece);
        }
        Ok(document)
    }
}

fn read_piece(file: &mut BufReader<File>, path: &Path) -> Result<Vec<u8>, BlobError> {
    let damaged = |what: String| BlobError::Damaged { path: path.to_owned(), what };
    let mut length = [0; 4];
    file.read_exact(&mut length).map_err(|fault| damaged(fault.to_string()))?;
    let length = u64::from(u32::from_le_bytes(length));
    if length > SEALED_BYTES_MAX {
        return Err(damaged(format!("a piece of it has {length} bytes")));
    }
    let mut sealed = Vec::new();
    file.take(length).read_to_end(&mut sealed).map_err(|fault| io(path, fault))?;
    let piece = codec::open(Kind::LargeBlob, &sealed).map_err(|why| damaged(why.to_string()))?;
    Ok(piece.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at * at / 7 % 251) as u8).collect()
    }

    fn kept(blobs: &Arc<Blobs>, document: &[u8], step: usize) -> Kept {
        let mut draft = blobs.draft();
        document.chunks(step).for_each(|piece| draft.append(piece).unwrap());
        draft.keep(1_024).unwrap()
    }

    fn files(path: &Path) -> usize {
        fs::read_dir(path).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file()).count()
    }

    #[test]
    fn documents_of_any_size_come_back_in_pieces_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Arc::new(Blobs::open(folder.path()).unwrap());
        assert_eq!(kept(&blobs, &document(1_024), 100), Kept::Small(document(1_024)));
        for bytes in [1_025, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 5] {
            let written = document(bytes);
            let hash = *blake3::hash(&written).as_bytes();
            let wanted = Kept::Stored { hash, bytes: bytes as u64 };
            assert_eq!(kept(&blobs, &written, 70_000), wanted, "{bytes}");
            assert_eq!(kept(&blobs, &written, 5 << 20), wanted, "once more, in one go");
            assert_eq!(blobs.write(&written).unwrap(), hash, "it is there already");
            let mut reader = blobs.reader(&hash).unwrap();
            assert_eq!(reader.left(), bytes as u64);
            let mut read = Vec::new();
            while let Some(piece) = reader.next_piece().unwrap() {
                assert!(piece.len() <= PIECE_BYTES);
                read.extend(piece);
            }
            assert!(read == written && blobs.read(&hash).unwrap() == written, "{bytes}");
        }
        assert_eq!(files(folder.path()), 0, "no partial file is left");
    }

    #[test]
    fn what_is_given_up_leaves_nothing_also_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Arc::new(Blobs::open(folder.path()).unwrap());
        let mut draft = blobs.draft();
        draft.append(&document(2 * PIECE_BYTES)).unwrap();
        assert_eq!(files(folder.path()), 1);
        drop(draft);
        assert_eq!(files(folder.path()), 0);
        fs::write(folder.path().join("0190.partial"), b"x").unwrap();
        drop(Blobs::open(folder.path()).unwrap());
        assert_eq!(files(folder.path()), 0);
    }

    #[test]
    fn what_is_damaged_anywhere_is_not_told_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Arc::new(Blobs::open(folder.path()).unwrap());
        let Kept::Stored { hash, .. } = kept(&blobs, &document(2 * PIECE_BYTES + 9), 1 << 16)
        else {
            panic!("it is large");
        };
        let file = blobs.file(&hash);
        let whole = fs::read(&file).unwrap();
        let told = || {
            let mut reader = blobs.reader(&hash)?;
            while reader.next_piece()?.is_some() {}
            Ok::<(), BlobError>(())
        };
        told().unwrap();
        for at in [0, 3, 17, 25, 30, whole.len() / 2, whole.len() - 1] {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            fs::write(&file, altered).unwrap();
            assert!(matches!(told(), Err(BlobError::Damaged { .. })), "byte {at}");
        }
        for cut in [0, 10, 30, whole.len() / 2, whole.len() - 1] {
            fs::write(&file, &whole[..cut]).unwrap();
            assert!(matches!(told(), Err(BlobError::Damaged { .. })), "cut at {cut}");
        }
    }
}
