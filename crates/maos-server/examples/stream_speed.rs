//! How fast streams take and give entries, synced and not: `cargo run --release --example
//! stream_speed`. Prints one line a workload.
#![expect(clippy::print_stdout, reason = "it prints what it measures")]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use maos_core::ids::NodeId;
use maos_server::streams::{AtTotal, Durability, Entry, Options, Room, Streams};

const LINE: &str = "2026-01-01T00:00:00Z a line of a log as programs write them, 100 bytes in all, \
                    with some words.....";

fn open(folder: &Path, durability: Durability) -> Result<Streams, Box<dyn Error>> {
    let options = Options {
        durability,
        bytes_max: 8 << 30,
        at_total: AtTotal::Refuse,
        pending_bytes_max: 64 << 20,
        node: NodeId(1),
    };
    Ok(Streams::open(&folder.join(format!("{durability:?}.db")), options)?)
}

/// Appends one by one from so many tasks at once for a while; says how many a second.
async fn append(streams: &Streams, tasks: usize, entries: usize) -> Result<f64, Box<dyn Error>> {
    let begun = Instant::now();
    let mut joins = Vec::new();
    for task in 0..tasks {
        let streams = streams.clone();
        joins.push(tokio::spawn(async move {
            let name = format!("task:{tasks}/{entries}/{task}");
            let mut count = 0_u32;
            while begun.elapsed() < Duration::from_secs(2) {
                let entry = || Entry { expires: None, body: LINE.as_bytes().to_vec() };
                let batch: Vec<Entry> = (0..entries).map(|_| entry()).collect();
                count += u32::try_from(batch.len()).unwrap_or_default();
                if streams.append(&name, batch, Room::Any, None).await.is_err() {
                    break;
                }
            }
            count
        }));
    }
    let mut count = 0;
    for join in joins {
        count += join.await?;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("stream-speed-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    for durability in [Durability::Synced, Durability::Written] {
        let streams = open(&folder, durability)?;
        for (tasks, entries) in [(1, 1), (64, 1), (64, 100)] {
            let rate = append(&streams, tasks, entries).await?;
            println!("{durability:?}: {tasks} at once, {entries} entries each: {rate:.0} a second");
        }
        let begun = Instant::now();
        let (mut next, mut count) = (0, 0);
        loop {
            let page = streams.read("task:64/100/0", next, 1_000)?;
            count += page.entries.len();
            if page.entries.is_empty() {
                break;
            }
            next = page.next;
        }
        let took = begun.elapsed().as_secs_f64();
        println!("{durability:?}: {count} entries read in {took:.3} s");
        streams.close();
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
