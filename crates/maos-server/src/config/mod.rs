//! The configuration: defaults < file < environment < flags, resolved once into one value.
//!
//! Every key has an effect; an unknown one is an error; what is not built yet makes the server
//! refuse to start and say so. It must not know who uses it.

mod blobs;
mod layers;
#[cfg(test)]
mod reference;
mod unheeded;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use maos_api::agent::HEARTBEAT_TIMEOUT_MAX;
use maos_core::limits;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

pub use blobs::{Blobs, Bucket};
pub use layers::{Layers, Origin, Shown};

use crate::agents::command::CommandConfig;
use crate::agents::http::{BadSetting, HttpAgentConfig};
use crate::outbound::Rules;

/// What is in force.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How the server is reached, and what it takes.
    pub api: Api,
    /// Where files are.
    pub files: Files,
    /// Which of the tasks that could start does.
    pub scheduling: Scheduling,
    /// How long what has ended is kept.
    pub store: Store,
    /// Where large documents are kept.
    pub blobs: Blobs,
    /// Copies of the state that it makes by itself.
    pub checkpoints: Checkpoints,
    /// What agents have to say about their work.
    pub logs: Logs,
    /// How much waits in mailboxes, and who delivers.
    pub message_bus: MessageBus,
    /// What it may reach by itself.
    pub outbound: Outbound,
    /// How messages are posted to others.
    pub webhooks: Webhooks,
    /// What it says about itself.
    pub log: Log,
    /// The default pool of resources: amount by kind. A kind that is not here has no bound.
    pub resources: BTreeMap<String, f64>,
    /// How many agents of each default kind there are, each built in.
    pub pools: BTreeMap<String, PoolConfig>,
    /// Programs that are agents, by name.
    pub commands: BTreeMap<String, CommandConfig>,
    /// URLs that are agents, by name.
    pub http_agents: BTreeMap<String, HttpAgentConfig>,
}

/// `[api]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Address to listen on: `localhost` or an IP address.
    #[serde(deserialize_with = "address")]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// How others reach it, for callbacks; empty: by the address that it listens on.
    pub public_url: String,
    /// Agents that MAOS itself starts, at the most.
    pub max_agents: u32,
    /// Attempts at once that the server itself runs: built-in, command and HTTP agents. Workers
    /// have bounds of their own.
    pub max_concurrent_tasks: u32,
    /// Workers that may be registered at once.
    pub max_workers: u32,
    /// Seconds of silence after which a worker is lost, and what it held goes to others.
    pub worker_timeout: u64,
    /// Time of an attempt, in seconds, when the submission names none.
    pub default_task_timeout: u64,
    /// Most time of an attempt, in seconds, that a submission may name.
    pub max_task_timeout: u64,
    /// Seconds that running attempts have to end by themselves when the server stops.
    pub shutdown_grace: u64,
    /// Bytes of one file that is kept with a task.
    pub artifact_bytes_max: u64,
}

/// `[files]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Folders that `file.*` and `data.*` may touch; empty: `files` in the data directory for
    /// `maos serve`, the working directory for `maos run`.
    pub roots: Vec<PathBuf>,
}

/// `[scheduling]`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scheduling {
    /// By what a task is chosen.
    pub policy: SchedulingPolicy,
}

/// By what a task is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SchedulingPolicy {
    /// Fairness keys take turns; within each, as `priority`.
    #[default]
    Fair,
    /// By priority and age, whoever sent it.
    Priority,
    /// Of the first ones by priority and age, the one that leaves the least of what it needs.
    BestFit,
}

/// `[store]`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Plans that ended more than so many days ago are removed; 0: none.
    pub keep_days: u32,
    /// The oldest ended plans are removed while there are more tasks than that; 0: none.
    pub keep_tasks: u64,
}

/// `[checkpoints]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoints {
    /// Seconds between two that are made without being asked for, and more when they take long; 0:
    /// none are made. Nothing is written while nothing changes.
    pub every_seconds: u64,
    /// How many of those are kept, the newest ones.
    pub keep: u32,
}

impl Default for Checkpoints {
    fn default() -> Checkpoints {
        Checkpoints { every_seconds: 30, keep: 3 }
    }
}

/// `[logs]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// Lines of one task; the last one then says that the rest was cut.
    pub task_lines_max: u64,
    /// Bytes of one task's lines.
    pub task_bytes_max: u64,
    /// Bytes of all lines; beyond that the oldest tasks lose theirs.
    pub bytes_max: u64,
    /// Lines older than so many days are removed; 0: they are kept as long as their task.
    pub keep_days: u32,
}

