//! Accepts connections, and has a task started for each.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::lend::{Lend, Loan};
use k3sd_runtime::{ActorError, Restart, Shutdown, TaskHandle, task};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::{Acceptor, ResolvesServerCert};
use tokio_rustls::server::TlsStream;

use super::certificate::ClientCertificate;
use super::connection::serve;
use super::tls::{Learn, Reached};
use crate::pipeline::{Peer, Pipeline};

/// How long starting a connection's task may take.
const SEAT_LIMIT: Duration = Duration::from_secs(5);
/// The pause after a failed accept: too many open files, which passes.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How long shaking hands may take, learning a name included.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A connection on which nothing comes is probed after this long, and then so often; hosts that vanished without a word
/// are noticed after three probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// A socket to listen on, and what is shown there.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The last segment of its actor's path, such as `listener-6443`.
    pub name: String,
    /// The socket. It outlives the actor that accepts on it.
    pub socket: Lend<TcpListener>,
    /// The certificate, the current one at each handshake.
    pub certificate: Arc<dyn ResolvesServerCert>,
    /// Who is told by which names clients come.
    pub learn: Option<Learn>,
}

/// What each listener is given.
#[derive(Clone, Debug)]
pub(crate) struct Listening {
    pub(crate) endpoint: Endpoint,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) pipeline: Pipeline,
    /// Places for connections, of all listeners together.
    pub(crate) places: Arc<Semaphore>,
}

/// Somebody who was let in, and with whom nobody has spoken yet.
struct Guest {
    stream: TcpStream,
    from: SocketAddr,
    /// Let go with the connection.
    place: OwnedSemaphorePermit,
}

/// The body of the listener's task.
pub(crate) async fn listen(handle: TaskHandle, listening: Listening) -> Result<(), ActorError> {
    let socket = listening.endpoint.socket.borrow()?;
    // Its own place is `…/listeners/name`, and theirs `…/connections`.
    let above = handle.path().rmatch_indices('/').nth(1).map_or(0, |(slash, _)| slash + 1);
    let connections = handle.system().supervisor(&format!("{}connections", &handle.path()[..above]))?;
    let clock = handle.system().clock().clone();
    let short = listening.endpoint.name.replace("listener", "c");
    let mut number = 0_u64;
    loop {
        // Whoever comes when all places are taken waits in the socket's queue.
        let place = listening.places.clone().acquire_owned().await?;
        let (stream, from) = match socket.accept().await {
            Ok(guest) => guest,
            Err(error) => {
                tracing::warn!(%error, "the API's socket accepted nobody");
                clock.sleep_until(clock.now() + RETRY_DELAY).await;
                continue;
            }
        };
        let guest = Lend::new(Guest { stream, from, place });
        // The incarnation's time makes the name unique across restarts of this task.
        let name = format!("{short}-{number}-{}", clock.now().as_nanos());
        number += 1;
        let listening = listening.clone();
        let child = task(&name, move |handle| {
            // Taken at the start, so there is no second life for it.
            let guest = guest.borrow().ok().map(Loan::keep);
            let (listening, clock) = (listening.clone(), handle.system().clock().clone());
            async move {
                let Some(Guest { stream, from, place }) = guest else { return Ok(()) };
                let shaken = tokio::time::timeout(HANDSHAKE_LIMIT, greet(stream, from, &listening)).await;
                match shaken {
                    Ok(Ok((stream, peer))) => serve(stream, peer, listening.pipeline, clock).await,
                    Ok(Err(error)) => tracing::debug!(%error, %from, "a client did not shake hands"),
                    Err(_) => tracing::debug!(%from, "a client did not shake hands in time"),
                }
                drop(place);
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

/// Shakes hands, and learns who is there.
async fn greet(
    stream: TcpStream,
    from: SocketAddr,
    listening: &Listening,
) -> std::io::Result<(TlsStream<TcpStream>, Peer)> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&stream, 3)?;
    let reached = stream.local_addr()?;
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    if let Some(learn) = &listening.endpoint.learn {
        let name = hello.client_hello().server_name().map(|name| Reached::Host(name.to_owned()));
        let address = Reached::Address(unmapped(reached.ip()));
        learn.tell(name.into_iter().chain([address]).collect()).await;
    }
    let stream = hello.into_stream(listening.tls.clone()).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let pipeline = &listening.pipeline;
    let certificate = ClientCertificate::new(chain, pipeline.authorities(), pipeline.clock().wall());
    let from = SocketAddr::new(unmapped(from.ip()), from.port());
    Ok((stream, Peer::remote(from, certificate)))
}

/// An IPv4 address that came in over a socket of IPv6, as itself.
fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
