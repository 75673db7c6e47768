//! Lists of tasks and agents, as their queries ask for them.

use std::time::Duration;

use maos_api::agent::{Agent, AgentPage, AgentStatus};
use maos_api::error::ApiError;
use maos_api::listing::{AgentQuery, TaskQuery};
use maos_api::task::{Page, Priority as WirePriority, TaskPage, TaskStatus};
use maos_core::ids::{AgentId, TaskId};
use maos_core::node::{AgentState, Answer, Query};
use maos_core::spec::Priority;
use maos_core::time::WallTime;

use super::cursor::Cursor;
use super::tasks::blocking;
use super::{Service, faults, present};
use crate::store::{Count, Start, TaskFilter};

/// How long a list waits until the store has what was answered before.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);
/// Ended agents that a list holds at the most, the newest.
const ENDED_AGENTS_MAX: u32 = 10_000;

impl Service {
    /// A page of tasks, the newest first. It holds every task that was answered for before, unless
    /// a warning says that the store has not caught up.
    ///
    /// # Errors
    /// That the cursor is not of this listing, or why the page cannot be told.
    pub async fn list(&self, query: TaskQuery) -> Result<TaskPage, ApiError> {
        let filter = filter(&query);
        let cursor = match &query.cursor {
            Some(word) => Some(Cursor::read(word, &filter)?),
            None => None,
        };
        let page_size = query.page_size;
        let start = match cursor {
            Some(cursor) => Start::After(cursor.place),
            None => Start::Skip((query.page - 1).saturating_mul(page_size.into())),
        };
        let complete = self.catch_up().await?;
        let store = self.inner.store.clone();
        let filtered = filter.clone();
        let read = blocking(move || store.list(&filtered, start, page_size)).await;
        let found = read.map_err(|why| self.storage(&why))?;
        let number = cursor.map_or(query.page, |cursor| cursor.page);
        // The first page counted; what came or went since does not change the later ones.
        let count = cursor
            .map(|cursor| cursor.count)
            .or(found.count)
            .unwrap_or(Count { tasks: 0, exact: false });
        let items = found.tasks.iter().map(present::light).collect();
        let mut page = Page::new(items, number, page_size, count.tasks);
        page.has_next = found.next.is_some();
        page.total_is_exact = count.exact;
        page.next_cursor = found.next.map(|place| {
            let cursor = Cursor { place, page: number.saturating_add(1), count };
            cursor.write(&filter)
        });
        if !complete {
            page.total_is_exact = false;
            page.warnings.push(BEHIND.to_owned());
        }
        Ok(page)
    }

    /// Waits until the store has everything that was answered before; says whether it has.
    pub(super) async fn catch_up(&self) -> Result<bool, ApiError> {
        let Answer::Figures(figures) = self.ask(Query::Figures).await? else {
            return Err(faults::internal(&"figures were something else"));
        };
        self.inner.driver.want_rows();
        Ok(self.inner.store.catch_up(figures.durable, CATCH_UP_MAX).await)
    }

    /// A page of agents: of those that serve, unless ended ones are asked for.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn agents(&self, query: AgentQuery) -> Result<AgentPage, ApiError> {
        let now = super::now();
        let mut agents = self.serving().await?;
        let (mut warnings, mut complete) = (Vec::new(), true);
        let ended = [AgentStatus::Offline, AgentStatus::Terminated];
        if query.statuses.iter().any(|status| ended.contains(status)) {
            complete = self.catch_up().await?;
            if !complete {
                warnings.push(BEHIND.to_owned());
            }
            let store = self.inner.store.clone();
            let read = blocking(move || store.ended_agents(ENDED_AGENTS_MAX)).await;
            let gone = read.map_err(|why| self.storage(&why))?;
            let held = |record| AgentState { record, held: Vec::new() };
            agents.extend(gone.into_iter().map(held));
        }
        let usages = super::agents::usages(&agents).await;
        let agents = agents.iter().map(|state| self.shown(state, now, &usages));
        let found: Vec<Agent> = agents.filter(|agent| fits(agent, &query)).collect();
        let total = found.len() as u64;
        let skip = (query.page - 1).saturating_mul(query.page_size.into());
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let take = usize::try_from(query.page_size).unwrap_or(usize::MAX);
        let items = found.into_iter().skip(skip).take(take).collect();
        let page = Page::new(items, query.page, query.page_size, total);
        Ok(Page { warnings, total_is_exact: complete, ..page })
    }
}

const BEHIND: &str = "the store has not caught up with the engine: the newest changes are missing \
                      in this list";

fn filter(query: &TaskQuery) -> TaskFilter {
    TaskFilter {
        statuses: query.statuses.iter().copied().map(TaskStatus::name).collect(),
        priorities: query.priorities.iter().copied().map(priority).collect(),
        agent: query.agent_id.map(|id| AgentId(id.as_u128())),
        parent: query.parent_task_id.map(|id| TaskId(id.as_u128())),
        tags: query.tags.clone(),
        origin: None,
        created_from: query.created_after.map(|time| WallTime(time.0)),
        created_before: query.created_before.map(|time| WallTime(time.0)),
        search: query.search.clone(),
    }
}

fn priority(priority: WirePriority) -> Priority {
    match priority {
        WirePriority::Low => Priority::Low,
        WirePriority::Medium => Priority::Medium,
        WirePriority::High => Priority::High,
        WirePriority::Critical => Priority::Critical,
    }
}

fn fits(agent: &Agent, query: &AgentQuery) -> bool {
    let available = matches!(agent.status, AgentStatus::Idle | AgentStatus::Busy);
    (query.statuses.is_empty() || query.statuses.contains(&agent.status))
        && query.agent_type.as_ref().is_none_or(|kind| *kind == agent.kind)
        && query.capabilities.iter().all(|name| agent.capabilities.contains(name))
        && query.tags.iter().all(|tag| agent.tags.contains(tag))
        && (available || !query.available_only)
        && query.search.as_ref().is_none_or(|text| mentions(agent, text))
}

/// Whether every word of `text` is somewhere in what people call the agent.
fn mentions(agent: &Agent, text: &str) -> bool {
    let names = [&agent.name, &agent.kind].into_iter().chain(&agent.capabilities);
    let called: Vec<String> = names.chain(&agent.tags).map(|name| name.to_lowercase()).collect();
    let mut words = text.split_whitespace().map(|word| word.trim_end_matches('*').to_lowercase());
    words.all(|word| called.iter().any(|name| name.contains(&word)))
}
