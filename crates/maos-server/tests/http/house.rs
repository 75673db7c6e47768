//! A server for one test, and how to talk to it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use maos_server::config::Config;
use maos_server::service::{Server, Setup, start};
use serde_json::Value;
use tower::ServiceExt;

use crate::description;

/// A running server without a socket; its folder goes when it does.
pub(crate) struct House {
    pub(crate) server: Option<Server>,
    router: Router,
    folder: tempfile::TempDir,
}

/// One answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) body: Value,
}

impl House {
    pub(crate) async fn open() -> House {
        House::open_with(Config::default()).await
    }

    pub(crate) async fn open_with(config: Config) -> House {
        House::open_over(config, |_| ()).await
    }

    /// On a data directory that `prepare` makes.
    pub(crate) async fn open_over(config: Config, prepare: impl FnOnce(&Path)) -> House {
        let folder = tempfile::tempdir().unwrap();
        prepare(&folder.path().join("data"));
        let server = start(config, setup(folder.path().into())).await.unwrap();
        let router = maos_server::http::router(server.service.clone());
        House { server: Some(server), router, folder }
    }

    /// A server that nobody can call.
    pub(crate) async fn open_alone(config: Config) -> House {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup { base_url: None, ..setup(folder.path().into()) };
        let server = start(config, setup).await.unwrap();
        let router = maos_server::http::router(server.service.clone());
        House { server: Some(server), router, folder }
    }

    /// The same on a data directory that is there already.
    pub(crate) async fn open_on(data_dir: &Path) -> House {
        House::try_open_on(data_dir).await.unwrap()
    }

    pub(crate) async fn try_open_on(data_dir: &Path) -> Result<House, String> {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup { data_dir: data_dir.to_owned(), ..setup(folder.path().into()) };
        let server = start(Config::default(), setup).await.map_err(|why| why.to_string())?;
        let router = maos_server::http::router(server.service.clone());
        Ok(House { server: Some(server), router, folder })
    }

    /// Where everything durable is.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Stops the server in order and starts another one on the same directory.
    pub(crate) async fn reopen(self) -> House {
        self.reopen_with(Config::default()).await
    }

    /// The same with another configuration.
    pub(crate) async fn reopen_with(mut self, config: Config) -> House {
        let server = self.server.take().unwrap();
        server.stop(Duration::ZERO).await;
        let server = start(config, setup(self.folder.path().into())).await.unwrap();
        let router = maos_server::http::router(server.service.clone());
        House { server: Some(server), router, folder: self.folder }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let sent = body.collect().await.unwrap().to_bytes();
        let (method, path) = (parts.method.clone(), parts.uri.to_string());
        let answer = self.pass(Request::from_parts(parts, Body::from(sent.clone()))).await;
        let sent = serde_json::from_slice(&sent).ok();
        description::hold(method.as_str(), &path, sent.as_ref(), &answer);
        answer
    }

    /// A page that is no JSON.
    pub(crate) async fn raw(&self, path: &str) -> String {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// An answer as it comes.
    pub(crate) async fn response(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// A file, with the headers that it came with.
    pub(crate) async fn file(&self, path: &str) -> (axum::http::HeaderMap, Vec<u8>) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let (parts, body) = self.response(request).await.into_parts();
        assert_eq!(parts.status, 200);
        (parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
    }

    async fn pass(&self, request: Request<Body>) -> Answer {
        let response: Response<Body> = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|why| panic!("{} is not JSON: {why}", String::from_utf8_lossy(&bytes)));
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let builder = Request::builder().method(method).uri(path);
        let request = match body {
            Some(body) => builder
                .header("content-type", "application/json")
                .body(Body::from(serde_json::to_vec(body).unwrap())),
            None => builder.body(Body::empty()),
        };
        self.send(request.unwrap()).await
    }

    /// A POST with an idempotency key.
    pub(crate) async fn keyed(&self, path: &str, key: &str, body: &Value) -> Answer {
        let request = Request::post(path).header("idempotency-key", key);
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// Events as they come, from now on or behind the one with this id.
    pub(crate) async fn events(&self, query: &str, last: Option<&str>) -> EventReader {
        self.stream(&format!("/api/v1/events{query}"), last).await
    }

    /// The same under any path.
    pub(crate) async fn stream(&self, path: &str, last: Option<&str>) -> EventReader {
        let mut request = Request::builder().uri(path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let stream = description::Stream::of(path);
        stream.hold_head(response.status().as_u16(), response.headers());
        EventReader { body: response.into_body(), text: String::new(), stream, kind: None }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    pub(crate) async fn submit(&self, body: &Value) -> Value {
        let answer = self.call("POST", "/api/v1/tasks", Some(body)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// Submits and waits for the end.
    pub(crate) async fn run(&self, body: &Value) -> Value {
        let id = id_of(&self.submit(body).await);
        self.ended(&id).await
    }

    pub(crate) async fn ended(&self, id: &str) -> Value {
        let answer = self.get(&format!("/api/v1/tasks/{id}?wait_seconds=30")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["task"].clone()
    }
}

/// Reads one stream of events, and holds it against its description.
pub(crate) struct EventReader {
    body: Body,
    text: String,
    stream: description::Stream,
    /// What kind of event the last one was.
    pub(crate) kind: Option<String>,
}

impl EventReader {
    /// The next event: its id and its data; `None` at the stream's end.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                self.kind = self.stream.hold(event);
                let line = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                let id = line("id: ").unwrap_or_default().to_owned();
                let data = line("data: ").map(|data| serde_json::from_str(data).unwrap());
                self.text = rest.to_owned();
                match data {
                    Some(data) => return Some((id, data)),
                    None => continue,
                }
            }
            let frame = tokio::time::timeout(Duration::from_secs(30), self.body.frame());
            let bytes = frame.await.expect("an event comes")?.unwrap().into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }
}

pub(crate) fn id_of(envelope: &Value) -> String {
    envelope["task"]["id"].as_str().unwrap().to_owned()
}

pub(crate) fn setup(folder: PathBuf) -> Setup {
    // The test's own executable is no supervisor: nothing here runs programs.
    let nothing = vec![OsString::from("false")];
    Setup {
        data_dir: folder.join("data"),
        default_root: folder.join("files"),
        supervisor: nothing.clone(),
        data_worker: nothing,
        base_url: Some("http://maos.test".to_owned()),
    }
}
