//! The controllers of the control plane: each loop is an actor that makes what is into what is wanted.
//!
//! The loops stand in crates of their own below this one, by what they look after: `workloads`, `batch`, `collection`,
//! `network`, `nodes`, `accounts`, `volumes`. Here they become one subtree, which acts while its process leads.
//!
//! Each loop has an identity of its own and upstream's rights for it, reads from informers that all of them share, and
//! keeps nothing that it couldn't read again. None of them knows another: they meet in the API.
//!
//! Absent, with their seats: upstream's `validatingadmissionpolicy-status-controller` checks the types of the expressions
//! in policies, and so belongs beside whoever evaluates them. Policies are stored and not enforced as long as nobody
//! does, and so nobody says anything about them in their status either; the role for it is there.

mod arguments;
mod config;
mod error;
mod names;
mod tree;

pub use crate::arguments::apply as apply_arguments;
pub use crate::config::ControllersConfig;
pub use crate::error::ArgumentError;
pub use crate::tree::{ControllersArgs, cloud, controllers};
