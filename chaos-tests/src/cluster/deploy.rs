//! Objects from manifests.

use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};

use super::Cluster;

impl Cluster {
    /// Makes the objects of a manifest, as whoever deploys manifests does.
    ///
    /// # Panics
    /// When it isn't one, or the API refuses it.
    pub async fn deploy(&self, manifest: &str) {
        for document in manifest.split("\n---\n") {
            let object = k3sd_objects::decode::yaml(document.as_bytes(), None).expect("YAML").value;
            let object: DynamicObject = serde_json::from_value(object).expect("an object");
            let types = object.types.as_ref().expect("it says what it is");
            let resource = ApiResource::from_gvk(&types.try_into().expect("a kind"));
            let api: Api<DynamicObject> = match object.metadata.namespace.as_deref() {
                Some(namespace) => Api::namespaced_with(self.admin(), namespace, &resource),
                None => Api::all_with(self.admin(), &resource),
            };
            let name = object.metadata.name.as_deref().expect("a name");
            let params = PatchParams::apply("deploy").force();
            api.patch(name, &params, &Patch::Apply(&object)).await.expect("it may be made");
        }
    }
}
