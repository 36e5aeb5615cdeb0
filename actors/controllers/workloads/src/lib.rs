//! The controllers of workloads that run until they are told to stop.
//!
//! * `replicas` keeps as many pods of one template as are wanted: ReplicaSets and ReplicationControllers.
//!
//! Each decides in plain functions what is to be done, from what is wanted and what there is; its loop carries that out.

mod replicas;
mod support;

use k3sd_client::controller::setup::Setup;
use k3sd_runtime::ChildSpec;

/// The loops, each a child of its own.
pub fn loops(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    replicas::loops(setup)
}
