//! Makes the Node, and keeps saying how it is.
//!
//! Owns:    the Node of this name: its labels and annotations from flags, and its status but for what controllers write.
//! Needs:   the API, the container runtime (whose absence it tells of), the informer of the Node.
//! Restart: permanent. It looks at the Node, the runtime and the machine again, and sends what differs.
//! Fails:   never; what the API refuses is tried again.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k3sd_client::api::Connect;
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, version_number};
use k3sd_cri::{Cri, CriError, v1};
use k3sd_runtime::{Actor, ActorError, Clock, Context, Moment, TimerId, message_kinds};
use k8s_openapi::api::core::v1::{
    ContainerImage, Node, NodeAddress, NodeCondition, NodeFeatures, NodeRuntimeHandler, ObjectReference,
};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use tokio::sync::watch;

use super::conditions::{RuntimeHealth, changes};
use super::machine::{FileSystem, Machine, Roots};
use super::object::{Facts, features, handlers, images, status};
use super::patch::difference;
use super::resources::{Reserved, Supply, resources};
use crate::eviction::Pressures;
use crate::identity::{HostAddresses, Identity, NodeIps, address_list, initial, reconcile};
use crate::shutdown::PROBLEM;

/// How often it looks until the node is ready for the first time.
const FIRST_LOOKS_EVERY: Duration = Duration::from_millis(100);
/// For how long it looks that often.
const FIRST_LOOKS_FOR: Duration = Duration::from_secs(120);
/// How soon something that the API refused is tried again: from the first wait doubling to the longest.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(7);
/// How long the runtime may take to say how it is.
const RUNTIME_LIMIT: Duration = Duration::from_secs(10);
/// How often images are listed; upstream's.
const IMAGES_EVERY: Duration = Duration::from_secs(30);

/// What each resource of a device plugin has: devices, and healthy ones.
pub type DeviceCounts = BTreeMap<String, (u64, u64)>;

/// Something that is asked for what it is now.
#[derive(Clone)]
pub struct Ask(Arc<dyn Fn() -> Vec<String> + Send + Sync>);

impl Ask {
    /// Asks a function, which answers from memory.
    pub fn new(ask: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Asks.
    #[must_use]
    pub fn now(&self) -> Vec<String> {
        (self.0)()
    }
}

impl Default for Ask {
    /// Nothing.
    fn default() -> Self {
        Self::new(Vec::new)
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ask")
    }
}

/// How the node says what it is.
#[derive(Clone, Debug)]
pub struct StatusConfig {
    /// `v1.34.0+k3sd1`.
    pub kubelet_version: String,
    /// The port of the kubelet's server.
    pub port: u16,
    /// How often it looks.
    pub update_frequency: Duration,
    /// How often it tells although nothing is new.
    pub report_frequency: Duration,
    /// How many images it names.
    pub images_max: i32,
    /// `maxPods`.
    pub max_pods: i64,
    /// `podsPerCore`.
    pub pods_per_core: i64,
    /// What pods don't get.
    pub reserved: Reserved,
    /// The kubelet's root; its file system is what pods write to.
    pub root_dir: PathBuf,
    /// Whether local storage is counted.
    pub counts_storage: bool,
    /// Where the machine describes itself.
    pub roots: Roots,
    /// Whether it makes its Node.
    pub registers: bool,
}

/// What the actor is started with.
#[derive(Clone)]
pub(crate) struct ReporterArgs {
    pub(crate) config: Arc<StatusConfig>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) ips: NodeIps,
    pub(crate) connect: Connect,
    pub(crate) cri: Cri,
    pub(crate) node: Informer<Node>,
    pub(crate) pressures: watch::Receiver<Pressures>,
    pub(crate) devices: watch::Receiver<DeviceCounts>,
    pub(crate) volumes_in_use: Ask,
    /// What else keeps the node from being ready.
    pub(crate) problems: Ask,
    /// Whether the machine is about to go down.
    pub(crate) is_ending: watch::Receiver<bool>,
    pub(crate) recorder: Recorder,
    pub(crate) standing: Arc<watch::Sender<Standing>>,
}

/// How far the node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The API has its Node.
    pub is_registered: bool,
    /// The API was told that it is ready.
    pub is_ready: bool,
}

/// See the variants.
pub(crate) enum ReporterMsg {
    /// Look, and tell what is new.
    LookTick,
    /// Something that a status depends on is another; look soon.
    Changed,
}

message_kinds!(ReporterMsg { LookTick, Changed });

