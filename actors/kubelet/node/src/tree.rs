//! The subtree, as data.

use std::path::PathBuf;
use std::sync::Arc;

use k3sd_client::api::Connect;
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, InformerArgs, informer};
use k3sd_cri::Cri;
use k3sd_kubelet_base::Pods;
use k3sd_kubelet_cgroups::Cgroups;
use k3sd_objects::quantity::Quantity;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Spec, Strategy, subtree, task, worker};
use k8s_openapi::api::core::v1::Node;
use tokio::sync::watch;

use crate::collect::{ContainerKeeper, ImageKeeper, ImageKeeperArgs, ImagePolicy, KeeperArgs, LogPolicy};
use crate::config::KubeletConfiguration;
use crate::devices::{self, Devices, DevicesArgs, Socket};
use crate::error::NodeError;
use crate::eviction::{Evict, EvictionArgs, EvictionConfig, EvictionCounts, EvictionManager, Pressures, parse};
use crate::figures::{Figures, Meter, MeterArgs, VolumeFigures};
use crate::identity::{Identity, NodeIps};
use crate::lease::{NodeLease, NodeLeaseArgs};
use crate::shutdown::{self, ShutdownArgs, ShutdownConfig};
use crate::status::{Ask, DeviceCounts, Reporter, ReporterArgs, Reserved, Roots, Standing, StatusConfig};

/// Who says what happened.
const COMPONENT: &str = "kubelet";

/// What the node is.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its settings.
    pub kubelet: KubeletConfiguration,
    /// The kubelet's root; it exists.
    pub root_dir: PathBuf,
    /// Who it is.
    pub identity: Identity,
    /// `--node-ip`.
    pub ips: NodeIps,
    /// `v1.34.0+k3sd1`.
    pub kubelet_version: String,
    /// Where the machine describes itself.
    pub roots: Roots,
    /// Images that stay, such as that of sandboxes.
    pub kept_images: Vec<String>,
    /// How the machine's end is waited for.
    pub shutdown: ShutdownConfig,
}

/// Whom its parts depend on.
#[derive(Clone, Debug)]
pub struct NodeDeps {
    /// The way to the API, as this node.
    pub connect: Connect,
    /// The container runtime.
    pub cri: Cri,
    /// The cgroups of pods.
    pub cgroups: Arc<Cgroups>,
    /// The pods of this node.
    pub pods: Pods,
    /// Whether all pods that should be in the snapshot are: the API and the static ones have been read.
    pub pods_complete: watch::Receiver<bool>,
    /// Who can make pods go.
    pub evict: Arc<dyn Evict>,
    /// Events.
    pub recorder: Recorder,
    /// Sizes of volumes.
    pub volumes: VolumeFigures,
    /// Names of volumes in use of those that a controller attaches, `kubernetes.io/csi/driver^handle`.
    pub volumes_in_use: Ask,
    /// What else keeps the node from being ready.
    pub problems: Ask,
    /// Where it is told whether the machine is about to go down.
    pub is_ending: Arc<watch::Sender<bool>>,
    /// Where device plugins register; [`crate::devices::bind`] opens it. Lent, so that a restart refuses nobody.
    pub device_socket: Lend<Socket>,
}

/// The subtree, and what others read of it.
#[derive(Clone, Debug)]
pub struct NodeTree {
    /// What to start.
    pub spec: Spec,
    /// How far the node is.
    pub standing: watch::Receiver<Standing>,
    /// What it is short of; new pods that could make it worse are not taken meanwhile.
    pub pressures: watch::Receiver<Pressures>,
    /// How many pods had to go since it was started, and why.
    pub evictions: watch::Receiver<EvictionCounts>,
    /// What it uses.
    pub figures: Figures,
    /// Devices for containers.
    pub devices: Devices,
    /// Its Node, as the API has it.
    pub node: Informer<Node>,
    /// What pods get of it, and don't.
    pub reserved: Reserved,
}

