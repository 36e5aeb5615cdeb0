//! Makes and removes the volumes of one node.
//!
//! Owns:    the volumes of the provisioner that belong to this node, and their directories.
//! Needs:   claims, volumes, classes and the configuration to look at; whoever makes directories, or the pod that does.
//! Restart: permanent. It looks at every claim and volume again; a directory that is there is taken as it is.
//! Fails:   never as a whole; what can't be made or removed is tried again, and an Event says why.

use std::fmt;

use k3sd_client::api::Connect;
use k3sd_client::controller::{Controller, Failure, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::Clock;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use crate::config::Config;
use crate::directories::{Directories, Place};
use crate::helper::{Action, Helper, Work};
use crate::helping::help;
use crate::plan::{
    Here, New, PROVISIONER, hostname, is_for, is_to_go, place_of, provision, selected, volume_name, waits,
};
use crate::{CONFIG, NAMESPACE};

/// Chooses for a volume, and each time the same: a second try finds the directory of the first.
fn draw(name: &str) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// What the loop looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
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

/// The controller.
pub(crate) struct Provisioner {
    pub(crate) connect: Connect,
    pub(crate) node: String,
    pub(crate) claims: Informer<PersistentVolumeClaim>,
    pub(crate) volumes: Informer<PersistentVolume>,
    pub(crate) classes: Informer<StorageClass>,
    pub(crate) nodes: Informer<Node>,
    pub(crate) config: Informer<ConfigMap>,
    pub(crate) recorder: Recorder,
    pub(crate) directories: Directories,
    pub(crate) clock: Clock,
}

impl Controller for Provisioner {
    type Key = Key;

    async fn reconcile(&self, key: &Key, turn: &mut Turn) -> Result<(), Failure> {
        match key {
            Key::Claim(key) => self.claim(key, turn).await,
            Key::Volume(name) => self.volume(name, turn).await,
        }
    }
}

impl Provisioner {
    /// The configuration; an error is for people.
    fn config(&self) -> Result<Config, String> {
        let maps = self.config.snapshot();
        let map = maps.as_ref().and_then(|maps| maps.get(NAMESPACE, CONFIG));
        let text = map.and_then(|map| map.data.as_ref()?.get("config.json"));
        Config::parse(text.ok_or("no valid config available: there is no config.json in local-path-config")?)
            .map_err(|error| error.to_string())
    }

    /// Makes or removes the directory of a volume, by a pod if the operator wants something special. An error is for people.
    async fn act(
        &self,
        action: Action,
        volume: &PersistentVolume,
        place: Place,
    ) -> Result<Result<(), String>, Failure> {
        let maps = self.config.snapshot();
        let data = maps.as_ref().and_then(|maps| maps.get(NAMESPACE, CONFIG)?.data.as_ref());
        let helper = match data.map_or(Ok(None), |data| Helper::of(data, action)) {
            Ok(helper) => helper,
            Err(why) => return Ok(Err(why)),
        };
        let path = place.path();
        if let Some(helper) = helper {
            let work = Work::new(volume, path, &self.node);
            return Ok(help(self.connect.client(), &self.clock, &helper, &work, action).await);
        }
        let done = match action {
            Action::Create => self.directories.make(place).await?,
            Action::Delete => self.directories.remove(place).await?,
        };
        Ok(done.map_err(|error| format!("failed to {} {}: {error}", action.word(), path.display())))
    }

    async fn claim(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let (Some(claims), Some(classes)) = (self.claims.snapshot(), self.classes.snapshot()) else { return Ok(()) };
        let (Some(volumes), Some(nodes)) = (self.volumes.snapshot(), self.nodes.snapshot()) else { return Ok(()) };
        let Some(claim) = claims.get(&key.namespace, &key.name) else { return Ok(()) };
        let class = waits(claim).and_then(|class| classes.get("", class));
        let Some(class) = class.filter(|class| class.provisioner == PROVISIONER) else { return Ok(()) };
        let name = volume_name(claim);
        if volumes.get("", &name).is_some() {
            return Ok(());
        }
        let failed = |why: &str| {
            let class = class.metadata.name.as_deref().unwrap_or_default();
            let why = format!("failed to provision volume with StorageClass \"{class}\": {why}");
            self.recorder.warning(&**claim, "ProvisioningFailed", &*why);
            Failure::other(why)
        };
        let config = match self.config() {
            Ok(config) => config,
            Err(why) if selected(claim) == Some(&self.node) => return Err(failed(&why)),
            Err(_) => return Ok(()),
        };
        let object = nodes.get("", &self.node).map(|node| &**node);
        let here = Here { config: &config, node: &self.node, object, random: draw(&name) };
        match is_for(claim, class, &here) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            // The class has to change, and that is told.
            Err(why) => {
                failed(&why);
                return Ok(());
            }
        }
        self.recorder.normal(
            &**claim,
            "Provisioning",
            format!("External provisioner is provisioning volume for claim \"{key}\""),
        );
        let New { place, volume } = provision(claim, class, &here).map_err(|why| failed(&why))?;
        let volume: PersistentVolume = serde_json::from_value(volume).map_err(Failure::other)?;
        if let Err(why) = self.act(Action::Create, &volume, place).await? {
            return Err(failed(&why));
        }
        let api: Api<PersistentVolume> = Api::all(self.connect.client());
        match api.create(&PostParams::default(), &volume).await.map_err(Failure::from) {
            Ok(written) => turn.wrote(&self.volumes, &written),
            // Another node was faster, or this one before it died.
            Err(failure) if failure.code() == Some(409) => return Ok(()),
            Err(failure) => return Err(failed(&failure.chain())),
        }
        self.recorder.normal(&**claim, "ProvisioningSucceeded", format!("Successfully provisioned volume {name}"));
        Ok(())
    }

    async fn volume(&self, name: &str, turn: &mut Turn) -> Result<(), Failure> {
        let (Some(volumes), Some(nodes)) = (self.volumes.snapshot(), self.nodes.snapshot()) else { return Ok(()) };
        let Some(volume) = volumes.get("", name) else { return Ok(()) };
        let object = nodes.get("", &self.node).map(|node| &**node);
        if !is_to_go(volume, hostname(&self.node, object)) {
            return Ok(());
        }
        let failed = |why: &str| {
            let why = format!("failed to delete volume {name}: {why}");
            self.recorder.warning(&**volume, "VolumeFailedDelete", &*why);
            Failure::other(why)
        };
        let api: Api<PersistentVolume> = Api::all(self.connect.client());
        // The copy may be old: what is bound again by now keeps its directory.
        let now = match api.get(name).await.map_err(Failure::from) {
            Ok(now) => now,
            Err(failure) if failure.is_stale() => return Ok(()),
            Err(failure) => return Err(failure),
        };
        if now.metadata.uid != volume.metadata.uid || !is_to_go(&now, hostname(&self.node, object)) {
            return Ok(());
        }
        let config = self.config().map_err(|why| failed(&why))?;
        let place = place_of(&now, &config, &self.node).map_err(|why| failed(&why))?;
        if let Err(why) = self.act(Action::Delete, &now, place).await? {
            return Err(failed(&why));
        }
        let uid = now.metadata.uid.clone();
        let params = DeleteParams::default().preconditions(Preconditions { uid, ..Preconditions::default() });
        match api.delete(name, &params).await.map_err(Failure::from) {
            Err(failure) if !failure.is_stale() => Err(failed(&failure.chain())),
            _ => {
                turn.deleted(&self.volumes, volume);
                Ok(())
            }
        }
    }
}
