//! The configuration itself, for both forms.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::registries::Registries;
use super::toml::Document;
use super::version::Format;
use crate::config::CniDirs;
use crate::host::Host;
use crate::runtimes::Runtime;

/// Plugins, by their name in the configuration.
const OPT: &str = "io.containerd.internal.v1.opt";
const CRI: &str = "io.containerd.grpc.v1.cri";
const CRI_RUNTIME: &str = "io.containerd.cri.v1.runtime";
const CRI_IMAGES: &str = "io.containerd.cri.v1.images";
const TASKS: &str = "io.containerd.service.v1.tasks-service";
const STARGZ: &str = "io.containerd.snapshotter.v1.stargz";
const NIX: &str = "io.containerd.snapshotter.v1.nix";
const NRI: &str = "io.containerd.nri.v1.nri";
const TRANSFER: &str = "io.containerd.transfer.v1.local";

/// The image services that two of the snapshotters bring along.
const STARGZ_SOCKET: &str = "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock";
const NIX_SOCKET: &str = "/run/k3s/containerd/nix-snapshotter.sock";

/// Everything that the configuration says.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub root: PathBuf,
    pub state: PathBuf,
    pub socket: PathBuf,
    /// Where the configuration and what belongs to it are.
    pub etc: PathBuf,
    pub stream_port: u16,
    pub selinux: bool,
    pub nonroot_devices: bool,
    pub snapshotter: String,
    pub sandbox_image: String,
    pub cni: Option<CniDirs>,
    pub default_runtime: Option<String>,
    pub runtimes: Vec<Runtime>,
    pub registries: Registries,
    pub host: Host,
    /// Only mirrors are asked where there are any.
    pub no_default_endpoint: bool,
    /// Intel's block I/O and RDT settings, where a user made them.
    pub blockio_file: Option<PathBuf>,
    pub rdt_file: Option<PathBuf>,
}

impl Settings {
    /// What a user's template can ask for, under the names that K3s documents.
    pub(crate) fn template_data(&self) -> Value {
        let (host, cni) = (self.host, self.cni.as_ref());
        let runtimes = self.runtimes.iter().map(|runtime| {
            let program = text(&runtime.program);
            (runtime.name.clone(), json!({ "RuntimeType": runtime.shim, "BinaryName": program }))
        });
        json!({
            "NodeConfig": {
                "SELinux": self.selinux,
                "DefaultRuntime": self.default_runtime.clone().unwrap_or_default(),
                "Containerd": {
                    "Root": text(&self.root),
                    "State": text(&self.state),
                    "Address": text(&self.socket),
                    "Opt": text(&self.root),
                    "Template": "",
                    "Config": text(&self.etc.join("config.toml")),
                    "Registry": text(&self.etc.join("certs.d")),
                    "NoDefault": self.no_default_endpoint,
                    "NonrootDevices": self.nonroot_devices,
                    "SELinux": self.selinux,
                },
                "AgentConfig": {
                    "Snapshotter": self.snapshotter,
                    "PauseImage": self.sandbox_image,
                    "CNIPlugin": cni.is_some(),
                    "CNIBinDir": cni.map(|cni| text(&cni.bin)).unwrap_or_default(),
                    "CNIConfDir": cni.map(|cni| text(&cni.conf)).unwrap_or_default(),
                    "Systemd": host.systemd_cgroups,
                },
            },
            "DisableCgroup": host.no_cgroups,
            "SystemdCgroup": host.systemd_cgroups,
            "IsRunningInUserNS": host.user_namespace,
            "EnableUnprivileged": host.unprivileged,
            "NoDefaultEndpoint": self.no_default_endpoint,
            "NonrootDevices": self.nonroot_devices,
            "ExtraRuntimes": runtimes.collect::<Map<String, Value>>(),
            "Program": "k3s",
        })
    }
}

