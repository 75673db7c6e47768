//! The query of a listing: what a client may ask for, read and checked.
//!
//! A list is written with commas (`status=failed,cancelled`); an empty value counts as not given.

use serde::Deserialize;
use uuid::Uuid;

use crate::agent::AgentStatus;
use crate::error::{ApiError, ErrorCode};
use crate::task::{Page, Priority, TaskStatus};
use crate::time::UtcTime;

/// The last page that may be asked for by its number.
const PAGE_MAX: u64 = 1_000_000_000;
/// Most characters of a search.
const SEARCH_CHARS_MAX: usize = 200;
/// Most names in one parameter.
const NAMES_MAX: usize = 20;

/// The query of `GET /api/v1/tasks` as it came.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RawTaskQuery {
    page: Option<String>,
    page_size: Option<String>,
    status: Option<String>,
    priority: Option<String>,
    agent_id: Option<String>,
    parent_task_id: Option<String>,
    tags: Option<String>,
    created_after: Option<String>,
    created_before: Option<String>,
    search: Option<String>,
    cursor: Option<String>,
}

/// Which tasks, and which part of their list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskQuery {
    /// From 1; 1 when there is a cursor.
    pub page: u64,
    /// 1 to `Page::SIZE_MAX`.
    pub page_size: u32,
    /// One of these; empty: any.
    pub statuses: Vec<TaskStatus>,
    /// One of these; empty: any.
    pub priorities: Vec<Priority>,
    /// Held by this agent at the moment.
    pub agent_id: Option<Uuid>,
    /// A direct subtask of this task.
    pub parent_task_id: Option<Uuid>,
    /// With all of these.
    pub tags: Vec<String>,
    /// Created then or later.
    pub created_after: Option<UtcTime>,
    /// Created before.
    pub created_before: Option<UtcTime>,
    /// With all these words; a star at a word's end stands for any ending.
    pub search: Option<String>,
    /// Where to go on, as an earlier page said.
    pub cursor: Option<String>,
}

impl Default for TaskQuery {
    fn default() -> TaskQuery {
        TaskQuery {
            page: 1,
            page_size: Page::<()>::SIZE_DEFAULT,
            statuses: Vec::new(),
            priorities: Vec::new(),
            agent_id: None,
            parent_task_id: None,
            tags: Vec::new(),
            created_after: None,
            created_before: None,
            search: None,
            cursor: None,
        }
    }
}

impl TaskQuery {
    /// The parameters that say this, without those that say what is so anyway.
    #[must_use]
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let statuses = self.statuses.iter().map(|status| status.name()).collect();
        let priorities = self.priorities.iter().map(|priority| priority.name()).collect();
        let parameters = [
            ("page", (self.page != 1).then(|| self.page.to_string())),
            ("page_size", size(self.page_size)),
            ("status", joined(statuses)),
            ("priority", joined(priorities)),
            ("agent_id", self.agent_id.map(|id| id.to_string())),
            ("parent_task_id", self.parent_task_id.map(|id| id.to_string())),
            ("tags", joined(self.tags.iter().map(String::as_str).collect())),
            ("created_after", self.created_after.map(|time| time.to_string())),
            ("created_before", self.created_before.map(|time| time.to_string())),
            ("search", self.search.clone()),
            ("cursor", self.cursor.clone()),
        ];
        parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// The query of `GET /api/v1/agents` as it came.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RawAgentQuery {
    page: Option<String>,
    page_size: Option<String>,
    status: Option<String>,
    agent_type: Option<String>,
    capabilities: Option<String>,
    tags: Option<String>,
    available_only: Option<String>,
    search: Option<String>,
}

/// Which agents, and which part of their list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentQuery {
    /// From 1.
    pub page: u64,
    /// 1 to `Page::SIZE_MAX`.
    pub page_size: u32,
    /// One of these; empty: those that serve.
    pub statuses: Vec<AgentStatus>,
    /// Of this type.
    pub agent_type: Option<String>,
    /// With all of these.
    pub capabilities: Vec<String>,
    /// With all of these.
    pub tags: Vec<String>,
    /// Only those that could take a task now.
    pub available_only: bool,
    /// With all these words somewhere in name, type, capabilities or tags.
    pub search: Option<String>,
}

impl Default for AgentQuery {
    fn default() -> AgentQuery {
        AgentQuery {
            page: 1,
            page_size: Page::<()>::SIZE_DEFAULT,
            statuses: Vec::new(),
            agent_type: None,
            capabilities: Vec::new(),
            tags: Vec::new(),
            available_only: false,
            search: None,
        }
    }
}

