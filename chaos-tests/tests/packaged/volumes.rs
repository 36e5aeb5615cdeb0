//! Volumes in directories of a node.

use std::path::Path;
use std::time::Duration;

use chaos_tests::cluster::nodes::{NodesArgs, fake_nodes};
use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::controller::setup::ControllerConfig;
use k3sd_local_storage::LocalStorageArgs;
use k3sd_runtime::{Clock, subtree};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::reasons;

/// A cluster with volumes in directories of `node-0`, which a fake kubelet looks after if its pods are to run.
async fn with_storage(root: &Path, runs_pods: bool) -> Cluster {
    let plane = Plane::new(Clock::simulated(2));
    let connect = plane.identities().service_account("kube-system", k3sd_local_storage::SERVICE_ACCOUNT);
    let args = LocalStorageArgs { connect: connect.clone(), node: "node-0".to_owned(), clock: plane.clock().clone() };
    let mut others = vec![subtree("storage", k3sd_local_storage::tree(&args))];
    if runs_pods {
        let args = NodesArgs { count: 1, lease_period: None, ..NodesArgs::default() };
        others.push(fake_nodes("nodes", &plane.manager(), args).0);
    }
    let cluster = plane
        .start_controllers(ControllerConfig::default(), others, |setup| {
            let (nodes, volumes) = (setup.informers.informer(), setup.informers.informer());
            let gone = k3sd_local_storage::gone(connect, &nodes, &volumes, setup.leading.clone());
            let mut loops = k3sd_controllers_volumes::loops(setup);
            loops.push(gone);
            loops
        })
        .await;
    let text = k3sd_local_storage::MANIFEST.replace("%{DEFAULT_LOCAL_STORAGE_PATH}%", &root.display().to_string());
    cluster.deploy(&text).await;
    if !runs_pods {
        node(&cluster, "node-0", "host-0").await;
    }
    cluster
}

async fn node(cluster: &Cluster, name: &str, host: &str) {
    let node = json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": host } } });
    let nodes: Api<Node> = Api::all(cluster.admin());
    nodes.create(&PostParams::default(), &serde_json::from_value(node).expect("a node")).await.expect("it may be made");
}

async fn claim(cluster: &Cluster, name: &str, selected: &str) {
    let claim = json!({
        "metadata": { "name": name, "annotations": { "volume.kubernetes.io/selected-node": selected } },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    });
    cluster.make::<PersistentVolumeClaim>(claim).await;
}

fn directories(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_a_directory_and_gives_it_back() {
    let temp = tempfile::tempdir().expect("a directory");
    let root = temp.path().join("storage");
    let cluster = with_storage(&root, false).await;
    claim(&cluster, "data", "node-0").await;
    claim(&cluster, "elsewhere", "node-1").await;
    let phase = async |name: &str| {
        let claim = cluster.api::<PersistentVolumeClaim>().get(name).await.expect("it is there");
        claim.status.and_then(|status| status.phase).unwrap_or_default()
    };
    cluster.wait_until("the claim is bound", async || phase("data").await == "Bound").await;
    let claim = cluster.api::<PersistentVolumeClaim>().get("data").await.expect("it is there");
    let uid = claim.metadata.uid.clone().expect("set");
    let directory = format!("pvc-{uid}_default_data");
    assert_eq!(directories(&root), std::slice::from_ref(&directory));
    let volumes: Api<PersistentVolume> = Api::all(cluster.admin());
    let volume = volumes.get(&format!("pvc-{uid}")).await.expect("it was made");
    let spec = serde_json::to_value(volume.spec.expect("set")).expect("JSON");
    assert_eq!(spec["local"]["path"], root.join(&directory).display().to_string());
    let terms = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"][0]["values"], json!(["host-0"]));
    let told = async || {
        let all = reasons(&cluster, "data").await;
        ["Provisioning", "ProvisioningSucceeded"].iter().all(|reason| all.iter().any(|told| told == reason))
    };
    cluster.wait_until("it is told", told).await;
    assert_eq!(phase("elsewhere").await, "Pending", "another node's");

    std::fs::write(root.join(&directory).join("file"), "x").expect("a file");
    // Whoever dies meanwhile changes nothing.
    cluster.kill("loops/storage/provisioner");
    cluster.kill("loops/storage/directories");
    cluster.api::<PersistentVolumeClaim>().delete("data", &DeleteParams::default()).await.expect("it may be deleted");
    let gone = async || volumes.list(&ListParams::default()).await.is_ok_and(|all| all.items.is_empty());
    cluster.wait_until("the volume is gone", gone).await;
    assert_eq!(directories(&root), [""; 0]);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_cannot_be_is_told_why() {
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = with_storage(&temp.path().join("storage"), false).await;
    let classes: Api<StorageClass> = Api::all(cluster.admin());
    let class = json!({
        "metadata": { "name": "bad" }, "provisioner": "rancher.io/local-path", "volumeBindingMode": "WaitForFirstConsumer",
        "parameters": { "pathPattern": "{{ .PVC.Namespace }}/{{ .PVC.Name }}/../../../etc" },
    });
    classes.create(&PostParams::default(), &serde_json::from_value(class).expect("one")).await.expect("it may be made");
    let claim = json!({
        "metadata": { "name": "out", "annotations": { "volume.kubernetes.io/selected-node": "node-0" } },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "bad", "resources": { "requests": { "storage": "1Gi" } },
        },
    });
    cluster.make::<PersistentVolumeClaim>(claim).await;
    let told = async || reasons(&cluster, "out").await.contains(&"ProvisioningFailed".to_owned());
    cluster.wait_until("it is told", told).await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.admin());
    assert_eq!(volumes.list(&ListParams::default()).await.expect("they may be listed").items.len(), 0);
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin(), "kube-system");
    assert!(maps.get("local-path-config").await.is_ok());
    cluster.stop().await;
}

