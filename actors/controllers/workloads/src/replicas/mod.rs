//! ReplicaSets and ReplicationControllers: as many pods as are wanted, of one template.
//!
//! Owns:    the pods whose controller is one of these, and the status of each.
//! Needs:   copies of pods and of themselves.
//! Restart: permanent. It counts the pods again.
//! Fails:   never by itself; a set that can't have its pods says so in its condition `ReplicaFailure`.

mod core;
mod kinds;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k3sd_client::controller::fan_out::{each, slow_start};
use k3sd_client::controller::indexes::{BY_CONTROLLER, ORPHANS, by_controller, orphans};
use k3sd_client::controller::owners::{claim_all, controller_of, controller_ref};
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn, controller_key, pods};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::Api;
use kube::api::PostParams;

use self::core::{Plan, Status, plan, status};
use self::kinds::{Replicated, template_labels};
use crate::support::{self, Access, Matcher, is_namespace_terminating, message, name, this_one, uid, unless_gone};

/// Both loops.
pub(crate) fn loops(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    vec![child::<ReplicaSet>(setup), child::<ReplicationController>(setup)]
}

fn child<R: Replicated>(setup: &mut Setup<'_>) -> ChildSpec {
    let sets: Informer<R> = setup.informers.indexed(vec![by_controller()]);
    let pods: Informer<Pod> = setup.informers.indexed(vec![by_controller(), orphans()]);
    let recorder = setup.recorder.component(R::COMPONENT);
    let access = Access::new(setup.connect(R::COMPONENT));
    let replicas = Replicas { access, sets: sets.clone(), pods: pods.clone(), recorder: recorder.clone() };
    let known = sets.clone();
    let looped = Loop::new(replicas, setup.leading.clone())
        .watch(&sets, support::itself)
        .watch(&pods, move |old: Option<&Pod>, new, keys| concerned(&known, old, new, keys));
    support::quarantine(looped, &recorder, &sets).child(R::ACTOR)
}

/// The sets that a change of a pod concerns: who has it, who had it, and those that might take one that nobody has.
fn concerned<R: Replicated>(sets: &Informer<R>, old: Option<&Pod>, new: Option<&Pod>, keys: &mut Vec<ObjectKey>) {
    if let (Some(old), Some(new)) = (old, new)
        && is_same_to_owners(old, new)
    {
        return;
    }
    for pod in [old, new].into_iter().flatten() {
        keys.extend(controller_key(pod, R::GROUP, R::KIND));
    }
    let Some(orphan) = new.filter(|pod| controller_of(&pod.metadata).is_none() && pods::is_active(pod)) else { return };
    let Some(shown) = sets.snapshot() else { return };
    let namespace = support::namespace(orphan);
    let matching = shown.of_namespace(namespace).filter(|set| set.selector().matches(orphan.metadata.labels.as_ref()));
    keys.extend(matching.map(|set| ObjectKey::of(&**set)));
}

/// Whether nothing changed that such a set counts.
fn is_same_to_owners(old: &Pod, new: &Pod) -> bool {
    old.metadata.labels == new.metadata.labels
        && old.metadata.owner_references == new.metadata.owner_references
        && pods::is_active(old) == pods::is_active(new)
        && pods::is_ready(old) == pods::is_ready(new)
        && pods::ready_since(old) == pods::ready_since(new)
        && old.metadata.uid == new.metadata.uid
}

struct Replicas<R: Replicated> {
    access: Access,
    sets: Informer<R>,
    pods: Informer<Pod>,
    recorder: Recorder,
}

impl<R: Replicated> Controller for Replicas<R> {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let Some(sets) = self.sets.snapshot() else { return Ok(()) };
        let Some(set) = sets.get(&key.namespace, &key.name) else { return Ok(()) };
        let (set_api, pod_api) = (self.access.of::<R>(&key.namespace), self.access.of::<Pod>(&key.namespace));
        let active = self.claimed(set, &set_api, &pod_api, turn).await?;
        let done = if set.meta().deletion_timestamp.is_some() {
            Managed::default()
        } else {
            self.manage(set, &active, &pod_api, turn).await
        };
        // What was just made or deleted is counted by the look that follows when the copies show it.
        if done.changed && done.failure.is_none() {
            return Ok(());
        }
        self.tell(set, &set_api, &active, &done, turn).await?;
        done.failure.map_or(Ok(()), |(_, failure)| Err(failure))
    }
}

