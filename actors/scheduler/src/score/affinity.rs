//! `InterPodAffinity`: the more pods near that are liked, and that like the pod, the better.

use std::borrow::Cow;

use super::{SCORE_MAX, Subject};
use crate::filter::affinity::meant;
use crate::snapshot::{Carries, Slot, Topology};

/// Liking by the domains of one label.
struct Liked<'a> {
    key: &'a str,
    topology: Cow<'a, Topology>,
    sums: Vec<i64>,
}

#[derive(Default)]
struct Sums<'a>(Vec<Liked<'a>>);

impl<'a> Sums<'a> {
    fn of(&mut self, subject: Subject<'a>, key: &'a str) -> &mut Liked<'a> {
        let place = self.0.iter().position(|liked| liked.key == key).unwrap_or_else(|| {
            let topology = subject.snapshot.topology(key);
            let sums = vec![0; topology.len()];
            self.0.push(Liked { key, topology, sums });
            self.0.len() - 1
        });
        &mut self.0[place]
    }
}

impl Liked<'_> {
    fn add(&mut self, slot: Slot, more: i64) {
        if let Some(domain) = self.topology.domain(slot) {
            self.sums[domain] += more;
        }
    }
}

pub(super) fn affinity(subject: Subject<'_>) -> Option<Vec<i64>> {
    let Subject { snapshot, pod, profile, feasible } = subject;
    let mut sums = Sums::default();
    let liked = pod.affinity.preferred.iter().map(|(weight, term)| (i64::from(*weight), term));
    let disliked = pod.affinity.anti_preferred.iter().map(|(weight, term)| (-i64::from(*weight), term));
    for (weight, term) in liked.chain(disliked) {
        let counts = snapshot.counts(&meant(snapshot, term));
        let liked = sums.of(subject, &term.topology_key);
        for (slot, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            liked.add(Slot::try_from(slot).unwrap_or(Slot::MAX), weight * i64::from(*count));
        }
    }
    let has_preferences = !sums.0.is_empty();
    if has_preferences || !profile.ignores_preferred_terms_of_existing_pods {
        for (term, carries, slots) in snapshot.terms_about(pod) {
            let weight = match carries {
                Carries::Required => i64::from(profile.hard_pod_affinity_weight),
                Carries::Preferred(weight) => i64::from(weight),
                Carries::AntiRequired => 0,
            };
            if weight != 0 {
                let liked = sums.of(subject, &term.topology_key);
                slots.iter().for_each(|(slot, count)| liked.add(*slot, weight * i64::from(*count)));
            }
        }
    }
    if sums.0.is_empty() {
        return None;
    }
    let sum = |slot: &Slot| sums.0.iter().filter_map(|liked| Some(liked.sums[liked.topology.domain(*slot)?])).sum();
    let raw: Vec<i64> = feasible.iter().map(sum).collect();
    let (least, most) = (raw.iter().min().copied()?, raw.iter().max().copied()?);
    let scale = |score: i64| {
        if most == least { 0 } else { (SCORE_MAX as f64 * ((score - least) as f64 / (most - least) as f64)) as i64 }
    };
    Some(raw.into_iter().map(scale).collect())
}
