//! Ports at which others ask whether a service has endpoints on this node.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Response;
use k3sd_netlink::Namespace;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{ActorError, TaskHandle};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::answer::{Body, Pages, service_page};
use super::listener::{Crowd, bind};
use super::meters::Meters;
use crate::model::HealthPort;
use crate::sync::warning;

/// When a port that was taken is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(30);

/// Open sockets by port. They outlive the task that serves them.
pub(crate) type Sockets = BTreeMap<u16, TcpListener>;

type Wanted = Arc<BTreeMap<u16, HealthPort>>;

/// At every address, of both families where there are both.
fn open(namespace: Option<&Namespace>, port: u16) -> Option<TcpListener> {
    let both = bind(namespace, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port));
    let socket = both.or_else(|_| bind(namespace, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)));
    match socket {
        Ok(socket) => Some(socket),
        Err(error) => {
            tracing::warn!(port, reason = warning(&error), "load balancers can't ask about a service");
            None
        }
    }
}

async fn accept(sockets: &Sockets) -> (u16, io::Result<TcpStream>) {
    poll_fn(|context| {
        for (port, socket) in sockets {
            if let Poll::Ready(accepted) = socket.poll_accept(context) {
                return Poll::Ready((*port, accepted.map(|(stream, _)| stream)));
            }
        }
        Poll::Pending
    })
    .await
}

fn pages(port: u16, wanted: &watch::Receiver<Wanted>, meters: &Arc<Meters>) -> Pages {
    let (wanted, meters) = (wanted.clone(), meters.clone());
    Arc::new(move |_| match wanted.borrow().get(&port) {
        Some(health) => service_page(health, meters.is_healthy()),
        // The service went while the connection was open.
        None => {
            let mut gone = Response::new(Body::default());
            *gone.status_mut() = http::StatusCode::NOT_FOUND;
            gone
        }
    })
}

/// The body of the task: as many sockets as there are ports, and who asks there.
pub(crate) async fn serve_ports(
    handle: TaskHandle,
    namespace: Option<PathBuf>,
    mut wanted: watch::Receiver<Wanted>,
    sockets: Lend<Sockets>,
    meters: Arc<Meters>,
) -> Result<(), ActorError> {
    let mut sockets = sockets.borrow()?;
    let clock = handle.system().clock().clone();
    let namespace = namespace.as_deref().map(Namespace::open).transpose()?;
    let mut crowd = Crowd::default();
    loop {
        let ports = wanted.borrow_and_update().clone();
        sockets.retain(|port, _| ports.contains_key(port));
        for port in ports.keys() {
            if !sockets.contains_key(port)
                && let Some(socket) = open(namespace.as_ref(), *port)
            {
                sockets.insert(*port, socket);
            }
        }
        let is_short = sockets.len() < ports.len();
        handle.note(vec![format!("ports: {} of {}", sockets.len(), ports.len())]);
        let retry = clock.now() + RETRY_DELAY;
        loop {
            tokio::select! {
                changed = wanted.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return Ok(()),
                },
                () = clock.sleep_until(retry), if is_short => break,
                () = crowd.one_leaves() => {}
                (port, accepted) = accept(&sockets), if !crowd.is_full() => match accepted {
                    Ok(stream) => crowd.let_in(stream, pages(port, &wanted, &meters)),
                    Err(error) => {
                        tracing::warn!(%error, "the socket for questions about a service accepted nobody");
                        clock.sleep_until(clock.now() + Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }
}
