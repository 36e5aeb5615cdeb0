//! Volumes of CSI drivers are attached to the nodes whose pods use them, and to one at a time.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::Bed;

const DRIVER: &str = "d.example.com";
const LOOP: &str = "attachdetach";
const SUCCEEDED: &str = "AttachVolume.Attach succeeded for volume \"v\" ";

/// Nodes, and what a driver does: it is played by the test.
struct Rack<'a> {
    bed: &'a Bed,
    nodes: Api<Node>,
    attachments: Api<VolumeAttachment>,
}

impl<'a> Rack<'a> {
    /// With two nodes, and a bound claim for each of these volumes, of the same name.
    async fn new(bed: &'a Bed, volumes: &[&str]) -> Self {
        let admin = bed.cluster.admin();
        let rack = Self { bed, nodes: Api::all(admin.clone()), attachments: Api::all(admin) };
        for name in ["m", "n"] {
            let annotations = json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"});
            let node = json!({"metadata": {"name": name, "annotations": annotations}});
            let node = serde_json::from_value(node).expect("a node");
            rack.nodes.create(&PostParams::default(), &node).await.expect("it may be made");
            rack.is_ready(name, "True").await;
        }
        for name in volumes {
            let source = json!({"csi": {"driver": DRIVER, "volumeHandle": format!("handle-{name}")},
                "claimRef": {"namespace": "default", "name": name}});
            bed.volume_of(name, "5Gi", source).await;
            bed.claim(name, json!({})).await;
            bed.claim_is(name, "Bound", name).await;
        }
        rack
    }

    async fn pod(&self, name: &str, node: &str, claim: &str) {
        self.bed.pod(name, node, json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}])).await;
    }

    async fn status(&self, node: &str, status: Value) {
        let patch = json!({ "status": status });
        let params = PatchParams::default();
        self.nodes.patch_status(node, &params, &Patch::Strategic(&patch)).await.expect("it may say so");
    }

    async fn is_ready(&self, node: &str, ready: &str) {
        self.status(node, json!({"conditions": [{"type": "Ready", "status": ready}]})).await;
    }

    /// The node says that it has these volumes mounted.
    async fn mounts(&self, node: &str, volumes: &[&str]) {
        let all: Vec<String> = volumes.iter().map(|volume| unique(volume)).collect();
        self.status(node, json!({"volumesInUse": all})).await;
    }

    async fn listed(&self, node: &str) -> Vec<String> {
        let status = self.nodes.get(node).await.ok().and_then(|node| node.status).unwrap_or_default();
        status.volumes_attached.unwrap_or_default().into_iter().map(|volume| volume.name).collect()
    }

    async fn lists(&self, node: &str, volumes: &[&str]) {
        let wanted: Vec<String> = volumes.iter().map(|volume| unique(volume)).collect();
        let is = async || self.listed(node).await == wanted;
        self.bed.cluster.wait_until(&format!("{node} lists {wanted:?}"), is).await;
    }

    async fn all(&self) -> Vec<VolumeAttachment> {
        self.attachments.list(&ListParams::default()).await.expect("they can be read").items
    }

    /// Waits until exactly these are attached, or being attached: volumes and nodes.
    async fn has(&self, wanted: &[(&str, &str)]) {
        let is = async || {
            let all = self.all().await;
            let of = |found: &VolumeAttachment| {
                (found.spec.source.persistent_volume_name.clone().unwrap_or_default(), found.spec.node_name.clone())
            };
            let mut found: Vec<_> = all.iter().map(of).collect();
            found.sort();
            found == wanted.iter().map(|(volume, node)| ((*volume).to_owned(), (*node).to_owned())).collect::<Vec<_>>()
        };
        self.bed.cluster.wait_until(&format!("attachments are {wanted:?}"), is).await;
    }

    /// What the driver says of each attachment.
    async fn drive(&self, status: Value) {
        for found in self.all().await {
            let name = found.metadata.name.expect("it has one");
            let patch = json!({ "status": status });
            let params = PatchParams::default();
            self.attachments.patch_status(&name, &params, &Patch::Merge(&patch)).await.expect("it may say so");
        }
    }

    async fn attach(&self) {
        self.drive(json!({"attached": true, "attachError": null})).await;
    }
}

