//! A target of HTTP agents whose every answer is the test's own.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response};
use maos_server::agents::http::HttpAgentConfig;
use maos_server::config::Config;
use maos_server::webhooks::Secret;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// What agents behind targets can do in these tests.
pub(crate) const CAPABILITY: &str = "poetry";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who is asked.
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) secret: Secret,
    asked: mpsc::UnboundedReceiver<Asked>,
    folder: tempfile::TempDir,
}

/// One request; whoever asked waits for `reply`.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
    reply: oneshot::Sender<Response<Body>>,
}

impl Target {
    pub(crate) async fn listen() -> Target {
        let (told, asked) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/attempts", listener.local_addr().unwrap());
        let app = Router::new().fallback(take).with_state(told);
        tokio::spawn(async move { axum::serve(listener, app).await });
        let (secret, folder) = (Secret::generate(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("secret"), secret.text() + "\n").unwrap();
        Target { url, secret, asked, folder }
    }

    /// A server's configuration with an agent behind this target, and these settings of it.
    pub(crate) fn config(&self, settings: Value) -> Config {
        let mut all = json!({
            "url": self.url,
            "secret_file": "secret",
            "capabilities": [CAPABILITY],
            "slots": 4,
            "allow_private": true,
            "retry_pause_ms": 1,
        });
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let mut agent: HttpAgentConfig = serde_json::from_value(all).unwrap();
        agent.folder = self.folder.path().to_owned();
        let mut config = Config::default();
        config.http_agents.insert("poet".to_owned(), agent);
        config
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Asked {
        let asked = tokio::time::timeout(PATIENCE, self.asked.recv()).await;
        asked.expect("a request comes").unwrap()
    }

    /// Whether nothing was asked that the test has not seen.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.asked.try_recv().is_err()
    }

    /// Whether what was sent is signed, to the byte.
    pub(crate) fn signed(&self, asked: &Asked) -> bool {
        let timestamp = asked.header("webhook-timestamp").parse().unwrap();
        let signature = self.secret.sign(asked.header("webhook-id"), timestamp, &asked.bytes);
        asked.header("webhook-signature") == signature
    }
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn body(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    /// Where to call back, and with which token.
    pub(crate) fn callback(&self) -> (String, String) {
        let callback = &self.body()["callback"];
        let text = |name: &str| callback[name].as_str().unwrap().to_owned();
        (text("url").replace("http://maos.test", ""), text("token"))
    }

    pub(crate) fn answer(self, status: u16, body: impl Into<Body>) {
        self.answer_with(status, &[], body);
    }

    pub(crate) fn answer_with(
        self,
        status: u16,
        headers: &[(&'static str, &str)],
        body: impl Into<Body>,
    ) {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        self.reply.send(response.body(body.into()).unwrap()).unwrap();
    }

    /// Returns when whoever asked has hung up.
    pub(crate) async fn hung_up(mut self) {
        let closed = tokio::time::timeout(PATIENCE, self.reply.closed()).await;
        closed.expect("the asker hangs up");
    }
}

async fn take(
    State(told): State<mpsc::UnboundedSender<Asked>>,
    method: Method,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response<Body> {
    let (reply, answer) = oneshot::channel();
    told.send(Asked { method, headers, bytes, reply }).unwrap();
    answer.await.unwrap_or_default()
}
