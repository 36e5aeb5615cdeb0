//! Speaks with device plugins, and gives their devices to containers.
//!
//! Owns:    who has which device; a file below `device-plugins` keeps it.
//! Needs:   the plugins' sockets, the snapshot of pods.
//! Restart: permanent. It reads the file, and asks the plugins that it names again; those that are new register.
//! Fails:   when the file can't be written: a device could be given away twice after that.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k3sd_cri::channel;
use k3sd_kubelet_base::Pods;
use k3sd_objects::quantity::Quantity;
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Address, AskError, Context, Moment, ReplyPort, message_kinds};
use k8s_openapi::api::core::v1::{Container, Pod};
use thiserror::Error;
use tokio::sync::watch;
use tonic::Streaming;

use super::core::{Allocation, Checkpoint, Choice, Given, GivenMount, GivenNode, Inventory, Wanted};
use super::wire;
use super::wire::device_plugin_client::DevicePluginClient;
use crate::collect::has_ended;
use crate::status::{DeviceCounts, is_extended};

/// The one version that is spoken.
const VERSION: &str = "v1beta1";
/// The file with what containers have. Not upstream's: that one has a checksum over Go's way to print structures.
const FILE: &str = "k3sd-allocations.json";
/// For so long a plugin may be away before its devices are.
const AWAY_MAX: Duration = Duration::from_secs(300);
/// How long a plugin may take for an answer.
const PLUGIN_LIMIT: Duration = Duration::from_secs(30);
/// How long an allocation may take, with those that wait before it.
const ALLOCATE_LIMIT: Duration = Duration::from_secs(120);
/// A pod that was given something is in the snapshot after this time, or it is gone.
const YOUNG: Duration = Duration::from_secs(60);
/// Jobs that may wait for the thread with the file.
const JOBS_MAX: usize = 4;

/// Why a container gets no devices.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// There are too few, or the plugin refuses. The text is for the pod's status, reason `UnexpectedAdmissionError`.
    #[error("{0}")]
    Refused(String),
    /// Nobody answered in time; try again.
    #[error("the device manager doesn't answer")]
    Away(#[source] AskError),
}

/// The way to devices. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Devices(pub(crate) watch::Receiver<Option<Address<DevicesMsg>>>);

impl Devices {
    /// Gives a container the devices that its limits name, or what it has been given before. Resources that no plugin
    /// offers are none of ours.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub async fn allocate(&self, pod: &Pod, uid: &str, container: &str) -> Result<Given, DeviceError> {
        let Some(request) = request(pod, uid, container) else { return Ok(Given::default()) };
        let address = self.0.borrow().clone().ok_or(DeviceError::Away(AskError::Gone))?;
        let answer = address.call(ALLOCATE_LIMIT, |reply| DevicesMsg::Allocate { request, reply }).await;
        answer.map_err(DeviceError::Away)?.map_err(DeviceError::Refused)
    }

    /// A plugin registers.
    pub(super) async fn register(&self, request: wire::RegisterRequest) -> Result<(), String> {
        let address = self.0.borrow().clone().ok_or("the device manager is away")?;
        let answer = address.call(PLUGIN_LIMIT, |reply| DevicesMsg::Register { request, reply }).await;
        answer.map_err(|error| error.to_string())?
    }
}

/// What a container asks for.
pub(crate) struct Request {
    pod: String,
    container: String,
    is_passing: bool,
    /// How many, by resource.
    wanted: BTreeMap<String, usize>,
}

/// `None` if there is no such container, or it asks for nothing that a plugin could have.
fn request(pod: &Pod, uid: &str, container: &str) -> Option<Request> {
    let spec = pod.spec.as_ref()?;
    let named = |one: &&Container| one.name == container;
    let init = spec.init_containers.iter().flatten().find(named);
    let found = init.or_else(|| spec.containers.iter().find(named))?;
    let limits = found.resources.as_ref()?.limits.as_ref()?;
    let count = |text: &str| usize::try_from(text.parse::<Quantity>().ok()?.value()).ok().filter(|count| *count > 0);
    let extended = limits.iter().filter(|(resource, _)| is_extended(resource));
    let wanted: BTreeMap<String, usize> =
        extended.filter_map(|(resource, amount)| Some((resource.clone(), count(&amount.0)?))).collect();
    let is_passing = init.is_some_and(|init| init.restart_policy.as_deref() != Some("Always"));
    (!wanted.is_empty()).then(|| Request { pod: uid.to_owned(), container: container.to_owned(), is_passing, wanted })
}

