//! The tasks of a plan while it is being made: a list, parents before their subtasks.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use maos_api::document::{self, Members};
use maos_api::error::{ApiError, ErrorCode};
use maos_api::fault::Faults;
use maos_api::submission::{self, Fields, is_field};
use maos_api::task::{self, Strategy};
use maos_api::time::UtcTime;
use maos_core::ids::AgentId;
use maos_core::limits::{NAME_CHARS_MAX, PLAN_DEPTH_MAX, PLAN_TASKS_MAX};
use maos_core::spec::{Amounts, Deadline, FailurePolicy, Name, Names, Priority, TaskSpec};
use maos_core::time::{Timestamp, WallTime};

use super::PlanContext;
use super::lists::{self, Found};
pub(super) use super::parameters::PassedOn;
use super::parameters::{Member, Parameters};

/// What a subtask inherits unless it says otherwise.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) priority: Priority,
    pub(super) tags: Names,
    pub(super) timeout_ms: u64,
    pub(super) retries_max: u32,
    pub(super) resources: Amounts,
    pub(super) capabilities: Option<Names>,
    pub(super) agent_type: Option<Name>,
    pub(super) agent: Option<AgentId>,
    pub(super) queue_timeout_ms: Option<u64>,
    pub(super) no_progress_ms: Option<u64>,
    pub(super) on_failure: FailurePolicy,
    pub(super) fairness_key: Option<Name>,
    pub(super) concurrency_key: Option<Name>,
    pub(super) start_at: Option<When>,
}

/// A time, as the engine goes by it and as the calendar shows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct When {
    pub(super) at: Timestamp,
    pub(super) shown: Option<WallTime>,
}

/// Where a parent's result comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CollectRule {
    /// The list of its subtasks' results.
    All,
    /// The result of this one.
    One(usize),
    /// The result of the only subtask that no other one needs, else the list.
    Sink,
}

/// One task.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) parent: Option<usize>,
    depth: u32,
    /// Its place in the body, with a dot at the end unless it is the body itself.
    pub(super) at: String,
    /// Unique within the plan; empty for the root.
    pub(super) key: Rc<str>,
    pub(super) name: Box<str>,
    pub(super) description: Option<Box<str>>,
    pub(super) metadata: Option<&'a str>,
    pub(super) settings: Rc<Settings>,
    pub(super) deadline: Option<When>,
    pub(super) parameters: Parameters<'a>,
    /// Keys of what it depends on.
    pub(super) wants: Vec<Cow<'a, str>>,
    pub(super) depends_on: Vec<usize>,
    pub(super) children: Vec<usize>,
    pub(super) collect: CollectRule,
    /// Whether its agent answers with its subtasks.
    pub(super) plans: bool,
}

/// All of them, with what is wrong so far.
pub(super) struct Drafts<'a, 'c> {
    pub(super) ctx: &'c PlanContext<'c>,
    pub(super) tasks: Vec<Draft<'a>>,
    pub(super) keys: HashMap<Rc<str>, usize>,
    pub(super) faults: Faults,
    warnings: Vec<String>,
    passed_count: usize,
}

/// Where an entry comes from.
pub(super) struct Slot {
    pub(super) parent: usize,
    /// The word for it, from which its key is made.
    pub(super) label: String,
    /// Its place in the body.
    pub(super) at: String,
    /// Its place in its list, from 0; `None` if it is not in a list.
    pub(super) index: Option<usize>,
    /// A member that its place adds to its parameters.
    pub(super) adds: Option<(&'static str, String)>,
}

/// Warnings of one answer.
const WARNINGS_MAX: usize = 100;
/// Names that hardly any data has, but a submission with a slip in it.
const NEAR_MISSES: &[&str] = &["action", "parameters", "depends_on", "decomposition_strategy"];
/// Members that all parents of a plan pass on together: each parent makes a list of them.
const PASSED_ON_MAX: usize = 1_000_000;

impl<'a, 'c> Drafts<'a, 'c> {
    pub(super) fn new(ctx: &'c PlanContext<'c>, warnings: Vec<String>) -> Self {
        let faults = Faults::default();
        Drafts {
            ctx,
            tasks: Vec::with_capacity(1),
            keys: HashMap::new(),
            faults,
            warnings,
            passed_count: 0,
        }
    }

