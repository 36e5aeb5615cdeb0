//! Whose objects they are: a label to find them by, and annotations that say it.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::{Map, Value};

use crate::api::{Gvk, Key};

/// Label: what all objects of one set have in common.
pub(crate) const HASH: &str = "objectset.rio.cattle.io/hash";
/// Label: an object with the value `false` is left when it leaves its set.
pub(super) const PRUNE: &str = "objectset.rio.cattle.io/prune";
const ID: &str = "objectset.rio.cattle.io/id";
const OWNER_GVK: &str = "objectset.rio.cattle.io/owner-gvk";
const OWNER_NAME: &str = "objectset.rio.cattle.io/owner-name";
const OWNER_NAMESPACE: &str = "objectset.rio.cattle.io/owner-namespace";

/// Who has a set of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Tells sets of one owner apart; AddOns have one each, without a name.
    pub id: String,
    pub gvk: Gvk,
    pub key: Key,
}

impl Owner {
    /// What is in the label. Older clusters have it, so it stays SHA-1; nothing depends on its strength.
    pub(crate) fn hash(&self) -> String {
        let text = format!("{}{}{}{}", self.id, self.gvk, self.key.name, self.key.namespace);
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes label and annotations into an object.
    pub(super) fn mark(&self, object: &mut Value) {
        let annotations = [
            (ID, self.id.clone()),
            (OWNER_GVK, self.gvk.to_string()),
            (OWNER_NAME, self.key.name.clone()),
            (OWNER_NAMESPACE, self.key.namespace.clone()),
        ];
        if let Some(map) = part(object, "labels") {
            map.insert(HASH.to_owned(), self.hash().into());
        }
        if let Some(map) = part(object, "annotations") {
            map.remove(super::applied::ANNOTATION);
            map.extend(annotations.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))));
        }
    }
}

/// As failures name it.
impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.id, self.key)
    }
}

/// A map of an object's metadata, made if there is none. `None` if something else stands there, which the API refuses.
pub(super) fn part<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    let place = metadata.entry(name).or_insert(Value::Null);
    if place.is_null() {
        *place = Value::Object(Map::new());
    }
    place.as_object_mut()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_label_is_the_one_that_clusters_have() {
        // As found on a job of a cluster that its owners showed in public.
        let owner = Owner {
            id: "helm-controller-chart-registration".to_owned(),
            gvk: Gvk::new("helm.cattle.io/v1", "HelmChart"),
            key: Key::new("kube-system", "harvester-cloud-provider"),
        };
        assert_eq!(owner.hash(), "39ec6fc21ae4d503a047bc2eeba987a59a25dc0b");
    }

    #[test]
    fn objects_are_marked() {
        let owner = Owner {
            id: String::new(),
            gvk: Gvk::new("k3s.cattle.io/v1", "Addon"),
            key: Key::new("kube-system", "coredns"),
        };
        let mut object = json!({"metadata": {"name": "a", "labels": null, "annotations": {"x": "y",
            "objectset.rio.cattle.io/applied": "old"}}});
        owner.mark(&mut object);
        let metadata = &object["metadata"];
        assert_eq!(metadata["labels"], json!({ (HASH): owner.hash() }));
        assert_eq!(
            metadata["annotations"],
            json!({"x": "y", (ID): "", (OWNER_GVK): "k3s.cattle.io/v1, Kind=Addon", (OWNER_NAME): "coredns",
                (OWNER_NAMESPACE): "kube-system"})
        );
    }
}
