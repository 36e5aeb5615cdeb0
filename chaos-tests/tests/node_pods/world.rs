//! A control plane in this process, a containerd of the test's own, and the node's pods between them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::events::recorder;
use k3sd_containerd::image::{BuiltImage, busybox, pause};
use k3sd_cri::{Cri, v1};
use k3sd_kubelet_base::Pods;
use k3sd_kubelet_cgroups::{CgroupSources, Cgroups, Driver};
use k3sd_kubelet_pods::admit::apparmor::is_enabled;
use k3sd_kubelet_pods::credentials::CredentialProviders;
use k3sd_kubelet_pods::translate::dns::{DnsFacts, Resolver};
use k3sd_kubelet_pods::translate::resources::Swap;
use k3sd_kubelet_pods::{PodsConfig, PodsDeps, PodsHandle, tree};
use k3sd_kubelet_volumes::{Allocatable, VolumesConfig};
use k3sd_runtime::{Clock, subtree};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

pub(crate) const NODE: &str = "one";
/// What the node has for pods.
const ALLOCATABLE: [(&str, &str); 2] = [("cpu", "4"), ("memory", "4Gi")];
/// Where the kernel says whom it killed.
pub(crate) const KERNEL_LOG: &str = "/dev/kmsg";
/// An engine answers within this long, and shims of a container end once it is removed.
const LIMIT: Duration = Duration::from_secs(20);

/// What a test's world is like.
#[derive(Default)]
pub(crate) struct Options {
    /// The node's address; one from documentation if it says nothing.
    pub(crate) address: Option<&'static str>,
    /// Sysctls that pods may set beside safe ones.
    pub(crate) sysctls: Vec<String>,
    /// Pods aren't put on the host's network: there is one that gives them loopback.
    pub(crate) has_network: bool,
    /// Makes the programs that know credentials, below this directory.
    pub(crate) credentials: Option<fn(&Path) -> CredentialProviders>,
}

/// A containerd of the test's own, with busybox; gone with it, and with all that runs below it.
pub(crate) struct Containerd {
    child: Child,
    directory: TempDir,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        // Containers outlive it: their shims and processes know this directory.
        let here = self.directory.path().display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let pid =
                entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid.filter(|_| text.contains("containerd-shim") && text.contains(&here)) {
                end_children(pid);
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&here));
        for at in own.collect::<Vec<_>>().into_iter().rev() {
            Command::new("umount").arg("-l").arg(at).stderr(Stdio::null()).status().ok();
        }
    }
}

/// Kills the processes that a shim started.
fn end_children(shim: rustix::process::Pid) {
    let of = format!("/proc/{0}/task/{0}/children", shim.as_raw_nonzero());
    for child in fs::read_to_string(of).unwrap_or_default().split_whitespace() {
        if let Some(child) = child.parse().ok().and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(child, rustix::process::Signal::KILL).ok();
        }
    }
}

impl Containerd {
    /// `None` if the machine lacks what is needed; says so. Plugins of its own are off, since all engines of a machine
    /// would listen for them at the same place.
    fn start() -> Option<Self> {
        let lacks = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err();
        if lacks("containerd") || lacks("runc") || lacks("ctr") || !Path::new("/bin/busybox").exists() {
            println!("ignored: containerd, runc, ctr and busybox are needed");
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            println!("ignored: containers need root");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("pods").tempdir_in("/run").ok()?;
        let at = |name: &str| directory.path().join(name).display().to_string();
        fs::create_dir_all(directory.path().join("cni")).expect("a directory");
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nstream_server_port = \"0\"\nrestrict_oom_score_adj = true\n\
             sandbox_image = \"docker.io/library/pause:test\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = {:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nconf_dir = {:?}\nbin_dir = {:?}\n\
             [plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n",
            at("root"),
            at("state"),
            at("sock"),
            at("ttrpc"),
            at("certs.d"),
            at("cni"),
            at("bin"),
        );
        fs::write(directory.path().join("config.toml"), config).expect("a file");
        let log = fs::File::create(directory.path().join("log")).expect("a file");
        let mut command = Command::new("containerd");
        command.arg("--config").arg(at("config.toml")).stdout(Stdio::null()).stderr(log);
        let started = Self { child: command.spawn().expect("it starts"), directory };
        Some(started)
    }