    pub(super) fn warn(&mut self, warning: String) {
        if self.warnings.len() < WARNINGS_MAX && !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    pub(super) fn into_warnings(self) -> Vec<String> {
        self.warnings
    }

    pub(super) fn add_root(&mut self, name: &str, fields: &mut Fields<'a>) -> Result<(), ApiError> {
        let settings = settings(fields, None, self.ctx);
        let deadline = self.deadline(fields.deadline, "");
        self.tasks.push(Draft {
            parent: None,
            depth: 0,
            at: String::new(),
            key: Rc::from(""),
            name: name.into(),
            description: fields.description.take().map(Into::into),
            metadata: fields.metadata.map(|raw| raw.get()),
            settings: Rc::new(settings),
            deadline,
            parameters: Parameters::AsSent(fields.parameters.map_or("{}", |raw| raw.get())),
            wants: Vec::new(),
            depends_on: Vec::new(),
            children: Vec::new(),
            collect: CollectRule::All,
            plans: false,
        });
        Ok(())
    }

    /// The task that an attempt makes subtasks of, for these to inherit from.
    pub(super) fn add_expanded(&mut self, task: &TaskSpec) {
        let asked = task.rare().plans.as_deref();
        let settings = Settings {
            priority: task.priority,
            tags: task.tags.clone(),
            timeout_ms: task.timeout_ms,
            retries_max: task.retries_max,
            resources: asked.unwrap_or(&task.demand).resources.clone(),
            capabilities: asked.map(|asked| asked.capabilities.clone()).filter(|c| !c.is_empty()),
            agent_type: asked.and_then(|asked| asked.agent_type.clone()),
            agent: asked.and_then(|asked| asked.agent),
            queue_timeout_ms: task.rare().queue_timeout_ms,
            no_progress_ms: task.rare().no_progress_ms,
            on_failure: task.on_failure,
            fairness_key: task.rare().fairness_key.clone(),
            concurrency_key: task.rare().concurrency_key.clone(),
            start_at: task.rare().start_at.map(|at| When { at, shown: task.rare().run_at }),
        };
        self.tasks.push(Draft {
            parent: None,
            depth: 0,
            at: String::new(),
            key: Rc::from(task.rare().key.as_deref().unwrap_or_default()),
            name: task.name.clone(),
            description: None,
            metadata: None,
            settings: Rc::new(settings),
            deadline: None,
            parameters: Parameters::AsSent("{}"),
            wants: Vec::new(),
            depends_on: Vec::new(),
            children: Vec::new(),
            collect: CollectRule::Sink,
            plans: false,
        });
    }

    /// Gives the task at `index` subtasks, if its fields hold some.
    pub(super) fn split(
        &mut self,
        index: usize,
        fields: &Fields<'a>,
        inherited: &PassedOn<'a>,
    ) -> Result<(), ApiError> {
        if let Some(subtasks) = fields.subtasks {
            if fields.strategy.is_some() {
                let at = &self.tasks[index].at;
                self.warn(format!("`{at}subtasks` is the plan: the strategy is not used"));
            }
            return self.split_explicit(index, subtasks, inherited);
        }
        if fields.strategy == Some(Strategy::Planner) {
            self.tasks[index].plans = true;
            return Ok(());
        }
        let has_own_list =
            fields.stages.is_some() || fields.steps.is_some() || fields.items.is_some();
        if fields.strategy.is_none() && !has_own_list {
            return Ok(());
        }
        let at = self.tasks[index].at.clone();
        let (found, others) = lists::find(fields, &at, &mut self.faults)?;
        let Some(found) = found.filter(|found| !found.entries.is_empty()) else {
            self.warn_of_no_list(fields.strategy, &at);
            return Ok(());
        };
        for other in others {
            self.warn(format!("`{at}{}` is split: `{other}` is not used", found.place));
        }
        let left_out = |name: &str| {
            let fans = fields.strategy == Some(Strategy::FanOutFanIn);
            let names = lists::names(fields.strategy);
            names.iter().any(|list| list.name == name)
                || (fans && matches!(name, "prepare" | "reduce"))
        };
        let passed = self.pass_on(index, inherited, &left_out)?;
        match fields.strategy {
            Some(Strategy::Sequential | Strategy::Hierarchical) => {
                self.split_sequence(index, found, &passed)
            }
            Some(Strategy::Pipeline) => self.split_pipeline(index, found, &passed),
            Some(Strategy::Parallel) => self.split_parallel(index, found, &passed),
            Some(Strategy::FanOutFanIn) => self.split_fan(index, found, fields.parameters, &passed),
            Some(Strategy::Planner) => Ok(()),
            None if found.list.name == "items" => self.split_parallel(index, found, &passed),
            None => self.split_sequence(index, found, &passed),
        }
    }

    /// What strings and data below the task at `index` inherit of its parameters.
    pub(super) fn pass_on(
        &mut self,
        index: usize,
        inherited: &PassedOn<'a>,
        left_out: &dyn Fn(&str) -> bool,
    ) -> Result<PassedOn<'a>, ApiError> {
        let passed = self.tasks[index].parameters.passed_on(inherited, left_out);
        self.passed_count += passed.0.len();
        if self.passed_count > PASSED_ON_MAX {
            let message =
                format!("the plan's subtasks inherit more than {PASSED_ON_MAX} parameters");
            let what = format!("is passed on more than {PASSED_ON_MAX} times");
            let error = ApiError::new(ErrorCode::PlanTooLarge, message);
            return Err(error.with_field("parameters", what));
        }
        Ok(passed)
    }

