//! Runs Jobs: makes their pods, counts each of them once, and says how it ended.

pub mod account;
pub mod core;
#[cfg(test)]
mod core_tests;
pub mod indexes;
mod make;
pub mod pods;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use futures_util::StreamExt as _;
use k3sd_client::controller::indexes::{BY_CONTROLLER, by_controller};
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn, controller_key};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Index, Informer, ObjectKey};
use k3sd_objects::selector::LabelSelector;
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::sync::watch;

use self::account::{Account, account};
use self::core::{Look, Made, is_finished, look};
use self::make::{Names, reference};
use self::pods::{FINALIZER, is_ready, is_tracked};

/// Requests for one Job side by side.
const REQUESTS_AT_ONCE: usize = 32;
/// Who handles a Job that doesn't say who does.
const MANAGER: &str = "kubernetes.io/job-controller";
/// Finds pods by the uid of the Job that their label names.
const BY_LABEL: &str = "job";
/// The label.
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Job(ObjectKey),
    /// A pod that is kept for a Job which is no more.
    Orphan(ObjectKey),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(key) => key.fmt(f),
            Self::Orphan(key) => write!(f, "orphan {key}"),
        }
    }
}

struct Jobs {
    api: kube::Client,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    recorder: Recorder,
    /// Pods whose finalizer was asked to go; until that is seen they aren't counted again. It outlives a killed loop, as
    /// the copies that may lag behind do.
    released: watch::Sender<HashMap<ObjectKey, HashSet<String>>>,
}

/// The loop.
pub fn runner(setup: &mut Setup<'_>) -> ChildSpec {
    let texts = |pod: &Pod| pod.metadata.labels.iter().filter_map(|all| all.get(CONTROLLER_UID).cloned()).collect();
    let by_label = Index { name: BY_LABEL, texts };
    let (jobs, pods) = (setup.informers.informer::<Job>(), setup.informers.indexed(vec![by_controller(), by_label]));
    let recorder = setup.recorder.component("job-controller");
    let controller = Jobs {
        api: setup.connect("job-controller").client(),
        jobs: jobs.clone(),
        pods: pods.clone(),
        recorder: recorder.clone(),
        released: watch::Sender::default(),
    };
    let (of_job, of_pod, known) = (pods.clone(), jobs.clone(), jobs.clone());
    Loop::new(controller, setup.leading.clone())
        .watch(&jobs, move |old, new, keys| {
            if let (Some(gone), None) = (old, new) {
                let uid = gone.metadata.uid.as_deref().unwrap_or_default();
                let shown = of_job.snapshot();
                let left = shown.iter().flat_map(|shown| shown.by(BY_CONTROLLER, uid));
                keys.extend(left.map(|pod| Key::Orphan(ObjectKey::of(&**pod))));
            }
            keys.extend(new.or(old).map(|job| Key::Job(ObjectKey::of(job))));
        })
        .watch(&pods, move |old, new, keys| {
            for pod in old.into_iter().chain(new) {
                match controller_key(pod, "batch", "Job") {
                    Some(job) => keys.push(Key::Job(job)),
                    None => keys.extend(of_pod.snapshot().iter().flat_map(|jobs| wanting(jobs, pod))),
                }
            }
            if let Some(pod) = new
                && is_tracked(pod)
                && known.snapshot().is_some_and(|jobs| owner(&jobs, pod).is_none())
            {
                keys.push(Key::Orphan(ObjectKey::of(pod)));
            }
        })
        .quarantine(recorder, |key| {
            let (kind, api_version, key) = match key {
                Key::Job(key) => ("Job", "batch/v1", key),
                Key::Orphan(key) => ("Pod", "v1", key),
            };
            Some(ObjectReference {
                api_version: Some(api_version.to_owned()),
                kind: Some(kind.to_owned()),
                namespace: Some(key.namespace.clone()),
                name: Some(key.name.clone()),
                ..ObjectReference::default()
            })
        })
        .child("job")
}

