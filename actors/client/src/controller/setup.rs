//! What subsystems of controllers are put together from.

use std::fmt;
use std::sync::Arc;

use k3sd_runtime::Clock;

use crate::api::{Connect, Identities};
use crate::election::Leading;
use crate::events::Recorder;
use crate::informer::Shared;

/// The namespace of the service accounts that controllers act as.
const NAMESPACE: &str = "kube-system";

/// What a crate of controllers is given, to make its loops from.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Ways to the API.
    pub identities: &'a Identities,
    /// Copies of what there is, for all controllers.
    pub informers: &'a mut Shared,
    /// Writes Events.
    pub recorder: &'a Recorder,
    /// Whether this process acts.
    pub leading: &'a Leading,
    /// Time and randomness.
    pub clock: &'a Clock,
    /// Settings.
    pub config: &'a ControllerConfig,
}

impl Setup<'_> {
    /// The API as a controller of that name sees it, such as `deployment-controller`: it has a service account of its own,
    /// and the rights of the role `system:controller:NAME`.
    pub fn connect(&self, controller: &str) -> Connect {
        self.identities.service_account(NAMESPACE, controller)
    }
}

/// Settings of controllers; the defaults are upstream's.
#[derive(Clone, Debug, Default)]
pub struct ControllerConfig {
    /// Whom pods should believe when they speak to the API.
    pub root_ca: Bundle,
}

/// Certificates of authorities in PEM, which may become others while the process runs.
#[derive(Clone)]
pub struct Bundle(Arc<dyn Fn() -> String + Send + Sync>);

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bundle")
    }
}

impl Default for Bundle {
    /// None yet.
    fn default() -> Self {
        Self::new(String::new)
    }
}

impl Bundle {
    /// Asks a function, which answers from memory.
    pub fn new(ask: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// What it holds now; empty as long as there is none.
    pub fn pem(&self) -> String {
        (self.0)()
    }
}
