//! Services. Whether an address or a port of a node is free is the allocators' business.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k3sd_objects::names;
use k3sd_objects::status::field::Error;
use serde_json::{Value, json};

use super::Context;
use super::meta;
use super::pod::check_port;
use super::read::{At, Errors, IMMUTABLE, same};

/// What the kubelet listens on; a load balancer may not give it away.
const KUBELET_PORT: i64 = 10_250;

/// Longest time that a client stays with a pod, in seconds.
const AFFINITY_SECONDS_MAX: i64 = 86_400;

/// The types of Services, sorted as messages list them.
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// What is said of something that isn't an address.
const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// Whether clients find the pods themselves, without an address of the Service.
fn is_headless(spec: &At<'_>) -> bool {
    spec.texts("clusterIPs").next().unwrap_or_else(|| spec.text("clusterIP")) == "None"
}

/// A Service.
pub(super) fn check(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    let (kind, headless) = (spec.text("type"), is_headless(&spec));
    if spec.count("ports") == 0 && !headless && kind != "ExternalName" {
        out.push(spec.required("ports", ""));
    }
    check_type(&spec, kind, headless, out);
    check_ports(&spec, out);
    meta::check_labels(&spec, "selector", out);
    check_affinity(&spec, out);
    check_addresses(&spec, kind, out);
    spec.required_of("type", TYPES, out);
    check_repeated_ports(&spec, kind, out);
    check_balancer(&spec, kind, out);
    check_policies(&spec, kind, out);
}

fn check_type(spec: &At<'_>, kind: &str, headless: bool, out: &mut Errors) {
    match kind {
        "LoadBalancer" | "NodePort" => {
            for port in spec.items("ports").filter(|_| kind == "LoadBalancer") {
                if port.number("port") == Some(KUBELET_PORT) {
                    let detail = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
                    out.push(Error::invalid(&port.path, KUBELET_PORT, detail));
                }
            }
            if headless {
                let detail = format!("may not be set to 'None' for {kind} services");
                out.push(Error::invalid(&spec.place("clusterIPs").index(0), "None", detail));
            }
        }
        "ExternalName" => {
            if spec.count("clusterIPs") > 0 {
                out.push(spec.forbidden("clusterIPs", "may not be set for ExternalName services"));
            }
            let rule = |name: &str| names::dns_subdomain(name.strip_suffix('.').unwrap_or(name));
            spec.name("externalName", rule, out);
        }
        _ => {}
    }
}

fn check_ports(spec: &At<'_>, out: &mut Errors) {
    let named = spec.count("ports") > 1;
    let mut seen = BTreeSet::new();
    for port in spec.items("ports") {
        let name = port.text("name");
        if name.is_empty() && named {
            out.push(port.required("name", ""));
        } else if !name.is_empty() {
            port.syntax("name", names::dns_label, out);
            if !seen.insert(name) {
                out.push(port.duplicate("name"));
            }
        }
        port.in_range("port", 1, 65_535, out);
        port.required_of("protocol", &["SCTP", "TCP", "UDP"], out);
        check_port(&port, "targetPort", out);
        if port.has("appProtocol") {
            port.syntax("appProtocol", names::qualified_name, out);
        }
    }
}

fn check_affinity(spec: &At<'_>, out: &mut Errors) {
    spec.required_of("sessionAffinity", &["ClientIP", "None"], out);
    let config = spec.field("sessionAffinityConfig");
    if spec.text("sessionAffinity") == "None" && config.has("") {
        out.push(config.forbidden("", "must not be set when session affinity is None"));
    }
    if spec.text("sessionAffinity") != "ClientIP" {
        return;
    }
    let client = config.field("clientIP");
    match client.number("timeoutSeconds") {
        None => out.push(Error::required(&client.place("timeoutSeconds"), "")),
        Some(seconds) if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) => {
            let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
            out.push(client.invalid("timeoutSeconds", detail));
        }
        Some(_) => {}
    }
}

fn check_addresses(spec: &At<'_>, kind: &str, out: &mut Errors) {
    let other = spec.texts("clusterIPs").next().is_some_and(|first| first != spec.text("clusterIP"));
    if kind != "ExternalName" && other {
        out.push(spec.invalid("clusterIPs", "first value must match `clusterIP`"));
    }
    for address in spec.items("clusterIPs").filter(|address| !["", "None"].contains(&address.text(""))) {
        if address.text("").parse::<IpAddr>().is_err() {
            out.push(address.invalid("", NO_ADDRESS));
        }
    }
    for family in spec.items("ipFamilies") {
        family.one_of("", &["IPv4", "IPv6"], out);
    }
    spec.optional_of("ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"], out);
    for address in spec.items("externalIPs").filter(|address| address.text("").parse::<IpAddr>().is_err()) {
        out.push(address.invalid("", NO_ADDRESS));
    }
}

