//! The subtree, as data.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k3sd_client::api::Connect;
use k3sd_client::events::recorder;
use k3sd_client::informer::{InformerArgs, informer};
use k3sd_cri::Cri;
use k3sd_kubelet_cgroups::{Cgroups, Version};
use k3sd_kubelet_cni::{Backend, Cidr, NetworkConfig};
use k3sd_kubelet_node::config::{KubeletConfiguration, KubeletSettings};
use k3sd_kubelet_node::devices::bind;
use k3sd_kubelet_node::eviction::parse;
use k3sd_kubelet_node::shutdown::{ShutdownConfig, periods};
use k3sd_kubelet_node::status::{Ask, FileSystem, Machine, Reserved, Roots, Supply, resources};
use k3sd_kubelet_node::{NodeConfig, NodeDeps};
use k3sd_kubelet_pods::admit::apparmor::is_enabled;
use k3sd_kubelet_pods::credentials::CredentialProviders;
use k3sd_kubelet_pods::translate::dns::{self, DnsFacts};
use k3sd_kubelet_pods::translate::resources::Swap;
use k3sd_kubelet_pods::{PodDevices, PodsConfig, PodsDeps};
use k3sd_kubelet_server::{Checks, Configz, ServerArgs, ServerConfig};
use k3sd_kubelet_volumes::{Allocatable, VolumesConfig};
use k3sd_objects::quantity::Quantity;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Clock, Spec, Strategy, subtree};
use k8s_openapi::api::core::v1::Service;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig as TlsConfig;

use crate::adapt::{Evictor, NodeDevices, PodsVolumes, ServedFigures, volume_figures};
use crate::config::KubeletConfig;
use crate::error::KubeletError;
use crate::follow::{self, NodeFacts};
use crate::settings::{Prepared, prepare};

/// Whom the node depends on.
#[derive(Clone)]
pub struct KubeletDeps {
    /// The way to the API, as the node.
    pub connect: Connect,
    /// The container runtime.
    pub cri: Cri,
    /// Changes when a container ended; without it the runtime is asked each second.
    pub nudge: Option<watch::Receiver<()>>,
    /// How hands are shaken on port 10250: the node's certificate, and who may have signed those of clients.
    pub tls: Arc<TlsConfig>,
    /// Time.
    pub clock: Clock,
}

impl fmt::Debug for KubeletDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeletDeps").field("cri", &self.cri).finish_non_exhaustive()
    }
}

/// The subtree.
#[derive(Debug)]
pub struct KubeletTree {
    /// What to start.
    pub spec: Spec,
    /// The file of name servers that pods which want the node's own get.
    pub resolv_conf: PathBuf,
}

