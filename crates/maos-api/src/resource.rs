//! Resources: what there is of each kind, and what somebody holds outside of tasks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::ApiError;
use crate::fault::Faults;
use crate::field::{Null, Reader, listed};
use crate::submission::{self, Bounds};
use crate::time::UtcTime;

/// Longest lease, in seconds: 30 days.
pub const LEASE_SECONDS_MAX: u64 = 30 * 24 * 3_600;
/// Lease of an allocation that does not ask for one.
pub const LEASE_SECONDS: u64 = 3_600;

/// What a resource is; decides which kind of requirement it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResourceType {
    /// `cpu_cores`.
    Cpu,
    /// `memory_mb`.
    Memory,
    /// `disk_mb`.
    Disk,
    /// `network_mbps`.
    Network,
    /// `gpu_memory_mb`.
    Gpu,
    /// The kind that has its name.
    Custom,
}

impl ResourceType {
    /// All of them.
    pub const ALL: [ResourceType; 6] = [
        ResourceType::Cpu,
        ResourceType::Memory,
        ResourceType::Disk,
        ResourceType::Network,
        ResourceType::Gpu,
        ResourceType::Custom,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ResourceType::Cpu => "cpu",
            ResourceType::Memory => "memory",
            ResourceType::Disk => "disk",
            ResourceType::Network => "network",
            ResourceType::Gpu => "gpu",
            ResourceType::Custom => "custom",
        }
    }

    /// The kind of requirement that it serves, and the unit of that.
    #[must_use]
    pub fn kind(self) -> Option<(&'static str, &'static str)> {
        match self {
            ResourceType::Cpu => Some(("cpu_cores", "cores")),
            ResourceType::Memory => Some(("memory_mb", "MB")),
            ResourceType::Disk => Some(("disk_mb", "MB")),
            ResourceType::Network => Some(("network_mbps", "Mbit/s")),
            ResourceType::Gpu => Some(("gpu_memory_mb", "MB")),
            ResourceType::Custom => None,
        }
    }

    /// The type that serves this kind.
    #[must_use]
    pub fn of_kind(kind: &str) -> ResourceType {
        let same = |of: &ResourceType| of.kind().is_some_and(|(known, _)| known == kind);
        ResourceType::ALL.into_iter().find(same).unwrap_or(ResourceType::Custom)
    }
}

/// Where a resource was declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// In `[resources]` of `maos.toml`.
    Configuration,
    /// Through the API.
    Api,
}

/// What was said of a resource; also as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResourceSpec {
    /// What it is.
    pub resource_type: ResourceType,
    /// For people; of a custom resource, the kind that requirements name.
    pub name: String,
    /// How much there is of it.
    pub capacity: f64,
    /// What the capacity counts.
    pub unit: Option<String>,
    /// Where it is.
    pub location: Option<String>,
    /// What one unit costs; kept for people.
    pub cost_per_unit: Option<f64>,
    /// Requirements below this are refused.
    pub minimum_allocation: Option<f64>,
    /// Requirements above this are refused.
    pub maximum_allocation: Option<f64>,
    /// An object that MAOS keeps and never reads.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// A set of words to find it by.
    pub tags: Vec<String>,
}

impl ResourceSpec {
    /// The kind of requirement that it serves.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.resource_type.kind().map_or(&self.name, |(kind, _)| kind)
    }
}

/// A resource as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Resource {
    /// Its id.
    pub id: Uuid,
    /// What was said of it.
    #[serde(flatten)]
    pub spec: ResourceSpec,
    /// The kind of requirement that it serves, together with all others of that kind.
    pub kind: String,
    /// Who declared it.
    pub origin: Origin,
    /// When it was declared; null for the configuration's.
    pub created_at: Option<UtcTime>,
    /// When it changed last.
    pub updated_at: Option<UtcTime>,
}

/// All resources of one kind together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolFigures {
    /// How much there is.
    pub capacity: f64,
    /// How much is held, by attempts and allocations.
    pub allocated: f64,
    /// The rest.
    pub available: f64,
}

/// The answer to creating, reading and changing a resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResourceEnvelope {
    /// The resource.
    pub resource: Resource,
    /// What happened, in words.
    pub message: String,
    /// What the caller should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The answer to `GET /api/v1/resources`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResourceList {
    /// All of them, by kind and name.
    pub items: Vec<Resource>,
    /// How many there are.
    pub total_items: u64,
    /// The kinds that they serve.
    pub pools: BTreeMap<String, PoolFigures>,
}

