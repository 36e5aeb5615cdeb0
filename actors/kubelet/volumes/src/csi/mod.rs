//! Storage drivers (CSI): the node's part. Drivers say that they are there by a socket in a directory; volumes are staged
//! for the node, published to pods, and taken back.
//!
//! What is saved beside each volume says how to take it back, whoever made it and whenever.

mod attach;
mod care;
mod growth;
mod grpc;
mod messages;
mod plugins;
mod register;
mod service;
mod volume;

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_client::events::Recorder;
use k3sd_client::informer::Informer;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec};
use kube::Api;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

pub(crate) use self::growth::growth;
use self::messages::{Capabilities, Empty, Publish, Release, Stage};
pub(crate) use self::plugins::plugins;
use self::service::Service;
pub(crate) use self::volume::CsiVolume;
use self::volume::{Record, digest};
use crate::config::VolumesConfig;
use crate::disk::{Done, Job, What};
use crate::error::VolumeError;
use crate::paths::{CSI, Paths, RECORD};
use crate::plan::{Maker, token_ref};
use crate::types::PodIdentity;

/// How long a driver may take for one call; upstream's figure.
const CALL_LIMIT: Duration = Duration::from_secs(120);

/// Volumes that can be worked on at the same time.
const TURNS: usize = 64;

/// Sockets of the drivers that are registered, by their names.
pub(crate) type Drivers = Arc<BTreeMap<String, PathBuf>>;

/// The way to storage drivers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Csi {
    drivers: watch::Receiver<Drivers>,
    node: String,
    paths: Paths,
    connect: Connect,
    /// The node's own object; without it nobody waits for a volume to be attached.
    own_node: Option<Informer<Node>>,
    recorder: Option<Recorder>,
    /// By turns; volumes that share one wait for each other in vain, but rarely.
    turns: Arc<[Semaphore]>,
}

impl Csi {
    pub(crate) fn new(
        drivers: watch::Receiver<Drivers>,
        config: &VolumesConfig,
        paths: &Paths,
        connect: Connect,
        own_node: Option<Informer<Node>>,
    ) -> Self {
        let turns = (0..TURNS).map(|_| Semaphore::new(1)).collect();
        let (node, recorder) = (config.node_name.clone(), config.recorder.clone());
        Self { drivers, node, paths: paths.clone(), connect, own_node, recorder, turns }
    }

    fn socket(&self, driver: &str) -> Result<PathBuf, VolumeError> {
        let missing =
            || VolumeError::Refused(format!("driver name {driver} not found in the list of registered CSI drivers"));
        self.drivers.borrow().get(driver).cloned().ok_or_else(missing)
    }

    /// Where a volume is staged for the node.
    fn staging(&self, driver: &str, handle: &str, place: &str, is_block: bool) -> PathBuf {
        let root = self.paths.csi();
        if is_block {
            return root.join("volumeDevices").join("staging").join(place);
        }
        root.join(driver).join(digest(&[handle])).join("globalmount")
    }

    /// Where a pod gets it.
    fn target(&self, uid: &str, place: &str, is_block: bool) -> Result<PathBuf, VolumeError> {
        if is_block {
            return Ok(self
                .paths
                .csi()
                .join("volumeDevices")
                .join("publish")
                .join(place)
                .join(crate::paths::part(uid)?));
        }
        Ok(self.paths.volume(uid, CSI, place)?.join("mount"))
    }

    /// Where what has to be known later is kept.
    fn record(&self, uid: &str, place: &str, is_block: bool) -> Result<PathBuf, VolumeError> {
        if is_block {
            return Ok(self.paths.pod(uid)?.join("plugins").join(CSI).join(crate::paths::part(place)?).join(RECORD));
        }
        Ok(self.paths.volume(uid, CSI, place)?.join(RECORD))
    }

