//! The controllers of storage.
//!
//! * `persistentvolume-binder` brings claims and volumes together, and sees to what becomes of a volume that was let go
//!   of; `persistentvolume-directories` removes directories for it.
//! * `persistentvolumeclaim-protection`, `persistentvolume-protection` and `volumeattributesclass-protection` keep what is
//!   in use.
//! * `ephemeral-volume` makes the claims of volumes that live as long as their pod.
//! * `attachdetach` has volumes of CSI drivers attached where pods use them.
//! * `persistentvolume-expander` says who makes volumes larger.
//! * `resourceclaim` sees to claims for devices.

mod attach;
mod binder;
mod claims;
mod ephemeral;
mod expand;
mod protection;
mod resources;
mod sizes;
mod support;

use k3sd_client::controller::setup::Setup;
use k3sd_runtime::ChildSpec;

/// The loops, each a child of its own.
pub fn loops(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    let mut loops = Vec::from(binder::binder(setup));
    loops.extend([
        protection::claims(setup),
        protection::volumes(setup),
        protection::classes(setup),
        ephemeral::ephemeral(setup),
        attach::attach(setup),
        expand::expand(setup),
        resources::resources(setup),
    ]);
    loops
}
