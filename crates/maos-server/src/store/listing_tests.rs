//! Listings at the store's door, each against what going through all tasks one by one finds.

use std::path::Path;
use std::sync::Arc;

use maos_core::event::AgentEnd;
use maos_core::ids::{AgentId, Attempt, PlanId, Sequence, TaskId};
use maos_core::record::{Stage, TaskRecord};
use maos_core::spec::{Names, Priority, TaskSpec};
use maos_core::time::{Timestamp, WallTime};

use super::samples::{agent, changes, done, ready, task};
use super::*;

const PRIORITIES: [Priority; 4] =
    [Priority::Low, Priority::Medium, Priority::High, Priority::Critical];

fn open(path: &Path) -> Store {
    Store::open(&Arc::new(DataDir::open(path).unwrap())).unwrap().0
}

/// Tasks of every kind, some created at the same moment; every tenth is a plan with two subtasks.
fn varied(count: u128) -> Vec<TaskRecord> {
    let mut tasks = Vec::new();
    for number in 1..=count {
        let id = number * 10;
        let stages =
            [ready(), done(), done(), Stage::Cancelled { reason: "enough".into() }, held()];
        let stage = &stages[usize::try_from(number % 5).unwrap()];
        tasks.push(seasoned(task(id, id, stage.clone()), number));
        if number % 10 == 0 {
            tasks.push(seasoned(task(id, id + 1, done()), number));
            tasks.push(seasoned(task(id, id + 2, stage.clone()), number));
        }
    }
    tasks
}

fn held() -> Stage {
    Stage::Running { agent: AgentId(7), timeout: Timestamp(9) }
}

fn seasoned(mut task: TaskRecord, number: u128) -> TaskRecord {
    let tag = |every: u128, name: &str| number.is_multiple_of(every).then(|| name.into());
    let tags = [tag(1, "all"), tag(2, "even"), tag(3, "third wheel"), tag(97, "rare")];
    let spec = TaskSpec {
        name: format!("Überprüfe report-{number} of \"birds\"").into(),
        description: Some(format!("strikes in {}", 1990 + number % 30).into()),
        priority: PRIORITIES[usize::try_from(number % 4).unwrap()],
        tags: Names::new(tags.into_iter().flatten()),
        ..TaskSpec::clone(&task.spec)
    };
    task.spec = Arc::new(spec);
    task.attempt = Attempt(1);
    task.times.created = WallTime(1_000 + u64::try_from(number / 3).unwrap());
    task
}

/// What going through all of them finds, in the order of a listing.
fn expected(tasks: &[TaskRecord], filter: &TaskFilter) -> Vec<TaskId> {
    let passes = |task: &&TaskRecord| {
        let spec = &task.spec;
        let text = format!(
            "{} {} {}",
            spec.name,
            spec.description.as_deref().unwrap_or_default(),
            spec.tags.iter().collect::<Vec<_>>().join(" ")
        );
        let text = text.to_lowercase().replace(['-', '"'], " ").replace('ü', "u");
        let held =
            matches!(task.stage, Stage::Running { agent, .. } if Some(agent) == filter.agent);
        (filter.statuses.is_empty() || filter.statuses.contains(&task.stage.wire_name()))
            && (filter.priorities.is_empty() || filter.priorities.contains(&spec.priority))
            && (filter.agent.is_none() || held)
            && (filter.parent.is_none() || filter.parent == task.parent())
            && filter.tags.iter().all(|tag| spec.tags.contains(tag))
            && filter.created_from.is_none_or(|from| task.times.created >= from)
            && filter.created_before.is_none_or(|before| task.times.created < before)
            && filter.search.iter().flat_map(|text| text.split(' ')).all(|wanted| {
                let starts = |word: &str| match wanted.strip_suffix('*') {
                    Some(start) => word.starts_with(start),
                    None => word == wanted,
                };
                text.split_whitespace().any(starts)
            })
    };
    let mut found: Vec<&TaskRecord> = tasks.iter().filter(passes).collect();
    found.sort_by_key(|task| std::cmp::Reverse((task.times.created, task.id)));
    found.into_iter().map(|task| task.id).collect()
}

fn ids(list: &TaskList) -> Vec<TaskId> {
    list.tasks.iter().map(|task| task.id).collect()
}

