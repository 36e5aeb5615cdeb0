//! Services, endpoints and the node, and what the kernel is to do about them; pure.

mod endpoints;
mod ledger;
mod render;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{self as core, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(crate) use endpoints::Place;
pub(crate) use ledger::{Difference, Ledger, Owner};
pub(crate) use render::{HealthPort, Terms};
use render::{Rendered, render};

use crate::rules::{Element, ElementKey};

/// The label that says of which service the endpoints of a slice are.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const ZONE: &str = "topology.kubernetes.io/zone";
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
    slices: BTreeMap<String, Arc<EndpointSlice>>,
    /// What it wants of the kernel.
    keys: Vec<ElementKey>,
    without_local: (usize, usize),
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
    without_local: (usize, usize),
    pub(crate) ledger: Ledger,
}

/// The name under which an object is known.
pub(crate) fn owner(meta: &ObjectMeta) -> Owner {
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    format!("{namespace}/{name}").into()
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
            without_local: (0, 0),
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
        let known = self.services.get(&service).and_then(|entry| entry.slices.get(&*own));
        if !known.is_some_and(|known| Arc::ptr_eq(known, &slice)) {
            self.entry(&service).slices.insert(own.to_string(), slice);
        }
    }

    /// A slice of endpoints is gone.
    pub(crate) fn remove_slice(&mut self, own: &Owner) {
        if let Some(service) = self.slices.remove(own) {
            self.entry(&service).slices.remove(&**own);
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
        let changed = std::mem::take(&mut self.changed);
        for owner in &changed {
            self.refresh_one(owner);
        }
        changed.len()
    }

    fn refresh_one(&mut self, owner: &Owner) {
        let Some(entry) = self.services.get_mut(owner) else { return };
        let slices = entry.slices.values().map(|slice| &**slice);
        let rendered = match &entry.service {
            Some(service) => render(service, slices, &self.node, self.terms),
            None => Rendered::default(),
        };
        for key in entry.keys.iter().filter(|key| !rendered.elements.contains_key(*key)) {
            self.ledger.release(owner, key);
        }
        entry.keys = rendered.elements.keys().cloned().collect();
        for (key, value) in rendered.elements {
            self.ledger.claim(owner, Element { key, value });
        }
        match rendered.health {
            Some(health) => self.health.insert(owner.clone(), health),
            None => self.health.remove(owner),
        };
        let (before, now) =
            (std::mem::replace(&mut entry.without_local, rendered.without_local), rendered.without_local);
        self.without_local.0 = self.without_local.0 + now.0 - before.0;
        self.without_local.1 = self.without_local.1 + now.1 - before.1;
        if entry.service.is_none() && entry.slices.is_empty() {
            self.services.remove(owner);
        }
    }

    /// The ports at which others ask about services. Of several services at one port the first by name has it.
    pub(crate) fn health_ports(&self) -> BTreeMap<u16, HealthPort> {
        self.health.values().rev().map(|health| (health.port, health.clone())).collect()
    }

    /// How many ports have endpoints, but none here for those who get only these: for clients inside the cluster, and
    /// outside.
    pub(crate) fn without_local(&self) -> (usize, usize) {
        self.without_local
    }
}
