//! The lines of `NodeHosts`: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;

/// One line per internal address of each node, in the order of addresses: the address, the node's name, and its host name
/// if that is another.
pub(crate) fn lines<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> String {
    let mut hosts: BTreeMap<String, String> = BTreeMap::new();
    for node in nodes {
        let Some(name) = node.metadata.name.as_deref() else { continue };
        let addresses = || {
            let status = node.status.as_ref();
            status.into_iter().flat_map(|status| status.addresses.iter().flatten())
        };
        let hostname = addresses().find(|address| address.type_ == "Hostname").map(|address| address.address.as_str());
        let names = match hostname.filter(|hostname| *hostname != name && !hostname.is_empty()) {
            Some(hostname) => format!("{name} {hostname}"),
            None => name.to_owned(),
        };
        for address in addresses().filter(|address| address.type_ == "InternalIP") {
            if address.address.parse::<IpAddr>().is_ok() {
                hosts.insert(address.address.clone(), names.clone());
            }
        }
    }
    hosts.into_iter().map(|(address, names)| format!("{address} {names}\n")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, addresses: &[(&str, &str)]) -> Node {
        let addresses: Vec<_> = addresses.iter().map(|(kind, text)| json!({"type": kind, "address": text})).collect();
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {"addresses": addresses}})).expect("a node")
    }

    #[test]
    fn each_internal_address_has_its_line() {
        let nodes = [
            node("b", &[("InternalIP", "192.0.2.2"), ("Hostname", "b.example"), ("ExternalIP", "198.51.100.1")]),
            node("a", &[("InternalIP", "192.0.2.10"), ("InternalIP", "2001:db8::a"), ("Hostname", "a")]),
            node("new", &[]),
            node("odd", &[("InternalIP", "nonsense\n10.0.0.1 x")]),
        ];
        assert_eq!(lines(&nodes), "192.0.2.10 a\n192.0.2.2 b b.example\n2001:db8::a a\n");
        assert_eq!(lines(&[]), "");
    }
}