/// All pages from the first to the last.
fn walk(store: &Store, filter: &TaskFilter, limit: u32, cost_max: u64) -> Vec<TaskId> {
    let mut found = Vec::new();
    let mut start = Start::Skip(0);
    for _ in 0..10_000 {
        let page = store.readers.list(filter, start, limit, cost_max).unwrap();
        found.extend(ids(&page));
        match page.next {
            Some(place) => start = Start::After(place),
            None => return found,
        }
    }
    panic!("the listing does not end")
}

fn filters() -> Vec<TaskFilter> {
    let none = TaskFilter::default;
    let words = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let base = vec![
        none(),
        TaskFilter { statuses: vec!["completed"], ..none() },
        TaskFilter { statuses: vec!["ready", "cancelled"], ..none() },
        TaskFilter { statuses: vec!["failed"], ..none() },
        TaskFilter { priorities: vec![Priority::Critical, Priority::Low], ..none() },
        TaskFilter { agent: Some(AgentId(7)), ..none() },
        TaskFilter { agent: Some(AgentId(8)), ..none() },
        TaskFilter { parent: Some(TaskId(100)), ..none() },
        TaskFilter { parent: Some(TaskId(110)), ..none() },
        TaskFilter { tags: words(&["even"]), ..none() },
        TaskFilter { tags: words(&["all", "even", "third wheel"]), ..none() },
        TaskFilter { tags: words(&["rare"]), ..none() },
        TaskFilter { tags: words(&["all", "unheard of"]), ..none() },
        TaskFilter { created_from: Some(WallTime(1_020)), ..none() },
        TaskFilter { created_before: Some(WallTime(1_020)), ..none() },
        TaskFilter { search: Some("birds uberprufe".into()), ..none() },
        TaskFilter { search: Some("199*".into()), ..none() },
        TaskFilter { search: Some("wheel".into()), ..none() },
        TaskFilter { search: Some("nowhere".into()), ..none() },
    ];
    let both = |one: &TaskFilter, two: &TaskFilter| TaskFilter {
        statuses: [&*one.statuses, &*two.statuses].concat(),
        priorities: [&*one.priorities, &*two.priorities].concat(),
        agent: one.agent.or(two.agent),
        parent: one.parent.or(two.parent),
        tags: [&*one.tags, &*two.tags].concat(),
        created_from: one.created_from.or(two.created_from),
        created_before: one.created_before.or(two.created_before),
        origin: None,
        search: one.search.clone().or(two.search.clone()),
    };
    base.iter().flat_map(|one| base.iter().map(move |two| both(one, two))).collect()
}

#[test]
fn every_filter_alone_and_with_every_other_finds_what_looking_at_all_finds() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let tasks = varied(200);
    store.write(changes(1, tasks.clone()));
    // Every row a second time: nothing is counted or found twice.
    store.write(changes(2, tasks.clone()));
    store.close();
    for filter in filters() {
        let expected = expected(&tasks, &filter);
        let first = store.list(&filter, Start::Skip(0), 7).unwrap();
        let exact = Some(Count { tasks: expected.len() as u64, exact: true });
        assert_eq!(first.count, exact, "{filter:?}");
        assert_eq!(ids(&first), expected[..expected.len().min(7)], "{filter:?}");
        let second = store.list(&filter, Start::Skip(7), 7).unwrap();
        let rest = expected.get(7..).unwrap_or_default();
        assert_eq!(ids(&second), rest[..rest.len().min(7)], "{filter:?}");
        assert_eq!(walk(&store, &filter, 7, listing::COST_MAX), expected, "{filter:?}");
        assert_eq!(walk(&store, &filter, 7, 25), expected, "within a small bound: {filter:?}");
    }
}

#[test]
fn at_the_bound_a_page_says_where_to_go_on_and_that_it_has_not_counted_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.write(changes(1, varied(200)));
    store.close();
    let filter = TaskFilter {
        statuses: vec!["ready"],
        search: Some("birds".into()),
        ..TaskFilter::default()
    };
    let page = store.readers.list(&filter, Start::Skip(0), 100, 70).unwrap();
    let count = page.count.unwrap();
    assert!(!count.exact && count.tasks == page.tasks.len() as u64, "{count:?}");
    assert!(page.tasks.len() < 100 && page.next.is_some());
}

