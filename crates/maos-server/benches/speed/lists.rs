//! Lists over HTTP, of the real binary over a data directory full of ended tasks: how long every
//! page of a walk by cursor takes, how long a search, and what memory the server holds by then.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::checkpoint::part;
use crate::{Client, Row, ended, number};

/// Pages of one walk; the list of all tasks is walked to its end.
const PAGES_MAX: usize = 3_400;

/// What is asked for, and how it is written in the query.
const LISTS: [(&str, &str); 14] = [
    ("all", ""),
    ("a status", "&status=failed"),
    ("two statuses", "&status=completed,cancelled"),
    ("a priority", "&priority=critical"),
    ("a common tag", "&tags=nightly"),
    ("a rare tag", "&tags=batch-77"),
    ("two tags", "&tags=nightly,team-3"),
    ("two tags that never meet", "&tags=team-3,team-4"),
    ("tag, status and priority", "&tags=nightly&status=failed&priority=low"),
    ("search: one task", "&search=123456"),
    ("search: rare words", "&search=strikes%20batch-77"),
    ("search: a word of all", "&search=report"),
    ("search: a beginning", "&search=12345*"),
    ("search and status", "&search=report&status=cancelled"),
];

pub(crate) async fn measure() -> Vec<Row> {
    let folder = tempfile::tempdir().expect("a folder");
    let tasks = number("TASKS", 1_000_000);
    ended::prepare(&folder.path().join("data"), tasks);
    let server = Served::start(folder.path());
    let mut rows = vec![row(format!("memory over {tasks} ended tasks, started"), server.memory())];
    let mut client = Client::connect(server.address).await;
    for (name, query) in LISTS {
        let most = if query.is_empty() { usize::MAX } else { PAGES_MAX };
        let (first, others) = walk(&mut client, query, most).await;
        rows.push(row(format!("{name}: first page, counted"), (first, "ms")));
        if !others.is_empty() {
            for (of, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
                let name = format!("{name}: {of} of {} more pages", others.len());
                rows.push(row(name, (part(&others, percent), "ms")));
            }
        }
    }
    rows.push(row("memory after all of it".to_owned(), server.memory()));
    rows
}

fn row(name: String, (figure, unit): (f64, &'static str)) -> Row {
    Row { name: name.into(), figure, unit }
}

/// Milliseconds of the first page, and of those behind it to the end or to so many.
async fn walk(client: &mut Client, query: &str, most: usize) -> (f64, Vec<f64>) {
    let (mut cursor, mut first, mut others) = (String::new(), None, Vec::new());
    loop {
        let path = format!("/api/v1/tasks?page_size=100{query}{cursor}");
        let begun = Instant::now();
        let answer = client.get(&path).await;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        match first {
            None => first = Some(took),
            Some(_) => others.push(took),
        }
        let page: Value = serde_json::from_slice(&answer).expect("JSON");
        match page["next_cursor"].as_str() {
            Some(next) if others.len() < most => cursor = format!("&cursor={next}"),
            Some(_) | None => return (first.unwrap_or_default(), others),
        }
    }
}

/// A `maos serve`, ended with its value.
struct Served {
    child: Child,
    address: SocketAddr,
}

impl Served {
    fn start(folder: &Path) -> Served {
        let binary = std::env::var_os("MAOS_BIN").expect("MAOS_BIN names the release binary");
        let mut child = Command::new(binary)
            .args(["serve", "--port", "0", "--data-dir"])
            .arg(folder.join("data"))
            .env("MAOS_CHECKPOINTS_EVERY_SECONDS", "0")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut said = Vec::new();
        let address = loop {
            let Some(line) = lines.next() else { panic!("no server, but {said:?}") };
            let line = line.expect("text");
            if let Some(rest) = line.strip_prefix("maos listens on http://") {
                break rest.split(',').next().unwrap_or_default().parse().expect("an address");
            }
            said.push(line);
        };
        // Read to the end, so that the server never waits for a reader.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Served { child, address }
    }

    fn memory(&self) -> (f64, &'static str) {
        (crate::resident_mb_of(&self.child.id().to_string()), "MB")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
