//! A node with too little disk, over containers that really run: what is left over goes first, then the pod.

use std::future::{Future, ready};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use k3sd_cri::v1;
use k3sd_kubelet_base::{ContainerState, ContainerView, PodView, PodsSnapshot};
use k3sd_kubelet_cgroups::{CgroupSources, Cgroups, Driver, PodLimits, QosClass, Removal};
use k3sd_kubelet_node::eviction::{Evict, Eviction};
use serde_json::json;
use tokio::sync::mpsc;

use super::runtime::{Containerd, UID};
use super::{Bare, condition, start, wait_for};

/// The cgroup above those of this test.
const ROOT: &str = "k3sd-test-node-object";

/// Takes the cgroups of this test away at its end, however that came.
pub(super) struct Roof(pub(super) &'static str);

impl Drop for Roof {
    fn drop(&mut self) {
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        hierarchies.map(|hierarchy| hierarchy.path().join(self.0)).for_each(|path| remove(&path));
        remove(&Path::new("/sys/fs/cgroup").join(self.0));
    }
}

/// Removes a cgroup and those in it.
fn remove(path: &Path) {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).for_each(|entry| remove(&entry.path()));
    std::fs::remove_dir(path).ok();
}

/// Notes who has to go.
#[derive(Debug)]
pub(super) struct Notes(pub(super) mpsc::Sender<Eviction>);

impl Evict for Notes {
    fn evict(&self, eviction: Eviction) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        Box::pin(ready(self.0.try_send(eviction).is_ok()))
    }
}

pub(super) fn view(sandbox: &str, container: &str, log: &Path, cgroup: PathBuf) -> PodView {
    let pod = json!({
        "metadata": {"name": "p", "namespace": "default", "uid": UID},
        "spec": {"containers": [{"name": "c", "image": "busybox"}], "hostNetwork": true},
        "status": {"phase": "Running"},
    });
    PodView {
        pod: Arc::new(serde_json::from_value(pod).expect("a pod")),
        uid: UID.to_owned(),
        sandbox: Some(sandbox.to_owned()),
        addresses: Vec::new(),
        cgroup: Some(cgroup),
        containers: vec![ContainerView {
            name: "c".to_owned(),
            id: container.to_owned(),
            attempt: 2,
            state: ContainerState::Running,
            log: log.to_owned(),
            image: "busybox".to_owned(),
        }],
    }
}

/// Ids of all containers, and names of all images.
async fn left(runtime: &Containerd) -> (Vec<String>, Vec<String>) {
    let cri = runtime.cri();
    let containers = cri.list_containers(v1::ListContainersRequest::default()).await.expect("it answers").containers;
    let images = cri.list_images(v1::ListImagesRequest::default()).await.expect("it answers").images;
    let names = images.into_iter().flat_map(|image| image.repo_tags).collect();
    (containers.into_iter().map(|container| container.id).collect(), names)
}

