//! Desired kernel state in, netlink operations out: links, addresses, routes, traffic shaping, nftables. It knows no
//! Kubernetes.
//!
//! Everything is done in the same three steps: read what the kernel has ([`route::Route::observe`],
//! [`nft::Netfilter::table`]), compare it with what is wanted (a pure plan: [`route::plan()`], [`nft::plan()`]), carry the
//! difference out. On a healthy kernel the plan is empty, so whoever comes back after a crash changes nothing.
//!
//! The sockets block: an answer of the kernel is there when the request has been sent. Short-lived processes use them as
//! they are, actors from a thread of their own. A socket belongs to the network namespace in which it was opened, however
//! its thread moves on; see [`Namespace::enter`].
//!
//! The messages are our own and not a library's: what is needed of them fits three files, nftables and traffic shaping
//! would have been our own anyway, and so there is one way to write and to read them.

mod cidr;
pub mod conntrack;
mod error;
mod namespace;
pub mod nft;
pub mod route;
mod socket;
mod sysctl;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod traffic;
mod wire;

pub use crate::cidr::{Cidr, CidrError};
pub use crate::error::NetlinkError;
pub use crate::namespace::Namespace;
pub use crate::sysctl::{read_sysctl, write_sysctl};
