//! Cells of the other kinds that take more than a path.

use serde_json::Value;

use crate::quantity::Quantity;
use crate::table::cells::{NONE, UNKNOWN, UNSET, condition, items, join, str, text};
use crate::table::{age, human_duration, seconds_since};

fn is_condition_true(object: &Value, of: &str) -> bool {
    condition(object, of).is_some_and(|condition| condition["status"] == "True")
}

pub(super) fn job_status(job: &Value, _now: i64) -> Value {
    let ended = |of| is_condition_true(job, of);
    Value::from(if ended("Complete") {
        "Complete"
    } else if ended("Failed") {
        "Failed"
    } else if !job["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if ended("Suspended") {
        "Suspended"
    } else if ended("FailureTarget") {
        "FailureTarget"
    } else if ended("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    })
}

pub(super) fn job_completions(job: &Value, _now: i64) -> Value {
    let succeeded = job["status"]["succeeded"].as_i64().unwrap_or_default();
    Value::from(match (job["spec"]["completions"].as_i64(), job["spec"]["parallelism"].as_i64().unwrap_or_default()) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism @ 2..) => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    })
}

pub(super) fn job_duration(job: &Value, now: i64) -> Value {
    let Some(since_start) = seconds_since(&job["status"]["startTime"], now) else { return Value::from("") };
    let since_end = seconds_since(&job["status"]["completionTime"], now).unwrap_or_default();
    Value::from(human_duration(since_start.saturating_sub(since_end)))
}

pub(super) fn cronjob_suspend(job: &Value, _now: i64) -> Value {
    Value::from(match job["spec"]["suspend"].as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    })
}

pub(super) fn cronjob_last(job: &Value, now: i64) -> Value {
    let last = &job["status"]["lastScheduleTime"];
    Value::from(if last.is_null() { NONE.to_owned() } else { age(last, now) })
}

pub(super) fn node_status(node: &Value, _now: i64) -> Value {
    let ready = condition(node, "Ready");
    let mut words = vec![match ready.map(|ready| ready["status"] == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }];
    if node["spec"]["unschedulable"].as_bool().unwrap_or_default() {
        words.push("SchedulingDisabled");
    }
    Value::from(words.join(","))
}

pub(super) fn node_roles(node: &Value, _now: i64) -> Value {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let roles = labels.filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) => Some(role.to_owned()),
        None => text(value).filter(|_| key == "kubernetes.io/role"),
    });
    let mut roles: Vec<String> = roles.filter(|role| !role.is_empty()).collect();
    roles.sort();
    roles.dedup();
    Value::from(join(roles.into_iter(), ",", NONE))
}

pub(super) fn node_address(node: &Value, of: &str) -> Value {
    let found = items(&node["status"]["addresses"]).find(|address| address["type"] == of);
    Value::from(found.and_then(|address| text(&address["address"])).unwrap_or_else(|| NONE.to_owned()))
}

/// The value under the name of core's events, or that of the group of their own.
fn either<'a>(event: &'a Value, core: &str, own: &str) -> &'a Value {
    if event[core].is_null() { &event[own] } else { &event[core] }
}

/// When an event was seen first, as time since then.
fn first_seen(event: &Value, now: i64) -> String {
    let first = either(event, "firstTimestamp", "deprecatedFirstTimestamp");
    age(if first.is_null() { &event["eventTime"] } else { first }, now)
}

pub(super) fn event_first(event: &Value, now: i64) -> Value {
    Value::from(first_seen(event, now))
}

pub(super) fn event_last(event: &Value, now: i64) -> Value {
    let series = &event["series"]["lastObservedTime"];
    let last = if series.is_null() { either(event, "lastTimestamp", "deprecatedLastTimestamp") } else { series };
    Value::from(if last.is_null() { first_seen(event, now) } else { age(last, now) })
}

pub(super) fn event_object(event: &Value, _now: i64) -> Value {
    let object = either(event, "involvedObject", "regarding");
    let kind = str(&object["kind"]).to_lowercase();
    Value::from(match text(&object["name"]) {
        Some(name) => format!("{kind}/{name}"),
        None => kind,
    })
}

pub(super) fn event_subobject(event: &Value, _now: i64) -> Value {
    Value::from(str(&either(event, "involvedObject", "regarding")["fieldPath"]))
}

pub(super) fn event_source(event: &Value, _now: i64) -> Value {
    let source = either(event, "source", "deprecatedSource");
    let component =
        text(&source["component"]).or_else(|| text(either(event, "reportingComponent", "reportingController")));
    let host = text(&source["host"]).or_else(|| text(&event["reportingInstance"]));
    Value::from([component, host].into_iter().flatten().collect::<Vec<_>>().join(", "))
}

pub(super) fn event_message(event: &Value, _now: i64) -> Value {
    Value::from(str(either(event, "message", "note")).trim())
}

