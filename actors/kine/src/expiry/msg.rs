//! What the expiry actor understands; it sends all of it to itself.

use k3sd_datastore::{Key, KeyValue, Revision, WatchMessage, Watcher};
use k3sd_runtime::message_kinds;

/// See the variants.
#[derive(Debug)]
pub(crate) enum ExpiryMsg {
    /// List what has an end, and watch from there.
    StartTick,
    /// The keys with an end, and a watcher from behind them; or nothing, when the store did not answer.
    Listed {
        /// Both.
        found: Option<(Vec<KeyValue>, Box<Watcher>)>,
    },
    /// The watcher said something; it is gone when it has ended.
    Watched {
        /// The watcher, to go on with, and what it said.
        next: Option<(Box<Watcher>, WatchMessage)>,
    },
    /// Something is due.
    DueTick,
    /// Keys were deleted, except for these, which have to be tried again.
    Deleted {
        /// Those left over.
        left: Vec<(Key, Revision)>,
    },
}
message_kinds!(ExpiryMsg { StartTick, Listed, Watched, DueTick, Deleted });