fn check_repeated_ports(spec: &At<'_>, kind: &str, out: &mut Errors) {
    let mut node_ports = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for port in spec.items("ports") {
        let node_port = port.number("nodePort").unwrap_or_default();
        if node_port == 0 {
            continue;
        }
        if kind == "ClusterIP" {
            out.push(port.forbidden("nodePort", "may not be used when `type` is 'ClusterIP'"));
        }
        if !node_ports.insert((port.text("protocol"), node_port)) {
            out.push(port.duplicate("nodePort"));
        }
    }
    for port in spec.items("ports") {
        let (protocol, number) = (port.text("protocol"), port.number("port").unwrap_or_default());
        if !ports.insert((protocol, number)) {
            out.push(Error::duplicate(&port.path, json!({"port": number, "protocol": protocol, "targetPort": 0})));
        }
    }
}

fn check_balancer(spec: &At<'_>, kind: &str, out: &mut Errors) {
    let balanced = kind == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    if spec.count("loadBalancerSourceRanges") > 0 {
        if !balanced {
            out.push(spec.forbidden("loadBalancerSourceRanges", only));
        }
        for range in spec.items("loadBalancerSourceRanges").filter(|range| !is_range(range.text("").trim())) {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            out.push(range.invalid("", detail));
        }
    }
    match (balanced, spec.has("allocateLoadBalancerNodePorts")) {
        (true, false) => out.push(spec.required("allocateLoadBalancerNodePorts", "")),
        (false, true) => out.push(spec.forbidden("allocateLoadBalancerNodePorts", only)),
        _ => {}
    }
    if let Some(class) = spec.set("loadBalancerClass") {
        if balanced {
            class.syntax("", names::qualified_name, out);
        } else {
            out.push(class.forbidden("", only));
        }
    }
}

/// Whether this is an address with the length of a prefix.
fn is_range(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn check_policies(spec: &At<'_>, kind: &str, out: &mut Errors) {
    let outside =
        ["NodePort", "LoadBalancer"].contains(&kind) || (kind == "ClusterIP" && spec.count("externalIPs") > 0);
    let external = "externalTrafficPolicy";
    if outside {
        spec.required_of(external, &["Cluster", "Local"], out);
    } else if spec.has(external) {
        out.push(spec.invalid(external, "may only be set for externally-accessible services"));
    }
    let checked = kind == "LoadBalancer" && spec.text(external) == "Local";
    if spec.number("healthCheckNodePort").unwrap_or_default() != 0 && !checked {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        out.push(spec.invalid("healthCheckNodePort", detail));
    }
    let internal = "internalTrafficPolicy";
    if kind != "ExternalName" && !spec.has(internal) {
        out.push(spec.required(internal, ""));
    }
    spec.optional_of(internal, &["Cluster", "Local"], out);
}

/// A Service that takes the place of another.
pub(super) fn update(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let addressed = |spec: &At<'_>| spec.text("type") != "ExternalName";
    if addressed(&spec) && addressed(&before) {
        let first = |spec: &At<'_>| spec.items("clusterIPs").next().map(|at| at.value.clone()).unwrap_or(Value::Null);
        if !before.text("clusterIP").is_empty() && !same(&first(&spec), &first(&before)) {
            let shown = spec.get("clusterIPs").clone();
            out.push(Error::invalid(&spec.place("clusterIPs").index(0), shown, "may not change once set"));
        }
    }
    if before.text("type") == "LoadBalancer" && spec.text("type") == "LoadBalancer" {
        let class = "loadBalancerClass";
        if !same(spec.get(class), before.get(class)) {
            out.push(spec.invalid(class, "may not change once set"));
        }
        let port = "healthCheckNodePort";
        let set = before.number(port).unwrap_or_default() != 0 && spec.text("externalTrafficPolicy") == "Local";
        if set && spec.number(port) != before.number(port) {
            out.push(spec.invalid_number(port, IMMUTABLE));
        }
    }
    check(new, context, out);
}
