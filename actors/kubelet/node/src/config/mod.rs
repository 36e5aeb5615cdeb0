//! The kubelet's configuration (`kubelet.config.k8s.io/v1beta1`): fields, defaults, files and flags.
//!
//! ```text
//! 00-k3s-defaults.conf ─┐
//! 10-cli-config.conf ───┼─ merged in order ─▶ strict reading ─▶ KubeletConfiguration ◀─ --kubelet-arg
//! 20-cli-config-dir/ ───┘
//! ```

mod arguments;
mod duration;
mod files;
mod gates;
mod k3s;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};

pub use self::arguments::{KubeletArgumentError, KubeletSettings, apply};
pub use self::files::{ConfigError, Loaded, load, load_with, merge};
pub use self::gates::{GateNote, check as check_gates};
pub use self::k3s::{K3sDefaults, defaults as k3s_defaults};

/// Texts by name, such as amounts by resource.
pub type Texts = BTreeMap<String, String>;

/// What the kubelet is told; the names and defaults are those of Kubernetes v1.34. Fields of upstream that have no meaning
/// here are not in it: [`merge`] accepts them with the value that upstream has by default, and says so of others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubeletConfiguration {
    /// `kubelet.config.k8s.io/v1beta1`.
    pub api_version: String,
    /// `KubeletConfiguration`.
    pub kind: String,
    /// Directory of static pods; empty for none.
    pub static_pod_path: String,
    /// Where the logs of pods are.
    pub pod_logs_dir: PathBuf,
    /// How often a running pod is looked at although nothing happened.
    #[serde(with = "duration")]
    pub sync_frequency: Duration,
    /// How often the directory of static pods is looked at.
    #[serde(with = "duration")]
    pub file_check_frequency: Duration,
    /// Where the HTTPS server listens.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// A port without authentication: only 0, none.
    pub read_only_port: u16,
    /// The server's certificate.
    pub tls_cert_file: String,
    /// Its key.
    #[serde(rename = "tlsPrivateKeyFile")]
    pub tls_private_key_file: String,
    /// Which cipher suites it takes; empty for the default ones.
    pub tls_cipher_suites: Vec<String>,
    /// `VersionTLS12` or `VersionTLS13`; empty for 1.2.
    #[serde(rename = "tlsMinVersion")]
    pub tls_min_version: String,
    /// Who is asking.
    pub authentication: Authentication,
    /// Whether they may.
    pub authorization: Authorization,
    /// Pulls per second; 0 for no limit.
    #[serde(rename = "registryPullQPS")]
    pub registry_pull_qps: i32,
    /// Pulls at once beyond that.
    pub registry_burst: i32,
    /// Whether `/exec`, `/logs` and the like are served.
    pub enable_debugging_handlers: bool,
    /// Whether `/logs/` shows the host's.
    pub enable_system_log_handler: bool,
    /// The port of `/healthz` on loopback; 0 for none.
    pub healthz_port: u16,
    /// Its address.
    pub healthz_bind_address: String,
    /// What the kernel thinks of this process when memory runs out.
    pub oom_score_adj: i32,
    /// The domain of Services.
    pub cluster_domain: String,
    /// Name servers of pods.
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    /// When an idle stream ends.
    #[serde(with = "duration")]
    pub streaming_connection_idle_timeout: Duration,
    /// How often the node's status is computed.
    #[serde(with = "duration")]
    pub node_status_update_frequency: Duration,
    /// How often it is sent although it is what it was.
    #[serde(with = "duration")]
    pub node_status_report_frequency: Duration,
    /// How long the node counts as alive after its last sign.
    pub node_lease_duration_seconds: i32,
    /// How old an image is at least when it is collected.
    #[serde(rename = "imageMinimumGCAge", with = "duration")]
    pub image_minimum_gc_age: Duration,
    /// How long an image may be unused; zero for ever.
    #[serde(rename = "imageMaximumGCAge", with = "duration")]
    pub image_maximum_gc_age: Duration,
    /// How full the disk is when images are collected, in percent.
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: u8,
    /// Down to what.
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: u8,
    /// How often volumes are measured; zero or less for never.
    #[serde(with = "duration")]
    pub volume_stats_agg_period: Duration,
    /// The cgroup that this process is put into; empty for where it is.
    pub kubelet_cgroups: String,
    /// The cgroup above those of pods.
    pub cgroup_root: String,
    /// Whether pods have cgroups of their own, below one for their class.
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: bool,
    /// `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// Longest wait for the container runtime.
    #[serde(with = "duration")]
    pub runtime_request_timeout: Duration,
    /// How many pods the node takes.
    pub max_pods: i64,
    /// How many of them per CPU; 0 for no such limit.
    pub pods_per_core: i64,
    /// Networks of pods without a control plane; not used.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    /// Most processes of a pod; -1 for what the node allows.
    pub pod_pids_limit: i64,
    /// Where the host's name servers are named.
    pub resolv_conf: String,
    /// Whether limits of CPU time are enforced.
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: bool,
    /// Over which time.
    #[serde(rename = "cpuCFSQuotaPeriod", with = "duration")]
    pub cpu_cfs_quota_period: Duration,
    /// How many images the node's status names; -1 for all.
    pub node_status_max_images: i32,
    /// Open files of this process.
    pub max_open_files: i64,
    /// Whether one image is pulled at a time.
    pub serialize_image_pulls: bool,
    /// How many otherwise; none for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_image_pulls: Option<i32>,
    /// Below what pods are evicted at once, by signal.
    pub eviction_hard: Texts,
    /// Below what they are after a while.
    pub eviction_soft: Texts,
    /// After which while.
    pub eviction_soft_grace_period: Texts,
    /// How long a pressure is told of after it was last seen.
    #[serde(with = "duration")]
    pub eviction_pressure_transition_period: Duration,
    /// Most seconds a pod has to end when it is evicted after a while.
    pub eviction_max_pod_grace_period: i64,
    /// How much more than necessary is taken back.
    pub eviction_minimum_reclaim: Texts,
    /// Whether signals that `evictionHard` doesn't name have their defaults.
    pub merge_default_eviction_settings: bool,
    /// Whether a controller attaches volumes.
    pub enable_controller_attach_detach: bool,
    /// Whether kernel settings that differ are an error.
    pub protect_kernel_defaults: bool,
    /// Features, on or off.
    pub feature_gates: BTreeMap<String, bool>,
    /// Whether swap on the host is an error.
    pub fail_swap_on: bool,
    /// Who may use it.
    pub memory_swap: MemorySwap,
    /// How large a container's log grows.
    pub container_log_max_size: String,
    /// How many files of it are kept.
    pub container_log_max_files: u32,
    /// How often the sizes are looked at.
    #[serde(with = "duration")]
    pub container_log_monitor_interval: Duration,
    /// Kept free for the system, by resource.
    pub system_reserved: Texts,
    /// Kept free for this process and its like.
    pub kube_reserved: Texts,
    /// What is enforced: `pods` or `none`.
    pub enforce_node_allocatable: Vec<String>,
    /// Sysctls that pods may set although they are not safe.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// What the cloud calls this node.
    #[serde(rename = "providerID")]
    pub provider_id: String,
    /// How long pods have when the machine goes down.
    #[serde(with = "duration")]
    pub shutdown_grace_period: Duration,
    /// Of that, what critical ones have.
    #[serde(with = "duration")]
    pub shutdown_grace_period_critical_pods: Duration,
    /// The same by priority, instead of both.
    pub shutdown_grace_period_by_pod_priority: Vec<ShutdownPeriod>,
    /// How containers that crash are held back.
    pub crash_loop_back_off: CrashLoopBackOff,
    /// Whether pods without a seccomp profile get the runtime's.
    pub seccomp_default: bool,
    /// Taints of a node that isn't there yet.
    pub register_with_taints: Vec<Taint>,
    /// Whether it makes its Node.
    pub register_node: bool,
    /// Whether local storage is counted.
    pub local_storage_capacity_isolation: bool,
    /// The runtime's socket.
    pub container_runtime_endpoint: String,
    /// Another one for images.
    pub image_service_endpoint: String,
    /// Whether cgroup v1 is an error.
    pub fail_cgroup_v1: bool,
    /// Whether only one process of a container is killed when its memory runs out; none for what the cgroups do.
    #[serde(rename = "singleProcessOOMKill", skip_serializing_if = "Option::is_none")]
    pub single_process_oom_kill: Option<bool>,
}

