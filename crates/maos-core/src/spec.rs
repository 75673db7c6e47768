//! What was asked for: submissions, plans and agents as they came in, already checked and never
//! changed in place. Shared behind an `Arc` by the command, the event and the task.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};

use crate::ids::{AgentId, NodeId, PlanId, TaskId};
use crate::payload::{Payload, shared};
use crate::time::{Timestamp, WallTime};

/// An open name: a capability, a resource kind, a tag, a key. Compared byte by byte.
pub type Name = Box<str>;

/// How much a task matters. The order is the order of dispatch among tasks of the same age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Priority {
    /// After everything else.
    #[n(0)]
    Low,
    /// The default.
    #[default]
    #[n(1)]
    Medium,
    /// Before the default.
    #[n(2)]
    High,
    /// Before everything else.
    #[n(3)]
    Critical,
}

/// What a parent does when one of its subtasks does not complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum FailurePolicy {
    /// Cancel the other subtasks and fail.
    #[default]
    #[n(0)]
    FailFast,
    /// Run what does not depend on it, then fail.
    #[n(1)]
    Continue,
    /// Count it as done; whoever reads its result gets null.
    #[n(2)]
    Ignore,
}

/// What tasks with the same concurrency key may do together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Limit {
    /// Attempts at once; `None`: any number.
    #[n(0)]
    pub running_max: Option<u32>,
    /// Starts a minute, evenly spaced; `None`: as fast as they come.
    #[n(1)]
    pub starts_per_minute: Option<u32>,
}

impl Limit {
    /// What holds for a key for which nothing was set: one after another.
    pub const UNSET: Limit = Limit { running_max: Some(1), starts_per_minute: None };
}

/// What is set for one key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Setting {
    /// For a concurrency key; `None`: back to [`Limit::UNSET`].
    #[n(0)]
    Limit(#[n(0)] Option<Limit>),
    /// For a fairness key: turns that it gets while another gets one; `None`: one, like all others.
    #[n(1)]
    Weight(#[n(0)] Option<u32>),
}

/// Which of the tasks that could start does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Fairness keys take turns; within each, as `Priority`.
    #[default]
    Fair,
    /// By priority and age, whoever sent it.
    Priority,
    /// Of the first ones by priority and age, the one that leaves the least of what it needs.
    BestFit,
}

/// Whether in-process agents know how to do a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Work {
    /// No built-in agent knows it: its action is missing or somebody else's.
    #[default]
    #[n(0)]
    FreeForm,
    /// A built-in action of this capability, for whomever the submission names.
    #[n(1)]
    Known(#[n(0)] Name),
    /// A built-in action of this capability, and nobody is named: a built-in agent does it. Others
    /// of the capability do not know the action, and would answer something else.
    #[n(2)]
    BuiltIn(#[n(0)] Name),
}

/// A set of names, sorted and without doubles.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Names(#[n(0)] Box<[Name]>);

/// Amounts by kind, sorted by kind, in thousandths of the kind's unit (`cpu_cores` 500 is half a
/// core). Kinds with an amount of 0 are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Amounts(#[n(0)] Box<[(Name, u64)]>);

/// Which agents can do a task, and what it takes: tasks with equal demands wait in one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Demand {
    /// The agent must have all of these.
    #[n(0)]
    pub capabilities: Names,
    /// Only agents of this type.
    #[n(1)]
    pub agent_type: Option<Name>,
    /// Only this agent.
    #[n(2)]
    pub agent: Option<AgentId>,
    /// Whether a built-in agent could do it.
    #[n(3)]
    pub work: Work,
    /// What is reserved for as long as an attempt lasts.
    #[n(4)]
    pub resources: Amounts,
}

/// An earlier result that an attempt of this task is handed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskInput {
    /// The name by which the parameters refer to it.
    #[n(0)]
    pub key: Name,
    /// Whose result.
    #[n(1)]
    pub task: TaskId,
}

/// W3C trace context of the submission.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TraceContext {
    /// `traceparent`, as it came.
    #[n(0)]
    pub parent: Box<str>,
    /// `tracestate`, as it came.
    #[n(1)]
    pub state: Option<Box<str>>,
}

