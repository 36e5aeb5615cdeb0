//! Small bridges between the parts, none of which knows another.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use k3sd_cri::Cri;
use k3sd_kubelet_base::Pods;
use k3sd_kubelet_base::stats::{ClaimReference, Figures as Measures, FsStats, Measuring, Summary, VolumeStats};
use k3sd_kubelet_cgroups::{CPU_PERIOD_US, pod_limits};
use k3sd_kubelet_node::devices::Devices;
use k3sd_kubelet_node::eviction::{self, Evict, Eviction, EvictionCounts};
use k3sd_kubelet_node::figures::{Figures, VolumeFigures};
use k3sd_kubelet_pods::translate::mounts::HostVolume;
use k3sd_kubelet_pods::{DeviceGrant, PodDevices, PodVolumes, PodsHandle};
use k3sd_kubelet_volumes::{PodIdentity, SubPath, VolumeCounts, Volumes};
use k3sd_runtime::exposition::{head, line};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

/// Volumes, for those who run pods.
#[derive(Clone, Debug)]
pub(crate) struct PodsVolumes {
    pub(crate) volumes: Volumes,
}

/// Who the pod is on this node. The pods' part has given static pods their own uid.
fn who(pod: &Pod) -> PodIdentity {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let fs_group = context.and_then(|context| context.fs_group).and_then(|group| u32::try_from(group).ok());
    PodIdentity {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        fs_group,
        memory_limit: pod_limits(pod, CPU_PERIOD_US, true, None).memory_limit,
    }
}

impl PodVolumes for PodsVolumes {
    fn set_up<'a>(&'a self, pod: &'a Arc<Pod>) -> BoxFuture<'a, Result<BTreeMap<String, HostVolume>, String>> {
        Box::pin(async move {
            let mounted = self.volumes.set_up(pod, &who(pod)).await.map_err(|error| error.event())?;
            let one = |(name, volume): (String, k3sd_kubelet_volumes::HostVolume)| {
                let path = volume.path.to_string_lossy().into_owned();
                (name, HostVolume { path, read_only: volume.read_only, relabel: volume.selinux_relabel })
            };
            Ok(mounted.volumes.into_iter().map(one).collect())
        })
    }

    fn sub_path<'a>(
        &'a self,
        pod: &'a Arc<Pod>,
        volume: (&'a str, &'a HostVolume),
        container: (&'a str, usize),
        path: &'a str,
    ) -> BoxFuture<'a, Result<String, String>> {
        let wanted = SubPath {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            volume: volume.0.to_owned(),
            host_path: PathBuf::from(&volume.1.path),
            sub_path: path.to_owned(),
            container: container.0.to_owned(),
            index: container.1,
            read_only: volume.1.read_only,
        };
        Box::pin(async move {
            let found = self.volumes.sub_path(wanted).await.map_err(|error| error.event())?;
            Ok(found.to_string_lossy().into_owned())
        })
    }

    fn tear_down<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { self.volumes.tear_down(uid).await.map_err(|error| error.event()) })
    }

    fn leftovers(&self) -> BoxFuture<'_, Vec<String>> {
        Box::pin(async move { self.volumes.mounted_uids().await.unwrap_or_default() })
    }
}

/// Sizes of volumes, for figures and eviction.
pub(crate) fn volume_figures(volumes: Volumes, pods: Pods) -> VolumeFigures {
    VolumeFigures::new(move |uid| {
        let volumes = volumes.clone();
        let pod = pods.borrow().pods.get(&uid).map(|view| view.pod.clone());
        let namespace = pod.and_then(|pod| pod.metadata.namespace.clone()).unwrap_or_default();
        Box::pin(async move {
            let usage = volumes.usage(&uid).await.unwrap_or_default();
            let one = |(name, usage): (String, k3sd_kubelet_volumes::VolumeUsage)| {
                let fs = FsStats {
                    available_bytes: usage.available_bytes,
                    capacity_bytes: usage.capacity_bytes,
                    used_bytes: usage.used_bytes,
                    inodes_free: usage.inodes_free,
                    inodes: usage.inodes,
                    inodes_used: usage.inodes_used,
                    ..FsStats::default()
                };
                let claim = usage.claim.map(|name| ClaimReference { name, namespace: namespace.clone() });
                VolumeStats { fs, name, claim, ..VolumeStats::default() }
            };
            usage.into_iter().map(one).collect()
        })
    })
}

/// Devices, for those who run pods.
#[derive(Clone, Debug)]
pub(crate) struct NodeDevices(pub(crate) Devices);

