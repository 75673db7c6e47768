//! How a run looks while it runs: a bar and a line for each subtask on a terminal, a plain line for
//! each change otherwise. All of it on standard error.
//!
//! Law: what is shown follows from the snapshots alone; nothing is asked for, and no thread draws.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use maos_api::task::{Task, TaskStatus};
use maos_server::service::Snapshot;
use uuid::Uuid;

use crate::words;

/// Plans with more subtasks show those that run or failed, so many at a time; the rest is counted.
const LINES_MAX: usize = 20;

/// Shows snapshots of running plans.
pub(crate) struct Board {
    started: Instant,
    seen: BTreeMap<Uuid, (TaskStatus, Option<String>)>,
    /// Of every task that does work itself, over all plans.
    leaves: BTreeMap<Uuid, TaskStatus>,
    bars: Option<Bars>,
}

struct Bars {
    all: MultiProgress,
    overall: ProgressBar,
    lines: BTreeMap<Uuid, ProgressBar>,
}

impl Board {
    pub(crate) fn new(on_terminal: bool) -> Board {
        Board::drawing(on_terminal.then(ProgressDrawTarget::stderr))
    }

    fn drawing(target: Option<ProgressDrawTarget>) -> Board {
        let bars = target.map(|target| {
            let all = MultiProgress::with_draw_target(target);
            let overall = all.add(ProgressBar::new(0));
            overall.set_style(style("{bar:30} {pos}/{len} tasks  {elapsed}  {msg}"));
            Bars { all, overall, lines: BTreeMap::new() }
        });
        let (seen, leaves) = (BTreeMap::new(), BTreeMap::new());
        Board { started: Instant::now(), seen, leaves, bars }
    }

    /// Shows where the tasks of a plan stand; whether that is news.
    pub(crate) fn show(&mut self, tasks: &[Snapshot]) -> bool {
        let lines = self.changes(tasks);
        match &mut self.bars {
            Some(bars) => bars.show(tasks, &mut self.leaves),
            None => lines.iter().for_each(|line| words::say(line)),
        }
        !lines.is_empty()
    }

    /// Says something beside it.
    pub(crate) fn say(&self, text: &str) {
        match &self.bars {
            // A terminal that cannot be written to shows nothing else either.
            Some(bars) => drop(bars.all.println(text)),
            None => words::say(text),
        }
    }

    /// Says how it all ended.
    pub(crate) fn finish(&mut self, roots: &[Task]) {
        if let Some(bars) = self.bars.take() {
            for line in bars.lines.values() {
                line.abandon();
            }
            bars.overall.abandon();
        }
        for root in roots {
            words::say(&ended(root, self.started.elapsed()));
        }
    }