/// Has new directories made by a script of the operator's, in a pod that ends as these annotations say.
async fn customise(cluster: &Cluster, annotations: &str) {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: helper-pod\n  annotations: {annotations}\nspec:\n  containers:\n  - \
         {{name: helper-pod, image: 'registry.example/helper:1'}}\n"
    );
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin(), "kube-system");
    let change = json!({ "data": { "setup": "mkfs $VOL_DIR", "helperPod.yaml": pod } });
    maps.patch("local-path-config", &PatchParams::default(), &Patch::Merge(change)).await.expect("it may be changed");
}

/// The pods that help.
async fn helpers(cluster: &Cluster) -> Vec<Pod> {
    let pods: Api<Pod> = Api::namespaced(cluster.admin(), "kube-system");
    pods.list(&ListParams::default()).await.expect("they may be listed").items
}

async fn volumes(cluster: &Cluster) -> Vec<String> {
    let volumes: Api<PersistentVolume> = Api::all(cluster.admin());
    let list = volumes.list(&ListParams::default()).await.expect("they may be listed");
    list.items.into_iter().filter_map(|volume| volume.metadata.name).collect()
}

/// Waits until an Event about a claim says this.
async fn is_told(cluster: &Cluster, name: &str, words: &str) {
    let said = async || {
        let events = cluster.api::<Event>().list(&ListParams::default()).await.expect("they may be listed");
        let mut of = events.items.iter().filter(|event| event.involved_object.name.as_deref() == Some(name));
        of.any(|event| event.message.as_deref().is_some_and(|message| message.contains(words)))
    };
    cluster.wait_until(&format!("{name} is told: {words}"), said).await;
}

