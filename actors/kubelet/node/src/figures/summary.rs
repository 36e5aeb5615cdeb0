//! From measurements to the types of the summary API: pure.

use std::collections::HashMap;

use k3sd_cri::v1;
use k3sd_kubelet_base::stats::{
    ContainerStats, CpuStats, FsStats, MemoryStats, PodReference, PodStats, ProcessStats, SwapStats, VolumeStats,
};
use k3sd_kubelet_base::{ContainerState, ContainerView, PodView};
use k3sd_kubelet_cgroups::CgroupStats;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::status::FileSystem;

/// A file system with what a part of it uses.
pub(super) fn fs(found: &FileSystem, used: Option<u64>, inodes_used: Option<u64>, time: &Time) -> FsStats {
    FsStats {
        time: Some(time.clone()),
        available_bytes: Some(found.available),
        capacity_bytes: Some(found.capacity),
        used_bytes: used,
        inodes_free: Some(found.inodes_free),
        inodes: Some(found.inodes),
        inodes_used,
    }
}

pub(super) fn cpu(stats: &CgroupStats, nano_cores: Option<u64>, time: &Time) -> CpuStats {
    CpuStats {
        time: Some(time.clone()),
        usage_nano_cores: nano_cores,
        usage_core_nano_seconds: stats.cpu_usage_ns,
        ..CpuStats::default()
    }
}

pub(super) fn memory(stats: &CgroupStats, time: &Time) -> MemoryStats {
    let available = stats.memory_limit.zip(stats.memory_working_set).map(|(limit, used)| limit.saturating_sub(used));
    MemoryStats {
        time: Some(time.clone()),
        available_bytes: available,
        usage_bytes: stats.memory_usage,
        working_set_bytes: stats.memory_working_set,
        rss_bytes: stats.memory_rss,
        page_faults: stats.page_faults,
        major_page_faults: stats.major_page_faults,
        ..MemoryStats::default()
    }
}

pub(super) fn swap(stats: &CgroupStats, time: &Time) -> Option<SwapStats> {
    stats.memory_swap.map(|used| SwapStats {
        time: Some(time.clone()),
        swap_usage_bytes: Some(used),
        ..SwapStats::default()
    })
}

/// Whether a volume of a pod counts as the pod's own use of the node's disks: others' data don't, nor does memory.
pub(crate) fn is_local(pod: &Pod, volume: &str) -> bool {
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let Some(found) = volumes.find(|one| one.name == volume) else { return false };
    let on_disk = |empty_dir: &EmptyDirVolumeSource| empty_dir.medium.as_deref().unwrap_or_default().is_empty();
    found.empty_dir.as_ref().is_some_and(on_disk) || found.config_map.is_some() || found.git_repo.is_some()
}

/// What was measured of a pod.
pub(super) struct Measured<'a> {
    pub(super) view: &'a PodView,
    /// Its cgroup, with its cores.
    pub(super) cgroup: Option<(CgroupStats, Option<u64>)>,
    /// What the runtime says of containers, by id.
    pub(super) containers: &'a HashMap<String, v1::ContainerStats>,
    /// What cgroups say of its containers, by id, with their cores.
    pub(super) own_cgroups: HashMap<String, (CgroupStats, Option<u64>)>,
    /// Bytes of the log of each container, by the container's id.
    pub(super) logs: Vec<(String, u64)>,
    pub(super) volumes: Vec<VolumeStats>,
    pub(super) network: Option<k3sd_kubelet_base::stats::NetworkStats>,
    /// The file systems of the kubelet's root and of layers.
    pub(super) root_fs: &'a FileSystem,
    pub(super) image_fs: &'a FileSystem,
}

fn value(found: Option<&v1::UInt64Value>) -> Option<u64> {
    found.map(|found| found.value)
}

/// A container by its cgroup; by what the runtime says where that isn't to be seen.
fn container(measured: &Measured<'_>, view: &ContainerView, time: &Time) -> Option<ContainerStats> {
    let id = &view.id;
    let (stats, own) = (measured.containers.get(id), measured.own_cgroups.get(id));
    if stats.is_none() && own.is_none() {
        return None;
    }
    let cpu = own.map(|(own, cores)| cpu(own, *cores, time)).or_else(|| runtime_cpu(stats?, time));
    let memory = own.map(|(own, _)| memory(own, time)).or_else(|| runtime_memory(stats?, time));
    let layer = stats.and_then(|stats| stats.writable_layer.as_ref());
    let used = layer.and_then(|layer| value(layer.used_bytes.as_ref()));
    let inodes = layer.and_then(|layer| value(layer.inodes_used.as_ref()));
    let log = measured.logs.iter().find(|(of, _)| of == id).map(|(_, bytes)| *bytes);
    Some(ContainerStats {
        name: view.name.clone(),
        start_time: start_of(measured.view, &view.id),
        cpu,
        memory,
        rootfs: Some(fs(measured.image_fs, used, inodes, time)),
        logs: log.map(|bytes| fs(measured.root_fs, Some(bytes), None, time)),
        ..ContainerStats::default()
    })
}

