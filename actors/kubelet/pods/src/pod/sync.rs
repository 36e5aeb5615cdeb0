//! One step: look, tell, decide, act.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k3sd_cri::Cri;
use k3sd_kubelet_base::{ContainerState, ContainerView, PodView};
use k3sd_kubelet_cgroups::qos_class;
use k3sd_runtime::{Clock, Moment};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Entry, Next, Shared, Source, View, Wanted, files, now, stop};
use crate::admit::UNEXPECTED;
use crate::plan::{Actions, plan};
use crate::probes::{Kind, Outcome};
use crate::runtime::{Cache, Runtime, State, look};
use crate::spec::{self, is_final, shown};
use crate::status::{Ending, StatusFacts, rejected, status};
use crate::translate::mounts::HostVolume;

/// The first wait after a step that failed.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest.
const RETRY_LONGEST: Duration = Duration::from_secs(10);
/// After containers were told to end and are still there, the next look.
const STILL_THERE: SignedDuration = SignedDuration::from_millis(500);

/// What a pod's actor works with.
pub(super) struct Worker<'a> {
    pub(super) shared: &'a Shared,
    pub(super) entry: &'a Entry,
    pub(super) clock: &'a Clock,
    cache: Cache,
    address: String,
    failures: u32,
    born: Moment,
}

impl<'a> Worker<'a> {
    pub(super) fn new(shared: &'a Shared, entry: &'a Entry, clock: &'a Clock) -> Self {
        Self { shared, entry, clock, cache: Cache::default(), address: String::new(), failures: 0, born: clock.now() }
    }

    pub(super) fn cri(&self) -> &'a Cri {
        &self.shared.deps.cri
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn now(&self) -> Timestamp {
        now(self.clock)
    }

    pub(super) fn warn(&self, pod: &Pod, reason: &str, text: &str) {
        super::event(self.shared, pod, None, "Warning", reason, text);
    }

    pub(super) fn tell_about(&self, pod: &Pod, container: &str, kind: &'static str, reason: &str, text: &str) {
        super::event(self.shared, pod, Some(container), kind, reason, text);
    }

    /// One step. What fails is tried again, later and later.
    pub(super) async fn step(&mut self, wanted: &Wanted) -> Next {
        match self.try_step(wanted).await {
            Ok(next) => {
                self.failures = 0;
                next
            }
            Err(error) => {
                tracing::warn!(pod = shown(&wanted.pod), error, "a pod's step failed");
                let wait = (RETRY_FIRST * 2u32.saturating_pow(self.failures.min(8))).min(RETRY_LONGEST);
                self.failures += 1;
                Next::Wait(self.now().checked_add(SignedDuration::try_from(wait).unwrap_or(STILL_THERE)).ok())
            }
        }
    }

    async fn look(&mut self, wanted: &Wanted, terminating: bool) -> Result<Arc<Runtime>, String> {
        let mut found = look(self.cri(), &self.entry.uid, &mut self.cache).await.map_err(|error| error.to_string())?;
        self.shared.killed.borrow().tell(&mut found);
        let runtime = Arc::new(found);
        let view = View { pod: Some(wanted.pod.clone()), runtime: runtime.clone(), terminating };
        self.address = super::address(&view, self.shared);
        self.inherit(wanted, &runtime);
        self.entry.view.send_replace(view);
        Ok(runtime)
    }

    /// What the API knows of containers that run is believed until probes say otherwise: a restart of ours makes no pod
    /// unready.
    fn inherit(&self, wanted: &Wanted, runtime: &Runtime) {
        if self.entry.memory.borrow().status.is_some() {
            return;
        }
        let told = spec::status(&wanted.pod);
        self.entry.results.send_if_modified(|results| {
            for found in runtime.running() {
                let Some(before) = spec::container_status(&told, &found.name) else { continue };
                if before.container_id.as_deref().and_then(|id| id.strip_prefix("containerd://")) != Some(&found.id) {
                    continue;
                }
                for (kind, held) in [(Kind::Startup, before.started == Some(true)), (Kind::Readiness, before.ready)] {
                    if held && results.get(&found.id, kind).is_none() {
                        results.set(&found.id, kind, Outcome::Success);
                    }
                }
            }
            // Nobody has to be woken: the status is made next.
            false
        });
    }

