//! The certificate of the supervisor's listener, which learns names while it runs: a server may be reached by more names
//! than anybody configured.

mod actor;
mod core;
mod msg;

pub(crate) use self::actor::{Serving, ServingArgs};
pub(crate) use self::core::Held;
pub use self::msg::{NameFilter, ServingHandle};
