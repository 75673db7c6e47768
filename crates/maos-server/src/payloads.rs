//! Documents and where they are kept: small ones travel with their events, large ones are in the
//! blob store before the event that names them.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use maos_core::limits::INLINE_PAYLOAD_BYTES_MAX;
use maos_core::outcome::Outcome;
use maos_core::payload::Payload;
use serde_json::Value;
use thiserror::Error;

use crate::blobs::{BlobError, Blobs, Draft, Kept, Reader};

/// Documents of one plan that are on their way at once.
const AT_ONCE: usize = 16;

/// Keeps and fetches documents. Cheap to clone.
#[derive(Clone)]
pub struct Payloads {
    blobs: Arc<Blobs>,
}

/// Why a document could not be kept or fetched.
#[derive(Debug, Error)]
pub enum PayloadError {
    /// The blob store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A document that was stored as JSON is none.
    #[error("a stored document is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
}

/// What reaches the blob store is boxed: few requests do, and every request that waits would take
/// the room for it.
impl Payloads {
    /// Documents in this blob store.
    #[must_use]
    pub fn new(blobs: Arc<Blobs>) -> Payloads {
        Payloads { blobs }
    }

    /// Keeps a document; it is durable when this returns a payload that is stored.
    ///
    /// # Errors
    /// When the blob store fails.
    pub async fn keep(&self, document: Vec<u8>) -> Result<Payload, PayloadError> {
        if document.len() as u64 <= INLINE_PAYLOAD_BYTES_MAX {
            return Ok(Payload::Inline(document.into()));
        }
        let bytes = document.len() as u64;
        let hash = Box::pin(self.blobs.write(document)).await?;
        Ok(Payload::stored(hash, bytes))
    }

    /// Keeps documents whose hashes are known already, such as a plan's.
    ///
    /// # Errors
    /// When the blob store fails; some may have been kept.
    pub async fn keep_all(&self, documents: Vec<([u8; 32], Vec<u8>)>) -> Result<(), PayloadError> {
        if documents.is_empty() {
            return Ok(());
        }
        let kept = stream::iter(documents)
            .map(|(_, document)| self.blobs.write(document))
            .buffer_unordered(AT_ONCE)
            .try_for_each(async |_| Ok(()));
        Ok(Box::pin(kept).await?)
    }

    /// The bytes of a document.
    ///
    /// # Errors
    /// When the blob store fails.
    pub async fn bytes(&self, payload: &Payload) -> Result<Vec<u8>, PayloadError> {
        match payload {
            Payload::Inline(document) => Ok(document.to_vec()),
            Payload::Stored(stored) => Ok(Box::pin(self.blobs.read(&stored.hash)).await?),
        }
    }

    /// A file that comes piece by piece; what it may become is known when it is kept.
    #[must_use]
    pub fn draft(&self) -> Draft {
        self.blobs.draft()
    }

    /// Keeps a file durably.
    ///
    /// # Errors
    /// When the blob store fails.
    pub async fn keep_draft(&self, draft: Draft) -> Result<Payload, PayloadError> {
        Ok(match Box::pin(draft.keep(INLINE_PAYLOAD_BYTES_MAX)).await? {
            Kept::Small(file) => Payload::Inline(file.into()),
            Kept::Stored { hash, bytes } => Payload::stored(hash, bytes),
        })
    }

    /// Reads a file piece by piece.
    ///
    /// # Errors
    /// When the blob store fails.
    pub async fn reader(&self, hash: [u8; 32]) -> Result<Reader, PayloadError> {
        Ok(Box::pin(self.blobs.reader(&hash)).await?)
    }

    /// An outcome as one JSON document: lists of outcomes become lists, nothing becomes null.
    ///
    /// # Errors
    /// When the blob store fails.
    pub async fn json(&self, outcome: &Outcome) -> Result<Vec<u8>, PayloadError> {
        enum Piece<'a> {
            Text(&'static [u8]),
            Outcome(&'a Outcome),
        }
        let mut json = Vec::new();
        let mut pieces = vec![Piece::Outcome(outcome)];
        while let Some(piece) = pieces.pop() {
            match piece {
                Piece::Text(text) => json.extend_from_slice(text),
                Piece::Outcome(Outcome::Nothing) => json.extend_from_slice(b"null"),
                Piece::Outcome(Outcome::Payload(payload)) => {
                    json.extend_from_slice(&self.bytes(payload).await?);
                }
                Piece::Outcome(Outcome::List(parts)) => {
                    json.push(b'[');
                    pieces.push(Piece::Text(b"]"));
                    for (index, part) in parts.iter().enumerate().rev() {
                        pieces.push(Piece::Outcome(part));
                        if index > 0 {
                            pieces.push(Piece::Text(b","));
                        }
                    }
                }
            }
        }
        Ok(json)
    }

    /// An outcome as a value.
    ///
    /// # Errors
    /// When the blob store fails, or what it holds is not JSON.
    pub async fn value(&self, outcome: &Outcome) -> Result<Value, PayloadError> {
        Ok(serde_json::from_slice(&self.json(outcome).await?)?)
    }
}
