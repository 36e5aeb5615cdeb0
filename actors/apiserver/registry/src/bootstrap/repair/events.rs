//! Telling people, by events.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::core::Complaint;
use crate::special::read::text;

/// An event about an object. `controller` is who tells, on which machine, and `number` makes the name its own.
pub(super) fn event(about: &Value, told: &Complaint, controller: &str, host: &str, now: Timestamp) -> Value {
    let (namespace, name) = (text(about, "/metadata/namespace"), text(about, "/metadata/name"));
    // What belongs to the cluster is told of in the default namespace.
    let place = if namespace.is_empty() { "default" } else { namespace };
    let number = format!("{:x}", now.as_nanosecond());
    let mut regarding = json!({
        "apiVersion": about["apiVersion"],
        "kind": about["kind"],
        "name": name,
        "uid": about["metadata"]["uid"],
        "resourceVersion": about["metadata"]["resourceVersion"],
    });
    if !namespace.is_empty() {
        regarding["namespace"] = namespace.into();
    }
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": format!("{}.{number}", name.replace(':', "-")), "namespace": place},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        "reportingController": controller,
        "reportingInstance": format!("{controller}-{host}"),
        "action": told.action,
        "reason": told.reason,
        "regarding": regarding,
        "note": told.note,
        "type": "Warning",
    })
}
