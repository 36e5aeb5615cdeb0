//! Ending: containers, then the sandbox, then what else the pod had.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use k3sd_cri::{CriError, v1};
use k3sd_kubelet_cgroups::Removal;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use super::sync::Worker;
use super::{Source, Wanted};
use crate::lifecycle::Hook;
use crate::runtime::{Found, Runtime, State};
use crate::spec::{self, init_containers, is_sidecar, shown};

/// A container has at least this long between the signal and the end, in seconds, even if its hook took all the time.
const GRACE_MIN: i64 = 2;
/// What an orphan gets, in seconds: nobody waits for it.
const ORPHAN_GRACE: i64 = 1;

/// How many seconds a pod has to end; a large number if it needn't. Less is more urgent.
pub(super) fn urgency(wanted: &Wanted) -> i64 {
    grace(wanted).unwrap_or(i64::MAX)
}

/// The seconds that a pod has to end, if it has to.
pub(super) fn grace(wanted: &Wanted) -> Option<i64> {
    let pod = &wanted.pod;
    let own = spec::spec(pod).termination_grace_period_seconds.unwrap_or(30);
    let deletion = spec::is_being_deleted(pod).then(|| pod.metadata.deletion_grace_period_seconds.unwrap_or(own));
    let kill = wanted.kill.as_ref().map(|(_, seconds)| seconds.unwrap_or(own));
    let gone =
        (wanted.source == Source::Gone).then(|| own.min(if wanted.pod.spec.is_some() { own } else { ORPHAN_GRACE }));
    [deletion, kill, gone].into_iter().flatten().min().map(|seconds| seconds.max(1))
}

impl Worker<'_> {
    /// Ends all containers, main ones first and sidecars after them in reverse order, and then the sandboxes.
    pub(super) async fn kill_pod(&self, pod: &Pod, runtime: &Runtime, grace: i64) -> Result<(), CriError> {
        let failed = |(action, target, error): (&str, &str, CriError)| {
            self.warn(pod, "FailedKillPod", &kill_failed(action, target, &error));
            error
        };
        self.kill_containers(pod, runtime, grace)
            .await
            .map_err(|(name, error)| failed(("KillContainer", &name, error)))?;
        let uid = self.entry.uid.as_str();
        self.stop_sandboxes(pod, runtime).await.map_err(|error| failed(("KillPodSandbox", uid, error)))
    }

    /// Says of which container it failed.
    async fn kill_containers(&self, pod: &Pod, runtime: &Runtime, grace: i64) -> Result<(), (String, CriError)> {
        let sidecars: Vec<&str> =
            init_containers(pod).iter().filter(|one| is_sidecar(one)).map(|one| one.name.as_str()).collect();
        let alive = |found: &&Found| matches!(found.state, State::Running | State::Unknown);
        let (late, first): (Vec<&Found>, Vec<&Found>) =
            runtime.containers.iter().filter(alive).partition(|found| sidecars.contains(&found.name.as_str()));
        let began = self.clock.now();
        let kill = async |found: &Found, grace| {
            let killed = self.kill_container(pod, found, grace, None).await;
            killed.map_err(|error| (found.name.clone(), error))
        };
        try_join_all(first.into_iter().map(|found| kill(found, grace))).await?;
        for name in sidecars.iter().rev() {
            let spent = i64::try_from(self.clock.now().since(began).as_secs()).unwrap_or(i64::MAX);
            let left = grace.saturating_sub(spent).max(0);
            let these = late.iter().filter(|found| found.name == *name);
            try_join_all(these.map(|found| kill(found, left))).await?;
        }
        Ok(())
    }

    async fn stop_sandboxes(&self, pod: &Pod, runtime: &Runtime) -> Result<(), CriError> {
        let stops = runtime.sandboxes.iter().filter(|sandbox| sandbox.ready || pod.spec.is_none()).map(|sandbox| {
            self.cri().stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() })
        });
        join_all(stops).await.into_iter().try_for_each(ignore_missing)
    }

    /// Ends one container: its hook, the signal, and after its grace the kill.
    pub(super) async fn kill_container(
        &self,
        pod: &Pod,
        found: &Found,
        grace: i64,
        why: Option<&str>,
    ) -> Result<(), CriError> {
        let container = spec::find(pod, &found.name).map(|(_, container)| container);
        let text = match why {
            Some(why) => why.to_owned(),
            None => format!("Stopping container {}", found.name),
        };
        self.tell_about(pod, &found.name, "Normal", "Killing", &text);
        let began = self.clock.now();
        if grace > 0
            && found.state == State::Running
            && let Some(hook) = pre_stop(container.as_ref(), found)
        {
            self.pre_stop(pod, container.unwrap_or_default(), found, &hook, grace).await;
        }
        let spent = i64::try_from(self.clock.now().since(began).as_secs()).unwrap_or(i64::MAX);
        let timeout = if grace > 0 { grace.saturating_sub(spent).max(GRACE_MIN.min(grace)) } else { 0 };
        let asked = v1::StopContainerRequest { container_id: found.id.clone(), timeout };
        match self.cri().stop_container(asked).await {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(pod = shown(pod), container = found.name, %error, "a container can't be stopped");
                Err(error)
            }
            _ => Ok(()),
        }
    }

    async fn pre_stop(&self, pod: &Pod, container: Container, found: &Found, hook: &LifecycleHandler, grace: i64) {
        let limit = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
        let run = Hook {
            cri: self.cri(),
            clock: self.clock,
            pod,
            container: &container,
            id: &found.id,
            address: self.address(),
        };
        let outcome = tokio::select! {
            outcome = run.run(hook) => outcome,
            () = self.clock.sleep_until(self.clock.now() + limit) => Err("PreStopHook not completed in grace period".to_owned()),
        };
        if let Err(error) = outcome {
            tracing::info!(pod = shown(pod), container = found.name, error, "a hook before the end failed");
            self.tell_about(pod, &found.name, "Warning", "FailedPreStopHook", "PreStopHook failed");
        }
    }

    /// Gives back what the pod had besides containers.
    pub(super) async fn give_back(&self) -> Result<(), String> {
        self.shared.deps.volumes.tear_down(&self.entry.uid).await?;
        self.shared.users.give_back(&self.entry.uid);
        if let Some(cgroups) = &self.shared.deps.cgroups {
            let removed = cgroups.remove_pod(&self.entry.uid).await.map_err(|error| error.to_string())?;
            if let Removal::Busy { processes } = removed {
                return Err(format!("{processes} processes are still in the pod's cgroup"));
            }
        }
        Ok(())
    }

    /// Removes what the runtime still has of a pod whose object is going.
    pub(super) async fn remove(&self, runtime: &Runtime) -> Result<(), CriError> {
        for found in &runtime.containers {
            let asked = v1::RemoveContainerRequest { container_id: found.id.clone() };
            ignore_missing(self.cri().remove_container(asked).await)?;
        }
        for sandbox in &runtime.sandboxes {
            let asked = v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
            ignore_missing(self.cri().remove_pod_sandbox(asked).await)?;
        }
        Ok(())
    }
}

