//! Looks at what the node has left, and makes pods go before it has nothing.
//!
//! Owns:    what the node says that it is short of.
//! Needs:   the node's figures, the keepers of images and containers, whoever can end pods.
//! Restart: permanent. A pressure that was over and still told of is forgotten.
//! Fails:   never; what can't be measured is never short.

use std::sync::Arc;
use std::time::Duration;

use k3sd_client::events::Recorder;
use k3sd_kubelet_base::PodView;
use k3sd_kubelet_base::stats::{FsStats, PodStats};
use k3sd_runtime::{Actor, ActorError, Address, AskError, Context, Moment, message_kinds};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::local::{LocalUse, has_limit, over_limit};
use super::manager::{Manager, Settings};
use super::rank::{PodUse, Usage, is_critical, rank};
use super::signal::{Observation, Observations, Signal, Threshold};
use super::text::message;
use super::{Evict, Eviction, EvictionCounts, Pressures, REASON};
use crate::collect::{ImageKeeperMsg, KeeperMsg, has_ended};
use crate::figures::{Figures, Snapshot, is_local};
use crate::status::reference;

/// How often it looks; upstream's.
const EVERY: Duration = Duration::from_secs(10);
/// For so long it waits for a pod to be gone before it makes the next one go; upstream's.
const LEAVING_MAX: Duration = Duration::from_secs(30);
/// How long garbage collection may take.
const COLLECT_LIMIT: Duration = Duration::from_secs(120);

/// How it decides; see [`Settings`].
pub type EvictionConfig = Settings;

/// What the actor is started with.
#[derive(Clone)]
pub(crate) struct EvictionArgs {
    pub(crate) config: EvictionConfig,
    /// Whether pods are held to their own limits of local storage.
    pub(crate) holds_to_limits: bool,
    pub(crate) node: String,
    pub(crate) figures: Figures,
    pub(crate) images: watch::Receiver<Option<Address<ImageKeeperMsg>>>,
    pub(crate) containers: watch::Receiver<Option<Address<KeeperMsg>>>,
    pub(crate) evict: Arc<dyn Evict>,
    pub(crate) recorder: Recorder,
    pub(crate) pressures: Arc<watch::Sender<Pressures>>,
    pub(crate) counts: Arc<watch::Sender<EvictionCounts>>,
}

/// See the variant.
pub(crate) enum EvictionMsg {
    /// Look.
    LookTick,
}

message_kinds!(EvictionMsg { LookTick });

/// The actor itself.
pub(crate) struct EvictionManager {
    args: EvictionArgs,
    manager: Manager,
    /// The pod that goes, and since when.
    leaving: Option<(String, Moment)>,
}

impl Actor for EvictionManager {
    type Args = EvictionArgs;
    type Msg = EvictionMsg;

    const STOPS_AT_AWAIT: bool = true;

    async fn init(ctx: &mut Context<EvictionMsg>, args: EvictionArgs) -> Result<Self, ActorError> {
        ctx.send_self(EvictionMsg::LookTick);
        let manager = Manager::new(args.config.clone());
        Ok(Self { args, manager, leaving: None })
    }

    async fn handle(&mut self, ctx: &mut Context<EvictionMsg>, _: EvictionMsg) -> Result<(), ActorError> {
        let looked = match self.args.figures.look_at_node().await {
            Ok(found) => self.act(ctx.clock().now(), &found).await,
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            tracing::debug!(%error, "the node can't be measured");
        }
        ctx.send_after(EVERY, EvictionMsg::LookTick);
        Ok(())
    }
}

impl EvictionManager {
    /// Decides, and does what is due. Pods are only measured when it matters.
    async fn act(&mut self, now: Moment, node: &Snapshot) -> Result<(), AskError> {
        let seen = observations(node);
        let decision = self.manager.look(&seen, now);
        let pressures = decision.pressures;
        self.args.pressures.send_if_modified(|told| std::mem::replace(told, pressures) != pressures);
        let holds = self.args.holds_to_limits && node.pods.pods.values().any(|view| has_limit(&view.pod));
        if (!holds && decision.reclaim.is_none()) || self.is_leaving(now, node) {
            return Ok(());
        }
        let found = self.args.figures.look().await?;
        if holds && self.hold_to_limits(&found).await {
            return Ok(());
        }
        let Some(threshold) = decision.reclaim else { return Ok(()) };
        let resource = threshold.signal.resource();
        tracing::warn!(resource, signal = threshold.signal.name(), "the node runs out of something");
        let text = format!("Attempting to reclaim {resource}");
        self.args.recorder.about(reference(&self.args.node), "Warning", "EvictionThresholdMet", text);
        if self.collect(threshold.signal).await
            && self.manager.is_resolved(&observations(&*self.args.figures.look_at_node().await?))
        {
            return Ok(());
        }
        let uid = self.evict_first(&found, &threshold, seen.get(&threshold.signal).copied()).await;
        self.leaving = uid.map(|uid| (uid, now));
        Ok(())
    }

