//! The controllers of workloads over the API server and fake nodes: what is wanted comes about, whatever dies.

use std::collections::BTreeSet;
use std::time::Duration;

use chaos_tests::cluster::nodes::{NodesArgs, fake_nodes};
use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::controller::pods;
use k3sd_client::controller::setup::ControllerConfig;
use k3sd_runtime::{Clock, Signal};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolumeClaim, Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

async fn start(clock: Clock, pods_each: &str) -> Cluster {
    // Nobody makes accounts here.
    let plane = Plane::with(clock, |config| config.admission_off.push("ServiceAccount".to_owned()));
    let mut nodes = NodesArgs { lease_period: None, ..NodesArgs::default() };
    nodes.capacity.insert("pods".to_owned(), pods_each.to_owned());
    let (nodes, _) = fake_nodes("nodes", &plane.manager(), nodes);
    let config = ControllerConfig::default();
    plane.start_controllers(config, vec![nodes], k3sd_controllers_workloads::loops).await
}

async fn change<K>(cluster: &Cluster, name: &str, patch: Value)
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let patched = cluster.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.expect("it may be changed");
}

/// Kills whoever lives there, if somebody does just now.
fn kill(cluster: &Cluster, path: &str) {
    cluster.system().signal(path, Signal::Kill);
}

/// All objects of a kind; none while the API is away.
async fn all<K>(cluster: &Cluster) -> Vec<K>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    cluster.api::<K>().list(&ListParams::default()).await.map(|found| found.items).unwrap_or_default()
}

/// A template of pods that are bound from the start.
fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"nodeName": "node-0", "containers": [{"name": "main", "image": image}]}})
}

fn deployment(replicas: i32, image: &str) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": template(image)}})
}

/// Images of the pods that run or will.
async fn images(cluster: &Cluster) -> Vec<String> {
    let active = all::<Pod>(cluster).await.into_iter().filter(pods::is_active);
    active.filter_map(|pod| pod.spec?.containers[0].image.clone()).collect()
}

async fn reasons(cluster: &Cluster) -> BTreeSet<String> {
    all::<Event>(cluster).await.into_iter().filter_map(|event| event.reason).collect()
}

