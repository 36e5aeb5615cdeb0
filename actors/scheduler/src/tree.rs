//! The subtree, as data.

use std::sync::Arc;

use k3sd_client::api::Identities;
use k3sd_client::election::Leading;
use k3sd_client::events::{Recorder, recorder};
use k3sd_client::informer::Shared;
use k3sd_runtime::{Spec, Strategy, worker};

use crate::actor::{Decider, DeciderArgs, Feeds};
use crate::config::SchedulerConfig;
use crate::error::SetupError;
use crate::pod::DEFAULT_SCHEDULER;

/// Who the scheduler is to the API; upstream's roles are bound to this user.
pub const USER: &str = "system:kube-scheduler";

/// What the scheduler is made of.
#[derive(Clone, Debug)]
pub struct SchedulerArgs {
    /// Ways to the API.
    pub identities: Identities,
    /// How decisions are made.
    pub config: SchedulerConfig,
    /// Nothing is decided before this process leads. When it doesn't lead any more, its elector has this subtree
    /// restarted.
    pub leading: Leading,
    /// This host, as events name it.
    pub host: String,
}

impl SchedulerArgs {
    /// With upstream's profile, in a process that always leads.
    pub fn alone(identities: Identities, host: &str) -> Self {
        Self { identities, config: SchedulerConfig::default(), leading: Leading::always(), host: host.to_owned() }
    }
}

/// The subtree: who writes events, and who decides.
///
/// # Errors
/// See [`SetupError`].
pub fn tree(args: SchedulerArgs, informers: &mut Shared) -> Result<Spec, SetupError> {
    let profiles = &args.config.profiles;
    let is_unique = |at: usize| profiles[..at].iter().all(|other| other.name != profiles[at].name);
    if profiles.is_empty() || !(0..profiles.len()).all(is_unique) {
        return Err(SetupError::Profiles);
    }
    let connect = args.identities.user(USER, &[]);
    let (events, events_recorder) = recorder("events", connect.clone());
    let events_recorder = events_recorder.host(&args.host);
    let recorders =
        profiles.iter().map(|profile| events_recorder.component(component(&profile.name))).collect::<Vec<Recorder>>();
    let decider = DeciderArgs {
        connect,
        feeds: Feeds::new(informers),
        config: Arc::new(args.config),
        leading: args.leading,
        recorders,
    };
    // Events may be lost; nobody waits for them.
    Ok(Spec::new(Strategy::OneForOne).child(events).child(worker::<Decider>("decider", decider)))
}

/// A profile's name, as long as the process lives: there are as many as the configuration has, and it is read once.
fn component(name: &str) -> &'static str {
    if name == DEFAULT_SCHEDULER { DEFAULT_SCHEDULER } else { Box::leak(name.to_owned().into_boxed_str()) }
}
