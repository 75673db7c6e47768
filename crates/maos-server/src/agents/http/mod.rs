//! HTTP agents: URLs that the operator configured.
//!
//! An attempt is a signed POST. It is answered at once with the result, or with 202 and later by a
//! callback with the attempt's own token. `docs/http-agents.md` has the whole of it. Who may name a
//! URL is the operator's choice alone: nothing in a request becomes part of one.

mod answer;
mod awaited;
mod breaker;
mod settings;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Method;
use maos_api::{paths, worker};
use maos_core::limits::RESULT_BYTES_MAX;
use maos_core::spec::AgentSpec;
use serde::Serialize;
use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tracing::debug;

use self::answer::{Heard, Next};
use self::awaited::Place;
use self::breaker::{Breaker, Phase, Standing};
use super::{Assignment, Progress, RunAttempt, Running, Verdict, subtasks_max, told};
use crate::outbound::{Answer, Outbound, OutboundError, Rules};
use crate::payloads::Payloads;
use crate::webhooks::{PAUSE_MAX, Secret, spread};

pub use awaited::{Awaited, Underway};
pub(crate) use settings::BadSetting;
pub use settings::{HttpAgentConfig, NoSecret};

/// What the pool of an agent of this kind begins with; the section's name follows.
pub(crate) const POOL: &str = "http_agents.";
/// Longest wait for a target that is told that an attempt is over.
const CALL_OFF: Duration = Duration::from_secs(3);

/// The runtime of HTTP agents.
pub struct HttpAgents {
    targets: BTreeMap<String, Target>,
    awaited: Awaited,
    payloads: Payloads,
    base_url: Option<String>,
}

/// One agent's URL, and how it stands.
struct Target {
    name: String,
    config: HttpAgentConfig,
    secret: Secret,
    outbound: Outbound,
    breaker: Breaker,
}

/// What is posted: an attempt as workers are told of it, and two things more.
#[derive(Serialize)]
struct Posted {
    #[serde(flatten)]
    task: worker::Task,
    action: Option<String>,
    callback: Option<Callback>,
}

/// How a target that answered 202 says what came of it.
#[derive(Serialize)]
struct Callback {
    url: String,
    token: String,
}

/// One attempt on its way to its target.
struct Errand<'a> {
    target: &'a Target,
    assignment: &'a Assignment,
    place: &'a Place<'a>,
    id: String,
    body: Bytes,
    can_be_called: bool,
    /// Whether the target may know of it.
    sent: AtomicBool,
    until: Instant,
}

impl HttpAgents {
    /// Agents behind the URLs of `configured`, reached as far as `rules` let them. Targets call
    /// back under `base_url`; without one they must answer at once.
    ///
    /// # Errors
    /// Which of them has no secret to sign with.
    pub fn new(
        configured: &BTreeMap<String, HttpAgentConfig>,
        rules: &Rules,
        payloads: Payloads,
        base_url: Option<String>,
    ) -> Result<HttpAgents, NoSecret> {
        let mut targets = BTreeMap::new();
        for (name, config) in configured {
            let open_for = Duration::from_secs(config.breaker_seconds);
            let target = Target {
                name: name.clone(),
                config: config.clone(),
                secret: config.secret()?,
                outbound: Outbound::new(config.rules(rules)),
                breaker: Breaker::new(config.breaker_failures, open_for),
            };
            targets.insert(name.clone(), target);
        }
        Ok(HttpAgents { targets, awaited: Awaited::new(), payloads, base_url })
    }

    /// Attempts that may be called back for.
    #[must_use]
    pub fn awaited(&self) -> &Awaited {
        &self.awaited
    }

    /// Where an agent's attempts go and how that stands; `None` if it is none of these.
    #[must_use]
    pub fn shown(&self, agent: &AgentSpec) -> Option<Map<String, Value>> {
        let target = self.target(agent)?;
        Some(Map::from_iter([
            ("url".to_owned(), target.config.url.clone().into()),
            ("breaker".to_owned(), target.shown()),
        ]))
    }

