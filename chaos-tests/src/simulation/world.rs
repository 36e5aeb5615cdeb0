//! What a simulation plays in: a whole cluster with one node, whose container runtime, disk and network are fakes that
//! fail on request.
//!
//! ```text
//! /                     rest_for_one
//! ├─ apiserver          over a store in memory, on a slow disk
//! └─ loops              one_for_one, all but `informers` at the other end of a wire
//!    ├─ informers  controllers  cloud  scheduler  local-volumes
//!    └─ node            one_for_one: the kubelet's own crates, and what an agent has beside it
//!       ├─ events  services  object  volumes  pods  server
//!       └─ local-storage  proxy
//! ```
//!
//! The [machine](super::machine) under the node is a directory. Pods are given no cgroups, as the fake runtime has no
//! processes to put into them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use k3sd_client::election::Leading;
use k3sd_client::events::recorder;
use k3sd_client::informer::{InformerArgs, Shared, informer};
use k3sd_controllers::{ControllersArgs, ControllersConfig, cloud, controllers};
use k3sd_kubelet_cgroups::{CgroupSources, Cgroups, Driver};
use k3sd_kubelet_node::config::KubeletConfiguration;
use k3sd_kubelet_node::eviction::{Evict, Eviction};
use k3sd_kubelet_node::figures::VolumeFigures;
use k3sd_kubelet_node::identity::{CloudAnnotations, Identity, NodeIps};
use k3sd_kubelet_node::shutdown::ShutdownConfig;
use k3sd_kubelet_node::status::{Ask, Roots};
use k3sd_kubelet_node::{NodeConfig, NodeDeps, devices};
use k3sd_kubelet_pods::translate::dns::{DnsFacts, Resolver};
use k3sd_kubelet_pods::translate::resources::Swap;
use k3sd_kubelet_pods::{PodsConfig, PodsDeps, PodsHandle};
use k3sd_kubelet_volumes::{Allocatable, VolumesConfig};
use k3sd_local_storage::LocalStorageArgs;
use k3sd_proxy::{ProxyConfig, ProxyDeps};
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{ChildSpec, Clock, Spec, Strategy, subtree};
use k3sd_scheduler::SchedulerArgs;
use k3sd_servicelb::ServiceLbConfig;
use k8s_openapi::api::core::v1::Service;
use serde_json::Value;
use tokio::sync::watch;

use super::machine::Machine;
use super::server;
use crate::cluster::{Cluster, Plane};
use crate::fakes::cri::FakeCri;
use crate::fakes::port::Doorway;
use crate::fakes::wire::Wire;

/// The node's name, and its address, one of those for documentation.
pub const NODE: &str = "one";
const ADDRESS: &str = "192.0.2.10";
/// The namespace of what belongs to the cluster itself.
const SYSTEM: &str = "kube-system";
/// Files that a server has among its manifests: the rights of who stands for a cloud.
const PACKAGED: [&str; 1] = ["ccm.yaml"];
/// Where pods are.
const PODS: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::new(10, 42, 0, 0)), 16);
/// What the node has for pods.
const ALLOCATABLE: [(&str, &str); 3] = [("cpu", "8"), ("memory", "16Gi"), ("pods", "110")];
/// The longest that a disk takes for half a write, and a good network for a request, in their own units.
const DISK_US_MAX: u64 = 1500;
const WIRE_MS_MAX: u64 = 3;
/// The longest that the runtime takes before and after what it does.
const CRI_MS_MAX: u64 = 20;
/// Deaths are denser here than what operators see: whoever supervises the parts must not give up over them.
const RESTARTS: u32 = 10_000;
const PERIOD: Duration = Duration::from_secs(60);
/// Until the node is ready at first.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The world.
#[derive(Debug)]
pub struct World {
    /// The control plane, and the tree in which everything is.
    pub cluster: Cluster,
    /// What runs containers.
    pub cri: FakeCri,
    /// What is between the API server and everybody else.
    pub wire: Wire,
    /// The machine under the node; gone with the world.
    pub machine: Machine,
}

/// Makes pods go.
#[derive(Debug)]
struct Evictor(PodsHandle);

impl Evict for Evictor {
    fn evict(&self, eviction: Eviction) -> BoxFuture<'static, bool> {
        let Eviction { uid, reason, message, grace_seconds } = eviction;
        let found = self.0.evict(&uid, reason, &message, Some(grace_seconds));
        Box::pin(std::future::ready(found))
    }
}

