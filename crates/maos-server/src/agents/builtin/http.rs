//! `http.request` and `monitor.*`: what others answer, and how this machine is.
//!
//! Requests leave through `outbound`, which keeps them away from the inside. A request that may
//! change something carries the task's id as its `Idempotency-Key`, as it may be tried again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use maos_core::ids::TaskId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Fault, Stop, typed};
use crate::outbound::{Answer, Outbound, OutboundError};

/// Most bytes of an answer that a result holds, and unless the task says otherwise.
const BYTES_MAX: usize = 8 << 20;
const BYTES: usize = 1 << 20;
/// Most headers of a request.
const HEADERS_MAX: usize = 50;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    url: String,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// A string is sent as it is, anything else as JSON.
    body: Option<Value>,
    max_bytes: Option<usize>,
    /// Statuses that are a result and no failure; those from 200 to 299 unless it says so.
    accept_status: Option<Vec<u16>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Watched {
    url: String,
    #[serde(default = "ok")]
    expect_status: u16,
    max_ms: Option<u64>,
}

fn ok() -> u16 {
    200
}

pub(super) async fn act(
    name: &str,
    task: TaskId,
    parameters: Value,
    outbound: &Outbound,
    timeout: Duration,
    stop: &Stop,
) -> Result<Value, Fault> {
    let acting = async {
        match name {
            "http.request" => request(task, typed(parameters, &[])?, outbound, timeout).await,
            "monitor.http" => watch(typed(parameters, &[])?, outbound, timeout).await,
            _ => system(),
        }
    };
    tokio::select! {
        biased;
        () = stop.called() => Err(Fault::failed("stopped")),
        done = acting => done,
    }
}

async fn request(
    task: TaskId,
    asked: Asked,
    outbound: &Outbound,
    timeout: Duration,
) -> Result<Value, Fault> {
    let most = asked.max_bytes.unwrap_or(BYTES);
    if most > BYTES_MAX {
        return Err(Fault::wrong(format!("`max_bytes` must be at most {BYTES_MAX}, found {most}")));
    }
    let accept = asked.accept_status.clone();
    let request = built(task, asked, outbound)?;
    let answer = outbound.send(request, timeout, most).await.map_err(|why| unsent(&why))?;
    let status = answer.status;
    let accepted = match &accept {
        Some(statuses) => statuses.contains(&status),
        None => (200..300).contains(&status),
    };
    if !accepted {
        let begin: String = String::from_utf8_lossy(&answer.body).chars().take(500).collect();
        let message = format!("it was answered with status {status}: {begin}");
        // What the asker did wrong stays wrong; all else may pass.
        let permanent = (400..500).contains(&status) && ![408, 425, 429].contains(&status);
        return Err(Fault { message, permanent });
    }
    Ok(shown(&answer))
}

fn built(task: TaskId, asked: Asked, outbound: &Outbound) -> Result<Request<Full<Bytes>>, Fault> {
    let uri = outbound.check(&asked.url).map_err(|why| unsent(&why))?;
    let method = asked.method.unwrap_or_else(|| "GET".to_owned()).to_ascii_uppercase();
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| Fault::wrong(format!("`method` is none: `{method}`")))?;
    if asked.headers.len() > HEADERS_MAX {
        return Err(Fault::wrong(format!("`headers` has more than {HEADERS_MAX} entries")));
    }
    let changes = ![Method::GET, Method::HEAD, Method::OPTIONS].contains(&method);
    let mut builder = Request::builder().method(method).uri(uri);
    let mut own =
        BTreeMap::from([("user-agent", concat!("maos/", env!("CARGO_PKG_VERSION")).to_owned())]);
    if changes {
        own.insert("idempotency-key", task.to_string());
    }
    let body = match asked.body {
        None => String::new(),
        Some(Value::String(text)) => text,
        Some(json) => {
            own.insert("content-type", "application/json".to_owned());
            json.to_string()
        }
    };
    for (name, value) in &own {
        if !asked.headers.keys().any(|given| given.eq_ignore_ascii_case(name)) {
            builder = builder.header(*name, value);
        }
    }
    for (name, value) in &asked.headers {
        let read =
            HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
        let (name, value) = read
            .filter(|(name, _)| name != "host" && name != "content-length")
            .ok_or_else(|| Fault::wrong(format!("`headers.{name}` cannot be sent")))?;
        builder = builder.header(name, value);
    }
    builder
        .body(Full::new(Bytes::from(body)))
        .map_err(|why| Fault::wrong(format!("the request cannot be sent: {why}")))
}

fn shown(answer: &Answer) -> Value {
    let headers: BTreeMap<&str, String> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let text = String::from_utf8_lossy(&answer.body);
    let body = match serde_json::from_str::<Value>(&text) {
        Ok(json) if !answer.cut => json,
        Ok(_) | Err(_) => Value::from(text),
    };
    json!({"status": answer.status, "headers": headers, "body": body, "cut": answer.cut})
}

/// What can never be reached is the asker's fault; what is not there may come back.
fn unsent(why: &OutboundError) -> Fault {
    let permanent = matches!(why, OutboundError::BadUrl { .. } | OutboundError::Inner { .. });
    Fault { message: why.to_string(), permanent }
}

async fn watch(watched: Watched, outbound: &Outbound, timeout: Duration) -> Result<Value, Fault> {
    let uri = outbound.check(&watched.url).map_err(|why| unsent(&why))?;
    let request = Request::get(uri).body(Full::new(Bytes::new()));
    let request = request.map_err(|why| Fault::wrong(why.to_string()))?;
    let begun = Instant::now();
    // Its own time is up before the attempt's: an answer is worth more than a timeout.
    let time = timeout.mul_f64(0.9);
    let answer = outbound.send(request, time, 0).await;
    let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (status, problem) = match answer {
        Ok(answer) if answer.status != watched.expect_status => {
            let wanted = watched.expect_status;
            (Some(answer.status), Some(format!("status {}, {wanted} is wanted", answer.status)))
        }
        Ok(answer) => {
            let slow = watched.max_ms.filter(|most| elapsed_ms > *most);
            let slow = slow.map(|most| format!("took {elapsed_ms} ms, {most} are allowed"));
            (Some(answer.status), slow)
        }
        Err(why) if unsent(&why).permanent => return Err(unsent(&why)),
        Err(why) => (None, Some(why.to_string())),
    };
    let healthy = problem.is_none();
    Ok(json!({"healthy": healthy, "status": status, "elapsed_ms": elapsed_ms, "problem": problem}))
}

/// How this machine is. What it does not tell is null.
fn system() -> Result<Value, Fault> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let load: Option<Vec<f64>> = load
        .map(|text| text.split_whitespace().take(3).filter_map(|word| word.parse().ok()).collect());
    let memory = std::fs::read_to_string("/proc/meminfo").ok();
    let megabytes = |name: &str| -> Option<u64> {
        let line = memory.as_ref()?.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1_024)
    };
    let disk = rustix::fs::statvfs(".").ok().map(|disk| {
        let mb = |blocks: u64| (blocks >> 10).saturating_mul(disk.f_frsize) >> 10;
        json!({"total_mb": mb(disk.f_blocks), "available_mb": mb(disk.f_bavail)})
    });
    Ok(json!({
        "processors": processors,
        "load": load,
        "memory": {"total_mb": megabytes("MemTotal:"), "available_mb": megabytes("MemAvailable:")},
        "disk": disk,
    }))
}