    /// Whether the pod that was made to go last is still there, and has time.
    fn is_leaving(&self, now: Moment, node: &Snapshot) -> bool {
        let Some((uid, since)) = &self.leaving else { return false };
        now.since(*since) < LEAVING_MAX && node.pods.pods.get(uid).is_some_and(|view| view.sandbox.is_some())
    }

    /// Ends pods that use more local storage than they may.
    async fn hold_to_limits(&self, found: &Snapshot) -> bool {
        let mut evicted = false;
        for pod in &found.summary.pods {
            let Some(view) = found.pods.pods.get(&pod.pod_ref.uid) else { continue };
            let Some((signal, message)) = over_limit(&view.pod, &local_use(&view.pod, pod)) else { continue };
            // Its own limit is exceeded, so that it gets no time, as upstream.
            if self.evict(view, message, 1).await {
                self.count(signal);
                evicted = true;
            }
        }
        evicted
    }

    /// Collects garbage that takes what is missing; whether there was anything to try.
    async fn collect(&self, signal: Signal) -> bool {
        if !matches!(signal.resource(), "ephemeral-storage" | "inodes") {
            return false;
        }
        let keeper = self.args.containers.borrow().clone();
        if let Some(keeper) = keeper {
            let asked = keeper.call(COLLECT_LIMIT, |reply| KeeperMsg::Free { reply }).await;
            asked.unwrap_or_else(|error| tracing::warn!(%error, "containers can't be collected"));
        }
        let keeper = self.args.images.borrow().clone();
        if let Some(keeper) = keeper {
            match keeper.call(COLLECT_LIMIT, |reply| ImageKeeperMsg::Free { reply }).await {
                Ok(bytes) => tracing::info!(bytes, "unused images are removed"),
                Err(error) => tracing::warn!(%error, "images can't be collected"),
            }
        }
        true
    }

    /// Ends the first pod, in their order, that may be ended; its uid.
    async fn evict_first(&self, found: &Snapshot, threshold: &Threshold, seen: Option<Observation>) -> Option<String> {
        for pod in rank(&uses(found, threshold.signal), threshold.signal) {
            let spec = pod.view.pod.spec.as_ref();
            let wanted = spec.and_then(|spec| spec.termination_grace_period_seconds);
            let grace_seconds = self.manager.grace_seconds(threshold, wanted);
            let message = message(&pod, threshold, seen);
            if self.evict(&pod.view, message, grace_seconds).await {
                self.count(threshold.signal.name());
                return Some(pod.view.uid.clone());
            }
        }
        tracing::warn!(resource = threshold.signal.resource(), "there is no pod that could be evicted");
        None
    }

    fn count(&self, signal: &'static str) {
        self.args.counts.send_modify(|counts| *counts.entry(signal).or_default() += 1);
    }

    async fn evict(&self, view: &PodView, message: String, grace_seconds: i64) -> bool {
        if is_critical(&view.pod) || has_ended(&view.pod) {
            return false;
        }
        self.args.recorder.warning(&*view.pod, REASON, message.clone());
        tracing::warn!(pod = view.uid, message, "a pod is evicted");
        self.args.evict.evict(Eviction { uid: view.uid.clone(), reason: REASON, message, grace_seconds }).await
    }
}

