//! Deletes keys whose time to live is over. The decisions are [`k3sd_datastore::ExpiryQueue`]'s.

mod actor;
mod msg;

pub(crate) use self::actor::{Expiry, ExpiryArgs};
