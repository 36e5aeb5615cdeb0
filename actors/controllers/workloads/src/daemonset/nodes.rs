//! Which nodes a daemon's pod belongs on: pure.

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

use crate::support::{Labels, name};

const NAME_FIELD: &str = "metadata.name";
/// Taints that every daemon bears, and their effects.
const BORNE: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// A taint that those bear which use the node's own network.
const NO_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// Whether a pod is to be on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is to run there.
    Runs,
    /// It isn't to start there, but may go on.
    Stays,
    /// It is not to be there.
    Nowhere,
}

/// Decides about a node. `spec` is the template's, with what daemons bear.
pub(super) fn place(spec: &PodSpec, node: &Node) -> Place {
    let named = spec.node_name.as_deref().filter(|named| !named.is_empty());
    if named.is_some_and(|named| named != name(node)) || !is_selected(spec, node) {
        return Place::Nowhere;
    }
    let taints = || node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let is_borne = |taint: &Taint| spec.tolerations.iter().flatten().any(|toleration| bears(toleration, taint));
    if taints().all(|taint| taint.effect == "PreferNoSchedule" || is_borne(taint)) {
        return Place::Runs;
    }
    if taints().all(|taint| taint.effect != "NoExecute" || is_borne(taint)) { Place::Stays } else { Place::Nowhere }
}

fn bears(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        Some(_) => false,
    }
}

/// Whether the node's labels and name are those that the pod asks for.
fn is_selected(spec: &PodSpec, node: &Node) -> bool {
    let none = Labels::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    let wanted = spec.node_selector.iter().flatten();
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    wanted.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && required
            .is_none_or(|required| required.node_selector_terms.iter().any(|term| fits(term, labels, name(node))))
}

/// A term without requirements fits nothing.
fn fits(term: &NodeSelectorTerm, labels: &Labels, node: &str) -> bool {
    let expressions = || term.match_expressions.iter().flatten();
    let fields = || term.match_fields.iter().flatten();
    let has_any = expressions().chain(fields()).next().is_some();
    has_any
        && expressions().all(|wanted| holds(wanted, labels.get(&wanted.key).map(String::as_str)))
        && fields().all(|wanted| holds(wanted, (wanted.key == NAME_FIELD).then_some(node)))
}

fn holds(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = || wanted.values.iter().flatten().map(String::as_str);
    let numbers = || Some((value?.parse::<i64>().ok()?, values().next()?.parse::<i64>().ok()?));
    match wanted.operator.as_str() {
        "In" => value.is_some_and(|value| values().any(|wanted| wanted == value)),
        "NotIn" => value.is_none_or(|value| values().all(|wanted| wanted != value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// Adds the tolerations of daemons.
pub(super) fn bear(spec: &mut PodSpec) {
    let network = (spec.host_network == Some(true)).then_some(NO_NETWORK);
    for (key, effect) in BORNE.into_iter().chain(network) {
        let new = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let tolerations = spec.tolerations.get_or_insert_default();
        let is_same = |known: &&mut Toleration| {
            (&known.key, &known.operator, &known.effect) == (&new.key, &new.operator, &new.effect)
                && known.value.as_deref().unwrap_or_default().is_empty()
        };
        match tolerations.iter_mut().find(is_same) {
            Some(known) => *known = new,
            None => tolerations.push(new),
        }
    }
}

/// Has the scheduler bind a pod to this node and no other.
pub(super) fn aim(spec: &mut PodSpec, node: &str) {
    let wanted = NodeSelectorRequirement {
        key: NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![wanted]), match_expressions: None };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a pod is on, or is meant for.
pub(super) fn target(spec: &PodSpec) -> Option<&str> {
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == NAME_FIELD && field.operator == "In");
    names.find_map(|field| match field.values.as_deref() {
        Some([only]) => Some(only.as_str()),
        _ => None,
    })
}
