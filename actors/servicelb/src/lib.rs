//! Load balancers without a cloud: a Service of the type `LoadBalancer` is reached under the addresses of the nodes
//! themselves, as K3s has it.
//!
//! ```text
//! Services, nodes, pods with host ports, slices ─▶ plan (pure) ─▶ status.loadBalancer, finalizer, Events
//! ```
//!
//! Here is decided which nodes' addresses a Service has. The service proxy of each node reads the status and opens the
//! ports there; no pods forward anything. So what K3s made for that, DaemonSets named `svclb-…`, is removed.
//!
//! A port of a node is had once: by a pod that has it as host port, or else by the oldest Service. A node on which one of
//! its ports is taken isn't used for a Service.
//!
//! What is deliberately absent: forwarding, Services with a `loadBalancerClass`, which are somebody else's, and all that is
//! about K3s's pods, such as the annotation with their priority class.

mod controller;
mod leftovers;
mod plan;
mod status;
mod tolerations;

use k3sd_client::controller::setup::Setup;
use k3sd_runtime::ChildSpec;

/// Settings.
#[derive(Clone, Debug)]
pub struct ServiceLbConfig {
    /// Where DaemonSets of K3s are looked for: `--servicelb-namespace`.
    pub namespace: String,
    /// The process has no rights on the host: all Services are at `127.0.0.1`.
    pub rootless: bool,
}

impl Default for ServiceLbConfig {
    fn default() -> Self {
        Self { namespace: "kube-system".to_owned(), rootless: false }
    }
}

/// The loops, to run beside the cloud's controllers, under their lease and as their user.
pub fn loops(setup: &mut Setup<'_>, config: &ServiceLbConfig) -> Vec<ChildSpec> {
    vec![controller::child(setup, config), leftovers::child(setup, config)]
}

/// What runs with `--disable=servicelb`: DaemonSets of K3s are removed, and the status of Services is left to others.
pub fn disabled(setup: &mut Setup<'_>, config: &ServiceLbConfig) -> Vec<ChildSpec> {
    vec![leftovers::child(setup, config)]
}
