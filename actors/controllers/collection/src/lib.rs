//! The controllers that clear away and count.
//!
//! * [`finished`]: Jobs that have finished.
//! * [`garbage`]: objects whose owners are gone.
//! * [`namespace`]: what is in namespaces that go.
//! * [`pods`]: pods that nobody waits for.
//! * [`quota`]: how much of quotas is used.
//! * [`resources`]: which resources there are; some look at all of them.

pub mod finished;
pub mod garbage;
pub mod namespace;
pub mod pods;
pub mod quota;
pub mod resources;

use k3sd_client::controller::setup::Setup;
use k3sd_runtime::ChildSpec;
use tokio::sync::broadcast;

/// Namespaces that may wait to be told of; beyond them all count as told.
const GONE_MAX: usize = 1024;

/// The loops, each a child of its own.
pub fn loops(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    let (gone, _) = broadcast::channel(GONE_MAX);
    vec![
        garbage::collector(setup, &gone),
        namespace::deleter(setup),
        pods::collector(setup),
        finished::deleter(setup),
        quota::counter(setup, &gone),
    ]
}