    /// A line for each task that stands elsewhere than before, or whose agent says something new.
    fn changes(&mut self, tasks: &[Snapshot]) -> Vec<String> {
        let parents: BTreeSet<Uuid> = tasks.iter().filter_map(|task| task.parent).collect();
        // What has ended with its subtasks ended after them, though it is listed before them.
        let (last, first): (Vec<&Snapshot>, Vec<&Snapshot>) =
            tasks.iter().partition(|task| task.status.is_terminal() && parents.contains(&task.id));
        let mut lines = Vec::new();
        for task in first.into_iter().chain(last.into_iter().rev()) {
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
    fn show(&mut self, tasks: &[Snapshot], leaves: &mut BTreeMap<Uuid, TaskStatus>) {
        let parents: BTreeSet<Uuid> = tasks.iter().filter_map(|task| task.parent).collect();
        let few = tasks.len() <= LINES_MAX + parents.len();
        // Lines that are no longer needed make room first.
        let (wanted, unwanted): (Vec<&Snapshot>, Vec<&Snapshot>) = tasks
            .iter()
            .filter(|task| !parents.contains(&task.id))
            .partition(|task| few || is_worth_a_line(task.status));
        for task in &unwanted {
            if let Some(bar) = self.lines.remove(&task.id) {
                bar.finish_and_clear();
                self.all.remove(&bar);
            }
        }
        for task in &wanted {
            if let Some(bar) = self.lines.get(&task.id) {
                bar.set_message(line(task));
            } else if self.lines.len() < LINES_MAX {
                let bar = self.all.add(ProgressBar::new_spinner());
                bar.set_style(style("  {wide_msg}"));
                bar.set_message(line(task));
                self.lines.insert(task.id, bar);
            }
        }
        leaves.extend(wanted.iter().chain(&unwanted).map(|task| (task.id, task.status)));
        let count = |test: fn(TaskStatus) -> bool| {
            u64::try_from(leaves.values().filter(|status| test(**status)).count())
                .unwrap_or(u64::MAX)
        };
        let running = count(|status| status == TaskStatus::Running);
        let failed = count(|status| status == TaskStatus::Failed);
        self.overall.set_length(count(|_| true));
        self.overall.set_position(count(TaskStatus::is_terminal));
        self.overall.set_message(counts(running, failed));
    }
}

fn is_worth_a_line(status: TaskStatus) -> bool {
    match status {
        TaskStatus::Running | TaskStatus::Retrying | TaskStatus::Failed => true,
        TaskStatus::Pending | TaskStatus::Ready | TaskStatus::Completed | TaskStatus::Cancelled => {
            false
        }
    }
}

fn counts(running: u64, failed: u64) -> String {
    match failed {
        0 => format!("{running} running"),
        failed => format!("{running} running, {failed} failed"),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates of this file are valid")
}

fn line(task: &Snapshot) -> String {
    let mut line = format!("{:<9} {}", task.status.name(), words::one_line(&task.name));
    if let Some(progress) = &task.progress {
        if let Some(fraction) = progress.fraction {
            line.push_str(&format!(" {:.0} %", fraction * 100.0));
        }
        if let Some(message) = &progress.message {
            line.push_str(&format!(": {}", words::one_line(message)));
        }
    }
    let unwell =
        matches!(task.status, TaskStatus::Failed | TaskStatus::Cancelled | TaskStatus::Retrying);
    if let Some(error) = task.error.as_ref().filter(|_| unwell) {
        line.push_str(&format!(": {}", words::one_line(error)));
    }
    line
}

fn ended(root: &Task, took: Duration) -> String {
    let (name, status) = (words::one_line(&root.name), root.status.name());
    let seconds = took.as_secs_f64();
    match &root.error {
        Some(error) => {
            format!("`{name}` {status} after {seconds:.1} s: {}", words::harmless(error))
        }
        None => format!("`{name}` {status} in {seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;
    use maos_server::agents::Progress;

    use super::*;

    /// Keeps what is drawn.
    #[derive(Clone, Debug, Default)]
    struct Paper(Arc<Mutex<String>>);

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(&format!("{text}\n"))
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn snapshot(id: u128, parent: Option<u128>, status: TaskStatus) -> Snapshot {
        Snapshot {
            id: Uuid::from_u128(id),
            parent: parent.map(Uuid::from_u128),
            name: format!("part {id}"),
            status,
            progress: None,
            error: Some("no".to_owned()),
        }
    }

    fn task(status: TaskStatus, message: Option<&str>) -> Snapshot {
        let progress = Progress { fraction: Some(0.5), message: message.map(str::to_owned) };
        Snapshot {
            name: "count\n\u{1b}[31m".to_owned(),
            progress: message.map(|_| progress),
            ..snapshot(1, None, status)
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
        assert_eq!(
            lines,
            [
                "ready     count \\u{1b}[31m",
                "running   count \\u{1b}[31m 50 %: half",
                "failed    count \\u{1b}[31m: no"
            ]
        );
    }

    #[test]
    fn a_parent_ends_after_its_subtasks() {
        let mut board = Board::new(false);
        let tree = |status| {
            [(1, None), (2, Some(1)), (3, Some(2)), (4, Some(1))]
                .map(|(id, parent)| snapshot(id, parent, status))
        };
        let order = |lines: Vec<String>| -> String {
            lines.iter().filter_map(|line| line.split_whitespace().last()).collect()
        };
        assert_eq!(order(board.changes(&tree(TaskStatus::Running))), "1234");
        assert_eq!(order(board.changes(&tree(TaskStatus::Completed))), "3421");
    }

    #[test]
    fn a_terminal_shows_a_line_for_each_of_a_few_subtasks_and_how_many_are_done() {
        let paper = Paper::default();
        let mut board =
            Board::drawing(Some(ProgressDrawTarget::term_like(Box::new(paper.clone()))));
        let parts = |status| {
            [snapshot(1, None, TaskStatus::Running), snapshot(2, Some(1), status)]
                .into_iter()
                .chain([snapshot(3, Some(1), TaskStatus::Failed)])
                .collect::<Vec<_>>()
        };
        board.show(&parts(TaskStatus::Running));
        board.show(&parts(TaskStatus::Completed));
        board.finish(&[]);
        let drawn = paper.0.lock().unwrap();
        assert!(drawn.contains("completed part 2") && drawn.contains("failed    part 3: no"));
        assert!(drawn.contains("2/2 tasks") && drawn.contains("0 running, 1 failed"), "{drawn}");
        assert!(!drawn.contains("part 1"), "a parent is what its subtasks are: {drawn}");
    }

    #[test]
    fn of_many_subtasks_only_what_runs_or_failed_has_a_line() {
        let paper = Paper::default();
        let mut board =
            Board::drawing(Some(ProgressDrawTarget::term_like(Box::new(paper.clone()))));
        let many = |running: u128| {
            let status = |id| match id {
                0 => TaskStatus::Failed,
                id if id < running => TaskStatus::Completed,
                id if id < running + 30 => TaskStatus::Running,
                _ => TaskStatus::Ready,
            };
            (0..100).map(|id| snapshot(id, Some(1_000), status(id))).collect::<Vec<_>>()
        };
        board.show(&many(1));
        assert_eq!(board.bars.as_ref().unwrap().lines.len(), LINES_MAX);
        board.show(&many(50));
        let shown: Vec<u128> =
            board.bars.as_ref().unwrap().lines.keys().map(Uuid::as_u128).collect();
        assert_eq!(shown, [0].into_iter().chain(50..69).collect::<Vec<u128>>());
        board.finish(&[]);
        let drawn = paper.0.lock().unwrap();
        assert!(
            drawn.contains("50/100 tasks") && drawn.contains("30 running, 1 failed"),
            "{drawn}"
        );
        assert!(!drawn.contains("ready"), "{drawn}");
    }
}
