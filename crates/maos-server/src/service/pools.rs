//! Pools of agents: how large they are, when they grow and shrink, and why.
//!
//! Its law: every change of a pool's size is a fact with its reason (`DECISIONS`), durable together
//! with the agents that come or go. Deciding is a pure function; nothing is looked at while nothing
//! waits and every pool is as small as it may be.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maos_api::error::{ApiError, ErrorCode};
use maos_api::events::PoolEvent;
use maos_api::explain::Blocker;
use maos_api::pool::{self, Pool, PoolEnvelope, PoolList, PoolSettings};
use maos_core::command::{Command, Expect};
use maos_core::event::AgentEnd;
use maos_core::ids::AgentId;
use maos_core::node::{Answer, Echo, Query};
use maos_core::payload::Payload;
use maos_core::record::{EntryRecord, Stage, TaskRecord};
use maos_core::spec::{AgentSpec, Name, Names, Runtime};
use maos_core::view::PoolView;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::attendant::Attendant;
use super::planning::{NAMESPACE, SUBMITTER};
use super::start::member;
use super::{Service, faults, now, present};
use crate::config::PoolConfig;

/// What was set through the API instead of what the configuration says.
const REGISTER: &str = "pool";
/// What was done last in each pool, and why.
pub(super) const DECISIONS: &str = "pool_decision";
/// How often pools are looked at while something waits or one is larger than it must be.
const LOOK: Duration = Duration::from_millis(500);
/// The pause after a look that found nothing to do: under load every step leaves tasks waiting, and
/// a look at each would cost the engine more than the pools are worth.
const BREATH: Duration = Duration::from_millis(50);
/// First and longest pause after an agent could not be started.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What is to be done with a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Start { count: u32, reason: String },
    Stop { agents: Vec<AgentId>, reason: String },
}

/// What came of a decision.
enum Done {
    Changed,
    /// Nothing could be done, and why.
    Held(String),
}

/// What is remembered of a pool between two looks.
#[derive(Debug, Default)]
struct Memory {
    /// Since when each agent has had nothing to do.
    idle_since: HashMap<AgentId, Instant>,
    changed_at: Option<Instant>,
    /// After a start that failed: the pause, and until when it lasts.
    backoff: Option<(Duration, Instant)>,
    /// What kept it as it is at the last look: told once, not at every further one.
    held_by: Option<String>,
}

impl Memory {
    fn note(&mut self, view: &PoolView, now: Instant) {
        self.idle_since
            .retain(|id, _| view.agents.iter().any(|(agent, held)| agent == id && *held == 0));
        for (agent, held) in &view.agents {
            if *held == 0 {
                self.idle_since.entry(*agent).or_insert(now);
            }
        }
    }

    fn rests(&self, settings: &PoolSettings, now: Instant) -> bool {
        let cooldown = Duration::from_secs(settings.cooldown_seconds);
        self.changed_at.is_some_and(|at| now.duration_since(at) < cooldown)
            || self.backoff.is_some_and(|(_, until)| now < until)
    }

    fn changed(&mut self, now: Instant) {
        (self.changed_at, self.backoff, self.held_by) = (Some(now), None, None);
    }

    /// Nothing failed: there may be room at any moment, so the pause does not grow.
    fn held(&mut self, now: Instant) {
        self.backoff = Some((BACKOFF.0, now + BACKOFF.0));
    }

    fn failed(&mut self, now: Instant) {
        let pause = self.backoff.map_or(BACKOFF.0, |(pause, _)| (pause * 2).min(BACKOFF.1));
        self.backoff = Some((pause, now + pause));
    }
}

/// Agents that a pool should have: those that do something, and enough for what waits.
fn demand(settings: &PoolSettings, view: &PoolView) -> u64 {
    let busy = view.agents.iter().filter(|(_, held)| *held > 0).count() as u64;
    let more = view.waiting.div_ceil(u64::from(settings.slots.max(1)));
    (busy + more).max(settings.min.into())
}

