//! Schedules: submissions that are made again and again, on the calendar's time.
//!
//! Its law: every planned time becomes one task at the most, also over a crash: the submission
//! carries the planned time in its idempotency key. A schedule is a document that the engine keeps
//! (`REGISTER`), and what came of it another (`STATES`).

use std::time::Duration;

use cronexpr::{Crontab, FallbackTimezoneOption, ParseOptions};
use jiff::Timestamp;
use maos_api::error::{ApiError, ErrorCode, Retry};
use maos_api::fault::Faults;
use maos_api::schedule::{
    self, Missed, Overlap, ParsedSchedule, Schedule, ScheduleEnvelope, ScheduleGone, ScheduleList,
    ScheduleSpec, ScheduleState,
};
use maos_api::time::UtcTime;
use maos_core::command::{Command, Expect};
use maos_core::ids::TaskId;
use maos_core::node::Echo;
use maos_core::payload::Payload;
use maos_core::record::EntryRecord;
use serde_json::{Map, Value};
use tracing::{info, warn};
use uuid::Uuid;

use super::attendant::Attendant;
use super::{Service, SubmitOptions, faults, new_id, now};

const REGISTER: &str = "schedule";
const STATES: &str = "schedule_state";
/// Most schedules at once.
const SCHEDULES_MAX: usize = 1_000;
/// Most bytes of one, its submission included.
const SCHEDULE_BYTES_MAX: usize = 64 << 10;
/// A run that is later than this was missed.
const GRACE_US: u64 = 60_000_000;
/// Most missed runs that are made up for one by one.
const RUNS_MAX: usize = 100;
/// The calendar is looked at this often while there are schedules: its clock may jump.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// After a refusal that may pass by itself.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// A clock that was set back by more than this makes a schedule begin anew.
const SET_BACK_US: u64 = 24 * 3_600 * 1_000_000;

/// When a schedule runs.
enum Beat {
    Cron(Box<Crontab>),
    Every { since: u64, us: u64 },
}

impl Beat {
    /// # Errors
    /// What is wrong with the expression and the zone.
    fn of(spec: &ScheduleSpec, created: UtcTime) -> Result<Beat, ApiError> {
        let Some(cron) = &spec.cron else {
            let us = spec.every_seconds.unwrap_or(1).saturating_mul(1_000_000);
            return Ok(Beat::Every { since: created.0, us });
        };
        let mut faults = Faults::default();
        if let Some(what) = cron_fault(cron) {
            faults.invalid("cron", what);
        }
        if jiff::tz::TimeZone::get(&spec.timezone).is_err() {
            let what = format!("must be a zone like `Europe/Berlin`, found `{}`", spec.timezone);
            faults.invalid("timezone", what);
        }
        faults.check()?;
        in_zone(cron, &spec.timezone)
            .map(|cron| Beat::Cron(Box::new(cron)))
            .map_err(|why| ApiError::invalid("timezone", format!("cannot be used: {why}")))
    }

    /// The first time behind `after`.
    fn next(&self, after: UtcTime) -> Option<UtcTime> {
        match self {
            Beat::Every { since, us } => {
                let beats = after.0.saturating_sub(*since) / us + 1;
                Some(UtcTime(since + beats.saturating_mul(*us)))
            }
            Beat::Cron(cron) => {
                let after = Timestamp::from_microsecond(i64::try_from(after.0).ok()?).ok()?;
                let next = cron.find_next(after).ok()?.timestamp();
                u64::try_from(next.as_microsecond()).ok().map(UtcTime)
            }
        }
    }

