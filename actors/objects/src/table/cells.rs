//! Pieces that cells are made of, and the functions that `data/columns.txt` names.

use serde_json::Value;

use crate::selector::LabelSelector;
use crate::table::{kinds, network, pods};

/// Makes a cell from an object and the time.
pub(super) type Code = fn(&Value, i64) -> Value;

/// What is shown for nothing.
pub(super) const NONE: &str = "<none>";
pub(super) const UNKNOWN: &str = "<unknown>";
pub(super) const UNSET: &str = "<unset>";

/// The function of a name in the table.
pub(super) fn code(name: &str) -> Option<Code> {
    Some(match name {
        "pod-ready" => pods::ready,
        "pod-status" => pods::status,
        "pod-restarts" => pods::restarts,
        "pod-ip" => pods::address,
        "pod-gates" => pods::gates,
        "job-status" => kinds::job_status,
        "job-completions" => kinds::job_completions,
        "job-duration" => kinds::job_duration,
        "cronjob-suspend" => kinds::cronjob_suspend,
        "cronjob-last" => kinds::cronjob_last,
        "service-cluster-ip" => network::cluster_address,
        "service-external-ip" => network::external_address,
        "service-ports" => network::service_ports,
        "ingress-hosts" => network::ingress_hosts,
        "ingress-address" => network::ingress_address,
        "ingress-ports" => network::ingress_ports,
        "ingress-class-parameters" => network::class_parameters,
        "endpoints" => network::endpoints,
        "slice-ports" => network::slice_ports,
        "slice-endpoints" => network::slice_endpoints,
        "address-parent" => network::address_parent,
        "node-status" => kinds::node_status,
        "node-roles" => kinds::node_roles,
        "node-internal-ip" => |node, _| kinds::node_address(node, "InternalIP"),
        "node-external-ip" => |node, _| kinds::node_address(node, "ExternalIP"),
        "event-last" => kinds::event_last,
        "event-first" => kinds::event_first,
        "event-object" => kinds::event_object,
        "event-subobject" => kinds::event_subobject,
        "event-source" => kinds::event_source,
        "event-message" => kinds::event_message,
        "event-count" => kinds::event_count,
        "phase" => kinds::phase,
        "volume-modes" => |volume, _| kinds::modes(&volume["spec"]["accessModes"]),
        "volume-claim" => kinds::volume_claim,
        "claim-capacity" => kinds::claim_capacity,
        "claim-modes" => kinds::claim_modes,
        "component-status" => kinds::component_status,
        "component-message" => |component, _| kinds::component_text(component, "message"),
        "component-error" => |component, _| kinds::component_text(component, "error"),
        "scaler-reference" => kinds::scaler_reference,
        "scaler-targets" => kinds::scaler_targets,
        "binding-role" => kinds::binding_role,
        "binding-users" => |binding, _| kinds::binding_subjects(binding, "User"),
        "binding-groups" => |binding, _| kinds::binding_subjects(binding, "Group"),
        "binding-accounts" => |binding, _| kinds::binding_subjects(binding, "ServiceAccount"),
        "request-duration" => kinds::request_duration,
        "request-condition" => kinds::request_condition,
        "driver-audiences" => kinds::driver_audiences,
        "revision-controller" => kinds::revision_controller,
        "quota-requests" => |quota, _| kinds::quota(quota, false),
        "quota-limits" => |quota, _| kinds::quota(quota, true),
        "param-kind" => kinds::param_kind,
        "param-ref" => kinds::param_ref,
        "missing-level" => kinds::missing_level,
        "claim-state" => kinds::claim_state,
        "service-of-api" => kinds::service_of_api,
        "api-available" => kinds::api_available,
        _ => return None,
    })
}

/// Text, a number or a boolean as text; nothing for the rest and for empty text.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

pub(super) fn str(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn items(value: &Value) -> impl DoubleEndedIterator<Item = &Value> + ExactSizeIterator {
    value.as_array().map_or(&[][..], Vec::as_slice).iter()
}

pub(super) fn texts(value: &Value) -> impl Iterator<Item = String> + use<'_> {
    items(value).filter_map(text)
}

/// Texts with something between them, or other words when there are none.
pub(super) fn join(texts: impl Iterator<Item = String>, between: &str, instead: &str) -> String {
    let joined = texts.collect::<Vec<_>>().join(between);
    if joined.is_empty() { instead.to_owned() } else { joined }
}

pub(super) fn count(value: &Value) -> usize {
    value.as_array().map_or(0, Vec::len) + value.as_object().map_or(0, serde_json::Map::len)
}

/// Labels as `key=value`, sorted.
pub(super) fn labels(value: &Value) -> String {
    let labels = value.as_object().into_iter().flatten();
    join(labels.map(|(key, value)| format!("{key}={}", str(value))), ",", NONE)
}

/// A selector in its text form; that of the oldest kinds is a map of labels.
pub(super) fn selector(value: &Value) -> String {
    let plain = value.as_object().is_some_and(|map| !map.is_empty() && map.values().all(Value::is_string));
    if plain {
        return labels(value);
    }
    match LabelSelector::from_object(Some(value).filter(|value| !value.is_null())) {
        Ok(selector) => Some(selector.to_string()).filter(|text| !text.is_empty()).unwrap_or_else(|| NONE.to_owned()),
        Err(_) => "<error>".to_owned(),
    }
}

/// The condition of a type.
pub(super) fn condition<'a>(object: &'a Value, of: &str) -> Option<&'a Value> {
    items(&object["status"]["conditions"]).find(|condition| condition["type"] == of)
}

/// The first few texts, and how many more there are.
pub(super) fn first_few(texts: &[String], max: usize) -> String {
    let shown = texts[..texts.len().min(max)].join(",");
    match texts.len().saturating_sub(max) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}
