//! Pods, from the API to containers and back, over the API server in this process and a real containerd of the test's own.
//! All are on the host's network, so that no CNI is needed.

use std::fs;
use std::os::unix::fs::symlink;
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
use k3sd_kubelet_pods::translate::dns::{DnsFacts, Resolver};
use k3sd_kubelet_pods::{PodsConfig, PodsDeps, PodsHandle, tree};
use k3sd_kubelet_volumes::{Allocatable, VolumesConfig};
use k3sd_runtime::{Clock, subtree};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

const NODE: &str = "one";
/// Shims of a container end within this long once it is removed.
const LIMIT: Duration = Duration::from_secs(20);

/// A containerd of the test's own, with busybox; gone with it, and with all that runs below it.
struct Containerd {
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
    /// `None` if the machine lacks what is needed; says so.
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
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nstream_server_port = \"0\"\nrestrict_oom_score_adj = true\n\
             sandbox_image = \"docker.io/library/pause:test\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n",
            at("root"),
            at("state"),
            at("sock"),
            at("ttrpc"),
        );
        fs::write(directory.path().join("config.toml"), config).expect("a file");
        let log = fs::File::create(directory.path().join("log")).expect("a file");
        let mut command = Command::new("containerd");
        command.arg("--config").arg(at("config.toml")).stdout(Stdio::null()).stderr(log);
        let started = Self { child: command.spawn().expect("it starts"), directory };
        Some(started)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn cri(&self) -> Cri {
        Cri::new(self.path("sock"))
    }

    async fn bring_images(&self) {
        let cri = self.cri();
        while cri.version(v1::VersionRequest::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let images =
            [busybox(Path::new("/bin/busybox")).expect("an image"), pause().renamed("docker.io/library/pause:test")];
        fs::write(self.path("images.tar"), BuiltImage::docker_archive(&images)).expect("a file");
        let socket = self.path("sock");
        let mut import = Command::new("ctr");
        import.arg("--address").arg(socket).args([
            "--namespace",
            "k8s.io",
            "images",
            "import",
            "--snapshotter",
            "native",
        ]);
        let done = import.arg(self.path("images.tar")).stdout(Stdio::null()).status().expect("ctr runs");
        assert!(done.success(), "the images are there");
    }
}

/// A control plane with one node's pods beside it.
struct World {
    cluster: Cluster,
    pods: Pods,
    handle: PodsHandle,
    containerd: Containerd,
    cgroup_root: String,
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

async fn world(name: &str) -> Option<World> {
    let containerd = Containerd::start()?;
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
        dns: DnsFacts {
            host: Resolver { servers: vec!["192.0.2.53".to_owned()], ..Resolver::default() },
            ..DnsFacts::default()
        },
        seccomp_default: false,
        memory_capacity: 8 << 30,
        cpu_quota: true,
        pids_max: None,
        pods_max: 20,
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
        addresses: watch::channel(vec!["192.0.2.1".to_owned()]).1,
        allocatable: watch::channel([("cpu".to_owned(), "4".parse().expect("a quantity"))].into()).1,
        devices: None,
        nudge: None,
    };
    let tree = tree(config, deps);
    let loops = vec![events, subtree("volumes", volumes.spec), subtree("pods", tree.spec)];
    let cluster = plane.start(loops).await;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}});
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(cluster.admin(), "default");
    accounts.create(&PostParams::default(), &serde_json::from_value(account).expect("one")).await.ok();
    Some(World { cluster, pods: tree.pods, handle: tree.handle, containerd, cgroup_root })
}

