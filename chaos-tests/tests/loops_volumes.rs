//! The controllers of storage, over the API server: claims get volumes once, volumes are attached where pods use them, and
//! what is in use stays.

mod loops_volumes {
    pub(crate) mod attach;
    pub(crate) mod devices;
}

use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::controller::setup::ControllerConfig;
use k3sd_runtime::{Clock, Signal};
use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttributesClass};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

async fn start(seed: u64) -> Cluster {
    let plane = Plane::new(Clock::simulated(seed));
    plane.start_controllers(ControllerConfig::default(), Vec::new(), k3sd_controllers_volumes::loops).await
}

struct Bed {
    cluster: Cluster,
    claims: Api<PersistentVolumeClaim>,
    volumes: Api<PersistentVolume>,
    pods: Api<Pod>,
}

impl Bed {
    async fn new(seed: u64) -> Self {
        let cluster = start(seed).await;
        let admin = cluster.admin();
        let (claims, pods) = (cluster.api(), cluster.api());
        let _: ServiceAccount = cluster.make(json!({"metadata": {"name": "default"}})).await;
        Self { cluster, claims, volumes: Api::all(admin), pods }
    }

    async fn claim(&self, name: &str, spec: Value) {
        let mut whole = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "resources": {"requests": {"storage": "5Gi"}}});
        for (key, value) in spec.as_object().expect("an object") {
            whole[key] = value.clone();
        }
        let claim = serde_json::from_value(json!({"metadata": {"name": name}, "spec": whole})).expect("a claim");
        self.claims.create(&PostParams::default(), &claim).await.expect("it may be made");
    }

    async fn volume(&self, name: &str, storage: &str, policy: &str) {
        let path = json!({"hostPath": {"path": "/srv/x"}, "persistentVolumeReclaimPolicy": policy});
        self.volume_of(name, storage, path).await;
    }

    /// A volume of a kind that `source` says, with whatever else that says.
    async fn volume_of(&self, name: &str, storage: &str, source: Value) {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": storage}});
        for (key, value) in source.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        let volume = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("a volume");
        self.volumes.create(&PostParams::default(), &volume).await.expect("it may be made");
    }

    /// Phase and volume of a claim.
    async fn of_claim(&self, name: &str) -> (String, String) {
        let Ok(Some(claim)) = self.claims.get_opt(name).await else { return Default::default() };
        let phase = claim.status.and_then(|status| status.phase).unwrap_or_default();
        (phase, claim.spec.and_then(|spec| spec.volume_name).unwrap_or_default())
    }

    async fn of_volume(&self, name: &str) -> String {
        let found = self.volumes.get_opt(name).await.ok().flatten();
        found.and_then(|volume| volume.status).and_then(|status| status.phase).unwrap_or_default()
    }

    async fn claim_is(&self, name: &str, phase: &str, volume: &str) {
        let wanted = (phase.to_owned(), volume.to_owned());
        self.cluster.wait_until(&format!("{name} {wanted:?}"), async || self.of_claim(name).await == wanted).await;
    }

    async fn volume_is(&self, name: &str, phase: &str) {
        self.cluster.wait_until(&format!("{name} {phase}"), async || self.of_volume(name).await == phase).await;
    }

    /// Makes a pod with these volumes; on a node, unless that is empty.
    async fn pod(&self, name: &str, node: &str, volumes: Value) -> Pod {
        let node = Some(node).filter(|node| !node.is_empty());
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}], "volumes": volumes});
        self.cluster.make(json!({"metadata": {"name": name}, "spec": spec})).await
    }

    async fn end(&self, pod: &str) {
        self.pods.delete(pod, &DeleteParams::default().grace_period(0)).await.expect("it goes");
    }

    /// Kills a loop; it may be dead still from the time before.
    fn kill(&self, name: &str) {
        self.cluster.system().signal(&format!("loops/{name}"), Signal::Kill);
    }

    async fn is_told(&self, name: &str, reason: &str, message: &str) {
        let told = async || self.all_said(name, reason).await.iter().any(|said| said == message);
        self.cluster.wait_until(&format!("{name} is told: {message}"), told).await;
    }

    async fn all_said(&self, name: &str, reason: &str) -> Vec<String> {
        let events: Api<Event> = Api::all(self.cluster.admin());
        let found = events.list(&ListParams::default()).await.map(|found| found.items).unwrap_or_default();
        let is_so = |event: &Event| {
            event.involved_object.name.as_deref() == Some(name) && event.reason.as_deref() == Some(reason)
        };
        found.into_iter().filter(is_so).filter_map(|event| event.message).collect()
    }

    async fn said(&self, name: &str, reason: &str) -> Option<String> {
        self.all_said(name, reason).await.into_iter().next()
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_the_smallest_volume_and_gives_it_back() {
    let bed = Bed::new(1).await;
    bed.claim("a", json!({})).await;
    bed.claim_is("a", "Pending", "").await;
    bed.cluster.wait_until("the reason", async || bed.said("a", "FailedBinding").await.is_some()).await;
    bed.volume("small", "1Gi", "Retain").await;
    bed.volume_is("small", "Available").await;
    bed.volume("large", "50Gi", "Retain").await;
    bed.claim_is("a", "Bound", "large").await;
    bed.volume_is("large", "Bound").await;
    bed.volume("right", "5Gi", "Delete").await;
    bed.volume_is("right", "Available").await;
    bed.claim("b", json!({})).await;
    bed.claim_is("b", "Bound", "right").await;

    bed.claims.delete("a", &DeleteParams::default()).await.expect("it goes");
    bed.volume_is("large", "Released").await;
    bed.claims.delete("b", &DeleteParams::default()).await.expect("it goes");
    bed.volume_is("right", "Failed").await;
    let why = "host_path deleter only supports /tmp/.+ but received provided /srv/x";
    bed.is_told("right", "VolumeFailedDelete", why).await;

    // A claim of the same name in its next life gets another.
    bed.claim("a", json!({})).await;
    bed.claim_is("a", "Pending", "").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_in_use_stays() {
    let bed = Bed::new(2).await;
    bed.volume("v", "5Gi", "Retain").await;
    bed.claim("c", json!({})).await;
    bed.claim_is("c", "Bound", "v").await;
    bed.pod("p", "n", json!([{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}])).await;
    bed.claims.delete("c", &DeleteParams::default()).await.expect("it is going");
    bed.volumes.delete("v", &DeleteParams::default()).await.expect("it is going");
    bed.cluster.pass(std::time::Duration::from_secs(600)).await;
    let claim = bed.claims.get("c").await.expect("the pod keeps it");
    assert!(claim.metadata.deletion_timestamp.is_some());
    assert!(bed.volumes.get_opt("v").await.expect("it can be read").is_some(), "the claim keeps it");
    bed.end("p").await;
    let claims = async || matches!(bed.claims.get_opt("c").await, Ok(None));
    bed.cluster.wait_until("the claim is gone", claims).await;
    let volumes = async || matches!(bed.volumes.get_opt("v").await, Ok(None));
    bed.cluster.wait_until("the volume is gone", volumes).await;
}

#[tokio::test(start_paused = true)]
async fn classes_decide_who_makes_a_volume() {
    let bed = Bed::new(3).await;
    let classes: Api<StorageClass> = Api::all(bed.cluster.admin());
    let class = |name: &str, mode: &str, annotations: Value| {
        let class = json!({"metadata": {"name": name, "annotations": annotations}, "provisioner": "example.com/disk",
            "volumeBindingMode": mode});
        serde_json::from_value(class).expect("a class")
    };
    bed.claim("nobody", json!({"storageClassName": "absent"})).await;
    bed.claim("any", json!({"storageClassName": null})).await;
    let late = class("late", "WaitForFirstConsumer", json!({}));
    classes.create(&PostParams::default(), &late).await.expect("it may be made");
    bed.claim("late", json!({"storageClassName": "late"})).await;
    for (name, reason, message) in [
        ("nobody", "ProvisioningFailed", "storageclass.storage.k8s.io \"absent\" not found"),
        ("late", "WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
    ] {
        bed.cluster.wait_until(name, async || bed.said(name, reason).await.as_deref() == Some(message)).await;
        bed.claim_is(name, "Pending", "").await;
    }
    // A default class that comes later is assigned, and its provisioner is told.
    let default = class("std", "Immediate", json!({"storageclass.kubernetes.io/is-default-class": "true"}));
    classes.create(&PostParams::default(), &default).await.expect("it may be made");
    let asked = async || {
        let Ok(claim) = bed.claims.get("any").await else { return false };
        let annotations = claim.metadata.annotations.unwrap_or_default();
        claim.spec.is_some_and(|spec| spec.storage_class_name.as_deref() == Some("std"))
            && annotations.get("volume.kubernetes.io/storage-provisioner").is_some_and(|by| by == "example.com/disk")
    };
    bed.cluster.wait_until("the provisioner is told", asked).await;
    // The scheduler has chosen a node.
    let chosen = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n"}}});
    bed.claims.patch("late", &PatchParams::default(), &Patch::Merge(&chosen)).await.expect("it may be changed");
    bed.cluster.wait_until("told", async || bed.said("late", "ExternalProvisioning").await.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn no_two_claims_share_a_volume_whatever_dies() {
    let bed = Bed::new(4).await;
    for number in 0..20 {
        bed.volume(&format!("v{number}"), "5Gi", "Retain").await;
        bed.claim(&format!("c{number}"), json!({})).await;
        if number % 3 == 0 {
            bed.kill("persistentvolume-binder");
        }
    }
    for number in 0..20 {
        let name = format!("c{number}");
        bed.cluster.wait_until(&name, async || bed.of_claim(&name).await.0 == "Bound").await;
    }
    let mut taken = std::collections::BTreeSet::new();
    for claim in bed.claims.list(&ListParams::default()).await.expect("they can be read").items {
        let volume = claim.spec.and_then(|spec| spec.volume_name).expect("it is bound");
        let shown = bed.volumes.get(&volume).await.expect("it is there");
        let reference = shown.spec.and_then(|spec| spec.claim_ref).expect("it is bound");
        assert_eq!((reference.name, reference.uid), (claim.metadata.name, claim.metadata.uid));
        assert!(taken.insert(volume));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_brings_its_claims_whatever_dies() {
    let bed = Bed::new(5).await;
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "resources": {"requests": {"storage": "1Gi"}}}});
    let volumes = json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]);
    bed.claim("taken-scratch", json!({})).await;
    bed.cluster.kill("loops/ephemeral-volume");
    let mut pods = Vec::new();
    for number in 0..20 {
        pods.push(bed.pod(&format!("p{number}"), "", volumes.clone()).await);
        if number % 3 == 0 {
            bed.kill("ephemeral-volume");
        }
    }
    let is_its = async |pod: &Pod| {
        let name = format!("{}-scratch", pod.metadata.name.as_deref().unwrap_or_default());
        let Ok(Some(claim)) = bed.claims.get_opt(&name).await else { return false };
        let owners = claim.metadata.owner_references.unwrap_or_default();
        let is = |owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| {
            (owner.controller, owner.block_owner_deletion) == (Some(true), Some(true))
                && Some(&owner.uid) == pod.metadata.uid.as_ref()
        };
        owners.len() == 1 && owners.iter().all(is) && claim.metadata.deletion_timestamp.is_none()
    };
    for pod in &pods {
        bed.cluster.wait_until("it has its claim", async || is_its(pod).await).await;
    }
    // A claim that is there already is somebody else's, until that deletes it.
    let taken = bed.pod("taken", "", volumes).await;
    let why = "ephemeral volume scratch: PVC default/taken-scratch was not created for pod default/taken (pod is not \
               owner)";
    bed.is_told("taken", "FailedBinding", why).await;
    for name in ["taken-scratch", "p0-scratch"] {
        bed.claims.delete(name, &DeleteParams::default()).await.expect("it goes");
    }
    for pod in [&taken, &pods[0]] {
        bed.cluster.wait_until("it has its claim", async || is_its(pod).await).await;
    }
    let count = bed.claims.list(&ListParams::default()).await.expect("they can be read").items.len();
    assert_eq!(count, 21, "one for each");
}

#[tokio::test(start_paused = true)]
async fn claims_that_grow_are_handed_to_drivers() {
    let bed = Bed::new(6).await;
    let classes: Api<StorageClass> = Api::all(bed.cluster.admin());
    let class = json!({"metadata": {"name": "grows"}, "provisioner": "d.example.com", "allowVolumeExpansion": true});
    let class = serde_json::from_value(class).expect("a class");
    classes.create(&PostParams::default(), &class).await.expect("it may be made");
    let sources = [
        ("csi", json!({"csi": {"driver": "d.example.com", "volumeHandle": "h"}})),
        ("ebs", json!({"awsElasticBlockStore": {"volumeID": "vol-1"}})),
    ];
    for (name, mut source) in sources {
        source["storageClassName"] = "grows".into();
        source["claimRef"] = json!({"namespace": "default", "name": name});
        bed.volume_of(name, "5Gi", source).await;
        bed.claim(name, json!({"storageClassName": "grows"})).await;
        bed.claim_is(name, "Bound", name).await;
    }
    bed.cluster.pass(std::time::Duration::from_secs(10)).await;
    assert_eq!(bed.said("csi", "ExternalExpanding").await, None, "it is as large as it wants");
    bed.cluster.kill("loops/persistentvolume-expander");
    for name in ["csi", "ebs"] {
        let more = json!({"spec": {"resources": {"requests": {"storage": "8Gi"}}}});
        bed.claims.patch(name, &PatchParams::default(), &Patch::Merge(&more)).await.expect("it may grow");
    }
    bed.is_told("csi", "ExternalExpanding", "waiting for an external controller to expand this PVC").await;
    let handed = "CSI migration enabled for kubernetes.io/aws-ebs; waiting for external resizer to expand the pvc";
    bed.is_told("ebs", "ExternalExpanding", handed).await;
    let is_handed = async || {
        let claim = bed.claims.get("ebs").await.expect("it is there");
        let annotations = claim.metadata.annotations.unwrap_or_default();
        annotations.get("volume.kubernetes.io/storage-resizer").is_some_and(|by| by == "ebs.csi.aws.com")
    };
    bed.cluster.wait_until("the driver is named", is_handed).await;
}

#[tokio::test(start_paused = true)]
async fn directories_go_with_their_volumes() {
    let bed = Bed::new(13).await;
    let directory = tempfile::Builder::new().prefix("k3sd-volume-").tempdir_in("/tmp").expect("a directory");
    let path = directory.path().join("v");
    std::fs::create_dir_all(path.join("deep")).expect("a directory");
    std::fs::write(path.join("deep/file"), "x").expect("a file");
    let source = json!({"hostPath": {"path": path}, "persistentVolumeReclaimPolicy": "Delete"});
    bed.volume_of("v", "5Gi", source).await;
    bed.claim("c", json!({})).await;
    bed.claim_is("c", "Bound", "v").await;
    assert!(path.exists());
    bed.claims.delete("c", &DeleteParams::default()).await.expect("it goes");
    bed.cluster.wait_until("the volume is gone", async || matches!(bed.volumes.get_opt("v").await, Ok(None))).await;
    assert!(!path.exists() && directory.path().exists());
}

/// Whether the pod that empties a volume is there: its identifier.
async fn recycler(bed: &Bed, volume: &str) -> Option<String> {
    bed.pods.get_opt(&format!("recycler-for-{volume}")).await.ok()??.metadata.uid
}

#[tokio::test(start_paused = true)]
async fn volumes_are_emptied_by_a_pod_and_free_again() {
    let bed = Bed::new(14).await;
    // Somebody would like to have the volume as it is.
    bed.pod("recycler-for-v", "n", json!([])).await;
    let ends = async |phase: &str, why: &str| {
        let status = json!({"status": {"phase": phase, "message": why}});
        let params = PatchParams::default();
        bed.pods.patch_status("recycler-for-v", &params, &Patch::Merge(&status)).await.expect("it ends");
    };
    ends("Succeeded", "").await;
    let forged = recycler(&bed, "v").await;
    bed.volume("v", "5Gi", "Recycle").await;
    bed.claim("c", json!({})).await;
    bed.claim_is("c", "Bound", "v").await;
    bed.claims.delete("c", &DeleteParams::default()).await.expect("it goes");
    bed.is_told("v", "VolumeFailedRecycle", "Recycle failed: old recycler pod found, will retry later").await;
    bed.volume_is("v", "Failed").await;
    let is_real = async || recycler(&bed, "v").await.is_some_and(|uid| Some(uid) != forged);
    bed.cluster.wait_until("a pod empties it", is_real).await;
    let pod = bed.pods.get("recycler-for-v").await.expect("it is there").spec.expect("a specification");
    assert_eq!(pod.active_deadline_seconds, Some(150), "half a minute for each GiB");

    ends("Failed", "no room").await;
    let why = "Recycle failed: failed to recycle volume: no room";
    bed.is_told("v", "VolumeFailedRecycle", why).await;
    bed.cluster.wait_until("that pod is gone", async || recycler(&bed, "v").await.is_none()).await;
    bed.cluster.wait_until("another tries", async || recycler(&bed, "v").await.is_some()).await;
    bed.cluster.kill("loops/persistentvolume-binder");
    bed.cluster.pass(std::time::Duration::from_secs(60)).await;
    assert_eq!(bed.of_volume("v").await, "Failed", "it isn't empty yet");
    ends("Succeeded", "").await;
    bed.volume_is("v", "Available").await;
    bed.is_told("v", "VolumeRecycled", "Volume recycled").await;
    bed.cluster.wait_until("the pod is gone", async || recycler(&bed, "v").await.is_none()).await;
    bed.claim("d", json!({})).await;
    bed.claim_is("d", "Bound", "v").await;
}

#[tokio::test(start_paused = true)]
async fn classes_of_attributes_stay_as_long_as_somebody_names_them() {
    let bed = Bed::new(15).await;
    let classes: Api<VolumeAttributesClass> = Api::all(bed.cluster.admin());
    for name in ["used", "unused"] {
        let class = json!({"metadata": {"name": name}, "driverName": "d.example.com", "parameters": {"iops": "1"}});
        let class = serde_json::from_value(class).expect("a class");
        classes.create(&PostParams::default(), &class).await.expect("it may be made");
    }
    bed.claim("c", json!({"volumeAttributesClassName": "used"})).await;
    bed.claim_is("c", "Pending", "").await;
    bed.cluster.kill("loops/volumeattributesclass-protection");
    for name in ["used", "unused"] {
        classes.delete(name, &DeleteParams::default()).await.expect("it is going");
    }
    let is_gone = async |name: &str| matches!(classes.get_opt(name).await, Ok(None));
    bed.cluster.wait_until("nobody names it", async || is_gone("unused").await).await;
    bed.cluster.pass(std::time::Duration::from_secs(60)).await;
    assert!(!is_gone("used").await, "the claim keeps it");
    bed.claims.delete("c", &DeleteParams::default()).await.expect("it goes");
    bed.cluster.wait_until("nobody names it any more", async || is_gone("used").await).await;
}
