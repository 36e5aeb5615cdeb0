//! The `resourceclaim` controller: claims of pods for devices.
//!
//! ```text
//! pod names template ─▶ claim of the pod ─▶ pod's status says which      the scheduler allocates and reserves
//! pod runs though nobody reserved ─▶ reserved for it
//! pod ended ─▶ reserved for it no more ─▶ devices are free ─▶ claim of the pod is deleted
//! ```
//!
//! Owns:    ResourceClaims made of templates; `reservedFor` and the allocation of claims as far as pods are gone.
//! Needs:   copies of pods, claims and templates.
//! Restart: permanent. A claim that was made just before is found by its owner and its annotation.
//! Fails:   never as a whole; a pod or a claim that can't be written is tried again.

mod core;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use k3sd_client::controller::indexes::{BY_CONTROLLER, by_controller};
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Index, Informer, ObjectKey, Snapshot};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource as _};
use serde_json::json;
use tokio::sync::watch;

use self::core::{Named, Need};
use crate::support::{said, text, uid};

const COMPONENT: &str = "resource_claim";
/// The owner of the field of pods that names claims.
const MANAGER: &str = "ResourceClaimController";
/// Finds pods by `NAMESPACE/CLAIM`.
const BY_DEVICES: &str = "resourceclaim";

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Pod(ObjectKey),
    Claim(ObjectKey),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "pod {key}"),
            Self::Claim(key) => write!(f, "claim {key}"),
        }
    }
}

struct Devices {
    client: Client,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    templates: Informer<ResourceClaimTemplate>,
    recorder: Recorder,
    /// Pods for which claims are being made. If one is found here, whoever made them was interrupted, and the copies may
    /// not show them yet.
    making: watch::Sender<BTreeSet<ObjectKey>>,
}

/// The loop.
pub(crate) fn resources(setup: &mut Setup<'_>) -> ChildSpec {
    let texts = |pod: &Pod| claim_keys(pod).map(|key| key.to_string()).collect();
    let pods = setup.informers.indexed(vec![Index { name: BY_DEVICES, texts }]);
    let claims = setup.informers.indexed(vec![by_controller::<ResourceClaim>()]);
    let templates = setup.informers.informer::<ResourceClaimTemplate>();
    let recorder = setup.recorder.component(COMPONENT);
    let controller = Devices {
        client: setup.connect("resource-claim-controller").client(),
        pods: pods.clone(),
        claims: claims.clone(),
        templates: templates.clone(),
        recorder: recorder.clone(),
        making: watch::channel(BTreeSet::new()).0,
    };
    let (users, known) = (pods.clone(), (pods.clone(), claims.clone()));
    Loop::new(controller, setup.leading.clone())
        .watch(&claims, move |old: Option<&ResourceClaim>, new, keys| {
            let Some(claim) = new.or(old) else { return };
            let (key, shown) = (ObjectKey::of(claim), users.snapshot());
            let text = key.to_string();
            let found = shown.iter().flat_map(|pods| pods.by(BY_DEVICES, &text));
            keys.extend(found.map(|pod| Key::Pod(ObjectKey::of(&**pod))));
            keys.push(Key::Claim(key));
        })
        .watch(&pods, |old, new: Option<&Pod>, keys| {
            let Some(pod) = new.or(old).filter(|pod| !core::entries(pod).is_empty()) else { return };
            keys.extend(new.map(ObjectKey::of).map(Key::Pod));
            if new.is_none_or(core::is_done) {
                keys.extend(claim_keys(pod).map(Key::Claim));
            }
        })
        .needs(&templates)
        .quarantine(recorder, move |key| match key {
            Key::Pod(key) => Some(known.0.snapshot()?.get(&key.namespace, &key.name)?.object_ref(&())),
            Key::Claim(key) => Some(known.1.snapshot()?.get(&key.namespace, &key.name)?.object_ref(&())),
        })
        .child("resourceclaim")
}

/// The claims that a pod refers to.
fn claim_keys(pod: &Pod) -> impl Iterator<Item = ObjectKey> {
    let namespace = text(pod.metadata.namespace.as_ref());
    core::claim_names(pod).map(|name| ObjectKey { namespace: namespace.to_owned(), name: name.to_owned() })
}

