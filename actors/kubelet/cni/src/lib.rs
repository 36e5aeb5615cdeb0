//! The binary as its own CNI plugin, and the actor that looks after the node's pod network.
//!
//! Two things live here that meet only in files and in the kernel:
//!
//! - [`run`], the plugin: the container runtime starts the binary under the names that [`install`] makes, once for each
//!   pod and plugin. See [`PLUGINS`].
//! - the network of the node: once the node's pod CIDRs are known, it writes what the plugins read, sets the
//!   kernel's switches, keeps a table that masquerades what leaves the cluster, and frees addresses whose pods are gone.

mod config;
mod error;
mod install;
mod network;
mod plugin;
mod rules;
mod tree;

pub use crate::config::{Backend, NetworkConfig};
pub use crate::error::NetworkError;
pub use crate::install::install;
pub use crate::network::collect;
pub use crate::plugin::{PLUGINS, is_plugin, run};
pub use crate::tree::{LiveSandboxes, tree};
pub use k3sd_netlink::Cidr;
