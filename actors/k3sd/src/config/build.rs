//! From settings to the typed configuration. Pure: everything it knows of the machine is in [`Facts`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::cli::flags::{DEFAULT_INSPECT_SOCKET, Role};
use crate::config::error::ConfigError;
use crate::config::model::{
    AgentConfig, InspectConfig, LogConfig, LogFormat, NodeConfig, ProbeConfig, RoleConfig, RunConfig, RuntimeConfig,
};
use crate::config::server;
use crate::config::settings::Settings;

/// Where state lives when root runs the program.
pub(crate) const DATA_DIR_ROOT: &str = "/var/lib/rancher/k3s";
/// Where state lives otherwise, below the home directory.
pub(crate) const DATA_DIR_HOME: &str = ".rancher/k3s";
/// Most probe actors that can be asked for.
const PROBE_ACTORS_MAX: i64 = 1_000_000;

/// What validation needs to know of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The working directory.
    pub cwd: PathBuf,
    /// The home directory.
    pub home: Option<PathBuf>,
    /// Whether root runs the program.
    pub is_root: bool,
    /// Whether the data directory holds a server's token from an earlier start.
    pub has_server_token: bool,
    /// Whether the data directory holds a kubelet certificate from an earlier start.
    pub has_kubelet_certificate: bool,
    /// The environment variables: those of the datastore are no flag's.
    pub variables: BTreeMap<String, String>,
}

/// Checks the settings and types them.
///
/// # Errors
/// On the first value or combination that makes no sense, naming the place it was set.
pub fn build(settings: &Settings, facts: &Facts) -> Result<RunConfig, ConfigError> {
    let cwd = &facts.cwd;
    let data_dir = data_dir(settings, facts)?;
    let log = log(settings, cwd)?;
    let inspect = InspectConfig {
        socket: settings.path("inspect-socket", cwd).unwrap_or_else(|| DEFAULT_INSPECT_SOCKET.into()),
        actor_control: settings.switch("debug-actor-control"),
    };
    let probe = ProbeConfig {
        actors: settings.int("probe-actors", 0, PROBE_ACTORS_MAX)?.unwrap_or(0),
        load: settings.switch("probe-load"),
    };
    let role = match settings.role {
        Role::Server => RoleConfig::Server(Box::new(server::server(settings, facts, &data_dir)?)),
        Role::Agent => RoleConfig::Agent(Box::new(agent(settings, facts)?)),
    };
    print_format(settings)?;
    let mut warnings = settings.warnings.clone();
    if let RoleConfig::Server(server) = &role {
        warnings.extend(server.datastore.warnings.iter().cloned());
    }
    Ok(RunConfig { role, data_dir, log, inspect, probe, warnings })
}

/// The data directory, absolute.
pub(crate) fn data_dir(settings: &Settings, facts: &Facts) -> Result<PathBuf, ConfigError> {
    match (settings.path("data-dir", &facts.cwd), &facts.home) {
        (Some(path), _) => Ok(path),
        (None, _) if facts.is_root => Ok(PathBuf::from(DATA_DIR_ROOT)),
        (None, Some(home)) => Ok(home.join(DATA_DIR_HOME)),
        (None, None) => {
            Err(ConfigError::Refused("there is no home directory to keep state in; set HOME or --data-dir".to_owned()))
        }
    }
}

/// How `--print-config` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrintFormat {
    Text,
    Json,
}

/// Whether, and how, to print the configuration instead of running.
pub(crate) fn print_format(settings: &Settings) -> Result<Option<PrintFormat>, ConfigError> {
    if !settings.get("print-config").is_set() {
        return Ok(None);
    }
    let words = [
        ("text", Some(PrintFormat::Text)),
        ("json", Some(PrintFormat::Json)),
        ("true", Some(PrintFormat::Text)),
        ("false", None),
    ];
    settings.choice("print-config", &words)
}

