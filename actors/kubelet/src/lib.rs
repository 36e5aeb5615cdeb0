//! The node: pods, volumes, their network, and the kubelet's own API.
//!
//! ```text
//! kubelet           one_for_one
//! ├─ events         writes down what happens
//! ├─ services       an informer, for variables of containers
//! ├─ node           the Node, its lease and status, eviction, garbage, figures
//! ├─ volumes        what is mounted where
//! ├─ pods           an actor each
//! ├─ network        addresses of pods, and how they reach others
//! ├─ follow         what one of them knows and another one needs
//! └─ server         port 10250
//! ```
//!
//! The parts are crates of their own and meet here: in snapshots (`k3sd-kubelet-base`), in small bridges (`adapt`), and in
//! what `follow` hands on. What the machine and the user want is decided once, before anything starts (`settings`).

mod adapt;
mod config;
mod error;
mod follow;
pub mod resolv;
mod role;
mod settings;
mod tree;

pub use k3sd_cri::Cri;
pub use k3sd_kubelet_cni::{install as install_plugins, is_plugin, run as run_plugin};

pub use crate::config::KubeletConfig;
pub use crate::error::KubeletError;
pub use crate::role::role;
pub use crate::settings::{NodeFlags, check};
pub use crate::tree::{KubeletDeps, KubeletTree, tree};
