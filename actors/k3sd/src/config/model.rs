//! The configuration as the rest of the program sees it: typed, complete, and free of where it came from.
//!
//! What can only be known on the running machine (the host name, an interface's address) stays `None` here and is
//! worked out by whoever needs it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use k3sd_kine::KineConfig;

use crate::config::cidr::Cidr;

/// A text that must not be seen: `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. Not for logs, errors or anything a user sees.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

/// What the long-running commands start with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunConfig {
    /// What this process is.
    pub role: RoleConfig,
    /// The directory that holds all state; absolute.
    pub data_dir: PathBuf,
    /// Where and how to log.
    pub log: LogConfig,
    /// How to look into the running process.
    pub inspect: InspectConfig,
    /// Actors for chaos tests.
    pub probe: ProbeConfig,
    /// What was strange in the configuration, each in one line. To be logged once logging works.
    pub warnings: Vec<String>,
}

/// What the process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleConfig {
    /// A server, with or without a node.
    Server(Box<ServerConfig>),
    /// A node only.
    Agent(Box<AgentConfig>),
}

/// Where and how to log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogConfig {
    /// How lines are written.
    pub format: LogFormat,
    /// The file to write to instead of standard error; absolute.
    pub file: Option<PathBuf>,
    /// Whether to write to standard error although there is a file.
    pub also_stderr: bool,
    /// Whether to log details.
    pub debug: bool,
    /// Verbosity in the sense of Kubernetes components; 0 is normal.
    pub verbosity: u8,
    /// Verbosity per source file, unparsed. Refused by this build.
    pub vmodule: Option<String>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Whatever suits the place they go to.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
    /// For the systemd journal: priority prefixes, no time.
    Journald,
}

/// How to look into the running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectConfig {
    /// The socket's path; absolute.
    pub socket: PathBuf,
    /// Whether actors can be killed, suspended and resumed through it.
    pub actor_control: bool,
}

/// Actors for chaos tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProbeConfig {
    /// How many to start.
    pub actors: u32,
    /// Whether to keep them busy.
    pub load: bool,
}

/// The configuration of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where it listens and how it is known.
    pub listen: ListenConfig,
    /// Addresses and names inside the cluster.
    pub network: NetworkConfig,
    /// The administrator's kubeconfig.
    pub kubeconfig: KubeconfigConfig,
    /// Secrets and the cluster to join.
    pub join: ServerJoinConfig,
    /// Membership of the embedded etcd.
    pub cluster: ClusterConfig,
    /// The store behind the API.
    pub datastore: DatastoreConfig,
    /// Snapshots of the embedded etcd.
    pub snapshots: SnapshotConfig,
    /// What runs and what does not.
    pub components: ComponentsConfig,
    /// Arguments handed to components, as given.
    pub arguments: ServerArguments,
    /// The cipher for secrets at rest, if they are encrypted.
    pub secrets_encryption: Option<EncryptionProvider>,
    /// The node on this server; nothing when it runs none.
    pub node: Option<NodeConfig>,
}

/// Where a server listens and how it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenConfig {
    /// The address to listen on; nothing for all.
    pub bind_address: Option<IpAddr>,
    /// The public port.
    pub https_port: u16,
    /// The supervisor's port; often the public one.
    pub supervisor_port: u16,
    /// The API server's own port.
    pub apiserver_port: u16,
    /// The API server's own address; nothing for loopback.
    pub apiserver_bind_address: Option<IpAddr>,
    /// The address the cluster uses; nothing for the node's.
    pub advertise_address: Option<IpAddr>,
    /// The port the cluster uses.
    pub advertise_port: u16,
    /// Further names and addresses of the serving certificate.
    pub tls_sans: Vec<String>,
    /// Whether names nobody configured are kept out of it.
    pub tls_san_security: bool,
}

/// Addresses and names inside the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Networks of pods, one per family.
    pub cluster_cidrs: Vec<Cidr>,
    /// Networks of services, of the same families.
    pub service_cidrs: Vec<Cidr>,
    /// Ports of services of type NodePort.
    pub node_ports: PortRange,
    /// Addresses of the DNS service.
    pub cluster_dns: Vec<IpAddr>,
    /// The DNS domain.
    pub cluster_domain: String,
    /// Who answers names of the cluster.
    pub dns: DnsProvider,
    /// How packets travel between nodes.
    pub flannel_backend: FlannelBackend,
    /// Whether IPv6 traffic leaving the pod network is masqueraded.
    pub flannel_ipv6_masq: bool,
    /// Whether nodes reach each other by their external addresses.
    pub flannel_external_ip: bool,
    /// What the API server reaches through the tunnel.
    pub egress_selector: EgressSelector,
    /// Namespace of the service load balancer's pods.
    pub servicelb_namespace: String,
}