fn log(settings: &Settings, cwd: &Path) -> Result<LogConfig, ConfigError> {
    let formats = [
        ("auto", LogFormat::Auto),
        ("text", LogFormat::Text),
        ("json", LogFormat::Json),
        ("journald", LogFormat::Journald),
    ];
    Ok(LogConfig {
        format: settings.choice("log-format", &formats)?,
        file: settings.path("log", cwd),
        also_stderr: settings.switch("alsologtostderr"),
        debug: settings.switch("debug"),
        verbosity: settings.int("v", 0, u8::MAX.into())?.unwrap_or(0),
        vmodule: settings.text("vmodule"),
    })
}

fn agent(settings: &Settings, facts: &Facts) -> Result<AgentConfig, ConfigError> {
    if !facts.is_root && !settings.switch("rootless") {
        return Err(ConfigError::Refused(
            "an agent must run as root; start it with sudo or as a system service".to_owned(),
        ));
    }
    let Some(server) = settings.server_url("server")? else {
        return Err(ConfigError::Refused(
            "an agent needs a server to join; set --server or K3S_URL to a URL such as https://server:6443".to_owned(),
        ));
    };
    let token = settings.secret("token");
    let token_file = settings.path("token-file", &facts.cwd);
    if token.is_none() && token_file.is_none() && !facts.has_kubelet_certificate {
        return Err(ConfigError::Refused(
            "an agent needs a token for its first start; set --token, --token-file or K3S_TOKEN".to_owned(),
        ));
    }
    Ok(AgentConfig {
        token,
        token_file,
        server,
        apiserver_load_balancer: !settings.switch("disable-apiserver-lb"),
        bind_address: settings.ip("bind-address")?,
        node: node(settings, &facts.cwd)?,
    })
}

/// The node's part, the same for servers and agents.
pub(crate) fn node(settings: &Settings, cwd: &Path) -> Result<NodeConfig, ConfigError> {
    let external_ips: Vec<IpAddr> = settings.ips("node-external-ip")?;
    Ok(NodeConfig {
        name: settings.text("node-name").map(|name| name.to_lowercase()),
        with_node_id: settings.switch("with-node-id"),
        labels: settings.list("node-label"),
        taints: settings.list("node-taint"),
        ips: settings.ips("node-ip")?,
        external_ips,
        internal_dns: settings.split_list("node-internal-dns"),
        external_dns: settings.split_list("node-external-dns"),
        credential_provider_bin_dir: cwd.join(settings.word("image-credential-provider-bin-dir")),
        credential_provider_config: cwd.join(settings.word("image-credential-provider-config")),
        protect_kernel_defaults: settings.switch("protect-kernel-defaults"),
        lb_server_port: settings.required_port("lb-server-port")?,
        runtime: RuntimeConfig {
            docker: settings.switch("docker"),
            endpoint: settings.text("container-runtime-endpoint"),
            image_endpoint: settings.text("image-service-endpoint"),
            default_runtime: settings.text("default-runtime"),
            default_registry_endpoint: !settings.switch("disable-default-registry-endpoint"),
            nonroot_devices: settings.switch("nonroot-devices"),
            pause_image: settings.word("pause-image"),
            snapshotter: settings.word("snapshotter"),
            private_registry: cwd.join(settings.word("private-registry")),
            airgap_extra_registries: settings.list("airgap-extra-registry"),
        },
        resolv_conf: settings.path("resolv-conf", cwd),
        flannel_iface: settings.text("flannel-iface"),
        flannel_conf: settings.path("flannel-conf", cwd),
        flannel_cni_conf: settings.path("flannel-cni-conf", cwd),
        vpn_auth: settings.secret("vpn-auth"),
        vpn_auth_file: settings.path("vpn-auth-file", cwd),
        kubelet_arguments: settings.list("kubelet-arg"),
        kube_proxy_arguments: settings.list("kube-proxy-arg"),
        selinux: settings.switch("selinux"),
        pprof: settings.switch("enable-pprof"),
        rootless: settings.switch("rootless"),
        prefer_bundled_bin: settings.switch("prefer-bundled-bin"),
    })
}