    fn warn_of_no_list(&mut self, strategy: Option<Strategy>, at: &str) {
        let names = lists::names(strategy);
        let names: Vec<String> = names.iter().map(|list| format!("`{}`", list.name)).collect();
        let names = names.join(", ");
        let whose = strategy.map_or("its list", Strategy::name);
        let task = if at.is_empty() { "the task" } else { at.trim_end_matches('.') };
        self.warn(format!("{task} runs as one: `{whose}` found no entries in any of {names}"));
    }

    /// The slot of entry `index` of `found`, below `parent`.
    pub(super) fn slot(&self, parent: usize, found: &Found<'_>, index: usize) -> Slot {
        Slot {
            parent,
            label: format!("{}-{}", found.list.entry, index + 1),
            at: format!("{}{}[{index}]", self.tasks[parent].at, found.place),
            index: Some(index),
            adds: None,
        }
    }

    /// Adds an entry of a list: a submission, a string or data.
    pub(super) fn add_entry(
        &mut self,
        slot: Slot,
        entry: Cow<'a, str>,
        passed: &PassedOn<'a>,
    ) -> Result<usize, ApiError> {
        if let Cow::Borrowed(json) = entry
            && let Some(members) = document::members(json)
        {
            if submission::is_submission(&members) {
                return self.add_submission(slot, members, passed);
            }
            self.warn_of_near_miss(&slot.at, &members);
        }
        let name = document::text(&entry).map(|text| name_of(&text));
        let member = if name.is_some() { "stage" } else { "item" };
        let mut own: Vec<Member<'a>> = vec![(Cow::Borrowed(member), entry)];
        if let Some(index) = slot.index {
            own.push((Cow::Borrowed("index"), Cow::Owned(index.to_string())));
        }
        let parameters = Parameters::Built { inherited: passed.clone(), own };
        self.push(slot, Fields::default(), name.flatten(), parameters)
    }

