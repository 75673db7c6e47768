//! Start and stop: open what is durable, recover, take over, set up the agents; and the way back.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maos_api::error::ApiError;
use maos_api::logs::{LogLevel, LogSource};
use maos_api::resource::Resource;
use maos_api::time::UtcTime;
use maos_core::change::Change;
use maos_core::command::Command;
use maos_core::engine::State;
use maos_core::event::{AgentEnd, Step};
use maos_core::ids::{AgentId, Epoch, NodeId, Sequence};
use maos_core::node::{Echo, Node};
use maos_core::spec::{AgentSpec, Amounts, Name, Names, Policy, Runtime};
use thiserror::Error;
use tokio::runtime::Handle as TokioRuntime;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::abilities::Abilities;
use super::attendant::Attendant;
use super::figures::RowCounts;
use super::planning::Planning;
use super::resources::{self, Kinds};
use super::retention::Keeper;
use super::{Alone, Ending, Inner, Room, Service, checkpoints, new_id, now, pools, schedules};
use crate::agents::builtin::Builtin;
use crate::agents::command::Commands;
use crate::agents::http::{HttpAgents, NoSecret, POOL};
use crate::agents::worker::Workers;
use crate::agents::{AllowedRoots, Order, Roster, Runtimes, Sinks};
use crate::blobs::Blobs;
use crate::config::{Config, PoolConfig, SchedulingPolicy};
use crate::data_dir::{DataDir, LOGS, MESSAGES};
use crate::driver::{self, Ports, Refused, Running, Waiting};
use crate::feed::Feed;
use crate::journal::{Journal, JournalError};
use crate::logs::{Line, Logs};
use crate::messages::{Bus, Counts};
use crate::outbound::Outbound;
use crate::payloads::Payloads;
use crate::store::checkpoint::Checkpoints;
use crate::store::recovery::Opened;
use crate::store::{self, StoreError};
use crate::streams::StreamError;
use crate::supervisor::{Supervisor, SupervisorError};
use crate::webhooks::{Subscriptions, WebhookCounts, Webhooks};

/// Requests that may wait in the driver's mailbox.
const MAILBOX_MAX: usize = 16_384;

