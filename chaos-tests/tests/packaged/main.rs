//! The packaged components over the API server: names, load balancers, volumes in directories, metrics.

mod balancers;
mod dns;
mod metrics;
mod space;
mod volumes;

use chaos_tests::cluster::Cluster;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;

/// The reasons of the Events about an object of this name in the namespace `default`.
async fn reasons(cluster: &Cluster, name: &str) -> Vec<String> {
    let events = cluster.api::<Event>().list(&ListParams::default()).await.expect("they may be listed");
    let of = events.items.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(name));
    of.filter_map(|event| event.reason).collect()
}
