//! Requests to the outside world, kept away from the inside: HTTP and HTTPS to public addresses.
//!
//! Its law: no connection is made to a loopback, private, link-local or otherwise special address
//! unless the operator has opened it, whatever name leads there: the addresses that a name resolves
//! to are checked, and exactly those are connected to. Redirects are not followed, answers are
//! bounded, every request has a time.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::HeaderMap;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tower::Service;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// A connection that nobody uses is closed after so long.
const IDLE: Duration = Duration::from_secs(30);
/// Idle connections to one host.
const IDLE_MAX: usize = 4;
/// Longest URL.
const URL_BYTES_MAX: usize = 2_048;

/// `[webhooks]`, as far as it says who may be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Rules {
    /// Whether addresses of the inside may be reached: loopback, private, link-local.
    pub allow_private: bool,
    /// Hosts that may be reached wherever they are, by the name or address in the URL.
    pub allow_hosts: Vec<String>,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OutboundError {
    /// The URL cannot be used.
    #[error("`{url}` is no URL to reach: {why}")]
    BadUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It leads inside.
    #[error(
        "`{host}` is an inner address, which is not reached\n\
         hint: the operator may open it with [outbound] allow_hosts or allow_private"
    )]
    Inner {
        /// The host.
        host: String,
    },
    /// There was no answer in time.
    #[error("`{host}` did not answer within {seconds} s")]
    TimedOut {
        /// The host.
        host: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The connection could not be made, or broke.
    #[error("`{host}` was not reached: {why}")]
    Failed {
        /// The host.
        host: String,
        /// What went wrong.
        why: String,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// As much of the body as was asked for.
    pub body: Bytes,
    /// Whether there was more.
    pub cut: bool,
}

type Connector = HttpsConnector<HttpConnector<Resolver>>;

/// Sends requests outside. Clones share connections.
#[derive(Clone)]
pub struct Outbound {
    rules: Arc<Rules>,
    /// Made at the first use: certificates take a moment and some memory.
    client: Arc<OnceLock<Client<Connector, Full<Bytes>>>>,
}

/// Resolves names to addresses that may be reached.
#[derive(Clone)]
struct Resolver {
    rules: Arc<Rules>,
}

impl Outbound {
    /// Requests as far as `rules` let them.
    #[must_use]
    pub fn new(rules: Rules) -> Outbound {
        Outbound { rules: Arc::new(rules), client: Arc::default() }
    }

    /// Reads a URL, and refuses what can never be reached. Names are resolved when they are used.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, url: &str) -> Result<Uri, OutboundError> {
        let bad = |why| OutboundError::BadUrl { url: url.chars().take(200).collect(), why };
        if url.len() > URL_BYTES_MAX {
            return Err(bad("it is longer than 2,048 bytes"));
        }
        let uri: Uri = url.parse().map_err(|_| bad("it cannot be read"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad("it must begin with http:// or https://"));
        }
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it must not hold a user name or password"));
        }
        let host = bare(authority.host());
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        match host.parse::<IpAddr>() {
            // An address in the URL is not resolved, so it is looked at here.
            Ok(address) if !self.rules.admit(host, address) => {
                Err(OutboundError::Inner { host: host.to_owned() })
            }
            Ok(_) | Err(_) => Ok(uri),
        }
    }

    /// Sends a request and reads at most `bytes_max` of the answer's body, all within `time`.
    ///
    /// # Errors
    /// Why there is no answer. An answer that says no is an answer.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        time: Duration,
        bytes_max: usize,
    ) -> Result<Answer, OutboundError> {
        self.check(&request.uri().to_string())?;
        let host = bare(request.uri().host().unwrap_or_default()).to_owned();
        let client = self.client.get_or_init(|| client(self.rules.clone()));
        let asked = async {
            let response = client.request(request).await.map_err(|why| fault(&host, &why))?;
            read(response, bytes_max).await.map_err(|why| fault(&host, &*why))
        };
        let answered = tokio::time::timeout(time, asked).await;
        answered.unwrap_or_else(|_| {
            Err(OutboundError::TimedOut { host: host.clone(), seconds: time.as_secs() })
        })
    }
}

fn client(rules: Arc<Rules>) -> Client<Connector, Full<Bytes>> {
    let mut http = HttpConnector::new_with_resolver(Resolver { rules });
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT));
    http.set_nodelay(true);
    let https = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1();
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_MAX)
        .build(https.wrap_connector(http))
}

async fn read(
    response: Response<hyper::body::Incoming>,
    bytes_max: usize,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body = Limited::new(response.into_body(), bytes_max);
    let (mut read, mut cut) = (Vec::new(), false);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if let Ok(bytes) = frame.into_data() {
                    read.extend_from_slice(&bytes);
                }
            }
            Err(why) if why.is::<http_body_util::LengthLimitError>() => {
                cut = true;
                break;
            }
            Err(why) => return Err(why),
        }
    }
    Ok(Answer { status, headers, body: read.into(), cut })
}

