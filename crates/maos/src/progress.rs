//! How a run looks while it runs: bars and a line for each subtask on a terminal, a plain line for each
//! change otherwise. All of it on standard error.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use maos_api::task::{Task, TaskStatus};
use maos_server::service::Snapshot;
use uuid::Uuid;

use crate::words;

/// Subtasks that have a line of their own on a terminal; the rest is in the counts.
const LINES_MAX: usize = 20;

/// Shows snapshots of running plans.
pub(crate) struct Board {
    started: Instant,
    seen: BTreeMap<Uuid, (TaskStatus, Option<String>)>,
    bars: Option<Bars>,
}

struct Bars {
    all: MultiProgress,
    overall: ProgressBar,
    lines: BTreeMap<Uuid, ProgressBar>,
}

impl Board {
    pub(crate) fn new(on_terminal: bool) -> Board {
        let bars = on_terminal.then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let overall = all.add(ProgressBar::new(0));
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} tasks  {elapsed}");
            overall.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            Bars { all, overall, lines: BTreeMap::new() }
        });
        Board { started: Instant::now(), seen: BTreeMap::new(), bars }
    }

    /// Shows where the tasks of a plan stand.
    pub(crate) fn show(&mut self, tasks: &[Snapshot]) {
        for line in self.changes(tasks) {
            if self.bars.is_none() {
                words::say(&line);
            }
        }
        if let Some(bars) = &mut self.bars {
            bars.show(tasks);
        }
    }

    /// Says how it all ended.
    pub(crate) fn finish(&mut self, roots: &[Task]) {
        if let Some(bars) = self.bars.take() {
            bars.overall.finish();
            for line in bars.lines.values() {
                line.tick();
                line.abandon();
            }
        }
        for root in roots {
            words::say(&ended(root, self.started.elapsed()));
        }
    }

    /// A line for each task that stands elsewhere than before, or whose agent says something new.
    fn changes(&mut self, tasks: &[Snapshot]) -> Vec<String> {
        let mut lines = Vec::new();
        for task in tasks {
            let message = task.progress.as_ref().and_then(|progress| progress.message.clone());
            let now = (task.status, message);
            if self.seen.get(&task.id) != Some(&now) {
                lines.push(line(task));
                self.seen.insert(task.id, now);
            }
        }
        lines
    }
}

impl Bars {
    fn show(&mut self, tasks: &[Snapshot]) {
        let leaves = || tasks.iter().filter(|task| !is_parent(tasks, task));
        self.overall.set_length(leaves().count() as u64);
        self.overall.set_position(leaves().filter(|task| task.status.is_terminal()).count() as u64);
        let few = tasks.len() <= LINES_MAX;
        for task in leaves() {
            let worth_it = few
                || matches!(task.status, TaskStatus::Running | TaskStatus::Retrying)
                || task.status == TaskStatus::Failed;
            match self.lines.get(&task.id) {
                Some(bar) if worth_it => bar.set_message(line(task)),
                Some(bar) => {
                    bar.finish_and_clear();
                    self.all.remove(bar);
                    self.lines.remove(&task.id);
                }
                None if worth_it && self.lines.len() < LINES_MAX => {
                    let bar = self.all.add(ProgressBar::new_spinner());
                    let style = ProgressStyle::with_template("  {wide_msg}");
                    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                    bar.set_message(line(task));
                    self.lines.insert(task.id, bar);
                }
                None => {}
            }
        }
        self.overall.tick();
    }
}

fn is_parent(tasks: &[Snapshot], task: &Snapshot) -> bool {
    tasks.iter().any(|other| other.parent == Some(task.id))
}

fn line(task: &Snapshot) -> String {
    let mut line = format!("{:<9} {}", task.status.name(), task.name);
    if let Some(progress) = &task.progress {
        if let Some(fraction) = progress.fraction {
            line.push_str(&format!(" {:.0} %", fraction * 100.0));
        }
        if let Some(message) = &progress.message {
            line.push_str(&format!(": {message}"));
        }
    }
    let unwell =
        matches!(task.status, TaskStatus::Failed | TaskStatus::Cancelled | TaskStatus::Retrying);
    if let Some(error) = task.error.as_ref().filter(|_| unwell) {
        line.push_str(&format!(": {error}"));
    }
    line
}

fn ended(root: &Task, took: Duration) -> String {
    let (name, status) = (&root.name, root.status.name());
    let seconds = took.as_secs_f64();
    match &root.error {
        Some(error) => format!("`{name}` {status} after {seconds:.1} s: {error}"),
        None => format!("`{name}` {status} in {seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use maos_server::agents::Progress;

    use super::*;

    fn task(status: TaskStatus, message: Option<&str>) -> Snapshot {
        let progress = Progress { fraction: Some(0.5), message: message.map(str::to_owned) };
        Snapshot {
            id: Uuid::from_u128(1),
            parent: None,
            name: "count".to_owned(),
            status,
            progress: message.map(|_| progress),
            error: Some("no".to_owned()),
        }
    }

    #[test]
    fn each_change_is_one_plain_line() {
        let mut board = Board::new(false);
        let mut lines = vec![];
        for (status, message) in [
            (TaskStatus::Ready, None),
            (TaskStatus::Ready, None),
            (TaskStatus::Running, Some("half")),
            (TaskStatus::Running, Some("half")),
            (TaskStatus::Failed, None),
        ] {
            lines.extend(board.changes(&[task(status, message)]));
        }
        assert_eq!(lines, ["ready     count", "running   count 50 %: half", "failed    count: no"]);
    }
}
