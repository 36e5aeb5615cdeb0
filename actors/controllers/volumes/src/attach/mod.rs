//! The `attachdetach` controller: has volumes of CSI drivers attached to the nodes whose pods use them.
//!
//! ```text
//! pod bound to node ─▶ VolumeAttachment ─ driver ─▶ attached ─▶ node's status lists it, pods may mount it
//! no pod any more ─▶ node says it isn't mounted ─▶ node's status lists it no more ─▶ attachment goes ─ driver ─▶ gone
//! ```
//!
//! Owns:    VolumeAttachments of names that it computes; `status.volumesAttached` of nodes, as far as CSI volumes go.
//! Needs:   copies of pods, claims, volumes, attachments, nodes and drivers.
//! Restart: permanent. What is attached is read from attachments and nodes. Beside the loop it is kept since when nobody
//!          wants a disk, and what people were told: a new process waits anew, and may tell again.
//! Fails:   never as a whole; a disk or a node that can't be written is tried again.
//!
//! There is one key for each disk, which makes attachments and deletes them, so that no two nodes get a disk that only
//! one may have; and one for each node, which writes the node's status, so that nobody writes over another's list.

mod core;
mod disk;
#[cfg(test)]
mod tests;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::controller::pods::node as node_of;
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::ObjectKey;
use k3sd_runtime::{ChildSpec, Moment};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource as _};
use serde_json::json;
use tokio::sync::watch;

use self::core::{FAILED, MULTI, Side, State, Step, aspect, decide, listing, multi_attach, succeeded, uses};
use self::disk::{Disk, attaches, listed};
use self::world::{Shown, World};
use crate::claims::{claim_keys, is_done};
use crate::support::text;

const COMPONENT: &str = "attachdetach-controller";

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Disk(Disk),
    Node(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(disk) => write!(f, "volume {disk}"),
            Self::Node(name) => write!(f, "node {name}"),
        }
    }
}

/// What nothing in the API says of a disk and a node.
#[derive(Debug, Default)]
struct Note {
    /// Since when no pod there wants it, by our clock.
    idle_since: Option<Moment>,
    /// What its pods were told last.
    told: Option<String>,
}

struct Attacher {
    client: Client,
    world: World,
    recorder: Recorder,
    /// Disks are taken from nodes that haven't answered for long.
    by_time: bool,
    notes: watch::Sender<BTreeMap<Disk, BTreeMap<String, Note>>>,
}

/// The loop.
pub(crate) fn attach(setup: &mut Setup<'_>) -> ChildSpec {
    let world = World::new(setup);
    let recorder = setup.recorder.component(COMPONENT);
    let controller = Attacher {
        client: setup.connect(COMPONENT).client(),
        world: world.clone(),
        recorder: recorder.clone(),
        by_time: !setup.config.disable_force_detach,
        notes: watch::channel(BTreeMap::new()).0,
    };
    let ask = move |world: &World| {
        let world = world.clone();
        move || world.shown()
    };
    let (a, b, c, d, e, f) = (ask(&world), ask(&world), ask(&world), ask(&world), ask(&world), ask(&world));
    let known = ask(&world);
    Loop::new(controller, setup.leading.clone())
        .watch(&world.attachments, move |old, new, keys| attachment_changed(a(), old, new, keys))
        .watch(&world.nodes, move |old, new, keys| node_changed(b(), old, new, keys))
        .watch(&world.pods, move |old, new, keys| pod_changed(c(), old, new, keys))
        .watch(&world.claims, move |old, new, keys| claim_changed(d(), old, new, keys))
        .watch(&world.volumes, move |old, new, keys| volume_changed(e(), old, new, keys))
        .watch(&world.drivers, move |old, new, keys| driver_changed(f(), old, new, keys))
        .quarantine(recorder, move |key| match key {
            Key::Disk(disk) => Some(known()?.volume_of_disk(disk)?.object_ref(&())),
            Key::Node(name) => Some(known()?.nodes.get("", name)?.object_ref(&())),
        })
        .child("attachdetach")
}

