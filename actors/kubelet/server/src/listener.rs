//! Accepts connections, and has a task started for each.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::lend::{Lend, Loan};
use k3sd_runtime::{ActorError, Restart, Shutdown, TaskHandle, task};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig as TlsConfig;

use crate::access::{AccessHandle, User};
use crate::connection::{Peer, serve};
use crate::desk::{Desk, Fittings};
use crate::entrance::Entrance;

/// How long starting a connection's task may take.
const SEAT_LIMIT: Duration = Duration::from_secs(5);
/// The pause after a failed accept: too many open files, which passes.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How long shaking hands may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// A socket, and what is served on it.
pub(crate) struct Door<E> {
    /// Outlives the actor that accepts on it.
    pub(crate) socket: Lend<E>,
    /// How hands are shaken; without it only health is served, to everybody.
    pub(crate) tls: Option<Arc<TlsConfig>>,
    pub(crate) fittings: Arc<Fittings>,
    /// Places for connections, of all doors together.
    pub(crate) places: Arc<Semaphore>,
}

impl<E> Clone for Door<E> {
    fn clone(&self) -> Self {
        let Self { socket, tls, fittings, places } = self;
        Self { socket: socket.clone(), tls: tls.clone(), fittings: fittings.clone(), places: places.clone() }
    }
}

impl<E> fmt::Debug for Door<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

/// Somebody who was let in, and with whom nobody has spoken yet.
struct Guest<S> {
    stream: S,
    /// Let go with the connection.
    place: OwnedSemaphorePermit,
}

/// The path of a sibling of whoever has this path.
fn beside(path: &str, name: &str) -> String {
    path.rfind('/').map_or_else(|| name.to_owned(), |slash| format!("{}/{name}", &path[..slash]))
}

/// The body of the listener's task.
pub(crate) async fn listen<E: Entrance>(handle: TaskHandle, door: Door<E>) -> Result<(), ActorError> {
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
            Ok(stream) => stream,
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
                    greet::<E>(stream, tls, desk).await;
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

/// Shakes hands, learns who is there, and serves.
async fn greet<E: Entrance>(stream: E::Stream, tls: Option<Arc<TlsConfig>>, desk: Arc<Desk>) {
    if let Err(error) = E::set_up(&stream) {
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
