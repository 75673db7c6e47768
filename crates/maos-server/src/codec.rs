//! The one form in which bytes are stored: a header of 16 bytes, then the body.
//!
//! Its law: what `seal` made, `open` gives back unchanged or refuses; a byte that changed on disk
//! and a form of a newer release are told apart. It must not know what the bytes mean, except for
//! steps.
//!
//! ```text
//! 0..2 magic | 2 format | 3 kind | 4 compression | 5 zero | 6..8 key id | 8..16 checksum | body
//! ```
//! The checksum is XXH64 over the first 8 bytes and the body. It guards against damage, not against
//! malice: at recovery it runs over every row, where a cryptographic hash would cost as much as the
//! decoding. Blobs have BLAKE3 beside it, as their name.

use std::borrow::Cow;

use maos_core::event::Step;
use minicbor::{Decode, Encode};
use thiserror::Error;

const MAGIC: [u8; 2] = *b"Mo";
const HEADER_BYTES: usize = 16;
/// The newest form that this release reads, and the one that it writes.
pub const FORMAT: u8 = 1;
/// Bodies from here on are compressed; a smaller one gains less than the work costs.
const COMPRESS_BYTES_MIN: usize = 1_024;
/// Most bytes of a body, compressed or not: a damaged length must not take all memory.
pub const BODY_BYTES_MAX: usize = 512 << 20;

/// What tells the kind of sealed bytes.
pub const BEGINNING_BYTES: u64 = 4;

/// Memory that a sealer keeps for the next group.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// A compressed body begins with the length of the plain one.
const LENGTH_BYTES: usize = 4;

const PLAIN: u8 = 0;
const LZ4: u8 = 1;

/// What is in a sealed body. The numbers are stored: never reused, never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A group of steps.
    Steps = 1,
    /// A task's row.
    Task = 2,
    /// An agent's row.
    Agent = 3,
    /// The engine's figures.
    Engine = 4,
    /// What a plan's tasks share.
    Plan = 5,
    /// A document.
    Blob = 6,
    /// A small document of the shell's.
    Entry = 7,
    /// An entry of a stream.
    StreamEntry = 8,
    /// A part of a checkpoint.
    Checkpoint = 9,
    /// The head or a piece of a large document.
    LargeBlob = 10,
}

/// Why sealed bytes do not open.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// They are not what was written.
    #[error("stored bytes are damaged: {0}")]
    Damaged(String),
    /// A newer release wrote them.
    #[error(
        "stored bytes have format {found}, this release reads up to {FORMAT}\n\
         hint: use the release that wrote them, or a newer one"
    )]
    TooNew {
        /// Their format.
        found: u8,
    },
    /// They are locked with a key.
    #[error("stored bytes are encrypted with key {key}, which this release does not have")]
    Encrypted {
        /// The key's id.
        key: u16,
    },
}

/// Seals one value after another in the same memory: clearing fresh pages for each large group
/// costs more than all the rest of sealing it.
#[derive(Debug, Default)]
pub struct Sealer {
    body: Vec<u8>,
    sealed: Vec<u8>,
}

impl Sealer {
    /// Encodes and seals one value.
    pub fn seal_value<T: Encode<()>>(&mut self, kind: Kind, value: &T) -> &[u8] {
        self.body.clear();
        minicbor::encode(value, &mut self.body).expect("writing to memory does not fail");
        pack(kind, &self.body, &mut self.sealed);
        &self.sealed
    }

    /// Encodes and seals a group of steps. Give the bytes back with [`Sealer::reuse`].
    pub fn seal_steps(&mut self, steps: &[Step]) -> Vec<u8> {
        self.body.clear();
        minicbor::encode(steps, &mut self.body).expect("writing to memory does not fail");
        pack(Kind::Steps, &self.body, &mut self.sealed);
        self.body.shrink_to(KEPT_BYTES_MAX);
        std::mem::take(&mut self.sealed)
    }

    /// Takes memory back.
    pub fn reuse(&mut self, sealed: Vec<u8>) {
        self.sealed = sealed;
        self.sealed.clear();
        self.sealed.shrink_to(KEPT_BYTES_MAX);
    }
}

