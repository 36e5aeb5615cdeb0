//! Autoscalers: version 1 knows one metric, the load of processors. It keeps the others, and whatever else version 2 has,
//! as JSON in annotations.

use serde_json::{Map, Value, json};

type Fields = Map<String, Value>;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

pub(super) fn to_v2(scaler: &mut Fields) {
    let metrics = take_annotation(scaler, METRICS);
    let current = take_annotation(scaler, CURRENT_METRICS);
    let conditions = take_annotation(scaler, CONDITIONS);
    let behavior = take_annotation(scaler, BEHAVIOR);
    if let Some(spec) = scaler.get_mut("spec").and_then(Value::as_object_mut) {
        let load = spec.remove("targetCPUUtilizationPercentage");
        let load = load.map(|load| cpu("target", json!({ "type": "Utilization", "averageUtilization": load })));
        put_list(spec, "metrics", load, metrics, |metric| source_to_v2(metric, Side::Wanted));
        if let Some(behavior) = behavior.filter(Value::is_object) {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if let Some(status) = scaler.get_mut("status").and_then(Value::as_object_mut) {
        let load = status.remove("currentCPUUtilizationPercentage");
        let load = load.map(|load| cpu("current", json!({ "averageUtilization": load })));
        put_list(status, "currentMetrics", load, current, |metric| source_to_v2(metric, Side::Found));
        if let Some(conditions) = conditions.filter(Value::is_array) {
            status.insert("conditions".to_owned(), conditions);
        }
    }
}

pub(super) fn to_v1(scaler: &mut Fields) {
    let mut notes = Vec::new();
    if let Some(spec) = scaler.get_mut("spec").and_then(Value::as_object_mut) {
        let (load, rest) = split_list(spec.remove("metrics"), "target", Side::Wanted);
        insert(spec, "targetCPUUtilizationPercentage", load);
        notes.push((METRICS, rest));
        notes.push((BEHAVIOR, spec.remove("behavior")));
    }
    if let Some(status) = scaler.get_mut("status").and_then(Value::as_object_mut) {
        let (load, rest) = split_list(status.remove("currentMetrics"), "current", Side::Found);
        insert(status, "currentCPUUtilizationPercentage", load);
        notes.push((CURRENT_METRICS, rest));
        let conditions =
            status.remove("conditions").filter(|list| list.as_array().is_some_and(|list| !list.is_empty()));
        notes.push((CONDITIONS, conditions));
    }
    let annotations = scaler.entry("metadata").or_insert_with(|| json!({})).as_object_mut();
    let annotations = annotations.map(|metadata| metadata.entry("annotations").or_insert_with(|| json!({})));
    let Some(annotations) = annotations.and_then(Value::as_object_mut) else { return };
    for (name, value) in notes {
        if let Some(value) = value {
            annotations.insert(name.to_owned(), Value::String(value.to_string()));
        }
    }
}

/// What a metric should be, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Wanted,
    Found,
}

impl Side {
    /// Where version 2 has the values.
    fn place(self) -> &'static str {
        if self == Self::Wanted { "target" } else { "current" }
    }

    /// The names of version 1 for utilization, average and value. What is found of objects has an average of its own name.
    fn names(self) -> [(&'static str, &'static str); 3] {
        match self {
            Self::Wanted => [
                ("targetAverageUtilization", "averageUtilization"),
                ("targetAverageValue", "averageValue"),
                ("targetValue", "value"),
            ],
            Self::Found => [
                ("currentAverageUtilization", "averageUtilization"),
                ("currentAverageValue", "averageValue"),
                ("currentValue", "value"),
            ],
        }
    }
}

fn cpu(place: &str, values: Value) -> Value {
    json!({ "type": "Resource", "resource": { "name": "cpu", place: values } })
}

fn insert(map: &mut Fields, field: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(field.to_owned(), value);
    }
}

/// Takes JSON out of an annotation. What is no JSON is dropped, since nobody but us writes it.
fn take_annotation(scaler: &mut Fields, name: &str) -> Option<Value> {
    let annotations = scaler.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(name)?;
    let decoded = crate::decode::json(text.as_str()?.as_bytes(), None).ok()?;
    Some(decoded.value)
}

