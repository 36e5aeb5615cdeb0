//! What a Service's Endpoints should be: pure.

use std::collections::BTreeMap;

use k3sd_client::controller::pods::{is_ready, node};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::members::{
    HEADLESS, NO_ADDRESS, Trigger, addresses, belongs, hostname, is_headless, parse, protocol, ready_changed,
    target_port,
};
use crate::slices::desired::families;

/// Addresses of one object, at most. Whoever needs more reads slices.
pub(super) const ADDRESSES_MAX: usize = 1000;
/// Says that there are more than are written here.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const TRUNCATED: &str = "truncated";
/// Says who keeps them.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// What is to be written.
#[derive(Debug, PartialEq)]
pub(super) enum Write {
    /// There are none yet.
    Create(Endpoints),
    /// In place of what is there.
    Update(Endpoints),
}

/// Whether this controller made them.
pub(super) fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).map(String::as_str) == Some(MANAGER)
}

/// Decides by the pods that the Service selects. `None` when they are as they should be.
pub(super) fn plan<'a>(
    service: &Service,
    pods: impl Iterator<Item = &'a Pod>,
    known: Option<&Endpoints>,
) -> Option<Write> {
    let always = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let members: Vec<_> = pods
        .filter(|pod| belongs(pod, always))
        .filter_map(|pod| Some((pod, address(service, pod)?, always || is_ready(pod))))
        .collect();
    let mut subsets = subsets(service, &members);
    let is_truncated = truncate(&mut subsets);
    let mut wanted = known.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    wanted.metadata.labels = Some(labels(service));
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    if is_truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), TRUNCATED.to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    wanted.subsets = Some(subsets);
    let Some(known) = known else {
        Trigger::created(service).note(&mut wanted.metadata.annotations);
        return Some(Write::Create(wanted));
    };
    let known_annotations = known.metadata.annotations.clone().unwrap_or_default();
    if sorted(known.subsets.clone()) == wanted.subsets
        && known.metadata.labels == wanted.metadata.labels
        && Some(known_annotations) == wanted.metadata.annotations
    {
        return None;
    }
    trigger(known, &members).note(&mut wanted.metadata.annotations);
    Some(Write::Update(wanted))
}

/// A pod, its address and whether that is ready.
type Member<'a> = (&'a Pod, EndpointAddress, bool);

fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let spec = service.spec.as_ref();
    let is_named = spec.is_some_and(|spec| spec.ip_families.as_ref().is_some_and(|families| !families.is_empty()));
    let is_v6 = if is_named || !is_headless(service) {
        families(service).first() == Some(&"IPv6")
    } else {
        let first = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).and_then(parse);
        first.is_some_and(|first| first.is_ipv6())
    };
    let of_family = |address: &&str| parse(address).is_some_and(|address| address.is_ipv6() == is_v6);
    Some(EndpointAddress {
        ip: addresses(pod).find(of_family)?.to_owned(),
        hostname: hostname(pod, service),
        node_name: Some(node(pod).to_owned()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    })
}

/// A port, with what it is sorted by first.
type PortKey = (String, i32, String, Option<String>);

