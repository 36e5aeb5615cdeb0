//! Which endpoints of a service get its packets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::address;

/// The node, as far as it matters where endpoints are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The node's name.
    pub(crate) node: String,
    /// Its zone.
    pub(crate) zone: Option<String>,
}

/// An endpoint that may get packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) is_ready: bool,
    /// It ends, and answers until then.
    pub(crate) is_last_resort: bool,
    /// It is on this node.
    pub(crate) is_local: bool,
    /// It may be on this node: nobody says where it is.
    pub(crate) may_be_local: bool,
    has_node_hints: bool,
    is_for_this_node: bool,
    has_zone_hints: bool,
    is_for_this_zone: bool,
}

impl Candidate {
    fn of(endpoint: &Endpoint, here: &Place) -> Self {
        let conditions = endpoint.conditions.as_ref();
        let is_ready = conditions.and_then(|all| all.ready).unwrap_or(true);
        let is_serving = conditions.and_then(|all| all.serving).unwrap_or(true);
        let is_terminating = conditions.and_then(|all| all.terminating).unwrap_or(false);
        let hints = endpoint.hints.as_ref();
        let nodes = hints.and_then(|hints| hints.for_nodes.as_deref()).unwrap_or_default();
        let zones = hints.and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
        Self {
            is_ready,
            is_last_resort: is_serving && is_terminating,
            is_local: endpoint.node_name.as_ref() == Some(&here.node),
            may_be_local: endpoint.node_name.is_none(),
            has_node_hints: !nodes.is_empty(),
            is_for_this_node: nodes.iter().any(|node| node.name == here.node),
            has_zone_hints: !zones.is_empty(),
            is_for_this_zone: zones.iter().any(|zone| Some(&zone.name) == here.zone.as_ref()),
        }
    }

    /// One that two slices name, as while it moves from one to the other: what either says for it counts.
    fn merge(&mut self, other: Self) {
        if other.is_ready && !self.is_ready {
            *self = other;
        } else if other.is_ready == self.is_ready {
            self.is_last_resort |= other.is_last_resort;
        }
    }
}

/// Where endpoints are, with what is known of each.
pub(crate) type Candidates = BTreeMap<(IpAddr, u16), Candidate>;

/// Where an endpoint of a slice is. Its addresses are the same one; upstream takes the first.
fn address_of(endpoint: &Endpoint, is_ipv6: bool) -> Option<IpAddr> {
    endpoint.addresses.first().and_then(|text| address::endpoint(text)).filter(|address| address.is_ipv6() == is_ipv6)
}

fn family(is_ipv6: bool) -> &'static str {
    if is_ipv6 { "IPv6" } else { "IPv4" }
}

/// Endpoints of one port of a service in one IP family.
pub(crate) fn candidates<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    port: &str,
    protocol: &str,
    is_ipv6: bool,
    here: &Place,
) -> Candidates {
    let mut all = Candidates::new();
    for slice in slices.filter(|slice| slice.address_type == family(is_ipv6)) {
        let ports = slice.ports.iter().flatten();
        let ports = ports.filter(|of| {
            of.name.as_deref().unwrap_or_default() == port && of.protocol.as_deref().unwrap_or("TCP") == protocol
        });
        for number in ports.filter_map(|of| u16::try_from(of.port?).ok().filter(|port| *port > 0)) {
            for endpoint in &slice.endpoints {
                let Some(address) = address_of(endpoint, is_ipv6) else { continue };
                let found = Candidate::of(endpoint, here);
                all.entry((address, number)).and_modify(|known| known.merge(found.clone())).or_insert(found);
            }
        }
    }
    all
}

/// Endpoints that get packets, in a fixed order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Those for everybody.
    pub(crate) cluster: Vec<(IpAddr, u16)>,
    /// Those on this node, for whom policy shows no others.
    pub(crate) local: Vec<(IpAddr, u16)>,
}

impl Chosen {
    /// Whether there is any at all, on this node or another.
    pub(crate) fn is_empty(&self) -> bool {
        self.cluster.is_empty() && self.local.is_empty()
    }
}

/// Whom hints are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topology {
    Everywhere,
    Zone,
    Node,
}

