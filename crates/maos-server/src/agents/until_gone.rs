//! Reads a pipe of a program to its end, or to where it is when the program is gone: somebody who
//! left its tree may hold the other end open for ever.

use std::io::Result;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Ends like a file once the token is cancelled and nothing is left to read.
pub(super) struct UntilGone<R> {
    pipe: R,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<R> UntilGone<R> {
    pub(super) fn new(pipe: R, gone: &CancellationToken) -> UntilGone<R> {
        UntilGone { pipe, gone: Box::pin(gone.clone().cancelled_owned()) }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for UntilGone<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        match Pin::new(&mut self.pipe).poll_read(cx, buffer) {
            Poll::Pending => self.gone.as_mut().poll(cx).map(Ok),
            ready => ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_there_is_read_and_nothing_is_waited_for_once_it_is_gone() {
        let (mut near, far) = tokio::io::duplex(64);
        let gone = CancellationToken::new();
        let mut pipe = UntilGone::new(far, &gone);
        near.write_all(b"last words").await.unwrap();
        gone.cancel();
        let mut text = String::new();
        pipe.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "last words", "though the other end is open");
    }
}
