//! DaemonSets: a pod on each node that fits.
//!
//! Owns:    the pods and ControllerRevisions whose controller is a DaemonSet, and the status of each.
//! Needs:   copies of DaemonSets, pods, ControllerRevisions and nodes; a scheduler that binds the pods.
//! Restart: permanent. Which node a pod is meant for, is written in it. Waits after failed pods begin anew.
//! Fails:   never by itself.

mod core;
mod nodes;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use k3sd_client::controller::fan_out::slow_start;
use k3sd_client::controller::indexes::{BY_CONTROLLER, ORPHANS, by_controller, orphans};
use k3sd_client::controller::owners::{claim_all, controller_of, controller_ref};
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn, controller_key, pods};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;

use self::core::{Action, Failures, GENERATION, REVISION, Shared, Wanted, plan, status};
use crate::revisions::{Hash, History};
use crate::support::{
    self, Access, Matcher, is_namespace_terminating, label, message, name, selects_all, this_one, uid, unless_gone,
};

const COMPONENT: &str = "daemonset-controller";
const ACCOUNT: &str = "daemon-set-controller";
const GROUP: &str = "apps";
const KIND: &str = "DaemonSet";
/// Pods that one look makes or deletes at most; the next one goes on.
const BURST: usize = 250;

/// The loop.
pub(crate) fn child(setup: &mut Setup<'_>) -> ChildSpec {
    let sets: Informer<DaemonSet> = setup.informers.informer();
    let pods: Informer<Pod> = setup.informers.indexed(vec![by_controller(), orphans()]);
    let revisions: Informer<ControllerRevision> = setup.informers.indexed(vec![by_controller(), orphans()]);
    let nodes: Informer<Node> = setup.informers.informer();
    let recorder = setup.recorder.component(COMPONENT);
    let controller = DaemonSets {
        access: Access::new(setup.connect(ACCOUNT)),
        sets: sets.clone(),
        pods: pods.clone(),
        revisions: revisions.clone(),
        nodes: nodes.clone(),
        recorder: recorder.clone(),
        failures: watch::Sender::default(),
    };
    let (known, all) = (sets.clone(), sets.clone());
    let looped = Loop::new(controller, setup.leading.clone())
        .watch(&sets, support::itself)
        .watch(&pods, move |old: Option<&Pod>, new, keys| concerned(&known, old, new, keys))
        .watch(&revisions, revised)
        .watch(&nodes, move |old: Option<&Node>, new, keys| {
            // Heartbeats concern nobody.
            if !is_same_place(old, new) {
                keys.extend(all.snapshot().iter().flat_map(|sets| sets.keys()).cloned());
            }
        });
    support::quarantine(looped, &recorder, &sets).child("daemonset")
}

/// Whether the node is as good a place as before.
fn is_same_place(old: Option<&Node>, new: Option<&Node>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return false };
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    old.metadata.uid == new.metadata.uid && old.metadata.labels == new.metadata.labels && taints(old) == taints(new)
}

/// The set whose revision is another: it waits for what it wrote.
fn revised(old: Option<&ControllerRevision>, new: Option<&ControllerRevision>, keys: &mut Vec<ObjectKey>) {
    keys.extend(new.or(old).and_then(|revision| controller_key(revision, GROUP, KIND)));
}

/// The sets that a change of a pod concerns.
fn concerned(sets: &Informer<DaemonSet>, old: Option<&Pod>, new: Option<&Pod>, keys: &mut Vec<ObjectKey>) {
    for pod in [old, new].into_iter().flatten() {
        keys.extend(controller_key(pod, GROUP, KIND));
    }
    let Some(orphan) = new.filter(|pod| controller_of(&pod.metadata).is_none()) else { return };
    let Some(shown) = sets.snapshot() else { return };
    let labels = orphan.metadata.labels.as_ref();
    let matching = shown.of_namespace(support::namespace(orphan)).filter(|set| selector(set).matches(labels));
    keys.extend(matching.map(|set| ObjectKey::of(&**set)));
}

