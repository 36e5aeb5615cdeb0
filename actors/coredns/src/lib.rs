//! Cluster DNS: an actor of our own on every node, and what CoreDNS needs where that is wanted in its place.
//!
//! ```text
//! API ─ feeds ─▶ keeper ─ View, published ─▶ udp-N, tcp-N ◀── pods, at the address of `kube-dns`
//!                                               │  ▲
//!                                               ▼  │ what isn't the cluster's
//!                                             resolver ◀──▶ upstream servers
//! addresses: keeps the address of `kube-dns` on the loopback link
//! ```
//!
//! * [`tree()`] is a node's DNS. It serves the Kubernetes DNS specification 1.1 from memory, follows the Corefile of the
//!   ConfigMap `coredns` with what `coredns-custom` adds, and says in Events what of it only CoreDNS itself can do.
//! * [`absent`] takes its addresses away, where another DNS is wanted or none.
//! * [`node_hosts`] keeps the nodes' names in that ConfigMap, whoever serves them.
//! * [`manifest()`] is the text of `coredns.yaml`, for either way.
//!
//! The Service `kube-dns` of this DNS carries `service.kubernetes.io/service-proxy-name`, so that service proxies leave its
//! address alone: it is the host's own, and each node's pods ask their own node.
//!
//! What is deliberately absent: zone transfers, DNSSEC of our own, DNS over TLS, files of the host.

mod addresses;
mod announcement;
mod config;
mod corefile;
mod error;
mod feed;
mod keeper;
mod manifest;
mod node_hosts;
mod resolver;
mod serve;
mod tree;
mod wire;
mod zone;

pub use crate::addresses::absent;
pub use crate::announcement::announcement;
pub use crate::config::{DnsConfig, DnsDeps};
pub use crate::error::DnsError;
pub use crate::manifest::{ManifestArgs, Provider, manifest};
pub use crate::node_hosts::node_hosts;
pub use crate::tree::{DnsTree, tree};
