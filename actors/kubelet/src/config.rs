//! What the node is told by whoever read flags and environment.

use std::net::IpAddr;
use std::path::PathBuf;

/// Settings of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletConfig {
    /// `<data-dir>/agent`.
    pub agent_dir: PathBuf,
    /// The root of the host's files, `/`.
    pub host_root: PathBuf,
    /// The node's name.
    pub name: String,
    /// `--node-ip`, as given.
    pub ips: Vec<IpAddr>,
    /// `--node-external-ip`.
    pub external_ips: Vec<IpAddr>,
    /// `--node-internal-dns`.
    pub internal_dns: Vec<String>,
    /// `--node-external-dns`.
    pub external_dns: Vec<String>,
    /// `--node-label`, each `name=value`.
    pub labels: Vec<String>,
    /// `--node-taint`, each `key=value:effect`.
    pub taints: Vec<String>,
    /// Arguments of the process, for annotations; beginning with the subcommand.
    pub arguments: Vec<String>,
    /// Variables of the process, for annotations.
    pub variables: Vec<(String, String)>,
    /// Where the node's server listens; nothing for all addresses.
    pub listen_address: Option<IpAddr>,
    /// `--cluster-dns`.
    pub cluster_dns: Vec<IpAddr>,
    /// `--cluster-domain`.
    pub cluster_domain: String,
    /// `--cluster-cidr`, each a network.
    pub cluster_cidrs: Vec<(IpAddr, u8)>,
    /// Whether a cloud controller says what the node's addresses are.
    pub has_cloud: bool,
    /// Whether pods get a network from us.
    pub has_network: bool,
    /// Whether traffic of pods to the outside is masqueraded with IPv6 too.
    pub masquerades_ipv6: bool,
    /// `--resolv-conf`.
    pub resolv_conf: Option<PathBuf>,
    /// `--protect-kernel-defaults`.
    pub protects_kernel_defaults: bool,
    /// `--kubelet-arg`, each `name=value`.
    pub kubelet_arguments: Vec<String>,
    /// `--image-credential-provider-config`: which programs know credentials for registries. Used if it is there.
    pub credential_provider_config: PathBuf,
    /// `--image-credential-provider-bin-dir`: where those programs are. Without it there are none.
    pub credential_provider_bin_dir: PathBuf,
    /// The runtime's socket.
    pub runtime_socket: PathBuf,
    /// `--image-service-endpoint`.
    pub image_endpoint: Option<String>,
    /// The image of sandboxes.
    pub pause_image: String,
    /// Whether the process may ask systemd for cgroups; a systemd service that isn't in a user namespace.
    pub systemd_cgroups: bool,
    /// This program.
    pub binary: PathBuf,
    /// Where links to it are made for the container runtime.
    pub plugin_dir: PathBuf,
    /// `v1.34.0+k3sd1`.
    pub version: String,
}

impl KubeletConfig {
    /// The directory of drop-in files for the kubelet.
    pub(crate) fn drop_in_dir(&self) -> PathBuf {
        self.agent_dir.join("etc/kubelet.conf.d")
    }

    /// The directory of files of static pods.
    pub(crate) fn manifests_dir(&self) -> PathBuf {
        self.agent_dir.join("pod-manifests")
    }

    /// The resolv.conf that is written when the host has none that pods could use.
    pub(crate) fn stub_file(&self) -> PathBuf {
        self.agent_dir.join("etc/resolv.conf")
    }

    /// The directory of the network's configuration.
    #[must_use]
    pub fn network_dir(&self) -> PathBuf {
        self.agent_dir.join("etc/cni/net.d")
    }
}