/// How requests are authenticated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Authentication {
    /// By certificate.
    pub x509: X509,
    /// By token, which the API looks at.
    pub webhook: WebhookAuthentication,
    /// By nothing.
    pub anonymous: Anonymous,
}

/// Certificates of clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct X509 {
    /// The file of their authority; empty for none.
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: String,
}

/// Tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebhookAuthentication {
    /// Whether they are taken.
    pub enabled: bool,
    /// How long an answer counts.
    #[serde(rename = "cacheTTL", with = "duration")]
    pub cache_ttl: Duration,
}

impl Default for WebhookAuthentication {
    fn default() -> Self {
        Self { enabled: true, cache_ttl: Duration::from_secs(120) }
    }
}

/// Requests of nobody.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Anonymous {
    /// Whether they are heard.
    pub enabled: bool,
}

/// How requests are authorized.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Authorization {
    /// `Webhook` or `AlwaysAllow`.
    pub mode: String,
    /// How the API's answers count.
    pub webhook: WebhookAuthorization,
}

impl Default for Authorization {
    fn default() -> Self {
        Self { mode: "Webhook".to_owned(), webhook: WebhookAuthorization::default() }
    }
}

/// How long answers count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebhookAuthorization {
    /// A yes.
    #[serde(rename = "cacheAuthorizedTTL", with = "duration")]
    pub cache_authorized_ttl: Duration,
    /// A no.
    #[serde(rename = "cacheUnauthorizedTTL", with = "duration")]
    pub cache_unauthorized_ttl: Duration,
}

