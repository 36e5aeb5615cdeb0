//! What a pod takes as a whole.

use crate::quantity::Quantity;
use serde_json::Value;

use crate::read::{Amounts, amounts, entries, field, has, items, text};

/// Which side of `resources` is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What is set aside.
    Requests,
    /// What isn't exceeded.
    Limits,
}

impl Side {
    /// The field that has it.
    pub fn field(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }
}

/// Adds amounts to amounts.
pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, quantity) in more {
        let slot = to.entry(name.clone()).or_insert(Quantity::ZERO);
        *slot += *quantity;
    }
}

/// Raises amounts to those of another where these are larger.
pub fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, quantity) in other {
        let slot = to.entry(name.clone()).or_insert(*quantity);
        if *quantity > *slot {
            *slot = *quantity;
        }
    }
}

/// Whether a pod can have this as a whole, so that its containers need not.
pub fn is_for_pods(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory") || resource.starts_with("hugepages-")
}

/// What the containers of a pod take at most at any time: all containers and side-cars together, or the init container
/// that takes most, with the side-cars that were started before it. Amounts for the pod as a whole override these.
pub fn of_containers(spec: &Value, side: Side) -> Amounts {
    let of = |container: &Value| amounts(field(container, "resources"), side.field());
    let mut total = Amounts::new();
    for container in items(spec, "containers") {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in items(spec, "initContainers") {
        let mut own = of(container);
        if text(container, "restartPolicy") == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            own.clone_from(&sidecars);
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut peak, &own);
    }
    raise(&mut total, &peak);
    let whole = field(spec, "resources");
    for (name, quantity) in amounts(whole, side.field()) {
        if is_for_pods(&name) {
            total.insert(name, quantity);
        }
    }
    total
}

/// What a pod takes, with what its runtime takes beside the containers.
pub fn of_pod(spec: &Value, side: Side) -> Amounts {
    let mut total = of_containers(spec, side);
    for (name, overhead) in amounts(spec, "overhead") {
        match total.get_mut(&name) {
            Some(limit) if side == Side::Limits && limit.is_zero() => {}
            Some(amount) => *amount += overhead,
            None if side == Side::Requests => drop(total.insert(name, overhead)),
            // No limit stays none.
            None => {}
        }
    }
    total
}

/// Whether a pod has amounts as a whole.
pub fn has_own(spec: &Value) -> bool {
    has(spec, "resources")
        && [Side::Requests, Side::Limits]
            .into_iter()
            .any(|side| entries(field(spec, "resources"), side.field()).any(|(resource, _)| is_for_pods(resource)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(cpu: &str) -> Value {
        json!({"resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}})
    }

    fn sidecar(cpu: &str) -> Value {
        let mut container = container(cpu);
        container["restartPolicy"] = "Always".into();
        container
    }

    #[test]
    fn a_pod_takes_what_it_takes_at_its_peak() {
        for (spec, requests, limits) in [
            (json!({}), None, None),
            (json!({"containers": [container("1"), container("500m")]}), Some("1500m"), Some("1500m")),
            (json!({"containers": [container("1")], "initContainers": [container("3")]}), Some("3"), Some("3")),
            (
                json!({"containers": [container("1")], "initContainers": [sidecar("1"), container("3"), sidecar("1")]}),
                Some("4"),
                Some("4"),
            ),
            (
                json!({"containers": [container("3")], "initContainers": [container("2"), sidecar("1")]}),
                Some("4"),
                Some("4"),
            ),
            (
                json!({"containers": [container("1")], "resources": {"requests": {"cpu": "2", "pods": "9"}}}),
                Some("2"),
                Some("1"),
            ),
            (json!({"containers": [container("1")], "overhead": {"cpu": "100m"}}), Some("1100m"), Some("1100m")),
            (json!({"containers": [{}], "overhead": {"cpu": "100m"}}), Some("100m"), None),
        ] {
            let shown = |side| of_pod(&spec, side).get("cpu").map(ToString::to_string);
            assert_eq!(shown(Side::Requests).as_deref(), requests, "{spec}");
            assert_eq!(shown(Side::Limits).as_deref(), limits, "{spec}");
        }
    }
}