/// Hints count only if all endpoints have them, and some of them are meant for us.
fn topology(all: &Candidates, here: &Place) -> Topology {
    let mut ready = all.values().filter(|one| one.is_ready).peekable();
    if ready.peek().is_none() {
        return Topology::Everywhere;
    }
    let ready: Vec<_> = ready.collect();
    let both = |has: fn(&Candidate) -> bool, meant: fn(&Candidate) -> bool| {
        ready.iter().all(|one| has(one)) && ready.iter().any(|one| meant(one))
    };
    if both(|one| one.has_node_hints, |one| one.is_for_this_node) {
        Topology::Node
    } else if here.zone.is_some() && both(|one| one.has_zone_hints, |one| one.is_for_this_zone) {
        Topology::Zone
    } else {
        Topology::Everywhere
    }
}

/// Ready ones; and where there are none, those that end but still answer.
fn ready_or_last_resort(
    all: &Candidates,
    ready: impl Fn(&Candidate) -> bool,
    last: impl Fn(&Candidate) -> bool,
) -> Vec<(IpAddr, u16)> {
    let those = |keep: &dyn Fn(&Candidate) -> bool| -> Vec<(IpAddr, u16)> {
        all.iter().filter(|(_, one)| keep(one)).map(|(at, _)| *at).collect()
    };
    let found = those(&|one| one.is_ready && ready(one));
    if found.is_empty() { those(&|one| one.is_last_resort && last(one)) } else { found }
}

/// Chooses among endpoints.
pub(crate) fn choose(all: &Candidates, here: &Place) -> Chosen {
    let topology = topology(all, here);
    let is_near = |one: &Candidate| match topology {
        Topology::Everywhere => true,
        Topology::Zone => one.is_for_this_zone,
        Topology::Node => one.is_for_this_node,
    };
    Chosen {
        cluster: ready_or_last_resort(all, is_near, |_| true),
        local: ready_or_last_resort(all, |one| one.is_local, |one| one.is_local),
    }
}

