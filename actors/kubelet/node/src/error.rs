//! Why there can be no node with these settings.

use thiserror::Error;

use crate::eviction::ThresholdError;
use crate::status::ReservedError;

/// A setting that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NodeError {
    /// Thresholds of eviction.
    #[error(transparent)]
    Threshold(#[from] ThresholdError),
    /// What is kept from pods.
    #[error(transparent)]
    Reserved(#[from] ReservedError),
    /// The size of logs.
    #[error("containerLogMaxSize: {0:?} is no size")]
    LogSize(String),
}
