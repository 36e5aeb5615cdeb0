//! A node in a temporary directory: the subtree over a containerd of its own, and everything taken away in the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k3sd_containerd::image::{BuiltImage, busybox};
use k3sd_containerd::{ContainerdConfig, EngineHandle, EngineStatus, ImagesHandle, ImagesStatus};
use k3sd_cri::{Cri, v1};
use k3sd_runtime::{Clock, Spec, Strategy, System, Tree, subtree};
use tempfile::TempDir;

/// Longer than anything takes on a small machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// So many looks in a row find no process of a node that is gone.
const QUIET_LOOKS: u32 = 5;

/// Directories for one containerd.
pub(crate) struct Node {
    pub(crate) dir: TempDir,
    pub(crate) config: ContainerdConfig,
}

/// The subtree while it runs.
pub(crate) struct Running {
    pub(crate) system: System,
    pub(crate) tree: Tree,
    pub(crate) cri: Cri,
    pub(crate) engine: EngineHandle,
    pub(crate) images: ImagesHandle,
    pub(crate) ready: tokio::sync::watch::Receiver<bool>,
}

/// A node, unless this machine can't be one; says why then.
pub(crate) fn node() -> Option<Node> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    let has = |program: &str| std::env::split_paths(&path()).any(|dir| dir.join(program).exists());
    let missing = ["containerd", "runc"].into_iter().find(|program| !has(program));
    if !is_root || missing.is_some() {
        println!("ignored: root, containerd and runc are needed (root: {is_root}, missing: {missing:?})");
        return None;
    }
    let dir = tempfile::Builder::new().prefix("k3sd").tempdir().unwrap();
    let mut config = ContainerdConfig::new(dir.path().join("data"), dir.path().join("run"));
    config.stream_port = 0;
    config.private_registry = dir.path().join("registries.yaml");
    config.environment = vec![("PATH".into(), path().into())];
    Some(Node { dir, config })
}

fn path() -> String {
    std::env::var("PATH").unwrap_or_default()
}

/// The busybox of this machine as an image; says so when there is none.
pub(crate) fn busybox_image() -> Option<BuiltImage> {
    let found = busybox(Path::new("/bin/busybox"));
    found.inspect_err(|error| println!("ignored: a static busybox is needed in /bin: {error}")).ok()
}

impl Node {
    /// Starts the subtree, and waits until pods can be run.
    pub(crate) async fn start(&self) -> Running {
        let running = self.begin();
        let mut ready = running.ready.clone();
        let waited = tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready)).await;
        let log = || fs::read_to_string(self.config.log_file()).unwrap_or_default();
        if !matches!(waited, Ok(Ok(_))) {
            panic!("not ready: {:?}\n{}", running.engine.status().await, log());
        }
        running
    }

    /// Starts the subtree.
    pub(crate) fn begin(&self) -> Running {
        let made = k3sd_containerd::tree(self.config.clone());
        let system = System::new(Clock::system());
        let tree = system.start(Spec::new(Strategy::OneForOne).child(subtree("containerd", made.spec)));
        let engine = k3sd_containerd::engine(&system, "containerd").unwrap();
        let images = k3sd_containerd::images(&system, "containerd").unwrap();
        Running { system, tree, cri: made.cri, engine, images, ready: made.ready }
    }

    /// Puts a file into the images directory.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let file = self.config.images_dir().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, bytes).unwrap();
        file
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Also what a subtree that a failed test left behind starts again meanwhile.
        let deadline = std::time::Instant::now() + PATIENCE;
        let mut quiet_looks = 0;
        while quiet_looks < QUIET_LOOKS && std::time::Instant::now() < deadline {
            let mut found = processes_with(&self.config.config_file());
            found.extend(processes_with(&self.config.socket()));
            quiet_looks = if found.is_empty() { quiet_looks + 1 } else { 0 };
            found.into_iter().for_each(kill);
            std::thread::sleep(Duration::from_millis(20));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = self.dir.path().to_string_lossy().into_owned();
        let mut points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        points.retain(|point| point.starts_with(&below));
        for point in points.iter().rev() {
            Command::new("umount").args(["-l", point]).status().ok();
        }
    }
}

