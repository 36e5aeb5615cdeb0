//! What keeps pods running: ReplicationControllers and the kinds of `apps`.

use k3sd_objects::names;
use k3sd_objects::selector::{LabelSelector, check_label_selector};
use k3sd_objects::status::field::Error;
use serde_json::{Value, json};

use super::Context;
use super::pod::check_template;
use super::read::{At, Errors, NOT_NEGATIVE, same};

/// What is said of a template that its own selector misses.
const MISSED: &str = "`selector` does not match template `labels`";

/// Fields of a StatefulSet that may change.
const STATEFUL_SET_FIELDS: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// A selector that has to be there and to select something.
fn check_selector(spec: &At<'_>, empty: &str, out: &mut Errors) {
    let Some(selector) = spec.set("selector") else {
        out.push(spec.required("selector", ""));
        return;
    };
    out.extend(check_label_selector(selector.value, &selector.path));
    if selector.count("matchLabels") + selector.count("matchExpressions") == 0 {
        out.push(selector.invalid("", empty));
    }
}

/// The template of pods that run until they are deleted.
fn check_lasting_template(spec: &At<'_>, kind: &str, context: &Context, out: &mut Errors) {
    let template = spec.field("template");
    check_matched(spec, &template, out);
    check_template(&template, context, out);
    check_lasting(&template, kind, out);
}

/// Whether a selector finds the template's own labels.
fn check_matched(spec: &At<'_>, template: &At<'_>, out: &mut Errors) {
    let Ok(selector) = LabelSelector::from_object(Some(spec.get("selector"))) else { return };
    let labels = template.field("metadata").field("labels");
    if selector.is_everything() || selector.is_nothing() {
        return;
    }
    if !selector.matches(|key| labels.get(key).as_str()) {
        let shown = if labels.has("") { labels.value.clone() } else { Value::Object(serde_json::Map::new()) };
        out.push(Error::invalid(&template.place("metadata").child("labels"), shown, MISSED));
    }
}

/// Pods of a controller are always restarted and have no deadline. `kind` is who says so.
fn check_lasting(template: &At<'_>, kind: &str, out: &mut Errors) {
    let spec = template.field("spec");
    if spec.text("restartPolicy") != "Always" {
        out.push(spec.unsupported("restartPolicy", &["Always"]));
    }
    if spec.has("activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        out.push(spec.forbidden("activeDeadlineSeconds", detail));
    }
}

/// A number of pods, or their percentage: not negative.
fn check_portion(at: &At<'_>, name: &str, out: &mut Errors) {
    if at.get(name).is_string() {
        at.syntax(name, names::percent, out);
    } else {
        at.not_negative(name, out);
    }
}

/// A percentage of at most the whole.
fn check_whole(at: &At<'_>, name: &str, out: &mut Errors) {
    if percentage(at.get(name)).is_some_and(|percent| percent > 100) {
        out.push(at.invalid(name, "must not be greater than 100%"));
    }
}

