//! Garbage: images that nobody needs, containers that have ended, logs that have grown.

mod containers;
mod images;
mod keeper;
mod logs;
mod pictures;

pub use self::containers::{Dead, Known, Leftovers, Sandbox, leftover_logs, leftovers};
pub use self::images::{ImageFact, ImagePolicy, Records, Wanted, plan, too_old};
pub(crate) use self::keeper::{ContainerKeeper, KeeperArgs, KeeperMsg};
pub use self::logs::{LogPolicy, rotate};
pub(crate) use self::pictures::{ImageKeeper, ImageKeeperArgs, ImageKeeperMsg};

/// Whether a pod has ended, and starts nothing any more.
pub(crate) fn has_ended(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
