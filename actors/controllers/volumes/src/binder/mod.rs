//! The `persistentvolume-binder`: brings claims and volumes together.
//!
//! ```text
//! claim without volume ─ best volume ─▶ volume refers to claim ─▶ claim names volume ─▶ both are Bound
//!                      └ none: somebody outside makes one, or the scheduler chooses, or it waits
//! claim gone ─▶ volume is Released ─▶ what its policy says
//! ```
//!
//! The volume is written first. Whoever is interrupted between the two leaves a volume that refers to a claim, and the
//! next look at the claim finds just that volume; no two claims can get one volume, since the API server takes only
//! the first write.

mod claim;
mod directories;
mod matching;
mod recycle;
mod volume;

use std::collections::BTreeMap;
use std::fmt;

use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Index, Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;

use self::claim::{Said, World};
use self::directories::{Remover, directories};
use self::recycle::Scrub;
use self::volume::Reclaim;
use crate::claims::{BY_CLAIM, claim_keys, claim_of, is_done, volumes_by_claim};
use crate::support::annotation;

/// Claims that were bound once say so.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// What was bound by this controller, and not by a person, says so.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Volumes that were made on demand say by whom.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The scheduler says for which node a volume is to be made.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Claims say who is to make a volume for them, under two names.
const PROVISIONER: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];
/// Finds claims that were never bound, under an empty text.
const UNBOUND: &str = "unbound";
const COMPONENT: &str = "persistentvolume-controller";

/// What the loop looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Claim(ObjectKey),
    Volume(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(name) => write!(f, "volume {name}"),
        }
    }
}

struct Binder {
    client: Client,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
    recorder: Recorder,
    /// What is known of volumes that are being emptied, by their names.
    scrubs: watch::Sender<BTreeMap<String, Scrub>>,
    remover: Remover,
}

/// The loop, and whom it has remove directories.
pub(crate) fn binder(setup: &mut Setup<'_>) -> [ChildSpec; 2] {
    let (child, remover) = directories();
    let unbound = |claim: &PersistentVolumeClaim| match annotation(&claim.metadata, BIND_COMPLETED) {
        None => vec![String::new()],
        Some(_) => Vec::new(),
    };
    let claims = setup.informers.indexed(vec![Index { name: UNBOUND, texts: unbound }]);
    let volumes = setup.informers.indexed(vec![volumes_by_claim()]);
    let classes = setup.informers.informer::<StorageClass>();
    let pods = setup.informers.indexed(vec![crate::claims::by_claim()]);
    let recorder = setup.recorder.component(COMPONENT);
    let binder = Binder {
        client: setup.connect("persistent-volume-binder").client(),
        claims: claims.clone(),
        volumes: volumes.clone(),
        classes: classes.clone(),
        pods: pods.clone(),
        recorder: recorder.clone(),
        scrubs: watch::channel(BTreeMap::new()).0,
        remover,
    };
    let all_unbound = {
        let claims = claims.clone();
        move |keys: &mut Vec<Key>| {
            let shown = claims.snapshot();
            let found = shown.iter().flat_map(|claims| claims.by(UNBOUND, ""));
            keys.extend(found.map(|claim| Key::Claim(ObjectKey::of(&**claim))));
        }
    };
    let (by_claim, of_pods) = (volumes.clone(), volumes.clone());
    let (for_volumes, for_classes) = (all_unbound.clone(), all_unbound);
    // One look at a time: two claims that look at once would want the same volume.
    let looper = Loop::new(binder, setup.leading.clone())
        .workers(1)
        .watch(&claims, move |old, new, keys| {
            let Some(key) = new.or(old).map(ObjectKey::of) else { return };
            let named = new.or(old).and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
            keys.extend(named.filter(|name| !name.is_empty()).map(Key::Volume));
            let (text, shown) = (key.to_string(), by_claim.snapshot());
            let referring = shown.iter().flat_map(|volumes| volumes.by(BY_CLAIM, &text));
            keys.extend(referring.filter_map(|volume| volume.metadata.name.clone()).map(Key::Volume));
            keys.push(Key::Claim(key));
        })
        .watch(&volumes, move |old, new, keys| {
            keys.extend(new.or(old).and_then(|volume| volume.metadata.name.clone()).map(Key::Volume));
            keys.extend([old, new].into_iter().flatten().filter_map(claim_of).map(Key::Claim));
            let is_free = |volume: &PersistentVolume| {
                let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
                phase == Some("Available") && claim_of(volume).is_none()
            };
            if new.is_some_and(is_free) {
                for_volumes(keys);
            }
        })
        .watch(&classes, move |_, _, keys| for_classes(keys))
        .watch(&pods, move |old, new, keys| volumes_of_pod(&of_pods, old, new, keys))
        .quarantine(recorder, |key| {
            let (kind, key) = match key {
                Key::Claim(key) => ("PersistentVolumeClaim", key.clone()),
                Key::Volume(name) => ("PersistentVolume", ObjectKey { namespace: String::new(), name: name.clone() }),
            };
            Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some(kind.to_owned()),
                namespace: Some(key.namespace).filter(|namespace| !namespace.is_empty()),
                name: Some(key.name),
                ..ObjectReference::default()
            })
        })
        .child("persistentvolume-binder");
    [child, looper]
}

