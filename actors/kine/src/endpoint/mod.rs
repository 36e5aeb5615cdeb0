//! The etcd v3 interface: sockets, connections, and the services behind them.

mod connection;
pub(crate) mod desk;
mod kv;
mod lease;
pub(crate) mod listener;
mod rest;
mod router;
mod txn;
mod watch;
