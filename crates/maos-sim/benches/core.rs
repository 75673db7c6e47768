//! How fast the core is: whole lives (submit, start, complete) a second on one processor, through
//! the node, with rows taken and plans let go as the driver does. Prints a table, or JSON with
//! `--json`.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use maos_core::command::{Command, Report};
use maos_core::engine::{Effect, State};
use maos_core::ids::{AgentId, Attempt, Epoch, NodeId, PlanId, TaskId};
use maos_core::node::{Action, Echo, Input, Node, RequestId};
use maos_core::payload::Payload;
use maos_core::spec::{
    AgentSpec, Amounts, Collect, Demand, Names, Plan, PlanTask, Runtime, TaskSpec,
};
use maos_core::time::{Moment, Timestamp, WallTime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SLICE: u64 = 10_000;

/// Lives that are measured; fewer for a profiler that counts instructions: `LIVES=50000`.
fn lives() -> u64 {
    match std::env::var("LIVES") {
        Ok(count) => count.parse().expect("LIVES is a number"),
        Err(_) => 1_000_000,
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status.split(' ').nth(1).and_then(|word| word.parse::<u64>().ok());
    pages.unwrap_or(0) * 4_096
}

/// What all tasks here ask for; shared, as the planner shares it.
fn demand() -> Arc<Demand> {
    static DEMAND: OnceLock<Arc<Demand>> = OnceLock::new();
    let work = || Demand { capabilities: Names::new(["work".into()]), ..Demand::default() };
    DEMAND.get_or_init(|| Arc::new(work())).clone()
}

fn submit(id: u64) -> Command {
    let spec = Arc::new(TaskSpec {
        parameters: Payload::inline(&[b'x'; 200]),
        demand: demand(),
        ..TaskSpec::new("task")
    });
    let id = TaskId(id.into());
    let task = PlanTask { id, spec, parent: None, depends_on: [].into(), collect: Collect::All };
    let plan = Plan {
        id: PlanId(id.0),
        namespace: "default".into(),
        submitter: "".into(),
        strategy: None,
        idempotency: None,
        tasks: [task].into(),
    };
    Command::Submit { plan: Arc::new(plan) }
}

fn agent(id: u128) -> Command {
    Command::RegisterAgent {
        agent: Arc::new(AgentSpec {
            id: AgentId(id),
            namespace: "default".into(),
            submitter: "".into(),
            name: "agent".into(),
            agent_type: "worker".into(),
            capabilities: Names::new(["work".into()]),
            runtime: Runtime::Command,
            node: NodeId(1),
            slots: 1,
            pool: None,
            configuration: None,
            resource_limits: Amounts::default(),
            tags: Names::default(),
            silence_ms: None,
        }),
    }
}

/// A node and the clients and agents around it, as thin as they can be.
struct Bench {
    node: Node,
    actions: Vec<Action>,
    starts: VecDeque<(TaskId, Attempt)>,
    at: u64,
}

impl Bench {
    fn new() -> Bench {
        let node = Node::new(State::default());
        let mut bench = Bench { node, actions: vec![], starts: VecDeque::new(), at: 1_000 };
        bench.feed(Command::BeginEpoch { epoch: Epoch(1), node: NodeId(1) });
        (1..=100).for_each(|id| bench.feed(agent(id)));
        bench
    }

    fn feed(&mut self, command: Command) {
        self.at += 1;
        let moment = Moment { at: Timestamp(self.at), wall: WallTime(self.at), entropy: 0 };
        let id = Some(RequestId(self.at));
        let request = Input::Request { id, command, echo: Echo::Id };
        self.node.step(&moment, request, &mut self.actions);
        let through = self.node.state().sequence();
        self.node.step(&moment, Input::Durable { through }, &mut self.actions);
        for action in self.actions.drain(..) {
            if let Action::Perform(Effect::Start { task, attempt, .. }) = action {
                self.starts.push_back((task, attempt));
            }
        }
        if self.at.is_multiple_of(1_024) {
            let state = self.node.state_mut();
            state.take_changed_tasks(|row| drop(std::hint::black_box(row)));
            state.take_changed_agents();
        }
    }

    /// Lives a second while as many tasks wait as wait already. What clients build is not counted.
    fn lives_per_second(&mut self, first: u64) -> f64 {
        let mut taken = Duration::ZERO;
        let lives = lives();
        for slice in 0..lives / SLICE {
            let from = first + slice * SLICE;
            let commands: Vec<Command> = (from..from + SLICE).map(submit).collect();
            let before = Instant::now();
            for command in commands {
                self.feed(command);
                let Some((task, attempt)) = self.starts.pop_front() else { continue };
                let report = Report::Completed(Payload::inline(b"1"));
                self.feed(Command::Report { task, attempt, report });
            }
            taken += before.elapsed();
        }
        lives as f64 / taken.as_secs_f64()
    }
}

fn main() {
    let mut rows = vec![];
    for live in [10_000, lives()] {
        let mut bench = Bench::new();
        let before = resident_bytes();
        (0..live).for_each(|id| bench.feed(submit(id)));
        let bytes = resident_bytes().saturating_sub(before);
        rows.push((
            format!("core alone, {live} live tasks"),
            bench.lives_per_second(live),
            "lives/s",
        ));
        let name = format!("core alone, memory of a queued task of {live}");
        rows.push((name, bytes as f64 / live as f64, "bytes"));
    }
    let mut out = std::io::stdout().lock();
    let json = std::env::args().any(|argument| argument == "--json");
    for (name, figure, unit) in rows {
        let line = if json {
            format!(r#"{{"name":"{name}","figure":{figure:.2},"unit":"{unit}"}}"#)
        } else {
            format!("{name:<58} {figure:>12.2} {unit}")
        };
        writeln!(out, "{line}").expect("standard output");
    }
}