/// Waits, without a cluster.
pub(super) async fn wait_until_gone(mut holds: impl AsyncFnMut() -> bool) {
    let until = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), until).await.expect("the cgroup goes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_too_little_disk_frees_what_it_can() {
    let _roof = Roof(ROOT); // Goes after the runtime, which ends what is in them.
    let Some(runtime) = Containerd::start().await else { return };
    runtime.is_up().await;
    if !runtime.import() {
        return;
    }
    runtime.give_network();
    let root = tempfile::tempdir().expect("a directory");
    let logs = root.path().join("logs");
    let Ok(cgroups) = Cgroups::detect(&CgroupSources::default(), Driver::Cgroupfs, ROOT) else {
        println!("ignored: there are no cgroups");
        return;
    };
    let limits = PodLimits { cpu_shares: 2, cpu_period: 100_000, ..PodLimits::default() };
    let cgroup = cgroups.ensure_pod(UID, QosClass::BestEffort, &limits).await.expect("a cgroup");
    let parent = cgroups.parent_for_cri(UID, QosClass::BestEffort).expect("its name");
    let sandbox = runtime.sandbox(&logs, &parent).await;
    let first = runtime.container(&sandbox, 0, "exit 1").await;
    let second = runtime.container(&sandbox, 1, "exit 1").await;
    let script = "while sleep 0.05; do echo 0123456789012345678901234567890123456789; done";
    let third = runtime.container(&sandbox, 2, script).await;
    let log = logs.join(format!("default_p_{UID}/c/2.log"));

    let (notes, mut noted) = mpsc::channel(16);
    let pods = PodsSnapshot { pods: [(UID.to_owned(), Arc::new(view(&sandbox.0, &third, &log, cgroup)))].into() };
    let mut bare = Bare { pods, evict: Arc::new(Notes(notes)), ..Bare::new(root.path()) };
    bare.kubelet.eviction_hard = [("nodefs.available".to_owned(), "99.999%".to_owned())].into();
    bare.kubelet.image_minimum_gc_age = Duration::ZERO;
    bare.kubelet.container_log_max_size = "1Ki".to_owned();
    bare.kubelet.container_log_monitor_interval = Duration::from_millis(500);
    let Some((cluster, figures)) = start(&runtime, root.path(), bare).await else { return };

    let eviction = tokio::time::timeout(Duration::from_secs(40), noted.recv()).await.expect("in time").expect("a note");
    assert_eq!((eviction.uid.as_str(), eviction.reason, eviction.grace_seconds), (UID, "Evicted", 1));
    let beginning = "The node was low on resource: ephemeral-storage. Threshold quantity: ";
    assert!(eviction.message.starts_with(beginning), "{}", eviction.message);
    let consumer = "Container c was using ";
    assert!(eviction.message.contains(consumer), "{}", eviction.message);
    let short =
        wait_for(&cluster, "the node says what it is short of", |node| condition(node, "DiskPressure")[0] == "True");
    assert_eq!(condition(&short.await, "DiskPressure")[1], "KubeletHasDiskPressure");

    // Of a container the newest dead one stays, for its log; of images those that run.
    let (containers, images) = left(&runtime).await;
    let there = [&first, &second, &third].map(|id| containers.contains(id));
    assert_eq!(there, [false, true, true]);
    let has = |name: &str| images.iter().any(|image| image.contains(name));
    assert!(has("busybox") && !has("unused"), "{images:?}");

    let rotated = async || {
        let names = std::fs::read_dir(log.parent().expect("a directory")).expect("it is there");
        let names: Vec<String> = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        let is_growing = std::fs::metadata(&log).is_ok_and(|found| found.len() > 0);
        is_growing && names.iter().any(|name| name.ends_with(".gz")) && names.contains(&"2.log".to_owned())
    };
    cluster.wait_within(Duration::from_secs(15), "the log is moved on, packed and written to", rotated).await;

    let measured = async || {
        let summary = figures.summary().await.expect("it is measured");
        let container = summary.pods.first().and_then(|pod| pod.containers.first().cloned());
        container.is_some_and(|one| one.memory.is_some_and(|memory| memory.working_set_bytes > Some(0)))
    };
    cluster.wait_within(Duration::from_secs(15), "the container is measured", measured).await;
    let text = figures.cadvisor_metrics().await.expect("it is measured");
    assert!(text.contains("container_memory_working_set_bytes{container=\"c\""), "{text}");
    cluster.stop().await;
    let stop = v1::StopPodSandboxRequest { pod_sandbox_id: sandbox.0.clone() };
    runtime.cri().stop_pod_sandbox(stop).await.expect("it stops");
    let gone = v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox.0 };
    runtime.cri().remove_pod_sandbox(gone).await.expect("it goes");
    let gone = async || matches!(cgroups.remove_pod(UID).await, Ok(Removal::Gone));
    wait_until_gone(gone).await;
}