/// What the event of a pod says that can't be ended.
fn kill_failed(action: &str, target: &str, error: &CriError) -> String {
    format!("error killing pod: failed to {action:?} for {target:?} with {action}Error: {:?}", error.status())
}

pub(super) fn ignore_missing<T>(answer: Result<T, CriError>) -> Result<(), CriError> {
    match answer {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// The hook before the end: the pod's, or what the runtime remembers of it.
fn pre_stop(container: Option<&Container>, found: &Found) -> Option<LifecycleHandler> {
    match container {
        Some(container) => container.lifecycle.as_ref()?.pre_stop.clone(),
        None => serde_json::from_str(found.pre_stop.as_deref()?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::status::Ending;
    use crate::testing::pod;

    #[test]
    fn a_pod_that_cannot_be_ended_says_which_part_of_it() {
        let error =
            CriError::Refused { call: "StopPodSandbox", code: k3sd_cri::Code::Unknown, message: "no \"x\"".to_owned() };
        let expected = "error killing pod: failed to \"KillPodSandbox\" for \"u-1\" with KillPodSandboxError: \
            \"rpc error: code = Unknown desc = no \\\"x\\\"\"";
        assert_eq!(kill_failed("KillPodSandbox", "u-1", &error), expected);
    }

    #[test]
    fn the_shortest_grace_counts() {
        let kill = |seconds| Some((Ending { reason: "R".into(), message: "m".into(), disruption: false }, seconds));
        let deleted = "deletionTimestamp: '2026-01-01T00:00:00Z', deletionGracePeriodSeconds";
        for (meta, source, kill, expected) in [
            (String::new(), Source::Api, None, None),
            (format!("{deleted}: 12"), Source::Api, None, Some(12)),
            (format!("{deleted}: 0"), Source::Api, None, Some(1)),
            (String::new(), Source::Api, kill(None), Some(40)),
            (String::new(), Source::Api, kill(Some(0)), Some(1)),
            (format!("{deleted}: 12"), Source::Api, kill(Some(3)), Some(3)),
            (String::new(), Source::Gone, None, Some(40)),
        ] {
            let pod =
                pod(&format!("{{metadata: {{{meta}}}, spec: {{terminationGracePeriodSeconds: 40, containers: []}}}}"));
            let wanted = Wanted { kill, ..Wanted::new(Arc::new(pod), source) };
            assert_eq!(grace(&wanted), expected, "{meta} {source:?}");
        }
        let orphan = Wanted::new(Arc::default(), Source::Gone);
        assert_eq!(grace(&orphan), Some(1));
    }
}
