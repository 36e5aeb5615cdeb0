//! Runs CronJobs: makes a Job at each of their times, and clears the old ones away.

pub mod core;

use std::sync::Arc;

use jiff::Timestamp;
use k3sd_client::controller::indexes::{BY_CONTROLLER, by_controller};
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn, controller_key};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt as _};

use self::core::{Plan, ended, is_too_late, job_name, surplus};
use crate::job::core::condition;

/// Says for which time a Job was made.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

struct CronJobs {
    api: kube::Client,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    recorder: Recorder,
}

/// The loop.
pub fn runner(setup: &mut Setup<'_>) -> ChildSpec {
    let (crons, jobs) = (setup.informers.informer::<CronJob>(), setup.informers.indexed(vec![by_controller()]));
    let recorder = setup.recorder.component("cronjob-controller");
    let controller = CronJobs {
        api: setup.connect("cronjob-controller").client(),
        crons: crons.clone(),
        jobs: jobs.clone(),
        recorder: recorder.clone(),
    };
    Loop::new(controller, setup.leading.clone())
        .watch(&crons, |old, new, keys| keys.extend(new.or(old).map(ObjectKey::of)))
        .watch(&jobs, |old: Option<&Job>, new, keys| {
            keys.extend(old.into_iter().chain(new).filter_map(|job| controller_key(job, "batch", "CronJob")));
        })
        .quarantine(recorder, |key| {
            Some(ObjectReference {
                api_version: Some("batch/v1".to_owned()),
                kind: Some("CronJob".to_owned()),
                namespace: Some(key.namespace.clone()),
                name: Some(key.name.clone()),
                ..ObjectReference::default()
            })
        })
        .child("cronjob")
}

impl Controller for CronJobs {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let found = self.crons.snapshot().and_then(|crons| crons.get(&key.namespace, &key.name).cloned());
        let Some(shown) = found else { return Ok(()) };
        let mut cron = (*shown).clone();
        let uid = cron.metadata.uid.clone().unwrap_or_default();
        let jobs = self.jobs.snapshot();
        let jobs: Vec<Arc<Job>> = jobs.iter().flat_map(|jobs| jobs.by(BY_CONTROLLER, &uid)).cloned().collect();
        let api: Api<Job> = Api::namespaced(self.api.clone(), &key.namespace);
        self.note_ended(&mut cron, &jobs, &api).await?;
        self.clear(&mut cron, &jobs, &api, turn).await?;
        let outcome = self.begin(&mut cron, &api, turn).await;
        if cron.status != shown.status {
            let crons: Api<CronJob> = Api::namespaced(self.api.clone(), &key.namespace);
            let written = crons.replace_status(&key.name, &PostParams::default(), &cron).await?;
            turn.wrote(&self.crons, &written);
        }
        outcome
    }
}

fn status(cron: &mut CronJob) -> &mut CronJobStatus {
    cron.status.get_or_insert_default()
}

fn is_listed(cron: &CronJob, uid: Option<&String>) -> bool {
    let active = cron.status.iter().flat_map(|status| status.active.iter().flatten());
    active.into_iter().any(|active| active.uid.as_ref() == uid)
}

fn unlist(cron: &mut CronJob, uid: Option<&String>) {
    let Some(status) = &mut cron.status else { return };
    if let Some(active) = &mut status.active {
        active.retain(|active| active.uid.as_ref() != uid);
        if active.is_empty() {
            status.active = None;
        }
    }
}

impl CronJobs {
    /// Takes Jobs that have ended, or are gone, from the list of active ones.
    async fn note_ended(&self, cron: &mut CronJob, jobs: &[Arc<Job>], api: &Api<Job>) -> Result<(), Failure> {
        for job in jobs {
            let (listed, end) = (is_listed(cron, job.metadata.uid.as_ref()), ended(job));
            match (listed, end) {
                (false, None) => {
                    let message = format!("Saw a job that the controller did not create or forgot: {}", job.name_any());
                    self.recorder.warning(&*cron, "UnexpectedJob", message);
                }
                (true, Some(end)) => {
                    unlist(cron, job.metadata.uid.as_ref());
                    let message = format!("Saw completed job: {}, condition: {end}", job.name_any());
                    self.recorder.normal(&*cron, "SawCompletedJob", message);
                }
                _ => {}
            }
            let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
            if condition(job.status.as_ref(), "Complete").is_some()
                && let Some(completed) = completed
                && status(cron).last_successful_time.as_ref().is_none_or(|last| last.0 < completed.0)
            {
                status(cron).last_successful_time = Some(completed);
            }
        }
        let active = cron.status.as_ref().and_then(|status| status.active.clone()).unwrap_or_default();
        for reference in active {
            if jobs.iter().any(|job| job.metadata.uid == reference.uid) {
                continue;
            }
            let name = reference.name.clone().unwrap_or_default();
            // The copies may lag behind.
            let live = api.get_metadata_opt(&name).await?;
            if live.is_none_or(|live| live.metadata.uid != reference.uid) {
                self.recorder.normal(&*cron, "MissingJob", format!("Active job went missing: {name}"));
                unlist(cron, reference.uid.as_ref());
            }
        }
        Ok(())
    }

    /// Deletes ended Jobs beyond the limits.
    async fn clear(
        &self,
        cron: &mut CronJob,
        jobs: &[Arc<Job>],
        api: &Api<Job>,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        let Some(spec) = cron.spec.clone() else { return Ok(()) };
        let old = surplus(jobs, "Complete", spec.successful_jobs_history_limit).into_iter();
        for job in old.chain(surplus(jobs, "Failed", spec.failed_jobs_history_limit)) {
            self.delete(cron, job, api, turn).await?;
        }
        Ok(())
    }

