//! Services, ingresses and endpoints.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::table::cells::{NONE, UNKNOWN, UNSET, first_few, items, join, str, text, texts};

/// Addresses that are shown before the rest is only counted.
const SHOWN_MAX: usize = 3;

/// Letters of a list of addresses that fit the column of those who did not ask for more.
const ADDRESS_LETTERS_MAX: usize = 16;

pub(super) fn cluster_address(service: &Value, _now: i64) -> Value {
    let spec = &service["spec"];
    let address = text(&spec["clusterIPs"][0]).or_else(|| text(&spec["clusterIP"]));
    Value::from(address.unwrap_or_else(|| NONE.to_owned()))
}

pub(super) fn external_address(service: &Value, _now: i64) -> Value {
    let spec = &service["spec"];
    let external = || texts(&spec["externalIPs"]);
    Value::from(match str(&spec["type"]) {
        "ClusterIP" | "NodePort" => join(external(), ",", NONE),
        "LoadBalancer" => join(balanced(&service["status"]).into_iter().chain(external()), ",", "<pending>"),
        "ExternalName" => str(&spec["externalName"]).to_owned(),
        _ => UNKNOWN.to_owned(),
    })
}

/// Addresses and names of a load balancer, sorted.
fn balanced(status: &Value) -> BTreeSet<String> {
    let ingress = items(&status["loadBalancer"]["ingress"]);
    ingress.filter_map(|ingress| text(&ingress["ip"]).or_else(|| text(&ingress["hostname"]))).collect()
}

pub(super) fn service_ports(service: &Value, _now: i64) -> Value {
    let ports = items(&service["spec"]["ports"]).map(|port| {
        let (number, protocol) = (text(&port["port"]).unwrap_or_default(), str(&port["protocol"]));
        match port["nodePort"].as_i64().filter(|port| *port > 0) {
            Some(node_port) => format!("{number}:{node_port}/{protocol}"),
            None => format!("{number}/{protocol}"),
        }
    });
    Value::from(join(ports, ",", NONE))
}

pub(super) fn ingress_hosts(ingress: &Value, _now: i64) -> Value {
    let hosts: Vec<String> = items(&ingress["spec"]["rules"]).filter_map(|rule| text(&rule["host"])).collect();
    Value::from(if hosts.is_empty() { "*".to_owned() } else { first_few(&hosts, SHOWN_MAX) })
}

pub(super) fn ingress_address(ingress: &Value, _now: i64) -> Value {
    let addresses = balanced(&ingress["status"]).into_iter().collect::<Vec<_>>().join(",");
    let short: String = addresses.chars().take(ADDRESS_LETTERS_MAX - 3).collect();
    Value::from(if addresses.chars().count() > ADDRESS_LETTERS_MAX { format!("{short}...") } else { addresses })
}

pub(super) fn ingress_ports(ingress: &Value, _now: i64) -> Value {
    Value::from(if items(&ingress["spec"]["tls"]).len() > 0 { "80, 443" } else { "80" })
}

pub(super) fn class_parameters(class: &Value, _now: i64) -> Value {
    let parameters = &class["spec"]["parameters"];
    if parameters.is_null() {
        return Value::from(NONE);
    }
    let group = text(&parameters["apiGroup"]).map(|group| format!(".{group}")).unwrap_or_default();
    Value::from(format!("{}{group}/{}", str(&parameters["kind"]), str(&parameters["name"])))
}

pub(super) fn endpoints(endpoints: &Value, _now: i64) -> Value {
    let mut all = Vec::new();
    for subset in items(&endpoints["subsets"]) {
        let addresses: Vec<String> = items(&subset["addresses"]).filter_map(|address| text(&address["ip"])).collect();
        if items(&subset["ports"]).len() == 0 {
            all.extend(addresses.clone());
        }
        for port in items(&subset["ports"]) {
            let port = text(&port["port"]).unwrap_or_default();
            all.extend(addresses.iter().map(|address| host_and_port(address, &port)));
        }
    }
    Value::from(if all.is_empty() { NONE.to_owned() } else { first_few(&all, SHOWN_MAX) })
}

fn host_and_port(address: &str, port: &str) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

pub(super) fn slice_ports(slice: &Value, _now: i64) -> Value {
    let ports = items(&slice["ports"]).map(|port| {
        let named = text(&port["port"]).or_else(|| text(&port["name"]));
        named.unwrap_or_else(|| "*".to_owned())
    });
    shown(&ports.collect::<Vec<_>>())
}

pub(super) fn slice_endpoints(slice: &Value, _now: i64) -> Value {
    let addresses = items(&slice["endpoints"]).flat_map(|endpoint| texts(&endpoint["addresses"]));
    shown(&addresses.collect::<Vec<_>>())
}

fn shown(texts: &[String]) -> Value {
    Value::from(if texts.is_empty() { UNSET.to_owned() } else { first_few(texts, SHOWN_MAX) })
}

pub(super) fn address_parent(address: &Value, _now: i64) -> Value {
    let parent = &address["spec"]["parentRef"];
    if parent.is_null() {
        return Value::from(NONE);
    }
    let mut resource = str(&parent["resource"]).to_owned();
    if let Some(group) = text(&parent["group"]) {
        resource = format!("{resource}.{group}");
    }
    let namespace = text(&parent["namespace"]).map(|namespace| format!("{namespace}/")).unwrap_or_default();
    Value::from(format!("{resource}/{namespace}{}", str(&parent["name"])))
}
