//! Volumes, as the volumes' part has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use k3sd_kubelet_cgroups::{CPU_PERIOD_US, pod_limits};
use k3sd_kubelet_volumes::{PodIdentity, SubPath, Volumes};
use k8s_openapi::api::core::v1::Pod;

use crate::config::PodVolumes;
use crate::spec;
use crate::translate::mounts::HostVolume;

fn identity(pod: &Pod) -> PodIdentity {
    let group = spec::spec(pod).security_context.as_ref().and_then(|context| context.fs_group);
    PodIdentity {
        uid: spec::uid(pod).to_owned(),
        fs_group: group.and_then(|group| u32::try_from(group).ok()),
        memory_limit: pod_limits(pod, CPU_PERIOD_US, true, None).memory_limit,
    }
}

/// An error with what it was caused by, for an event.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl PodVolumes for Volumes {
    fn set_up<'a>(&'a self, pod: &'a Arc<Pod>) -> BoxFuture<'a, Result<BTreeMap<String, HostVolume>, String>> {
        Box::pin(async move {
            let mounted = Self::set_up(self, pod, &identity(pod)).await.map_err(|error| chain(&error))?;
            let of = |volume: k3sd_kubelet_volumes::HostVolume| HostVolume {
                path: volume.path.to_string_lossy().into_owned(),
                read_only: volume.read_only,
                relabel: volume.selinux_relabel,
            };
            Ok(mounted.volumes.into_iter().map(|(name, volume)| (name, of(volume))).collect())
        })
    }

    fn sub_path<'a>(
        &'a self,
        pod: &'a Arc<Pod>,
        (name, volume): (&'a str, &'a HostVolume),
        (container, index): (&'a str, usize),
        path: &'a str,
    ) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async move {
            let wanted = SubPath {
                uid: spec::uid(pod).to_owned(),
                volume: name.to_owned(),
                host_path: volume.path.clone().into(),
                sub_path: path.to_owned(),
                container: container.to_owned(),
                index,
                read_only: volume.read_only,
            };
            let made = Self::sub_path(self, wanted).await.map_err(|error| chain(&error))?;
            Ok(made.to_string_lossy().into_owned())
        })
    }

    fn tear_down<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { Self::tear_down(self, uid).await.map_err(|error| chain(&error)) })
    }

    fn leftovers(&self) -> BoxFuture<'_, Vec<String>> {
        Box::pin(async move {
            let found = self.mounted_uids().await;
            found
                .inspect_err(|error| tracing::info!(%error, "the pods that left volumes aren't known"))
                .unwrap_or_default()
        })
    }
}