    /// Waits until nobody else stages, publishes or takes back this volume: what one call makes, the other unmakes.
    async fn turn(&self, driver: &str, handle: &str) -> Result<SemaphorePermit<'_>, VolumeError> {
        let mut hasher = std::hash::DefaultHasher::new();
        (driver, handle).hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % self.turns.len() as u64).unwrap_or(0);
        self.turns[place].acquire().await.map_err(|_| VolumeError::Away)
    }

    /// Asks what is known of a volume's driver.
    async fn service(&self, volume: &CsiVolume) -> Result<Service, VolumeError> {
        crate::paths::part(&volume.driver)?;
        let says = self.driver(&volume.driver).await?;
        volume.check(&says)?;
        let socket = self.socket(&volume.driver)?;
        let can = capabilities(&socket, CALL_LIMIT).await?;
        Ok(Service { socket, can, says })
    }

    /// Has a volume there for a pod. Says too whether it wants to be looked after.
    pub(crate) async fn set_up(
        &self,
        maker: &Maker,
        pod: &Pod,
        who: &PodIdentity,
        volume: &CsiVolume,
    ) -> Result<(What, bool), VolumeError> {
        let service = self.service(volume).await?;
        let target = self.target(&who.uid, &volume.place, volume.is_block)?;
        let (made, wants_care) = (service.what(volume, who, &target), service.wants_care(volume));
        // Nobody is kept from their turn by a volume that isn't attached yet.
        let is_there = self.is_there(maker, who, &target).await?;
        let context = if is_there { HashMap::new() } else { self.context_of_attachment(volume, &service).await? };
        let _turn = self.turn(&volume.driver, &volume.handle).await?;
        if is_there {
            // What a pod has it keeps, whatever its driver says now.
            if let Err(error) = self.care(maker, pod, who, volume, &service).await {
                tracing::warn!(volume = volume.place, error = error.event(), "a volume stays as it is for now");
            }
            return Ok((made, wants_care));
        }
        let record = Record::of(volume, &self.node);
        let path = self.record(&who.uid, &volume.place, volume.is_block)?;
        maker.disks.run(&who.uid, Job::Save { path, text: record.text() }).await?;
        if service.stages(volume) {
            self.stage(maker, who, volume, &service, context.clone()).await?;
        }
        self.publish(maker, pod, who, volume, &service, context).await?;
        self.grow(pod, who, volume, &service).await?;
        Ok((made, wants_care))
    }

    async fn is_there(&self, maker: &Maker, who: &PodIdentity, target: &Path) -> Result<bool, VolumeError> {
        let directory = target.parent().unwrap_or(target).to_owned();
        let made = maker.disks.run(&who.uid, Job::MountPoint { directory, at: target.to_owned() }).await?;
        Ok(matches!(made, Done::Is(true)))
    }

    async fn context_of_attachment(
        &self,
        volume: &CsiVolume,
        service: &Service,
    ) -> Result<HashMap<String, String>, VolumeError> {
        let needs = !volume.is_ephemeral && service.says.attach_required != Some(false);
        if needs { self.attached(volume).await } else { Ok(HashMap::new()) }
    }

    async fn stage(
        &self,
        maker: &Maker,
        who: &PodIdentity,
        volume: &CsiVolume,
        service: &Service,
        publish_context: HashMap<String, String>,
    ) -> Result<(), VolumeError> {
        let staging = self.staging(&volume.driver, &volume.handle, &volume.place, volume.is_block);
        let job = Job::MountPoint { directory: staging.clone(), at: staging.clone() };
        maker.disks.run(&who.uid, job).await?;
        let stage = Stage {
            volume_id: volume.handle.clone(),
            publish_context,
            staging_path: staging.to_string_lossy().into_owned(),
            capability: Some(service.capability(volume, who)),
            secrets: self.secrets(volume.stage_secret.as_ref()).await?,
            volume_context: volume.attributes.clone(),
        };
        let _: Empty = grpc::call(&service.socket, "/csi.v1.Node/NodeStageVolume", &stage, CALL_LIMIT).await?;
        Ok(())
    }

    async fn publish(
        &self,
        maker: &Maker,
        pod: &Pod,
        who: &PodIdentity,
        volume: &CsiVolume,
        service: &Service,
        publish_context: HashMap<String, String>,
    ) -> Result<(), VolumeError> {
        let staging_path = match service.stages(volume) {
            true => self.staging(&volume.driver, &volume.handle, &volume.place, volume.is_block),
            false => PathBuf::new(),
        };
        let publish = Publish {
            volume_id: volume.handle.clone(),
            publish_context,
            staging_path: staging_path.to_string_lossy().into_owned(),
            target_path: self.target(&who.uid, &volume.place, volume.is_block)?.to_string_lossy().into_owned(),
            capability: Some(service.capability(volume, who)),
            read_only: volume.read_only,
            secrets: self.secrets(volume.publish_secret.as_ref()).await?,
            volume_context: self.context(maker, pod, volume, &service.says).await?,
        };
        let _: Empty = grpc::call(&service.socket, "/csi.v1.Node/NodePublishVolume", &publish, CALL_LIMIT).await?;
        Ok(())
    }

    /// Takes a pod's volumes back, and those from the node that no other pod has.
    pub(crate) async fn tear_down(&self, maker: &Maker, uid: &str) -> Result<(), VolumeError> {
        for (directory, record) in self.records(maker, Some(uid)).await? {
            let (place, is_block) = place_of(&directory);
            let socket = self.socket(&record.driver)?;
            let target = self.target(uid, &place, is_block)?;
            let path = target.to_string_lossy().into_owned();
            let release = Release { volume_id: record.handle.clone(), path };
            let _turn = self.turn(&record.driver, &record.handle).await?;
            let _: Empty = grpc::call(&socket, "/csi.v1.Node/NodeUnpublishVolume", &release, CALL_LIMIT).await?;
            maker.disks.run(uid, Job::Remove { path: target }).await?;
            if !record.is_ephemeral() {
                self.unstage(maker, uid, &socket, &record, (&place, is_block)).await?;
            }
            maker.disks.run(uid, Job::Remove { path: directory }).await?;
        }
        Ok(())
    }

    async fn unstage(
        &self,
        maker: &Maker,
        uid: &str,
        socket: &Path,
        record: &Record,
        (place, is_block): (&str, bool),
    ) -> Result<(), VolumeError> {
        let own = self.paths.pod(uid)?;
        let all = self.records(maker, None).await?;
        let is_same = |other: &Record| other.driver == record.driver && other.handle == record.handle;
        if all.iter().any(|(directory, other)| !directory.starts_with(&own) && is_same(other)) {
            return Ok(());
        }
        let staging = self.staging(&record.driver, &record.handle, place, is_block);
        if capabilities(socket, CALL_LIMIT).await?.contains(&messages::STAGES) {
            let path = staging.to_string_lossy().into_owned();
            let release = Release { volume_id: record.handle.clone(), path };
            let _: Empty = grpc::call(socket, "/csi.v1.Node/NodeUnstageVolume", &release, CALL_LIMIT).await?;
        }
        let path = if is_block { staging } else { staging.parent().unwrap_or(&staging).to_owned() };
        maker.disks.run(uid, Job::Remove { path }).await.map(drop)
    }

    async fn records(&self, maker: &Maker, uid: Option<&str>) -> Result<Vec<(PathBuf, Record)>, VolumeError> {
        let job = Job::Records { uid: uid.map(str::to_owned) };
        let Done::Files(files) = maker.disks.run(uid.unwrap_or_default(), job).await? else {
            return Err(VolumeError::Away);
        };
        let parse =
            |(directory, text): (PathBuf, String)| Record::parse(&directory, &text).map(|record| (directory, record));
        files.into_iter().map(parse).collect()
    }

    /// See [`crate::Volumes::in_use`].
    pub(crate) async fn in_use(&self, maker: &Maker) -> Result<Vec<String>, VolumeError> {
        let records = self.records(maker, None).await?;
        let persistent = records.into_iter().map(|(_, record)| record).filter(|record| !record.is_ephemeral());
        let mut names: Vec<_> = persistent.map(|record| attach::unique_name(&record.driver, &record.handle)).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// What the cluster says of a driver; the defaults if it says nothing.
    async fn driver(&self, name: &str) -> Result<CSIDriverSpec, VolumeError> {
        let api: Api<CSIDriver> = Api::all(self.connect.client());
        let failed = VolumeError::api(format!("failed to get CSIDriver {name}"));
        Ok(api.get_opt(name).await.map_err(failed)?.map(|driver| driver.spec).unwrap_or_default())
    }

    async fn secrets(&self, secret: Option<&(String, String)>) -> Result<HashMap<String, String>, VolumeError> {
        let Some((namespace, name)) = secret else { return Ok(HashMap::new()) };
        let api: Api<Secret> = Api::namespaced(self.connect.client(), namespace);
        let failed = VolumeError::api(format!("failed to get secret {namespace}/{name}"));
        let data = api.get(name).await.map_err(failed)?.data.unwrap_or_default();
        Ok(data.into_iter().map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect())
    }

    /// The volume's attributes, with what the driver wants to know about the pod.
    async fn context(
        &self,
        maker: &Maker,
        pod: &Pod,
        volume: &CsiVolume,
        driver: &CSIDriverSpec,
    ) -> Result<HashMap<String, String>, VolumeError> {
        let mut context = volume.attributes.clone();
        if driver.pod_info_on_mount == Some(true) {
            context.extend(volume.pod_info(pod));
        }
        let mut tokens = serde_json::Map::new();
        for wanted in driver.token_requests.iter().flatten() {
            let token =
                maker.tokens.get(token_ref(pod, Some(wanted.audience.clone()), wanted.expiration_seconds)).await?;
            let expires = i64::try_from(token.expires.as_secs()).unwrap_or(0);
            let expires = jiff::Timestamp::from_second(expires).unwrap_or_default().to_string();
            let value = serde_json::json!({"token": token.text, "expirationTimestamp": expires});
            tokens.insert(wanted.audience.clone(), value);
        }
        if !tokens.is_empty() {
            let text = serde_json::Value::Object(tokens).to_string();
            context.insert("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), text);
        }
        Ok(context)
    }
}

/// What a driver can do on this node.
async fn capabilities(socket: &Path, limit: Duration) -> Result<Vec<i32>, VolumeError> {
    let found: Capabilities = grpc::call(socket, "/csi.v1.Node/NodeGetCapabilities", &Empty {}, limit).await?;
    Ok(found.capabilities.into_iter().filter_map(|capability| capability.rpc).map(|rpc| rpc.kind).collect())
}

/// Under which name a volume lies, and whether it is a device, from the directory of its record.
fn place_of(directory: &Path) -> (String, bool) {
    let is_block = directory.parent().and_then(Path::parent).is_some_and(|kind| kind.ends_with("plugins"));
    (directory.file_name().unwrap_or_default().to_string_lossy().into_owned(), is_block)
}