/// What the actor is started with.
#[derive(Clone)]
pub(crate) struct DevicesArgs {
    /// `device-plugins` below the kubelet's root.
    pub(crate) directory: PathBuf,
    pub(crate) pods: Pods,
    pub(crate) pods_complete: watch::Receiver<bool>,
    pub(crate) counts: Arc<watch::Sender<DeviceCounts>>,
    pub(crate) place: Arc<watch::Sender<Option<Address<DevicesMsg>>>>,
}

type List = Streaming<wire::ListAndWatchResponse>;

/// See the variants.
pub(crate) enum DevicesMsg {
    /// A plugin is there.
    Register {
        /// What it says.
        request: wire::RegisterRequest,
        /// Why it isn't taken.
        reply: ReplyPort<Result<(), String>>,
    },
    /// A plugin said what it has, or is gone.
    Listed {
        /// Of which resource.
        resource: String,
        /// Which registration of it.
        round: u64,
        /// The devices, and where the next ones come from.
        list: Option<(Vec<wire::Device>, Box<List>)>,
    },
    /// A plugin that went away didn't come back.
    AwayTick {
        /// Of which resource.
        resource: String,
        /// Which registration of it.
        round: u64,
    },
    /// A container asks for devices.
    Allocate {
        /// Which ones.
        request: Request,
        /// What it needs, or why it gets none.
        reply: ReplyPort<Result<Given, String>>,
    },
}

message_kinds!(DevicesMsg { Register, Listed, AwayTick, Allocate });

/// A plugin.
struct Plugin {
    endpoint: String,
    prefers: bool,
    prepares: bool,
    /// Counts its registrations.
    round: u64,
}

/// The actor itself.
pub(crate) struct Manager {
    args: DevicesArgs,
    files: Blocking<()>,
    plugins: BTreeMap<String, Plugin>,
    inventory: Inventory,
    /// When each pod was given something last, since this incarnation began.
    given: BTreeMap<String, Moment>,
    started: Moment,
    rounds: u64,
}

impl Actor for Manager {
    type Args = DevicesArgs;
    type Msg = DevicesMsg;

    const STOPS_AT_AWAIT: bool = true;

    async fn init(ctx: &mut Context<DevicesMsg>, args: DevicesArgs) -> Result<Self, ActorError> {
        let files = Blocking::start(ctx, JOBS_MAX, || Ok::<(), std::convert::Infallible>(())).await;
        let files = files.map_err(|error| ActorError::new(error.to_string()))?;
        let path = args.directory.join(FILE);
        let kept = files.run(move |()| read(&path)).await??;
        let mut manager = Self {
            files,
            plugins: BTreeMap::new(),
            inventory: Inventory::new(kept.allocations),
            given: BTreeMap::new(),
            started: ctx.clock().now(),
            rounds: 0,
            args,
        };
        for (resource, endpoint) in kept.endpoints {
            manager.follow(ctx, resource, endpoint, wire::DevicePluginOptions::default());
        }
        manager.args.place.send_replace(Some(ctx.address()));
        Ok(manager)
    }

    async fn handle(&mut self, ctx: &mut Context<DevicesMsg>, message: DevicesMsg) -> Result<(), ActorError> {
        match message {
            DevicesMsg::Register { request, reply } => match check(&request) {
                Ok(()) => {
                    let options = request.options.unwrap_or_default();
                    tracing::info!(resource = request.resource_name, "a device plugin has registered");
                    self.follow(ctx, request.resource_name, request.endpoint, options);
                    self.keep().await?;
                    reply.send(Ok(()));
                }
                Err(problem) => reply.send(Err(problem)),
            },
            DevicesMsg::Listed { resource, round, list } => self.listed(ctx, resource, round, list),
            DevicesMsg::AwayTick { resource, round } => {
                if self.is_current(&resource, round) {
                    self.inventory.gone(&resource);
                    self.plugins.remove(&resource);
                    self.tell();
                    self.keep().await?;
                }
            }
            DevicesMsg::Allocate { request, reply } => {
                self.release(ctx.clock().now()).await?;
                self.given.insert(request.pod.clone(), ctx.clock().now());
                let answer = self.allocate(&request).await;
                // What was given is kept before anybody learns of it.
                self.keep().await?;
                reply.send(answer);
            }
        }
        Ok(())
    }
}

