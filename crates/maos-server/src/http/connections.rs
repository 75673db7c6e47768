//! Connections: taken, served by the routes, let go in order.
//!
//! Its law: a connection that says nothing costs little, and not for ever. Thousands of workers
//! wait on one each, so what it holds while nothing happens is the memory of a server at rest;
//! HTTP/1.1 alone holds half of what a choice of protocols does.

use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// How long a connection may have no whole request, be it that nothing comes or that it comes in
/// drops. Clients keep an idle connection for up to 90 s before they use it again.
const HEAD_MAX: Duration = Duration::from_secs(120);
/// Pause when the system has no connection to give, which passes when others are closed.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `stop` is cancelled, and returns once the requests under way are answered.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    let open = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                open.spawn(converse(stream, protocol.clone(), router.clone(), stop.clone()));
            }
            Err(fault) if is_of_one_connection(&fault) => debug!("a connection broke: {fault}"),
            Err(fault) => {
                warn!("no connection can be taken at the moment: {fault}");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
    drop(listener);
    open.close();
    open.wait().await;
}

/// Answers what comes on one connection, until either side ends it.
async fn converse(
    stream: TcpStream,
    protocol: http1::Builder,
    router: Router,
    stop: CancellationToken,
) {
    // Answers are small and written whole: waiting for more to send only delays them.
    drop(stream.set_nodelay(true));
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(protocol.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(fault) = ended {
        debug!("a connection ended: {fault}");
    }
}

fn is_of_one_connection(fault: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(fault.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    /// A server whose answer takes ten minutes, and a connection to it that said `sent`. Time
    /// passes as soon as nobody has anything to do.
    async fn said(sent: &str) -> (TcpStream, CancellationToken, tokio::task::JoinHandle<()>) {
        let slow = get(async || {
            tokio::time::sleep(5 * HEAD_MAX).await;
            "slow"
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stop = CancellationToken::new();
        let serving =
            tokio::spawn(serve(listener, Router::new().route("/slow", slow), stop.clone()));
        stream.write_all(sent.as_bytes()).await.unwrap();
        (stream, stop, serving)
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_come_to_the_point_is_let_go() {
        for sent in ["", "GET /slow HTTP/1.1\r\nhost: x\r\n"] {
            let (mut stream, _, _) = said(sent).await;
            let before = Instant::now();
            let mut heard = String::new();
            // However it is closed, it is.
            drop(stream.read_to_string(&mut heard).await);
            assert!(before.elapsed() <= 2 * HEAD_MAX, "{sent}: {heard}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_takes_its_time_also_when_the_server_stops() {
        let (mut stream, stop, serving) = said("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        tokio::time::sleep(HEAD_MAX).await;
        stop.cancel();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert!(heard.starts_with("HTTP/1.1 200") && heard.ends_with("slow"), "{heard}");
        serving.await.unwrap();
    }
}