impl Default for Logs {
    fn default() -> Logs {
        let (task_lines_max, task_bytes_max) = (100_000, 16 << 20);
        Logs { task_lines_max, task_bytes_max, bytes_max: 1 << 30, keep_days: 0 }
    }
}

/// `[message_bus]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MessageBus {
    /// Unread messages of one mailbox; more are refused.
    pub max_queue_size: u64,
    /// Webhooks that are called at once.
    pub worker_count: u32,
    /// Bytes of all messages; what everybody has read goes first, then more are refused.
    pub bytes_max: u64,
}

impl Default for MessageBus {
    fn default() -> MessageBus {
        MessageBus { max_queue_size: 10_000, worker_count: 4, bytes_max: 1 << 30 }
    }
}

/// `[outbound]`: what the server itself may reach, for webhooks and `http.request` alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    /// Whether inner addresses may be reached: loopback, private and link-local ones.
    pub allow_private: bool,
    /// Hosts that may be reached wherever they are, by the name or address in the URL.
    pub allow_hosts: Vec<String>,
}

impl Outbound {
    /// The same as whoever sends requests takes it.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules { allow_private: self.allow_private, allow_hosts: self.allow_hosts.clone() }
    }
}

/// `[webhooks]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// Tries of one delivery before it is given up.
    pub attempts_max: u32,
    /// Seconds that one try may take.
    pub timeout_seconds: u64,
    /// Milliseconds before the second try; doubled each time up to five minutes, and spread.
    pub retry_pause_ms: u64,
}

impl Default for Webhooks {
    fn default() -> Webhooks {
        Webhooks { attempts_max: 8, timeout_seconds: 15, retry_pause_ms: 1_000 }
    }
}

/// `[log]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The least serious that is written.
    pub level: Level,
    /// How a line looks.
    pub format: Format,
}