impl AgentQuery {
    /// The parameters that say this, without those that say what is so anyway.
    #[must_use]
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let statuses = self.statuses.iter().map(|status| status.name()).collect();
        let parameters = [
            ("page", (self.page != 1).then(|| self.page.to_string())),
            ("page_size", size(self.page_size)),
            ("status", joined(statuses)),
            ("agent_type", self.agent_type.clone()),
            ("capabilities", joined(self.capabilities.iter().map(String::as_str).collect())),
            ("tags", joined(self.tags.iter().map(String::as_str).collect())),
            ("available_only", self.available_only.then(|| "true".to_owned())),
            ("search", self.search.clone()),
        ];
        parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

impl RawTaskQuery {
    /// Reads and checks the query.
    ///
    /// # Errors
    /// The first parameter that cannot be read.
    pub fn read(&self) -> Result<TaskQuery, ApiError> {
        let cursor = given(self.cursor.as_deref()).map(str::to_owned);
        if cursor.is_some() && given(self.page.as_deref()).is_some() {
            return Err(bad(
                "page",
                "cannot be given with `cursor`, which says the place by itself",
            ));
        }
        Ok(TaskQuery {
            page: page(self.page.as_deref())?,
            page_size: page_size(self.page_size.as_deref())?,
            statuses: among("status", self.status.as_deref(), &TaskStatus::ALL, TaskStatus::name)?,
            priorities: among(
                "priority",
                self.priority.as_deref(),
                &Priority::ALL,
                Priority::name,
            )?,
            agent_id: id("agent_id", self.agent_id.as_deref())?,
            parent_task_id: id("parent_task_id", self.parent_task_id.as_deref())?,
            tags: names("tags", self.tags.as_deref())?,
            created_after: time("created_after", self.created_after.as_deref())?,
            created_before: time("created_before", self.created_before.as_deref())?,
            search: search(self.search.as_deref())?,
            cursor,
        })
    }
}

impl RawAgentQuery {
    /// Reads and checks the query.
    ///
    /// # Errors
    /// The first parameter that cannot be read.
    pub fn read(&self) -> Result<AgentQuery, ApiError> {
        let statuses =
            among("status", self.status.as_deref(), &AgentStatus::ALL, AgentStatus::name)?;
        Ok(AgentQuery {
            page: page(self.page.as_deref())?,
            page_size: page_size(self.page_size.as_deref())?,
            statuses,
            agent_type: given(self.agent_type.as_deref()).map(str::to_owned),
            capabilities: names("capabilities", self.capabilities.as_deref())?,
            tags: names("tags", self.tags.as_deref())?,
            available_only: flag("available_only", self.available_only.as_deref())?,
            search: search(self.search.as_deref())?,
        })
    }
}

/// A list as it is written; nothing for an empty one.
fn joined(names: Vec<&str>) -> Option<String> {
    (!names.is_empty()).then(|| names.join(","))
}

/// A page's size as it is written; nothing for that which it has anyway.
fn size(page_size: u32) -> Option<String> {
    (page_size != Page::<()>::SIZE_DEFAULT).then(|| page_size.to_string())
}

fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

fn bad(parameter: &str, what: &str) -> ApiError {
    let message = format!("query parameter `{parameter}` {what}");
    ApiError::new(ErrorCode::MalformedQuery, message).with("parameter", parameter)
}

fn number(name: &str, text: Option<&str>, default: u64, most: u64) -> Result<u64, ApiError> {
    let Some(text) = given(text) else { return Ok(default) };
    let parsed = text.parse::<u64>().ok().filter(|number| (1..=most).contains(number));
    parsed.ok_or_else(|| bad(name, &format!("must be a whole number from 1 to {most}")))
}

fn page(text: Option<&str>) -> Result<u64, ApiError> {
    number("page", text, 1, PAGE_MAX)
}

fn page_size(text: Option<&str>) -> Result<u32, ApiError> {
    let (default, most) = (Page::<()>::SIZE_DEFAULT, Page::<()>::SIZE_MAX);
    let size = number("page_size", text, default.into(), most.into())?;
    Ok(u32::try_from(size).unwrap_or(most))
}

fn names(parameter: &str, text: Option<&str>) -> Result<Vec<String>, ApiError> {
    let entries = given(text).unwrap_or_default().split(',');
    let mut names: Vec<String> =
        entries.filter_map(|name| given(Some(name))).map(Into::into).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() > NAMES_MAX {
        return Err(bad(parameter, &format!("must have at most {NAMES_MAX} names")));
    }
    Ok(names)
}

fn among<T: Copy>(
    parameter: &str,
    text: Option<&str>,
    all: &[T],
    name_of: impl Fn(T) -> &'static str,
) -> Result<Vec<T>, ApiError> {
    let mut found = Vec::new();
    for name in names(parameter, text)? {
        match all.iter().find(|one| name_of(**one) == name) {
            Some(one) => found.push(*one),
            None => {
                let known: Vec<&str> = all.iter().map(|one| name_of(*one)).collect();
                return Err(bad(parameter, &format!("must be of {}", known.join(", "))));
            }
        }
    }
    Ok(found)
}

fn id(parameter: &str, text: Option<&str>) -> Result<Option<Uuid>, ApiError> {
    let Some(text) = given(text) else { return Ok(None) };
    let id = Uuid::parse_str(text).map_err(|_| {
        let message = format!("query parameter `{parameter}` must be a UUID");
        ApiError::new(ErrorCode::MalformedId, message).with("parameter", parameter)
    })?;
    Ok(Some(id))
}

fn time(parameter: &str, text: Option<&str>) -> Result<Option<UtcTime>, ApiError> {
    let Some(text) = given(text) else { return Ok(None) };
    // A plus that was not escaped arrives as a blank.
    let read = text.parse().or_else(|_| text.replace(' ', "+").parse());
    let what = "must be a time such as 2026-01-31T12:00:00Z";
    read.map(Some).map_err(|_| bad(parameter, what))
}

fn flag(parameter: &str, text: Option<&str>) -> Result<bool, ApiError> {
    match given(text).unwrap_or("false") {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(bad(parameter, "must be true or false")),
    }
}

fn search(text: Option<&str>) -> Result<Option<String>, ApiError> {
    let Some(text) = given(text) else { return Ok(None) };
    if text.chars().count() > SEARCH_CHARS_MAX {
        let what = format!("must have at most {SEARCH_CHARS_MAX} characters");
        return Err(bad("search", &what));
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_written_with_commas_and_blanks_count_for_nothing() {
        let raw = RawTaskQuery {
            status: Some("failed,cancelled,".into()),
            tags: Some(" b , a,b".into()),
            search: Some("  ".into()),
            created_after: Some("2026-01-01T02:00:00 02:00".into()),
            ..RawTaskQuery::default()
        };
        let query = raw.read().unwrap();
        assert_eq!(query.statuses, [TaskStatus::Cancelled, TaskStatus::Failed]);
        assert_eq!(query.tags, ["a", "b"]);
        assert_eq!((query.search, query.page, query.page_size), (None, 1, 20));
        assert_eq!(query.created_after.unwrap().to_string(), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let time = |text: &str| Some(text.parse().unwrap());
        let full = TaskQuery {
            page: 7,
            page_size: 3,
            statuses: vec![TaskStatus::Failed, TaskStatus::Ready],
            priorities: vec![Priority::High],
            agent_id: Some(Uuid::from_u128(1)),
            parent_task_id: Some(Uuid::from_u128(2)),
            tags: vec!["a b".into(), "c".into()],
            created_after: time("2026-01-01T00:00:00Z"),
            created_before: time("2026-01-02T00:00:00.5Z"),
            search: Some("x* y".into()),
            cursor: None,
        };
        let next = TaskQuery { page: 1, cursor: Some("77".into()), ..full.clone() };
        for query in [full, next, TaskQuery::default()] {
            let raw: RawTaskQuery = serde_json::from_value(written(query.parameters())).unwrap();
            assert_eq!(raw.read().unwrap(), query);
        }
        let full = AgentQuery {
            page: 2,
            page_size: 3,
            statuses: vec![AgentStatus::Busy, AgentStatus::Idle],
            agent_type: Some("a b".into()),
            capabilities: vec!["c".into(), "d".into()],
            tags: vec!["e".into()],
            available_only: true,
            search: Some("f".into()),
        };
        for query in [full, AgentQuery::default()] {
            let raw: RawAgentQuery = serde_json::from_value(written(query.parameters())).unwrap();
            assert_eq!(raw.read().unwrap(), query);
        }
    }

    fn written(parameters: Vec<(&'static str, String)>) -> serde_json::Value {
        let members = parameters.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
        serde_json::Value::Object(members.collect())
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let raw = |change: fn(&mut RawTaskQuery)| {
            let mut raw = RawTaskQuery::default();
            change(&mut raw);
            raw.read().unwrap_err()
        };
        for (error, parameter) in [
            (raw(|q| q.page = Some("0".into())), "page"),
            (raw(|q| (q.page, q.cursor) = (Some("2".into()), Some("x".into()))), "page"),
            (raw(|q| q.page_size = Some("101".into())), "page_size"),
            (raw(|q| q.status = Some("ready,asleep".into())), "status"),
            (raw(|q| q.priority = Some("urgent".into())), "priority"),
            (raw(|q| q.agent_id = Some("7".into())), "agent_id"),
            (raw(|q| q.created_before = Some("tomorrow".into())), "created_before"),
            (raw(|q| q.search = Some("x".repeat(201))), "search"),
            (raw(|q| q.tags = Some((0..21).map(|n| format!("t{n},")).collect())), "tags"),
        ] {
            assert_eq!(error.details["parameter"], parameter, "{error}");
        }
        let agents = RawAgentQuery { available_only: Some("maybe".into()), ..Default::default() };
        assert_eq!(agents.read().unwrap_err().details["parameter"], "available_only");
    }
}
