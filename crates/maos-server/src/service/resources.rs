//! Resources: what there is of each kind, declared by the configuration and through the API, and
//! what somebody holds outside of tasks.
//!
//! Its law: the engine's capacity of a kind is the sum of what the resources of that kind say. What
//! was declared through the API is a document that the engine keeps (`REGISTER`); the sum changes
//! with it in one go.

use std::collections::BTreeMap;

use maos_api::error::{ApiError, ErrorCode};
use maos_api::resource::{
    self, Allocation, AllocationEnvelope, AllocationGone, AllocationList, Origin, PoolFigures,
    Resource, ResourceEnvelope, ResourceGone, ResourceList, ResourceSpec, ResourceType,
};
use maos_api::time::UtcTime;
use maos_core::command::{Command, Expect};
use maos_core::node::{Answer, Echo, Query};
use maos_core::payload::Payload;
use maos_core::record::{EntryRecord, Reservation};
use maos_core::spec::{Amounts, Plan};
use maos_core::time::WallTime;
use serde_json::Map;
use uuid::Uuid;

use super::{Service, faults, new_id, present};

/// The documents that say what was declared through the API.
pub(super) const REGISTER: &str = "resource";
/// Most resources that are declared through the API.
const RESOURCES_MAX: usize = 1_000;
/// Most bytes of what is said of one.
const RESOURCE_BYTES_MAX: usize = 64 << 10;
/// Most kinds that one answer warns of.
const WARNED_MAX: usize = 20;

/// What the resources of each kind come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Kinds(BTreeMap<String, Kind>);

/// All resources of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Kind {
    capacity: f64,
    /// The least that somebody may ask for.
    least: Option<f64>,
    /// The most; `None`: all there is.
    most: Option<f64>,
}

impl Kinds {
    pub(super) fn new<'a>(resources: impl Iterator<Item = &'a ResourceSpec>) -> Kinds {
        let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
        for spec in resources {
            let least = spec.minimum_allocation.unwrap_or(0.0);
            let most = spec.maximum_allocation.unwrap_or(f64::INFINITY);
            let kind = kinds.entry(spec.kind().to_owned()).or_default();
            kind.capacity += spec.capacity;
            // Whoever asks for so little, or so much, is served if any resource serves it.
            kind.least = Some(kind.least.map_or(least, |known| known.min(least)));
            kind.most = Some(kind.most.map_or(most, |known| known.max(most)));
        }
        Kinds(kinds)
    }

    pub(super) fn capacity(&self) -> Amounts {
        let kinds = self.0.iter();
        Amounts::new(
            kinds.map(|(name, kind)| (name.as_str().into(), present::thousandths(kind.capacity))),
        )
    }

    /// How much there is of a kind; `None`: nobody declares it.
    pub(super) fn capacity_of(&self, kind: &str) -> Option<f64> {
        self.0.get(kind).map(|kind| kind.capacity)
    }

    /// Whether these amounts may be asked for; what nobody declared is named in `warnings`.
    pub(super) fn check(
        &self,
        field: &str,
        amounts: &Amounts,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let mut refused: Option<ApiError> = None;
        for (name, milli) in amounts.iter() {
            let Some(kind) = self.0.get(name) else {
                let warning = format!(
                    "no resource of the kind `{name}` is declared: it holds nothing back; declare \
                     it under [resources] or with POST /api/v1/resources"
                );
                if warnings.len() < WARNED_MAX && !warnings.contains(&warning) {
                    warnings.push(warning);
                }
                continue;
            };
            let wanted = present::milli(milli);
            let fault = match (kind.least, kind.most) {
                (Some(least), _) if wanted < least => format!("at least {least}"),
                (_, Some(most)) if wanted > most => format!("at most {most}"),
                _ => continue,
            };
            let capacity = Some(kind.capacity).filter(|capacity| wanted > *capacity);
            let in_all = capacity.map(|capacity| format!("; there is {capacity} in all"));
            let in_all = in_all.unwrap_or_default();
            let message =
                format!("`{name}`: {fault} may be asked for at once, found {wanted}{in_all}");
            let fault = ApiError::new(ErrorCode::ValidationFailed, message.clone())
                .with_field(&format!("{field}.{name}"), message);
            refused = Some(match refused {
                Some(others) => others.and(fault),
                None => fault,
            });
        }
        refused.map_or(Ok(()), Err)
    }

    /// The same for all tasks of a plan, and whether there is as much at all: the engine, which
    /// looks at that again, does not know their places in the body.
    pub(super) fn check_plan(
        &self,
        plan: &Plan,
        places: &[String],
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        for (index, task) in plan.tasks.iter().enumerate() {
            let resources = &task.spec.demand.resources;
            if resources.is_empty() {
                continue;
            }
            let place = places.get(index).map_or("", String::as_str);
            self.check(&format!("{place}resource_requirements"), resources, warnings)?;
            for (kind, milli) in resources.iter() {
                let capacity = self.0.get(kind).map(|kind| present::thousandths(kind.capacity));
                if let Some(capacity) = capacity.filter(|capacity| milli > *capacity) {
                    return Err(faults::over_capacity(place, kind, milli, capacity));
                }
            }
        }
        Ok(())
    }
}