/// A disk, and the nodes whose status depends on it.
fn add_disk(shown: &Shown, disk: Disk, keys: &mut Vec<Key>) {
    keys.extend(shown.nodes_of_disk(&disk).into_iter().map(Key::Node));
    keys.push(Key::Disk(disk));
}

fn attachment_changed(
    shown: Option<Shown>,
    old: Option<&VolumeAttachment>,
    new: Option<&VolumeAttachment>,
    keys: &mut Vec<Key>,
) {
    let Some((attachment, shown)) = new.or(old).zip(shown) else { return };
    keys.push(Key::Node(attachment.spec.node_name.clone()));
    keys.extend(shown.disk_of(attachment).map(Key::Disk));
}

fn node_changed(shown: Option<Shown>, old: Option<&Node>, new: Option<&Node>, keys: &mut Vec<Key>) {
    if old.map(aspect) == new.map(aspect) {
        return;
    }
    let Some((node, shown)) = new.or(old).zip(shown) else { return };
    let name = text(node.metadata.name.as_ref());
    let mut disks = shown.disks_of_node(name);
    disks.extend(old.into_iter().flat_map(listed));
    if !disks.is_empty() {
        keys.push(Key::Node(name.to_owned()));
    }
    // Pods may have waited for the node to say who attaches its volumes.
    let claims = shown.pods_of_node(name).flat_map(|pod| claim_keys(pod));
    disks.extend(claims.flat_map(|claim| shown.disks_of_claim(&claim)));
    keys.extend(disks.into_iter().map(Key::Disk));
}

fn pod_changed(shown: Option<Shown>, old: Option<&Pod>, new: Option<&Pod>, keys: &mut Vec<Key>) {
    let aspect = |pod: &Pod| (node_of(pod).to_owned(), is_done(pod));
    let Some(pod) = new.or(old).filter(|pod| !node_of(pod).is_empty()) else { return };
    if old.map(aspect) == new.map(aspect) || claim_keys(pod).next().is_none() {
        return;
    }
    let Some(shown) = shown else { return };
    let disks: Vec<Disk> = claim_keys(pod).flat_map(|claim| shown.disks_of_claim(&claim)).collect();
    if !disks.is_empty() {
        keys.push(Key::Node(node_of(pod).to_owned()));
    }
    keys.extend(disks.into_iter().map(Key::Disk));
}

fn claim_changed(
    shown: Option<Shown>,
    old: Option<&PersistentVolumeClaim>,
    new: Option<&PersistentVolumeClaim>,
    keys: &mut Vec<Key>,
) {
    let aspect = |claim: &PersistentVolumeClaim| {
        let phase = claim.status.as_ref().and_then(|status| status.phase.clone());
        (claim.metadata.uid.clone(), volume_name(claim), phase)
    };
    if old.map(aspect) == new.map(aspect) {
        return;
    }
    let Some((claim, shown)) = new.or(old).zip(shown) else { return };
    let named = volume_name(claim).and_then(|name| shown.disk_of_volume(&name));
    for disk in named.into_iter().chain(shown.disks_of_claim(&ObjectKey::of(claim))) {
        add_disk(&shown, disk, keys);
    }
}

fn volume_name(claim: &PersistentVolumeClaim) -> Option<String> {
    claim.spec.as_ref()?.volume_name.clone()
}

fn volume_changed(
    shown: Option<Shown>,
    old: Option<&PersistentVolume>,
    new: Option<&PersistentVolume>,
    keys: &mut Vec<Key>,
) {
    if old.map(|volume| &volume.spec) == new.map(|volume| &volume.spec) {
        return;
    }
    let Some(shown) = shown else { return };
    [old, new].into_iter().flatten().filter_map(Disk::of).for_each(|disk| add_disk(&shown, disk, keys));
}

