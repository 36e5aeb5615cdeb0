//! How many pods of a kind are on each node, kept up to date pod by pod.
//!
//! Spreading and affinity ask "how many pods like these are in each zone?". Going through all pods for each decision
//! would cost more than everything else together, so whoever is asked about once is counted from then on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::index::SelectorIndex;
use super::node::{NodeInfo, Slot};
use crate::labels::Labels;
use crate::pod::{PodInfo, PodMatch, Term};

/// So many different questions are kept answered in any case; beyond them the one that wasn't asked for longest goes.
const MATCHES_MIN: usize = 512;
/// In a small cluster more are, as long as all answers together take no more than so many numbers: 32 MiB.
const COUNTS_MAX: usize = 8 * 1024 * 1024;
/// And never more than this.
const MATCHES_MAX: usize = 8192;

/// The domain of a node that has no such label.
const NO_DOMAIN: u32 = u32::MAX;

/// The domains that the values of one label make of the nodes.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    domains: HashMap<String, u32>,
    /// By slot; [`NO_DOMAIN`] without the label.
    of_slot: Vec<u32>,
}

impl Topology {
    /// The domain of the node in a slot.
    pub fn domain(&self, slot: Slot) -> Option<usize> {
        let domain = self.of_slot.get(slot as usize).copied().unwrap_or(NO_DOMAIN);
        (domain != NO_DOMAIN).then_some(domain as usize)
    }

    /// One more than the largest domain.
    pub fn len(&self) -> usize {
        self.domains.len()
    }

    /// Whether no node has the label.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    pub(super) fn set(&mut self, slot: Slot, value: Option<&str>) {
        let place = slot as usize;
        if self.of_slot.len() <= place {
            self.of_slot.resize(place + 1, NO_DOMAIN);
        }
        self.of_slot[place] = match value {
            None => NO_DOMAIN,
            Some(value) => match self.domains.get(value) {
                Some(known) => *known,
                None => {
                    let new = u32::try_from(self.domains.len()).unwrap_or(NO_DOMAIN);
                    self.domains.insert(value.to_owned(), new);
                    new
                }
            },
        };
    }

    pub(super) fn of<'a>(key: &str, nodes: impl Iterator<Item = &'a NodeInfo>) -> Self {
        let mut topology = Self::default();
        for node in nodes {
            topology.set(node.slot, node.label(key));
        }
        topology
    }
}

/// Pods by slot; slots beyond the end have none.
pub type PodCounts = Vec<u32>;

/// The pods of a node that match.
pub(super) fn count(node: &NodeInfo, what: &PodMatch) -> u32 {
    u32::try_from(node.pods.iter().filter(|pod| what.matches(pod)).count()).unwrap_or(u32::MAX)
}

/// Pods on all nodes that match.
pub(super) fn count_all<'a>(nodes: impl Iterator<Item = &'a NodeInfo>, what: &PodMatch) -> PodCounts {
    let mut counts = Vec::new();
    for node in nodes {
        add(&mut counts, node.slot, count(node, what));
    }
    counts
}

fn add(counts: &mut PodCounts, slot: Slot, more: u32) {
    let place = slot as usize;
    if counts.len() <= place {
        counts.resize(place + 1, 0);
    }
    counts[place] += more;
}

#[derive(Clone, Debug)]
struct Matched {
    counts: PodCounts,
    asked_at: u64,
}

/// The counts that are kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Matches {
    known: HashMap<Arc<PodMatch>, Matched>,
    index: SelectorIndex<Arc<PodMatch>>,
    asked: u64,
}

impl Matches {
    pub(super) fn get(&self, what: &PodMatch) -> Option<&PodCounts> {
        self.known.get(what).map(|matched| &matched.counts)
    }

    /// Keeps the counts of these pods on so many nodes from now on; `count` counts them for the first time.
    pub(super) fn keep(&mut self, what: &PodMatch, nodes: usize, count: impl FnOnce() -> PodCounts) {
        self.asked += 1;
        if let Some(matched) = self.known.get_mut(what) {
            matched.asked_at = self.asked;
            return;
        }
        if self.known.len() >= (COUNTS_MAX / nodes.max(1)).clamp(MATCHES_MIN, MATCHES_MAX) {
            self.forget_oldest();
        }
        let what = Arc::new(what.clone());
        // A match of no selectors means every pod; nobody asks for one.
        if let Some(selector) = what.all.first() {
            self.index.insert(selector.namespaces.as_ref().map(|names| names.iter()), &selector.selector, &what);
        }
        self.known.insert(what, Matched { counts: count(), asked_at: self.asked });
    }

