//! Large documents: written and read in pieces, so that nobody holds one whole.
//!
//! Its law: as for every document, what `keep` returned is durable, and what a reader told to its
//! end has the hash it was asked for: the last piece is held back until that is known.
//!
//! ```text
//! sealed head: bytes of the document | length, sealed piece | length, sealed piece | ...
//! ```

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use hyper::body::Bytes;
use object_store::GetResultPayload;
use uuid::Uuid;

use super::place::{blocking, what};
use super::{BLOB_BYTES_MAX, BlobError, Blobs, io, too_large};
use crate::codec::{self, Kind};

/// Bytes of a document that are sealed together.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// What a sealed head takes: a header and the size.
const HEAD_BYTES: usize = 16 + 8;
/// A sealed piece is no longer than this, or it is none of ours.
const SEALED_BYTES_MAX: usize = 2 * PIECE_BYTES;
/// What is read from a file at a time, at least.
const READ_BYTES: usize = 64 << 10;

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
    /// When the place fails; nothing of it is there then.
    pub async fn keep(mut self, small: u64) -> Result<Kept, BlobError> {
        let bytes = self.bytes;
        if bytes <= small {
            return Ok(Kept::Small(self.rest));
        }
        let blobs = self.blobs.clone();
        if self.file.is_none() {
            return Ok(Kept::Stored { hash: blobs.write(self.rest).await?, bytes });
        }
        let (partial, hash) = blocking(move || {
            let partial = self.finish()?;
            Ok((partial, *self.hasher.finalize().as_bytes()))
        })
        .await?;
        blobs.take_in(&hash, async |name| blobs.place.bring(&partial.path, name).await).await?;
        Ok(Kept::Stored { hash, bytes })
    }

    /// Writes what is left of it, and its head.
    fn finish(&mut self) -> Result<Partial, BlobError> {
        self.write_piece()?;
        let mut partial = self.file.take().expect("a file was begun with the first piece");
        let head = codec::seal(Kind::LargeBlob, &self.bytes.to_le_bytes());
        let file = &mut partial.file;
        let written = (file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(&head))
            .and_then(|()| file.flush());
        let synced = written.and_then(|()| match self.blobs.place.as_bucket() {
            // It moves to where it belongs.
            None => file.get_ref().sync_all(),
            Some(_) => Ok(()),
        });
        synced.map_err(|fault| io(&partial.path, fault))?;
        Ok(partial)
    }

    fn write_piece(&mut self) -> Result<(), BlobError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let partial = match &mut self.file {
            Some(partial) => partial,
            none => {
                let name = format!("{}.partial", Uuid::now_v7().simple());
                let path = self.blobs.folder.join(name);
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
pub struct Reader {
    document: String,
    body: Body,
    left: u64,
    hasher: blake3::Hasher,
    wanted: [u8; 32],
}

enum Body {
    /// A document in one piece: it is read and checked already.
    Whole(Option<Vec<u8>>),
    Pieces(Source),
}

impl Reader {
    pub(super) fn whole(document: String, whole: Vec<u8>, wanted: [u8; 32]) -> Reader {
        let (left, hasher) = (whole.len() as u64, blake3::Hasher::new());
        Reader { document, body: Body::Whole(Some(whole)), left, hasher, wanted }
    }

    /// Reads a document from its head on.
    pub(super) async fn pieces(mut source: Source, wanted: [u8; 32]) -> Result<Reader, BlobError> {
        let head = source.take(HEAD_BYTES).await?;
        let body = codec::open(Kind::LargeBlob, &head);
        let body = body.map_err(|why| source.damaged(why.to_string()))?;
        let left = body.as_ref().try_into().map(u64::from_le_bytes);
        let left = left.map_err(|_| source.damaged("its head is too short".to_owned()))?;
        let (document, hasher) = (source.document.clone(), blake3::Hasher::new());
        Ok(Reader { document, body: Body::Pieces(source), left, hasher, wanted })
    }

    /// How much there is left to read.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next piece; `None` at the end. Given up halfway, it must not be asked again.
    ///
    /// # Errors
    /// When it is damaged, or the place fails.
    pub async fn next_piece(&mut self) -> Result<Option<Vec<u8>>, BlobError> {
        let source = match &mut self.body {
            Body::Whole(document) => {
                self.left = 0;
                return Ok(document.take().filter(|document| !document.is_empty()));
            }
            Body::Pieces(_) if self.left == 0 => return Ok(None),
            Body::Pieces(source) => source,
        };
        let length = source.take(4).await?.try_into().map(u32::from_le_bytes);
        let length = usize::try_from(length.expect("it has four bytes")).unwrap_or(usize::MAX);
        if length > SEALED_BYTES_MAX {
            return Err(source.damaged(format!("a piece of it has {length} bytes")));
        }
        let sealed = source.take(length).await?;
        let (document, mut hasher) = (self.document.clone(), std::mem::take(&mut self.hasher));
        let (piece, hasher) = blocking(move || {
            let piece = codec::open(Kind::LargeBlob, &sealed).map(|piece| piece.into_owned());
            let damaged = |what| BlobError::Damaged { document, what };
            let piece = piece.map_err(|why| damaged(why.to_string()))?;
            hasher.update(&piece);
            Ok((piece, hasher))
        })
        .await?;
        self.hasher = hasher;
        self.left = (self.left)
            .checked_sub(piece.len() as u64)
            .filter(|_| !piece.is_empty())
            .ok_or_else(|| source.damaged("its pieces are not as long as it is".to_owned()))?;
        if self.left == 0 {
            let found = self.hasher.finalize();
            if *found.as_bytes() != self.wanted {
                return Err(source.damaged(format!("its hash is {found}")));
            }
        }
        Ok(Some(piece))
    }

    /// All of it, if it is no larger than a document that is kept in one piece may be.
    pub(super) async fn read_whole(mut self) -> Result<Vec<u8>, BlobError> {
        if let Body::Whole(document) = &mut self.body {
            return Ok(document.take().unwrap_or_default());
        }
        if self.left > BLOB_BYTES_MAX as u64 {
            return Err(too_large(self.left, BLOB_BYTES_MAX as u64));
        }
        let mut document = Vec::new();
        while let Some(piece) = self.next_piece().await? {
            document.extend_from_slice(&piece);
        }
        Ok(document)
    }
}

/// The bytes of an object, as they come.
pub(super) struct Source {
    document: String,
    /// What has come and was not taken yet.
    ahead: Vec<u8>,
    more: More,
}

enum More {
    /// `None` while it is read, and at its end.
    File(Option<File>),
    Stream(BoxStream<'static, object_store::Result<Bytes>>),
}

impl Source {
    pub(super) fn new(payload: GetResultPayload, document: String) -> Source {
        let more = match payload {
            GetResultPayload::File(file, _) => More::File(Some(file)),
            GetResultPayload::Stream(stream) => More::Stream(stream),
        };
        Source { document, ahead: Vec::new(), more }
    }

    /// What was looked at and not taken yet.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Has the next `bytes` come, or as many as there are.
    pub(super) async fn look(&mut self, bytes: usize) -> Result<(), BlobError> {
        while self.ahead.len() < bytes {
            match &mut self.more {
                More::File(file) => {
                    let Some(mut file) = file.take() else { return Ok(()) };
                    let (mut ahead, least) = (std::mem::take(&mut self.ahead), READ_BYTES);
                    let wanted = (bytes - ahead.len()).max(least) as u64;
                    let path = PathBuf::from(&self.document);
                    let (read, ahead, file) = blocking(move || {
                        let read = (&mut file).take(wanted).read_to_end(&mut ahead);
                        Ok((read.map_err(|fault| io(&path, fault))?, ahead, file))
                    })
                    .await?;
                    self.ahead = ahead;
                    self.more = More::File((read as u64 == wanted).then_some(file));
                }
                More::Stream(stream) => match stream.try_next().await {
                    Ok(Some(more)) => self.ahead.extend_from_slice(&more),
                    Ok(None) => return Ok(()),
                    Err(fault) => {
                        let (document, what) = (self.document.clone(), what(&fault));
                        return Err(BlobError::Failed { document, what });
                    }
                },
            }
        }
        Ok(())
    }

    /// The next `bytes`.
    pub(super) async fn take(&mut self, bytes: usize) -> Result<Vec<u8>, BlobError> {
        self.look(bytes).await?;
        if self.ahead.len() < bytes {
            return Err(self.damaged("it ends too early".to_owned()));
        }
        let rest = self.ahead.split_off(bytes);
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    fn damaged(&self, what: String) -> BlobError {
        BlobError::Damaged { document: self.document.clone(), what }
    }
}
