//! The controllers that clear away and count.

use k3sd_client::controller::setup::Setup;
use k3sd_runtime::ChildSpec;

/// The loops, each a child of its own.
pub fn loops(_setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    Vec::new()
}
