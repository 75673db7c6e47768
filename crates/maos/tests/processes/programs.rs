//! Programs as agents: what they answer, and that nothing of them is ever left.

use serde_json::{Value, json};

use crate::house::{GONE_WITHIN, House, PATIENCE, eventually, folder, marked};

/// Starts children of every kind that is hard to find, then waits for ever. `$1` of each child
/// marks it.
const BREEDER: &str = "
input=$(cat)
mark=$(echo \"$input\" | sed 's/.*\"mark\":\"\\([^\"]*\\)\".*/\\1/')
sh -c 'while :; do sleep 1; done' plain $mark &
setsid sh -c 'while :; do sleep 1; done' session $mark &
(setsid sh -c '(while :; do sleep 1; done) & exit' fork $mark &) 
sh -c 'trap \"\" TERM; while :; do sleep 1; done' deaf $mark &
trap '' TERM
while :; do sleep 1; done
";

fn needs(capability: &str, parameters: Value) -> Value {
    json!({"name": capability, "required_capabilities": [capability], "parameters": parameters,
           "max_retries": 0})
}

fn breed(house: &House, mark: &str) -> String {
    let id = house.submit(&needs("breeder", json!({"mark": mark})));
    // The leader, its children and their sleeps.
    eventually("the children", PATIENCE, || marked(mark).len() >= 4);
    id
}

#[test]
fn a_program_answers_fails_and_reports_progress() {
    let folder = folder(&[
        ("echo", "cat"),
        ("half", "echo '::maos progress {\"fraction\":0.5}' >&2; echo note >&2; echo '{\"a\":1}'"),
        ("broken", "echo 'no luck' >&2; exit 3"),
        ("wrong", "echo bad input >&2; exit 65"),
        ("garbage", "echo hello"),
        ("flood", "head -c 20000000 /dev/zero"),
        ("blind", "exec 0<&-; echo 7"),
    ]);
    let house = House::open(folder.path());
    let run = |name: &str, parameters: Value| {
        let id = house.submit(&needs(name, parameters));
        house.ended(&id)
    };
    let echoed = run("echo", json!({"x": "y".repeat(200_000)}));
    assert_eq!(echoed["result"]["parameters"]["x"], "y".repeat(200_000));
    assert_eq!(echoed["result"]["task_id"], echoed["id"]);
    assert_eq!(run("half", json!({}))["result"], json!({"a": 1}));
    assert_eq!(run("blind", json!({"x": "y".repeat(500_000)}))["result"], json!(7));
    for (name, expected) in [
        ("broken", "ended with code 3\nno luck"),
        ("wrong", "ended with code 65\nbad input"),
        ("garbage", "not JSON"),
        ("flood", "more than 16777216 bytes"),
    ] {
        let task = run(name, json!({}));
        assert_eq!(task["status"], "failed", "{task}");
        assert!(task["error"].as_str().unwrap().contains(expected), "{task}");
    }
    let left = std::fs::read_dir(folder.path().join("data/work")).unwrap().count();
    assert_eq!(left, 0, "working folders go with their attempts");
}

/// What an agent's running attempts take: processor and memory.
fn usage(house: &House, agent: &str) -> (f64, f64) {
    let page = house.call("GET", "/api/v1/agents?page_size=100", "");
    let agents = page["items"].as_array().unwrap();
    let listed = agents.iter().find(|shown| shown["id"] == json!(agent)).unwrap();
    let alone = house.call("GET", &format!("/api/v1/agents/{agent}"), "")["agent"].clone();
    for shown in [listed, &alone] {
        let held = !shown["task_queue"].as_array().unwrap().is_empty();
        let taken = shown["metrics"]["memory_usage_mb"].as_f64().unwrap() > 0.0;
        assert!(held || !taken, "who runs nothing takes nothing: {shown}");
    }
    let figure = |name: &str| alone["metrics"][name].as_f64().unwrap();
    (figure("cpu_usage_percent"), figure("memory_usage_mb"))
}

#[test]
fn agents_show_what_their_processes_take() {
    let folder = folder(&[(
        "burner",
        "sh -c 'word=$(head -c 40000000 /dev/zero | tr \"\\0\" x); while :; do :; done' & wait",
    )]);
    let house = House::open(folder.path());
    let mut endless = needs(
        "data_processing",
        json!({"action": "data.sql", "query":
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"}),
    );
    endless["timeout_seconds"] = json!(300);
    for (body, least_mb) in [(needs("burner", json!({})), 40.0), (endless, 1.0)] {
        let id = house.submit(&body);
        eventually("a start", PATIENCE, || house.task(&id)["status"] == json!("running"));
        let agent = house.task(&id)["agent_id"].as_str().unwrap().to_owned();
        eventually("what it takes", PATIENCE, || {
            let (cpu, memory) = usage(&house, &agent);
            assert!(cpu < 1_000.0 && memory < 4_000.0, "{cpu} {memory}");
            cpu > 5.0 && memory > least_mb
        });
        house.call("DELETE", &format!("/api/v1/tasks/{id}"), "");
        eventually("nothing", PATIENCE, || usage(&house, &agent) == (0.0, 0.0));
    }
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let folder = folder(&[]);
    let toml = "[commands.none]\ncommand = [\"no-such-program\"]\ncapabilities = [\"none\"]\n";
    std::fs::write(folder.path().join("maos.toml"), toml).unwrap();
    let house = House::open(folder.path());
    let task = house.ended(&house.submit(&needs("none", json!({}))));
    assert!(task["error"].as_str().unwrap().contains("`no-such-program`"), "{task}");
}

#[test]
fn nothing_is_left_when_a_task_is_cancelled() {
    let folder = folder(&[("breeder", BREEDER), ("echo", "cat")]);
    let house = House::open(folder.path());
    let mark = "mark-of-the-cancelled-one";
    let id = breed(&house, mark);
    house.call("DELETE", &format!("/api/v1/tasks/{id}"), "");
    assert_eq!(house.task(&id)["status"], "cancelled");
    eventually("the end of all children", PATIENCE, || marked(mark).is_empty());
    eventually("the free slot", PATIENCE, || {
        let why = house.call("GET", &format!("/api/v1/tasks/{id}/explain"), "");
        why["blockers"] == json!([])
    });
}

#[test]
fn what_cleared_its_environment_goes_with_the_last_program_it_may_belong_to() {
    let stray = "(env -i setsid sh -c 'sleep 300' stray-of-$MARK &); sleep 300";
    let folder = folder(&[
        ("first", &stray.replace("$MARK", "first")),
        ("second", &stray.replace("$MARK", "second")),
    ]);
    let house = House::open(folder.path());
    let start = |name: &str| {
        let id = house.submit(&needs(name, json!({})));
        let mark = format!("stray-of-{name}");
        // The shell that starts it carries the mark as well, until it has.
        eventually("the stray", PATIENCE, || orphans(&mark).len() == 1);
        id
    };
    let cancel = |id: &str| house.call("DELETE", &format!("/api/v1/tasks/{id}"), "");
    let released = |id: &str| {
        eventually("the free slot", PATIENCE, || {
            let why = house.call("GET", &format!("/api/v1/tasks/{id}/explain"), "");
            why["blockers"] == json!([])
        });
    };
    let (first, second) = (start("first"), start("second"));
    cancel(&second);
    released(&second);
    assert_eq!(orphans("stray-of-second").len(), 1, "the first program may have started it");
    cancel(&first);
    eventually("the end of all", PATIENCE, || marked("stray-of-").is_empty());
}

/// Marked processes whose program is not their parent any more.
fn orphans(mark: &str) -> Vec<i32> {
    let of_supervisor = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent =
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1).map(str::to_owned));
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", parent.unwrap_or_default()));
        line.is_ok_and(|line| line.contains("supervisor"))
    };
    marked(mark).into_iter().filter(of_supervisor).collect()
}

