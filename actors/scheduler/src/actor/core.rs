//! What the scheduler knows and does next: pure, time is passed in.
//!
//! ```text
//! seen ─▶ queue ── decide ─▶ assumed ─┬─ no volumes to wait for ─▶ bind ─┬─ bound: done
//!                    │                └─ volumes asked for ─▶ bound ─▶ ──┘
//!                    └─ refused: back into the queue            failed: forgotten, and back into the queue
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k3sd_runtime::{Moment, Rng};
use k8s_openapi::api::core::v1::{Node, Pod};

use super::feed::Seen;
use super::write::{Verdict, VolumeWrites};
use crate::config::{Profile, SchedulerConfig};
use crate::decide::{Decision, Turn, decide, prepare};
use crate::diagnosis::Diagnosis;
use crate::pod::{Key, PodInfo, is_terminal};
use crate::preemption::{Candidate, Preemption, preempt};
use crate::queue::{ClusterEvent, Queue};
use crate::snapshot::{Slot, Snapshot};
use crate::volumes::{SELECTED_NODE, VolumePlan, Volumes, claim_keys, is_bound};

/// A pod that has a node, but isn't bound yet.
#[derive(Debug)]
struct Binding {
    pod: Arc<PodInfo>,
    node: String,
    plan: VolumePlan,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// The volumes are being asked for.
    Asking,
    /// They are being made and bound.
    Waiting {
        until: Moment,
        /// Claims that were seen with their node: if they lose it, whoever makes volumes gave up.
        selected: BTreeSet<Key>,
    },
    /// The pod is being bound.
    Binding,
}

/// Pods that have to go.
#[derive(Debug)]
pub(crate) struct Eviction {
    /// From where.
    pub(crate) node: String,
    /// Who.
    pub(crate) victims: Vec<Arc<PodInfo>>,
    /// Less important pods for which this node was being cleared until now.
    pub(crate) passed_over: Vec<Arc<PodInfo>>,
}

/// Something to be done outside.
#[derive(Debug)]
pub(crate) enum Work {
    /// Bind a pod.
    Bind {
        /// Which.
        pod: Arc<PodInfo>,
        /// To which node.
        node: String,
    },
    /// Ask for a pod's volumes.
    AskVolumes {
        /// Whose.
        pod: Arc<PodInfo>,
        /// On which node.
        node: String,
        /// What is to be written.
        writes: VolumeWrites,
    },
    /// Tell the user that a pod has no node.
    Refused {
        /// Which.
        pod: Arc<PodInfo>,
        /// Why.
        message: String,
        /// What the pod's status says.
        verdict: Verdict,
        /// Who has to go for it.
        eviction: Option<Eviction>,
    },
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Core {
    config: Arc<SchedulerConfig>,
    pub(crate) queue: Queue,
    pub(crate) snapshot: Snapshot,
    turn: Turn,
    binding: BTreeMap<String, Binding>,
}

impl Core {
    pub(crate) fn new(config: Arc<SchedulerConfig>, rng: Rng) -> Self {
        let queue = Queue::new(config.backoff);
        Self { config, queue, snapshot: Snapshot::default(), turn: Turn::new(rng), binding: BTreeMap::new() }
    }

    /// Pods that are known, waiting or on nodes.
    pub(crate) fn known_pods(&self) -> Vec<(Key, Option<String>)> {
        let waiting = self.queue.uids().filter_map(|uid| self.queue.pod(uid));
        let all = waiting.chain(self.snapshot.pods());
        all.map(|pod| (pod.key.clone(), Some(pod.uid.clone()))).collect()
    }

    pub(crate) fn see_pod(&mut self, seen: Seen<Pod>, now: Moment) {
        match seen {
            Seen::Gone(_, uid) => self.pod_gone(&uid.unwrap_or_default(), now),
            Seen::Applied(pod) if is_terminal(&pod) => {
                self.pod_gone(pod.metadata.uid.as_deref().unwrap_or_default(), now);
            }
            Seen::Applied(pod) => {
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                let known = self.snapshot.pod(uid).or_else(|| self.queue.pod(uid));
                let version = &pod.metadata.resource_version;
                if version.is_some() && known.is_some_and(|known| known.pod.metadata.resource_version == *version) {
                    return; // Told again, in this very version.
                }
                let pod = Arc::new(PodInfo::new(pod));
                match pod.node_name().map(str::to_owned) {
                    Some(node) => self.pod_on_node(&node, pod, now),
                    None => self.pod_without_node(pod, now),
                }
            }
        }
    }

