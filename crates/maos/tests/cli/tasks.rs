//! Commands that talk to a server.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;

use insta::assert_snapshot;
use serde_json::json;

use crate::script::{Server, envelope, error, id, task, with};
use crate::{document, maos, shown};

fn path(n: u32) -> String {
    format!("GET /api/v1/tasks/{}", id(n))
}

#[test]
fn a_task_is_shown_in_fields_or_as_the_server_sent_it() {
    let fields = json!({
        "status": "failed", "error": "no such file\nlooked in /x", "agent_id": id(50),
        "started_at": "2026-01-01T00:00:01Z", "completed_at": "2026-01-01T00:00:03.25Z",
        "attempt": 2, "retry_count": 1, "resource_requirements": {"cpu_cores": 0.5},
        "tags": ["a", "b"], "subtasks": [id(2), id(3)], "result": {"x": [1, 2]}
    });
    let sent = envelope(&with(task(1, "read \u{1b}[31mit", "failed"), fields));
    let server = Server::new(&[(&path(1), 200, sent.clone())]);
    assert_snapshot!(shown(&server.maos(&["task", "get", &id(1)])), @r#"
    exit 0
    -- out
    id            01900000-0000-7000-8000-000000000001
    name          read \u{1b}[31mit
    status        failed
    error         no such file
                  looked in /x
    priority      medium
    agent         01900000-0000-7000-8000-000000000050
    attempt       2, 1 of 3 retries used
    created       2026-01-01T00:00:00Z
    started       2026-01-01T00:00:01Z
    ended         2026-01-01T00:00:03Z
    took          2.250 s
    timeout       300 s
    needs         cpu_cores 0.5
    tags          a, b
    subtasks      01900000-0000-7000-8000-000000000002, 01900000-0000-7000-8000-000000000003
    parameters    {"action":"noop"}
    result        {"x":[1,2]}
    -- err
    "#);
    let json = server.maos(&["task", "get", &id(1), "--json"]);
    assert_eq!(document(&json), sent);
    assert!(json.stderr.is_empty());
}

#[test]
fn tasks_are_listed_in_a_table() {
    let page = json!({
        "items": [task(1, "count", "running"), task(2, "a longer name", "completed")],
        "page": 2, "page_size": 2, "total_items": 5, "total_pages": 3,
        "has_next": true, "has_previous": true
    });
    let line = "GET /api/v1/tasks?page=2&page_size=2&status=running";
    let server = Server::new(&[(line, 200, page.clone())]);
    let arguments = ["task", "list", "--status", "running", "--page", "2", "--page-size", "2"];
    assert_snapshot!(shown(&server.maos(&arguments)), @r"
    exit 0
    -- out
    ID                                    STATUS     PRIORITY  CREATED               NAME
    01900000-0000-7000-8000-000000000001  running    medium    2026-01-01T00:00:00Z  count
    01900000-0000-7000-8000-000000000002  completed  medium    2026-01-01T00:00:00Z  a longer name
    -- err
    page 2 of 3, 5 tasks: --page shows another
    ");
    assert_eq!(document(&server.maos(&[&arguments[..], &["--json"]].concat())), page);
}

const FILTERED: &str = "GET /api/v1/agents?status=idle%2Cbusy&agent_type=own\
                        &capabilities=a%2Cb&available_only=true";

#[test]
fn nothing_to_list_says_how_to_begin() {
    let page = json!({
        "items": [], "page": 1, "page_size": 20, "total_items": 0, "total_pages": 0,
        "has_next": false, "has_previous": false
    });
    let server = Server::new(&[
        ("GET /api/v1/tasks", 200, page.clone()),
        ("GET /api/v1/agents", 200, page.clone()),
        (FILTERED, 200, page),
    ]);
    assert_snapshot!(shown(&server.maos(&["task", "list"])), @r"
    exit 0
    -- out
    -- err
    no tasks here
    hint: `maos task submit --name hello --action noop`
    ");
    assert_snapshot!(shown(&server.maos(&["agent", "list"])), @r"
    exit 0
    -- out
    -- err
    no agents here
    hint: `maos agent create --type TYPE --capability NAME`
    ");
    let filtered = "agent list --type own --status idle,busy --capability a,b --available";
    let filtered: Vec<&str> = filtered.split_whitespace().collect();
    assert_snapshot!(shown(&server.maos(&filtered)), @r"
    exit 0
    -- out
    -- err
    no agent matches
    hint: ask for less: `maos agent list` without filters shows all that serve
    ");
}

#[test]
fn a_list_in_which_nothing_is_found_says_so() {
    let page = |page: u64, total: u64| {
        json!({
            "items": [], "page": page, "page_size": 20, "total_items": total,
            "total_pages": total.div_ceil(20), "has_next": false, "has_previous": page > 1
        })
    };
    let server = Server::new(&[
        ("GET /api/v1/tasks?search=nothing", 200, page(1, 0)),
        ("GET /api/v1/tasks?page=9", 200, page(9, 30)),
        ("GET /api/v1/agents?page=9", 200, page(9, 3)),
        ("GET /api/v1/tasks?cursor=x", 200, page(1, 0)),
    ]);
    let told = |words: &str| {
        let words: Vec<&str> = words.split_whitespace().collect();
        let output = server.maos(&words);
        assert!(output.stdout.is_empty() && output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_snapshot!(told("task list --search nothing"), @r"
    no task matches
    hint: ask for less: `maos task list` shows all
    ");
    assert_snapshot!(told("task list --page 9"), @r"
    there is no page 9
    hint: --page 2 shows the last one
    ");
    assert_snapshot!(told("agent list --page 9"), @r"
    there is no page 9
    hint: --page 1 shows the last one
    ");
    assert_snapshot!(told("task list --cursor x"), @"no more tasks match behind this cursor");
}

#[test]
fn flags_make_a_submission() {
    let answer = with(envelope(&task(1, "count", "ready")), json!({"warnings": ["nobody can"]}));
    let server = Server::new(&[("POST /api/v1/tasks", 200, answer)]);
    let arguments = "task submit --name count --action data.sql --param a=1 --param b=text \
                     --param c=[true] --priority high --timeout 60 --max-retries 0 \
                     --strategy parallel --capability computation,own --tag t";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    assert_snapshot!(shown(&server.maos(&arguments)), @r"
    exit 0
    -- out
    01900000-0000-7000-8000-000000000001
    -- err
    warning: nobody can
    submitted `count`; `maos task watch 01900000-0000-7000-8000-000000000001` follows it
    ");
    assert_eq!(
        server.body(0),
        json!({
            "name": "count", "priority": "high", "timeout_seconds": 60, "max_retries": 0,
            "parameters": {"a": 1, "b": "text", "c": [true], "action": "data.sql"},
            "tags": ["t"], "decomposition_strategy": "parallel",
            "required_capabilities": ["computation", "own"]
        })
    );
}

#[test]
fn standard_input_is_submitted_as_it_is_written() {
    let server = Server::new(&[("POST /api/v1/tasks", 200, envelope(&task(1, "a", "ready")))]);
    let mut child = maos(&["task", "submit", "-", "--json", "--server", &server.url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\"name\": \"a\",  \"x\": 1.00}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(document(&output)["task"]["id"], id(1));
    assert_eq!(server.requests(), ["POST /api/v1/tasks {\"name\": \"a\",  \"x\": 1.00}"]);
}

#[test]
fn of_a_list_each_entry_has_its_own_answer() {
    let server = Server::new(&[
        ("POST /api/v1/tasks", 200, envelope(&task(1, "a", "ready"))),
        ("POST /api/v1/tasks", 422, error("VALIDATION_FAILED", "`name` must not be blank")),
        ("POST /api/v1/tasks", 200, envelope(&task(3, "c", "ready"))),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("list.yaml");
    std::fs::write(&file, "- name: a\n- name: ''\n- name: c\n").unwrap();
    let output = server.maos(&["task", "submit", file.to_str().unwrap(), "--json"]);
    let answers = document(&output);
    assert_eq!(answers[0]["task"]["id"], id(1));
    assert_eq!(answers[1]["error_code"], "VALIDATION_FAILED");
    assert_eq!(answers[2]["task"]["id"], id(3));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn watching_prints_each_change_once_and_ends_with_the_task() {
    let root = |status| {
        let root = task(1, "report", status);
        envelope(&with(root, json!({"subtasks": [id(2), id(3)], "error": "1 subtask failed"})))
    };
    let failed = with(task(3, "second", "failed"), json!({"error": "no file"}));
    let (waiting, second, third) = (format!("{}?wait_seconds=2", path(1)), path(2), path(3));
    let server = Server::new(&[
        (&path(1), 200, root("running")),
        (&waiting, 200, root("running")),
        (&waiting, 200, root("failed")),
        (&second, 200, envelope(&task(2, "first", "running"))),
        (&second, 200, envelope(&task(2, "first", "completed"))),
        (&third, 200, envelope(&task(3, "second", "pending"))),
        (&third, 200, envelope(&task(3, "second", "running"))),
        (&third, 200, envelope(&failed)),
    ]);
    assert_snapshot!(shown(&server.maos(&["task", "watch", &id(1)])), @r"
    exit 1
    -- out
    running   report
      running   first
      completed first
      running   second
      failed    second: no file
    failed    report: 1 subtask failed
    -- err
    ");
    let asked = server.requests();
    assert_eq!(asked.iter().filter(|line| line.starts_with(&path(2))).count(), 2);
    assert_eq!(asked.iter().filter(|line| line.starts_with(&path(1))).count(), 3);
}

#[test]
fn submitting_and_waiting_ends_as_the_task_does() {
    let ended = with(task(1, "a", "completed"), json!({"result": {"n": 1}}));
    let waiting = format!("{}?wait_seconds=60", path(1));
    let server = Server::new(&[
        ("POST /api/v1/tasks", 200, envelope(&task(1, "a", "ready"))),
        (&path(1), 200, envelope(&task(1, "a", "running"))),
        (&waiting, 200, envelope(&ended)),
    ]);
    let output = server.maos(&["task", "submit", "--name", "a", "--wait", "--json"]);
    assert_eq!(document(&output)["task"]["result"]["n"], 1);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn why_names_each_blocker_with_its_remedy() {
    let answer = json!({
        "task_id": id(1), "status": "ready", "waiting": true, "blockers": [
            {"kind": "no_agent", "message": "no agent has capability `gpu`",
             "since": "2026-01-01T00:00:00Z", "held_by": [], "unblock": "create one"},
            {"kind": "resources", "message": "cpu_cores: 2 wanted, 1 free",
             "since": "2026-01-01T00:00:05Z", "held_by": [id(2)], "unblock": "wait for its end"}
        ]
    });
    let line = format!("GET /api/v1/tasks/{}/explain", id(1));
    let server = Server::new(&[(&line, 200, answer)]);
    assert_snapshot!(shown(&server.maos(&["task", "why", &id(1)])), @r"
    exit 0
    -- out
    ready: it waits for
    1. no agent has capability `gpu` (no_agent)
       since      2026-01-01T00:00:00Z
       unblock    create one
    2. cpu_cores: 2 wanted, 1 free (resources)
       since      2026-01-01T00:00:05Z
       held by    01900000-0000-7000-8000-000000000002
       unblock    wait for its end
    -- err
    ");
}

#[test]
fn why_of_a_task_that_has_ended_does_not_contradict_itself() {
    let stopping = json!({
        "kind": "stopping", "message": "an earlier attempt still holds its slot",
        "since": "2026-01-01T00:00:00Z", "held_by": [id(50)], "unblock": "its end"
    });
    let explain = |n, blockers| {
        let line = format!("GET /api/v1/tasks/{}/explain", id(n));
        let ended = json!({"task_id": id(n), "status": "cancelled", "waiting": false});
        (line, with(ended, json!({ "blockers": blockers })))
    };
    let answers = [explain(1, json!([stopping])), explain(2, json!([]))];
    let script: Vec<_> = answers.iter().map(|(line, b)| (line.as_str(), 200, b.clone())).collect();
    let server = Server::new(&script);
    assert_snapshot!(shown(&server.maos(&["task", "why", &id(1)])), @r"
    exit 0
    -- out
    cancelled: it has ended; what is left of it is on its way out
    1. an earlier attempt still holds its slot (stopping)
       since      2026-01-01T00:00:00Z
       held by    01900000-0000-7000-8000-000000000050
       unblock    its end
    -- err
    ");
    let told = shown(&server.maos(&["task", "why", &id(2)]));
    assert!(told.contains("cancelled: it has ended and waits for nothing\n-- err"), "{told}");
}

#[test]
fn results_are_text_or_json_for_people_and_the_whole_answer_for_programs() {
    let line = |n| format!("GET /api/v1/tasks/{}/results", id(n));
    let answers = [
        (line(1), 200, json!({"task_id": id(1), "results": "# Report\n\nwell\n"})),
        (line(2), 200, json!({"task_id": id(2), "results": {"rows": [1]}})),
        (line(3), 404, error("RESULTS_NOT_READY", "task `3` is running: it has no results yet")),
    ];
    let script: Vec<_> =
        answers.iter().map(|(line, s, b)| (line.as_str(), *s, b.clone())).collect();
    let server = Server::new(&script);
    let results = |n, more: &[&str]| server.maos(&[&["task", "results", &id(n)], more].concat());
    assert_snapshot!(shown(&results(1, &[])), @r"
    exit 0
    -- out
    # Report

    well
    -- err
    ");
    assert_snapshot!(shown(&results(2, &[])), @r#"
    exit 0
    -- out
    {
      "rows": [
        1
      ]
    }
    -- err
    "#);
    assert_eq!(document(&results(2, &["--json"]))["results"]["rows"][0], 1);
    assert_snapshot!(shown(&results(3, &[])), @r"
    exit 1
    -- out
    -- err
    error: task `3` is running: it has no results yet (RESULTS_NOT_READY)
    hint: `maos task watch ID` follows it to its end, `maos task why ID` says what it waits for
    ");
    assert_eq!(document(&results(3, &["--json"]))["error_code"], "RESULTS_NOT_READY");
}

#[test]
fn cancelling_passes_the_reason_on_and_retrying_is_said() {
    let cancelled = json!({"message": "task cancelled", "task_id": id(1), "reason": "no need"});
    let cancel = format!("DELETE /api/v1/tasks/{}?reason=no%20need", id(1));
    let retry = format!("PUT /api/v1/tasks/{}/retry", id(1));
    let server = Server::new(&[
        (&cancel, 200, cancelled),
        (&retry, 409, error("NOT_RETRYABLE", "task `1` is completed")),
    ]);
    let output = server.maos(&["task", "cancel", &id(1), "--reason", "no need"]);
    assert_snapshot!(shown(&output), @r"
    exit 0
    -- out
    task cancelled
    -- err
    ");
    assert_snapshot!(shown(&server.maos(&["task", "retry", &id(1)])), @r"
    exit 1
    -- out
    -- err
    error: task `1` is completed (NOT_RETRYABLE)
    hint: `maos task get ID` shows how it ended
    ");
}

#[test]
fn agents_are_made_and_shown() {
    let agent = json!({
        "id": id(7), "name": "w-1", "type": "own", "status": "busy",
        "capabilities": ["computation", "own"], "current_task_id": id(1), "task_queue": [id(1)],
        "max_concurrent_tasks": 4, "resource_limits": {}, "configuration": {"a": 1},
        "metadata": {}, "created_at": "2026-01-01T00:00:00Z", "started_at": null,
        "last_seen": "2026-01-01T00:00:09Z", "metrics": {
            "tasks_completed": 3, "tasks_failed": 1, "total_execution_time": 2.0,
            "average_execution_time": 0.5, "cpu_usage_percent": 0.0, "memory_usage_mb": 0.0,
            "success_rate": 0.75, "last_heartbeat": null, "health_score": 1.0},
        "tags": [], "health_check_interval": 30, "heartbeat_timeout": 90, "runtime": "worker"
    });
    let page = json!({
        "items": [agent], "page": 1, "page_size": 20, "total_items": 1, "total_pages": 1,
        "has_next": false, "has_previous": false
    });
    let ended = json!({"message": "agent terminated", "agent_id": id(7)});
    let delete = format!("DELETE /api/v1/agents/{}", id(7));
    let server = Server::new(&[
        ("POST /api/v1/agents", 200, json!({"agent": agent, "message": "made"})),
        ("GET /api/v1/agents", 200, page),
        (&delete, 200, ended),
    ]);
    let arguments = "agent create --type own --capability computation,own --runtime worker \
                     --max-concurrent-tasks 4 --configuration a=1";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    assert_snapshot!(shown(&server.maos(&arguments)), @r#"
    exit 0
    -- out
    id            01900000-0000-7000-8000-000000000007
    name          w-1
    type          own
    runtime       worker
    status        busy
    capabilities  computation, own
    runs          1 of 4
    tasks         01900000-0000-7000-8000-000000000001
    so far        3 completed, 1 failed
    created       2026-01-01T00:00:00Z
    last seen     2026-01-01T00:00:09Z
    configuration {
                    "a": 1
                  }
    -- err
    "#);
    assert_eq!(
        server.body(0),
        json!({
            "agent_type": "own", "capabilities": ["computation", "own"], "runtime": "worker",
            "configuration": {"a": 1}, "max_concurrent_tasks": 4
        })
    );
    assert_snapshot!(shown(&server.maos(&["agent", "list"])), @r"
    exit 0
    -- out
    ID                                    STATUS  TASKS  TYPE  NAME  CAPABILITIES
    01900000-0000-7000-8000-000000000007  busy    1/4    own   w-1   computation, own
    -- err
    ");
    assert_snapshot!(shown(&server.maos(&["agent", "terminate", &id(7)])), @r"
    exit 0
    -- out
    agent terminated
    -- err
    ");
}

#[test]
fn status_is_one_screen_and_an_unhealthy_server_exits_1() {
    let time = "2026-01-01T00:00:00Z";
    let component =
        |healthy| json!({"healthy": healthy, "status": if healthy {"ok"} else {"disk full"}});
    let detailed = |status: &str, healthy: bool| {
        json!({"status": status, "timestamp": time, "uptime_seconds": 3700, "active_executions": 1,
            "components": {"orchestrator": component(true), "state_manager": component(healthy)}})
    };
    let lives = json!({"status": "healthy", "timestamp": time, "service": "maos",
        "version": "9.9.9", "uptime_seconds": 3700});
    let status = json!({"running": true, "uptime_seconds": 3700, "startup_time": time,
        "components": {}, "active_executions": 1, "execution_plans": 2, "total_tasks": 10,
        "total_agents": 5, "total_resources": 1});
    let metrics = json!({"orchestrator": {"tasks_submitted": 10, "tasks_completed": 7},
        "task_planner": {}, "agent_manager": {"active_agents": 1, "idle_agents": 4},
        "resource_allocator": {"cpu_cores": {"capacity": 100.0, "allocated": 1.5}},
        "state_manager": {}, "message_bus": {}, "timestamp": time});
    let server = Server::new(&[
        ("GET /health", 200, lives),
        ("GET /health/detailed", 200, detailed("healthy", true)),
        ("GET /health/detailed", 503, detailed("unhealthy", false)),
        ("GET /api/v1/system/status", 200, status),
        ("GET /api/v1/system/metrics", 200, metrics),
    ]);
    assert_snapshot!(shown(&server.maos(&["status"])), @r"
    exit 0
    -- out
    server        maos 9.9.9 at SERVER
    health        healthy
    takes tasks   yes
    up            1 h 1 min, since 2026-01-01T00:00:00Z
    running now   1 attempt
    plans         2 accepted so far
    tasks         10 known; so far 10 submitted, 7 completed
    agents        5 serving, 1 active, 4 idle
    resources     cpu_cores: 1.5 of 100 taken
    -- err
    ");
    let unhealthy = server.maos(&["status", "--json"]);
    assert_eq!(
        document(&unhealthy)["health"]["components"]["state_manager"]["status"],
        "disk full"
    );
    assert_eq!(unhealthy.status.code(), Some(1));
}

#[test]
fn a_refusal_exits_1_with_the_remedy() {
    let refused = with(
        error("VALIDATION_FAILED", "2 fields are wrong"),
        json!({"details": {"fields": {"name": "must not be blank", "tags": "must be a list"}}}),
    );
    let server = Server::new(&[
        (&path(1), 404, error("TASK_NOT_FOUND", "no task has the id `1`")),
        (&path(2), 503, error("SHUTTING_DOWN", "the server is about to end")),
        (&path(3), 500, error("INTERNAL", "the server failed")),
        ("POST /api/v1/tasks", 422, refused),
    ]);
    assert_snapshot!(shown(&server.maos(&["task", "get", &id(1)])), @r"
    exit 1
    -- out
    -- err
    error: no task has the id `1` (TASK_NOT_FOUND)
    hint: `maos task list` shows the tasks there are
    ");
    assert_eq!(document(&server.maos(&["task", "get", &id(1), "--json"]))["request_id"], "r-1");
    assert_snapshot!(shown(&server.maos(&["task", "get", &id(2)])), @r"
    exit 1
    -- out
    -- err
    error: the server is about to end (SHUTTING_DOWN)
    hint: nothing was changed: try again in a moment
    ");
    assert_snapshot!(shown(&server.maos(&["task", "get", &id(3)])), @r"
    exit 2
    -- out
    -- err
    error: the server failed (INTERNAL)
    hint: the server's log says more under the request's id
    ");
    assert_snapshot!(shown(&server.maos(&["task", "submit", "--name", " "])), @r"
    exit 1
    -- out
    -- err
    error: 2 fields are wrong (VALIDATION_FAILED)
      `name`: must not be blank
      `tags`: must be a list
    hint: correct what it names and send it again
    ");
}

#[test]
fn what_is_no_server_of_ours_is_said() {
    let server = Server::new(&[(&path(1), 200, json!({"hello": "world"}))]);
    assert_snapshot!(shown(&server.maos(&["task", "get", &id(1)])), @r"
    exit 2
    -- out
    -- err
    error: `SERVER` answers 200, but not as a maos server: missing field `task` at line 1 column 17
    hint: check --server or MAOS_SERVER: something else listens there
    ");
}

#[test]
fn nobody_there_exits_2_with_the_remedy() {
    // Bound, so that nobody else has the port, and given back, so that nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = maos(&["status", "--json", "--server", &url]).output().unwrap();
    assert_eq!(document(&output)["error_code"], "SERVER_UNREACHABLE");
    assert_snapshot!(String::from_utf8(output.stderr).unwrap().replace(&url, "SERVER"), @r"
    error: no server answers at `SERVER`: Connection refused (os error 111)
    hint: start one with `maos serve`, or name another with --server or MAOS_SERVER
    ");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn arguments_that_make_no_sense_exit_2() {
    let wrong = |arguments: &[&str]| shown(&maos(arguments).output().unwrap());
    assert_snapshot!(wrong(&["task", "get", "7"]), @r"
    exit 2
    -- out
    -- err
    error: invalid value '7' for '<ID>': an id is a UUID
    hint: `maos task list` shows the ids there are

    For more information, try '--help'.
    ");
    assert_snapshot!(wrong(&["task", "list", "--status", "done"]), @r"
    exit 2
    -- out
    -- err
    error: invalid value 'done' for '--status <STATUS>'
      [possible values: pending, ready, running, completed, failed, cancelled, retrying]

    For more information, try '--help'.
    ");
    assert_snapshot!(wrong(&["task", "submit"]), @r"
    exit 2
    -- out
    -- err
    error: the following required arguments were not provided:
      <FILE|-|--name <NAME>>

    Usage: maos task submit <FILE|-|--name <NAME>>

    For more information, try '--help'.
    ");
    assert_snapshot!(wrong(&["task", "submit", "--name", "a", "--param", "b"]), @r"
    exit 2
    -- out
    -- err
    error: invalid value 'b' for '--param <KEY=VALUE>': `b` is not of the form KEY=VALUE

    For more information, try '--help'.
    ");
    assert_snapshot!(wrong(&["status", "--server", "localhost:8000"]), @r"
    exit 2
    -- out
    -- err
    error: `localhost:8000` is no address of a server: it must begin with http:// or https://
    hint: give --server or MAOS_SERVER a URL such as http://127.0.0.1:8000
    ");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let server = Server::new(&[(&path(1), 200, envelope(&task(1, "a", "ready")))]);
    let mut child = maos(&["task", "get", &id(1), "--server", &server.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
}

fn log_page(items: Vec<serde_json::Value>, next: u64, ended: bool) -> serde_json::Value {
    json!({"task_id": id(1), "items": items, "next_offset": next, "ended": ended})
}

#[test]
fn the_lines_of_a_task_are_printed_page_by_page_and_followed_to_its_end() {
    let item = |offset: u64, level: &str, line: &str| {
        json!({"offset": offset, "time": "2026-01-01T00:00:00Z", "attempt": 2, "level": level,
            "line": line, "source": "stderr"})
    };
    let line = |query: &str| format!("GET /api/v1/tasks/{}/logs?{query}", id(1));
    let one = log_page(vec![item(0, "info", "one"), item(1, "error", "t\u{1b}wo")], 2, false);
    let two = log_page(vec![item(2, "info", "three")], 3, true);
    let server = Server::new(&[
        (&line("limit=1000&level=debug"), 200, one.clone()),
        (&line("offset=2&limit=1000&level=debug"), 200, two.clone()),
        (&line("limit=1000&level=debug&wait_seconds=60"), 200, one),
        (&line("offset=2&limit=1000&level=debug&wait_seconds=60"), 200, two),
    ]);
    let printed = shown(&server.maos(&["task", "logs", &id(1)]));
    assert_snapshot!(printed, @r"
    exit 0
    -- out
    2026-01-01T00:00:00Z #2 one
    2026-01-01T00:00:00Z #2 error: t\u{1b}wo
    2026-01-01T00:00:00Z #2 three
    -- err
    ");
    assert_eq!(shown(&server.maos(&["task", "logs", "-f", &id(1)])), printed);
    let all = document(&server.maos(&["task", "logs", "--json", &id(1)]));
    assert_eq!((&all["items"][2]["line"], &all["next_offset"]), (&json!("three"), &json!(3)));
    let followed = server.maos(&["task", "logs", "--json", "-f", &id(1)]);
    assert_eq!(String::from_utf8(followed.stdout).unwrap().lines().count(), 3);
}