    /// Has images of a registry on loopback pulled without TLS.
    pub(crate) fn know_registry(&self, port: u16) {
        let host = self.path("certs.d").join(format!("127.0.0.1:{port}"));
        fs::create_dir_all(&host).expect("a directory");
        fs::write(host.join("hosts.toml"), format!("server = \"http://127.0.0.1:{port}\"\n")).expect("a file");
    }

    /// A network of the smallest kind: each pod has loopback, and an address on it.
    fn give_network(&self) {
        let list = json!({"cniVersion": "0.4.0", "name": "n", "plugins": [{"type": "small"}]});
        fs::create_dir_all(self.path("bin")).expect("a directory");
        for name in ["loopback", "small"] {
            let program = self.path("bin").join(name);
            fs::write(&program, NETWORK).expect("a file");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
        }
        fs::write(self.path("cni/10-n.conflist"), list.to_string()).expect("a file");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn cri(&self) -> Cri {
        Cri::new(self.path("sock"))
    }

    async fn bring_images(&self) {
        let cri = self.cri();
        let up = async {
            while cri.version(v1::VersionRequest::default()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let up = tokio::time::timeout(LIMIT, up).await;
        assert!(up.is_ok(), "containerd answers: {}", fs::read_to_string(self.path("log")).unwrap_or_default());
        let images =
            [busybox(Path::new("/bin/busybox")).expect("an image"), pause().renamed("docker.io/library/pause:test")];
        fs::write(self.path("images.tar"), BuiltImage::docker_archive(&images)).expect("a file");
        let mut import = Command::new("ctr");
        import.arg("--address").arg(self.path("sock")).args(["--namespace", "k8s.io", "images", "import"]);
        // Later releases let the engine unpack, and it knows of its own snapshotters only.
        let help = Command::new("ctr").args(["images", "import", "--help"]).output().expect("ctr runs");
        if String::from_utf8_lossy(&help.stdout).contains("--local") {
            import.arg("--local");
        }
        import.args(["--snapshotter", "native"]);
        let done = import.arg(self.path("images.tar")).stdout(Stdio::null()).status().expect("ctr runs");
        assert!(done.success(), "the images are there");
    }
}

/// A network for pods: loopback with an address on it.
const NETWORK: &str = "#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
VERSION) echo '{\"cniVersion\": \"0.4.0\", \"supportedVersions\": [\"0.3.1\", \"0.4.0\"]}' ;;
ADD)
  nsenter --net=\"$CNI_NETNS\" ip link set lo up
  nsenter --net=\"$CNI_NETNS\" ip address add 198.51.100.7/32 dev lo 2>/dev/null
  echo '{\"cniVersion\": \"0.4.0\", \"interfaces\": [{\"name\": \"eth0\", \"sandbox\": \"'\"$CNI_NETNS\"'\"}], \"ips\": [{\"version\": \"4\", \"address\": \"198.51.100.7/32\", \"interface\": 0}]}' ;;
esac
";

/// A control plane with one node's pods beside it.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) pods: Pods,
    pub(crate) handle: PodsHandle,
    pub(crate) containerd: Containerd,
    pub(crate) cgroup_root: String,
    on_host: bool,
}

impl Drop for World {
    fn drop(&mut self) {
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_below(&hierarchy.path().join(&self.cgroup_root));
        }
    }
}

/// Removes a cgroup and those below it.
fn remove_below(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    fs::remove_dir(path).ok();
}

/// Whether a pod has a cgroup in any hierarchy.
fn has_cgroup(hierarchies: &Path, root: &str, uid: &str) -> bool {
    let pod = format!("pod{uid}");
    fs::read_dir(hierarchies).into_iter().flatten().flatten().any(|hierarchy| {
        let pods = hierarchy.path().join(root).join("kubepods");
        ["", "burstable", "besteffort"].iter().any(|class| pods.join(class).join(&pod).exists())
    })
}

/// A world in which all pods are on the host's network.
pub(crate) async fn world(name: &str) -> Option<World> {
    world_with(name, Options::default()).await
}