/// The configuration without a user's template; what a template includes as `base`.
pub(crate) fn base(settings: &Settings, format: Format) -> String {
    let mut doc = Document::default();
    let (number, drop_ins) = match format {
        Format::V2 => (2, "config.toml.d/*.toml"),
        Format::V3 => (3, "config-v3.toml.d/*.toml"),
    };
    doc.number("version", number);
    doc.list("imports", &[&text(&settings.etc.join(drop_ins))]);
    doc.text("root", &text(&settings.root)).text("state", &text(&settings.state));
    doc.table(&["grpc"]).text("address", &text(&settings.socket));
    doc.table(&["plugins", OPT]).text("path", &text(&settings.root));
    if settings.blockio_file.is_some() || settings.rdt_file.is_some() {
        doc.table(&["plugins", TASKS]);
        if let Some(file) = &settings.blockio_file {
            doc.text("blockio_config_file", &text(file));
        }
        if let Some(file) = &settings.rdt_file {
            doc.text("rdt_config_file", &text(file));
        }
    }
    match format {
        Format::V2 => cri_v2(&mut doc, settings),
        Format::V3 => cri_v3(&mut doc, settings),
    }
    snapshotter(&mut doc, settings);
    doc.finish()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Remote snapshotters need what would otherwise be left out of an image's snapshots.
fn is_remote(snapshotter: &str) -> bool {
    matches!(snapshotter, "stargz" | "nix")
}

fn streams(doc: &mut Document, settings: &Settings) {
    doc.text("stream_server_address", "127.0.0.1").text("stream_server_port", &settings.stream_port.to_string());
}

/// What both forms say about running containers.
fn running(doc: &mut Document, settings: &Settings) {
    let host = settings.host;
    doc.flag("enable_selinux", settings.selinux)
        .flag("enable_unprivileged_ports", host.unprivileged)
        .flag("enable_unprivileged_icmp", host.unprivileged)
        .flag("device_ownership_from_security_context", settings.nonroot_devices);
    if host.no_cgroups {
        doc.flag("disable_cgroup", true);
    }
    if host.user_namespace {
        doc.flag("disable_apparmor", true);
    }
    if host.oom_score_is_restricted {
        doc.flag("restrict_oom_score_adj", true);
    }
}

fn runtimes(doc: &mut Document, settings: &Settings, parent: &[&str]) {
    let table = |doc: &mut Document, rest: &[&str]| {
        let path: Vec<&str> = parent.iter().chain(rest).copied().collect();
        doc.table(&path);
    };
    table(doc, &["runtimes", "runc"]);
    doc.text("runtime_type", "io.containerd.runc.v2");
    table(doc, &["runtimes", "runc", "options"]);
    doc.flag("SystemdCgroup", settings.host.systemd_cgroups);
    table(doc, &["runtimes", "runhcs-wcow-process"]);
    doc.text("runtime_type", "io.containerd.runhcs.v1");
    for runtime in &settings.runtimes {
        table(doc, &["runtimes", &runtime.name]);
        doc.text("runtime_type", &runtime.shim);
        table(doc, &["runtimes", &runtime.name, "options"]);
        doc.text("BinaryName", &text(&runtime.program)).flag("SystemdCgroup", settings.host.systemd_cgroups);
    }
}

fn registry(doc: &mut Document, settings: &Settings, parent: &[&str]) {
    doc.table(parent).text("config_path", &text(&settings.etc.join("certs.d")));
    for (host, auth) in settings.registries.auths() {
        let path: Vec<&str> = parent.iter().copied().chain(["configs", host, "auth"]).collect();
        doc.table(&path);
        let fields = [
            ("username", &auth.username),
            ("password", &auth.password),
            ("auth", &auth.auth),
            ("identitytoken", &auth.identity_token),
        ];
        for (key, value) in fields {
            if !value.is_empty() {
                doc.text(key, value);
            }
        }
    }
}

fn cri_v2(doc: &mut Document, settings: &Settings) {
    doc.table(&["plugins", CRI]);
    streams(doc, settings);
    running(doc, settings);
    doc.text("sandbox_image", &settings.sandbox_image);
    doc.table(&["plugins", CRI, "containerd"])
        .text("snapshotter", &settings.snapshotter)
        .flag("disable_snapshot_annotations", !is_remote(&settings.snapshotter));
    if let Some(name) = &settings.default_runtime {
        doc.text("default_runtime_name", name);
    }
    if let Some(cni) = &settings.cni {
        doc.table(&["plugins", CRI, "cni"]).text("bin_dir", &text(&cni.bin)).text("conf_dir", &text(&cni.conf));
    }
    runtimes(doc, settings, &["plugins", CRI, "containerd"]);
    registry(doc, settings, &["plugins", CRI, "registry"]);
}

fn cri_v3(doc: &mut Document, settings: &Settings) {
    doc.table(&["plugins", CRI]);
    streams(doc, settings);
    doc.table(&["plugins", CRI_RUNTIME]);
    running(doc, settings);
    doc.table(&["plugins", CRI_IMAGES])
        .text("snapshotter", &settings.snapshotter)
        .flag("disable_snapshot_annotations", !is_remote(&settings.snapshotter))
        .flag("use_local_image_pull", true);
    doc.table(&["plugins", CRI_IMAGES, "pinned_images"]).text("sandbox", &settings.sandbox_image);
    if let Some(cni) = &settings.cni {
        doc.table(&["plugins", CRI_RUNTIME, "cni"])
            .list("bin_dirs", &[&text(&cni.bin)])
            .text("conf_dir", &text(&cni.conf));
    }
    if let Some(name) = &settings.default_runtime {
        doc.table(&["plugins", CRI_RUNTIME, "containerd"]).text("default_runtime_name", name);
    }
    runtimes(doc, settings, &["plugins", CRI_RUNTIME, "containerd"]);
    registry(doc, settings, &["plugins", CRI_IMAGES, "registry"]);
    if settings.host.user_namespace {
        doc.table(&["plugins", NRI]).flag("disable", true);
    }
}

fn snapshotter(doc: &mut Document, settings: &Settings) {
    match settings.snapshotter.as_str() {
        "stargz" => {
            doc.table(&["plugins", STARGZ])
                .text("cri_keychain_image_service_path", STARGZ_SOCKET)
                .flag("enable_keychain", true);
            registry(doc, settings, &["plugins", STARGZ, "registry"]);
        }
        "nix" => {
            doc.table(&["plugins", NIX]).text("address", NIX_SOCKET).flag("enable_image_service", true);
            for platform in ["linux/amd64", "linux/arm64"] {
                doc.array_table(&["plugins", TRANSFER, "unpack_config"])
                    .text("platform", platform)
                    .text("snapshotter", "nix")
                    .text("differ", "walking");
            }
        }
        _ => {}
    }
}

/// The image service that a snapshotter brings along, for `crictl` and for whoever pulls images.
pub(crate) fn image_service(snapshotter: &str) -> Option<&'static str> {
    match snapshotter {
        "stargz" => Some(STARGZ_SOCKET),
        "nix" => Some(NIX_SOCKET),
        _ => None,
    }
}

/// Without empty lines, but for one before each table.
pub(crate) fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if line.trim_start().starts_with('[') && !out.is_empty() {
            out.push('\n');
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
#[path = "base_tests.rs"]
pub(crate) mod tests;
