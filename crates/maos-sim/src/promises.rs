//! What clients were told, and what must therefore hold for ever.

use std::collections::{BTreeMap, BTreeSet};

use maos_core::command::Command;
use maos_core::engine::State;
use maos_core::ids::{Attempt, Sequence, TaskId};
use maos_core::node::{Answer, Echo, Query, RequestId};
use maos_core::record::{Stage, TaskRecord};
use maos_core::rejection::Rejection;
use maos_core::spec::Name;

use crate::ledger::Ledger;

/// Who waits for an answer, and what that may be.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What the answer rests on must be durable when it comes.
    rests_on: Option<Sequence>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Submit { root: TaskId, key: Option<Name> },
    Report { task: TaskId, attempt: Attempt, stale: bool },
    Command,
    Ended(TaskId),
    Read,
}

/// All requests that are open, and all promises.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    pub(crate) asked: BTreeMap<RequestId, Asked>,
    forgotten: BTreeSet<RequestId>,
    /// Roots of what was accepted.
    accepted: Vec<TaskId>,
    keys: BTreeMap<Name, TaskId>,
    /// Ends that somebody was told of, with the opening that they ended.
    ends: BTreeMap<(TaskId, u32), Stage>,
}

impl Asked {
    /// A command as the state is before it.
    pub(crate) fn of_command(command: &Command, echo: Echo, state: &State) -> Asked {
        let kind = match command {
            Command::Submit { plan } if echo == Echo::End => Kind::Ended(plan.root().id),
            Command::Submit { plan } => {
                let key = plan.idempotency.as_ref().map(|key| key.key.clone());
                Kind::Submit { root: plan.root().id, key }
            }
            Command::Report { task, attempt, .. } => {
                let running = state.task(*task).is_some_and(|record| {
                    record.attempt == *attempt && matches!(record.stage, Stage::Running { .. })
                });
                Kind::Report { task: *task, attempt: *attempt, stale: !running }
            }
            Command::Cancel { .. }
            | Command::Retry { .. }
            | Command::Revive { .. }
            | Command::Release { .. }
            | Command::Stall { .. }
            | Command::RegisterAgent { .. }
            | Command::EndAgent { .. }
            | Command::SetCapacity { .. }
            | Command::SetKey { .. }
            | Command::Amend { .. }
            | Command::KeepArtifact { .. }
            | Command::SetEntry { .. }
            | Command::Reserve { .. }
            | Command::Unreserve { .. }
            | Command::BeginEpoch { .. }
            | Command::Tick => Kind::Command,
        };
        Asked { rests_on: None, kind }
    }

    pub(crate) fn of_query(query: &Query, state: &State) -> Asked {
        match query {
            Query::Task(task) => {
                let rests_on = Some(state.changed(*task).unwrap_or_default());
                Asked { rests_on, kind: Kind::Read }
            }
            // Whatever it waits for, the answer is held against the journal.
            Query::Ended(task) => Asked { rests_on: Some(Sequence(0)), kind: Kind::Ended(*task) },
            Query::Plan(task) | Query::Outcome(task) | Query::Explain(task)
                if state.task(*task).is_none() =>
            {
                Asked { rests_on: Some(Sequence(0)), kind: Kind::Read }
            }
            Query::Plan(_)
            | Query::Outcome(_)
            | Query::Explain(_)
            | Query::Remembered { .. }
            | Query::Agents
            | Query::Agent(_)
            | Query::Keys
            | Query::Pools(_)
            | Query::Holds(_)
            | Query::Entries(_)
            | Query::Entry(..)
            | Query::Reservations
            | Query::Figures => Asked { rests_on: None, kind: Kind::Read },
        }
    }

    /// The request was decided; `decided` is the last step of that.
    pub(crate) fn settle(&mut self, decided: Sequence) {
        self.rests_on = self.rests_on.or(Some(decided));
    }

    /// The task whose end is waited for.
    pub(crate) fn awaited(&self) -> Option<TaskId> {
        match self.kind {
            Kind::Ended(task) => Some(task),
            Kind::Submit { .. } | Kind::Report { .. } | Kind::Command | Kind::Read => None,
        }
    }
}

impl Promises {
    /// Nobody who waited is there any more.
    pub(crate) fn crash(&mut self) {
        self.asked.clear();
    }

