//! What is kept as it should be, one thing per file.

mod aggregation;
mod authentication;
mod classes;
mod flow;
mod identity;
mod kubernetes;
mod namespaces;
mod ranges;
mod rbac;
mod tracking;

use k3sd_objects::status::{Reason, Status};
use serde_json::Value;

pub(crate) use self::aggregation::Aggregation;
pub(crate) use self::authentication::Authentication;
pub(crate) use self::classes::PriorityClasses;
pub(crate) use self::flow::FlowControl;
pub(crate) use self::identity::Identity;
pub(crate) use self::kubernetes::Kubernetes;
pub(crate) use self::namespaces::Namespaces;
pub(crate) use self::ranges::{DefaultRange, Ranges};
pub(crate) use self::rbac::Roles;
pub(crate) use self::tracking::Tracking;
use crate::api::Api;
use crate::special::local::{self, Kind};
use crate::special::read::text;

/// Creates an object unless there is one of its name. Answers the one that was there.
async fn ensure(api: &Api, kind: Kind, object: &Value) -> Result<Option<Value>, Status> {
    let found = local::get(api, kind, text(object, "/metadata/namespace"), text(object, "/metadata/name")).await?;
    if found.is_some() {
        return Ok(found);
    }
    match local::create(api, kind, object).await {
        // Another server was faster: it made the same.
        Err(status) if status.reason != Reason::AlreadyExists => Err(status),
        _ => Ok(None),
    }
}
