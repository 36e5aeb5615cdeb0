//! Both ways, and back.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::generate::{Dice, object};
use crate::schema::resources;

#[test]
fn events_change_names() {
    let core = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e" }, "involvedObject": { "kind": "Pod" },
        "message": "m", "reason": "r", "type": "Normal", "count": 2, "firstTimestamp": "2024-01-02T03:04:05Z",
        "lastTimestamp": "2024-01-02T03:04:06Z", "source": { "component": "c" }, "eventTime": null,
        "reportingComponent": "rc", "reportingInstance": "ri",
    });
    let own = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "e" }, "regarding": { "kind": "Pod" },
        "note": "m", "reason": "r", "type": "Normal", "deprecatedCount": 2,
        "deprecatedFirstTimestamp": "2024-01-02T03:04:05Z", "deprecatedLastTimestamp": "2024-01-02T03:04:06Z",
        "deprecatedSource": { "component": "c" }, "eventTime": null, "reportingController": "rc", "reportingInstance": "ri",
    });
    assert_eq!(convert(core.clone(), "events.k8s.io/v1").unwrap(), own);
    assert_eq!(convert(own, "v1").unwrap(), core);
}

fn scaler(version: &str, spec: Value, status: Value, annotations: &[(&str, &str)]) -> Value {
    let annotations: serde_json::Map<String, Value> = annotations
        .iter()
        .map(|(name, text)| (format!("autoscaling.alpha.kubernetes.io/{name}"), json!(text)))
        .collect();
    let mut metadata = json!({ "name": "h" });
    if !annotations.is_empty() {
        metadata["annotations"] = Value::Object(annotations);
    }
    let mut value = json!({ "apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler",
        "metadata": metadata, "spec": spec, "status": status });
    crate::decode::normalize(
        &mut value,
        kind_schema(&format!("autoscaling/{version}"), "HorizontalPodAutoscaler").unwrap(),
    );
    value
}

#[test]
fn autoscalers_keep_in_annotations_what_the_older_version_cannot_say() {
    let reference = json!({ "kind": "Deployment", "name": "d" });
    let cpu = |place: &str, values: Value| json!({ "type": "Resource", "resource": { "name": "cpu", place: values } });
    let memory = json!({ "type": "Resource", "resource": { "name": "memory",
        "target": { "type": "AverageValue", "averageValue": "1Gi" } } });
    let ingress = json!({ "type": "Object", "object": { "describedObject": { "kind": "Ingress", "name": "i" },
        "metric": { "name": "hits", "selector": { "matchLabels": { "a": "b" } } }, "target": { "type": "Value", "value": "10" } } });
    let queue = json!({ "type": "External", "external": { "metric": { "name": "q", "selector": { "matchLabels": { "a": "b" } } },
        "target": { "type": "AverageValue", "averageValue": "5" } } });
    let v2 = scaler(
        "v2",
        json!({ "scaleTargetRef": reference, "maxReplicas": 3, "minReplicas": 1, "behavior": { "scaleUp": { "selectPolicy": "Min" } },
            "metrics": [cpu("target", json!({ "type": "Utilization", "averageUtilization": 70 })), memory, ingress, queue] }),
        json!({ "desiredReplicas": 2, "currentReplicas": 1, "conditions": [{ "type": "AbleToScale", "status": "True", "lastTransitionTime": null }],
            "currentMetrics": [cpu("current", json!({ "averageUtilization": 50, "averageValue": "5m" }))] }),
        &[],
    );
    let v1 = convert(v2.clone(), "autoscaling/v1").unwrap();
    assert_eq!(
        v1["spec"],
        json!({ "scaleTargetRef": reference, "maxReplicas": 3, "minReplicas": 1, "targetCPUUtilizationPercentage": 70 })
    );
    assert_eq!(
        v1["status"],
        json!({ "desiredReplicas": 2, "currentReplicas": 1, "currentCPUUtilizationPercentage": 50 })
    );
    let note = |name: &str| -> Value {
        let text = v1["metadata"]["annotations"][format!("autoscaling.alpha.kubernetes.io/{name}")].as_str().unwrap();
        serde_json::from_str(text).unwrap()
    };
    assert_eq!(
        note("metrics"),
        json!([
            { "type": "Resource", "resource": { "name": "memory", "targetAverageValue": "1Gi" } },
            { "type": "Object", "object": { "target": { "kind": "Ingress", "name": "i" }, "metricName": "hits",
                "selector": { "matchLabels": { "a": "b" } }, "targetValue": "10" } },
            { "type": "External", "external": { "metricName": "q", "metricSelector": { "matchLabels": { "a": "b" } },
                "targetAverageValue": "5" } },
        ])
    );
    assert_eq!(note("behavior"), json!({ "scaleUp": { "selectPolicy": "Min" } }));
    let mut back = v2;
    // The plain amount behind a percentage is the one thing that the older version has no room for.
    back["status"]["currentMetrics"] = json!([cpu("current", json!({ "averageUtilization": 50 }))]);
    back["metadata"]["annotations"] = json!({});
    crate::decode::normalize(&mut back, kind_schema("autoscaling/v2", "HorizontalPodAutoscaler").unwrap());
    assert_eq!(convert(v1, "autoscaling/v2").unwrap(), back);
}