pub(super) fn event_count(event: &Value, _now: i64) -> Value {
    let series = event["series"]["count"].as_i64();
    let count = series.or_else(|| either(event, "count", "deprecatedCount").as_i64());
    Value::from(count.filter(|count| *count > 0).unwrap_or(1))
}

pub(super) fn phase(object: &Value, _now: i64) -> Value {
    let deleting = !object["metadata"]["deletionTimestamp"].is_null();
    Value::from(if deleting { "Terminating" } else { str(&object["status"]["phase"]) })
}

/// Ways to reach a volume, by their abbreviations, each once.
pub(super) fn modes(modes: &Value) -> Value {
    const ABBREVIATIONS: &[(&str, &str)] =
        &[("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| items(modes).any(|other| other == mode);
    let shown = ABBREVIATIONS.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| (*short).to_owned());
    Value::from(join(shown, ",", ""))
}

pub(super) fn volume_claim(volume: &Value, _now: i64) -> Value {
    let claim = &volume["spec"]["claimRef"];
    let named = || format!("{}/{}", str(&claim["namespace"]), str(&claim["name"]));
    Value::from(if claim.is_null() { String::new() } else { named() })
}

fn is_bound(claim: &Value) -> bool {
    !str(&claim["spec"]["volumeName"]).is_empty()
}

pub(super) fn claim_capacity(claim: &Value, _now: i64) -> Value {
    Value::from(if is_bound(claim) { str(&claim["status"]["capacity"]["storage"]) } else { "" })
}

pub(super) fn claim_modes(claim: &Value, _now: i64) -> Value {
    if is_bound(claim) { modes(&claim["status"]["accessModes"]) } else { Value::from("") }
}

fn health(component: &Value) -> Option<&Value> {
    items(&component["conditions"]).find(|condition| condition["type"] == "Healthy")
}

pub(super) fn component_status(component: &Value, _now: i64) -> Value {
    Value::from(match health(component).map(|health| str(&health["status"])) {
        Some("True") => "Healthy",
        Some("False") => "Unhealthy",
        _ => "Unknown",
    })
}

pub(super) fn component_text(component: &Value, field: &str) -> Value {
    Value::from(health(component).map_or("", |health| str(&health[field])))
}

pub(super) fn scaler_reference(scaler: &Value, _now: i64) -> Value {
    let target = &scaler["spec"]["scaleTargetRef"];
    Value::from(format!("{}/{}", str(&target["kind"]), str(&target["name"])))
}

/// Metrics that are shown before the rest is only counted.
const TARGETS_MAX: usize = 2;

pub(super) fn scaler_targets(scaler: &Value, _now: i64) -> Value {
    let found = &scaler["status"]["currentMetrics"];
    let all: Vec<String> =
        items(&scaler["spec"]["metrics"]).enumerate().map(|(index, metric)| target(metric, &found[index])).collect();
    if all.is_empty() {
        return Value::from(NONE);
    }
    let shown = all[..all.len().min(TARGETS_MAX)].join(", ");
    Value::from(match all.len().saturating_sub(TARGETS_MAX) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    })
}

/// One metric of an autoscaler: what it is and what it should be.
fn target(metric: &Value, found: &Value) -> String {
    let (name, average_word) = match str(&metric["type"]) {
        "External" => ("external", " (avg)"),
        "Pods" => ("pods", ""),
        "Object" => ("object", " (avg)"),
        "Resource" => ("resource", ""),
        "ContainerResource" => ("containerResource", ""),
        _ => return "<unknown type>".to_owned(),
    };
    let (wanted, current) = (&metric[name]["target"], &found[name]["current"]);
    let label = match name {
        "resource" | "containerResource" => format!("{}: ", str(&metric[name]["name"])),
        _ => String::new(),
    };
    let shown = |value: Option<String>| value.unwrap_or_else(|| UNKNOWN.to_owned());
    if let Some(average) = text(&wanted["averageValue"]) {
        return format!("{label}{}/{average}{average_word}", shown(text(&current["averageValue"])));
    }
    if let Some(value) = text(&wanted["value"]) {
        return format!("{label}{}/{value}", shown(text(&current["value"])));
    }
    let wanted = text(&wanted["averageUtilization"]).map_or_else(|| "<auto>".to_owned(), |part| format!("{part}%"));
    let current = text(&current["averageUtilization"]).map(|part| format!("{part}%"));
    format!("{label}{}/{wanted}", shown(current))
}

pub(super) fn binding_role(binding: &Value, _now: i64) -> Value {
    let role = &binding["roleRef"];
    Value::from(format!("{}/{}", str(&role["kind"]), str(&role["name"])))
}

