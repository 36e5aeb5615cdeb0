//! Nodes: what their kubelets say of them, and what they are assigned.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k3sd_objects::names;
use k3sd_objects::status::field::Error;

use super::Context;
use super::pod::EFFECTS;
use super::read::{At, Errors};
use super::resources;

/// What is said of something that isn't a range of addresses.
const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// A Node.
pub(super) fn check(object: &At<'_>, _: &Context, out: &mut Errors) {
    check_taints(object, out);
    check_amounts(object, out);
    check_ranges(&object.field("spec"), out);
}

/// Taints, which upstream's errors look for in `metadata`.
fn check_taints(object: &At<'_>, out: &mut Errors) {
    let taints = At { value: object.field("spec").get("taints"), path: object.field("metadata").place("taints") };
    let mut seen = BTreeSet::new();
    for taint in taints.items("") {
        out.extend(names::check_label_key(taint.text("key"), &taint.place("key")));
        let faults = names::label_value(taint.text("value"));
        out.extend(faults.first().map(|_| taint.invalid("value", faults.join(";"))));
        taint.required_of("effect", EFFECTS, out);
        if !seen.insert((taint.text("effect"), taint.text("key"))) {
            let mut error = taint.duplicate("");
            "taints must be unique by key and effect pair".clone_into(&mut error.detail);
            out.push(error);
        }
    }
}

/// What a node has, and what of it is for pods.
fn check_amounts(object: &At<'_>, out: &mut Errors) {
    let status = object.field("status");
    for list in ["capacity", "allocatable"] {
        for (name, amount) in status.entries(list) {
            // Upstream writes these names as if they were fields.
            let amount = At { value: amount.value, path: status.place(list).child(name) };
            resources::check_amount(name, &amount, out);
        }
    }
}

/// An address of a range such as `10.9.8.0/24`, if it is one.
fn range_address(text: &str) -> Option<IpAddr> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length = length.bytes().all(|byte| byte.is_ascii_digit()).then(|| length.parse::<u8>().ok())??;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some(address)
}

/// The addresses for pods: one range, or one of each family.
fn check_ranges(spec: &At<'_>, out: &mut Errors) {
    for range in spec.items("podCIDRs") {
        if range_address(range.text("")).is_none() {
            out.push(range.invalid("", NO_RANGE));
        }
    }
    let count = spec.count("podCIDRs");
    if count < 2 {
        return;
    }
    let addresses: Vec<_> = spec.texts("podCIDRs").map(range_address).collect();
    if let Some((index, text)) = spec.texts("podCIDRs").enumerate().find(|(_, text)| range_address(text).is_none()) {
        let cause = format!("invalid CIDR[{index}]: {text} (invalid CIDR address: {text})");
        let detail = format!("invalid PodCIDRs. failed to check with dual stack with error:{cause}");
        out.push(Error::internal(&spec.place("podCIDRs"), detail));
    }
    let has = |family: fn(&IpAddr) -> bool| addresses.iter().flatten().any(family);
    let dual = !addresses.contains(&None) && has(IpAddr::is_ipv4) && has(IpAddr::is_ipv6);
    if !dual || count > 2 {
        out.push(spec.invalid("podCIDRs", "may specify no more than one CIDR for each IP family"));
    }
    let mut seen = BTreeSet::new();
    for range in spec.items("podCIDRs") {
        if !seen.insert(range.text("")) {
            out.push(range.duplicate(""));
        }
    }
}

/// A Node that takes the place of another. Upstream says some things twice here, and so does this.
pub(super) fn update(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check(new, context, out);
    check_status(new, old, context, out);
}

/// The status of a Node; checked alike when anything else of it changes.
pub(super) fn check_status(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    check_amounts(new, out);
    let mut seen = BTreeSet::new();
    for address in new.field("status").items("addresses") {
        if !seen.insert((address.text("type"), address.text("address"))) {
            out.push(address.duplicate(""));
        }
    }
    check_assigned(&new.field("spec"), &old.field("spec"), out);
    check_taints(new, out);
}

/// What a node is assigned once and for all.
fn check_assigned(spec: &At<'_>, before: &At<'_>, out: &mut Errors) {
    if before.count("podCIDRs") > 0 {
        let changed = if before.count("podCIDRs") == spec.count("podCIDRs") {
            before.texts("podCIDRs").zip(spec.texts("podCIDRs")).filter(|(old, new)| old != new).count()
        } else {
            1
        };
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        out.extend((0..changed).map(|_| spec.forbidden("podCIDRs", detail)));
    }
    if !before.text("providerID").is_empty() && before.text("providerID") != spec.text("providerID") {
        out.push(spec.forbidden("providerID", "node updates may not change providerID except from \"\" to valid"));
    }
    if before.text("externalID") != spec.text("externalID") {
        out.push(spec.forbidden("externalID", "may not be updated"));
    }
}