/// The answer to taking a resource away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResourceGone {
    /// What happened, in words.
    pub message: String,
    /// The resource.
    pub resource_id: Uuid,
    /// What the caller should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What somebody holds outside of tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Allocation {
    /// Who.
    pub requester_id: String,
    /// How much of each kind.
    pub resources: BTreeMap<String, f64>,
    /// Since when.
    pub allocated_at: UtcTime,
    /// Until when; null: until it is given back.
    pub expires_at: Option<UtcTime>,
}

/// The answer to `POST /api/v1/resources/allocate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AllocationEnvelope {
    /// What is held now.
    pub allocation: Allocation,
    /// What happened, in words.
    pub message: String,
    /// What the caller should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The answer to `GET /api/v1/resources/allocations`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AllocationList {
    /// All of them, by requester.
    pub items: Vec<Allocation>,
    /// How many there are.
    pub total_items: u64,
}

/// The answer to giving resources back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AllocationGone {
    /// What happened, in words.
    pub message: String,
    /// Who held them.
    pub requester_id: String,
}

/// A request to hold resources, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedAllocation {
    /// Who.
    pub requester_id: String,
    /// Amounts by kind, in thousandths; at least one above 0.
    pub resources: Vec<(String, u64)>,
    /// How long; `None`: until they are given back.
    pub lease_seconds: Option<u64>,
    /// What the answer should mention.
    pub warnings: Vec<String>,
}

/// What is to be another in a resource; or all of a new one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourcePatch {
    /// Only of a new one.
    pub resource_type: Option<ResourceType>,
    /// Not blank.
    pub name: Option<String>,
    /// Above 0.
    pub capacity: Option<f64>,
    /// `Some(None)`: none.
    pub unit: Option<Option<String>>,
    /// The same.
    pub location: Option<Option<String>>,
    /// The same.
    pub cost_per_unit: Option<Option<f64>>,
    /// The same.
    pub minimum_allocation: Option<Option<f64>>,
    /// The same.
    pub maximum_allocation: Option<Option<f64>>,
    /// An object.
    pub metadata: Option<Map<String, Value>>,
    /// A set.
    pub tags: Option<Vec<String>>,
    /// What the answer should mention.
    pub warnings: Vec<String>,
}

/// Every field of a resource that a request may give.
pub const FIELDS: [&str; 10] = [
    "resource_type",
    "name",
    "capacity",
    "unit",
    "location",
    "cost_per_unit",
    "minimum_allocation",
    "maximum_allocation",
    "metadata",
    "tags",
];

/// Reads a request for a new resource.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse(body: &[u8], bounds: &Bounds) -> Result<(ResourceSpec, Vec<String>), ApiError> {
    let (patch, mut faults) = read(body, bounds, &["resource_type", "name", "capacity"])?;
    let spec = ResourceSpec {
        resource_type: patch.resource_type.unwrap_or(ResourceType::Custom),
        name: patch.name.unwrap_or_default(),
        capacity: patch.capacity.unwrap_or_default(),
        unit: patch.unit.flatten(),
        location: patch.location.flatten(),
        cost_per_unit: patch.cost_per_unit.flatten(),
        minimum_allocation: patch.minimum_allocation.flatten(),
        maximum_allocation: patch.maximum_allocation.flatten(),
        metadata: patch.metadata.unwrap_or_default(),
        tags: patch.tags.unwrap_or_default(),
    };
    check_range(&spec, &mut faults);
    faults.check()?;
    Ok((spec, patch.warnings))
}

/// Reads what is to be another in `spec`, and says what it is then.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn patch(
    body: &[u8],
    bounds: &Bounds,
    spec: &ResourceSpec,
) -> Result<(ResourceSpec, Vec<String>), ApiError> {
    let (patch, mut faults) = read(body, bounds, &[])?;
    if patch.resource_type.is_some_and(|given| given != spec.resource_type) {
        faults.invalid("resource_type", "cannot be changed: declare another resource");
    }
    let named = patch.name.as_ref().is_some_and(|name| *name != spec.name);
    if named && spec.resource_type == ResourceType::Custom {
        faults.invalid("name", "is the kind that tasks ask for: declare another resource");
    }
    let spec = spec.clone();
    let changed = ResourceSpec {
        resource_type: spec.resource_type,
        name: patch.name.unwrap_or(spec.name),
        capacity: patch.capacity.unwrap_or(spec.capacity),
        unit: patch.unit.unwrap_or(spec.unit),
        location: patch.location.unwrap_or(spec.location),
        cost_per_unit: patch.cost_per_unit.unwrap_or(spec.cost_per_unit),
        minimum_allocation: patch.minimum_allocation.unwrap_or(spec.minimum_allocation),
        maximum_allocation: patch.maximum_allocation.unwrap_or(spec.maximum_allocation),
        metadata: patch.metadata.unwrap_or(spec.metadata),
        tags: patch.tags.unwrap_or(spec.tags),
    };
    check_range(&changed, &mut faults);
    faults.check()?;
    Ok((changed, patch.warnings))
}

