//! `--kubelet-arg`: the kubelet's flags, as data. Flags count more than files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k3sd_client::arguments::Rule::{Lists, Only, Refused, Sets};
use k3sd_client::arguments::{ArgumentError, Rule, apply_all, boolean, duration, list, text};
use k8s_openapi::api::core::v1::Taint;

use super::files::check;
use super::{ConfigError, KubeletConfiguration, Texts};

/// What flags set: the configuration, and what only flags say.
#[derive(Clone, Debug, PartialEq)]
pub struct KubeletSettings {
    /// The configuration.
    pub config: KubeletConfiguration,
    /// The kubelet's root, `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// Labels that the node gets.
    pub node_labels: BTreeMap<String, String>,
    /// Addresses of the node; none to find one.
    pub node_ips: Vec<String>,
    /// The node's name in its address list and label; none for the host's.
    pub hostname_override: Option<String>,
    /// Whether somebody else says what the node's addresses are: `--cloud-provider=external`.
    pub is_cloud_external: bool,
    /// Where programs are that know how to log in to registries.
    pub image_credential_provider_bin_dir: Option<PathBuf>,
    /// Which of them there are.
    pub image_credential_provider_config: Option<PathBuf>,
}

impl Default for KubeletSettings {
    fn default() -> Self {
        Self {
            config: KubeletConfiguration::default(),
            root_dir: "/var/lib/kubelet".into(),
            node_labels: BTreeMap::new(),
            node_ips: Vec::new(),
            hostname_override: None,
            is_cloud_external: false,
            image_credential_provider_bin_dir: None,
            image_credential_provider_config: None,
        }
    }
}

/// Applies `--kubelet-arg`s, in their order.
///
/// # Errors
/// A flag is unknown, has no effect here, or has a value that means nothing; the settings may be half changed then.
pub fn apply<'a>(
    settings: &mut KubeletSettings,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Result<(), KubeletArgumentError> {
    apply_all("kubelet", FLAGS, &[], settings, arguments)?;
    check("kubelet arguments", &settings.config)?;
    Ok(())
}

/// Why arguments were not applied.
#[derive(Debug, thiserror::Error)]
pub enum KubeletArgumentError {
    /// One of them is wrong.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// What they make together is.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

const NOT_HERE: &str = "there is no such manager here";
const ELSEWHERE: &str = "K3s sets it, with a flag of its own";
const LOGGING: &str = "the log is set by the flags of k3sd";
const TUNING: &str = "there is nothing here that it could tune";
const SERVER: &str = "the certificate comes from the servers of the cluster";

fn set<T>(place: &mut T, value: Result<T, &'static str>) -> Result<(), &'static str> {
    *place = value?;
    Ok(())
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, &'static str> {
    value.parse().map_err(|_| "a number in its range")
}

/// Reads `name=value` pairs between commas, as `--kube-reserved` has them.
fn pairs(value: &str) -> Result<Texts, &'static str> {
    let pair = |part: String| {
        let (name, value) = part.split_once('=').ok_or("a list of name=value")?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    list(value)?.into_iter().map(pair).collect()
}

/// Reads `signal<amount` between commas.
fn thresholds(value: &str) -> Result<Texts, &'static str> {
    let pair = |part: String| {
        let (name, value) = part.split_once('<').ok_or("a list of signal<amount")?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    list(value)?.into_iter().map(pair).collect()
}

fn gates(value: &str) -> Result<BTreeMap<String, bool>, &'static str> {
    pairs(value)?.into_iter().map(|(name, value)| Ok((name, boolean(&value)?))).collect()
}

/// Reads `key=value:effect` or `key:effect`.
pub(crate) fn taint(text: &str) -> Result<Taint, &'static str> {
    const WANTED: &str = "a taint, key=value:effect";
    let (rest, effect) = text.rsplit_once(':').ok_or(WANTED)?;
    let (key, value) = rest.split_once('=').map_or((rest, None), |(key, value)| (key, Some(value)));
    let is_effect = matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute");
    if key.is_empty() || !is_effect {
        return Err(WANTED);
    }
    let value = value.filter(|value| !value.is_empty()).map(str::to_owned);
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

fn taints(value: &str) -> Result<Vec<Taint>, &'static str> {
    list(value)?.iter().map(|one| taint(one)).collect()
}

