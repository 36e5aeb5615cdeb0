//! The controllers of nodes.
//!
//! ```text
//! leases, nodes ─▶ nodelifecycle ─▶ conditions, taints      what doesn't answer is unreachable
//! taints, pods ──▶ taint-eviction ─▶ deletes pods            that don't tolerate where they are
//! nodes ─────────▶ nodeipam ──────▶ spec.podCIDRs            a network for the pods of each
//! nodes ─────────▶ ttl ───────────▶ an annotation            how long kubelets may keep Secrets
//! nodes ─────────▶ cloud-node ────▶ addresses, providerID    what a cloud would know, as K3s has it
//! ```
//!
//! They wake for changes and at deadlines: a node that doesn't answer is noticed when its grace period is over, counted
//! from the last sign of life.

mod cloud;
mod eviction;
mod ipam;
mod lifecycle;
mod node;
mod ttl;

use k3sd_client::controller::setup::Setup;
use k3sd_runtime::ChildSpec;

/// The loops, each a child of its own.
pub fn loops(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    vec![lifecycle::child(setup), eviction::child(setup), ipam::child(setup), ttl::child(setup)]
}

/// The loops of the manager that stands for a cloud, which has a lease and an identity of its own.
pub fn cloud(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    vec![cloud::child(setup)]
}