#[tokio::test]
async fn a_cursor_holds_its_place_while_tasks_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.write(changes(1, (1..=60).map(|id| task(id, id, ready())).collect()));
    assert!(store.catch_up(Sequence(1), Duration::from_secs(30)).await);
    let all = TaskFilter::default();
    let mut found = Vec::new();
    let mut start = Start::Skip(0);
    for round in 1.. {
        let page = store.list(&all, start, 10).unwrap();
        found.extend(page.tasks.iter().map(|task| task.id.0));
        // Meanwhile new ones arrive, and those behind us and before us change.
        let new = 1_000 + round;
        let changed = (1..=60).map(|id| task(id, id, done()));
        let sequence = 1 + u64::try_from(round).unwrap();
        store.write(changes(sequence, changed.chain([task(new, new, ready())]).collect()));
        assert!(store.catch_up(Sequence(sequence), Duration::from_secs(30)).await);
        match page.next {
            Some(place) => start = Start::After(place),
            None => break,
        }
    }
    let expected: Vec<u128> = (1..=60).rev().collect();
    assert_eq!(found, expected);
    store.close();
}

#[test]
fn whatever_is_searched_for_is_never_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.write(changes(1, varied(20)));
    store.close();
    for text in [
        "\"",
        "'",
        "*",
        "**",
        "a*b",
        "^birds",
        "name:birds",
        "-birds",
        "birds OR",
        "NEAR(birds, 2)",
        "AND",
        "NOT",
        "( )",
        "{name}:x",
        "birds\0",
        "\0",
        "%",
        "_",
        "\\",
        ";DROP TABLE tasks",
        "\u{301}",
        "①",
        "👍",
        "\u{1F468}\u{200D}\u{1F469}",
        "report-7",
        "\"birds\"",
        "über*",
        "a\u{301}\u{301}",
        "ᚠᛇᚻ",
        "\u{feff}x",
        "१२",
        "x\u{e000}y",
    ] {
        let filter = TaskFilter { search: Some(text.into()), ..TaskFilter::default() };
        let found = store.list(&filter, Start::Skip(0), 50);
        let found = found.unwrap_or_else(|why| panic!("`{text}`: {why}"));
        let count = |wanted| assert_eq!(found.tasks.len(), wanted, "`{text}`");
        match text {
            "report-7" => count(1),
            "\"birds\"" | "birds\0" | "^birds" | "-birds" | "über*" => count(24),
            "*" | "**" | "\"" | "( )" | "👍" => count(0),
            _ => {}
        }
    }
}

#[tokio::test]
async fn plans_and_ended_agents_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut gone = agent(8);
    gone.end = Some(AgentEnd::Lost);
    let rows = changes(1, vec![task(10, 10, ready()), task(10, 11, ready())]);
    store.write(Changes { agents: vec![agent(7), gone], ..rows });
    // Found while they wait as well as once they are written.
    let plan = |root: u128| store.plan(TaskId(root)).unwrap().len();
    assert_eq!((plan(10), plan(11), plan(12)), (2, 0, 0));
    assert!(store.catch_up(Sequence(1), Duration::from_secs(30)).await);
    assert_eq!((plan(10), plan(11), plan(12)), (2, 0, 0));
    assert_eq!(store.root_of(PlanId(10)).unwrap(), Some(TaskId(10)));
    assert_eq!(store.root_of(PlanId(11)).unwrap(), None);
    let ended = store.ended_agents(9).unwrap();
    assert_eq!(ended.iter().map(|agent| agent.spec.id.0).collect::<Vec<_>>(), [8]);
    store.close();
}

/// What is left once these plans have gone must be found as if the others had never been there.
fn check_left(store: &Store, left: &[TaskRecord]) {
    for filter in filters() {
        let expected = expected(left, &filter);
        let page = store.list(&filter, Start::Skip(0), 100).unwrap();
        let exact = Some(Count { tasks: expected.len() as u64, exact: true });
        assert_eq!(page.count, exact, "{filter:?}");
        assert_eq!(ids(&page), expected[..expected.len().min(100)], "{filter:?}");
    }
}

