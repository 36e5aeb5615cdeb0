//! Pods that wait for a node: pure, time is passed in.
//!
//! ```text
//! added ─▶ active ── pop ─▶ in flight ─┬─ bound: done
//!   │        ▲  ▲                      ├─ failed: back-off
//!   │ gates  │  └── back-off ◀─────────┤    (something happened meanwhile that may help)
//!   ▼ open   │         ▲ may help      │
//! gated ─────┘         └─ unschedulable ◀ no node
//! ```
//!
//! Active pods are tried by priority, then by age. A pod that found no node waits until something happens that may change
//! what refused it, or for five minutes.

mod event;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::Moment;

pub use self::event::ClusterEvent;
use self::event::asks_less;
use crate::config::Backoff;
use crate::plugin::{Plugin, PluginSet};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// After so long without any event that may help, a pod is tried again all the same.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(5 * 60);
/// So many events are remembered for pods in flight; those that began before the oldest are tried again in any case.
const EVENTS_MAX: usize = 10_000;

/// Where a pod waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To be tried next.
    Active,
    /// For its back-off to end.
    Backoff(Moment),
    /// For something to happen.
    Unschedulable,
    /// For its gates to open.
    Gated,
    /// For nothing: it is being decided about or bound.
    InFlight,
}

type Order = (Reverse<i32>, Moment, u64);

#[derive(Clone, Debug)]
struct Waiting {
    pod: Arc<PodInfo>,
    place: Place,
    /// Since when it waits; the older goes first.
    since: Moment,
    /// Breaks ties of time.
    number: u64,
    /// Vain tries, for the back-off.
    tries: u32,
    /// The last try ended in an error, and not in a refusal.
    failed: bool,
    refused_by: PluginSet,
    /// It changed while it was in flight.
    changed: bool,
}

impl Waiting {
    fn order(&self) -> Order {
        (Reverse(self.pod.priority), self.since, self.number)
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Queue {
    waits: Backoff,
    pods: BTreeMap<String, Waiting>,
    active: BTreeMap<Order, String>,
    backoff: BTreeSet<(Moment, String)>,
    /// Oldest first, for the longest wait.
    unschedulable: BTreeSet<(Moment, String)>,
    /// When each pod in flight began, as the number of the next event then.
    in_flight: BTreeMap<String, u64>,
    events: VecDeque<ClusterEvent>,
    /// The number of the first of `events`.
    events_from: u64,
    numbers: u64,
}

impl Queue {
    /// An empty one.
    pub fn new(waits: Backoff) -> Self {
        Self { waits, ..Self::default() }
    }

    /// How many pods wait, in flight or not.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Where a pod waits.
    pub fn place(&self, uid: &str) -> Option<Place> {
        self.pods.get(uid).map(|waiting| waiting.place)
    }

    /// The uids of all.
    pub fn uids(&self) -> impl Iterator<Item = &String> {
        self.pods.keys()
    }

    /// A pod as it was last seen.
    pub fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|waiting| &waiting.pod)
    }

    /// Takes a pod in, or what has become of it.
    pub fn apply(&mut self, pod: Arc<PodInfo>, now: Moment) {
        let uid = pod.uid.clone();
        let Some(waiting) = self.pods.get_mut(&uid) else {
            self.numbers += 1;
            let place = if pod.is_gated() { Place::Gated } else { Place::Active };
            let waiting = Waiting {
                pod,
                place: Place::InFlight,
                since: now,
                number: self.numbers,
                tries: 0,
                failed: false,
                refused_by: PluginSet::default(),
                changed: false,
            };
            self.pods.insert(uid.clone(), waiting);
            self.put(&uid, place);
            return;
        };
        let place = waiting.place;
        let helps = own_change_helps(waiting, &pod);
        if place == Place::InFlight {
            waiting.changed |= helps;
            waiting.pod = pod;
            return;
        }
        self.take_out(&uid);
        let Some(waiting) = self.pods.get_mut(&uid) else { return };
        waiting.pod = pod;
        let is_gated = waiting.pod.is_gated();
        let next = match place {
            Place::Gated if !is_gated => Place::Active,
            Place::Unschedulable if helps => self.after_backoff(&uid, now),
            other => other,
        };
        self.put(&uid, next);
    }