    async fn try_step(&mut self, wanted: &Wanted) -> Result<Next, String> {
        let memory = self.entry.memory.borrow().clone();
        if let Some((ending, _)) = &wanted.kill {
            self.entry.memory.send_modify(|memory| {
                memory.ending.get_or_insert_with(|| ending.clone());
            });
        }
        if let Some((reason, message)) = &wanted.rejected
            && !memory.stopped
        {
            return Ok(self.reject(&wanted.pod, reason, message));
        }
        let ends =
            stop::grace(wanted).is_some() || memory.terminating || is_final(spec::status(&wanted.pod).phase.as_deref());
        let runtime = self.look(wanted, ends).await?;
        if memory.stopped && runtime.is_stopped() {
            return self.after_end(wanted, &runtime).await;
        }
        if ends {
            return self.end(wanted, &runtime).await;
        }
        let is_fresh = runtime.sandboxes.is_empty() && runtime.containers.is_empty() && memory.status.is_none();
        if is_fresh
            && spec::status(&wanted.pod).start_time.is_none()
            && let Err(error) = self.all_devices(&wanted.pod).await
        {
            let text = format!("Allocate failed due to {error}, which is unexpected");
            self.warn(&wanted.pod, UNEXPECTED, &text);
            return Ok(self.reject(&wanted.pod, UNEXPECTED, &text));
        }
        let made = self.tell(wanted, &runtime, false);
        if let Some(until) = deadline(&wanted.pod, &made) {
            if until <= self.now() {
                return Ok(self.deadline_exceeded());
            }
            return Ok(earlier(self.go_on(wanted, &made, &runtime).await?, until));
        }
        self.go_on(wanted, &made, &runtime).await
    }

    /// The node doesn't take the pod: nothing of it will ever run.
    fn reject(&self, pod: &Pod, reason: &str, message: &str) -> Next {
        let made = rejected(pod, reason, message, self.now());
        self.entry.memory.send_modify(|memory| {
            (memory.terminating, memory.stopped, memory.status) = (true, true, Some(made.clone()));
        });
        self.report(Some(made), false);
        Next::Again
    }

    fn deadline_exceeded(&self) -> Next {
        self.entry.memory.send_modify(|memory| {
            memory.terminating = true;
            memory.ending = Some(Ending {
                reason: "DeadlineExceeded".to_owned(),
                message: "Pod was active on the node longer than the specified deadline".to_owned(),
                disruption: false,
            });
        });
        Next::Again
    }

    async fn go_on(&mut self, wanted: &Wanted, made: &PodStatus, runtime: &Runtime) -> Result<Next, String> {
        if is_final(made.phase.as_deref()) {
            self.entry.memory.send_modify(|memory| memory.terminating = true);
            return Ok(Next::Again);
        }
        let results = self.entry.results.borrow().clone();
        let record = self.entry.memory.borrow().record.clone();
        let actions = plan(&wanted.pod, runtime, &results, &record.actual);
        if actions.is_empty() {
            self.resized(wanted, runtime).await;
            self.adopt_volumes(&wanted.pod).await?;
            return Ok(Next::Wait(None));
        }
        if actions.resize.is_empty() {
            return self.carry_out(wanted, runtime, actions).await;
        }
        let again = self.resize(wanted, runtime, &actions.resize).await?;
        let rest = Actions { resize: Vec::new(), ..actions };
        let next = match rest.is_empty() {
            true => again.map_or(Next::Again, |_| Next::Wait(None)),
            false => self.carry_out(wanted, runtime, rest).await?,
        };
        Ok(again.map_or(next, |again| earlier(next, again)))
    }

