//! How fast journal and store are on this machine: `cargo run --release --example storage_speed
//! DIR`.
//!
//! Prints commits per second and their latency by batch size, rows per second into the store, and
//! the time in which a million live rows are loaded. `DIR` must be on the disk in question.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maos_core::ids::{Attempt, Epoch, PlanId, Position, Sequence, TaskId};
use maos_core::payload::Payload;
use maos_core::record::{EngineRecord, PlanRecord, Stage, TaskRecord, Times};
use maos_core::spec::{Demand, Names, TaskSpec};
use maos_core::time::Timestamp;
use maos_server::codec::{self, Kind};
use maos_server::data_dir::DataDir;
use maos_server::journal::{Batch, Journal, SqliteJournal};
use maos_server::store::{Changes, Store};

fn main() {
    let place = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let folder = Path::new(&place).join(format!("storage-speed-{}", std::process::id()));
    journal(&folder.join("journal"));
    store(&folder.join("store"));
    std::fs::remove_dir_all(&folder).expect("what was made here can be removed");
}

fn journal(path: &Path) {
    let dir = Arc::new(DataDir::open(path).expect("a new folder"));
    let mut journal = SqliteJournal::open(&dir).expect("a new journal");
    let mut next = 1;
    for bytes in [512, 4 << 10, 32 << 10, 128 << 10, 512 << 10] {
        let mut noise = vec![0; bytes];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let sealed = codec::seal(Kind::Steps, &noise);
        let mut taken: Vec<Duration> = Vec::new();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(3) {
            let step = Sequence(next);
            let batch = Batch { epoch: Epoch(1), first: step, last: step, sealed: sealed.clone() };
            let begun = Instant::now();
            journal.append(&batch).expect("there is space");
            taken.push(begun.elapsed());
            next += 1;
            if next % 100 == 0 {
                journal.trim(Sequence(next - 50)).expect("it can be trimmed");
            }
        }
        let rate = taken.len() as f64 / started.elapsed().as_secs_f64();
        taken.sort_unstable();
        let at = |part: usize| taken[(taken.len() - 1) * part / 1_000];
        println!(
            "journal {bytes:>7} B: {rate:>7.0} commits/s, {:>6.1} MB/s, p50 {:?}, p99 {:?}, \
             max {:?}",
            rate * bytes as f64 / 1e6,
            at(500),
            at(990),
            at(1_000)
        );
    }
}

fn store(path: &Path) {
    const ROWS: u128 = 1_000_000;
    let dir = Arc::new(DataDir::open(path).expect("a new folder"));
    let (store, _) = Store::open(&dir).expect("a new store");
    for round in ["inserted", "updated"] {
        let started = Instant::now();
        for first in (0..ROWS).step_by(500) {
            let tasks = (first..first + 500).map(task).collect();
            let sequence = store.synced().borrow().sequence.0 + 1;
            let position = Position { epoch: Epoch(1), sequence: Sequence(sequence) };
            let engine = EngineRecord { position, ..EngineRecord::default() };
            store.write(Changes { engine, tasks, ..Changes::default() });
        }
        while store.backlog().rows > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("store: {:.0} rows/s {round}", ROWS as f64 / started.elapsed().as_secs_f64());
    }
    store.close();
    drop(store);
    let started = Instant::now();
    let (store, rows) = Store::open(&dir).expect("the store of before");
    println!("store: {} live rows loaded in {:?}", rows.tasks.len(), started.elapsed());
    store.close();
}

fn task(number: u128) -> TaskRecord {
    let id = TaskId(0x0190_0000_0000_7000_8000_0000_0000_0000 + (number << 32));
    let plan = PlanRecord {
        id: PlanId(id.0),
        root: id,
        namespace: "default".into(),
        submitter: "".into(),
        strategy: None,
        idempotency: None,
        idempotency_until: Timestamp(0),
    };
    let spec = TaskSpec {
        parameters: Payload::inline(b"{\"action\":\"noop\"}"),
        demand: Arc::new(Demand { capabilities: Names::new(["work".into()]), ..Demand::default() }),
        ..TaskSpec::new(&format!("task {number}"))
    };
    TaskRecord {
        id,
        spec: Arc::new(spec),
        plan: Arc::new(plan),
        index: 0,
        links: None,
        trail: None,
        stage: Stage::Ready { since: Timestamp(1) },
        attempt: Attempt(0),
        retries_used: 0,
        losses: 0,
        times: Times::default(),
        stopping: [].into(),
        ran_by: None,
    }
}
