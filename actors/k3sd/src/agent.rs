//! The node of this machine, from its configuration to the subtrees that it is made of.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k3sd_apiserver::{Pipeline, User};
use k3sd_client::api::Connect;
use k3sd_containerd::{CniDirs, ContainerdConfig};
use k3sd_coredns::{DnsConfig, DnsDeps, DnsError};
use k3sd_kubelet::{KubeletConfig, KubeletDeps, KubeletError};
use k3sd_local_storage::LocalStorageArgs;
use k3sd_pki::{Authority, Certificates, Leaf};
use k3sd_proxy::{ProxyConfig, ProxyDeps, ProxyError};
use k3sd_runtime::{Spec, Strategy, System, subtree};
use thiserror::Error;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{Error as TlsError, ServerConfig as TlsConfig};

use crate::cli::Environment;
use crate::cli::version::VERSION;
use crate::config::{DnsProvider, FlannelBackend, NodeConfig, ServerConfig};
use crate::server::{Identity, packaged};

/// Where containerd keeps what doesn't survive a reboot.
const RUNTIME_STATE: &str = "run/k3s/containerd";
/// The group of everybody who is known.
const AUTHENTICATED: &str = "system:authenticated";
/// Variables that say something about the node; all that K3s reads begin so.
const VARIABLES: &str = "K3S_";

