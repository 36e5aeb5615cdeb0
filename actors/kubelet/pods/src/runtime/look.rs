//! Asking the runtime what it has of a pod.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use k3sd_cri::{Cri, CriError, v1};

use super::{Found, Limits, Runtime, Sandbox, State, state_of};
use crate::status::message::{from_file, from_log};
use crate::translate::labels;

/// What was learned of containers that can't have changed since: the runtime isn't asked again. By id.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    containers: BTreeMap<String, Found>,
    sandboxes: BTreeMap<String, Sandbox>,
}

/// Asks for a pod's sandboxes and containers, youngest first, and for details of those that are new or have changed.
///
/// # Errors
/// The runtime doesn't answer, or not well.
pub async fn look(cri: &Cri, uid: &str, cache: &mut Cache) -> Result<Runtime, CriError> {
    let selector: BTreeMap<_, _> = [(labels::POD_UID.to_owned(), uid.to_owned())].into();
    let sandboxes = v1::ListPodSandboxRequest {
        filter: Some(v1::PodSandboxFilter {
            label_selector: selector.clone().into_iter().collect(),
            ..v1::PodSandboxFilter::default()
        }),
    };
    let containers = v1::ListContainersRequest {
        filter: Some(v1::ContainerFilter {
            label_selector: selector.into_iter().collect(),
            ..v1::ContainerFilter::default()
        }),
    };
    let (sandboxes, containers) = tokio::try_join!(cri.list_pod_sandbox(sandboxes), cri.list_containers(containers))?;
    let known = &*cache;
    let sandboxes = try_join_all(sandboxes.items.into_iter().map(|one| sandbox(cri, one, known))).await?;
    let containers = try_join_all(containers.containers.into_iter().map(|one| container(cri, one, known))).await?;
    let mut found = Runtime {
        sandboxes: sandboxes.into_iter().flatten().collect(),
        containers: containers.into_iter().flatten().collect(),
    };
    found.sandboxes.sort_by_key(|one| Reverse((one.attempt, one.created_at)));
    // As with sandboxes: the wall clock may have been set back between two attempts.
    found.containers.sort_by_key(|one| Reverse((one.attempt, one.created_at)));
    cache.sandboxes = found.sandboxes.iter().map(|one| (one.id.clone(), one.clone())).collect();
    cache.containers = found.containers.iter().map(|one| (one.id.clone(), one.clone())).collect();
    Ok(found)
}

/// Nanoseconds since 1970; nothing for zero, which the runtime says for "not yet".
fn time(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::from_nanosecond(nanoseconds.into()).ok()).flatten()
}

/// Details of a sandbox; nothing if it went away meanwhile.
async fn sandbox(cri: &Cri, listed: v1::PodSandbox, cache: &Cache) -> Result<Option<Sandbox>, CriError> {
    let ready = listed.state == v1::PodSandboxState::SandboxReady as i32;
    if let Some(known) = cache.sandboxes.get(&listed.id).filter(|known| known.ready == ready) {
        return Ok(Some(known.clone()));
    }
    let asked = v1::PodSandboxStatusRequest { pod_sandbox_id: listed.id.clone(), verbose: false };
    let status = match cri.pod_sandbox_status(asked).await {
        Ok(answer) => answer.status.unwrap_or_default(),
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let network = status.network.unwrap_or_default();
    let first = Some(network.ip).filter(|ip| !ip.is_empty());
    let options = status.linux.and_then(|linux| linux.namespaces?.options);
    Ok(Some(Sandbox {
        id: listed.id,
        attempt: listed.metadata.map(|metadata| metadata.attempt).unwrap_or_default(),
        ready: status.state == v1::PodSandboxState::SandboxReady as i32,
        created_at: time(listed.created_at).unwrap_or_default(),
        addresses: first.into_iter().chain(network.additional_ips.into_iter().map(|more| more.ip)).collect(),
        host_network: options.is_some_and(|options| options.network == v1::NamespaceMode::Node as i32),
    }))
}

/// Details of a container; nothing if it went away meanwhile.
async fn container(cri: &Cri, listed: v1::Container, cache: &Cache) -> Result<Option<Found>, CriError> {
    let state = state_of(listed.state);
    if let Some(known) = cache.containers.get(&listed.id).filter(|known| known.state == state) {
        return Ok(Some(known.clone()));
    }
    let asked = v1::ContainerStatusRequest { container_id: listed.id.clone(), verbose: false };
    let status = match cri.container_status(asked).await {
        Ok(answer) => answer.status.unwrap_or_default(),
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(found(listed, status)))
}

/// The runtime's message with the container's last words: those in its file, or else, where it may be so and it failed, the
/// end of its log.
fn last_words(listed: &v1::Container, status: &v1::ContainerStatus, state: State) -> String {
    if state != State::Exited {
        return status.message.clone();
    }
    let annotation = |key: &str| listed.annotations.get(key).filter(|text| !text.is_empty());
    let path = annotation(labels::MESSAGE_PATH);
    let mount = path.and_then(|path| status.mounts.iter().find(|mount| mount.container_path == *path));
    let own = mount.and_then(|mount| from_file(mount.host_path.as_ref()));
    let falls_back = annotation(labels::MESSAGE_POLICY).is_some_and(|policy| policy == "FallbackToLogsOnError");
    let own = own.or_else(|| {
        let wanted = falls_back && status.exit_code != 0 && !status.log_path.is_empty();
        wanted.then(|| from_log(status.log_path.as_ref())).flatten()
    });
    match (status.message.as_str(), own) {
        (_, None) => status.message.clone(),
        ("", Some(own)) => own,
        (message, Some(own)) => format!("{message}: {own}"),
    }
}

fn found(listed: v1::Container, status: v1::ContainerStatus) -> Found {
    let label = |key: &str| listed.labels.get(key).cloned().unwrap_or_default();
    let annotation = |key: &str| listed.annotations.get(key).filter(|text| !text.is_empty());
    let state = state_of(status.state);
    let message = last_words(&listed, &status, state);
    let limits = status.resources.and_then(|resources| resources.linux).map(|linux| Limits {
        cpu_shares: linux.cpu_shares,
        cpu_quota: linux.cpu_quota,
        cpu_period: linux.cpu_period,
        memory: linux.memory_limit_in_bytes,
    });
    let user = status.user.and_then(|user| user.linux).map(|user| (user.uid, user.gid, user.supplemental_groups));
    let attempt = listed.metadata.as_ref().map(|metadata| metadata.attempt);
    let grace = annotation(labels::DELETION_GRACE).or_else(|| annotation(labels::TERMINATION_GRACE));
    Found {
        name: label(labels::CONTAINER_NAME),
        attempt: annotation(labels::RESTART_COUNT).and_then(|text| text.parse().ok()).or(attempt).unwrap_or_default(),
        state,
        created_at: time(status.created_at).unwrap_or_default(),
        started_at: time(status.started_at),
        finished_at: if state == State::Exited { time(status.finished_at) } else { None },
        exit_code: status.exit_code,
        reason: status.reason,
        message,
        hash: annotation(labels::HASH).cloned().unwrap_or_default(),
        image: status
            .image
            .map(|image| if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image })
            .unwrap_or_default(),
        image_id: if status.image_ref.is_empty() { listed.image_ref.clone() } else { status.image_ref },
        log: status.log_path,
        grace: grace.and_then(|text| text.parse().ok()),
        pre_stop: annotation(labels::PRE_STOP).cloned(),
        limits,
        user,
        sandbox: listed.pod_sandbox_id,
        id: listed.id,
    }
}