#[tokio::test]
async fn a_plan_goes_whole_with_all_it_was_found_by_and_only_when_nothing_of_it_lives() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let tasks = varied(60);
    store.write(changes(1, tasks.clone()));
    assert!(store.catch_up(Sequence(1), Duration::from_secs(30)).await);
    // 110: completed. 100: its root is ready. 200: unknown. 101: no root. 120: pinned.
    let pin = store.pin(TaskId(120));
    let roots = [110, 100, 9_990, 101, 120].map(TaskId);
    let outcomes = store.remove(&roots).unwrap();
    use Removed::{Gone, InUse, NotThere};
    assert_eq!(outcomes, [Gone(1), InUse, NotThere, NotThere, InUse]);
    drop(pin);
    assert_eq!(store.remove(&[TaskId(120)]).unwrap(), [Gone(1)]);
    let mut whole: Vec<TaskRecord> =
        tasks.iter().filter(|task| task.plan.root == TaskId(200)).cloned().collect();
    for task in &mut whole {
        task.stage = done();
    }
    store.write(changes(2, whole.clone()));
    assert!(store.catch_up(Sequence(2), Duration::from_secs(30)).await);
    assert_eq!(store.remove(&[TaskId(200)]).unwrap(), [Gone(3)]);
    assert!(store.take_removed() && !store.take_removed());
    let gone = [110, 120, 200].map(TaskId);
    let left: Vec<TaskRecord> =
        tasks.into_iter().filter(|task| !gone.contains(&task.plan.root)).collect();
    check_left(&store, &left);
    // It may come back as a whole.
    store.write(changes(3, whole.clone()));
    assert!(store.catch_up(Sequence(3), Duration::from_secs(30)).await);
    assert_eq!(store.plan(TaskId(200)).unwrap().len(), 3);
    store.close();
}

#[test]
fn a_plan_that_waits_to_be_written_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut db = table::open(&path).unwrap();
    let shared = Arc::new(Shared::default());
    shared.add(changes(1, vec![task(10, 10, done()), task(10, 11, done())]));
    table::write(&mut db, &shared.take().unwrap()).unwrap();
    shared.written();
    // A subtask of it alone.
    shared.add(changes(2, vec![task(10, 11, done())]));
    let remover = removal::Remover::new(path, shared.clone());
    assert_eq!(remover.remove(&[TaskId(10)]).unwrap(), [Removed::InUse]);
    table::write(&mut db, &shared.take().unwrap()).unwrap();
    shared.written();
    assert_eq!(remover.remove(&[TaskId(10)]).unwrap(), [Removed::Gone(2)]);
}

#[test]
fn documents_are_referred_to_for_as_long_as_their_task_is_there() {
    use maos_core::payload::Payload;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut db = table::open(&path).unwrap();
    let shared = Arc::new(Shared::default());
    let stored = |byte| Payload::stored([byte; 32], 2_000);
    let mut asked = task(10, 10, Stage::Completed(stored(2)));
    let spec = TaskSpec {
        parameters: stored(1),
        metadata: Some(Box::new(stored(3))),
        ..TaskSpec::clone(&asked.spec)
    };
    asked.spec = Arc::new(spec);
    shared.add(changes(1, vec![asked]));
    table::write(&mut db, &shared.take().unwrap()).unwrap();
    shared.written();
    let readers = read::Readers::new(path.clone());
    let known = || [1, 2, 3, 4].map(|byte| readers.refers_to(&[byte; 32]).unwrap());
    assert_eq!(known(), [true, true, true, false]);
    let remover = removal::Remover::new(path, shared);
    assert_eq!(remover.remove(&[TaskId(10)]).unwrap(), [Removed::Gone(1)]);
    assert_eq!(known(), [false; 4]);
}

#[tokio::test]
async fn retention_removes_the_oldest_ended_plans_and_keeps_the_living() {
    for keep in [
        Retention { ended_before: Some(WallTime(1_010)), tasks_max: None },
        Retention { ended_before: None, tasks_max: Some(40) },
        Retention::default(),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let mut tasks = varied(60);
        for task in &mut tasks {
            task.times.ended = task.stage.ended().then_some(task.times.created);
        }
        store.write(changes(1, tasks.clone()));
        assert!(store.catch_up(Sequence(1), Duration::from_secs(30)).await);
        let total = tasks.len();
        let gone = usize::try_from(store.retain(&keep).unwrap()).unwrap();
        let ended = |task: &TaskRecord| {
            tasks.iter().filter(|other| other.plan.root == task.plan.root).all(|t| t.stage.ended())
        };
        let mut due: Vec<&TaskRecord> = tasks.iter().filter(|task| ended(task)).collect();
        match keep {
            Retention { ended_before: Some(before), .. } => {
                due.retain(|task| task.times.created < before);
            }
            Retention { tasks_max: Some(most), .. } => {
                due.truncate(total - usize::try_from(most).unwrap());
            }
            Retention { .. } => due.clear(),
        }
        assert_eq!(gone, due.len(), "{keep:?}");
        let due: Vec<TaskId> = due.into_iter().map(|task| task.id).collect();
        let left: Vec<TaskRecord> =
            tasks.iter().filter(|task| !due.contains(&task.id)).cloned().collect();
        check_left(&store, &left);
        assert_eq!(store.retain(&keep).unwrap(), 0, "{keep:?}");
        store.close();
    }
}
