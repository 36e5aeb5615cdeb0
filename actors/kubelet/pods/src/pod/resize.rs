//! Giving containers that run the resources that the pod was granted.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k3sd_cri::v1;
use k3sd_kubelet_cgroups::{CPU_PERIOD_US, PodLimits, pod_limits, qos_class};
use k8s_openapi::api::core::v1::Pod;

use super::record::{self, Record};
use super::sync::Worker;
use super::{Memory, Wanted};
use crate::plan::Kill;
use crate::resize::{self, Progress, asked, completed, granted, is_underway, lower_limit};
use crate::runtime::{Found, Runtime};
use crate::spec::{self, shown};
use crate::translate::resources::of_container;

/// What can't be done now is tried again after this: what a container uses changes without a word.
const RETRY: SignedDuration = SignedDuration::from_secs(5);

impl Worker<'_> {
    /// Changes what is kept of the pod's resources. Without a change nothing is written.
    fn keep(&self, change: impl FnOnce(&mut Record)) -> Result<(), String> {
        let before = self.entry.memory.borrow().record.clone();
        let mut made = Record::clone(&before);
        change(&mut made);
        if made == *before {
            return Ok(());
        }
        record::store(&self.shared.config.root, &self.entry.uid, &made)
            .map_err(|error| format!("can't keep what the pod's containers were granted: {error}"))?;
        self.entry.memory.send_modify(|memory| memory.record = Arc::new(made));
        Ok(())
    }

    /// Keeps what containers will have that are about to be started, before they are: one that starts right before this
    /// process dies has what is written.
    pub(super) fn remember_starts(&self, pod: &Pod, runtime: &Runtime, kills: &[Kill]) -> Result<(), String> {
        let now = asked(pod);
        let stays = |name: &String| {
            let found = runtime.running().find(|found| found.name == *name);
            found.is_some_and(|found| !kills.iter().any(|kill| kill.id == found.id))
        };
        self.keep(|record| {
            let fresh = now.iter().filter(|(name, _)| !stays(name));
            record.actual.extend(fresh.map(|(name, resources)| (name.clone(), resources.clone())));
            record.granted = now.clone();
        })
    }

    /// How far a resize is, for the status.
    pub(super) fn progress(&self, wanted: &Wanted, runtime: &Runtime, memory: &Memory) -> Progress {
        Progress {
            pending: wanted.pending.clone(),
            is_underway: is_underway(&wanted.pod, runtime, &memory.record.actual),
            error: memory.resize_failed.as_ref().map(|(error, _)| error.clone()),
            actual: memory.record.actual.clone(),
        }
    }

    /// The limits of a pod's cgroup: while containers still have more than they were granted, it has room for that.
    pub(super) fn limits_for_now(&self, pod: &Arc<Pod>) -> PodLimits {
        let record = self.entry.memory.borrow().record.clone();
        let had = granted(pod, &record.actual);
        resize::widest(&self.limits(&had), &self.limits(pod))
    }

    fn limits(&self, pod: &Pod) -> PodLimits {
        let config = &self.shared.config;
        pod_limits(pod, CPU_PERIOD_US, config.cpu_quota, config.pids_max)
    }

    /// Gives these containers what they were granted. What can't be done is told; answers when to try it again.
    pub(super) async fn resize(
        &mut self,
        wanted: &Wanted,
        runtime: &Runtime,
        names: &[String],
    ) -> Result<Option<Timestamp>, String> {
        let (memory, grant) = (self.entry.memory.borrow().clone(), asked(&wanted.pod));
        let again = memory.resize_failed.as_ref().filter(|_| memory.record.granted == grant).map(|(_, again)| *again);
        if again.is_some_and(|again| self.now() < again) {
            return Ok(again);
        }
        self.entry.memory.send_modify(|memory| memory.is_resizing = true);
        self.keep(|record| record.granted = grant)?;
        if memory.resize_failed.is_none() {
            self.tell(wanted, runtime, false);
        }
        let failed = self.resize_all(&wanted.pod, runtime, names).await.err().map(|error| {
            tracing::warn!(pod = shown(&wanted.pod), error, "a pod can't be resized now");
            (error, self.now().checked_add(RETRY).unwrap_or_default())
        });
        let again = failed.as_ref().map(|(_, again)| *again);
        self.entry.memory.send_modify(|memory| memory.resize_failed = failed);
        self.tell(wanted, runtime, false);
        Ok(again)
    }

    /// The pod's cgroup is widened first and narrowed last, so that what is in it always fits.
    async fn resize_all(&self, pod: &Arc<Pod>, runtime: &Runtime, names: &[String]) -> Result<(), String> {
        let running: Vec<&Found> = runtime.running().filter(|found| names.contains(&found.name)).collect();
        self.check_usage(pod, &running)?;
        self.limit(pod, &self.limits_for_now(pod)).await?;
        for found in running {
            let Some((_, container)) = spec::find(pod, &found.name) else { continue };
            let linux = of_container(pod, &container, self.shared.config.means());
            let asked = v1::UpdateContainerResourcesRequest {
                container_id: found.id.clone(),
                linux: Some(linux),
                ..v1::UpdateContainerResourcesRequest::default()
            };
            let told = self.cri().update_container_resources(asked).await;
            told.map_err(|error| format!("container {:?}: {}", found.name, error.status()))?;
            self.keep(|record| {
                record.actual.insert(found.name.clone(), container.resources.clone().unwrap_or_default());
            })?;
        }
        self.limit(pod, &self.limits(pod)).await
    }

    async fn limit(&self, pod: &Pod, limits: &PodLimits) -> Result<(), String> {
        let Some(cgroups) = &self.shared.deps.cgroups else { return Ok(()) };
        let told = cgroups.update_pod(&self.entry.uid, qos_class(pod), limits).await;
        told.map_err(|error| format!("the pod's cgroup: {error}"))
    }

    /// A limit below what is used would end the container, or be refused by the kernel.
    fn check_usage(&self, pod: &Pod, running: &[&Found]) -> Result<(), String> {
        let actual = self.entry.memory.borrow().record.actual.clone();
        let mut wrong = Vec::new();
        for found in running {
            let Some((_, container)) = spec::find(pod, &found.name) else { continue };
            let Some(limit) = lower_limit(&container, &actual) else { continue };
            // What isn't known is left to the kernel.
            let used = self.memory_used(pod, found);
            if let Some(used) = used.filter(|used| i64::try_from(*used).is_ok_and(|used| used > limit)) {
                wrong.push(format!(
                    "attempting to set container {:?} memory limit ({limit}) below current usage ({used})",
                    found.name
                ));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("cannot decrease memory limits: {}", wrong.join(", "))) }
    }

    /// Bytes of memory that a container can't do without. Its cgroup is named after it, in one of two ways.
    fn memory_used(&self, pod: &Pod, found: &Found) -> Option<u64> {
        let cgroups = self.shared.deps.cgroups.as_ref()?;
        let path = cgroups.pod_path(&self.entry.uid, qos_class(pod)).ok()?;
        let names = [found.id.clone(), format!("cri-containerd-{}.scope", found.id)];
        let mut all = names.iter().filter_map(|name| cgroups.stats(&path.join(name)).ok().flatten());
        all.find_map(|stats| stats.memory_working_set)
    }

    /// Nothing is left to be done: a resize that was under way is complete.
    pub(super) async fn resized(&self, wanted: &Wanted, runtime: &Runtime) {
        let memory = self.entry.memory.borrow().clone();
        if !memory.is_resizing || is_underway(&wanted.pod, runtime, &memory.record.actual) {
            return;
        }
        // Containers that were started anew left it wide.
        if let Err(error) = self.limit(&wanted.pod, &self.limits(&wanted.pod)).await {
            tracing::warn!(pod = shown(&wanted.pod), error, "a pod keeps more than it was granted");
        }
        self.entry.memory.send_modify(|memory| (memory.is_resizing, memory.resize_failed) = (false, None));
        super::event(self.shared, &wanted.pod, None, "Normal", "ResizeCompleted", &completed(&wanted.pod));
    }
}