type Flag = (&'static str, Rule<KubeletSettings>);

/// The flags, by their names. Those of upstream that aren't here are refused as unknown.
const FLAGS: &[Flag] = &[
    ("address", Sets(|all, value| set(&mut all.config.address, text(value)))),
    ("allowed-unsafe-sysctls", Lists(|all| &mut all.config.allowed_unsafe_sysctls)),
    ("anonymous-auth", Sets(|all, value| set(&mut all.config.authentication.anonymous.enabled, boolean(value)))),
    (
        "authentication-token-webhook",
        Sets(|all, value| set(&mut all.config.authentication.webhook.enabled, boolean(value))),
    ),
    (
        "authentication-token-webhook-cache-ttl",
        Sets(|all, value| set(&mut all.config.authentication.webhook.cache_ttl, duration(value))),
    ),
    ("authorization-mode", Sets(|all, value| set(&mut all.config.authorization.mode, text(value)))),
    (
        "authorization-webhook-cache-authorized-ttl",
        Sets(|all, value| set(&mut all.config.authorization.webhook.cache_authorized_ttl, duration(value))),
    ),
    (
        "authorization-webhook-cache-unauthorized-ttl",
        Sets(|all, value| set(&mut all.config.authorization.webhook.cache_unauthorized_ttl, duration(value))),
    ),
    ("bootstrap-kubeconfig", Refused(ELSEWHERE)),
    ("cert-dir", Refused(SERVER)),
    ("cgroup-driver", Sets(|all, value| set(&mut all.config.cgroup_driver, text(value)))),
    ("cgroup-root", Sets(|all, value| set(&mut all.config.cgroup_root, text(value)))),
    ("cgroups-per-qos", Only(&["true"])),
    ("client-ca-file", Sets(|all, value| set(&mut all.config.authentication.x509.client_ca_file, text(value)))),
    (
        "cloud-provider",
        Sets(|all, value| match value {
            "external" => set(&mut all.is_cloud_external, Ok(true)),
            "" => set(&mut all.is_cloud_external, Ok(false)),
            _ => Err("external or nothing"),
        }),
    ),
    ("cluster-dns", Lists(|all| &mut all.config.cluster_dns)),
    ("cluster-domain", Sets(|all, value| set(&mut all.config.cluster_domain, text(value)))),
    ("config", Refused("K3s copies it to its directory of configurations before")),
    ("config-dir", Refused("K3s copies it to its directory of configurations before")),
    ("container-log-max-files", Sets(|all, value| set(&mut all.config.container_log_max_files, number(value)))),
    ("container-log-max-size", Sets(|all, value| set(&mut all.config.container_log_max_size, text(value)))),
    ("container-runtime-endpoint", Refused(ELSEWHERE)),
    ("containerd", Refused(ELSEWHERE)),
    ("contention-profiling", Refused(TUNING)),
    ("cpu-cfs-quota", Sets(|all, value| set(&mut all.config.cpu_cfs_quota, boolean(value)))),
    ("cpu-cfs-quota-period", Sets(|all, value| set(&mut all.config.cpu_cfs_quota_period, duration(value)))),
    ("cpu-manager-policy", Only(&["none"])),
    ("cpu-manager-reconcile-period", Refused(NOT_HERE)),
    (
        "enable-controller-attach-detach",
        Sets(|all, value| set(&mut all.config.enable_controller_attach_detach, boolean(value))),
    ),
    ("enable-debugging-handlers", Sets(|all, value| set(&mut all.config.enable_debugging_handlers, boolean(value)))),
    ("enforce-node-allocatable", Lists(|all| &mut all.config.enforce_node_allocatable)),
    ("event-burst", Refused(TUNING)),
    ("event-qps", Refused(TUNING)),
    ("eviction-hard", Sets(|all, value| set(&mut all.config.eviction_hard, thresholds(value)))),
    (
        "eviction-max-pod-grace-period",
        Sets(|all, value| set(&mut all.config.eviction_max_pod_grace_period, number(value))),
    ),
    ("eviction-minimum-reclaim", Sets(|all, value| set(&mut all.config.eviction_minimum_reclaim, pairs(value)))),
    (
        "eviction-pressure-transition-period",
        Sets(|all, value| set(&mut all.config.eviction_pressure_transition_period, duration(value))),
    ),
    ("eviction-soft", Sets(|all, value| set(&mut all.config.eviction_soft, thresholds(value)))),
    ("eviction-soft-grace-period", Sets(|all, value| set(&mut all.config.eviction_soft_grace_period, pairs(value)))),
    ("fail-cgroupv1", Sets(|all, value| set(&mut all.config.fail_cgroup_v1, boolean(value)))),
    ("fail-swap-on", Sets(|all, value| set(&mut all.config.fail_swap_on, boolean(value)))),
    (
        "feature-gates",
        Sets(|all, value| {
            all.config.feature_gates.extend(gates(value)?);
            Ok(())
        }),
    ),
    ("file-check-frequency", Sets(|all, value| set(&mut all.config.file_check_frequency, duration(value)))),
    ("hairpin-mode", Refused(TUNING)),
    ("healthz-bind-address", Sets(|all, value| set(&mut all.config.healthz_bind_address, text(value)))),
    ("healthz-port", Sets(|all, value| set(&mut all.config.healthz_port, number(value)))),
    ("hostname-override", Sets(|all, value| set(&mut all.hostname_override, text(value).map(Some)))),
    (
        "image-credential-provider-bin-dir",
        Sets(|all, value| set(&mut all.image_credential_provider_bin_dir, text(value).map(|path| Some(path.into())))),
    ),
    (
        "image-credential-provider-config",
        Sets(|all, value| set(&mut all.image_credential_provider_config, text(value).map(|path| Some(path.into())))),
    ),
    ("image-gc-high-threshold", Sets(|all, value| set(&mut all.config.image_gc_high_threshold_percent, number(value)))),
    ("image-gc-low-threshold", Sets(|all, value| set(&mut all.config.image_gc_low_threshold_percent, number(value)))),
    ("image-service-endpoint", Refused(ELSEWHERE)),
    ("kernel-memcg-notification", Refused(TUNING)),
    ("kube-api-burst", Refused(TUNING)),
    ("kube-api-qps", Refused(TUNING)),
    ("kube-reserved", Sets(|all, value| set(&mut all.config.kube_reserved, pairs(value)))),
    ("kube-reserved-cgroup", Refused("only what pods may use is enforced")),
    ("kubeconfig", Refused(ELSEWHERE)),
    ("kubelet-cgroups", Sets(|all, value| set(&mut all.config.kubelet_cgroups, text(value)))),
    (
        "local-storage-capacity-isolation",
        Sets(|all, value| set(&mut all.config.local_storage_capacity_isolation, boolean(value))),
    ),
    ("log-flush-frequency", Refused(LOGGING)),
    ("logging-format", Refused(LOGGING)),
    ("make-iptables-util-chains", Refused("the service proxy makes what it needs")),
    ("manifest-url", Refused("static pods come from a directory")),
    ("max-open-files", Sets(|all, value| set(&mut all.config.max_open_files, number(value)))),
    ("max-pods", Sets(|all, value| set(&mut all.config.max_pods, number(value)))),
    ("memory-manager-policy", Only(&["None"])),
    ("minimum-image-ttl-duration", Sets(|all, value| set(&mut all.config.image_minimum_gc_age, duration(value)))),
    ("node-ip", Lists(|all| &mut all.node_ips)),
    (
        "node-labels",
        Sets(|all, value| {
            all.node_labels.extend(pairs(value)?);
            Ok(())
        }),
    ),
    ("node-status-max-images", Sets(|all, value| set(&mut all.config.node_status_max_images, number(value)))),
    (
        "node-status-update-frequency",
        Sets(|all, value| set(&mut all.config.node_status_update_frequency, duration(value))),
    ),
    ("oom-score-adj", Sets(|all, value| set(&mut all.config.oom_score_adj, number(value)))),
    ("pod-cidr", Sets(|all, value| set(&mut all.config.pod_cidr, text(value)))),
    ("pod-infra-container-image", Refused("the runtime knows the image of its sandboxes: --pause-image")),
    ("pod-manifest-path", Sets(|all, value| set(&mut all.config.static_pod_path, text(value)))),
    ("pod-max-pids", Sets(|all, value| set(&mut all.config.pod_pids_limit, number(value)))),
    ("pods-per-core", Sets(|all, value| set(&mut all.config.pods_per_core, number(value)))),
    ("port", Sets(|all, value| set(&mut all.config.port, number(value)))),
    ("protect-kernel-defaults", Sets(|all, value| set(&mut all.config.protect_kernel_defaults, boolean(value)))),
    ("provider-id", Sets(|all, value| set(&mut all.config.provider_id, text(value)))),
    ("qos-reserved", Refused("nothing is reserved by class")),
    ("read-only-port", Only(&["0"])),
    ("register-node", Sets(|all, value| set(&mut all.config.register_node, boolean(value)))),
    ("register-with-taints", Sets(|all, value| set(&mut all.config.register_with_taints, taints(value)))),
    ("registry-burst", Sets(|all, value| set(&mut all.config.registry_burst, number(value)))),
    ("registry-qps", Sets(|all, value| set(&mut all.config.registry_pull_qps, number(value)))),
    ("reserved-cpus", Refused(NOT_HERE)),
    ("reserved-memory", Refused(NOT_HERE)),
    ("resolv-conf", Sets(|all, value| set(&mut all.config.resolv_conf, text(value)))),
    ("root-dir", Sets(|all, value| set(&mut all.root_dir, text(value).map(Into::into)))),
    ("rotate-certificates", Refused(SERVER)),
    ("rotate-server-certificates", Refused(SERVER)),
    ("runtime-request-timeout", Sets(|all, value| set(&mut all.config.runtime_request_timeout, duration(value)))),
    ("runtime-cgroups", Refused(ELSEWHERE)),
    ("seccomp-default", Sets(|all, value| set(&mut all.config.seccomp_default, boolean(value)))),
    ("serialize-image-pulls", Sets(|all, value| set(&mut all.config.serialize_image_pulls, boolean(value)))),
    (
        "streaming-connection-idle-timeout",
        Sets(|all, value| set(&mut all.config.streaming_connection_idle_timeout, duration(value))),
    ),
    ("sync-frequency", Sets(|all, value| set(&mut all.config.sync_frequency, duration(value)))),
    ("system-cgroups", Refused("processes of the system are left where they are")),
    ("system-reserved", Sets(|all, value| set(&mut all.config.system_reserved, pairs(value)))),
    ("system-reserved-cgroup", Refused("only what pods may use is enforced")),
    ("tls-cert-file", Sets(|all, value| set(&mut all.config.tls_cert_file, text(value)))),
    ("tls-cipher-suites", Lists(|all| &mut all.config.tls_cipher_suites)),
    ("tls-min-version", Sets(|all, value| set(&mut all.config.tls_min_version, text(value)))),
    ("tls-private-key-file", Sets(|all, value| set(&mut all.config.tls_private_key_file, text(value)))),
    ("topology-manager-policy", Only(&["none"])),
    ("topology-manager-scope", Refused(NOT_HERE)),
    ("v", Refused(LOGGING)),
    ("vmodule", Refused(LOGGING)),
    ("volume-plugin-dir", Refused("there are no flex volumes")),
    ("volume-stats-agg-period", Sets(|all, value| set(&mut all.config.volume_stats_agg_period, duration(value)))),
];