fn put_list(map: &mut Fields, field: &str, first: Option<Value>, rest: Option<Value>, change: impl Fn(&mut Fields)) {
    let mut list: Vec<Value> = first.into_iter().collect();
    if let Some(Value::Array(rest)) = rest {
        list.extend(rest);
    }
    if list.is_empty() {
        return;
    }
    list.iter_mut().filter_map(Value::as_object_mut).for_each(change);
    map.insert(field.to_owned(), Value::Array(list));
}

/// The load of processors, and the other metrics in the words of version 1.
fn split_list(list: Option<Value>, place: &str, side: Side) -> (Option<Value>, Option<Value>) {
    let Some(Value::Array(mut list)) = list else { return (None, None) };
    let is_load = |metric: &Value| {
        let resource = &metric["resource"];
        metric["type"] == "Resource" && resource["name"] == "cpu" && resource[place]["averageUtilization"].is_number()
    };
    let load = list.iter().position(is_load).map(|at| list.remove(at)["resource"][place]["averageUtilization"].clone());
    list.iter_mut().filter_map(Value::as_object_mut).for_each(|metric| source_to_v1(metric, side));
    (load, (!list.is_empty()).then_some(Value::Array(list)))
}

/// The part of a metric that says where it comes from; its name follows from the type.
fn source(metric: &mut Fields) -> Option<(&'static str, &mut Fields)> {
    let name = match metric.get("type")?.as_str()? {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "External" => "external",
        _ => return None,
    };
    Some((name, metric.get_mut(name)?.as_object_mut()?))
}

/// The name of the selector of version 1.
fn selector_of(kind: &str) -> &'static str {
    if kind == "external" { "metricSelector" } else { "selector" }
}

fn source_to_v2(metric: &mut Fields, side: Side) {
    let Some((kind, source)) = source(metric) else { return };
    if source.contains_key(side.place()) && kind != "object" {
        // It is in the words of version 2 already: the load that was put in before.
        return;
    }
    let mut values = Fields::new();
    for (old, new) in side.names() {
        insert(&mut values, new, source.remove(old));
    }
    if kind == "object" {
        // There the average has one name on both sides, and `target` is the object.
        insert(&mut values, "averageValue", source.remove("averageValue"));
        let object = source.remove("target");
        insert(source, "describedObject", object);
    }
    if let Some(name) = source.remove("metricName") {
        let mut identifier = Fields::new();
        identifier.insert("name".to_owned(), name);
        insert(&mut identifier, "selector", source.remove(selector_of(kind)));
        source.insert("metric".to_owned(), Value::Object(identifier));
    }
    if side == Side::Wanted {
        let form = ["averageUtilization", "averageValue", "value"].into_iter().find(|name| {
            // Zero is what version 1 writes for a value that is not meant.
            values.get(*name).is_some_and(|value| *value != json!("0"))
        });
        let form = match form {
            Some("averageUtilization") => "Utilization",
            Some("averageValue") => "AverageValue",
            _ => "Value",
        };
        if form == "AverageValue" {
            values.remove("value");
        }
        values.insert("type".to_owned(), Value::from(form));
    }
    source.insert(side.place().to_owned(), Value::Object(values));
}

fn source_to_v1(metric: &mut Fields, side: Side) {
    let Some((kind, source)) = source(metric) else { return };
    let Some(Value::Object(mut values)) = source.remove(side.place()) else { return };
    for (old, new) in side.names() {
        let old = if kind == "object" && new == "averageValue" { "averageValue" } else { old };
        insert(source, old, values.remove(new));
    }
    if kind == "object" {
        let object = source.remove("describedObject");
        insert(source, "target", object);
        let value = side.names()[2].0;
        // Version 1 always has the value.
        source.entry(value).or_insert_with(|| json!("0"));
    }
    if let Some(Value::Object(mut identifier)) = source.remove("metric") {
        insert(source, "metricName", identifier.remove("name"));
        insert(source, selector_of(kind), identifier.remove("selector"));
    }
}