fn runtime_cpu(stats: &v1::ContainerStats, time: &Time) -> Option<CpuStats> {
    stats.cpu.as_ref().map(|cpu| CpuStats {
        time: Some(time.clone()),
        usage_nano_cores: value(cpu.usage_nano_cores.as_ref()),
        usage_core_nano_seconds: value(cpu.usage_core_nano_seconds.as_ref()),
        ..CpuStats::default()
    })
}

fn runtime_memory(stats: &v1::ContainerStats, time: &Time) -> Option<MemoryStats> {
    stats.memory.as_ref().map(|memory| MemoryStats {
        time: Some(time.clone()),
        // A container without a limit says nothing useful here.
        available_bytes: value(memory.available_bytes.as_ref()).filter(|available| *available < 1 << 62),
        usage_bytes: value(memory.usage_bytes.as_ref()),
        working_set_bytes: value(memory.working_set_bytes.as_ref()),
        rss_bytes: value(memory.rss_bytes.as_ref()),
        page_faults: value(memory.page_faults.as_ref()),
        major_page_faults: value(memory.major_page_faults.as_ref()),
        ..MemoryStats::default()
    })
}

/// When a container was started, as its pod's status says.
fn start_of(view: &PodView, id: &str) -> Option<Time> {
    let status = view.pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let all = lists.into_iter().flat_map(|list| list.iter().flatten());
    let own = all.clone().find(|one| one.container_id.as_deref().is_some_and(|found| found.ends_with(id)))?;
    own.state.as_ref()?.running.as_ref()?.started_at.clone()
}

/// The sum of what is known; nothing if nothing is.
fn total(all: impl IntoIterator<Item = Option<u64>>) -> Option<u64> {
    all.into_iter().flatten().reduce(u64::saturating_add)
}

/// The figures of one pod.
pub(super) fn pod(measured: &Measured<'_>, time: &Time) -> PodStats {
    let metadata = &measured.view.pod.metadata;
    let containers: Vec<ContainerStats> =
        running(measured.view).filter_map(|view| container(measured, view, time)).collect();
    let (cgroup, cores) = match &measured.cgroup {
        Some((stats, cores)) => (Some(stats), *cores),
        None => (None, None),
    };
    let sum = |of: fn(&FsStats) -> Option<u64>| {
        let layers = containers.iter().flat_map(|container| [container.rootfs.as_ref(), container.logs.as_ref()]);
        let volumes = measured.volumes.iter().filter(|volume| is_local(&measured.view.pod, &volume.name));
        let volumes = volumes.map(|volume| Some(&volume.fs));
        total(layers.chain(volumes).map(|found| found.and_then(of)))
    };
    let ephemeral = fs(measured.root_fs, sum(|found| found.used_bytes), sum(|found| found.inodes_used), time);
    // Without a cgroup of its own a pod is the sum of its containers.
    let cpu_sum = || CpuStats {
        time: Some(time.clone()),
        usage_nano_cores: total(containers.iter().map(|one| one.cpu.as_ref()?.usage_nano_cores)),
        usage_core_nano_seconds: total(containers.iter().map(|one| one.cpu.as_ref()?.usage_core_nano_seconds)),
        ..CpuStats::default()
    };
    let memory_sum = || MemoryStats {
        time: Some(time.clone()),
        usage_bytes: total(containers.iter().map(|one| one.memory.as_ref()?.usage_bytes)),
        working_set_bytes: total(containers.iter().map(|one| one.memory.as_ref()?.working_set_bytes)),
        rss_bytes: total(containers.iter().map(|one| one.memory.as_ref()?.rss_bytes)),
        ..MemoryStats::default()
    };
    let start_time = measured.view.pod.status.as_ref().and_then(|status| status.start_time.clone());
    PodStats {
        pod_ref: PodReference {
            name: metadata.name.clone().unwrap_or_default(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            uid: measured.view.uid.clone(),
        },
        start_time: start_time.or_else(|| metadata.creation_timestamp.clone()),
        cpu: Some(cgroup.map_or_else(cpu_sum, |stats| cpu(stats, cores, time))),
        memory: Some(cgroup.map_or_else(memory_sum, |stats| memory(stats, time))),
        swap: cgroup.and_then(|stats| swap(stats, time)),
        processes: cgroup.and_then(|stats| stats.pids).map(|count| ProcessStats { process_count: Some(count) }),
        network: measured.network.clone(),
        volumes: measured.volumes.clone(),
        ephemeral_storage: Some(ephemeral),
        containers,
        ..PodStats::default()
    }
}

/// Its containers that run.
pub(super) fn running(view: &PodView) -> impl Iterator<Item = &ContainerView> {
    view.containers.iter().filter(|container| container.state == ContainerState::Running)
}

/// Whether anything of a pod runs.
pub(super) fn is_running(view: &PodView) -> bool {
    view.sandbox.is_some() || running(view).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_pods_on_disk_is_local() {
        let pod = serde_json::json!({"spec": {"containers": [], "volumes": [
            {"name": "disk", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
            {"name": "map", "configMap": {"name": "m"}},
            {"name": "secret", "secret": {"secretName": "s"}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "host", "hostPath": {"path": "/"}},
        ]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let names = ["disk", "memory", "map", "secret", "claim", "host", "none"];
        let local: Vec<_> = names.into_iter().filter(|name| is_local(&pod, name)).collect();
        assert_eq!(local, ["disk", "map"]);
    }
}
