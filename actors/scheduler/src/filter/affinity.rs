//! `InterPodAffinity`: near to some pods, far from others, and not where others don't want it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::pod::{PodInfo, PodMatch, PodSelector, Term};
use crate::snapshot::{Carries, NodeInfo, PodCounts, Slot, Snapshot, Topology};

const NOT_NEAR: &str = "node(s) didn't match pod affinity rules";
const TOO_NEAR: &str = "node(s) didn't match pod anti-affinity rules";
const NOT_WANTED: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// The pods that a term of a pod's own means, with namespaces by name.
pub(crate) fn resolve(snapshot: &Snapshot, term: &Term) -> PodSelector {
    let namespaces = match &term.namespace_selector {
        Some(selector) if selector.is_everything() => None,
        Some(selector) => {
            let selected = snapshot.namespaces().filter(|(_, labels)| crate::labels::selects(selector, Some(labels)));
            let selected: BTreeSet<String> = selected.map(|(name, _)| name.clone()).collect();
            Some(selected.union(&term.namespaces).cloned().collect())
        }
        None => Some(term.namespaces.clone()),
    };
    PodSelector { namespaces, selector: term.selector.clone() }
}

/// The pods that one term means.
pub(crate) fn meant(snapshot: &Snapshot, term: &Term) -> PodMatch {
    PodMatch { all: vec![resolve(snapshot, term)], live_only: false }
}

/// The pods that all required terms of a pod mean.
pub(crate) fn required(snapshot: &Snapshot, pod: &PodInfo) -> Option<PodMatch> {
    let terms = &pod.affinity.required;
    let all = terms.iter().map(|term| resolve(snapshot, term)).collect();
    (!terms.is_empty()).then_some(PodMatch { all, live_only: false })
}

/// Pods by the domains of one label.
#[derive(Clone, Debug)]
struct Domains<'a> {
    key: String,
    topology: Cow<'a, Topology>,
    counts: Vec<i64>,
}

impl<'a> Domains<'a> {
    fn new(snapshot: &'a Snapshot, key: &str) -> Self {
        let topology = snapshot.topology(key);
        let counts = vec![0; topology.len()];
        Self { key: key.to_owned(), topology, counts }
    }

    fn counting(snapshot: &'a Snapshot, key: &str, pods: &PodCounts) -> Self {
        let mut domains = Self::new(snapshot, key);
        for (slot, count) in pods.iter().enumerate().filter(|(_, count)| **count > 0) {
            domains.add(Slot::try_from(slot).unwrap_or(Slot::MAX), i64::from(*count));
        }
        domains
    }

    fn add(&mut self, slot: Slot, more: i64) {
        if let Some(domain) = self.topology.domain(slot) {
            self.counts[domain] += more;
        }
    }

    /// How many are in a node's domain; `None` if it is in none.
    fn at(&self, slot: Slot) -> Option<i64> {
        self.topology.domain(slot).map(|domain| self.counts[domain])
    }

    fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count <= 0)
    }
}

/// How many of the pods that matter are in each domain.
#[derive(Clone, Debug)]
pub(super) struct AffinityFilter<'a> {
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
    required_match: Option<PodMatch>,
    required: Vec<Domains<'a>>,
    anti: Vec<(PodMatch, Domains<'a>)>,
    existing: Vec<Domains<'a>>,
}

impl<'a> AffinityFilter<'a> {
    /// `None` if neither the pod asks for anything nor somebody asks anything of it.
    pub(super) fn new(snapshot: &'a Snapshot, pod: &'a PodInfo) -> Option<Self> {
        let required_match = required(snapshot, pod);
        let mut filter =
            Self { pod, snapshot, required_match, required: Vec::new(), anti: Vec::new(), existing: Vec::new() };
        for (term, carries, slots) in snapshot.terms_about(pod) {
            if carries == Carries::AntiRequired {
                let domains = filter.existing(&term.topology_key);
                slots.iter().for_each(|(slot, count)| domains.add(*slot, i64::from(*count)));
            }
        }
        if let Some(what) = &filter.required_match {
            let pods = snapshot.counts(what);
            let terms = pod.affinity.required.iter();
            filter.required = terms.map(|term| Domains::counting(snapshot, &term.topology_key, &pods)).collect();
        }
        for term in &pod.affinity.anti_required {
            let what = meant(snapshot, term);
            let domains = Domains::counting(snapshot, &term.topology_key, &snapshot.counts(&what));
            filter.anti.push((what, domains));
        }
        let is_idle = filter.existing.is_empty() && filter.required.is_empty() && filter.anti.is_empty();
        (!is_idle).then_some(filter)
    }

    /// With nobody near, for pods that are put on nodes for the sake of the argument.
    pub(super) fn idle(snapshot: &'a Snapshot, pod: &'a PodInfo) -> Self {
        Self { pod, snapshot, required_match: None, required: Vec::new(), anti: Vec::new(), existing: Vec::new() }
    }

    fn existing(&mut self, key: &str) -> &mut Domains<'a> {
        let place = self.existing.iter().position(|domains| domains.key == key).unwrap_or_else(|| {
            self.existing.push(Domains::new(self.snapshot, key));
            self.existing.len() - 1
        });
        &mut self.existing[place]
    }

    /// As if a pod came to a node, or left it.
    pub(super) fn change(&mut self, node: &NodeInfo, other: &PodInfo, delta: i64) {
        let labels = self.snapshot.namespace_labels(&self.pod.key.namespace);
        for term in &other.affinity.anti_required {
            if term.matches(&self.pod.key.namespace, self.pod.labels(), labels) {
                self.existing(&term.topology_key).add(node.slot, delta);
            }
        }
        if self.required_match.as_ref().is_some_and(|what| what.matches(other)) {
            self.required.iter_mut().for_each(|domains| domains.add(node.slot, delta));
        }
        for (what, domains) in &mut self.anti {
            if what.matches(other) {
                domains.add(node.slot, delta);
            }
        }
    }

    /// Why a node isn't where the pod may be, and whether other pods could help that by going.
    pub(super) fn check(&self, node: &NodeInfo) -> Result<(), (&'static str, bool)> {
        if !self.is_near(node) {
            return Err((NOT_NEAR, false));
        }
        if self.anti.iter().any(|(_, domains)| domains.at(node.slot).is_some_and(|count| count > 0)) {
            return Err((TOO_NEAR, true));
        }
        if self.existing.iter().any(|domains| domains.at(node.slot).is_some_and(|count| count > 0)) {
            return Err((NOT_WANTED, true));
        }
        Ok(())
    }

    /// The first of a group that wants to be together may go anywhere, if it is one of those that it wants to be near.
    fn is_near(&self, node: &NodeInfo) -> bool {
        let mut is_near = true;
        for domains in &self.required {
            match domains.at(node.slot) {
                None => return false,
                Some(count) => is_near &= count > 0,
            }
        }
        let is_first = || {
            let means_itself = self.required_match.as_ref().is_some_and(|what| what.matches(self.pod));
            means_itself && self.required.iter().all(Domains::is_empty)
        };
        is_near || is_first()
    }
}
