//! Devices that plugins offer: they register, list what they have, and say what a container needs to use it.
//!
//! ```text
//! plugin ─ Register ─▶ kubelet.sock ─▶ listener ─▶ devices (an actor) ─ ListAndWatch, Allocate ─▶ the plugin's own socket
//!                                                     │
//!                                                     ├▶ counts, for the node's status
//!                                                     └▶ a file: what containers have, so that a restart gives nothing away
//! ```

mod actor;
mod core;
mod listener;
#[cfg(test)]
mod tests;

use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Spec, Strategy, task, worker};

#[expect(unreachable_pub, clippy::allow_attributes, reason = "written by the build script")]
mod wire {
    tonic::include_proto!("v1beta1");
}

pub(crate) use self::actor::DevicesArgs;
use self::actor::Manager;
pub use self::actor::{DeviceError, Devices};
pub use self::core::{Given, GivenMount, GivenNode};
use self::listener::listen;
pub use self::listener::{Socket, bind};

/// The subtree: the manager, and the socket at which plugins register.
pub(crate) fn spec(manager: DevicesArgs, socket: Lend<Socket>, devices: Devices) -> Spec {
    let registration = task("registration", move |handle| listen(handle, socket.clone(), devices.clone()));
    Spec::new(Strategy::OneForOne).child(worker::<Manager>("manager", manager)).child(registration)
}
