//! Keeps the kernel's rules as Services and their endpoints want them.

mod actor;
mod kernel;
mod msg;
mod plan;

pub(crate) use actor::{Sync, SyncArgs};
pub use kernel::{Changes, Kernel, Round};
pub(crate) use kernel::{FAMILIES, KernelArgs, warning};