/// One task as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskSpec {
    /// Not blank; at most `limits::NAME_CHARS_MAX` characters.
    #[n(0)]
    pub name: Box<str>,
    /// Free text.
    #[n(1)]
    pub description: Option<Box<str>>,
    /// How much it matters.
    #[n(2)]
    pub priority: Priority,
    /// A JSON object; its `{"$from": ..}` references are resolved when an attempt starts.
    #[n(3)]
    pub parameters: Payload,
    /// A JSON object that MAOS keeps and never reads; `None` is `{}`.
    #[n(4)]
    pub metadata: Option<Box<Payload>>,
    /// A set of words to find it by.
    #[n(5)]
    pub tags: Names,
    /// Who can do it, and what it takes. Tasks with equal demands share one where they can.
    #[cbor(n(6), with = "shared")]
    pub demand: Arc<Demand>,
    /// Bound on one attempt's run.
    #[n(7)]
    pub timeout_ms: u64,
    /// Failed attempts that are tried again.
    #[n(8)]
    pub retries_max: u32,
    /// For a task with subtasks: what a failed one means.
    #[n(9)]
    pub on_failure: FailurePolicy,
    /// What few tasks ask for; see [`TaskSpec::rare`].
    #[n(10)]
    pub rare: Option<Box<Rare>>,
}

/// What few tasks ask for; apart, so that the many others take less room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Rare {
    /// Bound on the wait for an agent, from the moment the task is ready.
    #[n(0)]
    pub queue_timeout_ms: Option<u64>,
    /// Bound on the silence of a running attempt.
    #[n(1)]
    pub no_progress_ms: Option<u64>,
    /// Bound on everything.
    #[n(2)]
    pub deadline: Option<Timestamp>,
    /// Not before this; for a leaf.
    #[n(3)]
    pub start_at: Option<Timestamp>,
    /// Tasks with the same key share one turn among submitters.
    #[n(4)]
    pub fairness_key: Option<Name>,
    /// Tasks with the same key share one bound on how many run at once.
    #[n(5)]
    pub concurrency_key: Option<Name>,
    /// Earlier results that its attempts are handed.
    #[n(6)]
    pub inputs: Vec<TaskInput>,
    /// Its name within the plan, unique there.
    #[n(7)]
    pub key: Option<Name>,
    /// Where it came from, for tracing.
    #[n(8)]
    pub trace: Option<TraceContext>,
    /// Its result is a list of subtasks, which ask for this if they do not say otherwise.
    #[n(9)]
    pub plans: Option<Box<Demand>>,
    /// Of a root: the door that it came in by, if that is not the usual one. No amendment reaches
    /// it.
    #[n(10)]
    pub origin: Option<Name>,
    /// `start_at` as the calendar showed it, for people; of a parent, too.
    #[n(11)]
    pub run_at: Option<WallTime>,
    /// `deadline` as the calendar showed it, for people.
    #[n(12)]
    pub ends_by: Option<WallTime>,
}

static NOTHING_RARE: Rare = Rare {
    queue_timeout_ms: None,
    no_progress_ms: None,
    deadline: None,
    start_at: None,
    fairness_key: None,
    concurrency_key: None,
    inputs: Vec::new(),
    key: None,
    trace: None,
    plans: None,
    origin: None,
    run_at: None,
    ends_by: None,
};

impl Rare {
    /// As a task holds it: nothing at all when there is nothing in it.
    #[must_use]
    pub fn boxed(self) -> Option<Box<Rare>> {
        (self != NOTHING_RARE).then(|| Box::new(self))
    }
}

impl TaskSpec {
    /// A task that asks for nothing but its name, with the wire contract's bounds.
    #[must_use]
    pub fn new(name: &str) -> TaskSpec {
        TaskSpec {
            name: name.into(),
            description: None,
            priority: Priority::Medium,
            parameters: Payload::inline(b"{}"),
            metadata: None,
            tags: Names::default(),
            demand: Arc::default(),
            timeout_ms: 300_000,
            retries_max: 3,
            on_failure: FailurePolicy::FailFast,
            rare: None,
        }
    }

    /// What few tasks ask for.
    #[must_use]
    pub fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NOTHING_RARE)
    }
}

