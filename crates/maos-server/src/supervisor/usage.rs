//! What attempts take of the machine, as `/proc` shows it at the moment somebody asks. Nothing is
//! watched in between.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::Duration;

use super::{ATTEMPT_MARKER, own_pid, tree};

/// What the processes of one attempt take together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processor time since they began, that of children which have ended included.
    cpu: Duration,
    /// How long ago the first of them began.
    age: Duration,
    /// Memory that is resident; what is shared counts with each of them.
    resident_bytes: u64,
}

impl Usage {
    /// Of one core, on average since the first process began.
    pub(crate) fn cpu_percent(&self) -> f64 {
        // The kernel counts in hundredths of a second: before the first of them it cannot know.
        let age = self.age.max(Duration::from_millis(10));
        100.0 * self.cpu.as_secs_f64() / age.as_secs_f64()
    }

    /// In units of 1,048,576 bytes.
    pub(crate) fn memory_mb(&self) -> f64 {
        f64::from(u32::try_from(self.resident_bytes >> 10).unwrap_or(u32::MAX)) / 1_024.0
    }

    fn and(&mut self, other: Usage) {
        self.cpu += other.cpu;
        self.age = self.age.max(other.age);
        self.resident_bytes = self.resident_bytes.saturating_add(other.resident_bytes);
    }
}

/// What each of these attempts takes; those without a process below this one are left out. It
/// reads `/proc`, and so blocks.
pub(crate) fn of_attempts(ids: &HashSet<String>) -> HashMap<String, Usage> {
    let processes = tree::processes();
    let children = tree::children(&processes);
    let Some(uptime) = uptime() else { return HashMap::new() };
    let mut usages: HashMap<String, Usage> = HashMap::new();
    let mut seen = HashSet::from([own_pid()]);
    // A process, and the attempt that it works for.
    let mut next: Vec<(i32, Option<&str>)> = vec![(own_pid(), None)];
    while let Some((parent, owner)) = next.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if !seen.insert(*child) {
                continue;
            }
            // What an attempt has started is its own, whatever became of its environment.
            let owner = owner.or_else(|| {
                let marked = tree::marker_of(*child, ATTEMPT_MARKER)?;
                ids.get(&marked).map(String::as_str)
            });
            if let Some((owner, usage)) =
                owner.and_then(|id| Some((id, of_process(*child, uptime)?)))
            {
                usages.entry(owner.to_owned()).or_default().and(usage);
            }
            next.push((*child, owner));
        }
    }
    usages
}

/// How long the machine has been up.
fn uptime() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds = text.split(' ').next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn of_process(pid: i32, uptime: Duration) -> Option<Usage> {
    of_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, uptime)
}

/// `PID (NAME) STATE ..`: the fields behind the name, by their places in `man proc_pid_stat`.
fn of_stat(stat: &str, uptime: Duration) -> Option<Usage> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
    let field = |place: usize| fields.get(place - 3)?.parse::<u64>().ok();
    let (own, children) = (field(14)? + field(15)?, field(16)? + field(17)?);
    let page_bytes = u64::try_from(rustix::param::page_size()).unwrap_or(4_096);
    Some(Usage {
        cpu: of_ticks(own.saturating_add(children)),
        age: uptime.saturating_sub(of_ticks(field(22)?)),
        resident_bytes: field(24)?.saturating_mul(page_bytes),
    })
}

fn of_ticks(ticks: u64) -> Duration {
    let a_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_micros(ticks.saturating_mul(1_000_000) / a_second)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_kernels_line_is_read_whatever_the_program_is_called() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 0 10 20 30 40 150 50 25 75 20 0 1 0 9000 1 512 1";
        let usage = of_stat(stat, Duration::from_secs(100)).unwrap();
        assert_eq!(usage.cpu, of_ticks(300));
        assert_eq!(usage.age, Duration::from_secs(100).saturating_sub(of_ticks(9_000)));
        assert_eq!(usage.resident_bytes, 512 * rustix::param::page_size() as u64);
        assert_eq!(of_stat("7 (a) S 1", Duration::ZERO), None);
    }

    #[test]
    fn what_an_attempt_has_started_counts_with_it_and_nothing_else_does() {
        // What it waits for comes when its standard input is closed.
        let script = "env -i sh -c 'read word; :'; :";
        let start = |id: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).env(ATTEMPT_MARKER, id).stdin(Stdio::piped());
            command.spawn().unwrap()
        };
        let (mut one, mut other) = (start("one-1"), start("other-1"));
        let ids = HashSet::from(["one-1".to_owned(), "gone-1".to_owned()]);
        let usages = of_attempts(&ids);
        assert_eq!(usages.keys().collect::<Vec<_>>(), ["one-1"]);
        assert!(usages["one-1"].memory_mb() > 0.0);
        for child in [&mut one, &mut other] {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        assert!(of_attempts(&ids).is_empty());
    }
}
