//! Settings, with upstream's defaults.

use k3sd_client::controller::setup::ControllerConfig;
use k3sd_client::election::Terms;

/// Settings of all controllers.
#[derive(Clone, Debug, Default)]
pub struct ControllersConfig {
    /// What the loops are told.
    pub loops: ControllerConfig,
    /// Loops that don't run, by name.
    pub disabled: Vec<String>,
    /// How this process comes to lead; it always does without.
    pub election: Option<Election>,
}

/// How one of several processes comes to lead.
#[derive(Clone, Debug)]
pub struct Election {
    /// What the lease says of this process; no other has the same.
    pub identity: String,
    /// The times of the lease.
    pub terms: Terms,
}
