//! What there is, as attachments see it: which pods want which disk on which node, and what is attached where.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k3sd_client::controller::indexes::BY_NODE;
use k3sd_client::controller::pods::node as node_of;
use k3sd_client::controller::setup::Setup;
use k3sd_client::informer::{Index, Informer, ObjectKey, Snapshot};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};

use super::core::Side;
use super::disk::{Disk, attaches, listed};
use crate::claims::{BY_CLAIM, by_claim, claim_of, is_done, volumes_by_claim};
use crate::ephemeral::{check_owner, claim_name};
use crate::support::text;

/// Finds volumes that stand for a disk, and nodes that list it, by its unique name.
const BY_DISK: &str = "disk";
/// Finds attachments by the name of their volume.
const BY_VOLUME: &str = "volume";

/// Where copies come from.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) pods: Informer<Pod>,
    pub(super) claims: Informer<PersistentVolumeClaim>,
    pub(super) volumes: Informer<PersistentVolume>,
    pub(super) attachments: Informer<VolumeAttachment>,
    pub(super) nodes: Informer<Node>,
    pub(super) drivers: Informer<CSIDriver>,
}

/// Copies, all of about the same time.
pub(super) struct Shown {
    pods: Arc<Snapshot<Pod>>,
    claims: Arc<Snapshot<PersistentVolumeClaim>>,
    volumes: Arc<Snapshot<PersistentVolume>>,
    attachments: Arc<Snapshot<VolumeAttachment>>,
    pub(super) nodes: Arc<Snapshot<Node>>,
    drivers: Arc<Snapshot<CSIDriver>>,
}

impl World {
    pub(super) fn new(setup: &mut Setup<'_>) -> Self {
        let disks = |volume: &PersistentVolume| Disk::of(volume).iter().map(ToString::to_string).collect();
        let on_node = |node: &Node| listed(node).map(|disk| disk.to_string()).collect();
        let of_node = |attachment: &VolumeAttachment| vec![attachment.spec.node_name.clone()];
        let of_volume = |attachment: &VolumeAttachment| volume_of(attachment).into_iter().collect();
        let informers = &mut *setup.informers;
        Self {
            pods: informers.indexed(vec![by_claim(), k3sd_client::controller::indexes::by_node()]),
            claims: informers.informer(),
            volumes: informers.indexed(vec![volumes_by_claim(), Index { name: BY_DISK, texts: disks }]),
            attachments: informers
                .indexed(vec![Index { name: BY_NODE, texts: of_node }, Index { name: BY_VOLUME, texts: of_volume }]),
            nodes: informers.indexed(vec![Index { name: BY_DISK, texts: on_node }]),
            drivers: informers.informer(),
        }
    }

    /// `None` before there is a first list of each.
    pub(super) fn shown(&self) -> Option<Shown> {
        Some(Shown {
            pods: self.pods.snapshot()?,
            claims: self.claims.snapshot()?,
            volumes: self.volumes.snapshot()?,
            attachments: self.attachments.snapshot()?,
            nodes: self.nodes.snapshot()?,
            drivers: self.drivers.snapshot()?,
        })
    }
}

/// The name of the volume that an attachment is for.
fn volume_of(attachment: &VolumeAttachment) -> Option<String> {
    attachment.spec.source.persistent_volume_name.clone()
}

/// Whether a pod mounts a claim rightly: one of its own volumes isn't one that somebody else made under its name.
fn mounts(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let name = text(claim.metadata.name.as_ref());
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(|volume| {
        volume.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == name)
            || volume.ephemeral.is_some() && claim_name(pod, &volume.name) == name && check_owner(pod, claim).is_ok()
    })
}

/// By the names of their nodes.
type Users = BTreeMap<String, Vec<Arc<Pod>>>;