impl Default for WebhookAuthorization {
    fn default() -> Self {
        Self { cache_authorized_ttl: Duration::from_secs(300), cache_unauthorized_ttl: Duration::from_secs(30) }
    }
}

/// Swap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MemorySwap {
    /// Empty or `NoSwap`, or `LimitedSwap`.
    pub swap_behavior: String,
}

/// How long pods from one priority up to the next have when the machine goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShutdownPeriod {
    /// The lowest priority that it is for.
    pub priority: i32,
    /// How long they have, in seconds.
    pub shutdown_grace_period_seconds: i64,
}

/// Containers that crash.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CrashLoopBackOff {
    /// Longest wait; none for five minutes.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub max_container_restart_period: Option<Duration>,
}

/// Defaults of [`KubeletConfiguration::eviction_hard`].
pub(crate) const EVICTION_HARD: [(&str, &str); 5] = [
    ("memory.available", "100Mi"),
    ("nodefs.available", "10%"),
    ("nodefs.inodesFree", "5%"),
    ("imagefs.available", "15%"),
    ("imagefs.inodesFree", "5%"),
];

/// Texts by name, from a table.
pub(crate) fn texts(rows: &[(&str, &str)]) -> Texts {
    rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Default for KubeletConfiguration {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            api_version: "kubelet.config.k8s.io/v1beta1".to_owned(),
            kind: "KubeletConfiguration".to_owned(),
            static_pod_path: String::new(),
            pod_logs_dir: "/var/log/pods".into(),
            sync_frequency: seconds(60),
            file_check_frequency: seconds(20),
            address: "0.0.0.0".to_owned(),
            port: 10250,
            read_only_port: 0,
            tls_cert_file: String::new(),
            tls_private_key_file: String::new(),
            tls_cipher_suites: Vec::new(),
            tls_min_version: String::new(),
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            registry_pull_qps: 5,
            registry_burst: 10,
            enable_debugging_handlers: true,
            enable_system_log_handler: true,
            healthz_port: 10248,
            healthz_bind_address: "127.0.0.1".to_owned(),
            oom_score_adj: -999,
            cluster_domain: String::new(),
            cluster_dns: Vec::new(),
            streaming_connection_idle_timeout: seconds(4 * 3600),
            node_status_update_frequency: seconds(10),
            node_status_report_frequency: seconds(300),
            node_lease_duration_seconds: 40,
            image_minimum_gc_age: seconds(120),
            image_maximum_gc_age: Duration::ZERO,
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            volume_stats_agg_period: seconds(60),
            kubelet_cgroups: String::new(),
            cgroup_root: String::new(),
            cgroups_per_qos: true,
            cgroup_driver: "cgroupfs".to_owned(),
            runtime_request_timeout: seconds(120),
            max_pods: 110,
            pods_per_core: 0,
            pod_cidr: String::new(),
            pod_pids_limit: -1,
            resolv_conf: "/etc/resolv.conf".to_owned(),
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: Duration::from_millis(100),
            node_status_max_images: 50,
            max_open_files: 1_000_000,
            serialize_image_pulls: true,
            max_parallel_image_pulls: None,
            eviction_hard: texts(&EVICTION_HARD),
            eviction_soft: Texts::new(),
            eviction_soft_grace_period: Texts::new(),
            eviction_pressure_transition_period: seconds(300),
            eviction_max_pod_grace_period: 0,
            eviction_minimum_reclaim: Texts::new(),
            merge_default_eviction_settings: false,
            enable_controller_attach_detach: true,
            protect_kernel_defaults: false,
            feature_gates: BTreeMap::new(),
            fail_swap_on: true,
            memory_swap: MemorySwap::default(),
            container_log_max_size: "10Mi".to_owned(),
            container_log_max_files: 5,
            container_log_monitor_interval: seconds(10),
            system_reserved: Texts::new(),
            kube_reserved: Texts::new(),
            enforce_node_allocatable: vec!["pods".to_owned()],
            allowed_unsafe_sysctls: Vec::new(),
            provider_id: String::new(),
            shutdown_grace_period: Duration::ZERO,
            shutdown_grace_period_critical_pods: Duration::ZERO,
            shutdown_grace_period_by_pod_priority: Vec::new(),
            crash_loop_back_off: CrashLoopBackOff::default(),
            seccomp_default: false,
            register_with_taints: Vec::new(),
            register_node: true,
            local_storage_capacity_isolation: true,
            container_runtime_endpoint: "unix:///run/containerd/containerd.sock".to_owned(),
            image_service_endpoint: String::new(),
            fail_cgroup_v1: false,
            single_process_oom_kill: None,
        }
    }
}
