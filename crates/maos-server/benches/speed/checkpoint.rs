//! What a checkpoint of many tasks does to the engine: a probe asks and submits at a steady rate
//! while checkpoints are made and for as long in between, and both are told side by side. The
//! machine's own noise is in both.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use maos_core::node::{Echo, Query};
use maos_server::config::Config;
use maos_server::driver::Handle;
use maos_server::service::Server;

use crate::{BATCH, Row, completed, drain, number, open, submission};

const ROUNDS: usize = 5;
const ASK_EVERY: Duration = Duration::from_millis(1);
/// Of so many asks one is followed by a submission.
const SUBMIT_EVERY: u64 = 10;

/// What the probe saw, in milliseconds: without a checkpoint, and while one was made.
#[derive(Default)]
struct Seen {
    asked: [Vec<f64>; 2],
    committed: [Vec<f64>; 2],
}

struct Probe {
    phase: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// Where a process of its own is to put the tasks.
const FILL: &str = "CHECKPOINT_FILL";

pub(crate) async fn measure() -> Vec<Row> {
    let tasks = number("TASKS", 1_000_000);
    if let Ok(folder) = std::env::var(FILL) {
        prepare(Path::new(&folder), tasks).await;
        return Vec::new();
    }
    let folder = tempfile::tempdir().expect("a folder");
    // A process that has just taken in a million hands their memory back, for seconds, in turns of
    // 2 to 32 ms: that is of the burst, checkpoint or not.
    let itself = std::env::current_exe().expect("a path");
    let filled = Command::new(itself).env(FILL, folder.path()).status().expect("a process");
    assert!(filled.success(), "{filled}");
    let server = open(folder.path(), config()).await;

    let probe = Probe::start(server.engine().clone());
    let (mut made, mut turns) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        turns[1].push(of_checkpoint(&server, &probe).await);
        made.push(begun.elapsed().as_secs_f64());
        // As long without one, and nothing of the last one on its way to disk any more. The engine
        // leaves its commits to another thread, as beside a checkpoint: else a turn holds a sync.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _busy = server.engine().busy_disk();
        let _ = server.engine().take_longest_turn();
        tokio::time::sleep(begun.elapsed()).await;
        turns[0].push(millis(server.engine().take_longest_turn()));
    }
    let seen = probe.stop();
    server.stop(Duration::ZERO).await;
    rows(&seen, &turns, &made, tasks)
}

fn config() -> Config {
    let mut config = Config::default();
    config.checkpoints.every_seconds = 0;
    config
}

async fn prepare(folder: &Path, tasks: u64) {
    let server = open(folder, config()).await;
    fill(&server, "noop", tasks).await;
    completed(&server, tasks / BATCH as u64 * BATCH as u64).await;
    fill(&server, "wait", number("LIVE", 20_000)).await;
    drain(&server).await;
    server.stop(Duration::ZERO).await;
}

async fn fill(server: &Server, action: &'static str, tasks: u64) {
    let engine = server.engine();
    for _ in 0..tasks / BATCH as u64 {
        let commands = (0..BATCH).map(|_| submission(action)).collect();
        let answers = engine.run_all(commands, Echo::Id).await.expect("a running engine");
        assert!(answers.iter().all(Result::is_ok), "every submission is accepted");
    }
}

/// Makes a checkpoint and removes it; the engine's longest turn meanwhile.
async fn of_checkpoint(server: &Server, probe: &Probe) -> f64 {
    let _ = server.engine().take_longest_turn();
    probe.phase.store(1, Ordering::Release);
    let made = server.service.create_checkpoint(b"{}").await.expect("a checkpoint");
    probe.phase.store(0, Ordering::Release);
    let turn = millis(server.engine().take_longest_turn());
    server.service.delete_checkpoint(made.checkpoint.id).await.expect("the one just made");
    turn
}

impl Probe {
    /// On a thread of its own, so that it waits for the engine and for nothing else of the server.
    fn start(engine: Handle) -> Probe {
        let (phase, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (now, stopped) = (phase.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.expect("a runtime").block_on(probe(&engine, &now, &stopped))
        });
        Probe { phase, stop, thread }
    }

    fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("a probe")
    }
}

async fn probe(engine: &Handle, phase: &AtomicUsize, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0_u64.. {
        ticks.tick().await;
        if stop.load(Ordering::Acquire) {
            break;
        }
        let before = phase.load(Ordering::Acquire);
        let begun = Instant::now();
        engine.ask(Query::Figures).await.expect("figures");
        let asked = millis(begun.elapsed());
        let begun = Instant::now();
        let submits = round.is_multiple_of(SUBMIT_EVERY);
        if submits {
            engine.run(submission("noop"), Echo::Id).await.expect("it is accepted");
        }
        let committed = millis(begun.elapsed());
        // What was under way when a checkpoint began or ended belongs to neither.
        if phase.load(Ordering::Acquire) == before {
            seen.asked[before].push(asked);
            if submits {
                seen.committed[before].push(committed);
            }
        }
    }
    seen
}

fn rows(seen: &Seen, turns: &[Vec<f64>; 2], made: &[f64], tasks: u64) -> Vec<Row> {
    let row = |name: String, figure, unit| Row { name: name.into(), figure, unit };
    let mut rows = vec![row(format!("a checkpoint of {tasks} tasks, p50"), part(made, 50), "s")];
    for (name, values) in [
        ("engine asked", &seen.asked),
        ("submission durable", &seen.committed),
        ("engine's longest turn", turns),
    ] {
        for (when, values) in ["no checkpoint", "while one is made"].into_iter().zip(values) {
            for percent in [50, 99, 100] {
                let of = if percent == 100 { "max".to_owned() } else { format!("p{percent}") };
                let of = format!("{name}, {when}, {of} of {}", values.len());
                rows.push(row(of, part(values, percent), "ms"));
            }
        }
    }
    rows
}

/// What so many of a hundred values do not exceed.
pub(crate) fn part(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) * percent / 100).copied().unwrap_or(f64::NAN)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
