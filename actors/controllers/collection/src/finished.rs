//! Deletes Jobs some time after they have finished, if they say so.

use jiff::{SignedDuration, Timestamp};
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

struct Finished {
    api: kube::Client,
    jobs: Informer<Job>,
}

/// The loop.
pub fn deleter(setup: &mut Setup<'_>) -> ChildSpec {
    let jobs = setup.informers.informer::<Job>();
    let api = setup.connect("ttl-after-finished-controller").client();
    Loop::new(Finished { api, jobs: jobs.clone() }, setup.leading.clone())
        .watch(&jobs, |_, new, keys| keys.extend(new.filter(|job| expiry(job).is_some()).map(ObjectKey::of)))
        .child("ttl-after-finished")
}

/// When a Job may be deleted; `None` if never, or not yet known.
fn expiry(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let is_end = |kind: &str, status: &str| matches!(kind, "Complete" | "Failed") && status == "True";
    let end = conditions.iter().find(|condition| is_end(&condition.type_, &condition.status))?;
    let finished = end.last_transition_time.as_ref()?.0;
    Some(finished.checked_add(SignedDuration::from_secs(i64::from(ttl))).unwrap_or(Timestamp::MAX))
}

impl Controller for Finished {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let shown = self.jobs.snapshot().and_then(|jobs| jobs.get(&key.namespace, &key.name).cloned());
        let Some(due) = shown.and_then(|job| expiry(&job)) else { return Ok(()) };
        if turn.now() < due {
            turn.again_at(due);
            return Ok(());
        }
        let api: Api<Job> = Api::namespaced(self.api.clone(), &key.namespace);
        // Somebody may have given it more time meanwhile.
        let Some(live) = api.get_opt(&key.name).await? else { return Ok(()) };
        match expiry(&live) {
            Some(due) if due <= turn.now() => {}
            Some(due) => {
                turn.again_at(due);
                return Ok(());
            }
            None => return Ok(()),
        }
        let preconditions = Preconditions { uid: live.metadata.uid.clone(), ..Preconditions::default() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::foreground() };
        match api.delete(&key.name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_has_finished_and_says_so_expires() {
        let at = "2026-01-01T00:00:00Z";
        for (ttl, kind, status, expected) in [
            (Some(30), "Complete", "True", Some("2026-01-01T00:00:30Z")),
            (Some(0), "Failed", "True", Some("2026-01-01T00:00:00Z")),
            (Some(30), "Complete", "False", None),
            (Some(30), "Suspended", "True", None),
            (None, "Complete", "True", None),
        ] {
            let job = json!({"metadata": {}, "spec": {"template": {}, "ttlSecondsAfterFinished": ttl},
                "status": {"conditions": [{"type": kind, "status": status, "lastTransitionTime": at}]}});
            let job: Job = serde_json::from_value(job).expect("a Job");
            assert_eq!(expiry(&job).map(|due| due.to_string()).as_deref(), expected, "{ttl:?} {kind} {status}");
        }
    }
}