    /// Nobody waits for this answer any more: it may come, or may not.
    pub(crate) fn forget(&mut self, id: RequestId) {
        self.asked.remove(&id);
        self.forgotten.insert(id);
    }

    pub(crate) fn answered(
        &mut self,
        id: RequestId,
        answer: &Result<Answer, Rejection>,
        ledger: &Ledger,
    ) -> Result<(), String> {
        if self.forgotten.remove(&id) {
            return Ok(());
        }
        let asked = self.asked.remove(&id).ok_or("a request was answered twice")?;
        if *answer == Err(Rejection::StorageUnavailable) {
            return Ok(());
        }
        let rests_on = asked.rests_on.unwrap_or_default();
        if rests_on > ledger.last() {
            let last = ledger.last();
            return Err(format!("{answer:?} rests on step {rests_on}, only {last} is durable"));
        }
        match asked.kind {
            Kind::Submit { root, key } => self.submitted(root, key, answer, ledger)?,
            Kind::Report { task, attempt, stale } => {
                let refused = *answer == Err(Rejection::StaleAttempt { task, attempt });
                if refused != stale || !refused && *answer != Ok(Answer::Done) {
                    return Err(format!("report of attempt {attempt} of {task}: {answer:?}"));
                }
            }
            Kind::Ended(task) => {
                if let Ok(Answer::Task(record)) = answer
                    && !record.stage.ended()
                {
                    return Err(format!("{task} was said to have ended, it has not"));
                }
            }
            Kind::Command | Kind::Read => {}
        }
        match answer {
            Ok(Answer::Task(record) | Answer::Explained(record, _)) => self.shown(record, ledger),
            Ok(Answer::Accepted { task: Some(record), .. }) => self.shown(record, ledger),
            Ok(Answer::Plan(tasks)) => tasks.iter().try_for_each(|task| self.shown(task, ledger)),
            Ok(
                Answer::Done
                | Answer::Accepted { task: None, .. }
                | Answer::Outcome(_)
                | Answer::Remembered(_)
                | Answer::Agents(_)
                | Answer::Keys(_)
                | Answer::Pools(_)
                | Answer::Entries(_)
                | Answer::Reservations(_)
                | Answer::Holds(..)
                | Answer::Figures(_),
            )
            | Err(_) => Ok(()),
        }
    }

    fn submitted(
        &mut self,
        own: TaskId,
        key: Option<Name>,
        answer: &Result<Answer, Rejection>,
        ledger: &Ledger,
    ) -> Result<(), String> {
        let Ok(Answer::Accepted { root, fresh, .. }) = answer else { return Ok(()) };
        if !ledger.facts.contains_key(root) {
            return Err(format!("{root} was accepted before that was durable"));
        }
        if *fresh != (*root == own) {
            return Err(format!("{own} was accepted as {root}"));
        }
        if let Some(key) = key {
            let first = *self.keys.entry(key).or_insert(*root);
            if first != *root {
                return Err(format!("one key made both {first} and {root}"));
            }
        }
        self.accepted.push(*root);
        Ok(())
    }

    /// Somebody has seen this row: no more may be in it than the journal has.
    fn shown(&mut self, record: &TaskRecord, ledger: &Ledger) -> Result<(), String> {
        let id = record.id;
        let Some(journaled) = ledger.task(id) else {
            return Err(format!("{id} was shown before it was durable"));
        };
        if record.attempt > journaled.attempt {
            return Err(format!("attempt {} of {id} was shown too early", record.attempt));
        }
        // One that was re-opened since it was looked at tells nothing about the present opening.
        if record.stage.ended() && record.stage == journaled.stage {
            self.ends.insert((id, ledger.openings(id)), record.stage.clone());
        } else if record.stage.ended() && ledger.openings(id) == 0 {
            return Err(format!("an end of {id} was shown that is not durable"));
        }
        Ok(())
    }

    /// Whether the journal still has everything that was promised.
    pub(crate) fn kept(&self, ledger: &Ledger) -> Result<(), String> {
        if let Some(root) = self.accepted.iter().find(|root| ledger.task(**root).is_none()) {
            return Err(format!("{root} was accepted and is lost"));
        }
        for ((id, opening), stage) in &self.ends {
            let present = ledger.openings(*id) == *opening;
            if present && ledger.task(*id).is_none_or(|task| task.stage != *stage) {
                return Err(format!("{id} had ended, and no longer has"));
            }
        }
        Ok(())
    }
}
