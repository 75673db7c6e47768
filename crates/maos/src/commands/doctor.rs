//! `maos doctor`: whether this machine, the data directory and the configuration are fit for a
//! server, and which optional programs are there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use maos_server::blobs::Blobs;
use maos_server::config::{self, Layers};
use serde_json::json;

use crate::programs::find;
use crate::{settings, words};

/// Programs that make more possible: name, and what for.
const OPTIONAL: [(&str, &str); 4] = [
    ("claude", "Claude Code, to drive MAOS from it"),
    ("python3", "workers in Python (`pip install ./clients/python`)"),
    ("curl", "the examples of the documents"),
    ("jq", "the worker in shell, `examples/worker.sh`"),
];
/// A sync that takes longer than this makes every answer slow.
const SLOW_SYNC: Duration = Duration::from_millis(10);
const SYNCS: u32 = 20;
const DISK_MB_MIN: u64 = 1_024;
const FILES_MIN: u64 = 4_096;

/// What the command line said.
#[derive(Args)]
pub(crate) struct Doctor {
    /// Where everything durable is kept
    #[arg(long, value_name = "DIR", default_value = "maos-data")]
    data_dir: PathBuf,
    /// The configuration [default: maos.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON document on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finding {
    Fit,
    Note,
    Unfit,
}

impl Finding {
    fn word(self) -> &'static str {
        match self {
            Finding::Fit => "ok",
            Finding::Note => "note",
            Finding::Unfit => "UNFIT",
        }
    }
}

/// One thing that was looked at.
struct Checked {
    what: &'static str,
    finding: Finding,
    found: String,
    hint: Option<String>,
}

fn fit(what: &'static str, found: impl Into<String>) -> Checked {
    Checked { what, finding: Finding::Fit, found: found.into(), hint: None }
}

fn note(what: &'static str, found: impl Into<String>, hint: &str) -> Checked {
    Checked { what, finding: Finding::Note, found: found.into(), hint: Some(hint.to_owned()) }
}

