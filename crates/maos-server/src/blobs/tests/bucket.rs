//! A server that speaks as much of S3 as documents need, and a cable to it that can be cut.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

pub(super) const BUCKET: &str = "maos-test";
pub(super) const KEY: &str = "made-up";

/// A bucket, and what is to go wrong with it.
#[derive(Default)]
pub(super) struct Bucket {
    pub(super) objects: Mutex<BTreeMap<String, (Vec<u8>, SystemTime)>>,
    pub(super) uploads: Mutex<BTreeMap<String, BTreeMap<u32, Vec<u8>>>>,
    /// Answers instead of what was asked for: the method, and a part of the path and query.
    pub(super) faults: Mutex<Vec<(Method, &'static str, Fault)>>,
    pub(super) requests: Mutex<Vec<String>>,
    /// How the last request was signed.
    pub(super) signed: Mutex<String>,
    /// How far its clock is behind.
    pub(super) behind: Mutex<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// 500, and nothing was done.
    Broken,
    /// The same once.
    BrokenOnce,
    /// What was asked for is done, and the answer is lost.
    Unheard,
}

impl Bucket {
    pub(super) fn now(&self) -> SystemTime {
        SystemTime::now() - *self.behind.lock().unwrap()
    }

    pub(super) fn fail(&self, method: Method, at: &'static str, fault: Fault) {
        self.faults.lock().unwrap().push((method, at, fault));
    }

    pub(super) fn asked(&self, wanted: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|asked| asked.starts_with(wanted)).count()
    }

    fn fault(&self, method: &Method, at: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let hit = |(wanted, part, _): &(Method, &str, Fault)| wanted == method && at.contains(part);
        let index = faults.iter().position(hit)?;
        let fault = faults[index].2;
        if fault == Fault::BrokenOnce {
            faults.remove(index);
        }
        Some(fault)
    }

    /// Serves it; its address.
    pub(super) async fn serve(self: &Arc<Bucket>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }
}