/// What is to be another in a task that was accepted. `None`: stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskPatch {
    /// Also of everything below it that has not ended.
    pub priority: Option<Priority>,
    /// A set of words to find it by.
    pub tags: Option<Names>,
    /// A JSON object.
    pub metadata: Option<Payload>,
    /// Until its first attempt starts; for a leaf.
    pub limits: Option<Limits>,
    /// Until it ends.
    pub patience: Patience,
}

/// How long a task may take, wait and be silent. `None`: stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// Bound on everything.
    pub deadline: Option<Bound<Deadline>>,
    /// Bound on the wait for an agent, from the moment the task became ready; for a leaf.
    pub queue_timeout_ms: Option<Bound<u64>>,
    /// Bound on the silence of a running attempt, from the change on; for a leaf.
    pub no_progress_ms: Option<Bound<u64>>,
}

/// What comes in the place of a bound that not every task has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound<T> {
    /// There is this one from now on.
    Set(T),
    /// There is none any more.
    Lifted,
}

impl<T> Bound<T> {
    /// The bound, if there is one from now on.
    #[must_use]
    pub fn set(self) -> Option<T> {
        match self {
            Bound::Set(bound) => Some(bound),
            Bound::Lifted => None,
        }
    }
}

/// A deadline, as the engine goes by it and as the calendar shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// In the engine's time.
    pub at: Timestamp,
    /// For people.
    pub shown: WallTime,
}

/// What a task may take and what it works on: fixed once its first attempt has started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// A JSON object.
    pub parameters: Option<Payload>,
    /// Bound on one attempt's run.
    pub timeout_ms: Option<u64>,
    /// Failed attempts that are tried again.
    pub retries_max: Option<u32>,
    /// What is reserved for as long as an attempt lasts.
    pub resources: Option<Amounts>,
}

/// A file that an agent made beside a task's result.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Artifact {
    /// Unique within the task.
    #[n(0)]
    pub name: Name,
    /// Its MIME type, as its maker said.
    #[n(1)]
    pub media_type: Name,
    /// What is in it.
    #[n(2)]
    pub content: Payload,
    /// When it was kept.
    #[n(3)]
    pub kept: WallTime,
}

/// Where a task with subtasks takes its result from, once they have all ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Collect {
    /// The list of its direct subtasks' results, in order.
    #[default]
    #[n(0)]
    All,
    /// The result of this one (the index of a task in the plan).
    #[n(1)]
    One(#[n(0)] u32),
}

/// One task of a plan and its place in the graph. Indexes point into `Plan::tasks`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PlanTask {
    /// Its id.
    #[n(0)]
    pub id: TaskId,
    /// What is to be done.
    #[cbor(n(1), with = "shared")]
    pub spec: Arc<TaskSpec>,
    /// Its parent, which comes earlier in the list; `None` for the root only.
    #[n(2)]
    pub parent: Option<u32>,
    /// What must have ended before it may start. The graph of these is acyclic. Those of a parent
    /// are for display: a planner repeats them on the subtasks that they hold back.
    #[n(3)]
    pub depends_on: Box<[u32]>,
    /// For a parent: how its result comes about.
    #[n(4)]
    pub collect: Collect,
}

/// Subtasks that an attempt made of its own task.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Expansion {
    /// At least one; as in a plan whose root is left out: `parent` and `depends_on` point into this
    /// list, and `parent: None` is the task itself.
    #[n(0)]
    pub tasks: Box<[PlanTask]>,
    /// How the task's result comes about; `One` points into this list.
    #[n(1)]
    pub collect: Collect,
}

/// A submission that may be sent twice.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IdempotencyKey {
    /// The caller's word for it.
    #[n(0)]
    pub key: Name,
    /// BLAKE3 of the body that came with it.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body_hash: [u8; 32],
    /// Which submission of a body that holds many; `None`: the body is one.
    #[n(2)]
    pub part: Option<u32>,
}