/// Why the server could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The store or the data directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The process that runs programs.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// Logs or messages.
    #[error(transparent)]
    Streams(#[from] StreamError),
    /// Subscriptions.
    #[error(transparent)]
    Subscriptions(#[from] ApiError),
    /// A secret.
    #[error(transparent)]
    NoSecret(#[from] NoSecret),
    /// A thread or folder.
    #[error("`{what}` could not be set up")]
    Io {
        /// What.
        what: String,
        /// The fault.
        #[source]
        source: std::io::Error,
    },
    /// The first commands were refused.
    #[error("the engine refused to start: {0}")]
    Refused(#[from] Refused),
}

/// What a server needs beside its configuration.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where everything durable is.
    pub data_dir: PathBuf,
    /// Used when `files.roots` is empty.
    pub default_root: PathBuf,
    /// This program and the argument that makes it a supervisor.
    pub supervisor: Vec<OsString>,
    /// This program and the argument that makes it work on data.
    pub data_worker: Vec<OsString>,
    /// How this server is reached from where it runs, such as `http://127.0.0.1:8000`; `None`: it
    /// is not.
    pub base_url: Option<String>,
}

/// A running server without its HTTP.
pub struct Server {
    /// Answers requests.
    pub service: Service,
    driver: Running,
    roster: Roster,
    supervisor: Arc<Supervisor>,
    store: store::Store,
    attendants: Attendants,
}

/// What goes on beside requests.
struct Attendants {
    keeper: Keeper,
    scheduler: Attendant,
    checkpoints: Attendant,
    scaler: Attendant,
}

impl Attendants {
    async fn start(service: &Service, keeper: Keeper) -> Attendants {
        let scheduler = schedules::attend(service.clone());
        let checkpoints = checkpoints::attend(service.clone());
        let scaler = pools::attend(service.clone()).await;
        if let Err(why) = service.resume_callbacks().await {
            warn!("callbacks of an earlier server wait for the next start: {why}");
        }
        Attendants { keeper, scheduler, checkpoints, scaler }
    }

    async fn stop(self) {
        self.scheduler.stop().await;
        self.checkpoints.stop().await;
        self.scaler.stop().await;
        self.keeper.stop().await;
    }
}

/// What goes on while one service takes the place of another: the process, and what it counts.
#[derive(Clone)]
pub(crate) struct Reign {
    started: Instant,
    pub(super) started_at: UtcTime,
    counts: Arc<Counts>,
    webhook_counts: Arc<WebhookCounts>,
}

impl Reign {
    fn begin() -> Reign {
        let (counts, webhook_counts) = Default::default();
        Reign { started: Instant::now(), started_at: now(), counts, webhook_counts }
    }

    /// How long it has been.
    pub(super) fn seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

/// Starts everything below HTTP.
///
/// # Errors
/// What could not be opened, recovered or set up.
pub async fn start(config: Config, setup: Setup) -> Result<Server, StartError> {
    start_under(Reign::begin(), config, setup).await
}

/// The same in the place of a service that was there before in this process.
pub(crate) async fn start_under(
    reign: Reign,
    config: Config,
    setup: Setup,
) -> Result<Server, StartError> {
    let recovered = recovered(&setup.data_dir, &config).await?;
    let Recovered { store, journal, blobs, node, state, restored } = recovered;
    let (logs, bus) = beside(&setup.data_dir, &config, &store, node, &reign)?;
    let epoch = Epoch(journal.epoch().0);
    let payloads = Payloads::new(blobs.clone());
    let supervisor = Arc::new(Supervisor::start(&setup.supervisor, &setup.data_dir).await?);
    let outbound = outbound(&config);
    let http_agents = Arc::new(http_agents(&config, &setup, &payloads)?);
    let runtimes = runtimes(&config, &setup, &supervisor, (&bus, &outbound), &http_agents)?;
    let (orders, orders_rx) = mpsc::unbounded_channel();
    let (feed, waiting, abilities, rows) = Default::default();
    let ports = ports(orders, &feed, keep(&store, &abilities, &rows), &store, &waiting);
    let (known, silence) = (serving(&state), Duration::from_secs(config.api.worker_timeout));
    let declared: Vec<_> = state.entries(resources::REGISTER).cloned().collect();
    let running = driver::start(engine(state, silence), journal, ports, MAILBOX_MAX)
        .map_err(|source| StartError::Io { what: "engine thread".into(), source })?;
    let handle = running.handle.clone();
    let progress: super::tasks::ProgressBoard = Arc::new(Mutex::new(HashMap::new()));
    let planning = Arc::new(Planning::new(handle.clone(), &config, abilities));
    let sinks = sinks(&handle, &progress, &planning, &logs);
    let workers = Arc::new(Workers::new(silence));
    let roster = Roster::new(runtimes, workers.clone(), payloads.clone(), sinks.clone());
    tokio::spawn(roster.clone().run(orders_rx));
    handle.run(driver::begin(epoch, node), Echo::Id).await?;
    let resources = resources::declared(&config.resources, &declared);
    provide(&handle, &planning, &resources).await?;
    take_on(&handle, &planning, staff(&config, node, &known), &known).await?;
    fence_workers(&handle, &planning, known.values().filter(|_| restored)).await?;
    let checkpoints = Arc::new(Checkpoints::open(&setup.data_dir)?);
    let beside = (logs.clone(), checkpoints.clone());
    let keeper = Keeper::start(handle.clone(), store.clone(), blobs, beside, config.store);
    let webhooks = webhooks(&config, outbound, &reign);
    let subscriptions = Subscriptions::open(bus.clone(), webhooks.clone()).await?;
    let inner = Inner {
        driver: handle,
        store: store.clone(),
        payloads,
        config,
        node,
        epoch,
        reign,
        rows,
        feed,
        logs,
        bus,
        subscriptions,
        webhooks,
        room: Room::default(),
        ending: Ending::default(),
        progress,
        planning,
        supervisor: supervisor.clone(),
        workers,
        http_agents,
        sinks,
        checkpoints,
        waiting,
        alone: Alone::default(),
        schedules_changed: tokio::sync::Notify::new(),
    };
    let service = served(inner);
    let attendants = Attendants::start(&service, keeper).await;
    Ok(Server { service, driver: running, roster, supervisor, store, attendants })
}

async fn recovered(data_dir: &Path, config: &Config) -> Result<Recovered, StartError> {
    let (started, opened) = (Instant::now(), data_dir.to_owned());
    let (policy, own_max) = (config.scheduling.policy, config.api.max_concurrent_tasks);
    let (runtime, blobs) = (TokioRuntime::current(), config.blobs.clone());
    let recovered = tokio::task::spawn_blocking(move || {
        let documents =
            |dir: &DataDir| runtime.block_on(Blobs::open(&dir.blobs(), &blobs, dir.node()));
        recover(store::recovery::open_with(&opened, documents)?, policy, own_max)
    });
    let recovered = recovered.await.expect("recovery does not panic")?;
    tell_recovery(&recovered.state, started, data_dir);
    Ok(recovered)
}

fn webhooks(config: &Config, outbound: Outbound, reign: &Reign) -> Webhooks {
    let (counts, at_once) = (reign.webhook_counts.clone(), config.message_bus.worker_count);
    Webhooks::new(config.webhooks.clone(), at_once, outbound, counts)
}

/// The service, which the bus can ask from then on.
fn served(inner: Inner) -> Service {
    let inner = Arc::new(inner);
    inner.bus.ask(super::messages::look_up(&inner));
    Service { inner }
}

fn serving(state: &State) -> HashMap<AgentId, Arc<AgentSpec>> {
    let serving = state.agents().filter(|agent| agent.end.is_none());
    serving.map(|agent| (agent.spec.id, agent.spec)).collect()
}

fn tell_recovery(state: &State, started: Instant, data_dir: &Path) {
    info!(
        tasks.live = state.live_count(),
        elapsed_ms = started.elapsed().as_millis(),
        "recovered {} live tasks from `{}`",
        state.live_count(),
        data_dir.display()
    );
}

/// What is kept beside the store, and goes with its tasks.
fn beside(
    data_dir: &Path,
    config: &Config,
    store: &store::Store,
    node: NodeId,
    reign: &Reign,
) -> Result<(Logs, Bus), StreamError> {
    let logs = Logs::open(&data_dir.join(LOGS), config.logs, node)?;
    let counts = reign.counts.clone();
    let bus = Bus::open_counting(&data_dir.join(MESSAGES), config.message_bus, node, counts)?;
    let (logged, told) = (logs.clone(), bus.clone());
    store.on_removed(Box::new(move |tasks| {
        logged.forget(tasks);
        told.forget(tasks);
    }));
    Ok((logs, bus))
}

fn ports(
    orders: mpsc::UnboundedSender<Vec<Order>>,
    feed: &Feed,
    keep: Box<dyn FnMut(store::Changes) + Send>,
    store: &store::Store,
    waiting: &Arc<Waiting>,
) -> Ports {
    Ports {
        orders,
        at_once: Roster::at_once,
        tell: tell(feed),
        keep,
        kept: store.synced(),
        waiting: waiting.clone(),
    }
}

/// What is done with the rows that changed, once they are durable.
fn keep(
    store: &store::Store,
    abilities: &Arc<Abilities>,
    counts: &Arc<RowCounts>,
) -> Box<dyn FnMut(store::Changes) + Send> {
    let (store, abilities, counts) = (store.clone(), abilities.clone(), counts.clone());
    Box::new(move |changes| {
        abilities.follow(&changes.agents);
        counts.groups.add(1);
        counts.rows.add(changes.tasks.len() as u64);
        store.write(changes);
    })
}

fn tell(feed: &Feed) -> Box<dyn FnMut(Epoch, Sequence, Vec<Change>) + Send> {
    let feed = feed.clone();
    Box::new(move |epoch, sequence, changes| feed.tell(epoch, sequence, changes))
}

fn engine(state: State, silence: Duration) -> Node {
    let mut node = Node::new(state);
    node.lose_agents_after(u64::try_from(silence.as_millis()).unwrap_or(u64::MAX));
    node
}

/// Says how much there is of each kind of resource.
async fn provide(
    handle: &driver::Handle,
    planning: &Planning,
    resources: &[Resource],
) -> Result<(), Refused> {
    let kinds = Kinds::new(resources.iter().map(|resource| &resource.spec));
    handle.run(Command::SetCapacity { capacity: kinds.capacity() }, Echo::Id).await?;
    planning.set_kinds(kinds);
    Ok(())
}

/// Workers may hold attempts of a state that no longer is: they must stop them and register again.
async fn fence_workers(
    handle: &driver::Handle,
    planning: &Planning,
    agents: impl Iterator<Item = &Arc<AgentSpec>>,
) -> Result<(), Refused> {
    for agent in agents.filter(|agent| !agent.runtime.ends_with_server()) {
        let command = Command::EndAgent { agent: agent.id, end: AgentEnd::Lost };
        handle.run(command, Echo::Id).await?;
        planning.forget_agent(agent.id);
    }
    Ok(())
}

/// Carries out what brings the agents in line; `planning` knows them from then on.
async fn take_on(
    handle: &driver::Handle,
    planning: &Planning,
    commands: Vec<Command>,
    known: &HashMap<AgentId, Arc<AgentSpec>>,
) -> Result<(), Refused> {
    for spec in known.values() {
        planning.note_agent(spec);
    }
    for command in commands {
        match &command {
            Command::RegisterAgent { agent } => planning.note_agent(agent),
            Command::EndAgent { agent, .. } => planning.forget_agent(*agent),
            _ => {}
        }
        handle.run(command, Echo::Id).await?;
    }
    Ok(())
}

impl Server {
    /// The engine itself, for an application that makes plans of its own.
    #[must_use]
    pub fn engine(&self) -> &driver::Handle {
        &self.driver.handle
    }

    /// Gives what runs `grace` to end by itself, then stops it.
    pub async fn wind_down(&self, grace: Duration) {
        self.roster.wind_down(grace).await;
    }

    /// Stops in order: intake, attempts (with `grace` to end by themselves), the engine, the store.
    pub async fn stop(self, grace: Duration) {
        self.service.stop_intake();
        self.attendants.stop().await;
        self.roster.wind_down(grace).await;
        self.driver.stop().await;
        let store = self.store.clone();
        let (logs, bus) = (self.service.inner.logs.clone(), self.service.inner.bus.clone());
        super::tasks::blocking(move || {
            logs.close();
            bus.close();
            store.close();
        })
        .await;
        self.supervisor.shutdown(Duration::from_secs(2)).await;
    }
}

struct Recovered {
    store: store::Store,
    journal: Box<dyn crate::journal::Journal>,
    blobs: Arc<Blobs>,
    node: NodeId,
    state: State,
    /// Whether the state is that of a checkpoint, as of now.
    restored: bool,
}

/// Brings the engine of an opened data directory back to its last durable step.
fn recover(
    mut opened: Opened,
    policy: SchedulingPolicy,
    own_max: u32,
) -> Result<Recovered, StartError> {
    let mut state = State::recover(std::mem::take(&mut opened.rows));
    state.set_own_max(own_max.into());
    state.set_policy(match policy {
        SchedulingPolicy::Fair => Policy::Fair,
        SchedulingPolicy::Priority => Policy::Priority,
        SchedulingPolicy::BestFit => Policy::BestFit,
    });
    opened.replay(&mut |sequence, step: Step| {
        state.begin_step(sequence, step.moment);
        for event in &step.events {
            state.apply(event);
        }
    })?;
    let epoch = Epoch(opened.journal.epoch().0.max(state.epoch().0) + 1);
    opened.journal.claim(epoch)?;
    Ok(Recovered {
        store: opened.store,
        journal: Box::new(opened.journal),
        blobs: Arc::new(opened.blobs),
        node: opened.node,
        state,
        restored: opened.restored,
    })
}

fn sinks(
    handle: &driver::Handle,
    progress: &super::tasks::ProgressBoard,
    planning: &Arc<Planning>,
    logs: &Logs,
) -> Sinks {
    let planning = planning.clone();
    let noted = logs.clone();
    Sinks {
        report: report_to(handle, progress),
        watch: watch_with(handle, progress, logs),
        note: Arc::new(move |task, attempt, line| drop(noted.note(task, attempt, vec![line]))),
        expand: Arc::new(move |task, answer, most| planning.expand(task, answer, most)),
    }
}

fn report_to(
    handle: &driver::Handle,
    progress: &super::tasks::ProgressBoard,
) -> crate::agents::ReportSink {
    let (handle, progress) = (handle.clone(), progress.clone());
    Arc::new(move |commands| {
        let mut board = progress.lock().expect("nothing panics while it holds this lock");
        if !board.is_empty() {
            for command in &commands {
                if let Command::Report { task, .. } | Command::Release { task, .. } = command {
                    board.remove(task);
                }
            }
        }
        drop(board);
        handle.report(commands);
    })
}

fn watch_with(
    handle: &driver::Handle,
    progress: &super::tasks::ProgressBoard,
    logs: &Logs,
) -> crate::agents::WatchSink {
    let (handle, progress, logs) = (handle.clone(), progress.clone(), logs.clone());
    Arc::new(move |task, attempt, sign| {
        if let Some(words) = &sign.message {
            let line = Line::now(LogLevel::Info, LogSource::Progress, words);
            drop(logs.note(task, attempt, vec![line]));
        }
        progress.lock().expect("nothing panics while it holds this lock").insert(task, sign);
        handle.progressed(task, attempt);
    })
}

fn outbound(config: &Config) -> Outbound {
    Outbound::new(config.outbound.rules())
}

fn http_agents(
    config: &Config,
    setup: &Setup,
    payloads: &Payloads,
) -> Result<HttpAgents, StartError> {
    let public = Some(config.api.public_url.trim_end_matches('/')).filter(|url| !url.is_empty());
    let base_url = public.map(str::to_owned).or_else(|| setup.base_url.clone());
    let rules = config.outbound.rules();
    Ok(HttpAgents::new(&config.http_agents, &rules, payloads.clone(), base_url)?)
}

fn runtimes(
    config: &Config,
    setup: &Setup,
    supervisor: &Arc<Supervisor>,
    (bus, outbound): (&Bus, &Outbound),
    http_agents: &Arc<HttpAgents>,
) -> Result<Runtimes, StartError> {
    let roots = if config.files.roots.is_empty() {
        vec![setup.default_root.clone()]
    } else {
        config.files.roots.clone()
    };
    for root in &roots {
        std::fs::create_dir_all(root).map_err(|source| {
            let what = format!("files.roots: {}", root.display());
            StartError::Io { what, source }
        })?;
    }
    let builtin = Builtin::new(
        AllowedRoots { roots },
        setup.data_worker.clone(),
        bus.clone(),
        outbound.clone(),
    );
    let work = setup.data_dir.join("work");
    // What a killed server left: its programs are gone, and nobody looks there again.
    match std::fs::remove_dir_all(&work) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(StartError::Io { what: work.display().to_string(), source });
        }
        Ok(()) | Err(_) => {}
    }
    let commands = Commands::new(config.commands.clone(), work, supervisor.clone(), bus.clone());
    let (builtin, command) = (Arc::new(builtin), Arc::new(commands));
    Ok(Runtimes { builtin, command, http: http_agents.clone() })
}

/// The commands that bring the agents in line with the configuration: those that programs and URLs
/// call for, and no others; pools look after the number of theirs themselves. Agents that somebody
/// created stay.
fn staff(config: &Config, node: NodeId, known: &HashMap<AgentId, Arc<AgentSpec>>) -> Vec<Command> {
    let mut wanted: BTreeMap<(Name, Name), AgentSpec> = BTreeMap::new();
    for (program, command) in &config.commands {
        let name: Name = program.as_str().into();
        let capabilities = Names::new(command.capabilities.iter().map(|name| name.as_str().into()));
        let kind = command.agent_type.as_deref().unwrap_or(program);
        let spec = member(kind, &name, capabilities, Runtime::Command, command.slots, node);
        let spec = AgentSpec { pool: Some(format!("commands.{program}").into()), ..spec };
        wanted.insert((format!("commands.{program}").into(), name), spec);
    }
    for (target, http) in &config.http_agents {
        let (name, pool): (Name, Name) = (target.as_str().into(), format!("{POOL}{target}").into());
        let capabilities = Names::new(http.capabilities.iter().map(|name| name.as_str().into()));
        let kind = http.agent_type.as_deref().unwrap_or(target);
        let spec = member(kind, &name, capabilities, Runtime::Http, http.slots, node);
        wanted.insert((pool.clone(), name), AgentSpec { pool: Some(pool), ..spec });
    }
    let mut commands = Vec::new();
    for (id, spec) in known {
        let Some(pool) = &spec.pool else { continue };
        if let Some(config) = config.pools.get(&**pool) {
            commands.extend(refreshed(pool, config, *id, spec, node));
            continue;
        }
        match wanted.remove(&(pool.clone(), spec.name.clone())) {
            Some(now) => {
                let agent = Arc::new(AgentSpec { id: *id, ..now });
                commands.push(Command::RegisterAgent { agent });
            }
            None => commands.push(Command::EndAgent { agent: *id, end: AgentEnd::Retired }),
        }
    }
    commands
        .extend(wanted.into_values().map(|spec| Command::RegisterAgent { agent: Arc::new(spec) }));
    commands
}

/// An agent of a pool, if it is to be another than it was.
fn refreshed(
    kind: &str,
    pool: &PoolConfig,
    id: AgentId,
    spec: &AgentSpec,
    node: NodeId,
) -> Option<Command> {
    let capabilities = Names::new(pool.capabilities.iter().map(|name| name.as_str().into()));
    // Its slots are the pool's affair: they may have been changed since.
    let now = member(kind, &spec.name, capabilities, Runtime::Builtin, spec.slots, node);
    let agent = Arc::new(AgentSpec { id, ..now });
    (*agent != *spec).then_some(Command::RegisterAgent { agent })
}

pub(super) fn member(
    kind: &str,
    name: &str,
    capabilities: Names,
    runtime: Runtime,
    slots: u32,
    node: NodeId,
) -> AgentSpec {
    AgentSpec {
        id: AgentId(new_id()),
        namespace: "default".into(),
        submitter: "".into(),
        name: name.into(),
        agent_type: kind.into(),
        capabilities,
        runtime,
        node,
        slots,
        pool: Some(kind.into()),
        configuration: None,
        resource_limits: Amounts::default(),
        tags: Names::default(),
        silence_ms: None,
    }
}