    /// Says so when data looks as if it was meant as a submission.
    fn warn_of_near_miss(&mut self, at: &str, members: &Members<'_>) {
        if !NEAR_MISSES.iter().any(|name| members.value(name).is_some()) {
            return;
        }
        let strange = members.0.iter().map(|(name, _)| &**name).filter(|name| !is_field(name));
        let strange: Vec<String> = strange.take(3).map(|name| format!("`{name}`")).collect();
        let strange = strange.join(", ");
        self.warn(format!(
            "`{at}` is taken as data, for no submission has the field {strange}: what an agent \
             is to read belongs into its `parameters`"
        ));
    }

    /// Adds an entry that is a submission, with all below it.
    pub(super) fn add_submission(
        &mut self,
        slot: Slot,
        members: Members<'a>,
        passed: &PassedOn<'a>,
    ) -> Result<usize, ApiError> {
        let (bounds, faults) = (self.ctx.bounds, &mut self.faults);
        let mut entry_warnings = Vec::new();
        let mut fields = submission::entry(members, &slot.at, bounds, faults, &mut entry_warnings);
        for warning in entry_warnings {
            self.warn(format!("`{}`: {warning}", slot.at));
        }
        let name = fields.name.take().map(Into::into);
        let parameters = Parameters::AsSent(fields.parameters.map_or("{}", |raw| raw.get()));
        let nested = Fields {
            strategy: fields.strategy,
            parameters: fields.parameters,
            subtasks: fields.subtasks,
            stages: fields.stages,
            steps: fields.steps,
            items: fields.items,
            ..Fields::default()
        };
        let index = self.push(slot, fields, name, parameters)?;
        self.split(index, &nested, passed)?;
        Ok(index)
    }

    /// Adds a task that is not split any further, or not yet.
    pub(super) fn push(
        &mut self,
        slot: Slot,
        mut fields: Fields<'a>,
        name: Option<Box<str>>,
        mut parameters: Parameters<'a>,
    ) -> Result<usize, ApiError> {
        let index = self.tasks.len();
        let depth = self.tasks[slot.parent].depth + 1;
        check_size(index, depth, &slot.at)?;
        if let Some((member, json)) = slot.adds
            && !parameters.set(member, json)
        {
            let kept = format!("`{}` has its own `{member}`, which is kept", slot.at);
            self.warn(kept);
        }
        let key = self.take_key(index, slot.parent, fields.key.take(), &slot.label, &slot.at);
        let deadline = self.deadline(fields.deadline, &slot.at);
        let parent = &mut self.tasks[slot.parent];
        parent.children.push(index);
        let settings = if inherits_all(&fields) {
            parent.settings.clone()
        } else {
            Rc::new(settings(&mut fields, Some(&parent.settings), self.ctx))
        };
        let name = name.unwrap_or_else(|| default_name(&parent.name, &slot.label));
        self.tasks.push(Draft {
            parent: Some(slot.parent),
            depth,
            at: format!("{}.", slot.at),
            key,
            name,
            description: fields.description.take().map(Into::into),
            metadata: fields.metadata.map(|raw| raw.get()),
            settings,
            deadline,
            parameters,
            wants: fields.depends_on,
            depends_on: Vec::new(),
            children: Vec::new(),
            collect: CollectRule::All,
            plans: false,
        });
        Ok(index)
    }

    /// The key of a new task: its own, or one after its place that nobody has.
    fn take_key(
        &mut self,
        index: usize,
        parent: usize,
        own: Option<Cow<'_, str>>,
        label: &str,
        at: &str,
    ) -> Rc<str> {
        let key: Rc<str> = match own {
            Some(own) => Rc::from(&*own),
            None => {
                let above = &self.tasks[parent].key;
                let dot = if above.is_empty() { "" } else { "." };
                let plain = format!("{above}{dot}{label}");
                let taken = |key: &str| self.keys.contains_key(key);
                let others = (2..).map(|number: u32| format!("{plain}-{number}"));
                let mut free = std::iter::once(plain.clone()).chain(others);
                Rc::from(free.find(|key| !taken(key)).unwrap_or(plain.clone()))
            }
        };
        if let Some(first) = self.keys.insert(key.clone(), index) {
            let first = self.tasks[first].at.trim_end_matches('.');
            let message = format!(
                "`{first}` and `{at}` have the same key `{key}`\n\
                 hint: entries without `key` are called after their place, such as `step-1`"
            );
            let error = ApiError::new(ErrorCode::DuplicateKey, message).with("key", &*key);
            self.faults.note(format!("{at}.key"), error);
        }
        key
    }

