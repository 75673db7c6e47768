//! How a command that failed says so: words with a remedy, an exit code, and with `--json` a
//! document.
//!
//! Exit 1: the request was refused or what was asked for failed. 2: something is broken or the
//! arguments are wrong.

use std::collections::BTreeSet;
use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;
use maos_api::client::ClientError;
use maos_api::error::{ApiError, ErrorCode};
use serde_json::{Map, Value, json};

use crate::words;

const REFUSED: u8 = 1;
const BROKEN: u8 = 2;

/// A failure as people and programs are told of it.
struct Told {
    text: String,
    hints: Vec<String>,
    code: String,
    details: Map<String, Value>,
    exit: u8,
}

/// Says what went wrong, and ends the command with the code for it.
pub(crate) fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
        // Whoever read our output has seen enough.
        return ExitCode::SUCCESS;
    }
    let told = tell(error);
    words::say(&spoken(&told));
    if json {
        // That the document cannot be written does not change how the command ended.
        drop(words::print_json(&document(error)));
    }
    ExitCode::from(told.exit)
}

/// Says what is wrong with the arguments, or what was asked for about them, and ends the command
/// with the code for it.
pub(crate) fn of_arguments(fault: &clap::Error, json: bool) -> ExitCode {
    // That it cannot be written does not change how the command ended.
    drop(fault.print());
    if !fault.use_stderr() {
        return ExitCode::SUCCESS;
    }
    if json {
        drop(words::print_json(&misuse(fault)));
    }
    ExitCode::from(BROKEN)
}

/// What is wrong with the arguments as a JSON object like that of any other failure.
fn misuse(fault: &clap::Error) -> Value {
    let (mut text, mut hints) = (Vec::new(), Vec::new());
    if fault.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // What is printed for people is all of the help.
        text.push("a command is missing".to_owned());
        hints.push("`--help` lists the commands".to_owned());
    } else {
        for line in fault.render().to_string().lines().map(str::trim) {
            let hint = ["tip: ", "hint: "].iter().find_map(|start| line.strip_prefix(start));
            if let Some(hint) = hint {
                hints.push(hint.to_owned());
            } else if let Some(more) = line.strip_prefix("For more information, ") {
                hints.push(more.trim_end_matches('.').replace('\'', "`"));
            } else if !line.is_empty() && !line.starts_with("Usage: ") {
                text.push(line.trim_start_matches("error: ").to_owned());
            }
        }
    }
    let text = text.join(" ");
    json!({ "error": text, "error_code": "BAD_ARGUMENTS", "details": {}, "hints": hints })
}

/// The failure as a JSON object; a server's error is passed on whole.
pub(crate) fn document(error: &anyhow::Error) -> Value {
    if let Some(ClientError::Api { body, .. }) = error.downcast_ref::<ClientError>()
        && let Ok(body) = serde_json::to_value(body)
    {
        return body;
    }
    let Told { text, hints, code, details, .. } = tell(error);
    json!({ "error": text, "error_code": code, "details": details, "hints": hints })
}

/// The failure in words, hints on lines of their own.
pub(crate) fn say(error: &anyhow::Error) {
    words::say(&spoken(&tell(error)));
}

fn spoken(told: &Told) -> String {
    let mut spoken = format!("error: {}", words::harmless(&told.text));
    let mut hints = told.hints.clone();
    if let Some(fields) = told.details.get("fields").and_then(Value::as_object) {
        for (field, fault) in fields {
            let fault = fault.as_str().map_or_else(|| fault.to_string(), str::to_owned);
            let (fault, more) = split(&fault);
            hints.extend(more);
            let whole = format!("{fault} ({})", told.code);
            let is_said = told.text == whole
                || told.text.ends_with(&format!(": {whole}"))
                || told.text.contains(&format!("`{field}` {fault}"));
            if !is_said {
                spoken.push_str(&words::harmless(&format!("\n  `{field}`: {fault}")));
            }
        }
    }
    let mut said = BTreeSet::new();
    for hint in hints.iter().filter(|hint| said.insert(hint.as_str())) {
        spoken.push_str(&format!("\nhint: {}", words::harmless(hint)));
    }
    spoken
}

fn tell(error: &anyhow::Error) -> Told {
    if let Some(ClientError::Api { status, body, .. }) = error.downcast_ref::<ClientError>() {
        return refusal(&body.error, &body.error_code, *status, &body.details);
    }
    if let Some(ApiError { code, message, details }) = error.downcast_ref::<ApiError>() {
        return refusal(message, code.name(), code.status(), details);
    }
    let (text, mut hints) = in_one(error);
    let mut code = "FAILED";
    if let Some(client) = error.downcast_ref::<ClientError>() {
        let (name, hint) = about(client);
        code = name;
        hints.push(hint.to_owned());
    }
    Told { text, hints, code: code.to_owned(), details: Map::new(), exit: BROKEN }
}

