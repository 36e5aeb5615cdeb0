//! Answering: what is decided about a question, and the actors that receive and send.

mod chain;
mod tcp;
mod udp;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

pub(crate) use self::chain::{Outcome, Pending, Source, complete, respond};
pub(crate) use self::tcp::tcp_server;
pub(crate) use self::udp::udp_server;
use crate::keeper::View;
use crate::resolver::Asking;

/// What whoever answers needs of the others.
#[derive(Clone, Debug)]
pub(crate) struct Answering {
    /// What answers are made of.
    pub(crate) view: watch::Receiver<Arc<View>>,
    /// The way to the resolver.
    pub(crate) resolver: mpsc::Sender<Asking>,
    /// Where this DNS is reached.
    pub(crate) own: Arc<[IpAddr]>,
}

#[cfg(test)]
mod tests;