fn decide(
    settings: &PoolSettings,
    view: &PoolView,
    memory: &Memory,
    now: Instant,
) -> Option<Decision> {
    let count = agents_count(view);
    let backs_off = memory.backoff.is_some_and(|(_, until)| now < until);
    if count < settings.min && !backs_off {
        let reason = format!("at least {} agents are always there", settings.min);
        return Some(Decision::Start { count: settings.min - count, reason });
    }
    if count > settings.max {
        let mut agents = view.agents.clone();
        agents.sort_by_key(|(_, held)| *held);
        let over = usize::try_from(count - settings.max).unwrap_or(usize::MAX);
        let agents = agents.into_iter().take(over).map(|(agent, _)| agent).collect();
        let reason = format!("at most {} agents may be there", settings.max);
        return Some(Decision::Stop { agents, reason });
    }
    if view.waiting > 0 && count < settings.max {
        return (!memory.rests(settings, now)).then(|| grow(settings, view, count)).flatten();
    }
    shrink(settings, view, memory, now, count)
}

fn grow(settings: &PoolSettings, view: &PoolView, count: u32) -> Option<Decision> {
    let waiting = view.waiting;
    let depth = u64::from(settings.queue_depth) * u64::from(count);
    let reason = if count == 0 {
        format!("{waiting} tasks wait and there is no agent")
    } else if waiting >= depth {
        format!("{waiting} tasks wait for {count} agents, {depth} are enough to grow")
    } else if view.waited_ms >= settings.wait_seconds * 1_000 {
        format!(
            "a task has waited {} ms, {} s are enough to grow",
            view.waited_ms, settings.wait_seconds
        )
    } else {
        return None;
    };
    let wanted = waiting.div_ceil(u64::from(settings.slots.max(1)));
    let room = settings.max - count;
    let count = u32::try_from(wanted).unwrap_or(u32::MAX).clamp(1, room);
    Some(Decision::Start { count, reason })
}

fn shrink(
    settings: &PoolSettings,
    view: &PoolView,
    memory: &Memory,
    now: Instant,
    count: u32,
) -> Option<Decision> {
    let spare = usize::try_from(count.saturating_sub(settings.min)).unwrap_or(0);
    if spare == 0 || view.waiting > 0 || memory.rests(settings, now) {
        return None;
    }
    let idle = Duration::from_secs(settings.idle_seconds);
    let mut tired: Vec<(Instant, AgentId)> = memory
        .idle_since
        .iter()
        .filter(|(_, since)| now.duration_since(**since) >= idle)
        .map(|(agent, since)| (*since, *agent))
        .collect();
    tired.sort_unstable();
    tired.truncate(spare);
    let agents: Vec<AgentId> = tired.into_iter().map(|(_, agent)| agent).collect();
    let reason = format!("{} agents had nothing to do for {} s", agents.len(), idle.as_secs());
    (!agents.is_empty()).then_some(Decision::Stop { agents, reason })
}

/// As much of a start as `api.max_agents` leaves room for, and why it is no more; the error says
/// that nobody can start.
fn within(room: &Room, wanted: u32) -> Result<(u32, Option<String>), String> {
    let Room { there, bound } = room;
    let free = bound.saturating_sub(*there);
    if wanted <= free {
        return Ok((wanted, None));
    }
    let held = bound_reached(*bound, *there);
    match free {
        // Without the number that is wanted, which goes with the queue: it is told once.
        0 => Err(format!("more are wanted and none can start: {held}")),
        _ => Ok((free, Some(format!("{wanted} more are wanted and {free} can start: {held}")))),
    }
}

fn bound_reached(bound: u32, there: u32) -> String {
    format!("`api.max_agents` is {bound}, and there are {there} agents")
}

/// How many agents of our own there are, and may be.
struct Room {
    there: u32,
    bound: u32,
}