fn driver_changed(shown: Option<Shown>, old: Option<&CSIDriver>, new: Option<&CSIDriver>, keys: &mut Vec<Key>) {
    // Without a description volumes are attached.
    if attaches(old) == attaches(new) {
        return;
    }
    let Some((driver, shown)) = new.or(old).zip(shown) else { return };
    let disks = shown.disks_of_driver(text(driver.metadata.name.as_ref()));
    disks.into_iter().for_each(|disk| add_disk(&shown, disk, keys));
}

impl Controller for Attacher {
    type Key = Key;

    async fn reconcile(&self, key: &Key, turn: &mut Turn) -> Result<(), Failure> {
        let Some(shown) = self.world.shown() else { return Ok(()) };
        match key {
            Key::Disk(disk) => self.disk(&shown, disk, turn).await,
            Key::Node(name) => self.node(&shown, name, turn).await,
        }
    }
}

impl Attacher {
    /// How long nobody there has wanted the disk.
    fn idle(&self, disk: &Disk, side: &Side, now: Moment) -> Duration {
        let mut idle = Duration::ZERO;
        self.notes.send_if_modified(|notes| {
            if side.is_wanted() || side.state() == State::Absent {
                let note = notes.get_mut(disk).and_then(|notes| notes.get_mut(&side.node_name));
                note.into_iter().for_each(|note| note.idle_since = None);
            } else {
                let note = notes.entry(disk.clone()).or_default().entry(side.node_name.clone()).or_default();
                idle = now.since(*note.idle_since.get_or_insert(now));
            }
            false
        });
        idle
    }

    /// Forgets what was noted of nodes that have nothing to do with the disk any more, and what was told about one that
    /// is attached by now.
    fn forget(&self, disk: &Disk, sides: &[Side]) {
        self.notes.send_if_modified(|notes| {
            let Some(of_disk) = notes.get_mut(disk) else { return false };
            of_disk.retain(|node, note| {
                let side = sides.iter().find(|side| side.node_name == *node);
                if side.is_none_or(|side| !side.is_wanted() || side.state() == State::Attached) {
                    note.told = None;
                }
                side.is_some_and(|side| side.is_wanted() || side.state() != State::Absent)
            });
            if of_disk.is_empty() {
                notes.remove(disk);
            }
            false
        });
    }

    /// Whether the pods of a node weren't told this last.
    fn is_news(&self, disk: &Disk, node: &str, mark: String) -> bool {
        let mut is_news = false;
        self.notes.send_if_modified(|notes| {
            let note = notes.entry(disk.clone()).or_default().entry(node.to_owned()).or_default();
            is_news = note.told.as_ref() != Some(&mark);
            note.told = Some(mark);
            false
        });
        is_news
    }

    async fn disk(&self, shown: &Shown, disk: &Disk, turn: &mut Turn) -> Result<(), Failure> {
        let (volume, mut sides) = shown.sides_of_disk(disk);
        self.forget(disk, &sides);
        for side in &mut sides {
            side.idle = self.idle(disk, side, turn.moment());
        }
        let mut failed = None;
        for step in decide(disk, volume.as_deref(), &sides, self.by_time, turn.now()) {
            let done = match step {
                Step::Attach { node, volume } => self.attach(disk, &node, volume, turn).await,
                Step::Detach { node, forced } => {
                    let attachment = sides.iter().find(|side| side.node_name == node);
                    match attachment.and_then(|side| side.attachment.as_deref()) {
                        Some(attachment) => self.detach(disk, attachment, forced, turn).await,
                        None => Ok(()),
                    }
                }
                Step::Tell { node, mark, message } => {
                    if let Some(volume) = volume.as_deref().filter(|_| self.is_news(disk, &node, mark.clone())) {
                        self.tell(volume, &sides, &node, &mark, &message);
                    }
                    Ok(())
                }
                Step::Again(after) => {
                    turn.again(after);
                    Ok(())
                }
            };
            failed = failed.or(done.err());
        }
        failed.map_or(Ok(()), Err)
    }

