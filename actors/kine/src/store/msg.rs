//! What the owner of the database understands.

use k3sd_runtime::message_kinds;

/// Nobody else sends it anything: requests go to the store itself.
#[derive(Debug)]
pub(crate) enum StoreMsg {
    /// One of the store's threads is gone, and with it the store.
    ThreadEnded {
        /// Which one, and why.
        what: String,
    },
}
message_kinds!(StoreMsg { ThreadEnded });