/// A world; none where the machine lacks something, which is said then.
pub(crate) async fn world_with(name: &str, options: Options) -> Option<World> {
    let containerd = Containerd::start()?;
    if options.has_network {
        containerd.give_network();
    }
    containerd.bring_images().await;
    let cgroup_root = format!("k3sd-{name}-{}", std::process::id());
    let Ok(cgroups) = Cgroups::detect(&CgroupSources::default(), Driver::Cgroupfs, &cgroup_root) else {
        println!("ignored: there are no cgroups");
        return None;
    };
    let plane = Plane::new(Clock::system());
    let connect = plane.identities().user("admin", &["system:masters"]);
    let (events, recorder) = recorder("events", connect.clone());
    let root = containerd.path("kubelet");
    fs::create_dir_all(containerd.path("manifests")).expect("a directory");
    let volumes = k3sd_kubelet_volumes::tree(
        VolumesConfig {
            root: root.clone(),
            node_name: NODE.to_owned(),
            allocatable: Allocatable::default(),
            mount_program: "mount".into(),
            recorder: None,
        },
        connect.clone(),
        None,
    );
    let config = PodsConfig {
        node: NODE.to_owned(),
        root,
        logs: containerd.path("logs"),
        log_links: containerd.path("links"),
        static_pods: Some(containerd.path("manifests")),
        hosts_file: "/etc/hosts".into(),
        kernel_log: KERNEL_LOG.into(),
        dns: DnsFacts {
            host: Resolver { servers: vec!["192.0.2.53".to_owned()], ..Resolver::default() },
            ..DnsFacts::default()
        },
        seccomp_default: false,
        memory_capacity: 8 << 30,
        cpu_quota: true,
        swap: Swap::Unknown,
        pids_max: None,
        pods_max: 20,
        allowed_unsafe_sysctls: options.sysctls,
        has_apparmor: is_enabled(Path::new("/sys")),
        pulls_max: Some(1),
    };
    let deps = PodsDeps {
        cri: containerd.cri(),
        connect,
        recorder: recorder.component("kubelet").host(NODE),
        volumes: Arc::new(volumes.volumes.clone()),
        cgroups: Some(Arc::new(cgroups)),
        services: None,
        own_node: None,
        addresses: watch::channel(vec![options.address.unwrap_or("192.0.2.1").to_owned()]).1,
        allocatable: watch::channel(
            ALLOCATABLE.map(|(name, text)| (name.to_owned(), text.parse().expect("one"))).into(),
        )
        .1,
        is_ending: watch::channel(false).1,
        devices: None,
        credentials: options.credentials.map(|make| Arc::new(make(containerd.directory.path()))),
        nudge: None,
    };
    let tree = tree(config, deps);
    let loops = vec![events, subtree("volumes", volumes.spec), subtree("pods", tree.spec)];
    let cluster = plane.start(loops).await;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}});
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(cluster.admin(), "default");
    accounts.create(&PostParams::default(), &serde_json::from_value(account).expect("one")).await.ok();
    let on_host = !options.has_network;
    Some(World { cluster, pods: tree.pods, handle: tree.handle, containerd, cgroup_root, on_host })
}

