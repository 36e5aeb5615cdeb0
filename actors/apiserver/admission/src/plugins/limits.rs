//! `LimitRanger`: defaults and bounds of what containers, pods and claims take.

use k3sd_objects::object::Object;
use k3sd_objects::quantity::Quantity;
use k3sd_objects::status::Status;
use serde_json::Value;

use crate::attributes::{Attributes, Operation};
use crate::lookup::{LIMIT_RANGES, Lookup};
use crate::plugins::not_ready;
use crate::pod_resources::{Side, of_containers};
use crate::read::{Amounts, amounts, at, entries, field, has, items, items_mut, map_mut, text};

/// Tells what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The ranges that apply to a request, or nothing.
fn ranges(a: &Attributes<'_>, object: &Value, lookup: &dyn Lookup) -> Result<Vec<Value>, Status> {
    let applies = match (a.is("", "pods"), a.is("", "persistentvolumeclaims"), a.subresource) {
        (true, _, "") => a.operation == Operation::Create,
        (true, _, "resize") => a.operation == Operation::Update,
        (_, true, "") => matches!(a.operation, Operation::Create | Operation::Update),
        _ => false,
    };
    // What is going may go on changing.
    if !applies || has(field(a.before(), "metadata"), "deletionTimestamp") {
        return Ok(Vec::new());
    }
    let found = lookup.cached_all(LIMIT_RANGES, a.namespace).ok_or_else(|| not_ready(a, object))?;
    Ok(found.iter().map(Object::value).collect())
}

/// Fills in defaults.
pub(crate) fn mutate(a: &Attributes<'_>, object: &mut Value, lookup: &dyn Lookup) -> Result<(), Status> {
    for range in ranges(a, object, lookup)? {
        if a.is("", "pods") {
            fill(&range, object);
        }
    }
    Ok(())
}

/// Checks bounds.
pub(crate) fn validate(a: &Attributes<'_>, object: &Value, lookup: &dyn Lookup) -> Result<(), Status> {
    for range in ranges(a, object, lookup)? {
        let faults = if a.is("", "pods") { check_pod(&range, object) } else { check_claim(&range, object) };
        if let Some(why) = aggregate(faults) {
            return Err(a.forbidden(object, why));
        }
    }
    Ok(())
}

/// One error as it is, several in brackets, none twice.
fn aggregate(mut faults: Vec<String>) -> Option<String> {
    let mut seen = std::collections::BTreeSet::new();
    faults.retain(|fault| seen.insert(fault.clone()));
    match faults.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        more => Some(format!("[{}]", more.join(", "))),
    }
}

fn limits<'r>(range: &'r Value, kind: &'static str) -> impl Iterator<Item = &'r Value> {
    items(field(range, "spec"), "limits").iter().filter(move |limit| text(limit, "type") == kind)
}

