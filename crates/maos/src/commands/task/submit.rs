//! `maos task submit`: from a file, from standard input, or from flags.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use maos_api::client::{Answer, Client, ClientError};
use maos_api::task::{Priority, Strategy, TaskEnvelope, TaskStatus, TaskSubmission};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{show, watch};
use crate::submissions::{self, Submissions};
use crate::values::{assignment, once, one_of};
use crate::{failure, words};

/// What the command line said.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["file", "name"]))]
pub(super) struct Submit {
    /// A submission, or a list of them, as JSON or YAML; - for standard input
    #[arg(value_name = "FILE|-")]
    file: Option<PathBuf>,
    /// The task's name; with it the flags describe the task
    #[arg(long)]
    name: Option<String>,
    /// What it is about
    #[arg(long, requires = "name")]
    description: Option<String>,
    /// What a built-in agent shall do, as `noop` or `file.read`
    #[arg(long, requires = "name")]
    action: Option<String>,
    /// A parameter; the value is JSON, or else a string; may be given again
    #[arg(long = "param", value_name = "KEY=VALUE", requires = "name", value_parser = assignment)]
    parameters: Vec<(String, Value)>,
    /// How much it matters [default: medium]
    #[arg(
        long,
        requires = "name",
        value_parser = one_of(Priority::ALL, Priority::name)
    )]
    priority: Option<Priority>,
    /// Bound on one attempt [default: 300]
    #[arg(long, value_name = "SECONDS", requires = "name")]
    timeout: Option<u64>,
    /// Retries after failures [default: 3]
    #[arg(long, value_name = "N", requires = "name")]
    max_retries: Option<u32>,
    /// How it is split into subtasks
    #[arg(
        long,
        requires = "name",
        value_parser = one_of(Strategy::ALL, Strategy::name)
    )]
    strategy: Option<Strategy>,
    /// What its agent must be able to do; several with commas, or given again
    #[arg(long = "capability", value_name = "NAME", requires = "name", value_delimiter = ',')]
    capabilities: Vec<String>,
    /// The type its agent must be of
    #[arg(long, value_name = "TYPE", requires = "name")]
    agent_type: Option<String>,
    /// A word to find it by; may be given again
    #[arg(long = "tag", value_name = "TAG", requires = "name")]
    tags: Vec<String>,
    /// The same key with the same submission is answered as the first time
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Follow it to its end; exit 0 if it completes, else 1
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(client: &Client, json: bool, submit: &Submit) -> anyhow::Result<ExitCode> {
    let Submissions { bodies, is_list } = match &submit.file {
        Some(file) => submissions::read(file, &submissions::content(file)?)?,
        None => Submissions { bodies: vec![from_flags(submit)?], is_list: false },
    };
    if is_list {
        return many(client, json, submit, bodies).await;
    }
    let mut last = ExitCode::SUCCESS;
    for body in bodies {
        let answer = send(client, submit, body, submit.idempotency_key.clone()).await?;
        if !submit.wait {
            say_accepted(&answer, json)?;
            continue;
        }
        let ended = follow(client, &answer).await?;
        show::task(&ended.task, &ended.raw, json)?;
        last = watch::exit_code(ended.task.status);
    }
    Ok(last)
}

/// Every entry gets its own answer, in order; that one is refused does not keep the others back.
async fn many(
    client: &Client,
    json: bool,
    submit: &Submit,
    bodies: Vec<Vec<u8>>,
) -> anyhow::Result<ExitCode> {
    let (count, mut refused, mut failed) = (bodies.len(), 0, 0);
    let mut accepted = Vec::new();
    for (index, body) in bodies.into_iter().enumerate() {
        let key = submit.idempotency_key.as_ref().map(|key| format!("{key}-{index}"));
        match send(client, submit, body, key).await {
            Ok(answer) => {
                if !json && !submit.wait {
                    say_accepted(&answer, false)?;
                }
                accepted.push(Ok(answer));
            }
            Err(why @ ClientError::Api { .. }) => {
                let why = anyhow::Error::new(why);
                words::say(&format!("entry {} of {count} was refused:", index + 1));
                failure::say(&why);
                refused += 1;
                accepted.push(Err(why));
            }
            Err(broken) => {
                let context = format!("{index} of {count} entries were answered");
                return Err(anyhow::Error::new(broken).context(context));
            }
        }
    }
    let mut documents = Vec::new();
    for answer in accepted {
        documents.push(match answer {
            Ok(answer) if submit.wait => {
                let ended = follow(client, &answer).await?;
                failed += usize::from(ended.task.status != TaskStatus::Completed);
                raw(&ended.raw)?
            }
            Ok(answer) => raw(&answer.raw)?,
            Err(why) => serde_json::value::to_raw_value(&failure::document(&why))?,
        });
    }
    if json {
        words::print(&serde_json::to_string(&documents)?)?;
    }
    Ok(ExitCode::from(u8::from(refused + failed > 0)))
}

fn raw(document: &[u8]) -> serde_json::Result<Box<RawValue>> {
    serde_json::from_slice(document)
}

async fn send(
    client: &Client,
    submit: &Submit,
    body: Vec<u8>,
    key: Option<String>,
) -> Result<Answer<TaskEnvelope>, ClientError> {
    let body = raw(&body).map_err(|source| ClientError::NoJson { source })?;
    let answer = client.submit(&body, key.as_deref()).await?.answer;
    for warning in &answer.warnings {
        words::say(&format!("warning: {}", words::harmless(warning)));
    }
    if submit.wait {
        words::say(&format!("submitted {}", answer.task.id));
    }
    Ok(answer)
}

fn say_accepted(answer: &Answer<TaskEnvelope>, json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(words::print_raw(&answer.raw)?);
    }
    // The id alone is the data, so that a script can take it as it is.
    words::print(&answer.task.id.to_string())?;
    let (name, id) = (words::one_line(&answer.task.name), answer.task.id);
    words::say(&format!("submitted `{name}`; `maos task watch {id}` follows it"));
    Ok(())
}

async fn follow(
    client: &Client,
    answer: &Answer<TaskEnvelope>,
) -> anyhow::Result<Answer<TaskEnvelope>> {
    let mut say = |line: String| {
        words::say(&line);
        Ok(())
    };
    watch::to_its_end(client, answer.task.id, &mut say).await
}

fn from_flags(submit: &Submit) -> anyhow::Result<Vec<u8>> {
    let mut task = TaskSubmission {
        name: submit.name.clone().unwrap_or_default(),
        description: submit.description.clone(),
        priority: submit.priority,
        parameters: once(&submit.parameters, "--param")?,
        timeout_seconds: submit.timeout,
        max_retries: submit.max_retries,
        tags: submit.tags.clone(),
        decomposition_strategy: submit.strategy,
        ..TaskSubmission::default()
    };
    if let Some(action) = &submit.action {
        task.parameters.insert("action".to_owned(), action.as_str().into());
    }
    if !submit.capabilities.is_empty() {
        let names: Vec<&str> = submit.capabilities.iter().map(String::as_str).collect();
        task = task.with_required_capabilities(&names);
    }
    if let Some(kind) = &submit.agent_type {
        task = task.with_agent_type(kind);
    }
    Ok(serde_json::to_vec(&task)?)
}
