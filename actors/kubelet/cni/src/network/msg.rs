//! What the network's actor understands; all of it comes from itself.

use k3sd_runtime::message_kinds;

/// A reason to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkMsg {
    /// The node's pod networks may be others.
    CidrsChanged,
    /// Sandboxes came or went.
    SandboxesChanged,
    /// Somebody changed our table; it may have been us.
    TableTouched,
    /// Bring everything in order, after it failed.
    ApplyTick,
    /// Look for addresses that nobody has.
    CollectTick,
}

message_kinds!(NetworkMsg { CidrsChanged, SandboxesChanged, TableTouched, ApplyTick, CollectTick });