/// Gives each container the defaults that it has no own amounts for, and notes them.
fn fill(range: &Value, pod: &mut Value) {
    let defaults = |name: &str| -> Vec<(String, Value)> {
        let all = limits(range, "Container").flat_map(|limit| entries(limit, name));
        all.map(|(resource, amount)| (resource.to_owned(), amount.clone())).collect()
    };
    let (requests, maxima) = (defaults("defaultRequest"), defaults("default"));
    if requests.is_empty() && maxima.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    let Some(spec) = pod.get_mut("spec") else { return };
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        for container in items_mut(spec, list) {
            let name = text(container, "name").to_owned();
            let Some(resources) =
                container.as_object_mut().map(|fields| fields.entry("resources").or_insert(Value::Null))
            else {
                continue;
            };
            if resources.is_null() {
                *resources = Value::Object(serde_json::Map::new());
            }
            for (side, defaults) in [(Side::Requests, &requests), (Side::Limits, &maxima)] {
                let set = fill_side(resources, side, defaults);
                if !set.is_empty() {
                    let side = side.field().trim_end_matches('s');
                    notes.push(format!("{} {side} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if let Some(metadata) = map_mut(pod, "metadata").filter(|_| !notes.is_empty()) {
        let annotations = metadata.entry("annotations").or_insert(Value::Null);
        if annotations.is_null() {
            *annotations = Value::Object(serde_json::Map::new());
        }
        crate::read::set(annotations, ANNOTATION, format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

/// The names of what was set, sorted.
fn fill_side(resources: &mut Value, side: Side, defaults: &[(String, Value)]) -> Vec<String> {
    let missing = |name: &str| !has(field(resources, side.field()), name);
    let mut missing: Vec<&(String, Value)> = defaults.iter().filter(|(name, _)| missing(name)).collect();
    // Of two defaults for the same, the last one counts.
    missing.reverse();
    missing.sort_by(|a, b| a.0.cmp(&b.0));
    missing.dedup_by(|a, b| a.0 == b.0);
    if missing.is_empty() {
        return Vec::new();
    }
    let Some(map) = map_mut(resources, side.field()) else { return Vec::new() };
    for (name, amount) in &missing {
        map.insert(name.clone(), amount.clone());
    }
    missing.into_iter().map(|(name, _)| name.clone()).collect()
}

/// What is asked for by something of a type, and the bounds of that type.
struct Usage<'a> {
    kind: &'static str,
    requests: &'a Amounts,
    limits: &'a Amounts,
}

fn check_pod(range: &Value, pod: &Value) -> Vec<String> {
    let spec = field(pod, "spec");
    let mut faults = Vec::new();
    for limit in items(field(range, "spec"), "limits") {
        match text(limit, "type") {
            "Container" => {
                for container in ["containers", "initContainers"].iter().flat_map(|list| items(spec, list)) {
                    let resources = field(container, "resources");
                    let (requests, limits) = (amounts(resources, "requests"), amounts(resources, "limits"));
                    let usage = Usage { kind: "Container", requests: &requests, limits: &limits };
                    usage.check(limit, &mut faults);
                }
            }
            "Pod" => {
                let (requests, limits) = (of_containers(spec, Side::Requests), of_containers(spec, Side::Limits));
                Usage { kind: "Pod", requests: &requests, limits: &limits }.check(limit, &mut faults);
            }
            _ => {}
        }
    }
    faults
}

fn check_claim(range: &Value, claim: &Value) -> Vec<String> {
    const KIND: &str = "PersistentVolumeClaim";
    let requests = amounts(at(claim, &["spec", "resources"]), "requests");
    let usage = Usage { kind: KIND, requests: &requests, limits: &Amounts::new() };
    let mut faults = Vec::new();
    for limit in limits(range, KIND) {
        for (resource, least) in amounts(limit, "min") {
            faults.extend(usage.below(&resource, least));
        }
        for (resource, most) in amounts(limit, "max") {
            faults.extend(match requests.get(&resource) {
                None => Some(format!("maximum {resource} usage per {KIND} is {most}.  No request is specified")),
                Some(request) if *request > most => {
                    Some(format!("maximum {resource} usage per {KIND} is {most}, but request is {request}"))
                }
                Some(_) => None,
            });
        }
    }
    faults
}

impl Usage<'_> {
    fn check(&self, limit: &Value, faults: &mut Vec<String>) {
        for (resource, least) in amounts(limit, "min") {
            faults.extend(self.below(&resource, least));
        }
        for (resource, most) in amounts(limit, "max") {
            faults.extend(self.above(&resource, most));
        }
        for (resource, most) in amounts(limit, "maxLimitRequestRatio") {
            faults.extend(self.apart(&resource, most));
        }
    }

    fn below(&self, resource: &str, least: Quantity) -> Option<String> {
        let bound = format!("minimum {resource} usage per {} is {least}", self.kind);
        let Some(request) = self.requests.get(resource) else {
            return Some(format!("{bound}.  No request is specified"));
        };
        if *request < least {
            return Some(format!("{bound}, but request is {request}"));
        }
        let limit = self.limits.get(resource).filter(|limit| **limit < least)?;
        Some(format!("{bound}, but limit is {limit}"))
    }

    fn above(&self, resource: &str, most: Quantity) -> Option<String> {
        let bound = format!("maximum {resource} usage per {} is {most}", self.kind);
        let Some(limit) = self.limits.get(resource) else { return Some(format!("{bound}.  No limit is specified")) };
        if *limit > most {
            return Some(format!("{bound}, but limit is {limit}"));
        }
        let request = self.requests.get(resource).filter(|request| **request > most)?;
        Some(format!("{bound}, but request is {request}"))
    }

    fn apart(&self, resource: &str, most: Quantity) -> Option<String> {
        let bound = format!("{resource} max limit to request ratio per {} is {most}", self.kind);
        let set = |amounts: &Amounts| amounts.get(resource).copied().filter(|amount| !amount.is_zero());
        let Some(request) = set(self.requests) else {
            return Some(format!("{bound}, but no request is specified or request is 0"));
        };
        let Some(limit) = set(self.limits) else {
            return Some(format!("{bound}, but no limit is specified or limit is 0"));
        };
        let ratio = limit.to_f64() / request.to_f64();
        (ratio > most.to_f64()).then(|| format!("{bound}, but provided ratio is {ratio:.6}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(limits: Value) -> Value {
        json!({"spec": {"limits": [limits]}})
    }

    #[test]
    fn what_is_missing_is_filled_in_and_noted() {
        let range = range(json!({"type": "Container",
            "default": {"cpu": "2", "memory": "1Gi"}, "defaultRequest": {"cpu": "1", "memory": "512Mi"}}));
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "3"}}}],
            "containers": [{"name": "c"}, {"name": "d", "resources": {
                "requests": {"cpu": "1", "memory": "1"}, "limits": {"cpu": "1", "memory": "1"}}}],
        }});
        fill(&range, &mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({
            "limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "512Mi"}})
        );
        assert_eq!(pod["spec"]["initContainers"][0]["resources"]["requests"], json!({"cpu": "3", "memory": "512Mi"}));
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c; \
             memory request for init container i; cpu, memory limit for init container i"
        );
    }

    #[test]
    fn bounds_are_told_in_upstreams_words() {
        let pod = |requests: Value, limits: Value| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]}});
        for (limit, pod, faults) in [
            (
                json!({"type": "Container", "min": {"memory": "100Mi"}}),
                pod(json!({"memory": "50Mi"}), json!({})),
                Some("minimum memory usage per Container is 100Mi, but request is 50Mi"),
            ),
            (
                json!({"type": "Container", "min": {"memory": "100Mi"}}),
                pod(json!({}), json!({})),
                Some("minimum memory usage per Container is 100Mi.  No request is specified"),
            ),
            (
                json!({"type": "Container", "max": {"cpu": "1"}}),
                pod(json!({}), json!({})),
                Some("maximum cpu usage per Container is 1.  No limit is specified"),
            ),
            (
                json!({"type": "Pod", "max": {"cpu": "2"}, "min": {"cpu": "1"}}),
                pod(json!({"cpu": "500m"}), json!({"cpu": "3"})),
                Some(
                    "[minimum cpu usage per Pod is 1, but request is 500m, maximum cpu usage per Pod is 2, but limit is 3]",
                ),
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                pod(json!({"cpu": "500m"}), json!({"cpu": "2"})),
                Some("cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000"),
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                pod(json!({}), json!({"cpu": "2"})),
                Some("cpu max limit to request ratio per Container is 2, but no request is specified or request is 0"),
            ),
            (
                json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}}),
                pod(json!({"cpu": "1"}), json!({"cpu": "2000m"})),
                None,
            ),
        ] {
            assert_eq!(aggregate(check_pod(&range(limit.clone()), &pod)).as_deref(), faults, "{limit} {pod}");
        }
        let claim = json!({"spec": {"resources": {"requests": {"storage": "5Gi"}}}});
        for (limit, faults) in [
            (
                json!({"min": {"storage": "10Gi"}}),
                Some("minimum storage usage per PersistentVolumeClaim is 10Gi, but request is 5Gi"),
            ),
            (
                json!({"max": {"storage": "1Gi"}}),
                Some("maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 5Gi"),
            ),
            (
                json!({"max": {"x": "1"}}),
                Some("maximum x usage per PersistentVolumeClaim is 1.  No request is specified"),
            ),
            (json!({"min": {"storage": "1Gi"}, "max": {"storage": "9Gi"}}), None),
        ] {
            let mut limit = limit;
            limit["type"] = "PersistentVolumeClaim".into();
            assert_eq!(aggregate(check_claim(&range(limit), &claim)).as_deref(), faults);
        }
    }
}