impl World {
    pub(crate) fn api(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.admin(), "default")
    }

    /// Creates a pod on the node with this spec.
    pub(crate) async fn create(&self, name: &str, mut spec: Value) -> Pod {
        for (key, value) in [
            ("nodeName", json!(NODE)),
            ("hostNetwork", json!(self.on_host)),
            ("automountServiceAccountToken", json!(false)),
            ("terminationGracePeriodSeconds", json!(1)),
        ] {
            if spec.get(key).is_none() {
                spec[key] = value;
            }
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        self.api()
            .create(&PostParams::default(), &serde_json::from_value(pod).expect("a pod"))
            .await
            .expect("it is taken")
    }

    /// Runs a command in the pod's first container; what it wrote.
    pub(crate) async fn exec(&self, pod: &Value, words: &[&str]) -> String {
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("an id");
        let asked = v1::ExecSyncRequest {
            container_id: id.trim_start_matches("containerd://").to_owned(),
            cmd: words.iter().map(|&word| word.to_owned()).collect(),
            timeout: 10,
        };
        let answer = self.containerd.cri().exec_sync(asked).await.expect("it runs");
        String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned()
    }

    /// What a file of a container's or pod's cgroup says; `None` where this machine has no such file.
    pub(crate) fn cgroup(&self, controller: &str, pod: &Value, container: bool, file: &str) -> Option<String> {
        let uid = pod["metadata"]["uid"].as_str().expect("a uid");
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("an id");
        let root = Path::new("/sys/fs/cgroup").join(controller).join(&self.cgroup_root).join("kubepods");
        let pod = ["", "burstable", "besteffort"].iter().map(|class| root.join(class).join(format!("pod{uid}")));
        let pod = pod.into_iter().find(|path| path.exists())?;
        let at = if container { pod.join(id.trim_start_matches("containerd://")) } else { pod };
        fs::read_to_string(at.join(file)).ok().map(|text| text.trim().to_owned())
    }

    /// Waits until there is such an event about the pod.
    pub(crate) async fn told(&self, name: &str, text: &str) {
        let what = format!("{name} is said: {text}");
        self.cluster.wait_until(&what, async || self.events(name).await.iter().any(|event| event.contains(text))).await;
    }

    pub(crate) async fn get(&self, name: &str) -> Option<Value> {
        let pod = self.api().get_opt(name).await.ok()??;
        serde_json::to_value(pod).ok()
    }

    /// Waits until the pod is like this.
    pub(crate) async fn until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let clock = self.cluster.clock().clone();
        let end = clock.now() + LIMIT;
        loop {
            let pod = self.get(name).await.unwrap_or_default();
            if holds(&pod) {
                return pod;
            }
            if clock.now() > end {
                let log = fs::read_to_string(self.containerd.path("log")).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(8).collect();
                panic!("{name}: {what}: {:#}\nevents: {:#?}\n{tail:#?}", pod["status"], self.events(name).await);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn running(&self, name: &str) -> Value {
        self.until(name, "runs", |pod| pod["status"]["phase"] == "Running" && condition(pod, "Ready")).await
    }

    pub(crate) async fn gone(&self, name: &str) {
        self.until(name, "is gone", Value::is_null).await;
    }

    /// Deletes a pod, and waits until nothing is left of it anywhere.
    pub(crate) async fn delete(&self, name: &str) {
        let uid = self.get(name).await.expect("it is there")["metadata"]["uid"].as_str().expect("a uid").to_owned();
        self.api().delete(name, &DeleteParams::default()).await.expect("it may go");
        self.gone(name).await;
        self.no_trace(&uid).await;
    }

    pub(crate) async fn events(&self, name: &str) -> Vec<String> {
        let api: Api<Event> = Api::namespaced(self.cluster.admin(), "default");
        let found = api.list(&ListParams::default()).await.expect("events");
        let about = found.items.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(name));
        about
            .map(|event| format!("{}: {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default()))
            .collect()
    }

    /// Waits until the runtime has nothing of a pod, and its cgroup and files are gone.
    pub(crate) async fn no_trace(&self, uid: &str) {
        let traces = async || {
            let sandboxes = self.containerd.cri().list_pod_sandbox(v1::ListPodSandboxRequest::default()).await;
            let in_runtime =
                sandboxes.expect("it answers").items.iter().any(|one| one.labels.values().any(|value| value == uid));
            let in_cgroups = has_cgroup(Path::new("/sys/fs/cgroup"), &self.cgroup_root, uid);
            let files = self.containerd.path("kubelet/pods").join(uid);
            let left = [
                ("a sandbox", in_runtime),
                ("a cgroup", in_cgroups),
                ("a directory", files.exists()),
                ("an entry", self.pods.borrow().pods.contains_key(uid)),
            ];
            left.into_iter().filter(|(_, is_left)| *is_left).map(|(what, _)| what).collect::<Vec<_>>()
        };
        let clock = self.cluster.clock().clone();
        let end = clock.now() + LIMIT * 2;
        loop {
            let left = traces().await;
            if left.is_empty() {
                return;
            }
            assert!(clock.now() < end, "of pod {uid} there is left: {left:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(crate) fn condition(pod: &Value, kind: &str) -> bool {
    let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.iter().any(|one| one["type"] == kind && one["status"] == "True")
}

pub(crate) fn sleeper() -> Value {
    json!({"name": "c", "image": "busybox:latest", "imagePullPolicy": "Never", "command": ["sleep", "1000"]})
}

pub(crate) fn script(name: &str, text: &str) -> Value {
    json!({"name": name, "image": "busybox:latest", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", text]})
}
