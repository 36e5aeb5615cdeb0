//! The actor that keeps the node's network.

mod actor;
mod collect;
mod core;
mod kernel;
mod msg;

pub(crate) use self::actor::{Network, NetworkArgs};
pub use self::collect::collect;
