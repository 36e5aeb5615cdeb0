//! Pods that together use nearly all the memory that pods may have: real memory, in a small cgroup.

use std::sync::Arc;
use std::time::Duration;

use k3sd_cri::v1;
use k3sd_kubelet_base::PodsSnapshot;
use k3sd_kubelet_cgroups::{CgroupSources, Cgroups, Driver, NodeLimits, PodLimits, QosClass, Removal};
use tokio::sync::mpsc;

use super::garbage::{Notes, Roof, view, wait_until_gone};
use super::runtime::{Containerd, UID};
use super::{Bare, condition, start, wait_for};

/// The cgroup above those of this test.
const ROOT: &str = "k3sd-test-node-memory";
/// What pods may use together; what one of them uses, in MiB.
const LIMIT_BYTES: u64 = 96 << 20;
const USED_MIB: u32 = 48;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_pods_fill_their_memory_ends_one() {
    let _roof = Roof(ROOT);
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
    let limits = NodeLimits { cpu_milli: 1000, memory: Some(LIMIT_BYTES), ..NodeLimits::default() };
    cgroups.ensure_qos(&limits, 0).await.expect("the cgroup of all pods");
    let limits = PodLimits { cpu_shares: 2, cpu_period: 100_000, ..PodLimits::default() };
    let cgroup = cgroups.ensure_pod(UID, QosClass::BestEffort, &limits).await.expect("a cgroup");
    let parent = cgroups.parent_for_cri(UID, QosClass::BestEffort).expect("its name");
    let sandbox = runtime.sandbox(&logs, &parent).await;
    let script = format!("dd if=/dev/zero of=/dev/shm/f bs=1M count={USED_MIB} && touch /tmp/done; sleep 600");
    let container = runtime.container(&sandbox, 0, &script).await;
    let is_full = async || {
        let cmd = ["test", "-e", "/tmp/done"].map(str::to_owned).to_vec();
        let asked = v1::ExecSyncRequest { container_id: container.clone(), cmd, timeout: 5 };
        runtime.cri().exec_sync(asked).await.is_ok_and(|done| done.exit_code == 0)
    };
    wait_until_gone(is_full).await;

    let (notes, mut noted) = mpsc::channel(16);
    let log = logs.join(format!("default_p_{UID}/c/0.log"));
    let pods = PodsSnapshot { pods: [(UID.to_owned(), Arc::new(view(&sandbox.0, &container, &log, cgroup)))].into() };
    let mut bare = Bare { pods, evict: Arc::new(Notes(notes)), cgroup_root: ROOT, ..Bare::new(root.path()) };
    // The machine has that much left, the cgroup of its pods doesn't.
    bare.kubelet.eviction_hard = [("memory.available".to_owned(), "64Mi".to_owned())].into();
    bare.kubelet.eviction_pressure_transition_period = Duration::from_secs(1);
    let Some((cluster, figures)) = start(&runtime, root.path(), bare).await else { return };
    let eviction = tokio::time::timeout(Duration::from_secs(20), noted.recv()).await.expect("in time").expect("a note");
    assert_eq!((eviction.uid.as_str(), eviction.reason, eviction.grace_seconds), (UID, "Evicted", 1));
    let beginning = "The node was low on resource: memory. Threshold quantity: 64Mi, available: ";
    assert!(eviction.message.starts_with(beginning), "{}", eviction.message);
    let short =
        wait_for(&cluster, "the node says what it is short of", |node| condition(node, "MemoryPressure")[0] == "True");
    assert_eq!(condition(&short.await, "MemoryPressure")[1], "KubeletHasInsufficientMemory");
    let summary = figures.summary().await.expect("it is measured");
    let used = summary.pods[0].memory.as_ref().and_then(|memory| memory.working_set_bytes);
    assert!(used >= Some(u64::from(USED_MIB) << 20), "{used:?}");

    // Whoever is told ends the pod; then there is room, and after a while the node says so.
    let stop = v1::StopPodSandboxRequest { pod_sandbox_id: sandbox.0.clone() };
    runtime.cri().stop_pod_sandbox(stop).await.expect("it stops");
    let gone = v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox.0 };
    runtime.cri().remove_pod_sandbox(gone).await.expect("it goes");
    let enough =
        wait_for(&cluster, "the node has enough again", |node| condition(node, "MemoryPressure")[0] == "False").await;
    assert_eq!(condition(&enough, "MemoryPressure")[1], "KubeletHasSufficientMemory");
    cluster.stop().await;
    wait_until_gone(async || matches!(cgroups.remove_pod(UID).await, Ok(Removal::Gone))).await;
}