fn check(request: &wire::RegisterRequest) -> Result<(), String> {
    if request.version != VERSION {
        let version = &request.version;
        return Err(format!(
            "requested API version {version:?} is not supported by kubelet. Supported version is {VERSION:?}"
        ));
    }
    if !is_extended(&request.resource_name) {
        return Err(format!("the ResourceName {:?} is invalid", request.resource_name));
    }
    if request.endpoint.is_empty() || request.endpoint.contains('/') || request.endpoint == ".." {
        return Err(format!("the endpoint {:?} is no name of a socket beside this one", request.endpoint));
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Checkpoint> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Checkpoint::default()),
        Err(error) => Err(error),
    }
}

/// Writes it whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut file = std::fs::File::create(&unfinished)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()?;
    std::fs::rename(unfinished, path)
}

impl Manager {
    fn is_current(&self, resource: &str, round: u64) -> bool {
        self.plugins.get(resource).is_some_and(|plugin| plugin.round == round)
    }

    fn client(&self, endpoint: &str) -> DevicePluginClient<tonic::transport::Channel> {
        DevicePluginClient::new(channel(self.args.directory.join(endpoint)))
    }

    /// Listens to a plugin from now on, in the place of one that offered the same.
    fn follow(
        &mut self,
        ctx: &mut Context<DevicesMsg>,
        resource: String,
        endpoint: String,
        options: wire::DevicePluginOptions,
    ) {
        self.rounds += 1;
        let round = self.rounds;
        let mut client = self.client(&endpoint);
        let (prefers, prepares) = (options.get_preferred_allocation_available, options.pre_start_required);
        self.plugins.insert(resource.clone(), Plugin { endpoint, prefers, prepares, round });
        ctx.pipe(async move {
            let opened = tokio::time::timeout(PLUGIN_LIMIT, client.list_and_watch(wire::Empty {})).await;
            match opened {
                Ok(Ok(answer)) => next(resource, round, Box::new(answer.into_inner())).await,
                _ => DevicesMsg::Listed { resource, round, list: None },
            }
        });
    }

    fn listed(
        &mut self,
        ctx: &mut Context<DevicesMsg>,
        resource: String,
        round: u64,
        list: Option<(Vec<wire::Device>, Box<List>)>,
    ) {
        if !self.is_current(&resource, round) {
            return;
        }
        match list {
            Some((devices, list)) => {
                let devices = devices.into_iter().map(|device| (device.id, device.health == "Healthy")).collect();
                self.inventory.listed(&resource, devices);
                ctx.pipe(next(resource, round, list));
            }
            None => {
                tracing::warn!(resource, "a device plugin is away");
                self.inventory.silent(&resource);
                ctx.send_after(AWAY_MAX, DevicesMsg::AwayTick { resource, round });
            }
        }
        self.tell();
    }

    fn tell(&self) {
        let counts = self.inventory.counts();
        self.args.counts.send_if_modified(|told| {
            let is_other = *told != counts;
            *told = counts;
            is_other
        });
    }

    /// Takes back what pods had that have ended or are gone.
    async fn release(&mut self, now: Moment) -> Result<(), ActorError> {
        let snapshot = self.args.pods.borrow().clone();
        let is_complete = *self.args.pods_complete.borrow();
        let (given, started) = (&self.given, self.started);
        let keeps = |uid: &str| match snapshot.pods.get(uid) {
            Some(view) => !has_ended(&view.pod),
            None => !is_complete || now.since(given.get(uid).copied().unwrap_or(started)) < YOUNG,
        };
        if self.inventory.release(keeps) {
            self.keep().await?;
        }
        let held: BTreeSet<&str> = self.inventory.allocations.iter().map(|one| one.pod.as_str()).collect();
        self.given.retain(|pod, _| held.contains(pod.as_str()));
        Ok(())
    }

