//! The one form of every stored byte: a header, then the content.
//!
//! ```text
//! 0..2   "MA"
//! 2      format version
//! 3      compression: 0 none, 1 LZ4
//! 4      key id: 0 none
//! 5      kind of content
//! 6..14  first 8 bytes of the content's BLAKE3, before compression
//! 14..   content
//! ```
//! What does not open is damaged or too new, and is never half-read.

use std::borrow::Cow;

use maos_core::event::Step;
use maos_core::record::{AgentRecord, EngineRecord, PlanRecord, TaskRecord};
use minicbor::{Decode, Encode};
use thiserror::Error;

const MAGIC: [u8; 2] = *b"MA";
/// The newest format that this release reads, and the one it writes.
pub const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 14;
const PLAIN: u8 = 0;
const LZ4: u8 = 1;
const NO_KEY: u8 = 0;
/// Below this size, compression saves less than it costs.
const COMPRESS_FROM_BYTES: usize = 4_096;

/// What is inside, so that one kind is never taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A group of steps in the journal.
    Steps,
    /// A row of the store.
    Row,
    /// A document in the blob store.
    Blob,
}

/// Why stored bytes do not open.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// They are not what was written.
    #[error("{0}")]
    Damaged(String),
    /// A newer release wrote them.
    #[error("format {found} is newer than {FORMAT}, the newest that this release reads")]
    TooNew {
        /// Their format.
        found: u8,
    },
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Kind::Steps => 1,
            Kind::Row => 2,
            Kind::Blob => 3,
        }
    }
}

/// Content in its stored form.
#[must_use]
pub fn seal(kind: Kind, content: &[u8]) -> Vec<u8> {
    let compressed = (kind == Kind::Blob && content.len() >= COMPRESS_FROM_BYTES)
        .then(|| lz4_flex::compress_prepend_size(content))
        .filter(|compressed| compressed.len() < content.len());
    let (compression, stored) = match &compressed {
        Some(compressed) => (LZ4, compressed.as_slice()),
        None => (PLAIN, content),
    };
    let mut sealed = Vec::with_capacity(HEADER_BYTES + stored.len());
    sealed.extend_from_slice(&MAGIC);
    sealed.extend_from_slice(&[FORMAT, compression, NO_KEY, kind.number()]);
    sealed.extend_from_slice(&checksum(content));
    sealed.extend_from_slice(stored);
    sealed
}

/// The content of stored bytes.
///
/// # Errors
/// What is wrong with them.
pub fn open(kind: Kind, sealed: &[u8]) -> Result<Cow<'_, [u8]>, CodecError> {
    let damaged = |what: &str| Err(CodecError::Damaged(what.to_owned()));
    let Some((header, stored)) = sealed.split_at_checked(HEADER_BYTES) else {
        return damaged("shorter than a header");
    };
    if header[..2] != MAGIC {
        return damaged("not written by MAOS");
    }
    if header[2] > FORMAT {
        return Err(CodecError::TooNew { found: header[2] });
    }
    if header[4] != NO_KEY {
        return damaged("encrypted with a key that is not known");
    }
    if header[5] != kind.number() {
        return damaged("another kind of content than expected");
    }
    let content = match header[3] {
        PLAIN => Cow::Borrowed(stored),
        LZ4 => match lz4_flex::decompress_size_prepended(stored) {
            Ok(content) => Cow::Owned(content),
            Err(_) => return damaged("does not decompress"),
        },
        _ => return damaged("an unknown compression"),
    };
    if header[6..] != checksum(&content) {
        return damaged("its checksum does not fit");
    }
    Ok(content)
}

/// Steps in their stored form.
#[must_use]
pub fn seal_steps(steps: &[Step]) -> Vec<u8> {
    seal(Kind::Steps, &encode(steps))
}

/// The steps of stored bytes.
///
/// # Errors
/// What is wrong with them.
pub fn open_steps(sealed: &[u8]) -> Result<Vec<Step>, CodecError> {
    decode(&open(Kind::Steps, sealed)?)
}

/// A kind of row.
pub trait Row: Encode<()> + for<'b> Decode<'b, ()> {}

impl Row for TaskRecord {}
impl Row for AgentRecord {}
impl Row for PlanRecord {}
impl Row for EngineRecord {}

/// A row in its stored form.
#[must_use]
pub fn seal_row(row: &impl Row) -> Vec<u8> {
    seal(Kind::Row, &encode(row))
}

/// The row of stored bytes.
///
/// # Errors
/// What is wrong with them.
pub fn open_row<R: Row>(sealed: &[u8]) -> Result<R, CodecError> {
    decode(&open(Kind::Row, sealed)?)
}

fn encode<T: Encode<()> + ?Sized>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory cannot fail")
}

fn decode<T: for<'b> Decode<'b, ()>>(content: &[u8]) -> Result<T, CodecError> {
    minicbor::decode(content)
        .map_err(|why| CodecError::Damaged(format!("cannot be decoded: {why}")))
}

fn checksum(content: &[u8]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(content).as_bytes();
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        let large = b"row after row after row ".repeat(1_000);
        for content in [&b""[..], b"small", &large] {
            for kind in [Kind::Steps, Kind::Blob] {
                let sealed = seal(kind, content);
                assert_eq!(open(kind, &sealed).unwrap(), content);
                for index in 0..sealed.len().min(200) {
                    let mut torn = sealed.clone();
                    torn[index] ^= 0x40;
                    // Compressed bytes may differ and yet mean the same content.
                    let opened = open(kind, &torn);
                    assert!(opened.is_err() || opened.unwrap() == content, "byte {index}");
                }
                assert!(open(kind, &sealed[..sealed.len() - 1]).is_err());
                assert!(open(Kind::Row, &sealed).is_err());
            }
        }
        assert!(seal(Kind::Blob, &large).len() < large.len() / 2);
    }

    #[test]
    fn a_newer_format_is_refused_by_its_number() {
        let mut sealed = seal(Kind::Row, b"x");
        sealed[2] = FORMAT + 1;
        assert_eq!(open(Kind::Row, &sealed), Err(CodecError::TooNew { found: FORMAT + 1 }));
    }
}