/// What was set for a pool, as it is stored. Documents from before have neither a room nor anybody
/// who set them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// Whose room its agents work in.
    #[serde(default = "default_namespace")]
    namespace: Name,
    /// Who set it; empty when nobody said.
    #[serde(default)]
    submitter: Name,
    #[serde(flatten)]
    settings: PoolSettings,
}

fn default_namespace() -> Name {
    NAMESPACE.into()
}

impl Kept {
    fn new(settings: PoolSettings) -> Kept {
        Kept { namespace: NAMESPACE.into(), submitter: SUBMITTER.into(), settings }
    }
}

/// A pool as it is to be.
struct Plan {
    name: String,
    settings: PoolSettings,
    model: Arc<AgentSpec>,
}

fn configured(pool: &PoolConfig) -> PoolSettings {
    PoolSettings {
        min: pool.min,
        max: pool.max,
        slots: pool.slots,
        queue_depth: pool.queue_depth,
        wait_seconds: pool.wait_seconds,
        idle_seconds: pool.idle_seconds,
        cooldown_seconds: pool.cooldown_seconds,
    }
}

fn opened<T: serde::de::DeserializeOwned>(entry: &EntryRecord) -> Option<T> {
    let Some(Payload::Inline(document)) = &entry.value else { return None };
    serde_json::from_slice(document).ok()
}

fn agents_count(view: &PoolView) -> u32 {
    u32::try_from(view.agents.len()).unwrap_or(u32::MAX)
}

/// Has a decision kept, and told to those who watch.
fn noted(event: &PoolEvent) -> Result<Command, ApiError> {
    let document = serde_json::to_vec(event).map_err(|why| faults::internal(&why))?;
    Ok(Command::SetEntry {
        register: DECISIONS.into(),
        key: event.pool.as_str().into(),
        value: Some(Payload::inline(&document)),
        expect: Expect::Anything,
    })
}

/// A decision as those who watch are told of it.
pub(super) fn told(value: Option<&Payload>) -> Option<PoolEvent> {
    let Some(Payload::Inline(document)) = value else { return None };
    serde_json::from_slice(document).ok()
}

impl Service {
    /// All pools.
    ///
    /// # Errors
    /// Why they cannot be told.
    pub async fn pools(&self) -> Result<PoolList, ApiError> {
        let plans = self.plans_of_pools().await?;
        let views = self.views(&plans).await?;
        let decisions = self.entries(DECISIONS).await?;
        let shown = |(plan, view)| self.shown_pool(plan, view, &decisions);
        let items: Vec<Pool> = plans.iter().zip(&views).map(shown).collect();
        Ok(PoolList { total_items: items.len() as u64, items })
    }

    /// One pool.
    ///
    /// # Errors
    /// That there is none of this name.
    pub async fn pool(&self, name: &str) -> Result<PoolEnvelope, ApiError> {
        let found = self.pools().await?.items.into_iter().find(|pool| pool.name == name);
        let pool = found.ok_or_else(|| not_found(name))?;
        let message = format!("{} of at most {} agents are there", pool.agents, pool.settings.max);
        Ok(PoolEnvelope { pool, message, warnings: Vec::new() })
    }

    /// Says how large a pool may be and when it grows, instead of the configuration.
    ///
    /// # Errors
    /// What is wrong with the request, or that there is no such pool.
    pub async fn change_pool(&self, name: &str, body: &[u8]) -> Result<PoolEnvelope, ApiError> {
        self.check_intake()?;
        let _alone = self.inner.alone.changes.lock().await;
        let plans = self.plans_of_pools().await?;
        let plan = plans.iter().find(|plan| plan.name == name).ok_or_else(|| not_found(name))?;
        let most = self.config().api.max_agents;
        let (settings, warnings) = pool::parse(body, self.bounds(), plan.settings, most)?;
        let kept = Kept::new(settings);
        let document = serde_json::to_vec(&kept).map_err(|why| faults::internal(&why))?;
        let command = Command::SetEntry {
            register: REGISTER.into(),
            key: name.into(),
            value: Some(Payload::inline(&document)),
            expect: Expect::Anything,
        };
        self.inner.driver.run(command, Echo::Id).await.map_err(faults::refused)?;
        self.resize_slots(plan, settings.slots).await?;
        self.inner.waiting.stir();
        let answer = self.pool(name).await?;
        Ok(PoolEnvelope { message: "pool changed".to_owned(), warnings, ..answer })
    }