    async fn allocate(&mut self, request: &Request) -> Result<Given, String> {
        let mut all = Given::default();
        for (resource, count) in &request.wanted {
            if let Some(has) = self.inventory.has(&request.pod, &request.container, resource) {
                all.add(has.given.clone());
                continue;
            }
            if !self.inventory.knows(resource) && !self.plugins.contains_key(resource) {
                continue;
            }
            let choice = self.inventory.choice(Wanted { pod: &request.pod, resource, count: *count })?;
            let plugin = self.plugins.get(resource);
            let plugin = plugin.ok_or_else(|| format!("no device plugin is registered for {resource}"))?;
            let preferred = if plugin.prefers { self.preferred(plugin, &choice, *count).await } else { Vec::new() };
            let ids = choice.take(*count, &preferred);
            let given = self.ask(plugin, &ids).await?;
            all.add(given.clone());
            self.inventory.allocations.push(Allocation {
                pod: request.pod.clone(),
                container: request.container.clone(),
                resource: resource.clone(),
                is_passing: request.is_passing,
                ids,
                given,
            });
        }
        Ok(all)
    }

    /// What the plugin would like; nothing if it doesn't say.
    async fn preferred(&self, plugin: &Plugin, choice: &Choice, count: usize) -> Vec<String> {
        let request = wire::ContainerPreferredAllocationRequest {
            available_device_ids: choice.available.iter().cloned().collect(),
            must_include_device_ids: choice.must.iter().cloned().collect(),
            allocation_size: i32::try_from(count).unwrap_or(i32::MAX),
        };
        let request = wire::PreferredAllocationRequest { container_requests: vec![request] };
        let mut client = self.client(&plugin.endpoint);
        match tokio::time::timeout(PLUGIN_LIMIT, client.get_preferred_allocation(request)).await {
            Ok(Ok(answer)) => {
                answer.into_inner().container_responses.into_iter().flat_map(|one| one.device_ids).collect()
            }
            _ => Vec::new(),
        }
    }

    async fn ask(&self, plugin: &Plugin, ids: &BTreeSet<String>) -> Result<Given, String> {
        let device_ids: Vec<String> = ids.iter().cloned().collect();
        let mut client = self.client(&plugin.endpoint);
        let one = wire::ContainerAllocateRequest { device_ids: device_ids.clone() };
        let request = wire::AllocateRequest { container_requests: vec![one] };
        let late = |_| "the device plugin doesn't answer".to_owned();
        let answer = tokio::time::timeout(PLUGIN_LIMIT, client.allocate(request)).await.map_err(late)?;
        let answer =
            answer.map_err(|status| format!("rpc error: code = {:?} desc = {}", status.code(), status.message()))?;
        if plugin.prepares {
            let request = wire::PreStartContainerRequest { device_ids };
            let ready = tokio::time::timeout(PLUGIN_LIMIT, client.pre_start_container(request)).await.map_err(late)?;
            ready.map_err(|status| {
                format!("device plugin PreStartContainer rpc failed with err: {}", status.message())
            })?;
        }
        let found = answer.into_inner().container_responses.into_iter().next();
        found.map(given).ok_or_else(|| "no containers return in allocation response".to_owned())
    }

    async fn keep(&self) -> Result<(), ActorError> {
        let endpoints = self.plugins.iter().map(|(name, plugin)| (name.clone(), plugin.endpoint.clone())).collect();
        let kept = Checkpoint { endpoints, allocations: self.inventory.allocations.clone() };
        let (path, bytes) = (self.args.directory.join(FILE), serde_json::to_vec(&kept)?);
        Ok(self.files.run(move |()| write(&path, &bytes)).await??)
    }
}

/// Waits for what a plugin says next.
async fn next(resource: String, round: u64, mut list: Box<List>) -> DevicesMsg {
    let said = list.message().await.ok().flatten();
    DevicesMsg::Listed { resource, round, list: said.map(|said| (said.devices, list)) }
}

fn given(answer: wire::ContainerAllocateResponse) -> Given {
    let mount = |one: wire::Mount| GivenMount {
        container_path: one.container_path,
        host_path: one.host_path,
        read_only: one.read_only,
    };
    let node = |one: wire::DeviceSpec| GivenNode {
        container_path: one.container_path,
        host_path: one.host_path,
        permissions: one.permissions,
    };
    Given {
        envs: answer.envs.into_iter().collect(),
        mounts: answer.mounts.into_iter().map(mount).collect(),
        nodes: answer.devices.into_iter().map(node).collect(),
        annotations: answer.annotations.into_iter().collect(),
        cdi: answer.cdi_devices.into_iter().map(|one| one.name).collect(),
    }
}
