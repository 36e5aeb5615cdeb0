//! Lists of resources: names and amounts.

use k3sd_objects::names;
use k3sd_objects::quantity::Quantity;
use k3sd_objects::status::field::Error;
use serde_json::Value;

use super::read::{At, Errors, NOT_NEGATIVE};

/// What begins the name of huge pages of some size.
const HUGE_PAGES: &str = "hugepages-";

/// Counted, so that amounts are whole.
const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Measured, for containers.
const MEASURED: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// Known to quotas beside those two.
const QUOTA_ONLY: &[&str] = &[
    "storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

/// Whether this is huge pages of some size.
pub(super) fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// Whether a name needs no prefix.
pub(super) fn is_standard(name: &str) -> bool {
    [COUNTED, MEASURED, QUOTA_ONLY].iter().any(|names| names.contains(&name))
        || is_huge_pages(name)
        || name.strip_prefix("requests.").is_some_and(is_huge_pages)
}

/// Whether containers can have it without a prefix.
fn is_standard_for_containers(name: &str) -> bool {
    MEASURED.contains(&name) || is_huge_pages(name)
}

/// Whether it belongs to Kubernetes rather than to a device plugin.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether it is a device plugin's.
pub(super) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether amounts are whole.
pub(super) fn is_whole(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// Whether a limit may be above a request.
pub(super) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// The name of a resource that stands as a key at `at`.
pub(super) fn check_name(name: &str, at: &At<'_>, out: &mut Errors) {
    let before = out.len();
    out.extend(names::check_label_key(name, &at.path));
    if out.len() == before && !name.contains('/') && !is_standard(name) {
        out.push(name_error(at, name, "must be a standard resource type or fully qualified"));
    }
}

/// Whether quotas can limit it without a prefix.
pub(super) fn is_standard_for_quotas(name: &str) -> bool {
    is_standard(name) && name != "storage"
}

/// The name of a resource of a quota.
pub(super) fn check_quota_name(name: &str, at: &At<'_>, out: &mut Errors) {
    check_name(name, at, out);
    if !name.contains('/') && !is_standard_for_quotas(name) {
        out.push(name_error(at, name, "must be a standard resource for quota"));
    }
}

/// The name of a resource of a container.
pub(super) fn check_container_name(name: &str, at: &At<'_>, out: &mut Errors) {
    check_name(name, at, out);
    if !name.contains('/') {
        if !is_standard_for_containers(name) {
            out.push(name_error(at, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        out.push(name_error(at, name, "doesn't follow extended resource name standard"));
    }
}

/// An error about a key rather than about what stands there.
pub(super) fn name_error(at: &At<'_>, name: &str, detail: &str) -> Error {
    Error::invalid(&at.path, name, detail)
}

/// An amount: not negative, and whole where it counts something.
pub(super) fn check_amount(name: &str, at: &At<'_>, out: &mut Errors) {
    let Some(amount) = at.quantity("") else { return };
    if amount.signum() < 0 {
        out.push(at.invalid("", NOT_NEGATIVE));
    }
    if is_whole(name) && amount.exact_value().is_none() {
        out.push(at.invalid("", "must be an integer"));
    }
}

/// The `resources` of a container, where `claims` are those that its pod has.
pub(super) fn check_requirements(resources: &At<'_>, claims: &[&str], out: &mut Errors) {
    for (name, limit) in resources.entries("limits") {
        check_container_name(name, &limit, out);
        check_amount(name, &limit, out);
    }
    for (name, request) in resources.entries("requests") {
        check_container_name(name, &request, out);
        check_amount(name, &request, out);
        check_below_limit(resources, name, &request, out);
    }
    let has = |wanted: fn(&str) -> bool| {
        resources.entries("limits").chain(resources.entries("requests")).any(|(name, _)| wanted(name))
    };
    if has(is_huge_pages) && !has(|name| ["cpu", "memory"].contains(&name)) {
        out.push(resources.forbidden("", "HugePages require cpu or memory"));
    }
    check_claims(resources, claims, out);
}

fn check_below_limit(resources: &At<'_>, name: &str, request: &At<'_>, out: &mut Errors) {
    let limit = resources.field("limits").quantity(name);
    let fixed = !may_overcommit(name);
    let (Some(limit), Some(request)) = (limit, request.quantity("")) else {
        if limit.is_none() && fixed {
            out.push(resources.required("limits", "Limit must be set for non overcommitable resources"));
        }
        return;
    };
    let detail = if fixed && request != limit {
        format!("must be equal to {name} limit of {limit}")
    } else if request > limit {
        format!("must be less than or equal to {name} limit of {limit}")
    } else {
        return;
    };
    out.push(quantity_error(&resources.field("requests"), request, detail));
}

/// An error about a place that shows one quantity of it.
fn quantity_error(at: &At<'_>, shown: Quantity, detail: String) -> Error {
    Error::invalid(&at.path, Value::from(shown.to_string()), detail)
}

/// The claims of a container: each once, and one of its pod's.
fn check_claims(resources: &At<'_>, claims: &[&str], out: &mut Errors) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for claim in resources.items("claims") {
        let key = (claim.text("name"), claim.text("request"));
        if key.0.is_empty() {
            out.push(claim.required("name", ""));
        } else if seen.iter().any(|(name, request)| *name == key.0 && (*request == key.1 || request.is_empty())) {
            let shown = if key.1.is_empty() { key.0.to_owned() } else { format!("{}/{}", key.0, key.1) };
            out.push(Error::duplicate(&claim.path, shown));
        } else if !claims.contains(&key.0) {
            out.push(Error::not_found(&claim.place("name"), key.0));
        }
        seen.push(key);
    }
}