/// What the configuration declares, and what the documents say.
pub(super) fn declared(
    configured: &BTreeMap<String, f64>,
    entries: &[EntryRecord],
) -> Vec<Resource> {
    let configured = configured.iter().map(|(kind, capacity)| of_configuration(kind, *capacity));
    let mut resources: Vec<Resource> = configured.chain(entries.iter().filter_map(read)).collect();
    resources.sort_by(|a, b| (&a.kind, &a.spec.name).cmp(&(&b.kind, &b.spec.name)));
    resources
}

fn of_configuration(kind: &str, capacity: f64) -> Resource {
    let resource_type = ResourceType::of_kind(kind);
    let spec = ResourceSpec {
        resource_type,
        name: kind.to_owned(),
        capacity,
        unit: resource_type.kind().map(|(_, unit)| unit.to_owned()),
        location: None,
        cost_per_unit: None,
        minimum_allocation: None,
        maximum_allocation: None,
        metadata: Map::new(),
        tags: Vec::new(),
    };
    // The same in every run, so that it can be named.
    let hash = blake3::hash(format!("resources.{kind}").as_bytes());
    let id = Uuid::new_v8(hash.as_bytes()[..16].try_into().unwrap_or_default());
    let (origin, kind) = (Origin::Configuration, kind.to_owned());
    Resource { id, spec, kind, origin, created_at: None, updated_at: None }
}

fn read(entry: &EntryRecord) -> Option<Resource> {
    let Some(Payload::Inline(document)) = &entry.value else { return None };
    let spec: ResourceSpec = serde_json::from_slice(document).ok()?;
    Some(Resource {
        id: Uuid::parse_str(&entry.key).ok()?,
        kind: spec.kind().to_owned(),
        spec,
        origin: Origin::Api,
        created_at: Some(UtcTime(entry.created.0)),
        updated_at: Some(UtcTime(entry.updated.0)),
    })
}

impl Service {
    /// All resources and what they come to.
    ///
    /// # Errors
    /// Why they cannot be told.
    pub async fn resources(&self) -> Result<ResourceList, ApiError> {
        let items = self.declared().await?;
        let Answer::Figures(figures) = self.ask(Query::Figures).await? else {
            return Err(faults::internal(&"figures were something else"));
        };
        let pools = figures.pools.into_iter().filter_map(|(kind, capacity, allocated)| {
            let available = present::milli(capacity?.saturating_sub(allocated));
            let (capacity, allocated) = (present::milli(capacity?), present::milli(allocated));
            Some((kind.into(), PoolFigures { capacity, allocated, available }))
        });
        Ok(ResourceList { total_items: items.len() as u64, items, pools: pools.collect() })
    }

    /// One resource.
    ///
    /// # Errors
    /// That there is none with this id.
    pub async fn resource(&self, id: Uuid) -> Result<ResourceEnvelope, ApiError> {
        let resource = self.find_resource(id).await?;
        let message = format!(
            "resource is declared by the {}",
            match resource.origin {
                Origin::Configuration => "configuration",
                Origin::Api => "API",
            }
        );
        Ok(ResourceEnvelope { resource, message, warnings: Vec::new() })
    }

