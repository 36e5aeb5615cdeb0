//! Answers by UDP.
//!
//! Owns:    nothing; its socket is lent to it, and what waits there waits for its successor.
//! Needs:   the published view, and the resolver for what isn't in it.
//! Restart: permanent. Questions that wait for others are lost; who asked asks again.
//! Fails:   when its socket is broken.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;

use k3sd_runtime::lend::Lend;
use k3sd_runtime::{ActorError, ChildSpec, Rng, TaskHandle, task};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::{Answering, Outcome, Pending, Source, complete, respond};
use crate::resolver::{Answer, Asking, Told};

/// Questions that wait for others, at most. More are answered with a failure.
const PENDING_MAX: usize = 2048;
/// Questions that are answered before anybody else gets a turn.
const BATCH: usize = 64;
/// Bytes of the longest question; longer ones make no sense.
const QUESTION_BYTES_MAX: usize = 4096;

/// A worker, as a child.
pub(crate) fn udp_server(name: &str, socket: Lend<UdpSocket>, answering: Answering) -> ChildSpec {
    task(name, move |handle| serve(handle, socket.clone(), answering.clone()))
}

struct Worker {
    answering: Answering,
    rng: Rng,
    pending: HashMap<u64, (SocketAddr, Box<Pending>)>,
    tickets: u64,
    back: mpsc::Sender<Told>,
    out: Vec<u8>,
}

async fn serve(handle: TaskHandle, socket: Lend<UdpSocket>, answering: Answering) -> Result<(), ActorError> {
    let socket = socket.borrow()?;
    let (back, mut told) = mpsc::channel(PENDING_MAX);
    let out = Vec::with_capacity(QUESTION_BYTES_MAX);
    let mut worker = Worker { answering, rng: handle.rng(), pending: HashMap::new(), tickets: 0, back, out };
    let mut buffer = vec![0; QUESTION_BYTES_MAX];
    loop {
        tokio::select! {
            ready = socket.readable() => {
                ready?;
                worker.receive(&socket, &mut buffer)?;
            }
            Some(told) = told.recv() => worker.answered(&socket, &told),
        }
    }
}

impl Worker {
    fn receive(&mut self, socket: &UdpSocket, buffer: &mut [u8]) -> Result<(), ActorError> {
        let view = self.answering.view.borrow().clone();
        for _ in 0..BATCH {
            let (length, peer) = match socket.try_recv_from(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // What an earlier answer met on its way; the next question has nothing to do with it.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::Interrupted) => continue,
                Err(error) => return Err(error.into()),
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            // Nobody asks from there; an answer would go round in circles.
            if peer.port() == 0 {
                continue;
            }
            self.out.clear();
            let source = Source { peer, is_tcp: false };
            match respond(bytes, source, &view, &self.answering.own, &mut self.rng, &mut self.out) {
                Outcome::Answered => send(socket, &self.out, peer),
                Outcome::Silence => {}
                Outcome::Ask(ask, pending) => {
                    self.tickets += 1;
                    let asking = Asking { ask, ticket: self.tickets, back: self.back.clone(), peer: peer.ip() };
                    let is_taken = self.pending.len() < PENDING_MAX && self.answering.resolver.try_send(asking).is_ok();
                    if is_taken {
                        self.pending.insert(self.tickets, (peer, pending));
                    } else {
                        complete(&pending, &Answer::failure(), None, &mut self.rng, &mut self.out);
                        send(socket, &self.out, peer);
                    }
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, socket: &UdpSocket, told: &Told) {
        let Some((peer, pending)) = self.pending.remove(&told.ticket) else { return };
        self.out.clear();
        complete(&pending, &told.answer, told.ttl, &mut self.rng, &mut self.out);
        send(socket, &self.out, peer);
    }
}

/// An answer that finds no room is lost, as any datagram may be.
fn send(socket: &UdpSocket, bytes: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.try_send_to(bytes, peer) {
        tracing::debug!(%peer, %error, "an answer could not be sent");
    }
}
