//! What can go wrong before there is a scheduler.

use thiserror::Error;

/// A configuration that isn't one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path}: {problem}")]
pub struct ConfigError {
    /// Where, as `profiles[0].schedulerName`.
    pub path: String,
    /// What is wrong there.
    pub problem: String,
}

/// Why there is no scheduler to start.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SetupError {
    /// Two profiles answer to one name, or there is none.
    #[error("the profiles of the scheduler are not one for each name")]
    Profiles,
}
