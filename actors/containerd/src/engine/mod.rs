//! containerd itself: configured, started, adopted, watched.

mod actor;
mod core;
mod log;
mod msg;
mod prepare;
pub(crate) mod process;

pub(crate) use self::actor::{Engine, EngineArgs};
pub use self::msg::{EngineHandle, EngineStatus};
