//! EndpointSlices: where the pods of a Service are.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k3sd_objects::names;
use k3sd_objects::status::field::Error;

use super::Context;
use super::read::{At, Errors};

/// Endpoints of a slice.
const ENDPOINTS_MAX: usize = 1000;

/// Addresses of an endpoint.
const ADDRESSES_MAX: usize = 100;

/// Ports of a slice.
const PORTS_MAX: usize = 20_000;

/// An EndpointSlice.
pub(super) fn check(object: &At<'_>, _: &Context, out: &mut Errors) {
    object.required_of("addressType", &["FQDN", "IPv4", "IPv6"], out);
    let count = object.count("endpoints");
    if count > ENDPOINTS_MAX {
        out.push(Error::too_many(&object.place("endpoints"), count, ENDPOINTS_MAX));
    } else {
        for endpoint in object.items("endpoints") {
            check_endpoint(&endpoint, object.text("addressType"), out);
        }
    }
    let count = object.count("ports");
    if count > PORTS_MAX {
        out.push(Error::too_many(&object.place("ports"), count, PORTS_MAX));
    } else {
        check_ports(object, out);
    }
}

fn check_endpoint(endpoint: &At<'_>, family: &str, out: &mut Errors) {
    let count = endpoint.count("addresses");
    if count == 0 {
        out.push(endpoint.required("addresses", "must contain at least 1 address"));
    } else if count > ADDRESSES_MAX {
        out.push(Error::too_many(&endpoint.place("addresses"), count, ADDRESSES_MAX));
        return;
    }
    for address in endpoint.items("addresses") {
        check_address(&address, family, out);
    }
    for name in ["hostname", "nodeName"].into_iter().filter(|name| endpoint.has(name)) {
        let rule = if name == "hostname" { names::dns_label } else { names::dns_subdomain };
        endpoint.syntax(name, rule, out);
    }
}

fn check_address(address: &At<'_>, family: &str, out: &mut Errors) {
    let parsed = address.text("").parse::<IpAddr>();
    let detail = match (family, parsed) {
        ("FQDN", _) => {
            address.syntax("", names::dns_subdomain, out);
            return;
        }
        ("IPv4", Ok(IpAddr::V6(_))) => "must be an IPv4 address",
        ("IPv6", Ok(IpAddr::V4(_))) => "must be an IPv6 address",
        ("IPv4" | "IPv6", Err(_)) => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        _ => return,
    };
    out.push(address.invalid("", detail));
}

fn check_ports(object: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in object.items("ports") {
        port.optional("name", names::dns_label, out);
        if !seen.insert(port.text("name")) {
            out.push(port.duplicate("name"));
        }
        port.required_of("protocol", &["SCTP", "TCP", "UDP"], out);
        if port.has("appProtocol") {
            port.syntax("appProtocol", names::qualified_name, out);
        }
    }
}

/// An EndpointSlice that takes the place of another.
pub(super) fn update(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check(new, context, out);
    new.immutable(old, "addressType", out);
}
