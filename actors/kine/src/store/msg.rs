//! What the owner of the database understands.

use k3sd_runtime::message_kinds;

/// Nobody else sends it anything: requests go to the store itself.
#[derive(Debug)]
pub(crate) enum StoreMsg {
    /// Something that the store can't be without has ended, and with it the store.
    PartEnded {
        /// Which part, and why.
        what: String,
    },
}
message_kinds!(StoreMsg { PartEnded });