/// What came of making the number right.
#[derive(Default)]
struct Managed {
    changed: bool,
    /// The reason of the condition, and what went wrong.
    failure: Option<(&'static str, Failure)>,
}

impl<R: Replicated> Replicas<R> {
    /// Its active pods, with those that it takes now and without those that it gives back.
    async fn claimed(&self, set: &R, sets: &Api<R>, api: &Api<Pod>, turn: &mut Turn) -> Result<Vec<Arc<Pod>>, Failure> {
        let Some(shown) = self.pods.snapshot() else { return Ok(Vec::new()) };
        let selector = set.selector();
        let owned = shown.by(BY_CONTROLLER, uid(set));
        let candidates = owned.chain(shown.by(ORPHANS, support::namespace(set)));
        let active = candidates.filter(|pod| pods::is_active(pod)).cloned();
        let matches = |pod: &Pod| selector.matches(pod.metadata.labels.as_ref());
        claim_all((set, sets), (api, &self.pods), active, matches, turn).await
    }

    async fn manage(&self, set: &R, active: &[Arc<Pod>], api: &Api<Pod>, turn: &mut Turn) -> Managed {
        match plan(set.wanted(), active, || self.related(set, active), turn.now()) {
            Plan::Nothing => Managed::default(),
            Plan::Create(count) => self.create(set, count, api, turn).await,
            Plan::Delete(surplus) => self.delete(set, surplus, api, turn).await,
        }
    }

    /// The pods of all sets that belong to the same owner.
    fn related(&self, set: &R, active: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let (Some(owner), Some(sets), Some(pods)) =
            (controller_of(set.meta()), self.sets.snapshot(), self.pods.snapshot())
        else {
            return active.to_vec();
        };
        let siblings = sets.by(BY_CONTROLLER, &owner.uid);
        siblings.flat_map(|set| pods.by(BY_CONTROLLER, uid(&**set)).cloned().collect::<Vec<_>>()).collect()
    }

    async fn create(&self, set: &R, count: usize, api: &Api<Pod>, turn: &mut Turn) -> Managed {
        let Some(template) = set.template() else { return Managed::default() };
        let mut pod = pods::from_template(template, support::namespace(set), controller_ref(set));
        pod.metadata.generate_name = Some(format!("{}-", name(set)));
        let (made, failure) = slow_start(count, async |_| {
            let made = api.create(&PostParams::default(), &pod).await.map_err(Failure::from);
            match &made {
                Ok(pod) => {
                    self.recorder.normal(set, "SuccessfulCreate", format!("Created pod: {}", name(pod)));
                }
                Err(failure) if is_namespace_terminating(failure) => {}
                Err(failure) => {
                    self.recorder.warning(set, "FailedCreate", format!("Error creating: {}", message(failure)));
                }
            }
            made
        })
        .await;
        made.iter().for_each(|pod| turn.wrote(&self.pods, pod));
        // In a namespace that is going, nothing is to be made and nothing is wrong.
        let failure = failure.filter(|failure| !is_namespace_terminating(failure));
        Managed { changed: !made.is_empty(), failure: failure.map(|failure| ("FailedCreate", failure)) }
    }

    async fn delete(&self, set: &R, surplus: Vec<Arc<Pod>>, api: &Api<Pod>, turn: &mut Turn) -> Managed {
        let (gone, failure) = each(surplus, async |pod| {
            let outcome = unless_gone(api.delete(name(&*pod), &this_one(pod.metadata.uid.as_ref())).await);
            match &outcome {
                Ok(_) => self.recorder.normal(set, "SuccessfulDelete", format!("Deleted pod: {}", name(&*pod))),
                Err(failure) => {
                    self.recorder.warning(set, "FailedDelete", format!("Error deleting: {}", message(failure)));
                }
            }
            outcome.map(|_| pod)
        })
        .await;
        gone.iter().for_each(|pod| turn.deleted(&self.pods, &**pod));
        Managed { changed: !gone.is_empty(), failure: failure.map(|failure| ("FailedDelete", failure)) }
    }

    /// Writes the status if there is news.
    async fn tell(
        &self,
        set: &R,
        api: &Api<R>,
        active: &[Arc<Pod>],
        done: &Managed,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        let (shown, observed): (Status, i64) = set.status();
        let failure = done.failure.as_ref().map(|(reason, failure)| (*reason, message(failure)));
        let labels = Matcher::of_labels(&template_labels(set.template()));
        let (new, next) = status(active, &labels, set.min_ready_seconds(), (failure, &shown), turn.now());
        if let Some(next) = next {
            turn.again_at(next);
        }
        if new == shown && Some(observed) == set.meta().generation {
            return Ok(());
        }
        let written = api.replace_status(name(set), &PostParams::default(), &set.with_status(&new)).await?;
        turn.wrote(&self.sets, &written);
        Ok(())
    }
}
