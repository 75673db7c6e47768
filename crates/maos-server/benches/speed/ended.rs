//! A store full of made-up ended tasks, as a server that ran for months would have it. The figures
//! of lists are measured over it, and tests that need old tasks have them from here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use maos_core::event::{Failure, FailureKind};
use maos_core::ids::{Attempt, Epoch, PlanId, Position, Sequence, TaskId};
use maos_core::payload::Payload;
use maos_core::record::{EngineRecord, Links, PlanRecord, Stage, TaskRecord, Times};
use maos_core::spec::{Demand, Names, Priority, TaskSpec};
use maos_core::time::{Timestamp, WallTime};
use maos_server::data_dir::DataDir;
use maos_server::journal::SqliteJournal;
use maos_server::store::{Changes, Store};

/// When the first one was created, in microseconds since the Unix epoch.
pub(crate) const BEGUN_US: u64 = 1_577_836_800_000_000;
/// Microseconds between two of them.
pub(crate) const APART_US: u64 = 1_500;

/// A data directory as if these tasks had run here: the store has all, the journal nothing more.
pub(crate) fn prepare(path: &Path, tasks: u64) {
    let dir = Arc::new(DataDir::open(path).expect("a new folder"));
    let (store, _) = Store::open(&dir).expect("a new store");
    fill(&store, tasks);
    let synced = store.synced();
    store.close();
    let position = *synced.borrow();
    SqliteJournal::begin_at(&dir.journal(), position, Epoch(1)).expect("a new journal");
}

/// Writes so many, and waits until they are on disk.
pub(crate) fn fill(store: &Store, tasks: u64) {
    for (first, sequence) in (0..tasks).step_by(500).zip(1..) {
        let group = (first..tasks.min(first + 500)).map(task).collect();
        let position = Position { epoch: Epoch(1), sequence: Sequence(sequence) };
        let engine = EngineRecord { position, ..EngineRecord::default() };
        store.write(Changes { engine, tasks: group, ..Changes::default() });
        while store.backlog().rows > 150_000 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    while store.backlog().rows > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The id of number so and so.
pub(crate) fn id(number: u64) -> TaskId {
    TaskId(0x0190_0000_0000_7000_8000_0000_0000_0000 + (u128::from(number) << 32))
}

/// Every tenth is a plan whose next three are its subtasks.
fn task(number: u64) -> TaskRecord {
    let root = if (1..=3).contains(&(number % 10)) { number - number % 10 } else { number };
    let plan = PlanRecord {
        id: PlanId(id(root).0 + 1),
        root: id(root),
        namespace: "default".into(),
        submitter: "".into(),
        strategy: None,
        idempotency: None,
        idempotency_until: Timestamp(0),
    };
    let stage = match number % 100 {
        0..90 => Stage::Completed(Payload::inline(b"{\"rows\":17}")),
        90..97 => Stage::Failed(Failure {
            kind: FailureKind::Reported,
            message: "the file has no column `species`".into(),
            permanent: false,
        }),
        _ => Stage::Cancelled { reason: "no longer wanted".into() },
    };
    let tags = [
        number.is_multiple_of(3).then(|| "nightly".to_owned()),
        Some(format!("team-{}", number % 7)),
        Some(format!("batch-{}", number / 1_000)),
    ];
    let priorities = [Priority::Low, Priority::Medium, Priority::High, Priority::Critical];
    let spec = TaskSpec {
        description: Some(format!("every strike at airport {} by month", number % 331).into()),
        priority: priorities[usize::try_from(number / 11 % 4).unwrap_or_default()],
        parameters: Payload::inline(b"{\"action\":\"data.summary\",\"path\":\"strikes.csv\"}"),
        tags: Names::new(tags.into_iter().flatten().map(Into::into)),
        demand: Arc::new(Demand { capabilities: Names::new(["work".into()]), ..Demand::default() }),
        ..TaskSpec::new(&format!("report {number} of strikes"))
    };
    let time = WallTime(BEGUN_US + number * APART_US);
    TaskRecord {
        id: id(number),
        spec: Arc::new(spec),
        plan: Arc::new(plan),
        index: u32::try_from(number - root).unwrap_or_default(),
        links: Links { parent: (root != number).then(|| id(root)), ..Links::default() }.boxed(),
        trail: None,
        stage,
        attempt: Attempt(1),
        retries_used: 0,
        losses: 0,
        times: Times { created: time, updated: time, ended: Some(time), ..Times::default() },
        stopping: [].into(),
        ran_by: None,
    }
}
