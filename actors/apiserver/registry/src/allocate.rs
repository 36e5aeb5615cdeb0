//! What an object claims beside its own place in the store: addresses and ports of Services.

use k3sd_objects::object::Object;
use k3sd_objects::status::Status;
use serde_json::Value;

use crate::special::services;
use crate::strategy::Part;
use crate::verbs::Scope;

/// What a write that isn't done yet has claimed. Either kept when the write succeeded, or released.
#[must_use]
pub(crate) struct Claim<'a>(Option<services::Claim<'a>>);

impl Claim<'_> {
    /// The write happened.
    pub(crate) async fn keep(self) {
        if let Some(claim) = self.0 {
            claim.keep().await;
        }
    }

    /// The write did not happen.
    pub(crate) async fn release(self) {
        if let Some(claim) = self.0 {
            claim.release().await;
        }
    }
}

fn is_service(scope: &Scope<'_>) -> bool {
    (&*scope.resource.group, &*scope.resource.plural) == ("", "services") && scope.part == Part::Main
}

/// Claims what an object needs that is about to be written, and fills it in. Both are in the stored version.
pub(crate) async fn claim<'a>(
    scope: &Scope<'a>,
    new: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<Claim<'a>, Status> {
    if !is_service(scope) {
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