fn selector(set: &DaemonSet) -> Matcher {
    set.spec.as_ref().map_or_else(Matcher::nothing, |spec| Matcher::new(&spec.selector))
}

struct DaemonSets {
    access: Access,
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    revisions: Informer<ControllerRevision>,
    nodes: Informer<Node>,
    recorder: Recorder,
    failures: watch::Sender<Failures>,
}

impl Controller for DaemonSets {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let (Some(sets), Some(nodes)) = (self.sets.snapshot(), self.nodes.snapshot()) else { return Ok(()) };
        let Some(set) = sets.get(&key.namespace, &key.name) else { return Ok(()) };
        let Some(spec) = &set.spec else { return Ok(()) };
        if selects_all(&spec.selector) {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.warning(&**set, "SelectingAll", text);
            return Ok(());
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let (selector, set_api) = (selector(set), self.access.of::<DaemonSet>(&key.namespace));
        let history = History {
            owner: &**set,
            owners: &set_api,
            api: self.access.of(&key.namespace),
            copies: &self.revisions,
            hash: Hash::Template(REVISION),
        };
        let mut revisions = history.owned(&selector, turn).await?;
        let mut collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let current = history.latest(&mut revisions, &spec.template, &mut collisions, turn).await?;
        let owned = self.claimed(set, &set_api, &selector, turn).await?;
        let nodes: Vec<Arc<Node>> = nodes.iter().cloned().collect();
        let wanted = Wanted::of(set, label(&*current, REVISION).unwrap_or_default());
        let done = self.act(set, &wanted, plan(&wanted, &nodes, &owned, turn.now()), turn).await;
        self.tell(set, &set_api, status(set, &wanted, &nodes, &owned, (collisions, turn.now())), turn).await?;
        done?;
        let used: BTreeSet<&str> = owned.iter().filter_map(|pod| label(&**pod, REVISION)).collect();
        let is_used = |revision: &ControllerRevision| label(revision, REVISION).is_some_and(|hash| used.contains(hash));
        let live = revisions.iter().filter(|revision| is_used(revision)).chain([&current]);
        let live = live.map(|revision| name(&**revision).to_owned()).collect();
        history.forget(&revisions, &live, spec.revision_history_limit.unwrap_or(10), turn).await
    }
}

impl DaemonSets {
    async fn claimed(
        &self,
        set: &DaemonSet,
        sets: &Api<DaemonSet>,
        selector: &Matcher,
        turn: &mut Turn,
    ) -> Result<Vec<Shared>, Failure> {
        let Some(shown) = self.pods.snapshot() else { return Ok(Vec::new()) };
        let candidates = shown.by(BY_CONTROLLER, uid(set)).chain(shown.by(ORPHANS, support::namespace(set))).cloned();
        let matches = |pod: &Pod| selector.matches(pod.metadata.labels.as_ref());
        let api = self.access.of(support::namespace(set));
        claim_all((set, sets), (&api, &self.pods), candidates, matches, turn).await
    }

    async fn act(
        &self,
        set: &DaemonSet,
        wanted: &Wanted,
        actions: Vec<Action>,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        let mut now: Vec<Action> = actions.into_iter().filter(|action| self.is_due(set, action, turn)).collect();
        if now.len() > BURST {
            now.truncate(BURST);
        }
        let (done, failure) = slow_start(now.len(), async |at| self.carry_out(set, wanted, &now[at]).await).await;
        for done in done {
            match done {
                Done::Made(pod) => turn.wrote(&self.pods, &*pod),
                Done::Deleted(pod) => turn.deleted(&self.pods, &*pod),
            }
        }
        // In a namespace that is going, nothing is to be made and nothing is wrong.
        failure.filter(|failure| !is_namespace_terminating(failure)).map_or(Ok(()), Err)
    }