    fn pod_gone(&mut self, uid: &str, now: Moment) {
        self.queue.remove(uid);
        self.snapshot.denominate(uid);
        if let Some(binding) = self.binding.remove(uid) {
            self.snapshot.volumes.release(&binding.plan);
        }
        if let Some(pod) = self.snapshot.remove_pod(uid) {
            self.queue.happened(ClusterEvent::PodDeleted(pod), &self.snapshot, now);
        }
    }

    fn pod_on_node(&mut self, node: &str, pod: Arc<PodInfo>, now: Moment) {
        self.queue.remove(&pod.uid);
        self.snapshot.denominate(&pod.uid);
        let old = self.snapshot.node_of(&pod.uid).filter(|there| &*there.name == node).map(|_| ());
        let old = old.and_then(|()| self.snapshot.pod(&pod.uid).cloned());
        self.snapshot.add_pod(node, pod.clone());
        let event = match old {
            // One that was assumed to be there has told nobody yet.
            Some(old) if old.node_name().is_some() => ClusterEvent::PodUpdated { old, new: pod },
            _ => ClusterEvent::PodAdded(pod),
        };
        self.queue.happened(event, &self.snapshot, now);
    }

    fn pod_without_node(&mut self, pod: Arc<PodInfo>, now: Moment) {
        if self.config.profile(pod.scheduler()).is_none() {
            return;
        }
        if self.binding.contains_key(&pod.uid) {
            return; // What was decided holds, or fails with the binding.
        }
        if self.snapshot.pod(&pod.uid).is_some() {
            return; // It was bound, and this is from before that.
        }
        if pod.is_terminating() {
            self.queue.remove(&pod.uid);
            self.snapshot.denominate(&pod.uid);
            return;
        }
        let old = self.queue.pod(&pod.uid).and_then(|old| old.nominated_node());
        match (old, pod.nominated_node()) {
            (_, Some(node)) => self.snapshot.nominate(node, pod.clone()),
            (Some(_), None) => self.snapshot.denominate(&pod.uid),
            (None, None) => {}
        }
        self.queue.apply(pod, now);
    }

    pub(crate) fn see_node(&mut self, seen: Seen<Node>, now: Moment) {
        let event = match seen {
            Seen::Gone(key, _) => {
                self.snapshot.delete_node(&key.name);
                ClusterEvent::NodeDeleted
            }
            Seen::Applied(node) => {
                let name = node.metadata.name.clone().unwrap_or_default();
                let old = self.snapshot.slot(&name).map(|slot| self.snapshot.node(slot).clone());
                self.snapshot.apply_node(node);
                let Some(slot) = self.snapshot.slot(&name) else { return };
                let new = self.snapshot.node(slot).clone();
                match old {
                    Some(old) if !differs(&old, &new) => return, // A heartbeat.
                    Some(old) => ClusterEvent::NodeUpdated { old, new },
                    None => ClusterEvent::NodeAdded(new),
                }
            }
        };
        self.queue.happened(event, &self.snapshot, now);
    }

    pub(crate) fn happened(&mut self, event: ClusterEvent, now: Moment) {
        self.queue.happened(event, &self.snapshot, now);
    }

    /// Decides about the next pod. `None` when there is none to decide about now.
    pub(crate) fn decide(&mut self, now: Moment) -> Option<Option<Work>> {
        let pod = self.queue.pop(now)?;
        let Some(profile) = self.config.profile(pod.scheduler()).cloned() else {
            self.queue.remove(&pod.uid);
            return Some(None);
        };
        prepare(&mut self.snapshot, &pod, &profile);
        Some(Some(match decide(&self.snapshot, &pod, &profile, &mut self.turn) {
            Decision::Node { slot, volumes, .. } => self.assume(pod, slot, volumes),
            Decision::Nowhere(diagnosis) => self.refuse(pod, &profile, *diagnosis, now),
        }))
    }