    /// Does what was decided. Says when there is something to do again.
    async fn carry_out(&mut self, wanted: &Wanted, runtime: &Runtime, actions: Actions) -> Result<Next, String> {
        let pod = &wanted.pod;
        let grace = spec::spec(pod).termination_grace_period_seconds.unwrap_or(30);
        let text = |error: k3sd_cri::CriError| error.to_string();
        if actions.kill_pod {
            let something = runtime.running().next().is_some() || runtime.sandboxes.iter().any(|sandbox| sandbox.ready);
            self.kill_pod(pod, runtime, grace).await.map_err(text)?;
            if actions.sandbox.is_none() {
                // Nothing is to be started again; what the status says then decides.
                self.entry.memory.send_if_modified(|memory| !std::mem::replace(&mut memory.terminating, true));
                return Ok(Next::Again);
            }
            if something && !runtime.sandboxes.is_empty() {
                let text = "Pod sandbox changed, it will be killed and re-created.";
                super::event(self.shared, pod, None, "Normal", "SandboxChanged", text);
            }
            self.purge_init(pod, runtime).await.map_err(text)?;
        }
        if actions.kill.iter().any(|kill| kill.reason == crate::plan::KillReason::Resize) {
            self.entry.memory.send_modify(|memory| memory.is_resizing = true);
        }
        for kill in &actions.kill {
            if let Some(found) = runtime.containers.iter().find(|found| found.id == kill.id) {
                let probe = spec::find(pod, &kill.name).and_then(|(_, container)| match kill.reason {
                    crate::plan::KillReason::Liveness => spec::probe_grace(container.liveness_probe.as_ref()),
                    crate::plan::KillReason::Startup => spec::probe_grace(container.startup_probe.as_ref()),
                    _ => None,
                });
                self.kill_container(pod, found, probe.unwrap_or(grace), Some(&kill.message)).await.map_err(text)?;
            }
        }
        if actions.start.is_empty() {
            return Ok(Next::Again);
        }
        self.prepare(pod).await?;
        self.remember_starts(pod, runtime, &actions.kill)?;
        let volumes = self.set_up_volumes(pod).await?;
        let sandbox = match actions.sandbox {
            None => runtime.ready_sandbox().cloned(),
            Some(attempt) => {
                self.make_sandbox(pod, attempt).await?;
                let fresh = self.look(wanted, false).await?;
                self.tell(wanted, &fresh, false);
                fresh.ready_sandbox().cloned()
            }
        };
        let Some(sandbox) = sandbox else { return Ok(Next::Again) };
        Ok(self.start_all(wanted, runtime, &sandbox, actions.start, &volumes).await)
    }

    async fn set_up_volumes(&self, pod: &Arc<Pod>) -> Result<BTreeMap<String, HostVolume>, String> {
        let set_up = self.shared.deps.volumes.set_up(pod).await;
        let volumes = set_up.inspect_err(|error| self.warn(pod, "FailedMount", error))?;
        self.entry.memory.send_if_modified(|memory| {
            memory.has_volumes = true;
            // Nobody has to be woken: nothing else follows from it.
            false
        });
        Ok(volumes)
    }

    /// A pod that goes on running after a restart of the process has nothing started, but its files are to follow their
    /// objects as before, and the tokens in them are to be renewed.
    async fn adopt_volumes(&self, pod: &Arc<Pod>) -> Result<(), String> {
        if self.entry.memory.borrow().has_volumes {
            return Ok(());
        }
        self.set_up_volumes(pod).await.map(drop)
    }

