//! The inspector: the part of a tree that answers on the inspection socket.
//!
//! ```text
//! inspector       rest_for_one
//! ├─ connections  dynamic: one task per connection, temporary
//! └─ listener     accepts, and asks `connections` for a task each time
//! ```
//!
//! Owns:    nothing but the connections; the listening socket is lent to it, and an accepted connection waits in a place
//!          that outlives the listener. So a restart of any part refuses no connection, though it may cut those in service.
//! Needs:   no sibling; it reads the cells of the tree, which are there as long as the tree is.
//! Restart: permanent. `connections` comes first and takes the listener along, which hands new guests to it.
//! Fails:   never because of a guest: malformed requests, stalled readers and a crowd end a connection, or get a refusal.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::routes::Desk;
use crate::cell::lock;
use crate::error::TreeError;
use crate::exit::ActorError;
use crate::launch::{TaskHandle, subtree, task};
use crate::lend::Lend;
use crate::spec::{Restart, Spec, Strategy};
use crate::supervisor::SupervisorRef;
use crate::system::ROOT;

/// Connections served at once; a person with a few terminals needs ten. Further ones are told to come back.
pub const CONNECTIONS_MAX: usize = 32;

/// Connections that are being told so. Beyond, guests wait in the kernel's queue.
const REFUSALS_MAX: usize = 16;

/// A request's header has to be there by then.
const HEADER_LIMIT: Duration = Duration::from_secs(5);

/// A connection is over by then, unless its answer is a stream.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Bytes read ahead per connection, so also the longest header.
const READ_BYTES_MAX: usize = 16 * 1024;

/// How long starting a connection's task may take.
const SEAT_LIMIT: Duration = Duration::from_secs(5);

/// The pause after a failed accept or a failed start. Both pass: too many open files, a supervisor between two lives.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// What the inspector is started, and restarted, with.
#[derive(Clone, Debug)]
pub struct InspectorArgs {
    /// The listening socket; see [`bind`](super::bind).
    pub listener: Lend<UnixListener>,
    /// Whether kill, suspend and resume are carried out.
    pub control: bool,
}

/// Outlives the listener's incarnations.
struct Hall {
    args: InspectorArgs,
    /// One permit per connection, being served or refused.
    room: Arc<Semaphore>,
    /// One permit per connection that is served.
    seats: Arc<Semaphore>,
    /// The connection that was accepted and has no task yet.
    waiting: Mutex<Option<Guest>>,
    guests: AtomicU64,
}

/// An accepted connection and its place, which is free again when this is dropped.
struct Guest {
    stream: UnixStream,
    seat: Option<OwnedSemaphorePermit>,
    _room: OwnedSemaphorePermit,
}

/// The inspector, as a subtree for any place in the tree that it shows.
pub fn tree(args: InspectorArgs) -> Spec {
    let hall = Arc::new(Hall {
        args,
        room: Arc::new(Semaphore::new(CONNECTIONS_MAX + REFUSALS_MAX)),
        seats: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        waiting: Mutex::new(None),
        guests: AtomicU64::new(0),
    });
    Spec::new(Strategy::RestForOne)
        .child(subtree("connections", Spec::new(Strategy::Dynamic)))
        .child(task("listener", move |handle| listen(handle, hall.clone())))
}

/// The path one level up.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or(ROOT, |(parent, _)| parent)
}

async fn listen(handle: TaskHandle, hall: Arc<Hall>) -> Result<(), ActorError> {
    let listener = hall.args.listener.borrow()?;
    let connections = match parent(handle.path()) {
        ROOT => "connections".to_owned(),
        inspector => format!("{inspector}/connections"),
    };
    let connections = handle.system().supervisor(&connections)?;
    let clock = handle.system().clock().clone();
    loop {
        // First, as a former life may have left somebody.
        while let Err(error) = hall.seat(&connections).await {
            tracing::debug!(%error, "no task for an inspection connection yet");
            clock.sleep_until(clock.now() + RETRY_DELAY).await;
        }
        let room = hall.room.clone().acquire_owned().await?;
        // From here to the next await nothing can interrupt, so whoever was accepted is seated.
        match listener.accept().await {
            Ok((stream, _)) => {
                let seat = hall.seats.clone().try_acquire_owned().ok();
                *lock(&hall.waiting) = Some(Guest { stream, seat, _room: room });
            }
            Err(error) => {
                tracing::warn!(%error, "the inspection socket accepted nobody");
                clock.sleep_until(clock.now() + RETRY_DELAY).await;
            }
        }
    }
}

impl Hall {
    /// Has a task started for whoever waits.
    async fn seat(self: &Arc<Self>, connections: &SupervisorRef) -> Result<(), TreeError> {
        if lock(&self.waiting).is_none() {
            return Ok(());
        }
        let number = self.guests.fetch_add(1, Relaxed);
        let hall = self.clone();
        let child = task(&format!("c{number}"), move |handle| {
            // Taken at the start, so it is gone from there when `add` has answered.
            let guest = lock(&hall.waiting).take();
            let desk = Desk {
                system: handle.system().clone(),
                inspector: parent(parent(handle.path())).to_owned(),
                control: hall.args.control,
                full: guest.as_ref().is_some_and(|guest| guest.seat.is_none()),
                streaming: AtomicBool::new(false),
                parting: Mutex::new(None),
            };
            async move {
                if let Some(guest) = guest {
                    serve(Arc::new(desk), guest).await;
                }
                Ok(())
            }
        });
        connections.add(SEAT_LIMIT, child.restart(Restart::Temporary)).await
    }
}

/// Answers one request. There is no keep-alive, so nobody idles on a place.
async fn serve(desk: Arc<Desk>, guest: Guest) {
    let clerk = desk.clone();
    let service = service_fn(move |request| {
        let clerk = clerk.clone();
        async move { Ok::<_, Infallible>(clerk.answer(&request)) }
    });
    let Guest { stream, seat, _room } = guest;
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .keep_alive(false)
        .max_buf_size(READ_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let outcome = match timeout(ANSWER_LIMIT, connection.as_mut()).await {
        Ok(outcome) => outcome,
        Err(_) if desk.streaming.load(Relaxed) => connection.await,
        Err(_) => {
            tracing::debug!("an inspection client took too long");
            Ok(())
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "an inspection connection broke off");
    }
    desk.part();
    drop(seat);
}
