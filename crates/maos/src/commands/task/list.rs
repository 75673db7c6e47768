//! `maos task list`: which tasks there are.

use clap::Args;
use maos_api::client::Client;
use maos_api::listing::TaskQuery;
use maos_api::task::{Page, Priority, Task, TaskStatus};
use maos_api::time::UtcTime;
use uuid::Uuid;

use crate::layout::{Screen, moment};
use crate::values::{agent_id, one_of, task_id};
use crate::words;

/// Which tasks, and which part of their list.
#[derive(Args)]
pub(crate) struct List {
    /// Only those that stand there; several with commas
    #[arg(long, value_delimiter = ',', value_parser = one_of(TaskStatus::ALL, TaskStatus::name))]
    status: Vec<TaskStatus>,
    /// Only those that matter so much; several with commas
    #[arg(long, value_delimiter = ',', value_parser = one_of(Priority::ALL, Priority::name))]
    priority: Vec<Priority>,
    /// Only those with this tag; may be given again
    #[arg(long)]
    tag: Vec<String>,
    /// Only those with these words in name, description or tags; `word*` for a beginning
    #[arg(long, value_name = "WORDS")]
    search: Option<String>,
    /// Only the direct subtasks of this task
    #[arg(long, value_name = "ID", value_parser = task_id)]
    parent: Option<Uuid>,
    /// Only those that this agent holds at the moment
    #[arg(long, value_name = "ID", value_parser = agent_id)]
    agent: Option<Uuid>,
    /// Only those created at this time or later, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    created_after: Option<UtcTime>,
    /// Only those created before this time
    #[arg(long, value_name = "TIME")]
    created_before: Option<UtcTime>,
    /// Which page, from 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    page: Option<u64>,
    /// Tasks on a page, 1 to 100
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    page_size: Option<u32>,
    /// Go on where an earlier page ended
    #[arg(long, value_name = "WORD", conflicts_with = "page")]
    cursor: Option<String>,
}

impl List {
    fn query(&self) -> TaskQuery {
        TaskQuery {
            page: self.page.unwrap_or(1),
            page_size: self.page_size.unwrap_or(Page::<()>::SIZE_DEFAULT),
            statuses: self.status.clone(),
            priorities: self.priority.clone(),
            agent_id: self.agent,
            parent_task_id: self.parent,
            tags: self.tag.clone(),
            created_after: self.created_after,
            created_before: self.created_before,
            search: self.search.clone(),
            cursor: self.cursor.clone(),
        }
    }
}

/// Why there is nothing to show, and what would show something.
fn nothing(page: &Page<Task>, query: &TaskQuery) -> String {
    let all = TaskQuery { page: query.page, page_size: query.page_size, ..TaskQuery::default() };
    if page.next_cursor.is_some() {
        // A page with a bound on what it looks at.
        return "no task matches so far".to_owned();
    }
    if query.cursor.is_some() {
        return "no more tasks match behind this cursor".to_owned();
    }
    if let Some(text) = super::behind_the_last(page) {
        return text;
    }
    match *query == all {
        true => "no tasks here\nhint: `maos task submit --name hello --action noop`".to_owned(),
        false => "no task matches\nhint: ask for less: `maos task list` shows all".to_owned(),
    }
}

pub(super) async fn run(client: &Client, json: bool, wanted: &List) -> anyhow::Result<()> {
    let page = client.tasks(&wanted.query()).await?;
    if json {
        return Ok(words::print_raw(&page.raw)?);
    }
    for warning in &page.warnings {
        words::say(&format!("warning: {warning}"));
    }
    if page.items.is_empty() {
        words::say(&nothing(&page, &wanted.query()));
    } else {
        let screen = Screen::stdout();
        let rows: Vec<[String; 5]> = page
            .items
            .iter()
            .map(|task| {
                [
                    task.id.to_string(),
                    screen.task_status(task.status),
                    task.priority.name().to_owned(),
                    moment(task.created_at),
                    words::one_line(&task.name),
                ]
            })
            .collect();
        words::print(&screen.table(["ID", "STATUS", "PRIORITY", "CREATED", "NAME"], &rows))?;
        super::say_page(&page, "task");
    }
    if let Some(cursor) = &page.next_cursor {
        // A page that came to its bound may have left some out.
        let full = usize::try_from(page.page_size).is_ok_and(|size| page.items.len() >= size);
        let more = if full { "there are more" } else { "there may be more" };
        words::say(&format!("{more}: --cursor {cursor} goes on"));
    }
    Ok(())
}
