//! What the status of a Service says: addresses of nodes. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Service};

/// Where everything is that has no rights on the host.
const ROOTLESS: &str = "127.0.0.1";
/// The address is the Service's own, not that of a proxy before it.
const VIP: &str = "VIP";

/// The addresses of nodes for a Service: external ones if any of these nodes has one, and internal ones otherwise; the
/// families of the Service in its order, and within each in the order of the text.
pub(crate) fn addresses(service: &Service, nodes: &[&Node], rootless: bool) -> Vec<String> {
    let of_type = |wanted: &str| -> BTreeSet<&str> {
        let status = nodes.iter().filter_map(|node| node.status.as_ref());
        let all = status.flat_map(|status| status.addresses.iter().flatten());
        all.filter(|address| address.type_ == wanted).map(|address| address.address.as_str()).collect()
    };
    let external = of_type("ExternalIP");
    let found = if external.is_empty() { of_type("InternalIP") } else { external };
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    let mut all = Vec::new();
    for family in families {
        let is_of = |address: &&&str| match address.parse() {
            Ok(IpAddr::V4(_)) => family == "IPv4",
            Ok(IpAddr::V6(_)) => family == "IPv6",
            Err(_) => false,
        };
        all.extend(found.iter().filter(is_of).map(|address| (*address).to_owned()));
    }
    if rootless && !all.is_empty() { vec![ROOTLESS.to_owned()] } else { all }
}

/// The addresses that the status says now.
pub(crate) fn present(service: &Service) -> &[LoadBalancerIngress] {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default()
}

/// The entries of the status.
pub(crate) fn entries(addresses: &[String]) -> Vec<LoadBalancerIngress> {
    let entry = |address: &String| LoadBalancerIngress {
        ip: Some(address.clone()),
        ip_mode: Some(VIP.to_owned()),
        ..LoadBalancerIngress::default()
    };
    addresses.iter().map(entry).collect()
}

/// Addresses as Events list them.
pub(crate) fn told(ingress: &[LoadBalancerIngress]) -> String {
    let address = |entry: &LoadBalancerIngress| {
        entry.ip.clone().filter(|ip| !ip.is_empty()).or_else(|| entry.hostname.clone()).unwrap_or_default()
    };
    format!("[{}]", ingress.iter().map(address).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, addresses: &[(&str, &str)]) -> Node {
        let addresses: Vec<_> =
            addresses.iter().map(|(kind, address)| json!({ "type": kind, "address": address })).collect();
        let node = json!({ "metadata": { "name": name }, "status": { "addresses": addresses } });
        serde_json::from_value(node).expect("a node")
    }

    fn service(families: &[&str]) -> Service {
        serde_json::from_value(json!({ "spec": { "ipFamilies": families } })).expect("a service")
    }

    #[test]
    fn external_addresses_count_before_internal_ones() {
        let a = node("a", &[("InternalIP", "10.0.0.9"), ("InternalIP", "fd00::9"), ("Hostname", "a")]);
        let b = node("b", &[("InternalIP", "10.0.0.10"), ("InternalIP", "fd00::10")]);
        let c = node("c", &[("InternalIP", "10.0.0.3"), ("ExternalIP", "192.0.2.3")]);
        let found = |families: &[&str], nodes: &[&Node]| addresses(&service(families), nodes, false);
        assert_eq!(found(&["IPv4"], &[&a, &b]), ["10.0.0.10", "10.0.0.9"], "in the order of the text");
        assert_eq!(found(&["IPv6", "IPv4"], &[&b, &a]), ["fd00::10", "fd00::9", "10.0.0.10", "10.0.0.9"]);
        assert_eq!(found(&["IPv4"], &[&a, &b, &c]), ["192.0.2.3"]);
        assert_eq!(found(&["IPv6"], &[&a, &c]), [""; 0], "one that has an external address decides for all");
        assert_eq!(found(&["IPv4"], &[]), [""; 0]);
        assert_eq!(addresses(&service(&["IPv4"]), &[&a, &b], true), ["127.0.0.1"]);
        assert_eq!(addresses(&service(&["IPv4"]), &[], true), [""; 0]);
    }

    #[test]
    fn events_list_addresses_as_go_does() {
        let all = entries(&["10.0.0.1".to_owned(), "fd00::1".to_owned()]);
        assert_eq!((told(&all).as_str(), told(&[]).as_str()), ("[10.0.0.1 fd00::1]", "[]"));
        assert_eq!(all[0].ip_mode.as_deref(), Some("VIP"));
    }
}
