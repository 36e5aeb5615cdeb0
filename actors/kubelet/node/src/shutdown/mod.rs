//! The machine's end: pods are ended in good order before it goes down, as long as logind can be held up.
//!
//! ```text
//! logind ◀─ inhibitor ("delay") ─ held ──────────────────────── dropped ─▶ the machine goes down
//!        ─▶ PrepareForShutdown(true) ─▶ the node isn't ready, takes no pods
//!                                       groups by priority, one after the other, each within its time
//!        ─▶ PrepareForShutdown(false) ─▶ all as before, and another inhibitor
//! ```
//!
//! [`core`](self) decides who ends when; `login` asks, over the system's message bus. Off unless a configuration
//! names a time.

#[cfg(test)]
mod bus;
mod core;
mod guard;
mod login;
mod socket;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use self::core::{Ends, Group, Period, groups, periods, total};
pub(crate) use self::guard::{ShutdownArgs, run};

/// The reason in the status of a pod that ended with its machine.
pub const REASON: &str = "Terminated";
/// The message there.
pub const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// Why a node isn't ready that goes down.
pub const PROBLEM: &str = "node is shutting down";

/// How the machine's end is waited for; by default not at all.
#[derive(Clone, Debug, Default)]
pub struct ShutdownConfig {
    /// Who has how long; nothing, and nobody waits.
    pub periods: Vec<Period>,
    /// The socket of the system's message bus.
    pub bus: PathBuf,
    /// Where settings of logind are put.
    pub login_settings: PathBuf,
}
