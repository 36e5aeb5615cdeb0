//! What is to be done about attachments: pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{AttachedVolume, Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::disk::{Disk, is_shared, list, listed};
use crate::support::text;

/// How long a disk that nobody wants stays on a node that doesn't answer and said last that it has it mounted.
const UNMOUNT_MAX: Duration = Duration::from_secs(6 * 60);
/// How long a driver may take to attach before people are told; told again after each such while.
const ATTACH_MAX: Duration = Duration::from_secs(2 * 60);
/// Nodes whose volumes are attached by the control plane say so.
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// A person says that the node is off, and its disks may be taken.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// The reason of all that a [`Step::Tell`] tells.
pub(super) const FAILED: &str = "FailedAttachVolume";

/// How a node stands to a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    pub(super) node_name: String,
    /// `None` when there is no such node.
    pub(super) node: Option<Arc<Node>>,
    /// The pods there that run with the disk, or will.
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) attachment: Option<Arc<VolumeAttachment>>,
    /// How long no pod there has wanted it.
    pub(super) idle: Duration,
}

/// How far an attachment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none.
    Absent,
    /// Its driver works on it, or nobody does.
    Pending,
    /// The disk is there.
    Attached,
    /// It is being given up.
    Going,
}

/// The parts of a node that matter here: whoever changed only others changed nothing.
pub(super) fn aspect(node: &Node) -> (bool, bool, bool, &[AttachedVolume], &[String]) {
    (is_managed(node), is_healthy(node), is_out_of_service(node), list(node), in_use(node))
}

fn is_managed(node: &Node) -> bool {
    node.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MANAGED))
}

fn is_healthy(node: &Node) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_out_of_service(node: &Node) -> bool {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|taint| taint.key == OUT_OF_SERVICE)
}

fn in_use(node: &Node) -> &[String] {
    node.status.as_ref().and_then(|status| status.volumes_in_use.as_deref()).unwrap_or_default()
}

/// Whether a node says that it has a disk mounted, or is about to.
pub(super) fn uses(node: &Node, disk: &Disk) -> bool {
    let name = disk.to_string();
    in_use(node).contains(&name)
}

impl Side {
    pub(super) fn is_wanted(&self) -> bool {
        !self.pods.is_empty()
    }

    pub(super) fn state(&self) -> State {
        match self.attachment.as_deref() {
            None => State::Absent,
            Some(found) if found.metadata.deletion_timestamp.is_some() => State::Going,
            Some(found) if found.status.as_ref().is_some_and(|status| status.attached) => State::Attached,
            Some(_) => State::Pending,
        }
    }

    fn is_listed(&self, disk: &Disk) -> bool {
        self.node.as_deref().is_some_and(|node| listed(node).any(|found| found == *disk))
    }

    /// Whether the disk may be taken from the node whatever that says of mounts. `by_time`: waiting long is enough.
    pub(super) fn is_forced(&self, by_time: bool) -> bool {
        let node = self.node.as_deref();
        node.is_some_and(is_out_of_service) || by_time && self.idle >= UNMOUNT_MAX && !node.is_some_and(is_healthy)
    }

    /// Whether a disk that nobody wants has to stay: it is mounted. Of a node that is gone nobody knows that it isn't.
    fn is_held(&self, disk: &Disk, by_time: bool) -> bool {
        let is_mounted = self.node.as_deref().is_none_or(|node| uses(node, disk));
        is_mounted && !self.is_forced(by_time)
    }

    /// When time alone will change what is to be done.
    pub(super) fn next_look(&self, disk: &Disk, by_time: bool) -> Option<Duration> {
        let waits = !self.is_wanted() && self.state() != State::Absent && self.is_held(disk, by_time);
        let left = UNMOUNT_MAX.saturating_sub(self.idle);
        (waits && by_time && !left.is_zero()).then_some(left)
    }
}

/// What is to be done about a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Attach it to the node, for this volume.
    Attach { node: String, volume: String },
    /// Take it from the node; if it isn't `forced`, only once the node itself says that it isn't mounted.
    Detach { node: String, forced: bool },
    /// Tell the pods there why it isn't attached, unless they were told this, which `mark` stands for.
    Tell { node: String, mark: String, message: String },
    /// Look again then.
    Again(Duration),
}

/// All steps for a disk, by how each node stands to it; `volume` is the one that pods want it by.
pub(super) fn decide(
    disk: &Disk,
    volume: Option<&PersistentVolume>,
    sides: &[Side],
    by_time: bool,
    now: Timestamp,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for side in sides.iter().filter(|side| !side.is_wanted()) {
        let may_go = matches!(side.state(), State::Attached | State::Pending) && !side.is_held(disk, by_time);
        // The node is told first that it isn't there any more, so that no pod begins to use it meanwhile.
        if may_go && !side.is_listed(disk) {
            steps.push(Step::Detach { node: side.node_name.clone(), forced: side.is_forced(by_time) });
        }
        steps.extend(side.next_look(disk, by_time).map(Step::Again));
    }
    let Some(volume) = volume else { return steps };
    let name = text(volume.metadata.name.as_ref());
    let mut is_taken = sides.iter().any(|side| side.state() != State::Absent);
    let mut wanting: Vec<&Side> = sides.iter().filter(|side| side.is_wanted()).collect();
    // Who has waited longest is first.
    wanting.sort_by_key(|side| (oldest(&side.pods), side.node_name.clone()));
    for side in wanting {
        let node = side.node_name.clone();
        match side.state() {
            State::Absent if !side.node.as_deref().is_some_and(is_managed) => {}
            State::Absent if is_taken && !is_shared(volume) => {
                steps.push(Step::Tell { message: String::new(), mark: MULTI.to_owned(), node })
            }
            State::Absent => {
                is_taken = true;
                steps.push(Step::Attach { node, volume: name.to_owned() });
            }
            State::Going => {
                let message = failed(name, "volume attachment is being deleted");
                steps.push(Step::Tell { mark: format!("going {}", version(side)), message, node });
            }
            State::Pending => pending(disk, name, side, now, &mut steps),
            State::Attached => {}
        }
    }
    steps
}

