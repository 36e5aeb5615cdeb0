//! How traffic gets in and who may talk to whom: Ingresses and network policies, and the addresses of services.

use std::net::IpAddr;

use k3sd_objects::names;
use k3sd_objects::selector::check_label_selector;
use k3sd_objects::status::field::Error;
use serde_json::Value;

use super::Context;
use super::jobs::check_domain_path;
use super::pod::check_selector;
use super::read::{At, Errors};

/// What is said of a range of addresses.
const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// Parts of a path that servers would read in different ways.
const INVALID_SEQUENCES: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];

/// What a path may not end with.
const INVALID_ENDS: &[&str] = &["/..", "/."];

/// Longest name of a controller.
const CONTROLLER_BYTES_MAX: usize = 250;

/// The annotation by which a class was named of old.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// An Ingress that is about to be created: its class is named in one way only.
pub(super) fn check_ingress(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    check_ingress_spec(&spec, out);
    let annotations = object.field("metadata").field("annotations");
    let annotated = annotations.has(CLASS_ANNOTATION);
    if annotated && spec.has("ingressClassName") && annotations.text(CLASS_ANNOTATION) != spec.text("ingressClassName")
    {
        let path = object.place("annotations").child(CLASS_ANNOTATION);
        let detail = "must match `ingressClassName` when both are specified";
        out.push(Error::invalid(&path, annotations.text(CLASS_ANNOTATION), detail));
    }
}

fn check_ingress_spec(spec: &At<'_>, out: &mut Errors) {
    if spec.count("rules") == 0 && !spec.has("defaultBackend") {
        out.push(Error::invalid(&spec.path, Value::Null, "either `defaultBackend` or `rules` must be specified"));
    }
    if let Some(backend) = spec.set("defaultBackend") {
        check_backend(&backend, out);
    }
    for rule in spec.items("rules") {
        check_host(&rule, out);
        check_paths(&rule, out);
    }
    for tls in spec.items("tls") {
        for host in tls.items("hosts") {
            let wildcard = host.text("").contains('*');
            host.syntax("", if wildcard { names::wildcard_subdomain } else { names::dns_subdomain }, out);
        }
        tls.optional("secretName", names::dns_subdomain, out);
    }
    if spec.has("ingressClassName") {
        spec.syntax("ingressClassName", names::dns_subdomain, out);
    }
}

fn check_host(rule: &At<'_>, out: &mut Errors) {
    let host = rule.text("host");
    if host.is_empty() {
        return;
    }
    if host.parse::<IpAddr>().is_ok() {
        out.push(rule.invalid("host", "must be a DNS name, not an IP address"));
        return;
    }
    rule.syntax("host", if host.contains('*') { names::wildcard_subdomain } else { names::dns_subdomain }, out);
}

fn check_paths(rule: &At<'_>, out: &mut Errors) {
    let Some(http) = rule.set("http") else { return };
    if http.count("paths") == 0 {
        out.push(http.required("paths", ""));
    }
    for path in http.items("paths") {
        check_path(&path, out);
        check_backend(&path.field("backend"), out);
    }
}

fn check_path(path: &At<'_>, out: &mut Errors) {
    if !path.has("pathType") {
        out.push(path.required("pathType", "pathType must be specified"));
        return;
    }
    let text = path.text("path");
    match path.text("pathType") {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                out.push(path.invalid("path", "must be an absolute path"));
            }
            for sequence in INVALID_SEQUENCES.iter().filter(|sequence| text.contains(**sequence)) {
                out.push(path.invalid("path", format!("must not contain '{sequence}'")));
            }
            for end in INVALID_ENDS.iter().filter(|end| text.ends_with(**end)) {
                out.push(path.invalid("path", format!("cannot end with '{end}'")));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                out.push(path.invalid("path", "must be an absolute path"));
            }
        }
        _ => out.push(path.unsupported("pathType", &["Exact", "ImplementationSpecific", "Prefix"])),
    }
}

fn check_backend(backend: &At<'_>, out: &mut Errors) {
    match (backend.set("resource"), backend.set("service")) {
        (Some(_), Some(_)) => {
            out.push(Error::invalid(&backend.path, "", "cannot set both resource and service backends"));
        }
        (Some(resource), None) => {
            if resource.has("apiGroup") {
                resource.syntax("apiGroup", names::dns_subdomain, out);
            }
            check_named(&resource, out);
        }
        (None, Some(service)) => check_service(backend, &service, out),
        (None, None) => {
            out.push(Error::invalid(&backend.path, "", "resource or service backend is required"));
        }
    }
}