/// What one submission became: a graph of tasks, the root first, parents before their subtasks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Plan {
    /// Its id.
    #[n(0)]
    pub id: PlanId,
    /// Whose room it lives in; `default` until there are others.
    #[n(1)]
    pub namespace: Name,
    /// Who sent it; empty when nobody said.
    #[n(2)]
    pub submitter: Name,
    /// The strategy that made it, by its wire name.
    #[n(3)]
    pub strategy: Option<Name>,
    /// Under which key it may be sent again.
    #[n(4)]
    pub idempotency: Option<IdempotencyKey>,
    /// At least the root; at most `limits::PLAN_TASKS_MAX` and the root.
    #[n(5)]
    pub tasks: Box<[PlanTask]>,
}

/// What does an agent's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Runtime {
    /// The server itself.
    #[n(0)]
    Builtin,
    /// A program of the operator's.
    #[n(1)]
    Command,
    /// A signed POST to a URL.
    #[n(2)]
    Http,
    /// The Claude Code CLI.
    #[n(3)]
    ClaudeCode,
    /// Any program that polls.
    #[n(4)]
    Worker,
}

impl Runtime {
    /// Whether its attempts end with the server that runs them.
    #[must_use]
    pub fn ends_with_server(self) -> bool {
        match self {
            // Who was asked over HTTP reports to the server that asked: it alone knows the token.
            Runtime::Builtin | Runtime::Command | Runtime::Http | Runtime::ClaudeCode => true,
            Runtime::Worker => false,
        }
    }
}

/// One agent as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AgentSpec {
    /// Its id.
    #[n(0)]
    pub id: AgentId,
    /// Whose room it works in.
    #[n(1)]
    pub namespace: Name,
    /// Who created it; empty when nobody said.
    #[n(2)]
    pub submitter: Name,
    /// For people.
    #[n(3)]
    pub name: Box<str>,
    /// The caller's word for its kind, such as `data_processor`.
    #[n(4)]
    pub agent_type: Name,
    /// What it can do.
    #[n(5)]
    pub capabilities: Names,
    /// What does the work.
    #[n(6)]
    pub runtime: Runtime,
    /// The server whose process tree it lives in.
    #[n(7)]
    pub node: NodeId,
    /// Attempts at once; 1 to `limits::AGENT_SLOTS_MAX`.
    #[n(8)]
    pub slots: u32,
    /// The pool that started it.
    #[n(9)]
    pub pool: Option<Name>,
    /// A JSON object that is kept and never read; never a command line.
    #[n(10)]
    pub configuration: Option<Payload>,
    /// Kept for people; they bound nothing.
    #[n(11)]
    pub resource_limits: Amounts,
    /// A set of words to find it by.
    #[n(12)]
    pub tags: Names,
    /// A worker's own bound on its silence, after which it is lost; `None`: the node's.
    #[n(13)]
    pub silence_ms: Option<u64>,
}

impl Names {
    /// The set of `names`; doubles fold.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = Name>) -> Names {
        let mut sorted: alloc::vec::Vec<Name> = names.into_iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        Names(sorted.into_boxed_slice())
    }

    /// Whether all of `other` are in this set.
    #[must_use]
    pub fn contains_all(&self, other: &Names) -> bool {
        other.0.iter().all(|name| self.contains(name))
    }

    /// Whether `name` is in this set.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.binary_search_by(|held| (**held).cmp(name)).is_ok()
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Amounts {
    /// These amounts; of a kind named twice the last counts, and zeros are left out.
    #[must_use]
    pub fn new(amounts: impl IntoIterator<Item = (Name, u64)>) -> Amounts {
        let by_kind: alloc::collections::BTreeMap<Name, u64> = amounts.into_iter().collect();
        Amounts(by_kind.into_iter().filter(|(_, amount)| *amount > 0).collect())
    }

    /// Kind and amount in thousandths, in the order of the kinds.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(kind, amount)| (&**kind, *amount))
    }

    /// The amount of `kind` in thousandths; 0 if it is not named.
    #[must_use]
    pub fn of(&self, kind: &str) -> u64 {
        self.0.binary_search_by(|(held, _)| (**held).cmp(kind)).map_or(0, |index| self.0[index].1)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Plan {
    /// The task that stands for the whole submission.
    #[must_use]
    pub fn root(&self) -> &PlanTask {
        &self.tasks[0]
    }
}