/// The actor itself.
pub(crate) struct Reporter {
    args: ReporterArgs,
    api: Api<Node>,
    clock: Clock,
    started: Moment,
    timer: Option<TimerId>,
    is_registered: bool,
    /// Whether resources of others are forgotten, since the machine or its plugins began anew.
    resets_extended: bool,
    retry: Duration,
    health: RuntimeHealth,
    runtime_version: String,
    handlers: Vec<NodeRuntimeHandler>,
    features: Option<NodeFeatures>,
    images: (Option<Moment>, Vec<ContainerImage>),
    /// The Node as the last write left it.
    written: Option<Node>,
    /// When it has to be told again although nothing is new.
    report_due: Option<Moment>,
    boot_told: bool,
}

impl Actor for Reporter {
    type Args = ReporterArgs;
    type Msg = ReporterMsg;

    const STOPS_AT_AWAIT: bool = true;

    async fn init(ctx: &mut Context<ReporterMsg>, args: ReporterArgs) -> Result<Self, ActorError> {
        let (clock, now) = (ctx.clock().clone(), ctx.clock().now());
        ctx.send_self(ReporterMsg::LookTick);
        watch_changes(ctx, &args);
        if ctx.incarnation() == 1 {
            args.recorder.about(reference(&args.identity.name), "Normal", "Starting", "Starting kubelet.");
        }
        args.standing.send_replace(Standing::default());
        Ok(Self {
            api: Api::all(args.connect.client()),
            clock,
            started: now,
            timer: None,
            is_registered: !args.config.registers,
            resets_extended: false,
            retry: RETRY_MIN,
            health: RuntimeHealth::default(),
            runtime_version: String::new(),
            handlers: Vec::new(),
            features: None,
            images: (None, Vec::new()),
            written: None,
            report_due: None,
            boot_told: false,
            args,
        })
    }

    async fn handle(&mut self, ctx: &mut Context<ReporterMsg>, message: ReporterMsg) -> Result<(), ActorError> {
        if matches!(message, ReporterMsg::Changed) {
            watch_changes(ctx, &self.args);
        }
        if let Some(timer) = self.timer.take() {
            ctx.cancel(timer);
        }
        let wait = match self.look(ctx).await {
            Ok(()) => {
                self.retry = RETRY_MIN;
                let is_early = ctx.clock().now().since(self.started) < FIRST_LOOKS_FOR;
                if is_early && !self.args.standing.borrow().is_ready {
                    FIRST_LOOKS_EVERY
                } else {
                    self.args.config.update_frequency
                }
            }
            Err(error) => {
                tracing::warn!(node = self.args.identity.name, %error, "the node's status can't be told");
                let next = (self.retry * 2).min(RETRY_MAX);
                std::mem::replace(&mut self.retry, next)
            }
        };
        self.timer = Some(ctx.send_after(wait, ReporterMsg::LookTick));
        Ok(())
    }
}

/// Wakes once, when pressures or devices are others than now, or the machine is about to go down.
fn watch_changes(ctx: &mut Context<ReporterMsg>, args: &ReporterArgs) {
    let (mut pressures, mut devices, mut is_ending) =
        (args.pressures.clone(), args.devices.clone(), args.is_ending.clone());
    is_ending.mark_unchanged();
    pressures.mark_unchanged();
    devices.mark_unchanged();
    ctx.pipe(async move {
        // What nobody can change any more is not waited for.
        tokio::select! {
            Ok(()) = pressures.changed() => {}
            Ok(()) = devices.changed() => {}
            Ok(()) = is_ending.changed() => {}
            else => std::future::pending().await,
        }
        ReporterMsg::Changed
    });
}