/// Kind and name of an object that is referred to.
fn check_named(reference: &At<'_>, out: &mut Errors) {
    for (name, detail) in [("kind", "kind is required"), ("name", "name is required")] {
        if reference.text(name).is_empty() {
            out.push(reference.required(name, detail));
        } else {
            reference.syntax(name, names::path_segment, out);
        }
    }
}

fn check_service(backend: &At<'_>, service: &At<'_>, out: &mut Errors) {
    service.name("name", names::dns_1035_label, out);
    let port = service.field("port");
    let (named, number) = (!port.text("name").is_empty(), port.number("number").unwrap_or_default());
    if named && number != 0 {
        out.push(Error::invalid(&backend.path, "", "cannot set both port name & port number"));
    } else if named {
        port.syntax("name", names::port_name, out);
    } else if number == 0 {
        out.push(backend.required("", "port name or number is required"));
    } else {
        port.in_range("number", 1, 65_535, out);
    }
}

/// An Ingress that takes the place of another.
pub(super) fn update_ingress(new: &At<'_>, _: &At<'_>, _: &Context, out: &mut Errors) {
    check_ingress_spec(&new.field("spec"), out);
}

/// An IngressClass.
pub(super) fn check_class(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    if spec.text("controller").len() > CONTROLLER_BYTES_MAX {
        out.push(Error::too_long(&spec.place("controller"), CONTROLLER_BYTES_MAX));
    }
    check_domain_path(&spec.field("controller"), out);
    let Some(parameters) = spec.set("parameters") else { return };
    if parameters.has("apiGroup") {
        parameters.syntax("apiGroup", names::dns_subdomain, out);
    }
    check_named(&parameters, out);
    parameters.required_of("scope", &["Cluster", "Namespace"], out);
    match (parameters.text("scope"), parameters.has("namespace")) {
        ("Namespace", false) => {
            out.push(parameters.required("namespace", "`parameters.scope` is set to 'Namespace'"));
        }
        ("Namespace", true) => parameters.syntax("namespace", names::dns_label, out),
        ("Cluster", true) => {
            out.push(parameters.forbidden("namespace", "`parameters.scope` is set to 'Cluster'"));
        }
        _ => {}
    }
}

/// An IngressClass that takes the place of another.
pub(super) fn update_class(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check_class(new, context, out);
    new.field("spec").immutable(&old.field("spec"), "controller", out);
}

/// A NetworkPolicy.
pub(super) fn check_policy(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    if spec.has("podSelector") {
        out.extend(check_label_selector(spec.get("podSelector"), &spec.place("podSelector")));
    }
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.items(rules) {
            for port in rule.items("ports") {
                check_policy_port(&port, out);
            }
            for peer in rule.items(peers) {
                check_peer(&peer, out);
            }
        }
    }
    let count = spec.count("policyTypes");
    if count > 2 {
        let detail = "may not specify more than two policyTypes";
        out.push(spec.invalid("policyTypes", detail));
        return;
    }
    for kind in spec.items("policyTypes") {
        kind.one_of("", &["Egress", "Ingress"], out);
    }
}

fn check_policy_port(port: &At<'_>, out: &mut Errors) {
    port.optional_of("protocol", &["TCP", "UDP", "SCTP"], out);
    let last = "endPort";
    if port.get("port").is_string() {
        if port.has(last) {
            out.push(port.invalid(last, "may not be specified when `port` is non-numeric"));
        }
        port.syntax("port", names::port_name, out);
    } else if let Some(number) = port.number("port") {
        if port.number(last).is_some_and(|end| end < number) {
            out.push(port.invalid(last, "must be greater than or equal to `port`"));
        }
        if port.has(last) {
            port.in_range(last, 1, 65_535, out);
        }
        port.in_range("port", 1, 65_535, out);
    } else if port.has(last) {
        out.push(port.invalid(last, "may not be specified when `port` is not specified"));
    }
}

