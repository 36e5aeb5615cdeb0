//! The controllers of storage.
//!
//! * `persistentvolume-binder` brings claims and volumes together, and says what becomes of a volume that was let go.
//! * `persistentvolumeclaim-protection` and `persistentvolume-protection` keep what is in use.

mod binder;
mod claims;
mod protection;

use k3sd_client::controller::setup::Setup;
use k3sd_runtime::ChildSpec;

/// The loops, each a child of its own.
pub fn loops(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    vec![binder::binder(setup), protection::claims(setup), protection::volumes(setup)]
}
