//! Listings: which tasks, in which order, from where on, and how many there are.
//!
//! Its law: the order is by creation, the newest first (of a search: by arrival, the newest first),
//! and a page costs no more than a bound, however deep it is and however little its filters let
//! through. At the bound it holds what was found and says where to go on.

use maos_core::ids::{AgentId, TaskId};
use maos_core::record::TaskRecord;
use maos_core::spec::Priority;
use maos_core::time::WallTime;
use rusqlite::types::Value;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Rows, params, params_from_iter};

use super::read::Readers;
use super::table::{STATUS_NAMES, bytes, read_all, status_number};
use super::{StoreError, facets, search, sqlite_fault};
use crate::codec::Kind;

/// What one page may cost: one for each candidate, more for one that must be looked at.
pub(super) const COST_MAX: u64 = 250_000;
const ROW_COST: u64 = 6;
const TAG_COST: u64 = 4;
/// Priorities by their stored numbers.
const PRIORITIES: [Priority; 4] =
    [Priority::Low, Priority::Medium, Priority::High, Priority::Critical];

// Every way is given first and last moment, the number below which it begins on the last moment,
// and what it is entered by.
const BY_GROUP: &str = "SELECT created, number FROM tasks INDEXED BY tasks_by_group
    WHERE status = ?4 AND priority = ?5 AND created >= ?1 AND created <= ?2
    AND (created < ?2 OR number < ?3) ORDER BY created DESC, number DESC";
const BY_PARENT: &str = "SELECT created, number FROM tasks INDEXED BY tasks_by_parent
    WHERE parent = ?4 AND created >= ?1 AND created <= ?2
    AND (created < ?2 OR number < ?3) ORDER BY created DESC, number DESC";
const BY_AGENT: &str = "SELECT created, number FROM tasks INDEXED BY tasks_by_agent
    WHERE agent = ?4 AND created >= ?1 AND created <= ?2
    AND (created < ?2 OR number < ?3) ORDER BY created DESC, number DESC";
const BY_TAG: &str = "SELECT created, number FROM tagged
    WHERE tag = ?4 AND created >= ?1 AND created <= ?2
    AND (created < ?2 OR number < ?3) ORDER BY created DESC, number DESC";
const SEARCH: &str = "SELECT 0, rowid FROM search
    WHERE search MATCH ?2 AND rowid < ?1 ORDER BY rowid DESC";

/// Which tasks a listing holds: those that pass all that is given.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// One of these, by their wire names; empty: any.
    pub statuses: Vec<&'static str>,
    /// One of these; empty: any.
    pub priorities: Vec<Priority>,
    /// Run by this agent, or last by it.
    pub agent: Option<AgentId>,
    /// A direct subtask of this one.
    pub parent: Option<TaskId>,
    /// With all of these.
    pub tags: Vec<String>,
    /// Created then or later.
    pub created_from: Option<WallTime>,
    /// Created before.
    pub created_before: Option<WallTime>,
    /// Came in by this door.
    pub origin: Option<&'static str>,
    /// With all of these words in name, description or tags; a star at a word's end stands for any
    /// ending.
    pub search: Option<String>,
}

/// A place between two tasks of a listing; stays valid whatever comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// When the task before it was created; of a search: 0.
    pub created: u64,
    /// That task's number.
    pub number: i64,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After so many from the newest on; such a page is counted, too.
    Skip(u64),
    /// Behind this place.
    After(Place),
}

/// How many tasks a filter lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// So many.
    pub tasks: u64,
    /// Whether there are no more than that.
    pub exact: bool,
}

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskList {
    /// What is on it.
    pub tasks: Vec<TaskRecord>,
    /// Where the next one begins; `None` at the end. A page that is not full goes on as well when
    /// it came to its bound.
    pub next: Option<Place>,
    /// How many there are on all pages; only when it was counted.
    pub count: Option<Count>,
}

/// One index to walk, with the values it is entered by.
struct Way {
    sql: &'static str,
    values: Vec<Value>,
}

