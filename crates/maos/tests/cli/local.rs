//! Commands that need no server.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::{document, maos, shown};

#[test]
fn the_configuration_is_shown_with_its_origins() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("maos.toml"), "[api]\nport = 8123\n").unwrap();
    let show = |more: &[&str]| {
        let arguments = [&["config", "show"], more].concat();
        maos(&arguments).current_dir(&folder).env("MAOS_API_MAX_AGENTS", "7").output().unwrap()
    };
    let text = shown(&show(&[]));
    let line = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("api.port").contains("= 8123") && line("api.port").contains("maos.toml`"));
    assert!(line("api.max_agents").contains("= 7"));
    assert!(line("api.max_agents").ends_with("# environment variable `MAOS_API_MAX_AGENTS`"));
    assert!(line("api.default_task_timeout").ends_with("# default"));
    let document = document(&show(&["--json"]));
    let settings = document["settings"].as_array().unwrap();
    let port = settings.iter().find(|setting| setting["key"] == "api.port").unwrap();
    assert_eq!(port["value"], 8123);
}

#[test]
fn a_wrong_configuration_exits_2() {
    let folder = tempfile::tempdir().unwrap();
    let output = maos(&["config", "show", "--config", "none.toml", "--json"])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert_snapshot!(String::from_utf8_lossy(&output.stderr), @r"
    error: `none.toml` cannot be read: No such file or directory (os error 2)
    hint: name the right file with --config, or leave it out
    ");
    assert!(document(&output)["error"].as_str().unwrap().contains("none.toml"));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_place_that_cannot_be_used_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), noop("a").to_string()).unwrap();
    for (words, expected) in [
        ("run a.json --data-dir a.json", "`a.json` cannot be the data directory: "),
        ("serve --port 0 --data-dir /proc/x", "`/proc/x` cannot be the data directory: "),
        ("serve --port 0 --log-file no/x.log", "the log file `no/x.log` cannot be opened: "),
    ] {
        let words: Vec<&str> = words.split_whitespace().collect();
        let told = shown(&maos(&words).current_dir(&folder).output().unwrap());
        assert!(told.starts_with(&format!("exit 2\n-- out\n-- err\nerror: {expected}")), "{told}");
        assert!(told.contains("\nhint: name a f"), "{told}");
    }
}

#[test]
fn a_log_file_of_ones_own_is_written_beside_the_one_of_debug() {
    let folder = tempfile::tempdir().unwrap();
    // A port that is taken lets the server end by itself.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let words =
        ["serve", "--host", "localhost", "--port", &port, "--debug", "--log-file", "own.log"];
    let told = shown(&maos(&words).current_dir(&folder).output().unwrap());
    assert!(told.contains(&format!("error: cannot listen on 127.0.0.1:{port}: ")), "{told}");
    for file in ["maos_api.log", "own.log"] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
}

#[test]
fn a_variable_that_is_no_setting_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), noop("a").to_string()).unwrap();
    for words in [&["run", "a.json"][..], &["config", "show"], &["doctor"]] {
        let mut command = maos(words);
        command
            .env("MAOS_BOGUS_KEY", "1")
            .env("MAOS_SERVER", "http://x")
            .env("MAOS_PORT", "tcp://");
        let told = shown(&command.current_dir(&folder).output().unwrap());
        let warning = "warning: environment variable `MAOS_BOGUS_KEY` is no setting and has";
        assert!(told.contains(warning) && told.matches("warning").count() == 1, "{told}");
    }
}

#[test]
fn a_server_that_is_set_to_nothing_is_the_one_by_default() {
    let mut command = maos(&["status", "--json"]);
    let output = command.env("MAOS_SERVER", "").env("MAOS_SERVER_CA", "").output().unwrap();
    assert!(!shown(&output).contains("BAD_URL"), "{}", shown(&output));
    let output = maos(&["status", "--server", "", "--json"]).output().unwrap();
    assert_eq!(document(&output)["error_code"], "BAD_URL");
}

#[test]
fn wrong_arguments_are_one_document_with_json() {
    for (words, error, hint) in [
        ("run --json", "the following required arguments were not provided: <FILE>", "`--help`"),
        ("run --json --bogus x", "unexpected argument '--bogus' found", "'-- --bogus'"),
        (
            "task results xyz --json",
            "invalid value 'xyz' for '<ID>': an id is a UUID",
            "`maos task list` shows",
        ),
        ("task --json", "'maos task' requires a subcommand", "`--help`"),
        ("--server http://x doctor --json", "this command talks to no server", "`--help`"),
        ("task submit --name a --param a=1 --param a=2 --json", "--param names `a` twice", "leave"),
    ] {
        let words: Vec<&str> = words.split_whitespace().collect();
        let output = maos(&words).output().unwrap();
        let told = document(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told["error"].as_str().unwrap().starts_with(error), "{told}");
        assert!(told["hints"].to_string().contains(hint), "{told}");
        assert!(told["error_code"].is_string() && told["details"].is_object(), "{told}");
        assert!(!output.stderr.is_empty());
    }
    let output = maos(&["worker", "exec", "--bogus", "--", "sh", "--json"]).output().unwrap();
    assert!(output.stdout.is_empty(), "that --json is another program's: {}", shown(&output));
    let output = maos(&["run", "--help", "--json"]).output().unwrap();
    assert!(output.status.success() && shown(&output).contains("Usage: maos run"));
}