    async fn attach(&self, disk: &Disk, node: &str, volume: String, turn: &mut Turn) -> Result<(), Failure> {
        let source = VolumeAttachmentSource { persistent_volume_name: Some(volume), inline_volume_spec: None };
        let attachment = VolumeAttachment {
            metadata: ObjectMeta { name: Some(disk.attachment(node)), ..ObjectMeta::default() },
            spec: VolumeAttachmentSpec { attacher: disk.driver.clone(), node_name: node.to_owned(), source },
            status: None,
        };
        let made = Api::all(self.client.clone()).create(&PostParams::default(), &attachment).await?;
        turn.wrote(&self.world.attachments, &made);
        Ok(())
    }

    async fn detach(
        &self,
        disk: &Disk,
        attachment: &VolumeAttachment,
        forced: bool,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        let node = &attachment.spec.node_name;
        if !forced {
            // A copy may lag: the node may have begun to use the disk.
            let nodes: Api<Node> = Api::all(self.client.clone());
            if let Some(live) = nodes.get_opt(node).await?
                && (uses(&live, disk) || listed(&live).any(|found| found == *disk))
            {
                return Err(Failure::other(format!("node {node} still uses the volume, or may begin to")));
            }
        }
        let preconditions = Preconditions { uid: attachment.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        let name = text(attachment.metadata.name.as_ref());
        match api.delete(name, &params).await.map_err(Failure::from) {
            Err(failure) if failure.code() != Some(404) => return Err(failure),
            _ => turn.deleted(&self.world.attachments, attachment),
        }
        Ok(())
    }

    /// Tells the pods of a node why they have to wait.
    fn tell(&self, volume: &PersistentVolume, sides: &[Side], node: &str, mark: &str, message: &str) {
        let has_it = |side: &&Side| side.node_name != node && side.state() != State::Absent;
        let others: Vec<Arc<Pod>> = sides.iter().filter(has_it).flat_map(|side| side.pods.clone()).collect();
        for pod in sides.iter().filter(|side| side.node_name == node).flat_map(|side| &side.pods) {
            let namespace = text(pod.metadata.namespace.as_ref());
            let message = match mark {
                MULTI => multi_attach(text(volume.metadata.name.as_ref()), namespace, &others),
                _ => message.to_owned(),
            };
            self.recorder.warning(&**pod, FAILED, message);
        }
    }

    async fn node(&self, shown: &Shown, name: &str, turn: &mut Turn) -> Result<(), Failure> {
        let Some(node) = shown.nodes.get("", name) else { return Ok(()) };
        let mut sides = shown.sides_of_node(name);
        for (disk, side) in &mut sides {
            side.idle = self.idle(disk, side, turn.moment());
            side.next_look(disk, self.by_time).into_iter().for_each(|after| turn.again(after));
        }
        let Some((list, new)) = listing(node, &sides, self.by_time) else { return Ok(()) };
        // Over the very node that was read: another incarnation may have taken a disk off its list.
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "status": {"volumesAttached": Some(list).filter(|list| !list.is_empty())},
        });
        let api: Api<Node> = Api::all(self.client.clone());
        let written = api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        match written.map_err(Failure::from) {
            Ok(written) => turn.wrote(&self.world.nodes, &written),
            Err(failure) if failure.code() == Some(404) => return Ok(()),
            Err(failure) => return Err(failure),
        }
        for disk in new {
            let (Some(volume), users) = shown.users(&disk) else { continue };
            for pod in users.get(name).into_iter().flatten() {
                self.recorder.normal(&**pod, "SuccessfulAttachVolume", succeeded(text(volume.metadata.name.as_ref())));
            }
        }
        Ok(())
    }
}