/// How a listing is worked out.
struct Course {
    ways: Vec<Way>,
    check: Check,
    /// Known without counting.
    count: Option<u64>,
}

/// What the chosen ways do not see to.
#[derive(Default)]
struct Check {
    row: bool,
    statuses: Vec<u8>,
    priorities: Vec<u8>,
    parent: Option<[u8; 16]>,
    agent: Option<[u8; 16]>,
    created: (i64, i64),
    tags: Vec<i64>,
}

/// Candidates in the order of the listing, from all ways at once.
struct Merged<'s> {
    ways: Vec<(Rows<'s>, Option<Place>)>,
}

impl TaskFilter {
    /// First and last moment, both included.
    fn created(&self) -> (i64, i64) {
        let whole = |time: WallTime| i64::try_from(time.0).unwrap_or(i64::MAX);
        let from = self.created_from.map_or(0, whole);
        (from, self.created_before.map_or(i64::MAX, |before| whole(before) - 1))
    }

    fn groups(&self) -> Vec<(u8, u8)> {
        let statuses: Vec<u8> = if self.statuses.is_empty() {
            (0..).zip(STATUS_NAMES).map(|(number, _)| number).collect()
        } else {
            self.statuses.iter().filter_map(|name| status_number(name)).collect()
        };
        let wanted =
            |priority: &Priority| self.priorities.is_empty() || self.priorities.contains(priority);
        let mut groups = Vec::new();
        for status in statuses {
            for priority in PRIORITIES.iter().filter(|priority| wanted(priority)) {
                groups.push((status, *priority as u8));
            }
        }
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

impl Readers {
    pub(super) fn list(
        &self,
        filter: &TaskFilter,
        start: Start,
        limit: u32,
        cost_max: u64,
    ) -> Result<TaskList, StoreError> {
        let wrong = |fault| sqlite_fault(self.path(), fault);
        self.with(|db| {
            // Everything is read from one snapshot.
            let snapshot = db.unchecked_transaction().map_err(wrong)?;
            let nothing = Some(Count { tasks: 0, exact: true });
            let found = match course(&snapshot, filter, start).map_err(wrong)? {
                Some(course) => walk(&snapshot, &course, start, limit, cost_max).map_err(wrong)?,
                None => Found { numbers: Vec::new(), next: None, count: nothing },
            };
            let mut tasks = Vec::with_capacity(found.numbers.len());
            for number in found.numbers {
                let sql = "SELECT record FROM tasks WHERE number = ?";
                tasks.append(&mut read_all(&snapshot, self.path(), Kind::Task, sql, [number])?);
            }
            Ok(TaskList { tasks, next: found.next, count: found.count })
        })
    }
}

/// Chooses the ways that have the fewest candidates; `None` when nothing can be found.
fn course(db: &Connection, filter: &TaskFilter, start: Start) -> rusqlite::Result<Option<Course>> {
    let mut tags = Vec::new();
    let door = filter.origin.map(facets::door);
    for tag in filter.tags.iter().chain(&door) {
        let sql = "SELECT id, tasks FROM tags WHERE name = ?";
        let known = db.prepare_cached(sql)?.query_row([tag], |row| Ok((row.get(0)?, row.get(1)?)));
        match known.optional()? {
            Some((id, tasks)) => tags.push((id, tasks)),
            None => return Ok(None),
        }
    }
    let mut course = Course {
        ways: Vec::new(),
        check: Check { created: filter.created(), ..Check::default() },
        count: None,
    };
    let everywhen = filter.created_from.is_none() && filter.created_before.is_none();
    let by_row = filter.statuses.len() + filter.priorities.len() > 0;
    let range = range(filter, start);
    let groups = filled(db, &filter.groups())?;
    let in_groups: u64 = groups.iter().map(|(_, tasks)| tasks).sum();
    let mut left: Vec<(i64, u64)> = tags;
    left.sort_unstable_by_key(|(_, tasks)| *tasks);
    if let Some(text) = &filter.search {
        let Some(query) = search::query(text) else { return Ok(None) };
        let below = match start {
            Start::After(place) => place.number,
            Start::Skip(_) => i64::MAX,
        };
        course.ways.push(Way { sql: SEARCH, values: vec![below.into(), query.into()] });
        let held = filter.parent.is_some() || filter.agent.is_some();
        course.check.row = by_row || held || !everywhen || !left.is_empty();
    } else if let Some(parent) = filter.parent {
        let id = bytes(parent.0).to_vec();
        course.ways.push(Way { sql: BY_PARENT, values: with(&range, [id.into()]) });
        course.check.row = by_row || filter.agent.is_some();
    } else if let Some(agent) = filter.agent {
        let id = bytes(agent.0).to_vec();
        course.ways.push(Way { sql: BY_AGENT, values: with(&range, [id.into()]) });
        course.check.row = by_row;
    } else if left.first().is_some_and(|(_, tasks)| !by_row || *tasks <= in_groups) {
        let (tag, tasks) = left.remove(0);
        course.ways.push(Way { sql: BY_TAG, values: with(&range, [tag.into()]) });
        course.check.row = by_row;
        course.count = (left.is_empty() && !by_row && everywhen).then_some(tasks);
    } else {
        for ((status, priority), _) in &groups {
            let values = with(&range, [i64::from(*status).into(), i64::from(*priority).into()]);
            course.ways.push(Way { sql: BY_GROUP, values });
        }
        course.count = (left.is_empty() && everywhen).then_some(in_groups);
    }
    if course.check.row {
        let groups = filter.groups();
        course.check.statuses = groups.iter().map(|(status, _)| *status).collect();
        course.check.priorities = groups.iter().map(|(_, priority)| *priority).collect();
        course.check.parent = filter.parent.map(|parent| bytes(parent.0));
        course.check.agent = filter.agent.map(|agent| bytes(agent.0));
    }
    course.check.tags = left.into_iter().map(|(tag, _)| tag).collect();
    Ok(Some(course))
}

/// The first three values of a way.
fn range(filter: &TaskFilter, start: Start) -> [i64; 3] {
    let (from, until) = filter.created();
    match start {
        Start::After(place) => {
            let created = i64::try_from(place.created).unwrap_or(i64::MAX);
            let below = if created <= until { place.number } else { i64::MAX };
            [from, until.min(created), below]
        }
        Start::Skip(_) => [from, until, i64::MAX],
    }
}

fn with<const N: usize>(range: &[i64; 3], more: [Value; N]) -> Vec<Value> {
    range.iter().map(|value| Value::from(*value)).chain(more).collect()
}

/// Those of `groups` that have tasks, and how many.
fn filled(db: &Connection, groups: &[(u8, u8)]) -> rusqlite::Result<Vec<((u8, u8), u64)>> {
    let mut query =
        db.prepare_cached("SELECT status, priority, tasks FROM counts WHERE tasks > 0")?;
    let counts = query.query_map((), |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
    let mut filled: Vec<((u8, u8), u64)> = counts.collect::<rusqlite::Result<_>>()?;
    filled.retain(|(group, _)| groups.binary_search(group).is_ok());
    Ok(filled)
}

struct Found {
    numbers: Vec<i64>,
    next: Option<Place>,
    count: Option<Count>,
}

fn walk(
    db: &Connection,
    course: &Course,
    start: Start,
    limit: u32,
    cost_max: u64,
) -> rusqlite::Result<Found> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (skip, counting) = match start {
        Start::Skip(skip) => (skip, course.count.is_none()),
        Start::After(_) => (0, false),
    };
    let mut statements: Vec<CachedStatement<'_>> = Vec::new();
    for way in &course.ways {
        statements.push(db.prepare_cached(way.sql)?);
    }
    let mut merged = Merged::new(&mut statements, &course.ways)?;
    let mut look = Look::new(db, &course.check)?;
    let (mut numbers, mut passed, mut cost) = (Vec::new(), 0_u64, 0_u64);
    // The last task on the page, and whether there are more.
    let (mut last, mut more) = (None, false);
    while let Some(place) = merged.next()? {
        cost += 1 + look.cost();
        if look.passes(place)? {
            passed += 1;
            if passed <= skip {
                // Nothing is looked at on the way to a deep page: it is only counted off.
                cost -= u64::from(look.cost() == 0);
            } else if numbers.len() < limit {
                numbers.push(place.number);
                last = Some(place);
            } else {
                more = true;
                if !counting {
                    break;
                }
            }
        }
        if cost >= cost_max {
            // The bound, and there may be more behind it.
            let count = counting.then_some(Count { tasks: passed, exact: false });
            let next = if more { last } else { Some(place) };
            return Ok(Found { numbers, next, count: count.or(course.known()) });
        }
    }
    let count = counting.then_some(Count { tasks: passed, exact: true });
    Ok(Found { numbers, next: if more { last } else { None }, count: count.or(course.known()) })
}

impl Course {
    fn known(&self) -> Option<Count> {
        self.count.map(|tasks| Count { tasks, exact: true })
    }
}

impl<'s> Merged<'s> {
    fn new(statements: &'s mut [CachedStatement<'_>], ways: &[Way]) -> rusqlite::Result<Self> {
        let mut merged = Merged { ways: Vec::with_capacity(ways.len()) };
        for (statement, way) in statements.iter_mut().zip(ways) {
            let mut rows = statement.query(params_from_iter(&way.values))?;
            let head = step(&mut rows)?;
            merged.ways.push((rows, head));
        }
        Ok(merged)
    }

    fn next(&mut self) -> rusqlite::Result<Option<Place>> {
        let newest = self
            .ways
            .iter_mut()
            .filter(|(_, head)| head.is_some())
            .max_by_key(|(_, head)| head.map(|head| (head.created, head.number)));
        let Some((rows, head)) = newest else { return Ok(None) };
        let next = step(rows)?;
        Ok(std::mem::replace(head, next))
    }
}

fn step(rows: &mut Rows<'_>) -> rusqlite::Result<Option<Place>> {
    match rows.next()? {
        Some(row) => Ok(Some(Place { created: row.get(0)?, number: row.get(1)? })),
        None => Ok(None),
    }
}

/// Looks at candidates.
struct Look<'d> {
    check: &'d Check,
    row: CachedStatement<'d>,
    tagged: CachedStatement<'d>,
}

