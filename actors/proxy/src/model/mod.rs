//! Services, endpoints and the node, and what the kernel is to do about them; pure.

mod address;
mod endpoints;
mod ledger;
mod render;
#[cfg(test)]
mod strange_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as core, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(crate) use endpoints::Place;
pub(crate) use ledger::{Difference, Ledger, Owner};
pub(crate) use render::{HealthPort, Terms, WithoutLocal};
use render::{Rendered, render};

use crate::rules::{Element, ElementKey, SetId};

/// The label that says of which service the endpoints of a slice are.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Says when what led to a slice's change happened.
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Moments of changes that are kept until the kernel has them. While it refuses, those beyond are not counted.
const TRIGGERS_MAX: usize = 1 << 16;
/// The taint of a node that is about to go away.
const GOES_AWAY: &str = "ToBeDeletedByClusterAutoscaler";

/// What matters of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    /// Its addresses, inside and outside.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// The first of each family.
    pub(crate) primary: Vec<IpAddr>,
    /// Whether it is going away.
    pub(crate) is_going: bool,
}

impl Node {
    /// One of which only the name is known.
    pub(crate) fn unknown(name: &str) -> Self {
        Self { place: Place { node: name.to_owned(), zone: None }, ..Self::default() }
    }

    /// As the API has it.
    pub(crate) fn of(name: &str, node: &core::Node) -> Self {
        let labels = node.metadata.labels.as_ref();
        let zone = labels.and_then(|labels| labels.get(ZONE)).filter(|zone| !zone.is_empty()).cloned();
        let status = node.status.as_ref().and_then(|status| status.addresses.as_ref());
        let of_kind = |kind: &'static str| {
            let all = status.into_iter().flatten().filter(move |address| address.type_ == kind);
            all.filter_map(|address| address.address.parse::<IpAddr>().ok())
        };
        let inside: Vec<_> = of_kind("InternalIP").collect();
        let first = |is_ipv6: bool| inside.iter().find(|address| address.is_ipv6() == is_ipv6).copied();
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        let is_tainted = taints.into_iter().flatten().any(|taint| taint.key == GOES_AWAY);
        Self {
            place: Place { node: name.to_owned(), zone },
            primary: [first(false), first(true)].into_iter().flatten().collect(),
            addresses: inside.iter().copied().chain(of_kind("ExternalIP")).collect(),
            is_going: is_tainted || node.metadata.deletion_timestamp.is_some(),
        }
    }
}

#[derive(Debug, Default)]
struct Entry {
    service: Option<Arc<Service>>,
    /// By name, in order; almost always one.
    slices: Vec<(Owner, Arc<EndpointSlice>)>,
    /// What it wants of the kernel.
    keys: Vec<ElementKey>,
    without_local: WithoutLocal,
}

impl Entry {
    fn place_of(&self, name: &Owner) -> Result<usize, usize> {
        self.slices.binary_search_by(|(known, _)| known.cmp(name))
    }

    /// Takes a slice over. Says whether it leads elsewhere than what was known under its name.
    fn take(&mut self, name: &Owner, slice: &Arc<EndpointSlice>) -> bool {
        match self.place_of(name) {
            Ok(at) => {
                let known = std::mem::replace(&mut self.slices[at].1, slice.clone());
                !Arc::ptr_eq(&known, slice) && !leads_to_the_same(&known, slice)
            }
            Err(at) => {
                self.slices.insert(at, (name.clone(), slice.clone()));
                true
            }
        }
    }

    fn forget(&mut self, name: &Owner) {
        if let Ok(at) = self.place_of(name) {
            self.slices.remove(at);
        }
    }
}

fn leads_to_the_same(one: &EndpointSlice, other: &EndpointSlice) -> bool {
    (&one.address_type, &one.ports, &one.endpoints) == (&other.address_type, &other.ports, &other.endpoints)
}

/// Everything that is known, and what follows from it.
#[derive(Debug)]
pub(crate) struct Model {
    node: Node,
    terms: Terms,
    services: HashMap<Owner, Entry>,
    /// Of which service each slice is.
    slices: HashMap<Owner, Owner>,
    changed: HashSet<Owner>,
    /// The ports at which others ask about services.
    health: BTreeMap<Owner, HealthPort>,
    without_local: WithoutLocal,
    /// When what led to changed slices happened, by IP family; since 1970.
    triggers: [Vec<Duration>; 2],
    pub(crate) ledger: Ledger,
}

/// The name under which an object is known.
pub(crate) fn owner(meta: &ObjectMeta) -> Owner {
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    format!("{namespace}/{name}").into()
}

/// When what led to the slice's change happened, since 1970; `None` when nobody says it.
fn last_change(slice: &EndpointSlice) -> Option<Duration> {
    let text = slice.metadata.annotations.as_ref()?.get(LAST_CHANGE)?;
    let since = text.parse::<Timestamp>().ok()?.as_duration();
    Duration::try_from(since).ok()
}

impl Model {
    pub(crate) fn new(node: Node, terms: Terms) -> Self {
        Self {
            node,
            terms,
            services: HashMap::new(),
            slices: HashMap::new(),
            changed: HashSet::new(),
            health: BTreeMap::new(),
            without_local: WithoutLocal::default(),
            triggers: Default::default(),
            ledger: Ledger::default(),
        }
    }

