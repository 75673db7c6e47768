//! What is sent: bytes, or a file that is read while it is sent.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use serde::Serialize;
use tokio::sync::mpsc;

use super::ClientError;

/// Bytes that are read from a file in one go, and pieces that wait to be sent.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_MAX: usize = 4;

/// What a file is to hold.
#[derive(Clone, Debug)]
pub enum Content {
    /// These bytes.
    Bytes(Bytes),
    /// What is in this file; it is never whole in memory.
    File(PathBuf),
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Content {
        Content::Bytes(bytes.into())
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Content {
        Content::Bytes(bytes)
    }
}

impl From<PathBuf> for Content {
    fn from(path: PathBuf) -> Content {
        Content::File(path)
    }
}

impl Content {
    /// A document.
    pub(super) fn json(document: &(impl Serialize + ?Sized)) -> Result<Content, ClientError> {
        let bytes = serde_json::to_vec(document);
        bytes.map(Content::from).map_err(|source| ClientError::NoJson { source })
    }

    /// The body of one request.
    pub(super) fn body(&self) -> io::Result<Outgoing> {
        match self {
            Content::Bytes(bytes) => Ok(Outgoing::Whole(Some(bytes.clone()))),
            Content::File(path) => {
                let mut file = File::open(path)?;
                let bytes = file.metadata()?.len();
                let (send, pieces) = mpsc::channel(PIECES_MAX);
                tokio::task::spawn_blocking(move || {
                    let mut left = bytes;
                    while left > 0 {
                        let mut piece = Vec::new();
                        let most = left.min(PIECE_BYTES as u64);
                        let read = (&mut file).take(most).read_to_end(&mut piece);
                        let ended = matches!(read, Ok(0) | Err(_));
                        left -= piece.len() as u64;
                        let piece = match read {
                            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                            read => read.map(|_| piece.into()),
                        };
                        // Nobody sends it on any more, or it has become shorter.
                        if send.blocking_send(piece).is_err() || ended {
                            return;
                        }
                    }
                });
                Ok(Outgoing::Pieces { pieces, left: bytes })
            }
        }
    }
}

/// The body of a request on its way.
#[derive(Debug)]
pub(super) enum Outgoing {
    Whole(Option<Bytes>),
    Pieces { pieces: mpsc::Receiver<io::Result<Bytes>>, left: u64 },
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Outgoing::Whole(bytes) => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Outgoing::Pieces { pieces, left } => {
                let piece = std::task::ready!(pieces.poll_recv(context));
                if let Some(Ok(piece)) = &piece {
                    *left -= piece.len() as u64;
                }
                Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Outgoing::Pieces { left, .. } => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            Outgoing::Pieces { left, .. } => SizeHint::with_exact(*left),
        }
    }
}