/// The innermost cause says what a person can act on.
fn fault(host: &str, why: &(dyn std::error::Error + 'static)) -> OutboundError {
    let mut cause = why;
    loop {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(refused) = inner.and_then(|inner| inner.downcast_ref::<OutboundError>()) {
            return refused.clone();
        }
        match cause.source() {
            Some(source) => cause = source,
            None => break,
        }
    }
    OutboundError::Failed { host: host.to_owned(), why: cause.to_string() }
}

impl Rules {
    fn admit(&self, host: &str, address: IpAddr) -> bool {
        self.allow_private
            || is_public(address)
            || self.allow_hosts.iter().any(|allowed| bare(allowed).eq_ignore_ascii_case(host))
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future =
        Pin<Box<dyn Future<Output = Result<std::vec::IntoIter<SocketAddr>, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let rules = self.rules.clone();
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let found: Vec<SocketAddr> = found.collect();
            let any = !found.is_empty();
            let admitted: Vec<SocketAddr> =
                found.into_iter().filter(|found| rules.admit(&host, found.ip())).collect();
            if any && admitted.is_empty() {
                return Err(io::Error::other(OutboundError::Inner { host }));
            }
            Ok(admitted.into_iter())
        })
    }
}

/// A host without the brackets of an IPv6 address and the dot at the end of a full name.
fn bare(host: &str) -> &str {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host)
}

/// Whether an address is one of the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    match address.octets() {
        [0 | 10 | 127, ..] => false,
        [100, second, ..] if (64..128).contains(&second) => false,
        [169, 254, ..] | [192, 168, ..] => false,
        [172, second, ..] if (16..32).contains(&second) => false,
        [192, 0, 0 | 2, _] | [192, 88, 99, _] => false,
        [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => false,
        // Multicast, reserved, broadcast.
        [first, ..] => first < 224,
    }
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = address.to_ipv4_mapped() {
        return is_public_v4(inner);
    }
    match address.segments() {
        // Documentation, tunnels and other special uses lie within the global range.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x2002, ..] | [0x3fff, 0..0x1000, ..] => false,
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_addresses_are_known_in_every_form() {
        for inner in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2001::1",
            "fec0::1",
        ] {
            assert!(!is_public(inner.parse().unwrap()), "{inner}");
        }
        for public in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn urls_that_lead_inside_or_nowhere_are_refused_at_once() {
        let outbound = Outbound::new(Rules::default());
        for url in [
            "ftp://example.com",
            "http://",
            "/x",
            "http://a:b@example.com/",
            "http://127.0.0.1/",
            "http://[::1]:8000/",
            "https://169.254.169.254/latest",
            "http://[::ffff:10.0.0.1]/",
        ] {
            assert!(outbound.check(url).is_err(), "{url}");
        }
        assert!(outbound.check("https://example.com/x?y=1").is_ok());
        let hosts = vec!["127.0.0.1".to_owned()];
        let open = Outbound::new(Rules { allow_hosts: hosts, allow_private: false });
        assert!(open.check("http://127.0.0.1:1/").is_ok());
        assert!(open.check("http://127.0.0.2:1/").is_err());
    }

    #[tokio::test]
    async fn a_server_that_speaks_no_tls_is_a_fault_and_a_redirect_is_an_answer() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1_024];
                let _ = stream.read(&mut head).await;
                let answer = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\
                              content-length: 5\r\n\r\nhello";
                drop(stream.write_all(answer.as_bytes()).await);
            }
        });
        let outbound = Outbound::new(Rules { allow_private: true, ..Rules::default() });
        let get = |scheme: &str| {
            let request = Request::get(format!("{scheme}://{address}/"));
            outbound.send(request.body(Full::default()).unwrap(), CONNECT, 4)
        };
        let answer = get("http").await.unwrap();
        assert_eq!((answer.status, answer.cut), (302, true), "{answer:?}");
        let refused = get("https").await.unwrap_err();
        assert!(matches!(refused, OutboundError::Failed { .. }), "{refused}");
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_reached() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = tokio::spawn(async move { drop(listener.accept().await) });
        let outbound = Outbound::new(Rules::default());
        let get = |host: &str| {
            let request = Request::get(format!("http://{host}:{port}/"));
            outbound.send(request.body(Full::default()).unwrap(), CONNECT, 10)
        };
        let refused = get("localhost").await.unwrap_err();
        assert_eq!(refused, OutboundError::Inner { host: "localhost".to_owned() });
        // Other spellings of the same address are resolved by the system, and checked as well.
        for host in ["0x7f.1", "2130706433", "0"] {
            let refused = get(host).await.unwrap_err();
            assert!(!matches!(refused, OutboundError::TimedOut { .. }), "{host}: {refused}");
        }
        assert!(!accepted.is_finished(), "nobody came");
        accepted.abort();
    }
}
