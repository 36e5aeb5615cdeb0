//! What an object claims beside its own place in the store: addresses and ports of Services.

use k3sd_objects::object::Object;
use k3sd_objects::status::{Reason, Status};
use serde_json::Value;

use crate::special::services;
use crate::strategy::Part;
use crate::verbs::Scope;

/// What a write that isn't done yet has claimed; nothing for most kinds.
#[must_use = "what was taken stays taken until it is settled"]
pub(crate) struct Claim<'a>(Option<services::Claim<'a>>);

impl Claim<'_> {
    /// Keeps what was claimed if the object was written, and gives it back if it wasn't. If nobody knows, nothing is done:
    /// an address too many is found and mended, one that two Services have is not.
    pub(crate) async fn settle(self, written: Result<bool, &Status>) {
        let Some(claim) = self.0 else { return };
        match written {
            Ok(true) => claim.keep().await,
            Err(status) if is_unknown(status) => {}
            Ok(false) | Err(_) => claim.release().await,
        }
    }
}

/// Whether a write that was answered so may have happened.
pub(crate) fn is_unknown(status: &Status) -> bool {
    status.reason == Reason::Timeout
}

/// Claims what an object needs that is about to be written, and fills it in. Both are in the stored version.
pub(crate) async fn claim<'a>(
    scope: &Scope<'a>,
    new: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<Claim<'a>, Status> {
    if !is_service(scope) || scope.part != Part::Main {
        return Ok(Claim(None));
    }
    services::claim(scope.api, new, old, dry_run).await.map(|claim| Claim(Some(claim)))
}

/// Gives back what a deleted object had claimed.
pub(crate) async fn released(scope: &Scope<'_>, object: &Object) {
    if is_service(scope) {
        services::give_back(scope.api, &object.value()).await;
    }
}

fn is_service(scope: &Scope<'_>) -> bool {
    scope.resource.group.is_empty() && &*scope.resource.plural == "services"
}
