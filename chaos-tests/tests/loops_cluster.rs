//! The control plane in this process: it serves, on the machine's clock and on a paused one, and parts of it may die.

use std::time::Duration;

use chaos_tests::cluster::{Cluster, Plane};
use k3sd_runtime::Clock;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt as _};

/// Makes and deletes an object, and is refused where there is no right.
async fn serves(cluster: &Cluster) -> Result<(), kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin(), "default");
    let metadata = ObjectMeta { generate_name: Some("map-".to_owned()), ..ObjectMeta::default() };
    let made = maps.create(&PostParams::default(), &ConfigMap { metadata, ..ConfigMap::default() }).await?;
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    maps.delete(&made.name_any(), &DeleteParams::default()).await?;

    let stranger: Api<ConfigMap> = Api::namespaced(cluster.identities().user("ann", &[]).client(), "default");
    match stranger.get("first").await {
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
        Err(error) => Err(error),
        Ok(_) => panic!("she has no rights"),
    }
}

#[tokio::test]
async fn a_cluster_serves_on_the_machines_clock() {
    let cluster = Plane::new(Clock::system()).start(Vec::new()).await;
    serves(&cluster).await.expect("it serves");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_serves_on_a_paused_clock_and_hours_pass_at_once() {
    let cluster = Plane::new(Clock::simulated(1)).start(Vec::new()).await;
    serves(&cluster).await.expect("it serves");
    cluster.pass(Duration::from_secs(3600)).await;
    serves(&cluster).await.expect("it serves");
    let namespaces: Api<Namespace> = Api::all(cluster.admin());
    let old = namespaces.get("kube-system").await.expect("it is there from the start");
    let age = cluster.clock().wall().as_secs() as i64 - old.metadata.creation_timestamp.expect("set").0.as_second();
    assert!((3600..3660).contains(&age), "{age}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn parts_may_be_killed_and_the_cluster_serves_again() {
    let cluster = Plane::new(Clock::simulated(2)).start(Vec::new()).await;
    for path in ["apiserver/caches", "apiserver/service/rights", "apiserver"] {
        let born = cluster.system().born();
        cluster.kill(path);
        cluster.wait_until("somebody follows", async || cluster.system().born() > born).await;
        cluster.wait_until("it serves again", async || cluster.is_ready() && serves(&cluster).await.is_ok()).await;
    }
    cluster.stop().await;
}