    /// Failed pods are deleted with waits between that grow: a node that refuses a pod does so again.
    fn is_due(&self, set: &DaemonSet, action: &Action, turn: &mut Turn) -> bool {
        let Action::Retry(_, node) = action else { return true };
        let (now, mut outcome) = (turn.moment(), Ok(()));
        self.failures.send_modify(|failures| outcome = failures.may_retry(uid(set), node, now));
        if let Err(wait) = outcome {
            turn.again(wait);
        }
        outcome.is_ok()
    }

    async fn carry_out(&self, set: &DaemonSet, wanted: &Wanted, action: &Action) -> Result<Done, Failure> {
        let place =
            |pod: &Pod, node: &str| format!("daemon pod {}/{} on node {node}", support::namespace(pod), name(pod));
        match action {
            Action::Create(node) => return self.create(set, wanted, node).await,
            Action::Delete(pod) => self.delete(set, pod).await,
            Action::Retry(pod, node) => {
                let text = format!("Found failed {}, will try to kill it", place(pod, node));
                self.recorder.warning(set, "FailedDaemonPod", text);
                self.delete(set, pod).await
            }
            Action::Renew(pod, node) => {
                let text = format!("Found succeeded {}, will try to delete it", place(pod, node));
                self.recorder.normal(set, "SucceededDaemonPod", text);
                self.delete(set, pod).await
            }
        }
    }

    async fn create(&self, set: &DaemonSet, wanted: &Wanted, node: &str) -> Result<Done, Failure> {
        let Some(spec) = &set.spec else { return Err(Failure::other("the DaemonSet has no spec")) };
        let mut pod = pods::from_template(&spec.template, support::namespace(set), controller_ref(set));
        pod.metadata.generate_name = Some(format!("{}-", name(set)));
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(REVISION.to_owned(), wanted.hash.clone());
        if let Some(generation) = &wanted.generation {
            labels.insert(GENERATION.to_owned(), generation.clone());
        }
        let mut spec = wanted.spec.clone();
        nodes::aim(&mut spec, node);
        pod.spec = Some(spec);
        let made = self.access.of::<Pod>(support::namespace(set)).create(&PostParams::default(), &pod).await;
        let made = made.map_err(Failure::from);
        match &made {
            Ok(pod) => self.recorder.normal(set, "SuccessfulCreate", format!("Created pod: {}", name(pod))),
            Err(failure) if is_namespace_terminating(failure) => {}
            Err(failure) => {
                self.recorder.warning(set, "FailedCreate", format!("Error creating: {}", message(failure)));
            }
        }
        made.map(|pod| Done::Made(Box::new(pod)))
    }

    async fn delete(&self, set: &DaemonSet, pod: &Shared) -> Result<Done, Failure> {
        let api: Api<Pod> = self.access.of(support::namespace(set));
        let gone = unless_gone(api.delete(name(&**pod), &this_one(pod.metadata.uid.as_ref())).await);
        match &gone {
            Ok(_) => self.recorder.normal(set, "SuccessfulDelete", format!("Deleted pod: {}", name(&**pod))),
            Err(failure) => {
                self.recorder.warning(set, "FailedDelete", format!("Error deleting: {}", message(failure)));
            }
        }
        gone.map(|_| Done::Deleted(pod.clone()))
    }

    async fn tell(
        &self,
        set: &DaemonSet,
        api: &Api<DaemonSet>,
        (new, next): (k8s_openapi::api::apps::v1::DaemonSetStatus, Option<jiff::Timestamp>),
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        if let Some(next) = next {
            turn.again_at(next);
        }
        if set.status.as_ref() == Some(&new) {
            return Ok(());
        }
        let told = DaemonSet { status: Some(new), ..set.clone() };
        let written = api.replace_status(name(set), &PostParams::default(), &told).await?;
        turn.wrote(&self.sets, &written);
        Ok(())
    }
}

/// What came of an action.
enum Done {
    Made(Box<Pod>),
    Deleted(Shared),
}