/// Ports from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port, not below the lowest.
    pub last: u16,
}

/// How packets travel between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlannelBackend {
    /// Not through flannel.
    None,
    /// In VXLAN.
    Vxlan,
    /// By routes alone.
    HostGw,
    /// In WireGuard.
    WireguardNative,
}

/// Who answers names of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsProvider {
    /// An actor on each node.
    Embedded,
    /// CoreDNS, in pods.
    CoreDns,
}

/// What the API server reaches through the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EgressSelector {
    /// Nodes.
    Agent,
    /// Nodes and everything in the pod networks.
    Cluster,
    /// Nodes and pods.
    Pod,
    /// Nothing.
    Disabled,
}

/// The administrator's kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeconfigConfig {
    /// The usual place. A link to the file, if that is elsewhere.
    pub default_path: PathBuf,
    /// The file; nothing for the usual place.
    pub path: Option<PathBuf>,
    /// Its mode.
    pub mode: u32,
    /// Its group, by name or number.
    pub group: Option<String>,
    /// Name of cluster, user and context.
    pub name: String,
}

/// Secrets of a server, and the cluster it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerJoinConfig {
    /// The secret for servers and agents, read from its file if it was not given itself.
    pub token: Option<Secret>,
    /// That file.
    pub token_file: Option<PathBuf>,
    /// The secret for agents only, read from its file if it was not given itself.
    pub agent_token: Option<Secret>,
    /// That file.
    pub agent_token_file: Option<PathBuf>,
    /// URL of a server to join.
    pub server: Option<String>,
}

/// Membership of the embedded etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Start a new cluster. Resetting implies it.
    pub init: bool,
    /// Become the only member, then exit.
    pub reset: bool,
    /// The snapshot to start from when resetting, as given: it may be a name in S3.
    pub reset_restore_path: Option<String>,
}

/// The store behind the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatastoreConfig {
    /// Which store, and what is done for it. It may hold a password, which `Debug` hides.
    pub kine: KineConfig,
    /// TLS on the local socket.
    pub kine_tls: bool,
    /// etcd's metrics on the node's address.
    pub etcd_expose_metrics: bool,
    /// What was asked of it and has no effect, each in one line.
    pub warnings: Vec<String>,
}

/// Snapshots of the embedded etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// Whether they are taken on a schedule.
    pub scheduled: bool,
    /// When, as a cron line.
    pub schedule_cron: String,
    /// First part of their names.
    pub name: String,
    /// The directory; absolute.
    pub directory: PathBuf,
    /// How many to keep.
    pub retention: u32,
    /// Whether they are compressed.
    pub compress: bool,
    /// How often the list is compared with what is stored.
    pub reconcile_interval: Duration,
    /// Where else they go.
    pub s3: Option<S3Config>,
}

/// An S3 bucket for snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Config {
    /// Host and port of the service.
    pub endpoint: String,
    /// Its certificate authority, as a file or base64.
    pub endpoint_ca: Option<String>,
    /// Trust any certificate.
    pub skip_ssl_verify: bool,
    /// No TLS.
    pub insecure: bool,
    /// Access key.
    pub access_key: Option<Secret>,
    /// Secret key.
    pub secret_key: Option<Secret>,
    /// Session token.
    pub session_token: Option<Secret>,
    /// The bucket.
    pub bucket: Option<String>,
    /// How the bucket is addressed.
    pub bucket_lookup: BucketLookup,
    /// Its region.
    pub region: String,
    /// Prefix of keys.
    pub folder: Option<String>,
    /// How many snapshots to keep.
    pub retention: u32,
    /// A proxy, `none` for no proxy at all. May hold a password.
    pub proxy: Option<Secret>,
    /// A secret in kube-system that holds these settings.
    pub config_secret: Option<String>,
    /// Limit of one operation.
    pub timeout: Duration,
}

/// How a bucket is addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketLookup {
    /// Whatever the endpoint suggests.
    Auto,
    /// In the host name.
    Dns,
    /// In the path.
    Path,
}

/// What runs on a server and what does not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own and named at its use")]
pub struct ComponentsConfig {
    /// Packaged components, and manifests of other names, that are left out.
    pub disable: BTreeSet<String>,
    /// The API server.
    pub apiserver: bool,
    /// The controller manager.
    pub controller_manager: bool,
    /// The scheduler.
    pub scheduler: bool,
    /// The cloud controller manager.
    pub cloud_controller: bool,
    /// The embedded etcd, where the datastore calls for it.
    pub etcd: bool,
    /// The service proxy.
    pub kube_proxy: bool,
    /// Network policies.
    pub network_policy: bool,
    /// The helm controller.
    pub helm_controller: bool,
    /// The registry mirror.
    pub embedded_registry: bool,
    /// Metrics on the supervisor's port.
    pub supervisor_metrics: bool,
    /// Registry of system images.
    pub system_default_registry: Option<String>,
    /// Root of local volumes; absolute.
    pub local_storage_path: PathBuf,
    /// Image of chart jobs.
    pub helm_job_image: Option<String>,
}