fn check_range(spec: &ResourceSpec, faults: &mut Faults) {
    let least = spec.minimum_allocation.unwrap_or(0.0);
    if spec.maximum_allocation.is_some_and(|most| most < least) {
        faults.invalid("maximum_allocation", "must not be below `minimum_allocation`");
    }
    if faults.is_empty() && least > spec.capacity {
        faults.invalid("minimum_allocation", "must not be above `capacity`");
    }
}

/// What a body says of a resource; `required` fields must be there.
fn read(
    body: &[u8],
    bounds: &Bounds,
    required: &[&str],
) -> Result<(ResourcePatch, Faults), ApiError> {
    let members = submission::open(body, bounds)?;
    let (mut faults, mut warnings) = (Faults::default(), Vec::new());
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let slots = reader.known(&members, FIELDS, &mut warnings);
    for (field, slot) in FIELDS.iter().zip(slots) {
        if slot.is_none() && required.contains(field) {
            reader.invalid(field, "is required");
        }
    }
    if required.is_empty() && slots.iter().all(Option::is_none) {
        reader.invalid("body", format!("must have at least one of {}", listed(&FIELDS)));
    }
    let [resource_type, name, capacity, unit, location, cost, least, most, metadata, tags] = slots;
    let names = ResourceType::ALL.map(ResourceType::name);
    let resource_type = reader
        .one_of("resource_type", resource_type, Null::Refused, &names)
        .and_then(|index| ResourceType::ALL.get(index).copied());
    let name = reader.trimmed("name", name, Null::Refused, bounds.word_chars_max);
    let amount = |milli: Option<u64>| milli.map(from_thousandths);
    let capacity = amount(reader.amount("capacity", capacity));
    if capacity == Some(0.0) {
        reader.invalid("capacity", "must be above 0");
    }
    let mut text = |field: &str, raw: Option<&RawValue>| {
        let found = reader.trimmed(field, raw, Null::Absent, bounds.word_chars_max);
        raw.map(|_| found.map(Into::into))
    };
    let (unit, location) = (text("unit", unit), text("location", location));
    let cost_per_unit = cost.map(|raw| reader.number("cost_per_unit", Some(raw), Null::Absent));
    let mut bound = |field: &str, raw: Option<&RawValue>| {
        let given = raw.filter(|raw| raw.get() != "null");
        raw.map(|_| amount(reader.amount(field, given)))
    };
    let minimum_allocation = bound("minimum_allocation", least);
    let maximum_allocation = bound("maximum_allocation", most);
    let metadata = reader.object("metadata", metadata);
    let metadata = metadata.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let tags = reader.words("tags", tags, Null::Refused, bounds.tags_max);
    let tags = tags.map(|tags| tags.into_iter().map(Into::into).collect());
    let name = name.map(Into::into);
    let patch = ResourcePatch {
        resource_type,
        name,
        capacity,
        unit,
        location,
        cost_per_unit,
        minimum_allocation,
        maximum_allocation,
        metadata,
        tags,
        warnings,
    };
    Ok((patch, faults))
}

