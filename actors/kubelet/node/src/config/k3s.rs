//! What K3s sets of the kubelet's configuration: the content of `00-k3s-defaults.conf`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k3sd_objects::decode::to_yaml;
use k8s_openapi::api::core::v1::Taint;
use serde_json::json;

/// What the defaults depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct K3sDefaults {
    /// `<data>/agent`.
    pub agent_dir: PathBuf,
    /// Where the HTTPS server listens; none for all addresses.
    pub listen_address: Option<IpAddr>,
    /// Whether `healthz` is on the loopback address of IPv6.
    pub is_ipv6: bool,
    /// `--cluster-dns`.
    pub cluster_dns: Vec<IpAddr>,
    /// `--cluster-domain`.
    pub cluster_domain: String,
    /// The file of the name servers that was chosen.
    pub resolv_conf: PathBuf,
    /// Whether cgroups are made by systemd.
    pub systemd_cgroups: bool,
    /// `/k3s` in a `.scope`, or where PID 1 isn't in the root; see `k3sd-kubelet-cgroups`.
    pub cgroup_root: Option<String>,
    /// Whether the kernel limits CPU time.
    pub has_cpu_controller: bool,
    /// `--protect-kernel-defaults`.
    pub protect_kernel_defaults: bool,
    /// `--node-taint`.
    pub node_taints: Vec<Taint>,
    /// The runtime's socket.
    pub runtime_socket: PathBuf,
    /// Another one for images, if there is one.
    pub image_endpoint: Option<String>,
}

/// The file, as YAML.
#[must_use]
pub fn defaults(input: &K3sDefaults) -> String {
    let path = |name: &str| text(&input.agent_dir.join(name));
    let loopback = if input.is_ipv6 { "::1" } else { "127.0.0.1" };
    let everywhere = if input.is_ipv6 { "::" } else { "0.0.0.0" };
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": input.listen_address.map_or_else(|| everywhere.to_owned(), |address| address.to_string()),
        "allowedUnsafeSysctls": ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"],
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true, "cacheTTL": "2m0s"},
            "x509": {"clientCAFile": path("client-ca.crt")},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
        },
        "cgroupDriver": if input.systemd_cgroups { "systemd" } else { "cgroupfs" },
        "clusterDNS": input.cluster_dns,
        "clusterDomain": input.cluster_domain,
        "containerRuntimeEndpoint": format!("unix://{}", text(&input.runtime_socket)),
        "evictionHard": {"imagefs.available": "5%", "nodefs.available": "5%"},
        "evictionMinimumReclaim": {"imagefs.available": "10%", "nodefs.available": "10%"},
        "failSwapOn": false,
        "healthzBindAddress": loopback,
        "nodeStatusReportFrequency": "5m0s",
        "nodeStatusUpdateFrequency": "10s",
        "protectKernelDefaults": input.protect_kernel_defaults,
        "readOnlyPort": 0,
        "resolvConf": text(&input.resolv_conf),
        "serializeImagePulls": false,
        "staticPodPath": path("pod-manifests"),
        "streamingConnectionIdleTimeout": "4h0m0s",
        "tlsCertFile": path("serving-kubelet.crt"),
        "tlsPrivateKeyFile": path("serving-kubelet.key"),
    });
    if let Some(root) = &input.cgroup_root {
        config["cgroupRoot"] = json!(root);
    }
    if !input.has_cpu_controller {
        config["cpuCFSQuota"] = json!(false);
    }
    if !input.node_taints.is_empty() {
        config["registerWithTaints"] = json!(input.node_taints);
    }
    if let Some(endpoint) = &input.image_endpoint {
        config["imageServiceEndpoint"] = json!(endpoint);
    }
    to_yaml(&config)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
