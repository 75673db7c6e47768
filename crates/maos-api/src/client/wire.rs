//! Connections: one request, one answer, each within its time; idle connections are used again.
//!
//! Law: a request that may have reached the server is not sent again, unless that is harmless.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::content::{Content, Outgoing};
#[cfg(feature = "tls")]
use super::tls::{self, Tls};
use super::url::Address;
use super::{ClientError, Patience};

/// More than any result or page of a listing that a person wants; beyond it something is wrong.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Connections kept for the next request.
const IDLE_MAX: usize = 8;
/// Pause before a connection that was refused is tried again.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// One request, without the server it goes to.
pub(super) struct Exchange<'a> {
    pub(super) method: Method,
    /// With its query.
    pub(super) path: String,
    /// Empty for none.
    pub(super) body: Content,
    /// What the body is; JSON unless it says so.
    pub(super) media_type: Option<&'a str>,
    pub(super) idempotency_key: Option<&'a str>,
    /// What shows that the caller may do this.
    pub(super) token: Option<&'a str>,
    /// The last event of a stream that was seen.
    pub(super) last_event_id: Option<&'a str>,
    /// Whether to be carried out twice is the same as once.
    pub(super) harmless: bool,
    /// How long the server was asked to wait before it answers.
    pub(super) server_wait: Duration,
}

impl Exchange<'_> {
    pub(super) fn new(method: Method, path: String) -> Exchange<'static> {
        let harmless = method == Method::GET;
        Exchange {
            method,
            path,
            body: Content::Bytes(Bytes::new()),
            media_type: None,
            idempotency_key: None,
            token: None,
            last_event_id: None,
            harmless,
            server_wait: Duration::ZERO,
        }
    }
}

/// A connection, and the loop that drives it: both end together.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Outgoing>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[derive(Debug)]
pub(super) struct Wire {
    address: Address,
    /// Of a server with `https://`.
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    idle: Mutex<Vec<Connection>>,
}

impl Wire {
    pub(super) fn new(address: Address) -> Result<Wire, ClientError> {
        let idle = Mutex::new(Vec::new());
        #[cfg(feature = "tls")]
        let tls = address.secure.then(|| Tls::new(&address)).transpose()?;
        #[cfg(not(feature = "tls"))]
        if address.secure {
            let why = "https needs the feature `tls` of `maos-api`, which is off here".to_owned();
            return Err(ClientError::BadUrl { url: address.url, why });
        }
        Ok(Wire {
            address,
            #[cfg(feature = "tls")]
            tls,
            idle,
        })
    }

