//! Which taints of a node keep a Service away, as they would keep away the pods that K3s has there. Pure.

use k3sd_objects::decode;
use k8s_openapi::api::core::v1::{Node, Service, Taint, Toleration};

/// Further tolerations of a Service, as a list in JSON or YAML.
const ANNOTATION: &str = "svccontroller.k3s.cattle.io/tolerations";

/// What pods of DaemonSets tolerate wherever they are, and those of K3s beyond that; an empty effect is any.
const ALWAYS: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ("node-role.kubernetes.io/control-plane", "NoSchedule"),
    ("node-role.kubernetes.io/master", "NoSchedule"),
    ("CriticalAddonsOnly", ""),
];

/// The tolerations that a Service asks for.
///
/// # Errors
/// The annotation is no such list; the text is for people.
pub(crate) fn wanted(service: &Service) -> Result<Vec<Toleration>, String> {
    let annotations = service.metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|all| all.get(ANNOTATION)).filter(|text| !text.trim().is_empty()) else {
        return Ok(Vec::new());
    };
    let told = |error: &dyn std::fmt::Display| format!("{ANNOTATION}: {error}");
    let read = decode::yaml(text.as_bytes(), None).map_err(|error| told(&error))?;
    serde_json::from_value(read.value).map_err(|error| told(&error))
}

/// Whether nothing keeps a Service away from a node.
pub(crate) fn are_enough(node: &Node, wanted: &[Toleration]) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut repelling = taints.filter(|taint| taint.effect != "PreferNoSchedule");
    repelling.all(|taint| is_always(taint) || wanted.iter().any(|toleration| tolerates(toleration, taint)))
}

fn is_always(taint: &Taint) -> bool {
    ALWAYS.iter().any(|(key, effect)| taint.key == *key && (effect.is_empty() || taint.effect == *effect))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    let is_about = (key.is_empty() || key == taint.key) && (effect.is_empty() || effect == taint.effect);
    is_about
        && match text(&toleration.operator).as_str() {
            "Exists" => true,
            "" | "Equal" => text(&toleration.value) == text(&taint.value),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(taints: Value) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": "a" }, "spec": { "taints": taints } })).expect("a node")
    }

    fn service(text: &str) -> Service {
        serde_json::from_value(json!({ "metadata": { "annotations": { ANNOTATION: text } } })).expect("a service")
    }

    #[test]
    fn taints_repel_as_they_repel_pods() {
        let taint = |key: &str, value: &str, effect: &str| json!([{ "key": key, "value": value, "effect": effect }]);
        let ours = wanted(&service(
            "- {key: only, operator: Equal, value: lb, effect: NoSchedule}\n- key: any\n  operator: Exists\n",
        ));
        let ours = ours.expect("a list");
        for (taints, without, with) in [
            (json!([]), true, true),
            (taint("node-role.kubernetes.io/control-plane", "", "NoSchedule"), true, true),
            (taint("node-role.kubernetes.io/control-plane", "", "NoExecute"), false, false),
            (taint("CriticalAddonsOnly", "true", "NoExecute"), true, true),
            (taint("node.kubernetes.io/unschedulable", "", "NoSchedule"), true, true),
            (taint("node.cloudprovider.kubernetes.io/uninitialized", "true", "NoSchedule"), false, false),
            (taint("x", "", "PreferNoSchedule"), true, true),
            (taint("only", "lb", "NoSchedule"), false, true),
            (taint("only", "other", "NoSchedule"), false, false),
            (taint("only", "lb", "NoExecute"), false, false),
            (taint("any", "thing", "NoExecute"), false, true),
        ] {
            let node = node(taints.clone());
            assert_eq!((are_enough(&node, &[]), are_enough(&node, &ours)), (without, with), "{taints}");
        }
    }

    #[test]
    fn lists_are_read_from_json_and_yaml() {
        assert_eq!(wanted(&service(r#"[{"key":"a"}]"#)).expect("a list").len(), 1);
        assert_eq!(wanted(&service(" ")), Ok(Vec::new()));
        for text in ["a: b", "[", "- 1"] {
            assert!(wanted(&service(text)).expect_err(text).starts_with(ANNOTATION), "{text}");
        }
    }
}
