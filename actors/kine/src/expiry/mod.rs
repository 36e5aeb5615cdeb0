//! Deletes keys whose time to live is over, and keeps leases. The decisions are [`k3sd_datastore::ExpiryQueue`]'s.

mod actor;
mod core;
mod msg;

pub(crate) use self::actor::{Expiry, ExpiryArgs};
pub(crate) use self::core::{Leases, PLAIN_MAX, Refusal};
pub(crate) use self::msg::ExpiryMsg;