/// What is left, from figures.
fn observations(found: &Snapshot) -> Observations {
    let node = &found.summary.node;
    let mut all = Observations::new();
    let mut add = |signal, available: Option<u64>, capacity: Option<u64>| {
        if let (Some(available), Some(capacity)) = (available, capacity) {
            all.insert(signal, Observation { available, capacity });
        }
    };
    if let Some(memory) = &node.memory {
        let capacity =
            memory.available_bytes.zip(memory.working_set_bytes).map(|(left, used)| left.saturating_add(used));
        add(Signal::MemoryAvailable, memory.available_bytes, capacity);
    }
    if let Some(pods) = found.all_pods {
        let left = pods.memory_limit.zip(pods.memory_working_set).map(|(limit, used)| limit.saturating_sub(used));
        add(Signal::AllocatableMemoryAvailable, left, pods.memory_limit);
    }
    let mut disk = |fs: Option<&FsStats>, available, inodes| {
        let Some(fs) = fs else { return };
        add(available, fs.available_bytes, fs.capacity_bytes);
        // Some file systems make inodes as they are needed, and count none.
        add(inodes, fs.inodes_free, fs.inodes.filter(|inodes| *inodes > 0));
    };
    let runtime = node.runtime.as_ref();
    disk(node.fs.as_ref(), Signal::NodefsAvailable, Signal::NodefsInodesFree);
    disk(runtime.and_then(|one| one.image_fs.as_ref()), Signal::ImagefsAvailable, Signal::ImagefsInodesFree);
    disk(
        runtime.and_then(|one| one.container_fs.as_ref()),
        Signal::ContainerfsAvailable,
        Signal::ContainerfsInodesFree,
    );
    if let Some(limit) = &node.rlimit {
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let (most, running) = (number(limit.maxpid), number(limit.curproc));
        add(Signal::PidAvailable, most.zip(running).map(|(most, running)| most.saturating_sub(running)), most);
    }
    all
}

/// Which parts of a pod's storage are on the file system that a signal is about: logs and volumes on that of the node,
/// layers on that of images, all if they are one.
fn counts(signal: Signal, has_image_fs: bool) -> (bool, bool) {
    match signal {
        Signal::NodefsAvailable | Signal::NodefsInodesFree => (true, !has_image_fs),
        Signal::ImagefsAvailable | Signal::ImagefsInodesFree => (!has_image_fs, true),
        Signal::ContainerfsAvailable | Signal::ContainerfsInodesFree => (!has_image_fs, true),
        _ => (true, true),
    }
}

/// What pods use of what a signal is about.
fn uses(found: &Snapshot, signal: Signal) -> Vec<PodUse> {
    let (on_node, on_images) = counts(signal, found.has_image_fs);
    let bytes = |fs: Option<&FsStats>, counts: bool| {
        let fs = fs.filter(|_| counts);
        (fs.and_then(|fs| fs.used_bytes).unwrap_or(0), fs.and_then(|fs| fs.inodes_used).unwrap_or(0))
    };
    let one = |view: &Arc<PodView>| {
        let pod = found.summary.pods.iter().find(|pod| pod.pod_ref.uid == view.uid);
        let containers: Vec<(String, Usage)> = pod
            .into_iter()
            .flat_map(|pod| &pod.containers)
            .map(|container| {
                let (layer, logs) =
                    (bytes(container.rootfs.as_ref(), on_images), bytes(container.logs.as_ref(), on_node));
                let memory = container.memory.as_ref().and_then(|memory| memory.working_set_bytes).unwrap_or(0);
                let usage = Usage { memory, disk: layer.0 + logs.0, inodes: layer.1 + logs.1, pids: 0 };
                (container.name.clone(), usage)
            })
            .collect();
        let usage = pod.map(|pod| {
            let volumes = pod.volumes.iter().filter(|volume| is_local(&view.pod, &volume.name));
            let volumes: Vec<_> = volumes.map(|volume| bytes(Some(&volume.fs), on_node)).collect();
            let own = containers.iter().map(|(_, usage)| (usage.disk, usage.inodes));
            let (disk, inodes) = own.chain(volumes).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            let memory = pod.memory.as_ref().and_then(|memory| memory.working_set_bytes).unwrap_or(0);
            let pids = pod.processes.as_ref().and_then(|processes| processes.process_count).unwrap_or(0);
            Usage { memory, disk, inodes, pids }
        });
        PodUse { view: view.clone(), usage, containers }
    };
    found.pods.pods.values().map(one).collect()
}

fn local_use(object: &Pod, pod: &PodStats) -> LocalUse {
    let bytes = |fs: Option<&FsStats>| fs.and_then(|fs| fs.used_bytes).unwrap_or(0);
    let containers = pod.containers.iter();
    let volumes = pod.volumes.iter().filter(|volume| is_local(object, &volume.name));
    LocalUse {
        containers: containers
            .map(|one| (one.name.clone(), bytes(one.rootfs.as_ref()) + bytes(one.logs.as_ref())))
            .collect(),
        volumes: volumes.map(|volume| (volume.name.clone(), bytes(Some(&volume.fs)))).collect(),
    }
}
