//! What the compactor understands; it sends all of it to itself.

use k3sd_datastore::{Revision, Status};
use k3sd_runtime::message_kinds;

/// See the variants.
#[derive(Debug)]
pub(crate) enum CompactorMsg {
    /// An interval is over.
    CompactTick,
    /// The store said how it is, or could not.
    Looked {
        /// Its state.
        status: Option<Status>,
    },
    /// A compaction ended.
    Compacted {
        /// How far history is gone now, or why it is not.
        outcome: Result<Revision, String>,
    },
}
message_kinds!(CompactorMsg { CompactTick, Looked, Compacted });
