//! What a pod asks of the pods around it.

use std::collections::BTreeSet;
use std::sync::Arc;

use k3sd_objects::selector::{LabelSelector, Operator, Requirement};
use k8s_openapi::api::core::v1 as core;

use super::PodInfo;
use crate::labels::{Labels, narrowed, selector, selects};

/// One term of pod affinity or anti-affinity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    /// Namespaces by name. Not empty unless there is a selector.
    pub namespaces: BTreeSet<String>,
    /// Namespaces by label as well.
    pub namespace_selector: Option<LabelSelector>,
    /// The pods in these namespaces.
    pub selector: LabelSelector,
    /// The label of nodes whose value makes a domain.
    pub topology_key: String,
}

impl Term {
    fn read(term: &core::PodAffinityTerm, namespace: &str, labels: Option<&Labels>) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        let same = key_requirements(term.match_label_keys.as_deref(), labels, Operator::In);
        let other = key_requirements(term.mismatch_label_keys.as_deref(), labels, Operator::NotIn);
        Self {
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().map(|source| selector(Some(source))),
            selector: narrowed(&selector(term.label_selector.as_ref()), same.chain(other)),
            topology_key: term.topology_key.clone(),
        }
    }

    /// Whether a pod is meant. `namespace_labels` are those of the pod's namespace.
    pub fn matches(&self, namespace: &str, labels: Option<&Labels>, namespace_labels: Option<&Labels>) -> bool {
        let in_namespace = self.namespaces.contains(namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| selects(selector, namespace_labels));
        in_namespace && selects(&self.selector, labels)
    }
}

/// Requirements that the values of these labels of the pod itself give.
pub(super) fn key_requirements(
    keys: Option<&[String]>,
    labels: Option<&Labels>,
    operator: Operator,
) -> impl Iterator<Item = Requirement> {
    keys.into_iter().flatten().filter_map(move |key| {
        let value = labels?.get(key)?;
        Requirement::new(key, operator, vec![value.clone()]).ok()
    })
}

/// A pod's terms of affinity to others.
#[derive(Clone, Debug, Default)]
pub struct Affinity {
    /// It has to be near pods that all of these mean.
    pub required: Vec<Arc<Term>>,
    /// It must not be near any of these.
    pub anti_required: Vec<Arc<Term>>,
    /// It likes to be near these, by weight.
    pub preferred: Vec<(i32, Arc<Term>)>,
    /// It doesn't like to be near these, by weight.
    pub anti_preferred: Vec<(i32, Arc<Term>)>,
}

impl Affinity {
    pub(super) fn read(affinity: Option<&core::Affinity>, namespace: &str, labels: Option<&Labels>) -> Self {
        let term = |term: &core::PodAffinityTerm| Arc::new(Term::read(term, namespace, labels));
        let weighted = |source: &core::WeightedPodAffinityTerm| (source.weight, term(&source.pod_affinity_term));
        let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
        let far = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        let required = near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred = near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref());
        let anti_required = far.and_then(|far| far.required_during_scheduling_ignored_during_execution.as_ref());
        let anti_preferred = far.and_then(|far| far.preferred_during_scheduling_ignored_during_execution.as_ref());
        Self {
            required: required.into_iter().flatten().map(term).collect(),
            anti_required: anti_required.into_iter().flatten().map(term).collect(),
            preferred: preferred.into_iter().flatten().map(weighted).collect(),
            anti_preferred: anti_preferred.into_iter().flatten().map(weighted).collect(),
        }
    }
}

/// Pods that are counted node by node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodMatch {
    /// A pod has to meet all of these.
    pub all: Vec<PodSelector>,
    /// Pods that are being deleted don't count.
    pub live_only: bool,
}

/// Pods of some namespaces, by label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodSelector {
    /// Namespaces; `None` is all of them.
    pub namespaces: Option<BTreeSet<String>>,
    /// Labels.
    pub selector: LabelSelector,
}

impl PodSelector {
    /// Whether a pod is selected.
    pub fn matches(&self, pod: &PodInfo) -> bool {
        let in_namespace = self.namespaces.as_ref().is_none_or(|names| names.contains(&pod.key.namespace));
        in_namespace && selects(&self.selector, pod.labels())
    }
}

impl PodMatch {
    /// The live pods of one namespace, by label.
    pub fn live(namespace: &str, selector: LabelSelector) -> Self {
        let namespaces = Some(BTreeSet::from([namespace.to_owned()]));
        Self { all: vec![PodSelector { namespaces, selector }], live_only: true }
    }

    /// Whether a pod counts.
    pub fn matches(&self, pod: &PodInfo) -> bool {
        !(self.live_only && pod.is_terminating()) && self.all.iter().all(|selector| selector.matches(pod))
    }
}
