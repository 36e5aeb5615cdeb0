//! Small kinds that the cluster keeps house with: namespaces, accounts, leases, priorities, budgets, runtimes.

use std::collections::BTreeSet;

use k3sd_objects::names;
use k3sd_objects::status::field::Error;

use super::Context;
use super::meta;
use super::pod::{check_selector, check_tolerations};
use super::read::{At, Errors, same};
use super::resources;

/// Highest priority that is not the system's own.
const PRIORITY_MAX: i64 = 1_000_000_000;

/// What begins the names of the system's own priorities.
const SYSTEM_PREFIX: &str = "system-";

/// The system's own priorities.
const SYSTEM_PRIORITIES: &[(&str, i64)] =
    &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// A Namespace.
pub(super) fn check_namespace(object: &At<'_>, _: &Context, out: &mut Errors) {
    // Upstream doesn't say which one of the list it is.
    let path = object.place("spec").child("finalizers");
    for finalizer in object.field("spec").items("finalizers") {
        let finalizer = At { value: finalizer.value, path: path.clone() };
        let before = out.len();
        finalizer.syntax("", names::qualified_name, out);
        if out.len() == before && !meta::is_finalizer(finalizer.text("")) {
            out.push(finalizer.invalid("", meta::NO_FINALIZER));
        }
    }
}

/// A Namespace that takes the place of another; its spec is the business of `finalize`.
pub(super) fn update_namespace(_: &At<'_>, _: &At<'_>, _: &Context, _: &mut Errors) {}

/// The status of a Namespace: it terminates once it is being deleted, and not before.
pub(super) fn check_namespace_status(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    let (status, deleted) = (new.field("status"), old.field("metadata").has("deletionTimestamp"));
    let phase = status.text("phase");
    let detail = match (deleted, phase) {
        (true, "Terminating") | (false, "Active") => return,
        (true, _) => "may only be 'Terminating' if `deletionTimestamp` is not empty",
        (false, _) => "may only be 'Active' if `deletionTimestamp` is empty",
    };
    // Upstream writes this field in upper case.
    out.push(Error::invalid(&status.place("Phase"), phase, detail));
}

/// A ServiceAccount, of which nothing else is asked.
pub(super) fn check_nothing(_: &At<'_>, _: &Context, _: &mut Errors) {}

/// The same for updates.
pub(super) fn update_nothing(_: &At<'_>, _: &At<'_>, _: &Context, _: &mut Errors) {}

/// A Lease.
pub(super) fn check_lease(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    if spec.number("leaseDurationSeconds").is_some_and(|seconds| seconds <= 0) {
        out.push(spec.invalid("leaseDurationSeconds", "must be greater than 0"));
    }
    if spec.number("leaseTransitions").is_some_and(|count| count < 0) {
        out.push(spec.invalid("leaseTransitions", "must be greater than or equal to 0"));
    }
    if spec.has("strategy") {
        spec.syntax("strategy", names::qualified_name, out);
    }
    if !spec.text("preferredHolder").is_empty() && !spec.has("strategy") {
        out.push(spec.forbidden("preferredHolder", "may only be specified if `strategy` is defined"));
    }
}

/// A Lease that takes the place of another.
pub(super) fn update_lease(new: &At<'_>, _: &At<'_>, context: &Context, out: &mut Errors) {
    check_lease(new, context, out);
}

/// A PriorityClass.
pub(super) fn check_priority_class(object: &At<'_>, _: &Context, out: &mut Errors) {
    let metadata = object.field("metadata");
    let (name, value) = (metadata.text("name"), object.number("value").unwrap_or_default());
    if name.starts_with(SYSTEM_PREFIX) {
        let detail = match SYSTEM_PRIORITIES.iter().find(|(known, _)| *known == name) {
            Some((_, known)) if *known == value => None,
            Some((_, known)) => Some(format!("value of {name} PriorityClass must be {known}")),
            None => {
                Some(format!("priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only"))
            }
        };
        out.extend(detail.map(|detail| metadata.forbidden("name", detail)));
    } else if value > PRIORITY_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}");
        out.push(object.forbidden("value", detail));
    }
    object.optional_of("preemptionPolicy", &["Never", "PreemptLowerPriority"], out);
}

/// A PriorityClass that takes the place of another: pods took their numbers from it long ago.
pub(super) fn update_priority_class(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    if new.number("value").unwrap_or_default() != old.number("value").unwrap_or_default() {
        out.push(new.forbidden("value", "may not be changed in an update."));
    }
    if !same(new.get("preemptionPolicy"), old.get("preemptionPolicy")) {
        out.push(new.invalid("preemptionPolicy", "field is immutable"));
    }
}

/// A RuntimeClass.
pub(super) fn check_runtime_class(object: &At<'_>, _: &Context, out: &mut Errors) {
    object.syntax("handler", names::dns_label, out);
    for (name, amount) in object.field("overhead").entries("podFixed") {
        resources::check_container_name(name, &amount, out);
        resources::check_amount(name, &amount, out);
    }
    let Some(scheduling) = object.set("scheduling") else { return };
    meta::check_labels(&scheduling, "nodeSelector", out);
    check_tolerations(&scheduling, out);
    let mut seen = BTreeSet::new();
    for toleration in scheduling.items("tolerations") {
        if !seen.insert(toleration.value.to_string()) {
            out.push(toleration.duplicate(""));
        }
    }
}

/// A RuntimeClass that takes the place of another.
pub(super) fn update_runtime_class(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    new.immutable(old, "handler", out);
}

/// A PodDisruptionBudget.
pub(super) fn check_disruption_budget(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        out.push(spec.invalid("", "minAvailable and maxUnavailable cannot be both set"));
    }
    for name in ["minAvailable", "maxUnavailable"].into_iter().filter(|name| spec.has(name)) {
        if spec.get(name).is_string() {
            spec.syntax(name, names::percent, out);
            let percent = spec.text(name).strip_suffix('%').and_then(|digits| digits.parse::<u64>().ok());
            if percent.is_some_and(|percent| percent > 100) {
                out.push(spec.invalid(name, "must not be greater than 100%"));
            }
        } else {
            spec.not_negative(name, out);
        }
    }
    check_selector(&spec, "selector", out);
    spec.optional_of("unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"], out);
}

/// A PodDisruptionBudget that takes the place of another.
pub(super) fn update_disruption_budget(new: &At<'_>, _: &At<'_>, context: &Context, out: &mut Errors) {
    check_disruption_budget(new, context, out);
}