/// The subsets: addresses with the same ports stand together. A headless Service may have no ports at all.
fn subsets(service: &Service, members: &[Member<'_>]) -> Vec<EndpointSubset> {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let is_portless = ports.is_empty() && spec.cluster_ip.as_deref() == Some(NO_ADDRESS);
    let mut by_port: BTreeMap<Option<PortKey>, Vec<usize>> = BTreeMap::new();
    for (at, (pod, ..)) in members.iter().enumerate() {
        for port in &ports {
            let Some(number) = target_port(pod, port) else { continue };
            let name = port.name.clone().unwrap_or_default();
            let key = (name, number, protocol(&port.protocol).to_owned(), port.app_protocol.clone());
            let members = by_port.entry(Some(key)).or_default();
            if members.last() != Some(&at) {
                members.push(at);
            }
        }
        if is_portless {
            by_port.entry(None).or_default().push(at);
        }
    }
    let mut by_members: BTreeMap<Vec<usize>, Vec<PortKey>> = BTreeMap::new();
    for (port, members) in by_port {
        by_members.entry(members).or_default().extend(port);
    }
    let subset = |(at, ports): (Vec<usize>, Vec<PortKey>)| {
        let of = |wanted: bool| {
            let found = at.iter().map(|at| &members[*at]).filter(|(.., is_ready)| *is_ready == wanted);
            Some(found.map(|(_, address, _)| address.clone()).collect::<Vec<_>>()).filter(|found| !found.is_empty())
        };
        let port = |(name, port, protocol, app_protocol): PortKey| EndpointPort {
            name: Some(name).filter(|name| !name.is_empty()),
            port,
            protocol: Some(protocol),
            app_protocol,
        };
        let ports: Vec<_> = ports.into_iter().map(port).collect();
        EndpointSubset {
            addresses: of(true),
            not_ready_addresses: of(false),
            ports: Some(ports).filter(|ports| !ports.is_empty()),
        }
    };
    sorted(Some(by_members.into_iter().map(subset).collect())).unwrap_or_default()
}

/// The same, in the one order by which two can be compared; without empty lists.
fn sorted(subsets: Option<Vec<EndpointSubset>>) -> Option<Vec<EndpointSubset>> {
    let mut subsets = subsets.unwrap_or_default();
    let uid = |address: &EndpointAddress| address.target_ref.as_ref().and_then(|target| target.uid.clone());
    for subset in &mut subsets {
        for addresses in [&mut subset.addresses, &mut subset.not_ready_addresses] {
            *addresses = addresses.take().filter(|addresses| !addresses.is_empty());
            addresses.iter_mut().for_each(|all| all.sort_by_cached_key(|address| (address.ip.clone(), uid(address))));
        }
        subset.ports = subset.ports.take().filter(|ports| !ports.is_empty());
        for port in subset.ports.iter_mut().flatten() {
            port.name = port.name.take().filter(|name| !name.is_empty());
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
        let ports = subset.ports.iter_mut();
        ports.for_each(|all| all.sort_by_cached_key(|port| (port.name.clone(), port.port, port.protocol.clone())));
    }
    subsets.sort_by_cached_key(|subset| {
        let first = |addresses: &Option<Vec<EndpointAddress>>| {
            addresses.as_ref().and_then(|all| all.first()).map(|address| address.ip.clone())
        };
        let ports = subset.ports.iter().flatten().map(|port| (port.name.clone(), port.port, port.protocol.clone()));
        (ports.collect::<Vec<_>>(), first(&subset.addresses), first(&subset.not_ready_addresses))
    });
    Some(subsets)
}

/// Cuts down to [`ADDRESSES_MAX`], ready ones first, each subset by its share; says whether that was necessary.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let len = |addresses: &Option<Vec<EndpointAddress>>| addresses.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|subset| len(&subset.addresses)).sum();
    let others: usize = subsets.iter().map(|subset| len(&subset.not_ready_addresses)).sum();
    if ready + others <= ADDRESSES_MAX {
        return false;
    }
    let cuts_ready = ready > ADDRESSES_MAX;
    let (max, total) = if cuts_ready { (ADDRESSES_MAX, ready) } else { (ADDRESSES_MAX - ready, others) };
    let mut left = max;
    for subset in subsets {
        let cut = if cuts_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        let share = (len(cut) * max).div_ceil(total).min(left);
        if let Some(addresses) = cut {
            addresses.truncate(share);
        }
        left -= len(cut);
        *cut = cut.take().filter(|addresses| !addresses.is_empty());
        if cuts_ready {
            subset.not_ready_addresses = None;
        }
    }
    true
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

/// When that happened of which the Endpoints don't know yet: pods that became ready, or ceased to be.
fn trigger(known: &Endpoints, members: &[Member<'_>]) -> Trigger {
    let mut before: BTreeMap<&str, bool> = BTreeMap::new();
    for subset in known.subsets.iter().flatten() {
        for (addresses, is_ready) in [(&subset.addresses, true), (&subset.not_ready_addresses, false)] {
            let uids = addresses.iter().flatten().filter_map(|address| address.target_ref.as_ref()?.uid.as_deref());
            before.extend(uids.map(|uid| (uid, is_ready)));
        }
    }
    let mut trigger = Trigger::default();
    for (pod, _, is_ready) in members {
        if before.get(pod.metadata.uid.as_deref().unwrap_or_default()) != Some(is_ready) {
            trigger.add(ready_changed(pod));
        }
    }
    trigger
}
