//! Claims for devices: made of templates once, reserved, and given back.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::Bed;

const LOOP: &str = "resourceclaim";

struct Shop<'a> {
    bed: &'a Bed,
    claims: Api<ResourceClaim>,
}

fn devices() -> Value {
    json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu.example.com"}}]}})
}

impl<'a> Shop<'a> {
    async fn new(bed: &'a Bed) -> Self {
        Self { bed, claims: bed.cluster.api() }
    }

    async fn template(&self) {
        let template =
            json!({"metadata": {"name": "t"}, "spec": {"metadata": {"labels": {"a": "b"}}, "spec": devices()}});
        let _: ResourceClaimTemplate = self.bed.cluster.make(template).await;
    }

    async fn pod(&self, name: &str, node: Option<&str>, entries: Value) -> Pod {
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}], "resourceClaims": entries});
        self.bed.cluster.make(json!({"metadata": {"name": name}, "spec": spec})).await
    }

    /// The names of the claims that the pod's status names.
    async fn named(&self, pod: &str) -> Vec<String> {
        let status = self.bed.pods.get(pod).await.ok().and_then(|pod| pod.status).unwrap_or_default();
        let statuses = status.resource_claim_statuses.unwrap_or_default();
        statuses.into_iter().filter_map(|status| status.resource_claim_name).collect()
    }

    /// Plays the scheduler: devices are allocated, for these pods.
    async fn allocate(&self, claim: &str, pods: &[&Pod]) {
        let finalizers = json!({"metadata": {"finalizers": ["resource.kubernetes.io/delete-protection"]}});
        self.claims.patch(claim, &PatchParams::default(), &Patch::Merge(&finalizers)).await.expect("it may be held");
        let reserved: Vec<Value> = pods
            .iter()
            .map(|pod| json!({"resource": "pods", "name": pod.metadata.name, "uid": pod.metadata.uid}))
            .collect();
        let result = json!({"request": "r", "driver": "d.example.com", "pool": "p", "device": "dev"});
        let status = json!({"status": {"allocation": {"devices": {"results": [result]}}, "reservedFor": reserved}});
        let params = PatchParams::default();
        self.claims.patch_status(claim, &params, &Patch::Merge(&status)).await.expect("it may be allocated");
    }

    async fn has_phase(&self, pod: &str, phase: &str) {
        let status = json!({"status": {"phase": phase}});
        let params = PatchParams::default();
        self.bed.pods.patch_status(pod, &params, &Patch::Merge(&status)).await.expect("it may say so");
    }

    /// For how many a claim is reserved, and whether it has devices; nothing if it is gone.
    async fn state(&self, claim: &str) -> Option<(usize, bool)> {
        let status = self.claims.get_opt(claim).await.ok()??.status.unwrap_or_default();
        Some((status.reserved_for.unwrap_or_default().len(), status.allocation.is_some()))
    }

    async fn is(&self, claim: &str, wanted: Option<(usize, bool)>) {
        let is = async || self.state(claim).await == wanted;
        self.bed.cluster.wait_until(&format!("{claim} is {wanted:?}"), is).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_pod_gets_its_claim_once_whatever_dies() {
    let bed = Bed::new(11).await;
    let shop = Shop::new(&bed).await;
    let entries = json!([{"name": "gpu", "resourceClaimTemplateName": "t"}]);
    shop.pod("early", None, entries.clone()).await;
    let why =
        "PodResourceClaim gpu: resource claim template \"t\": resourceclaimtemplate.resource.k8s.io \"t\" not found";
    bed.is_told("early", "FailedResourceClaimCreation", why).await;
    shop.template().await;
    let mut pods = Vec::new();
    for number in 0..20 {
        pods.push(shop.pod(&format!("p{number}"), None, entries.clone()).await);
        if number % 3 == 0 {
            bed.kill(LOOP);
        }
    }
    for pod in &pods {
        let name = pod.metadata.name.as_deref().expect("a name");
        bed.cluster.wait_until("it names its claim", async || shop.named(name).await.len() == 1).await;
        let claim = shop.claims.get(&shop.named(name).await[0]).await.expect("it is there");
        let meta = claim.metadata;
        let owner = meta.owner_references.unwrap_or_default().remove(0);
        assert_eq!((Some(owner.uid), owner.controller), (pod.metadata.uid.clone(), Some(true)));
        assert!(meta.name.is_some_and(|claim| claim.starts_with(&format!("{name}-gpu-"))));
        assert_eq!(meta.annotations.unwrap_or_default()["resource.kubernetes.io/pod-claim-name"], "gpu");
        assert_eq!(meta.labels.unwrap_or_default()["a"], "b");
    }
    bed.cluster.wait_until("so does the first", async || shop.named("early").await.len() == 1).await;
    bed.cluster.pass(Duration::from_secs(60)).await;
    let all = shop.claims.list(&ListParams::default()).await.expect("they can be read").items;
    assert_eq!(all.len(), 21, "no claim was made twice");
}

#[tokio::test(start_paused = true)]
async fn devices_are_given_back_when_pods_end() {
    let bed = Bed::new(12).await;
    let shop = Shop::new(&bed).await;
    shop.template().await;
    let _: ResourceClaim = bed.cluster.make(json!({"metadata": {"name": "shared"}, "spec": devices()})).await;
    let entries =
        json!([{"name": "gpu", "resourceClaimTemplateName": "t"}, {"name": "all", "resourceClaimName": "shared"}]);
    let one = shop.pod("one", Some("n"), entries).await;
    let other = shop.pod("other", Some("n"), json!([{"name": "all", "resourceClaimName": "shared"}])).await;
    bed.cluster.wait_until("it names its claim", async || shop.named("one").await.len() == 1).await;
    let own = shop.named("one").await.remove(0);
    shop.allocate(&own, &[&one]).await;
    // Nobody has reserved for the other one, which is bound all the same.
    shop.allocate("shared", &[&one]).await;
    shop.is("shared", Some((2, true))).await;
    let reserved = shop.claims.get("shared").await.expect("it is there").status.unwrap_or_default().reserved_for;
    assert!(reserved.unwrap_or_default().iter().any(|consumer| Some(&consumer.uid) == other.metadata.uid.as_ref()));

    bed.cluster.kill(&format!("loops/{LOOP}"));
    shop.has_phase("one", "Succeeded").await;
    shop.is(&own, None).await;
    shop.is("shared", Some((1, true))).await;
    bed.end("other").await;
    shop.is("shared", Some((0, false))).await;
    let shared = shop.claims.get("shared").await.expect("a person made it, and deletes it");
    assert_eq!(shared.metadata.finalizers.unwrap_or_default(), Vec::<String>::new());
}
