//! The network's supervision, as data.

use std::collections::BTreeSet;
use std::sync::Arc;

use k3sd_netlink::Cidr;
use k3sd_runtime::{Spec, Strategy, worker};
use tokio::sync::watch;

use crate::config::NetworkConfig;
use crate::network::{Network, NetworkArgs};

/// The ids of all sandboxes that the container runtime knows, whatever their state; `None` until it has been asked.
///
/// An id that is missing here counts as gone after a few minutes, and its addresses are freed: leave none out.
pub type LiveSandboxes = watch::Receiver<Option<Arc<BTreeSet<String>>>>;

/// The node's network. It is up at once; pods get addresses when `pod_cidrs` holds some.
#[must_use]
pub fn tree(config: NetworkConfig, pod_cidrs: watch::Receiver<Vec<Cidr>>, live_sandboxes: LiveSandboxes) -> Spec {
    let args = NetworkArgs { config: Arc::new(config), pod_cidrs, live_sandboxes };
    Spec::new(Strategy::OneForOne).child(worker::<Network>("network", args))
}
