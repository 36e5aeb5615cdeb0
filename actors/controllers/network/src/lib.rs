//! The controllers that say where Services lead.
//!
//! ```text
//! Services ─┐                        ┌▶ endpointslice            EndpointSlices, 100 endpoints each
//! Pods ─────┼─ keys are Services ────┤
//! Nodes ────┘                        └▶ endpoint                 Endpoints, for old clients
//! Endpoints that somebody wrote ──────▶ endpointslicemirroring   EndpointSlices of the same
//! ```
//!
//! A change of a pod names the Services of its namespace that select it; each is looked at once, however many of its pods
//! changed meanwhile. What is to be written is decided by plain functions; nothing is remembered between two looks.

mod endpoints;
mod members;
mod mirroring;
mod slices;

use k3sd_client::controller::setup::Setup;
use k3sd_runtime::ChildSpec;

/// The loops, each a child of its own.
pub fn loops(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    vec![slices::child(setup), endpoints::child(setup), mirroring::child(setup)]
}
