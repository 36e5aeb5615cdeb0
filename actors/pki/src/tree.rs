//! The subtree, as data.

use std::sync::Arc;

use k3sd_runtime::{Spec, Strategy, System, TypeMismatch, worker};

use crate::config::PkiConfig;
use crate::publish::Certificates;
use crate::renewal::{Renewal, RenewalArgs, RenewalHandle};

/// The subtree, and the way to what it publishes.
#[derive(Clone, Debug)]
pub struct PkiTree {
    /// What to start. It is up when all files are in order and the first snapshot is published.
    pub spec: Spec,
    /// What it publishes.
    pub certificates: Certificates,
}

/// Everything that is started later may use the certificates at once.
pub fn tree(config: PkiConfig) -> PkiTree {
    let (place, certificates) = Certificates::place();
    let renewal = RenewalArgs { config: Arc::new(config), place };
    // The first start makes a key of RSA and some forty files, each of them durable, on whatever disk there is.
    let spec = Spec::new(Strategy::RestForOne).child(worker::<Renewal>("renewal", renewal).start_within(None));
    PkiTree { spec, certificates }
}

/// The actor that renews, in the subtree at `path`.
///
/// # Errors
/// Another actor is known at this path.
pub fn renewal(system: &System, path: &str) -> Result<RenewalHandle, TypeMismatch> {
    system.address(&format!("{path}/renewal")).map(RenewalHandle::new)
}