    /// What is to run by `now`, and how many runs are left out.
    fn due(&self, missed: Missed, after: UtcTime, now: UtcTime) -> (Vec<UtcTime>, u64) {
        let from = |after: UtcTime| {
            let next = |time: &UtcTime| self.next(*time);
            std::iter::successors(self.next(after), next).take_while(move |time| *time <= now)
        };
        let times: Vec<UtcTime> = from(after).take(RUNS_MAX + 1).collect();
        let late = |time: &UtcTime| now.0.saturating_sub(time.0) > GRACE_US;
        match missed {
            Missed::RunOnce => {
                let runs: Vec<UtcTime> = times.first().copied().into_iter().collect();
                (runs, times.len().saturating_sub(1) as u64)
            }
            Missed::RunAll => {
                let skipped = times.len().saturating_sub(RUNS_MAX) as u64;
                (times.into_iter().take(RUNS_MAX).collect(), skipped)
            }
            Missed::Skip => {
                let skipped = times.iter().filter(|time| late(time)).count() as u64;
                let in_time = UtcTime(after.0.max(now.0.saturating_sub(GRACE_US + 1)));
                (from(in_time).take(RUNS_MAX).collect(), skipped)
            }
        }
    }
}

fn in_zone(cron: &str, zone: &str) -> Result<Crontab, cronexpr::Error> {
    let mut options = ParseOptions::default();
    options.fallback_timezone_option = FallbackTimezoneOption::UTC;
    cronexpr::parse_crontab_with(&format!("{cron} {zone}"), options)
}

/// What is wrong with an expression, whatever the zone.
fn cron_fault(cron: &str) -> Option<String> {
    if cron.split_whitespace().count() != 5 {
        let what = "must have five fields: minute, hour, day of the month, month, day of the \
                    week, such as `30 6 * * 1-5`";
        return Some(what.to_owned());
    }
    match in_zone(cron, "UTC") {
        Ok(in_utc) => {
            let never = in_utc.find_next(Timestamp::UNIX_EPOCH).is_err();
            never.then(|| "names a day that never comes".to_owned())
        }
        Err(why) => {
            // Its last line points at the place and says what is wrong there.
            let told = why.to_string();
            let last = told.lines().last().unwrap_or_default();
            Some(format!("cannot be read: {}", last.trim_matches(['^', ' '])))
        }
    }
}

/// A schedule and all that is known of it.
struct Known {
    id: Uuid,
    spec: ScheduleSpec,
    state: ScheduleState,
    created: UtcTime,
}

impl Known {
    fn of(entry: &EntryRecord, states: &[EntryRecord]) -> Option<Known> {
        let created = UtcTime(entry.created.0);
        let state = states.iter().find(|state| state.key == entry.key).and_then(opened);
        Some(Known {
            id: Uuid::parse_str(&entry.key).ok()?,
            spec: opened(entry)?,
            state: state.unwrap_or(ScheduleState { after: created, ..ScheduleState::default() }),
            created,
        })
    }

    fn shown(self) -> Schedule {
        let Known { id, spec, state, created } = self;
        let beat = Beat::of(&spec, created).ok().filter(|_| !spec.paused);
        Schedule {
            id,
            next_run_at: beat.and_then(|beat| beat.next(state.after)),
            spec,
            last_run_at: state.last_run_at,
            last_task_id: state.last_task_id,
            last_error: state.last_error,
            runs: state.runs,
            skipped: state.skipped,
            created_at: created,
        }
    }
}

fn opened<T: serde::de::DeserializeOwned>(entry: &EntryRecord) -> Option<T> {
    let Some(Payload::Inline(document)) = &entry.value else { return None };
    serde_json::from_slice(document).ok()
}

impl Service {
    /// All schedules.
    ///
    /// # Errors
    /// Why they cannot be told.
    pub async fn schedules(&self) -> Result<ScheduleList, ApiError> {
        let items: Vec<Schedule> =
            self.known_schedules().await?.into_iter().map(Known::shown).collect();
        Ok(ScheduleList { total_items: items.len() as u64, items })
    }

    /// One schedule.
    ///
    /// # Errors
    /// That there is none with this id.
    pub async fn schedule(&self, id: Uuid) -> Result<ScheduleEnvelope, ApiError> {
        let found = self.known_schedules().await?.into_iter().find(|known| known.id == id);
        let schedule = found.ok_or_else(|| not_found(id))?.shown();
        let message = match schedule.next_run_at {
            Some(next) => format!("schedule runs next at {next}"),
            None => "schedule is paused".to_owned(),
        };
        Ok(ScheduleEnvelope { schedule, message, warnings: Vec::new() })
    }