    /// Agents that a pool should have, whatever its maximum says.
    ///
    /// # Errors
    /// That there is no pool of this name.
    pub async fn pool_demand(&self, name: &str) -> Result<u64, ApiError> {
        Ok(self.pool(name).await?.pool.demand)
    }

    /// Agents that are there take another number of attempts at once from now on.
    async fn resize_slots(&self, plan: &Plan, slots: u32) -> Result<(), ApiError> {
        for agent in self.serving().await? {
            let spec = &agent.record.spec;
            if spec.pool == plan.model.pool && spec.slots != slots {
                let agent = Arc::new(AgentSpec { slots, ..(**spec).clone() });
                let command = Command::RegisterAgent { agent };
                self.inner.driver.run(command, Echo::Id).await.map_err(faults::refused)?;
            }
        }
        Ok(())
    }

    async fn plans_of_pools(&self) -> Result<Vec<Plan>, ApiError> {
        let set = self.entries(REGISTER).await?;
        let mut set: BTreeMap<&str, Kept> =
            set.iter().filter_map(|entry| Some((&*entry.key, opened(entry)?))).collect();
        let plan = |(name, pool): (&String, &PoolConfig)| {
            let kept = set.remove(name.as_str()).unwrap_or_else(|| Kept::new(configured(pool)));
            let Kept { namespace, submitter, settings } = kept;
            let words = pool.capabilities.iter().map(|word| word.as_str().into());
            let (node, slots) = (self.inner.node, settings.slots);
            let model = member(name, name, Names::new(words), Runtime::Builtin, slots, node);
            let model = AgentSpec { namespace, submitter, ..model };
            Plan { name: name.clone(), settings, model: Arc::new(model) }
        };
        let plans: Vec<Plan> = self.config().pools.iter().map(plan).collect();
        let able = plans.iter().filter(|plan| plan.settings.max > 0);
        let models = able.map(|plan| plan.model.clone()).collect();
        self.inner.planning.abilities.set_pools(models);
        Ok(plans)
    }

    async fn views(&self, plans: &[Plan]) -> Result<Vec<PoolView>, ApiError> {
        let models = plans.iter().map(|plan| plan.model.clone()).collect();
        match self.ask(Query::Pools(models)).await? {
            Answer::Pools(views) => Ok(views),
            _ => Err(faults::internal(&"pools were something else")),
        }
    }

    fn shown_pool(&self, plan: &Plan, view: &PoolView, decisions: &[EntryRecord]) -> Pool {
        let decision = decisions.iter().find(|entry| *entry.key == *plan.name);
        Pool {
            name: plan.name.clone(),
            capabilities: plan.model.capabilities.iter().map(str::to_owned).collect(),
            settings: plan.settings,
            agents: agents_count(view),
            busy: view.agents.iter().map(|(_, held)| u32::from(*held > 0)).sum(),
            waiting: view.waiting,
            demand: demand(&plan.settings, view),
            last_decision: decision.and_then(opened),
        }
    }

    /// Looks at every pool once; whether any must be looked at again soon.
    async fn look(&self, memories: &mut BTreeMap<String, Memory>) -> Result<bool, ApiError> {
        let plans = self.plans_of_pools().await?;
        let views = self.views(&plans).await?;
        let mut restless = false;
        for (plan, view) in plans.iter().zip(&views) {
            let memory = memories.entry(plan.name.clone()).or_default();
            let at = Instant::now();
            memory.note(view, at);
            let count = agents_count(view);
            restless |= view.waiting > 0 && count < plan.settings.max;
            restless |= count != plan.settings.min;
            let Some(decision) = decide(&plan.settings, view, memory, at) else { continue };
            restless = true;
            match self.carry_out(plan, view, &decision).await {
                Ok(Done::Changed) => memory.changed(at),
                Ok(Done::Held(by)) => {
                    memory.held(at);
                    self.tell_held(plan, view, memory, &decision, by).await;
                }
                Err(why) => {
                    memory.failed(at);
                    let by = format!("the change failed: {}", why.message);
                    self.tell_held(plan, view, memory, &decision, by).await;
                }
            }
        }
        Ok(restless)
    }