impl<'d> Look<'d> {
    fn new(db: &'d Connection, check: &'d Check) -> rusqlite::Result<Look<'d>> {
        let row = db.prepare_cached(
            "SELECT created, status, priority, parent, agent FROM tasks WHERE number = ?",
        )?;
        let tagged =
            db.prepare_cached("SELECT 1 FROM tagged WHERE tag = ? AND created = ? AND number = ?")?;
        Ok(Look { check, row, tagged })
    }

    fn cost(&self) -> u64 {
        u64::from(self.check.row) * ROW_COST + self.check.tags.len() as u64 * TAG_COST
    }

    fn passes(&mut self, place: Place) -> rusqlite::Result<bool> {
        let check = self.check;
        let mut created = i64::try_from(place.created).unwrap_or(i64::MAX);
        if check.row {
            let found = self.row.query_row([place.number], |row| {
                let of = |id: Option<[u8; 16]>, column| {
                    Ok::<_, rusqlite::Error>(
                        id.is_none() || row.get::<_, Option<[u8; 16]>>(column)? == id,
                    )
                };
                let (first, last) = check.created;
                created = row.get(0)?;
                Ok(check.statuses.contains(&row.get(1)?)
                    && check.priorities.contains(&row.get(2)?)
                    && of(check.parent, 3)?
                    && of(check.agent, 4)?
                    && (first..=last).contains(&created))
            })?;
            if !found {
                return Ok(false);
            }
        }
        for tag in &check.tags {
            if !self.tagged.exists(params![tag, created, place.number])? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