/// Gets the machine ready and puts the node together. Blocks for a moment; nothing runs yet.
///
/// # Errors
/// See [`KubeletError`].
pub async fn tree(config: KubeletConfig, deps: KubeletDeps) -> Result<KubeletTree, KubeletError> {
    let deps = KubeletDeps { cri: deps.cri.clone().counted(deps.clock.clone()), ..deps };
    let Prepared { settings, identity, ips, addresses, cgroups } = prepare(&config)?;
    let kubelet = settings.config.clone();
    let resolv_conf = PathBuf::from(&kubelet.resolv_conf);
    let roots = Roots {
        proc: config.host_root.join("proc"),
        sys: config.host_root.join("sys"),
        etc: config.host_root.join("etc"),
    };
    let allocatable = allocatable(&kubelet, &roots, &settings.root_dir)?;
    let name = identity.name.clone();

    let (events, recorder) = recorder("events", deps.connect.clone());
    let recorder = recorder.component("kubelet").host(&name);
    let (services_child, services) = informer("services", InformerArgs::<Service>::all(deps.connect.clone()));
    let facts = NodeFacts {
        addresses: Arc::new(watch::channel(addresses.iter().map(ToString::to_string).collect()).0),
        allocatable: Arc::new(watch::channel(allocatable.clone()).0),
        pod_cidrs: Arc::new(watch::channel(Vec::new()).0),
    };
    let fields = format!("metadata.name={name}");
    let own = InformerArgs::all(deps.connect.clone()).fields(&fields);
    let (own_child, own_node) = informer("own-node", own);
    let volumes_config =
        VolumesConfig { recorder: Some(recorder.clone()), ..volumes_config(&settings.root_dir, &name, &allocatable) };
    let volumes = k3sd_kubelet_volumes::tree(volumes_config, deps.connect.clone(), Some(own_node.clone()));
    let (devices_place, devices_seat) = watch::channel(None);
    let is_ending = Arc::new(watch::channel(false).0);
    let pods_deps = PodsDeps {
        cri: deps.cri.clone(),
        connect: deps.connect.clone(),
        recorder: recorder.clone(),
        volumes: Arc::new(PodsVolumes { volumes: volumes.volumes.clone() }),
        cgroups: kubelet.cgroups_per_qos.then(|| cgroups.clone()),
        services: Some(services),
        own_node: Some(own_node.clone()),
        addresses: facts.addresses.subscribe(),
        allocatable: facts.allocatable.subscribe(),
        is_ending: is_ending.subscribe(),
        devices: Some(devices_seat),
        credentials: credentials(&config, &settings)?.map(Arc::new),
        nudge: deps.nudge,
    };
    let swap = swap(&kubelet, &cgroups, Machine::read(&roots).swap_bytes);
    let pods_config = PodsConfig { swap, ..pods_config(&config, &kubelet, &settings.root_dir, &roots) };
    let pods = k3sd_kubelet_pods::tree(pods_config, pods_deps);

    let (in_use_place, in_use) = watch::channel(Vec::new());
    let (live_place, live) = watch::channel(None);
    let folder = settings.root_dir.join("device-plugins");
    let devices =
        bind(&folder).map_err(|source| KubeletError::File { action: "listen below", path: folder, source })?;
    let node_config = NodeConfig {
        kubelet: kubelet.clone(),
        root_dir: settings.root_dir.clone(),
        identity,
        ips,
        kubelet_version: config.version.clone(),
        roots,
        kept_images: vec![config.pause_image.clone()],
        shutdown: ShutdownConfig {
            periods: periods(&kubelet),
            bus: config.host_root.join("run/dbus/system_bus_socket"),
            login_settings: config.host_root.join("etc/systemd/logind.conf.d"),
        },
    };
    let node_deps = NodeDeps {
        connect: deps.connect.clone(),
        cri: deps.cri.clone(),
        cgroups: cgroups.clone(),
        pods: pods.pods.clone(),
        pods_complete: pods.handle.synced(),
        evict: Arc::new(Evictor(pods.handle.clone())),
        recorder,
        volumes: volume_figures(volumes.volumes.clone(), pods.pods.clone()),
        volumes_in_use: Ask::new(move || in_use.borrow().clone()),
        problems: Ask::default(),
        is_ending,
        device_socket: Lend::new(devices),
    };
    let node = k3sd_kubelet_node::tree(node_config, node_deps).map_err(KubeletError::Node)?;
    let handed: Arc<dyn PodDevices> = Arc::new(NodeDevices(node.devices.clone()));
    devices_place.send_replace(Some(handed));
    let used = volumes.volumes.clone();
    let asked = move || {
        let used = used.clone();
        async move { used.in_use().await.ok() }
    };
    let pids = u64::try_from(kubelet.pod_pids_limit).ok().filter(|pids| *pids > 0);
    let mut follows = Spec::new(Strategy::OneForOne)
        .child(own_child)
        .child(follow::node(facts.clone(), own_node, name.clone()))
        .child(follow::sandboxes(deps.cri.clone(), pods.pods.clone(), Arc::new(live_place)))
        .child(follow::asked("volumes-in-use", pods.pods.clone(), Arc::new(in_use_place), asked));
    if kubelet.cgroups_per_qos {
        follows = follows.child(follow::classes(cgroups, pods.pods.clone(), facts.allocatable.subscribe(), pids));
    }
    let figures = ServedFigures {
        figures: node.figures.clone(),
        evictions: node.evictions.clone(),
        volumes: volumes.volumes.clone(),
        handle: pods.handle.clone(),
        cri: deps.cri.clone(),
        version: config.version.clone(),
    };
    let handle = pods.handle.clone();
    let checks = Checks::new(move || {
        let is_synced = if handle.is_synced() { Ok(()) } else { Err("the pods aren't read yet".to_owned()) };
        vec![("syncloop".to_owned(), is_synced)]
    });
    let shown = serde_json::to_value(&kubelet).unwrap_or_default();
    let server = k3sd_kubelet_server::tree(ServerArgs {
        config: server_config(&kubelet, &name, &config.host_root),
        socket: listen(&kubelet.address, kubelet.port).await?,
        tls: deps.tls,
        health_socket: match kubelet.healthz_port {
            0 => None,
            port => Some(listen(&kubelet.healthz_bind_address, port).await?),
        },
        connect: deps.connect,
        pods: pods.pods.clone(),
        cri: deps.cri,
        figures: Arc::new(figures),
        checks,
        configz: Configz::new(move || shown.clone()),
        clock: deps.clock,
    });
    let mut spec = Spec::new(Strategy::OneForOne)
        .child(events)
        .child(services_child)
        .child(subtree("follow", follows))
        .child(subtree("node", node.spec))
        .child(subtree("volumes", volumes.spec))
        .child(subtree("pods", pods.spec))
        .child(subtree("server", server));
    if config.has_network {
        let network = k3sd_kubelet_cni::tree(network_config(&config), facts.pod_cidrs.subscribe(), live);
        spec = spec.child(subtree("network", network));
    }
    Ok(KubeletTree { spec, resolv_conf })
}