#[test]
fn nothing_is_left_when_an_attempt_times_out() {
    let folder = folder(&[("breeder", BREEDER)]);
    let house = House::open(folder.path());
    let mark = "mark-of-the-slow-one";
    let mut body = needs("breeder", json!({"mark": mark}));
    body["timeout_seconds"] = json!(1);
    let task = house.ended(&house.submit(&body));
    assert_eq!(task["error_kind"], "TIMED_OUT", "{task}");
    eventually("the end of all children", PATIENCE, || marked(mark).is_empty());
}

#[test]
fn nothing_is_left_two_seconds_after_the_server_was_killed() {
    let folder = folder(&[("breeder", BREEDER)]);
    let mut house = House::open(folder.path());
    let mark = "mark-of-the-orphaned-one";
    let id = breed(&house, mark);
    house.kill();
    eventually("the end of all children", GONE_WITHIN, || marked(mark).is_empty());
    let data = folder.path().join("data").display().to_string();
    eventually("the end of the supervisor", GONE_WITHIN, || marked(&data).is_empty());
    // Lost with its server, it runs again.
    let house = House::open(folder.path());
    eventually("the next attempt", PATIENCE, || house.task(&id)["attempt"] == json!(2));
    let folders = std::fs::read_dir(folder.path().join("data/work")).unwrap().flatten();
    let folders: Vec<String> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(folders.iter().all(|name| name.ends_with("-2")), "left behind: {folders:?}");
    house.call("DELETE", &format!("/api/v1/tasks/{id}"), "");
}

