//! AddOns: what is remembered in the cluster of each file.

use k3sd_objects::read::{field, text};
use k8s_openapi::api::core::v1::ObjectReference;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::api::{Cluster, Gvk, Key, PatchType, Select, Served};
use crate::apply::Owner;

/// Where AddOns are.
pub(super) const NAMESPACE: &str = "kube-system";
/// Annotation: the kinds that the file held when it was applied last.
const GVKS: &str = "addon.k3s.cattle.io/gvks";
const SEPARATOR: &str = ";";

/// The kind of AddOns.
pub(super) fn gvk() -> Gvk {
    Gvk::new("k3s.cattle.io/v1", "Addon")
}

/// An AddOn as it is in the cluster.
#[derive(Clone, Debug)]
pub(super) struct Addon {
    name: String,
    object: Value,
}

impl Addon {
    /// From the API's object.
    pub(super) fn new(name: &str, object: Value) -> Self {
        Self { name: name.to_owned(), object }
    }

    /// One that isn't there.
    pub(super) fn none(name: &str) -> Self {
        Self::new(name, Value::Null)
    }

    /// Whether it is in the cluster.
    pub(super) fn is_there(&self) -> bool {
        self.object.is_object()
    }

    /// The checksum of the file as it was applied last without a failure.
    pub(super) fn checksum(&self) -> &str {
        text(field(&self.object, "spec"), "checksum")
    }

    /// The kinds of which it may have objects.
    pub(super) fn gvks(&self) -> Vec<Gvk> {
        let annotation = text(field(field(&self.object, "metadata"), "annotations"), GVKS);
        annotation.split(SEPARATOR).filter_map(Gvk::parse).collect()
    }

    /// Who has the file's objects.
    pub(super) fn owner(&self) -> Owner {
        Owner { id: String::new(), gvk: gvk(), key: Key::new(NAMESPACE, &self.name) }
    }

    /// Names it in Events.
    pub(super) fn reference(&self) -> ObjectReference {
        let metadata = field(&self.object, "metadata");
        let some = |name: &str| Some(text(metadata, name).to_owned()).filter(|text| !text.is_empty());
        ObjectReference {
            api_version: Some(gvk().api_version()),
            kind: Some(gvk().kind),
            namespace: Some(NAMESPACE.to_owned()),
            name: Some(self.name.clone()),
            uid: some("uid"),
            resource_version: some("resourceVersion"),
            field_path: None,
        }
    }

    /// What has to be written so that it says this; nothing if it does.
    pub(super) fn difference(&self, path: &str, checksum: Option<&str>, gvks: &[Gvk]) -> Option<Value> {
        let mut patch = json!({});
        let spec = field(&self.object, "spec");
        if let Some(checksum) = checksum {
            if self.checksum() != checksum {
                patch["spec"]["checksum"] = checksum.into();
            }
            if text(spec, "source") != path {
                patch["spec"]["source"] = path.into();
            }
        }
        if self.gvks() != gvks {
            let texts: Vec<String> = gvks.iter().map(ToString::to_string).collect();
            patch["metadata"]["annotations"][GVKS] = texts.join(SEPARATOR).into();
        }
        patch.as_object().is_some_and(|patch| !patch.is_empty()).then_some(patch)
    }
}

/// The checksum of a file.
pub(super) fn checksum(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// AddOns in the API.
pub(super) struct Addons<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) served: Served,
}

impl Addons<'_> {
    /// All of them, by their names.
    pub(super) async fn list(&self) -> kube::Result<std::collections::BTreeMap<String, Addon>> {
        let select = Select { namespace: NAMESPACE, ..Select::default() };
        let found = self.cluster.list(&self.served, select).await?.into_iter().map(|object| {
            let name = text(field(&object, "metadata"), "name").to_owned();
            (name.clone(), Addon::new(&name, object))
        });
        Ok(found.collect())
    }

    pub(super) async fn create(&self, name: &str, path: &str) -> kube::Result<Addon> {
        let object = json!({
            "apiVersion": gvk().api_version(),
            "kind": gvk().kind,
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": { "source": path },
        });
        match self.cluster.create(&self.served, NAMESPACE, &object).await {
            Ok(made) => Ok(Addon::new(name, made)),
            // Another server has made it.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = self.cluster.get(&self.served, &Key::new(NAMESPACE, name)).await?;
                found.map(|object| Addon::new(name, object)).ok_or(kube::Error::Api(status))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn write(&self, addon: &Addon, patch: &Value) -> kube::Result<()> {
        let key = Key::new(NAMESPACE, &addon.name);
        self.cluster.patch(&self.served, &key, PatchType::Merge, patch).await.map(drop)
    }

    pub(super) async fn delete(&self, addon: &Addon) -> kube::Result<()> {
        self.cluster.delete(&self.served, &Key::new(NAMESPACE, &addon.name)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addons_say_what_k3s_writes_and_are_left_when_they_do() {
        let gvks = [Gvk::new("v1", "ConfigMap"), Gvk::new("apps/v1", "Deployment")];
        let patch = Addon::none("a").difference("/d/a.yaml", Some("12"), &gvks).unwrap();
        let annotation = "/v1, Kind=ConfigMap;apps/v1, Kind=Deployment";
        assert_eq!(
            patch,
            json!({"spec": {"checksum": "12", "source": "/d/a.yaml"}, "metadata": {"annotations": {(GVKS): annotation}}})
        );
        let addon = Addon::new("a", patch);
        assert_eq!((addon.difference("/d/a.yaml", Some("12"), &gvks), addon.gvks()), (None, gvks.to_vec()));
        assert_eq!(
            addon.difference("/d/a.yaml", Some("13"), &gvks[..1]),
            Some(json!({"spec": {"checksum": "13"}, "metadata": {"annotations": {(GVKS): "/v1, Kind=ConfigMap"}}}))
        );
        assert_eq!(addon.difference("/other", None, &gvks), None);
        assert_eq!(checksum(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
