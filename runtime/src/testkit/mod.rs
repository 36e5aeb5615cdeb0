//! For tests: faults and barriers at named places, and probe actors. Not compiled without the `testkit` feature.

mod faults;
mod probe;

use crate::system::System;

pub use faults::{Barrier, Fault, Faults};
pub use probe::{Journal, Note, Plan, Probe, ProbeMsg, What};

/// What an actor shows of itself; nothing when there is no such actor.
pub fn notes(system: &System, path: &str) -> Vec<String> {
    system.find(path).map(|cell| cell.node().notes()).unwrap_or_default()
}
