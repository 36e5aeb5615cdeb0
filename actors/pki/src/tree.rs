//! The subtree, as data.

use std::fmt;
use std::sync::Arc;

use k3sd_runtime::{Spec, Strategy, System, TypeMismatch, worker};
use tokio::sync::watch;

use crate::config::PkiConfig;
use crate::publish::Certificates;
use crate::renewal::{Renewal, RenewalArgs, RenewalHandle};
use crate::serving::{Held, NameFilter, Serving, ServingArgs, ServingHandle};

/// The subtree, and the way to what it publishes.
#[derive(Clone, Debug)]
pub struct PkiTree {
    /// What to start. It is up when all files are in order and everything is published.
    pub spec: Spec,
    /// What it publishes.
    pub certificates: Certificates,
    /// The certificate of the supervisor's listener.
    pub serving: ServingCertificate,
}

/// What is published of the listener's certificate; with a running tree it becomes a [`ServingHandle`].
#[derive(Clone)]
pub struct ServingCertificate {
    held: watch::Receiver<Option<Arc<Held>>>,
    filter: NameFilter,
}

impl fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServingCertificate")
    }
}

impl ServingCertificate {
    /// The handle, of the subtree that runs at `path`.
    ///
    /// # Errors
    /// Another actor is known at this path.
    pub fn at(self, system: &System, path: &str) -> Result<ServingHandle, TypeMismatch> {
        Ok(ServingHandle::new(system.address(&format!("{path}/serving"))?, self.held, self.filter))
    }
}

/// Everything that is started later may use the certificates at once. `filter` says which names the listener's
/// certificate may learn beside those that are configured.
pub fn tree(config: PkiConfig, filter: NameFilter) -> PkiTree {
    let (place, certificates) = Certificates::place();
    let (held, published) = watch::channel(None);
    let config = Arc::new(config);
    let renewal = RenewalArgs { config: config.clone(), place };
    let serving =
        ServingArgs { config, certificates: certificates.clone(), filter: filter.clone(), place: Arc::new(held) };
    // What serves is signed by what is renewed. The first start makes a key of RSA and some forty files, each of them
    // durable, on whatever disk there is.
    let spec = Spec::new(Strategy::RestForOne)
        .child(worker::<Renewal>("renewal", renewal).start_within(None))
        .child(worker::<Serving>("serving", serving).start_within(None));
    PkiTree { spec, certificates, serving: ServingCertificate { held: published, filter } }
}

/// The actor that renews, in the subtree at `path`.
///
/// # Errors
/// Another actor is known at this path.
pub fn renewal(system: &System, path: &str) -> Result<RenewalHandle, TypeMismatch> {
    system.address(&format!("{path}/renewal")).map(RenewalHandle::new)
}