/// Waits until the Deployment has so many pods of an image, available and noted.
async fn rolled_out(cluster: &Cluster, replicas: usize, image: &str) {
    let holds = async || {
        let Ok(web) = cluster.api::<Deployment>().get("web").await else { return false };
        let status = web.status.clone().unwrap_or_default();
        let count = i32::try_from(replicas).ok();
        status.observed_generation == web.metadata.generation
            && status.available_replicas == count
            && status.updated_replicas == count
            && status.replicas == count
            && images(cluster).await == vec![image.to_owned(); replicas]
    };
    cluster.wait_within(Duration::from_secs(600), "the rollout ends", holds).await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_rolls_out_back_and_to_another_size() {
    let cluster = start(Clock::simulated(1), "110").await;
    cluster.make::<Deployment>(deployment(3, "a:1")).await;
    rolled_out(&cluster, 3, "a:1").await;
    change::<Deployment>(&cluster, "web", json!({"spec": {"template": template("a:2")}})).await;
    rolled_out(&cluster, 3, "a:2").await;
    let revision = async || cluster.api::<Deployment>().get("web").await.expect("there").annotations().clone();
    assert_eq!(revision().await["deployment.kubernetes.io/revision"], "2");
    change::<Deployment>(&cluster, "web", json!({"spec": {"replicas": 5}})).await;
    rolled_out(&cluster, 5, "a:2").await;
    // Back to what it was: the ReplicaSet of then, with a new revision.
    change::<Deployment>(&cluster, "web", json!({"spec": {"template": template("a:1")}})).await;
    rolled_out(&cluster, 5, "a:1").await;
    assert_eq!(revision().await["deployment.kubernetes.io/revision"], "3");
    let sets = all::<ReplicaSet>(&cluster).await;
    assert_eq!(sets.len(), 2);
    for set in &sets {
        assert_eq!(set.name_any(), format!("web-{}", set.labels()["pod-template-hash"]));
        let is_old = set.spec.as_ref().expect("set").replicas == Some(0);
        let history = set.annotations().get("deployment.kubernetes.io/revision-history").map(String::as_str);
        assert_eq!(history, if is_old { None } else { Some("1") });
    }
    let web = cluster.api::<Deployment>().get("web").await.expect("there");
    let conditions = web.status.expect("set").conditions.expect("set");
    let said: BTreeSet<_> =
        conditions.iter().filter_map(|it| Some((it.status.as_str(), it.reason.as_deref()?))).collect();
    assert_eq!(said, [("True", "MinimumReplicasAvailable"), ("True", "NewReplicaSetAvailable")].into());
    let wanted = BTreeSet::from(["ScalingReplicaSet", "SuccessfulCreate", "SuccessfulDelete"].map(str::to_owned));
    cluster.wait_until("Events tell of it", async || reasons(&cluster).await.is_superset(&wanted)).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_scales_and_rolls_out_later() {
    let cluster = start(Clock::simulated(2), "110").await;
    cluster.make::<Deployment>(deployment(2, "a:1")).await;
    rolled_out(&cluster, 2, "a:1").await;
    change::<Deployment>(
        &cluster,
        "web",
        json!({"spec": {"paused": true, "replicas": 4, "template": template("a:2")}}),
    )
    .await;
    cluster
        .wait_until("it has another size and its old template", async || images(&cluster).await == vec!["a:1"; 4])
        .await;
    cluster.pass(Duration::from_secs(60)).await;
    assert_eq!(images(&cluster).await, vec!["a:1"; 4]);
    change::<Deployment>(&cluster, "web", json!({"spec": {"paused": false}})).await;
    rolled_out(&cluster, 4, "a:2").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn never_fewer_than_allowed_and_all_at_once_only_when_asked() {
    let cluster = start(Clock::simulated(3), "110").await;
    let mut slow = template("a:1");
    slow["metadata"]["annotations"] = json!({"fake.k3sd.io/ready-after": "5s"});
    let mut wanted = deployment(4, "a:1");
    wanted["spec"]["template"] = slow.clone();
    wanted["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}});
    cluster.make::<Deployment>(wanted).await;
    rolled_out(&cluster, 4, "a:1").await;
    slow["spec"]["containers"][0]["image"] = "a:2".into();
    change::<Deployment>(&cluster, "web", json!({"spec": {"template": slow}})).await;
    let (mut fewest, mut most) = (usize::MAX, 0);
    cluster
        .wait_within(Duration::from_secs(120), "it is rolled out", async || {
            let active: Vec<Pod> = all::<Pod>(&cluster).await.into_iter().filter(pods::is_active).collect();
            fewest = fewest.min(active.iter().filter(|pod| pods::is_ready(pod)).count());
            most = most.max(active.len());
            active.len() == 4 && active.iter().all(pods::is_ready) && images(&cluster).await == vec!["a:2"; 4]
        })
        .await;
    assert_eq!((fewest, most), (3, 5));
    slow["spec"]["containers"][0]["image"] = "a:3".into();
    let at_once = json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}, "template": slow}});
    change::<Deployment>(&cluster, "web", at_once).await;
    cluster
        .wait_until("all are replaced", async || {
            let images: BTreeSet<String> = images(&cluster).await.into_iter().collect();
            assert!(images.len() < 2, "never both");
            images.contains("a:3")
        })
        .await;
    rolled_out(&cluster, 4, "a:3").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pods_are_taken_given_back_and_replaced() {
    let cluster = start(Clock::simulated(4), "110").await;
    let orphan = json!({"metadata": {"name": "orphan", "labels": {"app": "web"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "a:1"}]}});
    cluster.make::<Pod>(orphan).await;
    let spec = json!({"replicas": 2, "selector": {"app": "web"}, "template": template("a:1")});
    cluster.make::<ReplicationController>(json!({"metadata": {"name": "rc"}, "spec": spec})).await;
    let owned = async || -> Vec<String> {
        let pods = all::<Pod>(&cluster).await.into_iter().filter(pods::is_active);
        pods.filter(|pod| !pod.owner_references().is_empty()).map(|pod| pod.name_any()).collect()
    };
    let has_two = async || owned().await.len() == 2;
    cluster.wait_until("it has two", has_two).await;
    assert!(owned().await.contains(&"orphan".to_owned()));
    change::<Pod>(&cluster, "orphan", json!({"metadata": {"labels": {"app": "other"}}})).await;
    let is_free = async || !owned().await.contains(&"orphan".to_owned()) && owned().await.len() == 2;
    cluster.wait_until("it gave it back and made another", is_free).await;
    for name in owned().await {
        cluster.api::<Pod>().delete(&name, &DeleteParams::default()).await.expect("it is there");
    }
    cluster
        .wait_until("it has two others, and says so", async || {
            let status = cluster.api::<ReplicationController>().get("rc").await.expect("there").status;
            has_two().await && status.is_some_and(|status| status.available_replicas == Some(2))
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_dies_in_the_middle_makes_no_difference() {
    for seed in 10..14 {
        let cluster = start(Clock::simulated(seed), "110").await;
        let mut rng = cluster.clock().rng("test");
        cluster.make::<Deployment>(deployment(20, "a:1")).await;
        for round in 0..12 {
            let victim = ["loops/replicaset", "loops/deployment", "loops/informers/pods"][rng.below(3) as usize];
            kill(&cluster, victim);
            if round == 6 {
                change::<Deployment>(&cluster, "web", json!({"spec": {"replicas": 12, "template": template("a:2")}}))
                    .await;
            }
            cluster.pass(Duration::from_millis(rng.below(40))).await;
        }
        rolled_out(&cluster, 12, "a:2").await;
        cluster.pass(Duration::from_secs(60)).await;
        assert_eq!(images(&cluster).await, vec!["a:2"; 12], "seed {seed}");
        cluster.stop().await;
    }
}

/// Active pods of an image by name, with whether they are ready.
async fn named(cluster: &Cluster) -> Vec<(String, String, bool)> {
    let active = all::<Pod>(cluster).await.into_iter().filter(pods::is_active);
    let image = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone()).unwrap_or_default();
    active.map(|pod| (pod.name_any(), image(&pod), pods::is_ready(&pod))).collect()
}

fn is(found: &[(String, String, bool)], wanted: &[(&str, &str)]) -> bool {
    let ready = found.iter().filter(|(.., is_ready)| *is_ready);
    found.len() == wanted.len()
        && ready.map(|(name, image, _)| (name.as_str(), image.as_str())).eq(wanted.iter().copied())
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_keeps_its_order_and_its_claims() {
    let cluster = start(Clock::simulated(20), "110").await;
    let spec = json!({"replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "web"}},
        "template": template("a:1"), "volumeClaimTemplates": [{"metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]});
    cluster.make::<StatefulSet>(json!({"metadata": {"name": "db"}, "spec": spec})).await;
    let mut looks = 0;
    cluster
        .wait_until("it has its pods, one after the other", async || {
            looks += 1;
            if looks % 3 == 0 {
                kill(&cluster, "loops/statefulset");
            }
            let found = named(&cluster).await;
            assert!(found.iter().rev().skip(1).all(|(.., is_ready)| *is_ready), "{found:?}");
            is(&found, &[("db-0", "a:1"), ("db-1", "a:1"), ("db-2", "a:1")])
        })
        .await;
    let claims: Vec<String> = all::<PersistentVolumeClaim>(&cluster).await.iter().map(|it| it.name_any()).collect();
    assert_eq!(claims, ["data-db-0", "data-db-1", "data-db-2"]);
    let rolling = |partition| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}});
    let canary = json!({"spec": {"template": template("a:2"), "updateStrategy": rolling(2)}});
    change::<StatefulSet>(&cluster, "db", canary).await;
    let updated = async |wanted: &[(&str, &str)]| is(&named(&cluster).await, wanted);
    cluster
        .wait_until("the last is updated", async || updated(&[("db-0", "a:1"), ("db-1", "a:1"), ("db-2", "a:2")]).await)
        .await;
    cluster.pass(Duration::from_secs(60)).await;
    assert!(updated(&[("db-0", "a:1"), ("db-1", "a:1"), ("db-2", "a:2")]).await);
    // A pod before the partition comes back as it was.
    cluster.api::<Pod>().delete("db-0", &DeleteParams::default()).await.expect("it is there");
    cluster.pass(Duration::from_secs(60)).await;
    assert!(updated(&[("db-0", "a:1"), ("db-1", "a:1"), ("db-2", "a:2")]).await);
    change::<StatefulSet>(&cluster, "db", json!({"spec": {"updateStrategy": rolling(0)}})).await;
    cluster
        .wait_until("all are updated, and it says so", async || {
            let status = cluster.api::<StatefulSet>().get("db").await.expect("there").status.unwrap_or_default();
            updated(&[("db-0", "a:2"), ("db-1", "a:2"), ("db-2", "a:2")]).await
                && status.current_revision == status.update_revision
                && status.updated_replicas == Some(3)
        })
        .await;
    assert_eq!(all::<ControllerRevision>(&cluster).await.len(), 2);
    change::<StatefulSet>(&cluster, "db", json!({"spec": {"replicas": 1}})).await;
    cluster.wait_until("one is left", async || updated(&[("db-0", "a:2")]).await).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_waits_for_a_claim_that_is_to_go() {
    let cluster = start(Clock::simulated(22), "110").await;
    let spec = json!({"replicas": 1, "serviceName": "db", "selector": {"matchLabels": {"app": "web"}},
        "template": template("a:1"), "volumeClaimTemplates": [{"metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]});
    cluster.make::<StatefulSet>(json!({"metadata": {"name": "db"}, "spec": spec})).await;
    let is_there = async || is(&named(&cluster).await, &[("db-0", "a:1")]);
    cluster.wait_until("it has its pod", is_there).await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    let first = claims.get("data-db-0").await.expect("it was made").metadata.uid;
    // What would take the finalizer away when no pod has the claim isn't here.
    claims.delete("data-db-0", &DeleteParams::default()).await.expect("it is there");
    cluster.api::<Pod>().delete("db-0", &DeleteParams::default()).await.expect("it is there");
    cluster.pass(Duration::from_secs(300)).await;
    assert_eq!(all::<Pod>(&cluster).await.len(), 0, "the pod would have the claim that is to go");
    change::<PersistentVolumeClaim>(&cluster, "data-db-0", json!({"metadata": {"finalizers": null}})).await;
    cluster.wait_until("it has its pod again", is_there).await;
    assert_ne!(claims.get("data-db-0").await.expect("it was made").metadata.uid, first);
    cluster.stop().await;
}

/// Stands in for the scheduler: binds pods to the node that they ask for.
async fn bind(cluster: &Cluster) {
    for pod in all::<Pod>(cluster).await {
        let spec = serde_json::to_value(&pod.spec).expect("JSON");
        let terms = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        let wanted = spec.pointer(&format!("{terms}/0/matchFields/0/values/0")).and_then(Value::as_str);
        if let (true, Some(node)) = (pods::node(&pod).is_empty(), wanted) {
            let binding = json!({"metadata": {"name": pod.name_any()}, "target": {"kind": "Node", "name": node}});
            let bound = cluster
                .api::<Pod>()
                .create_subresource::<_, Value>("binding", &pod.name_any(), &PostParams::default(), &binding)
                .await;
            drop(bound);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_has_a_pod_on_each_node_that_fits() {
    let cluster = start(Clock::simulated(30), "110").await;
    let nodes: Api<Node> = Api::all(cluster.admin());
    cluster
        .wait_until("the nodes are there", async || {
            nodes.list(&ListParams::default()).await.is_ok_and(|found| found.items.len() == 3)
        })
        .await;
    let taints = |taints: Value| Patch::Merge(json!({"spec": {"taints": taints}}));
    let closed = taints(json!([{"key": "closed", "effect": "NoSchedule"}]));
    nodes.patch("node-2", &PatchParams::default(), &closed).await.expect("it is there");
    let mut pod = template("a:1");
    pod["spec"].as_object_mut().expect("fields").remove("nodeName");
    let spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": pod});
    cluster.make::<DaemonSet>(json!({"metadata": {"name": "agent"}, "spec": spec})).await;
    let on = async |image: &str| -> Vec<String> {
        bind(&cluster).await;
        let ready = all::<Pod>(&cluster).await.into_iter().filter(|pod| pods::is_active(pod) && pods::is_ready(pod));
        let of_image = ready
            .filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.containers[0].image.as_deref() == Some(image)));
        let mut nodes: Vec<String> = of_image.map(|pod| pods::node(&pod).to_owned()).collect();
        nodes.sort();
        nodes
    };
    cluster.wait_until("two nodes have a pod", async || on("a:1").await == ["node-0", "node-1"]).await;
    nodes.patch("node-2", &PatchParams::default(), &taints(json!([]))).await.expect("it is there");
    let all_three = ["node-0", "node-1", "node-2"];
    cluster.wait_until("three nodes have one", async || on("a:1").await == all_three).await;
    pod["spec"]["containers"][0]["image"] = "a:2".into();
    change::<DaemonSet>(&cluster, "agent", json!({"spec": {"template": pod}})).await;
    let mut looks = 0;
    cluster
        .wait_until("all are replaced, and it says so", async || {
            looks += 1;
            if looks % 5 == 0 {
                kill(&cluster, "loops/daemonset");
            }
            let status = cluster.api::<DaemonSet>().get("agent").await.expect("there").status.unwrap_or_default();
            on("a:2").await == all_three
                && (status.number_ready, status.updated_number_scheduled, status.number_available)
                    == (3, Some(3), Some(3))
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_budget_says_how_many_pods_may_go() {
    let cluster = start(Clock::simulated(40), "110").await;
    cluster.make::<Deployment>(deployment(3, "a:1")).await;
    let spec = json!({"maxUnavailable": "34%", "selector": {"matchLabels": {"app": "web"}}});
    cluster.make::<PodDisruptionBudget>(json!({"metadata": {"name": "web"}, "spec": spec})).await;
    let said = async || {
        let status = cluster.api::<PodDisruptionBudget>().get("web").await.expect("there").status.unwrap_or_default();
        (status.expected_pods, status.desired_healthy, status.current_healthy, status.disruptions_allowed)
    };
    cluster.wait_until("two may go", async || said().await == (3, 1, 3, 2)).await;
    let first = all::<Pod>(&cluster).await[0].name_any();
    cluster.api::<Pod>().evict(&first, &EvictParams::default()).await.expect("it may go");
    cluster
        .wait_until("it is replaced", async || {
            let is_gone = all::<Pod>(&cluster).await.iter().all(|pod| pod.name_any() != first);
            is_gone && said().await == (3, 1, 3, 2)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_keeps_its_bounds_while_nobody_measures() {
    let cluster = start(Clock::simulated(50), "110").await;
    cluster.make::<Deployment>(deployment(1, "a:1")).await;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let metric = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 80}}});
    let spec = json!({"minReplicas": 2, "maxReplicas": 5, "scaleTargetRef": target, "metrics": [metric]});
    cluster.make::<HorizontalPodAutoscaler>(json!({"metadata": {"name": "web"}, "spec": spec})).await;
    rolled_out(&cluster, 2, "a:1").await;
    let said = async || -> BTreeSet<String> {
        let found = cluster.api::<HorizontalPodAutoscaler>().get("web").await.expect("there");
        let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
        conditions
            .into_iter()
            .map(|it| format!("{}={} {}", it.type_, it.status, it.reason.unwrap_or_default()))
            .collect()
    };
    cluster
        .wait_until("it says that nobody measures", async || {
            said().await.contains("ScalingActive=False FailedGetResourceMetric")
        })
        .await;
    assert!(said().await.contains("AbleToScale=True SucceededGetScale"));
    change::<Deployment>(&cluster, "web", json!({"spec": {"replicas": 9}})).await;
    rolled_out(&cluster, 5, "a:1").await;
    assert!(reasons(&cluster).await.contains("SuccessfulRescale"));
    cluster.stop().await;
}

/// Which object is of which version.
async fn versions<K>(cluster: &Cluster) -> BTreeSet<(String, Option<String>)>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    all::<K>(cluster).await.iter().map(|object| (object.name_any(), object.resource_version())).collect()
}

async fn versions_of_owners(cluster: &Cluster) -> BTreeSet<(String, Option<String>)> {
    let mut found = versions::<Deployment>(cluster).await;
    found.extend(versions::<ReplicaSet>(cluster).await);
    found.extend(versions::<StatefulSet>(cluster).await);
    found.extend(versions::<PodDisruptionBudget>(cluster).await);
    found
}

#[tokio::test(start_paused = true)]
async fn what_is_right_is_left_alone() {
    let cluster = start(Clock::simulated(60), "110").await;
    cluster.make::<Deployment>(deployment(3, "a:1")).await;
    rolled_out(&cluster, 3, "a:1").await;
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    cluster.make::<PodDisruptionBudget>(json!({"metadata": {"name": "web"}, "spec": spec})).await;
    let pod = json!({"metadata": {"labels": {"app": "db"}}, "spec": template("a:1")["spec"]});
    let selector = json!({"matchLabels": {"app": "db"}});
    let set = json!({"replicas": 2, "serviceName": "db", "selector": selector, "template": pod});
    cluster.make::<StatefulSet>(json!({"metadata": {"name": "db"}, "spec": set})).await;
    cluster.pass(Duration::from_secs(120)).await;
    let written = async || {
        let mut versions = versions::<Pod>(&cluster).await;
        versions.extend(versions_of_owners(&cluster).await);
        versions
    };
    let before = written().await;
    assert_eq!(before.len(), 5 + 4);
    cluster.pass(Duration::from_secs(4 * 3600)).await;
    for actor in ["replicaset", "deployment", "statefulset", "disruption", "daemonset"] {
        kill(&cluster, &format!("loops/{actor}"));
    }
    cluster.pass(Duration::from_secs(120)).await;
    assert_eq!(written().await, before, "nobody wrote anything");
    cluster.stop().await;
}

#[tokio::test]
async fn thousands_of_pods_are_made_at_once() {
    let cluster = start(Clock::system(), "6000").await;
    let began = cluster.clock().now();
    cluster.make::<Deployment>(deployment(2000, "a:1")).await;
    // To list them all again and again would be most of the work.
    let others = async || {
        let found = cluster.api::<Pod>().list_metadata(&ListParams::default().limit(1)).await;
        found.ok().and_then(|found| found.metadata.remaining_item_count).unwrap_or(0)
    };
    cluster.wait_within(Duration::from_secs(120), "all are made", async || others().await == 1999).await;
    let took = cluster.clock().now().since(began);
    eprintln!("2,000 pods were made in {took:?}");
    cluster.stop().await;
}