    /// From now on the pod counts as being there.
    fn assume(&mut self, pod: Arc<PodInfo>, slot: Slot, plan: VolumePlan) -> Work {
        let node = self.snapshot.node(slot).name.to_string();
        self.snapshot.denominate(&pod.uid);
        self.snapshot.add_pod(&node, pod.clone());
        let volumes = &mut self.snapshot.volumes;
        let writes = writes(volumes, &plan);
        volumes.reserve(&plan, &node);
        let stage = if plan.is_empty() { Stage::Binding } else { Stage::Asking };
        let is_simple = plan.is_empty();
        self.binding.insert(pod.uid.clone(), Binding { pod: pod.clone(), node: node.clone(), plan, stage });
        if is_simple { Work::Bind { pod, node } } else { Work::AskVolumes { pod, node, writes } }
    }

    fn refuse(&mut self, pod: Arc<PodInfo>, profile: &Profile, mut diagnosis: Diagnosis, now: Moment) -> Work {
        let mut nominated = None;
        let mut eviction = None;
        if profile.preempts && diagnosis.nodes > 0 {
            match preempt(&self.snapshot, &pod, profile, &diagnosis, &mut self.turn.rng) {
                Preemption::Room(candidate) => {
                    let made = self.make_room(&pod, candidate);
                    nominated = Some(Some(made.node.clone()));
                    eviction = Some(made);
                }
                Preemption::Nothing { message, keeps_nomination } => {
                    diagnosis.afterwards = Some(message);
                    if !keeps_nomination {
                        self.snapshot.denominate(&pod.uid);
                        nominated = Some(None);
                    }
                }
            }
        }
        let message = diagnosis.message();
        self.queue.refused(&pod.uid, diagnosis.plugins, &self.snapshot, now);
        let verdict = Verdict { condition: Some(("Unschedulable", message.clone())), nominated };
        Work::Refused { pod, message, verdict, eviction }
    }

    fn make_room(&mut self, pod: &Arc<PodInfo>, candidate: Candidate) -> Eviction {
        let node = self.snapshot.node(candidate.slot).name.to_string();
        let less = |other: &&Arc<PodInfo>| other.priority < pod.priority;
        let passed_over: Vec<_> = self.snapshot.nominated(&node).iter().filter(less).cloned().collect();
        for other in &passed_over {
            self.snapshot.denominate(&other.uid);
        }
        self.snapshot.nominate(&node, pod.clone());
        Eviction { node, victims: candidate.victims, passed_over }
    }

    /// The volumes of a pod were asked for: what to do next, at once or later.
    pub(crate) fn volumes_asked(&mut self, uid: &str, outcome: Result<(), String>, now: Moment) -> Option<Work> {
        match outcome {
            Ok(()) => {
                let binding = self.binding.get_mut(uid)?;
                let profile = self.config.profile(binding.pod.scheduler())?;
                let until = now + profile.volume_bind_timeout;
                binding.stage = Stage::Waiting { until, selected: BTreeSet::new() };
                self.check_volumes_of(uid, now)
            }
            Err(error) => self.fail(uid, format!("running PreBind plugin \"VolumeBinding\": {error}"), now),
        }
    }

    /// Looks which pods have their volumes by now, and which will never have them.
    pub(crate) fn check_volumes(&mut self, now: Moment) -> Vec<Work> {
        let is_waiting = |binding: &Binding| matches!(binding.stage, Stage::Waiting { .. });
        let waiting: Vec<String> =
            self.binding.iter().filter(|(_, binding)| is_waiting(binding)).map(|(uid, _)| uid.clone()).collect();
        waiting.iter().filter_map(|uid| self.check_volumes_of(uid, now)).collect()
    }

    /// When the first pod has waited too long for its volumes.
    pub(crate) fn volumes_deadline(&self) -> Option<Moment> {
        let until = |binding: &Binding| match &binding.stage {
            Stage::Waiting { until, .. } => Some(*until),
            _ => None,
        };
        self.binding.values().filter_map(until).min()
    }