/// Reads a request to hold resources.
///
/// # Errors
/// What is wrong with it, every faulty field named.
pub fn parse_allocation(body: &[u8], bounds: &Bounds) -> Result<ParsedAllocation, ApiError> {
    let members = submission::open(body, bounds)?;
    let (mut faults, mut warnings) = (Faults::default(), Vec::new());
    let mut reader = Reader { at: "", bounds, faults: &mut faults };
    let names = ["requester_id", "resources", "lease_seconds"];
    let slots = reader.known(&members, names, &mut warnings);
    for (field, slot) in names.iter().zip(&slots[..2]) {
        if slot.is_none() {
            reader.invalid(field, "is required");
        }
    }
    let [requester, resources, lease] = slots;
    let requester = reader.trimmed("requester_id", requester, Null::Refused, bounds.word_chars_max);
    if requester.as_ref().is_some_and(|name| name.contains('/')) {
        reader.invalid("requester_id", "must not hold `/`: it is part of a path");
    }
    let amounts = reader.amounts("resources", resources);
    if amounts.as_ref().is_some_and(|amounts| amounts.iter().all(|(_, milli)| *milli == 0)) {
        reader.invalid("resources", "must ask for something");
    }
    let endless = lease.is_some_and(|raw| raw.get() == "null");
    let seconds = reader.integer("lease_seconds", lease, Null::Absent, 1..=LEASE_SECONDS_MAX);
    faults.check()?;
    let lease_seconds = if endless { None } else { Some(seconds.unwrap_or(LEASE_SECONDS)) };
    let amounts = amounts.unwrap_or_default().into_iter();
    Ok(ParsedAllocation {
        requester_id: requester.map(Into::into).unwrap_or_default(),
        resources: amounts.map(|(kind, milli)| (kind.into(), milli)).collect(),
        lease_seconds,
        warnings,
    })
}

#[expect(clippy::cast_precision_loss, reason = "amounts are bounded so that they are exact")]
fn from_thousandths(milli: u64) -> f64 {
    milli as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submission::tests::BOUNDS;

    #[test]
    fn a_resource_has_defaults_and_its_faults_are_all_named() {
        let body = br#"{"resource_type":"gpu","name":" a100 ","capacity":40960,"x":1}"#;
        let (spec, warnings) = parse(body, &BOUNDS).unwrap();
        assert_eq!((spec.kind(), &*spec.name), ("gpu_memory_mb", "a100"));
        assert_eq!(warnings, ["unknown field `x` is ignored"]);
        let body = br#"{"resource_type":"steam","capacity":0,"tags":1,"cost_per_unit":-1}"#;
        let error = parse(body, &BOUNDS).unwrap_err();
        let fields: Vec<&String> = error.details["fields"].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["capacity", "cost_per_unit", "name", "resource_type", "tags"]);
    }

    #[test]
    fn a_patch_changes_what_it_names_and_keeps_the_rest() {
        let body = br#"{"resource_type":"custom","name":"licences","capacity":3,"unit":"seats",
            "minimum_allocation":1}"#;
        let (spec, _) = parse(body, &BOUNDS).unwrap();
        let (changed, _) = patch(br#"{"capacity":5,"unit":null}"#, &BOUNDS, &spec).unwrap();
        assert_eq!(
            (changed.capacity, changed.unit, changed.minimum_allocation),
            (5.0, None, Some(1.0))
        );
        for (body, field) in [
            (&br#"{"name":"seats"}"#[..], "name"),
            (br#"{"resource_type":"cpu"}"#, "resource_type"),
            (br#"{"maximum_allocation":0.5}"#, "maximum_allocation"),
            (br#"{"capacity":0.5}"#, "minimum_allocation"),
            (b"{}", "body"),
        ] {
            let error = patch(body, &BOUNDS, &spec).unwrap_err();
            assert!(error.details["fields"].get(field).is_some(), "{field}: {error:?}");
        }
    }

    #[test]
    fn an_allocation_has_a_lease_unless_it_asks_for_none() {
        let parse = |body: &[u8]| parse_allocation(body, &BOUNDS);
        let held = parse(br#"{"requester_id":"me","resources":{"cpu_cores":0.5}}"#).unwrap();
        assert_eq!(held.lease_seconds, Some(LEASE_SECONDS));
        assert_eq!(held.resources, [("cpu_cores".to_owned(), 500)]);
        let body = br#"{"requester_id":"me","resources":{"cpu_cores":1},"lease_seconds":null}"#;
        assert_eq!(parse(body).unwrap().lease_seconds, None);
        for body in [
            &br#"{"requester_id":"a/b","resources":{"cpu_cores":1}}"#[..],
            br#"{"requester_id":"me","resources":{"cpu_cores":0}}"#,
            br#"{"requester_id":"me","resources":{}}"#,
            br#"{"requester_id":"me","resources":{"cpu_cores":1},"lease_seconds":0}"#,
            br#"{"resources":{"cpu_cores":1}}"#,
        ] {
            assert!(parse(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }
}
