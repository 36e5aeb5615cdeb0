//! How large claims and volumes are.

use k3sd_objects::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

/// What sizes stand under.
const STORAGE: &str = "storage";

fn size(quantity: Option<&Written>) -> Quantity {
    let zero = Quantity::from_i64(0, Format::BinarySi);
    quantity.and_then(|quantity| quantity.0.parse().ok()).unwrap_or(zero)
}

/// How much a claim wants.
pub(crate) fn wanted(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    size(resources.and_then(|resources| resources.requests.as_ref()).and_then(|all| all.get(STORAGE)))
}

/// How much a claim has.
pub(crate) fn given(claim: &PersistentVolumeClaim) -> Quantity {
    size(claim.status.as_ref().and_then(|status| status.capacity.as_ref()).and_then(|all| all.get(STORAGE)))
}

/// How much a volume holds.
pub(crate) fn capacity(volume: &PersistentVolume) -> Quantity {
    size(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()).and_then(|all| all.get(STORAGE)))
}
