//! Endpoints, the older way to say where the pods of a Service are.

use std::net::IpAddr;

use k3sd_objects::names;

use super::Context;
use super::read::{At, Errors};

/// What is said of something that isn't an address.
const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// An Endpoints.
pub(super) fn check(object: &At<'_>, _: &Context, out: &mut Errors) {
    for subset in object.items("subsets") {
        if subset.count("addresses") + subset.count("notReadyAddresses") == 0 {
            out.push(subset.required("", "must specify `addresses` or `notReadyAddresses`"));
        }
        for list in ["addresses", "notReadyAddresses"] {
            for address in subset.items(list) {
                check_address(&address, out);
            }
        }
        for port in subset.items("ports") {
            check_port(&port, subset.count("ports") > 1, out);
        }
    }
}

fn check_address(address: &At<'_>, out: &mut Errors) {
    let parsed = address.text("ip").parse::<IpAddr>();
    if parsed.is_err() {
        out.push(address.invalid("ip", NO_ADDRESS));
    }
    address.optional("hostname", names::dns_label, out);
    if address.has("nodeName") {
        address.syntax("nodeName", names::dns_subdomain, out);
    }
    let Ok(parsed) = parsed else {
        out.push(address.invalid("ip", "must be a valid IP address"));
        return;
    };
    out.extend(special(parsed).into_iter().map(|detail| address.invalid("ip", detail)));
}

/// What is wrong with an address that means something else on each node.
fn special(address: IpAddr) -> Option<String> {
    let (local, local_group) = match address {
        IpAddr::V4(address) => (address.is_link_local(), address.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(address) => (address.is_unicast_link_local(), address.segments()[0] & 0xff0f == 0xff02),
    };
    if address.is_unspecified() {
        Some(format!("may not be unspecified ({address})"))
    } else if address.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned())
    } else if local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned())
    } else if local_group {
        Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned())
    } else {
        None
    }
}

fn check_port(port: &At<'_>, named: bool, out: &mut Errors) {
    if named && port.text("name").is_empty() {
        out.push(port.required("name", ""));
    } else {
        port.optional("name", names::dns_label, out);
    }
    let faults = names::port_number(port.number("port").unwrap_or_default());
    out.extend(faults.into_iter().map(|fault| port.invalid_number("port", fault)));
    port.required_of("protocol", &["SCTP", "TCP", "UDP"], out);
    if port.has("appProtocol") {
        port.syntax("appProtocol", names::qualified_name, out);
    }
}

/// An Endpoints that takes the place of another.
pub(super) fn update(new: &At<'_>, _: &At<'_>, context: &Context, out: &mut Errors) {
    check(new, context, out);
}
