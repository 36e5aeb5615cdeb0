//! Runs a helper pod to its end. What it did is seen from the API, so whoever dies meanwhile finds it again.

use std::time::Duration;

use futures_util::StreamExt as _;
use k3sd_client::controller::Failure;
use k3sd_runtime::Clock;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams, WatchEvent, WatchParams};

use crate::NAMESPACE;
use crate::helper::{Action, Helper, Progress, Work, progress};

/// Before the API is asked again that ended a watch at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs the helper for a directory, and takes its pod away. An error is for people.
///
/// # Errors
/// The pod can't be made, or it failed, or it isn't done in time.
pub(crate) async fn help(
    client: kube::Client,
    clock: &Clock,
    helper: &Helper,
    work: &Work<'_>,
    action: Action,
) -> Result<(), String> {
    let failed = |why: String| format!("failed to {} volume {}: {why}", action.word(), work.volume);
    let pod = helper.pod(work).map_err(failed)?;
    let name = pod.metadata.name.clone().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    // One that is there is that of an earlier life, or of another node; what it did counts.
    if let Err(error) = pods.create(&PostParams::default(), &pod).await.map_err(Failure::from)
        && error.code() != Some(409)
    {
        return Err(failed(error.chain()));
    }
    let deadline = clock.now() + helper.limit;
    let done = tokio::select! {
        done = follow(&pods, &name, clock) => done,
        () = clock.sleep_until(deadline) => {
            Err(format!("create process timeout after {} seconds", helper.limit.as_secs()))
        }
    };
    match pods.delete(&name, &DeleteParams::default()).await.map_err(Failure::from) {
        Err(failure) if failure.code() != Some(404) => {
            tracing::warn!(pod = name, error = failure.chain(), "a helper pod of local volumes can't be deleted");
        }
        _ => {}
    }
    done.map_err(failed)
}

/// Waits until a pod has come to its end.
async fn follow(pods: &Api<Pod>, name: &str, clock: &Clock) -> Result<(), String> {
    let params = WatchParams::default().fields(&format!("metadata.name={name}"));
    loop {
        let found = pods.get_opt(name).await.map_err(|error| Failure::from(error).chain())?;
        let pod = found.filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let pod = pod.ok_or("the helper pod was deleted by somebody else")?;
        if let Some(done) = ended(&pod) {
            return done;
        }
        let version = pod.metadata.resource_version.unwrap_or_default();
        if let Ok(events) = pods.watch(&params, &version).await {
            let mut events = Box::pin(events);
            while let Some(Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod))) =
                events.next().await
            {
                if let Some(done) = ended(&pod) {
                    return done;
                }
                if pod.metadata.deletion_timestamp.is_some() {
                    break;
                }
            }
        }
        clock.sleep_until(clock.now() + PAUSE).await;
    }
}

/// What came of a pod, if it has come to its end.
fn ended(pod: &Pod) -> Option<Result<(), String>> {
    match progress(pod) {
        Progress::Running => None,
        Progress::Done => Some(Ok(())),
        Progress::Failed(why) => Some(Err(why)),
    }
}
