//! What controllers report: counts that fit together, conditions that can be read, addresses that exist.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k3sd_objects::names;
use k3sd_objects::status::field::Error;

use super::Context;
use super::read::{At, Errors};

/// Longest reason and message of a condition, in bytes.
const REASON_BYTES_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 32 * 1024;

const NO_REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
                         alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. \
                         'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex \
                         used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// Numbers that may not be negative.
fn check_counts(status: &At<'_>, names: &[&str], out: &mut Errors) {
    names.iter().for_each(|name| status.not_negative(name, out));
}

/// Parts, each with the whole that it may not exceed, and what is said if it does.
fn check_parts(status: &At<'_>, parts: &[(&str, &str, &str)], out: &mut Errors) {
    let number = |name: &str| status.number(name).unwrap_or_default();
    for (part, whole, detail) in parts {
        if number(part) > number(whole) {
            out.push(status.invalid_number(part, *detail));
        }
    }
}

/// Collisions of names only add up.
fn check_collisions(status: &At<'_>, before: &At<'_>, out: &mut Errors) {
    const FIELD: &str = "collisionCount";
    let decremented = before.number(FIELD).is_some_and(|old| status.number(FIELD).is_none_or(|new| new < old));
    if decremented {
        out.push(status.invalid_number(FIELD, "cannot be decremented"));
    }
}

/// What is said of parts of all replicas.
const OF_ALL: &str = "cannot be greater than status.replicas";

/// The status of a Deployment.
pub(super) fn update_deployment(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    let status = new.field("status");
    let counts = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "collisionCount",
    ];
    check_counts(&status, &counts, out);
    let parts = [
        ("updatedReplicas", "replicas", OF_ALL),
        ("readyReplicas", "replicas", OF_ALL),
        ("availableReplicas", "replicas", OF_ALL),
        ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
    ];
    check_parts(&status, &parts, out);
    check_collisions(&status, &old.field("status"), out);
}

/// The status of a ReplicaSet or of a ReplicationController.
pub(super) fn update_replica_set(new: &At<'_>, _: &At<'_>, _: &Context, out: &mut Errors) {
    let status = new.field("status");
    let counts = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
    check_counts(&status, &counts, out);
    let parts = [
        ("fullyLabeledReplicas", "replicas", OF_ALL),
        ("readyReplicas", "replicas", OF_ALL),
        ("availableReplicas", "replicas", OF_ALL),
        ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
    ];
    check_parts(&status, &parts, out);
}

/// The status of a DaemonSet.
pub(super) fn update_daemon_set(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    let status = new.field("status");
    let counts = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    check_counts(&status, &counts, out);
    check_collisions(&status, &old.field("status"), out);
}

/// The status of a StatefulSet.
pub(super) fn update_stateful_set(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    let status = new.field("status");
    let counts = [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    check_counts(&status, &counts, out);
    let parts = [
        ("readyReplicas", "replicas", OF_ALL),
        ("currentReplicas", "replicas", OF_ALL),
        ("updatedReplicas", "replicas", OF_ALL),
        ("availableReplicas", "replicas", OF_ALL),
        ("availableReplicas", "readyReplicas", "cannot be greater than status.readyReplicas"),
    ];
    check_parts(&status, &parts, out);
    check_collisions(&status, &old.field("status"), out);
}

/// The status of a PodDisruptionBudget.
pub(super) fn update_disruption_budget(new: &At<'_>, _: &At<'_>, _: &Context, out: &mut Errors) {
    let status = new.field("status");
    check_conditions(&status, out);
    check_counts(&status, &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"], out);
}

/// Conditions in the form that all kinds have in common.
pub(super) fn check_conditions(status: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for condition in status.items("conditions") {
        if !seen.insert(condition.text("type")) {
            out.push(condition.duplicate("type"));
        }
        check_condition(&condition, out);
    }
}

fn check_condition(condition: &At<'_>, out: &mut Errors) {
    condition.syntax("type", names::qualified_name, out);
    condition.one_of("status", &["False", "True", "Unknown"], out);
    if condition.number("observedGeneration").is_some_and(|generation| generation < 0) {
        out.push(condition.invalid_number("observedGeneration", "must be greater than or equal to zero"));
    }
    if !condition.has("lastTransitionTime") {
        out.push(condition.required("lastTransitionTime", "must be set"));
    }
    let reason = condition.text("reason");
    if reason.is_empty() {
        out.push(condition.required("reason", "must be set"));
    } else {
        if !is_reason(reason) {
            out.push(condition.invalid("reason", NO_REASON));
        }
        if reason.len() > REASON_BYTES_MAX {
            out.push(Error::too_long(&condition.place("reason"), REASON_BYTES_MAX));
        }
    }
    if condition.text("message").len() > MESSAGE_BYTES_MAX {
        out.push(Error::too_long(&condition.place("message"), MESSAGE_BYTES_MAX));
    }
}

fn is_reason(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && text.bytes().last().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || matches!(byte, b',' | b':'))
}

/// The status of a Service: where its balancer is reached.
pub(super) fn update_service(new: &At<'_>, _: &At<'_>, _: &Context, out: &mut Errors) {
    let balancer = new.field("status").field("loadBalancer");
    if new.field("spec").text("type") != "LoadBalancer" && balancer.count("ingress") > 0 {
        out.push(balancer.forbidden("ingress", "may only be used when `spec.type` is \"LoadBalancer\""));
        return;
    }
    for ingress in balancer.items("ingress") {
        check_address(&ingress, out);
        match (ingress.has("ipMode"), !ingress.text("ip").is_empty()) {
            (false, true) => out.push(ingress.required("ipMode", "must be specified when `ip` is set")),
            (true, false) => out.push(ingress.forbidden("ipMode", "may not be specified when `ip` is not set")),
            (true, true) => ingress.one_of("ipMode", &["Proxy", "VIP"], out),
            (false, false) => {}
        }
        check_hostname(&ingress, out);
    }
}

/// The status of an Ingress: the same, in less detail.
pub(super) fn update_ingress(new: &At<'_>, _: &At<'_>, _: &Context, out: &mut Errors) {
    for ingress in new.field("status").field("loadBalancer").items("ingress") {
        check_address(&ingress, out);
        check_hostname(&ingress, out);
    }
}

fn check_address(ingress: &At<'_>, out: &mut Errors) {
    let address = ingress.text("ip");
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        out.push(ingress.invalid("ip", NO_ADDRESS));
    }
}

fn check_hostname(ingress: &At<'_>, out: &mut Errors) {
    ingress.optional("hostname", names::dns_subdomain, out);
    if ingress.text("hostname").parse::<IpAddr>().is_ok() {
        out.push(ingress.invalid("hostname", "must be a DNS name, not an IP address"));
    }
}
