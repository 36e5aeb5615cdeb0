//! What the subtree is told, by whoever read flags and environment.

use std::ffi::OsString;
use std::path::PathBuf;

/// The sandbox image of the flag `--pause-image`, in full.
pub const PAUSE_IMAGE: &str = "docker.io/rancher/mirrored-pause:3.10.2";
/// The snapshotter of the flag `--snapshotter`.
pub const SNAPSHOTTER: &str = "overlayfs";
/// Where containerd serves the streams of `exec`, `attach` and `port-forward`, on the loopback address.
pub const STREAM_PORT: u16 = 10010;

/// Where containerd finds CNI plugins and their configuration. Without it containerd's own defaults hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniDirs {
    /// Where the plugins are.
    pub bin: PathBuf,
    /// Where the network is configured.
    pub conf: PathBuf,
}

/// See the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerdConfig {
    /// `--data-dir`; bundled programs are in `data/current/bin` below it.
    pub data_dir: PathBuf,
    /// The agent's directory, usually `agent` below the data directory.
    pub agent_dir: PathBuf,
    /// Where containerd keeps what doesn't survive a reboot, its socket too: `/run/k3s/containerd`.
    pub state_dir: PathBuf,
    /// This very program, which is never taken for one of those that are looked for.
    pub own_binary: Option<PathBuf>,
    /// The whole environment of this process.
    pub environment: Vec<(OsString, OsString)>,
    /// `--snapshotter`.
    pub snapshotter: String,
    /// `--default-runtime`: one of the extra runtimes that are found, not `runc`.
    pub default_runtime: Option<String>,
    /// `--pause-image`; short names are completed.
    pub pause_image: String,
    /// `--selinux`.
    pub selinux: bool,
    /// `--nonroot-devices`.
    pub nonroot_devices: bool,
    /// `--private-registry`: the file, which need not exist.
    pub private_registry: PathBuf,
    /// `--disable-default-registry-endpoint`.
    pub disable_default_registry_endpoint: bool,
    /// `--airgap-extra-registry`: preloaded images get names with these as well.
    pub airgap_extra_registries: Vec<String>,
    /// `--system-default-registry`: as above, and the pause image comes from it.
    pub system_default_registry: Option<String>,
    /// Where streams are served on the loopback address; 0 takes any free port. [`STREAM_PORT`] by default.
    pub stream_port: u16,
    /// Where the network's plugins are, unless the user brings a network of his own.
    pub cni: Option<CniDirs>,
    /// Whether systemd makes cgroups, where the node's settings say; else it is as on this machine.
    pub systemd_cgroups: Option<bool>,
    /// `--debug`: containerd logs in detail.
    pub debug: bool,
}

impl ContainerdConfig {
    /// With K3s' defaults, for these directories.
    pub fn new(data_dir: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            agent_dir: data_dir.join("agent"),
            data_dir,
            state_dir: state_dir.into(),
            own_binary: None,
            environment: Vec::new(),
            snapshotter: SNAPSHOTTER.to_owned(),
            default_runtime: None,
            pause_image: PAUSE_IMAGE.to_owned(),
            selinux: false,
            nonroot_devices: false,
            private_registry: PathBuf::from("/etc/rancher/k3s/registries.yaml"),
            disable_default_registry_endpoint: false,
            airgap_extra_registries: Vec::new(),
            system_default_registry: None,
            stream_port: STREAM_PORT,
            cni: None,
            systemd_cgroups: None,
            debug: false,
        }
    }

    /// The socket on which containerd answers, CRI included.
    pub fn socket(&self) -> PathBuf {
        self.state_dir.join("containerd.sock")
    }

    /// containerd's own directory: images, snapshots, its log.
    pub fn root_dir(&self) -> PathBuf {
        self.agent_dir.join("containerd")
    }

    /// The archives that are imported.
    pub fn images_dir(&self) -> PathBuf {
        self.agent_dir.join("images")
    }

    /// Where the configuration is rendered, and users' templates are.
    pub(crate) fn etc_dir(&self) -> PathBuf {
        self.agent_dir.join("etc/containerd")
    }

    /// The rendered configuration.
    pub fn config_file(&self) -> PathBuf {
        self.etc_dir().join("config.toml")
    }

    /// The hosts of registries, rendered.
    pub(crate) fn certs_dir(&self) -> PathBuf {
        self.etc_dir().join("certs.d")
    }

    /// What `crictl` reads.
    pub fn crictl_file(&self) -> PathBuf {
        self.agent_dir.join("etc/crictl.yaml")
    }

    /// containerd's log.
    pub fn log_file(&self) -> PathBuf {
        self.root_dir().join("containerd.log")
    }

    /// A variable of the environment.
    pub(crate) fn variable(&self, name: &str) -> Option<&OsString> {
        self.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The sandbox image's full name, with the registry that system images come from.
    pub fn sandbox_image(&self) -> String {
        let name = crate::image::reference::normalize(&self.pause_image);
        match self.system_default_registry.as_deref().filter(|registry| !registry.is_empty()) {
            Some(registry) => crate::image::reference::rehost(&name, registry),
            None => name,
        }
    }
}