/// Stands for what pods are told whose disk another node has.
pub(super) const MULTI: &str = "multi-attach";

fn version(side: &Side) -> &str {
    text(side.attachment.as_deref().and_then(|found| found.metadata.resource_version.as_ref()))
}

fn oldest(pods: &[Arc<Pod>]) -> Option<Timestamp> {
    pods.iter().filter_map(|pod| pod.metadata.creation_timestamp.as_ref()).map(|time| time.0).min()
}

fn failed(volume: &str, why: &str) -> String {
    format!("AttachVolume.Attach failed for volume \"{volume}\" : {why}")
}

/// What is told when a disk is there.
pub(super) fn succeeded(volume: &str) -> String {
    // The space is upstream's.
    format!("AttachVolume.Attach succeeded for volume \"{volume}\" ")
}

/// The driver hasn't attached it yet.
fn pending(disk: &Disk, volume: &str, side: &Side, now: Timestamp, steps: &mut Vec<Step>) {
    let Some(attachment) = side.attachment.as_deref() else { return };
    let node = side.node_name.clone();
    let error = attachment.status.as_ref().and_then(|status| status.attach_error.as_ref());
    if let Some(error) = error {
        let message = failed(volume, text(error.message.as_ref()));
        steps.push(Step::Tell { node, mark: format!("error {}", version(side)), message });
        return;
    }
    let made = attachment.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let waited = Duration::try_from(now.duration_since(made)).unwrap_or_default();
    let periods = waited.as_secs() / ATTACH_MAX.as_secs();
    if periods > 0 {
        let why = format!(
            "timed out waiting for external-attacher of {} CSI driver to attach volume {}",
            disk.driver, disk.handle
        );
        steps.push(Step::Tell { node, mark: format!("late {periods}"), message: failed(volume, &why) });
    }
    let next = Duration::from_secs((periods + 1) * ATTACH_MAX.as_secs());
    steps.push(Step::Again(next.saturating_sub(waited)));
}

/// What a pod is told whose disk another node has: by whom it is used there, without names from other namespaces.
pub(super) fn multi_attach(volume: &str, namespace: &str, others: &[Arc<Pod>]) -> String {
    let (near, far): (Vec<&Arc<Pod>>, Vec<_>) =
        others.iter().partition(|pod| pod.metadata.namespace.as_deref() == Some(namespace));
    let names: Vec<&str> = near.iter().map(|pod| text(pod.metadata.name.as_ref())).collect();
    let why = match (names.join(", "), far.len()) {
        (names, 0) if names.is_empty() => {
            "Volume is already exclusively attached to one node and can't be attached to another".to_owned()
        }
        (names, far) if names.is_empty() => format!("Volume is already used by {far} pod(s) in different namespaces"),
        (names, 0) => format!("Volume is already used by pod(s) {names}"),
        (names, far) => {
            format!("Volume is already used by pod(s) {names} and {far} pod(s) in different namespaces")
        }
    };
    format!("Multi-Attach error for volume \"{volume}\" {why}")
}

/// What a node's status is to list, and which of it is new; `None` if it lists that. Volumes of other kinds stay.
pub(super) fn listing(node: &Node, sides: &[(Disk, Side)], by_time: bool) -> Option<(Vec<AttachedVolume>, Vec<Disk>)> {
    let is_there =
        |disk: &Disk, side: &Side| side.state() == State::Attached && (side.is_wanted() || side.is_held(disk, by_time));
    let mut missing: Vec<&Disk> = Vec::new();
    let mut wanted: Vec<AttachedVolume> = list(node).to_vec();
    wanted.retain(|volume| {
        let Some(disk) = Disk::parse(&volume.name) else { return true };
        sides.iter().any(|(known, side)| *known == disk && is_there(known, side))
    });
    for (disk, side) in sides.iter().filter(|(disk, side)| is_there(disk, side)) {
        // A disk that is new here and that nobody wants isn't reported any more.
        if side.is_wanted() && !side.is_listed(disk) {
            missing.push(disk);
        }
    }
    let is_same = missing.is_empty() && wanted.len() == list(node).len();
    let new = missing.iter().map(|disk| AttachedVolume { name: disk.to_string(), device_path: String::new() });
    wanted.extend(new);
    (!is_same).then(|| (wanted, missing.into_iter().cloned().collect()))
}