impl PodDevices for NodeDevices {
    fn allocate<'a>(
        &'a self,
        pod: &'a Arc<Pod>,
        uid: &'a str,
        container: &'a str,
    ) -> BoxFuture<'a, Result<DeviceGrant, String>> {
        Box::pin(async move {
            let given = self.0.allocate(pod, uid, container).await.map_err(|error| error.to_string())?;
            let mounts = given.mounts.into_iter().map(|one| (one.container_path, one.host_path, one.read_only));
            let devices = given.nodes.into_iter().map(|one| (one.container_path, one.host_path, one.permissions));
            Ok(DeviceGrant {
                variables: given.envs,
                mounts: mounts.collect(),
                devices: devices.collect(),
                annotations: given.annotations,
                named: given.cdi,
            })
        })
    }
}

/// Makes pods go, for eviction.
#[derive(Clone, Debug)]
pub(crate) struct Evictor(pub(crate) PodsHandle);

impl Evict for Evictor {
    fn evict(&self, eviction: Eviction) -> BoxFuture<'static, bool> {
        let Eviction { uid, reason, message, grace_seconds } = eviction;
        let found = self.0.evict(&uid, reason, &message, Some(grace_seconds));
        let handle = self.0.clone();
        Box::pin(async move {
            if found {
                handle.stopped(&uid).await;
            }
            found
        })
    }
}

/// What is measured, for the server.
#[derive(Clone, Debug)]
pub(crate) struct ServedFigures {
    pub(crate) figures: Figures,
    pub(crate) evictions: watch::Receiver<EvictionCounts>,
    pub(crate) volumes: Volumes,
    pub(crate) handle: PodsHandle,
    pub(crate) cri: Cri,
    /// The node's version.
    pub(crate) version: String,
}

impl Measures for ServedFigures {
    fn summary(&self, only_cpu_and_memory: bool) -> Measuring<'_, Summary> {
        Box::pin(async move {
            let measured = match only_cpu_and_memory {
                true => self.figures.look_at_containers().await.map(|found| found.summary.clone()),
                false => self.figures.summary().await,
            };
            measured.map_err(|error| error.to_string())
        })
    }

    fn resource_metrics(&self) -> Measuring<'_, String> {
        Box::pin(async move { self.figures.resource_metrics().await.map_err(|error| error.to_string()) })
    }

    fn container_metrics(&self) -> Measuring<'_, String> {
        Box::pin(async move { self.figures.cadvisor_metrics().await.map_err(|error| error.to_string()) })
    }

    fn probe_metrics(&self) -> Measuring<'_, String> {
        Box::pin(std::future::ready(Ok(self.handle.probe_metrics())))
    }

    fn own_metrics(&self) -> Measuring<'_, String> {
        Box::pin(async move {
            let mut text = String::new();
            head(&mut text, "kubernetes_build_info", "gauge", "What this is a build of.");
            line(&mut text, "kubernetes_build_info", &build(&self.version), 1);
            self.handle.write_metrics(&mut text);
            self.cri.write_metrics(&mut text);
            eviction::write_metrics(&self.evictions.borrow(), &mut text);
            if let Ok(counts) = self.volumes.counts().await {
                volume_counts(&counts, &mut text);
            }
            match self.figures.volume_metrics().await {
                Ok(volumes) => text.push_str(&volumes),
                Err(error) => tracing::debug!(%error, "volumes can't be measured"),
            }
            Ok(text)
        })
    }
}

/// How many volumes pods want, and have, by the plugin that serves them.
fn volume_counts(counts: &VolumeCounts, text: &mut String) {
    let name = "volume_manager_total_volumes";
    head(text, name, "gauge", "Volumes that pods want, and that they have.");
    for (plugin, (wanted, mounted)) in counts {
        for (state, count) in [("actual_state_of_world", mounted), ("desired_state_of_world", wanted)] {
            line(text, name, &format!("plugin_name=\"{plugin}\",state=\"{state}\""), count);
        }
    }
}

/// The labels of a version, as in `v1.34.1+k3sd1`.
fn build(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let mut number = || numbers.next().unwrap_or_default();
    let (major, minor) = (number(), number());
    format!("git_version=\"{version}\",major=\"{major}\",minor=\"{minor}\",platform=\"linux/{}\"", arch())
}

/// The architecture in Go's words.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_told_in_parts() {
        assert!(build("v1.34.1+k3sd1").starts_with("git_version=\"v1.34.1+k3sd1\",major=\"1\",minor=\"34\",platform="));
    }
}