#[test]
fn a_variable_that_is_no_text_is_refused_where_it_is_ours_and_else_let_be() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), noop("a").to_string()).unwrap();
    let no_text = OsStr::from_bytes(b"\xff\xfe");
    let run = |words: &str, name: &OsStr| {
        let words: Vec<&str> = words.split_whitespace().collect();
        let mut command = maos(&words);
        command.current_dir(&folder).env(name, no_text);
        command.output().unwrap()
    };
    // A server that starts would not come back: it is asked with a variable of ours only.
    for words in ["config show", "run a.json", "doctor", "serve --port 0"] {
        for name in ["MAOS_API_HOST", "LOG_LEVEL", "MAOS_ENV", "REDIS_HOST"] {
            let output = run(words, OsStr::new(name));
            let told = shown(&output);
            let fault = format!("environment variable `{name}`: its value is not UTF-8");
            assert!(told.contains(&fault) && !told.contains("panicked"), "{words}: {told}");
            assert!(!output.status.success(), "{words}: {told}");
        }
    }
    for words in ["config show", "run a.json", "doctor"] {
        for name in [OsStr::new("SOMETHING"), OsStr::new("MAOS_BOGUS"), no_text] {
            let output = run(words, name);
            assert!(output.status.success(), "{words}: {}", shown(&output));
        }
    }
}

#[test]
fn what_is_no_data_directory_and_no_backup_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| shown(&maos(arguments).current_dir(&folder).output().unwrap());
    assert_snapshot!(run(&["backup", "copy"]), @r"
    exit 2
    -- out
    -- err
    error: `maos-data` is no data directory
    hint: name the one of the server with --data-dir
    ");
    assert_snapshot!(run(&["restore", "copy"]), @r"
    exit 2
    -- out
    -- err
    error: `copy` is no whole backup
    hint: name a folder that `maos backup` wrote
    ");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_worker_without_its_program_is_not_started() {
    for program in ["no-such-program", "./no/such"] {
        let told = shown(&maos(&["worker", "exec", "--", program]).output().unwrap());
        let wanted = format!(
            "exit 2\n-- out\n-- err\nerror: there is no program `{program}`\n\
             hint: install it, or correct its path\n"
        );
        assert_eq!(told, wanted);
    }
}

#[test]
fn a_run_of_what_is_no_submission_exits_2_and_one_that_is_refused_exits_1() {
    let folder = tempfile::tempdir().unwrap();
    let run = |content: &str| {
        std::fs::write(folder.path().join("a.json"), content).unwrap();
        maos(&["run", "a.json", "--json"]).current_dir(&folder).output().unwrap()
    };
    let broken = run("{\"name\":\n}");
    assert_snapshot!(String::from_utf8_lossy(&broken.stderr), @r"
    error: `a.json` is not JSON: expected value at line 2 column 1
    hint: correct it where it says
    ");
    assert!(document(&broken)["error"].as_str().unwrap().contains("line 2 column 1"));
    assert_eq!(broken.status.code(), Some(2));
    let refused = run("{\"name\": \" \"}");
    assert_eq!(document(&refused)["error_code"], "VALIDATION_FAILED");
    assert_eq!(refused.status.code(), Some(1));
}

/// Runs a file of this content in a folder of its own.
fn run_of(content: &Value, more: &[&str]) -> (tempfile::TempDir, std::process::Output) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), content.to_string()).unwrap();
    let arguments = [&["run", "a.json"], more].concat();
    let output = maos(&arguments).current_dir(&folder).output().unwrap();
    (folder, output)
}

fn noop(name: &str) -> Value {
    json!({"name": name, "parameters": {"action": "noop"}})
}

#[test]
fn a_list_with_a_wrong_entry_is_refused_as_a_whole_and_leaves_nothing() {
    let write = json!({"name": "w", "parameters": {"action": "file.write", "path": "written",
        "content": "x"}});
    let (folder, output) = run_of(&json!([write, noop(" "), noop("c")]), &[]);
    assert_snapshot!(shown(&output), @r"
    exit 1
    -- out
    -- err
    error: entry 2 of `a.json`: `name` must not be blank (VALIDATION_FAILED)
    hint: correct what it names and send it again
    ");
    let left: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["a.json"]);
    let (folder, output) = run_of(&noop(" "), &[]);
    assert!(!shown(&output).contains("entry"), "{}", shown(&output));
    assert!(!folder.path().join(".maos").exists());
}