    /// Init containers run again in a new sandbox; what is left of them would say that they had.
    async fn purge_init(&self, pod: &Pod, runtime: &Runtime) -> Result<(), k3sd_cri::CriError> {
        let names: Vec<_> = spec::init_containers(pod).iter().map(|one| one.name.as_str()).collect();
        for found in runtime.containers.iter().filter(|found| names.contains(&found.name.as_str())) {
            let asked = k3sd_cri::v1::RemoveContainerRequest { container_id: found.id.clone() };
            stop::ignore_missing(self.cri().remove_container(asked).await)?;
        }
        Ok(())
    }

    async fn prepare(&self, pod: &Arc<Pod>) -> Result<(), String> {
        let config = &self.shared.config;
        files::prepare(&config.root, &config.logs, pod, &self.entry.uid).map_err(|error| {
            let text = format!("error making pod data directories: {error}");
            self.warn(pod, "FailedToMakePodDataDirectories", &text);
            text
        })?;
        let Some(cgroups) = &self.shared.deps.cgroups else { return Ok(()) };
        let limits = self.limits_for_now(pod);
        cgroups.ensure_pod(&self.entry.uid, qos_class(pod), &limits).await.map(drop).map_err(|error| {
            let text = format!("unable to ensure pod container exists: {error}");
            self.warn(pod, "FailedCreatePodContainer", &text);
            text
        })
    }

    /// Ends the pod, and gives back what it had.
    async fn end(&mut self, wanted: &Wanted, runtime: &Runtime) -> Result<Next, String> {
        let pod = &wanted.pod;
        self.entry.memory.send_if_modified(|memory| !std::mem::replace(&mut memory.terminating, true));
        if !runtime.is_stopped() {
            self.tell(wanted, runtime, false);
            let own = spec::spec(pod).termination_grace_period_seconds.unwrap_or(30);
            let grace = stop::grace(wanted).unwrap_or(own);
            self.kill_pod(pod, runtime, grace).await.map_err(|error| error.to_string())?;
            let after = self.look(wanted, true).await?;
            if !after.is_stopped() {
                return Ok(Next::Wait(self.now().checked_add(STILL_THERE).ok()));
            }
            self.tell(wanted, &after, true);
        } else {
            self.tell(wanted, runtime, true);
        }
        self.give_back().await?;
        self.entry.memory.send_modify(|memory| memory.stopped = true);
        // Others may have the room.
        self.shared.progress.send_modify(|count| *count += 1);
        Ok(Next::Again)
    }

    /// Nothing runs. Waits until the object goes, and removes the last traces.
    async fn after_end(&mut self, wanted: &Wanted, runtime: &Runtime) -> Result<Next, String> {
        let pod = &wanted.pod;
        if !spec::is_being_deleted(pod) && wanted.source != Source::Gone {
            return Ok(Next::Wait(None));
        }
        self.remove(runtime).await.map_err(|error| error.to_string())?;
        let config = &self.shared.config;
        if pod.metadata.name.is_some() {
            files::remove(&config.root, &config.logs, &config.log_links, pod, &self.entry.uid)
                .map_err(|error| format!("can't remove a pod's files: {error}"))?;
        }
        if wanted.source == Source::Gone {
            self.shared.publisher.send_if_modified(|snapshot| {
                snapshot.pods.contains_key(&self.entry.uid)
                    && Arc::make_mut(snapshot).pods.remove(&self.entry.uid).is_some()
            });
            return Ok(Next::Finished);
        }
        let last = self.entry.memory.borrow().status.clone();
        self.report(last, true);
        Ok(Next::Wait(None))
    }

