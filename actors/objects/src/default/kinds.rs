//! Defaults that look at more than one field, and the pairs of fields that say the same.

use serde_json::{Map, Value, json};

use crate::decode::base64;
use crate::default::pods;
use crate::default::{fill, part};

type Fields = Map<String, Value>;

/// How long a client stays with its pod when the service does not say.
const AFFINITY_SECONDS: i64 = 10_800;

/// The label by which selectors find namespaces by name.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// Code for one type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    /// Runs before the parts of the structure get their defaults.
    before: fn(&mut Fields),
    /// Runs after that.
    after: fn(&mut Fields),
}

impl Hook {
    /// The code for a type, if there is any.
    pub(super) fn of(type_name: &str) -> Option<Self> {
        let before: fn(&mut Fields) = match type_name {
            "core.v1.Pod" => return Some(Self { before: pods::pod, after: pods::pod_resources }),
            "core.v1.PodSpec" => pods::spec,
            "core.v1.PodStatus" => |map| first_of_list(map, "podIP", "podIPs", Some("ip")),
            "core.v1.Container" | "core.v1.EphemeralContainer" => pods::container,
            "core.v1.Volume" => pods::volume,
            "core.v1.ImageVolumeSource" => pods::image_volume,
            "core.v1.ServiceSpec" => service,
            "core.v1.Service" => service_status,
            "core.v1.ReplicationController" => replication_controller,
            "core.v1.Namespace" => namespace,
            "core.v1.Secret" => secret,
            "core.v1.NodeSpec" => |map| first_of_list(map, "podCIDR", "podCIDRs", None),
            "core.v1.NodeStatus" => node_status,
            "core.v1.LimitRangeItem" => limits,
            "batch.v1.Job" => labels_of_template,
            "autoscaling.v2.HorizontalPodAutoscalerBehavior" => behavior,
            "apiextensions.v1.CustomResourceDefinitionNames" => names,
            _ => return None,
        };
        Some(Self { before, after: |_| {} })
    }

    /// What a structure gets before its parts get theirs.
    pub(super) fn before(self, map: &mut Fields) {
        (self.before)(map);
    }

    /// What a structure gets after its parts got theirs.
    pub(super) fn after(self, map: &mut Fields) {
        (self.after)(map);
    }
}

/// `stringData` is only ever written: it goes into `data`, over what is there under the same key.
fn secret(map: &mut Fields) {
    let Some(Value::Object(texts)) = map.remove("stringData") else { return };
    let Some(data) = part(map, "data") else { return };
    for (key, text) in texts {
        let text = text.as_str().unwrap_or_default();
        data.insert(key, Value::String(base64::encode(text.as_bytes())));
    }
}

/// What can be used is all there is, until the node says otherwise.
fn node_status(map: &mut Fields) {
    if let Some(capacity) = map.get("capacity").cloned() {
        fill(map, "allocatable", capacity);
    }
}

/// A field that repeats the first item of a list: whichever is given sets the other.
fn first_of_list(map: &mut Fields, single: &str, list: &str, key: Option<&str>) {
    let of_list = map.get(list).and_then(|list| list.get(0)).map(|item| match key {
        Some(key) => item[key].clone(),
        None => item.clone(),
    });
    match (of_list, map.get(single)) {
        (Some(first), _) if first.as_str().is_some_and(|first| !first.is_empty()) => {
            map.insert(single.to_owned(), first);
        }
        (None, Some(value)) => {
            let item = key.map_or_else(|| value.clone(), |key| json!({ key: value }));
            map.insert(list.to_owned(), Value::Array(vec![item]));
        }
        _ => {}
    }
}

fn service(map: &mut Fields) {
    let affinity = map.get("sessionAffinity").and_then(Value::as_str).unwrap_or_default().to_owned();
    match affinity.as_str() {
        "None" => {
            map.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            let config = part(map, "sessionAffinityConfig").and_then(|config| part(config, "clientIP"));
            if let Some(client) = config {
                fill(client, "timeoutSeconds", AFFINITY_SECONDS);
            }
        }
        _ => {}
    }
    // A service of the cluster with addresses from outside is reached from outside, too.
    let outside = map.get("externalIPs").and_then(Value::as_array).is_some_and(|addresses| !addresses.is_empty());
    if outside && map.get("type").is_some_and(|of| of == "ClusterIP") {
        fill(map, "externalTrafficPolicy", "Cluster");
    }
    for port in map.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let unset = port.get("targetPort").is_none_or(|target| *target == json!(0) || *target == json!(""));
        if let (true, Some(port)) = (unset, port.as_object_mut()) {
            let number = port.get("port").cloned().unwrap_or_else(|| json!(0));
            port.insert("targetPort".to_owned(), number);
        }
    }
}

fn service_status(map: &mut Fields) {
    if map.get("spec").is_none_or(|spec| spec["type"] != "LoadBalancer") {
        return;
    }
    let ingress = map.get_mut("status").and_then(|status| status.pointer_mut("/loadBalancer/ingress"));
    for ingress in ingress.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
        if ingress.get("ip").and_then(Value::as_str).is_some_and(|address| !address.is_empty()) {
            fill(ingress, "ipMode", "VIP");
        }
    }
}

/// Takes the labels of the template for an object that has none.
fn labels_of_template(map: &mut Fields) {
    let labels = map.get("spec").and_then(|spec| spec.pointer("/template/metadata/labels")).cloned();
    if let (Some(labels), Some(metadata)) = (labels, part(map, "metadata")) {
        fill(metadata, "labels", labels);
    }
}

fn replication_controller(map: &mut Fields) {
    labels_of_template(map);
    let labels = map.get("spec").and_then(|spec| spec.pointer("/template/metadata/labels")).cloned();
    if let (Some(labels), Some(spec)) = (labels, part(map, "spec")) {
        fill(spec, "selector", labels);
    }
}

fn namespace(map: &mut Fields) {
    let name = map.get("metadata").and_then(|metadata| metadata["name"].as_str()).unwrap_or_default().to_owned();
    // A name that is still to be made has no label yet.
    if name.is_empty() {
        return;
    }
    if let Some(labels) = part(map, "metadata").and_then(|metadata| part(metadata, "labels")) {
        labels.insert(NAMESPACE_LABEL.to_owned(), Value::String(name));
    }
}

/// A container's default is its maximum; what it asks for is its default, or else the minimum.
fn limits(map: &mut Fields) {
    if map.get("type").is_none_or(|of| of != "Container") {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let Some(Value::Object(amounts)) = map.get(from).cloned() else { continue };
        let Some(target) = part(map, to) else { continue };
        for (resource, amount) in amounts {
            target.entry(resource).or_insert(amount);
        }
    }
}

fn behavior(map: &mut Fields) {
    let percent = || json!({ "type": "Percent", "value": 100, "periodSeconds": 15 });
    if let Some(up) = part(map, "scaleUp") {
        fill(up, "stabilizationWindowSeconds", 0);
        fill(up, "policies", json!([{ "type": "Pods", "value": 4, "periodSeconds": 15 }, percent()]));
    }
    if let Some(down) = part(map, "scaleDown") {
        fill(down, "policies", json!([percent()]));
    }
}

fn names(map: &mut Fields) {
    let kind = map.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind.is_empty() {
        return;
    }
    fill(map, "singular", kind.to_lowercase());
    fill(map, "listKind", format!("{kind}List"));
}