impl World {
    /// Starts it on a paused clock with this seed, and waits until its node is ready.
    ///
    /// # Panics
    /// When it doesn't come up.
    pub async fn start(seed: u64) -> Self {
        let clock = Clock::simulated(seed);
        let machine = Machine::make();
        let mount = machine.path().display().to_string();
        let (cri, wire) = (FakeCri::new(clock.clone(), mount), Wire::new(clock.clone()));
        let (doorway, nodes) = Doorway::new(&clock, &wire, NODE, ADDRESS);
        let plane = Plane::far(clock.clone(), DISK_US_MAX, wire.clone(), nodes);
        let identities = plane.identities();
        let mut informers = Shared::new(identities.user("system:apiserver", &["system:masters"]));
        let args = ControllersArgs {
            config: ControllersConfig::default(),
            identities: identities.clone(),
            clock: clock.clone(),
        };
        let controllers = controllers(&args, &mut informers);
        let args = ControllersArgs { config: ControllersConfig::cloud(), ..args };
        let balancers = ServiceLbConfig::default();
        let cloud = cloud(&args, &mut informers, true, |setup| k3sd_servicelb::loops(setup, &balancers));
        let storage = identities.service_account(SYSTEM, k3sd_local_storage::SERVICE_ACCOUNT);
        let (nodes, volumes) = (informers.informer(), informers.informer());
        let local_volumes = k3sd_local_storage::gone(storage, &nodes, &volumes, Leading::always());
        let args = SchedulerArgs::alone(identities, "server");
        let scheduler = k3sd_scheduler::tree(args, &mut informers).expect("the settings make sense");
        let node = node(&plane, &cri, machine.path(), doorway);
        let node = proxy(&plane, &machine).await.into_iter().fold(node, Spec::child);
        let loops = vec![
            subtree("informers", informers.spec()),
            subtree("controllers", controllers),
            subtree("cloud", cloud),
            local_volumes,
            subtree("scheduler", scheduler),
            subtree("node", node),
        ];
        let world = Self { cluster: plane.start(loops).await, cri, wire, machine };
        world.set_usual_delays();
        for file in k3sd_manifests::own_files().iter().filter(|file| PACKAGED.contains(&file.path.as_str())) {
            world.cluster.deploy(&file.text).await;
        }
        world.cluster.deploy(&local_storage(&world.machine)).await;
        let is_ready = async || {
            let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(world.cluster.admin());
            let Ok(Some(node)) = nodes.get_opt(NODE).await else { return false };
            let node = serde_json::to_value(node).unwrap_or_default();
            has_condition(&node, "Ready") && node["spec"]["taints"].as_array().is_none_or(Vec::is_empty)
        };
        world.cluster.wait_within(READY_WITHIN, "the node is ready", is_ready).await;
        world
    }

    /// Everything takes as long as it does on a good day.
    pub fn set_usual_delays(&self) {
        self.wire.set_delay(WIRE_MS_MAX);
        self.cri.set_delay(CRI_MS_MAX);
    }

    /// All is well from now on: what was away is back, and nothing more is planned to fail.
    pub fn heal(&self) {
        self.cluster.storage.set_open(true);
        self.cluster.storage.set_full(false);
        self.cluster.storage.lose_answers(0);
        self.cluster.system().faults().clear_actors();
        self.wire.heal();
        self.cri.heal();
        self.set_usual_delays();
    }
}

/// Whether an object's status has a condition that is true.
pub(crate) fn has_condition(object: &Value, kind: &str) -> bool {
    let all = object["status"]["conditions"].as_array();
    all.into_iter().flatten().any(|one| one["type"] == kind && one["status"] == "True")
}

/// What makes volumes in directories of this machine, as a server has it among its manifests.
fn local_storage(machine: &Machine) -> String {
    let path = machine.storage().display().to_string();
    let text = k3sd_local_storage::MANIFEST.replace("%{DEFAULT_LOCAL_STORAGE_PATH}%", &path);
    let text = text.replace("%{SYSTEM_DEFAULT_REGISTRY}%", "");
    if machine.mounts_volumes() {
        return text;
    }
    eprintln!("nothing may be mounted here: volumes in directories are taken where they are");
    text.replace("defaultVolumeType: \"local\"", "defaultVolumeType: \"hostPath\"")
}

/// What has the kernel send packets for Services to their endpoints, in the machine's own network.
async fn proxy(plane: &Plane, machine: &Machine) -> Option<ChildSpec> {
    let Some(namespace) = machine.network() else {
        eprintln!("there is no network here: the world has no proxy");
        return None;
    };
    let config = ProxyConfig {
        node_name: NODE.to_owned(),
        arguments: Vec::new(),
        cluster_cidrs: vec![PODS],
        local_load_balancer: true,
        namespace: Some(namespace.to_owned()),
    };
    let connect = plane.identities().user("system:kube-proxy", &[]);
    let proxy = k3sd_proxy::tree(config, ProxyDeps { connect, clock: plane.clock().clone() }).await;
    Some(subtree("proxy", proxy.expect("the settings make sense, and nobody else is there").spec))
}

