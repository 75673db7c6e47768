//! `maos run FILE`: submissions to their end, with no server.
//!
//! An unfinished run is taken up where it stopped: its data directory is named after the file's
//! content, and every submission has an idempotency key of its own (`crates/maos/src/turn.rs`).

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use maos_api::task::{Task, TaskStatus};
use maos_server::blobs;
use maos_server::config::{self, Config, Layers, Level};
use maos_server::service::{Server, SubmitOptions};
use maos_server::{host, service, telemetry};
use uuid::Uuid;

use super::serve::Signals;
use super::task;
use crate::progress::Board;
use crate::submissions::{self, Submissions};
use crate::turn::Turn;
use crate::waiting::{self, Told};
use crate::{settings, words};

/// How often progress is looked at. Only the picture depends on it.
const LOOK: Duration = Duration::from_millis(100);
/// Longest wait for a task's end before it is asked again.
const WAIT: Duration = Duration::from_secs(60);
/// An end that takes no longer needs no words.
const SOON: Duration = Duration::from_millis(300);

/// What the command line said.
pub(crate) struct Run {
    pub(crate) file: PathBuf,
    pub(crate) json: bool,
    pub(crate) config: Option<PathBuf>,
    pub(crate) data_dir: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Run) -> anyhow::Result<ExitCode> {
    let content = submissions::content(&arguments.file)?;
    let Submissions { bodies: submissions, is_list } =
        submissions::read(&arguments.file, &content)?;
    let mut config = configuration(arguments)?;
    let named = arguments.data_dir.clone();
    let is_own = named.is_none();
    let named = named.unwrap_or_else(|| run_folder(&content));
    let is_new = !named.exists();
    let data_dir = settings::data_dir(&named)?;
    if blobs::bucket_of(&data_dir.join("blobs"))?.is_none() {
        // A bucket belongs to one data directory, and a run has one of its own.
        config.blobs = config::Blobs::default();
    }
    let turn = Turn::of(&content, &data_dir)?;
    let root = std::env::current_dir().context("the working directory cannot be read")?;
    let program = std::env::current_exe().context("this program's path cannot be read")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (checked, ran) = runtime.block_on(async {
        let mut interrupts = Interrupts { signals: Signals::listen()?, count: 0 };
        let server = service::start(config, host::setup(program, data_dir.clone(), root)).await?;
        let checked = check(&server, &submissions, is_list.then_some(&arguments.file));
        let ran = match checked {
            Ok(()) => to_their_end(&server, &submissions, &turn, &mut interrupts).await,
            Err(_) => Ok(Vec::new()),
        };
        end(server, &mut interrupts).await;
        anyhow::Ok((checked, ran))
    })?;
    // What was not waited for ends with this process.
    runtime.shutdown_background();
    if checked.is_err() && is_own && is_new {
        tidy_up(&data_dir);
    }
    checked?;
    let tasks = ran?;
    let completed = tasks.iter().all(|task| task.status == TaskStatus::Completed);
    if arguments.json {
        print_json(&tasks, is_list)?;
    } else {
        print_results(&tasks)?;
    }
    // A finished run starts anew next time.
    if tasks.iter().all(|task| task.status.is_terminal()) {
        match is_own {
            true => tidy_up(&data_dir),
            false => turn.end()?,
        }
    }
    Ok(if completed { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What holds for this run; says which commands and URLs that defines.
fn configuration(arguments: &Run) -> anyhow::Result<Config> {
    let folder = match arguments.file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let layers = Layers {
        file: config::file_in(&folder, arguments.config.as_deref()),
        environment: std::env::vars_os().collect(),
        flags: Vec::new(),
    };
    let (mut config, _) = settings::load(&layers)?;
    let commands: Vec<&str> = config.commands.keys().map(String::as_str).collect();
    let urls: Vec<&str> = config.http_agents.keys().map(String::as_str).collect();
    for (what, names) in [("commands", commands), ("HTTP agents", urls)] {
        if !names.is_empty() {
            let file = layers.file.as_deref().unwrap_or(Path::new("the environment"));
            words::say(&format!("`{}` defines the {what} {}", file.display(), names.join(", ")));
        }
    }
    if config.log.level == Level::Info {
        config.log.level = Level::Warning;
    }
    telemetry::start(&config.log, &[])?;
    Ok(config)
}

/// Removes the folder of a run, and those above it if they are empty now. Not to be able to is no
/// failure of the run.
fn tidy_up(data_dir: &Path) {
    drop(fs::remove_dir_all(data_dir));
    for above in data_dir.ancestors().skip(1).take(2) {
        drop(fs::remove_dir(above));
    }
}

/// Refuses all of them if one would be refused, and says which; `list` is their file, if it holds a
/// list.
fn check(server: &Server, bodies: &[Vec<u8>], list: Option<&PathBuf>) -> anyhow::Result<()> {
    for (index, body) in bodies.iter().enumerate() {
        server.service.preview(body).map_err(|mut refusal| {
            if let Some(file) = list {
                let entry = format!("entry {} of `{}`", index + 1, file.display());
                refusal.message = format!("{entry}: {}", refusal.message);
            }
            words::api_error(refusal)
        })?;
    }
    Ok(())
}

fn run_folder(content: &[u8]) -> PathBuf {
    let name = blake3::hash(content).to_hex();
    PathBuf::from(".maos").join("runs").join(&name[..16])
}

async fn to_their_end(
    server: &Server,
    submissions: &[Vec<u8>],
    turn: &Turn,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Vec<Task>> {
    let service = &server.service;
    let mut ids = Vec::new();
    for (index, body) in submissions.iter().enumerate() {
        ids.push(submit(server, body, turn.key(index)).await?);
    }
    let mut board = Board::new(std::io::stderr().is_terminal());
    let mut watcher = Watcher::new();
    loop {
        watcher.look(server, &ids, &mut board).await;
        let all_ended = tokio::select! {
            ended = wait_all(server, &ids) => { ended?; true }
            () = tokio::time::sleep(LOOK) => false,
            () = interrupts.next() => {
                match interrupts.count {
                    1 => cancel(server, &ids).await,
                    // They are about to end; then nothing is waited for any more.
                    2 => {}
                    _ => bail!("interrupted: what ran is taken up by the next `maos run`"),
                }
                false
            }
        };
        if all_ended {
            break;
        }
    }
    let mut tasks = Vec::new();
    for id in ids {
        if let Ok(lines) = service.watch(id).await {
            board.show(&lines);
        }
        tasks.push(service.task(id, Duration::ZERO).await.map_err(words::api_error)?.task);
    }
    board.finish(&tasks);
    Ok(tasks)
}

async fn cancel(server: &Server, ids: &[Uuid]) {
    words::say("interrupted: cancelling");
    for id in ids {
        // One that has just ended needs no cancelling.
        drop(server.service.cancel(*id, Some("interrupted".to_owned())).await);
    }
}

/// Whoever is at the terminal, and how often they wanted it to end.
struct Interrupts {
    signals: Signals,
    count: u32,
}

impl Interrupts {
    async fn next(&mut self) {
        self.signals.next().await;
        self.count += 1;
    }
}

/// Ends the server. A program that was told to end has its time for that, unless whoever is at the
/// terminal has none: without us the supervisor ends it at once.
async fn end(server: Server, interrupts: &mut Interrupts) {
    if interrupts.count > 1 {
        return;
    }
    let mut ending = pin!(server.stop(Duration::ZERO));
    if tokio::time::timeout(SOON, &mut ending).await.is_ok() {
        return;
    }
    words::say("waiting for programs to end: interrupt once more to end them at once");
    tokio::select! {
        () = ending => {}
        () = interrupts.next() => words::say("ending them at once"),
    }
}

/// Notices that a run stands still, says why, and ends what nobody here will ever do.
struct Watcher {
    told: Told,
    stands_since: Instant,
}

impl Watcher {
    fn new() -> Watcher {
        Watcher { told: Told::default(), stands_since: Instant::now() }
    }

    async fn look(&mut self, server: &Server, ids: &[Uuid], board: &mut Board) {
        let mut changed = false;
        for id in ids {
            if let Ok(lines) = server.service.watch(*id).await {
                changed |= board.show(&lines);
            }
        }
        if changed {
            self.stands_since = Instant::now();
        }
        if self.stands_since.elapsed() < waiting::PATIENCE {
            return;
        }
        self.stands_since = Instant::now();
        for id in ids {
            let explain = async |id| server.service.explain(id).await.ok();
            let Some(reason) = waiting::origin(*id, explain).await else { continue };
            if let Some(news) = self.told.news(*id, &reason) {
                board.say(&news);
            }
            if let Some(nobody) = reason.blockers.iter().find(|blocker| blocker.kind == "no_agent")
                && !a_pool_may_help(server).await
            {
                // No agent comes to a run from outside, so this would last for ever.
                let why = format!("{}, and none can come to this run", nobody.message);
                drop(server.service.cancel(reason.task_id, Some(why)).await);
            }
        }
    }
}

/// Whether a pool could make an agent for something that waits; also if that cannot be told.
async fn a_pool_may_help(server: &Server) -> bool {
    let pools = server.service.pools().await;
    pools.map_or(true, |list| list.items.iter().any(|pool| pool.waiting > 0))
}

/// Submits, or takes up what an interrupted run left.
async fn submit(server: &Server, body: &[u8], key: String) -> anyhow::Result<Uuid> {
    let options = SubmitOptions { idempotency_key: Some(key), ..SubmitOptions::default() };
    let submitted = server.service.submit(body, options).await;
    let envelope = submitted.map_err(words::api_error)?;
    for warning in &envelope.warnings {
        words::say(&format!("warning: {warning}"));
    }
    Ok(envelope.task.id)
}

async fn wait_all(server: &Server, ids: &[Uuid]) -> anyhow::Result<()> {
    for id in ids {
        loop {
            let envelope = server.service.task(*id, WAIT).await.map_err(words::api_error)?;
            if envelope.task.status.is_terminal() {
                break;
            }
        }
    }
    Ok(())
}

/// One document: the task, or the list of them for a list of submissions.
fn print_json(tasks: &[Task], is_list: bool) -> anyhow::Result<()> {
    words::print_json(&match tasks {
        [task] if !is_list => serde_json::json!({ "task": task }),
        tasks => serde_json::json!({ "tasks": tasks }),
    })
}

/// What the completed ones made, one after the other.
fn print_results(tasks: &[Task]) -> anyhow::Result<()> {
    for task in tasks {
        if let Some(result) = task.result.as_deref().filter(|result| result.get() != "null") {
            task::results(result.get())?;
        }
    }
    Ok(())
}
