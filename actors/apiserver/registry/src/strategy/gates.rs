//! Fields of features that Kubernetes v1.34 has off by default: a new object loses them without a word, as upstream.

use std::collections::BTreeSet;

use k3sd_apiserver_store::Resource;
use serde_json::{Map, Value};

use super::warnings::template;

/// Volumes from images (`ImageVolume`), and the mounts of them.
const IMAGE_VOLUME: &str = "image";
/// Where a pod has containers.
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Takes away what isn't served, unless the object had it before.
pub(super) fn drop_disabled(new: &mut Value, old: Option<&Value>, resource: &Resource) {
    let Some(path) = pod_spec(resource) else { return };
    let had = old.and_then(|old| path.iter().try_fold(old, |at, name| at.get(name)));
    if had.is_some_and(|spec| !image_volumes(spec).is_empty()) {
        return;
    }
    let Some(spec) = path.iter().try_fold(new, |at, name| at.get_mut(name)) else { return };
    let gone = image_volumes(spec);
    if let Some(spec) = spec.as_object_mut().filter(|_| !gone.is_empty()) {
        drop_volumes(spec, &gone);
    }
}

/// Where a kind has the description of a pod.
fn pod_spec(resource: &Resource) -> Option<Vec<&'static str>> {
    if (&*resource.group, &*resource.plural) == ("", "pods") {
        return Some(vec!["spec"]);
    }
    template(resource).map(|path| path.iter().copied().chain(["spec"]).collect())
}

fn image_volumes(spec: &Value) -> BTreeSet<String> {
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let of_images = volumes.filter(|volume| volume.get(IMAGE_VOLUME).is_some_and(|image| !image.is_null()));
    of_images.filter_map(|volume| volume.get("name")?.as_str().map(str::to_owned)).collect()
}

fn drop_volumes(spec: &mut Map<String, Value>, gone: &BTreeSet<String>) {
    let is_gone = |one: &Value| one.get("name").and_then(Value::as_str).is_some_and(|name| gone.contains(name));
    drop_from(spec, "volumes", is_gone);
    for field in CONTAINERS {
        let containers = spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            drop_from(container, "volumeMounts", is_gone);
        }
    }
}

/// Drops entries of a list, and a list without any.
fn drop_from(fields: &mut Map<String, Value>, field: &str, is_gone: impl Fn(&Value) -> bool) {
    let Some(list) = fields.get_mut(field).and_then(Value::as_array_mut) else { return };
    let before = list.len();
    list.retain(|one| !is_gone(one));
    if list.is_empty() && before > 0 {
        fields.remove(field);
    }
}
