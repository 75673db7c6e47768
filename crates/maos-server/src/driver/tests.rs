//! The driver at its door: commands in, answers and orders out, over a journal that may fail.

use std::sync::Mutex;

use maos_core::command::Report;
use maos_core::engine::State;
use maos_core::ids::{NodeId, PlanId, TaskId};
use maos_core::node::Query;
use maos_core::payload::Payload;
use maos_core::record::Stage;
use maos_core::spec::{AgentSpec, Collect, Plan, PlanTask, Runtime, TaskSpec};

use super::*;
use crate::journal::{Batch, JournalError, MemoryJournal};

type Kept = Arc<Mutex<Vec<Changes>>>;

/// A journal on a disk that takes nothing while `shut`.
struct Slow {
    journal: MemoryJournal,
    shut: Arc<AtomicBool>,
}

impl Journal for Slow {
    fn head(&self) -> Position {
        self.journal.head()
    }

    fn append(&mut self, batch: &Batch) -> Result<(), JournalError> {
        while self.shut.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        self.journal.append(batch)
    }

    fn claim(&mut self, epoch: Epoch) -> Result<(), JournalError> {
        self.journal.claim(epoch)
    }

    fn epoch(&self) -> Epoch {
        self.journal.epoch()
    }

    fn replay(
        &mut self,
        after: Sequence,
        visit: &mut dyn FnMut(Batch) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        self.journal.replay(after, visit)
    }

    fn trim(&mut self, through: Sequence) -> Result<(), JournalError> {
        self.journal.trim(through)
    }
}

fn open(journal: impl Journal + 'static) -> (Running, Kept) {
    open_with(journal, |_| None)
}

fn open_with(
    journal: impl Journal + 'static,
    at_once: fn(&Order) -> Option<Command>,
) -> (Running, Kept) {
    let kept = Kept::default();
    let keeping = kept.clone();
    // Nobody carries out orders here.
    let (orders, _) = mpsc::unbounded_channel();
    let (_, reached) = tokio::sync::watch::channel(Position::default());
    let keep = Box::new(move |changes| keeping.lock().unwrap().push(changes));
    let ports = Ports {
        orders,
        at_once,
        tell: Box::new(|_, _, _| {}),
        keep,
        kept: reached,
        waiting: Arc::default(),
    };
    (start(Node::new(State::default()), Box::new(journal), ports, 64).unwrap(), kept)
}

fn submit(id: u128) -> Command {
    let spec = TaskSpec { timeout_ms: 1_000, retries_max: 0, ..TaskSpec::new("a") };
    let (parent, depends_on, collect) = (None, [].into(), Collect::All);
    let task = PlanTask { id: TaskId(id), spec: Arc::new(spec), parent, depends_on, collect };
    let plan = Plan {
        id: PlanId(id),
        namespace: "default".into(),
        submitter: "".into(),
        strategy: None,
        idempotency: None,
        tasks: [task].into(),
    };
    Command::Submit { plan: Arc::new(plan) }
}

#[tokio::test]
async fn rows_are_handed_on_when_they_are_durable_and_a_stop_loses_nothing() {
    let (running, kept) = open(MemoryJournal::default());
    running.handle.run(begin(Epoch(1), NodeId(1)), Echo::Id).await.unwrap();
    let answers = running.handle.run_all(vec![submit(1), submit(2), submit(2)], Echo::Id).await;
    let answers = answers.unwrap();
    assert!(answers[0].is_ok() && answers[1].is_ok());
    assert_eq!(answers[2], Err(Rejection::TaskExists(TaskId(2))));
    assert_eq!(running.stop().await, Ended::Stopped);
    let kept = kept.lock().unwrap();
    let tasks: Vec<TaskId> = kept.iter().flat_map(|c| &c.tasks).map(|task| task.id).collect();
    assert_eq!(tasks, [TaskId(1), TaskId(2)]);
    assert_eq!(kept.last().unwrap().engine.counters.tasks_submitted, 2);
}

#[tokio::test]
async fn while_the_journal_fails_requests_are_refused_and_what_was_decided_is_kept() {
    let mut journal = MemoryJournal::default();
    journal.fail_next(2);
    let (running, kept) = open(journal);
    let handle = running.handle.clone();
    let refused = handle.run(submit(1), Echo::Id).await;
    assert!(matches!(refused, Err(Refused::NotWritten(_))), "{refused:?}");
    assert!(kept.lock().unwrap().is_empty(), "nothing is handed on before it is durable");
    // Tried again with the same bytes until it works: then the first submission stands.
    while handle.run(submit(2), Echo::Id).await.is_err() {
        tokio::task::yield_now().await;
    }
    let Ok(Answer::Task(first)) = handle.ask(Query::Task(TaskId(1))).await else {
        panic!("the first submission is lost")
    };
    assert!(matches!(first.stage, Stage::Ready { .. }));
    running.stop().await;
}