pub(super) fn binding_subjects(binding: &Value, kind: &str) -> Value {
    let subjects = items(&binding["subjects"]).filter(|subject| subject["kind"] == kind).map(|subject| {
        let name = str(&subject["name"]);
        match kind {
            "ServiceAccount" => format!("{}/{name}", str(&subject["namespace"])),
            _ => name.to_owned(),
        }
    });
    Value::from(join(subjects, ", ", ""))
}

pub(super) fn request_duration(request: &Value, _now: i64) -> Value {
    let seconds = request["spec"]["expirationSeconds"].as_i64();
    Value::from(seconds.map_or_else(|| NONE.to_owned(), human_duration))
}

pub(super) fn request_condition(request: &Value, _now: i64) -> Value {
    let has = |of| condition(request, of).is_some();
    let mut words = Vec::new();
    if has("Denied") {
        words.push("Denied");
    } else if has("Approved") {
        words.push("Approved");
    } else {
        words.push("Pending");
    }
    if has("Failed") {
        words.push("Failed");
    }
    if !str(&request["status"]["certificate"]).is_empty() {
        words.push("Issued");
    }
    Value::from(words.join(","))
}

pub(super) fn driver_audiences(driver: &Value, _now: i64) -> Value {
    let audiences = items(&driver["spec"]["tokenRequests"]).map(|request| str(&request["audience"]).to_owned());
    Value::from(join(audiences, ",", UNSET))
}

pub(super) fn revision_controller(revision: &Value, _now: i64) -> Value {
    let owners = items(&revision["metadata"]["ownerReferences"]);
    let controller = owners.into_iter().find(|owner| owner["controller"] == true);
    Value::from(controller.map_or_else(
        || NONE.to_owned(),
        |owner| {
            let group = str(&owner["apiVersion"]).rsplit_once('/').map(|(group, _)| format!(".{group}"));
            let kind = str(&owner["kind"]).to_lowercase();
            format!("{kind}{}/{}", group.unwrap_or_default(), str(&owner["name"]))
        },
    ))
}

/// What is used and allowed of each resource: limits, or all the rest.
pub(super) fn quota(quota: &Value, limits: bool) -> Value {
    let status = &quota["status"];
    let hard = status["hard"].as_object().into_iter().flatten();
    let parts = hard.filter(|(resource, _)| resource.starts_with("limits.") == limits).map(|(resource, hard)| {
        let used = Quantity::from_json(&status["used"][resource]).unwrap_or_default();
        format!("{resource}: {used}/{}", str(hard))
    });
    Value::from(join(parts, ", ", ""))
}

pub(super) fn param_kind(policy: &Value, _now: i64) -> Value {
    let kind = &policy["spec"]["paramKind"];
    let named = || format!("{}/{}", str(&kind["apiVersion"]), str(&kind["kind"]));
    Value::from(if kind.is_null() { UNSET.to_owned() } else { named() })
}

pub(super) fn param_ref(binding: &Value, _now: i64) -> Value {
    let reference = &binding["spec"]["paramRef"];
    if reference.is_null() {
        return Value::from(UNSET);
    }
    Value::from(match text(&reference["name"]) {
        Some(name) => format!("{}/{name}", text(&reference["namespace"]).unwrap_or_else(|| "*".to_owned())),
        None => super::cells::selector(&reference["selector"]),
    })
}

pub(super) fn missing_level(flow: &Value, _now: i64) -> Value {
    Value::from(
        condition(flow, "Dangling").and_then(|condition| text(&condition["status"])).unwrap_or_else(|| "?".to_owned()),
    )
}

pub(super) fn claim_state(claim: &Value, _now: i64) -> Value {
    let mut words = Vec::new();
    if !claim["metadata"]["deletionTimestamp"].is_null() {
        words.push("deleted");
    }
    let allocated = !claim["status"]["allocation"].is_null();
    words.push(if allocated { "allocated" } else { "pending" });
    if allocated && items(&claim["status"]["reservedFor"]).len() > 0 {
        words.push("reserved");
    }
    Value::from(words.join(","))
}

pub(super) fn service_of_api(api: &Value, _now: i64) -> Value {
    let service = &api["spec"]["service"];
    let named = || format!("{}/{}", str(&service["namespace"]), str(&service["name"]));
    Value::from(if service.is_null() { "Local".to_owned() } else { named() })
}

pub(super) fn api_available(api: &Value, _now: i64) -> Value {
    let Some(available) = condition(api, "Available") else { return Value::from("Unknown") };
    let reason = text(&available["reason"]).filter(|_| available["status"] != "True");
    let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    Value::from(format!("{}{reason}", str(&available["status"])))
}

/// Whether claims that name no class get this one.
pub(super) fn is_default_class(class: &Value) -> bool {
    let annotations = &class["metadata"]["annotations"];
    let names = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    names.iter().any(|name| annotations[*name] == "true")
}
