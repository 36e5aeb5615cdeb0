//! What a cluster comes to, without what is drawn or timed: two clusters to which the same was done can be compared.
//!
//! Left out are identifiers, versions, times, addresses, where a pod runs, and the drawn part of names. What is left says
//! which objects there are, who owns them, what they ask for, and how far that has come.

use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

/// Kinds that controllers write: group, version, kind, plural.
const KINDS: &[(&str, &str, &str, &str)] = &[
    ("", "v1", "Namespace", "namespaces"),
    ("", "v1", "Pod", "pods"),
    ("", "v1", "Service", "services"),
    ("", "v1", "Endpoints", "endpoints"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("", "v1", "ResourceQuota", "resourcequotas"),
    ("", "v1", "ReplicationController", "replicationcontrollers"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "ReplicaSet", "replicasets"),
    ("apps", "v1", "StatefulSet", "statefulsets"),
    ("apps", "v1", "DaemonSet", "daemonsets"),
    ("apps", "v1", "ControllerRevision", "controllerrevisions"),
    ("batch", "v1", "Job", "jobs"),
    ("batch", "v1", "CronJob", "cronjobs"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
];

/// Fields that say nothing here, wherever they are.
const DRAWN: &[&str] = &[
    "uid",
    "resourceVersion",
    "generation",
    "observedGeneration",
    "creationTimestamp",
    "managedFields",
    "selfLink",
    "generateName",
    "clusterIP",
    "clusterIPs",
    "nodePort",
    "healthCheckNodePort",
    "ip",
    "addresses",
    "targetRef",
    "nodeName",
    "hostname",
    "zone",
    "hints",
    "message",
];

/// One line for each object, in order.
///
/// # Errors
/// The API can't be read now.
pub async fn state(client: &Client) -> kube::Result<Vec<String>> {
    let mut lines = Vec::new();
    for (group, version, kind, plural) in KINDS {
        let api_version = if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") };
        let resource = ApiResource {
            group: (*group).to_owned(),
            version: (*version).to_owned(),
            api_version,
            kind: (*kind).to_owned(),
            plural: (*plural).to_owned(),
        };
        let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        for object in all.list(&ListParams::default()).await?.items {
            lines.push(line(kind, &object));
        }
    }
    lines.sort();
    Ok(lines)
}

/// What is in one state and not in the other, for people.
#[must_use]
pub fn difference(left: &[String], right: &[String]) -> Vec<String> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return found,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(left), Some(right)) => left.cmp(right),
        };
        match order {
            std::cmp::Ordering::Less => found.extend(left.next().map(|line| format!("- {line}"))),
            std::cmp::Ordering::Greater => found.extend(right.next().map(|line| format!("+ {line}"))),
            std::cmp::Ordering::Equal => _ = (left.next(), right.next()),
        }
    }
}

fn line(kind: &str, object: &DynamicObject) -> String {
    let owner = object.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let name = match (&object.metadata.generate_name, owner) {
        // Those of a StatefulSet are known by their names; of others no two are told apart.
        (_, Some(owner)) if kind == "Pod" && owner.kind != "StatefulSet" => format!("{}-*", owner.name),
        (Some(prefix), _) if kind != "Pod" => format!("{prefix}*"),
        _ => object.name_any(),
    };
    let mut value = serde_json::to_value(object).expect("an object is JSON");
    if kind == "Pod" {
        value = pod(&value);
    }
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.remove("name");
        metadata.remove("namespace");
    }
    clean(&mut value);
    format!("{kind} {}/{name} {value}", object.namespace().unwrap_or_default())
}

/// Of a pod, what doesn't depend on where it runs.
fn pod(pod: &Value) -> Value {
    let list = |value: &Value, field: &str| -> Vec<Value> {
        value.as_array().into_iter().flatten().map(|entry| entry[field].clone()).collect()
    };
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut conditions: Vec<String> = conditions.map(|told| format!("{}={}", told["type"], told["status"])).collect();
    conditions.sort();
    json!({
        "labels": pod["metadata"]["labels"],
        "owners": pod["metadata"]["ownerReferences"],
        "finalizers": pod["metadata"]["finalizers"],
        "leaves": pod["metadata"].get("deletionTimestamp").is_some(),
        "images": list(&pod["spec"]["containers"], "image"),
        "bound": pod["spec"].get("nodeName").is_some(),
        "phase": pod["status"]["phase"],
        "restarts": list(&pod["status"]["containerStatuses"], "restartCount"),
        "conditions": conditions,
    })
}

/// Takes out what is drawn, and puts into order what has none.
fn clean(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !DRAWN.contains(&name.as_str()) && !name.ends_with("last-change-trigger-time"));
            fields.values_mut().for_each(clean);
        }
        Value::Array(entries) => {
            entries.iter_mut().for_each(clean);
            entries.sort_by_key(Value::to_string);
        }
        Value::String(text) if is_time(text) => *text = "(time)".to_owned(),
        Value::String(text) if is_uid(text) => *text = "(uid)".to_owned(),
        _ => {}
    }
}

fn is_time(text: &str) -> bool {
    text.len() >= 20 && text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()
}

fn is_uid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, uid: &str, time: &str, replicas: i32) -> DynamicObject {
        let object = json!({
            "metadata": {"name": name, "namespace": "a", "generateName": "x-", "uid": uid, "creationTimestamp": time,
                "labels": {"controller-uid": uid}},
            "spec": {"replicas": replicas},
        });
        serde_json::from_value(object).expect("an object")
    }

    #[test]
    fn what_is_drawn_or_timed_makes_no_difference_and_the_rest_does() {
        let (one, other) = ("11111111-aaaa-bbbb-cccc-222222222222", "33333333-aaaa-bbbb-cccc-222222222222");
        let first = line("Thing", &object("x-abcde", one, "2030-01-01T00:00:00Z", 1));
        assert_eq!(first, line("Thing", &object("x-fghij", other, "2031-02-03T04:05:06Z", 1)));
        let second = line("Thing", &object("x-abcde", one, "2030-01-01T00:00:00Z", 2));
        assert_eq!(difference(std::slice::from_ref(&first), std::slice::from_ref(&first)), Vec::<String>::new());
        let told = difference(std::slice::from_ref(&first), &[second.clone(), second.clone()]);
        assert_eq!(told, [format!("- {first}"), format!("+ {second}"), format!("+ {second}")]);
    }
}