#[tokio::test(start_paused = true)]
async fn scripts_of_the_operator_run_in_a_pod() {
    let temp = tempfile::tempdir().expect("a directory");
    let root = temp.path().join("storage");
    let cluster = with_storage(&root, true).await;
    customise(&cluster, r#"{fake.k3sd.io/exit-code: "0", fake.k3sd.io/run-for: 20s}"#).await;
    claim(&cluster, "data", "node-0").await;
    let running = async || {
        helpers(&cluster)
            .await
            .iter()
            .any(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running"))
    };
    cluster.wait_until("the helper runs", running).await;
    let pod = serde_json::to_value(helpers(&cluster).await.remove(0)).expect("JSON");
    let uid = cluster.api::<PersistentVolumeClaim>().get("data").await.expect("it is there").metadata.uid.expect("set");
    let directory = root.join(format!("pvc-{uid}_default_data")).display().to_string();
    assert_eq!(pod["metadata"]["name"], format!("helper-pod-create-pvc-{uid}"));
    assert_eq!(pod["spec"]["nodeName"], "node-0");
    assert_eq!(pod["spec"]["volumes"][0]["hostPath"]["path"], root.display().to_string());
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["command"], json!(["/bin/sh", "/script/setup"]));
    assert_eq!(
        container["env"],
        json!([
            { "name": "VOL_DIR", "value": directory }, { "name": "VOL_MODE", "value": "Filesystem" },
            { "name": "VOL_SIZE_BYTES", "value": "1073741824" },
        ])
    );
    assert_eq!(volumes(&cluster).await, [""; 0], "it isn't made yet");
    // The next life waits for the same pod.
    cluster.kill("loops/storage/provisioner");
    let bound = async || {
        let claim = cluster.api::<PersistentVolumeClaim>().get("data").await.expect("it is there");
        claim.status.and_then(|status| status.phase).as_deref() == Some("Bound")
    };
    cluster.wait_until("the claim is bound", bound).await;
    cluster.wait_until("the pod is gone", async || helpers(&cluster).await.is_empty()).await;
    assert_eq!(directories(&root), [""; 0], "nobody but the script makes it");
    // The other script is K3s's own.
    cluster.api::<PersistentVolumeClaim>().delete("data", &DeleteParams::default()).await.expect("it may be deleted");
    cluster.wait_until("the volume is gone", async || volumes(&cluster).await.is_empty()).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_script_that_fails_and_an_image_that_is_not_there_are_told() {
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = with_storage(&temp.path().join("storage"), true).await;
    customise(&cluster, r#"{fake.k3sd.io/exit-code: "3"}"#).await;
    claim(&cluster, "data", "node-0").await;
    is_told(&cluster, "data", "the helper pod failed with exit code 3").await;
    customise(&cluster, "{fake.k3sd.io/start-after: 100s}").await;
    let pods: Api<Pod> = Api::namespaced(cluster.admin(), "kube-system");
    let waiting = json!({ "status": { "phase": "Pending", "containerStatuses": [{
        "name": "helper-pod", "image": "registry.example/helper:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "waiting": { "reason": "ErrImagePull", "message": "no route to host" } },
    }] } });
    let patched = async || {
        let all = helpers(&cluster).await;
        let late = all.iter().find(|pod| {
            let annotations = pod.metadata.annotations.as_ref();
            annotations.is_some_and(|all| all.contains_key("fake.k3sd.io/start-after"))
        });
        let Some(name) = late.and_then(|pod| pod.metadata.name.as_deref()) else { return false };
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&waiting)).await.is_ok()
    };
    cluster.wait_until("the kubelet says that there is no image", patched).await;
    is_told(
        &cluster,
        "data",
        "the image registry.example/helper:1 of the helper pod can't be had: ErrImagePull: no route",
    )
    .await;
    // Nobody has to do anything but to put the image there.
    customise(&cluster, r#"{fake.k3sd.io/exit-code: "0"}"#).await;
    let limit = Duration::from_secs(300);
    cluster.wait_within(limit, "the volume is made", async || volumes(&cluster).await.len() == 1).await;
    assert_eq!(volumes(&cluster).await.len(), 1);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn volumes_of_nodes_that_are_gone_go_too() {
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = with_storage(&temp.path().join("storage"), false).await;
    node(&cluster, "late", "late").await;
    let all: Api<PersistentVolume> = Api::all(cluster.admin());
    for (name, node, policy) in [("lost", "gone", "Delete"), ("kept", "gone", "Retain"), ("later", "late", "Delete")] {
        let volume = json!({
            "metadata": { "name": name, "annotations": {
                "pv.kubernetes.io/provisioned-by": "rancher.io/local-path", "local.path.provisioner/selected-node": node,
            } },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "local": { "path": "/opt/s/x" },
                "persistentVolumeReclaimPolicy": policy, "storageClassName": "local-path",
                "claimRef": { "namespace": "default", "name": name, "uid": "1-2-3" },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                    { "key": "kubernetes.io/hostname", "operator": "In", "values": [node] },
                ] }] } },
            },
        });
        let volume = serde_json::from_value(volume).expect("a volume");
        all.create(&PostParams::default(), &volume).await.expect("it may be made");
    }
    cluster.wait_until("one is gone", async || volumes(&cluster).await == ["kept", "later"]).await;
    cluster.pass(Duration::from_secs(60)).await;
    assert_eq!(volumes(&cluster).await, ["kept", "later"], "its node is there");
    cluster.kill("loops/local-volumes");
    let nodes: Api<Node> = Api::all(cluster.admin());
    nodes.delete("late", &DeleteParams::default()).await.expect("it may go");
    cluster.wait_until("the other is gone", async || volumes(&cluster).await == ["kept"]).await;
    cluster.stop().await;
}