    /// Declares a resource: there is so much more of its kind when this returns.
    ///
    /// # Errors
    /// What is wrong with the request, or why it is not taken.
    pub async fn create_resource(&self, body: &[u8]) -> Result<ResourceEnvelope, ApiError> {
        self.check_intake()?;
        let (spec, warnings) = resource::parse(body, self.bounds())?;
        let _alone = self.inner.alone.changes.lock().await;
        let known = self.declared().await?;
        if known.len() >= RESOURCES_MAX {
            let message = format!("{RESOURCES_MAX} resources are declared, which is the bound");
            return Err(ApiError::new(ErrorCode::QueueFull, message).with("bound", RESOURCES_MAX));
        }
        let id = Uuid::from_u128(new_id());
        self.put_resource(known, id, Some(&spec), Expect::Absent).await?;
        let resource = self.find_resource(id).await?;
        Ok(ResourceEnvelope { resource, message: "resource declared".to_owned(), warnings })
    }

    /// Changes a resource that was declared through the API. What runs keeps what it holds; if
    /// there is less than is held or wanted, a warning says so.
    ///
    /// # Errors
    /// What is wrong with the request, or why it is not taken.
    pub async fn change_resource(
        &self,
        id: Uuid,
        body: &[u8],
    ) -> Result<ResourceEnvelope, ApiError> {
        self.check_intake()?;
        let _alone = self.inner.alone.changes.lock().await;
        let known = self.declared().await?;
        let resource = of_api(&known, id)?;
        let (spec, mut warnings) = resource::patch(body, self.bounds(), &resource.spec)?;
        let before = self.inner.planning.kinds().capacity_of(spec.kind());
        self.put_resource(known, id, Some(&spec), Expect::Present).await?;
        warnings.extend(self.shortages(spec.kind(), before).await);
        let resource = self.find_resource(id).await?;
        Ok(ResourceEnvelope { resource, message: "resource changed".to_owned(), warnings })
    }

    /// Takes a resource away. What runs keeps what it holds; if there is less than is held or
    /// wanted, a warning says so.
    ///
    /// # Errors
    /// That there is none with this id, or that the configuration declares it.
    pub async fn delete_resource(&self, id: Uuid) -> Result<ResourceGone, ApiError> {
        let _alone = self.inner.alone.changes.lock().await;
        let known = self.declared().await?;
        let kind = of_api(&known, id)?.kind.clone();
        let before = self.inner.planning.kinds().capacity_of(&kind);
        self.put_resource(known, id, None, Expect::Present).await?;
        let warnings = self.shortages(&kind, before).await;
        let message = "resource taken away".to_owned();
        Ok(ResourceGone { message, resource_id: id, warnings })
    }

    /// Holds resources outside of tasks, instead of what the requester holds so.
    ///
    /// # Errors
    /// What is wrong with the request, or that there is not enough left.
    pub async fn allocate(&self, body: &[u8]) -> Result<AllocationEnvelope, ApiError> {
        self.check_intake()?;
        let parsed = resource::parse_allocation(body, self.bounds())?;
        let amounts = parsed.resources.into_iter().map(|(kind, milli)| (kind.into(), milli));
        let (amounts, mut warnings) = (Amounts::new(amounts), parsed.warnings);
        self.inner.planning.kinds().check("resources", &amounts, &mut warnings)?;
        let requester = parsed.requester_id;
        let lease_ms = parsed.lease_seconds.map(|seconds| seconds * 1_000);
        let command = Command::Reserve { requester: requester.as_str().into(), amounts, lease_ms };
        self.inner.driver.run(command, Echo::Id).await.map_err(faults::refused)?;
        let held = self.allocations().await?.items;
        let allocation = held.into_iter().find(|held| held.requester_id == requester);
        let allocation = allocation.ok_or_else(|| faults::internal(&"a lease ended at once"))?;
        Ok(AllocationEnvelope { allocation, message: "resources allocated".to_owned(), warnings })
    }