/// Why a node can't be put together.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The node itself.
    #[error(transparent)]
    Kubelet(#[from] KubeletError),
    /// The service proxy.
    #[error("set up the service proxy")]
    Proxy(#[from] ProxyError),
    /// The cluster's DNS.
    #[error("set up the cluster's DNS")]
    Dns(#[from] DnsError),
    /// The certificates of the node's server.
    #[error("serve on the node's port")]
    Tls(#[source] TlsError),
    /// Nobody knows where this program is.
    #[error("this program's own file can't be found, and pods need it as their network plugin; is /proc mounted?")]
    Binary,
}

/// What the node is told, of everything that was configured.
pub(crate) struct AgentArgs<'a> {
    pub(crate) server: &'a ServerConfig,
    pub(crate) node: &'a NodeConfig,
    pub(crate) identity: &'a Identity,
    pub(crate) environment: &'a Environment,
    pub(crate) data_dir: &'a Path,
    pub(crate) system: &'a System,
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) certificates: &'a Certificates,
    /// `--debug`.
    pub(crate) debug: bool,
}

/// Puts the node together. Gets the machine ready for pods, and opens the sockets of the node's server.
pub(crate) async fn agent(args: AgentArgs<'_>) -> Result<Spec, AgentError> {
    let AgentArgs { server, node, identity, system, pipeline, certificates, .. } = &args;
    let binary = args.environment.exe.clone().ok_or(AgentError::Binary)?;
    let name = &identity.node_name;
    let engine = containerd_config(&args, &binary);
    let config = kubelet_config(&args, &engine, binary);
    let engine = match &node.runtime.endpoint {
        // Somebody else keeps it running.
        Some(_) => None,
        None => Some(k3sd_containerd::tree(engine)),
    };
    let cri = match &engine {
        Some(engine) => engine.cri.clone(),
        None => k3sd_kubelet::Cri::new(config.runtime_socket.clone()),
    };
    let user = User::new(&format!("system:node:{name}"), &["system:nodes"]);
    let deps = KubeletDeps {
        connect: Connect::over(pipeline.local(user)),
        cri,
        nudge: engine.as_ref().map(|engine| engine.changes.clone()),
        tls: Arc::new(tls(certificates).map_err(AgentError::Tls)?),
        clock: system.clock().clone(),
    };
    let kubelet = k3sd_kubelet::tree(config, deps).await?;
    let master = Connect::over(pipeline.local(User::new("system:k3s-supervisor", &["system:masters"])));
    let mut spec = Spec::new(Strategy::OneForOne);
    let resolv_conf = kubelet.resolv_conf.clone();
    if let Some(engine) = engine {
        spec = spec.child(subtree("containerd", engine.spec));
    }
    spec = spec.child(subtree("kubelet", kubelet.spec));
    if server.components.apiserver {
        spec = spec.child(subtree("role", k3sd_kubelet::role(master, name)));
    }
    let spec = proxy(&args, spec).await?;
    dns(&args, resolv_conf, spec).await.map(|spec| local_storage(&args, spec))
}

/// Adds what makes Services work, unless it isn't wanted.
async fn proxy(args: &AgentArgs<'_>, spec: Spec) -> Result<Spec, AgentError> {
    let AgentArgs { server, node, identity, system, pipeline, .. } = args;
    if !server.components.kube_proxy {
        return Ok(spec);
    }
    let config = ProxyConfig {
        node_name: identity.node_name.clone(),
        arguments: node.kube_proxy_arguments.clone(),
        cluster_cidrs: server.network.cluster_cidrs.iter().map(|cidr| (cidr.network(), cidr.prefix_bits())).collect(),
        local_load_balancer: !server.components.disable.contains(packaged::SERVICELB),
        namespace: None,
    };
    let user = User::new("system:kube-proxy", &[AUTHENTICATED]);
    let deps = ProxyDeps { connect: Connect::over(pipeline.local(user)), clock: system.clock().clone() };
    Ok(spec.child(subtree("proxy", k3sd_proxy::tree(config, deps).await?.spec)))
}

/// Adds the cluster's DNS, or takes away what an earlier one left on the machine.
async fn dns(args: &AgentArgs<'_>, resolv_conf: PathBuf, spec: Spec) -> Result<Spec, AgentError> {
    let AgentArgs { server, identity, system, pipeline, .. } = args;
    let network = &server.network;
    if network.dns != DnsProvider::Embedded || server.components.disable.contains(packaged::COREDNS) {
        let absent = k3sd_coredns::absent(&network.cluster_dns);
        return Ok(spec.child(subtree("dns", Spec::new(Strategy::OneForOne).child(absent))));
    }
    let config = DnsConfig::new(network.cluster_dns.clone(), &network.cluster_domain, resolv_conf, &identity.node_name);
    let connect = Connect::over(pipeline.local(service_account("coredns")));
    let deps = DnsDeps { connect, clock: system.clock().clone() };
    Ok(spec.child(subtree("dns", k3sd_coredns::tree(config, deps).await?.spec)))
}

/// Adds what makes volumes in directories of this node, unless it isn't wanted.
fn local_storage(args: &AgentArgs<'_>, spec: Spec) -> Spec {
    let AgentArgs { server, identity, pipeline, system, .. } = args;
    if server.components.disable.contains(packaged::LOCAL_STORAGE) {
        return spec;
    }
    let connect = Connect::over(pipeline.local(service_account(k3sd_local_storage::SERVICE_ACCOUNT)));
    let args = LocalStorageArgs { connect, node: identity.node_name.clone(), clock: system.clock().clone() };
    spec.child(subtree("local-storage", k3sd_local_storage::tree(&args)))
}

/// A service account of the cluster's own namespace.
fn service_account(name: &str) -> User {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system", AUTHENTICATED];
    User::new(&format!("system:serviceaccount:kube-system:{name}"), &groups)
}

/// Only those signed by the authority for clients are let in with a certificate; others show a token.
fn tls(certificates: &Certificates) -> Result<TlsConfig, TlsError> {
    let mut config = TlsConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(certificates.client_verifier(Authority::Client, false))
        .with_cert_resolver(certificates.server(Leaf::ServingKubelet));
    // A session that is resumed would show the certificate from before a renewal.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn containerd_config(args: &AgentArgs<'_>, binary: &Path) -> ContainerdConfig {
    let runtime = &args.node.runtime;
    let state = args.environment.root.join(RUNTIME_STATE);
    let mut config = ContainerdConfig::new(args.data_dir, state);
    config.own_binary = Some(binary.to_owned());
    let variables = args.environment.vars.iter();
    config.environment = variables.map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    config.snapshotter.clone_from(&runtime.snapshotter);
    config.default_runtime.clone_from(&runtime.default_runtime);
    config.pause_image.clone_from(&runtime.pause_image);
    config.selinux = args.node.selinux;
    config.nonroot_devices = runtime.nonroot_devices;
    config.private_registry.clone_from(&runtime.private_registry);
    config.disable_default_registry_endpoint = !runtime.default_registry_endpoint;
    config.airgap_extra_registries.clone_from(&runtime.airgap_extra_registries);
    config.system_default_registry.clone_from(&args.server.components.system_default_registry);
    config.systemd_cgroups = systemd_cgroups(&args.node.kubelet_arguments);
    config.debug = args.debug;
    if args.server.network.flannel_backend != FlannelBackend::None {
        let conf = config.agent_dir.join("etc/cni/net.d");
        config.cni = Some(CniDirs { bin: args.data_dir.join("data/cni"), conf });
    }
    config
}

fn kubelet_config(args: &AgentArgs<'_>, engine: &ContainerdConfig, binary: PathBuf) -> KubeletConfig {
    let AgentArgs { server, node, identity, environment, .. } = args;
    let network = &server.network;
    let arguments = environment.args.iter().map(|text| text.to_string_lossy().into_owned()).collect();
    let variables = environment.vars.iter().filter(|(name, _)| name.starts_with(VARIABLES));
    let socket = node.runtime.endpoint.as_deref().map(|text| text.strip_prefix("unix://").unwrap_or(text));
    KubeletConfig {
        agent_dir: engine.agent_dir.clone(),
        host_root: environment.root.clone(),
        name: identity.node_name.clone(),
        ips: node.ips.clone(),
        external_ips: node.external_ips.clone(),
        internal_dns: node.internal_dns.clone(),
        external_dns: node.external_dns.clone(),
        labels: node.labels.clone(),
        taints: node.taints.clone(),
        arguments,
        variables: variables.map(|(name, value)| (name.clone(), value.clone())).collect(),
        listen_address: server.listen.bind_address,
        cluster_dns: network.cluster_dns.clone(),
        cluster_domain: network.cluster_domain.clone(),
        cluster_cidrs: network.cluster_cidrs.iter().map(|cidr| (cidr.network(), cidr.prefix_bits())).collect(),
        has_cloud: server.components.cloud_controller,
        has_network: network.flannel_backend != FlannelBackend::None,
        masquerades_ipv6: network.flannel_ipv6_masq,
        resolv_conf: node.resolv_conf.clone(),
        protects_kernel_defaults: node.protect_kernel_defaults,
        kubelet_arguments: node.kubelet_arguments.clone(),
        credential_provider_config: node.credential_provider_config.clone(),
        credential_provider_bin_dir: node.credential_provider_bin_dir.clone(),
        runtime_socket: socket.map_or_else(|| engine.socket(), PathBuf::from),
        image_endpoint: node.runtime.image_endpoint.clone(),
        pause_image: engine.sandbox_image(),
        systemd_cgroups: environment.var("INVOCATION_ID").is_some(),
        binary,
        plugin_dir: args.data_dir.join("data/cni"),
        version: VERSION.to_owned(),
    }
}

/// Whether the kubelet's arguments leave cgroups to systemd; nothing where they don't say. The last one counts.
fn systemd_cgroups(arguments: &[String]) -> Option<bool> {
    let mut given = arguments.iter().rev().map(|argument| argument.trim_start_matches('-'));
    given.find_map(|argument| argument.strip_prefix("cgroup-driver=")).map(|driver| driver == "systemd")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_has_the_kubelets_driver() {
        let arguments = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for (list, driver) in [
            (&[][..], None),
            (&["max-pods=5"], None),
            (&["cgroup-driver=cgroupfs"], Some(false)),
            (&["--cgroup-driver=cgroupfs", "cgroup-driver=systemd", "v=2"], Some(true)),
        ] {
            assert_eq!(systemd_cgroups(&arguments(list)), driver, "{list:?}");
        }
    }
}