fn percentage(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

/// Whether a portion is nothing, as a number or as a percentage.
fn is_none(at: &At<'_>, name: &str) -> bool {
    let value = at.get(name);
    percentage(value).or_else(|| value.as_i64()).unwrap_or_default() == 0
}

/// A Deployment.
pub(super) fn check_deployment(object: &At<'_>, context: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    spec.not_negative("replicas", out);
    check_selector(&spec, "empty selector is invalid for deployment", out);
    check_lasting_template(&spec, "ReplicaSet", context, out);
    check_deployment_strategy(&spec.field("strategy"), out);
    spec.not_negative("minReadySeconds", out);
    spec.not_negative("revisionHistoryLimit", out);
    let deadline = "progressDeadlineSeconds";
    if let Some(seconds) = spec.number(deadline) {
        spec.not_negative(deadline, out);
        if seconds <= spec.number("minReadySeconds").unwrap_or_default() {
            out.push(spec.invalid(deadline, "must be greater than minReadySeconds"));
        }
    }
}

fn check_deployment_strategy(strategy: &At<'_>, out: &mut Errors) {
    match strategy.text("type") {
        "Recreate" => {
            if strategy.has("rollingUpdate") {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                out.push(strategy.forbidden("rollingUpdate", detail));
            }
        }
        "RollingUpdate" => {
            let Some(rolling) = strategy.set("rollingUpdate") else {
                let detail = "this should be defaulted and never be nil";
                out.push(strategy.required("rollingUpdate", detail));
                return;
            };
            check_portion(&rolling, "maxUnavailable", out);
            check_portion(&rolling, "maxSurge", out);
            if is_none(&rolling, "maxUnavailable") && is_none(&rolling, "maxSurge") {
                out.push(rolling.invalid("maxUnavailable", "may not be 0 when `maxSurge` is 0"));
            }
            check_whole(&rolling, "maxUnavailable", out);
        }
        _ => out.push(strategy.unsupported("type", &["Recreate", "RollingUpdate"])),
    }
}

/// An object whose selector may not change.
fn with_fixed_selector(new: &At<'_>, old: &At<'_>, check: super::kinds::Check, context: &Context, out: &mut Errors) {
    check(new, context, out);
    new.field("spec").immutable(&old.field("spec"), "selector", out);
}

/// A Deployment that takes the place of another.
pub(super) fn update_deployment(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    with_fixed_selector(new, old, check_deployment, context, out);
}

/// A ReplicaSet.
pub(super) fn check_replica_set(object: &At<'_>, context: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    spec.not_negative("replicas", out);
    spec.not_negative("minReadySeconds", out);
    check_selector(&spec, "empty selector is invalid for deployment", out);
    check_lasting_template(&spec, "ReplicaSet", context, out);
}

/// A ReplicaSet that takes the place of another.
pub(super) fn update_replica_set(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    with_fixed_selector(new, old, check_replica_set, context, out);
}

/// A ReplicationController, whose selector is a map of labels.
pub(super) fn check_replication_controller(object: &At<'_>, context: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    spec.not_negative("minReadySeconds", out);
    if spec.count("selector") == 0 {
        out.push(spec.required("selector", ""));
    }
    spec.not_negative("replicas", out);
    let Some(template) = spec.set("template") else {
        out.push(spec.required("template", ""));
        return;
    };
    let labels = template.field("metadata").field("labels");
    if spec.entries("selector").any(|(key, value)| labels.get(key) != value.value) {
        let shown = if labels.has("") { labels.value.clone() } else { Value::Object(serde_json::Map::new()) };
        out.push(Error::invalid(&labels.path, shown, MISSED));
    }
    check_template(&template, context, out);
    check_lasting(&template, "ReplicationController", out);
}

/// A ReplicationController that takes the place of another.
pub(super) fn update_replication_controller(new: &At<'_>, _: &At<'_>, context: &Context, out: &mut Errors) {
    check_replication_controller(new, context, out);
}

/// A DaemonSet.
pub(super) fn check_daemon_set(object: &At<'_>, context: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    let selector = spec.field("selector");
    if selector.has("") {
        out.extend(check_label_selector(selector.value, &selector.path));
    }
    check_matched(&spec, &spec.field("template"), out);
    if selector.count("matchLabels") + selector.count("matchExpressions") == 0 {
        out.push(selector.invalid("", "empty selector is invalid for daemonset"));
    }
    check_template(&spec.field("template"), context, out);
    check_lasting(&spec.field("template"), "DaemonSet", out);
    spec.not_negative("minReadySeconds", out);
    check_daemon_strategy(&spec.field("updateStrategy"), out);
    spec.not_negative("revisionHistoryLimit", out);
}

fn check_daemon_strategy(strategy: &At<'_>, out: &mut Errors) {
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let Some(rolling) = strategy.set("rollingUpdate") else {
                out.push(strategy.required("rollingUpdate", ""));
                return;
            };
            for name in ["maxUnavailable", "maxSurge"] {
                check_portion(&rolling, name, out);
                check_whole(&rolling, name, out);
            }
            match (is_none(&rolling, "maxUnavailable"), is_none(&rolling, "maxSurge")) {
                (true, true) => out.push(rolling.invalid("maxUnavailable", "cannot be 0 when maxSurge is 0")),
                (false, false) => {
                    out.push(rolling.invalid("maxSurge", "may not be set when maxUnavailable is non-zero"));
                }
                _ => {}
            }
        }
        _ => out.push(strategy.unsupported("type", &["RollingUpdate", "OnDelete"])),
    }
}

