//! Work on data in a process of its own: it is bounded, and nothing of it is left behind.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use maos_server::agents::{RunAttempt, Verdict};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{Test, assignment, builtin, builtin_with, wait};

pub(crate) const TESTS: &[Test] = &[
    ("process::a_query_is_answered_by_another_process", a_query_is_answered_by_another_process),
    ("process::a_stop_ends_an_endless_query", a_stop_ends_an_endless_query),
    ("process::a_dropped_attempt_ends_its_process", a_dropped_attempt_ends_its_process),
    ("process::processor_time_is_bounded", processor_time_is_bounded),
    ("process::memory_is_bounded", memory_is_bounded),
    ("process::a_process_that_somebody_ends_is_tried_again", somebody_ends_the_process),
    ("process::a_program_that_is_none_is_named", a_program_that_is_none_is_named),
    ("process::a_stop_ends_work_on_files", a_stop_ends_work_on_files),
];

const LONG: Duration = Duration::from_secs(50);

fn endless() -> Value {
    json!({"action": "data.sql",
        "query": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                  SELECT count(*) FROM n"})
}

fn run(parameters: Value, timeout: Duration) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.csv"), "n\n1\n2\n").unwrap();
    let stop = CancellationToken::new();
    let verdict = wait(builtin(folder.path()).run(assignment(parameters, timeout, &stop)));
    assert_eq!(children(), [] as [i32; 0], "a process is left");
    verdict
}

/// Processes that this one has started and that have not been waited for.
fn children() -> Vec<i32> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let list = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().map(|id| id.parse::<i32>().unwrap()));
    }
    found
}

/// Waits until so many processes are there.
async fn until_children(count: usize) -> Vec<i32> {
    let deadline = Instant::now() + LONG;
    loop {
        let found = children();
        if found.len() == count {
            return found;
        }
        assert!(Instant::now() < deadline, "wanted {count} processes, found {found:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn a_query_is_answered_by_another_process() {
    let verdict = run(
        json!({"action": "data.sql", "query": "SELECT sum(n) AS s FROM t WHERE n < :item",
            "item": 5, "sources": {"t": {"path": "t.csv"}}}),
        LONG,
    );
    let expected = json!({"columns": ["s"], "rows": [{"s": 3}], "row_count": 1});
    assert_eq!(verdict, Verdict::Completed(expected));
    let verdict = run(json!({"action": "data.sql", "query": "SELEC 1"}), LONG);
    assert!(matches!(verdict, Verdict::Failed { permanent: true, .. }), "{verdict:?}");
}

fn a_stop_ends_an_endless_query() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let stop = CancellationToken::new();
        let builtin = builtin(folder.path());
        let running = builtin.run(assignment(endless(), LONG, &stop));
        let stopping = async {
            until_children(1).await;
            stop.cancel();
        };
        let (verdict, ()) = tokio::join!(running, stopping);
        assert_eq!(verdict, Verdict::Lost { message: "stopped".to_owned() });
        // The verdict came after the end, not before it.
        assert_eq!(children(), [] as [i32; 0]);
    });
}

fn a_dropped_attempt_ends_its_process() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let stop = CancellationToken::new();
        let builtin = builtin(folder.path());
        let running = builtin.run(assignment(endless(), LONG, &stop));
        tokio::select! {
            verdict = running => panic!("it ended: {verdict:?}"),
            found = until_children(1) => assert_eq!(found.len(), 1),
        }
        until_children(0).await;
    });
}

fn processor_time_is_bounded() {
    let verdict = run(endless(), Duration::from_secs(1));
    let Verdict::Failed { message, permanent: true } = verdict else { panic!("{verdict:?}") };
    assert!(message.contains("more processor time"), "{message}");
}

fn memory_is_bounded() {
    let verdict = run(
        json!({"action": "data.sql",
            "query": "WITH RECURSIVE n(i, x) AS (SELECT 1, zeroblob(50000000) UNION ALL \
                      SELECT i + 1, zeroblob(50000000 + i) FROM n WHERE i < 100) \
                      SELECT count(DISTINCT x) FROM n"}),
        LONG,
    );
    let Verdict::Failed { message, permanent: true } = verdict else { panic!("{verdict:?}") };
    assert!(message.contains("memory"), "{message}");
}

fn somebody_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let stop = CancellationToken::new();
        let builtin = builtin(folder.path());
        let running = builtin.run(assignment(endless(), LONG, &stop));
        let killing = async {
            for id in until_children(1).await {
                let id = rustix::process::Pid::from_raw(id).unwrap();
                rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
            }
        };
        let (verdict, ()) = tokio::join!(running, killing);
        let Verdict::Failed { message, permanent: false } = verdict else { panic!("{verdict:?}") };
        assert!(message.contains("ended early"), "{message}");
    });
}

fn a_program_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none").into_os_string();
    for (program, expected) in [
        (vec![none], "cannot be started"),
        (vec![], "no program works on data"),
        (vec![OsString::from("/bin/false")], "ended early"),
        (vec!["/bin/sh".into(), "-c".into(), "echo oops".into()], "ended early"),
        (vec!["/bin/sh".into(), "-c".into(), "exec cat /dev/zero".into()], "more than"),
    ] {
        let stop = CancellationToken::new();
        let builtin = builtin_with(folder.path(), program.clone());
        let verdict = wait(builtin.run(assignment(endless(), LONG, &stop)));
        let Verdict::Failed { message, .. } = verdict else { panic!("{verdict:?}") };
        assert!(message.contains(expected), "{program:?}: {message}");
        assert_eq!(children(), [] as [i32; 0]);
    }
}

fn a_stop_ends_work_on_files() {
    let folder = tempfile::tempdir().unwrap();
    let large = std::fs::File::create(folder.path().join("large")).unwrap();
    // A hole: nothing on disk, and hours to hash.
    large.set_len(1 << 42).unwrap();
    wait(async {
        let stop = CancellationToken::new();
        let builtin = builtin(folder.path());
        let parameters = json!({"action": "file.hash", "path": "large"});
        let running = builtin.run(assignment(parameters, LONG, &stop));
        let stopping = async { stop.cancel() };
        let (verdict, ()) = tokio::join!(running, stopping);
        assert_eq!(verdict, Verdict::Lost { message: "stopped".to_owned() });
    });
}
