//! What a Service's endpoints should be.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k3sd_client::controller::owners::controller_ref;
use k3sd_client::controller::pods::{is_ready, is_terminating, node};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::members::{HEADLESS, addresses, hostname, is_headless, parse, protocol, ready_changed, target_port};

/// Says whose slice it is.
pub(crate) const SERVICE: &str = "kubernetes.io/service-name";
/// Says who keeps a slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// This controller, as slices name it.
pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The zone that a node is in.
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";

/// What distinguishes sets of ports: name, number, protocol and application protocol of each, in order.
pub(crate) type PortsKey = Vec<(String, Option<i32>, String, String)>;

/// The key of a set of ports.
pub(crate) fn ports_key(ports: &[EndpointPort]) -> PortsKey {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut key: PortsKey = ports
        .iter()
        .map(|port| (text(&port.name), port.port, protocol(&port.protocol).to_owned(), text(&port.app_protocol)))
        .collect();
    key.sort();
    key
}

/// An endpoint that should be, and when its pod last changed.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) endpoint: Endpoint,
    pub(crate) since: Option<Timestamp>,
}

/// What tells an endpoint from another: the rest of it may change.
pub(crate) type Identity<'a> = (&'a [String], &'a str, &'a str, &'a str);

/// See [`Identity`].
pub(crate) fn identity(endpoint: &Endpoint) -> Identity<'_> {
    let target = endpoint.target_ref.as_ref();
    (
        &endpoint.addresses,
        endpoint.hostname.as_deref().unwrap_or_default(),
        target.and_then(|target| target.namespace.as_deref()).unwrap_or_default(),
        target.and_then(|target| target.name.as_deref()).unwrap_or_default(),
    )
}

/// Whether two of one identity are the same, but for hints.
pub(crate) fn is_same(one: &Endpoint, other: &Endpoint) -> bool {
    let target = |endpoint: &Endpoint| {
        endpoint.target_ref.as_ref().map(|target| (target.kind.clone(), target.uid.clone(), target.field_path.clone()))
    };
    let conditions = |endpoint: &Endpoint| {
        endpoint.conditions.as_ref().map(|known| (known.ready, known.serving, known.terminating)).unwrap_or_default()
    };
    one.node_name == other.node_name
        && one.zone == other.zone
        && conditions(one) == conditions(other)
        && target(one) == target(other)
}

/// The families of addresses that the Service has.
pub(crate) fn families(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.clone().unwrap_or_default();
    let named = spec.ip_families.iter().flatten().filter_map(|family| match family.as_str() {
        "IPv4" => Some("IPv4"),
        "IPv6" => Some("IPv6"),
        _ => None,
    });
    let named: Vec<_> = named.collect();
    if !named.is_empty() {
        return named;
    }
    match spec.cluster_ip.as_deref().and_then(parse) {
        Some(address) if address.is_ipv6() => vec!["IPv6"],
        Some(_) => vec!["IPv4"],
        None => vec!["IPv4", "IPv6"],
    }
}

/// The ports by which the Service is reached at a pod.
pub(crate) fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let of = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target_port(pod, port)?),
            protocol: Some(protocol(&port.protocol).to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    };
    ports.filter_map(of).collect()
}

/// The endpoint that a pod is. `None` when it has no address of the family.
pub(crate) fn endpoint(service: &Service, pod: &Pod, on: Option<&Node>, family: &str) -> Option<Wanted> {
    let parsed = addresses(pod).filter_map(parse).filter(|address| address.is_ipv6() == (family == "IPv6"));
    let addresses: Vec<_> = parsed.map(|address| address.to_string()).collect();
    if addresses.is_empty() {
        return None;
    }
    let (serving, terminating) = (is_ready(pod), is_terminating(pod));
    let always = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let zone = on.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE)).filter(|zone| !zone.is_empty());
    let endpoint = Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(always || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(pod, service),
        node_name: Some(node(pod).to_owned()).filter(|name| !name.is_empty()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone: zone.cloned(),
        ..Endpoint::default()
    };
    Some(Wanted { endpoint, since: ready_changed(pod) })
}

/// The labels of the Service's slices: its own, and those that say whose they are.
pub(crate) fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// A slice without endpoints; it has no name yet.
pub(crate) fn slice(service: &Service, family: &str, ports: &[EndpointPort]) -> EndpointSlice {
    EndpointSlice {
        address_type: family.to_owned(),
        endpoints: Vec::new(),
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or_default())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            owner_references: Some(vec![controller_ref(service)]),
            ..ObjectMeta::default()
        },
        ports: Some(ports.to_vec()),
    }
}

/// Whether the slice belongs to this very Service, not to one of the same name before it.
pub(crate) fn is_owned(slice: &EndpointSlice, service: &Service) -> bool {
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    let mut owners = slice.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.uid == uid && owner.kind == "Service" && owner.api_version == "v1")
}
