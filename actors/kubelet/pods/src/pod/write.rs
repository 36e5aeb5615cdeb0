//! Telling the API about a pod: its status, and at last that its object may go.

use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::{Backoff, Clock, Moment, Rng};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use super::{Entry, Report, Shared, Source, Wanted};
use crate::source::{HASH, is_mirror_of, mirror};
use crate::spec;
use crate::status::conditions::is_foreign;

/// Waits after refusals.
const RETRY: Backoff = Backoff::RESTART;
/// After the object was told to go, the watch says that it has; if it doesn't, it is told again.
const DELETE_AGAIN: Duration = Duration::from_secs(10);
/// What others have made of our part of a status is set right, but not more often: they may insist. The period of
/// Kubernetes' kubelet.
const SET_RIGHT_AFTER: Duration = Duration::from_secs(10);

/// What was written last, and when.
type Written = Option<(PodStatus, Moment)>;

/// Writes what is reported, as often as it takes. Never ends.
pub(super) async fn run(shared: &Shared, entry: &Entry, clock: &Clock, mut rng: Rng) {
    let (mut reports, mut wanted) = (entry.report.subscribe(), entry.wanted.subscribe());
    let mut failures = 0;
    let mut written: Written = None;
    loop {
        let (report, now) = (reports.borrow_and_update().clone(), wanted.borrow_and_update().clone());
        let delay = match write(shared, &report, &now, clock, &mut written).await {
            Ok(again) => {
                failures = 0;
                again
            }
            Err(error) => {
                tracing::info!(pod = spec::shown(&now.pod), error, "a pod's status can't be written");
                failures += 1;
                Some(RETRY.delay(failures, &mut rng))
            }
        };
        let alarm = async {
            match delay {
                Some(delay) => clock.sleep_until(clock.now() + delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = reports.changed() => if changed.is_err() { std::future::pending::<()>().await },
            changed = wanted.changed() => if changed.is_err() { std::future::pending::<()>().await },
            () = alarm => {}
        }
    }
}

/// Whether an answer says that the object isn't there, or is another one: then there is nothing to write to.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

/// Writes once. Says when to write again, if need be.
async fn write(
    shared: &Shared,
    report: &Report,
    wanted: &Wanted,
    clock: &Clock,
    written: &mut Written,
) -> Result<Option<Duration>, String> {
    let pod = &wanted.pod;
    let api: Api<Pod> = Api::namespaced(shared.deps.connect.client(), spec::namespace(pod));
    let target = match wanted.source {
        Source::Gone => return Ok(None),
        Source::Api => Some(pod.clone()),
        Source::File => mirrored(&api, shared, wanted, written).await?,
    };
    let (Some(target), Some(status)) = (target, &report.status) else { return Ok(None) };
    let live = spec::status(&target).into_owned();
    let status = with_theirs(status, &live);
    let mut again = None;
    if live != status {
        let rested = written.as_ref().filter(|(before, _)| *before == status).map(|(_, at)| clock.now().since(*at));
        match rested {
            Some(rested) if rested < SET_RIGHT_AFTER => again = Some(SET_RIGHT_AFTER - rested),
            _ => {
                let body = patch(&live, &status, spec::uid(&target));
                let (name, how) = (spec::name(&target), PatchParams::default());
                match api.patch_status(name, &how, &Patch::Strategic(body)).await {
                    Ok(_) => *written = Some((status, clock.now())),
                    Err(error) if is_gone(&error) => return Ok(None),
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
    }
    if report.delete && wanted.source == Source::Api && spec::is_being_deleted(&target) {
        delete(&api, &target).await?;
        return Ok(Some(DELETE_AGAIN));
    }
    Ok(again)
}

/// A status of ours with what others have written meanwhile into their part of it.
fn with_theirs(ours: &PodStatus, live: &PodStatus) -> PodStatus {
    let mut status = ours.clone();
    let mut conditions = status.conditions.take().unwrap_or_default();
    for theirs in live.conditions.iter().flatten().filter(|one| is_foreign(&one.type_)) {
        match conditions.iter_mut().find(|one| one.type_ == theirs.type_) {
            Some(one) => one.clone_from(theirs),
            None => conditions.push(theirs.clone()),
        }
    }
    status.conditions = (!conditions.is_empty()).then_some(conditions);
    status.resize.clone_from(&live.resize);
    status.resource_claim_statuses.clone_from(&live.resource_claim_statuses);
    status
}

async fn delete(api: &Api<Pod>, pod: &Pod) -> Result<(), String> {
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let how = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default().grace_period(0) };
    match api.delete(spec::name(pod), &how).await {
        Err(error) if !is_gone(&error) => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// The static pod's mirror. One of another file, or one that somebody deletes, goes first; a missing one is made.
async fn mirrored(
    api: &Api<Pod>,
    shared: &Shared,
    wanted: &Wanted,
    written: &mut Written,
) -> Result<Option<Arc<Pod>>, String> {
    let pod = &wanted.pod;
    if let Some(found) = &wanted.mirror {
        if is_mirror_of(found, pod) && !spec::is_being_deleted(found) {
            return Ok(Some(found.clone()));
        }
        *written = None;
        delete(api, found).await?;
    }
    let node = shared.deps.own_node.as_ref().and_then(|informer| informer.snapshot());
    let owner = node.as_ref().and_then(|all| all.get("", &shared.config.node)).cloned();
    let made = mirror(pod, owner.as_deref());
    match api.create(&PostParams::default(), &made).await {
        Ok(created) => {
            *written = None;
            tracing::debug!(pod = spec::shown(pod), hash = spec::annotation(pod, HASH), "a static pod has a mirror");
            Ok(Some(Arc::new(created)))
        }
        // The informer will tell of it.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// What turns one status into another, for the pod of this uid only.
fn patch(live: &PodStatus, status: &PodStatus, uid: &str) -> Value {
    let before = serde_json::to_value(live).unwrap_or_default();
    let mut after = serde_json::to_value(status).unwrap_or_default();
    let Some(fields) = after.as_object_mut() else { return json!({}) };
    for (key, old) in before.as_object().into_iter().flatten() {
        match fields.get(key) {
            // It isn't said any more.
            None => {
                fields.insert(key.clone(), Value::Null);
            }
            Some(new) if new == old => {
                fields.remove(key);
            }
            Some(_) => {}
        }
    }
    for key in ["podIPs", "hostIPs", "conditions"] {
        // These are merged by their keys; what isn't there any more would stay.
        if let (Some(Value::Array(list)), Some(Value::Array(old))) = (fields.get_mut(key), before.get(key)) {
            let merge_key = if key == "conditions" { "type" } else { "ip" };
            for one in list.iter_mut() {
                let before = old.iter().find(|other| other[merge_key] == one[merge_key]);
                let fields = before.and_then(Value::as_object).into_iter().flatten();
                for (name, _) in fields {
                    // What isn't said any more of something that stays has to be taken away, too.
                    if one.get(name).is_none() {
                        one[name.as_str()] = Value::Null;
                    }
                }
            }
            let stale: Vec<Value> = old
                .iter()
                .filter(|one| !list.iter().any(|other| other[merge_key] == one[merge_key]))
                .map(|one| json!({"$patch": "delete", merge_key: one[merge_key]}))
                .collect();
            list.extend(stale);
        }
    }
    json!({"metadata": {"uid": uid}, "status": after})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_others_stays_theirs() {
        let ours = of(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"},
            {"type": "example.com/gate", "status": "False"}]}));
        let live =
            of(json!({"phase": "Running", "resize": "Deferred", "conditions": [{"type": "Ready", "status": "False"},
            {"type": "example.com/gate", "status": "True"}, {"type": "example.com/new", "status": "True"}]}));
        let merged =
            of(json!({"phase": "Running", "resize": "Deferred", "conditions": [{"type": "Ready", "status": "True"},
            {"type": "example.com/gate", "status": "True"}, {"type": "example.com/new", "status": "True"}]}));
        assert_eq!(with_theirs(&ours, &live), merged, "only what is ours is set right");
        assert_eq!(with_theirs(&merged, &merged), merged);
    }

    #[test]
    fn only_what_changed_is_written() {
        let live = of(json!({"phase": "Pending", "reason": "R", "hostIP": "h", "podIPs": [{"ip": "a"}],
            "conditions": [{"type": "X", "status": "True", "reason": "R"}, {"type": "Y", "status": "True"}]}));
        let made = of(json!({"phase": "Running", "hostIP": "h", "podIPs": [{"ip": "b"}],
            "conditions": [{"type": "X", "status": "False"}]}));
        assert_eq!(
            patch(&live, &made, "u"),
            json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "reason": null,
                "podIPs": [{"ip": "b"}, {"$patch": "delete", "ip": "a"}],
                "conditions": [{"type": "X", "status": "False", "reason": null}, {"$patch": "delete", "type": "Y"}]}})
        );
    }
}