fn refusal(message: &str, code: &str, status: u16, details: &Map<String, Value>) -> Told {
    let (text, mut hints) = split(message);
    if let Some(code) = ErrorCode::from_name(code) {
        // What a server says of any error of this code is told in the words of commands.
        hints.retain(|hint| hint != code.remedy());
        if hints.is_empty() {
            hints.push(remedy(code).to_owned());
        }
    }
    let exit = if status >= 500 && status != 503 { BROKEN } else { REFUSED };
    let text = format!("{text} ({code})");
    Told { text, hints, code: code.to_owned(), details: details.clone(), exit }
}

/// An error and its causes as one text, and the hints among them.
fn in_one(error: &anyhow::Error) -> (String, Vec<String>) {
    let (mut whole, mut hints) = (String::new(), Vec::new());
    for cause in error.chain() {
        let (text, more) = split(&cause.to_string());
        hints.extend(more);
        if whole.is_empty() {
            whole = text;
        } else if !whole.contains(&text) {
            whole.push_str(": ");
            whole.push_str(&text);
        }
    }
    (whole, hints)
}

/// A text, and the hints that stand in it.
fn split(message: &str) -> (String, Vec<String>) {
    let (mut text, mut hints) = (Vec::new(), Vec::new());
    for line in message.lines() {
        match line.strip_prefix("hint: ") {
            Some(hint) => hints.push(hint.to_owned()),
            None => text.push(line),
        }
    }
    (text.join("\n"), hints)
}

fn about(error: &ClientError) -> (&'static str, &'static str) {
    match error {
        ClientError::BadUrl { .. } => {
            ("BAD_URL", "give --server or MAOS_SERVER a URL such as http://127.0.0.1:8000")
        }
        ClientError::BadCertificate { .. } => (
            "BAD_CERTIFICATE",
            "give --server-ca or MAOS_SERVER_CA the certificates of an authority",
        ),
        ClientError::Insecure { .. } => (
            "INSECURE",
            "check --server or MAOS_SERVER; --server-ca or MAOS_SERVER_CA names an authority of \
             one's own",
        ),
        ClientError::Unreachable { .. } => (
            "SERVER_UNREACHABLE",
            "start one with `maos serve`, or name another with --server or MAOS_SERVER",
        ),
        ClientError::NoJson { .. } => ("NO_JSON", "correct what is sent"),
        ClientError::Unreadable { .. } => ("UNREADABLE_FILE", "name a file that can be read"),
        ClientError::Broken { .. } => (
            "CONNECTION_BROKEN",
            "whether it was carried out is not known: `maos task list` shows what the server has",
        ),
        ClientError::TimedOut { .. } => {
            ("TIMED_OUT", "the server is there but slow: `maos status` shows what it is doing")
        }
        ClientError::AnswerTooLarge { .. } => ("ANSWER_TOO_LARGE", "ask for a smaller page"),
        ClientError::NotTheContract { .. } => {
            ("NOT_THE_CONTRACT", "check --server or MAOS_SERVER: something else listens there")
        }
        ClientError::Untold { .. } => {
            ("UNTOLD", "nothing is lost: others get these tasks once the server misses this worker")
        }
        ClientError::Api { .. } => ("FAILED", "the server's own words say more"),
    }
}