type Shown<K> = k3sd_client::informer::Snapshot<K>;

/// The Jobs that would adopt a pod without a controller.
fn wanting<'a>(jobs: &'a Shown<Job>, pod: &'a Pod) -> impl Iterator<Item = Key> + use<'a> {
    let is_free = pod.owner_references().iter().all(|owner| owner.controller != Some(true));
    let has_labels = pod.metadata.labels.as_ref().is_some_and(|labels| !labels.is_empty());
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let jobs = jobs.of_namespace(namespace).filter(move |_| is_free && has_labels);
    jobs.filter(|job| selector(job).is_some_and(|selector| selects(&selector, pod)))
        .map(|job| Key::Job(ObjectKey::of(&**job)))
}

fn selector(job: &Job) -> Option<LabelSelector> {
    let selector = serde_json::to_value(job.spec.as_ref()?.selector.as_ref()?).ok()?;
    LabelSelector::from_object(Some(&selector)).ok()
}

fn selects(selector: &LabelSelector, pod: &Pod) -> bool {
    selector.matches(|key| pod.metadata.labels.as_ref()?.get(key).map(String::as_str))
}

/// The Job that a pod is of, if it is there.
fn owner<'a>(jobs: &'a Shown<Job>, pod: &Pod) -> Option<&'a Arc<Job>> {
    let reference = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    let key = controller_key(pod, "batch", "Job")?;
    jobs.get(&key.namespace, &key.name).filter(|job| job.metadata.uid.as_ref() == Some(&reference.uid))
}

/// Whether somebody else handles the Job.
fn is_foreign(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref()).is_some_and(|manager| manager != MANAGER)
}

impl Controller for Jobs {
    type Key = Key;

    async fn reconcile(&self, key: &Key, turn: &mut Turn) -> Result<(), Failure> {
        match key {
            Key::Orphan(key) => self.let_go(key, turn).await,
            Key::Job(key) => {
                let found = self.jobs.snapshot().and_then(|jobs| jobs.get(&key.namespace, &key.name).cloned());
                match found {
                    Some(job) if !is_finished(&job) && !is_foreign(&job) => self.run(&job, turn).await,
                    _ => {
                        self.released.send_if_modified(|released| released.remove(key).is_some());
                        Ok(())
                    }
                }
            }
        }
    }
}