/// The processes that have this path as an argument.
pub(crate) fn processes_with(argument: &Path) -> Vec<u32> {
    let wanted = argument.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let has = line.split(|byte| *byte == 0).any(|word| word == wanted.as_bytes());
        found.extend(pid.filter(|_| has));
    }
    found
}

/// Kills a process, and in the case of a shim its container.
pub(crate) fn kill(pid: u32) {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for victim in std::iter::once(pid.to_string()).chain(children.split_whitespace().map(str::to_owned)) {
        Command::new("kill").args(["-9", &victim]).stderr(std::process::Stdio::null()).status().ok();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tree.kill();
    }
}

impl Running {
    pub(crate) async fn engine(&self) -> EngineStatus {
        self.engine.status().await.unwrap()
    }

    /// Stops the subtree, as the daemon's end does.
    pub(crate) async fn stop(self) {
        self.tree.stop();
        self.tree.ended().await;
    }

    /// Waits until the actor that imports has come so far.
    pub(crate) async fn images_until(&self, what: &str, is_so: impl Fn(&ImagesStatus) -> bool) -> ImagesStatus {
        let start = std::time::Instant::now();
        loop {
            // It is away while it is being restarted.
            let status = self.images.status().await;
            match status {
                Ok(status) if is_so(&status) => return status,
                status => assert!(start.elapsed() < PATIENCE, "{what}: {status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the engine has come so far.
    pub(crate) async fn engine_until(&self, what: &str, is_so: impl Fn(&EngineStatus) -> bool) -> EngineStatus {
        let start = std::time::Instant::now();
        loop {
            // It is away while it is being restarted.
            let status = self.engine.status().await;
            match status {
                Ok(status) if is_so(&status) => return status,
                status => assert!(start.elapsed() < PATIENCE, "{what}: {status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// An image as CRI sees it, waited for: CRI hears of new ones a moment later.
    pub(crate) async fn image(&self, name: &str) -> Option<v1::Image> {
        let image = v1::ImageSpec { image: name.to_owned(), ..Default::default() };
        let start = std::time::Instant::now();
        while start.elapsed() < PATIENCE {
            let request = v1::ImageStatusRequest { image: Some(image.clone()), verbose: false };
            let answer = self.cri.image_status(request).await.unwrap();
            if answer.image.is_some() {
                return answer.image;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// Waits until CRI knows the image that each sandbox is made of.
    pub(crate) async fn sandbox_image(&self) -> v1::Image {
        self.image("rancher/mirrored-pause:3.10.2").await.expect("the sandbox's image")
    }

    /// A sandbox on the host's network, with a container that sleeps; its ID.
    pub(crate) async fn sleeper(&self, name: &str) -> String {
        self.sandbox_image().await;
        let namespaces = v1::NamespaceOption { network: v1::NamespaceMode::Node as i32, ..Default::default() };
        let metadata = v1::PodSandboxMetadata {
            name: name.to_owned(),
            uid: name.to_owned(),
            namespace: "test".into(),
            attempt: 0,
        };
        let security =
            v1::LinuxSandboxSecurityContext { namespace_options: Some(namespaces.clone()), ..Default::default() };
        let linux = v1::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() };
        let sandbox = v1::PodSandboxConfig { metadata: Some(metadata), linux: Some(linux), ..Default::default() };
        let request = v1::RunPodSandboxRequest { config: Some(sandbox.clone()), runtime_handler: String::new() };
        let pod = self.cri.run_pod_sandbox(request).await.unwrap().pod_sandbox_id;
        let container = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "sleeper".into(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: "docker.io/library/busybox:latest".into(), ..Default::default() }),
            command: vec!["sleep".into(), "1000".into()],
            ..Default::default()
        };
        let request =
            v1::CreateContainerRequest { pod_sandbox_id: pod, config: Some(container), sandbox_config: Some(sandbox) };
        let id = self.cri.create_container(request).await.unwrap().container_id;
        self.cri.start_container(v1::StartContainerRequest { container_id: id.clone() }).await.unwrap();
        id
    }

    /// The state of a container, and when it was started.
    pub(crate) async fn container(&self, id: &str) -> (i32, i64) {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let status = self.cri.container_status(request).await.unwrap().status.unwrap();
        (status.state, status.started_at)
    }
}
