//! What the mirrors of Endpoints should be: pure. Each subset becomes one slice per family of addresses.

use std::collections::BTreeMap;
use std::sync::Arc;

use k3sd_client::controller::owners::controller_ref;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::members::{LAST_CHANGE, LEADER, parse, protocol};
use crate::slices::desired::{MANAGED_BY, PortsKey, SERVICE, identity, is_same, ports_key};

/// This controller, as slices name it.
pub(super) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Addresses of a subset that are mirrored, at most: as many as a slice may have.
pub(super) const ADDRESSES_MAX: usize = 1000;
/// Keeps Endpoints from being mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// What kubectl noted about the Endpoints, which says nothing of a slice.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is to be written, and how many addresses aren't mirrored.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
    /// Addresses that are none.
    pub(super) invalid: usize,
    /// Those, and those that were too many.
    pub(super) skipped: usize,
}

/// Whether Endpoints are mirrored: somebody wrote them for a Service that selects no pods.
pub(super) fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let text = |texts: &Option<BTreeMap<String, String>>, name: &str| {
        texts.as_ref().and_then(|texts| texts.get(name)).cloned()
    };
    let selects = |service: &Service| service.spec.as_ref().is_some_and(|spec| spec.selector.is_some());
    text(&endpoints.metadata.labels, SKIP).as_deref() != Some("true")
        && text(&endpoints.metadata.annotations, LEADER).is_none()
        && service.is_some_and(|service| !selects(service))
}

/// Decides. Without Endpoints there should be no mirrors.
pub(super) fn plan(endpoints: Option<&Endpoints>, mirrors: Vec<Arc<EndpointSlice>>) -> Plan {
    let mut plan = Plan::default();
    let Some(endpoints) = endpoints else {
        plan.delete = mirrors;
        return plan;
    };
    let mut existing: BTreeMap<(String, PortsKey), Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for mirror in mirrors {
        let key = (mirror.address_type.clone(), ports_key(mirror.ports.as_deref().unwrap_or_default()));
        existing.entry(key).or_default().push(mirror);
    }
    let mut wanted: BTreeMap<(String, PortsKey), (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let (ports, found, invalid, skipped) = convert(subset);
        plan.invalid += invalid;
        plan.skipped += skipped;
        for (family, endpoint) in found {
            let group = wanted.entry((family.to_owned(), ports_key(&ports)));
            group.or_insert_with(|| (ports.clone(), Vec::new())).1.push(endpoint);
        }
    }
    for ((family, key), (ports, mut wanted)) in wanted {
        let mut existing = existing.remove(&(family.clone(), key)).unwrap_or_default().into_iter();
        let first = existing.next();
        plan.delete.extend(existing);
        unique(&mut wanted);
        wanted.truncate(ADDRESSES_MAX);
        let blank = slice(endpoints, &family, ports);
        match first {
            None => plan.create.push(EndpointSlice { endpoints: wanted, ..blank }),
            Some(first) if holds(&first, &wanted, &blank) => {}
            Some(first) => plan.update.push(renewed(&first, wanted, blank)),
        }
    }
    plan.delete.extend(existing.into_values().flatten());
    recycle(&mut plan);
    if endpoints.metadata.deletion_timestamp.is_some() {
        plan.create.clear();
    }
    plan
}

/// The ports and endpoints of a subset, with the family of each; how many addresses are none, and how many are left out.
fn convert(subset: &EndpointSubset) -> (Vec<EndpointPort>, Vec<(&'static str, Endpoint)>, usize, usize) {
    let port = |port: &k8s_openapi::api::core::v1::EndpointPort| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(protocol(&port.protocol).to_owned()),
        app_protocol: port.app_protocol.clone(),
    };
    let ports = subset.ports.iter().flatten().map(port).collect();
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let others = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    let (mut found, mut invalid, mut total) = (Vec::new(), 0, 0);
    for (address, is_ready) in ready.chain(others) {
        total += 1;
        if found.len() < ADDRESSES_MAX {
            match endpoint(address, is_ready) {
                Some(endpoint) => found.push(endpoint),
                None => invalid += 1,
            }
        }
    }
    let skipped = total - found.len();
    (ports, found, invalid, skipped)
}

fn endpoint(address: &EndpointAddress, is_ready: bool) -> Option<(&'static str, Endpoint)> {
    let parsed = parse(&address.ip)?;
    let endpoint = Endpoint {
        addresses: vec![parsed.to_string()],
        conditions: Some(EndpointConditions { ready: Some(is_ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    };
    Some((if parsed.is_ipv6() { "IPv6" } else { "IPv4" }, endpoint))
}

/// Leaves the first of those that are one and the same.
fn unique(endpoints: &mut Vec<Endpoint>) {
    let mut known = std::collections::HashSet::new();
    let is_first: Vec<bool> = endpoints.iter().map(|endpoint| known.insert(identity(endpoint))).collect();
    let mut is_first = is_first.into_iter();
    endpoints.retain(|_| is_first.next() == Some(true));
}

/// Whether a slice holds these very endpoints, labels and annotations.
fn holds(slice: &EndpointSlice, wanted: &[Endpoint], blank: &EndpointSlice) -> bool {
    let known: BTreeMap<_, _> = slice.endpoints.iter().map(|endpoint| (identity(endpoint), endpoint)).collect();
    let annotations = |slice: &EndpointSlice| slice.metadata.annotations.clone().unwrap_or_default();
    slice.endpoints.len() == wanted.len()
        && wanted.iter().all(|wanted| known.get(&identity(wanted)).is_some_and(|known| is_same(known, wanted)))
        && slice.metadata.labels == blank.metadata.labels
        && annotations(slice) == annotations(blank)
}

/// A slice without endpoints; it has no name yet.
fn slice(endpoints: &Endpoints, family: &str, ports: Vec<EndpointPort>) -> EndpointSlice {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| name != LAST_CHANGE && name != LAST_APPLIED);
    EndpointSlice {
        address_type: family.to_owned(),
        endpoints: Vec::new(),
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![controller_ref(endpoints)]),
            ..ObjectMeta::default()
        },
        ports: Some(ports),
    }
}

/// A slice in place of another.
fn renewed(old: &EndpointSlice, endpoints: Vec<Endpoint>, mut blank: EndpointSlice) -> EndpointSlice {
    blank.metadata.name.clone_from(&old.metadata.name);
    blank.metadata.uid.clone_from(&old.metadata.uid);
    blank.metadata.resource_version.clone_from(&old.metadata.resource_version);
    EndpointSlice { endpoints, ..blank }
}

/// Makes new slices of those that would be deleted: one write instead of two.
fn recycle(plan: &mut Plan) {
    let mut kept = Vec::new();
    for old in std::mem::take(&mut plan.delete) {
        match plan.create.iter().position(|slice| slice.address_type == old.address_type) {
            Some(at) => {
                let mut slice = plan.create.remove(at);
                let endpoints = std::mem::take(&mut slice.endpoints);
                plan.update.push(renewed(&old, endpoints, slice));
            }
            None => kept.push(old),
        }
    }
    plan.delete = kept;
}
