//! What can be wrong before anything runs.

pub use k3sd_client::arguments::ArgumentError;