/// Seals `body`.
#[must_use]
pub fn seal(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    pack(kind, body, &mut sealed);
    sealed
}

/// Encodes and seals a group of steps.
#[must_use]
pub fn seal_steps(steps: &[Step]) -> Vec<u8> {
    Sealer::default().seal_steps(steps)
}

/// The body of sealed bytes.
///
/// # Errors
/// When they are damaged, of another kind, or of a newer release.
pub fn open(kind: Kind, sealed: &[u8]) -> Result<Cow<'_, [u8]>, CodecError> {
    let compression = check(kind, sealed)?;
    let body = &sealed[HEADER_BYTES..];
    match compression {
        PLAIN => Ok(Cow::Borrowed(body)),
        LZ4 => expand(body).map(Cow::Owned),
        other => Err(CodecError::Damaged(format!("compression {other} is not known"))),
    }
}

/// Whether bytes begin as sealed ones of this kind do.
#[must_use]
pub fn begins(kind: Kind, sealed: &[u8]) -> bool {
    sealed.starts_with(&MAGIC) && sealed.get(3) == Some(&(kind as u8))
}

/// Whether sealed bytes are whole, without expanding them; says how they are compressed.
///
/// # Errors
/// As [`open`].
pub fn check(kind: Kind, sealed: &[u8]) -> Result<u8, CodecError> {
    let damaged = |what: String| Err(CodecError::Damaged(what));
    let Some((header, body)) = sealed.split_first_chunk::<HEADER_BYTES>() else {
        return damaged(format!("{} bytes are shorter than a header", sealed.len()));
    };
    if header[..2] != MAGIC {
        return damaged("they do not begin with the mark of MAOS".to_owned());
    }
    // Before the checksum: a newer format may compute it otherwise.
    if header[2] > FORMAT {
        return Err(CodecError::TooNew { found: header[2] });
    }
    let sum = u64::from_le_bytes(header[8..].try_into().expect("the header has 16 bytes"));
    if sum != checksum(&header[..8], body) {
        return damaged("their checksum is another".to_owned());
    }
    let key = u16::from_le_bytes([header[6], header[7]]);
    if key != 0 {
        return Err(CodecError::Encrypted { key });
    }
    if header[3] != kind as u8 {
        return damaged(format!("they are of kind {}, wanted {kind:?}", header[3]));
    }
    Ok(header[4])
}

/// Opens and decodes one value.
///
/// # Errors
/// As [`open`], and when the body is not such a value.
pub fn open_value<T: for<'b> Decode<'b, ()>>(kind: Kind, sealed: &[u8]) -> Result<T, CodecError> {
    let body = open(kind, sealed)?;
    minicbor::decode(&body).map_err(|fault| CodecError::Damaged(fault.to_string()))
}

/// Opens and decodes a group of steps.
///
/// # Errors
/// As [`open`], and when the body is not steps.
pub fn open_steps(sealed: &[u8]) -> Result<Vec<Step>, CodecError> {
    open_value(Kind::Steps, sealed)
}

/// Makes `sealed` the header and `body`, compressed where that is shorter.
fn pack(kind: Kind, body: &[u8], sealed: &mut Vec<u8>) {
    assert!(body.len() <= BODY_BYTES_MAX, "a body is at most {BODY_BYTES_MAX} bytes");
    let compression = if body.len() >= COMPRESS_BYTES_MIN && compress(body, sealed) {
        LZ4
    } else {
        sealed.clear();
        sealed.resize(HEADER_BYTES, 0);
        sealed.extend_from_slice(body);
        PLAIN
    };
    let (header, body) = sealed.split_at_mut(HEADER_BYTES);
    header[..2].copy_from_slice(&MAGIC);
    header[2..8].copy_from_slice(&[FORMAT, kind as u8, compression, 0, 0, 0]);
    let sum = checksum(&header[..8], body);
    header[8..].copy_from_slice(&sum.to_le_bytes());
}