impl Controller for Devices {
    type Key = Key;

    async fn reconcile(&self, key: &Key, turn: &mut Turn) -> Result<(), Failure> {
        let (Some(pods), Some(claims)) = (self.pods.snapshot(), self.claims.snapshot()) else { return Ok(()) };
        match key {
            Key::Pod(key) => match pods.get(&key.namespace, &key.name) {
                Some(pod) if pod.metadata.deletion_timestamp.is_none() => self.pod(pod, &claims, turn).await,
                _ => {
                    self.made(key);
                    Ok(())
                }
            },
            Key::Claim(key) => match claims.get(&key.namespace, &key.name) {
                Some(claim) => self.claim(claim, &pods, turn).await,
                None => Ok(()),
            },
        }
    }
}

impl Devices {
    fn api(&self, namespace: &str) -> Api<ResourceClaim> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Makes the claims of a pod, has its status name them, and reserves for it what it runs with.
    async fn pod(&self, pod: &Arc<Pod>, claims: &Snapshot<ResourceClaim>, turn: &mut Turn) -> Result<(), Failure> {
        let namespace = text(pod.metadata.namespace.as_ref());
        let (key, mut new) = (ObjectKey::of(&**pod), Vec::new());
        let is_interrupted = self.making.borrow().contains(&key);
        let live = if is_interrupted { self.api(namespace).list(&ListParams::default()).await?.items } else { vec![] };
        for entry in core::entries(pod) {
            let is_live = |name: &str| live.iter().find(|claim| claim.metadata.name.as_deref() == Some(name));
            let known = |name: &str| claims.get(namespace, name).map(AsRef::as_ref).or_else(|| is_live(name));
            let made = claims.by(BY_CONTROLLER, uid(&pod.metadata)).map(AsRef::as_ref).chain(&live);
            let name = match core::need(pod, entry, known, made) {
                Need::Nothing => continue,
                Need::Note(name) => name.to_owned(),
                Need::Make(template) => match self.make(pod, entry, template, turn).await {
                    Ok(name) => name,
                    Err((why, failure)) => {
                        let message = format!("PodResourceClaim {}: {why}", entry.name);
                        self.recorder.warning(&**pod, "FailedResourceClaimCreation", message);
                        return Err(failure);
                    }
                },
            };
            new.push((entry.name.clone(), name));
        }
        if !new.is_empty() {
            let (meta, name) = (&pod.metadata, text(pod.metadata.name.as_ref()));
            let patch = json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "uid": meta.uid},
                "status": {"resourceClaimStatuses": core::statuses(pod, &new)},
            });
            let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let params = PatchParams::apply(MANAGER).force();
            let written = api.patch_status(name, &params, &Patch::Apply(patch)).await?;
            turn.wrote(&self.pods, &written);
            // What was written tells of the pod again.
            return Ok(());
        }
        self.made(&key);
        self.reserve(pod, claims, turn).await
    }

    /// All claims of the pod are there, and it says so; or it is gone.
    fn made(&self, pod: &ObjectKey) {
        if self.making.borrow().contains(pod) {
            self.making.send_modify(|making| _ = making.remove(pod));
        }
    }

    /// Makes the claim of an entry, and says its name. Fails with the words for people.
    async fn make(
        &self,
        pod: &Pod,
        entry: &PodResourceClaim,
        template: &str,
        turn: &mut Turn,
    ) -> Result<String, (String, Failure)> {
        let namespace = text(pod.metadata.namespace.as_ref());
        let shown = self.templates.snapshot();
        let Some(found) = shown.as_ref().and_then(|templates| templates.get(namespace, template)) else {
            let why = format!(
                "resource claim template \"{template}\": resourceclaimtemplate.resource.k8s.io \"{template}\" not found"
            );
            return Err((why.clone(), Failure::other(why)));
        };
        let claim = core::claim(pod, &entry.name, found);
        self.making.send_modify(|making| _ = making.insert(ObjectKey::of(pod)));
        let made = self.api(namespace).create(&PostParams::default(), &claim).await.map_err(Failure::from);
        // Upstream has the name here, which is empty as it isn't drawn yet.
        let made = made.map_err(|failure| (format!("create ResourceClaim : {}", said(&failure)), failure))?;
        turn.wrote(&self.claims, &made);
        Ok(made.metadata.name.unwrap_or_default())
    }

    /// A pod that was bound past the scheduler has nobody else who reserves for it.
    async fn reserve(&self, pod: &Pod, claims: &Snapshot<ResourceClaim>, turn: &mut Turn) -> Result<(), Failure> {
        let is_bound = pod.spec.as_ref().is_some_and(|spec| !text(spec.node_name.as_ref()).is_empty());
        if !is_bound || core::is_done(pod) {
            return Ok(());
        }
        let namespace = text(pod.metadata.namespace.as_ref());
        for entry in core::entries(pod) {
            let (name, is_made) = match core::named(pod, entry) {
                Named::Given(name) => (name, false),
                Named::Made(name) => (name, true),
                Named::Needless | Named::Missing => continue,
            };
            let Some(claim) = claims.get(namespace, name) else { return Ok(()) };
            if is_made {
                core::check_owner(pod, claim).map_err(Failure::other)?;
            }
            if let Some(wanted) = core::reserved(pod, claim) {
                let written = self.api(namespace).replace_status(name, &PostParams::default(), &wanted).await?;
                turn.wrote(&self.claims, &written);
            }
        }
        Ok(())
    }

    /// Whether a consumer may still run. A pod that isn't shown is asked for: the copy may lag behind the scheduler.
    async fn stays(
        &self,
        namespace: &str,
        consumer: &ResourceClaimConsumerReference,
        pods: &Snapshot<Pod>,
    ) -> Result<bool, Failure> {
        if !core::is_pod(consumer) {
            let group = text(consumer.api_group.as_ref());
            let (resource, name) = (&consumer.resource, &consumer.name);
            return Err(Failure::other(format!("unsupported ReservedFor entry: {group}/{resource} {name}")));
        }
        if let Some(pod) = pods.get(namespace, &consumer.name) {
            return Ok(uid(&pod.metadata) == consumer.uid && !core::is_done(pod));
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let live = api.get_opt(&consumer.name).await?;
        Ok(live.is_some_and(|pod| uid(&pod.metadata) == consumer.uid))
    }

    /// Lets go of consumers that are gone, and then of devices, and of the claim if it was theirs.
    async fn claim(&self, claim: &Arc<ResourceClaim>, pods: &Snapshot<Pod>, turn: &mut Turn) -> Result<(), Failure> {
        let (namespace, name) = (text(claim.metadata.namespace.as_ref()), text(claim.metadata.name.as_ref()));
        let mut stay = Vec::new();
        for consumer in core::consumers(claim) {
            if self.stays(namespace, consumer, pods).await? {
                stay.push(consumer.clone());
            }
        }
        let release = core::release(claim, &stay);
        let (api, params) = (self.api(namespace), PostParams::default());
        let mut claim = (**claim).clone();
        if let Some(wanted) = &release.status {
            claim = api.replace_status(name, &params, wanted).await?;
            turn.wrote(&self.claims, &claim);
        }
        if release.lets_go {
            claim = api.replace(name, &params, &core::unprotected(&claim)).await?;
            turn.wrote(&self.claims, &claim);
        }
        let Some((pod_name, pod_uid)) = core::owner(&claim) else { return Ok(()) };
        let is_over = |pod: &Arc<Pod>| uid(&pod.metadata) != pod_uid || core::is_done(pod);
        // Of a pod that isn't there the garbage collector deletes the claim.
        let may_go = stay.is_empty() && claim.metadata.deletion_timestamp.is_none();
        if may_go && pods.get(namespace, pod_name).is_some_and(is_over) {
            let preconditions = Preconditions { uid: claim.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match api.delete(name, &params).await.map_err(Failure::from) {
                Err(failure) if failure.code() != Some(404) => return Err(failure),
                _ => turn.deleted(&self.claims, &claim),
            }
        }
        Ok(())
    }
}