    async fn carry_out(
        &self,
        plan: &Plan,
        view: &PoolView,
        decision: &Decision,
    ) -> Result<Done, ApiError> {
        let from = agents_count(view);
        let (mut commands, to, reason) = match decision {
            Decision::Start { count, reason } => match within(&self.room().await?, *count) {
                Ok((count, held)) => {
                    let reason = held.map_or(reason.clone(), |held| format!("{reason}; {held}"));
                    (self.newcomers(plan, count), from + count, reason)
                }
                Err(by) => return Ok(Done::Held(by)),
            },
            Decision::Stop { agents, reason } => {
                let end = AgentEnd::Retired;
                let commands = agents.iter().map(|agent| Command::EndAgent { agent: *agent, end });
                let gone = u32::try_from(agents.len()).unwrap_or(u32::MAX);
                (commands.collect(), from.saturating_sub(gone), reason.clone())
            }
        };
        let event = PoolEvent { pool: plan.name.clone(), from, to, reason, at: now() };
        commands.push(noted(&event)?);
        let done = commands.clone();
        let answers = self.inner.driver.run_all(commands, Echo::Id).await;
        for (command, answer) in done.iter().zip(answers.map_err(faults::refused)?) {
            answer.map_err(|rejection| faults::rejected(&rejection))?;
            match command {
                Command::RegisterAgent { agent } => {
                    self.inner.planning.note_agent(agent);
                }
                Command::EndAgent { agent, .. } => self.inner.planning.forget_agent(*agent),
                _ => {}
            }
        }
        info!(pool = event.pool, from, to, "a pool changed: {}", event.reason);
        Ok(Done::Changed)
    }

    /// Makes it a decision that nothing was done. What keeps the pool as it is, `by`, is told once:
    /// why it was to change names figures that are others at every look.
    async fn tell_held(
        &self,
        plan: &Plan,
        view: &PoolView,
        memory: &mut Memory,
        decision: &Decision,
        by: String,
    ) {
        if memory.held_by.as_ref() == Some(&by) {
            return;
        }
        let (Decision::Start { reason, .. } | Decision::Stop { reason, .. }) = decision;
        let reason = format!("{reason}; {by}");
        warn!(pool = plan.name, "the pool stays as it is: {reason}");
        let agents = agents_count(view);
        let pool = plan.name.clone();
        let event = PoolEvent { pool, from: agents, to: agents, reason, at: now() };
        let told = match noted(&event) {
            Ok(command) => self.inner.driver.run(command, Echo::Id).await.map_err(faults::refused),
            Err(fault) => Err(fault),
        };
        match told {
            Ok(_) => memory.held_by = Some(by),
            // What keeps the pool as it is may keep this from the journal as well.
            Err(fault) => warn!(pool = plan.name, "that could not be kept: {fault}"),
        }
    }