/// The volume that a pod empties, and those that wait to be emptied until it has ended.
fn volumes_of_pod(volumes: &Informer<PersistentVolume>, old: Option<&Pod>, new: Option<&Pod>, keys: &mut Vec<Key>) {
    let Some(pod) = new.or(old) else { return };
    keys.extend(recycle::volume_of(pod).map(Key::Volume));
    if !new.is_none_or(is_done) {
        return;
    }
    let Some(shown) = volumes.snapshot() else { return };
    for claim in claim_keys(pod) {
        let text = claim.to_string();
        let waiting = shown.by(BY_CLAIM, &text).filter(|volume| volume::is_let_go(volume));
        keys.extend(waiting.filter_map(|volume| volume.metadata.name.clone()).map(Key::Volume));
    }
}

impl Controller for Binder {
    type Key = Key;

    async fn reconcile(&self, key: &Key, turn: &mut Turn) -> Result<(), Failure> {
        match key {
            Key::Claim(key) => self.claim(key, turn).await,
            Key::Volume(name) => self.volume(name, turn).await,
        }
    }
}

impl Binder {
    fn claims_of(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), claim.metadata.namespace.as_deref().unwrap_or_default())
    }

    fn all_volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }

    async fn claim(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let shown = (self.claims.snapshot(), self.volumes.snapshot(), self.classes.snapshot(), self.pods.snapshot());
        let (Some(claims), Some(volumes), Some(classes), Some(pods)) = shown else { return Ok(()) };
        let Some(claim) = claims.get(&key.namespace, &key.name) else { return Ok(()) };
        if claim.metadata.deletion_timestamp.is_some() && annotation(&claim.metadata, BIND_COMPLETED).is_none() {
            return Ok(());
        }
        let text = key.to_string();
        let has_node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).is_some();
        let waiting = pods.by(BY_CLAIM, &text).find(|pod| !has_node(pod));
        let waiting_pod = waiting.and_then(|pod| pod.metadata.name.clone());
        let world = World { volumes: &volumes, classes: &classes, waiting_pod };
        match claim::decide(claim, &world) {
            claim::Step::Bind(volume) => self.bind(claim, &volume, turn).await,
            claim::Step::Wait(said) => self.wait(claim, "Pending", said, turn).await,
            claim::Step::Lose(said) => self.wait(claim, "Lost", Some(said), turn).await,
            claim::Step::Assign(class) => {
                let mut wanted = (**claim).clone();
                wanted.spec.get_or_insert_default().storage_class_name = Some(class);
                let written = self.claims_of(claim).replace(&key.name, &PostParams::default(), &wanted).await?;
                turn.wrote(&self.claims, &written);
                Ok(())
            }
            claim::Step::Provision(provisioner) => self.provision(claim, &provisioner, turn).await,
        }
    }

    /// Volume, then claim; each first its specification and then its status.
    async fn bind(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        let (volumes, claims, params) = (self.all_volumes(), self.claims_of(claim), PostParams::default());
        let (mut volume, mut claim) = (volume.clone(), claim.clone());
        let volume_name = volume.metadata.name.clone().unwrap_or_default();
        let claim_name = claim.metadata.name.clone().unwrap_or_default();
        if let Some(wanted) = volume::with_claim(&volume, &claim) {
            volume = volumes.replace(&volume_name, &params, &wanted).await?;
            turn.wrote(&self.volumes, &volume);
        }
        if let Some(wanted) = volume::in_phase(&volume, "Bound", None) {
            volume = volumes.replace_status(&volume_name, &params, &wanted).await?;
            turn.wrote(&self.volumes, &volume);
        }
        if let Some(wanted) = claim::with_volume(&claim, &volume) {
            claim = claims.replace(&claim_name, &params, &wanted).await?;
            turn.wrote(&self.claims, &claim);
        }
        if let Some(wanted) = claim::as_bound(&claim, &volume) {
            let claim = claims.replace_status(&claim_name, &params, &wanted).await?;
            turn.wrote(&self.claims, &claim);
        }
        Ok(())
    }

    /// Nothing is to be done but to say so.
    async fn wait(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        said: Option<Said>,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        let has = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        let is_new = has != Some(phase);
        if let Some(said) = said.filter(|_| phase != "Lost" || is_new) {
            let kind = if said.is_warning { "Warning" } else { "Normal" };
            self.recorder.about(kube::Resource::object_ref(claim, &()), kind, said.reason, said.message);
        }
        if is_new {
            let mut wanted = claim.clone();
            wanted.status.get_or_insert_default().phase = Some(phase.to_owned());
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let written = self.claims_of(claim).replace_status(name, &PostParams::default(), &wanted).await?;
            turn.wrote(&self.claims, &written);
        }
        Ok(())
    }

    /// Tells whoever makes volumes that this claim wants one.
    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        provisioner: &str,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        let mut claim = claim.clone();
        if PROVISIONER.iter().any(|name| annotation(&claim.metadata, name) != Some(provisioner)) {
            let annotations = claim.metadata.annotations.get_or_insert_default();
            annotations.extend(PROVISIONER.iter().map(|name| ((*name).to_owned(), provisioner.to_owned())));
            let name = claim.metadata.name.clone().unwrap_or_default();
            claim = self.claims_of(&claim).replace(&name, &PostParams::default(), &claim).await?;
            turn.wrote(&self.claims, &claim);
        }
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        let said = Said { is_warning: false, reason: "ExternalProvisioning", message };
        self.wait(&claim, "Pending", Some(said), turn).await
    }

    async fn volume(&self, name: &str, turn: &mut Turn) -> Result<(), Failure> {
        let (Some(volumes), Some(claims)) = (self.volumes.snapshot(), self.claims.snapshot()) else { return Ok(()) };
        let Some(volume) = volumes.get("", name) else {
            self.forget_scrub(name);
            return Ok(());
        };
        let claim = claim_of(volume);
        let claim = claim.as_ref().and_then(|key| claims.get(&key.namespace, &key.name));
        let step = volume::decide(volume, claim.map(AsRef::as_ref));
        if step != volume::Step::Release {
            self.forget_scrub(name);
        }
        match step {
            volume::Step::Phase(phase, message) => self.phase(volume, phase, message.as_deref(), turn).await,
            volume::Step::LookAtClaim("") => Ok(()),
            volume::Step::LookAtClaim(phase) => self.phase(volume, phase, None, turn).await,
            volume::Step::Unbind => {
                let wanted = volume::without_claim(volume);
                let written = self.all_volumes().replace(name, &PostParams::default(), &wanted).await?;
                turn.wrote(&self.volumes, &written);
                self.phase(&written, "Available", None, turn).await
            }
            volume::Step::Release if volume::is_let_go(volume) && !volume::reclaim(volume).is_work() => Ok(()),
            volume::Step::Release => self.release(volume, turn).await,
        }
    }

    /// Lets go of a volume whose claim is gone, once the API agrees: a copy may not show a claim yet.
    async fn release(&self, volume: &PersistentVolume, turn: &mut Turn) -> Result<(), Failure> {
        if let Some(key) = claim_of(volume) {
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
            let found = claims.get_opt(&key.name).await?;
            if volume::decide(volume, found.as_ref()) != volume::Step::Release {
                return Err(Failure::other("the claim isn't shown yet"));
            }
        }
        match volume::reclaim(volume) {
            Reclaim::Leave => self.phase(volume, "Released", None, turn).await,
            Reclaim::Remove { path } => self.remove_directory(volume, &path, turn).await,
            Reclaim::Scrub => match self.pods.snapshot() {
                Some(pods) => self.scrub(volume, &pods, turn).await,
                None => Ok(()),
            },
            Reclaim::Fail { reason, message } => {
                self.recorder.warning(volume, reason, message.clone());
                self.phase(volume, "Failed", Some(&message), turn).await
            }
        }
    }

    /// Removes a directory of this host, and the volume that stood for it.
    async fn remove_directory(&self, volume: &PersistentVolume, path: &str, turn: &mut Turn) -> Result<(), Failure> {
        // A volume that is bound may not go.
        if !volume::is_let_go(volume) {
            return self.phase(volume, "Released", None, turn).await;
        }
        if let Err(error) = self.remover.remove(path).await? {
            let message = format!("unlinkat {path}: {error}");
            self.recorder.warning(volume, "VolumeFailedDelete", message.clone());
            return self.phase(volume, "Failed", Some(&message), turn).await;
        }
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        match self.all_volumes().delete(name, &DeleteParams::default()).await.map_err(Failure::from) {
            Err(failure) if failure.code() != Some(404) => Err(failure),
            _ => {
                turn.deleted(&self.volumes, volume);
                Ok(())
            }
        }
    }

    async fn phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: Option<&str>,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        if let Some(wanted) = volume::in_phase(volume, phase, message) {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let written = self.all_volumes().replace_status(name, &PostParams::default(), &wanted).await?;
            turn.wrote(&self.volumes, &written);
        }
        Ok(())
    }
}
