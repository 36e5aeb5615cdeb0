//! One service, as elements of the kernel's maps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k3sd_netlink::Cidr;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::endpoints::{Candidates, Chosen, candidates, choose, ready_here};
use super::{Node, address};
use crate::rules::{Element, ElementKey, Front, LOCAL_INDEX, Masquerade, Place, Recipe, hairpin, service_address};

/// How long a client goes to the same endpoint unless the service says otherwise; seconds.
const STICKY_SECONDS: u32 = 10_800;

/// What holds for all services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Whether whoever comes to a cluster address gets another source.
    pub(crate) masquerade_all: bool,
    /// Whether this node is a load balancer.
    pub(crate) local_load_balancer: bool,
}

/// A port at which others ask whether a service has endpoints here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HealthPort {
    pub(crate) port: u16,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// How many endpoints are here and ready.
    pub(crate) endpoints: usize,
}

/// How many ports have endpoints, but none for clients that policy shows only those of this node: for each IP family, those
/// for clients inside the cluster, and outside.
pub(crate) type WithoutLocal = [[usize; 2]; 2];

const INSIDE: usize = 0;
const OUTSIDE: usize = 1;

/// What a service comes to on this node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) elements: BTreeMap<ElementKey, Box<[u8]>>,
    pub(crate) health: Option<HealthPort>,
    pub(crate) without_local: WithoutLocal,
}

impl Rendered {
    /// The first of several uses of one place stands.
    fn put(&mut self, element: Element) {
        self.elements.entry(element.key).or_insert(element.value);
    }
}

fn is_local(policy: Option<&String>) -> bool {
    policy.is_some_and(|policy| policy == "Local")
}

fn addresses(texts: Option<&Vec<String>>) -> impl Iterator<Item = IpAddr> {
    texts.into_iter().flatten().filter_map(|text| address::service(text))
}

fn protocol(port: &ServicePort) -> Option<u8> {
    match port.protocol.as_deref().unwrap_or("TCP") {
        "TCP" => Some(6),
        "UDP" => Some(17),
        "SCTP" => Some(132),
        _ => None,
    }
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

fn sticky_seconds(spec: &ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds);
    seconds.and_then(|seconds| u32::try_from(seconds).ok()).filter(|seconds| *seconds > 0).unwrap_or(STICKY_SECONDS)
}

/// A service, with what all of its ports have in common.
struct Context<'a> {
    spec: &'a ServiceSpec,
    node: &'a Node,
    terms: Terms,
    is_balanced: bool,
    /// Where it is balanced, by the status of the service: addresses whose packets come here as they are.
    ingress: Vec<IpAddr>,
    /// Families in which this node is one of its load balancers.
    balanced_here: BTreeSet<bool>,
    sticky_seconds: u32,
}

impl<'a> Context<'a> {
    fn new(service: &'a Service, spec: &'a ServiceSpec, node: &'a Node, terms: Terms) -> Self {
        let is_balanced = spec.type_.as_deref() == Some("LoadBalancer");
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let all = status.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten().filter(|_| is_balanced);
        let all: Vec<_> = all.filter_map(|one| Some((address::service(one.ip.as_ref()?)?, &one.ip_mode))).collect();
        let is_ours = terms.local_load_balancer && spec.load_balancer_class.is_none();
        let here = all.iter().filter(|(address, _)| is_ours && node.addresses.contains(address));
        Self {
            spec,
            node,
            terms,
            is_balanced,
            balanced_here: here.map(|(address, _)| address.is_ipv6()).collect(),
            ingress: all.iter().filter(|(_, mode)| mode.as_deref() != Some("Proxy")).map(|(at, _)| *at).collect(),
            sticky_seconds: sticky_seconds(spec),
        }
    }

    fn recipe(&self, endpoints: &[(IpAddr, u16)]) -> Recipe {
        Recipe {
            place: Place::Address,
            checks_source: false,
            masquerade: Masquerade::Always,
            endpoints: u32::try_from(endpoints.len()).unwrap_or(0),
            drops: false,
            local: None,
            // With none there is nothing to stick to.
            sticky_seconds: if endpoints.is_empty() { 0 } else { self.sticky_seconds },
        }
    }

    /// For clients of the cluster's own addresses.
    fn internal(&self, chosen: &Chosen) -> (Recipe, Chosen) {
        let is_local = is_local(self.spec.internal_traffic_policy.as_ref());
        let shown = if is_local { &chosen.local } else { &chosen.cluster };
        let masquerade = if self.terms.masquerade_all { Masquerade::Always } else { Masquerade::FromOutside };
        let drops = shown.is_empty() && !chosen.is_empty();
        let recipe = Recipe { masquerade, drops, ..self.recipe(shown) };
        (recipe, Chosen { cluster: shown.clone(), local: Vec::new() })
    }

    /// For clients of addresses that the world outside knows.
    fn external(&self, chosen: &Chosen) -> (Recipe, Chosen) {
        let recipe = self.recipe(&chosen.cluster);
        if !is_local(self.spec.external_traffic_policy.as_ref()) || chosen.is_empty() {
            return (recipe, Chosen { cluster: chosen.cluster.clone(), local: Vec::new() });
        }
        let local = Some(u32::try_from(chosen.local.len()).unwrap_or(0));
        let sticky_seconds = self.sticky_seconds;
        (Recipe { masquerade: Masquerade::Never, local, sticky_seconds, ..recipe }, chosen.clone())
    }

