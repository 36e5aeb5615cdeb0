//! Answers by TCP: connections with as many questions as a client likes, answered as their answers come.
//!
//! Owns:    its connections; its listening socket is lent to it.
//! Needs:   the published view, and the resolver for what isn't in it.
//! Restart: permanent. Connections end, and clients connect again.
//! Fails:   when its socket is broken.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{ActorError, ChildSpec, Clock, Rng, TaskHandle, task};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Answering, Outcome, Pending, Source, complete, respond};
use crate::resolver::{Answer, Asking, Told};

/// Connections at once, and of one client.
const CONNECTIONS_MAX: usize = 256;
const CONNECTIONS_PER_PEER_MAX: usize = 32;
/// Questions of a connection that wait for others, at most. Nothing more is read meanwhile.
const PENDING_MAX: usize = 64;
/// How long a client may say nothing, or take nothing.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of the longest question with its length; a longer one ends the connection.
const QUESTION_BYTES_MAX: usize = 4096;
/// Bytes that are read at once.
const READ_BYTES: usize = 2 * QUESTION_BYTES_MAX;
/// After a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server, as a child.
pub(crate) fn tcp_server(name: &str, listener: Lend<TcpListener>, answering: Answering) -> ChildSpec {
    task(name, move |handle| serve(handle, listener.clone(), answering.clone()))
}

async fn serve(handle: TaskHandle, listener: Lend<TcpListener>, answering: Answering) -> Result<(), ActorError> {
    let listener = listener.borrow()?;
    let clock = handle.system().clock().clone();
    let mut rng = handle.rng();
    let mut connections = FuturesUnordered::new();
    let mut peers: HashMap<IpAddr, usize> = HashMap::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, peer)) => {
                    let count = peers.entry(peer.ip()).or_default();
                    if *count < CONNECTIONS_PER_PEER_MAX {
                        *count += 1;
                        let (answering, rng) = (answering.clone(), Rng::seeded(rng.next_u64()));
                        connections.push(async move {
                            Connection::new(peer, answering, rng).run(stream).await;
                            peer.ip()
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted");
                    pause(&clock).await;
                }
            },
            Some(peer) = connections.next() => {
                if let Some(count) = peers.get_mut(&peer) {
                    *count -= 1;
                    if *count == 0 {
                        peers.remove(&peer);
                    }
                }
            }
        }
    }
}

async fn pause(clock: &Clock) {
    clock.sleep_until(clock.now() + ACCEPT_PAUSE).await;
}

struct Connection {
    peer: SocketAddr,
    answering: Answering,
    rng: Rng,
    pending: HashMap<u64, Box<Pending>>,
    tickets: u64,
    back: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    /// Answers with their lengths, to be written.
    out: Vec<u8>,
}

impl Connection {
    fn new(peer: SocketAddr, answering: Answering, rng: Rng) -> Self {
        let (back, told) = mpsc::channel(PENDING_MAX);
        Self { peer, answering, rng, pending: HashMap::new(), tickets: 0, back, told, out: Vec::new() }
    }

    async fn run(mut self, mut stream: TcpStream) {
        let mut input: Vec<u8> = Vec::new();
        let mut is_open = true;
        while is_open || !self.pending.is_empty() {
            let may_read = is_open && self.pending.len() < PENDING_MAX;
            let mut buffer = [0; READ_BYTES];
            tokio::select! {
                read = timeout(IDLE_LIMIT, stream.read(&mut buffer)), if may_read => match read {
                    Ok(Ok(length @ 1..)) => input.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                    // Nothing more comes, but what was asked is answered.
                    _ => is_open = false,
                },
                Some(told) = self.told.recv() => self.answered(&told),
            }
            if !self.questions(&mut input) {
                return;
            }
            if !self.out.is_empty() {
                if !matches!(timeout(IDLE_LIMIT, stream.write_all(&self.out)).await, Ok(Ok(()))) {
                    return;
                }
                self.out.clear();
            }
        }
    }

    /// Answers all whole questions of the input. Whether the client makes sense.
    fn questions(&mut self, input: &mut Vec<u8>) -> bool {
        let view = self.answering.view.borrow().clone();
        let mut at = 0;
        while self.pending.len() < PENDING_MAX
            && let Some(length) = crate::wire::u16_at(input, at).map(usize::from)
        {
            if length > QUESTION_BYTES_MAX {
                return false;
            }
            let Some(bytes) = input.get(at + 2..at + 2 + length) else { break };
            at += 2 + length;
            self.question(bytes, &view);
        }
        input.drain(..at);
        true
    }

    fn question(&mut self, bytes: &[u8], view: &Arc<crate::keeper::View>) {
        let source = Source { peer: self.peer, is_tcp: true };
        let begin = self.out.len();
        self.out.extend_from_slice(&[0, 0]);
        match respond(bytes, source, view, &self.answering.own, &mut self.rng, &mut self.out) {
            Outcome::Answered => self.end_answer(begin),
            Outcome::Silence => self.out.truncate(begin),
            Outcome::Ask(ask, pending) => {
                self.tickets += 1;
                let (ticket, back) = (self.tickets, self.back.clone());
                let asking = Asking { ask, ticket, back, peer: self.peer.ip() };
                if self.answering.resolver.try_send(asking).is_ok() {
                    self.out.truncate(begin);
                    self.pending.insert(ticket, pending);
                } else {
                    complete(&pending, &Answer::failure(), None, &mut self.rng, &mut self.out);
                    self.end_answer(begin);
                }
            }
        }
    }

    fn answered(&mut self, told: &Told) {
        let Some(pending) = self.pending.remove(&told.ticket) else { return };
        let begin = self.out.len();
        self.out.extend_from_slice(&[0, 0]);
        complete(&pending, &told.answer, told.ttl, &mut self.rng, &mut self.out);
        self.end_answer(begin);
    }

    /// Fills the length in before an answer.
    fn end_answer(&mut self, begin: usize) {
        let length = u16::try_from(self.out.len() - begin - 2).unwrap_or(u16::MAX);
        if let Some(place) = self.out.get_mut(begin..begin + 2) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }
}