    /// Makes a schedule: it runs from now on.
    ///
    /// # Errors
    /// What is wrong with it or with its submission, or why it is not taken.
    pub async fn create_schedule(&self, body: &[u8]) -> Result<ScheduleEnvelope, ApiError> {
        self.check_intake()?;
        let ParsedSchedule { spec, mut warnings, fault } = schedule::parse(body, self.bounds())?;
        let (beat, task) = (Beat::of(&spec, now()), self.check_submission(&spec));
        // One answer tells all that is wrong.
        match fault.into_iter().chain(beat.err()).reduce(ApiError::and) {
            Some(fault) => return Err(task.err().into_iter().fold(fault, ApiError::and)),
            None => warnings.extend(task?),
        }
        let _alone = self.inner.alone.changes.lock().await;
        if self.entries(REGISTER).await?.len() >= SCHEDULES_MAX {
            let message = format!("there are {SCHEDULES_MAX} schedules already: delete one");
            return Err(ApiError::new(ErrorCode::QueueFull, message).with("bound", SCHEDULES_MAX));
        }
        let id = Uuid::from_u128(new_id());
        self.put(REGISTER, id, Some(&spec), Expect::Absent).await?;
        self.inner.schedules_changed.notify_one();
        let made = self.schedule(id).await?;
        Ok(ScheduleEnvelope { warnings, ..made })
    }

    /// Pauses a schedule, or has it go on from now.
    ///
    /// # Errors
    /// What is wrong with the request, or that there is no such schedule.
    pub async fn pause_schedule(
        &self,
        id: Uuid,
        body: &[u8],
    ) -> Result<ScheduleEnvelope, ApiError> {
        let paused = schedule::parse_pause(body, self.bounds())?;
        let _alone = self.inner.alone.changes.lock().await;
        let found = self.known_schedules().await?.into_iter().find(|known| known.id == id);
        let mut known = found.ok_or_else(|| not_found(id))?;
        if known.spec.paused != paused {
            known.spec.paused = paused;
            // What was due during the pause was not missed.
            known.state.after = now();
            self.put(STATES, id, Some(&known.state), Expect::Anything).await?;
            self.put(REGISTER, id, Some(&known.spec), Expect::Present).await?;
            self.inner.schedules_changed.notify_one();
        }
        self.schedule(id).await
    }

    /// Takes a schedule away; tasks that it became go on.
    ///
    /// # Errors
    /// That there is none with this id.
    pub async fn delete_schedule(&self, id: Uuid) -> Result<ScheduleGone, ApiError> {
        let _alone = self.inner.alone.changes.lock().await;
        if let Err(why) = self.put::<()>(REGISTER, id, None, Expect::Present).await {
            return Err(if why.code == ErrorCode::ScheduleNotFound { not_found(id) } else { why });
        }
        self.put::<()>(STATES, id, None, Expect::Anything).await?;
        self.inner.schedules_changed.notify_one();
        Ok(ScheduleGone { message: "schedule deleted".to_owned(), schedule_id: id })
    }

    async fn known_schedules(&self) -> Result<Vec<Known>, ApiError> {
        let (entries, states) = (self.entries(REGISTER).await?, self.entries(STATES).await?);
        Ok(entries.iter().filter_map(|entry| Known::of(entry, &states)).collect())
    }

    /// Whether the submission of a schedule, if there is one, would be accepted now; what it would
    /// be warned of.
    fn check_submission(&self, spec: &ScheduleSpec) -> Result<Vec<String>, ApiError> {
        if spec.task.is_null() {
            return Ok(Vec::new());
        }
        let body = body_of(spec, Uuid::nil(), now())?;
        let planned = self.plan(&body, &SubmitOptions::default()).map_err(|why| {
            let mut why = why;
            if let Some(Value::Object(fields)) = why.details.get_mut("fields") {
                let below = std::mem::take(fields).into_iter();
                *fields = below.map(|(field, what)| (format!("task.{field}"), what)).collect();
            }
            ApiError { message: format!("`task`: {}", why.message), ..why }
        })?;
        let mut faults = Faults::default();
        for (task, place) in planned.plan.tasks.iter().zip(&planned.places).skip(1) {
            if task.spec.rare().deadline.is_some() {
                faults.invalid(format!("task.{place}deadline"), schedule::NO_DEADLINE);
            }
        }
        faults.check()?;
        Ok(planned.warnings)
    }