/// The programs that know credentials for registries: what `--kubelet-arg` names has to be there, what is there by default
/// is used.
fn credentials(
    config: &KubeletConfig,
    settings: &KubeletSettings,
) -> Result<Option<CredentialProviders>, KubeletError> {
    let (file, programs) = (&config.credential_provider_config, &config.credential_provider_bin_dir);
    let is_there = file.exists() && programs.is_dir();
    let given = (&settings.image_credential_provider_config, &settings.image_credential_provider_bin_dir);
    let load =
        |file: &Path, programs: &Path| CredentialProviders::load(file, programs).map_err(KubeletError::Credentials);
    match given {
        (None, None) if !is_there => Ok(None),
        (own, own_programs) => {
            load(own.as_deref().unwrap_or(file), own_programs.as_deref().unwrap_or(programs)).map(Some)
        }
    }
}

/// What pods may use, before the Node has said so.
fn allocatable(
    kubelet: &KubeletConfiguration,
    roots: &Roots,
    root_dir: &std::path::Path,
) -> Result<BTreeMap<String, Quantity>, KubeletError> {
    let thresholds = parse(kubelet).map_err(|error| KubeletError::Node(error.into()))?;
    let hard = thresholds.into_iter().filter(|threshold| threshold.grace.is_none()).collect();
    let reserved = Reserved::of(kubelet, hard).map_err(|error| KubeletError::Node(error.into()))?;
    let supply = Supply {
        machine: Machine::read(roots),
        storage_bytes: FileSystem::of(root_dir).ok().map(|found| found.capacity),
        max_pods: kubelet.max_pods,
        pods_per_core: kubelet.pods_per_core,
        ..Supply::default()
    };
    Ok(resources(&supply, &reserved).allocatable)
}

fn volumes_config(root: &std::path::Path, name: &str, allocatable: &BTreeMap<String, Quantity>) -> VolumesConfig {
    let amount = |name: &str| allocatable.get(name).map_or(0, |amount| amount.value());
    VolumesConfig {
        root: root.to_owned(),
        node_name: name.to_owned(),
        allocatable: Allocatable {
            cpu_milli: allocatable.get("cpu").map_or(0, |cpu| cpu.milli_value()),
            memory: amount("memory"),
            ephemeral_storage: amount("ephemeral-storage"),
        },
        mount_program: PathBuf::from("mount"),
        recorder: None,
    }
}