fn unfit(what: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Checked {
    Checked { what, finding: Finding::Unfit, found: found.into(), hint: Some(hint.into()) }
}

pub(crate) fn run(arguments: &Doctor) -> anyhow::Result<ExitCode> {
    let mut checks = vec![system(), processors(), memory(), open_files()];
    checks.extend(data_dir(&arguments.data_dir));
    checks.extend(configuration(arguments.config.as_deref())?);
    checks.extend(OPTIONAL.iter().map(|(name, purpose)| program(name, purpose)));
    let broken = checks.iter().any(|check| check.finding == Finding::Unfit);
    if arguments.json {
        let shown = |check: &Checked| {
            json!({"check": check.what, "finding": check.finding.word(), "found": check.found,
                "hint": check.hint})
        };
        let checks: Vec<_> = checks.iter().map(shown).collect();
        words::print_json(&json!({"fit": !broken, "checks": checks}))?;
    } else {
        let width = checks.iter().map(|check| check.what.len()).max().unwrap_or_default();
        let mut lines = Vec::new();
        for Checked { what, finding, found, hint } in &checks {
            lines.push(format!("{:<5}  {what:<width$}  {found}", finding.word()));
            lines.extend(hint.iter().map(|hint| format!("{:width$}         hint: {hint}", "")));
        }
        words::print(&lines.join("\n"))?;
    }
    Ok(if broken { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn system() -> Checked {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if cfg!(target_os = "linux") {
        return fit("system", format!("Linux {}", release.trim()));
    }
    let hint = "everything works, but for the promise that no process is ever left behind";
    note("system", std::env::consts::OS, hint)
}

fn processors() -> Checked {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    if count >= 2 {
        return fit("processors", count.to_string());
    }
    note("processors", count.to_string(), "the engine and its journal each like one of their own")
}

fn memory() -> Checked {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"));
    let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    match kb.map(|kb| kb / 1_024) {
        None => note("memory", "not told by this system", "a million queued tasks take 1 GB"),
        Some(mb) if mb < 512 => {
            note("memory", format!("{mb} MB available"), "a million queued tasks take 1 GB")
        }
        Some(mb) => fit("memory", format!("{mb} MB available")),
    }
}

fn open_files() -> Checked {
    // The server raises its own bound as far as it may.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    match limit {
        Some(limit) if limit < FILES_MIN => {
            let hint = "every worker that waits holds a connection: raise it with `ulimit -Hn`";
            note("open files", format!("{limit} at the most"), hint)
        }
        Some(limit) => fit("open files", format!("{limit} at the most")),
        None => fit("open files", "no bound"),
    }
}

/// The directory, or where it would be made.
fn data_dir(path: &Path) -> Vec<Checked> {
    let shown = path.display();
    let there = path.join("format").exists();
    let mut place = path;
    while !place.exists() {
        match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => place = parent,
            Some(_) | None => {
                place = Path::new(".");
                break;
            }
        }
    }
    let mut checks = Vec::new();
    let held = there
        && fs::File::open(path.join("lock")).is_ok_and(|lock| {
            let try_lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
            rustix::fs::flock(&lock, try_lock).is_err()
        });
    checks.push(match (there, held) {
        (true, true) => note("data directory", format!("`{shown}`, in use"), "a server has it"),
        (true, false) => fit("data directory", format!("`{shown}`")),
        (false, _) => fit("data directory", format!("`{shown}` is made at the first start")),
    });
    checks.push(sync_time(place));
    match rustix::fs::statvfs(place) {
        Ok(disk) => {
            let mb = (disk.f_bavail >> 10).saturating_mul(disk.f_frsize) >> 10;
            let found = format!("{mb} MB free");
            checks.push(if mb < DISK_MB_MIN {
                note("disk", found, "at a full disk the server takes nothing new")
            } else {
                fit("disk", found)
            });
        }
        Err(why) => checks.push(unfit("disk", why.to_string(), "name another --data-dir")),
    }
    checks
}

/// How long it takes until something written is durable: every answer waits for that.
fn sync_time(place: &Path) -> Checked {
    let file = place.join(format!(".maos-doctor-{}", std::process::id()));
    let measured = (|| {
        let mut opened = fs::File::create(&file)?;
        let mut times = Vec::new();
        for _ in 0..SYNCS {
            opened.write_all(&[0; 4_096])?;
            let begun = Instant::now();
            opened.sync_data()?;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        std::io::Result::Ok(times[times.len() / 2])
    })();
    drop(fs::remove_file(&file));
    match measured {
        Err(why) => {
            let hint = "make it writable, or name another --data-dir";
            unfit("durable write", format!("`{}`: {why}", place.display()), hint)
        }
        Ok(time) if time > SLOW_SYNC => {
            let found = format!("{:.1} ms", time.as_secs_f64() * 1_000.0);
            note("durable write", found, "every answer waits for one: a faster disk is felt")
        }
        Ok(time) => fit("durable write", format!("{:.2} ms", time.as_secs_f64() * 1_000.0)),
    }
}

fn configuration(named: Option<&Path>) -> anyhow::Result<Vec<Checked>> {
    let folder = std::env::current_dir().context("the working directory cannot be read")?;
    let layers = Layers {
        file: config::file_in(&folder, named),
        environment: std::env::vars_os().collect(),
        flags: Vec::new(),
    };
    let config = match settings::load(&layers) {
        Err(why) => {
            let text = why.to_string();
            let (found, hint) = text.split_once("\nhint: ").unwrap_or((&text, "correct it"));
            return Ok(vec![unfit("configuration", found.replace('\n', " "), hint)]);
        }
        Ok((config, _)) => config,
    };
    let found = match &layers.file {
        Some(file) => format!("`{}`", file.display()),
        None => "defaults: there is no `maos.toml`".to_owned(),
    };
    let mut checks = vec![fit("configuration", found)];
    checks.extend(documents(&config.blobs)?);
    for (name, command) in &config.commands {
        let Some(program) = command.command.first() else { continue };
        let there = find(program.as_ref(), &command.folder).is_some();
        let found = format!("`{program}` of `commands.{name}`");
        checks.push(if there {
            fit("program", found)
        } else {
            unfit("program", format!("{found} is not there"), "install it, or correct its path")
        });
    }
    for (name, agent) in &config.http_agents {
        checks.push(match agent.secret() {
            Ok(_) => fit("secret", format!("`http_agents.{name}`")),
            Err(why) => {
                let text = why.to_string();
                let (found, hint) = text.split_once("\nhint: ").unwrap_or((&text, "correct it"));
                unfit("secret", format!("`http_agents.{name}`: {found}"), hint)
            }
        });
    }
    Ok(checks)
}

/// Whether the bucket for documents can be used, if one is named.
fn documents(settings: &config::Blobs) -> anyhow::Result<Option<Checked>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(match runtime.block_on(Blobs::check(settings)) {
        Ok(None) => None,
        Ok(Some(time)) => {
            let found = format!("`{}`, {:.0} ms", settings.url, time.as_secs_f64() * 1_000.0);
            Some(fit("documents", found))
        }
        Err(why) => {
            let text = why.to_string();
            let (found, hint) = text.split_once("\nhint: ").unwrap_or((&text, "correct it"));
            Some(unfit("documents", found, hint))
        }
    })
}

fn program(name: &'static str, purpose: &str) -> Checked {
    match find(name.as_ref(), Path::new(".")) {
        Some(file) => fit("optional program", format!("{name}: `{}`", file.display())),
        None => note(
            "optional program",
            format!("{name} is not there"),
            &format!("it is for {purpose}"),
        ),
    }
}
