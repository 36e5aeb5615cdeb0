//! Whether a service that answers for a version is available, in upstream's words. Pure.

use serde_json::{Value, json};

use super::table::Backend;

/// What is said of an APIService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// `True`, `False` or `Unknown`.
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Verdict {
    fn no(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    /// All checks passed.
    pub(super) fn passed() -> Self {
        Self { status: "True", reason: "Passed", message: "all checks passed".to_owned() }
    }

    /// Nobody answers as he should; `why` names the URL.
    pub(super) fn undiscovered(why: String) -> Self {
        Self::no("FailedDiscoveryCheck", why)
    }
}

/// What the objects say: `None` if nothing speaks against it. `slices` are those of the service.
pub(super) fn look(backend: &Backend, service: Option<&Value>, slices: &[Value]) -> Option<Verdict> {
    let Backend { namespace, name, port } = backend;
    let Some(service) = service else {
        let why = format!("service/{name} in \"{namespace}\" is not present");
        return Some(Verdict::no("ServiceNotFound", why));
    };
    // Others have no address in the cluster, and no endpoints that could be looked at.
    if service.pointer("/spec/type").and_then(Value::as_str).is_some_and(|kind| kind != "ClusterIP") {
        return None;
    }
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let Some(found) = ports.iter().find(|found| found["port"].as_u64() == Some(u64::from(*port))) else {
        let why = format!("service/{name} in \"{namespace}\" is not listening on port {port}");
        return Some(Verdict::no("ServicePortError", why));
    };
    if slices.is_empty() {
        let why = format!("cannot find endpointslices for service/{name} in \"{namespace}\"");
        return Some(Verdict::no("EndpointsNotFound", why));
    }
    let port_name = found["name"].as_str().unwrap_or_default();
    let has_port = |slice: &Value| {
        let ports = slice["ports"].as_array().map_or(&[][..], Vec::as_slice);
        ports.iter().any(|port| port["name"].as_str().unwrap_or_default() == port_name)
    };
    let is_ready = |endpoint: &Value| {
        endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true)
            && endpoint["addresses"].as_array().is_some_and(|addresses| !addresses.is_empty())
    };
    let has_ready = |slice: &Value| slice["endpoints"].as_array().is_some_and(|all| all.iter().any(is_ready));
    if slices.iter().any(|slice| has_port(slice) && has_ready(slice)) {
        return None;
    }
    let why =
        format!("endpoints for service/{name} in \"{namespace}\" have no addresses with port name \"{port_name}\"");
    Some(Verdict::no("MissingEndpoints", why))
}

/// Whether an APIService counts as available.
pub(super) fn is_available(object: &Value) -> bool {
    available(object).is_some_and(|condition| condition["status"] == "True")
}

fn available(object: &Value) -> Option<&Value> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Available")
}

/// The same APIService with this verdict, if it says something else now. `now` is in RFC 3339.
pub(super) fn with_verdict(object: &Value, verdict: &Verdict, now: &str) -> Option<Value> {
    let before = available(object);
    let says = |field: &str, value: &str| before.is_some_and(|condition| condition[field] == value);
    if says("status", verdict.status) && says("reason", verdict.reason) && says("message", &verdict.message) {
        return None;
    }
    let since = before.filter(|_| says("status", verdict.status)).map(|before| before["lastTransitionTime"].clone());
    let condition = json!({
        "type": "Available", "status": verdict.status, "reason": verdict.reason, "message": verdict.message,
        "lastTransitionTime": since.unwrap_or_else(|| json!(now)),
    });
    let mut object = object.clone();
    let others = object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut conditions: Vec<Value> = others.into_iter().filter(|other| other["type"] != "Available").collect();
    conditions.push(condition);
    object["status"] = json!({ "conditions": conditions });
    Some(object)
}
