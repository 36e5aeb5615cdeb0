//! The peer: the same sandbox and the same container, asked for directly.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k3sd_cri::{Cri, v1};

use crate::Failure;

/// What the image of the pods is made of.
pub(crate) const BUSYBOX: &str = "/bin/busybox";
/// The image.
pub(crate) const IMAGE: &str = "docker.io/library/busybox:latest";
/// What every container does.
pub(crate) const COMMAND: [&str; 2] = ["sleep", "100000"];

/// What a kubelet hides from containers, and what it lets them only read.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// What a kubelet mounts into a container of the plainest pod.
const MOUNTED: [(&str, bool); 3] =
    [("/etc/hosts", false), ("/dev/termination-log", false), ("/var/run/secrets/kubernetes.io/serviceaccount", true)];

/// Makes pods without a kubelet.
pub(crate) struct Bare {
    cri: Cri,
    directory: PathBuf,
    cgroup_parent: String,
}

/// A pod that was made, and how long that took.
pub(crate) struct Made {
    pub(crate) sandbox: String,
    /// Until its container had started.
    pub(crate) took: Duration,
}

impl Bare {
    /// Keeps what it needs in `directory`, and its pods below a cgroup.
    pub(crate) fn new(cri: Cri, directory: &Path, cgroup: &str) -> Self {
        Self { cri, directory: directory.join("bare"), cgroup_parent: format!("/{cgroup}/bare") }
    }

    fn namespaces() -> v1::NamespaceOption {
        v1::NamespaceOption { pid: v1::NamespaceMode::Container as i32, ..v1::NamespaceOption::default() }
    }

    fn sandbox(&self, name: &str) -> v1::PodSandboxConfig {
        // A kubelet lets a sandbox do no more than the runtime thinks right; to set that up is work of the runtime.
        let seccomp = v1::SecurityProfile {
            profile_type: v1::security_profile::ProfileType::RuntimeDefault as i32,
            localhost_ref: String::new(),
        };
        let security = v1::LinuxSandboxSecurityContext {
            namespace_options: Some(Self::namespaces()),
            seccomp: Some(seccomp),
            ..v1::LinuxSandboxSecurityContext::default()
        };
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.to_owned(),
                uid: name.to_owned(),
                namespace: "bare".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: self.directory.join(name).display().to_string(),
            // Without the labels of a kubelet, which would look for the pod and end it.
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup_parent.clone(),
                security_context: Some(security),
                ..v1::LinuxPodSandboxConfig::default()
            }),
            ..v1::PodSandboxConfig::default()
        }
    }

    fn container(&self, name: &str) -> v1::ContainerConfig {
        let mount = |(path, is_directory): &(&str, bool)| v1::Mount {
            container_path: (*path).to_owned(),
            host_path: self.source(name, path).display().to_string(),
            readonly: *is_directory,
            ..v1::Mount::default()
        };
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let security = v1::LinuxContainerSecurityContext {
            namespace_options: Some(Self::namespaces()),
            masked_paths: owned(&MASKED),
            readonly_paths: owned(&READ_ONLY),
            ..v1::LinuxContainerSecurityContext::default()
        };
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "c".to_owned(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: IMAGE.to_owned(), ..v1::ImageSpec::default() }),
            command: owned(&COMMAND),
            mounts: MOUNTED.iter().map(mount).collect(),
            log_path: "0.log".to_owned(),
            linux: Some(v1::LinuxContainerConfig {
                resources: Some(v1::LinuxContainerResources { cpu_shares: 2, ..Default::default() }),
                security_context: Some(security),
            }),
            ..v1::ContainerConfig::default()
        }
    }

    fn source(&self, name: &str, path: &str) -> PathBuf {
        self.directory.join(name).join(path.replace('/', "_"))
    }

    /// Makes what a pod will mount: a kubelet's work, which is no part of what containerd is measured by.
    pub(crate) fn prepare(&self, name: &str) -> Result<(), Failure> {
        for (path, is_directory) in MOUNTED {
            let source = self.source(name, path);
            fs::create_dir_all(if is_directory { &source } else { source.parent().unwrap_or(&source) })?;
            if !is_directory {
                fs::write(source, "127.0.0.1 localhost\n")?;
            }
        }
        Ok(())
    }

    /// Makes a pod, for which [`Self::prepare`] was called.
    pub(crate) async fn start(&self, name: &str) -> Result<Made, Failure> {
        let (config, container) = (self.sandbox(name), self.container(name));
        let begun = Instant::now();
        let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let sandbox = self.cri.run_pod_sandbox(request).await?.pod_sandbox_id;
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.clone(),
            config: Some(container),
            sandbox_config: Some(config),
        };
        let container_id = self.cri.create_container(request).await?.container_id;
        self.cri.start_container(v1::StartContainerRequest { container_id }).await?;
        Ok(Made { sandbox, took: begun.elapsed() })
    }

    /// Removes a pod.
    pub(crate) async fn remove(&self, sandbox: String) -> Result<(), Failure> {
        self.cri.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() }).await?;
        self.cri.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox }).await?;
        Ok(())
    }
}
