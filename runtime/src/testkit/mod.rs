//! For tests: faults and barriers at named places, and probe actors. Not compiled without the `testkit` feature.

mod faults;
mod probe;

pub use faults::{Barrier, Fault, Faults};
pub use probe::{Journal, Note, Plan, Probe, ProbeMsg, What};