#[test]
fn a_supervisor_that_dies_takes_nothing_with_it_but_its_programs() {
    let folder = folder(&[("breeder", BREEDER), ("echo", "cat")]);
    let house = House::open(folder.path());
    let mark = "mark-of-the-unlucky-one";
    let id = breed(&house, mark);
    let marker = std::fs::read_to_string(folder.path().join("data/supervisor")).unwrap();
    let supervisor = marked(&marker).into_iter().find(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("supervisor")
    });
    let pid = rustix::process::Pid::from_raw(supervisor.unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("the next attempt", PATIENCE, || house.task(&id)["attempt"] == json!(2));
    house.call("DELETE", &format!("/api/v1/tasks/{id}"), "");
    eventually("the end of all children", PATIENCE, || marked(mark).is_empty());
    assert_eq!(house.ended(&house.submit(&needs("echo", json!({}))))["status"], "completed");
}

#[test]
fn a_program_sends_and_receives_messages_and_its_lines_are_kept() {
    let folder = folder(&[(
        "talker",
        "echo hello >&2
         echo '::maos message {\"to\": {\"topic\": \"t\"}, \"body\": {\"n\": 1}}' >&2
         echo '::maos message {\"to\": {\"agent\": \"x\"}, \"body\": 1}' >&2
         while ! grep -q second \"$MAOS_MESSAGES\" 2>/dev/null; do sleep 0.05; done
         printf '[%s]' \"$(paste -sd, \"$MAOS_MESSAGES\")\"",
    )]);
    let house = House::open(folder.path());
    let id = house.submit(&needs("talker", json!({})));
    let send = |body: &str| {
        let body = json!({"to": {"task": id}, "body": body}).to_string();
        house.call("POST", "/api/v1/messages", &body);
    };
    send("first");
    let topic = "/api/v1/messages?mailbox=topic:t&wait_seconds=30";
    let sent = house.call("GET", topic, "")["items"][0].clone();
    assert_eq!((&sent["body"], &sent["sender"]), (&json!({"n": 1}), &json!(format!("task:{id}"))));
    send("second");
    let ended = house.ended(&id);
    let bodies: Vec<&Value> =
        ended["result"].as_array().unwrap().iter().map(|message| &message["body"]).collect();
    assert_eq!(bodies, ["first", "second"], "{ended}");
    let page = house.call("GET", &format!("/api/v1/tasks/{id}/logs"), "");
    let items = page["items"].as_array().unwrap();
    assert_eq!((&items[0]["line"], &items[0]["source"]), (&json!("hello"), &json!("stderr")));
    let refused = items[1]["line"].as_str().unwrap();
    assert!(refused.starts_with("its message was refused: `to.agent` must be a UUID"), "{page}");
    assert_eq!((items.len(), &page["ended"]), (2, &json!(true)), "{page}");
}
