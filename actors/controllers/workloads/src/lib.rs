//! The controllers of workloads that run until they are told to stop.
//!
//! * `replicas` keeps as many pods of one template as are wanted: ReplicaSets and ReplicationControllers.
//! * `deployment` has a ReplicaSet for each template, and moves pods from one to the next.
//! * `statefulset` has pods that are known by their number, with claims of their own.
//! * `daemonset` has a pod on each node that fits.
//! * `disruption` counts how many pods may be evicted.
//! * `autoscaling` has as many pods as what is measured asks for.
//!
//! Each decides in plain functions what is to be done, from what is wanted and what there is; its loop carries that out.

mod autoscaling;
mod daemonset;
mod deployment;
mod disruption;
mod hash;
mod replicas;
mod revisions;
mod scaling;
mod statefulset;
mod support;

use k3sd_client::controller::setup::Setup;
use k3sd_runtime::ChildSpec;

/// The loops, each a child of its own.
pub fn loops(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    let mut loops = replicas::loops(setup);
    loops.push(deployment::child(setup));
    loops.push(statefulset::child(setup));
    loops.push(daemonset::child(setup));
    loops.extend(disruption::loops(setup));
    loops.push(autoscaling::child(setup));
    loops
}
