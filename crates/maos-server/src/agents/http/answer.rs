//! What the answer of a target means for an attempt.
//!
//! Its law: what the target says of the task is the attempt's verdict; that it is not there, or not
//! now, is a matter of the next request.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::{LOCATION, RETRY_AFTER};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use maos_core::limits::RESULT_BYTES_MAX;
use serde::Deserialize;
use serde_json::Value;

use super::super::{Verdict, fault_of};
use crate::outbound::{Answer, OutboundError};

/// Characters of an answer that a failure quotes.
const QUOTED_CHARS: usize = 500;

/// What one request came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Heard {
    /// What follows for the attempt.
    pub(super) next: Next,
    /// Why this counts against the target, if it does.
    pub(super) fault: Option<String>,
}

/// What follows for the attempt.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// It has ended.
    Ended(Verdict),
    /// The target works on it, and calls back.
    Later,
    /// The same request again, not before so long.
    Again {
        /// Why.
        why: String,
        /// What the target asks for.
        after: Duration,
    },
}

/// Reads what came of a request to the agent `name`.
pub(super) fn heard(name: &str, answer: Result<Answer, OutboundError>) -> Heard {
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return unanswered(name, &why),
    };
    let status = answer.status;
    match status {
        202 => well(Next::Later),
        200..300 => well(Next::Ended(result(name, &answer))),
        300..400 => well(Next::Ended(redirect(name, &answer))),
        429 => Heard { next: not_now(name, &answer), fault: None },
        502..=504 => {
            let fault = Some(format!("`{name}` answered {status}"));
            Heard { next: not_now(name, &answer), fault }
        }
        _ => refusal(name, &answer),
    }
}

fn well(next: Next) -> Heard {
    Heard { next, fault: None }
}

fn failed(message: String, permanent: bool) -> Next {
    Next::Ended(Verdict::Failed { message, permanent })
}

fn unanswered(name: &str, why: &OutboundError) -> Heard {
    let said = format!("`{name}`: {why}");
    let next = match why {
        OutboundError::BadUrl { .. } => return well(failed(said, true)),
        OutboundError::Inner { host } => {
            let message = format!(
                "`{name}`: `{host}` is an inner address, which is not reached\n\
                 hint: `allow_private = true` under [http_agents.{name}] opens it for this agent \
                 alone"
            );
            return well(failed(message, true));
        }
        // The target may be at it, and would be for a second request too.
        OutboundError::TimedOut { .. } => failed(
            format!(
                "{said}\nhint: answer 202 and call back, or raise `timeout_seconds` under \
                 [http_agents.{name}]"
            ),
            false,
        ),
        OutboundError::Failed { .. } => Next::Again { why: said.clone(), after: Duration::ZERO },
    };
    Heard { next, fault: Some(said) }
}

fn result(name: &str, answer: &Answer) -> Verdict {
    let wrong =
        |what: String| Verdict::Failed { message: format!("`{name}` {what}"), permanent: true };
    if answer.cut {
        return wrong(format!("answered more than {RESULT_BYTES_MAX} bytes"));
    }
    let Ok(text) = std::str::from_utf8(&answer.body) else {
        return wrong("answered something that is not UTF-8".to_owned());
    };
    if text.trim().is_empty() {
        return Verdict::Completed(Value::Null);
    }
    match serde_json::from_str(text) {
        Ok(value) => match fault_of(text) {
            None => Verdict::Completed(value),
            Some(fault) => wrong(format!("answered what cannot be taken: {fault}")),
        },
        Err(why) => wrong(format!(
            "answered something that is not JSON ({why}): {}\n\
             hint: the body of a 200 is the result, one JSON document",
            quoted(text)
        )),
    }
}

fn redirect(name: &str, answer: &Answer) -> Verdict {
    let (status, place) = (answer.status, answer.headers.get(LOCATION));
    let place = place.map(|place| String::from_utf8_lossy(place.as_bytes()));
    let place = quoted(&place.unwrap_or_default());
    let message = format!(
        "`{name}` answered {status}, a redirect to `{place}`, which is not followed\n\
         hint: write the last URL into `url` under [http_agents.{name}]"
    );
    Verdict::Failed { message, permanent: true }
}

fn not_now(name: &str, answer: &Answer) -> Next {
    let why = format!("`{name}` answered {}: {}", answer.status, said(answer).0);
    Next::Again { why, after: retry_after(&answer.headers, Timestamp::now()) }
}

/// What the agent says of the task, or at least that it does not do it.
fn refusal(name: &str, answer: &Answer) -> Heard {
    let status = answer.status;
    let (text, own) = said(answer);
    let lasting = (400..500).contains(&status) && !matches!(status, 408 | 425);
    let permanent = own.as_ref().and_then(|own| own.permanent).unwrap_or(lasting);
    let message = format!("`{name}` answered {status}: {text}");
    // A server that breaks over a request answers 500 as well, but not with a reason.
    let fault = (status >= 500 && own.is_none()).then(|| format!("`{name}` answered {status}"));
    Heard { next: failed(message, permanent), fault }
}

