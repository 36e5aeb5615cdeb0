//! What operators see: health and numbers.

mod health;
mod metrics;
mod process;

pub use self::health::{Check, Health, Probe};
pub(crate) use self::metrics::{LongRunning, Metrics, Series, Tally, head, line};
