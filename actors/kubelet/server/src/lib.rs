//! The kubelet's HTTPS server: logs, exec, attach, port-forward, figures.
//!
//! ```text
//! API server, metrics-server, Prometheus
//!   │ TLS, 10250
//!   ▼
//! listener ─▶ connection ─▶ desk: who ─▶ may he ─┬─▶ logs           the runtime's files
//!                                                ├─▶ streams        the runtime's stream server, bytes copied both ways
//!                                                ├─▶ figures        what the node's part measures
//!                                                └─▶ pages          pods, health, configuration
//! ```
//!
//! A client that wants to speak to a container asks for another protocol (SPDY/3.1, or a WebSocket). The runtime prepares
//! it and names an address; the request is sent there, and from the answer on the two connections are copied onto each
//! other. So this crate knows neither protocol.
//!
//! What is deliberately absent: HTTP/2, the read-only port, and anonymous access.

mod access;
mod config;
mod connection;
mod desk;
mod entrance;
mod listener;
mod logs;
mod pages;
mod streams;
mod tree;

pub use crate::config::{AccessLimits, Checks, Configz, ServerConfig};
pub use crate::entrance::Entrance;
pub use crate::tree::{ServerArgs, tree};
