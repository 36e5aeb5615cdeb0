//! Plugins that run only if they are asked for: `AlwaysPullImages`, `DenyServiceExternalIPs`.

use k3sd_objects::status::Status;
use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

use crate::attributes::{Attributes, Operation};
use crate::read::{field, items, items_mut, set, text, texts};

const CONTAINERS: &[&str] = &["initContainers", "containers", "ephemeralContainers"];
const ALWAYS: &str = "Always";

/// Whether a request brings images to a pod.
fn brings_images(a: &Attributes<'_>, pod: &Value) -> bool {
    if !a.is("", "pods") || !["", "ephemeralcontainers"].contains(&a.subresource) {
        return false;
    }
    let images = |pod: &Value| -> Vec<String> {
        let spec = field(pod, "spec");
        let all = CONTAINERS.iter().flat_map(|list| items(spec, list));
        all.map(|container| text(container, "image").to_owned()).collect()
    };
    match a.operation {
        Operation::Create => true,
        Operation::Update => {
            let known = images(a.before());
            images(pod).iter().any(|image| !known.contains(image))
        }
        Operation::Delete | Operation::Connect => false,
    }
}

/// Has every image asked for at each start, so that a pod needs the credentials for it.
pub(crate) fn always_pull(a: &Attributes<'_>, pod: &mut Value) {
    if !brings_images(a, pod) {
        return;
    }
    let Some(spec) = pod.get_mut("spec") else { return };
    for list in CONTAINERS {
        items_mut(spec, list).iter_mut().for_each(|container| set(container, "imagePullPolicy", ALWAYS));
    }
    for volume in items_mut(spec, "volumes") {
        if let Some(image) = volume.get_mut("image").filter(|image| image.is_object()) {
            set(image, "pullPolicy", ALWAYS);
        }
    }
}

/// Checks what others may have changed since.
pub(crate) fn check_pull(a: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    if !brings_images(a, pod) {
        return Ok(());
    }
    let spec = field(pod, "spec");
    for list in CONTAINERS {
        for (index, container) in items(spec, list).iter().enumerate() {
            let policy = text(container, "imagePullPolicy");
            if policy != ALWAYS {
                let path = Path::new("spec").child(list).index(index).child("imagePullPolicy");
                return Err(a.forbidden(pod, Error::not_supported(&path, policy, &[ALWAYS])));
            }
        }
    }
    Ok(())
}

/// Keeps Services from taking traffic for addresses that aren't theirs. What is there may stay.
pub(crate) fn deny_external_ips(a: &Attributes<'_>, service: &Value) -> Result<(), Status> {
    if !a.is("", "services") || !a.subresource.is_empty() {
        return Ok(());
    }
    let old: Vec<&str> = texts(field(a.before(), "spec"), "externalIPs").collect();
    if texts(field(service, "spec"), "externalIPs").all(|ip| old.contains(&ip)) {
        return Ok(());
    }
    Err(a.forbidden(service, "Use of external IPs is denied by admission control"))
}
