//! The scheduler: finds a node for each pod.

pub mod config;
pub mod decide;
pub mod diagnosis;
pub mod error;
pub mod filter;
pub mod labels;
pub mod plugin;
pub mod pod;
pub mod preemption;
pub mod queue;
pub mod score;
pub mod snapshot;
pub mod volumes;
