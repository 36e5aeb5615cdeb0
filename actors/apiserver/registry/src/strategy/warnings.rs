//! What an object says that works and should not be said any more.

use std::collections::HashSet;

use k3sd_apiserver_store::Resource;
use serde_json::Value;

use crate::meta;

/// Labels of nodes with another name: old, since when, new.
const NODE_LABELS: &[(&str, &str, &str)] = &[
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];

/// Annotations of pods with a field in their place: annotation, whether more may follow, text.
const POD_ANNOTATIONS: &[(&str, bool, &str)] = &[
    (
        "seccomp.security.alpha.kubernetes.io/pod",
        false,
        "non-functional in v1.27+; use the \"seccompProfile\" field instead",
    ),
    (
        "container.seccomp.security.alpha.kubernetes.io/",
        true,
        "non-functional in v1.27+; use the \"seccompProfile\" field instead",
    ),
    (
        "container.apparmor.security.beta.kubernetes.io/",
        true,
        "deprecated since v1.30; use the \"appArmorProfile\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", false, "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        false,
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

/// Sources of volumes that nobody serves any more.
const VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Where kinds have the pods that they make.
const TEMPLATES: &[(&str, &str, &[&str])] = &[
    ("", "replicationcontrollers", &["spec", "template"]),
    ("", "podtemplates", &["template"]),
    ("apps", "deployments", &["spec", "template"]),
    ("apps", "replicasets", &["spec", "template"]),
    ("apps", "daemonsets", &["spec", "template"]),
    ("apps", "statefulsets", &["spec", "template"]),
    ("batch", "jobs", &["spec", "template"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
];

/// Where a kind has the template of pods, if it has one.
pub(super) fn template(resource: &Resource) -> Option<&'static [&'static str]> {
    let (group, plural) = (&*resource.group, &*resource.plural);
    TEMPLATES.iter().find(|row| (row.0, row.1) == (group, plural)).map(|(.., steps)| *steps)
}

/// Adds what the client of a write should know. An update that leaves a pod as it was says nothing again.
pub(crate) fn warn(resource: &Resource, new: &Value, old: Option<&Value>, warnings: &mut Vec<String>) {
    for finalizer in meta::finalizers(new) {
        let known = finalizer.contains('/') || ["orphan", "foregroundDeletion", "kubernetes"].contains(&finalizer);
        if !known && !old.is_some_and(|old| meta::finalizers(old).any(|before| before == finalizer)) {
            warnings.push(format!(
                "metadata.finalizers: {finalizer:?}: prefer a domain-qualified finalizer name including a path (/) to avoid \
                 accidental conflicts with other finalizer writers"
            ));
        }
    }
    if (&*resource.group, &*resource.plural) == ("", "pods") {
        if old.is_none() {
            pod(new, "", warnings);
        }
        return;
    }
    let Some(steps) = template(resource) else { return };
    let Some(template) = meta::at(new, steps) else { return };
    if old.and_then(|old| meta::at(old, steps)) != Some(template) {
        pod(template, &format!("{}.", steps.join(".")), warnings);
    }
}

/// A pod or a template of pods. `place` stands before its fields.
fn pod(pod: &Value, place: &str, warnings: &mut Vec<String>) {
    let Some(spec) = pod.get("spec") else { return };
    let mut say = |path: String, text: &str| warnings.push(format!("{place}{path}: {text}"));
    let selector = spec.get("nodeSelector").and_then(Value::as_object);
    for (old, since, new) in NODE_LABELS {
        if selector.is_some_and(|selector| selector.contains_key(*old)) {
            say(format!("spec.nodeSelector[{old}]"), &format!("deprecated since {since}; use {new:?} instead"));
        }
    }
    let annotations = meta::get(pod, "annotations").and_then(Value::as_object);
    for key in annotations.into_iter().flatten().map(|(key, _)| key) {
        let row = POD_ANNOTATIONS.iter().find(|(known, is_prefix, _)| match is_prefix {
            true => key.starts_with(known),
            false => key == known,
        });
        if let Some((.., text)) = row {
            say(format!("metadata.annotations[{key}]"), text);
        }
    }
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    for (index, volume) in volumes.enumerate() {
        for (source, text) in VOLUMES {
            if volume.get(source).is_some() {
                say(format!("spec.volumes[{index}].{source}"), text);
            }
        }
    }
    repeated_variables(spec, place, warnings);
}

/// Variables that an environment names twice hide each other.
fn repeated_variables(spec: &Value, place: &str, warnings: &mut Vec<String>) {
    for list in ["initContainers", "containers"] {
        let containers = spec.get(list).and_then(Value::as_array).into_iter().flatten();
        for (at, container) in containers.enumerate() {
            let Some(env) = container.get("env").and_then(Value::as_array) else { continue };
            let mut seen = HashSet::new();
            for (index, variable) in env.iter().enumerate() {
                let name = meta::field(variable, "name");
                // A variable may be built on its earlier value.
                if seen.insert(name) || meta::field(variable, "value").contains(&format!("$({name})")) {
                    continue;
                }
                warnings.push(format!(
                    "{place}spec.{list}[{at}].env[{index}]: hides previous definition of {name:?}, which may be dropped \
                     when using apply"
                ));
            }
        }
    }
}