    async fn delete(&self, cron: &mut CronJob, job: &Job, api: &Api<Job>, turn: &mut Turn) -> Result<(), Failure> {
        if job.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let name = job.name_any();
        match api.delete(&name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                let failure = Failure::from(error);
                self.recorder.warning(&*cron, "FailedDelete", format!("Deleted job: {}", failure.chain()));
                return Err(failure);
            }
            Ok(_) => self.recorder.normal(&*cron, "SuccessfulDelete", format!("Deleted job {name}")),
        }
        turn.deleted(&self.jobs, job);
        unlist(cron, job.metadata.uid.as_ref());
        Ok(())
    }

    /// Makes the Job whose time has come, if it is to be made, and says when the next one comes.
    async fn begin(&self, cron: &mut CronJob, api: &Api<Job>, turn: &mut Turn) -> Result<(), Failure> {
        let Some(spec) = cron.spec.clone() else { return Ok(()) };
        if cron.metadata.deletion_timestamp.is_some() || spec.suspend == Some(true) {
            return Ok(());
        }
        let plan = match Plan::of(cron) {
            Ok(plan) => plan,
            Err((reason, message)) => {
                self.recorder.warning(&*cron, reason, message);
                return Ok(());
            }
        };
        if spec.schedule.contains("TZ") {
            let message = format!(
                "CRON_TZ or TZ used in schedule {:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
                spec.schedule
            );
            self.recorder.warning(&*cron, "UnsupportedSchedule", message);
        }
        let now = turn.now();
        match plan.unmet(cron, now) {
            Err(fault) => {
                let message = format!("invalid schedule schedule: {} : {fault}", spec.schedule);
                self.recorder.warning(&*cron, "InvalidSchedule", message);
                return Ok(());
            }
            Ok(None) => {}
            Ok(Some((time, many))) => {
                if many {
                    let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check \
                                   clock skew";
                    self.recorder.warning(&*cron, "TooManyMissedTimes", message);
                }
                self.at(cron, time, &plan, api, turn).await?;
            }
        }
        if let Some(due) = plan.again(cron, now) {
            turn.again_at(due);
        }
        Ok(())
    }

    /// What happens at a time of the schedule.
    async fn at(
        &self,
        cron: &mut CronJob,
        time: Timestamp,
        plan: &Plan,
        api: &Api<Job>,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        if is_too_late(cron, time, turn.now()) {
            let at = time.strftime("%a, %d %b %Y %H:%M:%S +0000");
            let message = format!("Missed scheduled time to start a job: {at}");
            self.recorder.warning(&*cron, "MissSchedule", message);
            return Ok(());
        }
        let name = job_name(cron, time);
        let active = cron.status.as_ref().and_then(|status| status.active.clone()).unwrap_or_default();
        let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
        let is_met = last.is_some_and(|last| last.0 == time);
        if is_met || active.iter().any(|active| active.name.as_ref() == Some(&name)) {
            return Ok(());
        }
        match cron.spec.as_ref().and_then(|spec| spec.concurrency_policy.as_deref()) {
            Some("Forbid") if !active.is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.recorder.normal(&*cron, "JobAlreadyActive", message);
                return Ok(());
            }
            Some("Replace") => {
                for reference in active {
                    match api.get_opt(reference.name.as_deref().unwrap_or_default()).await? {
                        Some(job) => self.delete(cron, &job, api, turn).await?,
                        None => unlist(cron, reference.uid.as_ref()),
                    }
                }
            }
            _ => {}
        }
        let job = match api.create(&PostParams::default(), &from_template(cron, time, plan)).await {
            Ok(job) => {
                self.recorder.normal(&*cron, "SuccessfulCreate", format!("Created job {name}"));
                turn.wrote(&self.jobs, &job);
                job
            }
            // A look that was killed before it could say so has made it, or somebody else.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let Some(job) = api.get_opt(&name).await? else { return Err(kube::Error::Api(status).into()) };
                let is_ours = job
                    .owner_references()
                    .iter()
                    .any(|owner| owner.controller == Some(true) && Some(&owner.uid) == cron.metadata.uid.as_ref());
                if !is_ours || is_listed(cron, job.metadata.uid.as_ref()) {
                    return Ok(());
                }
                job
            }
            Err(error) => {
                let failure = Failure::from(error);
                self.recorder.warning(&*cron, "FailedCreate", format!("Error creating job: {}", failure.chain()));
                return Err(failure);
            }
        };
        let reference = ObjectReference {
            api_version: Some("batch/v1".to_owned()),
            kind: Some("Job".to_owned()),
            namespace: job.namespace(),
            name: Some(job.name_any()),
            uid: job.metadata.uid.clone(),
            resource_version: job.metadata.resource_version.clone(),
            field_path: None,
        };
        let status = status(cron);
        status.active.get_or_insert_default().push(reference);
        status.last_schedule_time = Some(Time(time));
        Ok(())
    }
}

/// The Job of a time.
fn from_template(cron: &CronJob, time: Timestamp, plan: &Plan) -> Job {
    let template = cron.spec.as_ref().map(|spec| spec.job_template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let local = time.to_zoned(plan.zone.clone());
    let text = local.strftime(if local.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" });
    annotations.insert(SCHEDULED.to_owned(), text.to_string());
    let owner = OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "CronJob".to_owned(),
        name: cron.name_any(),
        uid: cron.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let metadata = ObjectMeta {
        name: Some(job_name(cron, time)),
        namespace: cron.namespace(),
        labels: meta.labels,
        annotations: Some(annotations),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    Job { metadata, spec: template.spec, status: None }
}