/// Puts room for a header, the length of `body` and the compressed `body` into `sealed`; `false`
/// when that is no shorter.
fn compress(body: &[u8], sealed: &mut Vec<u8>) -> bool {
    const PREFIX: usize = HEADER_BYTES + LENGTH_BYTES;
    let length = u32::try_from(body.len()).expect("bounded by BODY_BYTES_MAX");
    sealed.resize(PREFIX + lz4_flex::block::get_maximum_output_size(body.len()), 0);
    sealed[HEADER_BYTES..PREFIX].copy_from_slice(&length.to_le_bytes());
    let packed = lz4_flex::block::compress_into(body, &mut sealed[PREFIX..])
        .expect("there is room for the worst case");
    sealed.truncate(PREFIX + packed);
    LENGTH_BYTES + packed < body.len()
}

fn expand(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    let damaged = |fault: String| CodecError::Damaged(fault);
    let (bytes, packed) =
        lz4_flex::block::uncompressed_size(body).map_err(|fault| damaged(fault.to_string()))?;
    if bytes > BODY_BYTES_MAX {
        return Err(damaged(format!("{bytes} bytes are wanted, at most {BODY_BYTES_MAX} allowed")));
    }
    lz4_flex::block::decompress(packed, bytes).map_err(|fault| damaged(fault.to_string()))
}

/// XXH64 of `body`, seeded with the header, so that both are covered in one pass.
fn checksum(header: &[u8], body: &[u8]) -> u64 {
    xxh64(body, u64::from_le_bytes(header.try_into().expect("8 bytes are covered")))
}

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

fn xxh64(input: &[u8], seed: u64) -> u64 {
    let round = |lane: u64, word: u64| {
        lane.wrapping_add(word.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
    };
    let (blocks, rest) = input.as_chunks::<32>();
    let mut hash = if blocks.is_empty() {
        seed.wrapping_add(P5)
    } else {
        let first = seed.wrapping_add(P1).wrapping_add(P2);
        let mut lanes = [first, seed.wrapping_add(P2), seed, seed.wrapping_sub(P1)];
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
                *lane = round(*lane, u64::from_le_bytes(*word));
            }
        }
        let [a, b, c, d] = lanes;
        let mut hash = a.rotate_left(1).wrapping_add(b.rotate_left(7));
        hash = hash.wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18));
        for lane in lanes {
            hash = (hash ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4);
        }
        hash
    };
    hash = hash.wrapping_add(input.len() as u64);
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        hash ^= round(0, u64::from_le_bytes(*word));
        hash = hash.rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
    }
    let (halves, rest) = rest.as_chunks::<4>();
    for half in halves {
        hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(P1);
        hash = hash.rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
    }
    for byte in rest {
        hash ^= u64::from(*byte).wrapping_mul(P5);
        hash = hash.rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_published_one() {
        assert_eq!(xxh64(b"", 0), 0xEF46_DB37_51D8_E999);
        assert_eq!(xxh64(b"a", 0), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(xxh64(b"abc", 0), 0x44BC_2CF5_AD77_0999);
        let long = b"Nobody inspects the spammish repetition";
        assert_eq!(xxh64(long, 0), 0xFBCE_A83C_8A37_8BF1);
    }

    #[test]
    fn what_was_sealed_opens_unchanged_at_every_size() {
        for bytes in [0, 1, 1_023, 1_024, 1_025, 100_000] {
            let body: Vec<u8> = (0..bytes).map(|index: u32| (index % 7) as u8).collect();
            let sealed = seal(Kind::Blob, &body);
            assert_eq!(open(Kind::Blob, &sealed).unwrap(), body);
            assert!(bytes < 2_000 || sealed.len() < body.len() / 10, "long runs shrink");
        }
    }

    #[test]
    fn any_changed_byte_is_refused() {
        let sealed = seal(Kind::Task, &[7; 2_000]);
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 0x10;
            assert!(open(Kind::Task, &altered).is_err(), "byte {at}");
        }
        for cut in 0..sealed.len() {
            assert!(open(Kind::Task, &sealed[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_newer_format_and_another_kind_are_refused_by_name() {
        let mut sealed = seal(Kind::Task, b"x");
        assert!(matches!(open(Kind::Agent, &sealed), Err(CodecError::Damaged(_))));
        sealed[2] = 9;
        assert_eq!(open(Kind::Task, &sealed), Err(CodecError::TooNew { found: 9 }));
    }
}
