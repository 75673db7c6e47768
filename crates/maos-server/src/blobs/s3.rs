//! A bucket that speaks S3, over the HTTP client that the rest of the server has too.
//!
//! Its law: where the bucket is comes from the settings alone, who we are from the environment
//! alone. Nothing of the latter is kept, shown or logged here.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use object_store::path::Path as Name;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::BlobError;
use super::place::Place;
use crate::config;

/// What the environment may say: who we are. Nothing else is read from it.
const FROM_ENVIRONMENT: [&str; 9] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];
const REGION: &str = "us-east-1";
/// A request is sent again so often, and not after so long: somebody waits for it.
const RETRIES_MAX: usize = 4;
const RETRY: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for an answer to begin or to go on, beside the time that sending takes.
const ANSWER: Duration = Duration::from_secs(30);
/// What is sent is given a second for each of these.
const SENT_BYTES_PER_SECOND: u64 = 256 << 10;
/// A connection that nobody uses is closed after so long.
const IDLE: Duration = Duration::from_secs(30);

/// Tells what a variable of the environment says.
pub(super) type Environment<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// The bucket that the settings name, for whoever the environment says that we are.
pub(super) fn place(
    settings: &config::Blobs,
    bucket: &config::Bucket<'_>,
    environment: Environment<'_>,
) -> Result<Place, BlobError> {
    let region = if settings.region.is_empty() { REGION } else { &settings.region };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket.name)
        .with_region(region)
        .with_allow_http(settings.allow_http)
        .with_retry(retry())
        // Not all who speak S3 can remove many at once, and we never do.
        .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true")
        .with_http_connector(Connector);
    if !settings.endpoint.is_empty() {
        builder = builder.with_endpoint(settings.endpoint.trim_end_matches('/'));
    }
    for name in FROM_ENVIRONMENT {
        let key: Option<AmazonS3ConfigKey> = name.to_lowercase().parse().ok();
        let key = key.expect("it is one of the names that the builder knows");
        if let Some(value) = environment(name).filter(|value| !value.is_empty()) {
            builder = builder.with_config(key, value);
        }
    }
    let place = settings.url.trim_end_matches('/').to_owned();
    match builder.build() {
        Ok(store) => Ok(Place::bucket(Arc::new(store), Name::from(bucket.prefix), place)),
        Err(fault) => {
            let hint = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set together, or neither \
                        is";
            Err(BlobError::Unusable { place, what: fault.to_string(), hint: hint.to_owned() })
        }
    }
}

fn retry() -> RetryConfig {
    let backoff = BackoffConfig { init_backoff: PAUSE, max_backoff: PAUSE_MAX, base: 2.0 };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRY }
}

/// Makes the client that sends requests.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        // Whether HTTP is allowed was settled with the settings.
        let https = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(https.wrap_connector(tcp));
        Ok(HttpClient::new(Wire { client }))
    }
}

/// Sends requests and hands on answers. Trying again is the affair of who asks.
#[derive(Debug)]
struct Wire {
    client: Client<HttpsConnector<TcpConnector>, HttpRequestBody>,
}

impl HttpService for Wire {
    // As `async_trait` writes it out.
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.send(request))
    }
}

impl Wire {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let sent = request.body().content_length() as u64 / SENT_BYTES_PER_SECOND;
        let time = ANSWER + Duration::from_secs(sent);
        let answer = tokio::time::timeout(time, self.client.request(request)).await;
        let answer = answer.map_err(|_| silent(time))?.map_err(|fault| not_sent(&fault))?;
        let (parts, body) = answer.into_parts();
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(watched(body))))
    }
}

/// A body that may not be silent for long.
fn watched(
    body: Incoming,
) -> impl hyper::body::Body<Data = hyper::body::Bytes, Error = HttpError> + Send + Sync + 'static {
    let frames = stream::unfold(Some(body), async |body| {
        let mut body = body?;
        match tokio::time::timeout(ANSWER, body.frame()).await {
            Ok(None) => None,
            Ok(Some(Ok(frame))) => Some((Ok(frame), Some(body))),
            Ok(Some(Err(fault))) => {
                let fault = HttpError::new(HttpErrorKind::Interrupted, innermost(&fault));
                Some((Err(fault), None))
            }
            Err(_) => Some((Err(silent(ANSWER)), None)),
        }
    });
    StreamBody::new(frames.fuse())
}

fn silent(time: Duration) -> HttpError {
    let fault = io::Error::other(format!("no answer within {} s", time.as_secs()));
    HttpError::new(HttpErrorKind::Timeout, fault)
}

fn not_sent(fault: &ClientError) -> HttpError {
    let kind = if fault.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
    HttpError::new(kind, innermost(fault))
}

/// The innermost cause says what a person can act on.
fn innermost(fault: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut cause = fault;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    io::Error::other(cause.to_string())
}
