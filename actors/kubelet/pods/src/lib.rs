//! Pods: an actor each, from the object to sandboxes and containers, and their status back.

pub mod plan;
pub mod probes;
pub mod runtime;
pub mod spec;
pub mod status;
#[cfg(test)]
mod testing;
pub mod translate;
