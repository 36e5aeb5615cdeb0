//! Which pod has which address: pure.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Node;

/// The addresses in use.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    by_pod: HashMap<String, Ipv4Addr>,
    used: BTreeSet<Ipv4Addr>,
}

impl Addresses {
    /// The address of a pod, by its uid: the one that it has, or the first free one of its node. `None` when all are in
    /// use.
    pub(super) fn of(&mut self, uid: &str, node: &Node) -> Option<Ipv4Addr> {
        if let Some(found) = self.by_pod.get(uid) {
            return Some(*found);
        }
        let (first, count) = range(node);
        let free = (0..count)
            .map(|offset| Ipv4Addr::from_bits(first.to_bits() + offset))
            .find(|ip| !self.used.contains(ip))?;
        self.take(uid, free);
        Some(free)
    }

    /// Notes that a pod has an address.
    pub(super) fn take(&mut self, uid: &str, address: Ipv4Addr) {
        if let Some(before) = self.by_pod.insert(uid.to_owned(), address) {
            self.used.remove(&before);
        }
        self.used.insert(address);
    }

    /// The pod is gone.
    pub(super) fn free(&mut self, uid: &str) {
        if let Some(address) = self.by_pod.remove(uid) {
            self.used.remove(&address);
        }
    }
}

/// First address and number of addresses of a node's pods: without network, broadcast and the bridge's own.
fn range(node: &Node) -> (Ipv4Addr, u32) {
    let spec = node.spec.as_ref();
    let own = spec.and_then(|spec| spec.pod_cidr.as_deref()).and_then(parse);
    // A cluster that gives out no networks: one of its own, made from the node's address.
    own.unwrap_or_else(|| {
        let status = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let found = status.filter(|address| address.type_ == "InternalIP").find_map(|ip| ip.address.parse().ok());
        let [_, _, high, low] = found.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
        (Ipv4Addr::new(10, 128 + high, low, 2), 253)
    })
}

fn parse(cidr: &str) -> Option<(Ipv4Addr, u32)> {
    let (network, length) = cidr.split_once('/')?;
    let (network, length): (Ipv4Addr, u32) = (network.parse().ok()?, length.parse().ok()?);
    let count = 1_u32.checked_shl(32_u32.checked_sub(length)?)?.checked_sub(3)?;
    Some((Ipv4Addr::from_bits(network.to_bits().checked_add(2)?), count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(cidr: Option<&str>) -> Node {
        let addresses = serde_json::json!([{"type": "InternalIP", "address": "172.20.1.7"}]);
        let node = serde_json::json!({"metadata": {}, "spec": {"podCIDR": cidr}, "status": {"addresses": addresses}});
        serde_json::from_value(node).expect("a node")
    }

    #[test]
    fn each_pod_has_its_own_address_of_its_nodes_network() {
        let (mut addresses, node) = (Addresses::default(), node(Some("10.42.3.0/29")));
        let of = |addresses: &mut Addresses, uid: &str| addresses.of(uid, &node).map(|ip| ip.to_string());
        let all: Vec<_> = (0..6).map(|pod| of(&mut addresses, &pod.to_string())).collect();
        let expected = ["10.42.3.2", "10.42.3.3", "10.42.3.4", "10.42.3.5", "10.42.3.6"];
        assert_eq!(all[..5], expected.map(|ip| Some(ip.to_owned())));
        assert_eq!(all[5], None, "there are no more");
        assert_eq!(of(&mut addresses, "1").as_deref(), Some("10.42.3.3"));
        addresses.free("1");
        addresses.take("old", Ipv4Addr::new(10, 42, 3, 3));
        assert_eq!(of(&mut addresses, "5"), None);
        addresses.free("old");
        assert_eq!(of(&mut addresses, "5").as_deref(), Some("10.42.3.3"));
    }

    #[test]
    fn without_a_network_of_its_own_a_node_has_one_by_its_address() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.of("a", &node(None)), Some(Ipv4Addr::new(10, 129, 7, 2)));
        assert_eq!(addresses.of("b", &node(Some("fd00::/64"))), Some(Ipv4Addr::new(10, 129, 7, 3)));
    }
}
