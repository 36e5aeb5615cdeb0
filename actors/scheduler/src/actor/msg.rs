//! What the actor understands: all of it from itself.

use k3sd_runtime::message_kinds;

use super::feed::Batch;

/// See the variants.
pub(crate) enum SchedulerMsg {
    /// This process leads: there is something to do.
    Led,
    /// Objects have changed.
    Fed {
        /// Which, and how.
        batch: Batch,
    },
    /// Decide about pods for a while.
    DecideTick,
    /// Some wait in the queue is over.
    WakeTick,
    /// The volumes of a pod were asked for.
    VolumesAsked {
        /// The pod's uid.
        uid: String,
        /// Whether everybody was told; how it went otherwise.
        outcome: Result<(), kube::Error>,
    },
    /// A pod was bound.
    Bound {
        /// The pod's uid.
        uid: String,
        /// Or not.
        outcome: Result<(), kube::Error>,
    },
    /// The time for volumes is over for somebody, perhaps.
    VolumesTick,
    /// A write that nobody waits for is done.
    Written,
}

message_kinds!(SchedulerMsg { Led, Fed, DecideTick, WakeTick, VolumesAsked, Bound, VolumesTick, Written });