#[test]
fn a_list_of_one_is_a_list() {
    let (folder, output) = run_of(&json!([noop("a")]), &["--json"]);
    assert_eq!(document(&output)["tasks"][0]["status"], "completed");
    assert!(!folder.path().join(".maos").exists());
}

#[test]
fn a_run_prints_what_was_made() {
    let sum = json!({"name": "s", "parameters": {"action": "compute.sum", "values": [1, 41]}});
    let text = json!({"name": "t", "parameters": {"action": "noop"}});
    let (_, output) = run_of(&json!([sum, text]), &[]);
    let told = shown(&output);
    assert!(told.starts_with("exit 0\n-- out\n42\n{\n"), "{told}");
}

#[test]
fn a_run_of_what_nobody_here_can_do_says_so_and_ends() {
    let poem = json!({"name": "poem", "agent_type": "poet", "required_capabilities": ["rhyming"]});
    let step = json!({"name": "one", "parameters": {"action": "noop"}});
    let steps = json!({"name": "both", "subtasks": [step, poem]});
    for content in [poem, steps] {
        let (folder, output) = run_of(&content, &[]);
        let told = shown(&output);
        let reason = "no agent has capability `rhyming` and type `poet`";
        assert!(told.starts_with("exit 1\n-- out\n-- err\n"), "{told}");
        assert!(told.contains(&format!("ready: it waits for\n1. {reason}")), "{told}");
        assert!(told.contains(", and none can come to this run"), "{told}");
        assert!(!folder.path().join(".maos").exists());
    }
}

#[test]
fn what_is_no_id_is_refused_with_where_ids_are() {
    for (words, from) in [(["task", "get", "123"], "task"), (["agent", "get", "x"], "agent")] {
        let told = shown(&maos(&words).output().unwrap());
        assert!(told.contains("an id is a UUID\nhint: `maos "), "{told}");
        assert!(told.contains(&format!("`maos {from} list` shows the ids there are")), "{told}");
    }
}

#[test]
fn a_server_may_be_named_before_the_command() {
    let told = shown(&maos(&["--server", "ftp://x", "status"]).output().unwrap());
    assert!(told.contains("`ftp://x` is no address of a server"), "{told}");
    let told = shown(&maos(&["--server", "http://x", "doctor"]).output().unwrap());
    assert!(told.contains("this command talks to no server"), "{told}");
}

#[test]
fn a_backup_of_a_run_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let submission = "{\"name\": \"a\", \"parameters\": {\"action\": \"noop\"}}";
    std::fs::write(folder.path().join("a.json"), submission).unwrap();
    let done = |arguments: &[&str]| {
        let output = maos(arguments).current_dir(&folder).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
        output
    };
    let ran = document(&done(&["run", "a.json", "--json", "--data-dir", "data"]));
    assert_eq!(ran["task"]["status"], "completed");
    assert_eq!(
        document(&done(&["backup", "copy", "--data-dir", "data", "--json"]))["backup"],
        "copy"
    );
    assert_snapshot!(shown(&done(&["restore", "copy", "--data-dir", "again"])), @r"
    exit 0
    -- out
    restored `copy` to `again`
    -- err
    `maos serve --data-dir again` goes on from there
    ");
    assert!(folder.path().join("again/journal.db").is_file());
}

#[test]
fn the_doctor_finds_what_is_unfit_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let doctor = |words: &[&str]| {
        let words: Vec<&str> = ["doctor", "--json"].iter().chain(words).copied().collect();
        let output = maos(&words).current_dir(folder.path()).output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), told)
    };
    let (code, told) = doctor(&[]);
    assert_eq!((code, &told["fit"]), (Some(0), &json!(true)), "{told}");
    let checks = told["checks"].as_array().unwrap();
    assert!(checks.iter().any(|check| check["check"] == "durable write"), "{told}");
    let config = "[commands.none]\ncommand = [\"no-such-program\"]\ncapabilities = [\"a\"]\n";
    std::fs::write(folder.path().join("maos.toml"), config).unwrap();
    let (code, told) = doctor(&[]);
    let unfit: Vec<&Value> = told["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["finding"] == "UNFIT")
        .collect();
    assert_eq!((code, unfit.len()), (Some(1), 1), "{told}");
    assert!(unfit[0]["found"].as_str().unwrap().contains("no-such-program"), "{told}");
    std::fs::write(folder.path().join("maos.toml"), "[api]\nports = 1\n").unwrap();
    let (code, told) = doctor(&[]);
    assert_eq!((code, &told["fit"]), (Some(1), &json!(false)), "{told}");
    let (code, _) = doctor(&["--data-dir", "/proc/none"]);
    assert_eq!(code, Some(1), "nothing can be written there");
}