    /// Why nothing reaches an agent's target at the moment, if that is so.
    #[must_use]
    pub fn out_of_reach(&self, agent: &AgentSpec) -> Option<String> {
        let target = self.target(agent)?;
        let standing = target.breaker.standing();
        (standing.phase != Phase::Closed).then(|| target.held_back(&standing))
    }

    /// All targets that nothing reaches at the moment, by name, and why.
    #[must_use]
    pub fn all_out_of_reach(&self) -> Map<String, Value> {
        let open = |(name, target): (&String, &Target)| {
            let closed = target.breaker.standing().phase == Phase::Closed;
            (!closed).then(|| (name.clone(), target.shown()))
        };
        self.targets.iter().filter_map(open).collect()
    }

    fn target(&self, agent: &AgentSpec) -> Option<&Target> {
        self.targets.get(agent.pool.as_deref()?.strip_prefix(POOL)?)
    }

    async fn attempt(&self, assignment: Assignment) -> Verdict {
        let Some(target) = self.target(&assignment.agent) else {
            let name = &assignment.agent.name;
            return lost(format!("HTTP agent `{name}` is not configured any more"));
        };
        let body = match self.posted(&assignment).await {
            Ok(body) => body,
            Err(why) => return lost(why),
        };
        let key = (assignment.task, assignment.attempt);
        let subtasks_max = subtasks_max(&assignment.parameters);
        let underway = Underway { spec: assignment.spec.clone(), subtasks_max };
        let place = self.awaited.begin(key, underway);
        let errand = Errand {
            target,
            assignment: &assignment,
            place: &place,
            id: assignment.id(),
            body,
            can_be_called: self.base_url.is_some(),
            sent: AtomicBool::new(false),
            until: Instant::now() + assignment.timeout,
        };
        let verdict = tokio::select! {
            biased;
            () = place.brought() => return Verdict::Reported,
            () = assignment.stop.cancelled() => None,
            verdict = errand.run() => Some(verdict),
        };
        match (verdict, place.close()) {
            (_, false) => Verdict::Reported,
            (Some(verdict), true) => verdict,
            (None, true) => {
                errand.call_off().await;
                lost("stopped".to_owned())
            }
        }
    }

    async fn posted(&self, assignment: &Assignment) -> Result<Bytes, String> {
        let key = (assignment.task, assignment.attempt);
        let parameters = to_raw_value(&assignment.parameters).map_err(|why| why.to_string())?;
        let spec = &assignment.spec;
        let task = told(&self.payloads, spec, key, parameters, assignment.timeout).await?;
        let callback = self.base_url.as_ref().map(|base| {
            let path = paths::with_id(paths::ATTEMPT_OUTCOME, &task.task_id.to_string());
            let path = path.replacen("{attempt}", &task.attempt.to_string(), 1);
            Callback { url: format!("{base}{path}"), token: self.awaited.token(key) }
        });
        let action = assignment.parameters.get("action").and_then(Value::as_str);
        let posted = Posted { task, action: action.map(str::to_owned), callback };
        Ok(serde_json::to_vec(&posted).map_err(|why| why.to_string())?.into())
    }
}

impl RunAttempt for HttpAgents {
    fn run(&self, assignment: Assignment) -> Running<'_> {
        Box::pin(self.attempt(assignment))
    }
}

