//! Deployments: a ReplicaSet for each template, and pods that move from one to the next.
//!
//! Owns:    the ReplicaSets whose controller is a Deployment, and the status of each Deployment.
//! Needs:   copies of Deployments, ReplicaSets and pods.
//! Restart: permanent. What a rollout has come to is written on the ReplicaSets and in the status.
//! Fails:   never by itself; a Deployment that gets no further says so in its conditions.

mod look;
mod rollout;
mod sets;
mod status;
#[cfg(test)]
mod tests;

use k3sd_client::controller::indexes::{BY_CONTROLLER, ORPHANS, by_controller, orphans};
use k3sd_client::controller::owners::{claim_all, controller_of};
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn, controller_key, pods};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;

use self::look::Look;
pub(crate) use self::sets::is_same_template;
use crate::support::{self, Access, Matcher, selects_all, uid};

const COMPONENT: &str = "deployment-controller";
const GROUP: &str = "apps";
const KIND: &str = "Deployment";

/// The loop.
pub(crate) fn child(setup: &mut Setup<'_>) -> ChildSpec {
    let deployments: Informer<Deployment> = setup.informers.informer();
    let sets: Informer<ReplicaSet> = setup.informers.indexed(vec![by_controller(), orphans()]);
    let pods: Informer<Pod> = setup.informers.indexed(vec![by_controller(), orphans()]);
    let recorder = setup.recorder.component(COMPONENT);
    let access = Access::new(setup.connect(COMPONENT));
    let (known, having) = (deployments.clone(), (deployments.clone(), sets.clone()));
    let controller = Deployments {
        access,
        deployments: deployments.clone(),
        sets: sets.clone(),
        pods: pods.clone(),
        recorder: recorder.clone(),
    };
    let looped = Loop::new(controller, setup.leading.clone())
        .watch(&deployments, support::itself)
        .watch(&sets, move |old: Option<&ReplicaSet>, new, keys| concerned(&known, old, new, keys))
        .watch(&pods, move |old: Option<&Pod>, new, keys| ended(&having, old, new, keys));
    support::quarantine(looped, &recorder, &deployments).child("deployment")
}

/// The Deployments that a change of a ReplicaSet concerns: who has it, who had it, and those that might take one that
/// nobody has.
fn concerned(
    deployments: &Informer<Deployment>,
    old: Option<&ReplicaSet>,
    new: Option<&ReplicaSet>,
    keys: &mut Vec<ObjectKey>,
) {
    for set in [old, new].into_iter().flatten() {
        keys.extend(controller_key(set, GROUP, KIND));
    }
    let Some(orphan) = new.filter(|set| controller_of(&set.metadata).is_none()) else { return };
    let Some(shown) = deployments.snapshot() else { return };
    let labels = orphan.metadata.labels.as_ref();
    let matching = shown.of_namespace(support::namespace(orphan)).filter(|it| selector(it).matches(labels));
    keys.extend(matching.map(|deployment| ObjectKey::of(&**deployment)));
}

/// A pod that is gone or finished: whoever replaces all pods at once may wait for that.
fn ended(
    (deployments, sets): &(Informer<Deployment>, Informer<ReplicaSet>),
    old: Option<&Pod>,
    new: Option<&Pod>,
    keys: &mut Vec<ObjectKey>,
) {
    let Some(pod) = old.filter(|old| !pods::is_finished(old) && new.is_none_or(pods::is_finished)) else { return };
    let (Some(sets), Some(deployments)) = (sets.snapshot(), deployments.snapshot()) else { return };
    let found = controller_key(pod, GROUP, "ReplicaSet").and_then(|key| sets.get(&key.namespace, &key.name));
    let key = found.and_then(|set| controller_key(&**set, GROUP, KIND));
    let waits = |key: &ObjectKey| {
        deployments.get(&key.namespace, &key.name).is_some_and(|deployment| !rollout::is_rolling(deployment))
    };
    keys.extend(key.filter(waits));
}

fn selector(deployment: &Deployment) -> Matcher {
    deployment.spec.as_ref().map_or_else(Matcher::nothing, |spec| Matcher::new(&spec.selector))
}

struct Deployments {
    access: Access,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: Recorder,
}

impl Controller for Deployments {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let (Some(deployments), Some(sets)) = (self.deployments.snapshot(), self.sets.snapshot()) else {
            return Ok(());
        };
        let Some(deployment) = deployments.get(&key.namespace, &key.name) else { return Ok(()) };
        let mut look = Look::new(self, deployment, turn);
        if deployment.spec.as_ref().is_some_and(|spec| selects_all(&spec.selector)) {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.warning(&**deployment, "SelectingAll", text);
            return look.observed().await;
        }
        let candidates = sets.by(BY_CONTROLLER, uid(&**deployment)).chain(sets.by(ORPHANS, &key.namespace)).cloned();
        let (selector, apis) = (selector(deployment), (self.access.of(&key.namespace), self.access.of(&key.namespace)));
        let matches = |set: &ReplicaSet| selector.matches(set.metadata.labels.as_ref());
        let owner = (&**deployment, &apis.0);
        let owned = claim_all(owner, (&apis.1, &self.sets), candidates, matches, look.turn).await?;
        look.look(owned).await
    }
}