    /// What keeps the pools from growing whose agents could do a task that waits for one.
    pub(super) async fn pools_held(
        &self,
        record: &TaskRecord,
        blockers: &[Blocker],
    ) -> Result<Option<Blocker>, ApiError> {
        let needs_agent = |blocker: &Blocker| matches!(&*blocker.kind, "no_agent" | "agents_busy");
        if !matches!(record.stage, Stage::Ready { .. }) || !blockers.iter().any(needs_agent) {
            return Ok(None);
        }
        let Room { there, bound } = self.room().await?;
        if there < bound {
            return Ok(None);
        }
        let plans = self.plans_of_pools().await?;
        let views = self.views(&plans).await?;
        let could = |(plan, view): &(&Plan, &PoolView)| {
            view.waiting > 0
                && agents_count(view) < plan.settings.max
                && plan.model.can_do(&record.plan.namespace, &record.spec.demand)
        };
        let names = plans.iter().zip(&views).filter(could);
        let names: Vec<String> = names.map(|(plan, _)| format!("`{}`", plan.name)).collect();
        let message = format!("no agent can be added to the pool {}", names.join(", nor to "));
        Ok((!names.is_empty()).then(|| Blocker {
            kind: "agents_bound".to_owned(),
            message: format!("{message}: {}", bound_reached(bound, there)),
            since: present::time(record.times.ready.unwrap_or(record.times.created)),
            held_by: Vec::new(),
            unblock: "the end of an agent that is not needed, a higher `api.max_agents`, or a \
                      worker that can do it"
                .to_owned(),
            until: None,
        }))
    }

    async fn room(&self) -> Result<Room, ApiError> {
        let there = u32::try_from(self.own_agents_count().await?).unwrap_or(u32::MAX);
        Ok(Room { there, bound: self.config().api.max_agents })
    }

    fn newcomers(&self, plan: &Plan, count: u32) -> Vec<Command> {
        let newcomer = |_| {
            let id = super::new_id();
            let suffix = uuid::Uuid::from_u128(id).simple().to_string();
            let name = format!("{}-{}", plan.name, &suffix[suffix.len() - 8..]);
            let spec = AgentSpec { id: AgentId(id), name: name.into(), ..(*plan.model).clone() };
            Command::RegisterAgent { agent: Arc::new(spec) }
        };
        (0..count).map(newcomer).collect()
    }
}

fn not_found(name: &str) -> ApiError {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
    let message = format!("no pool has the name `{shown}`");
    ApiError::new(ErrorCode::PoolNotFound, message).with("pool", shown)
}

/// Has pools grow and shrink. They are as large as they must be when this returns.
pub(super) async fn attend(service: Service) -> Attendant {
    let mut memories = BTreeMap::new();
    if let Err(why) = service.look(&mut memories).await {
        warn!("pools are not looked at: {why}");
    }
    Attendant::start("pools' scaler", |_| async move { watch(&service, memories).await })
}

