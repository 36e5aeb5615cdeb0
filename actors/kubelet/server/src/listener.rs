//! Accepts connections, and has a task started for each.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::lend::{Lend, Loan};
use k3sd_runtime::{ActorError, Restart, Shutdown, TaskHandle, task};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig as TlsConfig;

use crate::access::{AccessHandle, User};
use crate::connection::{Peer, serve};
use crate::desk::{Desk, Fittings};

/// How long starting a connection's task may take.
const SEAT_LIMIT: Duration = Duration::from_secs(5);
/// The pause after a failed accept: too many open files, which passes.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How long shaking hands may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A connection on which nothing comes is probed after this long, and then so often; who vanished without a word is
/// noticed after three probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// A socket, and what is served on it.
#[derive(Clone)]
pub(crate) struct Door {
    /// Outlives the actor that accepts on it.
    pub(crate) socket: Lend<TcpListener>,
    /// How hands are shaken; without it only health is served, to everybody.
    pub(crate) tls: Option<Arc<TlsConfig>>,
    pub(crate) fittings: Arc<Fittings>,
    /// Places for connections, of all doors together.
    pub(crate) places: Arc<Semaphore>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

/// Somebody who was let in, and with whom nobody has spoken yet.
struct Guest {
    stream: TcpStream,
    /// Let go with the connection.
    place: OwnedSemaphorePermit,
}

/// The path of a sibling of whoever has this path.
fn beside(path: &str, name: &str) -> String {
    path.rfind('/').map_or_else(|| name.to_owned(), |slash| format!("{}/{name}", &path[..slash]))
}

/// The body of the listener's task.
pub(crate) async fn listen(handle: TaskHandle, door: Door) -> Result<(), ActorError> {
    let socket = door.socket.borrow()?;
    let connections = handle.system().supervisor(&beside(handle.path(), "connections"))?;
    let access = AccessHandle(handle.system().address(&beside(handle.path(), "access"))?);
    let desk = Arc::new(Desk::new(door.fittings.clone(), access, door.tls.is_some()));
    let clock = handle.system().clock().clone();
    let short = handle.path().rsplit('/').next().unwrap_or_default().replace("listener", "c");
    let mut number = 0_u64;
    loop {
        // Whoever comes when all places are taken waits in the socket's queue.
        let place = door.places.clone().acquire_owned().await?;
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the kubelet's socket accepted nobody");
                clock.sleep_until(clock.now() + RETRY_DELAY).await;
                continue;
            }
        };
        let guest = Lend::new(Guest { stream, place });
        // The incarnation's time makes the name unique across restarts of this task.
        let name = format!("{short}-{number}-{}", clock.now().as_nanos());
        number += 1;
        let (desk, tls) = (desk.clone(), door.tls.clone());
        let child = task(&name, move |_| {
            // Taken at the start, so there is no second life for it.
            let guest = guest.borrow().ok().map(Loan::keep);
            let (desk, tls) = (desk.clone(), tls.clone());
            async move {
                if let Some(Guest { stream, place }) = guest {
                    greet(stream, tls, desk).await;
                    drop(place);
                }
                Ok(())
            }
        });
        let child = child.restart(Restart::Temporary).shutdown(Shutdown::Brutal);
        if let Err(error) = connections.add(SEAT_LIMIT, child).await {
            // The client sees a closed connection, and comes again.
            tracing::debug!(%error, "no task for a connection");
        }
    }
}

fn set_up(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    Ok(sockopt::set_tcp_keepcnt(stream, 3)?)
}

/// Shakes hands, learns who is there, and serves.
async fn greet(stream: TcpStream, tls: Option<Arc<TlsConfig>>, desk: Arc<Desk>) {
    if let Err(error) = set_up(&stream) {
        tracing::debug!(%error, "a connection could not be set up");
        return;
    }
    let Some(tls) = tls else {
        return serve(stream, Peer { user: None }, desk).await;
    };
    match tokio::time::timeout(HANDSHAKE_LIMIT, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let user = certificates.first().and_then(|own| User::of_certificate(own)).map(Arc::new);
            serve(stream, Peer { user }, desk).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a client did not shake hands"),
        Err(_) => tracing::debug!("a client did not shake hands in time"),
    }
}