fn unique(volume: &str) -> String {
    format!("kubernetes.io/csi/{DRIVER}^handle-{volume}")
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

#[tokio::test(start_paused = true)]
async fn a_volume_goes_from_node_to_node_with_its_pods() {
    let bed = Bed::new(7).await;
    let rack = Rack::new(&bed, &["v"]).await;
    rack.pod("p", "m", "v").await;
    rack.has(&[("v", "m")]).await;
    let made = rack.all().await.remove(0);
    assert_eq!(made.spec.attacher, DRIVER);
    // printf handle-vd.example.comm | sha256sum
    let name = "csi-6b51f3a00df46423be70b84394e307cbf084b3bdb4a8984f585311f9c190daed";
    assert_eq!(made.metadata.name.as_deref(), Some(name));
    assert!(rack.listed("m").await.is_empty(), "it isn't there yet");

    rack.pod("q", "n", "v").await;
    let taken = "Multi-Attach error for volume \"v\" Volume is already used by pod(s) p";
    bed.is_told("q", "FailedAttachVolume", taken).await;
    rack.drive(json!({"attached": false, "attachError": {"message": "no room"}})).await;
    bed.is_told("p", "FailedAttachVolume", "AttachVolume.Attach failed for volume \"v\" : no room").await;
    rack.attach().await;
    rack.lists("m", &["v"]).await;
    bed.is_told("p", "SuccessfulAttachVolume", SUCCEEDED).await;

    // Whoever comes after a killed one finds what is attached, and takes nothing away that is mounted.
    rack.mounts("m", &["v"]).await;
    bed.cluster.kill(&format!("loops/{LOOP}"));
    bed.end("p").await;
    bed.cluster.pass(minutes(10)).await;
    let kept = rack.all().await.remove(0);
    assert_eq!((kept.metadata.uid, kept.metadata.deletion_timestamp), (made.metadata.uid, None));
    rack.lists("m", &["v"]).await;
    rack.mounts("m", &[]).await;
    rack.lists("m", &[]).await;
    rack.has(&[("v", "n")]).await;
    rack.attach().await;
    rack.lists("n", &["v"]).await;
    bed.is_told("q", "SuccessfulAttachVolume", SUCCEEDED).await;

    // Nothing is written while nothing happens.
    let version = rack.nodes.get("n").await.expect("it is there").metadata.resource_version;
    bed.kill(LOOP);
    bed.cluster.pass(minutes(10)).await;
    assert_eq!(rack.nodes.get("n").await.expect("it is there").metadata.resource_version, version);
    assert_eq!(bed.all_said("q", "SuccessfulAttachVolume").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_away_lose_their_volumes_in_the_end() {
    let bed = Bed::new(8).await;
    let rack = Rack::new(&bed, &["v", "w"]).await;
    rack.pod("p", "m", "v").await;
    rack.pod("q", "n", "w").await;
    rack.has(&[("v", "m"), ("w", "n")]).await;
    bed.cluster.pass(minutes(3)).await;
    let late = "AttachVolume.Attach failed for volume \"v\" : timed out waiting for external-attacher of d.example.com \
                CSI driver to attach volume handle-v";
    bed.is_told("p", "FailedAttachVolume", late).await;
    rack.attach().await;
    for (node, volume, pod) in [("m", "v", "p"), ("n", "w", "q")] {
        rack.lists(node, &[volume]).await;
        rack.mounts(node, &[volume]).await;
        rack.is_ready(node, "Unknown").await;
        bed.end(pod).await;
    }
    bed.cluster.kill(&format!("loops/{LOOP}"));
    bed.cluster.pass(minutes(5)).await;
    rack.lists("m", &["v"]).await;
    rack.has(&[("v", "m"), ("w", "n")]).await;
    // A person says that it is off.
    let taint = json!({"spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}});
    rack.nodes.patch("n", &PatchParams::default(), &Patch::Merge(&taint)).await.expect("it may be said");
    rack.lists("n", &[]).await;
    rack.has(&[("v", "m")]).await;
    bed.cluster.pass(minutes(2)).await;
    rack.lists("m", &[]).await;
    rack.has(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn drivers_and_nodes_say_whether_volumes_are_attached() {
    let bed = Bed::new(9).await;
    let rack = Rack::new(&bed, &["v"]).await;
    let drivers: Api<CSIDriver> = Api::all(bed.cluster.admin());
    let driver = json!({"metadata": {"name": DRIVER}, "spec": {"attachRequired": false}});
    let driver = serde_json::from_value(driver).expect("a driver");
    drivers.create(&PostParams::default(), &driver).await.expect("it may be made");
    rack.pod("p", "m", "v").await;
    bed.cluster.pass(minutes(1)).await;
    rack.has(&[]).await;
    drivers.delete(DRIVER, &Default::default()).await.expect("it goes");
    rack.has(&[("v", "m")]).await;
    rack.attach().await;
    rack.lists("m", &["v"]).await;
    // Somebody takes it away by hand.
    rack.attachments.delete_collection(&Default::default(), &ListParams::default()).await.expect("they go");
    rack.has(&[("v", "m")]).await;
    rack.attach().await;
    rack.lists("m", &["v"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_volume_that_was_deleted_by_force_goes_too() {
    let bed = Bed::new(16).await;
    let rack = Rack::new(&bed, &["v"]).await;
    rack.pod("p", "m", "v").await;
    rack.has(&[("v", "m")]).await;
    rack.attach().await;
    rack.lists("m", &["v"]).await;
    rack.mounts("m", &["v"]).await;
    bed.end("p").await;
    bed.claims.delete("v", &Default::default()).await.expect("it goes");
    bed.volume_is("v", "Released").await;
    let free = json!({"metadata": {"finalizers": null}});
    bed.volumes.patch("v", &PatchParams::default(), &Patch::Merge(&free)).await.expect("nothing holds it");
    bed.volumes.delete("v", &Default::default()).await.expect("it goes");
    bed.cluster.wait_until("it is gone", async || matches!(bed.volumes.get_opt("v").await, Ok(None))).await;
    bed.cluster.pass(minutes(1)).await;
    rack.lists("m", &["v"]).await;
    rack.mounts("m", &[]).await;
    rack.lists("m", &[]).await;
    rack.has(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_dies_each_volume_is_attached_once() {
    let bed = Bed::new(10).await;
    let names: Vec<String> = (10..30).map(|number| format!("v{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let rack = Rack::new(&bed, &names).await;
    for (number, name) in names.iter().enumerate() {
        rack.pod(&format!("on-m-{name}"), "m", name).await;
        rack.pod(&format!("on-n-{name}"), "n", name).await;
        if number % 3 == 0 {
            bed.kill(LOOP);
        }
    }
    let all = async || rack.all().await.len() == names.len();
    bed.cluster.wait_until("each is being attached", all).await;
    rack.attach().await;
    let all = async || rack.listed("m").await.len() + rack.listed("n").await.len() == names.len();
    bed.cluster.wait_until("each is there", all).await;
    // Their pods go to the other node, and so do they.
    for (number, name) in names.iter().enumerate() {
        bed.end(&format!("on-m-{name}")).await;
        if number % 4 == 0 {
            bed.kill(LOOP);
        }
    }
    rack.lists("m", &[]).await;
    let wanted: Vec<(&str, &str)> = names.iter().map(|name| (*name, "n")).collect();
    rack.has(&wanted).await;
    rack.attach().await;
    let all = async || rack.listed("n").await.len() == names.len();
    bed.cluster.wait_until("each is there", all).await;
}