/// The node as events name it: as upstream, by its name in the place of its uid.
pub(crate) fn reference(name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

/// When a status that was told before is due again: a restart changes nothing about that.
fn next_report(node: &Node, every: Duration, now: Moment, wall: Timestamp) -> Moment {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let last = conditions.filter_map(|condition| condition.last_heartbeat_time.as_ref()).map(|time| time.0).max();
    let passed = last.map(|last| wall.as_second().saturating_sub(last.as_second()));
    let passed = passed.map_or(every, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    now + every.saturating_sub(passed)
}

fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

impl Reporter {
    fn wall(&self) -> Timestamp {
        let wall = self.clock.wall();
        Timestamp::new(i64::try_from(wall.as_secs()).unwrap_or(0), 0).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn name(&self) -> &str {
        &self.args.identity.name
    }

    async fn look(&mut self, ctx: &mut Context<ReporterMsg>) -> kube::Result<()> {
        self.ask_runtime().await;
        if self.health.answered.is_none() {
            self.believe().await;
        }
        let facts = self.facts();
        if !self.is_registered {
            self.register(&facts).await?;
            self.is_registered = true;
            self.args.standing.send_modify(|standing| standing.is_registered = true);
        }
        self.report(ctx, facts).await
    }

    /// Makes the Node, with its first status, or gives the one that is there what it should have.
    async fn register(&mut self, facts: &Facts) -> kube::Result<()> {
        let mut node = initial(&self.args.identity);
        let supplied = self.supply(facts, &node);
        node.status = Some(status(&node, &supplied, self.wall()));
        match self.api.create(&PostParams::default(), &node).await {
            Ok(made) => self.written = Some(made),
            Err(error) if is_status(&error, 409) => {
                let mut existing = self.api.get(self.name()).await?;
                // Another start of the machine: what plugins had is not there until they say so.
                let boot = existing.status.as_ref().and_then(|status| status.node_info.as_ref());
                self.resets_extended = boot.is_some_and(|info| info.boot_id != facts.machine.boot_id);
                if let Some(patch) = reconcile(&existing, &self.args.identity) {
                    existing = self.api.patch(self.name(), &PatchParams::default(), &Patch::Merge(patch)).await?;
                }
                self.written = Some(existing);
            }
            Err(error) => return Err(error),
        }
        tracing::info!(node = self.name(), "the node is registered");
        Ok(())
    }

    /// Compares what the API has with what is so, and sends the difference when it is news, or time.
    async fn report(&mut self, ctx: &mut Context<ReporterMsg>, facts: Facts) -> kube::Result<()> {
        let node = self.current().await?;
        let facts = self.supply(&facts, &node);
        let before = node.status.clone().unwrap_or_default();
        let made = status(&node, &facts, self.wall());
        let found = difference(&before, &made);
        let (now, wall) = (self.clock.now(), self.wall());
        let due =
            *self.report_due.get_or_insert_with(|| next_report(&node, self.args.config.report_frequency, now, wall));
        let is_due = now >= due;
        if let Some(patch) = found.patch.filter(|_| found.is_news || is_due) {
            let sent = self.api.patch_status(self.name(), &PatchParams::default(), &Patch::Strategic(patch)).await?;
            self.tell_changes(&node, &made.conditions.clone().unwrap_or_default(), &facts);
            self.written = Some(sent);
            self.resets_extended = false;
            let every = self.args.config.report_frequency;
            // After news the next report comes at another time than those of nodes that had the same news.
            let spread = if found.is_news { 0.5 + ctx.rng().fraction() } else { 1.0 };
            self.report_due = Some(now + every.mul_f64(spread));
        }
        let is_ready = facts.problems.is_empty();
        self.args.standing.send_if_modified(|standing| std::mem::replace(&mut standing.is_ready, is_ready) != is_ready);
        ctx.note(facts.problems);
        Ok(())
    }

    /// The Node as the API has it: what the informer shows, or what was written last if that is younger.
    async fn current(&self) -> kube::Result<Node> {
        let shown = self.args.node.snapshot().and_then(|all| all.get("", self.name()).cloned());
        let version = |node: &Node| node.metadata.resource_version.as_deref().and_then(version_number);
        match (shown, &self.written) {
            (Some(shown), Some(written)) if version(&shown) < version(written) => Ok(written.clone()),
            (Some(shown), _) => Ok((*shown).clone()),
            // The informer has synced and shows nothing: somebody deleted the node.
            (None, Some(written)) if self.args.node.snapshot().is_none() => Ok(written.clone()),
            (None, _) => self.api.get(self.name()).await,
        }
    }

    /// A runtime that is silent may have answered the life before this one. What that told of it stays true for as long as
    /// silence is borne, lest a restart of both makes pods unready that run; not so after a start of the machine.
    async fn believe(&mut self) {
        let Ok(node) = self.current().await else { return };
        let status = node.status.unwrap_or_default();
        let Some(info) = status.node_info else { return };
        let conditions = status.conditions.unwrap_or_default();
        let was_ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        if was_ready && info.boot_id == Machine::read(&self.args.config.roots).boot_id {
            self.health.answered = Some(self.started);
            self.runtime_version = info.container_runtime_version;
            self.handlers = status.runtime_handlers.unwrap_or_default();
            self.features = status.features;
            self.images.1 = status.images.unwrap_or_default();
        }
    }

    /// What the runtime says of itself.
    async fn ask_runtime(&mut self) {
        if let Err(error) = self.try_runtime().await {
            tracing::debug!(%error, "the container runtime doesn't say how it is");
        }
    }

    async fn try_runtime(&mut self) -> Result<(), CriError> {
        let cri = self.args.cri.clone().with_limit(RUNTIME_LIMIT);
        let answer = cri.status(v1::StatusRequest { verbose: false }).await?;
        let conditions = answer.status.map(|status| status.conditions).unwrap_or_default();
        let now = self.clock.now();
        self.health.heard(&conditions, now);
        self.handlers = handlers(&answer.runtime_handlers);
        self.features = features(answer.features.as_ref());
        if self.images.0.is_none_or(|last| now.since(last) >= IMAGES_EVERY) {
            let listed = cri.list_images(v1::ListImagesRequest::default()).await?;
            // A runtime that was upgraded says so within the same time.
            let version = cri.version(v1::VersionRequest::default()).await?;
            self.runtime_version = format!("{}://{}", version.runtime_name, version.runtime_version);
            self.images = (Some(now), images(&listed.images, self.args.config.images_max));
        }
        Ok(())
    }

    /// What doesn't depend on the Node.
    fn facts(&self) -> Facts {
        let config = &self.args.config;
        let mut problems = self.health.problems(self.clock.now());
        problems.extend(self.args.problems.now());
        problems.extend(self.args.is_ending.borrow().then(|| PROBLEM.to_owned()));
        Facts {
            machine: Machine::read(&config.roots),
            runtime_version: self.runtime_version.clone(),
            kubelet_version: config.kubelet_version.clone(),
            port: config.port,
            images: self.images.1.clone(),
            handlers: self.handlers.clone(),
            features: self.features.clone(),
            volumes_in_use: self.args.volumes_in_use.now(),
            pressures: *self.args.pressures.borrow(),
            problems,
            ..Facts::default()
        }
    }

    /// What does: resources of others that are kept, and addresses that a cloud may have said.
    fn supply(&self, facts: &Facts, node: &Node) -> Facts {
        let config = &self.args.config;
        let storage = FileSystem::of(&config.root_dir).map(|found| found.capacity);
        let devices = self.args.devices.borrow().clone();
        let supply = Supply {
            machine: facts.machine.clone(),
            storage_bytes: storage.ok().filter(|_| config.counts_storage),
            max_pods: config.max_pods,
            pods_per_core: config.pods_per_core,
            devices,
            existing: node.status.as_ref().and_then(|status| status.capacity.as_ref()),
            resets_extended: self.resets_extended,
        };
        let mut facts = Facts { resources: resources(&supply, &config.reserved), ..facts.clone() };
        match self.addresses(node) {
            Ok(addresses) => facts.addresses = addresses,
            Err(problem) => facts.problems.push(problem),
        }
        facts
    }

    /// The node's addresses; `None` to leave those that are there. While somebody else says what they are, only those that
    /// were given count, and only until there are others; as upstream.
    fn addresses(&self, node: &Node) -> Result<Option<Vec<NodeAddress>>, String> {
        let (identity, ips) = (&self.args.identity, &self.args.ips);
        if identity.cloud.is_some() {
            let has =
                node.status.as_ref().and_then(|status| status.addresses.as_ref()).is_some_and(|all| !all.is_empty());
            if has || ips.specified().next().is_none() {
                return Ok(None);
            }
        }
        let host = HostAddresses::read(&self.args.config.roots.proc);
        let chosen = host.choose(ips).map_err(|error| format!("failed to validate nodeIP: {error}"))?;
        Ok(Some(address_list(&chosen, &identity.hostname)))
    }

    fn tell_changes(&mut self, before: &Node, now: &[NodeCondition], facts: &Facts) {
        let (about, name) = (reference(self.name()), self.name().to_owned());
        let old = before.status.clone().unwrap_or_default();
        for reason in changes(&old.conditions.unwrap_or_default(), now) {
            let message = format!("Node {name} status is now: {reason}");
            self.args.recorder.about(about.clone(), "Normal", reason, message);
        }
        let boot = old.node_info.map(|info| info.boot_id).unwrap_or_default();
        if !self.boot_told && !boot.is_empty() && boot != facts.machine.boot_id {
            let message = format!("Node {name} has been rebooted, boot id: {}", facts.machine.boot_id);
            self.args.recorder.about(about, "Warning", "Rebooted", message);
        }
        self.boot_told = true;
    }
}
