//! `maos task logs`: the lines of a task's attempts, also as they come.
//!
//! The server holds each request until there is a line or the task has ended.

use clap::Args;
use maos_api::client::{Client, WAIT_SECONDS_MAX};
use maos_api::logs::{LIMIT_MAX, LogItem, LogLevel, LogPage, LogQuery};
use uuid::Uuid;

use crate::values::task_id;
use crate::words;

#[derive(Args)]
pub(super) struct Logs {
    /// The task's id
    #[arg(value_parser = task_id)]
    id: Uuid,
    /// Go on until the task has ended
    #[arg(short, long)]
    follow: bool,
    /// Leave out what is less serious: debug, info, warning or error
    #[arg(long, value_name = "LEVEL", default_value = "debug", value_parser = level)]
    level: LogLevel,
    /// The first line, as --json shows offsets
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: u64,
}

fn level(text: &str) -> Result<LogLevel, String> {
    text.parse().map_err(|_| format!("one of {}", LogLevel::ALL.map(LogLevel::name).join(", ")))
}

/// Prints lines as they come. With --json it is one document, or one a line where it follows.
pub(super) async fn run(client: &Client, json: bool, wanted: &Logs) -> anyhow::Result<()> {
    let Logs { id, follow, level, offset } = *wanted;
    let wait_seconds = if follow { WAIT_SECONDS_MAX } else { 0 };
    let mut all: Vec<LogItem> = Vec::new();
    let mut query = LogQuery { offset, limit: LIMIT_MAX, level, follow: false, wait_seconds };
    loop {
        let page = client.task_logs(id, &query).await?;
        for warning in &page.warnings {
            words::say(&words::one_line(warning));
        }
        for item in &page.items {
            if json && !follow {
                all.push(item.clone());
            } else if json {
                words::print(&serde_json::to_string(item)?)?;
            } else {
                words::print(&line(item))?;
            }
        }
        let stands = page.items.is_empty() && query.offset == page.next_offset;
        query.offset = page.next_offset;
        if page.ended || (stands && !follow) {
            if json && !follow {
                let page = LogPage { items: all, ..page.value };
                words::print_json(&page)?;
            }
            return Ok(());
        }
    }
}

fn line(item: &LogItem) -> String {
    let time = item.time.to_string();
    let level = match item.level {
        LogLevel::Info => String::new(),
        other => format!("{}: ", other.name()),
    };
    format!("{time} #{} {level}{}", item.attempt, words::one_line(&item.line))
}
