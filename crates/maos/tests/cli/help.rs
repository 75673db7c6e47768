//! What `--help` says.

use insta::assert_snapshot;

use crate::maos;

fn help(words: &str) -> String {
    let arguments: Vec<&str> = words.split_whitespace().chain(["--help"]).collect();
    let output = maos(&arguments).env("COLUMNS", "90").output().unwrap();
    assert!(output.stderr.is_empty() && output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_commands() {
    assert_snapshot!(help(""), @r"
    Runs many agents reliably: submit tasks, watch them, lose none

    Usage: maos <COMMAND>

    Commands:
      serve       Run the server until a signal ends it
      run         Run a file of submissions to its end, with no server
      task        Submit tasks to a server, watch them, change them
      agent       See, make and end the agents of a server
      worker      Make any program a worker of a server
      checkpoint  Keep the state of a server as it is, and go back to it
      status      Show how a server is
      watch       Watch what a server does, live on a terminal, else line by line
      config      Show the configuration
      doctor      Check whether this machine and the configuration are fit for a server
      backup      Copy a data directory
      restore     Make a data directory from a copy
      help        Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version
    ");
    assert_snapshot!(help("task"), @r"
    Submit tasks to a server, watch them, change them

    Usage: maos task [OPTIONS] <COMMAND>

    Commands:
      submit     Submit a task, or a file of them
      get        Show a task
      list       List the tasks, the newest first
      cancel     Cancel a task and all below it
      retry      Run a failed or cancelled task again, under the same id
      why        Say what a task waits for, since when, who holds it, and what would let it go
                 on
      watch      Follow a task and its subtasks to its end; exit 0 if it completes, else 1
      logs       Print what the attempts of a task have to say, each line with its time
      artifacts  List the files that are kept with a task, or fetch one
      results    Print what a completed task made
      help       Print this message or the help of the given subcommand(s)

    Options:
          --server <URL>      The server to talk to [env: MAOS_SERVER] [default:
                              http://127.0.0.1:8000]
          --server-ca <FILE>  A PEM file of authorities to trust over https, beside the
                              well-known ones [env: MAOS_SERVER_CA]
          --json              Print one JSON document on standard output
      -h, --help              Print help
      -V, --version           Print version
    ");
}

#[test]
fn agents() {
    assert_snapshot!(help("agent"), @r"
    See, make and end the agents of a server

    Usage: maos agent [OPTIONS] <COMMAND>

    Commands:
      list       List the agents
      get        Show an agent
      create     Register an agent
      terminate  End an agent's service: it takes nothing new, and what it runs is given to
                 others
      help       Print this message or the help of the given subcommand(s)

    Options:
          --server <URL>      The server to talk to [env: MAOS_SERVER] [default:
                              http://127.0.0.1:8000]
          --server-ca <FILE>  A PEM file of authorities to trust over https, beside the
                              well-known ones [env: MAOS_SERVER_CA]
          --json              Print one JSON document on standard output
      -h, --help              Print help
      -V, --version           Print version
    ");
}

#[test]
fn checkpoints() {
    assert_snapshot!(help("checkpoint"), @r"
    Keep the state of a server as it is, and go back to it

    Usage: maos checkpoint [OPTIONS] <COMMAND>

    Commands:
      list     List the checkpoints, the oldest first
      create   Make a checkpoint of everything that was answered before
      restore  Go back to a checkpoint; the state until now becomes one too
      delete   Delete a checkpoint
      help     Print this message or the help of the given subcommand(s)

    Options:
          --server <URL>      The server to talk to [env: MAOS_SERVER] [default:
                              http://127.0.0.1:8000]
          --server-ca <FILE>  A PEM file of authorities to trust over https, beside the
                              well-known ones [env: MAOS_SERVER_CA]
          --json              Print one JSON document on standard output
      -h, --help              Print help
      -V, --version           Print version
    ");
    assert_snapshot!(help("checkpoint restore"), @r"
    Go back to a checkpoint; the state until now becomes one too

    Usage: maos checkpoint restore [OPTIONS] <NAME>

    Arguments:
      <NAME>  The checkpoint's name or id

    Options:
          --server <URL>      The server to talk to [env: MAOS_SERVER] [default:
                              http://127.0.0.1:8000]
          --server-ca <FILE>  A PEM file of authorities to trust over https, beside the
                              well-known ones [env: MAOS_SERVER_CA]
          --json              Print one JSON document on standard output
      -h, --help              Print help
      -V, --version           Print version
    ");
}

#[test]
fn commands_on_this_machine() {
    assert_snapshot!(help("serve"), @r"
    Run the server until a signal ends it

    Usage: maos serve [OPTIONS]

    Options:
          --host <HOST>      Address to listen on [default: 127.0.0.1]
          --port <PORT>      Port to listen on; 0 takes a free one [default: 8000]
          --data-dir <DIR>   Where everything durable is kept [default: maos-data]
          --config <FILE>    The configuration [default: maos.toml, if there is one]
          --debug            Log everything, also to `maos_api.log`
          --log-file <FILE>  Log to this file as well
      -h, --help             Print help
      -V, --version          Print version
    ");
    assert_snapshot!(help("run"), @r"
    Run a file of submissions to its end, with no server

    Usage: maos run [OPTIONS] <FILE>

    Arguments:
      <FILE>  A submission, or a list of them, as JSON or YAML

    Options:
          --json            Print one JSON document on standard output
          --config <FILE>   The configuration [default: maos.toml beside FILE, if there is
                            one]
          --data-dir <DIR>  Keep everything durable here [default: .maos/runs/<hash of FILE>]
      -h, --help            Print help
      -V, --version         Print version
    ");
}

#[test]
fn configuration_and_backups() {
    assert_snapshot!(help("config show"), @r"
    Print every setting that is in force, and where it comes from

    Usage: maos config show [OPTIONS]

    Options:
          --json           Print one JSON document on standard output
          --config <FILE>  The configuration [default: maos.toml, if there is one]
      -h, --help           Print help
      -V, --version        Print version
    ");
    assert_snapshot!(help("backup"), @r"
    Copy a data directory

    Usage: maos backup [OPTIONS] <DIR>

    Arguments:
      <DIR>  The folder to write; it must be empty or not there yet

    Options:
          --data-dir <DIR>  The data directory to copy; its server may go on [default:
                            maos-data]
          --json            Print one JSON document on standard output
      -h, --help            Print help
      -V, --version         Print version
    ");
    assert_snapshot!(help("restore"), @r"
    Make a data directory from a copy

    Usage: maos restore [OPTIONS] <DIR>

    Arguments:
      <DIR>  What `maos backup` wrote

    Options:
          --data-dir <DIR>  The data directory to make; it must be empty or not there yet
                            [default: maos-data]
          --json            Print one JSON document on standard output
      -h, --help            Print help
      -V, --version         Print version
    ");
}

#[test]
fn commands_to_a_server() {
    assert_snapshot!(help("status"), @r"
    Show how a server is

    Usage: maos status [OPTIONS]

    Options:
          --server <URL>      The server to talk to [env: MAOS_SERVER] [default:
                              http://127.0.0.1:8000]
          --server-ca <FILE>  A PEM file of authorities to trust over https, beside the
                              well-known ones [env: MAOS_SERVER_CA]
          --json              Print one JSON document on standard output
      -h, --help              Print help
      -V, --version           Print version
    ");
}

#[test]
fn submitting() {
    assert_snapshot!(help("task submit"), @r"
    Submit a task, or a file of them

    Usage: maos task submit [OPTIONS] <FILE|-|--name <NAME>>

    Arguments:
      [FILE|-]  A submission, or a list of them, as JSON or YAML; - for standard input

    Options:
          --name <NAME>                The task's name; with it the flags describe the task
          --description <DESCRIPTION>  What it is about
          --action <ACTION>            What a built-in agent shall do, as `noop` or
                                       `file.read`
          --param <KEY=VALUE>          A parameter; the value is JSON, or else a string; may
                                       be given again
          --priority <PRIORITY>        How much it matters [default: medium] [possible values:
                                       low, medium, high, critical]
          --timeout <SECONDS>          Bound on one attempt [default: 300]
          --max-retries <N>            Retries after failures [default: 3]
          --strategy <STRATEGY>        How it is split into subtasks [possible values:
                                       sequential, parallel, pipeline, hierarchical,
                                       fan_out_fan_in, planner]
          --capability <NAME>          What its agent must be able to do; several with commas,
                                       or given again
          --agent-type <TYPE>          The type its agent must be of
          --tag <TAG>                  A word to find it by; may be given again
          --idempotency-key <KEY>      The same key with the same submission is answered as
                                       the first time
          --wait                       Follow it to its end; exit 0 if it completes, else 1
          --server <URL>               The server to talk to [env: MAOS_SERVER] [default:
                                       http://127.0.0.1:8000]
          --server-ca <FILE>           A PEM file of authorities to trust over https, beside
                                       the well-known ones [env: MAOS_SERVER_CA]
          --json                       Print one JSON document on standard output
      -h, --help                       Print help
      -V, --version                    Print version
    ");
}

#[test]
fn listing_cancelling_and_watching() {
    assert_snapshot!(help("task list"), @r"
    List the tasks, the newest first

    Usage: maos task list [OPTIONS]

    Options:
          --status <STATUS>        Only those that stand there; several with commas [possible
                                   values: pending, ready, running, completed, failed,
                                   cancelled, retrying]
          --priority <PRIORITY>    Only those that matter so much; several with commas
                                   [possible values: low, medium, high, critical]
          --tag <TAG>              Only those with this tag; may be given again
          --search <WORDS>         Only those with these words in name, description or tags;
                                   `word*` for a beginning
          --parent <ID>            Only the direct subtasks of this task
          --agent <ID>             Only those that this agent holds at the moment
          --created-after <TIME>   Only those created at this time or later, such as
                                   2026-01-31T12:00:00Z
          --created-before <TIME>  Only those created before this time
          --page <N>               Which page, from 1
          --page-size <N>          Tasks on a page, 1 to 100
          --cursor <WORD>          Go on where an earlier page ended
          --server <URL>           The server to talk to [env: MAOS_SERVER] [default:
                                   http://127.0.0.1:8000]
          --server-ca <FILE>       A PEM file of authorities to trust over https, beside the
                                   well-known ones [env: MAOS_SERVER_CA]
          --json                   Print one JSON document on standard output
      -h, --help                   Print help
      -V, --version                Print version
    ");
    assert_snapshot!(help("task cancel"), @r"
    Cancel a task and all below it

    Usage: maos task cancel [OPTIONS] <ID>

    Arguments:
      <ID>  The task's id

    Options:
          --reason <REASON>   Why, for whoever asks later
          --server <URL>      The server to talk to [env: MAOS_SERVER] [default:
                              http://127.0.0.1:8000]
          --server-ca <FILE>  A PEM file of authorities to trust over https, beside the
                              well-known ones [env: MAOS_SERVER_CA]
          --json              Print one JSON document on standard output
      -h, --help              Print help
      -V, --version           Print version
    ");
    assert_snapshot!(help("task watch"), @r"
    Follow a task and its subtasks to its end; exit 0 if it completes, else 1

    Usage: maos task watch [OPTIONS] <ID>

    Arguments:
      <ID>  The task's id

    Options:
          --server <URL>      The server to talk to [env: MAOS_SERVER] [default:
                              http://127.0.0.1:8000]
          --server-ca <FILE>  A PEM file of authorities to trust over https, beside the
                              well-known ones [env: MAOS_SERVER_CA]
          --json              Print one JSON document on standard output
      -h, --help              Print help
      -V, --version           Print version
    ");
}

#[test]
fn making_an_agent() {
    assert_snapshot!(help("agent create"), @r"
    Register an agent

    Usage: maos agent create [OPTIONS] --type <WORD> --capability <NAME>

    Options:
          --type <WORD>                Your word for its kind
          --capability <NAME>          What it can do; several with commas, or given again
          --name <NAME>                Its name for people
          --runtime <RUNTIME>          What does its work [default: builtin] [possible values:
                                       builtin, command, http, worker]
          --max-concurrent-tasks <N>   Tasks that it runs at once [default: 1]
          --configuration <KEY=VALUE>  A setting for a worker's own program; the value is
                                       JSON, or else a string; may be given again
          --tag <TAG>                  A word to find it by; may be given again
          --heartbeat-timeout <N>      A worker: seconds of silence after which it is lost
                                       [default: the server's]
          --server <URL>               The server to talk to [env: MAOS_SERVER] [default:
                                       http://127.0.0.1:8000]
          --server-ca <FILE>           A PEM file of authorities to trust over https, beside
                                       the well-known ones [env: MAOS_SERVER_CA]
          --json                       Print one JSON document on standard output
      -h, --help                       Print help
      -V, --version                    Print version
    ");
}

#[test]
fn making_a_program_a_worker() {
    assert_snapshot!(help("worker exec"), @r"
    Run a program for each task that a server has for it, until a signal ends this

    Usage: maos worker exec [OPTIONS] -- <PROGRAM>...

    Arguments:
      <PROGRAM>...  The program and its arguments

    Options:
          --capability <NAME>  What tasks can ask for; several with commas, or given again
                               [default: task_execution]
          --agent-type <TYPE>  The word for its kind [default: the program's name]
          --concurrency <N>    Tasks at once [default: 1]
          --id <UUID>          The agent to be; without it each start is another one
          --server <URL>       The server to talk to [env: MAOS_SERVER] [default:
                               http://127.0.0.1:8000]
          --server-ca <FILE>   A PEM file of authorities to trust over https, beside the
                               well-known ones [env: MAOS_SERVER_CA]
          --json               Print one JSON document on standard output
      -h, --help               Print help
      -V, --version            Print version
    ");
}