    fn entry(&mut self, of: &Owner) -> &mut Entry {
        self.changed.insert(of.clone());
        self.services.entry(of.clone()).or_default()
    }

    /// A service is there, or is another.
    pub(crate) fn set_service(&mut self, service: Arc<Service>) {
        let owner = owner(&service.metadata);
        let known = self.services.get(&owner).and_then(|entry| entry.service.as_ref());
        if !known.is_some_and(|known| Arc::ptr_eq(known, &service)) {
            self.entry(&owner).service = Some(service);
        }
    }

    /// A service is gone.
    pub(crate) fn remove_service(&mut self, owner: &Owner) {
        if self.services.contains_key(owner) {
            self.entry(owner).service = None;
        }
    }

    /// These are all services there are.
    pub(crate) fn replace_services(&mut self, all: impl Iterator<Item = Arc<Service>>) {
        let mut gone: HashSet<Owner> = self.services.keys().cloned().collect();
        for service in all {
            gone.remove(&owner(&service.metadata));
            self.set_service(service);
        }
        gone.iter().for_each(|owner| self.remove_service(owner));
    }

    /// A slice of endpoints is there, or is another.
    pub(crate) fn set_slice(&mut self, slice: Arc<EndpointSlice>) {
        let own = owner(&slice.metadata);
        let label = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        let service: Option<Owner> = label.map(|name| format!("{namespace}/{name}").into());
        if self.slices.get(&own) != service.as_ref() {
            self.remove_slice(&own);
        }
        let Some(service) = service else { return };
        self.slices.insert(own.clone(), service.clone());
        if self.services.entry(service.clone()).or_default().take(&own, &slice) {
            self.changed.insert(service);
            let triggers = &mut self.triggers[usize::from(slice.address_type == "IPv6")];
            if triggers.len() < TRIGGERS_MAX {
                triggers.extend(last_change(&slice));
            }
        }
    }

    /// A slice of endpoints is gone.
    pub(crate) fn remove_slice(&mut self, own: &Owner) {
        if let Some(service) = self.slices.remove(own) {
            self.entry(&service).forget(own);
        }
    }

    /// These are all slices there are.
    pub(crate) fn replace_slices(&mut self, all: impl Iterator<Item = Arc<EndpointSlice>>) {
        let mut gone: HashSet<Owner> = self.slices.keys().cloned().collect();
        for slice in all {
            gone.remove(&owner(&slice.metadata));
            self.set_slice(slice);
        }
        gone.iter().for_each(|owner| self.remove_slice(owner));
    }

    /// The node is so now.
    pub(crate) fn set_node(&mut self, node: Node) {
        if (&node.place, &node.addresses) != (&self.node.place, &self.node.addresses) {
            self.changed.extend(self.services.keys().cloned());
        }
        self.node = node;
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Brings the ledger up to date. Says how many services were looked at.
    pub(crate) fn refresh(&mut self) -> usize {
        let mut changed = std::mem::take(&mut self.changed);
        let mut looked_at = 0;
        while !changed.is_empty() {
            looked_at += changed.len();
            for owner in &changed {
                self.refresh_one(owner);
            }
            changed = self.ledger.take_moved();
        }
        looked_at
    }

    fn refresh_one(&mut self, owner: &Owner) {
        let Some(entry) = self.services.get_mut(owner) else { return };
        let slices = entry.slices.iter().map(|(_, slice)| &**slice);
        let rendered = match &entry.service {
            Some(service) => render(service, slices, &self.node, self.terms),
            None => Rendered::default(),
        };
        let mut keys = Vec::with_capacity(rendered.elements.len());
        for (key, value) in rendered.elements {
            // Who may come to a place is for whose place it is; services stand before it in the order of keys.
            let is_anothers = || self.ledger.holder(&key.of_service()) != Some(owner);
            if key.set() == SetId::Sources && is_anothers() {
                continue;
            }
            self.ledger.claim(owner, Element { key: key.clone(), value });
            keys.push(key);
        }
        for key in entry.keys.iter().filter(|key| keys.binary_search(key).is_err()) {
            self.ledger.release(owner, key);
        }
        entry.keys = keys;
        match rendered.health {
            Some(health) => self.health.insert(owner.clone(), health),
            None => self.health.remove(owner),
        };
        let now = rendered.without_local;
        let before = std::mem::replace(&mut entry.without_local, now);
        let counts = self.without_local.as_flattened_mut().iter_mut();
        for (count, (now, before)) in counts.zip(now.as_flattened().iter().zip(before.as_flattened())) {
            *count = *count + now - before;
        }
        if entry.service.is_none() && entry.slices.is_empty() {
            self.services.remove(owner);
        }
    }

    /// When what led to the slices' changes happened that were taken over since this was last asked, by IP family; since
    /// 1970.
    pub(crate) fn take_triggers(&mut self) -> [Vec<Duration>; 2] {
        std::mem::take(&mut self.triggers)
    }

    /// The ports at which others ask about services. Of several services at one port the first by name has it.
    pub(crate) fn health_ports(&self) -> BTreeMap<u16, HealthPort> {
        self.health.values().rev().map(|health| (health.port, health.clone())).collect()
    }

    /// See [`WithoutLocal`].
    pub(crate) fn without_local(&self) -> WithoutLocal {
        self.without_local
    }
}
