//! Settings, with the defaults of K3s and upstream.

use k3sd_client::controller::setup::ControllerConfig;
use k3sd_client::election::Election;

/// Which controllers run unless it is said: those that upstream runs by itself, those of tokens, and none that a cloud
/// brings.
const CONTROLLERS: [&str; 6] = ["*", "bootstrapsigner", "tokencleaner", "-service", "-route", "-cloud-node-lifecycle"];

/// The same for what a cloud would bring, as K3s has it.
const CLOUD_CONTROLLERS: [&str; 2] = ["*", "-route"];

/// Settings of all controllers.
#[derive(Clone, Debug)]
pub struct ControllersConfig {
    /// What the loops are told.
    pub loops: ControllerConfig,
    /// Which of them run: `*` stands for those that upstream runs by itself, `name` for one more, `-name` for one less. Of
    /// what is said about one, the first counts.
    pub controllers: Vec<String>,
    /// How this process comes to lead; it always does without.
    pub election: Option<Election>,
}

impl Default for ControllersConfig {
    fn default() -> Self {
        let controllers = CONTROLLERS.map(str::to_owned).to_vec();
        Self { loops: ControllerConfig::default(), controllers, election: None }
    }
}

impl ControllersConfig {
    /// The same for the manager of what a cloud would bring.
    #[must_use]
    pub fn cloud() -> Self {
        Self { controllers: CLOUD_CONTROLLERS.map(str::to_owned).to_vec(), ..Self::default() }
    }
}