impl Errand<'_> {
    /// Asks, as often as it takes and as often as may be. Does not return while the target works
    /// on it: a callback ends that.
    async fn run(&self) -> Verdict {
        let config = &self.target.config;
        let mut pause = Duration::from_millis(config.retry_pause_ms);
        for number in 0.. {
            let next = match self.ask().await {
                Ok(next) => next,
                Err(why) => return failed(why),
            };
            let (why, after) = match next {
                Next::Ended(verdict) => return verdict,
                Next::Later if self.can_be_called => {
                    self.say("accepted: its target calls back");
                    return std::future::pending().await;
                }
                Next::Later => return self.cannot_be_called(),
                Next::Again { why, after } => (why, after),
            };
            if number >= config.retries {
                return failed(format!("{why}\nhint: {} requests were made", number + 1));
            }
            let wait = spread(pause).max(after);
            if Instant::now() + wait >= self.until {
                let seconds = wait.as_secs();
                return failed(format!("{why}\nhint: the next request in {seconds} s is too late"));
            }
            self.wait(format!("{why}; asked again in {} ms", wait.as_millis()));
            tokio::time::sleep(wait).await;
            self.place.waits(None);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        unreachable!("the last request returns")
    }

    /// One request, once the breaker lets it through; or why that is too late.
    async fn ask(&self) -> Result<Next, String> {
        let target = self.target;
        let passage = target.breaker.enter(|standing| match standing.phase {
            Phase::Open { until } if until >= self.until => Err(target.held_back(standing)),
            Phase::Open { .. } | Phase::HalfOpen | Phase::Closed => {
                self.wait(target.held_back(standing));
                Ok(())
            }
        });
        let passage = passage.await?;
        self.place.waits(None);
        self.sent.store(true, Ordering::Relaxed);
        let time = Duration::from_secs(target.config.timeout_seconds);
        let answer = target.send(Method::POST, &self.id, &self.body, time).await;
        let Heard { next, fault } = answer::heard(&target.name, answer);
        match fault {
            Some(fault) => passage.failed(&fault),
            None => passage.succeeded(),
        }
        Ok(next)
    }

    /// Tells a target that may know of the attempt that it is over. What it makes of that is its
    /// own affair.
    async fn call_off(&self) {
        if !self.sent.load(Ordering::Relaxed) {
            return;
        }
        let Assignment { task, attempt, .. } = self.assignment;
        let body = json!({"task_id": task.to_string(), "attempt": attempt.0});
        let (id, body) = (format!("{}-cancel", self.id), Bytes::from(body.to_string()));
        if let Err(why) = self.target.send(Method::DELETE, &id, &body, CALL_OFF).await {
            debug!(task.id = %task, "`{}` was not told of an end: {why}", self.target.name);
        }
    }

    fn cannot_be_called(&self) -> Verdict {
        let name = &self.target.name;
        let message = format!(
            "`{name}` answered 202, and there is no address to call back at\n\
             hint: run it under `maos serve`, or set [api] public_url"
        );
        Verdict::Failed { message, permanent: true }
    }

    fn wait(&self, what: String) {
        self.say(&what);
        self.place.waits(Some(what));
    }

    fn say(&self, what: &str) {
        let message = Some(what.to_owned());
        (self.assignment.progress)(Progress { fraction: None, message });
    }
}

impl Target {
    async fn send(
        &self,
        method: Method,
        id: &str,
        body: &Bytes,
        time: Duration,
    ) -> Result<Answer, OutboundError> {
        let uri = self.outbound.check(&self.config.url)?;
        let request = self.secret.request(method, uri, id, body)?;
        let most = usize::try_from(RESULT_BYTES_MAX).unwrap_or(usize::MAX);
        self.outbound.send(request, time, most).await
    }

    /// Why a request does not go out.
    fn held_back(&self, standing: &Standing) -> String {
        let (name, failures) = (&self.name, standing.failures);
        let fault = standing.fault.as_deref().unwrap_or("not answered");
        let next = match standing.phase {
            Phase::Open { until } => {
                let left = until.saturating_duration_since(Instant::now());
                format!("the next one goes out in {} s", left.as_secs())
            }
            Phase::HalfOpen | Phase::Closed => "one is on its way to see".to_owned(),
        };
        format!("{failures} requests to `{name}` failed, the last so: {fault}; {next}")
    }

    fn shown(&self) -> Value {
        let standing = self.breaker.standing();
        let left = match standing.phase {
            Phase::Open { until } => Some(until.saturating_duration_since(Instant::now())),
            Phase::Closed | Phase::HalfOpen => None,
        };
        json!({
            "state": standing.phase.name(),
            "failures": standing.failures,
            "last_failure": standing.fault,
            "next_request_seconds": left.map(|left| left.as_secs()),
        })
    }
}

fn lost(message: String) -> Verdict {
    Verdict::Lost { message }
}

fn failed(message: String) -> Verdict {
    Verdict::Failed { message, permanent: false }
}