/// How many endpoints on this node are ready, counted by address, for those who balance loads over nodes. A pod with an
/// address of each family is one.
pub(crate) fn ready_here<'a>(slices: impl Iterator<Item = &'a EndpointSlice> + Clone, here: &Place) -> usize {
    let count = |is_ipv6: bool| {
        let slices = slices.clone().filter(|slice| slice.address_type == family(is_ipv6));
        let ready = slices.flat_map(|slice| &slice.endpoints).filter(|endpoint| {
            let found = Candidate::of(endpoint, here);
            found.is_local && found.is_ready
        });
        ready.filter_map(|endpoint| address_of(endpoint, is_ipv6)).collect::<BTreeSet<_>>().len()
    };
    count(false).max(count(true))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn here() -> Place {
        Place { node: "n1".to_owned(), zone: Some("z1".to_owned()) }
    }

    fn slice(endpoints: Value) -> EndpointSlice {
        serde_json::from_value(json!({"metadata": {}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "web", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}))
        .unwrap()
    }

    /// What is chosen of endpoints `10.0.0.1`, `10.0.0.2` and so on, which are otherwise like this; as last numbers.
    fn check(endpoints: &[Value], cluster: &[u8], local: &[u8]) {
        let with_address = endpoints.iter().enumerate().map(|(at, endpoint)| {
            let mut endpoint = endpoint.clone();
            endpoint["addresses"] = json!([format!("10.0.0.{}", at + 1)]);
            endpoint
        });
        let slice = slice(with_address.collect());
        let all = candidates([&slice].into_iter(), "web", "TCP", false, &here());
        let chosen = choose(&all, &here());
        let last = |found: &[(IpAddr, u16)]| -> Vec<u8> {
            found.iter().map(|(address, _)| address.to_string().rsplit('.').next().unwrap().parse().unwrap()).collect()
        };
        assert_eq!((last(&chosen.cluster), last(&chosen.local)), (cluster.to_vec(), local.to_vec()), "{endpoints:?}");
    }

    #[test]
    fn ready_ones_and_else_those_that_end() {
        let ready = json!({"nodeName": "n1", "conditions": {"ready": true}});
        let unsaid = json!({"nodeName": "n2"});
        let not_ready = json!({"conditions": {"ready": false}});
        let ends = json!({"nodeName": "n1", "conditions": {"ready": false, "serving": true, "terminating": true}});
        let over = json!({"nodeName": "n1", "conditions": {"ready": false, "serving": false, "terminating": true}});
        let ends_unsaid = json!({"nodeName": "n1", "conditions": {"ready": false, "terminating": true}});
        check(&[ready.clone(), unsaid.clone(), not_ready.clone(), ends.clone()], &[1, 2], &[1]);
        check(&[unsaid.clone(), ends.clone()], &[1], &[2]);
        check(&[not_ready.clone(), ends, over.clone()], &[2], &[2]);
        check(&[not_ready, over], &[], &[]);
        check(&[unsaid, ends_unsaid], &[1], &[2]);
    }

    #[test]
    fn hints_count_when_all_have_them_and_some_are_for_us() {
        let zone = |zone: &str| json!({"nodeName": "n2", "hints": {"forZones": [{"name": zone}]}});
        let node = |node: &str| json!({"nodeName": "n2", "hints": {"forNodes": [{"name": node}], "forZones": [{"name": "z1"}]}});
        let bare = json!({"nodeName": "n1"});
        check(&[zone("z1"), zone("z2")], &[1], &[]);
        check(&[zone("z2"), zone("z3")], &[1, 2], &[]);
        check(&[zone("z1"), bare.clone()], &[1, 2], &[2]);
        check(&[node("n1"), node("n2")], &[1], &[]);
        check(&[node("n2"), node("n3")], &[1, 2], &[]);
        let mut unready = zone("z9");
        unready["conditions"] = json!({"ready": false});
        unready["hints"] = json!(null);
        check(&[zone("z1"), zone("z2"), unready], &[1], &[]);
    }

    #[test]
    fn ports_are_found_by_name_and_protocol_and_nonsense_is_left_out() {
        let slice = slice(json!([{"addresses": ["10.0.0.1", "10.0.0.9"]}, {"addresses": ["fd00::1"]},
            {"addresses": ["x"]}, {"addresses": []}, {"addresses": ["127.0.0.1"]}, {"addresses": ["0.0.0.0"]}]));
        let at = |name, protocol, is_ipv6| {
            candidates([&slice, &slice].into_iter(), name, protocol, is_ipv6, &here()).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(at("web", "TCP", false), [("10.0.0.1".parse().unwrap(), 80)]);
        assert_eq!(at("dns", "UDP", false), [("10.0.0.1".parse().unwrap(), 53)]);
        assert!(at("dns", "TCP", false).is_empty() && at("web", "TCP", true).is_empty());
    }

    #[test]
    fn pods_that_are_ready_here_are_counted_once() {
        let slice = slice(json!([
            {"addresses": ["10.0.0.1"], "nodeName": "n1"},
            {"addresses": ["10.0.0.2"], "nodeName": "n1", "conditions": {"ready": false}},
            {"addresses": ["10.0.0.3"], "nodeName": "n2"},
        ]));
        assert_eq!(ready_here([&slice, &slice].into_iter(), &here()), 1);
        let mut second = slice.clone();
        second.address_type = "IPv6".to_owned();
        for (at, endpoint) in second.endpoints.iter_mut().enumerate() {
            endpoint.addresses = vec![format!("fd00::{at}")];
        }
        assert_eq!(ready_here([&slice, &second].into_iter(), &here()), 1, "a pod of both families is one");
    }

    #[test]
    fn ports_that_are_none_lead_nowhere() {
        for ports in [
            json!(null),
            json!([]),
            json!([{"name": "web"}]),
            json!([{"name": "web", "port": null}]),
            json!([{"name": "web", "port": 0}]),
            json!([{"name": "web", "port": -1}]),
            json!([{"name": "web", "port": 65_536}]),
            json!([{"name": "web", "port": i32::MAX}]),
            json!([{"name": "web", "port": 80, "protocol": "QUIC"}]),
        ] {
            let value = json!({"metadata": {}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": ports});
            let slice: EndpointSlice = serde_json::from_value(value).unwrap();
            assert!(candidates([&slice].into_iter(), "web", "TCP", false, &here()).is_empty(), "{ports}");
        }
    }
}
