//! Callbacks of HTTP agents: what came of an attempt, brought by whoever was asked to do it.
//!
//! Its law: a callback is answered when what it brings is durable. One attempt is handed in once; a
//! second callback for it changes nothing.

use maos_api::error::{ApiError, ErrorCode};
use maos_api::explain::Blocker;
use maos_api::submission::Bounds;
use maos_api::worker::{self, AttemptRef, Outcome, OutcomeAnswer};
use maos_core::command::{Command, Report};
use maos_core::ids::AgentId;
use maos_core::limits::RESULT_BYTES_MAX;
use maos_core::record::{Stage, TaskRecord};
use maos_core::rejection::Rejection;
use uuid::Uuid;

use super::workers::{Judged, judge, numbered, once, payload};
use super::{Service, faults, present};
use crate::agents;
use crate::agents::http::Underway;

/// Bytes of a callback beside its result.
const REST_BYTES_MAX: u64 = 1 << 20;

/// Most bytes of a callback.
pub(crate) const OUTCOME_BYTES_MAX: u64 = RESULT_BYTES_MAX + REST_BYTES_MAX;

/// How a report is made, and why its result was not taken.
struct Made {
    report: Report,
    documents: Vec<([u8; 32], Vec<u8>)>,
    refused: Option<Box<str>>,
}

impl Service {
    /// Takes the outcome of an attempt of an HTTP agent: durable when this returns. May be dropped
    /// at any time; the same callback may then come again.
    ///
    /// # Errors
    /// That the token is not the attempt's, that the attempt does not count any more, or what is
    /// wrong with the outcome.
    pub async fn take_outcome(
        &self,
        of: AttemptRef,
        token: Option<&str>,
        body: &[u8],
    ) -> Result<OutcomeAnswer, ApiError> {
        let key = numbered(of.task_id, of.attempt);
        let awaited = self.inner.http_agents.awaited();
        if !token.is_some_and(|token| awaited.admits(key, token)) {
            return Err(bad_token(of));
        }
        let bounds = Bounds { body_bytes_max: OUTCOME_BYTES_MAX, ..self.bounds().clone() };
        let (outcome, warnings) = worker::parse_outcome(of, body, &bounds)?;
        let answer = |message: &str| OutcomeAnswer {
            message: message.to_owned(),
            task_id: of.task_id,
            attempt: of.attempt,
            warnings,
        };
        let Some(underway) = awaited.underway(key) else {
            return self.outcome_again(of).await.map(|()| answer("outcome was taken before"));
        };
        let Made { report, documents, refused } = self.made(&outcome, &underway).await;
        let kept = self.inner.payloads.keep_all(documents).await;
        kept.map_err(|why| self.storage(&why))?;
        let (task, attempt) = key;
        let driver = &self.inner.driver;
        let hand_in = || driver.hand_in(vec![Command::Report { task, attempt, report }]);
        let Some(handed) = awaited.bring(key, hand_in) else {
            return self.outcome_again(of).await.map(|()| answer("outcome was taken before"));
        };
        self.forget_progress(std::slice::from_ref(&outcome));
        for taken in handed.answers().await.map_err(faults::refused)? {
            match taken {
                Ok(_) => {}
                Err(Rejection::StaleAttempt { .. }) => return Err(too_late(of)),
                Err(rejection) => return Err(faults::rejected(&rejection)),
            }
        }
        match refused {
            Some(fault) => {
                let error = ApiError::new(ErrorCode::ResultRefused, fault.clone());
                Err(error.with_field("result", &*fault))
            }
            None => Ok(answer("outcome taken")),
        }
    }

    async fn made(&self, outcome: &Outcome<'_>, underway: &Underway) -> Made {
        let mut documents = Vec::new();
        let (payloads, sinks) = (&self.inner.payloads, &self.inner.sinks);
        let spec = &underway.spec;
        let (report, refused) = match judge(outcome, spec) {
            Judged::Over(report) => (report, None),
            Judged::Refused(fault) => (agents::failed(&fault, true), Some(fault.into())),
            Judged::Plan(answer) => {
                let most = underway.subtasks_max;
                (agents::expanded(payloads, sinks, spec, answer, most).await, None)
            }
            Judged::Rest(subtasks) => {
                let most = underway.subtasks_max;
                once(agents::expanded(payloads, sinks, spec, subtasks, most).await)
            }
            Judged::Result(result) => (Report::Completed(payload(result, &mut documents)), None),
        };
        Made { report, documents, refused }
    }

    /// What becomes of an outcome that nobody waits for: the attempt has ended so, or otherwise.
    async fn outcome_again(&self, of: AttemptRef) -> Result<(), ApiError> {
        if self.was_reported(numbered(of.task_id, of.attempt)).await? {
            return Ok(());
        }
        Err(too_late(of))
    }

    /// What keeps a task from going on that lies with the targets of HTTP agents.
    pub(super) async fn targets_away(
        &self,
        record: &TaskRecord,
        blockers: &[Blocker],
    ) -> Vec<Blocker> {
        let http_agents = &self.inner.http_agents;
        let mut found = Vec::new();
        if let Stage::Running { .. } = record.stage {
            let waits = http_agents.awaited().waits((record.id, record.attempt));
            found.extend(waits.map(|why| (why, Vec::from_iter(record.ran_by))));
        }
        for busy in blockers.iter().filter(|blocker| blocker.kind == "agents_busy") {
            for id in &busy.held_by {
                let agent = AgentId(id.as_u128());
                let Ok(state) = self.agent_state(agent).await else { continue };
                let why = http_agents.out_of_reach(&state.record.spec);
                found.extend(why.map(|why| (why, vec![agent])));
            }
        }
        let since = present::time(record.times.updated);
        let blocker = |(message, agents): (String, Vec<AgentId>)| Blocker {
            kind: "target".to_owned(),
            message,
            since,
            held_by: agents.iter().map(|agent| Uuid::from_u128(agent.0)).collect(),
            unblock: "an answer of the agent's target, or another agent".to_owned(),
            until: None,
        };
        found.into_iter().map(blocker).collect()
    }
}

fn bad_token(of: AttemptRef) -> ApiError {
    let AttemptRef { task_id, attempt } = of;
    let message = format!(
        "the token is not that of attempt {attempt} of task `{task_id}`\n\
         hint: send `callback.token` of its request as `Authorization: Bearer`; one from before \
         the server's last start is of an attempt that was lost with it, so give that up"
    );
    ApiError::new(ErrorCode::BadToken, message)
}

fn too_late(of: AttemptRef) -> ApiError {
    let AttemptRef { task_id, attempt } = of;
    let message = format!(
        "attempt {attempt} of task `{task_id}` does not run any more: it was cancelled, ran out of \
         time or was lost, and its outcome does not count"
    );
    ApiError::new(ErrorCode::StaleAttempt, message)
}
