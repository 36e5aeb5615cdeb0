//! What several controllers ask about nodes, and how they change them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k3sd_client::controller::{Failure, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::Informer;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

/// No pod is bound to the node.
pub(crate) const NO_SCHEDULE: &str = "NoSchedule";
/// Pods that don't tolerate it are evicted.
pub(crate) const NO_EXECUTE: &str = "NoExecute";
/// Keys of taints.
pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The condition of a type.
pub(crate) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// What its condition `Ready` says: `True`, `False` or `Unknown`; `None` when nobody has said anything yet.
pub(crate) fn ready(node: &Node) -> Option<&str> {
    condition(node, "Ready").map(|ready| ready.status.as_str())
}

/// Its taints.
pub(crate) fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// Whether it has such a taint.
pub(crate) fn has_taint(node: &Node, key: &str, effect: &str) -> bool {
    taints(node).iter().any(|taint| taint.key == key && taint.effect == effect)
}

/// A taint, added now.
pub(crate) fn taint(key: &str, effect: &str, now: Timestamp) -> Taint {
    Taint { key: key.to_owned(), effect: effect.to_owned(), time_added: Some(seconds(now)), value: None }
}

/// The time as the API has it, to the second.
pub(crate) fn seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// A label, empty without it.
pub(crate) fn label<'a>(node: &'a Node, name: &str) -> &'a str {
    text(node.metadata.labels.as_ref(), name)
}

/// An annotation, empty without it.
pub(crate) fn annotation<'a>(node: &'a Node, name: &str) -> &'a str {
    text(node.metadata.annotations.as_ref(), name)
}

fn text<'a>(texts: Option<&'a BTreeMap<String, String>>, name: &str) -> &'a str {
    texts.and_then(|texts| texts.get(name)).map_or("", String::as_str)
}

/// The name.
pub(crate) fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

/// Ways in which a node may be changed: parts of the object, each as a merge patch of its kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Change {
    /// All taints.
    pub(crate) taints: Option<Vec<Taint>>,
    /// Labels that it gets.
    pub(crate) labels: BTreeMap<String, String>,
    /// What a cloud would call it.
    pub(crate) provider_id: Option<String>,
}

impl Change {
    /// Whether nothing is another.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn patch(&self, node: &Node) -> Value {
        let mut patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version}});
        if let Some(taints) = &self.taints {
            patch["spec"]["taints"] = json!(taints);
        }
        if let Some(id) = &self.provider_id {
            patch["spec"]["providerID"] = json!(id);
        }
        if !self.labels.is_empty() {
            patch["metadata"]["labels"] = json!(self.labels);
        }
        patch
    }
}

/// Changes a node, if it is still what was read.
pub(crate) async fn change(
    api: &Api<Node>,
    node: &Node,
    change: &Change,
    nodes: &Informer<Node>,
    turn: &mut Turn,
) -> Result<Node, Failure> {
    let written = api.patch(name(node), &PatchParams::default(), &Patch::Merge(change.patch(node))).await?;
    turn.wrote(nodes, &written);
    Ok(written)
}

/// Says that a node's state is another.
pub(crate) fn record_status(recorder: &Recorder, node: &Node, status: &str) {
    recorder.normal(node, status, format!("Node {} status is now: {status}", name(node)));
}

/// Says what a controller has to do with a node.
pub(crate) fn record_event(recorder: &Recorder, node: &Node, reason: &str, event: &str) {
    recorder.normal(node, reason, format!("Node {} event: {event}", name(node)));
}