/// The node, put together from the kubelet's parts.
fn node(plane: &Plane, cri: &FakeCri, machine: &Path, doorway: Doorway) -> Spec {
    let connect = plane.identities().user(&format!("system:node:{NODE}"), &["system:nodes"]);
    let (events, recorder) = recorder("events", connect.clone());
    let recorder = recorder.component("kubelet").host(NODE);
    let (services_child, services) = informer("services", InformerArgs::<Service>::all(connect.clone()));
    let root = machine.join("kubelet");
    let own = InformerArgs::all(connect.clone()).fields(&format!("metadata.name={NODE}"));
    let (own_child, own_node) = informer("own-node", own);
    let volumes = VolumesConfig {
        root: root.clone(),
        node_name: NODE.to_owned(),
        allocatable: Allocatable::default(),
        mount_program: "mount".into(),
        recorder: Some(recorder.clone()),
    };
    let volumes = k3sd_kubelet_volumes::tree(volumes, connect.clone(), Some(own_node.clone()));
    let allocatable = ALLOCATABLE.map(|(name, text)| (name.to_owned(), text.parse().expect("a quantity")));
    let deps = PodsDeps {
        cri: cri.cri(),
        connect: connect.clone(),
        recorder: recorder.clone(),
        volumes: Arc::new(volumes.volumes.clone()),
        cgroups: None,
        services: Some(services),
        own_node: Some(own_node),
        addresses: watch::channel(vec![ADDRESS.to_owned()]).1,
        allocatable: watch::channel(BTreeMap::from(allocatable)).1,
        is_ending: watch::channel(false).1,
        devices: None,
        credentials: None,
        nudge: Some(cri.news()),
    };
    let pods = k3sd_kubelet_pods::tree(pods_config(machine), deps);
    let sources = CgroupSources {
        mountinfo: machine.join("proc/mountinfo"),
        own: machine.join("proc/cgroup"),
        first: machine.join("proc/cgroup"),
    };
    let deps = NodeDeps {
        connect: connect.clone(),
        cri: cri.cri(),
        cgroups: Arc::new(Cgroups::detect(&sources, Driver::Cgroupfs, "").expect("the files say so")),
        pods: pods.pods.clone(),
        pods_complete: pods.handle.synced(),
        evict: Arc::new(Evictor(pods.handle.clone())),
        recorder,
        volumes: VolumeFigures::default(),
        volumes_in_use: Ask::default(),
        problems: Ask::default(),
        is_ending: Arc::default(),
        device_socket: Lend::new(devices::bind(&root.join("device-plugins")).expect("a socket")),
    };
    let object = k3sd_kubelet_node::tree(node_config(machine), deps).expect("the settings make sense");
    let storage = LocalStorageArgs {
        connect: plane.identities().service_account(SYSTEM, k3sd_local_storage::SERVICE_ACCOUNT),
        node: NODE.to_owned(),
        clock: plane.clock().clone(),
    };
    let server = server::server(
        doorway,
        server::Parts {
            connect,
            cri: cri.cri(),
            pods: pods.pods,
            handle: pods.handle,
            figures: object.figures,
            clock: plane.clock().clone(),
        },
    );
    let children: [ChildSpec; 8] = [
        events,
        services_child,
        own_child,
        subtree("object", object.spec),
        subtree("volumes", volumes.spec),
        subtree("pods", pods.spec),
        subtree("server", server),
        subtree("local-storage", k3sd_local_storage::tree(&storage)),
    ];
    children.into_iter().fold(Spec::new(Strategy::OneForOne).budget(RESTARTS, PERIOD), Spec::child)
}

fn node_config(machine: &Path) -> NodeConfig {
    let kubelet = KubeletConfiguration {
        pod_logs_dir: machine.join("logs"),
        // How full the disk under a simulation is must not matter.
        eviction_hard: BTreeMap::new(),
        image_gc_high_threshold_percent: 100,
        ..KubeletConfiguration::default()
    };
    NodeConfig {
        kubelet,
        root_dir: machine.join("kubelet"),
        identity: Identity {
            name: NODE.to_owned(),
            hostname: NODE.to_owned(),
            architecture: "amd64".to_owned(),
            controller_attaches: true,
            cloud: Some(CloudAnnotations {
                internal_ip: ADDRESS.to_owned(),
                hostname: NODE.to_owned(),
                ..CloudAnnotations::default()
            }),
            provided_ips: Some(ADDRESS.to_owned()),
            ..Identity::default()
        },
        ips: NodeIps { given: vec![ADDRESS.parse().expect("an address")] },
        kubelet_version: "v1.34.0+k3sd1".to_owned(),
        roots: Roots { proc: machine.join("proc"), sys: machine.join("sys"), etc: machine.join("etc") },
        kept_images: Vec::new(),
        shutdown: ShutdownConfig::default(),
    }
}

fn pods_config(machine: &Path) -> PodsConfig {
    PodsConfig {
        node: NODE.to_owned(),
        root: machine.join("kubelet"),
        logs: machine.join("logs"),
        log_links: machine.join("links"),
        static_pods: None,
        hosts_file: machine.join("etc/hosts"),
        kernel_log: machine.join("dev/kmsg"),
        dns: DnsFacts {
            host: Resolver { servers: vec!["192.0.2.53".to_owned()], ..Resolver::default() },
            ..DnsFacts::default()
        },
        seccomp_default: false,
        memory_capacity: 32 << 30,
        cpu_quota: true,
        swap: Swap::Unknown,
        pids_max: None,
        pods_max: 110,
        allowed_unsafe_sysctls: Vec::new(),
        has_apparmor: false,
        pulls_max: Some(1),
    }
}