async fn answer(State(bucket): State<Arc<Bucket>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let at = parts.uri.to_string();
    bucket.requests.lock().unwrap().push(format!("{} {at}", parts.method));
    // What was sent is read in any case.
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return said(StatusCode::BAD_REQUEST, "IncompleteBody");
    };
    let fault = bucket.fault(&parts.method, &at);
    if matches!(fault, Some(Fault::Broken | Fault::BrokenOnce)) {
        return said(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    }
    let signed = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    if !signed.is_some_and(|signed| signed.contains(&format!("Credential={KEY}/"))) {
        return said(StatusCode::FORBIDDEN, "InvalidAccessKeyId");
    }
    signed.unwrap_or_default().clone_into(&mut bucket.signed.lock().unwrap());
    let path = parts.uri.path().trim_start_matches('/');
    let (name, key) = path.split_once('/').unwrap_or((path, ""));
    if name != BUCKET {
        return said(StatusCode::NOT_FOUND, "NoSuchBucket");
    }
    let query: BTreeMap<&str, &str> = (parts.uri.query().unwrap_or_default().split('&'))
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    let done = done(&bucket, &parts.method, key, &query, &parts.headers, body.to_vec());
    if fault == Some(Fault::Unheard) {
        return said(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    }
    done
}

fn done(
    bucket: &Bucket,
    method: &Method,
    key: &str,
    query: &BTreeMap<&str, &str>,
    headers: &HeaderMap,
    body: Vec<u8>,
) -> Response<Body> {
    let mut objects = bucket.objects.lock().unwrap();
    let mut uploads = bucket.uploads.lock().unwrap();
    let upload = query.get("uploadId").map(|id| (*id).to_owned());
    match (method.as_str(), upload) {
        ("POST", None) => {
            let id = format!("upload-{}", uploads.len());
            uploads.insert(id.clone(), BTreeMap::new());
            xml(&format!("<R><Bucket/><Key/><UploadId>{id}</UploadId></R>"))
        }
        ("PUT", Some(id)) => {
            let Some(parts) = uploads.get_mut(&id) else { return no_upload() };
            parts.insert(query["partNumber"].parse().unwrap(), body);
            tagged(StatusCode::OK).body(Body::empty()).unwrap()
        }
        ("POST", Some(id)) => {
            let Some(parts) = uploads.remove(&id) else { return no_upload() };
            let whole = parts.into_values().flatten().collect();
            objects.insert(key.to_owned(), (whole, bucket.now()));
            xml("<R><ETag>\"e\"</ETag></R>")
        }
        ("DELETE", Some(id)) => match uploads.remove(&id) {
            Some(_) => tagged(StatusCode::NO_CONTENT).body(Body::empty()).unwrap(),
            None => no_upload(),
        },
        ("PUT", None) if headers.contains_key("if-none-match") && objects.contains_key(key) => {
            said(StatusCode::PRECONDITION_FAILED, "PreconditionFailed")
        }
        ("PUT", None) => {
            objects.insert(key.to_owned(), (body, bucket.now()));
            tagged(StatusCode::OK).body(Body::empty()).unwrap()
        }
        ("DELETE", None) => {
            objects.remove(key);
            tagged(StatusCode::NO_CONTENT).body(Body::empty()).unwrap()
        }
        ("GET", None) if key.is_empty() => {
            let mut list = "<R>".to_owned();
            let prefix = query.get("prefix").unwrap_or(&"").replace("%2F", "/");
            for (key, (bytes, time)) in objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
                let (time, size) = (Timestamp::try_from(*time).unwrap(), bytes.len());
                let _ = write!(
                    list,
                    "<Contents><Key>{key}</Key><LastModified>{time}</LastModified>\
                     <Size>{size}</Size></Contents>"
                );
            }
            xml(&(list + "</R>"))
        }
        ("GET" | "HEAD", None) => match objects.get(key) {
            Some((bytes, time)) => object(bytes, *time, headers),
            None => said(StatusCode::NOT_FOUND, "NoSuchKey"),
        },
        _ => said(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    }
}

fn object(bytes: &[u8], time: SystemTime, headers: &HeaderMap) -> Response<Body> {
    let time = Timestamp::try_from(time).unwrap();
    let time = time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let range = headers.get("range").and_then(|value| value.to_str().ok());
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((from, to)) = range else {
        let answer = tagged(StatusCode::OK).header("last-modified", time);
        return answer.body(Body::from(bytes.to_vec())).unwrap();
    };
    let from: usize = from.parse().unwrap();
    let to = to.parse().map_or(bytes.len(), |to: usize| bytes.len().min(to + 1));
    tagged(StatusCode::PARTIAL_CONTENT)
        .header("last-modified", time)
        .header("content-range", format!("bytes {from}-{}/{}", to - 1, bytes.len()))
        .body(Body::from(bytes[from..to].to_vec()))
        .unwrap()
}

fn tagged(status: StatusCode) -> axum::http::response::Builder {
    Response::builder().status(status).header("etag", "\"e\"")
}

fn xml(text: &str) -> Response<Body> {
    tagged(StatusCode::OK).body(Body::from(text.to_owned())).unwrap()
}

fn said(status: StatusCode, code: &str) -> Response<Body> {
    let text = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>so it is</Message>\
         <AWSAccessKeyId>{KEY}</AWSAccessKeyId></Error>"
    );
    Response::builder().status(status).body(Body::from(text)).unwrap()
}

fn no_upload() -> Response<Body> {
    said(StatusCode::NOT_FOUND, "NoSuchUpload")
}

/// What connections to a server go through. After so many bytes, counted both ways and over all of
/// them, the one that carries the last of them breaks; then the next count begins.
#[derive(Default)]
pub(super) struct Cable {
    cuts: Mutex<VecDeque<u64>>,
}

impl Cable {
    pub(super) fn cut(&self, after: &[u64]) {
        self.cuts.lock().unwrap().extend(after);
    }

    pub(super) fn mend(&self) {
        self.cuts.lock().unwrap().clear();
    }

    /// How many breaks are still to come.
    pub(super) fn cuts_left(&self) -> usize {
        self.cuts.lock().unwrap().len()
    }

    /// Whether a connection breaks with these bytes.
    fn breaks(&self, bytes: usize) -> bool {
        let mut cuts = self.cuts.lock().unwrap();
        let Some(left) = cuts.front_mut() else { return false };
        *left = left.saturating_sub(bytes as u64);
        *left == 0 && cuts.pop_front().is_some()
    }

    /// Its near end.
    pub(super) async fn lay(self: &Arc<Cable>, to: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cable = self.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&to).await.unwrap();
                tokio::spawn(cable.clone().carry(near, far));
            }
        });
        address
    }

    async fn carry(self: Arc<Cable>, near: TcpStream, far: TcpStream) {
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::select! {
            () = self.pump(near_in, far_out) => {}
            () = self.pump(far_in, near_out) => {}
        }
    }

    async fn pump(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            if self.breaks(read) || to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }
}
