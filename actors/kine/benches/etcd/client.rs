//! A gRPC client that costs little. All of it runs on the one thread that measures, so that the other core is the
//! server's.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::http2::{Arrival, Connection};
use crate::table::Times;
use crate::wire::{Put, Range, WatchRequest, WatchResponse, framed};

/// No call of a measurement takes longer, unless something is broken.
const CALL_LIMIT: Duration = Duration::from_secs(120);

// The calls that are measured.
const PUT: &str = "/etcdserverpb.KV/Put";
pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(crate) const COMPACT: &str = "/etcdserverpb.KV/Compact";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the connection failed")]
    Connect(#[source] std::io::Error),
    #[error("the connection broke: {0}")]
    Broken(&'static str),
    #[error("the server said no: {headers}")]
    Refused { headers: String },
    #[error("no answer within {CALL_LIMIT:?}")]
    Late,
    #[error("the answer makes no sense")]
    Senseless(#[from] prost::DecodeError),
    #[error("the server closed the connection")]
    Ended,
}

/// One connection to a server, for one call after another, or for many at once of the same kind.
pub(crate) struct Client(Connection);

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self, CallError> {
        Connection::open(address).await.map(Self).map_err(CallError::Connect)
    }

    /// Asks once, and shows each piece of the answer as it comes.
    pub(crate) async fn call(
        &mut self,
        path: &str,
        message: Bytes,
        mut show: impl FnMut(&[u8]),
    ) -> Result<(), CallError> {
        let (connection, mut done) = (&mut self.0, false);
        let call = connection.begin(path, message, true);
        let work = async {
            while !done {
                let taken = |arrival: Arrival<'_>| match arrival {
                    Arrival::Piece(id, piece) if id == call => show(piece),
                    Arrival::Done(id) => done |= id == call,
                    Arrival::Piece(..) => {}
                };
                connection.receive(taken).await?;
            }
            Ok(())
        };
        tokio::time::timeout(CALL_LIMIT, work).await.map_err(|_| CallError::Late)?
    }

    /// Writes a key.
    pub(crate) async fn put(&mut self, key: String, value: Bytes) -> Result<(), CallError> {
        self.call(PUT, framed(&Put { key: key.into(), value }), |_| ()).await
    }

    /// Puts of so many clients at once. Whoever has an answer asks for its next key, and writes that at once. How long
    /// each took.
    pub(crate) async fn puts(
        &mut self,
        clients: usize,
        mut next: impl FnMut(usize) -> Option<String>,
        value: &Bytes,
    ) -> Result<Times, CallError> {
        let connection = &mut self.0;
        let (mut times, mut under_way) = (Times::default(), HashMap::new());
        let mut free: Vec<usize> = (0..clients).collect();
        loop {
            for client in free.drain(..) {
                if let Some(key) = next(client) {
                    let message = framed(&Put { key: key.into(), value: value.clone() });
                    under_way.insert(connection.begin(PUT, message, true), (client, Instant::now()));
                }
            }
            if under_way.is_empty() {
                return Ok(times);
            }
            let taken = |arrival: Arrival<'_>| {
                if let Arrival::Done(id) = arrival
                    && let Some((client, begun)) = under_way.remove(&id)
                {
                    times.push(begun.elapsed());
                    free.push(client);
                }
            };
            tokio::time::timeout(CALL_LIMIT, connection.receive(taken)).await.map_err(|_| CallError::Late)??;
        }
    }

    /// Begins to follow a range, and comes back when the server has seen to it.
    pub(crate) async fn watch(mut self, range: Range) -> Result<Watch, CallError> {
        let request = framed(&WatchRequest { create: Some(range) });
        let call = self.0.begin(WATCH, request, false);
        let mut watch = Watch { connection: self.0, call, buffer: BytesMut::new() };
        while !watch.next().await?.created {}
        Ok(watch)
    }
}

/// A watch under way.
pub(crate) struct Watch {
    connection: Connection,
    call: u32,
    buffer: BytesMut,
}

impl Watch {
    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<WatchResponse, CallError> {
        let Self { connection, call, buffer } = self;
        loop {
            if let Some(length) = buffer.get(1..5) {
                let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
                if buffer.len() >= length + 5 {
                    let message = buffer.split_to(length + 5).split_off(5);
                    return Ok(prost::Message::decode(message)?);
                }
            }
            let mut ended = false;
            let taken = |arrival: Arrival<'_>| match arrival {
                Arrival::Piece(id, piece) if id == *call => buffer.extend_from_slice(piece),
                Arrival::Done(id) => ended |= id == *call,
                Arrival::Piece(..) => {}
            };
            connection.receive(taken).await?;
            if ended {
                return Err(CallError::Ended);
            }
        }
    }
}