async fn watch(service: &Service, mut memories: BTreeMap<String, Memory>) {
    loop {
        service.inner.waiting.arm();
        let restless = match service.look(&mut memories).await {
            Ok(restless) => restless,
            Err(why) => {
                warn!("pools are not looked at: {why}");
                true
            }
        };
        if restless {
            tokio::time::sleep(LOOK).await;
        } else {
            tokio::time::sleep(BREATH).await;
            service.inner.waiting.next().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use maos_core::time::WallTime;

    use super::*;

    const SETTINGS: PoolSettings = PoolSettings {
        min: 0,
        max: 4,
        slots: 2,
        queue_depth: 5,
        wait_seconds: 3,
        idle_seconds: 10,
        cooldown_seconds: 2,
    };

    fn view(agents: &[u32], waiting: u64, waited_ms: u64) -> PoolView {
        let agents = (1..).zip(agents).map(|(id, held)| (AgentId(id), *held)).collect();
        PoolView { agents, waiting, waited_ms }
    }

    #[test]
    fn what_is_set_for_a_pool_says_whose_it_is_also_when_it_is_from_before() {
        let stored = |value: &serde_json::Value| {
            let (register, key) = (REGISTER.into(), "p".into());
            let value = Some(Payload::inline(value.to_string().as_bytes()));
            let (created, updated) = (WallTime::default(), WallTime::default());
            opened::<Kept>(&EntryRecord { register, key, value, created, updated })
        };
        let before = serde_json::to_value(SETTINGS).unwrap();
        assert_eq!(stored(&before), Some(Kept::new(SETTINGS)));
        let now = serde_json::to_value(Kept::new(SETTINGS)).unwrap();
        assert_eq!((&now["namespace"], &now["submitter"]), (&"default".into(), &"".into()));
        assert_eq!(stored(&now), Some(Kept::new(SETTINGS)));
        let mut other = now;
        other["namespace"] = "lab".into();
        assert_eq!(&*stored(&other).unwrap().namespace, "lab");
    }

    fn started(decision: Option<Decision>) -> Option<u32> {
        match decision? {
            Decision::Start { count, .. } => Some(count),
            Decision::Stop { .. } => None,
        }
    }

    #[test]
    fn a_pool_grows_by_what_waits_and_how_long_up_to_its_bound() {
        let (memory, now) = (Memory::default(), Instant::now());
        let decide = |view: &PoolView| started(decide(&SETTINGS, view, &memory, now));
        assert_eq!(decide(&view(&[], 1, 0)), Some(1), "from nothing at once");
        assert_eq!(decide(&view(&[2], 4, 100)), None, "few, and not for long");
        assert_eq!(decide(&view(&[2], 5, 100)), Some(3), "many");
        assert_eq!(decide(&view(&[2], 1, 3_000)), Some(1), "one, for long");
        assert_eq!(decide(&view(&[2, 2, 2], 900, 0)), Some(1), "as many as may be there");
        assert_eq!(decide(&view(&[2, 2, 2, 2], 900, 9_000)), None);
        let always = PoolSettings { min: 2, ..SETTINGS };
        assert_eq!(started(super::decide(&always, &view(&[], 0, 0), &memory, now)), Some(2));
        assert_eq!(demand(&SETTINGS, &view(&[2, 0], 7, 0)), 5);
        assert_eq!(demand(&always, &view(&[], 0, 0)), 2);
    }

    #[test]
    fn a_pool_rests_between_two_changes_and_after_a_failure() {
        let now = Instant::now();
        let mut memory = Memory { changed_at: Some(now), ..Memory::default() };
        let busy = view(&[2], 50, 0);
        let after = |memory: &Memory, ms| {
            started(decide(&SETTINGS, &busy, memory, now + Duration::from_millis(ms)))
        };
        assert_eq!((after(&memory, 1_900), after(&memory, 2_000)), (None, Some(3)));
        memory = Memory::default();
        memory.failed(now);
        assert_eq!((after(&memory, 900), after(&memory, 1_000)), (None, Some(3)));
        memory.failed(now);
        assert_eq!((after(&memory, 1_900), after(&memory, 2_000)), (None, Some(3)));
        (0..20).for_each(|_| memory.failed(now));
        assert_eq!(after(&memory, 60_000), Some(3), "no pause is longer");
    }

    #[test]
    fn agents_that_had_nothing_to_do_go_the_longest_idle_first() {
        let now = Instant::now();
        let settings = PoolSettings { min: 1, ..SETTINGS };
        let mut memory = Memory::default();
        memory.note(&view(&[0, 1, 0], 0, 0), now);
        let later = now + Duration::from_secs(9);
        memory.note(&view(&[0, 0, 0], 0, 0), later);
        assert_eq!(decide(&settings, &view(&[0, 0, 0], 0, 0), &memory, later), None);
        let late = now + Duration::from_secs(10);
        let Some(Decision::Stop { agents, .. }) =
            decide(&settings, &view(&[0, 0, 0], 0, 0), &memory, late)
        else {
            panic!("two are idle for long enough")
        };
        assert_eq!(agents, [AgentId(1), AgentId(3)]);
        assert_eq!(decide(&settings, &view(&[0, 0, 0], 1, 0), &memory, late), None, "not now");
        let shrunk = PoolSettings { max: 1, ..settings };
        let Some(Decision::Stop { agents, .. }) =
            decide(&shrunk, &view(&[1, 0], 0, 0), &memory, now)
        else {
            panic!("one is too many")
        };
        assert_eq!(agents, [AgentId(2)], "the one that does less");
    }
}