/// Arguments for the components of a server, each `name=value`, `name+=value`, `name-=value` or `name`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerArguments {
    /// For the API server.
    pub apiserver: Vec<String>,
    /// For etcd.
    pub etcd: Vec<String>,
    /// For the controller manager.
    pub controller_manager: Vec<String>,
    /// For the scheduler.
    pub scheduler: Vec<String>,
    /// For the helm controller.
    pub helm_controller: Vec<String>,
    /// For the cloud controller manager.
    pub cloud_controller: Vec<String>,
}

/// The cipher for secrets at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptionProvider {
    /// AES in CBC mode.
    AesCbc,
    /// XSalsa20 and Poly1305.
    SecretBox,
}

/// The configuration of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// The secret to join with, read from its file if it was not given itself.
    pub token: Option<Secret>,
    /// That file.
    pub token_file: Option<PathBuf>,
    /// URL of the server to join.
    pub server: String,
    /// Whether servers are reached through the local load balancer.
    pub apiserver_load_balancer: bool,
    /// The address to listen on; nothing for all.
    pub bind_address: Option<IpAddr>,
    /// The node.
    pub node: NodeConfig,
}

/// The configuration of a node, on a server or an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own and named at its use")]
pub struct NodeConfig {
    /// Its name in lower case; nothing for the host name.
    pub name: Option<String>,
    /// Append a stable id to the name.
    pub with_node_id: bool,
    /// Labels to register with, each `name=value`.
    pub labels: Vec<String>,
    /// Taints to register with, each `name=value:effect`.
    pub taints: Vec<String>,
    /// Its addresses; empty for those of the interfaces.
    pub ips: Vec<IpAddr>,
    /// Its addresses as seen from outside.
    pub external_ips: Vec<IpAddr>,
    /// Its names inside.
    pub internal_dns: Vec<String>,
    /// Its names outside.
    pub external_dns: Vec<String>,
    /// Directory of programs that supply registry credentials.
    pub credential_provider_bin_dir: PathBuf,
    /// File that configures them.
    pub credential_provider_config: PathBuf,
    /// Fail rather than change kernel parameters.
    pub protect_kernel_defaults: bool,
    /// Port of the local load balancer.
    pub lb_server_port: u16,
    /// The container runtime.
    pub runtime: RuntimeConfig,
    /// resolv.conf for pods; nothing for the system's.
    pub resolv_conf: Option<PathBuf>,
    /// Interface of the overlay; nothing for that of the default route.
    pub flannel_iface: Option<String>,
    /// flannel configuration to use as it is.
    pub flannel_conf: Option<PathBuf>,
    /// CNI configuration to use as it is.
    pub flannel_cni_conf: Option<PathBuf>,
    /// VPN provider and key, read from their file if they were not given themselves.
    pub vpn_auth: Option<Secret>,
    /// That file.
    pub vpn_auth_file: Option<PathBuf>,
    /// Arguments for the kubelet.
    pub kubelet_arguments: Vec<String>,
    /// Arguments for the service proxy.
    pub kube_proxy_arguments: Vec<String>,
    /// Label containers for SELinux.
    pub selinux: bool,
    /// Profiles on the supervisor's port.
    pub pprof: bool,
    /// Run without root.
    pub rootless: bool,
    /// Prefer shipped programs to the system's.
    pub prefer_bundled_bin: bool,
}

/// The container runtime of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Docker through cri-dockerd.
    pub docker: bool,
    /// Socket of another runtime, as given.
    pub endpoint: Option<String>,
    /// Socket of a separate image service, as given.
    pub image_endpoint: Option<String>,
    /// containerd's default runtime.
    pub default_runtime: Option<String>,
    /// Whether an image missing in a mirror may come from the upstream registry.
    pub default_registry_endpoint: bool,
    /// Devices for users other than root.
    pub nonroot_devices: bool,
    /// Image of the pod sandbox.
    pub pause_image: String,
    /// How layers are stored.
    pub snapshotter: String,
    /// File of registries and mirrors.
    pub private_registry: PathBuf,
    /// Further registry names of preloaded images.
    pub airgap_extra_registries: Vec<String>,
}
