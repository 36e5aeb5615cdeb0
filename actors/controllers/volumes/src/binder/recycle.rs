//! Volumes of the policy `Recycle` are emptied by a pod, and free again.
//!
//! Nobody believes a pod of that name that was there before: it may be older than the volume's last claim, or forged so
//! that nothing is emptied. So it is kept beside the loop which pod was made for a volume; a new process begins again.

use std::time::Duration;

use k3sd_client::controller::{Failure, Turn};
use k3sd_client::informer::Snapshot;
use k3sd_runtime::Moment;
use k8s_openapi::api::core::v1::{
    Container, HostPathVolumeSource, NFSVolumeSource, PersistentVolume, Pod, PodSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::{Binder, claim_of, volume};
use crate::claims::{BY_CLAIM, is_done};
use crate::sizes::capacity;
use crate::support::{said, text, uid};

/// Where the pods are, and what their names begin with.
const NAMESPACE: &str = "default";
const NAME: &str = "recycler-for-";
/// What the pod is made of, as upstream's default says.
const IMAGE: &str = "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6";
const SCRUB: &str = "test -e /scrub && find /scrub -mindepth 1 -delete && test -z \"$(ls -A /scrub)\" || exit 1";
/// Seconds that a pod gets for a volume: at least so many, by where it is, and so many for each GiB.
const SECONDS_MIN_HOST: i64 = 60;
const SECONDS_MIN_NFS: i64 = 300;
const SECONDS_PER_GIB: i64 = 30;
const GIB: i64 = 1 << 30;
/// How soon a volume that couldn't be emptied is tried again.
const RETRY: Duration = Duration::from_secs(15);
const REASON: &str = "VolumeFailedRecycle";

/// What is known of a volume that is being emptied.
#[derive(Clone, Debug, Default)]
pub(super) struct Scrub {
    /// The pod that was made for it.
    pod: Option<String>,
    /// It is left alone until then.
    rests_until: Option<Moment>,
}

/// The volume that a pod empties, by its name.
pub(super) fn volume_of(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref()?.strip_prefix(NAME)?;
    (pod.metadata.namespace.as_deref() == Some(NAMESPACE)).then(|| name.to_owned())
}

/// Whether a pod can empty the volume.
pub(super) fn is_recyclable(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().is_some_and(|spec| spec.host_path.is_some() || spec.nfs.is_some())
}

/// The pod that empties a volume.
fn scrubber(volume: &PersistentVolume) -> Pod {
    let spec = volume.spec.clone().unwrap_or_default();
    let seconds_min = if spec.host_path.is_some() { SECONDS_MIN_HOST } else { SECONDS_MIN_NFS };
    let seconds = (capacity(volume).value() / GIB).saturating_mul(SECONDS_PER_GIB);
    let vol = Volume {
        name: "vol".to_owned(),
        host_path: spec.host_path.map(|host| HostPathVolumeSource { path: host.path, type_: None }),
        nfs: spec.nfs.map(|nfs| NFSVolumeSource { server: nfs.server, path: nfs.path, read_only: None }),
        ..Volume::default()
    };
    let mount = VolumeMount { name: "vol".to_owned(), mount_path: "/scrub".to_owned(), ..VolumeMount::default() };
    let container = Container {
        name: "pv-recycler".to_owned(),
        image: Some(IMAGE.to_owned()),
        command: Some(vec!["/bin/sh".to_owned()]),
        args: Some(vec!["-c".to_owned(), SCRUB.to_owned()]),
        volume_mounts: Some(vec![mount]),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(format!("{NAME}{}", text(volume.metadata.name.as_ref()))),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            active_deadline_seconds: Some(seconds.max(seconds_min)),
            restart_policy: Some("Never".to_owned()),
            volumes: Some(vec![vol]),
            containers: vec![container],
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// How far a pod is with a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Look {
    /// None was made yet.
    Begin,
    /// One of that name is there that nobody here made.
    Stranger,
    /// It works.
    Works,
    /// The volume is empty.
    Empty,
    /// It can't be emptied, with the reason.
    Failed(String),
}

fn look(shown: Option<&Pod>, made: Option<&str>) -> Look {
    let Some(pod) = shown else {
        return made.map_or(Look::Begin, |_| Look::Failed("recycler pod was deleted".to_owned()));
    };
    if made != Some(uid(&pod.metadata)) {
        return Look::Stranger;
    }
    let status = pod.status.as_ref();
    match status.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => Look::Empty,
        Some("Failed") => {
            let why = status.and_then(|status| status.message.clone()).filter(|why| !why.is_empty());
            Look::Failed(why.unwrap_or_else(|| "pod failed, pod.Status.Message unknown".to_owned()))
        }
        _ => Look::Works,
    }
}

impl Binder {
    /// Forgets the pod of a volume that isn't being emptied.
    pub(super) fn forget_scrub(&self, name: &str) {
        if self.scrubs.borrow().contains_key(name) {
            self.scrubs.send_modify(|scrubs| _ = scrubs.remove(name));
        }
    }

    /// Has a volume emptied that was let go of, and frees it then.
    pub(super) async fn scrub(
        &self,
        volume: &PersistentVolume,
        pods: &Snapshot<Pod>,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        let name = text(volume.metadata.name.as_ref());
        if !volume::is_let_go(volume) {
            return self.phase(volume, "Released", None, turn).await;
        }
        let users = self.users(volume, pods);
        if !users.is_empty() {
            self.recorder.normal(volume, REASON, format!("Volume is used by pods: {}", users.join(",")));
            return Ok(());
        }
        let known = self.scrubs.borrow().get(name).cloned().unwrap_or_default();
        let left = known.rests_until.map_or(Duration::ZERO, |until| until.since(turn.moment()));
        if !left.is_zero() {
            turn.again(left);
            return Ok(());
        }
        let shown = pods.get(NAMESPACE, &format!("{NAME}{name}")).map(AsRef::as_ref);
        match look(shown, known.pod.as_deref()) {
            Look::Begin => self.begin(volume, name, turn).await,
            Look::Works => Ok(()),
            Look::Stranger => {
                self.remove(shown, turn).await?;
                self.give_up(volume, name, "old recycler pod found, will retry later", turn).await
            }
            Look::Failed(why) => {
                self.remove(shown, turn).await?;
                self.give_up(volume, name, &format!("failed to recycle volume: {why}"), turn).await
            }
            Look::Empty => {
                self.remove(shown, turn).await?;
                let wanted = volume::without_claim(volume);
                let written = self.all_volumes().replace(name, &PostParams::default(), &wanted).await?;
                turn.wrote(&self.volumes, &written);
                self.forget_scrub(name);
                self.recorder.normal(volume, "VolumeRecycled", "Volume recycled");
                self.phase(&written, "Available", None, turn).await
            }
        }
    }

    /// The pods that still run with what was the claim of the volume. If that is there again, it is another, and so is
    /// its volume.
    fn users(&self, volume: &PersistentVolume, pods: &Snapshot<Pod>) -> Vec<String> {
        let Some(key) = claim_of(volume) else { return Vec::new() };
        let claims = self.claims.snapshot();
        if claims.is_some_and(|claims| claims.get(&key.namespace, &key.name).is_some()) {
            return Vec::new();
        }
        let text = key.to_string();
        let running = pods.by(BY_CLAIM, &text).filter(|pod| !is_done(pod));
        running.map(|pod| k3sd_client::informer::ObjectKey::of(&**pod).to_string()).collect()
    }

    async fn begin(&self, volume: &PersistentVolume, name: &str, turn: &mut Turn) -> Result<(), Failure> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        match api.create(&PostParams::default(), &scrubber(volume)).await.map_err(Failure::from) {
            Ok(made) => {
                self.note(name, Scrub { pod: made.metadata.uid.clone(), rests_until: None });
                turn.wrote(&self.pods, &made);
                Ok(())
            }
            // The copy will show it.
            Err(failure) if failure.code() == Some(409) => Err(failure),
            Err(failure) => {
                let why =
                    format!("failed to recycle volume: unexpected error creating recycler pod:  {}", said(&failure));
                self.give_up(volume, name, &why, turn).await
            }
        }
    }

    /// Deletes this very pod.
    async fn remove(&self, pod: Option<&Pod>, turn: &mut Turn) -> Result<(), Failure> {
        let Some(pod) = pod else { return Ok(()) };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(text(pod.metadata.name.as_ref()), &params).await.map_err(Failure::from) {
            Err(failure) if failure.code() != Some(404) => Err(failure),
            _ => {
                turn.deleted(&self.pods, pod);
                Ok(())
            }
        }
    }

    /// Says why the volume isn't empty, and tries again later.
    async fn give_up(&self, volume: &PersistentVolume, name: &str, why: &str, turn: &mut Turn) -> Result<(), Failure> {
        let message = format!("Recycle failed: {why}");
        self.phase(volume, "Failed", Some(&message), turn).await?;
        self.recorder.warning(volume, REASON, message);
        self.note(name, Scrub { pod: None, rests_until: Some(turn.moment() + RETRY) });
        turn.again(RETRY);
        Ok(())
    }

    fn note(&self, name: &str, scrub: Scrub) {
        self.scrubs.send_modify(|scrubs| _ = scrubs.insert(name.to_owned(), scrub));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(storage: &str, source: Value) -> PersistentVolume {
        let mut spec = json!({"capacity": {"storage": storage}});
        for (key, value) in source.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).expect("a volume")
    }

    #[test]
    fn a_pod_empties_what_it_can_mount_in_the_time_it_needs() {
        let (host, nfs) = (json!({"path": "/x"}), json!({"server": "s", "path": "/y"}));
        for (storage, source, seconds) in [
            ("1Gi", json!({ "hostPath": host }), 60),
            ("10Gi", json!({ "hostPath": host }), 300),
            ("5Gi", json!({ "nfs": nfs }), 300),
            ("100Gi", json!({ "nfs": nfs }), 3000),
        ] {
            let volume = volume(storage, source.clone());
            assert!(is_recyclable(&volume));
            let pod = scrubber(&volume);
            assert_eq!(volume_of(&pod).as_deref(), Some("v"));
            let spec = pod.spec.expect("a specification");
            assert_eq!(spec.active_deadline_seconds, Some(seconds), "{storage} {source}");
            let mut wanted = source;
            wanted["name"] = "vol".into();
            assert_eq!(serde_json::to_value(&spec.volumes.expect("a volume")[0]).expect("a volume"), wanted);
        }
        assert!(!is_recyclable(&volume("1Gi", json!({"csi": {"driver": "d", "volumeHandle": "h"}}))));
    }

    #[test]
    fn only_the_pod_that_was_made_is_believed() {
        let pod = |uid: &str, phase: &str, message: &str| -> Pod {
            let status = json!({"phase": phase, "message": message});
            serde_json::from_value(json!({"metadata": {"uid": uid}, "status": status})).expect("a pod")
        };
        let failed = |why: &str| Look::Failed(why.to_owned());
        for (shown, made, wanted) in [
            (None, None, Look::Begin),
            (None, Some("1"), failed("recycler pod was deleted")),
            (Some(pod("1", "Succeeded", "")), None, Look::Stranger),
            (Some(pod("2", "Succeeded", "")), Some("1"), Look::Stranger),
            (Some(pod("1", "Pending", "")), Some("1"), Look::Works),
            (Some(pod("1", "Succeeded", "")), Some("1"), Look::Empty),
            (Some(pod("1", "Failed", "")), Some("1"), failed("pod failed, pod.Status.Message unknown")),
            (Some(pod("1", "Failed", "too late")), Some("1"), failed("too late")),
        ] {
            assert_eq!(look(shown.as_ref(), made), wanted, "{shown:?} {made:?}");
        }
    }
}