    /// A deadline of the calendar in the engine's time.
    fn deadline(&mut self, deadline: Option<UtcTime>, at: &str) -> Option<When> {
        let found = deadline_at(deadline?, self.ctx.now, self.ctx.wall);
        if found.is_none() {
            let dot = if at.is_empty() { "" } else { "." };
            self.faults.invalid(format!("{at}{dot}deadline"), PAST_DEADLINE);
        }
        found.map(|Deadline { at, shown }| When { at, shown: Some(shown) })
    }
}

/// What is wrong with a deadline that has passed.
pub const PAST_DEADLINE: &str = "must be in the future";

/// A deadline in the engine's time, which is `now` when the calendar shows `wall`; `None` if it has
/// passed.
#[must_use]
pub fn deadline_at(deadline: UtcTime, now: Timestamp, wall: WallTime) -> Option<Deadline> {
    let left_us = deadline.0.checked_sub(wall.0).filter(|left_us| *left_us > 0)?;
    let at = Timestamp(now.0.saturating_add(left_us));
    Some(Deadline { at, shown: WallTime(deadline.0) })
}

fn check_size(index: usize, depth: u32, at: &str) -> Result<(), ApiError> {
    if u32::try_from(index).is_ok_and(|count| count > PLAN_TASKS_MAX) {
        let message = format!("the plan has more than {PLAN_TASKS_MAX} subtasks, at `{at}`");
        let error = ApiError::new(ErrorCode::PlanTooLarge, message).with_field(at, "is too many");
        return Err(error.with("field", at).with("maximum", PLAN_TASKS_MAX));
    }
    if depth > PLAN_DEPTH_MAX {
        let message = format!("subtasks nest at most {PLAN_DEPTH_MAX} deep, `{at}` is deeper");
        let error = ApiError::new(ErrorCode::PlanTooDeep, message).with_field(at, "is too deep");
        return Err(error.with("field", at).with("maximum", PLAN_DEPTH_MAX));
    }
    Ok(())
}

/// Whether `fields` hold nothing that [`settings`] reads.
fn inherits_all(fields: &Fields<'_>) -> bool {
    fields.priority.is_none()
        && fields.tags.is_none()
        && fields.timeout_seconds.is_none()
        && fields.max_retries.is_none()
        && fields.resource_requirements.is_none()
        && fields.required_capabilities.is_none()
        && fields.agent_type.is_none()
        && fields.agent_id.is_none()
        && fields.queue_timeout_seconds.is_none()
        && fields.no_progress_seconds.is_none()
        && fields.on_failure.is_none()
        && fields.fairness_key.is_none()
        && fields.concurrency_key.is_none()
        && fields.run_at.is_none()
        && fields.delay_seconds.is_none()
}

/// What `fields` say, else what is inherited, else the defaults.
fn settings(fields: &mut Fields<'_>, above: Option<&Settings>, ctx: &PlanContext<'_>) -> Settings {
    let names = |words: Vec<Cow<'_, str>>| Names::new(words.into_iter().map(Into::into));
    let ms = |seconds: u64| seconds.saturating_mul(1_000);
    let resources = fields
        .resource_requirements
        .take()
        .map(|amounts| Amounts::new(amounts.into_iter().map(|(kind, milli)| (kind.into(), milli))));
    let says_who = fields.required_capabilities.is_some()
        || fields.agent_type.is_some()
        || fields.agent_id.is_some();
    // Who does it is one answer in three parts: one of them given, none is inherited.
    let who = if says_who { None } else { above };
    Settings {
        priority: fields
            .priority
            .map(priority)
            .or(above.map(|above| above.priority))
            .unwrap_or_default(),
        tags: fields
            .tags
            .take()
            .map(names)
            .or_else(|| above.map(|above| above.tags.clone()))
            .unwrap_or_default(),
        timeout_ms: fields
            .timeout_seconds
            .map(ms)
            .or(above.map(|above| above.timeout_ms))
            .unwrap_or(ms(ctx.defaults.timeout_seconds)),
        retries_max: fields
            .max_retries
            .or(above.map(|above| above.retries_max))
            .unwrap_or(ctx.defaults.retries),
        resources: resources
            .or_else(|| above.map(|above| above.resources.clone()))
            .unwrap_or_default(),
        capabilities: fields
            .required_capabilities
            .take()
            .map(names)
            .or_else(|| who?.capabilities.clone()),
        agent_type: fields.agent_type.take().map(Into::into).or_else(|| who?.agent_type.clone()),
        agent: fields.agent_id.map(|id| AgentId(id.as_u128())).or_else(|| who?.agent),
        queue_timeout_ms: fields.queue_timeout_seconds.map(ms).or_else(|| above?.queue_timeout_ms),
        no_progress_ms: fields.no_progress_seconds.map(ms).or_else(|| above?.no_progress_ms),
        on_failure: fields
            .on_failure
            .map(on_failure)
            .or(above.map(|above| above.on_failure))
            .unwrap_or_default(),
        fairness_key: fields
            .fairness_key
            .take()
            .map(Into::into)
            .or_else(|| above?.fairness_key.clone()),
        concurrency_key: fields
            .concurrency_key
            .take()
            .map(Into::into)
            .or_else(|| above?.concurrency_key.clone()),
        start_at: start_at(fields, ctx).or_else(|| above?.start_at),
    }
}

/// When a task may start at the earliest, in the engine's time. A time that has passed is now.
fn start_at(fields: &Fields<'_>, ctx: &PlanContext<'_>) -> Option<When> {
    let ahead_us = |at: UtcTime| at.0.saturating_sub(ctx.wall.0);
    let after = |seconds: u64| seconds.saturating_mul(1_000_000);
    let wait_us = fields.run_at.map(ahead_us).or(fields.delay_seconds.map(after))?;
    (wait_us > 0).then(|| When {
        at: Timestamp(ctx.now.0.saturating_add(wait_us)),
        shown: Some(WallTime(ctx.wall.0.saturating_add(wait_us))),
    })
}

/// The wire's priority as the engine has it.
#[must_use]
pub fn priority(wire: task::Priority) -> Priority {
    match wire {
        task::Priority::Low => Priority::Low,
        task::Priority::Medium => Priority::Medium,
        task::Priority::High => Priority::High,
        task::Priority::Critical => Priority::Critical,
    }
}

fn on_failure(wire: task::OnFailure) -> FailurePolicy {
    match wire {
        task::OnFailure::FailFast => FailurePolicy::FailFast,
        task::OnFailure::Continue => FailurePolicy::Continue,
        task::OnFailure::Ignore => FailurePolicy::Ignore,
    }
}

/// A string as a name: without NUL and blanks around, cut to the bound; `None` if nothing is left.
fn name_of(text: &str) -> Option<Box<str>> {
    let clean = text.replace('\0', " ");
    let name = first_chars(clean.trim(), NAME_CHARS_MAX);
    (!name.is_empty()).then(|| name.into())
}

/// The name of a subtask that has none of its own.
fn default_name(parent: &str, label: &str) -> Box<str> {
    format!("{} / {label}", first_chars(parent, NAME_CHARS_MAX - 50)).into()
}

fn first_chars(text: &str, chars_max: u32) -> &str {
    let most = usize::try_from(chars_max).unwrap_or(usize::MAX);
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}