    /// Keeps a document of the service's, or takes it away.
    async fn put<T: serde::Serialize>(
        &self,
        register: &str,
        id: Uuid,
        document: Option<&T>,
        expect: Expect,
    ) -> Result<(), ApiError> {
        let value = match document {
            None => None,
            Some(document) => {
                let bytes = serde_json::to_vec(document).map_err(|why| faults::internal(&why))?;
                if bytes.len() > SCHEDULE_BYTES_MAX {
                    let what = format!("has more than {SCHEDULE_BYTES_MAX} bytes");
                    return Err(ApiError::invalid("task", what));
                }
                Some(Payload::inline(&bytes))
            }
        };
        let key = id.to_string().into();
        let command = Command::SetEntry { register: register.into(), key, value, expect };
        self.inner.driver.run(command, Echo::Id).await.map(drop).map_err(faults::refused)
    }

    /// Does what is due; says when something is again.
    async fn run_due(&self) -> Result<Option<UtcTime>, ApiError> {
        let mut soonest: Option<UtcTime> = None;
        for mut known in self.known_schedules().await? {
            let Ok(beat) = Beat::of(&known.spec, known.created) else { continue };
            if known.spec.paused {
                continue;
            }
            let now = now();
            if known.state.after.0 > now.0 + SET_BACK_US {
                known.state.after = now;
            }
            let (runs, skipped) = beat.due(known.spec.missed, known.state.after, now);
            if !runs.is_empty() || skipped > 0 {
                known.state.skipped += skipped;
                for time in runs {
                    self.run_once(&mut known, time).await?;
                }
                known.state.after = now;
                // It may have been deleted meanwhile: then nothing is to stay behind.
                let _alone = self.inner.alone.changes.lock().await;
                let there = self.schedule(known.id).await.is_ok();
                if there {
                    self.put(STATES, known.id, Some(&known.state), Expect::Anything).await?;
                }
            }
            let next = beat.next(known.state.after);
            soonest = soonest.into_iter().chain(next).min();
        }
        Ok(soonest)
    }

    /// Submits the task of one planned time.
    ///
    /// # Errors
    /// A refusal that may pass by itself: it is tried again.
    async fn run_once(&self, known: &mut Known, time: UtcTime) -> Result<(), ApiError> {
        if known.spec.overlap == Overlap::Skip
            && let Some(last) = known.state.last_task_id
            && let Ok(record) = self.record(TaskId(last.as_u128()), Duration::ZERO).await
            && !record.stage.ended()
        {
            known.state.skipped += 1;
            return Ok(());
        }
        let body = body_of(&known.spec, known.id, time)?;
        let key = format!("schedule {} {}", known.id, time);
        let options = SubmitOptions { idempotency_key: Some(key), ..SubmitOptions::default() };
        match self.submit(&body, options).await {
            Ok(accepted) => {
                known.state.last_task_id = Some(accepted.task.id);
                known.state.last_error = None;
                known.state.runs += 1;
                info!(schedule.id = %known.id, task.id = %accepted.task.id, "a schedule ran");
            }
            Err(why) if why.code.retry() == Retry::Later => return Err(why),
            Err(why) => {
                warn!(schedule.id = %known.id, "a schedule's task was refused: {why}");
                known.state.last_error = Some(why.message);
            }
        }
        known.state.last_run_at = Some(time);
        Ok(())
    }
}

/// The submission of one planned time: its metadata says where it comes from.
fn body_of(spec: &ScheduleSpec, id: Uuid, time: UtcTime) -> Result<Vec<u8>, ApiError> {
    let mut task = spec.task.clone();
    if let Some(members) = task.as_object_mut() {
        let metadata = members.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("schedule_id".to_owned(), id.to_string().into());
            metadata.insert("scheduled_for".to_owned(), time.to_string().into());
        }
    }
    serde_json::to_vec(&task).map_err(|why| faults::internal(&why))
}

