//! The controllers that clear away and count.
//!
//! * [`garbage`]: objects whose owners are gone.
//! * [`namespace`]: what is in namespaces that go.
//! * [`resources`]: which resources there are; those two look at all of them.

pub mod garbage;
pub mod namespace;
pub mod resources;

use k3sd_client::controller::setup::Setup;
use k3sd_runtime::ChildSpec;

/// The loops, each a child of its own.
pub fn loops(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    vec![garbage::collector(setup), namespace::deleter(setup)]
}