    /// What is held outside of tasks.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn allocations(&self) -> Result<AllocationList, ApiError> {
        let Answer::Reservations(held) = self.ask(Query::Reservations).await? else {
            return Err(faults::internal(&"reservations were something else"));
        };
        let items: Vec<Allocation> = held.into_iter().map(|held| self.allocation(held)).collect();
        Ok(AllocationList { total_items: items.len() as u64, items })
    }

    /// Gives back what a requester holds outside of tasks.
    ///
    /// # Errors
    /// That it holds nothing so.
    pub async fn release_allocation(&self, requester: &str) -> Result<AllocationGone, ApiError> {
        let command = Command::Unreserve { requester: requester.into() };
        self.inner.driver.run(command, Echo::Id).await.map_err(faults::refused)?;
        let message = "resources given back".to_owned();
        Ok(AllocationGone { message, requester_id: requester.to_owned() })
    }

    fn allocation(&self, held: Reservation) -> Allocation {
        let wall = |until| self.inner.driver.wall_time(until, WallTime(super::now().0));
        Allocation {
            requester_id: held.requester.into(),
            resources: present::amounts(&held.amounts),
            allocated_at: UtcTime(held.since.0),
            expires_at: held.until.map(|until| UtcTime(wall(until).0)),
        }
    }

    async fn declared(&self) -> Result<Vec<Resource>, ApiError> {
        let entries = self.entries(REGISTER).await?;
        Ok(declared(&self.inner.config.resources, &entries))
    }

    async fn find_resource(&self, id: Uuid) -> Result<Resource, ApiError> {
        let known = self.declared().await?;
        known.into_iter().find(|resource| resource.id == id).ok_or_else(|| not_found(id))
    }

    /// Sets or takes away one of the `known` resources, and the capacity that follows.
    async fn put_resource(
        &self,
        known: Vec<Resource>,
        id: Uuid,
        spec: Option<&ResourceSpec>,
        expect: Expect,
    ) -> Result<(), ApiError> {
        let value = match spec {
            Some(spec) => {
                let document = serde_json::to_vec(spec).map_err(|why| faults::internal(&why))?;
                if document.len() > RESOURCE_BYTES_MAX {
                    let what = format!("has more than {RESOURCE_BYTES_MAX} bytes");
                    return Err(ApiError::invalid("metadata", what));
                }
                Some(Payload::inline(&document))
            }
            None => None,
        };
        let others = known.iter().filter(|resource| resource.id != id).map(|other| &other.spec);
        let kinds = Kinds::new(others.chain(spec));
        let key = id.to_string().into();
        let entry = Command::SetEntry { register: REGISTER.into(), key, value, expect };
        let capacity = Command::SetCapacity { capacity: kinds.capacity() };
        let answers = self.inner.driver.run_all(vec![entry, capacity], Echo::Id).await;
        for answer in answers.map_err(faults::refused)? {
            answer.map_err(|rejection| faults::rejected(&rejection))?;
        }
        self.inner.planning.set_kinds(kinds);
        Ok(())
    }

    /// The documents of one kind that the engine keeps.
    pub(super) async fn entries(&self, register: &str) -> Result<Vec<EntryRecord>, ApiError> {
        match self.ask(Query::Entries(register.into())).await? {
            Answer::Entries(entries) => Ok(entries),
            _ => Err(faults::internal(&"documents were something else")),
        }
    }
}

fn of_api(known: &[Resource], id: Uuid) -> Result<&Resource, ApiError> {
    let resource = known.iter().find(|resource| resource.id == id).ok_or_else(|| not_found(id))?;
    match resource.origin {
        Origin::Api => Ok(resource),
        Origin::Configuration => {
            let kind = &resource.kind;
            let message = format!(
                "the resource `{id}` is `{kind}` under [resources]: change it in the configuration"
            );
            let error = ApiError::new(ErrorCode::DeclaredByConfiguration, message);
            Err(error.with("resource_id", id.to_string()))
        }
    }
}

fn not_found(id: Uuid) -> ApiError {
    let message = format!("no resource has the id `{id}`");
    ApiError::new(ErrorCode::ResourceNotFound, message).with("resource_id", id.to_string())
}
