//! A containerd of the test's own, with images made on the spot and containers on the host's network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k3sd_containerd::image::{BuiltImage, ImageBuilder, busybox, pause};
use k3sd_cri::{Cri, v1};
use serde_json::json;
use tempfile::TempDir;

/// The uid of the one pod.
pub(crate) const UID: &str = "11111111-2222-3333-4444-555555555555";

/// A containerd of the test's own; gone with it.
pub(crate) struct Containerd {
    child: Child,
    directory: TempDir,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // What runs in it outlives it.
        let tasks = self.ctr(&["tasks", "ls", "-q"]);
        for task in tasks.split_ascii_whitespace() {
            self.ctr(&["tasks", "rm", "-f", task]);
        }
        self.child.kill().ok();
        self.child.wait().ok();
        // What a test left mounted that failed.
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for place in places.filter(|place| Path::new(place).starts_with(self.directory.path())) {
            Command::new("umount").args(["-l", place]).status().ok();
        }
    }
}

impl Containerd {
    /// `None` if the machine has none, or no right to run it; says so. Plugins of its own are off, since all engines of
    /// a machine would listen for them at the same place.
    pub(crate) async fn start() -> Option<Self> {
        let is_there = Command::new("containerd").arg("--version").stdout(Stdio::null()).status().is_ok();
        if !is_there || !rustix::process::geteuid().is_root() {
            println!("ignored: containerd can't be run here");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        fs::create_dir(directory.path().join("cni")).expect("a directory");
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nstream_server_port = \"0\"\nrestrict_oom_score_adj = true\n\
             sandbox_image = {:?}\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nconf_dir = {:?}\nbin_dir = {:?}\n\
             [plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n",
            at("root"),
            at("state"),
            at("sock"),
            at("ttrpc"),
            pause().name(),
            at("cni"),
            at("bin"),
        );
        fs::write(directory.path().join("config.toml"), config).expect("a file");
        let log = fs::File::create(directory.path().join("log")).expect("a file");
        let mut command = Command::new("containerd");
        command.arg("--config").arg(directory.path().join("config.toml")).stdout(Stdio::null()).stderr(log);
        let started = Self { child: command.spawn().expect("it starts"), directory };
        Some(started)
    }

    pub(crate) fn cri(&self) -> Cri {
        Cri::new(self.directory.path().join("sock"))
    }

    /// Gives it a network, as the node's CNI would.
    pub(crate) fn give_network(&self) {
        let list = json!({"cniVersion": "0.4.0", "name": "n", "plugins": [{"type": "loopback"}]});
        fs::write(self.directory.path().join("cni/10-n.conflist"), list.to_string()).expect("a file");
    }

    /// What `ctr` says.
    fn ctr(&self, words: &[&str]) -> String {
        let mut command = Command::new("ctr");
        command.arg("-a").arg(self.directory.path().join("sock")).args(["-n", "k8s.io"]).args(words);
        let output = command.output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).into_owned()
    }

    /// Waits until it answers.
    pub(crate) async fn is_up(&self) {
        let up = async {
            while self.cri().version(v1::VersionRequest::default()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let up = tokio::time::timeout(Duration::from_secs(20), up).await;
        let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        assert!(up.is_ok(), "containerd answers: {}", log());
    }

    /// Puts in the sandbox's image, busybox, and one that nobody uses. `false` if there is no busybox here.
    pub(crate) fn import(&self) -> bool {
        let Ok(busybox) = busybox(Path::new("/bin/busybox")) else {
            println!("ignored: there is no busybox");
            return false;
        };
        let unused = ImageBuilder::new("unused").file("x", 0o644, vec![b'x'; 1 << 20]).build();
        let archive = self.directory.path().join("images.tar");
        fs::write(&archive, BuiltImage::oci_archive(&[pause(), busybox, unused])).expect("a file");
        let archive = archive.display().to_string();
        let said = self.ctr(&["images", "import", "--snapshotter", "native", &archive]);
        assert!(said.contains("busybox"), "{said}");
        true
    }

    /// Runs a sandbox for a pod on the host's network.
    pub(crate) async fn sandbox(&self, logs: &Path, cgroup_parent: &str) -> (String, v1::PodSandboxConfig) {
        let network = v1::NamespaceMode::Node as i32;
        let namespaces = v1::NamespaceOption { network, ..Default::default() };
        let security = v1::LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
        let metadata = v1::PodSandboxMetadata {
            name: "p".to_owned(),
            uid: UID.to_owned(),
            namespace: "default".to_owned(),
            attempt: 0,
        };
        let config = v1::PodSandboxConfig {
            metadata: Some(metadata),
            labels: labels(),
            log_directory: logs.join(format!("default_p_{UID}")).display().to_string(),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: cgroup_parent.to_owned(),
                security_context: Some(security),
                ..Default::default()
            }),
            ..Default::default()
        };
        fs::create_dir_all(PathBuf::from(&config.log_directory).join("c")).expect("a directory");
        let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let made = self.cri().run_pod_sandbox(request).await.expect("a sandbox");
        (made.pod_sandbox_id, config)
    }

    /// Runs a script in a container named `c`; its id.
    pub(crate) async fn container(
        &self,
        sandbox: &(String, v1::PodSandboxConfig),
        attempt: u32,
        script: &str,
    ) -> String {
        let network = v1::NamespaceMode::Node as i32;
        let namespaces = v1::NamespaceOption { network, ..Default::default() };
        let security = v1::LinuxContainerSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
        let image = v1::ImageSpec { image: "docker.io/library/busybox:latest".to_owned(), ..Default::default() };
        let mut labels = labels();
        labels.insert("io.kubernetes.container.name".to_owned(), "c".to_owned());
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "c".to_owned(), attempt }),
            image: Some(image),
            labels,
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: format!("c/{attempt}.log"),
            linux: Some(v1::LinuxContainerConfig { security_context: Some(security), ..Default::default() }),
            ..Default::default()
        };
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.0.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox.1.clone()),
        };
        let container_id = self.cri().create_container(request).await.expect("a container").container_id;
        let started = v1::StartContainerRequest { container_id: container_id.clone() };
        self.cri().start_container(started).await.expect("it starts");
        container_id
    }
}

fn labels() -> std::collections::HashMap<String, String> {
    let rows =
        [("io.kubernetes.pod.name", "p"), ("io.kubernetes.pod.namespace", "default"), ("io.kubernetes.pod.uid", UID)];
    rows.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}
