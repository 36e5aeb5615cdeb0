//! `PodTopologySpread`: no domain much fuller than the others.

use std::borrow::Cow;

use super::node::tolerates_all;
use crate::config::{DefaultSpread, Profile};
use crate::pod::{PodInfo, PodMatch, Spread};
use crate::snapshot::{NodeInfo, Slot, Snapshot, Topology, ZONE_LABEL};

/// The label that names a node itself.
pub(crate) const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

const BROKEN: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

/// A domain of which no node counts.
const NOT_COUNTED: i64 = -1;

/// The constraints of a pod, and where they are from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Constraints<'a> {
    pub(crate) list: Vec<Cow<'a, Spread>>,
    /// Nodes without one of the labels count for nothing.
    pub(crate) needs_all_labels: bool,
}

/// The hard or the soft constraints of a pod; those of the profile, if it has none itself.
pub(crate) fn constraints<'a>(
    snapshot: &Snapshot,
    pod: &'a PodInfo,
    profile: &Profile,
    is_hard: bool,
) -> Constraints<'a> {
    if !pod.spread.is_empty() {
        let list = pod.spread.iter().filter(|spread| spread.is_hard == is_hard).map(Cow::Borrowed).collect();
        return Constraints { list, needs_all_labels: true };
    }
    let soft = |topology_key: &str, max_skew| Spread {
        max_skew,
        topology_key: topology_key.to_owned(),
        is_hard: false,
        selector: k3sd_objects::selector::LabelSelector::nothing(),
        min_domains: 1,
        honors_affinity: true,
        honors_taints: false,
    };
    let (mut defaults, needs_all_labels) = match &profile.default_spread {
        DefaultSpread::System if is_hard => return Constraints::default(),
        DefaultSpread::System => (vec![soft(HOSTNAME_LABEL, 3), soft(ZONE_LABEL, 5)], false),
        DefaultSpread::List(list) => (list.iter().filter(|spread| spread.is_hard == is_hard).cloned().collect(), true),
    };
    if defaults.is_empty() {
        return Constraints::default();
    }
    let Some(selector) = snapshot.owners.selector(pod) else { return Constraints::default() };
    for spread in &mut defaults {
        spread.selector = selector.clone();
    }
    Constraints { list: defaults.into_iter().map(Cow::Owned).collect(), needs_all_labels }
}

/// The pods that a constraint counts.
pub(crate) fn counted(pod: &PodInfo, spread: &Spread) -> PodMatch {
    PodMatch::live(&pod.key.namespace, spread.selector.clone())
}

/// Whether pods on a node count for a constraint.
pub(crate) fn is_eligible(pod: &PodInfo, spread: &Spread, node: &NodeInfo) -> bool {
    (!spread.honors_affinity || !pod.node.is_required() || pod.node.admits(&node.name, node.labels()))
        && (!spread.honors_taints || tolerates_all(pod, node))
}

/// Whether eligibility has to be looked at node by node.
pub(crate) fn is_selective(pod: &PodInfo, spread: &Spread) -> bool {
    spread.honors_taints || (spread.honors_affinity && pod.node.is_required())
}

#[derive(Clone, Debug)]
struct State<'a> {
    spread: Cow<'a, Spread>,
    topology: Cow<'a, Topology>,
    what: PodMatch,
    /// By domain.
    counts: Vec<i64>,
    /// What the emptiest domain has.
    least: i64,
    /// Whether the pod itself counts.
    own: i64,
}

impl State<'_> {
    fn settle(&mut self) {
        let (mut domains, mut least) = (0_usize, i64::MAX);
        for count in self.counts.iter().filter(|count| **count != NOT_COUNTED) {
            domains += 1;
            least = least.min(*count);
        }
        let wanted = usize::try_from(self.spread.min_domains).unwrap_or(0);
        self.least = if domains < wanted { 0 } else { least };
    }
}

/// How many pods are in each domain, for the hard constraints of a pod.
#[derive(Clone, Debug)]
pub(super) struct SpreadFilter<'a> {
    pod: &'a PodInfo,
    states: Vec<State<'a>>,
}

impl<'a> SpreadFilter<'a> {
    /// `None` for a pod without hard constraints.
    pub(super) fn new(snapshot: &'a Snapshot, pod: &'a PodInfo, profile: &Profile) -> Option<Self> {
        let constraints = constraints(snapshot, pod, profile, true);
        if constraints.list.is_empty() {
            return None;
        }
        let mut states: Vec<State<'a>> = Vec::new();
        for spread in constraints.list {
            let topology = snapshot.topology(&spread.topology_key);
            let what = counted(pod, &spread);
            let own = i64::from(what.all.iter().all(|selector| selector.matches(pod)));
            let counts = vec![NOT_COUNTED; topology.len()];
            states.push(State { spread, topology, what, counts, least: 0, own });
        }
        let mut filter = Self { pod, states };
        filter.count(snapshot);
        Some(filter)
    }

    fn has_all_labels(&self, slot: Slot) -> bool {
        self.states.iter().all(|state| state.topology.domain(slot).is_some())
    }

    fn count(&mut self, snapshot: &Snapshot) {
        let pods: Vec<_> = self.states.iter().map(|state| snapshot.counts(&state.what)).collect();
        let selective: Vec<_> = self.states.iter().map(|state| is_selective(self.pod, &state.spread)).collect();
        for &slot in snapshot.order() {
            if !self.has_all_labels(slot) {
                continue;
            }
            for (index, state) in self.states.iter_mut().enumerate() {
                if selective[index] && !is_eligible(self.pod, &state.spread, snapshot.node(slot)) {
                    continue;
                }
                if let Some(domain) = state.topology.domain(slot) {
                    let more = pods[index].get(slot as usize).copied().unwrap_or(0);
                    state.counts[domain] = state.counts[domain].max(0) + i64::from(more);
                }
            }
        }
        self.states.iter_mut().for_each(State::settle);
    }

    /// As if a pod came to a node, or left it.
    pub(super) fn change(&mut self, node: &NodeInfo, other: &PodInfo, delta: i64) {
        if !self.has_all_labels(node.slot) {
            return;
        }
        for state in &mut self.states {
            if !state.what.matches(other) || !is_eligible(self.pod, &state.spread, node) {
                continue;
            }
            if let Some(domain) = state.topology.domain(node.slot) {
                state.counts[domain] += delta;
                state.settle();
            }
        }
    }

    /// Why a node would break a constraint, and whether other pods could help that by going.
    pub(super) fn check(&self, node: &NodeInfo) -> Result<(), (&'static str, bool)> {
        for state in &self.states {
            let Some(domain) = state.topology.domain(node.slot) else { return Err((NO_LABEL, false)) };
            let skew = state.counts[domain].max(0) + state.own - state.least;
            if skew > i64::from(state.spread.max_skew) {
                return Err((BROKEN, true));
            }
        }
        Ok(())
    }
}
