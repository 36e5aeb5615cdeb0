//! The node's figures: what it, its pods and their containers use.

mod measure;
mod metrics;
mod network;
mod summary;

pub use self::measure::{Figures, Snapshot, VolumeFigures};
pub(crate) use self::measure::{Meter, MeterArgs};
pub(crate) use self::summary::is_local;
