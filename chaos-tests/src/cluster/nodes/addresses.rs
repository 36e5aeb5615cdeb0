//! Which pod has which address: pure.
//!
//! A node that runs more pods than its network has addresses gives the rest from a range that all nodes share: nobody
//! reaches them anyway, and measurements want thousands of pods on one node.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Node;

/// The range that all share, and how many addresses it has.
const SHARED: (Ipv4Addr, u32) = (Ipv4Addr::new(100, 64, 0, 1), (1 << 22) - 2);

/// The addresses in use.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    by_pod: HashMap<String, Ipv4Addr>,
    used: BTreeSet<Ipv4Addr>,
}

impl Addresses {
    /// The address of a pod, by its uid: the one that it has, or a free one. `None` when all are in use.
    pub(super) fn of(&mut self, uid: &str, node: &Node) -> Option<Ipv4Addr> {
        if let Some(found) = self.by_pod.get(uid) {
            return Some(*found);
        }
        let free = self.free_in(range(node)).or_else(|| self.free_in(SHARED))?;
        self.take(uid, free);
        Some(free)
    }

    /// The first address of a range that nobody has.
    fn free_in(&self, (first, count): (Ipv4Addr, u32)) -> Option<Ipv4Addr> {
        let last = first.to_bits().checked_add(count.checked_sub(1)?)?;
        // Those in use stand in order, so the first gap is where one isn't the next number.
        let used = self.used.range(first..=Ipv4Addr::from_bits(last)).map(|used| used.to_bits());
        let gap = used.zip(first.to_bits()..).find(|(used, expected)| used != expected);
        let free = match gap {
            Some((_, expected)) => expected,
            None => first.to_bits() + u32::try_from(self.used.range(first..=Ipv4Addr::from_bits(last)).count()).ok()?,
        };
        (free <= last).then(|| Ipv4Addr::from_bits(free))
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
        assert_eq!(all[5].as_deref(), Some("100.64.0.1"), "its own are used up");
        assert_eq!(of(&mut addresses, "6").as_deref(), Some("100.64.0.2"));
        assert_eq!(of(&mut addresses, "1").as_deref(), Some("10.42.3.3"));
        addresses.free("1");
        addresses.take("old", Ipv4Addr::new(10, 42, 3, 3));
        assert_eq!(of(&mut addresses, "7").as_deref(), Some("100.64.0.3"));
        addresses.free("old");
        assert_eq!(of(&mut addresses, "8").as_deref(), Some("10.42.3.3"));
        addresses.free("6");
        assert_eq!(of(&mut addresses, "9").as_deref(), Some("100.64.0.2"));
    }

    #[test]
    fn without_a_network_of_its_own_a_node_has_one_by_its_address() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.of("a", &node(None)), Some(Ipv4Addr::new(10, 129, 7, 2)));
        assert_eq!(addresses.of("b", &node(Some("fd00::/64"))), Some(Ipv4Addr::new(10, 129, 7, 3)));
    }
}