/// What to do about a refusal, where the server's words say nothing of their own.
fn remedy(code: ErrorCode) -> &'static str {
    use ErrorCode as E;
    match code {
        E::TaskNotFound | E::PlanNotFound => "`maos task list` shows the tasks there are",
        E::AgentNotFound => "`maos agent list` shows the agents there are",
        E::ResultsNotReady => {
            "`maos task watch ID` follows it to its end, `maos task why ID` says what it waits for"
        }
        E::AlreadyEnded | E::NotRetryable => "`maos task get ID` shows how it ended",
        E::NotEnded => "`maos task cancel ID` ends it",
        E::NotARoot => "delete the root that it names",
        E::ParentEnded => "`maos task get ID` names its parent: retry that one",
        E::CheckpointDamaged => {
            "`maos checkpoint delete` removes it, `maos checkpoint list` shows others"
        }
        E::AgentEnded | E::AgentLost => "`maos agent create` makes another one",
        E::StaleIncarnation => "end this process: a newer one has taken over",
        E::NotAWorker => "`maos agent get ID` shows what the agent is",
        E::PathNotFound | E::MethodNotAllowed => {
            "server and client may be of different releases: `maos status` and `maos --version` \
             say which"
        }
        E::TimeoutTooLong => "`maos config show` names the maximum, `api.max_task_timeout`",
        E::ResourceNotFound
        | E::AllocationNotFound
        | E::ArtifactNotFound
        | E::ScheduleNotFound
        | E::PoolNotFound => "the list of them shows what there is",
        E::CheckpointNotFound => "`maos checkpoint list` shows the checkpoints there are",
        E::TaskFixed => "cancel the task and submit it anew",
        E::NotEnoughLeft => "try again once others have given something back",
        E::DeclaredByConfiguration => "`maos config show` names where it was declared",
        E::NotRestorable => "restart that program with the checkpoint, or use `maos serve`",
        E::OverCapacity => "`maos config show` names what there is, `resources`",
        E::SubscriptionNotFound => "GET /api/v1/messages/subscriptions lists those there are",
        E::MailboxFull => "it has room again once its readers acknowledge, or messages expire",
        E::QueueFull | E::StorageUnavailable | E::ShuttingDown | E::NotLeader => {
            "nothing was changed: try again in a moment"
        }
        E::Internal => "the server's log says more under the request's id",
        E::IdempotencyConflict => "choose another --idempotency-key, or send the same again",
        E::MalformedId => "`maos task list` and `maos agent list` show the ids there are",
        E::MalformedQuery
        | E::UnknownStrategy
        | E::ValidationFailed
        | E::UnknownAction
        | E::PlanCycle => "correct what it names and send it again",
        E::MalformedJson
        | E::StaleAttempt
        | E::BadToken
        | E::ResultRefused
        | E::BodyTooLarge
        | E::NotJson
        | E::UnknownKey
        | E::DuplicateKey
        | E::BadReference
        | E::PlanTooLarge
        | E::PlanTooDeep => code.remedy(),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn hints_stand_last_and_causes_are_not_said_twice() {
        let inner = io::Error::other("no such thing\nhint: make it");
        let error = Err::<(), _>(inner).context("`x` cannot be read").unwrap_err();
        assert_eq!(
            spoken(&tell(&error)),
            "error: `x` cannot be read: no such thing\nhint: make it"
        );
        let twice = anyhow::Error::msg("disk full").context("cannot write: disk full");
        assert_eq!(spoken(&tell(&twice)), "error: cannot write: disk full");
    }

    #[test]
    fn refusals_exit_1_faults_exit_2() {
        let exit = |code| tell(&words::api_error(ApiError::new(code, "no"))).exit;
        assert_eq!(exit(ErrorCode::ValidationFailed), 1);
        assert_eq!(exit(ErrorCode::QueueFull), 1);
        assert_eq!(exit(ErrorCode::ShuttingDown), 1);
        assert_eq!(exit(ErrorCode::Internal), 2);
        assert_eq!(tell(&anyhow::Error::msg("no")).exit, 2);
    }

    #[test]
    fn the_fault_of_a_field_and_its_hint_are_said_once() {
        let fault = "the strategy `nope` is not known\nhint: use one of `a`";
        let refused = |message: &str| {
            let refused = ApiError::new(ErrorCode::UnknownStrategy, message)
                .with("fields", json!({ "strategy": fault }));
            spoken(&tell(&words::api_error(refused)))
        };
        assert_eq!(
            refused(fault),
            "error: the strategy `nope` is not known (UNKNOWN_STRATEGY)\nhint: use one of `a`"
        );
        assert_eq!(
            refused(&format!("entry 2 of `x`: {fault}")),
            "error: entry 2 of `x`: the strategy `nope` is not known (UNKNOWN_STRATEGY)\n\
             hint: use one of `a`"
        );
        assert_eq!(
            refused("2 fields are wrong\nhint: use one of `a`"),
            "error: 2 fields are wrong (UNKNOWN_STRATEGY)\n  `strategy`: the strategy `nope` is \
             not known\nhint: use one of `a`"
        );
    }

    #[test]
    fn faulty_fields_have_a_line_each() {
        let refused = ApiError::new(ErrorCode::ValidationFailed, "2 fields are wrong")
            .with("fields", json!({ "name": "is blank", "tags": "must be a list" }));
        assert_eq!(
            spoken(&tell(&words::api_error(refused))),
            "error: 2 fields are wrong (VALIDATION_FAILED)\n  `name`: is blank\n  \
             `tags`: must be a list\nhint: correct what it names and send it again"
        );
    }
}
