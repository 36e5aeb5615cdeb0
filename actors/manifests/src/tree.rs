//! The subtree, as data.
//!
//! ```text
//! manifests      one_for_one
//! ├─ events      writes Events of both
//! ├─ deploy      files and their AddOns
//! └─ helm        one_for_one: definitions, informers, the loop over charts; not with --disable-helm-controller
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_client::election::Leading;
use k3sd_client::events::recorder;
use k3sd_runtime::{Clock, Spec, Strategy, subtree, worker};

use crate::config::ManifestsConfig;
use crate::deploy::{Deploy, DeployArgs};
use crate::error::ManifestsError;
use crate::helm;

/// How many deaths are borne: the parts don't hurt each other, and each begins anew.
const RESTARTS: u32 = 10;
const PERIOD: Duration = Duration::from_secs(60);

/// Whom both controllers depend on.
#[derive(Clone)]
pub struct ManifestsDeps {
    /// The way to the API, as somebody in `system:masters`: manifests may hold anything.
    pub connect: Connect,
    /// Whether this process acts on charts. Manifests are deployed by every server that has some.
    pub leading: Leading,
    /// Time.
    pub clock: Clock,
}

impl fmt::Debug for ManifestsDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManifestsDeps").finish_non_exhaustive()
    }
}

/// The subtree.
#[derive(Debug)]
pub struct ManifestsTree {
    /// What to start.
    pub spec: Spec,
}

/// Puts both controllers together. Nothing is written yet, not even a file.
///
/// # Errors
/// See [`ManifestsError`].
pub fn tree(config: ManifestsConfig, deps: ManifestsDeps) -> Result<ManifestsTree, ManifestsError> {
    config.check()?;
    let ManifestsDeps { connect, leading, clock } = deps;
    let (events, recorder) = recorder("events", connect.clone());
    let mut spec = Spec::new(Strategy::OneForOne).budget(RESTARTS, PERIOD).child(events);
    let helm = config.helm.clone().map(|helm| helm::HelmArgs {
        config: helm,
        node_name: config.node_name.clone(),
        connect: connect.clone(),
        recorder: recorder.clone(),
        leading,
        clock,
    });
    let args = DeployArgs { config: Arc::new(config), connect, recorder };
    spec = spec.child(worker::<Deploy>("deploy", args));
    if let Some(helm) = helm {
        spec = spec.child(subtree("helm", helm::spec(helm)));
    }
    Ok(ManifestsTree { spec })
}
