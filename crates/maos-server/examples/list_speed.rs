//! How fast lists and searches are with many ended tasks: `cargo run --release --example list_speed
//! DIR [TASKS]`.
//!
//! Fills a store with 1,000,000 ended tasks (or `TASKS`), then prints how fast that went, the times
//! of filtered pages that begin at random places, of numbered pages and of searches, and the memory
//! that is in use. `DIR` must be on the disk in question.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "../benches/speed/ended.rs"]
#[expect(dead_code, reason = "the store alone is looked at here, no server over it")]
mod ended;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ended::{APART_US, BEGUN_US, fill, id};
use maos_core::ids::{AgentId, TaskId};
use maos_core::spec::Priority;
use maos_core::time::WallTime;
use maos_server::data_dir::DataDir;
use maos_server::store::{Place, Start, Store, TaskFilter};

const ROUNDS: u64 = 300;

fn main() {
    let place = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let tasks = std::env::args().nth(2).and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let folder = Path::new(&place).join(format!("list-speed-{}", std::process::id()));
    let dir = Arc::new(DataDir::open(&folder).expect("a new folder"));
    let (store, _) = Store::open(&dir).expect("a new store");
    let started = Instant::now();
    fill(&store, tasks);
    let rate = tasks as f64 / started.elapsed().as_secs_f64();
    println!("{tasks} ended tasks written, {rate:.0} rows/s");
    store.close();
    drop(store);
    println!("memory after writing: {}", memory());
    let bytes = std::fs::metadata(dir.store()).map_or(0, |file| file.len());
    println!("store.db: {} MB", bytes >> 20);
    let (store, _) = Store::open(&dir).expect("the store of before");
    pages(&store, tasks);
    numbered(&store, tasks);
    println!("memory: {}", memory());
    store.close();
    std::fs::remove_dir_all(&folder).expect("what was made here can be removed");
}

fn pages(store: &Store, tasks: u64) {
    let none = TaskFilter::default;
    let tags = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let search = |text: &str| TaskFilter { search: Some(text.to_owned()), ..none() };
    let middle = WallTime(BEGUN_US + tasks / 2 * APART_US);
    for (name, filter) in [
        ("all", none()),
        ("status", TaskFilter { statuses: vec!["failed"], ..none() }),
        ("two statuses", TaskFilter { statuses: vec!["completed", "cancelled"], ..none() }),
        ("priority", TaskFilter { priorities: vec![Priority::Critical], ..none() }),
        ("created before", TaskFilter { created_before: Some(middle), ..none() }),
        ("parent", TaskFilter { parent: Some(TaskId(id(10).0)), ..none() }),
        ("agent", TaskFilter { agent: Some(AgentId(1)), ..none() }),
        ("common tag", TaskFilter { tags: tags(&["nightly"]), ..none() }),
        ("rare tag", TaskFilter { tags: tags(&["batch-77"]), ..none() }),
        ("two tags", TaskFilter { tags: tags(&["nightly", "team-3"]), ..none() }),
        ("two tags that never meet", TaskFilter { tags: tags(&["team-3", "team-4"]), ..none() }),
        (
            "tag, status and priority",
            TaskFilter {
                tags: tags(&["nightly"]),
                statuses: vec!["failed"],
                priorities: vec![Priority::Low],
                ..none()
            },
        ),
        ("search: one task", search("123456")),
        ("search: rare words", search("strikes batch-77")),
        ("search: a word of all", search("report")),
        ("search: two common words", search("report airport")),
        ("search: a beginning", search("12345*")),
        ("search: a common beginning", search("rep*")),
        ("search and status", TaskFilter { statuses: vec!["cancelled"], ..search("report") }),
    ] {
        // The first page counts; the others begin anywhere.
        let begun = Instant::now();
        let first = store.list(&filter, Start::Skip(0), 100).expect("it can be read");
        let counted = begun.elapsed();
        let mut taken: Vec<Duration> = Vec::new();
        let mut items = 0;
        for round in 0..ROUNDS {
            let number = round * 7_919 % ROUNDS * tasks / ROUNDS + 1;
            let created = BEGUN_US + number * APART_US;
            let place = Place { created, number: i64::try_from(number).unwrap_or(i64::MAX) };
            let begun = Instant::now();
            let page = store.list(&filter, Start::After(place), 100).expect("it can be read");
            taken.push(begun.elapsed());
            items += page.tasks.len();
        }
        taken.sort_unstable();
        let at = |part: usize| taken[(taken.len() - 1) * part / 100];
        println!(
            "{name:26} first page {counted:>9.2?} ({}{}), others p50 {:>9.2?}, p99 {:>9.2?}, \
             {:.0} items",
            if first.count.is_some_and(|count| count.exact) { "" } else { "at least " },
            first.count.map_or(0, |count| count.tasks),
            at(50),
            at(99),
            items as f64 / ROUNDS as f64
        );
    }
}

fn numbered(store: &Store, tasks: u64) {
    for skip in [0, tasks / 10, tasks - 100] {
        let begun = Instant::now();
        let page = store.list(&TaskFilter::default(), Start::Skip(skip), 100);
        let items = page.expect("it can be read").tasks.len();
        println!("page after {skip} tasks: {:.2?}, {items} items", begun.elapsed());
    }
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).map(str::to_owned);
    [line("VmRSS"), line("VmHWM")].into_iter().flatten().collect::<Vec<_>>().join(", ")
}