    fn forget_oldest(&mut self) {
        let oldest = self.known.iter().min_by_key(|(_, matched)| matched.asked_at).map(|(what, _)| what.clone());
        let Some(oldest) = oldest else { return };
        self.known.remove(&oldest);
        if let Some(selector) = oldest.all.first() {
            self.index.remove(selector.namespaces.as_ref().map(|names| names.iter()), &selector.selector, &oldest);
        }
    }

    /// A pod came to a node, or left it.
    pub(super) fn changed(&mut self, slot: Slot, pod: &PodInfo, came: bool) {
        for what in self.index.of(&pod.key.namespace, pod.labels()) {
            if !what.matches(pod) {
                continue;
            }
            let Some(matched) = self.known.get_mut(what) else { continue };
            if came {
                add(&mut matched.counts, slot, 1);
            } else if let Some(count) = matched.counts.get_mut(slot as usize) {
                *count = count.saturating_sub(1);
            }
        }
    }
}

/// What a pod's term says about others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Carries {
    /// It has to be near them.
    Required,
    /// It must not be near them.
    AntiRequired,
    /// It likes (or, below zero, dislikes) to be near them, by so much.
    Preferred(i32),
}

type Carried = (Arc<Term>, Carries);

/// The terms that pods on nodes carry, each with how many carry it where.
#[derive(Clone, Debug, Default)]
pub(super) struct Carriers {
    known: HashMap<Carried, BTreeMap<Slot, u32>>,
    index: SelectorIndex<Carried>,
}

/// The namespaces that a term can mean; `None` for one that selects them by label.
fn namespaces(term: &Term) -> Option<impl Iterator<Item = &String>> {
    term.namespace_selector.is_none().then(|| term.namespaces.iter())
}

impl Carriers {
    /// The terms that mean a pod, and who carries them.
    pub(super) fn about<'a>(
        &'a self,
        pod: &'a PodInfo,
        namespace_labels: Option<&'a Labels>,
    ) -> impl Iterator<Item = (&'a Term, Carries, &'a BTreeMap<Slot, u32>)> {
        let listed = self.index.of(&pod.key.namespace, pod.labels());
        let found = listed.filter(move |(term, _)| term.matches(&pod.key.namespace, pod.labels(), namespace_labels));
        found.filter_map(|carried| Some((&*carried.0, carried.1, self.known.get(carried)?)))
    }

    /// A pod came to a node, or left it.
    pub(super) fn changed(&mut self, slot: Slot, pod: &PodInfo, came: bool) {
        for carried in carried(pod) {
            if came { self.came(slot, carried) } else { self.left(slot, &carried) }
        }
    }

    fn came(&mut self, slot: Slot, carried: Carried) {
        if let Some(slots) = self.known.get_mut(&carried) {
            *slots.entry(slot).or_default() += 1;
            return;
        }
        self.index.insert(namespaces(&carried.0), &carried.0.selector, &carried);
        self.known.insert(carried, BTreeMap::from([(slot, 1)]));
    }

    fn left(&mut self, slot: Slot, carried: &Carried) {
        let Some(slots) = self.known.get_mut(carried) else { return };
        if let Some(count) = slots.get_mut(&slot) {
            *count -= 1;
            if *count == 0 {
                slots.remove(&slot);
            }
        }
        if slots.is_empty() {
            self.known.remove(carried);
            self.index.remove(namespaces(&carried.0), &carried.0.selector, carried);
        }
    }
}

/// The terms that a pod carries.
fn carried(pod: &PodInfo) -> impl Iterator<Item = Carried> {
    let affinity = &pod.affinity;
    let required = affinity.required.iter().map(|term| (term.clone(), Carries::Required));
    let anti_required = affinity.anti_required.iter().map(|term| (term.clone(), Carries::AntiRequired));
    let preferred = affinity.preferred.iter().map(|(weight, term)| (term.clone(), Carries::Preferred(*weight)));
    let disliked = affinity.anti_preferred.iter().map(|(weight, term)| (term.clone(), Carries::Preferred(-*weight)));
    required.chain(anti_required).chain(preferred).chain(disliked)
}
