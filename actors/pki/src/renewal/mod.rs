//! Keeps the files in order while the server runs, and publishes what is in them.

mod actor;
mod core;
mod msg;

pub(crate) use self::actor::{Renewal, RenewalArgs};
pub(crate) use self::core::pause;
pub use self::msg::{RenewalHandle, RenewalStatus};