/// A DaemonSet that takes the place of another.
pub(super) fn update_daemon_set(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    with_fixed_selector(new, old, check_daemon_set, context, out);
}

/// A StatefulSet.
pub(super) fn check_stateful_set(object: &At<'_>, context: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    spec.required_of("podManagementPolicy", &["OrderedReady", "Parallel"], out);
    check_stateful_strategy(&spec.field("updateStrategy"), out);
    if let Some(policy) = spec.set("persistentVolumeClaimRetentionPolicy") {
        for name in ["whenDeleted", "whenScaled"] {
            policy.one_of(name, &["Delete", "Retain"], out);
        }
    }
    spec.not_negative("replicas", out);
    spec.not_negative("minReadySeconds", out);
    spec.field("ordinals").not_negative("start", out);
    spec.not_negative("revisionHistoryLimit", out);
    check_selector(&spec, "empty selector is invalid for statefulset", out);
    let template = spec.field("template");
    check_matched(&spec, &template, out);
    let whole = with_claims(&spec);
    check_template(&At { value: &whole, path: template.path.clone() }, context, out);
    check_lasting(&template, "StatefulSet", out);
}

/// The template as its pods have it: each claim template is a volume of its name, also in place of another one.
fn with_claims(spec: &At<'_>) -> Value {
    let mut template = spec.get("template").clone();
    let names: Vec<&str> =
        spec.items("volumeClaimTemplates").map(|claim| claim.get("metadata")["name"].as_str().unwrap_or("")).collect();
    let Some(Value::Object(pod)) = template.get_mut("spec") else { return template };
    if names.is_empty() {
        return template;
    }
    let volumes = pod.entry("volumes").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(volumes) = volumes {
        volumes.retain(|volume| !names.contains(&volume["name"].as_str().unwrap_or("")));
        let volume = |name: &&str| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } });
        volumes.extend(names.iter().map(volume));
    }
    template
}

fn check_stateful_strategy(strategy: &At<'_>, out: &mut Errors) {
    match strategy.text("type") {
        "" => out.push(strategy.required("type", "")),
        "OnDelete" => {
            if strategy.has("rollingUpdate") {
                let detail = "only allowed for updateStrategy 'RollingUpdate'";
                out.push(strategy.invalid("rollingUpdate", detail));
            }
        }
        "RollingUpdate" => {
            if strategy.field("rollingUpdate").number("partition").unwrap_or_default() < 0 {
                out.push(strategy.field("rollingUpdate").invalid_number("partition", NOT_NEGATIVE));
            }
        }
        _ => out.push(strategy.invalid("type", "must be 'RollingUpdate' or 'OnDelete'")),
    }
}

/// A StatefulSet that takes the place of another.
pub(super) fn update_stateful_set(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check_stateful_set(new, context, out);
    let fixed = |spec: &Value| {
        let mut spec = spec.clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|name, _| !STATEFUL_SET_FIELDS.contains(&name.as_str()));
        }
        spec
    };
    let (spec, before) = (new.field("spec"), old.field("spec"));
    if !same(&fixed(spec.value), &fixed(before.value)) {
        let (last, others) = STATEFUL_SET_FIELDS.split_last().expect("there are some");
        let others: Vec<String> = others.iter().map(|name| format!("'{name}'")).collect();
        let detail = format!(
            "updates to statefulset spec for fields other than {} and '{last}' are forbidden",
            others.join(", ")
        );
        out.push(spec.forbidden("", detail));
    }
}

/// A ControllerRevision.
pub(super) fn check_controller_revision(object: &At<'_>, _: &Context, out: &mut Errors) {
    object.not_negative("revision", out);
    if !object.has("data") {
        out.push(object.required("data", "data is mandatory"));
    }
}

/// A ControllerRevision that takes the place of another.
pub(super) fn update_controller_revision(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check_controller_revision(new, context, out);
    new.immutable(old, "data", out);
}