/// The documented shape of a failure.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    permanent: Option<bool>,
}

fn said(answer: &Answer) -> (String, Option<Refusal>) {
    let own = serde_json::from_slice::<Refusal>(&answer.body).ok();
    let text = match &own {
        Some(own) => own.error.clone(),
        None => quoted(&String::from_utf8_lossy(&answer.body)),
    };
    (text, own)
}

fn quoted(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(QUOTED_CHARS).collect()
}

/// Seconds, or a date; what cannot be read asks for nothing.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Duration {
    let Some(text) = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()) else {
        return Duration::ZERO;
    };
    if let Ok(seconds) = text.trim().parse() {
        return Duration::from_secs(seconds);
    }
    let date = rfc2822::parse(text).map(|date| date.timestamp().duration_since(now));
    date.ok().and_then(|left| Duration::try_from(left).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::http::HeaderValue;

    use super::*;

    fn answer(status: u16, body: &str, cut: bool) -> Answer {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        headers.insert(LOCATION, HeaderValue::from_static("http://b/"));
        Answer { status, headers, body, cut }
    }

    fn shown(heard: &Heard) -> String {
        let counts = if heard.fault.is_some() { "fault " } else { "" };
        match &heard.next {
            Next::Ended(Verdict::Completed(value)) => format!("{counts}done {value}"),
            Next::Ended(Verdict::Failed { message, permanent: true }) => {
                format!("{counts}permanent {message}")
            }
            Next::Ended(Verdict::Failed { message, .. }) => format!("{counts}failed {message}"),
            Next::Ended(other) => format!("{counts}{other:?}"),
            Next::Later => format!("{counts}later"),
            Next::Again { why, after } => format!("{counts}again in {}: {why}", after.as_secs()),
        }
    }

    #[test]
    fn what_a_target_answers_decides_what_follows() {
        for (status, body, cut, expected) in [
            (200, r#"{"a": [1]}"#, false, r#"done {"a":[1]}"#),
            (204, "", false, "done null"),
            (200, "oops", false, "permanent `a` answered something that is not JSON"),
            (200, r#""\ud800""#, false, "permanent `a` answered something that is not JSON"),
            (200, "18446744073709551616", false, "permanent `a` answered what cannot be taken"),
            (200, "123", true, "permanent `a` answered more than 16777216 bytes"),
            (202, "", false, "later"),
            (307, "", false, "permanent `a` answered 307, a redirect to `http://b/`"),
            (400, "bad \u{7} input", false, "permanent `a` answered 400: bad  input"),
            (408, "", false, "failed `a` answered 408"),
            (422, r#"{"error": "no", "permanent": false}"#, false, "failed `a` answered 422: no"),
            (429, "", false, "again in 7: `a` answered 429"),
            (500, r#"{"error": "no"}"#, false, "failed `a` answered 500: no"),
            (500, r#"{"error": "no", "permanent": true}"#, false, "permanent `a` answered 500: no"),
            (500, "Traceback", false, "fault failed `a` answered 500: Traceback"),
            (503, r#"{"error": "busy"}"#, false, "fault again in 7: `a` answered 503: busy"),
        ] {
            let found = shown(&heard("a", Ok(answer(status, body, cut))));
            assert!(found.starts_with(expected), "{status} {body}: {found}");
        }
    }

    #[test]
    fn a_target_that_is_not_there_is_asked_again_and_one_that_is_slow_is_not() {
        let host = || "h".to_owned();
        let broken = OutboundError::Failed { host: host(), why: "reset".to_owned() };
        for (why, expected) in [
            (broken, "fault again in 0: `a`: `h` was not reached: reset"),
            (
                OutboundError::TimedOut { host: host(), seconds: 3 },
                "fault failed `a`: `h` did not answer within 3 s\nhint: answer 202",
            ),
            (OutboundError::Inner { host: host() }, "permanent `a`: `h` is an inner address"),
            (OutboundError::BadUrl { url: host(), why: "x" }, "permanent `a`: `h` is no URL"),
        ] {
            let found = shown(&heard("a", Err(why)));
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn a_pause_is_read_as_seconds_or_as_a_date() {
        let now: Timestamp = "1994-11-06T08:49:30Z".parse().unwrap();
        for (text, seconds) in [
            ("3", 3),
            (" 10 ", 10),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 7),
            ("Sun, 06 Nov 1994 08:49:00 GMT", 0),
            ("-3", 0),
            ("soon", 0),
        ] {
            let headers =
                HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            assert_eq!(retry_after(&headers, now), Duration::from_secs(seconds), "{text}");
        }
    }
}
