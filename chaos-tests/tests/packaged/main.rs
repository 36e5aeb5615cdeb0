//! The packaged components over the API server: names, load balancers, volumes in directories, metrics.

mod balancers;
mod dns;
mod metrics;
mod space;
mod volumes;

use chaos_tests::cluster::Cluster;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};

/// Makes the objects of a manifest, as whoever deploys manifests does.
async fn deploy(cluster: &Cluster, manifest: &str) {
    for document in manifest.split("\n---\n") {
        let object = k3sd_objects::decode::yaml(document.as_bytes(), None).expect("YAML").value;
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let types = object.types.as_ref().expect("it says what it is");
        let resource = ApiResource::from_gvk(&types.try_into().expect("a kind"));
        let api: Api<DynamicObject> = match object.metadata.namespace.as_deref() {
            Some(namespace) => Api::namespaced_with(cluster.admin(), namespace, &resource),
            None => Api::all_with(cluster.admin(), &resource),
        };
        let (name, params) = (object.metadata.name.as_deref().expect("a name"), PatchParams::apply("deploy").force());
        api.patch(name, &params, &Patch::Apply(&object)).await.expect("it may be made");
    }
}

/// The reasons of the Events about an object of this name in the namespace `default`.
async fn reasons(cluster: &Cluster, name: &str) -> Vec<String> {
    let events = cluster.api::<Event>().list(&ListParams::default()).await.expect("they may be listed");
    let of = events.items.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(name));
    of.filter_map(|event| event.reason).collect()
}