    /// Trusts the authorities of these certificates too.
    #[cfg(feature = "tls")]
    pub(super) fn trust(&mut self, pem: &[u8]) -> Result<(), ClientError> {
        match &mut self.tls {
            Some(tls) => tls.trust(pem),
            None => {
                let why = format!("`{}` is no https, so none would be asked for", self.url());
                Err(ClientError::BadCertificate { why })
            }
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.address.url
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn exchange(
        &self,
        exchange: &Exchange<'_>,
        patience: Patience,
    ) -> Result<Heard, ClientError> {
        let limit = patience.answer.saturating_add(exchange.server_wait);
        let mut request = self.request(exchange)?;
        let mut reused = self.take_idle();
        loop {
            let may_be_stale = reused.is_some();
            let mut connection = match reused.take() {
                Some(connection) => connection,
                None => self.reach(exchange, patience).await?,
            };
            let answered = timeout(limit, self.ask(&mut connection, request)).await;
            match answered.map_err(|_| self.timed_out(limit))? {
                Ok(answer) => {
                    self.keep(connection);
                    return Ok(answer);
                }
                // The server had closed the connection meanwhile: what never left it, or only
                // reads, goes out on a new one.
                Err(Unanswered { unsent: Some(unsent), .. }) if may_be_stale => request = unsent,
                Err(Unanswered { why: ClientError::Broken { .. }, .. })
                    if may_be_stale && exchange.harmless =>
                {
                    request = self.request(exchange)?;
                }
                Err(Unanswered { why, .. }) => return Err(why),
            }
        }
    }

    /// Sends a request on a connection of its own; the body of its answer is read by the caller.
    pub(super) async fn open(
        &self,
        exchange: &Exchange<'_>,
        patience: Patience,
    ) -> Result<Opened, ClientError> {
        let request = self.request(exchange)?;
        let mut connection = self.reach(exchange, patience).await?;
        let answered = timeout(patience.answer, self.send(&mut connection, request)).await;
        let response = answered
            .map_err(|_| self.timed_out(patience.answer))?
            .map_err(|unanswered| unanswered.why)?;
        let (parts, body) = response.into_parts();
        let (status, headers) = (parts.status.as_u16(), parts.headers);
        Ok(Opened { status, headers, body, _connection: connection })
    }

    /// All of an answer that was opened.
    pub(super) async fn rest(&self, opened: Opened) -> Result<Heard, ClientError> {
        let (status, retry_after) = (opened.status, retry_after(&opened.headers));
        Ok(Heard { status, retry_after, raw: self.read(opened.body).await? })
    }

    fn request(&self, exchange: &Exchange<'_>) -> Result<Request<Outgoing>, ClientError> {
        let path = format!("{}{}", self.address.prefix, exchange.path);
        let mut request = Request::builder()
            .method(exchange.method.clone())
            .uri(path)
            .header(HOST, &self.address.authority)
            .header(USER_AGENT, concat!("maos/", env!("CARGO_PKG_VERSION")));
        let empty = matches!(&exchange.body, Content::Bytes(bytes) if bytes.is_empty());
        if let Some(kind) = exchange.media_type.or((!empty).then_some("application/json")) {
            request = request.header(CONTENT_TYPE, kind);
        }
        if let Some(id) = exchange.last_event_id {
            request = request.header("last-event-id", id);
        }
        if let Some(key) = exchange.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        if let Some(token) = exchange.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = exchange.body.body().map_err(|source| ClientError::Unreadable { source })?;
        request.body(body).map_err(|why| {
            let why = format!("a request to it cannot be formed: {why}");
            ClientError::BadUrl { url: self.url().to_owned(), why }
        })
    }

    /// A connection for a request; whoever only reads waits a moment for a server that starts.
    async fn reach(
        &self,
        exchange: &Exchange<'_>,
        patience: Patience,
    ) -> Result<Connection, ClientError> {
        let only_reads = exchange.method == Method::GET;
        let more = if only_reads { patience.refused } else { Duration::ZERO };
        let until = Instant::now() + more;
        loop {
            match self.connect(patience.connect).await {
                Err(ClientError::Unreachable { source, .. })
                    if source.kind() == io::ErrorKind::ConnectionRefused
                        && Instant::now() < until =>
                {
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                reached => return reached,
            }
        }
    }

    async fn connect(&self, patience: Duration) -> Result<Connection, ClientError> {
        let late = |_| self.unreachable(io::Error::from(io::ErrorKind::TimedOut));
        timeout(patience, self.dial()).await.map_err(late)?
    }

    async fn dial(&self) -> Result<Connection, ClientError> {
        let target = (self.address.host.as_str(), self.address.port);
        let stream = TcpStream::connect(target).await.map_err(|why| self.unreachable(why))?;
        stream.set_nodelay(true).map_err(|why| self.unreachable(why))?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let agreed = tls.agree(stream).await.map_err(|source| {
                let url = self.url().to_owned();
                if tls::is_refusal(&source) {
                    return ClientError::Insecure { url, source };
                }
                ClientError::Unreachable { url, source }
            });
            return self.speak(agreed?).await;
        }
        self.speak(stream).await
    }

    async fn speak<S>(&self, stream: S) -> Result<Connection, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, driver) =
            handshake(TokioIo::new(stream)).await.map_err(|why| self.broken(why))?;
        // The fault of a broken connection reaches whoever asks over it.
        let driver = tokio::spawn(async move { drop(driver.await) });
        Ok(Connection { sender, driver })
    }

    async fn ask(
        &self,
        connection: &mut Connection,
        request: Request<Outgoing>,
    ) -> Result<Heard, Unanswered> {
        let response = self.send(connection, request).await?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
        let body = self.read(response.into_body()).await;
        let raw = body.map_err(|why| Unanswered { why, unsent: None })?;
        Ok(Heard { status, retry_after, raw })
    }

    async fn send(
        &self,
        connection: &mut Connection,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, Unanswered> {
        if let Err(why) = connection.sender.ready().await {
            return Err(Unanswered { why: self.broken(why), unsent: Some(request) });
        }
        connection.sender.try_send_request(request).await.map_err(|mut fault| {
            let unsent = fault.take_message();
            Unanswered { why: self.broken(fault.into_error()), unsent }
        })
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        body.map(|body| body.to_bytes()).map_err(|fault| {
            let url = self.url().to_owned();
            match fault.downcast::<hyper::Error>() {
                Ok(source) => ClientError::Broken { url, source: *source },
                Err(other) => {
                    assert!(
                        other.is::<LengthLimitError>(),
                        "a body breaks or is too long: {other}"
                    );
                    ClientError::AnswerTooLarge { url, bytes_max: ANSWER_BYTES_MAX }
                }
            }
        })
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.sender.is_closed());
        idle.pop()
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !connection.sender.is_closed() {
            idle.push(connection);
        }
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        ClientError::Unreachable { url: self.url().to_owned(), source }
    }

    fn broken(&self, source: hyper::Error) -> ClientError {
        ClientError::Broken { url: self.url().to_owned(), source }
    }

    fn timed_out(&self, limit: Duration) -> ClientError {
        ClientError::TimedOut { url: self.url().to_owned(), seconds: limit.as_secs() }
    }
}

/// A whole answer.
pub(super) struct Heard {
    pub(super) status: u16,
    /// When the server wants to be asked again, if it says so.
    pub(super) retry_after: Option<Duration>,
    pub(super) raw: Bytes,
}

/// An answer whose body is still to come; its connection ends with it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Incoming,
    _connection: Connection,
}

/// The header in its form of seconds; that of a date is for browsers.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// A request without an answer, and the request itself if it never left.
struct Unanswered {
    why: ClientError,
    unsent: Option<Request<Outgoing>>,
}