impl Jobs {
    fn pods_of(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.api.clone(), namespace)
    }

    /// A pod as it is now. Its role lets it list pods, and not get one.
    async fn live(&self, namespace: &str, name: &str) -> Result<Option<Pod>, Failure> {
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        Ok(self.pods_of(namespace).list(&params).await?.items.into_iter().next())
    }

    /// Lets a pod go whose Job is no more.
    async fn let_go(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let (Some(pods), Some(jobs)) = (self.pods.snapshot(), self.jobs.snapshot()) else { return Ok(()) };
        let Some(pod) = pods.get(&key.namespace, &key.name).filter(|pod| is_tracked(pod)) else { return Ok(()) };
        if owner(&jobs, pod).is_some() || wanting(&jobs, pod).next().is_some() {
            return Ok(());
        }
        if let Some(job) = controller_key(&**pod, "batch", "Job") {
            // The copy of the Jobs may be older than that of the pods; a pod that is let go is never counted.
            let api: Api<Job> = Api::namespaced(self.api.clone(), &job.namespace);
            let live = api.get_metadata_opt(&job.name).await?.and_then(|live| live.metadata.uid);
            if pod.owner_references().iter().any(|owner| Some(&owner.uid) == live.as_ref()) {
                return Ok(());
            }
        }
        if let Some(pod) = self.strip(pod).await? {
            turn.wrote(&self.pods, &pod);
        }
        Ok(())
    }

    async fn run(&self, job: &Arc<Job>, turn: &mut Turn) -> Result<(), Failure> {
        let pods = self.claim(job, turn).await?;
        let pods = self.without_released(&ObjectKey::of(&**job), pods).await?;
        let look = look(job, pods, turn.now());
        let (made, trouble) = self.carry_out(job, &look, turn).await;
        let mut account = account(job, &look, made, turn.now());
        for (reason, message) in &account.events {
            self.recorder.normal(&**job, reason, *message);
        }
        let mut written = self.write(job, job, &account, turn).await?;
        let released = self.release(job, &account, &look, turn).await;
        let tracked = match &released {
            Ok(left) => left.clone(),
            Err((left, _)) => left.clone(),
        };
        account.settle(&tracked);
        let end = account.finish(turn.now()).cloned();
        written = self.write(job, &written, &account, turn).await?;
        if let Some(end) = end {
            self.tell_end(&written, &end);
        } else if let Some(due) = look.again {
            turn.again_at(due);
        }
        if let Err((_, failure)) = released {
            return Err(failure);
        }
        trouble.map_or(Ok(()), Err)
    }

    /// The pods of a Job: those it controls, and those it adopts.
    async fn claim(&self, job: &Job, turn: &mut Turn) -> Result<Vec<Arc<Pod>>, Failure> {
        let Some(shown) = self.pods.snapshot() else { return Ok(Vec::new()) };
        let (namespace, uid) = (job.namespace().unwrap_or_default(), job.metadata.uid.clone().unwrap_or_default());
        let Some(selector) = selector(job) else { return Err(Failure::other("the Job has no selector")) };
        let mut pods = Vec::new();
        let owned: Vec<&Arc<Pod>> = shown.by(BY_CONTROLLER, &uid).collect();
        for pod in owned {
            if selects(&selector, pod) || pod.metadata.deletion_timestamp.is_some() {
                pods.push(pod.clone());
                continue;
            }
            // Somebody took its labels away: it isn't ours any more.
            let kept: Vec<&OwnerReference> = pod.owner_references().iter().filter(|owner| owner.uid != uid).collect();
            let finalizers: Vec<&String> =
                pod.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
            let meta = json!({"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version,
                "ownerReferences": kept, "finalizers": finalizers});
            self.patch(pod, &json!({ "metadata": meta }), turn).await?;
        }
        let manual = job.spec.as_ref().is_some_and(|spec| spec.manual_selector == Some(true));
        let free: Vec<&Arc<Pod>> =
            if manual { shown.of_namespace(&namespace).collect() } else { shown.by(BY_LABEL, &uid).collect() };
        for pod in free {
            let is_ours = pod.metadata.namespace.as_ref() == Some(&namespace) && selects(&selector, pod);
            let is_free = pod.owner_references().iter().all(|owner| owner.controller != Some(true));
            if !is_ours || !is_free || pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if let Some(adopted) = self.adopt(job, pod, turn).await? {
                pods.push(Arc::new(adopted));
            }
        }
        Ok(pods)
    }

    async fn adopt(&self, job: &Job, pod: &Pod, turn: &mut Turn) -> Result<Option<Pod>, Failure> {
        let api: Api<Job> = Api::namespaced(self.api.clone(), &job.namespace().unwrap_or_default());
        // The copy may be of a Job that is going, or was made anew.
        let live = api.get_opt(&job.name_any()).await?;
        if live.is_none_or(|live| live.metadata.uid != job.metadata.uid || live.metadata.deletion_timestamp.is_some()) {
            return Ok(None);
        }
        let mut owners = pod.owner_references().to_vec();
        owners.push(reference(job));
        let mut finalizers: BTreeSet<&str> = pod.finalizers().iter().map(String::as_str).collect();
        finalizers.insert(FINALIZER);
        let meta = json!({"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version,
            "ownerReferences": owners, "finalizers": finalizers});
        self.patch(pod, &json!({ "metadata": meta }), turn).await
    }

    async fn patch(&self, pod: &Pod, patch: &serde_json::Value, turn: &mut Turn) -> Result<Option<Pod>, Failure> {
        let api = self.pods_of(&pod.namespace().unwrap_or_default());
        match api.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(pod) => {
                turn.wrote(&self.pods, &pod);
                Ok(Some(pod))
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The pods as they are: where a copy still shows a finalizer that was asked to go, the API is asked.
    async fn without_released(&self, job: &ObjectKey, pods: Vec<Arc<Pod>>) -> Result<Vec<Arc<Pod>>, Failure> {
        let Some(released) = self.released.borrow().get(job).cloned() else { return Ok(pods) };
        let mut found = Vec::new();
        for pod in pods {
            let is_stale = pod.metadata.uid.as_ref().is_some_and(|uid| released.contains(uid)) && is_tracked(&pod);
            if !is_stale {
                found.push(pod);
                continue;
            }
            let live = self.live(&pod.namespace().unwrap_or_default(), &pod.name_any()).await?;
            found.extend(live.filter(|live| live.metadata.uid == pod.metadata.uid).map(Arc::new));
        }
        self.released.send_modify(|released| _ = released.remove(job));
        Ok(found)
    }

    /// Deletes and makes pods. What went wrong is told when the rest is done.
    async fn carry_out(&self, job: &Arc<Job>, look: &Look, turn: &mut Turn) -> (Made, Option<Failure>) {
        let (mut made, mut trouble) = (Made::default(), None);
        let mut deletions = Vec::new();
        for pod in &look.delete {
            let counted = look.counted;
            deletions.push(async move {
                let outcome = self.delete(job, pod, counted).await;
                (pod.clone(), outcome)
            });
        }
        let mut deletions = futures_util::stream::iter(deletions).buffer_unordered(REQUESTS_AT_ONCE);
        while let Some((pod, outcome)) = deletions.next().await {
            match outcome {
                Ok(()) => {
                    made.deleted += 1;
                    made.deleted_ready += usize::from(is_ready(&pod));
                    turn.deleted(&self.pods, &*pod);
                }
                Err(failure) => trouble = Some(failure),
            }
        }
        drop(deletions);
        let mut names = Names::of(job, look);
        let mut create: Vec<Pod> = Vec::new();
        for wanted in &look.create {
            create.push(names.pod(job, wanted));
        }
        // One at first, then twice as many, so that a quota without room is asked a few times and not a thousand.
        let mut batch = 1;
        while !create.is_empty() && trouble.is_none() {
            let rest = create.split_off(batch.min(create.len()));
            let mut creations = Vec::new();
            for pod in std::mem::replace(&mut create, rest) {
                creations.push(self.create(job, pod));
            }
            let mut creations = futures_util::stream::iter(creations).buffer_unordered(REQUESTS_AT_ONCE);
            while let Some(outcome) = creations.next().await {
                match outcome {
                    Ok(pod) => {
                        made.created += 1;
                        turn.wrote(&self.pods, &pod);
                    }
                    Err(failure) => trouble = Some(failure),
                }
            }
            batch *= 2;
        }
        (made, trouble)
    }

    async fn create(&self, job: &Job, pod: Pod) -> Result<Pod, Failure> {
        let api = self.pods_of(&job.namespace().unwrap_or_default());
        match api.create(&PostParams::default(), &pod).await {
            Ok(pod) => {
                self.recorder.normal(job, "SuccessfulCreate", format!("Created pod: {}", pod.name_any()));
                Ok(pod)
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => self.named_already(job, pod).await,
            Err(error) => {
                let failure = Failure::from(error);
                self.recorder.warning(job, "FailedCreate", format!("Error creating: {}", failure.chain()));
                Err(failure)
            }
        }
    }

    /// The name of a pod is taken: by a look whose copies don't show it or that was killed, or by a stranger.
    async fn named_already(&self, job: &Job, mut pod: Pod) -> Result<Pod, Failure> {
        let (namespace, name) = (job.namespace().unwrap_or_default(), pod.name_any());
        let is_ours =
            |pod: &Pod| pod.owner_references().iter().any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref());
        if let Some(live) = self.live(&namespace, &name).await?.filter(is_ours) {
            return Ok(live);
        }
        pod.metadata.name = None;
        let made = self.pods_of(&namespace).create(&PostParams::default(), &pod).await?;
        self.recorder.normal(job, "SuccessfulCreate", format!("Created pod: {}", made.name_any()));
        Ok(made)
    }

    /// Deletes a pod. One that isn't to be counted loses its finalizer before.
    async fn delete(&self, job: &Job, pod: &Arc<Pod>, counted: bool) -> Result<(), Failure> {
        let name = pod.name_any();
        if !counted && is_tracked(pod) {
            self.strip(pod).await?;
        }
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), ..Preconditions::default() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.pods_of(&pod.namespace().unwrap_or_default()).delete(&name, &params).await {
            Ok(_) => {
                self.recorder.normal(job, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => {
                let failure = Failure::from(error);
                self.recorder.warning(job, "FailedDelete", format!("Error deleting: {}", failure.chain()));
                Err(failure)
            }
        }
    }

    /// Takes the finalizer from a pod; what it is then, `None` if it is gone.
    async fn strip(&self, pod: &Pod) -> Result<Option<Pod>, Failure> {
        let patch = json!({"metadata": {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        let api = self.pods_of(&pod.namespace().unwrap_or_default());
        match api.patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(pod) => Ok(Some(pod)),
            // Gone, or another pod of the name by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets counted pods go. The uids of those that have their finalizer still.
    async fn release(
        &self,
        job: &Job,
        account: &Account,
        look: &Look,
        turn: &mut Turn,
    ) -> Result<HashSet<String>, (HashSet<String>, Failure)> {
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        let tracked = look.pods.iter().filter(|pod| is_tracked(pod));
        let mut left: HashSet<String> = tracked.map(|pod| uid(pod)).collect();
        if !account.release.is_empty() {
            let uids = account.release.iter().map(|pod| uid(pod)).collect();
            self.released.send_modify(|released| _ = released.insert(ObjectKey::of(job), uids));
        }
        let mut removals = Vec::new();
        for pod in &account.release {
            removals.push(async move { (uid(pod), self.strip(pod).await) });
        }
        let mut removals = futures_util::stream::iter(removals).buffer_unordered(REQUESTS_AT_ONCE);
        let mut trouble = None;
        while let Some((uid, outcome)) = removals.next().await {
            match outcome {
                Ok(pod) => {
                    left.remove(&uid);
                    if let Some(pod) = pod {
                        turn.wrote(&self.pods, &pod);
                    }
                }
                Err(failure) => trouble = Some(failure),
            }
        }
        match trouble {
            None => Ok(left),
            Some(failure) => Err((left, failure)),
        }
    }

    /// Writes the status, if it is another.
    async fn write(&self, job: &Job, last: &Job, account: &Account, turn: &mut Turn) -> Result<Job, Failure> {
        if last.status.as_ref() == Some(&account.status) {
            return Ok(last.clone());
        }
        let api: Api<Job> = Api::namespaced(self.api.clone(), &job.namespace().unwrap_or_default());
        let next = Job { status: Some(account.status.clone()), ..last.clone() };
        let written = api.replace_status(&job.name_any(), &PostParams::default(), &next).await?;
        turn.wrote(&self.jobs, &written);
        Ok(written)
    }

    fn tell_end(&self, job: &Job, end: &core::End) {
        if !end.succeeds {
            return self.recorder.warning(job, &end.reason, end.message.clone());
        }
        let wanted = job.spec.as_ref().and_then(|spec| spec.completions);
        let succeeded = job.status.as_ref().and_then(|status| status.succeeded).unwrap_or(0);
        if wanted.is_some_and(|wanted| succeeded > wanted) {
            let message = "Too many succeeded pods running after completion count reached";
            self.recorder.warning(job, "TooManySucceededPods", message);
        }
        self.recorder.normal(job, "Completed", "Job completed");
    }
}
