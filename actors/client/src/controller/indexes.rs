//! Ways to find objects that several controllers need.

use k8s_openapi::api::core::v1::Pod;

use crate::informer::{Index, Kind};

/// Finds objects by the `uid` of their controller.
pub const BY_CONTROLLER: &str = "controller";
/// Finds pods by the name of their node.
pub const BY_NODE: &str = "node";

/// Finds objects that no controller has, by their namespace.
pub const ORPHANS: &str = "orphans";

/// See [`BY_CONTROLLER`].
pub fn by_controller<K: Kind>() -> Index<K> {
    let texts = |object: &K| {
        let owners = object.meta().owner_references.iter().flatten();
        owners.filter(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()).collect()
    };
    Index { name: BY_CONTROLLER, texts }
}

/// See [`BY_NODE`].
pub fn by_node() -> Index<Pod> {
    let texts = |pod: &Pod| pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect();
    Index { name: BY_NODE, texts }
}

/// See [`ORPHANS`].
pub fn orphans<K: Kind>() -> Index<K> {
    let texts = |object: &K| match super::owners::controller_of(object.meta()) {
        Some(_) => Vec::new(),
        None => vec![object.meta().namespace.clone().unwrap_or_default()],
    };
    Index { name: ORPHANS, texts }
}