fn not_found(id: Uuid) -> ApiError {
    let message = format!("no schedule has the id `{id}`");
    ApiError::new(ErrorCode::ScheduleNotFound, message).with("schedule_id", id.to_string())
}

/// Watches the calendar. What is cut off when it is stopped is done again at the next start, once.
pub(super) fn attend(service: Service) -> Attendant {
    Attendant::start("scheduler", |_| async move { watch(&service).await })
}

async fn watch(service: &Service) {
    loop {
        let pause = match service.run_due().await {
            Ok(None) => None,
            Ok(Some(next)) => {
                let until = Duration::from_micros(next.0.saturating_sub(now().0));
                Some(until.min(LOOK_AGAIN))
            }
            Err(why) => {
                warn!("schedules wait: {why}");
                Some(TRY_AGAIN)
            }
        };
        tokio::select! {
            () = service.inner.schedules_changed.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(cron: &str, timezone: &str) -> ScheduleSpec {
        ScheduleSpec {
            name: "n".to_owned(),
            cron: Some(cron.to_owned()),
            timezone: timezone.to_owned(),
            every_seconds: None,
            task: Value::Null,
            missed: Missed::Skip,
            overlap: Overlap::Allow,
            paused: false,
        }
    }

    fn at(text: &str) -> UtcTime {
        text.parse().unwrap()
    }

    #[test]
    fn a_zones_clock_counts_over_its_changes() {
        let beat = Beat::of(&spec("30 6 * * *", "Europe/Berlin"), UtcTime(0)).unwrap();
        // The last day of summer time, and the first one of winter time.
        assert_eq!(beat.next(at("2026-10-23T12:00:00Z")), Some(at("2026-10-24T04:30:00Z")));
        assert_eq!(beat.next(at("2026-10-24T12:00:00Z")), Some(at("2026-10-25T05:30:00Z")));
    }

    #[test]
    fn what_is_no_expression_or_zone_is_refused_by_name() {
        for (cron, zone, field) in [
            ("* * * *", "UTC", "cron"),
            ("61 * * * *", "UTC", "cron"),
            ("0 0 31 2 *", "UTC", "cron"),
            ("0 0 * * *", "Mars/Olympus", "timezone"),
        ] {
            let error = Beat::of(&spec(cron, zone), UtcTime(0)).err().unwrap();
            assert!(error.details["fields"][field].is_string(), "{cron} {zone}: {error:?}");
        }
    }

    #[test]
    fn missed_runs_follow_their_policy() {
        let beat = Beat::of(&spec("0 * * * *", "UTC"), UtcTime(0)).unwrap();
        let (after, now) = (at("2026-01-01T00:30:00Z"), at("2026-01-01T04:00:10Z"));
        let hour = |hour: u32| at(&format!("2026-01-01T0{hour}:00:00Z"));
        assert_eq!(beat.due(Missed::Skip, after, now), (vec![hour(4)], 3));
        assert_eq!(beat.due(Missed::RunOnce, after, now), (vec![hour(1)], 3));
        assert_eq!(beat.due(Missed::RunAll, after, now), ((1..=4).map(hour).collect(), 0));
        let late = at("2026-01-01T04:30:00Z");
        assert_eq!(beat.due(Missed::Skip, after, late), (vec![], 4));
        // A year away: what is made up for has a bound, and time is not spent on the rest.
        let (runs, skipped) = beat.due(Missed::RunAll, after, at("2027-01-01T00:00:00Z"));
        assert_eq!((runs.len(), skipped), (RUNS_MAX, 1));
        let every = Beat::Every { since: 7, us: 1_000_000 };
        assert_eq!(every.next(UtcTime(7)), Some(UtcTime(1_000_007)));
        assert_eq!(every.next(UtcTime(0)), Some(UtcTime(1_000_007)));
    }
}
