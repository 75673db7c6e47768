//! Pools of agents on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::events::PoolEvent;
use crate::fault::Faults;
use crate::field::{Null, Reader, listed};
use crate::submission::{self, Bounds};

/// How large a pool may be, and when it grows and shrinks; also as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolSettings {
    /// Agents that are always there; 0: none while there is nothing to do.
    pub min: u32,
    /// Agents at the most.
    pub max: u32,
    /// Attempts at once on each of them.
    pub slots: u32,
    /// So many waiting tasks for each agent call for another one.
    pub queue_depth: u32,
    /// A task that has waited so long calls for another agent.
    pub wait_seconds: u64,
    /// An agent above `min` that had nothing to do for so long ends.
    pub idle_seconds: u64,
    /// Seconds between two changes of its size.
    pub cooldown_seconds: u64,
}

/// A pool of agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Its name, which is also the type of its agents.
    pub name: String,
    /// What its agents can do.
    pub capabilities: Vec<String>,
    /// What holds for it.
    #[serde(flatten)]
    pub settings: PoolSettings,
    /// Agents now.
    pub agents: u32,
    /// Those of them that do something.
    pub busy: u32,
    /// Tasks that one more agent could start at once.
    pub waiting: u64,
    /// Agents that it should have, whatever `max` says.
    pub demand: u64,
    /// What was done last, and why.
    pub last_decision: Option<PoolEvent>,
}

/// The answer to reading and changing a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolEnvelope {
    /// The pool.
    pub pool: Pool,
    /// What happened, in words.
    pub message: String,
    /// What the caller should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The answer to `GET /api/v1/pools`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolList {
    /// All of them, by name.
    pub items: Vec<Pool>,
    /// How many there are.
    pub total_items: u64,
}

/// Every field that a change of a pool may have.
pub const FIELDS: [&str; 7] =
    ["min", "max", "slots", "queue_depth", "wait_seconds", "idle_seconds", "cooldown_seconds"];

/// Reads what is to be another in a pool; at most `agents_max` agents.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse(
    body: &[u8],
    bounds: &Bounds,
    before: PoolSettings,
    agents_max: u32,
) -> Result<(PoolSettings, Vec<String>), ApiError> {
    let members = submission::open(body, bounds)?;
    let (mut faults, mut warnings) = (Faults::default(), Vec::new());
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let slots = reader.known(&members, FIELDS, &mut warnings);
    if slots.iter().all(Option::is_none) {
        reader.invalid("body", format!("must have at least one of {}", listed(&FIELDS)));
    }
    let [min, max, per_agent, depth, wait, idle, cooldown] = slots;
    let most = u64::from(agents_max);
    let mut number = |field: &str, raw, range| reader.integer(field, raw, Null::Refused, range);
    let (min, max) = (number("min", min, 0..=most), number("max", max, 0..=most));
    let per_agent = number("slots", per_agent, 1..=u64::from(bounds.agent_slots_max));
    let depth = number("queue_depth", depth, 1..=1_000_000);
    let wait = number("wait_seconds", wait, 0..=86_400);
    let idle = number("idle_seconds", idle, 0..=366 * 86_400);
    let cooldown = number("cooldown_seconds", cooldown, 0..=86_400);
    let narrow = |number: Option<u64>, before: u32| {
        number.and_then(|number| u32::try_from(number).ok()).unwrap_or(before)
    };
    let settings = PoolSettings {
        min: narrow(min, before.min),
        max: narrow(max, before.max),
        slots: narrow(per_agent, before.slots),
        queue_depth: narrow(depth, before.queue_depth),
        wait_seconds: wait.unwrap_or(before.wait_seconds),
        idle_seconds: idle.unwrap_or(before.idle_seconds),
        cooldown_seconds: cooldown.unwrap_or(before.cooldown_seconds),
    };
    if settings.min > settings.max {
        faults.invalid("min", format!("must not be above `max`, which is {}", settings.max));
    }
    faults.check()?;
    Ok((settings, warnings))
}