impl Shown {
    /// The claim that a volume is bound to, if that agrees.
    fn bound(&self, volume: &PersistentVolume) -> Option<&Arc<PersistentVolumeClaim>> {
        let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
        let key = claim_of(volume)?;
        let claim = self.claims.get(&key.namespace, &key.name)?;
        let names = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_ref()) == volume.metadata.name.as_ref();
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        (names && phase == Some("Bound") && claim.metadata.uid == reference.uid).then_some(claim)
    }

    /// The pods that run with a disk, or will, and the volume by which they want it.
    pub(super) fn users(&self, disk: &Disk) -> (Option<Arc<PersistentVolume>>, Users) {
        let (mut by, mut users) = (None, Users::new());
        if !attaches(self.drivers.get("", &disk.driver).map(AsRef::as_ref)) {
            return (by, users);
        }
        let unique = disk.to_string();
        for volume in self.volumes.by(BY_DISK, &unique) {
            let Some(claim) = self.bound(volume) else { continue };
            let key = ObjectKey::of(&**claim).to_string();
            let runs = |pod: &&Arc<Pod>| !node_of(pod).is_empty() && !is_done(pod) && mounts(pod, claim);
            for pod in self.pods.by(BY_CLAIM, &key).filter(runs) {
                users.entry(node_of(pod).to_owned()).or_default().push(pod.clone());
                by.get_or_insert_with(|| volume.clone());
            }
        }
        (by, users)
    }

    /// The nodes that something is attached to, or may be.
    fn places(&self, disk: &Disk) -> BTreeSet<String> {
        let unique = disk.to_string();
        let node = |found: &Arc<VolumeAttachment>| found.spec.node_name.clone();
        let mut places = BTreeSet::new();
        let mut has_volume = false;
        for volume in self.volumes.by(BY_DISK, &unique) {
            has_volume = true;
            let name = text(volume.metadata.name.as_ref());
            places.extend(self.attachments.by(BY_VOLUME, name).map(node));
        }
        if !has_volume {
            // Whoever deleted the volume by force left its attachments, which are known by their names alone.
            let is_its = |found: &&Arc<VolumeAttachment>| {
                found.spec.attacher == disk.driver
                    && found.metadata.name.as_ref() == Some(&disk.attachment(&found.spec.node_name))
            };
            places.extend(self.attachments.iter().filter(is_its).map(node));
        }
        places.extend(self.nodes.by(BY_DISK, &unique).filter_map(|node| node.metadata.name.clone()));
        places
    }

    fn side(&self, disk: &Disk, node: &str, users: &Users) -> Side {
        Side {
            node_name: node.to_owned(),
            node: self.nodes.get("", node).cloned(),
            pods: users.get(node).cloned().unwrap_or_default(),
            attachment: self.attachments.get("", &disk.attachment(node)).cloned(),
            idle: std::time::Duration::ZERO,
        }
    }

    /// How all nodes that matter stand to a disk, and the volume by which it is wanted.
    pub(super) fn sides_of_disk(&self, disk: &Disk) -> (Option<Arc<PersistentVolume>>, Vec<Side>) {
        let (volume, users) = self.users(disk);
        let mut places = self.places(disk);
        places.extend(users.keys().cloned());
        (volume, places.iter().map(|node| self.side(disk, node, &users)).collect())
    }

    /// How a node stands to each disk that it lists or that is being attached to it.
    pub(super) fn sides_of_node(&self, name: &str) -> Vec<(Disk, Side)> {
        let sides = self.disks_of_node(name).into_iter().map(|disk| {
            let side = self.side(&disk, name, &self.users(&disk).1);
            (disk, side)
        });
        sides.collect()
    }

    pub(super) fn disks_of_node(&self, name: &str) -> BTreeSet<Disk> {
        let attached = self.attachments.by(BY_NODE, name).filter_map(|found| self.disk_of(found));
        attached.chain(self.nodes.get("", name).into_iter().flat_map(|node| listed(node))).collect()
    }

    /// What an attachment attaches; `None` when its volume isn't there.
    pub(super) fn disk_of(&self, attachment: &VolumeAttachment) -> Option<Disk> {
        self.disk_of_volume(&volume_of(attachment)?)
    }

    pub(super) fn disk_of_volume(&self, name: &str) -> Option<Disk> {
        Disk::of(self.volumes.get("", name)?)
    }

    /// The disks that a claim stands for, bound to it or reserved for it.
    pub(super) fn disks_of_claim(&self, claim: &ObjectKey) -> Vec<Disk> {
        let key = claim.to_string();
        self.volumes.by(BY_CLAIM, &key).filter_map(|volume| Disk::of(volume)).collect()
    }

    /// The disks that a driver has.
    pub(super) fn disks_of_driver(&self, driver: &str) -> Vec<Disk> {
        self.volumes.iter().filter_map(|volume| Disk::of(volume)).filter(|disk| disk.driver == driver).collect()
    }

    /// The pods of a node, whether they want anything or not.
    pub(super) fn pods_of_node<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.pods.by(BY_NODE, name)
    }

    /// The nodes whose status may have to change with a disk.
    pub(super) fn nodes_of_disk(&self, disk: &Disk) -> BTreeSet<String> {
        self.places(disk)
    }

    /// A volume that stands for a disk.
    pub(super) fn volume_of_disk(&self, disk: &Disk) -> Option<Arc<PersistentVolume>> {
        let unique = disk.to_string();
        self.volumes.by(BY_DISK, &unique).next().cloned()
    }
}
