//! Processes as `/proc` shows them, and how to end sets of them that may grow while one looks.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long ending a set of processes may take before it is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Pause before one looks again whether they are gone.
const LOOK: Duration = Duration::from_millis(2);

/// One process that has not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) parent: i32,
    /// When it was started, in ticks since the machine was.
    pub(super) started: u64,
}

/// Every process that has not ended; zombies are past ending.
pub(super) fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(read)
        .collect()
}

/// `PID (NAME) STATE PARENT ..`, where the name may hold anything; the 22nd is when it was started.
fn read(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut rest = stat.rsplit_once(") ")?.1.split(' ');
    let state = rest.next()?;
    let parent = rest.next()?.parse().ok()?;
    let started = rest.nth(17)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(Process { pid, parent, started })
}

/// When a process was started, if it has not ended.
pub(super) fn started(pid: i32) -> Option<u64> {
    Some(read(pid)?.started)
}

/// Who has which children.
pub(super) fn children(processes: &[Process]) -> HashMap<i32, Vec<i32>> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for process in processes {
        children.entry(process.parent).or_default().push(process.pid);
    }
    children
}

/// All below `root`, itself not counted.
pub(super) fn below(processes: &[Process], root: i32) -> Vec<i32> {
    let children = children(processes);
    let mut found = Vec::new();
    let mut seen = HashSet::from([root]);
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if seen.insert(*child) {
                found.push(*child);
                next.push(*child);
            }
        }
    }
    found
}

/// Those whose environment, as they were started, holds this `NAME=value`.
pub(super) fn with_marker(processes: &[Process], marker: &str) -> Vec<i32> {
    let own = std::process::id();
    let marked = |process: &&Process| {
        u32::try_from(process.pid).is_ok_and(|pid| pid != own) && has_marker(process.pid, marker)
    };
    processes.iter().filter(marked).map(|process| process.pid).collect()
}

pub(super) fn has_marker(pid: i32, marker: &str) -> bool {
    in_environment(pid, |entry| (entry == marker.as_bytes()).then_some(())).is_some()
}

/// What the environment of a process says under this name.
pub(super) fn marker_of(pid: i32, name: &str) -> Option<String> {
    let value =
        |entry: &[u8]| Some(entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.to_vec());
    String::from_utf8(in_environment(pid, value)?).ok()
}

/// The first `NAME=value` of a process's environment, as it was started, that is looked for.
fn in_environment<T>(pid: i32, look: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|byte| *byte == 0).find_map(look)
}

pub(super) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // One that has ended in the meantime needs no signal.
        let _ = kill_process(pid, signal);
    }
}

/// Kills what `select` finds until it finds nothing; says how many were killed. Stopped first, so
/// that none can start another one while its siblings are killed.
pub(super) fn end_all(select: impl Fn(&[Process]) -> Vec<i32>, patience: Duration) -> usize {
    let deadline = Instant::now() + patience;
    let mut killed = HashSet::new();
    loop {
        let found = select(&processes());
        if found.is_empty() || Instant::now() >= deadline {
            return killed.len();
        }
        for pid in &found {
            signal(*pid, Signal::STOP);
        }
        for pid in select(&processes()) {
            signal(pid, Signal::KILL);
            killed.insert(pid);
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found_at_any_depth_and_circles_end() {
        let tree = [(2, 1), (3, 2), (4, 3), (5, 1), (6, 9), (9, 6)];
        let processes: Vec<Process> =
            tree.map(|(pid, parent)| Process { pid, parent, started: 1 }).to_vec();
        let mut found = below(&processes, 2);
        found.sort_unstable();
        assert_eq!(found, [3, 4]);
        assert_eq!(below(&processes, 6), [9]);
        assert!(below(&processes, 7).is_empty());
    }

    #[test]
    fn this_very_process_is_there() {
        let own = i32::try_from(std::process::id()).unwrap();
        let here = processes();
        let found = here.iter().find(|process| process.pid == own).unwrap();
        assert_eq!(started(own), Some(found.started));
    }
}
