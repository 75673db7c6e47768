//! Parameters and results: bytes that the core carries and never reads.

use alloc::sync::Arc;
use core::fmt;

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};

/// A JSON document, here or in the blob store. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Payload {
    /// The document itself; at most `limits::INLINE_PAYLOAD_BYTES_MAX` bytes.
    #[n(0)]
    Inline(#[cbor(n(0), with = "shared_bytes")] Arc<[u8]>),
    /// A document in the blob store, durable there before the event that names it.
    #[n(1)]
    Stored(#[cbor(n(0), with = "shared")] Arc<StoredDocument>),
}

/// Where a document is that is too large to be carried.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StoredDocument {
    /// BLAKE3 of the document.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// Size of the document.
    #[n(1)]
    pub bytes: u64,
}

impl Payload {
    /// A payload that holds `document` itself.
    #[must_use]
    pub fn inline(document: &[u8]) -> Payload {
        Payload::Inline(Arc::from(document))
    }

    /// A payload whose document is in the blob store.
    #[must_use]
    pub fn stored(hash: [u8; 32], bytes: u64) -> Payload {
        Payload::Stored(Arc::new(StoredDocument { hash, bytes }))
    }

    /// Size of the document in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Payload::Inline(document) => document.len() as u64,
            Payload::Stored(stored) => stored.bytes,
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the content: it may hold what does not belong in a log.
        write!(f, "payload of {} bytes", self.bytes())
    }
}

mod shared_bytes {
    use super::{Arc, DecodeError, Decoder, EncodeError, Encoder, Write};

    pub(super) fn encode<C, W: Write>(
        bytes: &Arc<[u8]>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(bytes)?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Arc<[u8]>, DecodeError> {
        d.bytes().map(Arc::from)
    }
}

/// Lets derived codecs share a value behind an [`Arc`]: it is written as the value itself.
pub(crate) mod shared {
    use super::{Arc, Decode, DecodeError, Decoder, Encode, EncodeError, Encoder, Write};

    pub(crate) fn encode<C, T: Encode<C>, W: Write>(
        value: &Arc<T>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        T::encode(value, e, ctx)
    }

    pub(crate) fn decode<'b, C, T: Decode<'b, C>>(
        d: &mut Decoder<'b>,
        ctx: &mut C,
    ) -> Result<Arc<T>, DecodeError> {
        T::decode(d, ctx).map(Arc::new)
    }
}