impl World {
    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.admin(), "default")
    }

    /// Creates a pod on the node with this spec.
    async fn create(&self, name: &str, mut spec: Value) -> Pod {
        for (key, value) in [
            ("nodeName", json!(NODE)),
            ("hostNetwork", json!(true)),
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

    async fn get(&self, name: &str) -> Option<Value> {
        let pod = self.api().get_opt(name).await.ok()??;
        serde_json::to_value(pod).ok()
    }

    /// Waits until the pod is like this.
    async fn until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
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

    async fn running(&self, name: &str) -> Value {
        self.until(name, "runs", |pod| pod["status"]["phase"] == "Running" && condition(pod, "Ready")).await
    }

    async fn gone(&self, name: &str) {
        self.until(name, "is gone", Value::is_null).await;
    }

    /// Deletes a pod, and waits until nothing is left of it anywhere.
    async fn delete(&self, name: &str) {
        let uid = self.get(name).await.expect("it is there")["metadata"]["uid"].as_str().expect("a uid").to_owned();
        self.api().delete(name, &DeleteParams::default()).await.expect("it may go");
        self.gone(name).await;
        self.no_trace(&uid).await;
    }

    async fn events(&self, name: &str) -> Vec<String> {
        let api: Api<Event> = Api::namespaced(self.cluster.admin(), "default");
        let found = api.list(&ListParams::default()).await.expect("events");
        let about = found.items.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(name));
        about
            .map(|event| format!("{}: {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default()))
            .collect()
    }

    /// Waits until the runtime has nothing of a pod, and its cgroup and files are gone.
    async fn no_trace(&self, uid: &str) {
        let has = async || {
            let sandboxes = self.containerd.cri().list_pod_sandbox(v1::ListPodSandboxRequest::default()).await;
            let in_runtime =
                sandboxes.expect("it answers").items.iter().any(|one| one.labels.values().any(|value| value == uid));
            let in_cgroups = has_cgroup(Path::new("/sys/fs/cgroup"), &self.cgroup_root, uid);
            in_runtime
                || in_cgroups
                || self.containerd.path("kubelet/pods").join(uid).exists()
                || self.pods.borrow().pods.contains_key(uid)
        };
        self.cluster.wait_until("no trace is left", async || !has().await).await;
    }
}

fn condition(pod: &Value, kind: &str) -> bool {
    let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.iter().any(|one| one["type"] == kind && one["status"] == "True")
}

fn sleeper() -> Value {
    json!({"name": "c", "image": "busybox:latest", "imagePullPolicy": "Never", "command": ["sleep", "1000"]})
}

fn script(name: &str, text: &str) -> Value {
    json!({"name": name, "image": "busybox:latest", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", text]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_outlives_its_actors_and_goes() {
    let Some(world) = world("run").await else { return };
    let mut probed = sleeper();
    probed["readinessProbe"] = json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
    let made = world.create("web", json!({"containers": [probed]})).await;
    let uid = made.metadata.uid.expect("a uid");
    let pod = world.running("web").await;
    let status = &pod["status"]["containerStatuses"][0];
    let id = status["containerID"].as_str().expect("an id").to_owned();
    assert!(id.starts_with("containerd://"), "{id}");
    assert_eq!(
        (&status["ready"], &status["started"], &status["restartCount"]),
        (&json!(true), &json!(true), &json!(0))
    );
    assert_eq!((&pod["status"]["hostIP"], &pod["status"]["podIP"]), (&json!("192.0.2.1"), &json!("192.0.2.1")));
    for kind in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "PodScheduled"] {
        assert!(condition(&pod, kind), "{kind}: {pod:#}");
    }
    world.cluster.wait_until("events are written", async || world.events("web").await.len() >= 3).await;
    let events = world.events("web").await;
    assert!(events.contains(&"Started: Started container c".to_owned()), "{events:?}");

    for path in [&format!("loops/pods/workers/{uid}"), "loops/pods/manager", "loops/pods/relist", "loops/pods/workers"]
    {
        world.cluster.kill(path);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let pod = world.get("web").await.expect("it is there");
        assert!(condition(&pod, "Ready"), "after {path} was killed: {:#}", pod["status"]);
        assert_eq!(pod["status"]["containerStatuses"][0]["containerID"], json!(id), "after {path} was killed");
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], json!(0));
    }

    world.delete("web").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_end_and_say_how() {
    let Some(world) = world("jobs").await else { return };
    let mut good = script("c", "echo $GREETING > /dev/termination-log");
    good["env"] = json!([{"name": "WHO", "value": "you"}, {"name": "GREETING", "value": "hello $(WHO)"}]);
    world.create("good", json!({"restartPolicy": "Never", "containers": [good]})).await;
    let mut bad = script("c", "echo oh no; exit 3");
    bad["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    world.create("bad", json!({"restartPolicy": "Never", "containers": [bad]})).await;
    let stopped = world.until("good", "succeeds", |pod| pod["status"]["phase"] == "Succeeded").await;
    let ended = &stopped["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["reason"], &ended["message"]),
        (&json!(0), &json!("Completed"), &json!("hello you\n"))
    );
    let failed = world.until("bad", "fails", |pod| pod["status"]["phase"] == "Failed").await;
    let ended = &failed["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["reason"], &ended["message"]),
        (&json!(3), &json!("Error"), &json!("oh no\n"))
    );
    for name in ["good", "bad"] {
        world.delete(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_started_again_later_and_later() {
    let Some(world) = world("crash").await else { return };
    world.create("crash", json!({"containers": [script("c", "exit 1")]})).await;
    let waits = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let pod = world.until("crash", "waits", waits).await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!((&status["restartCount"], &status["lastState"]["terminated"]["exitCode"]), (&json!(1), &json!(1)));
    let message = status["state"]["waiting"]["message"].as_str().expect("a message");
    assert!(message.starts_with("back-off 10s restarting failed container=c pod=crash_default("), "{message}");
    world.create("absent", json!({"containers": [{"name": "c", "image": "none:1", "imagePullPolicy": "Never"}]})).await;
    let never =
        |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull";
    world.until("absent", "can't have its image", never).await;
    world
        .create(
            "big",
            json!({"containers": [{"name": "c", "image": "busybox:latest", "resources": {"requests": {"cpu": "5"}}}]}),
        )
        .await;
    let refused = world.until("big", "is refused", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(refused["status"]["reason"], json!("OutOfcpu"));
    for name in ["crash", "absent", "big"] {
        world.delete(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_probes_and_evictions_hold() {
    let Some(world) = world("order").await else { return };
    let mut side = script("s", "touch /shared/side; trap 'exit 0' TERM; while true; do sleep 0.1; done");
    side["restartPolicy"] = json!("Always");
    side["startupProbe"] = json!({"exec": {"command": ["test", "-e", "/shared/side"]}, "periodSeconds": 1});
    let init = script("i", "test ! -e /shared/side && touch /shared/init");
    let mut main = script("c", "test -e /shared/init && test -e /shared/side && touch /shared/ready && sleep 1000");
    main["readinessProbe"] = json!({"exec": {"command": ["test", "-e", "/shared/ready"]}, "periodSeconds": 1});
    for container in [&mut side, &mut main] {
        container["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    }
    let mut init = init;
    init["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    let spec =
        json!({"initContainers": [init, side], "containers": [main], "volumes": [{"name": "shared", "emptyDir": {}}]});
    let made = world.create("order", spec).await;
    let uid = made.metadata.uid.expect("a uid");
    let pod = world.running("order").await;
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], json!(0));
    assert_eq!(pod["status"]["initContainerStatuses"][1]["started"], json!(true));

    assert!(world.handle.evict(&uid, "Evicted", "The node was low on resource: memory.", Some(1)));
    let evicted = world.until("order", "is evicted", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(evicted["status"]["reason"], json!("Evicted"));
    assert!(condition(&evicted, "DisruptionTarget"), "{:#}", evicted["status"]);
    world.delete("order").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn static_pods_have_mirrors() {
    let Some(world) = world("static").await else { return };
    let file = |seconds: u32| {
        let mut container = sleeper();
        container["command"] = json!(["sleep", seconds.to_string()]);
        let spec = json!({"hostNetwork": true, "terminationGracePeriodSeconds": 1, "containers": [container]});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}).to_string()
    };
    let path = world.containerd.path("manifests/web.yaml");
    fs::write(&path, file(1000)).expect("a file");
    let mirror = world.running("web-one").await;
    let hash = mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"].clone();
    assert_eq!(mirror["metadata"]["annotations"]["kubernetes.io/config.source"], json!("file"));
    let id = mirror["status"]["containerStatuses"][0]["containerID"].clone();

    world.api().delete("web-one", &DeleteParams::default().grace_period(0)).await.expect("it may go");
    let uid = mirror["metadata"]["uid"].clone();
    let again = world.until("web-one", "is back", |pod| condition(pod, "Ready") && pod["metadata"]["uid"] != uid).await;
    assert_eq!(again["status"]["containerStatuses"][0]["containerID"], id, "the pod itself never stopped");

    fs::write(&path, file(1001)).expect("a file");
    let changed =
        |pod: &Value| condition(pod, "Ready") && pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] != hash;
    world.until("web-one", "is another", changed).await;
    // A link that leads nowhere is no pod, and does no harm.
    symlink("/nowhere", world.containerd.path("manifests/broken.yaml")).expect("a link");
    fs::remove_file(&path).expect("it is there");
    world.gone("web-one").await;
    world.cluster.wait_until("nothing runs", async || world.pods.borrow().pods.is_empty()).await;
}
