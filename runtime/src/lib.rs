//! The actor runtime of k3sd: supervision, addresses, clock, inspection. It knows no Kubernetes.
//!
//! A tree is data ([`Spec`]) that a [`System`] starts. Each actor is one tokio task that owns its state and handles one
//! message at a time; each supervisor restarts its children by the rules of OTP ([`verdict`](mod@verdict), pure) and
//! carries out what its state machine decides. Others reach an actor through an [`Address`], which stays good across
//! restarts.
//!
//! What is deliberately absent: process-wide registries, statics, environment variables, remote actors, monitors and
//! process groups. Nothing here reads a clock or a random source but through [`Clock`].
//!
//! Built on tokio and not on an actor library: see `decisions/0001-actor-cell.md` for what was measured.

mod actor;
mod address;
mod anchor;
mod backoff;
pub mod blocking;
mod cell;
mod clock;
mod error;
mod events;
mod exit;
pub mod exposition;
pub mod gather;
pub mod inspect;
mod launch;
pub mod lend;
pub mod machine;
mod message;
pub mod queues;
mod seen;
pub mod signals;
mod spec;
mod supervisor;
mod system;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod verdict;
pub mod workqueue;

pub use crate::actor::{Actor, Context, Stop, TimerId};
pub use crate::address::{Address, ReplyPort};
pub use crate::backoff::Backoff;
pub use crate::cell::{Death, Kind, MailboxLook, Signal, TraceRecord};
pub use crate::clock::{Clock, Moment, Rng};
pub use crate::error::{AskError, CastError, TreeError, TypeMismatch};
pub use crate::events::{Event, Happened};
pub use crate::exit::{ActorError, Exit, panic_text};
pub use crate::launch::{RootState, TaskHandle, current_path, subtree, task, worker};
pub use crate::message::{Message, Silent};
pub use crate::spec::{ChildSpec, Intensity, MAILBOX_MESSAGES, Restart, Shutdown, Spec, Strategy};
pub use crate::supervisor::{ChildLook, SupervisorRef};
pub use crate::system::{ROOT, System, Tree};
