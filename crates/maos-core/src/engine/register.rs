//! What the engine keeps beside tasks and agents: small documents of the shell, and resources that
//! somebody holds outside of any attempt.

use alloc::vec;
use alloc::vec::Vec;

use super::State;
use crate::change::{Change, EntryChange};
use crate::command::Expect;
use crate::event::Event;
use crate::limits::{ENTRIES_MAX, RESERVATIONS_MAX};
use crate::payload::Payload;
use crate::record::{EntryRecord, Reservation};
use crate::rejection::Rejection;
use crate::spec::{Amounts, Name};
use crate::time::{Moment, Timestamp};

impl State {
    /// The documents of one kind, by name.
    pub fn entries(&self, register: &str) -> impl Iterator<Item = &EntryRecord> {
        let first = (Name::from(register), Name::default());
        let same = move |key: &&(Name, Name)| key.0 == first.0;
        let from = (Name::from(register), Name::default());
        let range = self.entries.range(from..);
        range.take_while(move |(key, _)| same(key)).map(|(_, entry)| entry)
    }

    /// One document.
    #[must_use]
    pub fn entry(&self, register: &str, key: &str) -> Option<&EntryRecord> {
        self.entries.get(&(register.into(), key.into()))
    }

    /// What is held outside of any attempt.
    pub fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.reservations.values()
    }

    /// Takes the documents that changed since this was called last.
    pub fn take_changed_entries(&mut self) -> Vec<EntryRecord> {
        let changed = core::mem::take(&mut self.changed_entries);
        let record = |(register, key): (Name, Name)| match self.entry(&register, &key) {
            Some(entry) => entry.clone(),
            None => EntryRecord {
                register,
                key,
                value: None,
                created: self.moment.wall,
                updated: self.moment.wall,
            },
        };
        changed.into_iter().map(record).collect()
    }

    pub(super) fn decide_entry(
        &self,
        register: &Name,
        key: &Name,
        value: Option<&Payload>,
        expect: Expect,
    ) -> Result<Vec<Event>, Rejection> {
        let known = self.entry(register, key);
        match (expect, known) {
            (Expect::Absent, Some(_)) => {
                let (register, key) = (register.clone(), key.clone());
                return Err(Rejection::EntryExists { register, key });
            }
            (Expect::Present, None) => {
                let (register, key) = (register.clone(), key.clone());
                return Err(Rejection::EntryNotFound { register, key });
            }
            (Expect::Anything | Expect::Absent, None)
            | (Expect::Anything | Expect::Present, Some(_)) => {}
        }
        if known.and_then(|entry| entry.value.as_ref()) == value {
            return Ok(vec![]);
        }
        let full = self.entries.len() >= usize::try_from(ENTRIES_MAX).unwrap_or(usize::MAX);
        if known.is_none() && full {
            return Err(Rejection::Full { what: "documents", bound: ENTRIES_MAX.into() });
        }
        let (register, key, value) = (register.clone(), key.clone(), value.cloned());
        Ok(vec![Event::EntrySet { register, key, value }])
    }

    pub(super) fn apply_entry(&mut self, register: &Name, key: &Name, value: Option<&Payload>) {
        let wall = self.moment.wall;
        let name = (register.clone(), key.clone());
        if self.watched {
            let (register, key) = name.clone();
            let value = value.cloned();
            self.changes.push(Change::Entry(EntryChange { register, key, value, at: wall }));
        }
        match value {
            Some(value) => {
                let entry = self.entries.entry(name.clone()).or_insert_with(|| EntryRecord {
                    register: register.clone(),
                    key: key.clone(),
                    value: None,
                    created: wall,
                    updated: wall,
                });
                entry.value = Some(value.clone());
                entry.updated = wall;
            }
            None => {
                self.entries.remove(&name);
            }
        }
        self.changed_entries.insert(name);
    }

    pub(super) fn decide_reserve(
        &self,
        moment: &Moment,
        requester: &Name,
        amounts: &Amounts,
        lease_ms: Option<u64>,
    ) -> Result<Vec<Event>, Rejection> {
        let held = self.reservations.get(requester);
        let full = self.reservations.len() >= usize::try_from(RESERVATIONS_MAX).unwrap_or(0);
        if held.is_none() && full {
            return Err(Rejection::Full { what: "reservations", bound: RESERVATIONS_MAX.into() });
        }
        for (kind, wanted_milli) in amounts.iter() {
            let Some(pool) = self.dispatch.pools.get(kind) else { continue };
            let Some(capacity_milli) = pool.capacity_milli else { continue };
            if wanted_milli > capacity_milli {
                let kind = kind.into();
                return Err(Rejection::OverCapacity { kind, wanted_milli, capacity_milli });
            }
            let own = held.map_or(0, |held| held.amounts.of(kind));
            let free_milli = capacity_milli.saturating_sub(pool.allocated_milli - own);
            if wanted_milli > free_milli {
                let kind = kind.into();
                return Err(Rejection::NotEnoughLeft { kind, wanted_milli, free_milli });
            }
        }
        let until = lease_ms.map(|lease_ms| moment.at.plus_ms(lease_ms));
        let (requester, amounts) = (requester.clone(), amounts.clone());
        Ok(vec![Event::Reserved { requester, amounts, until }])
    }

    pub(super) fn decide_unreserve(&self, requester: &Name) -> Result<Vec<Event>, Rejection> {
        if !self.reservations.contains_key(requester) {
            return Err(Rejection::NothingReserved { requester: requester.clone() });
        }
        Ok(vec![Event::Unreserved { requester: requester.clone() }])
    }

    pub(super) fn apply_reserved(
        &mut self,
        requester: &Name,
        amounts: &Amounts,
        until: Option<Timestamp>,
    ) {
        let before = self.free_reservation(requester);
        let since = before.map_or(self.moment.wall, |before| before.since);
        let (requester, amounts) = (requester.clone(), amounts.clone());
        self.hold_reservation(Reservation { requester, amounts, until, since });
    }

    pub(super) fn hold_reservation(&mut self, reservation: Reservation) {
        self.dispatch.reserve(&reservation.amounts);
        if let Some(until) = reservation.until {
            self.leases.insert((until, reservation.requester.clone()));
        }
        self.reservations.insert(reservation.requester.clone(), reservation);
    }

    pub(super) fn free_reservation(&mut self, requester: &Name) -> Option<Reservation> {
        let gone = self.reservations.remove(requester)?;
        self.dispatch.release(&gone.amounts);
        if let Some(until) = gone.until {
            self.leases.remove(&(until, requester.clone()));
        }
        Some(gone)
    }

    /// A lease that is over.
    pub(super) fn follow_lease(&self, now: Timestamp) -> Option<Event> {
        let (until, requester) = self.leases.first()?;
        (*until <= now).then(|| Event::Unreserved { requester: requester.clone() })
    }
}