#[tokio::test]
async fn a_journal_that_never_works_again_does_not_keep_the_driver_from_ending() {
    let mut journal = MemoryJournal::default();
    journal.fail_next(u32::MAX);
    let (running, _) = open(journal);
    assert!(running.handle.run(submit(1), Echo::Id).await.is_err());
    assert_eq!(running.stop().await, Ended::Stopped);
}

#[tokio::test]
async fn who_waits_for_an_end_is_told_and_who_no_longer_waits_is_forgotten() {
    let (running, _) = open(MemoryJournal::default());
    let handle = running.handle.clone();
    handle.run(submit(1), Echo::Id).await.unwrap();
    let patient = handle.wait_for_end(TaskId(1));
    let impatient = tokio::time::timeout(Duration::ZERO, handle.wait_for_end(TaskId(1)));
    assert!(impatient.await.is_err());
    let cancel = Command::Cancel { task: TaskId(1), reason: "enough".into() };
    let (ended, cancelled) = tokio::join!(patient, handle.run(cancel, Echo::Id));
    assert!(cancelled.is_ok());
    let Ok(Answer::Task(task)) = ended else { panic!("{ended:?}") };
    assert!(matches!(task.stage, Stage::Cancelled { .. }));
    running.stop().await;
}

#[tokio::test]
async fn beside_a_busy_disk_only_who_changes_something_waits_for_it() {
    let shut = Arc::new(AtomicBool::new(false));
    let (running, _) = open(Slow { journal: MemoryJournal::default(), shut: shut.clone() });
    let handle = running.handle.clone();
    handle.run(submit(1), Echo::Id).await.unwrap();
    let busy = handle.busy_disk();
    shut.store(true, Ordering::Release);
    let (two, three) = (handle.run(submit(2), Echo::Id), handle.ask(Query::Task(TaskId(3))));
    let mut two = std::pin::pin!(two);
    // The submission is on its way to the disk by the time that the second answer comes.
    let third = tokio::select! {
        biased;
        _ = &mut two => panic!("it is acknowledged before it is durable"),
        third = three => third,
    };
    assert!(third.is_err(), "there is no third task");
    assert!(handle.ask(Query::Task(TaskId(1))).await.is_ok());
    shut.store(false, Ordering::Release);
    two.await.unwrap();
    drop(busy);
    handle.run(submit(4), Echo::Id).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_stop_starts_nothing_more_of_what_waits() {
    fn done(order: &Order) -> Option<Command> {
        let Order::Start(start) = order else { return None };
        let report = Report::Completed(Payload::inline(b"1"));
        Some(Command::Report { task: start.task, attempt: start.attempt, report })
    }
    let shut = Arc::new(AtomicBool::new(false));
    let slow = Slow { journal: MemoryJournal::default(), shut: shut.clone() };
    let (running, kept) = open_with(slow, done);
    let handle = running.handle.clone();
    handle.run(begin(Epoch(1), NodeId(1)), Echo::Id).await.unwrap();
    let spec = AgentSpec::clone(&crate::store::samples::agent(1).spec);
    let agent = Arc::new(AgentSpec { runtime: Runtime::Command, slots: 1, ..spec });
    handle.run(Command::RegisterAgent { agent }, Echo::Id).await.unwrap();
    // More than the loop commits by itself, so that it can hear of the stop meanwhile.
    shut.store(true, Ordering::Release);
    let many: Vec<Command> = (1..=50).map(submit).collect();
    let submitted = tokio::spawn(async move { handle.run_all(many, Echo::Id).await });
    tokio::task::yield_now().await;
    // It is heard of before the journal goes on: the token is cancelled in this very call.
    let stopped = running.stop();
    let mut stopped = std::pin::pin!(stopped);
    assert!(futures_util::poll!(&mut stopped).is_pending());
    shut.store(false, Ordering::Release);
    assert_eq!(stopped.await, Ended::Stopped);
    drop(submitted.await);
    let kept = kept.lock().unwrap();
    let ended = |task: &maos_core::record::TaskRecord| task.stage.ended();
    let completed =
        kept.iter().flat_map(|changes| &changes.tasks).filter(|task| ended(task)).count();
    assert!(completed < 50, "a stop waited for {completed} tasks");
}