    /// Makes the status, publishes it, and has it written.
    pub(super) fn tell(&self, wanted: &Wanted, runtime: &Runtime, terminal: bool) -> PodStatus {
        let memory = self.entry.memory.borrow().clone();
        let results = self.entry.results.borrow().clone();
        let resize = self.progress(wanted, runtime, &memory);
        let old = base(&wanted.pod, memory.status.as_ref());
        let addresses = self.shared.deps.addresses.borrow().clone();
        let facts = StatusFacts {
            runtime,
            results: &results,
            hindrances: &memory.hindrances,
            // The phase doesn't become final before everything has stopped.
            ending: memory.ending.as_ref().filter(|_| terminal),
            resize: &resize,
            terminal,
            host_addresses: &addresses,
            now: self.now(),
        };
        let made = status(&wanted.pod, &old, &facts);
        let phase = |of: &PodStatus| of.phase.clone().unwrap_or_else(|| "Pending".to_owned());
        if phase(&old) == "Pending" && phase(&made) == "Running" {
            self.shared.numbers.started(self.clock.now().since(self.born));
        }
        self.entry.memory.send_modify(|memory| memory.status = Some(made.clone()));
        self.publish(wanted, runtime, &made);
        // Of a final phase the others hear when nothing runs any more.
        let mut told = made.clone();
        if !runtime.is_stopped() && is_final(told.phase.as_deref()) && !is_final(old.phase.as_deref()) {
            told.phase = old.phase.clone().or(Some("Pending".to_owned()));
        }
        self.report(Some(told), false);
        made
    }

    fn report(&self, status: Option<PodStatus>, delete: bool) {
        self.entry.report.send_if_modified(|report| {
            let changed = report.status != status || report.delete != delete;
            (report.status, report.delete) = (status, delete);
            changed
        });
    }

    fn publish(&self, wanted: &Wanted, runtime: &Runtime, made: &PodStatus) {
        let pod = Arc::new(Pod { status: Some(made.clone()), ..Pod::clone(&wanted.pod) });
        let state = |state| match state {
            State::Created => ContainerState::Created,
            State::Running => ContainerState::Running,
            State::Exited | State::Unknown => ContainerState::Exited,
        };
        let cgroups = self.shared.deps.cgroups.as_ref();
        let view = PodView {
            uid: self.entry.uid.clone(),
            sandbox: runtime.ready_sandbox().map(|sandbox| sandbox.id.clone()),
            addresses: made.pod_ips.iter().flatten().map(|one| one.ip.clone()).collect(),
            cgroup: cgroups.and_then(|cgroups| cgroups.pod_path(&self.entry.uid, qos_class(&pod)).ok()),
            containers: runtime
                .containers
                .iter()
                .map(|found| ContainerView {
                    name: found.name.clone(),
                    id: found.id.clone(),
                    attempt: found.attempt,
                    state: state(found.state),
                    log: found.log.clone().into(),
                    image: found.image_id.clone(),
                })
                .collect(),
            pod,
        };
        self.shared.publisher.send_modify(|snapshot| {
            Arc::make_mut(snapshot).pods.insert(self.entry.uid.clone(), Arc::new(view));
        });
    }
}

/// The status to go on from: the last one made here, with what others have written since.
fn base(pod: &Pod, last: Option<&PodStatus>) -> PodStatus {
    let of_api = spec::status(pod).into_owned();
    let Some(last) = last else { return of_api };
    let mut base = last.clone();
    let mut conditions = base.conditions.take().unwrap_or_default();
    for theirs in of_api.conditions.into_iter().flatten() {
        match conditions.iter_mut().find(|one| one.type_ == theirs.type_) {
            None => conditions.push(theirs),
            Some(ours) if crate::status::conditions::is_foreign(&theirs.type_) => *ours = theirs,
            Some(_) => {}
        }
    }
    base.conditions = Some(conditions);
    base.resize = of_api.resize;
    base.resource_claim_statuses = of_api.resource_claim_statuses;
    base
}

/// When the pod has been active for as long as it may.
fn deadline(pod: &Pod, made: &PodStatus) -> Option<Timestamp> {
    let seconds = spec::spec(pod).active_deadline_seconds?;
    let Time(start) = made.start_time.as_ref()?;
    start.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn earlier(next: Next, until: Timestamp) -> Next {
    match next {
        Next::Wait(Some(other)) => Next::Wait(Some(other.min(until))),
        Next::Wait(None) => Next::Wait(Some(until)),
        other => other,
    }
}
