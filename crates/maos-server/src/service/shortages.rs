//! Shortages: what a smaller capacity of a resource means for those who hold it and those who want
//! it, in words. Nothing is decided here: what runs keeps what it holds.

use maos_api::error::ApiError;
use maos_core::ids::AgentId;
use maos_core::node::{Answer, Query};
use maos_core::record::TaskRecord;

use super::tasks::blocking;
use super::{Service, faults, present};
use crate::store::{Start, TaskFilter};

/// Tasks that have not started and are looked at; what is beyond them is said to be more.
const LOOKED_AT_MAX: usize = 10_000;
/// Tasks that are read at once.
const PAGE: u32 = 1_000;

/// Who holds something of a kind.
struct Holders {
    milli: u64,
    attempts: usize,
    allocations: usize,
}

/// Tasks that wait and want more of a kind than there is.
struct Wanting {
    tasks: usize,
    /// Whether all were looked at.
    all: bool,
}

impl Service {
    /// What to warn of when there may be less of a kind of resource than there was.
    pub(super) async fn shortages(&self, kind: &str, before: Option<f64>) -> Vec<String> {
        let now = self.inner.planning.kinds().capacity_of(kind);
        if now.is_some_and(|now| before.is_some_and(|before| now >= before)) {
            return Vec::new();
        }
        match self.short_of(kind, now).await {
            Ok(warnings) => warnings,
            // It was changed all the same.
            Err(why) => vec![format!("who holds or wants `{kind}` cannot be told: {why}")],
        }
    }

    async fn short_of(&self, kind: &str, now: Option<f64>) -> Result<Vec<String>, ApiError> {
        let mut warnings = Vec::new();
        let holders = self.holders_of(kind).await?;
        if holders.milli > now.map_or(0, present::thousandths) {
            let used = format!("{} in use by {}", present::milli(holders.milli), holders.told());
            warnings.push(match now {
                Some(now) => format!(
                    "`{kind}`: {used}, of {now} that there is now: they keep it, and nobody else \
                     gets any until enough is given back"
                ),
                None => format!("`{kind}`: {used}: they keep it"),
            });
        }
        let wanting = self.wanting(kind, now).await?;
        if wanting.tasks > 0 {
            let at_least = if wanting.all { "" } else { "at least " };
            let who = format!("{at_least}{}", counted(wanting.tasks, "waiting task"));
            warnings.push(match now {
                Some(now) => format!(
                    "`{kind}`: the {now} that there is now is too little for {who}, until there is \
                     more"
                ),
                None => {
                    format!("`{kind}`: nobody declares it any more: it does not hold back {who}")
                }
            });
        }
        Ok(warnings)
    }

    async fn holders_of(&self, kind: &str) -> Result<Holders, ApiError> {
        let Answer::Figures(figures) = self.ask(Query::Figures).await? else {
            return Err(faults::internal(&"figures were something else"));
        };
        let pool = figures.pools.iter().find(|(name, _, _)| **name == *kind);
        let milli = pool.map_or(0, |(_, _, allocated)| *allocated);
        if milli == 0 {
            return Ok(Holders { milli, attempts: 0, allocations: 0 });
        }
        let Answer::Agents(agents) = self.ask(Query::Agents).await? else {
            return Err(faults::internal(&"agents were something else"));
        };
        let mut attempts = 0;
        for agent in agents.into_iter().filter(|agent| !agent.held.is_empty()) {
            attempts += self.attempts_with(agent.record.spec.id, kind).await?;
        }
        let Answer::Reservations(held) = self.ask(Query::Reservations).await? else {
            return Err(faults::internal(&"reservations were something else"));
        };
        let allocations = held.iter().filter(|held| held.amounts.of(kind) > 0).count();
        Ok(Holders { milli, attempts, allocations })
    }

    /// Attempts of an agent that hold something of a kind.
    async fn attempts_with(&self, agent: AgentId, kind: &str) -> Result<usize, ApiError> {
        // It may be gone by now, and then holds nothing.
        let Ok(Answer::Holds(_, held)) = self.inner.driver.ask(Query::Holds(agent)).await else {
            return Ok(0);
        };
        Ok(held.iter().filter(|held| held.spec.demand.resources.of(kind) > 0).count())
    }

    /// Tasks that have not started and want more of a kind than there is; any of it, if nobody
    /// declares it.
    async fn wanting(&self, kind: &str, now: Option<f64>) -> Result<Wanting, ApiError> {
        self.catch_up().await?;
        let most = now.map_or(0, present::thousandths);
        let wants = |record: &&TaskRecord| {
            record.subtasks().is_empty() && record.spec.demand.resources.of(kind) > most
        };
        let filter =
            TaskFilter { statuses: vec!["pending", "ready", "retrying"], ..TaskFilter::default() };
        let (mut start, mut seen, mut tasks) = (None, 0, 0);
        loop {
            let (store, filter) = (self.inner.store.clone(), filter.clone());
            let from = start.map_or(Start::Skip(0), Start::After);
            let page = blocking(move || store.list(&filter, from, PAGE)).await;
            let page = page.map_err(|why| self.storage(&why))?;
            seen += page.tasks.len();
            tasks += page.tasks.iter().filter(wants).count();
            start = page.next;
            if start.is_none() || seen >= LOOKED_AT_MAX {
                return Ok(Wanting { tasks, all: start.is_none() });
            }
        }
    }
}

impl Holders {
    fn told(&self) -> String {
        let some = |count: usize, what: &str| (count > 0).then(|| counted(count, what));
        let all = [some(self.attempts, "attempt"), some(self.allocations, "allocation")];
        let all: Vec<String> = all.into_iter().flatten().collect();
        // What it was given to may have ended since.
        if all.is_empty() { "what is about to end".to_owned() } else { all.join(" and ") }
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
