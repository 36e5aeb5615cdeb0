//! What a pod that was evicted is told, in upstream's words.

use k3sd_objects::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::rank::{PodUse, request};
use super::signal::{Observation, Threshold};

/// An amount as messages print it.
pub(super) fn shown(amount: u64, resource: &str) -> Quantity {
    let format = if matches!(resource, "memory" | "ephemeral-storage") { Format::BinarySi } else { Format::DecimalSi };
    Quantity::from_i64(i64::try_from(amount).unwrap_or(i64::MAX), format)
}

/// Init containers and the others.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

/// The message. Upstream's ends with a space.
#[must_use]
pub fn message(pod: &PodUse, threshold: &Threshold, seen: Option<Observation>) -> String {
    let resource = threshold.signal.resource();
    let mut text = format!("The node was low on resource: {resource}. ");
    if let Some(seen) = seen {
        let quantity = shown(threshold.value.of(seen.capacity), resource);
        let available = shown(seen.available, resource);
        text.push_str(&format!("Threshold quantity: {quantity}, available: {available}. "));
    }
    if matches!(resource, "memory" | "ephemeral-storage") {
        for container in containers(&pod.view.pod) {
            let Some((name, usage)) = pod.containers.iter().find(|(name, _)| *name == container.name) else { continue };
            let (used, asked) = (usage.of(threshold.signal), request(container, resource));
            if used > asked {
                let (used, asked) = (shown(used, resource), shown(asked, resource));
                text.push_str(&format!(
                    "Container {name} was using {used}, request is {asked}, has larger consumption of {resource}. "
                ));
            }
        }
    }
    text
}
