//! The service proxy: what Services promise, as rules of the kernel. It is kube-proxy.
//!
//! ```text
//! API ─ Services, EndpointSlices, the Node ─▶ model ─▶ ledger of elements ─▶ differences
//!                                                                              │ one batch
//!       what others do to our tables ◀─ nftables ◀─────────────────────────────┘
//! ```
//!
//! * `model` says what each service comes to on this node: which endpoints, for whom, at which addresses. Pure.
//! * `rules` says what the kernel's tables look like. Services and endpoints are elements of maps, so a change costs what
//!   has changed; see its page. Pure.
//! * `sync` carries it out on a thread. At the start it reads what the kernel has and changes what differs, in one batch,
//!   so a restart goes unnoticed. Whatever others do to our tables is heard of, and mended.
//! * `http` answers who asks how the proxy is, and services' load balancers.
//!
//! [`Kernel`] is all of it without actors, as what measures it needs it.
//!
//! Connections belong to the kernel: nothing that happens here ends one that is established. The kernel translates their
//! packets only while there is a chain that could, so beside the two tables `k3sd-proxy` there is one of empty chains that
//! nobody else can take away; it is gone with the process. Only UDP exchanges with an endpoint that is gone are made to be
//! forgotten, and attempts to reach a service while its rules were away.
//!
//! What is deliberately absent: upstream's other ways to write rules, packets that pass through a process, and any state
//! on disk. Needs Linux 5.10, for refusing packets before they are routed.

mod arguments;
mod config;
mod error;
mod http;
mod model;
mod rules;
mod sync;
mod tree;

pub use crate::config::{ProxyConfig, ProxyDeps};
pub use crate::error::ProxyError;
pub use crate::sync::{Changes, Kernel, Round};
pub use crate::tree::{ProxyTree, tree};
