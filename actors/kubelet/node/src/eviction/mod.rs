//! Eviction: pods leave before the node itself runs out of memory, disk, inodes or process ids.
//!
//! ```text
//! observe ─▶ which thresholds are met ─▶ pressures, told for a while after ─▶ taints (a controller's)
//!                    │
//!                    ├ collect garbage first; enough? done
//!                    └ rank pods ─▶ evict the first that may be evicted, one per look
//! ```

mod actor;
mod local;
mod manager;
mod rank;
mod signal;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::fmt;

use futures_util::future::BoxFuture;
use k3sd_runtime::exposition::{head, line};

pub use self::actor::EvictionConfig;
pub(crate) use self::actor::{EvictionArgs, EvictionManager};
pub use self::local::{LocalUse, over_limit};
pub use self::manager::{Decision, Manager, Settings};
pub use self::rank::{PodUse, Usage, rank};
pub use self::signal::{Amount, Observation, Observations, Signal, Threshold, ThresholdError, parse};
pub use self::text::message;

/// What the node is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressures {
    /// Memory.
    pub memory: bool,
    /// Disk space or inodes.
    pub disk: bool,
    /// Process ids.
    pub pids: bool,
}

/// How many pods were evicted, by the signal that was met.
pub type EvictionCounts = BTreeMap<&'static str, u64>;

/// Writes them in Prometheus' text format; nothing if there were none, as upstream.
pub fn write_metrics(counts: &EvictionCounts, text: &mut String) {
    let name = "kubelet_evictions";
    if !counts.is_empty() {
        head(text, name, "counter", "Pods that were evicted, by the signal that was met.");
        counts.iter().for_each(|(signal, count)| line(text, name, &format!("eviction_signal=\"{signal}\""), count));
    }
}

/// The reason in the status of a pod that was evicted.
pub const REASON: &str = "Evicted";

/// A pod that has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Its uid on this node.
    pub uid: String,
    /// [`REASON`].
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
    /// How long it has to end.
    pub grace_seconds: i64,
}

/// Who can make pods go. Safe to repeat.
pub trait Evict: fmt::Debug + Send + Sync + 'static {
    /// Ends a pod and has its status say why. `false` if there is no such pod, or nobody who could end it now.
    fn evict(&self, eviction: Eviction) -> BoxFuture<'static, bool>;
}
