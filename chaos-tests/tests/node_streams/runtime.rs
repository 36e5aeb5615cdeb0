//! A real containerd with an image of busybox, a sandbox on the host's network, and a container in it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k3sd_cri::{Cri, v1};
use tempfile::TempDir;

/// The image, which is the sandbox's too.
const IMAGE: &str = "localhost/busybox:streams";
/// What of busybox the tests use.
const APPLETS: [&str; 9] = ["sh", "cat", "sleep", "echo", "dd", "httpd", "stty", "tail", "wc"];

/// What is there for a test. It is gone with [`Runtime::stop`].
pub(crate) struct Runtime {
    directory: TempDir,
    child: Child,
    pub(crate) cri: Cri,
    pub(crate) sandbox: String,
    pub(crate) container: String,
    /// A container beside it that says something all the time.
    pub(crate) ticker: String,
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Why there can be no container here; nothing if there can.
pub(crate) fn missing() -> Option<&'static str> {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root");
    }
    if !has("containerd") || !has("runc") {
        return Some("it needs containerd and runc");
    }
    (!Path::new("/bin/busybox").exists()).then_some("it needs busybox-static")
}

/// An archive as `docker save` writes it.
fn image(directory: &Path) -> PathBuf {
    let root = directory.join("root");
    fs::create_dir_all(root.join("bin")).expect("a directory");
    fs::create_dir_all(root.join("www")).expect("a directory");
    fs::write(root.join("www/index.html"), "hello from within\n").expect("a file");
    fs::write(root.join("www/link.html"), "<a href=\"/rewriteme\">test</a>\n").expect("a file");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("a copy");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    let layer = directory.join("layer.tar");
    run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&layer).arg("."));
    let digest = run(Command::new("sha256sum").arg(&layer));
    let digest = digest.split(' ').next().expect("a digest");
    let config = format!(
        "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{\"Entrypoint\":[\"/bin/sleep\",\"100000\"]}},\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"sha256:{digest}\"]}}}}"
    );
    fs::write(directory.join("config.json"), config).expect("a file");
    let manifest = format!("[{{\"Config\":\"config.json\",\"RepoTags\":[\"{IMAGE}\"],\"Layers\":[\"layer.tar\"]}}]");
    fs::write(directory.join("manifest.json"), manifest).expect("a file");
    let archive = directory.join("image.tar");
    let files = ["config.json", "manifest.json", "layer.tar"];
    run(Command::new("tar").arg("-C").arg(directory).arg("-cf").arg(&archive).args(files));
    archive
}

fn config(directory: &Path) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    format!(
        r#"version = 2
root = "{}"
state = "{}"
[grpc]
  address = "{}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "{}"
    bin_dir = "{}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
[plugins."io.containerd.nri.v1.nri"]
  # All engines of a machine would listen for plugins of their own at the same place.
  disable = true
"#,
        at("data"),
        at("state"),
        at("sock"),
        at("cni"),
        at("cni-bin")
    )
}

impl Runtime {
    /// Starts all of it. The container counts to three and sleeps.
    pub(crate) async fn start() -> Self {
        let directory = TempDir::with_prefix("streams-").expect("a directory");
        let place = directory.path();
        fs::write(place.join("config.toml"), config(place)).expect("a file");
        let log = fs::File::create(place.join("containerd.log")).expect("a file");
        let child = Command::new("containerd")
            .arg("--config")
            .arg(place.join("config.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd starts");
        let cri = Cri::new(place.join("sock"));
        let up = async {
            while cri.version(v1::VersionRequest::default()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let up = tokio::time::timeout(Duration::from_secs(20), up).await;
        assert!(up.is_ok(), "{}", fs::read_to_string(place.join("containerd.log")).unwrap_or_default());
        let archive = image(place);
        run(Command::new("ctr")
            .arg("-a")
            .arg(place.join("sock"))
            .args(["-n", "k8s.io", "images", "import"])
            .args(["--snapshotter", "native"])
            .arg(archive));
        let mut runtime =
            Self { directory, child, cri, sandbox: String::new(), container: String::new(), ticker: String::new() };
        runtime.pod().await;
        runtime
    }

    /// The file of the container's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.path().join("logs/c/0.log")
    }

    async fn pod(&mut self) {
        let logs = self.directory.path().join("logs");
        fs::create_dir_all(&logs).expect("a directory");
        let host = v1::NamespaceMode::Node as i32;
        let namespaces = v1::NamespaceOption { network: host, ..Default::default() };
        let security = v1::LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
        let config = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: "p".to_owned(),
                uid: "u".to_owned(),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            log_directory: logs.display().to_string(),
            linux: Some(v1::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() }),
            ..Default::default()
        };
        let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        self.sandbox = self.cri.run_pod_sandbox(request).await.expect("a sandbox").pod_sandbox_id;
        let counts = "echo one; echo two; echo three; exec sleep 100000";
        self.container = self.run("c", counts, &config).await;
        self.ticker = self.run("d", "while sleep 0.1; do echo tick; done", &config).await;
    }

    /// Has a script run in a container of its own.
    async fn run(&self, name: &str, script: &str, sandbox: &v1::PodSandboxConfig) -> String {
        let host = v1::NamespaceMode::Node as i32;
        let namespaces = v1::NamespaceOption { network: host, ..Default::default() };
        let security = v1::LinuxContainerSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
        let container = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            envs: vec![v1::KeyValue { key: "PATH".to_owned(), value: "/bin".to_owned() }],
            log_path: format!("{name}/0.log"),
            linux: Some(v1::LinuxContainerConfig { security_context: Some(security), ..Default::default() }),
            ..Default::default()
        };
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: self.sandbox.clone(),
            config: Some(container),
            sandbox_config: Some(sandbox.clone()),
        };
        let container_id = self.cri.create_container(request).await.expect("a container").container_id;
        let request = v1::StartContainerRequest { container_id: container_id.clone() };
        self.cri.start_container(request).await.expect("it starts");
        container_id
    }

    /// Adds a line to the log, as the runtime would.
    pub(crate) fn write_log(&self, text: &str) {
        let mut file = fs::OpenOptions::new().append(true).open(self.log()).expect("the log");
        writeln!(file, "2030-01-01T00:00:00.000000000Z stdout F {text}").expect("it is written");
    }

    /// Removes all of it.
    pub(crate) async fn stop(self) {
        let pod_sandbox_id = self.sandbox.clone();
        self.cri.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() }).await.ok();
        self.cri.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id }).await.ok();
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // What a test left that failed.
        for id in [&self.container, &self.ticker, &self.sandbox].into_iter().filter(|id| !id.is_empty()) {
            let mut command = Command::new("ctr");
            command.arg("-a").arg(self.directory.path().join("sock")).args(["-n", "k8s.io", "tasks", "rm", "-f", id]);
            command.output().ok();
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