    /// Networks whose clients may come by way of the load balancer; `None` for all. A range that isn't understood is nobody's.
    fn sources(&self, is_ipv6: bool) -> Option<Vec<Cidr>> {
        let texts =
            self.spec.load_balancer_source_ranges.as_deref().filter(|texts| self.is_balanced && !texts.is_empty())?;
        let ranges: Vec<_> = texts.iter().map(|text| address::network(text)).collect();
        // Like upstream, ranges of the one family say nothing about the other.
        let is_meant = |range: &Option<Cidr>| range.is_none_or(|cidr| cidr.is_ipv6() == is_ipv6);
        if !ranges.iter().any(is_meant) {
            return None;
        }
        Some(ranges.into_iter().flatten().filter(|cidr| cidr.is_ipv6() == is_ipv6).collect())
    }
}

fn put_front(rendered: &mut Rendered, front: &Front, recipe: &Recipe, shown: &Chosen) {
    rendered.put(front.service(recipe));
    for (first, endpoints) in [(0, &shown.cluster), (LOCAL_INDEX, &shown.local)] {
        for (index, (address, port)) in (first..).zip(endpoints) {
            rendered.put(front.endpoint(recipe, index, *address, *port));
        }
    }
}

/// A place where clients' networks may be checked.
fn put_balanced(rendered: &mut Rendered, of: &Context<'_>, front: &Front, recipe: &Recipe, shown: &Chosen) {
    let is_ipv6 = front.address.is_ipv6();
    let Some(sources) = of.sources(is_ipv6) else { return put_front(rendered, front, recipe, shown) };
    put_front(rendered, front, &Recipe { checks_source: true, ..*recipe }, shown);
    for source in &sources {
        rendered.put(front.source(source));
    }
    // Where the node may come, it comes from the balancer's address when that is one of its own.
    let comes_here = of.node.addresses.iter().any(|address| sources.iter().any(|source| source.contains(*address)));
    if comes_here && recipe.place == Place::Address {
        rendered.put(front.source(&Cidr::host(front.address)));
    }
}

fn put_port(rendered: &mut Rendered, of: &Context<'_>, port: &ServicePort, at: IpAddr, all: &Candidates) {
    let (Some(protocol), Some(number_here)) = (protocol(port), number(port.port)) else { return };
    let chosen = choose(all, &of.node.place);
    let is_ipv6 = at.is_ipv6();
    let (recipe, shown) = of.internal(&chosen);
    rendered.without_local[usize::from(is_ipv6)][INSIDE] += usize::from(recipe.drops);
    put_front(rendered, &Front::new(protocol, Place::Address, at, number_here), &recipe, &shown);
    let (recipe, shown) = of.external(&chosen);
    rendered.without_local[usize::from(is_ipv6)][OUTSIDE] += usize::from(recipe.local == Some(0));
    for ingress in of.ingress.iter().filter(|address| address.is_ipv6() == is_ipv6) {
        let front = Front::new(protocol, Place::Address, *ingress, number_here);
        put_balanced(rendered, of, &front, &recipe, &shown);
    }
    for address in addresses(of.spec.external_ips.as_ref()).filter(|address| address.is_ipv6() == is_ipv6) {
        put_front(rendered, &Front::new(protocol, Place::Address, address, number_here), &recipe, &shown);
    }
    if of.balanced_here.contains(&is_ipv6) {
        let place = Place::Balancer;
        let front = Front::new(protocol, place, at, number_here);
        put_balanced(rendered, of, &front, &Recipe { place, ..recipe }, &shown);
    }
    if let Some(node_port) = port.node_port.and_then(number) {
        let place = Place::NodePort;
        put_front(rendered, &Front::new(protocol, place, at, node_port), &Recipe { place, ..recipe }, &shown);
    }
    for place in chosen.cluster.iter().chain(&chosen.local) {
        if all.get(place).is_some_and(|one| one.is_local || one.may_be_local) {
            rendered.put(hairpin(place.0));
        }
    }
}

/// A service on this node. Nothing comes of those without an address of the cluster.
pub(crate) fn render<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    node: &Node,
    terms: Terms,
) -> Rendered {
    let mut rendered = Rendered::default();
    let Some(spec) = &service.spec else { return rendered };
    if spec.type_.as_deref() == Some("ExternalName") {
        return rendered;
    }
    let mut own: Vec<IpAddr> = addresses(spec.cluster_ips.as_ref()).collect();
    if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
        own.extend(spec.cluster_ip.as_deref().and_then(address::service));
    }
    let of = Context::new(service, spec, node, terms);
    for at in &own {
        rendered.put(service_address(*at));
        for port in spec.ports.iter().flatten() {
            let name = port.name.as_deref().unwrap_or_default();
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let all = candidates(slices.clone(), name, protocol, at.is_ipv6(), &node.place);
            put_port(&mut rendered, &of, port, *at, &all);
        }
    }
    let is_asked_for = of.is_balanced && is_local(spec.external_traffic_policy.as_ref()) && !own.is_empty();
    let port = spec.health_check_node_port.filter(|_| is_asked_for).and_then(number);
    rendered.health = port.map(|port| HealthPort {
        port,
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        name: service.metadata.name.clone().unwrap_or_default(),
        endpoints: ready_here(slices, &node.place),
    });
    rendered
}
