//! HorizontalPodAutoscalers and scales.

use k3sd_objects::names;

use super::Context;
use super::pod::check_selector;
use super::read::{At, Errors};

/// Longest look back at recommendations, in seconds.
const STABILIZATION_SECONDS_MAX: i64 = 3600;

/// Longest period of a policy, in seconds.
const PERIOD_SECONDS_MAX: i64 = 1800;

/// Types of metrics, each with the field that describes it.
const SOURCES: &[(&str, &str)] = &[
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("External", "external"),
    ("ContainerResource", "containerResource"),
];

/// What is said of a number that has to be there for something to happen.
const POSITIVE: &str = "must be greater than 0";

/// A HorizontalPodAutoscaler in its newest version.
pub(super) fn check(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    // Without the gate that allows none, one pod at least stays; metrics of pods couldn't tell when to start it again.
    if spec.number("minReplicas").is_some_and(|least| least < 1) {
        out.push(spec.invalid_number("minReplicas", "must be greater than or equal to 1"));
    }
    let most = spec.number("maxReplicas").unwrap_or_default();
    if most < 1 {
        out.push(spec.invalid_number("maxReplicas", POSITIVE));
    }
    if spec.number("minReplicas").is_some_and(|least| most < least) {
        out.push(spec.invalid_number("maxReplicas", "must be greater than or equal to `minReplicas`"));
    }
    check_target(&spec.field("scaleTargetRef"), out);
    for metric in spec.items("metrics") {
        check_metric(&metric, out);
    }
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec.field("behavior").set(direction) {
            check_scaling(&rules, out);
        }
    }
}

/// An object that is named by kind and name.
fn check_target(target: &At<'_>, out: &mut Errors) {
    for name in ["kind", "name"] {
        target.name(name, names::path_segment, out);
    }
}

fn check_metric(metric: &At<'_>, out: &mut Errors) {
    let kind = metric.text("type");
    if kind.is_empty() {
        out.push(metric.required("type", "must specify a metric source type"));
    }
    let Some((_, expected)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        if !kind.is_empty() {
            let mut supported: Vec<&str> = SOURCES.iter().map(|(name, _)| *name).collect();
            supported.sort_unstable();
            out.push(metric.unsupported("type", &supported));
        }
        return;
    };
    for (_, name) in SOURCES {
        let Some(source) = metric.set(name) else { continue };
        match *name {
            "object" => {
                check_target(&source.field("describedObject"), out);
                check_identifier(&source, out);
                check_goal(&source, &["value", "averageValue"], out);
            }
            "pods" => {
                check_identifier(&source, out);
                check_goal(&source, &["averageValue"], out);
            }
            "external" => {
                check_identifier(&source, out);
                check_goal(&source, &["value", "averageValue"], out);
            }
            _ => check_resource(&source, *name == "containerResource", out),
        }
    }
    if !metric.has(expected) {
        out.push(metric.required(expected, "must populate information for the given metric source"));
    }
    for (_, other) in SOURCES.iter().filter(|(_, name)| name != expected && metric.has(name)) {
        out.push(metric.forbidden(other, "must populate the given metric source only"));
    }
}

fn check_identifier(source: &At<'_>, out: &mut Errors) {
    let metric = source.field("metric");
    metric.name("name", names::path_segment, out);
    check_selector(&metric, "selector", out);
}

fn check_resource(source: &At<'_>, of_container: bool, out: &mut Errors) {
    if source.text("name").is_empty() {
        out.push(source.required("name", "must specify a resource name"));
    }
    if of_container && source.text("container").is_empty() {
        out.push(source.required("container", "must specify a container"));
    }
    check_goal(source, &["averageUtilization", "averageValue"], out);
}

/// What to reach: one of the fields that fit the source.
fn check_goal(source: &At<'_>, fields: &[&str], out: &mut Errors) {
    let goal = source.field("target");
    if goal.text("type").is_empty() {
        out.push(goal.required("type", "must specify a metric target type"));
    } else if !["Utilization", "Value", "AverageValue"].contains(&goal.text("type")) {
        let detail = "must be either Utilization, Value, or AverageValue";
        out.push(goal.invalid("type", detail));
    }
    if goal.number("averageUtilization").is_some_and(|percent| percent < 1) {
        out.push(goal.invalid("averageUtilization", POSITIVE));
    }
    for name in ["value", "averageValue"] {
        if goal.quantity(name).is_some_and(|amount| amount.signum() <= 0) {
            out.push(goal.invalid(name, "must be positive"));
        }
    }
    let set: Vec<&&str> = fields.iter().filter(|name| goal.has(name)).collect();
    match (set.len(), fields) {
        (0, ["averageValue"]) => {
            out.push(goal.required("averageValue", "must specify a positive target averageValue"));
        }
        (0, ["value", _]) => {
            let detail = "must set either a target value for metric or a per-pod target";
            out.push(goal.required("averageValue", detail));
        }
        (0, _) => {
            let detail = "must set either a target raw value or a target utilization";
            out.push(goal.required("averageUtilization", detail));
        }
        (2, ["averageUtilization", _]) => {
            let detail = "may not set both a target raw value and a target utilization";
            out.push(goal.forbidden("averageValue", detail));
        }
        (2, _) => {
            out.push(goal.forbidden("value", "may not set both a target value for metric and a per-pod target"));
        }
        _ => {}
    }
}

fn check_scaling(rules: &At<'_>, out: &mut Errors) {
    let window = "stabilizationWindowSeconds";
    if let Some(seconds) = rules.number(window) {
        if seconds < 0 {
            out.push(rules.invalid(window, "must be greater than or equal to zero"));
        }
        if seconds > STABILIZATION_SECONDS_MAX {
            let detail = format!("must be less than or equal to {STABILIZATION_SECONDS_MAX}");
            out.push(rules.invalid(window, detail));
        }
    }
    rules.optional_of("selectPolicy", &["Disabled", "Max", "Min"], out);
    if rules.quantity("tolerance").is_some_and(|tolerance| tolerance.signum() < 0) {
        out.push(rules.invalid("tolerance", "must be greater than or equal to 0"));
    }
    if rules.count("policies") == 0 {
        out.push(rules.required("policies", "must specify at least one Policy"));
    }
    for policy in rules.items("policies") {
        policy.one_of("type", &["Percent", "Pods"], out);
        let number = |name: &str| policy.number(name).unwrap_or_default();
        if number("value") <= 0 {
            out.push(policy.invalid_number("value", "must be greater than zero"));
        }
        if number("periodSeconds") <= 0 {
            out.push(policy.invalid_number("periodSeconds", "must be greater than zero"));
        }
        if number("periodSeconds") > PERIOD_SECONDS_MAX {
            let detail = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            out.push(policy.invalid_number("periodSeconds", detail));
        }
    }
}

/// A HorizontalPodAutoscaler that takes the place of another.
pub(super) fn update(new: &At<'_>, _: &At<'_>, context: &Context, out: &mut Errors) {
    check(new, context, out);
}

/// The status of a HorizontalPodAutoscaler.
pub(super) fn update_status(new: &At<'_>, _: &At<'_>, _: &Context, out: &mut Errors) {
    for name in ["currentReplicas", "desiredReplicas"] {
        new.field("status").not_negative(name, out);
    }
}

/// A scale, which isn't stored but read out of an object and written back into it.
pub(super) fn check_scale(scale: &At<'_>, _: &Context, out: &mut Errors) {
    scale.field("spec").not_negative("replicas", out);
}