/// Makes the subtree. None of its parts needs another to start.
///
/// # Errors
/// A setting means nothing.
pub fn tree(config: NodeConfig, deps: NodeDeps) -> Result<NodeTree, NodeError> {
    let kubelet = &config.kubelet;
    let thresholds = parse(kubelet)?;
    let hard = thresholds.iter().filter(|threshold| threshold.grace.is_none()).copied().collect();
    let reserved = Reserved::of(kubelet, hard)?;
    let name = config.identity.name.clone();
    let recorder = deps.recorder.component(COMPONENT).host(&name);
    let selector = format!("metadata.name={name}");
    let (node_spec, node) = informer("node", InformerArgs::<Node>::all(deps.connect.clone()).fields(&selector));
    let (standing_place, standing) = watch::channel(Standing::default());
    let (pressures_place, pressures) = watch::channel(Pressures::default());
    let (counts_of_evictions, evictions) = watch::channel(EvictionCounts::new());
    let (devices_place, devices_seen) = watch::channel(None);
    let (counts_place, counts) = watch::channel(DeviceCounts::default());
    let (meter_place, meter) = watch::channel(None);
    let (images_place, images) = watch::channel(None);
    let (containers_place, containers) = watch::channel(None);
    let (figures, devices_way) = (Figures(meter), Devices(devices_seen));
    let reporter = ReporterArgs {
        config: Arc::new(status_config(&config, reserved.clone())),
        identity: Arc::new(config.identity.clone()),
        ips: config.ips.clone(),
        connect: deps.connect.clone(),
        cri: deps.cri.clone(),
        node: node.clone(),
        pressures: pressures.clone(),
        devices: counts,
        volumes_in_use: deps.volumes_in_use.clone(),
        problems: deps.problems.clone(),
        is_ending: deps.is_ending.subscribe(),
        recorder: recorder.clone(),
        standing: Arc::new(standing_place),
    };
    let seconds = kubelet.node_lease_duration_seconds;
    let lease = NodeLeaseArgs { connect: deps.connect.clone(), name: name.clone(), node: node.clone(), seconds };
    let meter = MeterArgs {
        node_name: name.clone(),
        roots: config.roots.clone(),
        root_dir: config.root_dir.clone(),
        cri: deps.cri.clone(),
        cgroups: deps.cgroups.clone(),
        pods: deps.pods.clone(),
        volumes: deps.volumes.clone(),
        volumes_period: kubelet.volume_stats_agg_period,
        place: Arc::new(meter_place),
    };
    let eviction = EvictionArgs {
        config: EvictionConfig {
            thresholds,
            transition: kubelet.eviction_pressure_transition_period,
            soft_grace_seconds_max: kubelet.eviction_max_pod_grace_period,
        },
        holds_to_limits: kubelet.local_storage_capacity_isolation,
        node: name.clone(),
        figures: figures.clone(),
        images,
        containers,
        evict: deps.evict.clone(),
        recorder: recorder.clone(),
        pressures: Arc::new(pressures_place),
        counts: Arc::new(counts_of_evictions),
    };
    let shutdown = ShutdownArgs {
        config: Arc::new(config.shutdown.clone()),
        node: name.clone(),
        pods: deps.pods.clone(),
        evict: deps.evict.clone(),
        recorder: recorder.clone(),
        is_ending: deps.is_ending.clone(),
    };
    let image_keeper = ImageKeeperArgs {
        cri: deps.cri.clone(),
        policy: image_policy(kubelet),
        kept: config.kept_images.clone(),
        node: name,
        recorder,
        place: Arc::new(images_place),
    };
    let keeper = KeeperArgs {
        cri: deps.cri.clone(),
        pods: deps.pods.clone(),
        is_complete: deps.pods_complete.clone(),
        logs_dir: kubelet.pod_logs_dir.clone(),
        log_policy: log_policy(kubelet)?,
        log_interval: kubelet.container_log_monitor_interval,
        place: Arc::new(containers_place),
    };
    let manager = DevicesArgs {
        directory: config.root_dir.join("device-plugins"),
        pods: deps.pods.clone(),
        pods_complete: deps.pods_complete.clone(),
        counts: Arc::new(counts_place),
        place: Arc::new(devices_place),
    };
    let device_plugins = devices::spec(manager, deps.device_socket, devices_way.clone());
    let mut spec = Spec::new(Strategy::OneForOne)
        .child(node_spec)
        .child(worker::<Reporter>("status", reporter))
        .child(worker::<NodeLease>("lease", lease))
        .child(worker::<Meter>("figures", meter))
        .child(worker::<ImageKeeper>("images", image_keeper))
        .child(worker::<ContainerKeeper>("containers", keeper))
        .child(worker::<EvictionManager>("eviction", eviction))
        .child(subtree("device-plugins", device_plugins));
    if !config.shutdown.periods.is_empty() {
        spec = spec.child(task("shutdown", move |handle| shutdown::run(handle, shutdown.clone())));
    }
    Ok(NodeTree { spec, standing, pressures, evictions, figures, devices: devices_way, node, reserved })
}

fn status_config(config: &NodeConfig, reserved: Reserved) -> StatusConfig {
    let kubelet = &config.kubelet;
    StatusConfig {
        kubelet_version: config.kubelet_version.clone(),
        port: kubelet.port,
        update_frequency: kubelet.node_status_update_frequency,
        report_frequency: kubelet.node_status_report_frequency,
        images_max: kubelet.node_status_max_images,
        max_pods: kubelet.max_pods,
        pods_per_core: kubelet.pods_per_core,
        reserved,
        root_dir: config.root_dir.clone(),
        counts_storage: kubelet.local_storage_capacity_isolation,
        roots: config.roots.clone(),
        registers: kubelet.register_node,
    }
}

fn image_policy(kubelet: &KubeletConfiguration) -> ImagePolicy {
    ImagePolicy {
        high_percent: kubelet.image_gc_high_threshold_percent,
        low_percent: kubelet.image_gc_low_threshold_percent,
        age_min: kubelet.image_minimum_gc_age,
        unused_max: kubelet.image_maximum_gc_age,
    }
}

fn log_policy(kubelet: &KubeletConfiguration) -> Result<LogPolicy, NodeError> {
    let text = &kubelet.container_log_max_size;
    let size = text.parse::<Quantity>().ok().and_then(|size| u64::try_from(size.value()).ok());
    let bytes_max = size.filter(|bytes| *bytes > 0).ok_or_else(|| NodeError::LogSize(text.clone()))?;
    Ok(LogPolicy { bytes_max, files_max: kubelet.container_log_max_files })
}