    /// Forgets a pod: it is gone, or has a node.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        self.take_out(uid);
        self.land(uid);
        self.pods.remove(uid).map(|waiting| waiting.pod)
    }

    /// The next pod to try; it is in flight from now on. When none is active, one whose back-off isn't over is tried.
    pub fn pop(&mut self, now: Moment) -> Option<Arc<PodInfo>> {
        self.wake(now);
        let uid = match self.active.first_key_value() {
            Some((_, uid)) => uid.clone(),
            None => self.early()?,
        };
        self.take_out(&uid);
        self.in_flight.insert(uid.clone(), self.events_from + self.events.len() as u64);
        let waiting = self.pods.get_mut(&uid)?;
        waiting.changed = false;
        Some(waiting.pod.clone())
    }

    /// One that waits for its back-off only because of refusals, and not of errors.
    fn early(&self) -> Option<String> {
        let refused = |uid: &&String| self.pods.get(*uid).is_some_and(|waiting| !waiting.failed);
        self.backoff.iter().map(|(_, uid)| uid).find(refused).cloned()
    }

    /// A pod found no node, and these said so.
    pub fn refused(&mut self, uid: &str, by: PluginSet, snapshot: &Snapshot, now: Moment) {
        let began = self.in_flight.get(uid).copied();
        let Some(waiting) = self.pods.get_mut(uid) else { return self.land(uid) };
        (waiting.since, waiting.refused_by, waiting.failed) = (now, by, false);
        waiting.tries = waiting.tries.saturating_add(1);
        let pod = waiting.pod.clone();
        let is_gated = pod.is_gated();
        let missed = began.is_none_or(|began| began < self.events_from);
        let skip = usize::try_from(began.unwrap_or(0).saturating_sub(self.events_from)).unwrap_or(0);
        let helped = || self.events.iter().skip(skip).any(|event| may_help(event, by, &pod, snapshot));
        let tries_again = waiting.changed || missed || helped();
        self.land(uid);
        let place = match () {
            () if is_gated => Place::Gated,
            () if tries_again => self.after_backoff(uid, now),
            () => Place::Unschedulable,
        };
        self.put(uid, place);
    }

    /// Something went wrong with a pod that had a node, or might have had one; it is tried again after a while.
    pub fn failed(&mut self, uid: &str, now: Moment) {
        self.land(uid);
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        (waiting.since, waiting.refused_by, waiting.failed) = (now, PluginSet::default(), true);
        waiting.tries = waiting.tries.saturating_add(1);
        let place = self.after_backoff(uid, now);
        self.put(uid, place);
    }

    /// Something happened: pods that it may help are tried again.
    pub fn happened(&mut self, event: ClusterEvent, snapshot: &Snapshot, now: Moment) {
        let concerns = event.concerns();
        let mut helped = Vec::new();
        for (_, uid) in &self.unschedulable {
            let Some(waiting) = self.pods.get(uid) else { continue };
            let is_concerned =
                waiting.refused_by.is_empty() || waiting.refused_by.iter().any(|by| concerns.contains(by));
            if is_concerned && may_help(&event, waiting.refused_by, &waiting.pod, snapshot) {
                helped.push(uid.clone());
            }
        }
        for uid in helped {
            self.take_out(&uid);
            let place = self.after_backoff(&uid, now);
            self.put(&uid, place);
        }
        if !self.in_flight.is_empty() {
            self.events.push_back(event);
            if self.events.len() > EVENTS_MAX {
                self.events.pop_front();
                self.events_from += 1;
            }
        }
    }

    /// Moves those whose wait is over.
    pub fn wake(&mut self, now: Moment) {
        while let Some((due, uid)) = self.backoff.first().cloned() {
            if due > now {
                break;
            }
            self.take_out(&uid);
            self.put(&uid, Place::Active);
        }
        while let Some((since, uid)) = self.unschedulable.first().cloned() {
            if since + UNSCHEDULABLE_MAX > now {
                break;
            }
            self.take_out(&uid);
            let place = self.after_backoff(&uid, now);
            self.put(&uid, place);
        }
    }

    /// Whether a pod can be tried now.
    pub fn is_ready(&self) -> bool {
        !self.active.is_empty() || self.early().is_some()
    }

    /// When [`Self::wake`] has something to do next.
    pub fn next_wake(&self) -> Option<Moment> {
        let backoff = self.backoff.first().map(|(due, _)| *due);
        let longest = self.unschedulable.first().map(|(since, _)| *since + UNSCHEDULABLE_MAX);
        backoff.into_iter().chain(longest).min()
    }

    /// Where a pod belongs that is worth another try.
    fn after_backoff(&self, uid: &str, now: Moment) -> Place {
        let Some(waiting) = self.pods.get(uid) else { return Place::Active };
        let due = waiting.since + self.waits.after(waiting.tries);
        if due > now { Place::Backoff(due) } else { Place::Active }
    }

    fn put(&mut self, uid: &str, place: Place) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        waiting.place = place;
        let uid = uid.to_owned();
        match place {
            Place::Active => {
                self.active.insert(waiting.order(), uid);
            }
            Place::Backoff(due) => {
                self.backoff.insert((due, uid));
            }
            Place::Unschedulable => {
                self.unschedulable.insert((waiting.since, uid));
            }
            Place::Gated | Place::InFlight => {}
        }
    }

    /// Takes a pod from where it waits; it is in flight until it is put somewhere.
    fn take_out(&mut self, uid: &str) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        let (order, since) = (waiting.order(), waiting.since);
        match std::mem::replace(&mut waiting.place, Place::InFlight) {
            Place::Active => {
                self.active.remove(&order);
            }
            Place::Backoff(due) => {
                self.backoff.remove(&(due, uid.to_owned()));
            }
            Place::Unschedulable => {
                self.unschedulable.remove(&(since, uid.to_owned()));
            }
            Place::Gated | Place::InFlight => {}
        }
    }

    /// A pod isn't in flight any more; events that nobody needs are forgotten.
    fn land(&mut self, uid: &str) {
        if self.in_flight.remove(uid).is_none() {
            return;
        }
        let needed = self.in_flight.values().min().copied().unwrap_or(u64::MAX);
        while self.events_from < needed && self.events.pop_front().is_some() {
            self.events_from += 1;
        }
    }
}

/// Whether an event may change what any of these said; without any, it was an error, and anything may help.
fn may_help(event: &ClusterEvent, refused_by: PluginSet, pod: &PodInfo, snapshot: &Snapshot) -> bool {
    refused_by.is_empty() || refused_by.iter().any(|plugin| event.may_help(plugin, pod, snapshot))
}

/// Whether what changed of the pod itself may change what refused it.
fn own_change_helps(waiting: &Waiting, new: &PodInfo) -> bool {
    let old = &waiting.pod;
    let by = |plugin| waiting.place == Place::InFlight || waiting.refused_by.contains(plugin);
    let relabelled = old.labels() != new.labels();
    let tolerates_more = old.tolerations() != new.tolerations();
    let spec = |pod: &PodInfo| pod.spec().map(|spec| (spec.node_selector.clone(), spec.affinity.clone()));
    (relabelled && (by(Plugin::PodTopologySpread) || by(Plugin::InterPodAffinity)))
        || (tolerates_more && (by(Plugin::TaintToleration) || by(Plugin::NodeUnschedulable)))
        || (asks_less(old, new) && by(Plugin::NodeResourcesFit))
        || (spec(old) != spec(new) && by(Plugin::NodeAffinity))
}