fn check_peer(peer: &At<'_>, out: &mut Errors) {
    let mut kinds = 0;
    for name in ["podSelector", "namespaceSelector"].into_iter().filter(|name| peer.has(name)) {
        kinds += 1;
        check_selector(peer, name, out);
    }
    if let Some(block) = peer.set("ipBlock") {
        check_block(&block, out);
        if kinds > 0 {
            out.push(peer.forbidden("", "may not specify both ipBlock and another peer"));
        }
        kinds += 1;
    }
    if kinds == 0 {
        out.push(peer.required("", "must specify a peer"));
    }
}

/// An address with the length of its prefix.
fn range(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

/// The bits of an address that say which network it is in, with those of the rest 0.
fn network(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or_default();
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or_default();
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

fn check_block(block: &At<'_>, out: &mut Errors) {
    if block.text("cidr").is_empty() {
        out.push(block.required("cidr", ""));
        return;
    }
    let Some((outer, bits)) = range(block.text("cidr")) else {
        out.push(block.invalid("cidr", NO_RANGE));
        return;
    };
    for except in block.items("except") {
        match range(except.text("")) {
            None => out.push(except.invalid("", NO_RANGE)),
            Some((inner, longer)) => {
                let within = inner.is_ipv4() == outer.is_ipv4() && network(inner, bits) == network(outer, bits);
                if !within || longer <= bits {
                    out.push(except.invalid("", "must be a strict subset of `cidr`"));
                }
            }
        }
    }
}

/// A NetworkPolicy that takes the place of another.
pub(super) fn update_policy(new: &At<'_>, _: &At<'_>, context: &Context, out: &mut Errors) {
    check_policy(new, context, out);
}

/// A range of addresses for services: one, or one of each family.
pub(super) fn check_service_range(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    match spec.count("cidrs") {
        0 => out.push(spec.required("cidrs", "at least one CIDR required")),
        1 => check_ranges(&spec, out),
        2 => {
            let families: Vec<bool> =
                spec.texts("cidrs").filter_map(range).map(|(address, _)| address.is_ipv4()).collect();
            if families.len() == 2 && families[0] == families[1] {
                let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
                out.push(spec.invalid("cidrs", detail));
            }
            check_ranges(&spec, out);
        }
        _ => {
            let detail = "may only hold up to 2 values";
            out.push(spec.invalid("cidrs", detail));
        }
    }
}

fn check_ranges(spec: &At<'_>, out: &mut Errors) {
    for item in spec.items("cidrs") {
        let text = item.text("");
        let Some((address, bits)) = range(text) else {
            out.push(item.invalid("", NO_RANGE));
            continue;
        };
        let canonical = format!("{}/{bits}", network(address, bits));
        if canonical != text {
            out.push(item.invalid("", format!("must be in canonical form (\"{canonical}\")")));
        }
    }
}

/// A ServiceCIDR that takes the place of another: all it may get is a range of the other family.
pub(super) fn update_service_range(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let extended = before.count("cidrs") == 1 && spec.count("cidrs") == 2;
    if !extended {
        spec.immutable(&before, "cidrs", out);
        return;
    }
    if spec.texts("cidrs").next() != before.texts("cidrs").next() {
        out.push(Error::invalid(
            &spec.place("cidrs").index(0),
            spec.texts("cidrs").next().unwrap_or_default(),
            super::read::IMMUTABLE,
        ));
    }
    check_service_range(new, context, out);
}

/// An IPAddress, which is its own name.
pub(super) fn check_address(object: &At<'_>, _: &Context, out: &mut Errors) {
    check_parent(&object.field("spec"), out);
}

/// The name of an IPAddress, as it is written shortest.
pub(super) fn address_name(name: &str) -> names::Faults {
    match name.parse::<IpAddr>() {
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
        Ok(address) if address.to_string() != name => vec![format!("must be in canonical form (\"{address}\")")],
        Ok(_) => Vec::new(),
    }
}

fn check_parent(spec: &At<'_>, out: &mut Errors) {
    let Some(parent) = spec.set("parentRef") else {
        out.push(spec.required("parentRef", ""));
        return;
    };
    parent.optional("group", names::dns_subdomain, out);
    for name in ["resource", "name"] {
        parent.name(name, names::path_segment, out);
    }
    parent.optional("namespace", names::path_segment, out);
}

/// An IPAddress that takes the place of another.
pub(super) fn update_address(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    check_parent(&new.field("spec"), out);
    new.field("spec").immutable(&old.field("spec"), "parentRef", out);
}
