//! Drops old history now and then.

mod actor;
mod core;
mod msg;

pub(crate) use self::actor::{Compactor, CompactorArgs};
