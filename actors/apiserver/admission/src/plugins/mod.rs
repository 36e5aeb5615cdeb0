//! The plugins, one to a file or a family of them.

pub(crate) mod certificates;
pub(crate) mod classes;
pub(crate) mod lifecycle;
pub(crate) mod limits;
pub(crate) mod node_restriction;
pub(crate) mod optional;
pub(crate) mod priority;
mod references;
pub(crate) mod runtime_class;
pub(crate) mod service_account;
pub(crate) mod tolerations;
pub(crate) mod volumes;

use k3sd_objects::status::Status;
use serde_json::Value;

use crate::attributes::Attributes;
use crate::read::annotation;

/// Marks the image of a pod from a file of a node.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether a pod is such an image.
pub(crate) fn is_mirror(pod: &Value) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// 403 while a cache is being filled, without which nobody can tell.
pub(crate) fn not_ready(a: &Attributes<'_>, object: &Value) -> Status {
    a.forbidden(object, "not yet ready to handle request")
}
