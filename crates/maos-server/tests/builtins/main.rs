//! Built-in agents at their door: real files, and data in real processes of their own.
//!
//! Without the usual harness, because the process that works on data is this very program, started
//! again with a word.
#![expect(clippy::unwrap_used, reason = "a test; the lint knows only those of the usual harness")]
#![expect(clippy::print_stdout, reason = "test runners read it")]

mod document;
mod process;

use std::ffi::OsString;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use maos_core::ids::{AgentId, Attempt, NodeId, TaskId};
use maos_core::spec::{AgentSpec, Amounts, Demand, Names, Runtime, TaskSpec};
use maos_server::agents::builtin::{Builtin, data};
use maos_server::agents::{AllowedRoots, Assignment};
use maos_server::config::MessageBus;
use maos_server::messages::Bus;
use maos_server::outbound::{Outbound, Rules};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

const WORKER: &str = "data-worker";

type Test = (&'static str, fn());

const TESTS: &[&[Test]] = &[process::TESTS, document::TESTS];

/// As much of the usual command line as test runners use.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    if has(WORKER) {
        return data::worker_main();
    }
    let tests = || TESTS.iter().copied().flatten();
    if has("--list") {
        if !has("--ignored") {
            tests().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = arguments.iter().filter(|word| !word.starts_with("--")).collect();
    let matches = |name: &str| {
        let is = |word: &&String| if has("--exact") { *word == name } else { name.contains(*word) };
        wanted.is_empty() || wanted.iter().any(is)
    };
    let mut failed = false;
    for (name, test) in tests().filter(|(name, _)| matches(name)) {
        let passed = catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed |= !passed;
    }
    ExitCode::from(u8::from(failed))
}

/// Runs what a test waits for, within a time that no machine exceeds.
fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(60), work).await };
    runtime.block_on(limited).expect("an end within a minute")
}

fn builtin(folder: &Path) -> Builtin {
    let program = vec![std::env::current_exe().unwrap().into_os_string(), WORKER.into()];
    builtin_with(folder, program)
}

fn builtin_with(folder: &Path, program: Vec<OsString>) -> Builtin {
    let bus = Bus::open(&folder.join(".bus.db"), MessageBus::default(), NodeId(1)).unwrap();
    let outbound = Outbound::new(Rules { allow_private: true, allow_hosts: Vec::new() });
    Builtin::new(AllowedRoots { roots: vec![folder.to_owned()] }, program, bus, outbound)
}

fn assignment(parameters: Value, timeout: Duration, stop: &CancellationToken) -> Assignment {
    Assignment {
        task: TaskId(1),
        attempt: Attempt(1),
        agent: Arc::new(agent()),
        spec: Arc::new(task()),
        parameters,
        timeout,
        stop: stop.clone(),
        progress: Arc::new(|_| ()),
        log: Arc::new(|_| ()),
    }
}

fn agent() -> AgentSpec {
    AgentSpec {
        id: AgentId(2),
        namespace: "default".into(),
        submitter: "".into(),
        name: "builtin".into(),
        agent_type: "builtin".into(),
        capabilities: Names::default(),
        runtime: Runtime::Builtin,
        node: NodeId(3),
        slots: 1,
        pool: None,
        configuration: None,
        resource_limits: Amounts::default(),
        tags: Names::default(),
        silence_ms: None,
    }
}

fn task() -> TaskSpec {
    TaskSpec {
        demand: Arc::new(Demand::default()),
        timeout_ms: 60_000,
        retries_max: 0,
        ..TaskSpec::new("a task")
    }
}
