//! The etcd v3 interface: sockets, connections, and the services behind them.

mod connection;
pub(crate) mod desk;
mod health;
mod kv;
mod lease;
mod lenient;
pub(crate) mod listener;
mod listing;
mod reflection;
mod rest;
mod router;
mod txn;
mod unary;
mod watch;