#[test]
fn notes_that_are_no_json_are_dropped() {
    let v1 = scaler(
        "v1",
        json!({ "maxReplicas": 3 }),
        json!({}),
        &[("metrics", "{"), ("behavior", "[]"), ("conditions", "{}")],
    );
    let v2 = convert(v1, "autoscaling/v2").unwrap();
    assert_eq!(v2["spec"].get("metrics"), None);
    assert_eq!(v2["spec"].get("behavior"), None);
    assert_eq!(v2["metadata"], json!({ "name": "h" }));
}

#[test]
fn versions_of_the_same_shape_only_change_their_name() {
    let old = json!({ "apiVersion": "networking.k8s.io/v1beta1", "kind": "IPAddress", "metadata": { "name": "a" },
        "spec": { "parentRef": { "resource": "services", "name": "s" } } });
    let mut new = old.clone();
    new["apiVersion"] = json!("networking.k8s.io/v1");
    assert_eq!(convert(old.clone(), "networking.k8s.io/v1").unwrap(), new);
    assert_eq!(convert(new.clone(), "networking.k8s.io/v1").unwrap(), new);
    assert!(matches!(convert(new.clone(), "networking.k8s.io/v9"), Err(ConvertError::Unknown { .. })));
    assert!(matches!(convert(new, "v1"), Err(ConvertError::Unknown { .. })));
    let claim = json!({ "apiVersion": "resource.k8s.io/v1beta1", "kind": "ResourceClaim", "metadata": {}, "spec": {} });
    assert!(matches!(convert(claim, "resource.k8s.io/v1"), Err(ConvertError::Unsupported { .. })));
}

#[test]
fn each_served_resource_converts_to_its_storage_version_and_back() {
    let mut pairs = 0;
    for resource in resources().iter().filter(|resource| resource.served) {
        let Some(version) = resource.storage_version else { continue };
        // Events are stored as those of core.
        let group = if resource.group == "events.k8s.io" { "" } else { resource.group };
        let stored = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        if stored == resource.api_version() {
            continue;
        }
        pairs += 1;
        let schema = kind_schema(&resource.api_version(), resource.kind).unwrap();
        let value = object(schema, &resource.api_version(), resource.kind, &mut Dice(7));
        let there = convert(value.clone(), &stored).unwrap();
        assert_eq!(convert(there, &resource.api_version()).unwrap(), value, "{}", resource.plural);
    }
    assert_eq!(pairs, 2, "events of their group, autoscalers of version 1");
}

proptest! {
    #[test]
    fn no_object_breaks_it(seed: u64) {
        for (from, kind, to) in [
            ("v1", "Event", "events.k8s.io/v1"),
            ("events.k8s.io/v1", "Event", "v1"),
            ("autoscaling/v1", "HorizontalPodAutoscaler", "autoscaling/v2"),
            ("autoscaling/v2", "HorizontalPodAutoscaler", "autoscaling/v1"),
        ] {
            let schema = kind_schema(from, kind).unwrap();
            let value = object(schema, from, kind, &mut Dice(seed));
            let converted = convert(value, to).unwrap();
            let checked = crate::decode::check(converted, kind_schema(to, kind).unwrap()).unwrap();
            prop_assert_eq!(checked.strict, Vec::new());
        }
    }
}
