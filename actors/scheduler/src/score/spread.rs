//! `PodTopologySpread`: the emptier a node's domains, the better.

use std::borrow::Cow;

use super::{SCORE_MAX, Subject};
use crate::filter::spread::{Constraints, HOSTNAME_LABEL, constraints, counted, is_eligible, is_selective};
use crate::pod::Spread;
use crate::snapshot::{PodCounts, Slot, Topology};

/// A domain in which none of the nodes to choose from is.
const NOT_ASKED: i64 = -1;

struct State<'a> {
    spread: Cow<'a, Spread>,
    topology: Cow<'a, Topology>,
    pods: Cow<'a, PodCounts>,
    /// By domain; not used for domains of one node each.
    counts: Vec<i64>,
    /// Few domains count more, because each holds more.
    weight: f64,
}

impl State<'_> {
    fn is_by_node(&self) -> bool {
        self.spread.topology_key == HOSTNAME_LABEL
    }

    fn pods_on(&self, slot: Slot) -> i64 {
        i64::from(self.pods.get(slot as usize).copied().unwrap_or(0))
    }

    fn score(&self, slot: Slot) -> f64 {
        let Some(domain) = self.topology.domain(slot) else { return 0.0 };
        let count = if self.is_by_node() { self.pods_on(slot) } else { self.counts[domain].max(0) };
        count as f64 * self.weight + f64::from(self.spread.max_skew - 1)
    }
}

pub(super) fn spread(subject: Subject<'_>) -> Option<Vec<i64>> {
    let Subject { snapshot, pod, profile, feasible } = subject;
    let Constraints { list, needs_all_labels } = constraints(snapshot, pod, profile, false);
    if list.is_empty() {
        return None;
    }
    let mut states: Vec<State<'_>> = Vec::new();
    for spread in list {
        let topology = snapshot.topology(&spread.topology_key);
        let pods = snapshot.counts(&counted(pod, &spread));
        let counts = vec![NOT_ASKED; topology.len()];
        states.push(State { spread, topology, pods, counts, weight: 0.0 });
    }
    let is_ignored = |states: &[State<'_>], slot: Slot| {
        needs_all_labels && states.iter().any(|state| state.topology.domain(slot).is_none())
    };
    let ignored: Vec<bool> = feasible.iter().map(|slot| is_ignored(&states, *slot)).collect();
    weigh(&mut states, feasible, &ignored);
    count(subject, &mut states, |states, slot| is_ignored(states, slot));
    let raw = |(slot, ignored): (&Slot, &bool)| {
        let sum = |slot| states.iter().map(|state| state.score(slot)).sum::<f64>().round() as i64;
        (!ignored).then(|| sum(*slot))
    };
    Some(normalised(feasible.iter().zip(&ignored).map(raw).collect()))
}

/// Finds the domains to choose from, and what each constraint counts.
fn weigh(states: &mut [State<'_>], feasible: &[Slot], ignored: &[bool]) {
    let considered = ignored.iter().filter(|ignored| !**ignored).count();
    for state in states {
        let mut domains = 0;
        if state.is_by_node() {
            domains = considered;
        } else {
            for (slot, _) in feasible.iter().zip(ignored).filter(|(_, ignored)| !**ignored) {
                if let Some(domain) = state.topology.domain(*slot)
                    && state.counts[domain] == NOT_ASKED
                {
                    state.counts[domain] = 0;
                    domains += 1;
                }
            }
        }
        state.weight = (domains as f64 + 2.0).ln();
    }
}

/// Counts the pods of these domains, on all nodes.
fn count(subject: Subject<'_>, states: &mut [State<'_>], is_ignored: impl Fn(&[State<'_>], Slot) -> bool) {
    let Subject { snapshot, pod, .. } = subject;
    let selective: Vec<bool> = states.iter().map(|state| is_selective(pod, &state.spread)).collect();
    for &slot in snapshot.order() {
        if is_ignored(states, slot) {
            continue;
        }
        for (state, selective) in states.iter_mut().zip(&selective) {
            if state.is_by_node() || (*selective && !is_eligible(pod, &state.spread, snapshot.node(slot))) {
                continue;
            }
            if let Some(domain) = state.topology.domain(slot)
                && state.counts[domain] != NOT_ASKED
            {
                state.counts[domain] += state.pods_on(slot);
            }
        }
    }
}

/// The fewer the better; a node that is ignored gets nothing.
fn normalised(raw: Vec<Option<i64>>) -> Vec<i64> {
    let least = raw.iter().flatten().copied().min().unwrap_or(0);
    let most = raw.iter().flatten().copied().max().unwrap_or(0);
    let scale = |score: Option<i64>| match score {
        None => 0,
        Some(_) if most == 0 => SCORE_MAX,
        Some(score) => SCORE_MAX * (most + least - score) / most,
    };
    raw.into_iter().map(scale).collect()
}