    fn check_volumes_of(&mut self, uid: &str, now: Moment) -> Option<Work> {
        let binding = self.binding.get_mut(uid)?;
        let Stage::Waiting { until, selected } = &mut binding.stage else { return None };
        let mut problem = (now >= *until).then(|| "timed out waiting for the condition".to_owned());
        let mut all_bound = true;
        let volumes = &self.snapshot.volumes;
        for key in claim_keys(&binding.pod) {
            let Some(claim) = volumes.claims.get(&key) else {
                problem = Some(format!("persistentvolumeclaim \"{}\" not found", key.name));
                continue;
            };
            all_bound &= is_bound(claim);
            let names_node = claim.metadata.annotations.as_ref().is_some_and(|known| known.contains_key(SELECTED_NODE));
            if names_node {
                selected.insert(key.clone());
            } else if !is_bound(claim) && selected.contains(&key) {
                problem = Some(format!("provisioning failed for PVC \"{}\"", key.name));
            }
            let volume = volumes.bound_volume(claim);
            let slot = self.snapshot.slot(&binding.node);
            if let (Some(volume), Some(slot)) = (volume, slot)
                && !Volumes::admits(volume, self.snapshot.node(slot))
            {
                let name = volume.metadata.name.as_deref().unwrap_or_default();
                let node = &binding.node;
                problem = Some(format!(
                    "pv \"{name}\" node affinity doesn't match node \"{node}\": no matching NodeSelectorTerms"
                ));
            }
        }
        if let Some(problem) = problem {
            return self.fail(
                uid,
                format!("running PreBind plugin \"VolumeBinding\": binding volumes: {problem}"),
                now,
            );
        }
        if !all_bound {
            return None;
        }
        binding.stage = Stage::Binding;
        Some(Work::Bind { pod: binding.pod.clone(), node: binding.node.clone() })
    }

    /// A pod was bound, or not. The node, for the event, if it was; what to tell, if it wasn't.
    pub(crate) fn bound(
        &mut self,
        uid: &str,
        outcome: Result<(), String>,
        now: Moment,
    ) -> Result<Option<(Arc<PodInfo>, String)>, Option<Work>> {
        match outcome {
            Ok(()) => {
                self.queue.remove(uid);
                let binding = self.binding.remove(uid);
                if let Some(binding) = &binding {
                    self.snapshot.volumes.release(&binding.plan);
                }
                Ok(binding.map(|binding| (binding.pod, binding.node)))
            }
            Err(error) => Err(self.fail(uid, format!("running Bind plugin \"DefaultBinder\": {error}"), now)),
        }
    }

    /// What was assumed isn't so. Unless the pod is known to have a node by now, it is tried again.
    fn fail(&mut self, uid: &str, message: String, now: Moment) -> Option<Work> {
        let binding = self.binding.remove(uid)?;
        self.snapshot.volumes.release(&binding.plan);
        let there = self.snapshot.pod(uid)?;
        if there.node_name().is_some() {
            return None; // It is bound after all: the answer was lost, and the watch tells.
        }
        if let Some(pod) = self.snapshot.remove_pod(uid) {
            self.queue.happened(ClusterEvent::PodDeleted(pod), &self.snapshot, now);
        }
        self.queue.failed(uid, now);
        let verdict = Verdict { condition: Some(("SchedulerError", message.clone())), nominated: None };
        Some(Work::Refused { pod: binding.pod, message, verdict, eviction: None })
    }

    /// A pod that isn't there any more when its binding is refused.
    pub(crate) fn forget(&mut self, uid: &str, now: Moment) {
        self.pod_gone(uid, now);
    }
}

/// Whether anything that decisions look at differs.
fn differs(old: &crate::snapshot::NodeInfo, new: &crate::snapshot::NodeInfo) -> bool {
    old.labels() != new.labels()
        || old.allocatable != new.allocatable
        || old.hard_taints != new.hard_taints
        || old.soft_taints != new.soft_taints
        || old.is_cordoned != new.is_cordoned
}

/// The objects that a plan names.
fn writes(volumes: &Volumes, plan: &VolumePlan) -> VolumeWrites {
    let pair = |(claim, volume): &(Key, String)| {
        Some((volumes.volumes.get(volume)?.clone(), volumes.claims.get(claim)?.clone()))
    };
    VolumeWrites {
        bind: plan.bind.iter().filter_map(pair).collect(),
        provision: plan.provision.iter().filter_map(|claim| volumes.claims.get(claim).cloned()).collect(),
    }
}
