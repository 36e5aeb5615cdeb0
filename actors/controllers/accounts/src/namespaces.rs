//! What controllers that look after each namespace have in common.

use k3sd_client::informer::{Informer, Kind};
use k8s_openapi::api::core::v1::{Namespace, ObjectReference};

/// Whether the namespace is there and stays.
pub(crate) fn is_active(namespaces: &Informer<Namespace>, name: &str) -> bool {
    let Some(shown) = namespaces.snapshot() else { return false };
    let phase = |namespace: &Namespace| namespace.status.as_ref().and_then(|status| status.phase.clone());
    shown.get("", name).is_some_and(|namespace| phase(namespace).as_deref() != Some("Terminating"))
}

/// The namespace of an object.
pub(crate) fn namespace_of<K: Kind>(object: &K) -> Option<String> {
    object.meta().namespace.clone()
}

/// What an Event about a namespace refers to.
#[expect(clippy::ptr_arg, reason = "keys are strings, and a loop hands out references to keys")]
pub(crate) fn quarantined(name: &String) -> Option<ObjectReference> {
    let kind = Some("Namespace".to_owned());
    Some(ObjectReference { api_version: Some("v1".to_owned()), kind, name: Some(name.clone()), ..Default::default() })
}
