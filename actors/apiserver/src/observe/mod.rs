//! What operators see: health and numbers.

mod health;
mod metrics;
mod storage;

pub use self::health::{Check, Health, Probe};
pub(crate) use self::metrics::{LongRunning, Metrics, Series, Tally};
pub(crate) use self::storage::{StorageNumbers, Timed};