/// What containers may swap of so many bytes.
fn swap(kubelet: &KubeletConfiguration, cgroups: &Cgroups, bytes: u64) -> Swap {
    match (cgroups.limits_swap(), cgroups.layout().version()) {
        (false, _) => Swap::Unknown,
        (true, Version::V2) if kubelet.memory_swap.swap_behavior == "LimitedSwap" => {
            Swap::Limited(i64::try_from(bytes).unwrap_or(i64::MAX))
        }
        (true, Version::V2) => Swap::NoneV2,
        (true, Version::V1 | Version::Hybrid) => Swap::NoneV1,
    }
}

fn pods_config(
    config: &KubeletConfig,
    kubelet: &KubeletConfiguration,
    root: &std::path::Path,
    roots: &Roots,
) -> PodsConfig {
    let resolver = std::fs::read_to_string(&kubelet.resolv_conf).unwrap_or_default();
    PodsConfig {
        node: config.name.clone(),
        root: root.to_owned(),
        logs: kubelet.pod_logs_dir.clone(),
        log_links: config.host_root.join("var/log/containers"),
        static_pods: Some(PathBuf::from(&kubelet.static_pod_path)).filter(|path| !path.as_os_str().is_empty()),
        hosts_file: config.host_root.join("etc/hosts"),
        kernel_log: config.host_root.join("dev/kmsg"),
        dns: DnsFacts {
            cluster: kubelet.cluster_dns.iter().filter_map(|text| text.parse().ok()).collect(),
            domain: kubelet.cluster_domain.clone(),
            host: dns::parse(&resolver),
        },
        seccomp_default: kubelet.seccomp_default,
        memory_capacity: i64::try_from(Machine::read(roots).memory_bytes).unwrap_or(i64::MAX),
        cpu_quota: kubelet.cpu_cfs_quota,
        swap: Swap::Unknown,
        pids_max: u64::try_from(kubelet.pod_pids_limit).ok().filter(|pids| *pids > 0),
        pods_max: usize::try_from(kubelet.max_pods).unwrap_or(0),
        allowed_unsafe_sysctls: kubelet.allowed_unsafe_sysctls.clone(),
        has_apparmor: is_enabled(&roots.sys),
        pulls_max: if kubelet.serialize_image_pulls {
            Some(1)
        } else {
            kubelet.max_parallel_image_pulls.and_then(|most| usize::try_from(most).ok())
        },
    }
}

fn server_config(kubelet: &KubeletConfiguration, name: &str, host_root: &std::path::Path) -> ServerConfig {
    ServerConfig {
        stream_idle: kubelet.streaming_connection_idle_timeout,
        system_logs: kubelet.enable_system_log_handler.then(|| host_root.join("var/log")),
        debugging: kubelet.enable_debugging_handlers,
        ..ServerConfig::new(name)
    }
}

fn network_config(config: &KubeletConfig) -> NetworkConfig {
    let cidr = |(address, bits): &(IpAddr, u8)| Cidr::new(*address, *bits);
    NetworkConfig {
        cluster_cidrs: config.cluster_cidrs.iter().filter_map(cidr).collect(),
        backend: Backend::Bridge,
        masquerade_ipv6: config.masquerades_ipv6,
        ..NetworkConfig::new(config.binary.clone(), config.network_dir(), config.plugin_dir.clone())
    }
}

/// A socket that outlives all actors. Nobody waits for port 10250 to be free: another kubelet is a mistake.
async fn listen(address: &str, port: u16) -> Result<Lend<TcpListener>, KubeletError> {
    let address = SocketAddr::new(address.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])), port);
    let bound = TcpListener::bind(address).await.map_err(|source| KubeletError::Listen { address, source })?;
    Ok(Lend::new(bound))
}
