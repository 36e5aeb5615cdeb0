//! The subtree, as data.
//!
//! ```text
//! server             rest_for_one
//! ├─ access          asks the API server who may, and remembers
//! ├─ connections     dynamic: a task for each
//! └─ listener…       accept, one for each socket
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_cri::Cri;
use k3sd_kubelet_base::Pods;
use k3sd_kubelet_base::stats::Figures;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Clock, Spec, Strategy, subtree, task, worker};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::rustls::ServerConfig as TlsConfig;

use crate::access::{Access, AccessArgs};
use crate::config::{Checks, Configz, ServerConfig};
use crate::desk::Fittings;
use crate::entrance::Entrance;
use crate::listener::{Door, listen};

/// What the server is made of.
pub struct ServerArgs<E = TcpListener> {
    /// Settings.
    pub config: ServerConfig,
    /// The socket of port 10250.
    pub socket: Lend<E>,
    /// How hands are shaken there. Its certificate is to be the current one at each handshake; it asks clients for a
    /// certificate, takes those without one, and refuses those whose certificate the authority for clients didn't sign.
    pub tls: Arc<TlsConfig>,
    /// The socket of port 10248, on loopback, for health alone; `None` with `healthzPort` 0.
    pub health_socket: Option<Lend<TcpListener>>,
    /// The API, as the node.
    pub connect: Connect,
    /// What runs on the node.
    pub pods: Pods,
    /// The container runtime.
    pub cri: Cri,
    /// Who measures.
    pub figures: Arc<dyn Figures>,
    /// How the node's loops are.
    pub checks: Checks,
    /// What configuration is in effect.
    pub configz: Configz,
    /// Time.
    pub clock: Clock,
}

impl<E> fmt::Debug for ServerArgs<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerArgs").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Puts the server together. Nothing runs yet. The sockets belong to whoever calls this, and are lent, so that no
/// restart refuses a connection.
#[must_use]
pub fn tree<E: Entrance>(args: ServerArgs<E>) -> Spec {
    let ServerArgs { config, socket, tls, health_socket, connect, pods, cri, figures, checks, configz, clock } = args;
    let mut tls = TlsConfig::clone(&tls);
    // Streams need a connection of their own, so there is nothing to gain from HTTP/2.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let access = AccessArgs { connect, node: config.node_name.clone(), limits: config.access };
    let places = Arc::new(Semaphore::new(config.connections_max.max(1)));
    let fittings = Arc::new(Fittings { config, pods, cri, figures, checks, configz, clock });
    let secure = Door { socket, tls: Some(Arc::new(tls)), fittings: fittings.clone(), places: places.clone() };
    let spec = Spec::new(Strategy::RestForOne)
        .budget(20, Duration::from_secs(60))
        .child(worker::<Access>("access", access))
        .child(subtree("connections", Spec::new(Strategy::Dynamic)))
        .child(task("listener", move |handle| listen(handle, secure.clone())));
    let Some(socket) = health_socket else { return spec };
    let health = Door { socket, tls: None, fittings, places };
    spec.child(task("listener-health", move |handle| listen(handle, health.clone())))
}