/// How serious a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Everything.
    Debug,
    /// Steps of life.
    Info,
    /// Degraded but going on.
    Warning,
    /// Somebody must act.
    Error,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `[pools.<agent type>]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// What its agents can do.
    pub capabilities: Vec<String>,
    /// Attempts at once on each of its agents.
    pub slots: u32,
    /// Agents that are always there; 0: none while there is nothing to do.
    #[serde(default = "one")]
    pub min: u32,
    /// Agents at the most.
    #[serde(default = "one")]
    pub max: u32,
    /// So many waiting tasks for each agent call for another one.
    #[serde(default = "one")]
    pub queue_depth: u32,
    /// A task that has waited so long calls for another agent.
    #[serde(default = "PoolConfig::wait_seconds")]
    pub wait_seconds: u64,
    /// An agent above `min` that had nothing to do for so long ends.
    #[serde(default = "PoolConfig::idle_seconds")]
    pub idle_seconds: u64,
    /// Seconds between two changes of its size.
    #[serde(default = "PoolConfig::cooldown_seconds")]
    pub cooldown_seconds: u64,
}

fn one() -> u32 {
    1
}

impl PoolConfig {
    fn wait_seconds() -> u64 {
        5
    }

    fn idle_seconds() -> u64 {
        60
    }

    fn cooldown_seconds() -> u64 {
        2
    }
}

/// Reads what `api.host` says. Other names are not looked up: which of its addresses is meant would
/// be a guess.
fn address<'de, D: Deserializer<'de>>(from: D) -> Result<IpAddr, D::Error> {
    let text = String::deserialize(from)?;
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::from(Ipv4Addr::LOCALHOST));
    }
    // As it stands in a URL.
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let parsed = match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().map(IpAddr::from),
        None => text.parse(),
    };
    parsed.map_err(|_| {
        D::Error::custom(format!(
            "`{text}` is no address to listen on, it must be `localhost` or an IP address such as \
             127.0.0.1, 0.0.0.0 or ::1"
        ))
    })
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("`{}` cannot be read\n\
         hint: name the right file with --config, or leave it out", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error(
        "`{}` is not TOML: {}\nhint: correct it where it says",
        path.display(),
        fault.trim_end()
    )]
    NotToml {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        fault: String,
    },
    /// A key or its value is wrong.
    #[error(
        "{origin}: {fault}\nhint: docs/config.md describes every key; `maos config show` lists \
         those in force"
    )]
    Invalid {
        /// Where it was set, with the line of a file.
        origin: String,
        /// What is wrong.
        fault: String,
    },
    /// A value is out of its bounds.
    #[error("`{key}` is {found}, it must be {wanted}")]
    OutOfBounds {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it may be.
        wanted: String,
    },
    /// Something that is not built yet was asked for.
    #[error(
        "`{variable}` is set, and this release cannot do that yet: {what}\n\
             hint: unset it; the server refuses to run with less than what was asked for"
    )]
    NotBuilt {
        /// The variable.
        variable: String,
        /// What it asks for.
        what: &'static str,
    },
}

impl Default for Config {
    fn default() -> Config {
        let kinds: [(&str, f64); 4] = [
            ("cpu_cores", 100.0),
            ("memory_mb", 32_768.0),
            ("disk_mb", 102_400.0),
            ("network_mbps", 1_000.0),
        ];
        Config {
            api: Api {
                host: IpAddr::from([127, 0, 0, 1]),
                port: 8_000,
                public_url: String::new(),
                max_agents: 100,
                max_concurrent_tasks: 1_000,
                max_workers: 10_000,
                worker_timeout: limits::HEARTBEAT_TIMEOUT_MS / 1_000,
                default_task_timeout: 300,
                max_task_timeout: limits::TASK_TIMEOUT_SECONDS_MAX,
                shutdown_grace: 10,
                artifact_bytes_max: 1 << 30,
            },
            files: Files { roots: Vec::new() },
            scheduling: Scheduling::default(),
            store: Store::default(),
            blobs: Blobs::default(),
            checkpoints: Checkpoints::default(),
            logs: Logs::default(),
            message_bus: MessageBus::default(),
            outbound: Outbound::default(),
            webhooks: Webhooks::default(),
            log: Log { level: Level::Info, format: Format::Text },
            resources: kinds.map(|(kind, amount)| (kind.to_owned(), amount)).into(),
            pools: default_pools(),
            commands: BTreeMap::new(),
            http_agents: BTreeMap::new(),
        }
    }
}

/// What makes a fresh server useful: an agent for everything that is built in.
fn default_pools() -> BTreeMap<String, PoolConfig> {
    let pool = |capabilities: &[&str], slots, max| PoolConfig {
        capabilities: capabilities.iter().map(|name| (*name).to_owned()).collect(),
        slots,
        min: 1,
        max,
        queue_depth: slots,
        wait_seconds: PoolConfig::wait_seconds(),
        idle_seconds: PoolConfig::idle_seconds(),
        cooldown_seconds: PoolConfig::cooldown_seconds(),
    };
    let pools = [
        ("data_processor", pool(&["data_processing", "computation"], 2, 4)),
        ("api_handler", pool(&["api_integration", "communication"], 16, 8)),
        ("file_operator", pool(&["file_operations"], 16, 4)),
        ("coordinator", pool(&["coordination", "monitoring"], 16, 4)),
        ("general_purpose", pool(&["task_execution", "computation"], 1_000, 1)),
    ];
    pools.map(|(name, pool)| (name.to_owned(), pool)).into()
}

impl Config {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// The first value that is out of its bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bounds = |key: &str, found: u64, least: u64, most: u64| {
            if (least..=most).contains(&found) {
                return Ok(());
            }
            let wanted = format!("{least} to {most}");
            Err(ConfigError::OutOfBounds { key: key.to_owned(), found: found.to_string(), wanted })
        };
        let api = &self.api;
        bounds("api.max_agents", api.max_agents.into(), 1, limits::AGENTS_MAX.into())?;
        bounds("api.max_workers", api.max_workers.into(), 0, limits::AGENTS_MAX.into())?;
        bounds("api.worker_timeout", api.worker_timeout, 1, HEARTBEAT_TIMEOUT_MAX)?;
        bounds("api.max_task_timeout", api.max_task_timeout, 1, 366 * 24 * 3_600)?;
        bounds("api.default_task_timeout", api.default_task_timeout, 1, api.max_task_timeout)?;
        bounds("api.max_concurrent_tasks", api.max_concurrent_tasks.into(), 1, 1_000_000)?;
        bounds("api.shutdown_grace", api.shutdown_grace, 0, 3_600)?;
        bounds("api.artifact_bytes_max", api.artifact_bytes_max, 1, 1 << 50)?;
        self.blobs.check(api.artifact_bytes_max)?;
        bounds("store.keep_days", self.store.keep_days.into(), 0, 36_600)?;
        bounds("store.keep_tasks", self.store.keep_tasks, 0, 1_000_000_000_000)?;
        bounds("checkpoints.every_seconds", self.checkpoints.every_seconds, 0, 366 * 86_400)?;
        bounds("checkpoints.keep", self.checkpoints.keep.into(), 1, 1_000)?;
        bounds("logs.task_lines_max", self.logs.task_lines_max, 1, 1_000_000_000)?;
        bounds("logs.task_bytes_max", self.logs.task_bytes_max, 1_024, 1 << 40)?;
        bounds("logs.bytes_max", self.logs.bytes_max, 1 << 20, 1 << 50)?;
        bounds("logs.keep_days", self.logs.keep_days.into(), 0, 36_600)?;
        let bus = &self.message_bus;
        bounds("message_bus.max_queue_size", bus.max_queue_size, 1, 1_000_000_000)?;
        bounds("message_bus.worker_count", bus.worker_count.into(), 1, 1_000)?;
        bounds("message_bus.bytes_max", bus.bytes_max, 1 << 20, 1 << 50)?;
        let webhooks = &self.webhooks;
        bounds("webhooks.attempts_max", webhooks.attempts_max.into(), 1, 100)?;
        bounds("webhooks.timeout_seconds", webhooks.timeout_seconds, 1, 300)?;
        bounds("webhooks.retry_pause_ms", webhooks.retry_pause_ms, 1, 300_000)?;
        for (name, pool) in &self.pools {
            let most = u64::from(limits::AGENT_SLOTS_MAX);
            bounds(&format!("pools.{name}.slots"), pool.slots.into(), 1, most)?;
            // Together they are bounded by `api.max_agents`, whenever one is to start.
            let most = u64::from(limits::AGENTS_MAX);
            bounds(&format!("pools.{name}.max"), pool.max.into(), 0, most)?;
            bounds(&format!("pools.{name}.min"), pool.min.into(), 0, pool.max.into())?;
            bounds(&format!("pools.{name}.queue_depth"), pool.queue_depth.into(), 1, 1_000_000)?;
            bounds(&format!("pools.{name}.wait_seconds"), pool.wait_seconds, 0, 86_400)?;
            bounds(&format!("pools.{name}.idle_seconds"), pool.idle_seconds, 0, 366 * 86_400)?;
            bounds(&format!("pools.{name}.cooldown_seconds"), pool.cooldown_seconds, 0, 86_400)?;
        }
        for (name, command) in &self.commands {
            if command.command.first().is_none_or(|program| program.trim().is_empty()) {
                let (key, found) = (format!("commands.{name}.command"), "without a program".into());
                let wanted = "a list of a program and its arguments".into();
                return Err(ConfigError::OutOfBounds { key, found, wanted });
            }
        }
        self.check_http_agents()?;
        for (kind, amount) in &self.resources {
            if !amount.is_finite() || *amount < 0.0 || *amount > 1e12 {
                let (key, found) = (format!("resources.{kind}"), amount.to_string());
                return Err(ConfigError::OutOfBounds { key, found, wanted: "0 to 1e12".into() });
            }
        }
        Ok(())
    }

    fn check_http_agents(&self) -> Result<(), ConfigError> {
        let public = &self.api.public_url;
        if !public.is_empty() && !["http://", "https://"].iter().any(|at| public.starts_with(at)) {
            let (key, found) = ("api.public_url".to_owned(), format!("`{public}`"));
            let wanted = "a URL that begins with http:// or https://".to_owned();
            return Err(ConfigError::OutOfBounds { key, found, wanted });
        }
        let rules = self.outbound.rules();
        for (name, agent) in &self.http_agents {
            agent.check(&rules).map_err(|BadSetting { key, found, wanted }| {
                let key = format!("http_agents.{name}.{key}");
                ConfigError::OutOfBounds { key, found, wanted }
            })?;
        }
        Ok(())
    }

    /// Reads a configuration from its layers.
    ///
    /// # Errors
    /// What is wrong, and where it was set.
    pub fn load(layers: &Layers) -> Result<(Config, Vec<Shown>), ConfigError> {
        layers.resolve()
    }
}

/// The file that is read: the one that was named, else `maos.toml` in `folder` if there is one.
#[must_use]
pub fn file_in(folder: &Path, named: Option<&Path>) -> Option<PathBuf> {
    match named {
        Some(named) => Some(named.to_owned()),
        None => Some(folder.join("maos.toml")).filter(|path| path.is_file()),
    }
}
