//! The container runtime interface: its messages, and a client over a unix socket.
//!
//! [`v1`] holds the messages, [`Cri`] one method per call. A [`Cri`] is a way, not a connection: it may exist before the
//! runtime does, connects when it is first used, and again after the runtime has restarted. A call that was under way
//! then fails with an error that says so ([`CriError::is_unavailable`]); nothing is ever sent twice.
//!
//! What is deliberately absent: retries. Only the caller knows what may be repeated.

mod channel;
mod client;
mod error;
mod numbers;

pub use k8s_cri::v1;

pub use crate::channel::channel;
pub use crate::client::{CALL_LIMIT, Cri, MESSAGE_BYTES_MAX};
pub use crate::error::{Code, CriError};
