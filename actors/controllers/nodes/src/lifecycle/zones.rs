//! From which nodes pods are evicted, and how fast: pure.
//!
//! Many nodes that don't answer look the same as a network that is cut, behind which all pods run well. So evictions slow
//! down in a zone of which most nodes are away, and end when nobody answers at all.

use std::collections::BTreeMap;
use std::time::Duration;

use k3sd_client::controller::setup::NodesConfig;
use k3sd_runtime::Moment;
use k8s_openapi::api::core::v1::Node;

use crate::node::{NO_EXECUTE, NOT_READY, UNREACHABLE, condition, has_taint, label, name, ready};

/// Region and zone of a node.
pub(super) type Zone = (String, String);

/// Keeps a node from counting.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// The zone of a node; of the older labels only those are read for which there is no newer one.
pub(super) fn zone_of(node: &Node) -> Zone {
    let either = |new: &str, old: &str| {
        let new = label(node, new);
        if new.is_empty() { label(node, old).to_owned() } else { new.to_owned() }
    };
    (
        either("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
        either("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    )
}

/// How many nodes of a zone answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Normal,
    /// Most are away.
    Partial,
    /// None answers.
    Full,
}

fn state((answering, away): (usize, usize), config: &NodesConfig) -> State {
    #[expect(clippy::cast_precision_loss, reason = "counts of nodes are small")]
    let part = away as f64 / (answering + away).max(1) as f64;
    match (answering, away) {
        (0, 1..) => State::Full,
        (_, 3..) if part >= config.unhealthy_zone_threshold => State::Partial,
        _ => State::Normal,
    }
}

/// What is to be done about evictions.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan<'a> {
    /// Nodes from which no pod is evicted any more: nobody answers, so the fault is on this side.
    pub(super) spare: Vec<&'a Node>,
    /// Nodes that pods are evicted from as of now.
    pub(super) evict: Vec<(Zone, &'a Node)>,
    /// When it is the turn of further ones.
    pub(super) again: Option<Moment>,
}

/// Decides. `last` says when a node of each zone was chosen last.
pub(super) fn plan<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    last: &BTreeMap<Zone, Moment>,
    now: Moment,
    config: &NodesConfig,
) -> Plan<'a> {
    let mut counts: BTreeMap<Zone, (usize, usize)> = BTreeMap::new();
    let mut waiting: BTreeMap<Zone, Vec<&Node>> = BTreeMap::new();
    let mut tainted = Vec::new();
    for node in nodes {
        let zone = zone_of(node);
        let is_tainted = has_taint(node, NOT_READY, NO_EXECUTE) || has_taint(node, UNREACHABLE, NO_EXECUTE);
        if node.metadata.labels.as_ref().is_none_or(|labels| !labels.contains_key(EXCLUDED)) {
            let (answering, away) = counts.entry(zone.clone()).or_default();
            *(if ready(node) == Some("True") { answering } else { away }) += 1;
        }
        if is_tainted {
            tainted.push(node);
        } else if matches!(ready(node), Some("False" | "Unknown")) {
            waiting.entry(zone).or_default().push(node);
        }
    }
    let states: BTreeMap<&Zone, State> = counts.iter().map(|(zone, counts)| (zone, state(*counts, config))).collect();
    if !states.is_empty() && states.values().all(|state| *state == State::Full) {
        return Plan { spare: tainted, ..Plan::default() };
    }
    let mut plan = Plan::default();
    for (zone, mut nodes) in waiting {
        let (answering, away) = counts.get(&zone).copied().unwrap_or_default();
        let rate = match states.get(&zone) {
            Some(State::Partial) if answering + away > config.large_cluster_size => config.secondary_eviction_rate,
            Some(State::Partial) => 0.0,
            _ => config.eviction_rate,
        };
        let Some(pause) = pause(rate) else { continue };
        let due = last.get(&zone).map_or(now, |last| *last + pause);
        let is_several = nodes.len() > 1;
        nodes.sort_by_cached_key(|node| {
            let since = condition(node, "Ready").and_then(|ready| Some(ready.last_transition_time.as_ref()?.0));
            (since, name(node).to_owned())
        });
        if due > now {
            plan.sooner(due);
            continue;
        }
        plan.evict.extend(nodes.first().map(|node| (zone, *node)));
        if is_several {
            plan.sooner(now + pause);
        }
    }
    plan
}

impl Plan<'_> {
    fn sooner(&mut self, due: Moment) {
        self.again = Some(self.again.map_or(due, |again| again.min(due)));
    }
}

/// The time between two nodes; `None` for never.
fn pause(rate: f64) -> Option<Duration> {
    (rate > 0.0).then(|| Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX))
}
