//! Keys that tasks share: how many of them run at once and how fast they start (`concurrency_key`),
//! and how often a submitter's turn comes (`fairness_key`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::fault::Faults;
use crate::field::{Null, Reader};
use crate::submission::{self, Bounds};

/// Most turns that a fairness key may get while another gets one.
pub const WEIGHT_MAX: u32 = 1_000;

/// What tasks with one concurrency key may do together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConcurrencyLimit {
    /// Attempts at once; null: any number. 0 holds all of them back.
    pub running_max: Option<u32>,
    /// Starts a minute, evenly spaced; null: as fast as they come.
    pub starts_per_minute: Option<u32>,
}

/// One concurrency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConcurrencyKey {
    /// What holds for it.
    #[serde(flatten)]
    pub limit: ConcurrencyLimit,
    /// Attempts of its tasks at the moment.
    pub running: u32,
    /// Whether the limit was set; else it is the one that holds for all other keys.
    pub is_set: bool,
}

/// One fairness key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FairnessKey {
    /// Turns that it gets while a key without a weight gets one.
    pub weight: u32,
}

/// The answer to `GET /api/v1/keys` and to every change of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    /// Concurrency keys that have a limit, or tasks that run or wait.
    pub concurrency: BTreeMap<String, ConcurrencyKey>,
    /// Fairness keys that have a weight.
    pub fairness: BTreeMap<String, FairnessKey>,
}

/// Reads the limit of a concurrency key: at least one of its two numbers.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse_limit(body: &[u8], bounds: &Bounds) -> Result<ConcurrencyLimit, ApiError> {
    let members = submission::open(body, bounds)?;
    let mut faults = Faults::default();
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let [running_max, starts] = reader.only(&members, ["running_max", "starts_per_minute"]);
    if running_max.is_none() && starts.is_none() {
        reader.invalid("running_max", "is required, or `starts_per_minute`");
    }
    let most = u64::from(u32::MAX);
    let running_max = reader.integer("running_max", running_max, Null::Absent, 0..=most);
    let starts = reader.integer("starts_per_minute", starts, Null::Absent, 1..=60_000_000);
    faults.check()?;
    let narrow = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
    Ok(ConcurrencyLimit { running_max: narrow(running_max), starts_per_minute: narrow(starts) })
}

/// Reads the weight of a fairness key.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse_weight(body: &[u8], bounds: &Bounds) -> Result<FairnessKey, ApiError> {
    let members = submission::open(body, bounds)?;
    let mut faults = Faults::default();
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let [weight] = reader.only(&members, ["weight"]);
    if weight.is_none() {
        reader.invalid("weight", "is required");
    }
    let weight: Option<u64> =
        reader.integer("weight", weight, Null::Refused, 1..=u64::from(WEIGHT_MAX));
    faults.check()?;
    let weight = weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1);
    Ok(FairnessKey { weight })
}
